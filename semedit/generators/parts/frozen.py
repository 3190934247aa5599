"""A modulated layer whose weights are not trained, on a CPU: what a descent of codes runs.

    y = conv(x; W'),  W'_oi = d_o W_oi s_i;  z = lrelu(y + noise + b)

Styles and demodulation go into the weights, which at high resolution are far fewer than pixels, so
no pass over activations multiplies by them. Autograd would then convolve once more for a gradient
of every W', of which only its sums along s and d are wanted. y is linear in each s_i x_i and in
each d_o, so these sums are products of activations with gradients that are there anyway:

    s_i dL/ds_i = sum_px x_i dL/dx_i,    d_o dL/dd_o = sum_px y_o dL/dy_o

and as the leaky ReLU is linear on either side of zero, (y + noise + b) dL/dy = z dL/dz.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

LEAST = 1e-12  # of a style's size: it is divided by; less makes no pixel


def layer(
    x: Tensor,
    style: Tensor,
    scale: Tensor,
    noise: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    fir: Tensor | None,
    slope: float,
) -> Tensor:
    """lrelu(scale conv(style x) + noise + bias); gradients for x, style, scale and noise.

    Args:
        x [N,I,H,W]; style [N,I]; scale [N,O], not zero; noise [N or 1,1,h,w]; weight [O,I,3,3];
        bias [O]. fir: [O,1,4,4], the filter behind a transposed convolution that doubles the
        side; None: the side stays. slope: of the leaky ReLU below zero.
    Returns: [N,O,h,w].
    """
    nudge = torch.where(style.abs() < LEAST, LEAST - style, torch.zeros_like(style))
    style = style + nudge.detach()
    found: Tensor = _Layer.apply(x, style, scale, noise, weight, bias, fir, slope)
    return found


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        style: Tensor,
        scale: Tensor,
        noise: Tensor | None,
        weight: Tensor,
        bias: Tensor,
        fir: Tensor | None,
        slope: float,
    ) -> Tensor:
        made = []
        for n in range(len(x)):
            own = weight * (scale[n, :, None] * style[n])[:, :, None, None]
            y = _convolve(x[n : n + 1], own, bias, fir)
            if noise is not None:
                y.add_(noise[n % len(noise)])
            made.append(F.leaky_relu_(y, slope))
        z = made[0] if len(made) == 1 else torch.cat(made)
        ctx.save_for_backward(x, style, scale, noise, weight, bias, fir, z)
        ctx.slope = slope
        return z

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, style, scale, noise, weight, bias, fir, z = ctx.saved_tensors
        # Of the results before the leaky ReLU; "True": z is what came out of it.
        inner = torch.ops.aten.leaky_relu_backward(gradient, z, ctx.slope, True)
        of_scale = _products(gradient, z) - inner.sum((2, 3)) * bias
        if noise is not None:
            maps = noise.expand(len(x), -1, -1, -1)
            of_scale -= torch.stack(
                [inner[n].flatten(1).mv(maps[n].flatten()) for n in range(len(x))]
            )
        passed = [
            _adjoint(
                inner[n : n + 1], weight * (scale[n, :, None] * style[n])[:, :, None, None], fir
            )
            for n in range(len(x))
        ]
        of_x = passed[0] if len(passed) == 1 else torch.cat(passed)
        of_style = _products(x, of_x) / style
        of_noise = None
        if ctx.needs_input_grad[3]:
            of_noise = inner.sum(1, keepdim=True).sum_to_size(noise.shape)
        return of_x, of_style, of_scale / scale, of_noise, None, None, None, None


def _convolve(x: Tensor, weight: Tensor, bias: Tensor, fir: Tensor | None) -> Tensor:
    if fir is None:
        return F.conv2d(x, weight, bias, padding=1)
    y = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
    return F.conv2d(y, fir, bias, padding=1, groups=y.shape[1])


def _adjoint(gradient: Tensor, weight: Tensor, fir: Tensor | None) -> Tensor:
    """Gradient of `_convolve` for x."""
    if fir is None:
        return F.conv2d(gradient, weight.flip(2, 3).transpose(0, 1), padding=1)
    between = F.conv2d(gradient, fir, padding=2, groups=gradient.shape[1])  # the filter is even
    return F.conv2d(between, weight.transpose(0, 1), stride=2)


def _products(a: Tensor, b: Tensor) -> Tensor:
    """Sums of a * b over pixels: [N,C,H,W] twice -> [N,C], with no product in memory."""
    rows = zip(a.flatten(2).flatten(0, 1), b.flatten(2).flatten(0, 1), strict=True)
    return torch.stack([torch.dot(p, q) for p, q in rows]).view(a.shape[:2])
