"""The networks of a tri-plane generator: mapping, semantic trunk, texture branches, decoders,
up-sampler. TriplaneConfig has their sizes, which go up to those of IDE-3D (see ide3d.py).

Source: Sun et al. 2022 (IDE-3D), arXiv:2205.15517.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semedit.generators.parts.layers import Linear, ModulatedConv, activate, upsample
from semedit.generators.stylegan2.stylegan2 import MappingNetwork, StyleGAN2Config

MAP_RATE = 0.25  # of the learning of the maps, whose every pixel is a weight of its own


@dataclass(frozen=True)
class TriplaneConfig:
    """Sizes of a tri-plane generator; the defaults are those of heads-128."""

    z_dim: int = 128  # entries of z
    classes: int = 19  # of the label map; class 0 is the background
    w_dim: int = 192  # entries of a style
    c_dim: int = 0  # entries of the camera that StyleGAN2's mapping network sees; 0: our own
    hidden: int = 256  # of the mapping network; StyleGAN2's is as wide as its styles
    mapping_layers: int = 3  # linear layers from z to the styles
    layered: bool = True  # z gives every layer a style of its own (our own network only)
    trunk: tuple[int, ...] = (128, 128, 128, 96, 64)  # channels at 4, 8, 16, ... pixels
    maps: bool = True  # learned maps at every resolution of the trunk; else at 4 pixels alone
    last: int = 2  # convolutions at the trunk's last resolution
    shape_channels: int = 16  # of each shape plane, at the trunk's last resolution
    branch: int = 24  # channels of each of the three texture branches, at twice that resolution
    branches: tuple[int, ...] = ()  # of branches that double it several times, at each; else ()
    branch_convs: int = 1  # convolutions of a branch per doubling, which the first one does
    texture_channels: int = 16  # of each texture plane
    features: int = 16  # colour features; the first three are the low-resolution picture
    decoder: int = 32  # hidden units of both decoders
    neural: int = 64  # pixels a side of the volume rendering
    up: tuple[int, ...] = (24,)  # channels of the up-sampling blocks; each doubles the side
    up_input: int = 0  # pixels a side that features are resized to for these; 0: they are not
    drawing: bool = False  # the last layers that draw have a style of their own
    background: int = 16  # cells a side of a layer behind the volume, fixed to the picture; 0: none
    shift: bool = True  # styles also move what the trunk and the branches write into the planes
    box: float = 1.0  # side of the cube that the planes cover, world units
    grid: int = 32  # cells a side of the density grid that guides the samples
    coarse: int = 24  # intervals of a ray looked up in the grid
    samples: int = 8  # per ray, where the grid is dense
    density_scale: float = 50.0  # 1 / world units; a softplus of 1 is opaque within 0.1
    density_start: float = -3.0  # before the softplus, of random weights
    skip_weight: float = 0.02  # rays and samples below this weight are left out
    view_limit_deg: tuple[float, float] = (45.0, 15.0)  # yaw, pitch to either side in training

    @property
    def resolution(self) -> int:
        """Pixels a side of the picture."""
        return (self.up_input or self.neural) * 2 ** len(self.up)

    @property
    def doublings(self) -> tuple[int, ...]:
        """Channels of the texture branches at twice the trunk's resolution, four times, ..."""
        return self.branches or (self.branch,)

    @property
    def plane_resolution(self) -> int:
        """Pixels a side of the shape planes."""
        return 4 * 2 ** (len(self.trunk) - 1)


class Mapping(nn.Module):
    """z [N,z_dim] -> styles [N,num_ws,w_dim]; c is not looked at."""

    def __init__(self, config: TriplaneConfig, num_ws: int) -> None:
        super().__init__()
        self.num_ws = num_ws
        sides = [config.z_dim] + [config.hidden] * (config.mapping_layers - 1)
        self.layers = nn.ModuleList(Linear(a, b) for a, b in pairwise(sides))
        # All heads start alike.
        self.layers.append(Linear(sides[-1], num_ws * config.w_dim, scale=0.1))

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        for layer in self.layers[:-1]:
            z = activate(layer(z))
        return self.layers[-1](z).unflatten(1, (self.num_ws, -1))


