"""Blocks of the Swapping Autoencoder: convolutions, styled convolutions, its filter.

Constant factors (the activation's gain, the residual sums' HALF) go into the weights, which are
smaller than the pictures: a leaky ReLU passes positive factors.

Source: Park et al. 2020 (Swapping Autoencoder), arXiv:2007.00653.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semedit.generators.parts.layers import GAIN, SLOPE, Linear

HALF = math.sqrt(0.5)  # keeps the variance across a residual sum
FINE, SOFT = (1.0, 2.0, 1.0), (1.0, 3.0, 3.0, 1.0)  # taps of the filters before down, after up


class Weight(nn.Module):
    """An equalised weight [O,I,k,k], with a bias or without."""

    def __init__(self, inputs: int, outputs: int, kernel: int, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.gain = 1 / math.sqrt(inputs * kernel**2)

    def forward(self, x: Tensor, stride: int, shift: Tensor | None, scale: float) -> Tensor:
        """The convolution with bias `shift` in place of its own, times `scale`."""
        bias = self.bias if shift is None else shift
        bias = bias if bias is None else bias * scale
        return F.conv2d(x, self.weight * (self.gain * scale), bias, stride)


class Bias(nn.Module):
    """The bias before an activation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))


class Layer(nn.Module):
    """A convolution, with bias and leaky ReLU where it is active.

    Args: border: reflected pixels added on every side. bias: of a layer that is not active.
          scale: of the results.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 1,
        stride: int = 1,
        border: int = 0,
        active: bool = True,
        bias: bool = True,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.Conv = Weight(inputs, outputs, kernel, bias and not active)
        self.Act = Bias(outputs) if active else None
        self.stride, self.border = stride, border
        self.scale = scale * (GAIN if active else 1.0)

    def forward(self, x: Tensor) -> Tensor:
        if self.border:
            x = F.pad(x, (self.border,) * 4, mode="reflect")
        if self.Act is None:
            return self.Conv(x, self.stride, None, self.scale)
        return F.leaky_relu(self.Conv(x, self.stride, self.Act.bias, self.scale), SLOPE)


class SmoothHalving(nn.Module):
    """Residual block [N,I,H,W] -> [N,O,H/2,W/2], smoothed before every second pixel is taken."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = Layer(inputs, inputs, kernel=3, border=1)
        self.conv2 = Layer(inputs, outputs, kernel=3, stride=2, scale=HALF)
        self.skip = Layer(inputs, outputs, stride=2, active=False, bias=False, scale=HALF)

    def forward(self, x: Tensor) -> Tensor:
        y = F.pad(self.conv1(x), (2, 1, 2, 1), mode="reflect")
        y = self.conv2(smooth(y, FINE))
        return y + self.skip(smooth(F.pad(x, (1, 0, 1, 0)), FINE))


class Modulation(nn.Module):
    """scale(style) x + bias(style), channel by channel."""

    def __init__(self, style: int, channels: int) -> None:
        super().__init__()
        self.scale, self.bias = Linear(style, channels), Linear(style, channels)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        return x * self.scale(style)[:, :, None, None] + self.bias(style)[:, :, None, None]


class Styling(nn.Module):
    """Residual block of two styled convolutions [N,I,H,W] -> [N,O,H,W], or twice the side.

    Args: noise: pixels a side of the layers' noise maps, 0: none. up: double the side.
    """

    def __init__(self, inputs: int, outputs: int, style: int, noise: int, up: bool = True) -> None:
        super().__init__()
        self.up = up
        self.conv1 = StyledConv(inputs, outputs, style, noise, up)
        self.conv2 = StyledConv(outputs, outputs, style, noise, scale=HALF)
        self.skip = (
            Layer(inputs, outputs, active=up, bias=up, scale=HALF)
            if inputs != outputs
            else Scale(HALF)
        )

    def forward(self, x: Tensor, style: Tensor, noise: str) -> Tensor:
        y = self.conv2(self.conv1(x, style, noise), style, noise)
        x = self.skip(x)
        if self.up:
            x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
        return x + y


