"""Training of IDE-3D: its discriminators, its losses, and runs that repeat and resume."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from small_trainers import SIDE, SmallHeads, SmallIDE3D, write_faces, write_heads
from tiny import SMALL_IDE3D

from semedit import cameras, weights
from semedit.datasets import posed
from semedit.datasets.posed import Poses, read_faces, rebalanced
from semedit.datasets.rendered import View
from semedit.errors import InputError, OptionError
from semedit.generators import load_generator
from semedit.generators.parts.volume import fine_points
from semedit.generators.stylegan2.stylegan2 import MAPPING_RATE
from semedit.generators.triplane.ide3d import IDE3D, IDE3DConfig
from semedit.generators.triplane.triplane import Triplane
from semedit.trainers.ide3d import IDE3DTask, IDE3DTrainer, config_of, critic_of
from semedit.trainers.loop import CHECKPOINT, Schedule, train
from semedit.trainers.parts.discriminators import DualDiscriminator
from semedit.trainers.parts.image_label_pairs import blurred


@pytest.mark.parametrize("joint", [False, True])
def test_both_variants_of_the_discriminator(joint: bool) -> None:
    torch.manual_seed(0)
    critic = DualDiscriminator(16, (4, 6, 8), (4, 6, 8), joint=joint)
    images = torch.randn(4, 6, 16, 16, requires_grad=True)
    maps = torch.randn(4, 38, 16, 16, requires_grad=True)
    c = cameras.orbit(torch.linspace(-0.3, 0.3, 4), 0.0)
    logits = critic(images, maps, c)
    assert logits.shape == (4, 1 if joint else 2)
    slopes = torch.autograd.grad(logits[:, 0].sum(), (images, maps))
    assert bool((slopes[0].abs().sum(1) > 0).all())
    # Apart, the verdict on pictures does not look at label maps.
    assert bool((slopes[1] != 0).any()) == joint
    assert not torch.equal(critic(images, maps, c.flip(0)), logits)


def test_blur_is_a_gaussian_that_fades_to_nothing() -> None:
    x = torch.zeros(1, 1, 33, 33)
    x[..., 16, 16] = 1
    found = blurred(x, 2 / 33)[0, 0]
    line = torch.arange(33.0) - 16
    assert float((found * line.square()).sum()) == pytest.approx(4, rel=0.05)
    assert float(found.sum()) == pytest.approx(1, abs=1e-4)
    assert torch.equal(blurred(x, 0.0), x)


def test_poses_are_those_of_the_data() -> None:
    torch.manual_seed(0)
    c = cameras.orbit(0.3 * torch.randn(500) + 0.1, 0.1 * torch.randn(500))
    six = cameras.to_six(Poses.of(c).sample(4000))
    assert float(six[:, 0].mean()) == pytest.approx(0.1, abs=0.04)
    assert float(six[:, 0].std()) == pytest.approx(0.3, rel=0.1)
    assert float(six[:, 2:].abs().max()) < 1e-3


def test_presets() -> None:
    with torch.device("meta"):
        paper, heads = (IDE3D(config_of(name, 7)) for name in ("paper", "heads"))
    assert paper.num_ws == 18 and paper.resolution == 512 and paper.config.neural == 128
    assert heads.num_shape == 8 and heads.resolution == 128 and heads.z_dim == 7


def test_a_preset_has_a_discriminator_of_its_size(tmp_path: Path) -> None:
    """The published recipe starts, at 512 pixels; its channels are StyleGAN2's."""
    data = write_faces(tmp_path / "faces")
    trainer = IDE3DTrainer(preset="paper", regression=0.0, anchor=0.0)
    task = trainer.start(data)
    assert task.generator.resolution == 512
    assert task.discriminator.maps.colour.weight.shape == (64, 38, 1, 1)
    assert critic_of("paper", 512) == (64, 128, 256, 512, 512, 512, 512, 512)
    assert critic_of("heads", 128) == (16, 32, 64, 128, 128, 128)


