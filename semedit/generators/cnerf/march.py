"""Volume rendering of regions: rays, the regions' networks at their samples, fusion, aggregation.

Lengths here are in distances of the camera from the head's centre; points enter the networks in
units of `config.depth`, so that those on the axis lie in [-1,1].

A distance field is the sum over all regions, whatever their masks, so the published network must
be evaluated whole wherever a ray still goes; samples behind a surface are left out. Where
distances come from the shape layers alone (`shape_sdf`), the texture layers are evaluated only at
samples that are seen, and there only for regions whose mask is.

Source: Ma et al. 2023 (CNeRF), arXiv:2302.01579; rays and density as in Or-El et al. 2022
(StyleSDF), arXiv:2112.11427. Departs: colours are read by the product of their two linear layers,
and features are summed along rays before their linear layer, which is the same sum.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from semedit import cameras
from semedit.generators.cnerf.config import CNeRFConfig
from semedit.generators.cnerf.rays import Rays
from semedit.generators.parts import volume
from semedit.generators.parts.siren import (
    Linears,
    RegionField,
    Sines,
    evaluate,
    plain,
    remembered_bytes,
)

EMPTY = 1e3  # distance to any surface where none is looked for
# Where small regions of a head can be, in world units: (|x|, y, z) from ... to ...; they fade
# over the outer fifth. Measured on rendered heads (triangulated landmarks, label maps of frontal
# views), with a margin.
WINDOWS: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "eye": ((0.00, -0.05, 0.05), (0.17, 0.09, 0.33)),
    "brow": ((-0.03, 0.00, 0.04), (0.21, 0.15, 0.36)),
    "nose": ((-0.10, -0.15, 0.05), (0.10, 0.10, 0.37)),
    "mouth": ((-0.12, -0.27, 0.05), (0.12, -0.04, 0.36)),
    "ear": ((0.10, -0.22, -0.20), (0.28, 0.13, 0.18)),
    "glasses": ((-0.26, -0.10, -0.12), (0.26, 0.12, 0.37)),
}


@dataclass(frozen=True)
class FaceField:
    """The field of one face, and its parts that are linear in the view.

    mask_view [K,3], mask_bias [K]; colour_view [K,3,3] (colour, view), colour_bias [K,3];
    sdf_bias [K]; base: the network that distances start from, and its bias.
    """

    field: RegionField
    mask_view: Tensor
    mask_bias: Tensor
    colour_view: Tensor
    colour_bias: Tensor
    sdf_bias: Tensor
    base: tuple[RegionField, Tensor] | None


class Local(nn.Module):
    """The networks of all regions, and the base network of the distances."""

    def __init__(self, config: CNeRFConfig) -> None:
        super().__init__()
        count, width = len(config.regions), config.width
        self.config = config
        shape = (config.layers, width, config.w_dim, config.frequency, config.phase)
        self.sines = Sines(count, *shape)
        small = (6.0 / width) ** 0.5 / 25.0
        self.mask = Linears(count, width + 3, 1, small)
        self.sdf = Linears(count, width, 1, small)
        if config.sphere is not None:  # distances start as the sphere's
            nn.init.zeros_(self.sdf.weight), nn.init.zeros_(self.sdf.bias)
        self.feature = Linears(count, width + 3, width, 0.25 * (6.0 / 1.04 / (width + 3)) ** 0.5)
        self.rgb = Linears(count, width, 3, small)
        self.base: Sines | None = None
        if config.sphere is None:
            self.base = Sines(1, *shape)
            self.base_sdf = Linears(1, width, 1, small)

    def modulation(self, ws: Tensor) -> dict[str, Tensor]:
        """ws [N,K,L,w_dim] -> gamma, beta [N,K,L,H]; those of the base follow the first region
        without gradient, as published."""
        gamma, beta = self.sines.modulation(ws)
        found = {"gamma": gamma, "beta": beta}
        if self.base is not None:
            with torch.no_grad():
                base = self.base.modulation(ws[:, :1])
            found |= {"base_gamma": base[0], "base_beta": base[1]}
        return found

    def field(self, planes: dict[str, Tensor]) -> FaceField:
        """Of one face's planes, [K,L,H]."""
        width, config = self.config.width, self.config
        feature, rgb = self.feature.weight, self.rgb.weight
        colour = rgb @ feature  # [K,3,H+3]
        bias = (rgb @ self.feature.bias[:, :, None])[:, :, 0] + self.rgb.bias
        mask, sdf = self.mask.weight, self.sdf.weight
        early, late = mask[:, :, :width], colour[:, :, :width]
        if config.shape_sdf:
            early = torch.cat([early, sdf], 1)
        else:
            late = torch.cat([sdf, late], 1)
        layers, depth = self.sines.layers(), config.shape_layers
        base = None
        if self.base is not None:
            args = planes["base_gamma"], planes["base_beta"], self.base.layers()
            read = self.base_sdf.weight
            base = RegionField(*args, read[:, :0], read, depth), self.base_sdf.bias
        return FaceField(
            RegionField(planes["gamma"], planes["beta"], layers, early, late, depth),
            mask[:, 0, width:], self.mask.bias[:, 0],
            colour[:, :, width:], bias, self.sdf.bias[:, 0], base,
        )  # fmt: skip

    def features(self, hidden: Tensor, maps: Tensor, views: Tensor) -> Tensor:
        """[M,H] of rays from the sums of w m h [M,K,H] and of w m [M,K], and views [M,3]."""
        width, weight = self.config.width, self.feature.weight
        outer = torch.einsum("mv,kfv->mkf", views, weight[:, :, width:]) + self.feature.bias
        inner = torch.einsum("mkh,kfh->mf", hidden, weight[:, :, :width])
        return inner + (maps[:, :, None] * outer).sum(1)

    def bytes(self, points: int) -> int:
        """Memory kept for a backward pass of so many points."""
        gamma = self.sines.gamma_bias
        layers = self.config.shape_layers if self.config.shape_sdf else self.config.layers
        empty = gamma.new_empty(0)
        field = RegionField(gamma[:, :layers], gamma, [], empty, empty, 0)
        return remembered_bytes(field, points)


