"""The training loop: data order, moving averages, exact resume."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from small_trainers import Line
from torch import nn

from semedit.errors import InputError, OptionError
from semedit.trainers.loop import Schedule, average, order, train


def test_resumed_run_equals_the_unbroken_one(tmp_path: Path) -> None:
    ends = [
        train(Line(), tmp_path, tmp_path / "whole", Schedule(kimg=0.3, final_rate=1.0), quiet=True)
    ]
    for kimg in (0.12, 0.3):
        figures = train(
            Line(), tmp_path, tmp_path / "broken", Schedule(kimg=kimg, final_rate=1.0), quiet=True
        )
    ends.append(figures)
    assert ends[0] == ends[1]
    whole, broken = (
        torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)
        for name in ("whole", "broken")
    )
    for part in ("modules", "means"):
        for name, value in whole[part]["line"].items():
            assert torch.equal(value, broken[part]["line"][name])
    assert whole["step"] == broken["step"] == 100


def test_training_learns_and_writes_its_files(tmp_path: Path) -> None:
    figures = train(Line(), tmp_path, tmp_path / "run", Schedule(kimg=6), quiet=True)
    assert figures["at_one"] == pytest.approx(2.0, abs=0.2)
    assert json.loads((tmp_path / "run" / "line.json").read_text())["kimg"] == pytest.approx(6.0)
    rows = [json.loads(row) for row in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert rows[0]["loss"] > 0 and rows[-1]["step"] == 2000


def test_a_run_refuses_other_options(tmp_path: Path) -> None:
    train(Line(), tmp_path, tmp_path / "run", Schedule(kimg=0.006), quiet=True)
    with pytest.raises(InputError):
        train(Line(lr=0.1), tmp_path, tmp_path / "run", Schedule(kimg=0.012), quiet=True)


def test_a_run_needs_an_end() -> None:
    with pytest.raises(OptionError):
        Schedule()


def test_order_visits_every_item_once_an_epoch() -> None:
    steps = torch.cat([order(7, 3, step, seed=5) for step in range(7)])
    for epoch in steps.reshape(3, 7):
        assert sorted(epoch.tolist()) == list(range(7))
    assert not torch.equal(steps[:7], steps[7:14])
    assert torch.equal(order(2, 5, 1, 0), torch.cat([order(2, 1, s, 0) for s in range(5, 10)]))


def test_average_is_an_exponential_mean() -> None:
    mean, module = nn.Linear(1, 1), nn.Linear(1, 1)
    expected = 0.9 * mean.weight.detach() + 0.1 * module.weight.detach()
    average({"a": mean.requires_grad_(False)}, {"a": module}, 0.9)
    torch.testing.assert_close(mean.weight, expected)


def test_training_from_a_file_tells_of_both_runs():
    from semedit.trainers.parts.start_from import whole_training

    record = {"options": {"start_from": "/somewhere/faces.safetensors"}, "minutes": 5, "kimg": 1.5}
    before = {"minutes": 20.0, "kimg": 2.0, "sha256": "abc"}
    whole = whole_training(record, before)
    assert (whole["minutes"], whole["kimg"]) == (25.0, 3.5)
    assert whole["options"]["start_from"] == "abc"
    assert "/somewhere" not in str(whole)
    assert whole_training(record, {}) == record


def test_the_mapping_network_follows_a_guide() -> None:
    """The first faces are mapped; the guide is not pulled towards the mapping network."""
    from semedit.trainers.parts.guide import Guide, followed

    torch.manual_seed(0)
    guide = Guide(16, 5, (4, 6), count=2)
    images, labels = torch.randn(4, 3, 16, 16), torch.randint(19, (4, 16, 16))
    found, mapped = guide(images, labels), torch.randn(4, 2, 5, requires_grad=True)
    styles, near = followed(mapped, guide, images, labels, 0.25)
    assert torch.equal(styles, torch.cat([mapped[:1], found[1:]]))
    torch.testing.assert_close(near, (mapped - found).square().mean())
    gradients = torch.autograd.grad(near, [mapped, *guide.parameters()], allow_unused=True)
    assert gradients[0] is not None and all(one is None for one in gradients[1:])
    styles, near = followed(mapped, None, images, labels, 0.25)
    assert torch.equal(styles, mapped) and float(near) == 0
