"""A start nearer to the goal: codes moved along directions as far as a loss falls."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from semedit.directions.directions import Directions, directions_for
from semedit.editors.parts.attribute_regions import ATTRIBUTE_REGIONS
from semedit.errors import WeightsError
from semedit.generators import Output
from semedit.generators.contract import Generator
from semedit.latents import Latent, tuned_generator
from semedit.media.labels import REGIONS

STRENGTHS = (-3.0, -2.0, -1.0, 1.0, 2.0, 3.0)  # tried, in deviations of the codes
CHANGED = 0.15  # part of a region that a drawn map adds or removes before its attributes are tried


def drawn_attributes(labels: Tensor, edited: Tensor) -> list[str]:
    """Attributes whose own region a drawn map changes: glasses put on, lips parted.

    Args: labels, edited int64 [R,R].
    """
    found = []
    for name, (regions, _) in ATTRIBUTE_REGIONS.items():
        classes = torch.tensor(REGIONS[regions[0]], device=labels.device)
        before, after = torch.isin(labels, classes), torch.isin(edited, classes)
        if int((before != after).sum()) > CHANGED * int((before | after).sum()):
            found.append(name)
    return found


@torch.no_grad()
def nearest_start(
    generator: Generator,
    face: Latent,
    start: Mapping[str, Tensor],
    attributes: Iterable[str],
    loss: Callable[[Output], Tensor],
) -> dict[str, Tensor]:
    """Codes [1, ...] from `start` along the attributes' directions, one after another, each to
    the strength that the loss likes best; `start` itself where the generator has no directions.

    A descent alone finds no way from bare eyes to glasses: the way there looks like neither.
    """
    codes = dict(start)
    directions = _known(generator)
    if directions is None:
        return codes
    tuned = tuned_generator(generator, face)

    def cost(candidate: Mapping[str, Tensor]) -> float:
        return float(loss(tuned.synthesis(candidate, face.c)))

    least = cost(codes)
    for name in attributes:
        if name not in directions.units:
            continue
        move, origin = directions.move(name), codes
        for strength in STRENGTHS:
            tried = origin | {k: origin[k] + strength * v.to(origin[k]) for k, v in move.items()}
            if (found := cost(tried)) < least:
                least, codes = found, tried
    return codes


def _known(generator: Generator) -> Directions | None:
    try:
        return directions_for(generator)
    except WeightsError:
        return None