def distances(generator: Any, face: FaceField, points: Tensor) -> Tensor:
    """Signed distances [P] at points [P,3], differentiable twice, in the points, too: for the
    eikonal term. In distances of the camera."""
    local, config = generator.local, generator.config
    inner = points / config.depth
    field = face.field.shape() if config.shape_sdf else face.field
    early, late, _ = plain(field, inner)
    index = torch.arange(len(config.regions), device=points.device)
    factors = window(config, points, index)
    raw = (early[..., 1] if config.shape_sdf else late[..., 0]) + face.sdf_bias[:, None]
    if factors is not None:
        raw = raw * factors
    return _base(local, face, inner) + raw.sum(0)


def _base(local: Local, face: FaceField, points: Tensor) -> Tensor:
    """Distances [P] that the regions' are added to; those of a network without gradient."""
    config = local.config
    if face.base is None:
        assert config.sphere is not None
        return config.depth * (points.norm(dim=-1) - config.sphere)
    field, bias = face.base
    with torch.no_grad():
        return evaluate(field, points.detach(), False)[1][0, :, 0] + bias[0]


def window(config: CNeRFConfig, points: Tensor, regions: Tensor) -> Tensor | None:
    """How much of regions there can be at points [P,3] (in distances of the camera): [K,P] in
    [0,1], or None where they know no bounds. The background's is not here: it is at the end."""
    if not config.windows:
        return None
    place = points * cameras.RADIUS
    place = torch.stack([place[:, 0].abs(), place[:, 1], place[:, 2]], -1)
    found = []
    for index in regions.tolist():
        name = config.regions[index]
        if name not in WINDOWS:
            found.append(torch.full_like(place[:, 0], float(name != "background")))
            continue
        low, high = (torch.tensor(v).to(place) for v in WINDOWS[name])
        middle, half = (low + high) / 2, (high - low) / 2
        inside = (1 - ((place - middle) / half).abs()) / 0.2
        found.append(inside.clamp(0, 1).prod(-1))
    return torch.stack(found)


@dataclass(frozen=True)
class _Values:
    """At samples [...]: mask [K,...], sdf [...], colour [K,...,3] or None, hidden [K,...,H] or
    None. Masks are complete; colours lack their part that is linear in the view."""

    mask: Tensor
    sdf: Tensor
    colour: Tensor | None = None
    hidden: Tensor | None = None

    def rays(self, count: int) -> _Values:
        """[rays * samples] -> [rays, samples]."""

        def cut(x: Tensor | None, axis: int) -> Tensor | None:
            return None if x is None else x.unflatten(axis, (count, -1))

        mask, sdf = self.mask.unflatten(1, (count, -1)), self.sdf.unflatten(0, (count, -1))
        return _Values(mask, sdf, cut(self.colour, 1), cut(self.hidden, 1))


