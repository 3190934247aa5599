"""Where rays meet a set of surfaces: the level sets of one scalar function of space.

    s(x) = MLP(scale x - centre);  surface l = {x : s(x) = level_l};  a flat surface behind them all

A ray is sampled evenly; between the first two neighbouring samples whose values enclose a level,
the value is taken for linear. This depends on cameras and surfaces alone, not on faces: it is done
once per view, and remembered while neither changes.

Lengths are in distances of the camera from the head's centre; see `Lens` for how a label c becomes
such a camera. Axes agree with the world's: x to the picture's right, y up, z out of the face.

Source: Deng et al. 2022 (GRAM), arXiv:2112.08867, section 3.2; details that the paper leaves open
as in its published code. Departs: the function may start as the distance from its centre.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from semedit import cameras

FLAT = 0.05  # values closer than this enclose no level that could be told apart: the farther point
SLOPE = 10.0  # of the initial function, per unit of distance from the centre
PART = 2048  # rays whose intersections are looked for together
KEPT = 1 << 28  # bytes of intersections that are remembered


@dataclass(frozen=True)
class Lens:
    """What becomes of a label c: its distances are divided by cameras.RADIUS, and its focal length
    of cameras.FOCAL becomes `focal` (both in sides of the picture)."""

    resolution: int
    focal: float

    @classmethod
    def published(cls, resolution: int, fov_deg: float) -> Lens:
        """The outer pixels' centres lie on the border of the field of view."""
        half = math.tan(math.radians(fov_deg) / 2)
        return cls(resolution, 0.5 / half * (resolution - 1) / resolution)

    def rays(self, c: Tensor) -> tuple[Tensor, Tensor]:
        """Origins and unit directions [V,R*R,3] of cameras c [V,25]."""
        zoomed = cameras.zoomed(c.float(), self.focal / cameras.FOCAL)
        origins, directions = cameras.rays(zoomed, self.resolution)
        return origins / cameras.RADIUS, directions


@dataclass(frozen=True)
class Surfaces:
    """Sizes of a set of surfaces; the defaults are those published for faces.

    Attributes:
        count: of surfaces, the flat one included. first, last: levels of the others, in between
            evenly spaced. width, depth: of the function's network. centre: in its own units.
        scale: of points before it. near, far: of the samples along rays; samples: how many.
        back: z of the flat surface. sphere: the function is SLOPE |x - centre| plus the network.
    """

    count: int = 24
    first: float = 23.0
    last: float = 8.0
    width: int = 128
    depth: int = 3
    centre: tuple[float, float, float] = (0.0, 0.0, -1.5)
    scale: float = 2 / 0.24
    near: float = 0.88
    far: float = 1.12
    samples: int = 64
    back: float = -0.12
    sphere: bool = False

    @classmethod
    def of(cls, values: Surfaces | Mapping[str, Any]) -> Surfaces:
        """From fields as JSON gives them."""
        if isinstance(values, Surfaces):
            return values
        found = cls(**values)
        x, y, z = found.centre  # a list, in JSON
        return replace(found, centre=(x, y, z))


@dataclass(frozen=True)
class Meetings:
    """Where M rays meet K surfaces, front to back.

    points [M,K,3]; distance [M,K] from the camera; valid bool [M,K]: whether there is such a point;
    behind bool [M,K]: whether it is on the flat surface.
    """

    points: Tensor
    distance: Tensor
    valid: Tensor
    behind: Tensor

    @classmethod
    def joined(cls, parts: Sequence[Meetings]) -> Meetings:
        """Of all rays of some parts."""
        names = [f.name for f in fields(cls)]
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in names))

    def split(self, rays: int) -> Iterator[Meetings]:
        """In parts of at most so many rays."""
        parts = (getattr(self, f.name).split(rays) for f in fields(self))
        return (Meetings(*part) for part in zip(*parts, strict=True))


