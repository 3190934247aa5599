"""e4e's and pSp's encoder: an aligned picture -> one style per layer of a StyleGAN2.

    c1, c2, c3 = body(image), at 64, 32 and 16 pixels of 256
    p2 = up(c3) + lateral1(c2);  p1 = up(p2) + lateral2(c1)
    coarse styles see c3, middle ones p2, fine ones p1
    e4e: w_0 = style_0, w_i = w_0 + style_i;  pSp: w_i = style_i;  + mean style

The body is IR-SE-50, ArcFace's.

Source: Tov et al. 2021 (e4e), arXiv:2102.02766; Richardson et al. 2021 (pSp), arXiv:2008.00951;
Deng et al. 2019 (ArcFace), arXiv:1801.07698.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semedit.generators.parts.layers import Linear
from semedit.media.pixels import resize

KIND = "e4e"
SIDE = 256  # pixels of what the network sees
STAGES = ((64, 3), (128, 4), (256, 14), (512, 3))  # channels and units; each halves the side
TAPS = (6, 20, 23)  # units behind which c1, c2 and c3 are taken
MIDDLE, FINE = 3, 7  # first styles that see p2 and p1
WIDTH = 512  # channels of a style's features


@dataclass(frozen=True)
class E4EConfig:
    """Sizes of an encoder; the defaults are those for FFHQ at 1024 pixels."""

    num_ws: int = 18  # styles
    w_dim: int = 512  # entries of a style
    deltas: bool = True  # styles are offsets from the first one (e4e); False: each alone (pSp)


class E4E(nn.Module):
    """See the module."""

    mean: Tensor

    def __init__(self, config: E4EConfig) -> None:
        super().__init__()
        self.config = config
        self.input_layer = nn.Sequential(
            nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.PReLU(64)
        )
        self.body = nn.Sequential(*units())
        places = [_level(i) for i in range(config.num_ws)]
        self.styles = nn.ModuleList(StyleHead(16 * 2**level, config.w_dim) for level in places)
        self.latlayer1 = nn.Conv2d(256, WIDTH, 1)
        self.latlayer2 = nn.Conv2d(128, WIDTH, 1)
        self.register_buffer("mean", torch.zeros(config.num_ws, config.w_dim))

    def forward(self, images: Tensor, labels: Tensor, c: Tensor) -> Tensor:
        """images [N,3,R,R] in [-1,1] -> ws [N,num_ws,w_dim]; labels and c are not looked at."""
        return self.offsets(resize(images, SIDE)) + self.mean

    def offsets(self, x: Tensor) -> Tensor:
        """Images [N,3,256,256] -> ws without the mean style."""
        x = self.input_layer(x)
        seen = []
        for index, unit in enumerate(self.body):
            x = unit(x)
            if index in TAPS:
                seen.append(x)
        c1, c2, c3 = seen
        p2 = _enlarged(c3, c2) + self.latlayer1(c2)
        p1 = _enlarged(p2, c1) + self.latlayer2(c1)
        levels = (c3, p2, p1)
        found = torch.stack([s(levels[_level(i)]) for i, s in enumerate(self.styles)], 1)
        if not self.config.deltas:
            return found
        return torch.cat([found[:, :1], found[:, :1] + found[:, 1:]], 1)


def _level(index: int) -> int:
    """0, 1, 2: whether a style is coarse, middle or fine."""
    return (index >= MIDDLE) + (index >= FINE)


def _enlarged(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=True)


def units() -> list[nn.Module]:
    """The units of IR-SE-50."""
    found: list[nn.Module] = []
    inputs = 64
    for channels, count in STAGES:
        found.append(Unit(inputs, channels, 2))
        found.extend(Unit(channels, channels, 1) for _ in range(count - 1))
        inputs = channels
    return found


class Unit(nn.Module):
    """Two convolutions, the second with the stride, channels weighed, beside a short cut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.shortcut_layer: nn.Module = nn.MaxPool2d(1, stride)
        if inputs != outputs:
            self.shortcut_layer = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.PReLU(outputs),
            nn.Conv2d(outputs, outputs, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            Weighing(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.res_layer(x) + self.shortcut_layer(x)


class Weighing(nn.Module):
    """Channels weighed by what they hold on the whole (squeeze and excitation)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // 16, 1, bias=False)
        self.fc2 = nn.Conv2d(channels // 16, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.fc2(self.fc1(x.mean((2, 3), keepdim=True)).relu()).sigmoid()


class StyleHead(nn.Module):
    """Features [N,512,side,side] -> style [N,w_dim]: halved until one pixel is left."""

    def __init__(self, side: int, w_dim: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(int(math.log2(side))):
            layers += [nn.Conv2d(WIDTH, WIDTH, 3, 2, padding=1), nn.LeakyReLU()]
        self.convs = nn.Sequential(*layers)
        self.linear = Linear(WIDTH, w_dim)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.linear(self.convs(x).flatten(1)))
