"""IDE-3D's hybrid encoder: aligned picture and label map -> shape and texture styles.

    ws = [tower(label map), tower(image)] + mean style

Each tower: a 1x1 convolution, residual blocks that halve the side down to 4 pixels, one linear
layer, all equalised as StyleGAN2's discriminator is.

Source: Sun et al. 2022 (IDE-3D), arXiv:2205.15517, section 3.2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semedit.generators.parts.layers import Conv, activate, fir
from semedit.media.pixels import resize

KIND = "ide3d-encoder"
LAST = 4  # pixels a side of what the linear layer sees


@dataclass(frozen=True)
class HybridEncoderConfig:
    """Sizes of an encoder; the defaults are the published ones."""

    resolution: int = 512  # pixels a side of what the network sees
    channels: tuple[int, ...] = (32, 64, 128, 256, 512, 512, 512, 512)  # at 512, 256, ... 4
    num_shape: int = 8  # styles from the label map, the first ones
    num_texture: int = 10  # styles from the image
    w_dim: int = 512  # entries of a style
    classes: int = 19  # of the label map
    angles: int = 0  # numbers of the pose behind the texture styles: 2 are yaw and pitch


class HybridEncoder(nn.Module):
    """See the module."""

    mean: Tensor

    def __init__(self, config: HybridEncoderConfig) -> None:
        super().__init__()
        assert config.resolution == LAST * 2 ** (len(config.channels) - 1)
        self.config = config
        styles = config.num_shape * config.w_dim, config.num_texture * config.w_dim
        self.shape = IDE3DTower(config.classes, config.channels, styles[0])
        self.texture = IDE3DTower(3, config.channels, styles[1] + config.angles)
        self.register_buffer(
            "mean", torch.zeros(config.num_shape + config.num_texture, config.w_dim)
        )

    def forward(self, images: Tensor, labels: Tensor, c: Tensor) -> Tensor:
        """images [N,3,R,R] in [-1,1], labels int64 [N,R,R] -> ws [N,num_ws,w_dim]; c is not
        looked at."""
        return self.look(images, labels, c)[0]

    def look(self, images: Tensor, labels: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """The same, and what it says of the pose [N,angles]: 2 are yaw and pitch in radians."""
        side = self.config.resolution
        small = F.interpolate(labels[:, None].float(), (side, side), mode="nearest")[:, 0].long()
        maps = F.one_hot(small, self.config.classes).permute(0, 3, 1, 2).float()
        offsets, angles = self.offsets(resize(images, side), 2 * maps - 1)
        return offsets + self.mean, angles

    def offsets(self, images: Tensor, maps: Tensor) -> tuple[Tensor, Tensor]:
        """images [N,3,R,R], label maps [N,K,R,R] in [-1,1], R the configuration's -> ws without
        the mean style, and numbers of the pose [N,angles]."""
        config = self.config
        styles = config.num_texture * config.w_dim
        found = self.texture(images)
        ws = torch.cat([self.shape(maps), found[:, :styles]], 1).unflatten(1, (-1, config.w_dim))
        return ws, found[:, styles:]


class IDE3DTower(nn.Module):
    """Maps [N,inputs,R,R] -> [N,outputs]."""

    def __init__(self, inputs: int, channels: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        self.first = Conv(inputs, channels[0], kernel=1, linear=True)
        self.blocks = nn.ModuleList(IDE3DHalving(a, b) for a, b in pairwise(channels))
        self.out = nn.Parameter(torch.randn(outputs, channels[-1], LAST, LAST))
        self.gain = 1 / math.sqrt(channels[-1] * LAST * LAST)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        return x.flatten(1) @ (self.out.flatten(1) * self.gain).t()


class IDE3DHalving(nn.Module):
    """Residual block [N,inputs,H,W] -> [N,outputs,H/2,W/2]."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = Conv(inputs, inputs)
        self.conv2 = Conv(inputs, outputs)
        self.skip = nn.Parameter(torch.randn(outputs, inputs, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        conv = self.conv2
        y = filtered(self.conv1(x), padding=2)
        y = activate(F.conv2d(y, conv.weight * conv.gain, conv.bias, stride=2))
        past = filtered(x, padding=1, stride=2)
        past = F.conv2d(past, self.skip / math.sqrt(self.skip.shape[1]))
        return (y + past) * math.sqrt(0.5)


def filtered(x: Tensor, padding: int, stride: int = 1) -> Tensor:
    """The FIR filter of each channel, of sum 1."""
    channels = x.shape[1]
    return F.conv2d(x, fir(channels, x) / 4, padding=padding, stride=stride, groups=channels)
