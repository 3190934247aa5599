"""`semedit eval transfer`: regions of one rendered head given to the next one.

Every head is inverted with its true label map and camera; head i gets the region of head i + 1, as
its own camera sees it. For each region:

    iou_NAME        IoU of the region in the edited picture's labels, by the generator, with the
                    donor's
    seen_NAME       the same of what a parser (generators.judge) sees in the edited picture and
                    in the donor's
    colour_NAME     mean absolute difference from the donor inside the donor's region, after the
                    edit, as a share of that before
    outside_NAME    mean absolute change where neither head has the region, as a share of the
                    range; the blend at the region's edge included
    drawn_NAME      the same of what the generator draws, without the pixels that are kept
    seconds_NAME    wall clock of one edit

Pairs of which the donor's region takes less than LEAST of the picture are left out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean, median
from typing import Any

import torch

from semedit import losses, metrics
from semedit.editors import Transfer
from semedit.editors.transfer import seen_by, whole_regions
from semedit.errors import OptionError
from semedit.evaluations.heads import HeadAtSize, at_resolution
from semedit.generators import judge, with_labels
from semedit.generators.contract import Generator
from semedit.heads.truth import Truth
from semedit.inverters import usual_for
from semedit.latents import Latent, picture, synthesize
from semedit.media.pixels import resize

Progress = Callable[[str, int, int], None]  # part, done, in all
LEAST = 0.005  # share of the picture


@dataclass(frozen=True)
class TransferEvaluation:
    """What is given, and how.

    regions   each is given alone
    editor    its regions are set in turn
    inverter  None: that of `semedit invert`
    """

    regions: tuple[str, ...] = ("hair", "mouth")
    editor: Any = field(default_factory=Transfer)
    inverter: Any = None

    def __call__(
        self, truths: Sequence[Truth], generator: Generator, progress: Progress | None = None
    ) -> dict[str, float]:
        """Evaluate; the figures are the module's.

        Raises: OptionError: fewer than two heads, an unknown region, or one that no donor has.
        """
        tell = progress or (lambda part, done, total: None)
        if len(truths) < 2:
            raise OptionError("a transfer takes two heads")
        whole_regions(self.regions)
        device = generator.device
        generator = with_labels(generator, getattr(self.editor, "parser", "auto"))
        heads = [at_resolution(truth, generator.resolution, device) for truth in truths]
        inverter = self.inverter or usual_for(generator)
        found = []
        for head in heads:
            found.append(inverter(generator, head.image, head.labels, head.c))
            tell("inversion", len(found), len(heads))
        figures: dict[str, float] = {}
        for name in self.regions:
            figures |= self._region(name, generator, heads, found, tell)
        return {key: round(value, 4) for key, value in figures.items()}

    def _region(
        self,
        name: str,
        generator: Generator,
        heads: Sequence[HeadAtSize],
        found: Sequence[Latent],
        tell: Progress,
    ) -> dict[str, float]:
        editor, rows = replace(self.editor, regions=(name,)), []
        for i, head in enumerate(heads):
            donor = found[(i + 1) % len(heads)]
            share = losses.region(seen_by(generator, donor, head.c)[1], whole_regions([name]))
            if float(share.mean()) >= LEAST:
                begun = time.perf_counter()
                after = editor(generator, found[i], donor, head.labels)
                seconds = time.perf_counter() - begun
                rows.append(
                    (*self._compare(name, generator, head, found[i], donor, after), seconds)
                )
            tell(name, i + 1, len(heads))
        if not rows:
            raise OptionError(f"no donor has any {name}")
        columns = list(zip(*rows, strict=True))
        keys = ("iou", "seen", "colour", "outside", "drawn")
        means = {f"{k}_{name}": fmean(v) for k, v in zip(keys, columns[:5], strict=True)}
        return means | {f"seconds_{name}": median(columns[5])}

    @torch.no_grad()
    def _compare(
        self,
        name: str,
        generator: Generator,
        head: HeadAtSize,
        face: Latent,
        donor: Latent,
        after: Latent,
    ) -> tuple[float, float, float, float, float]:
        names, parser = whole_regions([name]), judge(generator)
        shown, labels = seen_by(generator, donor, head.c)
        before, edited = picture(generator, face).image, picture(generator, after)
        drawn = resize(edited.seg, head.labels.shape[-1]).argmax(1)  # type: ignore[arg-type]
        wanted = losses.region(labels, names)
        seen = [
            losses.region(parser(x.clamp(-1, 1)).argmax(1).to(x.device), names)
            for x in (edited.image, shown)
        ]
        away = [float(metrics.mean_change(x, shown, wanted)) for x in (before, edited.image)]
        rest = 1 - torch.maximum(wanted, losses.region(head.labels, names))
        was, now = (synthesize(generator, one).image for one in (face, after))
        return (
            float(metrics.region_iou(losses.region(drawn, names), wanted)),
            float(metrics.region_iou(*seen)),
            away[1] / max(away[0], 1e-6),
            float(metrics.mean_change(edited.image, before, rest)),
            float(metrics.mean_change(now, was, rest)),
        )
