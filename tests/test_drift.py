"""What receipts tell of edits: likeness, distances, second opinions; edits that are held back."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny import TinyGenerator
from torch import Tensor

from semedit import detail, losses
from semedit.editors import Mask
from semedit.latents import Composite, Latent, fingerprint, picture
from semedit.media.labels import ATTRIBUTES
from semedit.tasks import drift as drifting
from semedit.tasks import edit as editing
from semedit.tasks import original as originals
from semedit.tasks.drift import Change, drift
from semedit.tasks.edit import Edit, Source, part_way
from semedit.tasks.original import Original

SMILING, YOUNG = ATTRIBUTES.index("smiling"), ATTRIBUTES.index("young")


class Colours:
    """A recogniser of mean colours."""

    name = "colours"

    def __call__(self, images: Tensor) -> Tensor:
        return F.normalize(images.mean((2, 3)) + torch.tensor([0.1, 0.0, 0.0]))


class Pixels:
    def features(self, image: Tensor) -> list[Tensor]:
        return [image]


def asked(smiling: float, young: float) -> Any:
    """A classifier that sees a smile in red and youth in blue, each with a weight of its own."""

    def classifier(device: str) -> Any:
        def logits(images: Tensor) -> Tensor:
            found = torch.zeros(len(images), len(ATTRIBUTES))
            found[:, SMILING] = smiling * images[:, 0].mean((1, 2))
            found[:, YOUNG] = young * images[:, 2].mean((1, 2))
            return found

        return logits

    return classifier


@pytest.fixture(autouse=True)
def networks_of_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drifting, "recogniser", lambda device: Colours())
    monkeypatch.setattr(losses, "perceptual", lambda name, device: {"faces": Pixels}[name]())
    monkeypatch.setattr(drifting, "Classifier", asked(8.0, 8.0))
    monkeypatch.setattr(drifting, "Judge", asked(4.0, -8.0))


def change(wanted: dict[str, bool] | None = None, **more: Any) -> Change:
    """Red where it was blue, in the left half; the rest a little lighter."""
    photo = torch.zeros(1, 3, 8, 8)
    photo[:, 2] = 0.8
    photo[:, 0] = -0.8
    edited = photo + 0.1
    edited[..., :4] = torch.tensor([0.95, 0.0, -0.98]).view(1, 3, 1, 1)
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., :4] = 1
    labels = torch.ones(1, 8, 8, dtype=torch.long)
    return Change(photo, edited, mask, wanted or {}, labels, **more)


def test_identity_is_the_cosine_of_embeddings_and_says_whose() -> None:
    one = change()
    a, b = (x.mean((2, 3))[0] + torch.tensor([0.1, 0, 0]) for x in (one.photo, one.edited))
    figures, warnings = drift(one)
    expected = float(a @ b / (a.norm() * b.norm()))
    assert figures["identity"] == pytest.approx(expected, abs=1e-4)
    assert figures["identity_by"] == "colours" and "no longer be the same" in warnings[0]
    same = replace(one, edited=one.photo)
    figures, warnings = drift(same)
    assert figures["identity"] == 1.0 and warnings == ()


def test_a_limit_says_from_where_on_it_is_told() -> None:
    one = change()
    away = 1 - drift(one)[0]["identity"]
    assert drift(one, away + 1e-3)[1] == () and len(drift(one, away - 1e-3)[1]) == 1


def test_distances_inside_and_outside_the_region_are_apart() -> None:
    one = change()
    squares = (one.edited - one.photo).square().sum(1)[0]
    figures, _ = drift(one)
    inside, outside = squares[:, :4].sum() / 64, squares[:, 4:].sum() / 64
    assert figures["perceptual_inside"] == pytest.approx(float(inside), abs=1e-3)
    assert figures["perceptual_outside"] == pytest.approx(float(outside), abs=1e-3)
    assert inside > 10 * outside > 0


def test_what_was_asked_is_judged_by_the_second_classifier() -> None:
    red = float(change().edited[:, 0].mean())
    first, second = (float(torch.sigmoid(torch.tensor(w * red))) for w in (8.0, 4.0))
    figures, warnings = drift(change({"smiling": True}), limit=2)
    assert figures["classified"] == pytest.approx(first, abs=1e-3)
    assert figures["judged"] == pytest.approx(second, abs=1e-3)
    assert figures["held"] is (second > 0.5) and figures["held"] and warnings == ()
    figures, warnings = drift(change({"smiling": False}), limit=2)
    assert figures["judged"] == pytest.approx(1 - second, abs=1e-3) and not figures["held"]
    assert warnings == ("a second classifier does not see it: --no-smiling",)
    assert "judged" not in drift(change())[0]


def test_other_attributes_count_where_both_classifiers_see_them_change(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Both see a smile come; youth goes for one and comes for the other.
    assert drift(change())[0]["also_changed"] == ["smiling"]
    assert drift(change({"smiling": True}))[0]["also_changed"] == []
    monkeypatch.setattr(drifting, "Judge", asked(4.0, 8.0))
    assert drift(change())[0]["also_changed"] == ["smiling", "young"]
    monkeypatch.setattr(drifting, "Judge", asked(0.2, 8.0))  # the second hardly moves
    assert drift(change())[0]["also_changed"] == ["young"]


def test_drawn_labels_are_looked_for_by_a_parser_that_the_edit_did_not_ask(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    used: list[str] = []

    def second(*names: str, device: str) -> Any:
        used.extend(names)

        def parser(images: Tensor) -> Tensor:
            ids = torch.where(images[:, 0] > 0.5, 13, 1)  # hair is red
            ids[:, :4] = 4
            return F.one_hot(ids, 19).permute(0, 3, 1, 2).float()

        parser.name = "other"  # type: ignore[attr-defined]
        return parser

    monkeypatch.setattr(drifting.pipeline, "second_parser", second)
    drawn = torch.ones(1, 8, 8, dtype=torch.long)
    drawn[..., :2] = 13
    figures, _ = drift(change(drawn=drawn))
    assert figures["labels_seen"] == pytest.approx(0.5) and figures["labels_by"] == "other"
    assert used == ["builtin"]
    assert "labels_seen" not in drift(change(drawn=torch.ones(1, 8, 8, dtype=torch.long)))[0]


# --- held back -------------------------------------------------------------------------------


def face(number: int) -> Latent:
    generator = TinyGenerator()
    codes, c = generator.sample(4, seed=1)
    row = slice(number, number + 1)
    return Latent({k: v[row] for k, v in codes.items()}, c[:1], "tiny", fingerprint(generator), "t")


def test_part_of_an_edits_way_moves_codes_and_keeps_what_surrounds_it() -> None:
    before, after = face(0), face(1)
    box = Composite(torch.zeros(1, 3, 16, 16), torch.ones(1, 1, 16, 16))
    after = replace(after, composite=box, method="t+mask", meta={"region": [0.1]})
    found = part_way(TinyGenerator(), before, after, 0.25)
    expected = 0.75 * before.codes["ws"] + 0.25 * after.codes["ws"]
    assert torch.allclose(found.codes["ws"], expected, atol=1e-6)
    assert found.composite is box and found.method == "t+mask"
    assert found.meta == {"region": [0.1], "share": 0.25}


@pytest.mark.parametrize(("limit", "share"), [(2.0, 1.0), (0.31, 0.5), (0.001, 0.25)])
def test_an_edit_that_drifts_too_far_is_done_by_a_part(
    limit: float, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = Edit("edit", "mask", Mask(), "mask", generator_name="tiny", max_drift=limit)
    monkeypatch.setattr(Edit, "generator", TinyGenerator().eval())
    before, after = face(0), face(1)
    labels = torch.ones(1, 16, 16, dtype=torch.long)
    source = Source(before, labels, (16, 16), None, (), original=Original(labels, before))
    tried: list[float] = []

    def drawn(self: Edit, one: Source, latent: Latent) -> Any:
        way = latent.meta.get("share", 1.0)
        tried.append(way)
        return (np.zeros(1), np.zeros(1)), {"identity": 1 - 0.6 * way}, (f"at {way}",)

    monkeypatch.setattr(Edit, "drawn", drawn)
    latent, _, figures, warnings = task._held(source, after)
    assert figures["share"] == share == latent.meta.get("share", 1.0)
    assert tried == [s for s in editing.SHARES if s >= share] and warnings == (f"at {share}",)
    free = replace(task, max_drift=None)
    assert "share" not in free._held(source, after)[2]


def test_the_picture_has_the_photographs_size_and_its_figures_are_of_what_is_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generator = TinyGenerator().eval()
    monkeypatch.setattr(Edit, "generator", generator)
    before, after = face(0), face(1)
    photo = torch.rand(1, 3, 40, 40)
    labels = torch.ones(1, 16, 16, dtype=torch.long)
    one = Source(before, labels, (40, 40), None, (), original=Original(photo, before))
    seen: list[Change] = []
    monkeypatch.setattr(
        editing,
        "drift",
        lambda change, limit: (seen.append(change), ({"limit": limit}, ("told",)))[1],
    )
    mask = torch.zeros(1, 1, 40, 40)
    mask[..., :20] = 1
    given: list[Any] = []

    def edited_photo(network: Any, *args: Any) -> tuple[Tensor, Tensor]:
        given.append(args)
        return photo - 0.5, mask

    monkeypatch.setattr(originals.detail, "edited_photo", edited_photo)
    monkeypatch.setattr(originals.detail, "load", lambda device: SimpleNamespace())
    task = Edit("attr", "fast", Mask(), "x", generator_name="tiny", wanted={"smiling": True},
                max_drift=0.4)  # fmt: skip
    (pixels, map_), figures, warnings = task.drawn(one, after)
    assert pixels.shape == (40, 40, 3) and map_.shape == (40, 40)
    assert figures == {"limit": 0.4} and warnings == ("told",)
    assert torch.equal(seen[0].edited, photo - 0.5) and torch.equal(seen[0].mask, mask)
    assert seen[0].wanted == {"smiling": True} and torch.equal(seen[0].photo, photo)
    assert given[0][2] is before or torch.equal(given[0][2].codes["ws"], before.codes["ws"])
    plain = replace(task, detail=False)
    (pixels, _), _, _ = plain.drawn(one, after)
    with torch.no_grad():
        own = picture(generator, after).image.clamp(-1, 1)
    assert pixels.shape == (16, 16, 3) and torch.allclose(seen[1].edited, own, atol=1e-5)
    assert seen[1].photo.shape == (1, 3, 16, 16) and seen[1].mask.shape == (1, 1, 16, 16)
    assert plain.drawn(replace(one, original=None), after)[1:] == ({}, ())
    assert detail.NAME == "detail"
