"""EG3D: z and a camera -> tri-planes -> volume rendering -> super-resolution.

    ws = mapping(z, c);  planes = synthesis(ws), 3 x 32 channels of a StyleGAN2
    sigma, features = decoder(mean of the planes at x)
    coarse samples along each ray, fine ones where the coarse ones are dense, both composited
    picture = super-resolution of the features, two blocks of StyleGAN2 with the last style

Plane axes, bounds of the rays and all sizes are those of the checkpoint; c is EG3D's own label.

Source: Chan et al. 2022 (EG3D), arXiv:2112.07945.
Departs: samples stand in the middle of their intervals instead of at random places within;
colours are decoded only where they are seen; synthesis may end before super-resolution.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semedit import cameras
from semedit.errors import OptionError
from semedit.generators.contract import Output
from semedit.generators.parts import volume
from semedit.generators.parts.encoder import WithEncoder
from semedit.generators.parts.layers import Linear
from semedit.generators.stylegan2.stylegan2 import (
    Block,
    MappingNetwork,
    Noise,
    NoisyConv,
    StyleGAN2Config,
    Synthesis,
    widths,
)

Planes = dict[str, Tensor]

PUBLISHED_AXES: volume.Axes = ((0, 1), (0, 2), (2, 0))  # of every network its authors released
MARGIN = 0.001  # of the sigmoid that colours pass through, to either side of [0,1]
SKIP = 1e-6  # weight of samples whose colour is left out
MIDDLE = 0.5  # place of a sample in its interval


@dataclass(frozen=True)
class EG3DConfig:
    """Sizes of an EG3D; the defaults are those of FFHQ at 512 pixels, rendered at 64."""

    resolution: int = 512  # pixels a side of the picture
    neural: int = 64  # pixels a side of the volume rendering
    plane_resolution: int = 256  # pixels a side of the planes
    plane_channels: int = 32  # of each plane
    axes: volume.Axes = PUBLISHED_AXES  # coordinates along (W, H) of each plane
    channels: tuple[int, ...] = ()  # of the backbone at 4, 8, ... pixels; empty: config F
    z_dim: int = 512  # entries of z
    w_dim: int = 512  # entries of a style
    mapping_layers: int = 2  # linear layers from z and camera to w
    camera_scale: float = 1.0  # of the camera that the mapping network sees; 0: it sees none
    clamp: float | None = None  # bound of the backbone's activations
    decoder: int = 64  # hidden units
    features: int = 32  # of a ray; the first three are the low-resolution picture
    up: tuple[int, int] = (256, 128)  # channels of the super-resolution's blocks
    up_input: int = 128  # pixels a side of its input
    up_clamp: float | None = None  # bound of its activations
    up_noise: bool = False  # whether its layers add their noise maps
    samples: int = 48  # per ray, evenly
    fine: int = 48  # per ray, where the first are dense
    near: float = 2.25  # along the rays, world units; near = far = 0: where they meet the box
    far: float = 3.3
    box: float = 1.0  # side of the cube that the planes cover, world units
    white: bool = False  # behind everything; else black
    antialias: bool = True  # where the super-resolution's input is made smaller

    @property
    def backbone(self) -> StyleGAN2Config:
        """Of the network that draws the planes."""
        return StyleGAN2Config(
            resolution=self.plane_resolution,
            channels=tuple(self.channels) or widths(self.plane_resolution),
            z_dim=self.z_dim,
            w_dim=self.w_dim,
            c_dim=25,
            mapping_layers=self.mapping_layers,
            image_channels=3 * self.plane_channels,
            clamp=self.clamp,
        )


class EG3D(WithEncoder):
    """EG3D: tri-planes of a StyleGAN2, volume rendering, super-resolution.

    `planes` serves any number of views.
    """

    traits: frozenset[str] = frozenset({"ws", "camera", "coarse", "field"})
    # Pivotal tuning adds to these.
    tunable: ClassVar[tuple[str, ...]] = ("planes.features",)

    def __init__(self, config: EG3DConfig, name: str = "eg3d") -> None:
        super().__init__()
        self.config, self.name = config, name
        self.z_dim, self.resolution = config.z_dim, config.resolution
        self.axes = tuple((int(a), int(b)) for a, b in config.axes)
        self.mapping_network = MappingNetwork(config.backbone)
        self.synthesis_network = Synthesis(config.backbone)
        self.num_ws = self.synthesis_network.num_ws
        self.decoder = ColourDecoder(config)
        self.superresolution = EG3DSuperresolution(config)

    def mapping(self, z: Tensor, c: Tensor, truncation_psi: float = 1.0) -> dict[str, Tensor]:
        """z [N,z_dim] and cameras c [N or 1,25] -> {"ws": [N,num_ws,w_dim]}.

        The style knows the camera a little, as faces in the training pictures do theirs: give
        the same c, a frontal one, for all views of one face.
        """
        w = self.mapping_network(z, c.expand(len(z), -1) * self.config.camera_scale)
        w = self.mapping_network.w_avg.lerp(w, truncation_psi)
        return {"ws": w[:, None].expand(-1, self.num_ws, -1)}

    def mean_codes(self) -> dict[str, Tensor]:
        """Codes of the mean style, one face."""
        return {"ws": self.mapping_network.w_avg.expand(1, self.num_ws, -1)}

    def synthesis(
        self,
        codes: Mapping[str, Tensor],
        c: Tensor,
        noise: Noise = "const",
        resolution: int | None = None,
    ) -> Output:
        """Codes and cameras c [N,25] -> Output without a label map.

        Args: noise: of the backbone, as StyleGAN2's. resolution: see `render`.
        """
        return self.render(self.planes(codes, noise), c, resolution)

    def planes(self, codes: Mapping[str, Tensor], noise: Noise = "const") -> Planes:
        """features [N,3,H,W,C]: the planes; style [N,w_dim]: that of the super-resolution."""
        maps = self.synthesis_network(codes["ws"], noise).float()
        maps = maps.unflatten(1, (3, -1)).permute(0, 1, 3, 4, 2)
        return {"features": maps.contiguous(), "style": codes["ws"][:, -1]}

    def render(
        self, planes: Planes, c: Tensor, resolution: int | None = None, place: float = MIDDLE
    ) -> Output:
        """Views of faces.

        Args:
            planes: of N faces. c: [N*k,25], the k views of a face next to each other.
            resolution: end there: the side of the volume rendering or of a block of the
                super-resolution; None: the configuration's.
            place: of the samples in their intervals, in [0,1].

        Raises: OptionError: no picture of that resolution on the way.
        """
        side = resolution or self.resolution
        known = (self.config.neural, *self.superresolution.sides)
        if side not in known:
            raise OptionError(f"synthesis cannot end at {side} pixels, only at {known}")
        features, depth, opacity = self._march(planes, c, place)
        low = Output(features[:, :3], depth=depth, opacity=opacity)
        if side == self.config.neural:
            return Output(low.image, depth=depth, opacity=opacity, low=low)
        style = planes["style"].repeat_interleave(len(c) // len(planes["style"]), 0)
        image = self.superresolution(features, style, side)
        return Output(image.float(), depth=depth, opacity=opacity, low=low)

    def field(self, planes: Planes, points: Tensor, face: Tensor) -> tuple[Tensor, Tensor]:
        """Density [M] (1 / world unit) and colour [M,3] in [-1,1] at points [M,3], world units,
        of faces int64 [M]."""
        hidden, sigma = self._raw(planes, points, face)
        return F.softplus(sigma - 1), 2 * self.decoder.colours(hidden)[:, :3] - 1

    def sigma(self, planes: Planes, points: Tensor, face: Tensor) -> Tensor:
        """Density alone; see `field`."""
        return F.softplus(self._raw(planes, points, face)[1] - 1)

    def _raw(self, planes: Planes, points: Tensor, face: Tensor) -> tuple[Tensor, Tensor]:
        """Hidden units [M,H] and density before its softplus [M] at points [M,3]."""
        points = points * (2 / self.config.box)
        hidden = self.decoder.hidden(volume.lookup(planes["features"], points, face, self.axes))
        return hidden, self.decoder.density(hidden)

    def _march(self, planes: Planes, c: Tensor, place: float) -> tuple[Tensor, Tensor, Tensor]:
        """Features [V,F,r,r], depth and opacity [V,1,r,r] of views c [V,25]."""
        config, side = self.config, self.config.neural
        origins, directions = (r.flatten(0, 1) for r in cameras.rays(c, side))
        views = len(c) // len(planes["features"])
        face = torch.arange(len(origins), device=c.device) // (views * side * side)
        near, far = bounds(config, origins, directions)

        def sampled(t: Tensor) -> tuple[Tensor, Tensor]:
            points = origins[:, None] + t[..., None] * directions[:, None]
            rows = face.repeat_interleave(t.shape[1])
            hidden, sigma = self._raw(planes, points.reshape(-1, 3), rows)
            return hidden.unflatten(0, t.shape), sigma.view(t.shape)

        t = spaced(near, far, config.samples, place)
        hidden, sigma = sampled(t)
        if config.fine:
            with torch.no_grad():
                more = concentrated(t, weigh(t, sigma)[0], config.fine)
            found = sampled(more)
            t = torch.cat([t, more], 1)
            hidden, sigma = torch.cat([hidden, found[0]], 1), torch.cat([sigma, found[1]], 1)
        sorted_t, order = t.sort(1)
        weights, distance = weigh(sorted_t, sigma.gather(1, order))
        total = weights.sum(1, keepdim=True)
        colour = self._colour(hidden, shares(weights, order))
        if config.white:
            colour = colour + 1 - total
        distance = (distance / total).nan_to_num(float("inf"))
        distance = distance.clamp(float(t.detach().min()), float(t.detach().max()))

        def picture(values: Tensor) -> Tensor:
            return values.view(len(c), side, side, -1).permute(0, 3, 1, 2)

        return picture(2 * colour - 1), picture(distance), picture(total)

    def _colour(self, hidden: Tensor, weights: Tensor) -> Tensor:
        """Features [M,F] of rays from hidden units [M,S,H] and weights [M,S]."""
        flat = weights.flatten()
        seen = (flat.detach() > SKIP).nonzero()[:, 0]
        values = self.decoder.colours(hidden.flatten(0, 1)[seen]) * flat[seen, None]
        out = values.new_zeros(len(weights), values.shape[1])
        return out.index_add(0, seen // weights.shape[1], values)


class Bounds(Protocol):
    """A configuration that says where rays begin and end, and how large the box is."""

    @property
    def near(self) -> float: ...

    @property
    def far(self) -> float: ...

    @property
    def box(self) -> float: ...


def bounds(config: Bounds, origins: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """Where rays [M,3] begin and end: [M] twice."""
    if config.near == config.far == 0:
        return volume.box_interval(origins, directions, config.box / 2)
    ones = torch.ones_like(origins[:, 0])
    return config.near * ones, config.far * ones


def spaced(near: Tensor, far: Tensor, count: int, place: float | Tensor) -> Tensor:
    """Samples [M,count] from near to far [M]; `place`, in [0,1], a number or [M,count], moves each
    into the interval behind it."""
    steps = torch.linspace(0, 1, count, device=near.device) + place / (count - 1)
    return near[:, None] + steps * (far - near)[:, None]


def weigh(t: Tensor, sigma: Tensor, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """Weights [M,S-1] of the intervals between samples, and their sum of distances [M,1].

    Args: t [M,S] ascending; sigma [M,S] before the softplus, which sees the mean of two.
          scale: density of a softplus of 1, 1 / world units.
    """
    density = F.softplus((sigma[:, 1:] + sigma[:, :-1]) / 2 - 1) * scale
    weights, _ = volume.composite(density, t.diff(dim=1))
    return weights, (weights * (t[:, 1:] + t[:, :-1]) / 2).sum(1, keepdim=True)


def shares(weights: Tensor, order: Tensor) -> Tensor:
    """Weights [M,S] of samples from those of the intervals [M,S-1] between them, half and half;
    order [M,S]: place of each sorted sample among the unsorted ones, as which they come back."""
    halves = weights / 2
    each = F.pad(halves, (1, 0)) + F.pad(halves, (0, 1))
    return torch.zeros_like(each).scatter(1, order, each)


def concentrated(t: Tensor, weights: Tensor, count: int, drawn: Tensor | None = None) -> Tensor:
    """Samples [M,count] of the smoothed distribution of weights [M,S-1] between samples t [M,S]:
    at its quantiles `drawn` [M,count] in [0,1], or evenly spaced ones."""
    smooth = F.avg_pool1d(F.max_pool1d(weights[:, None], 2, 1, padding=1), 2, 1)[:, 0] + 0.01
    chance = smooth[:, 1:-1] + 1e-5
    ends = F.pad((chance / chance.sum(1, keepdim=True)).cumsum(1), (1, 0))
    middles = (t[:, 1:] + t[:, :-1]) / 2
    even = torch.linspace(0, 1, count, device=t.device).expand(len(t), -1)
    u = (even if drawn is None else drawn).contiguous()
    above = torch.searchsorted(ends, u)
    below = (above - 1).clamp(min=0)
    above = above.clamp(max=chance.shape[1])
    low, high = ends.gather(1, below), ends.gather(1, above)
    width = high - low
    part = (u - low) / torch.where(width < 1e-5, torch.ones_like(width), width)
    first, last = middles.gather(1, below), middles.gather(1, above)
    return first + part * (last - first)


class ColourDecoder(nn.Module):
    """Features of the planes [M,C] -> density, and features of rays."""

    def __init__(self, config: EG3DConfig) -> None:
        super().__init__()
        self.first = Linear(config.plane_channels, config.decoder)
        self.last = Linear(config.decoder, 1 + config.features)

    def hidden(self, x: Tensor) -> Tensor:
        """[M,C] -> hidden units [M,H]."""
        return F.softplus(self.first(x))

    def density(self, hidden: Tensor) -> Tensor:
        """[M,H] -> [M], before the softplus."""
        last = self.last
        return hidden @ (last.weight[0] * last.gain) + last.bias[0] * last.rate

    def colours(self, hidden: Tensor) -> Tensor:
        """[M,H] -> [M,F], about [0,1]."""
        last = self.last
        raw = F.linear(hidden, last.weight[1:] * last.gain, last.bias[1:] * last.rate)
        return torch.sigmoid(raw) * (1 + 2 * MARGIN) - MARGIN


class EG3DSuperresolution(nn.Module):
    """Features of rays [N,F,r,r] -> picture: resized to the first block's input, then two
    blocks of StyleGAN2; below 512 pixels the first one keeps the side."""

    def __init__(self, config: EG3DConfig) -> None:
        super().__init__()
        self.input, self.antialias, self.noise = config.up_input, config.antialias, config.up_noise
        shared = StyleGAN2Config(w_dim=config.w_dim, clamp=config.up_clamp)
        self.sides = (config.resolution // 2, config.resolution)
        if self.sides[0] not in (self.input, 2 * self.input):
            raise OptionError(
                f"no super-resolution from {self.input} to {config.resolution} pixels"
            )
        first = Block if self.sides[0] == 2 * self.input else Keeping
        self.block0 = first(config.features, config.up[0], self.sides[0], shared)
        self.block1 = Block(*config.up, self.sides[1], shared)

    def forward(self, features: Tensor, style: Tensor, side: int) -> Tensor:
        """features [N,F,r,r], style [N,w_dim] -> picture [N,3,side,side], side one of `sides`."""
        x = features
        if x.shape[-1] != self.input:
            size = (self.input, self.input)
            x = F.interpolate(x, size, mode="bilinear", antialias=self.antialias)
        ws = style[:, None].expand(-1, 3, -1)
        image = x[:, :3]
        for block, resolution in zip((self.block0, self.block1), self.sides, strict=True):
            x, image = block(x, image, ws, self._maps(block))
            if resolution == side:
                break
        return image

    def _maps(self, block: Block) -> dict[str, Tensor | None]:
        if not self.noise:
            return dict.fromkeys(block.noisy)
        layers = {name: block.get_submodule(name) for name in block.noisy}
        return {
            name: layer.noise_const[None, None] * layer.noise_strength
            for name, layer in layers.items()
            if isinstance(layer, NoisyConv)
        }


class Keeping(Block):
    """A block whose first layer keeps the side."""

    def __init__(self, inputs: int, channels: int, side: int, config: StyleGAN2Config) -> None:
        super().__init__(inputs, channels, side, config)
        self.conv0 = NoisyConv(inputs, channels, side, w_dim=config.w_dim, clamp=config.clamp)

    def forward(
        self, x: Tensor | None, image: Tensor | None, ws: Tensor, noise: Mapping[str, Tensor | None]
    ) -> tuple[Tensor, Tensor]:
        """As Block's, from the same side."""
        assert x is not None and image is not None
        x = self.conv0(x, ws[:, 0], noise["conv0"])
        x = self.conv1(x, ws[:, 1], noise["conv1"])
        return x, image + self.torgb(x, ws[:, 2])
