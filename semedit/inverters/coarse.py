"""Coarse first: most steps of a descent at a lower resolution, where a large generator is quick."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from semedit.generators.contract import Generator
from semedit.inverters.codes import known_traits
from semedit.media.pixels import resize
from semedit.options import check_traits

SHARE = 0.75  # of the steps, at the lower resolution


@dataclass(frozen=True)
class Phase:
    """A stretch of a descent: `steps` against images [N,3,r,r] and labels [N,r,r].

    resolution: where synthesis ends; None: the generator's own.
    """

    resolution: int | None
    steps: int
    images: Tensor
    labels: Tensor


@dataclass(frozen=True)
class _Coarse:
    requires = frozenset({"coarse"})


def coarse_steps(generator: Generator, steps: int, coarse: int) -> int:
    """How many of the steps draw at `coarse` pixels a side: 0 where that is no lower resolution.

    Raises: TraitError: the generator draws at one resolution only.
    """
    if coarse:
        check_traits("coarse", _Coarse, generator, known_traits())
    return max(0, min(round(SHARE * steps), steps - 1)) if 0 < coarse < generator.resolution else 0


def phases(
    generator: Generator, images: Tensor, labels: Tensor, steps: int, coarse: int
) -> list[Phase]:
    """One phase, or where `coarse` is a lower resolution two, the last one at full resolution.

    Raises: TraitError: the generator draws at one resolution only.
    """
    first = coarse_steps(generator, steps, coarse)
    if first == 0:
        return [Phase(None, steps, images, labels)]
    small = F.interpolate(labels[:, None].float(), (coarse, coarse), mode="nearest")[:, 0].long()
    return [
        Phase(coarse, first, resize(images, coarse), small),
        Phase(None, steps - first, images, labels),
    ]
