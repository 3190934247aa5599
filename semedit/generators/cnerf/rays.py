"""Rays of CNeRF's cameras and the samples on them.

Lengths are in distances of the camera from the head's centre; see cnerf.py for how a label c
becomes a camera of the network.

Source: Or-El et al. 2022 (StyleSDF), arXiv:2112.11427.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from semedit import cameras
from semedit.generators.cnerf.config import CNeRFConfig

SLAB = 8  # samples of a ray evaluated before it is asked whether anything behind is seen;
# where samples are moved at random, to train, rays are few and evaluated at once
FAR = 1e10  # length of the last sample: it stops what is left
SCREEN = 0.1  # half a picture's side as the background's network sees it: sines of larger places
# draw grain, and what stands behind a head is out of focus


@dataclass(frozen=True)
class Rays:
    """Rays [M]: origins, directions (of length 1 along the camera's axis), views (unit, what the
    networks are told), screen (where in the picture: x to the right and y up, and -1, all times
    SCREEN), all [M,3]; t [M,S]: samples along the axis; step between them; slab: how many are
    evaluated before asking for what is behind. `of` gives an axis of views in front."""

    origins: Tensor
    directions: Tensor
    views: Tensor
    screen: Tensor
    t: Tensor
    step: float
    slab: int = SLAB

    @classmethod
    def of(cls, c: Tensor, config: CNeRFConfig, pixels: Tensor | None, jitter: bool) -> Rays:
        """Of cameras c [V,25]; see CNeRF.volume."""
        cam2world, _ = cameras.split(c.float())
        zoomed = cameras.zoomed(c.float(), config.focal / cameras.FOCAL)
        origins, unit = cameras.rays(zoomed, config.neural)
        screen = _screen(config.neural, c.device).expand(len(c), -1, -1)
        if pixels is not None:
            chosen = pixels[:, :, None].expand(-1, -1, 3)
            origins, unit, screen = (x.gather(1, chosen) for x in (origins, unit, screen))
        axis = cam2world[:, :3, 2]
        directions = unit / (unit @ axis[:, :, None])
        views = unit
        if config.static_views:
            flip = torch.tensor([1.0, -1.0, -1.0], device=c.device)  # x right, y up, z backward
            views = (unit @ cam2world[:, :3, :3]) * flip
        step = 2 * config.depth / config.samples
        t = 1 - config.depth + step * torch.arange(config.samples, device=c.device)
        t = t.expand(*unit.shape[:2], -1)
        if jitter:
            t = t + step * torch.rand(*unit.shape[:2], 1, device=c.device)
        slab = config.samples if jitter else SLAB
        return cls(origins / cameras.RADIUS, directions, views, screen, t, step, slab)

    def of_views(self, first: int, count: int) -> Rays:
        """Those of some views, in one row."""
        return self._each(lambda x: x[first : first + count].flatten(0, 1))

    def split(self, count: int) -> Iterator[Rays]:
        """In parts of at most `count`."""
        for begin in range(0, len(self.t), count):
            yield self._each(lambda x, b=begin: x[b : b + count])

    def _each(self, change: Any) -> Rays:
        names = "origins", "directions", "views", "screen", "t"
        return replace(self, **{name: change(getattr(self, name)) for name in names})

    def points(self) -> Tensor:
        """[M,S,3]."""
        return self.origins[:, None] + self.directions[:, None] * self.t[..., None]

    def lengths(self) -> Tensor:
        """What each sample stands for [M,S]."""
        size = self.directions.norm(dim=-1, keepdim=True)
        steps = torch.full_like(self.t, self.step)
        steps[:, -1] = FAR
        return steps * size


def _screen(side: int, device: torch.device) -> Tensor:
    """Rays.screen of all pixels, row by row: [side * side,3]."""
    at = (torch.arange(side, device=device) + 0.5) / side * 2 - 1
    y, x = torch.meshgrid(-at, at, indexing="ij")
    return SCREEN * torch.stack([x, y, -torch.ones_like(x)], -1).flatten(0, 1)
