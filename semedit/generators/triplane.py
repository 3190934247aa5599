"""A tri-plane semantic 3D generator of the IDE-3D kind.

    ws = mapping(z);  trunk(ws[:k]) -> shape planes -> density and labels
                      branches(trunk, ws[k:]) -> texture planes -> colour features
    volume rendering at `neural` pixels, then StyleGAN2 blocks that predict residuals of the
    picture and of the label map.

Source: Sun et al. 2022 (IDE-3D), arXiv:2205.15517: semantic layers first, three texture branches
behind them, one decoder for density and labels, another for colour.
Departs: learned maps stand at every resolution of the trunk (heads are aligned in the planes); a
background layer lies behind the volume, fixed to the picture; samples come from one density grid
per face, which all its views share, in place of a coarse pass per view; the three texture branches
share their styles; no noise inputs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import cameras
from . import Output, volume
from .encoder import WithEncoder
from .layers import Linear, ModulatedConv, activate, upsample

Planes = dict[str, Tensor]

MAP_RATE = 0.25  # of the learning of the maps, whose every pixel is a weight of its own


@dataclass(frozen=True)
class TriplaneConfig:
    """Sizes of a tri-plane generator; the defaults are those of heads-128."""

    z_dim: int = 128  # entries of z
    classes: int = 19  # of the label map; class 0 is the background
    w_dim: int = 192  # entries of a style
    hidden: int = 256  # of the mapping network
    mapping_layers: int = 3  # linear layers from z to the styles
    layered: bool = True  # z gives every layer a style of its own; else one for all
    trunk: tuple[int, ...] = (128, 128, 128, 96, 64)  # channels at 4, 8, 16, ... pixels
    shape_channels: int = 16  # of each shape plane, at the trunk's last resolution
    branch: int = 24  # channels of each of the three texture branches, at twice that resolution
    branch_convs: int = 1  # convolutions of a branch; the first doubles the resolution
    texture_channels: int = 16  # of each texture plane
    features: int = 16  # colour features; the first three are the low-resolution picture
    decoder: int = 32  # hidden units of both decoders
    neural: int = 64  # pixels a side of the volume rendering
    up: tuple[int, ...] = (24,)  # channels of the up-sampling blocks; each doubles the side
    background: int = 16  # cells a side of a layer behind the volume, fixed to the picture; 0: none
    shift: bool = True  # styles also move what the trunk and the branches write into the planes
    box: float = 1.0  # side of the cube that the planes cover, world units
    grid: int = 32  # cells a side of the density grid that guides the samples
    coarse: int = 24  # intervals of a ray looked up in the grid
    samples: int = 8  # per ray, where the grid is dense
    density_scale: float = 50.0  # 1 / world units; a softplus of 1 is opaque within 0.1
    skip_weight: float = 0.02  # rays and samples below this weight are left out
    view_limit_deg: tuple[float, float] = (45.0, 15.0)  # yaw, pitch to either side in training

    @property
    def resolution(self) -> int:
        """Pixels a side of the picture."""
        return self.neural * 2 ** len(self.up)

    @property
    def plane_resolution(self) -> int:
        """Pixels a side of the shape planes."""
        return 4 * 2 ** (len(self.trunk) - 1)


@dataclass(frozen=True)
class _Rays:
    """M rays: place in the stack of views, face, origin and direction [M,3], interval in the box,
    weights [M,coarse] of its equal parts."""

    index: Tensor
    face: Tensor
    origins: Tensor
    directions: Tensor
    near: Tensor
    far: Tensor
    weights: Tensor


class Triplane(WithEncoder):
    """See the module. `planes` is the costly half; its result serves any number of views."""

    traits: frozenset[str] = frozenset({"ws", "camera", "seg"})
    # Pivotal tuning adds to these: what a face has beside the codes, placed where it is seen.
    tunable: ClassVar[tuple[str, ...]] = ("planes.shape", "planes.texture", "planes.background")

    def __init__(self, config: TriplaneConfig, name: str = "triplane") -> None:
        super().__init__()
        self.config, self.name = config, name
        self.z_dim, self.resolution = config.z_dim, config.resolution
        self.view_limit_deg = config.view_limit_deg
        self.trunk = Trunk(config)
        self.texture = Texture(config)
        self.shape_decoder = Decoder(config.shape_channels, config.decoder, 1 + config.classes)
        self.texture_decoder = Decoder(config.texture_channels, config.decoder, config.features)
        self.upsampler = Upsampler(config)
        self.background_seg = nn.Parameter(8.0 * F.one_hot(torch.tensor(0), config.classes).float())
        self.num_shape = self.trunk.num_ws
        self.num_ws = self.num_shape + self.texture.num_ws + self.upsampler.num_ws
        self.mapping_network = Mapping(config, self.num_ws if config.layered else 1)
        self.register_buffer("w_avg", torch.zeros(self.mapping_network.num_ws, config.w_dim))
        self.w_avg: Tensor
        with torch.no_grad():  # nearly empty at the start: opaque boxes learn slowly
            self.shape_decoder.last.bias[0] = -3.0

    def mapping(self, z: Tensor, c: Tensor, truncation_psi: float = 1.0) -> dict[str, Tensor]:
        """z [N,z_dim] -> {"ws": [N,num_ws,w_dim]}; c [N,25] has no influence here."""
        ws = self.w_avg.lerp(self.mapping_network(z).float(), truncation_psi)
        return {"ws": ws.expand(-1, self.num_ws, -1)}

    def mean_codes(self) -> dict[str, Tensor]:
        """Codes of the mean style, one face."""
        return {"ws": self.w_avg[None].expand(1, self.num_ws, -1)}

    def synthesis(self, codes: dict[str, Tensor], c: Tensor, noise: str = "const") -> Output:
        """Codes and cameras c [N,25] -> Output. There are no noise inputs."""
        return self.render(self.planes(codes), c)

    def planes(self, codes: dict[str, Tensor]) -> Planes:
        """All that does not depend on the camera.

        Returns: shape, texture [N,3,H,W,C]; background [N,features,B,B]; density [N,1,G,G,G],
                 without gradient; ws: the styles of the up-sampler.
        """
        ws = codes["ws"]
        split = [self.num_shape, self.texture.num_ws, self.upsampler.num_ws]
        of_shape, of_texture, of_upsampler = ws.split(split, 1)
        x, shape = self.trunk(of_shape)
        texture, background = self.texture(x, of_texture)
        return {
            "shape": shape,
            "texture": texture,
            "background": background,
            "density": self.density(shape.detach()),
            "ws": of_upsampler,
        }

    @torch.no_grad()
    def density(self, shape: Tensor) -> Tensor:
        """Density at the centres of the grid's cells, from shape planes; [N,1,G,G,G], (z,y,x)."""
        side, n = self.config.grid, len(shape)
        line = (torch.arange(side, device=shape.device) + 0.5) * (2.0 / side) - 1.0
        z, y, x = torch.meshgrid(line, line, line, indexing="ij")
        points = torch.stack([x, y, z], -1).reshape(-1, 3).repeat(n, 1)
        face = torch.arange(n, device=shape.device).repeat_interleave(side**3)
        sigma = self._sigma(self.shape_decoder(volume.lookup(shape, points, face))[:, 0])
        return sigma.view(n, 1, side, side, side)

    def _sigma(self, raw: Tensor) -> Tensor:
        return F.softplus(raw.float() - 1.0) * self.config.density_scale

    def render(
        self,
        planes: Planes,
        c: Tensor,
        neural: int | None = None,
        jitter: bool = False,
        keep_empty: float = 0.0,
    ) -> Output:
        """Views of faces.

        Args:
            planes: of N faces. c: [N*k,25], the k views of a face next to each other.
            neural: pixels a side of the volume rendering; None: the configuration's.
            jitter: draw the samples at random (training).
            keep_empty: share of the rays through empty space that are rendered all the same.
        """
        side = neural or self.config.neural
        features, seg, depth, opacity = self._march(planes, c, side, jitter, keep_empty)
        low = Output(image=features[:, :3], seg=seg, depth=depth, opacity=opacity)
        ws = planes["ws"].repeat_interleave(len(c) // len(planes["ws"]), 0)
        image, seg = self.upsampler(features, seg, ws)
        return Output(image.float(), seg.float(), depth, opacity, low)

    def _march(
        self, planes: Planes, c: Tensor, side: int, jitter: bool, keep_empty: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Features [V,F,side,side], seg [V,K,side,side], depth and opacity [V,1,side,side]."""
        rays = self._cast(planes["density"], c, side, keep_empty)
        colour, seg, through, distance = self._shade(planes, rays, jitter)

        def picture(values: Tensor, empty: Tensor) -> Tensor:
            """Rendered rays in their places, `empty` in all others."""
            whole = empty.expand(len(c) * side * side, -1).index_copy(0, rays.index, values)
            return whole.view(len(c), side, side, -1).permute(0, 3, 1, 2)

        zero = colour.new_zeros(1, 1)
        behind = F.interpolate(planes["background"], (side, side), mode="bilinear")
        behind = behind.repeat_interleave(len(c) // len(behind), 0)
        features = picture(colour, zero.expand(1, colour.shape[1]))
        through = picture(through, zero + 1)
        features = features + through * behind
        seg = picture(seg, self.background_seg[None])
        return features, seg, picture(distance, zero), 1 - through

    @torch.no_grad()
    def _cast(self, density: Tensor, c: Tensor, side: int, keep_empty: float) -> _Rays:
        """The rays that meet something, and some of the others."""
        origins, directions = cameras.rays(c, side)
        near, far = volume.box_interval(origins, directions, self.config.box / 2)
        weights = self._coarse(density, c, side)
        keep = weights.sum(-1) > self.config.skip_weight
        if keep_empty:
            keep = keep | (torch.rand(len(keep), device=c.device) < keep_empty)
        index = keep.nonzero()[:, 0]
        return _Rays(
            index=index,
            face=index // (len(keep) // len(density)),
            origins=origins.reshape(-1, 3)[index],
            directions=directions.reshape(-1, 3)[index],
            near=near.flatten()[index],
            far=far.flatten()[index],
            weights=weights[index],
        )

    def _shade(
        self, planes: Planes, rays: _Rays, jitter: bool
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Colour [M,F] without the background, seg [M,K], transmittance [M,1], distance [M,1]."""
        config, count = self.config, self.config.samples
        device = rays.index.device
        u = torch.rand(len(rays.index), count, device=device) if jitter else 0.5
        u = ((torch.arange(count, device=device) + u) / count).expand(len(rays.index), -1)
        t = volume.resample(rays.near, rays.far, rays.weights, u, floor=0.05)
        points = rays.origins[:, None] + t[..., None] * rays.directions[:, None]
        points = points.reshape(-1, 3) * (2 / config.box)
        face = rays.face.repeat_interleave(count)
        decoded = self.shape_decoder(volume.lookup(planes["shape"], points, face)).float()
        raw, logits = decoded.view(len(t), count, -1).split([1, config.classes], -1)
        lengths = volume.cells(rays.near, rays.far, t)
        weights, through = volume.composite(self._sigma(raw[..., 0]), lengths)
        seg = (weights[..., None] * logits).sum(1) + through[:, None] * self.background_seg
        distance = (weights * t).sum(1) + through * rays.far
        colour = self._colour(planes["texture"], points, face, weights)
        return colour, seg, through[:, None], distance[:, None]

    def _coarse(self, density: Tensor, c: Tensor, side: int) -> Tensor:
        """Weights [V*side*side,coarse] of equal intervals of the rays, from the density grid.

        The grid is coarser than the picture: every other ray is looked up in each direction, and
        a ray gets the largest weights among those around it.
        """
        count, n, half = self.config.coarse, len(density), self.config.box / 2
        few = max(1, side // 2)
        origins, directions = (r.reshape(n, -1, 3) for r in cameras.rays(c, few))
        near, far = volume.box_interval(origins, directions, half)
        step = ((far - near) / count)[..., None]
        t = near[..., None] + step * (torch.arange(count, device=near.device) + 0.5)
        weights = volume.density_weights(density, origins, directions, t, step.expand_as(t), half)
        maps = weights.view(len(c), few, few, count).permute(0, 3, 1, 2)
        maps = F.interpolate(F.max_pool2d(maps, 3, 1, 1), (side, side))
        return maps.permute(0, 2, 3, 1).reshape(-1, count)

    def _colour(self, texture: Tensor, points: Tensor, faces: Tensor, weights: Tensor) -> Tensor:
        """Features [M,F] of rays: only samples that are seen are decoded."""
        flat = weights.flatten()
        seen = (flat > self.config.skip_weight).nonzero()[:, 0]
        values = self.texture_decoder(volume.lookup(texture, points[seen], faces[seen])).float()
        values = values * flat[seen, None]
        out = values.new_zeros(len(weights), values.shape[1])
        return out.index_add(0, seen // weights.shape[1], values)


class Mapping(nn.Module):
    """z [N,z_dim] -> styles [N,num_ws,w_dim]."""

    def __init__(self, config: TriplaneConfig, num_ws: int) -> None:
        super().__init__()
        self.num_ws = num_ws
        sides = [config.z_dim] + [config.hidden] * (config.mapping_layers - 1)
        self.layers = nn.ModuleList(Linear(a, b) for a, b in pairwise(sides))
        # All heads start alike.
        self.layers.append(Linear(sides[-1], num_ws * config.w_dim, scale=0.1))

    def forward(self, z: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            z = activate(layer(z))
        return self.layers[-1](z).unflatten(1, (self.num_ws, -1))


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
            self.maps.append(nn.Parameter(start(channels, side, side) / MAP_RATE))
            if level:
                self.convs.append(ModulatedConv(before, channels, config.w_dim, up=2))
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
            if index % 2 == 1:  # just up-sampled
                x = x + (self.maps[(index + 1) // 2] * MAP_RATE).to(x.dtype)
            else:
                features.append(x)
        planes = self.out(x, ws[:, -1]).float()
        styles = ws[:, 2:-1:2].unbind(1)
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


class Texture(nn.Module):
    """Trunk features and styles -> texture planes [N,3,2H,2W,C], background [N,F,B,B]."""

    def __init__(self, config: TriplaneConfig) -> None:
        super().__init__()
        narrow, w_dim, out = config.branch, config.w_dim, config.texture_channels
        self.branches = nn.ModuleList()
        for _ in range(3):
            branch = nn.ModuleList([ModulatedConv(config.trunk[-1], narrow, w_dim, up=2)])
            for _ in range(config.branch_convs - 1):
                branch.append(ModulatedConv(narrow, narrow, w_dim))
            branch.append(ModulatedConv(narrow, out, w_dim, 1, normal=False, shift=config.shift))
            self.branches.append(branch)
        self.skips = nn.ModuleList(
            ModulatedConv(channels, 3 * out, w_dim, 1, normal=False, scale=0.1)
            for channels in config.trunk[1:]
        )
        self.depth = config.branch_convs + 1  # styles of a branch, the same for all three
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
            texture = texture + split_planes(upsample(coarser))
        if self.behind is None:
            return texture, texture.new_zeros(len(texture), *self.background)
        return texture, self.behind(ws[:, self.depth]).float().unflatten(1, self.background)


class Decoder(nn.Module):
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
        self.num_ws = len(self.convs)

    def forward(self, features: Tensor, seg: Tensor, ws: Tensor) -> tuple[Tensor, Tensor]:
        image = features[:, :3]
        x = torch.cat([features, 0.1 * seg], 1)  # logits are an order larger than colours
        x = x.contiguous(memory_format=torch.channels_last)
        for block in range(len(self.rgb)):
            first, second = ws[:, 2 * block], ws[:, 2 * block + 1]
            x = self.convs[2 * block + 1](self.convs[2 * block](x, first), second)
            image = upsample(image) + self.rgb[block](x, second)
            seg = upsample(seg) + self.seg[block](x, second)
        return image, seg