def test_a_resumed_run_equals_the_unbroken_one(tmp_path: Path) -> None:
    data = write_heads(tmp_path / "heads")
    for name, ends in (("whole", (0.01,)), ("broken", (0.004, 0.01))):
        for kimg in ends:
            schedule = Schedule(kimg=kimg, final_rate=1.0)
            figures = train(SmallIDE3D(), data, tmp_path / name, schedule, quiet=True)
            assert figures["mapped_db"] > 0 and 0 <= figures["mapped_labels"] <= 1
    held = [
        torch.load(tmp_path / name / CHECKPOINT, weights_only=True) for name in ("whole", "broken")
    ]
    assert held[0]["modules"]["memory"]["steps"] == 5
    for module, values in held[0]["modules"].items():
        for key, value in values.items():
            assert torch.equal(value, held[1]["modules"][module][key]), (module, key)
    generator = load_generator(str(tmp_path / "whole" / "small.safetensors"))
    c = cameras.orbit(0.0, 0.0)
    assert generator.synthesis(generator.mean_codes(), c).image.shape == (1, 3, SIDE, SIDE)


def test_the_generators_step_asks_nothing_of_the_discriminators_weights(tmp_path: Path) -> None:
    task = SmallIDE3D().start(write_heads(tmp_path / "heads"))
    batch = task.batch(torch.arange(2))
    task._please(batch, 8, 0.0)
    assert all(p.requires_grad and p.grad is None for p in task.discriminator.parameters())
    assert any(p.grad is not None for p in task.generator.mapping_network.parameters())


def test_the_mapping_network_learns_no_slower_than_the_rest(tmp_path: Path) -> None:
    """Its weights count a hundredth; at a speed of 30 it stayed behind."""
    task = SmallIDE3D().start(write_heads(tmp_path / "heads"))
    rest, mapping = (group["lr"] for group in task.optimisers["regression"].param_groups)
    assert mapping * MAPPING_RATE >= rest


def test_regression_learns(tmp_path: Path) -> None:
    data = write_heads(tmp_path / "heads")
    trainer = SmallIDE3D(regression=1.0, first_stage=0.5)
    figures = []
    for name, kimg in (("none", 0.002), ("run", 0.4)):
        schedule = Schedule(kimg=kimg, warmup_steps=10)
        figures.append(train(trainer, data, tmp_path / name, schedule, quiet=True))
    # Of held-out heads of random parameters, only what all have in common can be learned.
    assert figures[1]["mapped_labels"] > figures[0]["mapped_labels"] + 0.1


def test_pictures_with_cameras_are_read(tmp_path: Path) -> None:
    data = write_faces(tmp_path / "faces")
    for _ in range(2):  # written, then read from the cache
        views = read_faces(data, SIDE)
        assert views.images.shape == (6, 1, SIDE, SIDE, 3) and views.z.shape == (6, 0)
        assert views.labels[3, 0, 8, 8] == 4 and int(views.images[2, 0, 0, 0, 0]) == 60
        torch.testing.assert_close(views.c[4, 0], cameras.orbit(0.4, 0.0)[0])
    drawn = data / "labels" / "00000" / "img00000003.png"
    Image.fromarray(np.full((32, 32), 7, np.uint8)).save(drawn)
    assert read_faces(data, SIDE).labels[3, 0, 8, 8] == 7  # a corrected label map counts
    with pytest.raises(OptionError, match="0 parameters a face"):
        IDE3DTrainer().start(data)
    (data / "dataset.json").write_text('{"labels": [["x.png", [1, 2]]]}')
    with pytest.raises(InputError, match="no camera"):
        read_faces(data, SIDE)