def _geometry(
    local: Local,
    face: FaceField,
    points: Tensor,
    view: Tensor,
    end: Tensor,
    options: tuple[bool, bool],
) -> _Values:
    """Values at points [P,3].

    Args: view: the part of the masks that is linear in the view, [K,P]. end [P,3]: Rays.screen of
          samples that are the last of their rays, else NaN. options: remember, hidden; see
          siren.evaluate.
    """
    config, inner = local.config, points / local.config.depth
    base = _base(local, face, inner)
    if config.windows:
        mask, sdf = _windowed(local, face, points, view, end, options[0])
        return _Values(mask, base + sdf)
    field = face.field.shape() if config.shape_sdf else face.field
    early, late, h = evaluate(field, inner, options[0], options[1] and not config.shape_sdf)
    sdf = (early[..., 1] if config.shape_sdf else late[..., 0]) + face.sdf_bias[:, None]
    sdf = base + sdf.sum(0)
    if config.shape_sdf:
        return _Values(early[..., 0] + view, sdf)
    return _Values(early[..., 0] + view, sdf, late[..., 1:], h if options[1] else None)


def _windowed(
    local: Local, face: FaceField, points: Tensor, view: Tensor, end: Tensor, remember: bool
) -> tuple[Tensor, Tensor]:
    """Masks [K,P] and the sum of distances [P], every region where it can be."""
    config, inner = local.config, points / local.config.depth
    regions = range(len(config.regions))
    factors = window(config, points, torch.tensor(regions))
    assert factors is not None
    background = config.regions.index("background")
    before = end[:, 0].isnan().to(factors)
    factors[background] = 1 - before  # where there is nothing else
    wide = [k for k in regions if config.regions[k] not in ("background", *WINDOWS)]
    small = [k for k in regions if k not in wide]
    field = face.field.shape()
    early = evaluate(field.pick(wide), inner, remember)[0]
    mask = (early[..., 0] + view[wide]) * before
    masks = torch.zeros_like(factors).index_copy(0, torch.tensor(wide), mask)
    total = (early[..., 1] + face.sdf_bias[wide][:, None]).sum(0)
    own = Chosen.of([factors[k].nonzero()[:, 0] for k in small])
    places = own.places(inner, end, small.index(background))
    early = own.cut(evaluate(field.pick(small), places, remember)[0])
    region = torch.tensor(small)[own.region]
    factor = factors[region, own.row]
    mask = (early[:, 0] + view[region, own.row]) * factor
    total = total.index_add(0, own.row, (early[:, 1] + face.sdf_bias[region]) * factor)
    return masks.index_put((region, own.row), mask), total


@dataclass(frozen=True)
class Chosen:
    """Points that each of K networks sees, T together: padded int64 [K,M], network by network,
    filled up with the first point; there bool [K,M]; region and row int64 [T] of those there."""

    padded: Tensor
    there: Tensor
    region: Tensor
    row: Tensor

    @classmethod
    def of(cls, rows: list[Tensor]) -> Chosen:
        """rows: of each network, int64 [M_k]."""
        padded = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        sizes = torch.tensor([len(r) for r in rows], device=padded.device)
        there = torch.arange(padded.shape[1], device=padded.device) < sizes[:, None]
        region = torch.arange(len(rows), device=padded.device).repeat_interleave(sizes)
        return cls(padded, there, region, torch.cat(rows))

    def cut(self, values: Tensor) -> Tensor:
        """[K,M,C] -> [T,C]."""
        return values[self.there]

    def places(self, points: Tensor, end: Tensor, background: int) -> Tensor:
        """What the networks are given [K,M,3]: points [P,3]; the one of the background, end [P,3],
        as it lies in the picture, not in the world."""
        found = points[self.padded]
        found[background] = end[self.padded[background]].nan_to_num()
        return found


def _density(sdf: Tensor, beta: Tensor) -> Tensor:
    return torch.sigmoid(-sdf / beta) / beta


def march(
    generator: Any, face: FaceField, rays: Rays, remember: bool, features: bool
) -> dict[str, Tensor]:
    """Render rays of one face; see CNeRF.volume for what comes back."""
    local, config = generator.local, generator.config
    m, s = rays.t.shape
    points, lengths = rays.points(), rays.lengths()
    beta = generator.sigmoid_beta.clamp(min=1e-4)
    limit = -math.log(max(config.skip_weight, 1e-30))  # of what lies before a sample
    view = (rays.views @ face.mask_view.t() + face.mask_bias).t()  # [K,M]
    alive, thickness, slabs = torch.arange(m, device=points.device), points.new_zeros(m), []
    for begin in range(0, s, rays.slab):
        here = points[alive, begin : begin + rays.slab]
        count = here.shape[1]
        end = torch.full_like(here, math.nan)
        if begin + count == s:
            end[:, -1] = rays.screen[alive]
        values = _geometry(
            local, face, here.flatten(0, 1), view[:, alive].repeat_interleave(count, 1),
            end.flatten(0, 1), (remember, features),
        ).rays(len(alive))  # fmt: skip
        slabs.append(_spread(values, alive, m))
        with torch.no_grad():
            sigma = _density(values.sdf, beta) * lengths[alive, begin : begin + rays.slab]
            thickness[alive] += sigma.sum(1)
            going = thickness < limit
            going[0] = True  # tensors without rays could not be shaped
            alive = going.nonzero()[:, 0]
    sdf, mask = (torch.cat([getattr(v, k) for v in slabs], -1) for k in ("sdf", "mask"))
    weights, after = volume.composite(_density(sdf, beta), lengths)
    if config.windows:  # the background stops what is left, whatever its distance
        weights = torch.cat([weights[:, :-1], weights[:, -1:] + after.view(-1, 1)], 1)
    colours = _seen if config.shape_sdf else _all
    mixed, hidden = colours(local, face, rays, slabs, mask, weights, features)
    found = {
        "colour": 2 * (weights[..., None] * torch.sigmoid(mixed)).sum(1) - 1,
        "maps": torch.einsum("ms,kms->mk", weights, mask),
        "left": _left(points, mask, weights),
        "distance": (weights * rays.t).sum(1, True) * rays.directions.norm(dim=1, keepdim=True),
        "distances": sdf,
    }
    if hidden is not None:
        found["features"] = local.features(hidden, found["maps"], rays.views)
    return found


