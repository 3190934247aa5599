"""`eval styles`: its figures on heads whose regions are known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from made_heads import truths
from tiny import SMALL_L2SAE, TinyGenerator, small_l2sae

from semedit.editors import Mask, Roi
from semedit.editors.roi import Restyled
from semedit.errors import OptionError
from semedit.evaluations.styles import StylesEvaluation
from semedit.generators import load_generator
from semedit.generators.l2sae.l2sae import L2SAE, ROIS
from semedit.heads.truth import read_truths
from semedit.inverters import Optimize
from semedit.losses import region
from semedit.media.pixels import to_tensor


class Rival(TinyGenerator):
    """The optimisation-based route, at the other's size."""

    resolution = SMALL_L2SAE.resolution


@pytest.fixture
def generator(monkeypatch: pytest.MonkeyPatch) -> L2SAE:
    """Finds every region but the nose, of which it sees the left half."""
    found = small_l2sae()
    true = torch.from_numpy(truths()[0].labels.astype(np.int64))[None]

    def logits(images: torch.Tensor, names: Any = tuple(ROIS)) -> torch.Tensor:
        masks = torch.cat([region(true, ROIS[name]) for name in names], 1)
        if "nose" in names:
            masks[:, list(names).index("nose"), :, 32:] = 0
        return (2 * masks - 1).expand(len(images), -1, -1, -1)

    monkeypatch.setattr(found, "region_logits", logits)
    return found


def test_regions_are_counted_over_the_set(generator: L2SAE) -> None:
    found = StylesEvaluation(parts=("regions",))(truths(), generator)
    assert found["region_iou_hair"] == 1 and found["region_iou_nose"] == 0.5
    assert found["region_miou"] == pytest.approx(0.9)


def test_styles_keep_what_is_outside(generator: L2SAE) -> None:
    found = StylesEvaluation(parts=("styles",))(truths(1), generator)
    assert found["outside_kept"] == 1 and found["style_change"] > 0


def test_overlap_is_of_what_the_parser_sees(
    generator: L2SAE, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A parser that sees hair above a line, which an edit lowers from row 20 to row 25."""

    class Parser:
        def __call__(self, images: torch.Tensor) -> torch.Tensor:
            untouched = torch.equal(images, generator.seen)  # type: ignore[arg-type]
            labels = torch.full((1, 64, 64), 1)
            labels[:, : 20 if untouched else 25] = 13
            return torch.nn.functional.one_hot(labels, 19).movedim(3, 1).float()

    head = truths(1)[0]
    generator.seen = to_tensor(head.image)
    monkeypatch.setattr("semedit.evaluations.styles.BuiltinParser", Parser)
    found = StylesEvaluation(parts=("styles",))([head], generator)
    assert found["style_iou_hair"] == 0.8
    assert found["style_iou_skin"] == round(39 / 44, 4)
    assert found["style_iou"] == pytest.approx((0.8 + 39 / 44) / 2, abs=1e-3)
    assert "style_iou_lips" not in found  # not seen


def test_every_head_gets_noise_of_its_own(
    generator: L2SAE, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds = []
    edit = Roi.__call__

    def spy(self: Roi, *given: Any) -> Restyled:
        seeds.append(self.seed)
        return edit(self, *given)

    monkeypatch.setattr(Roi, "__call__", spy)
    editor = Roi(style_noise=1.0, seed=7)
    StylesEvaluation(parts=("styles",), editor=editor)(truths(2), generator)
    assert seeds == [7] * len(ROIS) + [8] * len(ROIS)


def test_table_compares_both_routes(generator: L2SAE) -> None:
    evaluation = StylesEvaluation(
        parts=("table",),
        rivals=3,
        inverter=Optimize(steps=1, perceptual="none"),
        mask_editor=Mask(steps=1, perceptual="none", parse_weight=0.0),
    )
    heads = truths(3)
    heads[1].edits["hair_length"] = (heads[1].image, heads[1].labels)  # nothing was drawn
    found = evaluation(truths(1), generator, Rival(), heads)
    assert found["heads"] == 2  # in both rows
    assert found["ratio"] == pytest.approx(found["mask_seconds"] / found["roi_seconds"], rel=0.2)
    for route in ("roi", "mask"):
        assert found[f"{route}_lpips"] > 0 and found[f"{route}_fid"] >= 0
    with pytest.raises(OptionError, match="same size"):
        evaluation(truths(1), generator, TinyGenerator(), truths(1))
    with pytest.raises(OptionError, match="no part"):
        replace(evaluation, parts=("faces",))(truths(1), generator)


def test_the_built_in_weights() -> None:
    heads = read_truths()[:6]
    evaluation = StylesEvaluation(parts=("regions", "styles"))
    found = evaluation(heads, load_generator("heads-l2sae-128"))
    assert found["region_miou"] >= 0.8 and found["style_iou"] >= 0.9
    assert found["outside_kept"] == 1 and found["style_change"] > 0.03