def test_an_adversarial_run_on_pictures_without_parameters(tmp_path: Path) -> None:
    data = write_faces(tmp_path / "faces")

    @dataclass(frozen=True)
    class OnPictures(SmallIDE3D):
        anchor: float = 0.0

        def start(self, data: Path) -> IDE3DTask:
            config = replace(SMALL_IDE3D, up=(6,), near=0.0, far=0.0)
            return IDE3DTask(self, read_faces(data, SIDE), IDE3D(config, self.output))

    figures = train(OnPictures(), data, tmp_path / "run", Schedule(kimg=0.004), quiet=True)
    assert figures == {} and (tmp_path / "run" / "small.safetensors").is_file()


def test_folders_without_cameras_get_them_estimated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def six(images: torch.Tensor) -> torch.Tensor:
        calls.append(len(images))
        return torch.tensor([[0.3, 0.1, 0.0, 0.0, 0.0, 0.0]]).expand(len(images), -1)

    monkeypatch.setattr(posed, "six", six)
    data = write_faces(tmp_path / "faces")
    (data / "dataset.json").unlink()
    (data / "images").mkdir()
    (data / "00000").rename(data / "images" / "00000")
    for _ in range(2):  # estimated once
        views = read_faces(data, SIDE)
        assert views.images.shape == (6, 1, SIDE, SIDE, 3) and views.labels[3, 0, 8, 8] == 4
        torch.testing.assert_close(views.c[4, 0], cameras.orbit(0.3, 0.1)[0])
    assert sum(calls) == 6
    (data / "labels" / "00000" / "img00000002.png").unlink()
    with pytest.raises(InputError, match="no label map of 00000/img00000002"):
        read_faces(data, SIDE)


def test_one_changed_picture_gets_its_camera_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def six(images: torch.Tensor) -> torch.Tensor:
        """Yaw is how bright a picture is."""
        return F.pad(images.mean((1, 2, 3))[:, None], (0, 5))

    monkeypatch.setattr(posed, "six", six)
    images = np.full((200, 2, 2, 3), 128, np.uint8)
    before = posed._estimated(tmp_path, images)
    images[101] = 160
    changed = (posed._estimated(tmp_path, images) != before).any(1)
    assert changed.nonzero().flatten().tolist() == [101]


def test_celebamask_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "CelebAMask-HQ"
    (folder / "CelebA-HQ-img").mkdir(parents=True)
    masks = folder / "CelebAMask-HQ-mask-anno" / "0"
    masks.mkdir(parents=True)
    for i in range(4):
        Image.fromarray(np.full((64, 64, 3), 40 * i, np.uint8)).save(
            folder / "CelebA-HQ-img" / f"{i}.jpg"
        )
        mask = np.zeros((32, 32), np.uint8)
        mask[8:24, 8:24] = 255
        Image.fromarray(mask).save(masks / f"{i:05d}_skin.png")
    monkeypatch.setattr(posed, "_estimated", lambda data, images: torch.zeros(len(images), 25))
    views = read_faces(folder, SIDE)
    assert views.images.shape == (4, 1, SIDE, SIDE, 3)
    assert views.labels[0, 0, 8, 8] == 1 and views.labels[0, 0, 0, 0] == 0
    assert "non-commercial" in str(views.about["licence"])


