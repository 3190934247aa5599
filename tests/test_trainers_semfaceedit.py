"""Training of SemFaceEdit: equations 1 to 6, both stages, and runs that repeat and resume."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from small_trainers import SIDE, SmallSemFaceEdit, write_faces, write_heads
from tiny import small_manifolds
from torch import nn

from semedit import cameras
from semedit.datasets.posed import read_faces
from semedit.errors import OptionError
from semedit.generators import load_generator
from semedit.generators.surfaces.manifolds import Manifolds
from semedit.trainers.loop import CHECKPOINT, Schedule, train
from semedit.trainers.parts.discriminators import BranchedDiscriminator
from semedit.trainers.parts.ray_sampling import grid_picture, grid_pixels, thinned
from semedit.trainers.semfaceedit import GEOMETRY, SemFaceEditTask, SemFaceEditTrainer, critic_terms


def task(tmp_path: Path, **options: float) -> SemFaceEditTask:
    torch.manual_seed(0)
    return SmallSemFaceEdit(**options).start(write_heads(tmp_path / "heads"))  # type: ignore[arg-type]


def test_lattices_are_thinned_pictures() -> None:
    whole = torch.arange(64.0).view(1, 1, 8, 8).expand(3, 2, 8, 8)
    torch.manual_seed(0)
    pixels = grid_pixels(3, 8, 4)
    found = grid_picture(
        whole.flatten(2).gather(2, pixels[:, None].expand(-1, 2, -1)).transpose(1, 2)
    )
    for one in found:
        row, column = divmod(int(one[0, 0, 0]), 8)
        assert torch.equal(one, whole[0][:, row::2, column::2])
    assert thinned(whole, 4).shape == (3, 2, 4, 4) and torch.equal(thinned(whole, 8), whole)


def test_discriminators_guess_beside_their_verdict() -> None:
    torch.manual_seed(0)
    critic = BranchedDiscriminator(8, (4, 6), 3, 5)
    x = torch.randn(4, 3, 8, 8)
    logits, guess = critic.judge(x)
    assert logits.shape == (4,) and guess.shape == (4, 5)
    assert torch.equal(logits, critic(x))


def test_equation_1_of_one_discriminator() -> None:
    """E f(D(fake)) + E f(-D(real)) + lambda E |grad D(real)|^2."""
    torch.manual_seed(0)
    critic = BranchedDiscriminator(8, (4, 6), 3, 2)
    real, fake = torch.randn(4, 3, 8, 8), torch.randn(4, 3, 8, 8)
    found = critic_terms(critic, real, fake, 5.0)
    x = real.clone().requires_grad_()
    logits = critic(x)
    adversarial = F.softplus(critic(fake)).mean() + F.softplus(-logits).mean()
    (slope,) = torch.autograd.grad(logits.sum(), x)
    torch.testing.assert_close(found["loss"], adversarial)
    torch.testing.assert_close(found["r1"], 5 * slope.square().flatten(1).sum(1).mean())


def test_equations_2_to_6(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights, and which discriminator sees what, in both stages."""
    run = task(tmp_path, anchor=0.0)
    batch = run.batch(torch.arange(2))
    fake = run._fake(2)
    monkeypatch.setattr(run, "_fake", lambda n: fake)
    monkeypatch.setattr(run, "_update", lambda name, loss: None)
    c = cameras.angles(batch.c)[:, :2]
    with torch.no_grad():
        torch.manual_seed(1)
        real = run.of_images.judge(thinned(batch.images, 8))[1]
        seen = run.of_images.judge(fake.images)[1]
        pose = ((real - c) ** 2).mean() + ((seen - fake.angles) ** 2).mean()
        latent = ((run.of_labels.judge(fake.labels)[1] - fake.z) ** 2).mean()
    torch.manual_seed(1)
    found = run._criticise(batch, second=False)
    torch.testing.assert_close(found["critic_pose"], 10 * pose)
    torch.testing.assert_close(found["labels_latent"], 1 * latent)
    assert float(found["labels_r1"].detach()) > 0
    please = run._please(batch, second=False)
    torch.testing.assert_close(please["pose"], 10 * ((seen - fake.angles) ** 2).mean())
    torch.testing.assert_close(please["latent"], latent)
    torch.testing.assert_close(please["generator"], F.softplus(-run.of_images(fake.images)).mean())
    torch.testing.assert_close(please["labels"], F.softplus(-run.of_labels(fake.labels)).mean())
    torch.manual_seed(1)
    later = run._criticise(batch, second=True)
    assert set(later) == {"critic_loss", "critic_r1", "critic_pose"}
    torch.testing.assert_close(later["critic_r1"], found["critic_r1"] / 5)
    assert set(run._please(batch, second=True)) == {"generator", "pose"}
    run.trainer = replace(run.trainer, lambda_s=3.0)
    torch.manual_seed(1)
    torch.testing.assert_close(
        run._criticise(batch, second=False)["labels_r1"], 3 * found["labels_r1"]
    )


