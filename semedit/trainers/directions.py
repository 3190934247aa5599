"""Directions of attributes for a generator with an encoder, from rendered heads.

Their attributes are known, and the encoder says where they lie in W+, layer by layer. (Any other
generator is asked: its samples are scored by the attribute classifier, see editors.fitting.)
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from semedit.datasets.rendered import read_views
from semedit.directions.directions import Directions
from semedit.directions.fitting import regress
from semedit.errors import InputError, TraitError
from semedit.generators.contract import Generator
from semedit.heads.parameters import IDENTITIES, NAMES
from semedit.media.labels import ATTRIBUTES

Progress = Callable[[int, int], None]

HAIR = ("black_hair", "blond_hair", "brown_hair", "gray_hair")
# A smile may open the mouth; whoever turns blond need not stay dark.
LOOSE = {
    "smiling": ("mouth_slightly_open",),
    "straight_hair": ("wavy_hair",),
    "wavy_hair": ("straight_hair",),
    **{colour: tuple(c for c in HAIR if c != colour) for colour in HAIR},
}


# Causes that several attributes share, with CelebA's names: (parameter, sign).
CAUSES = {"male": ("masculine", 1.0), "pale_skin": ("melanin", -1.0)}


@torch.no_grad()
def from_heads(
    generator: Generator,
    data: Path,
    n: int = 2000,
    batch: int = 16,
    progress: Progress | None = None,
) -> Directions:
    """Regress the encoder's codes of rendered heads on their attributes and CAUSES (but see LOOSE).

    Args:   data: a folder of `semedit heads`; n: heads used, at most.
    Raises: TraitError: the generator has no encoder.  InputError: no such data set.
    """
    if "encode" not in generator.traits:
        raise TraitError(f"{generator.name} has no encoder, which directions from heads need")
    views = read_views(data, generator.resolution)
    with np.load(data / "arrays.npz") as arrays:
        if "attributes" not in arrays:
            raise InputError(f"{data} says nothing about attributes")
        attributes = torch.from_numpy(arrays["attributes"]).float()
    count = min(n, len(views))
    codes: list[dict[str, Tensor]] = []
    for heads in torch.arange(count).split(batch):
        pair = views.pair(heads, torch.zeros_like(heads), torch.zeros_like(heads))
        codes.append(generator.encode(pair.images[:, 0], pair.labels[:, 0], pair.c[:, 0]))
        if progress is not None:
            progress(int(heads[-1]) + 1, count)
    together = {k: torch.cat([part[k] for part in codes]) for k in codes[0]}
    causes = [sign * views.z[:, IDENTITIES + NAMES.index(p)] for p, sign in CAUSES.values()]
    scores = torch.cat([attributes[:count], torch.stack(causes, 1)[:count]], 1)
    return regress(generator, together, scores, (*ATTRIBUTES, *CAUSES), LOOSE)