class Conditioned(nn.Module):
    """z [N,z_dim] and cameras c [N or 1,c_dim] -> styles [N,1,w_dim]: StyleGAN2's network."""

    num_ws = 1

    def __init__(self, config: TriplaneConfig) -> None:
        super().__init__()
        sizes = StyleGAN2Config(
            z_dim=config.z_dim,
            w_dim=config.w_dim,
            c_dim=config.c_dim,
            mapping_layers=config.mapping_layers,
        )
        self.network = MappingNetwork(sizes)
        del self.network.w_avg  # the generator has it

    def forward(self, z: Tensor, c: Tensor) -> Tensor:
        return self.network(z, c.expand(len(z), -1))[:, None]


class Trunk(nn.Module):
    """Semantic layers: styles [N,k,w_dim] -> features of every resolution, the finest last, and
    shape planes [N,3,H,W,C]. Each resolution writes into the planes, so that each one learns."""

    def __init__(self, config: TriplaneConfig) -> None:
        super().__init__()
        self.convs, self.maps = nn.ModuleList(), nn.ParameterList()
        before, written = config.trunk[0], 3 * config.shape_channels
        for level, channels in enumerate(config.trunk):
            side = 4 * 2**level
            start = torch.zeros if level else torch.randn
            if config.maps or not level:
                self.maps.append(nn.Parameter(start(channels, side, side) / MAP_RATE))
            if level:
                self.convs.append(ModulatedConv(before, channels, config.w_dim, up=2))
            if level < len(config.trunk) - 1 or config.last == 2:
                self.convs.append(ModulatedConv(channels, channels, config.w_dim))
            before = channels
        self.skips = nn.ModuleList(
            ModulatedConv(channels, written, config.w_dim, 1, normal=False, scale=0.1)
            for channels in config.trunk[1:-1]
        )
        self.out = ModulatedConv(before, written, config.w_dim, 1, normal=False, shift=config.shift)
        self.num_ws = len(self.convs)

    def forward(self, ws: Tensor) -> tuple[list[Tensor], Tensor]:
        x = (self.maps[0] * MAP_RATE).expand(len(ws), -1, -1, -1)
        x = x.contiguous(memory_format=torch.channels_last)
        features = []
        for index, conv in enumerate(self.convs):
            x = conv(x, ws[:, index])
            if index % 2 == 1 and len(self.maps) > 1:  # just up-sampled
                x = x + (self.maps[(index + 1) // 2] * MAP_RATE).to(x.dtype)
            if index % 2 == 0 or index == self.num_ws - 1:
                features.append(x)
        planes = self.out(x, ws[:, -1]).float()
        styles = ws[:, 2 : 2 * len(self.skips) + 1 : 2].unbind(1)
        coarser = gather(self.skips, features[1:-1], styles)
        if coarser is not None:
            planes = planes + upsample(coarser)
        return features, split_planes(planes).contiguous()


def gather(
    skips: nn.ModuleList, features: Sequence[Tensor], styles: Sequence[Tensor]
) -> Tensor | None:
    """What features of rising resolution write, summed at the finest of them."""
    total = None
    for skip, x, w in zip(skips, features, styles, strict=True):
        written = skip(x, w).float()
        total = written if total is None else upsample(total) + written
    return total


def split_planes(maps: Tensor) -> Tensor:
    """Maps [N,3C,H,W] -> planes [N,3,H,W,C]."""
    return maps.unflatten(1, (3, -1)).permute(0, 1, 3, 4, 2)


class TexturePlanes(nn.Module):
    """Trunk features and styles -> texture planes [N,3,2H,2W,C], or of a higher power of two;
    background [N,F,B,B]."""

    def __init__(self, config: TriplaneConfig) -> None:
        super().__init__()
        w_dim, out, widths = config.w_dim, config.texture_channels, config.doublings
        self.branches = nn.ModuleList()
        for _ in range(3):
            branch = nn.ModuleList()
            for wide, narrow in pairwise((config.trunk[-1], *widths)):
                branch.append(ModulatedConv(wide, narrow, w_dim, up=2))
                for _ in range(config.branch_convs - 1):
                    branch.append(ModulatedConv(narrow, narrow, w_dim))
            branch.append(
                ModulatedConv(widths[-1], out, w_dim, 1, normal=False, shift=config.shift)
            )
            self.branches.append(branch)
        self.skips = nn.ModuleList(
            ModulatedConv(channels, 3 * out, w_dim, 1, normal=False, scale=0.1)
            for channels in config.trunk[1:]
        )
        self.doublings = len(widths)
        # Styles of a branch, the same for all three.
        self.depth = config.branch_convs * self.doublings + 1
        self.num_ws = self.depth
        self.background = (config.features, max(1, config.background), max(1, config.background))
        self.behind: Linear | None = None
        if config.background:
            # What stands behind a head is out of focus: a coarse picture, linear in its style.
            self.behind = Linear(w_dim, math.prod(self.background), scale=0.1)
            self.num_ws += 1

    def forward(self, features: Sequence[Tensor], ws: Tensor) -> tuple[Tensor, Tensor]:
        planes = []
        for branch in self.branches:
            y = features[-1]
            for index, conv in enumerate(cast(nn.ModuleList, branch)):
                y = conv(y, ws[:, index])
            planes.append(y.permute(0, 2, 3, 1))
        texture = torch.stack(planes, 1).float()
        style = ws[:, self.depth - 1]
        coarser = gather(self.skips, features[1:], [style] * len(self.skips))
        if coarser is not None:
            for _ in range(self.doublings):
                coarser = upsample(coarser)
            texture = texture + split_planes(coarser)
        if self.behind is None:
            return texture, texture.new_zeros(len(texture), *self.background)
        return texture, self.behind(ws[:, self.depth]).float().unflatten(1, self.background)


class PlaneDecoder(nn.Module):
    """Plane features [M,C] -> [M,O]: one hidden layer with softplus."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.first, self.last = Linear(inputs, hidden), Linear(hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.softplus(self.first(x)))


class Upsampler(nn.Module):
    """Low-resolution features and seg -> image and seg at twice the side per block."""

    def __init__(self, config: TriplaneConfig) -> None:
        super().__init__()
        self.convs, self.rgb, self.seg = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        before = config.features + config.classes
        for channels in config.up:
            self.convs.append(ModulatedConv(before, channels, config.w_dim, up=2))
            self.convs.append(ModulatedConv(channels, channels, config.w_dim))
            for layers, outputs in ((self.rgb, 3), (self.seg, config.classes)):
                layers.append(
                    ModulatedConv(channels, outputs, config.w_dim, 1, normal=False, scale=0.1)
                )
            before = channels
        self.input, self.drawing = config.up_input, config.drawing
        self.num_ws = len(self.convs) + config.drawing

    def forward(self, features: Tensor, seg: Tensor, ws: Tensor) -> tuple[Tensor, Tensor]:
        if self.input:
            size = (self.input, self.input)
            features = F.interpolate(features, size, mode="bilinear", antialias=True)
            seg = F.interpolate(seg, size, mode="bilinear", antialias=True)
        image = features[:, :3]
        x = torch.cat([features, 0.1 * seg], 1)  # logits are an order larger than colours
        x = x.contiguous(memory_format=torch.channels_last)
        for block in range(len(self.rgb)):
            first, second = ws[:, 2 * block], ws[:, 2 * block + 1]
            x = self.convs[2 * block + 1](self.convs[2 * block](x, first), second)
            # As StyleGAN2's, which share their style with the next block's first layer.
            drawn = ws[:, 2 * block + 2] if self.drawing else second
            image = upsample(image) + self.rgb[block](x, drawn)
            seg = upsample(seg) + self.seg[block](x, drawn)
        return image, seg
