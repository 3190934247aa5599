"""`semedit eval detail`: edits of rendered heads against the truly edited heads, at their own size.

Everything is as a user has it: cameras and label maps are estimated, and the map that is drawn is
the estimated one, changed where the true edit changes the true map. Scored is the region in which
the true edit changed the photograph, widened a little, whatever the method changed:

    detail_db, enlarged_db, plain_db       mean PSNR to the true picture in the region, of the edit
                                           with detail, of the generator's enlarged, and of the
                                           photograph as it was: doing nothing
    detail_sharpness, enlarged_sharpness   mean |gradient| there over the true picture's
    detail_outside, enlarged_outside       mean absolute change of the photograph outside what the
                                           edit changed, as a share of the range
    gain_KIND                              detail_db - enlarged_db of one kind of edit
    seconds                                wall clock of the detail alone, a face
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import fmean, median
from typing import Any

import torch
from torch import Tensor

from semedit import detail, losses, metrics
from semedit.detail.carry import SEEN, enlarge, relabel
from semedit.editors import Mask
from semedit.errors import MaskError, OptionError
from semedit.faces.estimates import estimates
from semedit.generators.contract import Generator
from semedit.heads.truth import Truth
from semedit.inverters import usual_for
from semedit.latents import Latent, picture
from semedit.media.pixels import resize, to_tensor

Progress = Callable[[str, int, int], None]  # part, done, in all
GROWN = 0.02  # how far regions are widened, shares of the side
FIGURES = ("db", "sharpness", "outside")


@dataclass(frozen=True)
class DetailEvaluation:
    """Which edits are done, and how.

    edits     kinds of heads.truth.EDITS tried per head, in turn
    inverter  None: that of `semedit invert`
    network   None: the shipped one
    """

    edits: int = 1
    inverter: Any = None
    editor: Any = field(default_factory=Mask)
    network: Any = None

    def __call__(
        self, truths: Sequence[Truth], generator: Generator, progress: Progress | None = None
    ) -> dict[str, float]:
        """Evaluate; the figures are the module's.

        Raises: OptionError: there are no heads, or none of them changes.
        """
        tell = progress or (lambda part, done, total: None)
        network = self.network or detail.load(str(generator.device))
        rows: list[dict[str, float]] = []
        kinds: list[str] = []
        for i, truth in enumerate(truths):
            for kind, row in self._head(network, generator, truth, i):
                kinds.append(kind)
                rows.append(row)
            tell("heads", i + 1, len(truths))
        if not rows:
            raise OptionError("there is no head whose edit changes its label map")
        figures = {name: fmean(row[name] for row in rows) for name in rows[0]}
        figures["seconds"] = median(row["seconds"] for row in rows)
        for kind in sorted(set(kinds)):
            mine = [row for row, of in zip(rows, kinds, strict=True) if of == kind]
            figures[f"gain_{kind}"] = fmean(row["detail_db"] - row["enlarged_db"] for row in mine)
        return {key: round(value, 4) for key, value in figures.items()}

    def _head(
        self, network: Any, generator: Generator, truth: Truth, number: int
    ) -> list[tuple[str, dict[str, float]]]:
        photo = to_tensor(truth.image).to(generator.device)
        small = resize(photo, generator.resolution)
        labels, c = estimates(small)
        inversion = (self.inverter or usual_for(generator))(generator, small, labels, c)
        kinds = [kind for kind, (_, ids) in truth.edits.items() if (ids != truth.labels).any()]
        found = []
        for k in range(min(self.edits, len(kinds))):
            kind = kinds[(number + k) % len(kinds)]
            pixels, ids = truth.edits[kind]
            wanted = _drawn(labels, torch.from_numpy(truth.labels), torch.from_numpy(ids))
            try:
                after = self.editor(generator, inversion, wanted, labels)
            except MaskError:  # too little was drawn
                continue
            true = to_tensor(pixels).to(generator.device)
            row = self._scored(network, generator, photo, true, inversion, after)
            found.append((kind, row))
        return found

    @torch.no_grad()
    def _scored(
        self,
        network: Any,
        generator: Generator,
        photo: Tensor,
        true: Tensor,
        inversion: Latent,
        after: Latent,
    ) -> dict[str, float]:
        begun = time.perf_counter()
        output = picture(generator, after)
        image, mask = detail.edited_photo(network, generator, photo, inversion, output)
        seconds = time.perf_counter() - begun
        size = photo.shape[-1]
        pictures = {"detail": image, "enlarged": enlarge(output.image.clamp(-1, 1), size)}
        changed = ((true - photo).abs().mean(1, keepdim=True) > SEEN).float()
        region = losses.dilate(changed, round(GROWN * size))
        outside = (mask == 0).float()
        row = {
            f"{name}_{figure}": float(value)
            for name, drawn in pictures.items()
            for figure, value in zip(
                FIGURES,
                (
                    metrics.psnr_within(drawn, true, region),
                    metrics.sharpness(drawn, true, region),
                    metrics.mean_change(drawn, photo, outside),
                ),
                strict=True,
            )
        }
        plain = float(metrics.psnr_within(photo, true, region))
        return {**row, "plain_db": plain, "seconds": seconds}


def _drawn(own: Tensor, labels: Tensor, edited: Tensor) -> Tensor:
    """What a user draws over the estimated map int64 [1,R,R] where a true one uint8 [S,S] of the
    head changes."""
    size = own.shape[-1]
    before, after = (relabel(x[None].long(), size).to(own.device) for x in (labels, edited))
    return torch.where(before != after, after, own)
