"""Fitting directions from heads' parameters and from a classifier's scores."""

import pytest
import torch
from tiny import TinyGenerator
from torch import Tensor

from semedit.editors import direction
from semedit.heads import parameters
from semedit.images import ATTRIBUTES
from semedit.trainers import directions


class Linear:
    """A generator whose w is z itself: directions can be read off."""

    name = "linear"
    z_dim = parameters.DIMENSIONS

    def mapping(self, z: Tensor, c: Tensor, truncation_psi: float = 1.0) -> dict[str, Tensor]:
        return {"ws": z[:, None].expand(-1, 2, -1)}

    def state_dict(self) -> dict[str, Tensor]:
        return {}


def test_truth_moves_one_parameter_and_nothing_else() -> None:
    found = directions.from_heads(Linear(), samples=48)
    assert tuple(found.moves) == ATTRIBUTES
    for name, entry in (("smiling", "smile"), ("eyeglasses", "glasses"), ("young", "age")):
        move = found.moves[name]["ws"]
        index = parameters.IDENTITIES + parameters.NAMES.index(entry)
        assert move.shape == (2, parameters.DIMENSIONS)
        alone = move.clone()
        alone[:, index] = 0
        # lips painted or not follows from masculine only; nothing else may move
        assert alone.abs().max() < 1e-5, name
        assert found.figures[name]["accuracy"] > 0.9
    assert found.moves["smiling"]["ws"][0].max() > 0
    assert found.moves["young"]["ws"][0].min() < 0  # fewer years


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


def test_every_attribute_has_two_sides() -> None:
    assert tuple(directions.SIDES) == ATTRIBUTES
