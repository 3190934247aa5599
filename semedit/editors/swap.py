"""Exchange codes of regions between faces."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from semedit import losses
from semedit.editors.contract import Editor, Way
from semedit.editors.transfer import whole_regions
from semedit.generators.contract import Generator
from semedit.inverters.codes import known_traits
from semedit.inverters.descent import Progress
from semedit.latents import Latent
from semedit.options import check_traits


@dataclass(frozen=True)
class Swap(Editor):
    """Give a face the donor's codes of regions: nothing is optimised, the generator draws once.

        w'_k = donor's w_k for the regions k that are taken, w_k for all others

    Source: Ma et al. 2023 (CNeRF), arXiv:2302.01579, semantic manipulation.
    """

    way: ClassVar[Way] = "transfer"
    takes: ClassVar[tuple[str, ...]] = ("donor", "labels")
    requires: ClassVar[frozenset[str]] = frozenset({"regions"})
    regions: tuple[str, ...] = ("hair",)  # what is taken from the donor, comma between them
    part: Literal["both", "shape", "texture"] = "both"  # what of them

    @torch.no_grad()
    def __call__(
        self,
        generator: Generator,
        latent: Latent,
        donor: Latent,
        labels: Tensor,
        progress: Progress | None = None,
    ) -> Latent:
        """
        Args:    donor: one face. labels int64 [N,R,R]: the faces' own label maps.
        Returns: the edited latent; meta["region"]: share of the picture that the regions took.
        Raises:  OptionError: no such region.  TraitError: codes have no regions.
        """
        check_traits("swap", self, generator, known_traits())
        names = whole_regions(self.regions)
        share = losses.region(labels, names).flatten(1).mean(1)
        if progress is not None:
            progress(1, 1)
        return replace(
            latent,
            codes=generator.borrow(latent.codes, donor.codes, names, self.part),
            method=f"{latent.method}+swap",
            composite=None,  # pixels kept around an older edit know nothing of this one
            meta={**latent.meta, "region": [round(float(v), 4) for v in share]},
        )
