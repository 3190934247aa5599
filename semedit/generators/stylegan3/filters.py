"""Low-pass filters of StyleGAN3, and how a leaky ReLU goes without aliases.

Source: Karras et al. 2021, arXiv:2106.12423, section 3.2 and appendices B and C.
Departs: plain PyTorch: filters of one axis run along one axis at a time, all channels alike.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def kaiser_beta(taps: int, width: float) -> float:
    """The shape of a Kaiser window for a transition of `width` (share of the highest frequency).

    Source: Kaiser and Schafer 1980, as filter designs use it.
    """
    attenuation = 2.285 * (taps - 1) * math.pi * width + 7.95  # dB
    if attenuation > 50:
        return 0.1102 * (attenuation - 8.7)
    if attenuation > 21:
        return 0.5842 * (attenuation - 21) ** 0.4 + 0.07886 * (attenuation - 21)
    return 0.0


def lowpass(taps: int, cutoff: float, width: float, rate: float, radial: bool = False) -> Tensor:
    """A low-pass filter of sum 1: float32 [taps], or [taps,taps] where it is radial.

        f(x) = 2 cutoff sinc(2 cutoff x) kaiser(x);   radial: f(r) = cutoff J1(2 pi cutoff r) / r

    Args: cutoff, rate: per width of the picture. width: of the transition around the cutoff.
    """
    x = (torch.arange(taps, dtype=torch.float64) - (taps - 1) / 2) / rate
    beta = kaiser_beta(taps, width / (rate / 2))
    window = torch.kaiser_window(taps, periodic=False, beta=beta, dtype=torch.float64)
    if radial:
        r = torch.hypot(x[:, None], x)
        f = torch.special.bessel_j1(2 * math.pi * cutoff * r) / (math.pi * r)
        f = f * (window[:, None] * window)
    else:
        f = torch.sinc(2 * cutoff * x) * window
    return (f / f.sum()).float()


def up(x: Tensor, kernel: Tensor, factor: int, before: int, size: int) -> Tensor:
    """[N,C,H,W] -> [N,C,size,size]: zeros between the samples, then the filter [taps].

    Args: before: samples added on the left and at the top, negative: taken away, before the filter.
    """
    taps = len(kernel)
    line = kernel * factor
    for axis in (2, 3):
        shape = (-1, 1, taps, 1) if axis == 2 else (-1, 1, 1, taps)
        stride = (factor, 1) if axis == 2 else (1, factor)
        weight = line.view(1, *shape[1:]).expand(x.shape[1], *shape[1:])
        x = F.conv_transpose2d(x, weight, stride=stride, groups=x.shape[1])
        first = taps - 1 - before
        x = _cut(x, axis, first, size)
    return x


def _cut(x: Tensor, axis: int, first: int, size: int) -> Tensor:
    """`size` samples from `first` on, along an axis; zeros where there are none."""
    low, high = max(0, -first), max(0, first + size - x.shape[axis])
    if low or high:
        x = F.pad(x, (0, 0, low, high) if axis == 2 else (low, high))
    return x.narrow(axis, first + low, size)


def down(x: Tensor, kernel: Tensor, factor: int) -> Tensor:
    """The filter [taps] or [taps,taps] where it lies wholly within [N,C,H,W], each factor-th."""
    channels, taps = x.shape[1], len(kernel)
    if kernel.ndim == 2:
        weight = kernel.expand(channels, 1, taps, taps)
        return F.conv2d(x, weight, stride=factor, groups=channels)
    for shape, stride in (((1, taps), (1, factor)), ((taps, 1), (factor, 1))):
        weight = kernel.view(1, 1, *shape).expand(channels, 1, *shape)
        x = F.conv2d(x, weight, stride=stride, groups=channels)
    return x