def moved(before: dict[str, torch.Tensor], module: nn.Module) -> set[str]:
    """Parameters that are not what they were."""
    return {k for k, v in module.named_parameters() if not torch.equal(v, before[k])}


def test_the_second_stage_leaves_geometry_alone(tmp_path: Path) -> None:
    run = task(tmp_path, second=0.5)
    batch = run.batch(torch.arange(2))
    for progress, geometry in ((0.2, True), (0.7, False)):
        before = {
            name: {k: v.detach().clone() for k, v in module.named_parameters()}
            for name, module in run.modules.items()
        }
        run.step(batch, progress)
        changed = moved(before["generator"], run.generator)
        assert any(name.startswith("appearance") for name in changed)
        assert any(name.startswith(GEOMETRY[:2]) for name in changed) == geometry
        assert any(name.startswith("intersections") for name in changed) == geometry
        assert bool(moved(before["of_images"], run.of_images))
        assert bool(moved(before["of_labels"], run.of_labels)) == geometry


def test_a_resumed_run_equals_the_unbroken_one(tmp_path: Path) -> None:
    data = write_heads(tmp_path / "heads")
    for name, ends in (("whole", (0.008,)), ("broken", (0.004, 0.008))):
        for kimg in ends:
            schedule = Schedule(kimg=kimg, final_rate=1.0)
            figures = train(SmallSemFaceEdit(), data, tmp_path / name, schedule, quiet=True)
            assert figures["mapped_db"] > 0 and 0 <= figures["mapped_labels"] <= 1
    held = [
        torch.load(tmp_path / name / CHECKPOINT, weights_only=True) for name in ("whole", "broken")
    ]
    assert held[0]["modules"]["memory"]["steps"] == 4
    for module, values in held[0]["modules"].items():
        for key, value in values.items():
            assert torch.equal(value, held[1]["modules"][module][key]), (module, key)
    generator = load_generator(str(tmp_path / "whole" / "small.safetensors"))
    assert isinstance(generator, Manifolds)
    assert (
        generator.synthesis(generator.mean_codes(), cameras.orbit(0.0, 0.0)).image.shape[-1] == 16
    )


def test_regression_learns(tmp_path: Path) -> None:
    data = write_heads(tmp_path / "heads")
    trainer, figures = SmallSemFaceEdit(regression=1.0), []
    for name, kimg in (("none", 0.002), ("run", 0.3)):
        schedule = Schedule(kimg=kimg, warmup_steps=10)
        figures.append(train(trainer, data, tmp_path / name, schedule, quiet=True))
    # Of held-out heads of random parameters, only what all have in common can be learned.
    assert figures[1]["mapped_labels"] > figures[0]["mapped_labels"] + 0.1


def test_pictures_without_parameters_and_misfits(tmp_path: Path) -> None:
    data = write_faces(tmp_path / "faces")
    with pytest.raises(OptionError, match="0 parameters a face"):
        SemFaceEditTrainer().start(data)
    with pytest.raises(OptionError, match="do not fit"):
        SemFaceEditTrainer(critic_side=0).start(data)

    @dataclass(frozen=True)
    class OnPictures(SmallSemFaceEdit):
        anchor: float = 0.0

        def start(self, data: Path) -> SemFaceEditTask:
            generator = small_manifolds()
            generator.name = self.output
            return SemFaceEditTask(self, read_faces(data, SIDE), generator)

    figures = train(OnPictures(), data, tmp_path / "run", Schedule(kimg=0.004), quiet=True)
    assert figures == {} and (tmp_path / "run" / "small.safetensors").is_file()


def test_presets() -> None:
    with torch.device("meta"):
        paper = Manifolds(SemFaceEditTrainer(preset="paper", depth=6).config(256))
        heads = Manifolds(SemFaceEditTrainer(sharing="none").config(7))
    assert paper.num_ws == 6 and paper.resolution == 256 and paper.z_dim == 7 * 256
    assert heads.z_dim == 7 and heads.resolution == 64
    assert len(heads.appearance.films.weights[0]) == len(heads.clubs)
