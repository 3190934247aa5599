"""Building blocks of the face networks: convolutions, and a pyramid that goes down and up again."""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from semedit.errors import ShapeError


def convolution(inputs: int, outputs: int, stride: int = 1, kernel: int = 3) -> nn.Sequential:
    """Convolution, batch normalisation, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def folded(network: nn.Module) -> nn.Module:
    """The network with each normalisation of `convolution` folded into its convolution, which is
    the same function in evaluation, to rounding."""
    for part in network.modules():
        if not isinstance(part, nn.Sequential):
            continue
        for at, (conv, normal) in enumerate(pairwise(list(part))):
            if isinstance(conv, nn.Conv2d) and isinstance(normal, nn.BatchNorm2d):
                part[at], part[at + 1] = fuse_conv_bn_eval(conv, normal), nn.Identity()
    return network


class Residual(nn.Module):
    """Two convolutions around a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = convolution(width, width)
        self.second = nn.Sequential(
            nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(self.first(x)))


def fit(images: Tensor, size: int) -> Tensor:
    """Resize float [N,3,R,R] to [N,3,size,size] without aliasing; differentiable."""
    if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] != images.shape[3]:
        raise ShapeError(f"expected square images [N,3,R,R], got {list(images.shape)}")
    if images.shape[-1] == size:
        return images
    shrink = images.shape[-1] > size
    return F.interpolate(images, (size, size), mode="bilinear", antialias=shrink)


class Pyramid(nn.Module):
    """A pyramid: level i has widths[i] channels at 1 / 2^(i+1) of the input's size."""

    def __init__(self, widths: tuple[int, ...], depths: tuple[int, ...]) -> None:
        super().__init__()
        self.stem = convolution(3, widths[0], stride=2, kernel=5)
        self.levels = nn.ModuleList(
            nn.Sequential(convolution(a, b, stride=2), *[Residual(b) for _ in range(depth)])
            for a, b, depth in zip(widths[:-1], widths[1:], depths, strict=True)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = [self.stem(x)]
        for level in self.levels:
            maps.append(level(maps[-1]))
        return maps


class TopDown(nn.Module):
    """Top-down sums: brings the coarse levels' meaning to the finest level asked for."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        pairs = list(pairwise(widths))
        self.lower = nn.ModuleList(nn.Conv2d(b, a, 1, bias=False) for a, b in pairs)
        self.fuse = nn.ModuleList(convolution(a, a) for a, _ in pairs)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """maps finest first -> fused maps, finest first; the last is returned as it came."""
        fused = [maps[-1]]
        for i in range(len(self.lower) - 1, -1, -1):
            up = F.interpolate(self.lower[i](fused[0]), scale_factor=2.0, mode="nearest")
            fused.insert(0, self.fuse[i](maps[i] + up))
        return fused
