"""`eval heads`: keys, definitions and rules, on made-up heads and a tiny generator."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from made_heads import heads
from tiny import TinyFaceNet, TinyGenerator
from torch import Tensor

from semedit.editors import Fast, Mask
from semedit.errors import InputError, OptionError
from semedit.evaluations import heads as evaluation
from semedit.evaluations.heads import KEYS, HeadsEvaluation
from semedit.faces import networks
from semedit.heads import truth as truths
from semedit.inverters import Hybrid
from semedit.media.labels import ATTRIBUTES, REGIONS


class ColourParser:
    """Sees hair where red is above green, skin elsewhere: what a picture shows, not what was
    asked for (test_equations_evaluations works its figures out)."""

    def __call__(self, images: Tensor) -> Tensor:
        hair, skin = REGIONS["hair"][0], REGIONS["skin"][0]
        labels = torch.where(images[:, 0] > images[:, 1], hair, skin)
        return networks.F.one_hot(labels, 19).permute(0, 3, 1, 2).float()


@pytest.fixture(autouse=True)
def face_networks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    network = TinyFaceNet().eval().requires_grad_(False)
    monkeypatch.setattr(networks, "load", lambda name, device="cpu": network)
    monkeypatch.setattr(evaluation, "Judge", lambda: lambda images: network(images).attributes)
    monkeypatch.setattr(evaluation, "BuiltinParser", ColourParser)
    monkeypatch.setattr(evaluation, "judge", lambda _: ColourParser())
    monkeypatch.setattr(evaluation, "traits", lambda images: network(images).attributes)
    known = {tuple(t.landmarks[0]): t.landmarks for t in heads()}
    placed = SimpleNamespace(points=np.stack([next(iter(known.values()))]))
    monkeypatch.setattr(evaluation, "BuiltinLandmarks", lambda: lambda photo, views: placed)
    yield


def fast(**options: Any) -> HeadsEvaluation:
    return HeadsEvaluation(
        inverter=Hybrid(steps=2, tune_steps=1, perceptual="faces"),
        mask_editor=Mask(steps=2, perceptual="faces"),
        attribute_editor=Fast(steps=2, start="current"),
        batch=2,
        **options,
    )


def test_the_keys_are_those_promised() -> None:
    generator = TinyGenerator().requires_grad_(False)
    told: set[str] = set()
    figures = fast()(heads(), generator, lambda part, done, total: told.add(part))
    assert set(figures) == {key for keys in KEYS.values() for key in keys}
    assert all(np.isfinite(v) for v in figures.values()), figures
    assert told == {"faces", "inversion", "masks", "attributes"}


@pytest.mark.parametrize("part", evaluation.PARTS)
def test_a_part_alone(part: str) -> None:
    generator = None if part == "faces" else TinyGenerator().requires_grad_(False)
    assert set(fast(parts=(part,))(heads(), generator)) == set(KEYS[part])


def test_unknown_parts_and_no_heads_are_refused() -> None:
    with pytest.raises(OptionError, match="parts"):
        fast(parts=("teeth",))(heads())
    with pytest.raises(OptionError, match="no heads"):
        fast()([])


def test_kept_pixels_do_not_change() -> None:
    figures = fast(parts=("masks", "attributes"))(heads(), TinyGenerator().requires_grad_(False))
    assert 0 < figures["mask_edit_iou"] < 1  # of what the parser sees, not of what was drawn
    assert figures["mask_edit_outside_change"] == 0.0
    assert figures["attr_outside_change"] == 0.0


def test_edits_that_change_no_label_are_not_tried() -> None:
    scaled = [evaluation.at_resolution(t, 16) for t in heads(2)]
    assert list(evaluation.mask_edits(scaled, 4)) == [(0, "hair_length"), (1, "hair_length")]


def test_iou_of_things_wanted_and_taken_away() -> None:
    thing, nothing = torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)
    thing[..., :2] = 1
    drawn = torch.ones(1, 1, 4, 4)
    assert evaluation.edit_iou(thing, thing, drawn) == 1
    assert evaluation.edit_iou(nothing, thing, drawn) == 0
    assert evaluation.edit_iou(nothing, nothing, drawn) == 1
    assert evaluation.edit_iou(thing, nothing, drawn) == 0.5


def test_a_flip_changes_what_the_head_has_and_depends_on_the_seed_only() -> None:
    for head in heads(3):
        (name, yes), *rest = evaluation.flip(head).items()
        assert not rest and head.attributes[ATTRIBUTES.index(name)] != yes
        assert evaluation.flip(head) == {name: yes}


def test_proposals_are_off_but_near() -> None:
    squares = [evaluation.proposal(t) for t in heads(3)]
    assert len({tuple(s[0]) for s in squares}) == 3
    for square in squares:
        assert np.hypot(*(square[3] - square[0])) == pytest.approx(0.85 * 32, rel=0.121)


def test_scaled_heads_keep_image_and_labels_in_place() -> None:
    head = evaluation.at_resolution(heads(1)[0], 16)
    assert head.image.shape == (1, 3, 16, 16) and head.labels.shape == (1, 16, 16)
    assert (head.labels[0, 10:12, 5:11] == REGIONS["mouth"][0]).all()
    assert (head.labels == REGIONS["mouth"][0]).sum() == 12


def test_a_set_comes_back_from_its_file(tmp_path: Path) -> None:
    first = heads(2)
    truths.write_truths(tmp_path / "set.npz", first)
    second = truths.read_truths(tmp_path / "set.npz")
    for a, b in zip(first, second, strict=True):
        assert a.seed == b.seed and np.array_equal(a.labels, b.labels)
        assert np.abs(a.image.astype(int) - b.image).mean() < 6
        assert np.array_equal(a.c, b.c) and np.array_equal(a.attributes, b.attributes)
        pairs = zip(a.views, b.views, strict=True)
        assert all(np.array_equal(x[0], y[0]) for x, y in pairs)
        assert a.edits.keys() == b.edits.keys()
        assert np.array_equal(a.edits["hair_length"][1], b.edits["hair_length"][1])
    (tmp_path / "other.npz").write_bytes(b"nothing")
    with pytest.raises(InputError):
        truths.read_truths(tmp_path / "other.npz")


def test_training_seeds_are_refused() -> None:
    with pytest.raises(OptionError, match="1000000"):
        truths.render_truth(999_999)
