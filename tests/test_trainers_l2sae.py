"""Training of L2SAE: its data, twins, patches and losses; runs that repeat, resume and start."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_trainers import HEADS, write_heads
from tiny import SMALL_L2SAE

from semedit import weights
from semedit.datasets.labelled import read_labelled
from semedit.errors import InputError, OptionError
from semedit.generators import load_generator
from semedit.generators.l2sae.l2sae import L2SAE, ROIS
from semedit.generators.stylegan2.stylegan2 import StyleGAN2, StyleGAN2Config
from semedit.media.labels import LABELS
from semedit.trainers.l2sae import L2SAETrainer, started, uniformity
from semedit.trainers.loop import CHECKPOINT, Schedule, train
from semedit.trainers.parts.patches import PatchDiscriminator, random_crops
from semedit.trainers.parts.recolouring import groups, recoloured
from semedit.trainers.parts.region_losses import region_losses, region_masks

SMALL = L2SAETrainer(
    output="small",
    resolution=SMALL_L2SAE.resolution,
    style=SMALL_L2SAE.style,
    encoder=SMALL_L2SAE.encoder,
    summary=SMALL_L2SAE.summary,
    head=SMALL_L2SAE.head,
    decoder=SMALL_L2SAE.decoder,
    map_encoder=SMALL_L2SAE.encoder,
    map_head=SMALL_L2SAE.head,
    map_decoder=SMALL_L2SAE.map_decoder,
    rank=2,
    critic=(4, 4, 4, 4, 4),
    patch_size=8,
    patch_critic=(4, 4),
    crops=2,
    batch_size=2,
    r1_every=2,
    regression=0.0,
)


def test_twins_differ_in_colour_alone() -> None:
    torch.manual_seed(0)
    labels = torch.zeros(2, 8, 8, dtype=torch.int64)
    labels[:, :, 4:], labels[:, 4:, :2] = LABELS.index("skin"), LABELS.index("nose")
    images = torch.full((2, 3, 8, 8), -0.2)
    found = recoloured(images, labels)
    assert found.shape == images.shape and float(found.abs().max()) <= 1
    for region in (labels == 0, (labels == 1) | (labels == 2)):  # one colour each, another one
        for i in range(2):
            colours = found[i][:, region[i]]
            torch.testing.assert_close(colours, colours[:, :1].expand_as(colours))
            assert (colours[:, 0] - images[i, :, 0, 0]).abs().max() > 0.01
    assert groups()[LABELS.index("l_brow")] == groups()[LABELS.index("hair")]


def test_no_twins_are_the_pictures_themselves() -> None:
    images, labels = torch.rand(2, 3, 8, 8), torch.zeros(2, 8, 8, dtype=torch.int64)
    assert torch.equal(recoloured(images, labels, strength=0.0), images)


def test_left_and_right_change_places_in_mirrored_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = SMALL.start(write_heads(tmp_path / "heads"))
    labels = torch.zeros(16, 64, 64, dtype=torch.int64)
    labels[:, :, :10] = LABELS.index("l_eye")
    images = torch.zeros(16, 3, 64, 64)
    images[..., :10] = 1
    data = replace(task.data)
    object.__setattr__(data, "read", lambda rows: (images, labels))
    monkeypatch.setattr(task, "data", data)
    batch = task.batch(torch.zeros(1, dtype=torch.int64))
    bright = batch.images[:, 0] > 0
    right = bright[:, 0, -1]  # mirrored
    assert 0 < int(right.sum()) < 16
    for i in range(16):
        name = "r_eye" if right[i] else "l_eye"
        assert batch.labels[i][bright[i]].unique().tolist() == [LABELS.index(name)]


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"patch_size": 32}, {"crops": 0}])
def test_sizes_that_do_not_fit_are_told(tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(OptionError):
        replace(SMALL, **wrong).start(tmp_path)


def test_crops_show_parts_of_their_picture() -> None:
    torch.manual_seed(0)
    across = torch.linspace(-1, 1, 64).expand(1, 3, 64, 64)
    crops = random_crops(torch.cat([across, across + 10]), 16, 8)
    assert crops.shape == (2, 16, 3, 8, 8)
    assert float(crops[0].max()) < 2 < 8 < float(crops[1].min())
    widths = (crops[..., -1] - crops[..., 0])[0, :, 0, 0].abs() * 8 / 7
    assert float(widths.min()) >= 2 / 8 * 0.95 and float(widths.max()) <= 2 / 4 * 1.05


def test_patches_are_judged_beside_the_mean_of_their_reference() -> None:
    torch.manual_seed(0)
    network = PatchDiscriminator(8, (4, 4))
    reference, crops = torch.randn(2, 3, 3, 8, 8), torch.randn(2, 2, 3, 8, 8)
    logits = network(reference, crops)
    assert logits.shape == (2, 2)
    torch.testing.assert_close(network(reference.flip(1), crops), logits)
    torch.testing.assert_close(network(reference, crops.flip(1)), logits.flip(1))


def test_region_losses_by_hand() -> None:
    labels = torch.zeros(1, 4, 4, dtype=torch.int64)
    labels[:, :2] = LABELS.index("hair")
    masks = region_masks(labels)
    assert masks.shape == (1, 5, 4, 4) and masks.sum((2, 3)).tolist() == [[8, 0, 0, 0, 0]]
    right = region_losses(60 * (2 * masks - 1), masks)
    torch.testing.assert_close(right, torch.zeros(1, 5), atol=1e-6, rtol=0)
    unsure = region_losses(torch.zeros(1, 5, 4, 4), masks)
    hair = np.log(2) + 1 - 5 / 13  # intersection 4, union 8 + 8 - 4
    assert float(unsure[0, list(ROIS).index("hair")]) == pytest.approx(hair, rel=1e-5)


def test_styles_that_lie_apart_are_the_better() -> None:
    apart = torch.eye(4)  # |a - b|^2 = 2
    assert float(uniformity(apart)) == pytest.approx(-4)
    assert float(uniformity(apart[:1].expand(4, 4))) == pytest.approx(0)


@pytest.mark.parametrize("regression", [0.0, 1.0])
def test_a_resumed_run_equals_the_unbroken_one(tmp_path: Path, regression: float) -> None:
    data = write_heads(tmp_path / "heads")
    trainer = replace(SMALL, regression=regression)
    for name, ends in (("whole", (0.01,)), ("broken", (0.004, 0.01))):
        for kimg in ends:
            schedule = Schedule(kimg=kimg, final_rate=1.0)
            figures = train(trainer, data, tmp_path / name, schedule, quiet=True)
            assert figures["rec_db"] > 0 and 0 <= figures["region_miou"] <= 1
    held = [
        torch.load(tmp_path / name / CHECKPOINT, weights_only=True) for name in ("whole", "broken")
    ]
    assert held[0]["modules"]["memory"]["steps"] == 5
    for module, values in held[0]["modules"].items():
        for key, value in values.items():
            assert torch.equal(value, held[1]["modules"][module][key]), (module, key)
    network = load_generator(str(tmp_path / "whole" / "small.safetensors"))
    assert network.synthesis(network.mapping(torch.randn(1, 2))).image.shape == (1, 3, 64, 64)


def test_learning_what_is_asked_for(tmp_path: Path) -> None:
    data = write_heads(tmp_path / "heads")
    torch.manual_seed(0)  # as the loop does
    before = SMALL.start(data).network.state_dict()
    for part, own in (("smn", ("E.", "G.")), ("smpn", ("SMPN.",))):
        trainer = replace(SMALL, part=part, regression=1.0)
        train(trainer, data, tmp_path / part, Schedule(kimg=0.004), quiet=True)
        after, _ = weights.load(tmp_path / part / "small.safetensors")
        moved = {k for k, v in after.items() if not torch.equal(v.half(), before[k].half())}
        learnt = {k for k in moved if not k.startswith("prior.")}
        assert learnt and all(k.startswith(own) for k in learnt)


def test_starting_from_published_weights(tmp_path: Path) -> None:
    published = L2SAE(replace(SMALL_L2SAE, slicing="", map_decoder=(), rank=0), "published")
    path = tmp_path / "published.safetensors"
    config = '{"resolution": 64, "style": 12, "encoder": [4, 4, 6, 6, 8], "summary": [10], '
    config += '"head": [8], "decoder": [8, 6, 6, 4]}'
    weights.save(path, published.state_dict(), {"kind": "l2sae", "config": config}, half=False)
    network = started(str(path), replace(SMALL_L2SAE, slicing="second"), "mine")
    assert network.config.slicing == "second" and network.SMPN is not None
    for key, value in published.state_dict().items():
        if not key.startswith("prior."):
            assert torch.equal(network.state_dict()[key], value)
            assert torch.equal(network.state_dict()[f"SMPN.{key}"], value)
    other = StyleGAN2(StyleGAN2Config(16, (4, 4, 4), 4, 4, mapping_layers=1))
    config = '{"resolution": 16, "channels": [4, 4, 4], "z_dim": 4, "w_dim": 4, '
    config += '"mapping_layers": 1}'
    weights.save(path, other.state_dict(), {"kind": "stylegan2", "config": config})
    with pytest.raises(OptionError):
        started(str(path), SMALL_L2SAE, "mine")


def test_celebamask_is_read_as_published(tmp_path: Path) -> None:
    masks = tmp_path / "CelebAMask-HQ-mask-anno" / "0"
    masks.mkdir(parents=True)
    (tmp_path / "CelebA-HQ-img").mkdir()
    half = np.zeros((32, 32), np.uint8)
    half[:16] = 255
    for i in range(3):
        picture = np.full((64, 64, 3), 50 * i, np.uint8)
        Image.fromarray(picture).save(tmp_path / "CelebA-HQ-img" / f"{i}.jpg", quality=100)
        Image.fromarray(np.full((32, 32), 255, np.uint8)).save(masks / f"{i:05d}_skin.png")
        Image.fromarray(half).save(masks / f"{i:05d}_hair.png")
    for _ in range(2):  # the second time from what was kept
        data = read_labelled(tmp_path, 16)
        assert len(data.train) == 2 and data.held.tolist() == [2]
        assert "non-commercial" in data.licence
        images, labels = data.read(data.train[1:])
        torch.testing.assert_close(
            images, torch.full((1, 3, 16, 16), 50 / 127.5 - 1), atol=0.02, rtol=0
        )
        assert (labels[0, :8] == LABELS.index("hair")).all()
        assert (labels[0, 8:] == LABELS.index("skin")).all()


def test_folders_of_heads_are_read_together(tmp_path: Path) -> None:
    for i, name in enumerate(("a", "b")):
        write_heads(tmp_path / name, seed=100 * i)
    data = read_labelled(tmp_path, 16)
    assert len(data.train) == 2 * 2 * (HEADS - 1) and len(data.held) == 4
    images, labels = data.read(np.array([0, 2 * HEADS]))  # the first of each
    assert torch.equal(images[0], images[1]) and torch.equal(labels[0], labels[1])
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="neither"):
        read_labelled(tmp_path / "none", 16)
