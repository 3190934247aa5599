"""Fitting directions from rendered heads and from a classifier's scores."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import TinyGenerator
from torch import Tensor

from semedit import cameras
from semedit.editors import direction
from semedit.errors import InputError, TraitError
from semedit.images import ATTRIBUTES
from semedit.trainers import directions


class Reader:
    """An encoder whose code is the colour of the picture's two halves."""

    name = "reader"
    resolution = 16
    traits = frozenset({"encode"})

    def encode(self, images: Tensor, labels: Tensor, c: Tensor) -> dict[str, Tensor]:
        halves = images.unflatten(3, (2, 8)).mean((2, 4)).transpose(1, 2)  # [N,2,3]
        return {"ws": halves}

    def state_dict(self) -> dict[str, Tensor]:
        return {}


def folder(path: Path, n: int = 60) -> Path:
    """Heads whose left half is red when they smile; half of them do, whatever else they have."""
    (path / "images").mkdir(parents=True)
    (path / "labels").mkdir()
    rng = np.random.default_rng(0)
    attributes = rng.random((n, len(ATTRIBUTES))) < 0.5
    for i in range(n):
        pixels = rng.integers(100, 120, (16, 16, 3)).astype(np.uint8)
        pixels[:, :8, 0] += 100 * attributes[i, ATTRIBUTES.index("smiling")].astype(np.uint8)
        Image.fromarray(pixels).save(path / "images" / f"{i:06d}_0.png")
        Image.fromarray(np.zeros((16, 16), np.uint8)).save(path / "labels" / f"{i:06d}_0.png")
    c = cameras.orbit(0.0, 0.0).expand(n, 1, 25).numpy()
    np.savez(path / "arrays.npz", c=c, z=np.zeros((n, 4), np.float32), attributes=attributes)
    (path / "heads.json").write_text(json.dumps({"seed": 0}))
    return path


def test_rendered_heads_teach_where_an_attribute_lies(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    found = directions.from_heads(
        Reader(), folder(tmp_path), batch=16, progress=lambda *at: seen.append(at)
    )
    assert tuple(found.moves) == ATTRIBUTES and seen[-1] == (60, 60)
    move = found.moves["smiling"]["ws"]
    assert move.shape == (2, 3) and move[0, 0] > 0
    assert move[0, 0] / move.norm() > 0.97
    assert found.figures["smiling"]["accuracy"] > 0.95


def test_no_encoder_or_no_heads(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        directions.from_heads(Reader(), tmp_path)
    blind = Reader()
    blind.traits = frozenset()
    with pytest.raises(TraitError):
        directions.from_heads(blind, tmp_path)


def test_classifier_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = TinyGenerator().requires_grad_(False)

    def classify(images: Tensor) -> Tensor:
        scores = torch.zeros(len(images), len(ATTRIBUTES))
        scores[:, ATTRIBUTES.index("smiling")] = images[:, 0].mean((1, 2))
        return scores

    monkeypatch.setattr(direction, "Classifier", lambda device: classify)
    seen: list[tuple[int, int]] = []
    found = direction.fit_generator(generator, 50, progress=lambda *at: seen.append(at))
    assert tuple(found.moves) == ("smiling",) and seen[-1] == (50, 50)
    codes, c = generator.sample(8, seed=2)
    moved = {"ws": codes["ws"] + 2 * found.moves["smiling"]["ws"]}
    before, after = (generator.synthesis(x, c).image[:, 0].mean() for x in (codes, moved))
    assert after > before
