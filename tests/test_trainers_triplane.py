"""Training of the tri-plane generator and its encoder on a tiny data set of noise."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from small_trainers import HEADS, SIDE, SmallHeads, write_heads

from semedit import metrics
from semedit.datasets.rendered import read_views
from semedit.errors import InputError
from semedit.generators import load_generator
from semedit.trainers.encoder import EncoderTrainer
from semedit.trainers.loop import CHECKPOINT, Schedule, train
from semedit.trainers.triplane import wobble


def test_views_are_read_and_resized_once(tmp_path: Path) -> None:
    data = write_heads(tmp_path / "heads")
    for _ in range(2):  # written, then read from the cache
        views = read_views(data, SIDE)
        assert views.images.shape == (HEADS, 2, SIDE, SIDE, 3)
        pair = views.pair(torch.tensor([3]), torch.tensor([1]), torch.tensor([0]))
        assert pair.labels[0, 1].sum() == 64 and pair.labels[0, 1, 8, 8] == 1
        assert pair.images[0, 0, 0, 8, 8] == pytest.approx(200 / 127.5 - 1)
        assert torch.equal(pair.c[0, 0], views.c[3, 1])


def test_evaluation_seeds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        read_views(write_heads(tmp_path / "heads", seed=1_000_000), SIDE)
    with pytest.raises(InputError):
        read_views(tmp_path / "nothing", SIDE)


def test_a_resumed_run_equals_the_unbroken_one(tmp_path: Path) -> None:
    data = write_heads(tmp_path / "heads")
    for name, ends in (("whole", (0.04,)), ("broken", (0.016, 0.04))):
        for kimg in ends:
            schedule = Schedule(kimg=kimg, final_rate=1.0)
            figures = train(SmallHeads(), data, tmp_path / name, schedule, quiet=True)
    held = [
        torch.load(tmp_path / name / CHECKPOINT, weights_only=True) for name in ("whole", "broken")
    ]
    for module, values in held[0]["modules"].items():
        for key, value in values.items():
            assert torch.equal(value, held[1]["modules"][module][key]), key
    rows = [json.loads(r) for r in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["own_db"] == pytest.approx(figures["own_db"], abs=1e-3)


def test_trained_files_load_and_train_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, run = write_heads(tmp_path / "heads"), tmp_path / "run"
    train(SmallHeads(), data, run, Schedule(kimg=0.004), quiet=True)
    # What was trained with heads-128's name goes by its file's.
    generator = load_generator(str(run / "small.safetensors"))
    assert "encode" in generator.traits
    trainer = EncoderTrainer(generator=str(run / "small.safetensors"), batch_size=2)
    before = generator.encoder.state_dict()["texture.out.weight"]
    train(trainer, data, tmp_path / "encoder", Schedule(kimg=0.004), quiet=True)
    assert not (tmp_path / "encoder" / "small.safetensors").exists()
    (run / "encoder.safetensors").write_bytes(
        (tmp_path / "encoder" / "encoder.safetensors").read_bytes()
    )
    after = load_generator(str(run / "small.safetensors")).encoder
    assert not torch.equal(before, after.state_dict()["texture.out.weight"])


def test_decibels() -> None:
    true = torch.zeros(2, 3, 4, 4)
    assert metrics.psnr(true + 0.2, true)[0] == pytest.approx(20.0, abs=1e-3)


def test_wobble_moves_outlines_only() -> None:
    torch.manual_seed(0)
    labels = torch.zeros(1, 32, 32, dtype=torch.int64)
    labels[:, 8:24, 8:24] = 5
    moved = wobble(labels)
    assert set(moved.unique().tolist()) == {0, 5} and (moved != labels).any()
    assert moved[0, 16, 16] == 5 and moved[0, 0, 0] == 0
