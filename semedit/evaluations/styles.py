"""`semedit eval styles`: edits of one region in one pass, beside the optimisation-based route.

What Tomar and Rajagopalan's table 1 reports, for this and for the default edit by a label map,
and what the table leaves open: whether the regions are right, and whether an edit stays in one.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from torch import Tensor

from semedit import losses, metrics
from semedit.editors import Mask, Roi
from semedit.errors import MaskError, OptionError
from semedit.evaluations.heads import HeadAtSize, at_resolution, mask_edits
from semedit.faces import networks
from semedit.faces.parsing import BuiltinParser
from semedit.generators.contract import Generator
from semedit.generators.l2sae.l2sae import ROIS
from semedit.heads.truth import Truth
from semedit.inverters import Hybrid
from semedit.latents import picture
from semedit.losses import region
from semedit.trainers.parts.region_losses import region_counts, region_ious

PARTS = ("regions", "styles", "table")
LEAST = 8  # pixels of a region whose overlap is worth taking

Progress = Callable[[str, int, int], None]  # part, done, in all
Figures = dict[str, float]


@dataclass(frozen=True)
class StylesEvaluation:
    """What is evaluated, and by which edits.

    parts    some of PARTS
    editor   the edit; its region is set to each of ROIS
    rivals   heads of the table, which the optimisation-based route edits, too
    """

    parts: tuple[str, ...] = PARTS
    editor: Roi = field(default_factory=lambda: Roi(style_noise=1.0))
    rivals: int = 8
    inverter: Any = field(default_factory=Hybrid)
    mask_editor: Mask = field(default_factory=Mask)

    def __call__(
        self,
        truths: Sequence[Truth],
        generator: Generator,
        rival: Any = None,
        edited: Sequence[Truth] = (),
        progress: Progress | None = None,
    ) -> dict[str, Any]:
        """Evaluate.

        Args:    truths: heads for the regions and the styles. generator: an L2SAE.
                 rival: the generator of the optimisation-based route, edited: heads that know
                 true edits; needed by the part "table".
        Returns: the figures of the parts; their definitions are the docstrings of
                 `region_figures`, `style_figures` and `table_figures`.
        Raises:  OptionError: no heads, or an unknown part.
        """
        self.check()
        if not truths:
            raise OptionError("there are no heads to evaluate")
        if "table" in self.parts and (rival is None or rival.resolution != generator.resolution):
            raise OptionError("the table needs a generator of the same size to compare with")
        tell = progress or (lambda part, done, total: None)
        figures: dict[str, Any] = {}
        heads = [at_resolution(t, generator.resolution, generator.device) for t in truths]
        if "regions" in self.parts:
            figures |= region_figures(generator, heads, tell)
        if "styles" in self.parts:
            figures |= style_figures(generator, heads, self.editor, tell)
        if "table" in self.parts:
            figures |= self._table(edited, generator, rival, tell)
        return {k: round(v, 4) if isinstance(v, float) else v for k, v in figures.items()}

    def check(self) -> None:
        """Raise OptionError where there is an unknown part."""
        for part in self.parts:
            if part not in PARTS:
                raise OptionError(f"there is no part {part} to evaluate; parts: {', '.join(PARTS)}")

    def _table(
        self, edited: Sequence[Truth], generator: Generator, rival: Any, tell: Progress
    ) -> dict[str, Any]:
        device = generator.device
        heads = [at_resolution(truth, rival.resolution, device) for truth in edited[: self.rivals]]
        return table_figures(self, generator, rival, heads, tell)


def region_figures(generator: Generator, heads: Sequence[HeadAtSize], tell: Progress) -> Figures:
    """The SMPN's regions against true label maps.

    region_miou      mean of the regions' IoU, each from one count over all pixels of the set
    region_iou_NAME  of one region
    """
    counts = torch.zeros(len(ROIS), 2, dtype=torch.float64)
    for i, head in enumerate(heads):
        counts += region_counts(generator.region_logits(head.image), head.labels)
        tell("regions", i + 1, len(heads))
    mean, each = region_ious(counts)
    return {"region_miou": mean} | {f"region_iou_{name}": v for name, v in each.items()}


@torch.no_grad()
def style_figures(
    generator: Generator, heads: Sequence[HeadAtSize], editor: Roi, tell: Progress
) -> Figures:
    """Every region of every head restyled, every head by noise of its own.

    style_iou        mean over edits of the IoU of the edited region before and after, by the
                     built-in parser; regions that the parser does not see before are left out
    style_iou_NAME   of one region
    style_change     mean absolute change inside alpha, as a share of the range
    outside_kept     share of pixels with alpha 0 that stayed as they were, to the bit
    """
    parser = BuiltinParser()
    iou: dict[str, list[float]] = {name: [] for name in ROIS}
    change, kept, outside = [], 0, 0
    for i, head in enumerate(heads):
        before = parser(head.image).argmax(1)
        for name, parts in ROIS.items():
            was = region(before, parts)
            found = _nth(editor, name, i)(generator, head.image)
            still = (found.image == head.image)[found.alpha.expand_as(head.image) == 0]
            kept, outside = kept + int(still.sum()), outside + still.numel()
            change.append(metrics.mean_change(found.image, head.image, (found.alpha > 0).float()))
            if was.sum() >= LEAST:
                after = parser(found.image.clamp(-1, 1)).argmax(1)
                iou[name].append(float(metrics.region_iou(region(after, parts), was)))
        tell("styles", i + 1, len(heads))
    iou = {name: values for name, values in iou.items() if values}
    whole = (
        {"style_iou": statistics.fmean(v for values in iou.values() for v in values)} if iou else {}
    )
    return {
        **whole,
        **{f"style_iou_{name}": statistics.fmean(values) for name, values in iou.items()},
        "style_change": float(torch.cat(change).mean()),
        "outside_kept": kept / max(1, outside),
    }


def table_figures(
    evaluation: StylesEvaluation,
    generator: Generator,
    rival: Any,
    heads: Sequence[HeadAtSize],
    tell: Progress,
) -> dict[str, Any]:
    """Table 1 on the same heads: the edit of one region in one pass (roi), and an edit by a truly
    edited label map, of codes found by inversion (mask).

    roi_seconds, mask_seconds  median wall clock of one edit of one face, networks loaded; what the
                               inversion takes is `invert_seconds` on top of the latter
    ratio                      mask_seconds / roi_seconds
    roi_lpips, mask_lpips      mean perceptual distance of edited pictures from the heads
    roi_fid, mask_fid          Fréchet distance between edited pictures and the heads
    lpips_by, fid_by           the networks whose features these are of
    heads                      how many; one whose edit is lost at this size is in neither row
    """
    mask, inverting, drawn, of = _redraw(evaluation, rival, heads, tell)
    roi, restyled = _restyle(evaluation.editor, generator, of)
    perceptual = losses.perceptual("auto", of[0].device)
    figures: dict[str, Any] = {
        "roi_seconds": statistics.median(roi),
        "mask_seconds": statistics.median(mask),
        "invert_seconds": statistics.median(inverting),
        "ratio": statistics.median(mask) / statistics.median(roi),
    }
    for name, made in (("roi", restyled), ("mask", drawn)):
        figures[f"{name}_lpips"] = _perceptual(perceptual, of, made)
        figures[f"{name}_fid"] = metrics.frechet(deep_features(of), deep_features(made))
    return figures | {"lpips_by": perceptual.name, "fid_by": "faces", "heads": len(of)}


def _nth(editor: Roi, name: str, i: int) -> Roi:
    """The edit of a region of the i-th head: every head gets noise of its own."""
    return replace(editor, region=cast(Any, name), seed=editor.seed + i)


def _restyle(
    editor: Roi, generator: Generator, images: Sequence[Tensor]
) -> tuple[list[float], list[Tensor]]:
    """Seconds of each edit, the regions in turn, and the pictures."""
    names = list(ROIS)
    editor(generator, images[0])  # what is made at the first call is not the edit's
    seconds, made = [], []
    for i, image in enumerate(images):
        began = time.perf_counter()
        found = _nth(editor, names[i % len(names)], i)(generator, image).image.cpu()  # waits
        seconds.append(time.perf_counter() - began)
        made.append(found.to(image.device))
    return seconds, made


def _redraw(
    evaluation: StylesEvaluation, rival: Any, heads: Sequence[HeadAtSize], tell: Progress
) -> tuple[list[float], list[float], list[Tensor], list[Tensor]]:
    """Seconds of each edit and of each inversion, the pictures, and what they were edited from.

    Raises: OptionError: no head knows a true edit.
    """
    seconds, inverting, made, of = [], [], [], []
    for i, kind in mask_edits(heads, 1):
        head = heads[i]
        began = time.perf_counter()
        latent = evaluation.inverter(rival, head.image, head.labels, head.c)
        float(latent.c.sum())  # waits
        middle = time.perf_counter()
        try:
            after = evaluation.mask_editor(rival, latent, head.edits[kind][1], head.labels)
        except MaskError:  # what was drawn is lost at this size
            continue
        with torch.no_grad():
            drawn = picture(rival, after).image.cpu()  # waits
        seconds.append(time.perf_counter() - middle)
        inverting.append(middle - began)
        made.append(drawn.to(head.image.device))
        of.append(head.image)
        tell("table", i + 1, len(heads))
    if not made:
        raise OptionError("the heads of the table know no edits")
    return seconds, inverting, made, of


@torch.no_grad()
def _perceptual(perceptual: Any, images: Sequence[Tensor], made: Sequence[Tensor]) -> float:
    """Mean distance of pairs of pictures."""
    found = [
        losses.distance(*(perceptual.features(p.clamp(-1, 1)) for p in pair))
        for pair in zip(images, made, strict=True)
    ]
    return float(torch.cat(found).mean())


@torch.no_grad()
def deep_features(images: Sequence[Tensor]) -> Tensor:
    """Means over the picture of the face network's last perceptual level: [N,C]."""
    network = networks.load("faces", str(images[0].device))
    return torch.cat([network.features(p.clamp(-1, 1))[-1].mean((2, 3)) for p in images])
