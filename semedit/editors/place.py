"""Shift and turn a face within its picture."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from semedit.editors.contract import Editor, Way
from semedit.generators.contract import Generator
from semedit.inverters.codes import known_traits
from semedit.inverters.descent import Progress
from semedit.latents import Latent
from semedit.options import check_traits


@dataclass(frozen=True)
class Place(Editor):
    """Shift and turn a face within its picture, in a generator that begins with waves.

        place' = place + (right, down, turn)

    Source: Karras et al. 2021 (StyleGAN3), arXiv:2106.12423, section 3.2.
    Departs: shifts and turns of a chain of edits add up, the turn comes first.
    """

    way: ClassVar[Way] = "place"
    requires: ClassVar[frozenset[str]] = frozenset({"shift"})
    right: float = 0.0  # shift, as a share of the picture's width
    down: float = 0.0  # shift, as a share of the picture's height
    turn_deg: float = 0.0  # turn to the left about the picture's middle, degrees

    def __call__(
        self, generator: Generator, latent: Latent, progress: Progress | None = None
    ) -> Latent:
        """
        Returns: the moved latent; tuned weights stay, kept pixels around older edits do not.
        Raises:  TraitError: the generator cannot shift what it draws.
        """
        check_traits("place", self, generator, known_traits())
        move = torch.tensor([self.right, self.down, math.radians(self.turn_deg)])
        before: Tensor = latent.codes.get("place", torch.zeros(len(latent), 1, 3))
        place = before.sum(1, keepdim=True) + move.to(before)
        if progress is not None:
            progress(1, 1)
        still = not bool(move.any())
        return replace(
            latent,
            codes={**latent.codes, "place": place.to(latent.c)},
            method=f"{latent.method}+place",
            composite=latent.composite if still else None,
        )
