"""`eval attributes`: what is compared, measured and called equal, on made-up heads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from made_heads import heads
from tiny import TinyFaceNet, TinyGenerator, small_stylegan2
from torch import Tensor, nn

from semedit.editors import Pernus
from semedit.errors import OptionError
from semedit.evaluations import attributes
from semedit.evaluations.attributes import EIGHT, STRENGTHS, Case, Comparison, Gauge, HeadEmbedding
from semedit.evaluations.heads import at_resolution
from semedit.faces import networks
from semedit.heads.truth import Truth
from semedit.media.labels import ATTRIBUTES, REGIONS


class TinyJudge(nn.Module):
    """Features for the embedding: what is where, in a few channels."""

    size = 16

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.body = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU())


@pytest.fixture(autouse=True)
def face_networks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    found = {"judge": TinyJudge()}
    other = TinyFaceNet().eval().requires_grad_(False)
    monkeypatch.setattr(networks, "load", lambda name, device="cpu": found.get(name, other))
    monkeypatch.setattr(attributes, "Judge", lambda device: lambda x: other(x).attributes)
    monkeypatch.setattr(attributes.weights, "on_disk", lambda name: False)
    yield


def lacking(truths: list[Truth], *names: str) -> list[Truth]:
    """The heads without any of the attributes that are named, bald or under hats."""
    without = {*names, "bald", "wearing_hat"}
    return [replace(t, attributes=np.array([n not in without for n in ATTRIBUTES])) for t in truths]


def test_the_eight_are_the_papers() -> None:
    figures = {
        *("arched_eyebrows", "big_nose", "bushy_eyebrows", "narrow_eyes", "smiling"),
        *("wearing_earrings", "wearing_lipstick", "blond_hair", "brown_hair", "gray_hair"),
        *("straight_hair", "wavy_hair"),
    }
    assert len(set(EIGHT)) == 8 and set(EIGHT) <= figures <= set(ATTRIBUTES)


def test_heads_are_given_what_they_lack_and_can_have() -> None:
    (head,) = lacking(heads(1), "smiling", "blond_hair")
    assert attributes.wanted_of(head, EIGHT) == ["smiling", "blond_hair"]
    bald = replace(head, attributes=head.attributes | (np.array(ATTRIBUTES) == "bald"))
    assert attributes.wanted_of(bald, EIGHT) == ["smiling"]


@pytest.mark.parametrize("make", [TinyGenerator, small_stylegan2])
def test_figures_of_both_methods(make: Any) -> None:
    generator = make().requires_grad_(False)
    truths = lacking(heads(3), "smiling", "wearing_lipstick")
    told: set[str] = set()
    method = Comparison(
        each=1,
        pernus=Pernus(steps=2, samples=20, segmenter="labels"),
        inversion_steps=2,
        samples=120,
    )
    embed = attributes.embedding(truths)
    assert embed.name == "judge features"
    figures = method(truths, generator, embed, lambda part, done, total: told.add(part))
    assert told == {"pernus", "samples", "interfacegan w", "interfacegan w+"}
    assert figures["cases"] == 3 and 0 <= figures["success_before"] <= 1
    for name in ("pernus", "interfacegan", "interfacegan_wplus"):
        for key in ("success", "outside", "identity"):
            assert np.isfinite(figures[f"{name}_{key}"])
        if name != "pernus":
            assert len(figures["curves"][name]["identity"]) == len(STRENGTHS)
    assert set(figures["attributes"]) <= {"smiling", "wearing_lipstick"}
    assert sum(row["cases"] for row in figures["attributes"].values()) == 3
    whole = replace(method, each=0, spaces=())(truths, generator, embed)
    assert whole["cases"] == 6


def test_unknown_attributes_and_nothing_to_give_are_refused() -> None:
    generator, truths = TinyGenerator(), lacking(heads(1))
    embed = HeadEmbedding(heads(3))
    with pytest.raises(OptionError, match="tall"):
        Comparison(attributes=("tall",))(truths, generator, embed)
    with pytest.raises(OptionError, match="no head lacks"):
        Comparison()(truths, generator, embed)


def test_a_result_is_measured_against_the_head() -> None:
    (truth,) = lacking(heads(1), "smiling")
    head = at_resolution(truth, 16)
    seen: list[Tensor] = []

    def judge(image: Tensor) -> Tensor:
        seen.append(image)
        return torch.where(torch.tensor([n == "smiling" for n in ATTRIBUTES]), 1.0, -1.0)[None]

    gauge = Gauge(HeadEmbedding(heads(3)), judge)
    same = gauge(Case(head, "smiling"), head.image)
    assert same == {"success": 1.0, "outside": 0.0, "identity": pytest.approx(1.0, abs=1e-5)}
    assert gauge(Case(head, "narrow_eyes"), head.image)["success"] == 0.0
    changed = head.image.clone()
    changed[..., head.labels[0] == REGIONS["mouth"][0]] = -1.0
    inside = gauge(Case(head, "smiling"), changed)
    assert inside["outside"] == 0.0 and inside["identity"] < 1
    assert gauge(Case(head, "narrow_eyes"), changed)["outside"] > 0


def test_equal_success_lies_between_strengths() -> None:
    curve = [0.0, 0.2, 0.6, 0.5, 0.8, 0.8, 0.9, 0.9, 0.9]
    strength, reached = attributes.equal_strength(curve, 0.4)
    assert reached and strength == pytest.approx(0.75)
    strength, reached = attributes.equal_strength(curve, 0.7)  # behind the dip
    assert reached and 1.5 < strength < 2.0
    assert attributes.equal_strength(curve, 0.0) == (0.0, True)
    assert attributes.equal_strength(curve, 0.95) == (STRENGTHS[6], False)


def test_the_embedding_tells_heads_apart_and_forgives_edits() -> None:
    """Heads differ in colour; within a head, brightness changes."""
    rng = np.random.default_rng(0)

    def head(seed: int) -> Truth:
        colour = rng.uniform(60, 190, 3)

        def shot() -> np.ndarray:
            noise = rng.normal(0, 4, (32, 32, 3))
            return np.clip(colour + rng.uniform(-50, 50) + noise, 0, 255).astype(np.uint8)

        views = ((np.zeros(25, np.float32), shot()), (np.zeros(25, np.float32), shot()))
        edits = {k: (shot(), np.zeros((32, 32), np.uint8)) for k in ("smile", "nose")}
        return replace(heads(1)[0], seed=seed, image=shot(), views=views, edits=edits)

    embed = HeadEmbedding([head(i) for i in range(12)])
    figures = attributes.calibration(embed, [head(i) for i in range(12, 20)])
    assert figures["identity_same"] > figures["identity_other"] + 0.4
    vectors = embed(torch.rand(2, 3, 32, 32) * 2 - 1)
    assert torch.allclose(vectors.norm(dim=1), torch.ones(2), atol=1e-5)
