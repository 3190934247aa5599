"""Building blocks of StyleGAN2: equalised linear and convolution, modulated convolution, FIR; and
one of plain U-Nets.

Source: Karras et al. 2020, arXiv:1912.04958 (StyleGAN2).
Departs: modulation scales the activations and demodulation the results, which is the same
function as scaling the weights, and keeps one convolution for the whole batch.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SLOPE = 0.2  # of the leaky ReLU below zero
GAIN = math.sqrt(2.0)  # keeps the variance across a leaky ReLU


def activate(x: Tensor) -> Tensor:
    """Leaky ReLU that keeps the variance."""
    return F.leaky_relu(x, SLOPE) * GAIN


def normalize(x: Tensor) -> Tensor:
    """Rows [N,D] to a mean square of one."""
    return x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt()


class Linear(nn.Module):
    """y = x W^T / sqrt(inputs) + b: unit-variance weights, scaled when used.

    Args: bias: initial value. rate: factor on the learning rate. scale: of the initial weights.
    """

    def __init__(
        self, inputs: int, outputs: int, bias: float = 0.0, rate: float = 1.0, scale: float = 1.0
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) * (scale / rate))
        self.bias = nn.Parameter(torch.full([outputs], bias / rate))
        self.gain = rate / math.sqrt(inputs)
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.gain, self.bias * self.rate)


class Conv(nn.Module):
    """Equalised convolution [N,I,H,W] -> [N,O,H/stride,W/stride], leaky ReLU unless `linear`."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, linear: bool = False
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.gain = 1.0 / math.sqrt(inputs * kernel * kernel)
        self.stride, self.padding, self.linear = stride, kernel // 2, linear

    def forward(self, x: Tensor) -> Tensor:
        y = F.conv2d(x, self.weight * self.gain, self.bias, self.stride, self.padding)
        return y if self.linear else activate(y)


class ModulatedConv(nn.Module):
    """Convolution whose input channels are scaled by a style.

        s = affine(w);  y_o = d_o sum_i W_oi * (s_i x_i) + noise + b_o;  d_o = 1 / |W_o s|

    Args:
        kernel: side of the kernel. up: 2 doubles the resolution (transposed, then FIR).
        normal: demodulate (d; else 1) and activate; False for the 1x1 layers that write pictures.
        shift: the style moves the results too, b_o(w): the short way for the colour of a whole.
        scale: of the initial weights. clamp: bound of the results, before the activation's gain.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        w_dim: int,
        kernel: int = 3,
        up: int = 1,
        normal: bool = True,
        shift: bool = False,
        scale: float = 1.0,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.affine = Linear(w_dim, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel) * scale)
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.shift = Linear(w_dim, outputs, scale=0.1) if shift else None
        self.gain = 1.0 / math.sqrt(inputs * kernel * kernel)
        self.up, self.padding, self.normal, self.clamp = up, kernel // 2, normal, clamp

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None = None) -> Tensor:
        """x [N,I,H,W], w [N,w_dim], noise [N or 1,1,H*up,W*up] -> [N,O,H*up,W*up]."""
        # The weights' gain rides on the styles: there are fewer of them.
        style = self.affine(w) * self.gain
        y = self._convolve(x * style[:, :, None, None].to(x.dtype))
        if self.shift is not None:
            y = y + self.shift(w)[:, :, None, None].to(y.dtype)
        if not self.normal:
            y = y + self.bias.to(y.dtype)[:, None, None]
            return y if self.clamp is None else y.clamp(-self.clamp, self.clamp)
        scale = self.demodulation(style)[:, :, None, None].to(y.dtype)
        y = torch.addcmul((self.bias * GAIN).to(y.dtype)[:, None, None], y, scale)
        if noise is not None:
            y = y.add_(noise.to(y.dtype), alpha=GAIN)
        y = F.leaky_relu_(y, SLOPE)
        return y if self.clamp is None else y.clamp(-self.clamp * GAIN, self.clamp * GAIN)

    def demodulation(self, style: Tensor) -> Tensor:
        """d [N,O] of styles [N,I], times the activation's gain, which goes through its leaky
        ReLU: the pixels see one product."""
        energy = style.float().square() @ self.weight.float().square().sum((2, 3)).t()
        return (energy + 1e-8).rsqrt() * GAIN

    def _convolve(self, x: Tensor) -> Tensor:
        if self.up == 1:
            return F.conv2d(x, self.weight, padding=self.padding)
        y = F.conv_transpose2d(x, self.weight.transpose(0, 1), stride=2)
        return F.conv2d(y, fir(y.shape[1], y), padding=1, groups=y.shape[1])


class Refine(nn.Module):
    """Two plain convolutions around a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, 1, 1)
        self.second = nn.Conv2d(width, width, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.silu(self.first(F.silu(x))))


def upsample(x: Tensor) -> Tensor:
    """[N,C,H,W] -> [N,C,2H,2W]: zeros between the pixels, then the FIR filter.

    That is bilinear interpolation with zeros outside the picture.
    """
    doubled = F.interpolate(F.pad(x, (1, 1, 1, 1)), scale_factor=2.0, mode="bilinear")
    return doubled[:, :, 2:-2, 2:-2]


def fir(channels: int, like: Tensor) -> Tensor:
    """The filter [1,3,3,1] x [1,3,3,1] of sum 4, once per channel: [channels,1,4,4]."""
    line = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=like.dtype, device=like.device) / 4.0
    return (line[:, None] * line).expand(channels, 1, 4, 4)