def _spread(values: _Values, alive: Tensor, m: int) -> _Values:
    """Values of some of m rays, as of all: the others are empty space."""
    if len(alive) == m:
        return values

    def put(x: Tensor, axis: int, other: float = 0.0) -> Tensor:
        shape = (*x.shape[:axis], m, *x.shape[axis + 1 :])
        return x.new_full(shape, other).index_copy(axis, alive, x)

    return _Values(
        put(values.mask, 1),
        put(values.sdf, 0, EMPTY),
        None if values.colour is None else put(values.colour, 1),
        None if values.hidden is None else put(values.hidden, 1),
    )


@torch.no_grad()
def _left(points: Tensor, mask: Tensor, weights: Tensor) -> Tensor:
    """Share of each region along each ray that lies at x > 0: [M,K]."""
    share = weights * mask.abs()  # [K,M,S]
    left = (share * (points[..., 0] > 0)).sum(-1)
    return (left / (share.sum(-1) + 1e-9)).t()


Colours = tuple[Tensor, Tensor | None]


def _all(
    local: Local, face: FaceField, rays: Rays, slabs: list[_Values], mask: Tensor, weights: Tensor,
    features: bool,
) -> Colours:  # fmt: skip
    """Mixed colours [M,S,3] before the sigmoid, and the sums of w m h [M,K,H]."""
    view = torch.einsum("mv,kcv->mkc", rays.views, face.colour_view) + face.colour_bias
    mixed, sums, begin = [], [], 0
    for slab in slabs:
        assert slab.colour is not None
        inner = torch.einsum("kms,kmsc->msc", slab.mask, slab.colour)
        mixed.append(inner + torch.einsum("kms,mkc->msc", slab.mask, view))
        if slab.hidden is not None:
            share = slab.mask * weights[:, begin : begin + slab.sdf.shape[1]]
            sums.append(torch.einsum("kms,kmsh->mkh", share, slab.hidden))
        begin += slab.sdf.shape[1]
    return torch.cat(mixed, 1), torch.stack(sums).sum(0) if sums else None


def _seen(
    local: Local, face: FaceField, rays: Rays, slabs: list[_Values], mask: Tensor, weights: Tensor,
    features: bool,
) -> Colours:  # fmt: skip
    """As `_all`, of samples and regions that are seen alone."""
    m, s = weights.shape
    inner = (rays.points() / local.config.depth).flatten(0, 1)
    view = torch.einsum("mv,kcv->kmc", rays.views, face.colour_view) + face.colour_bias[:, None]
    flat, share = mask.flatten(1), (weights * mask).flatten(1)
    limit = local.config.skip_weight
    seen = Chosen.of([(row.abs() > limit).nonzero()[:, 0] for row in share.detach()])
    ray, at = seen.row // s, (seen.region, seen.row)
    if local.config.windows:
        end = rays.screen.repeat_interleave(s, 0)
        places = seen.places(inner, end, local.config.regions.index("background"))
    else:
        places = inner[seen.padded]
    _, colour, h = evaluate(face.field, places, True, features)
    colour = (seen.cut(colour) + view[seen.region, ray]) * flat[at][:, None]
    mixed = inner.new_zeros(m * s, 3).index_add(0, seen.row, colour)
    if not features:
        return mixed.view(m, s, 3), None
    sums = inner.new_zeros(m * len(mask), h.shape[2])
    sums = sums.index_add(0, ray * len(mask) + seen.region, seen.cut(h) * share[at][:, None])
    return mixed.view(m, s, 3), sums.view(m, len(mask), -1)
