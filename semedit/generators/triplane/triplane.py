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

The paper's 3D style mask (section 4.3) is two optional codes of S layers: texture planes are also
made with the styles `style` [N,S,k,w_dim], and points take a share of their colour from those,
which `where` [N,S,classes] has for their label: in editing 0 or 1. Of two layers, the later one
counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semedit import cameras
from semedit.generators.contract import Output
from semedit.generators.parts import volume
from semedit.generators.parts.encoder import WithEncoder
from semedit.generators.triplane.layers import (
    Conditioned,
    Mapping,
    PlaneDecoder,
    TexturePlanes,
    TriplaneConfig,
    Trunk,
    Upsampler,
)

Planes = dict[str, Tensor]

__all__ = ["Triplane", "TriplaneConfig"]


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
    """Semantic tri-planes of the IDE-3D kind, drawn small and enlarged: `heads-128`.

    `planes` is the costly half; its result serves any number of views.
    """

    traits: frozenset[str] = frozenset({"ws", "camera", "seg", "texture", "field"})
    # Pivotal tuning adds to these: what a face has beside the codes, placed where it is seen.
    tunable: ClassVar[tuple[str, ...]] = ("planes.shape", "planes.texture", "planes.background")

    def __init__(self, config: TriplaneConfig, name: str = "triplane") -> None:
        super().__init__()
        self.config, self.name = config, name
        self.z_dim, self.resolution = config.z_dim, config.resolution
        self.view_limit_deg = config.view_limit_deg
        self.trunk = Trunk(config)
        self.texture = TexturePlanes(config)
        self.shape_decoder = PlaneDecoder(config.shape_channels, config.decoder, 1 + config.classes)
        self.texture_decoder = PlaneDecoder(
            config.texture_channels, config.decoder, config.features
        )
        self.upsampler = Upsampler(config)
        self.background_seg = nn.Parameter(8.0 * F.one_hot(torch.tensor(0), config.classes).float())
        self.num_shape = self.trunk.num_ws
        self.num_ws = self.num_shape + self.texture.num_ws + self.upsampler.num_ws
        self.mapping_network: Mapping | Conditioned = (
            Conditioned(config)
            if config.c_dim
            else Mapping(config, self.num_ws if config.layered else 1)
        )
        self.register_buffer("w_avg", torch.zeros(self.mapping_network.num_ws, config.w_dim))
        self.w_avg: Tensor
        with torch.no_grad():  # nearly empty at the start: opaque boxes learn slowly
            self.shape_decoder.last.bias[0] = config.density_start

    def mapping(self, z: Tensor, c: Tensor, truncation_psi: float = 1.0) -> dict[str, Tensor]:
        """z [N,z_dim] -> {"ws": [N,num_ws,w_dim]}; c [N or 1,25] has an influence where the
        configuration's c_dim is not 0."""
        ws = self.w_avg.lerp(self.mapping_network(z, c).float(), truncation_psi)
        return {"ws": ws.expand(-1, self.num_ws, -1)}

    def mean_codes(self) -> dict[str, Tensor]:
        """Codes of the mean style, one face."""
        return {"ws": self.w_avg[None].expand(1, self.num_ws, -1)}

    def optional_codes(self) -> dict[str, Tensor]:
        """One layer of the style mask that has no effect, one face; see the module."""
        style = self.w_avg.new_zeros(1, 1, self.num_ws - self.num_shape, self.config.w_dim)
        return {"style": style, "where": self.w_avg.new_zeros(1, 1, self.config.classes)}

    def style(self, codes: dict[str, Tensor]) -> Tensor:
        """The styles of the texture planes and the up-sampler [N,k,w_dim]."""
        return codes["ws"][:, self.num_shape :]

    def synthesis(self, codes: dict[str, Tensor], c: Tensor, noise: str = "const") -> Output:
        """Codes and cameras c [N,25] -> Output. There are no noise inputs."""
        return self.render(self.planes(codes), c)

    def planes(self, codes: dict[str, Tensor]) -> Planes:
        """All that does not depend on the camera.

        Returns: shape, texture [N,3,H,W,C]; background [N,features,B,B]; density [N,1,G,G,G],
                 without gradient; ws: the styles of the up-sampler; with a style mask `where`,
                 its planes, styles [N,S,3,H,W,C], and its up-sampler's styles, drawn [N,S,k,w_dim].
        """
        ws = codes["ws"]
        split = [self.num_shape, self.texture.num_ws, self.upsampler.num_ws]
        of_shape, of_texture, of_upsampler = ws.split(split, 1)
        x, shape = self.trunk(of_shape)
        texture, background = self.texture(x, of_texture)
        planes = {
            "shape": shape,
            "texture": texture,
            "background": background,
            "ws": of_upsampler,
        }
        planes = self.settled(planes)
        return planes | self._masked(x, codes, background) if "style" in codes else planes

    def _masked(
        self, features: list[Tensor], codes: dict[str, Tensor], background: Tensor
    ) -> Planes:
        """Planes of the style mask: `styles`, `where`, and the background with what the mask
        says of class 0. Trunk features [N,...] are the face's own, so that all planes agree."""
        style, where = codes["style"], codes["where"]
        each = [x.repeat_interleave(style.shape[1], 0) for x in features]
        of_texture, drawn = style.split([self.texture.num_ws, self.upsampler.num_ws], 2)
        texture, behind = self.texture(each, of_texture.flatten(0, 1))
        behind = behind.unflatten(0, style.shape[:2])
        for layer in range(style.shape[1]):
            share = where[:, layer, 0].view(-1, 1, 1, 1)
            background = torch.lerp(background, behind[:, layer], share)
        return {
            "styles": texture.unflatten(0, style.shape[:2]),
            "drawn": drawn,
            "where": where,
            "background": background,
        }

    def settled(self, planes: Planes) -> Planes:
        """Planes with the density grid of their shape."""
        return {**planes, "density": self.density(planes["shape"].detach())}

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

    def raw_density(self, shape: Tensor, points: Tensor, face: Tensor) -> Tensor:
        """Density before its softplus [M] in planes [N,3,H,W,C] at points [M,3] in the box's
        units, of faces int64 [M]."""
        return self.shape_decoder(volume.lookup(shape, points, face))[:, 0]

    def field(self, planes: Planes, points: Tensor, face: Tensor) -> tuple[Tensor, Tensor]:
        """Density [M] (1 / world unit) and colour [M,3] at points [M,3], world units, of faces
        int64 [M]; the colour before up-sampling, about [-1,1]."""
        points = points * (2 / self.config.box)
        decoded = self.shape_decoder(volume.lookup(planes["shape"], points, face))
        features = self._features(planes, points, face, decoded[:, 1:])
        return self._sigma(decoded[:, 0]), features[:, :3].float()

    def sigma(self, planes: Planes, points: Tensor, face: Tensor) -> Tensor:
        """Density alone; see `field`."""
        return self._sigma(self.raw_density(planes["shape"], points * (2 / self.config.box), face))

    def labels(self, planes: Planes, points: Tensor, face: Tensor) -> Tensor:
        """Labels int64 [M] of points [M,3], world units, of faces int64 [M]; 0 in empty space is
        not meant."""
        found = volume.lookup(planes["shape"], points * (2 / self.config.box), face)
        return self.shape_decoder(found)[:, 1:].argmax(1)

    def _features(self, planes: Planes, points: Tensor, face: Tensor, logits: Tensor) -> Tensor:
        """Colour features [M,F] at points [M,3] in the box's units, whose labels have the logits
        [M,classes]: from the texture planes, or where the style mask has the label from its."""
        values = self.texture_decoder(volume.lookup(planes["texture"], points, face)).float()
        if "where" not in planes:
            return values
        layers, labels = planes["where"].shape[1], logits.argmax(1)
        styles = planes["styles"].flatten(0, 1)
        for layer in range(layers):
            share = planes["where"][face, layer, labels]
            rows = share.nonzero()[:, 0]
            found = volume.lookup(styles, points[rows], face[rows] * layers + layer)
            other = self.texture_decoder(found).float()
            mixed = torch.lerp(values[rows], other, share[rows, None])
            values = values.index_copy(0, rows, mixed)
        return values

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
        image, large = self.upsampler(features, seg, ws)
        if "where" in planes:
            image = self._enlarged(planes, image, large, features, seg)
        return Output(image.float(), large.float(), depth, opacity, low)

    def _enlarged(
        self, planes: Planes, image: Tensor, large: Tensor, features: Tensor, seg: Tensor
    ) -> Tensor:
        """The picture [V,3,R,R], enlarged with the style mask's styles where its labels are in
        the large label map."""
        views, labels = len(image) // len(planes["where"]), large.argmax(1)
        for layer in range(planes["where"].shape[1]):
            drawn, where = (
                planes[k][:, layer].repeat_interleave(views, 0) for k in ("drawn", "where")
            )
            other, _ = self.upsampler(features, seg, drawn)
            share = where.gather(1, labels.flatten(1)).view_as(labels)[:, None]
            image = torch.lerp(image, other, share.to(image))
        return image

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
        flat = logits.flatten(0, 1)
        colour = self._colour(planes, points, face, weights, flat, config.skip_weight)
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

    def _colour(
        self,
        planes: Planes,
        points: Tensor,
        face: Tensor,
        weights: Tensor,
        logits: Tensor,
        skip: float,
    ) -> Tensor:
        """Features [M,F] of rays: only samples that are seen, those of weights [M,K] above `skip`,
        are decoded; points [M*K,3], logits [M*K,classes]: their places and labels."""
        flat = weights.flatten()
        seen = (flat.detach() > skip).nonzero()[:, 0]
        values = self._features(planes, points[seen], face[seen], logits[seen]) * flat[seen, None]
        out = values.new_zeros(len(weights), values.shape[1])
        return out.index_add(0, seen // weights.shape[1], values)
