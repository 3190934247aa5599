"""Training of StyleGAN2: its losses against hand-made ones, and runs that repeat and resume."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from small_trainers import SIDE, write_heads

from semedit import losses
from semedit.generators import load_generator
from semedit.trainers.loop import CHECKPOINT, Schedule, train
from semedit.trainers.parts.discriminators import Augment, Discriminator, similarities, spread
from semedit.trainers.parts.mean_style import set_mean_style
from semedit.trainers.stylegan2 import StyleGAN2Trainer

SMALL = StyleGAN2Trainer(
    output="small",
    resolution=SIDE,
    channels=(8, 8, 8),
    critic=(8, 8, 8),
    w_dim=8,
    mapping_layers=2,
    batch_size=2,
    r1_every=2,
    path_every=3,
    ada=0.6,
    regression=0.0,
    coarse=1,
    held_out=2,
)


def test_adversarial_losses() -> None:
    logits = torch.tensor([0.0, 2.0])
    torch.testing.assert_close(losses.generator_loss(logits), -logits.sigmoid().log())
    expected = -logits.sigmoid().log() - (1 - (-logits).sigmoid()).log()
    torch.testing.assert_close(losses.discriminator_loss(logits, -logits), expected)


def test_r1_is_the_squared_slope() -> None:
    x = torch.randn(3, 2, 4, 4, requires_grad=True)
    logits = (2 * x).flatten(1).sum(1) + x.square().flatten(1).sum(1)
    slope = 2 + 2 * x
    penalty = losses.r1(logits, x)
    torch.testing.assert_close(penalty, slope.square().flatten(1).sum(1))
    penalty.sum().backward()  # differentiable
    torch.testing.assert_close(x.grad, 4 * slope.detach())


def test_path_lengths_of_a_linear_map() -> None:
    torch.manual_seed(0)
    ws = torch.randn(4096, 2, 3, requires_grad=True)
    gain = torch.tensor([1.0, 2.0, 3.0])
    images = (ws * gain).sum((1, 2)).view(-1, 1, 1, 1).expand(-1, 3, 8, 8)
    # J^T y = gain * sum(y) / 8 with sum(y) ~ N(0, 3 * 64): |J^T y| = sqrt(14 * 3) * |N(0, 1)|.
    mean = losses.path_lengths(images, ws).mean()
    assert mean.item() == pytest.approx((42 * 2 / torch.pi) ** 0.5, rel=0.05)


def test_spread_of_groups() -> None:
    x = torch.randn(8, 3, 2, 2)
    found = spread(x)
    for i in range(2):  # pictures i, i+2, i+4, i+6 are a group
        one = x[i::2].var(0, unbiased=False).sqrt().mean()
        torch.testing.assert_close(found[i::2], one.expand(4, 1, 2, 2), atol=1e-5, rtol=0)


def test_augmentation_follows_the_discriminator() -> None:
    augment, images = Augment(target=0.6, kimg=0.01), torch.rand(4, 3, 8, 8)
    assert torch.equal(augment(images), images)
    augment.follow(torch.ones(4))
    assert float(augment.p) == pytest.approx(0.4)
    changed = augment(images)
    assert changed.shape == images.shape and not torch.equal(changed, images)
    augment.follow(-torch.ones(4))
    assert float(augment.p) == 0
    upright = torch.tensor([[1.0, 0, 0], [0, 1, 0]]).expand(3, 2, 3)
    torch.testing.assert_close(similarities(3, 0.0), upright)


def test_discriminator_sees_every_pixel() -> None:
    images = torch.randn(2, 3, SIDE, SIDE, requires_grad=True)
    Discriminator(SIDE, (8, 8, 8))(images).sum().backward()
    assert (images.grad.abs().sum(1) > 0).all()


def test_a_resumed_run_equals_the_unbroken_one(tmp_path: Path) -> None:
    data = write_heads(tmp_path / "heads")
    for name, ends in (("whole", (0.02,)), ("broken", (0.008, 0.02))):
        for kimg in ends:
            schedule = Schedule(kimg=kimg, final_rate=1.0)
            figures = train(SMALL, data, tmp_path / name, schedule, quiet=True)
            assert figures["mapped_db"] > 0
    held = [
        torch.load(tmp_path / name / CHECKPOINT, weights_only=True) for name in ("whole", "broken")
    ]
    assert held[0]["modules"]["memory"]["steps"] == 10
    for module, values in held[0]["modules"].items():
        for key, value in values.items():
            assert torch.equal(value, held[1]["modules"][module][key]), (module, key)


def test_regression_learns_and_its_file_loads(tmp_path: Path) -> None:
    data, run = write_heads(tmp_path / "heads"), tmp_path / "run"
    trainer = StyleGAN2Trainer(**{**vars(SMALL), "regression": 1.0})
    before = train(trainer, data, tmp_path / "none", Schedule(kimg=0.002), quiet=True)
    after = train(trainer, data, run, Schedule(kimg=0.4, log_seconds=0.5), quiet=True)
    assert after["encoded_db"] > before["encoded_db"] + 1
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    near = [row["near"] for row in rows if "near" in row]
    assert near[-1] < 0.5 * near[0]  # the mapping network follows the encoder
    generator = load_generator(str(run / "small.safetensors"))
    assert generator.z_dim == 5 + 3
    codes = generator.mean_codes()
    w_avg = codes["ws"][0, 0].clone()
    mapping = generator.mapping_network
    set_mean_style(mapping.w_avg, lambda z: mapping(z, z), generator.z_dim, 10_000)
    torch.testing.assert_close(generator.mean_codes()["ws"][0, 0], w_avg, atol=2e-2, rtol=0)
