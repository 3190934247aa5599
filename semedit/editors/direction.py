"""Edit along a direction of code space."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from semedit.directions.directions import (
    Directions,
    OfRegions,
    directions_for,
    read_directions,
    regional,
    require_made_for,
)
from semedit.editors.contract import Editor, Way
from semedit.editors.parts.tuned import changed_area, fade_tuning
from semedit.errors import OptionError
from semedit.generators.contract import Generator
from semedit.inverters.codes import layer_axis
from semedit.inverters.descent import Progress
from semedit.latents import PLANES, Latent


@dataclass(frozen=True)
class Direction(Editor):
    """Move codes along a linear direction, say of an attribute.

        codes' = codes + strength * deviation * direction

    Source: Shen et al. 2020 (InterFaceGAN), arXiv:1907.10786.
    Departs: the unit of strength is one standard deviation of codes along the direction.

    Where codes have an axis of regions, one region's alone may move (Ma et al. 2023,
    arXiv:2302.01579): along a direction that was fitted to it (`directions fit --region`), or else
    along its part of the whole one.
    """

    way: ClassVar[Way] = "direction"
    name: str = "smiling"  # of the direction; see `semedit directions list`
    strength: float = 2.0  # standard deviations; negative takes the attribute away
    region: str = ""  # whose codes move, comma between several; empty: all
    layers: str = ""  # layers to move, like 0-5,8; empty: all
    release: float = 1.0  # share of the face's own tuning taken back where the move shows
    directions: str = ""  # weights or file with the directions; empty: the generator's own

    def __call__(
        self, generator: Generator, latent: Latent, progress: Progress | None = None
    ) -> Latent:
        """
        Returns: the moved latent; tuned weights stay, kept pixels around older edits do not.
        Raises:  OptionError: no such direction, region or layer.  TraitError: a region of codes
                 that have none.  LatentError: fitted on another generator.
        """
        codes = dict(latent.codes)
        for k, v in self._move(generator).items():
            chosen = self._chosen(v.expand(codes[k].shape[1:]), layer_axis(k, codes[k]) == 2)
            codes[k] = codes[k] + self.strength * chosen.to(codes[k])
        after = replace(
            latent,
            codes=codes,
            method=f"{latent.method}+direction",
            composite=latent.composite if self.strength == 0 else None,
            meta={**latent.meta, "direction": {"name": self.name, "strength": self.strength}},
        )
        tuned = any(k.startswith(PLANES) for k in latent.tuned or ())
        if tuned and self.strength != 0 and self.release > 0:
            after = fade_tuning(
                generator, after, changed_area(generator, latent, after), self.release
            )
        if progress is not None:
            progress(1, 1)
        return after

    def _move(self, generator: Generator) -> dict[str, Tensor]:
        """Change of each code by one standard deviation."""
        found = self._directions(generator)
        if not self.region:
            return found.move(self.name)
        own = OfRegions.named(generator, [name.strip() for name in self.region.split(",")])
        fitted = regional(self.name, self.region)
        if fitted in found.units:
            return found.move(fitted)
        return own.only(found.move(self.name))

    def _directions(self, generator: Generator) -> Directions:
        if not self.directions:
            return directions_for(generator)
        path = Path(self.directions)
        found = read_directions(path if path.suffix else self.directions)
        require_made_for(found, generator, path)
        return found

    def _chosen(self, move: Tensor, regions: bool = False) -> Tensor:
        """The move with layers that are not asked for left still: axis 0 of a W+ code, axis 1 of
        one with regions."""
        if not self.layers:
            return move
        if regions:
            return self._chosen(move.transpose(0, 1)).transpose(0, 1)
        keep = torch.zeros(len(move))
        for part in self.layers.split(","):
            first, _, last = part.strip().partition("-")
            try:
                low, high = int(first), int(last or first)
            except ValueError:
                raise OptionError(f"layers={self.layers}: write them like 0-5,8") from None
            if not 0 <= low <= high < len(move):
                raise OptionError(f"layers={self.layers}: there are layers 0 to {len(move) - 1}")
            keep[low : high + 1] = 1
        return move * keep.view(-1, *[1] * (move.ndim - 1))