def test_mirrored_pictures_agree_with_their_cameras() -> None:
    torch.manual_seed(0)
    c = cameras.orbit(torch.tensor([0.3, -0.2]), 0.1, 0.05, cx=0.45)
    c[:, 3:12:4] += torch.tensor([0.2, -0.1, 0.3])  # EG3D's do not look at the head's centre
    labels = torch.zeros(2, SIDE, SIDE, dtype=torch.int64)
    labels[:, 3, 2] = 4
    batch = View(torch.rand(2, 3, SIDE, SIDE), labels, c, torch.zeros(2, 0))
    found = batch.mirrored(torch.tensor([True, False]))
    assert found.labels[0, 3, SIDE - 3] == 5 and torch.equal(found.labels[1], labels[1])
    assert torch.equal(found.images[0], batch.images[0].flip(-1))
    points = torch.rand(1, 7, 3) - 0.5
    there = points * torch.tensor([-1.0, 1.0, 1.0])
    uv, mirrored = (cameras.project(p, v)[0] for p, v in ((points, c[:1]), (there, found.c[:1])))
    torch.testing.assert_close(mirrored[..., 0], 1 - uv[..., 0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mirrored[..., 1], uv[..., 1], rtol=1e-4, atol=1e-5)


def test_faces_turned_aside_are_shown_oftener() -> None:
    c = cameras.orbit(torch.tensor([0.0, 0.2, 0.8]), 0.0)[:, None]
    assert torch.bincount(rebalanced(c, 3.0)).tolist() == [1, 2, 3]
    assert torch.equal(rebalanced(c, 1.0), torch.arange(3))


def test_a_run_begins_with_weights_of_heads(tmp_path: Path) -> None:
    """Weights of the kind of heads-128 learn from the adversary, and stay of their kind."""
    data = write_heads(tmp_path / "heads")
    train(SmallHeads(), data, tmp_path / "before", Schedule(kimg=0.002), quiet=True)
    file = tmp_path / "before" / "small.safetensors"
    trainer = IDE3DTrainer(
        start_from=str(file),
        output="after",
        batch_size=2,
        critic=(4, 6, 8),
        critic_labels=(4, 6, 8),
        density_points=20,
        regression=0.0,
        held_out=2,
    )
    assert trainer.start(data).generator.resolution == SIDE
    figures = train(trainer, data, tmp_path / "run", Schedule(kimg=0.006), quiet=True)
    assert figures["mapped_db"] > 0 and figures["encoded_db"] > 0
    before, after = (
        load_generator(str(path)) for path in (file, tmp_path / "run" / "after.safetensors")
    )
    assert type(before) is type(after) is Triplane and before.config == after.config
    codes, c = before.mean_codes(), cameras.orbit(0.0, 0.0)
    assert not torch.equal(before.synthesis(codes, c).image, after.synthesis(codes, c).image)
    facts = weights.metadata(tmp_path / "run" / "after.safetensors")
    assert json.loads(facts["training"])["before"]["trainer"] == "heads-128"
    # Which encoder belongs to it is still known.
    assert facts["encoder"] == weights.metadata(file)["encoder"] == "encoder"


def test_heads_128_is_a_small_configuration_of_the_same_networks() -> None:
    """Its weights fit the paper's class, whose sizes go up to the paper's."""
    held, _ = weights.load("heads-128")
    shipped = load_generator("heads-128")
    sizes = asdict(shipped.config)
    config = IDE3DConfig(**{**sizes, "near": 0.0, "far": 0.0, "samples": 24, "fine": 24})
    generator = IDE3D(config, "heads")
    weights.fill(generator, held, "heads-128")
    z = torch.randn(1, generator.z_dim, generator=torch.Generator().manual_seed(0))
    c = cameras.canonical()
    with torch.no_grad():
        codes = shipped.mapping(z, c)
        first, second = (g.synthesis(codes, c) for g in (shipped, generator))
    # Only the samples along the rays differ.
    assert float((first.image - second.image).abs().mean()) < 0.04
    assert float((first.seg.argmax(1) == second.seg.argmax(1)).float().mean()) > 0.95


def test_fine_points_lie_where_something_is() -> None:
    torch.manual_seed(0)
    density = torch.zeros(2, 1, 8, 8, 8)
    density[0, 0, 6, 1, 3] = density[1, 0, 0, 7, 5] = 1e3
    points = fine_points(density, 500)
    assert points.shape == (2, 500, 3)
    for i, (z, y, x) in enumerate(((6, 1, 3), (0, 7, 5))):
        low = torch.tensor([x, y, z]) / 4 - 1
        inside = ((points[i] >= low) & (points[i] <= low + 0.25)).all(1)
        assert float(inside.float().mean()) > 0.9