class Intersections(nn.Module):
    """The surfaces, and where rays meet them."""

    def __init__(self, surfaces: Surfaces, lens: Lens) -> None:
        super().__init__()
        self.surfaces, self.lens = surfaces, lens
        width, sizes = surfaces.width, [3] + [surfaces.width] * surfaces.depth
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.out = nn.Linear(width, 1)
        for layer in self.layers:  # so that the network's length is about that of its input
            nn.init.normal_(layer.weight, std=math.sqrt(2.0 / width))  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        nn.init.constant_(self.out.weight, SLOPE * math.sqrt(math.pi / width))
        if surfaces.sphere:
            nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        self._kept: OrderedDict[tuple[object, ...], tuple[list[nn.Parameter], Meetings]] = (
            OrderedDict()
        )

    def values(self, points: Tensor) -> Tensor:
        """s at points [...,3]."""
        centre = torch.tensor(self.surfaces.centre, device=points.device)
        x = points * self.surfaces.scale - centre
        h = x
        for layer in self.layers:
            h = layer(h).relu()
        s = self.out(h)[..., 0]
        return s + SLOPE * x.norm(dim=-1) if self.surfaces.sphere else s

    def forward(self, c: Tensor) -> Meetings:
        """Where all rays of one camera c [1,25] meet the surfaces."""
        parameters = list(self.parameters())
        if torch.is_grad_enabled() and any(p.requires_grad for p in parameters):
            return self._all(c)
        versions = tuple((id(p), p._version) for p in parameters)
        key = (tuple(c.flatten().tolist()), self.lens, c.device, versions)
        if key not in self._kept:
            with torch.no_grad():
                # Parameters are held, so that no other tensor can get one's id.
                self._kept[key] = parameters, self._all(c)
            self._forget()
        self._kept.move_to_end(key)
        return self._kept[key][1]

    def _all(self, c: Tensor) -> Meetings:
        """Of all rays of one camera, part by part."""
        rays = (x[0].split(PART) for x in self.lens.rays(c))
        return Meetings.joined([self.meet(*part) for part in zip(*rays, strict=True)])

    def _forget(self) -> None:
        """Let go of what was used longest ago."""
        each = 18 * self.surfaces.count * self.lens.resolution**2
        while len(self._kept) > max(1, KEPT // each):
            self._kept.popitem(last=False)

    def meet(self, origins: Tensor, directions: Tensor) -> Meetings:
        """Where rays [M,3], directions of unit length, meet the surfaces; differentiable in the
        surfaces."""
        surfaces, device = self.surfaces, origins.device
        t = torch.linspace(surfaces.near, surfaces.far, surfaces.samples, device=device)
        samples = origins[:, None] + t[:, None] * directions[:, None]
        s = self.values(samples)
        levels = torch.linspace(surfaces.first, surfaces.last, surfaces.count - 1, device=device)
        before, after = s[:, None, :-1], s[:, None, 1:]
        level = levels[:, None]
        crossed = (after.detach() <= level) & (level <= before.detach())
        first = crossed.to(torch.uint8).argmax(-1)
        valid = crossed.any(-1)
        low, high = s.gather(1, first), s.gather(1, first + 1)
        step = low - high
        apart = step.abs() > FLAT
        part = torch.where(apart, (low - levels) / torch.where(apart, step, 1.0), 1.0)
        distance = t[first] + part * (t[first + 1] - t[first])
        back = (surfaces.back - origins[:, 2:]) / directions[:, 2:]
        distance = torch.cat([torch.where(valid, distance, surfaces.far), back], 1)
        valid = torch.cat([valid, torch.ones_like(valid[:, :1])], 1)
        distance, order = distance.sort(1)
        points = origins[:, None] + distance[..., None] * directions[:, None]
        behind = order == surfaces.count - 1
        return Meetings(points, distance, valid.gather(1, order), behind)


def composite(alpha: Tensor) -> Tensor:
    """Weights [M,K] of surfaces that stop a share alpha [M,K] of light, front to back."""
    through = torch.cumprod(1 - alpha + 1e-10, 1)
    return alpha * torch.cat([torch.ones_like(alpha[:, :1]), through[:, :-1]], 1)