class Scale(nn.Module):
    """x times a number."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class StyledConv(nn.Module):
    """A modulated convolution, noise, bias and leaky ReLU, times `scale`."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        style: int,
        noise: int,
        up: bool = False,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.scale = scale * GAIN
        self.conv = NormalisedModulatedConv(inputs, outputs, style, up=up)
        self.noise = Noise(noise) if noise else None
        self.activate = Bias(outputs)

    def forward(self, x: Tensor, style: Tensor, noise: str) -> Tensor:
        y = self.conv(x, style, self.activate.bias, self.scale)
        if self.noise is not None and noise != "none":
            y = y + self.noise(y, noise == "random").to(y.dtype) * self.scale
        return F.leaky_relu(y, SLOPE)


class NormalisedModulatedConv(nn.Module):
    """Convolution of activations that a style scales; the style is brought to a mean square of
    one, the weights to unit length, each without regard to the other.

    Args: normal: do so; not in the layer that writes the picture. up: double the side.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        style: int,
        kernel: int = 3,
        normal: bool = True,
        up: bool = False,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(1, outputs, inputs, kernel, kernel))
        self.modulation = Linear(style, inputs, bias=1.0)
        self.gain = 1 / math.sqrt(inputs * kernel**2)
        self.normal, self.up, self.padding = normal, up, kernel // 2

    def forward(self, x: Tensor, style: Tensor, bias: Tensor, gain: float = 1.0) -> Tensor:
        """The convolution and bias [O], times `gain`."""
        scale, bias = self.modulation(style).float(), bias * gain
        weight = self.weight[0].float() * self.gain
        if self.normal:
            scale = scale * (scale.square().mean(1, keepdim=True) + 1e-8).rsqrt()
            weight = weight * (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).rsqrt()
        weight = weight * gain
        x = x * scale[:, :, None, None].to(x.dtype)
        if not self.up:
            return F.conv2d(x, weight, bias, padding=self.padding)
        y = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
        return smooth(F.pad(y, (1, 1, 1, 1)), SOFT, 4.0, bias)


class Noise(nn.Module):
    """A noise map with a weight; the map is the same for all faces unless drawn."""

    fixed_noise: Tensor

    def __init__(self, side: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.register_buffer("fixed_noise", torch.randn(1, 1, side, side))

    def forward(self, x: Tensor, drawn: bool) -> Tensor:
        noise = self.fixed_noise
        if drawn:
            noise = torch.randn(len(x), 1, *x.shape[-2:], device=x.device)
        return noise * self.weight


class ToRGB(nn.Module):
    """Features [N,I,R,R] -> picture [N,3,R,R]."""

    def __init__(self, inputs: int, style: int) -> None:
        super().__init__()
        self.conv = NormalisedModulatedConv(inputs, 3, style, kernel=1, normal=False)
        self.bias = nn.Parameter(torch.zeros(1, 3, 1, 1))

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        return self.conv(x, style, self.bias.flatten())


def unit_length(x: Tensor) -> Tensor:
    """x [N,C,...] with unit length along C."""
    return x * (x.square().sum(1, keepdim=True) + 1e-8).rsqrt()


def smooth(
    x: Tensor, taps: tuple[float, ...], total: float = 1.0, bias: Tensor | None = None
) -> Tensor:
    """x [N,C,H,W] filtered by taps x taps of sum `total`, without padding; bias [C] is added."""
    line = torch.tensor(taps, dtype=x.dtype, device=x.device)
    line = line * (math.sqrt(total) / sum(taps))
    kernel = (line[:, None] * line).expand(x.shape[1], 1, len(taps), len(taps))
    if bias is None or not (torch.is_grad_enabled() and bias.requires_grad):
        return F.conv2d(x, kernel, bias, groups=x.shape[1])
    # A bias that learns stays out of it: for its sake the kernel's gradient would be found, too.
    y = F.conv2d(x, kernel, groups=x.shape[1])
    return y + bias.to(y.dtype)[:, None, None]
