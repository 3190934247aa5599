"""Rendering on surfaces, the part that all generators of that kind share.

Points where rays meet no surface are left out before a network sees them. Rays are marched in
parts; beyond MEMORY, a backward pass computes values anew, so that what a picture takes does not
grow with its size.

Source: Deng et al. 2022 (GRAM), arXiv:2112.08867.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from semedit import cameras
from semedit.generators.contract import Generator, Output
from semedit.generators.surfaces.intersections import Intersections, Meetings, composite

RAYS = 4096  # marched together
MEMORY = 1 << 30  # bytes kept for a backward pass; beyond it, values are computed anew
OPAQUE = 1e10  # thickness of the flat surface
WIDER = 1e-3  # colours reach this far beyond [0,1]


def widened(raw: Tensor) -> Tensor:
    """Colours a little beyond [0,1], so that its ends are reached."""
    return raw.sigmoid() * (1 + 2 * WIDER) - WIDER


def mean_distance(meetings: Meetings, weights: Tensor) -> Tensor:
    """How far what a ray sees is from the camera [M,1], world units; weights [M,K]."""
    total = (weights * meetings.distance).sum(1, keepdim=True)
    return cameras.RADIUS * total / weights.sum(1, keepdim=True).clamp(min=1e-6)


@dataclass(frozen=True)
class Sparse:
    """Entries of [M,K] that count: `index` int64 [P] into the flattened places, and how many
    there are of each group of rows."""

    index: Tensor
    shape: tuple[int, int]
    counts: list[int]
    behind: Tensor  # bool [M,K]

    @classmethod
    def of(cls, meetings: Meetings, rays: Sequence[int]) -> Sparse:
        """Where rays do meet a surface; rays: how many each face has, in a row."""
        valid = meetings.valid
        counts = [int(part.sum()) for part in valid.split(list(rays))]
        index = valid.flatten().nonzero()[:, 0]
        return cls(index, (valid.shape[0], valid.shape[1]), counts, meetings.behind)

    def at(self, values: Tensor) -> Tensor:
        """Entries [P,...] of values [M,K,...]."""
        return values.flatten(0, 1)[self.index]

    def spread(self, values: Tensor) -> Tensor:
        """values [P] in their places [M,K], 0 elsewhere."""
        flat = values.new_zeros(self.shape[0] * self.shape[1])
        return flat.index_copy(0, self.index, values).view(self.shape)

    def weights(self, density: Tensor, delta: float) -> Tensor:
        """Share of its ray's light [M,K] that each point of the density [P] sends."""
        thickness = torch.where(self.behind, OPAQUE, delta)
        thickness[:, -1] = OPAQUE
        return composite(1 - torch.exp(-thickness * self.spread(density)))

    def summed(self, values: Tensor, weights: Tensor) -> Tensor:
        """Sums over the points of a ray of values [P,C] times weights [M,K]: [M,C]."""
        out = values.new_zeros(self.shape[0], values.shape[1])
        rows = self.index // self.shape[1]
        return out.index_add(0, rows, values * weights.flatten()[self.index, None])

    def chosen(self, keep: Tensor) -> Sparse:
        """Some of the entries, by number int64 [L], as one group."""
        index = self.index[keep]
        return Sparse(index, self.shape, [len(index)], self.behind)


class OnSurfaces(Generator):
    """A generator whose rays are marched from surface to surface."""

    view_limit_deg: tuple[float, float] = (35.0, 15.0)  # yaw, pitch to either side in training
    all_round: ClassVar[bool] = False  # rays from beside and behind do not meet the surfaces
    resolution: int

    def __init__(self, intersections: Intersections) -> None:
        super().__init__()
        self.intersections = intersections

    @property
    def zoom(self) -> float:
        """How much longer the network's focal length is than that of the label c."""
        return self.intersections.lens.focal / cameras.FOCAL

    def planes(self, codes: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What does not depend on the camera."""
        raise NotImplementedError

    def march(
        self, planes: Mapping[str, Tensor], meetings: Meetings, counts: list[int], remember: bool
    ) -> dict[str, Tensor]:
        """What rays see.

        Args:    planes: of N faces. meetings: of M rays, sorted by face; counts: rays of each.
                 remember: keep layers for a backward pass.
        Returns: by name, [M,C]; "colour" in about [0,1].
        """
        raise NotImplementedError

    def output(self, found: Mapping[str, Tensor]) -> Output:
        """Of what march and `render` found, as pictures [V,C,R,R]."""
        raise NotImplementedError

    def cost(self, points: int) -> int:
        """Bytes kept for the backward pass of so many points."""
        raise NotImplementedError

    def synthesis(self, codes: Mapping[str, Tensor], c: Tensor, noise: str = "const") -> Output:
        """Codes and cameras c [N,25] -> Output. There are no noise inputs."""
        return self.render(self.planes(codes), c)

    def render(self, planes: Mapping[str, Tensor], c: Tensor) -> Output:
        """Views c [N*k,25] of N faces, the k views of a face next to each other."""
        views = len(c) // len(next(iter(planes.values())))
        found: list[dict[str, Tensor]] = []
        room = MEMORY
        for view in range(len(c)):
            face = {k: v[view // views : view // views + 1] for k, v in planes.items()}
            for part in self.intersections(c[view : view + 1]).split(RAYS):
                room -= self.cost(part.valid.numel())
                found.append(self.march(face, part, [len(part.valid)], room >= 0))
        side = self.resolution
        return self.output(
            {
                k: torch.cat([f[k] for f in found]).view(len(c), side, side, -1).permute(0, 3, 1, 2)
                for k in found[0]
            }
        )
