"""Training of CNeRF on a tiny data set: parts, runs that repeat and resume, both stages."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_trainers import SIDE, write_heads

from semedit.errors import OptionError
from semedit.generators import load_generator
from semedit.generators.cnerf.cnerf import CNeRF
from semedit.trainers.cnerf import CNeRFTask, CNeRFTrainer
from semedit.trainers.loop import CHECKPOINT, Schedule, train
from semedit.trainers.parts.cnerf_critics import Critic, class_loss, mix, region_crop, slopes

SMALL = CNeRFTrainer(
    output="small",
    resolution=SIDE,
    regions=("background", "face", "eye", "hair"),
    up=(6, 5),
    width=8,
    w_dim=6,
    samples=6,
    batch_size=2,
    rays=24,
    critic_side=8,
    critic=(6, 6),
    regression=0.0,
    r1_every=2,
    held_out=2,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_heads(tmp_path_factory.mktemp("cnerf") / "heads")


def start(data: Path, trainer: CNeRFTrainer = SMALL) -> CNeRFTask:
    torch.manual_seed(0)
    return trainer.start(data)


def test_critics_see_picture_and_maps() -> None:
    critic = Critic((6, 6, 6), 3, 4)
    image, maps = (torch.randn(2, n, 16, 16, requires_grad=True) for n in (3, 3))
    assert critic(image, maps).shape == (2, 4)
    torch.autograd.grad(critic(image, maps).sum(), [image, maps])
    for penalty in slopes(critic, image, maps):
        assert float(penalty.detach()) > 0 and penalty.requires_grad
    cut, own = region_crop(image, maps, torch.tensor([2, 0]))
    assert torch.equal(own[1, 0], maps[1, 0]) and torch.equal(cut[0], image[0] * maps[0, 2])


def test_regions_mix_by_shape_and_texture() -> None:
    ws = torch.zeros(8, 4, 5, 6)
    ws[4:] = 1
    mixed = mix(ws, 3, 0.9)[..., 0]
    assert mixed.shape == (4, 4, 5)
    for region in mixed.flatten(0, 1):
        assert region.tolist() in ([0.0] * 5, [1.0] * 5, [0.0] * 3 + [1.0] * 2)


def test_a_region_that_is_not_there_has_no_class() -> None:
    found, region = torch.randn(3, 4), torch.tensor([2, 0, 3])
    own = torch.zeros(3, 1, 8, 8)
    assert float(class_loss(found, region, own)) == 0
    own[:2, :, 3, 3] = 0.9
    entropy = torch.nn.functional.cross_entropy(found[:2], region[:2])
    torch.testing.assert_close(class_loss(found, region, own), entropy)


def test_critics_see_maps_where_the_picture_is(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture that shows where hair is, thinned, agrees with the thinned map of hair."""
    run = start(data)
    hair = run.generator.regions.index("hair")
    regions = torch.randint(2, (2, SIDE, SIDE)) * hair
    images = (regions == hair).float()[:, None].expand(-1, 3, -1, -1)
    batch = replace(run.batch(torch.arange(2)), images=images, regions=regions)
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    loss = torch.zeros([], requires_grad=True)
    monkeypatch.setattr(
        "semedit.trainers.cnerf.critic_loss", lambda critic, real, fake: seen.append(real) or loss
    )
    for _ in range(6):
        run._criticise(batch)
    for image, maps in seen[::2]:  # of the whole
        assert torch.equal(image[:, 0], maps[:, hair])


def test_a_resumed_run_equals_the_unbroken_one(data: Path, tmp_path: Path) -> None:
    for name, ends in (("whole", (0.012,)), ("broken", (0.004, 0.012))):
        for kimg in ends:
            schedule = Schedule(kimg=kimg, final_rate=1.0)
            figures = train(SMALL, data, tmp_path / name, schedule, quiet=True)
            assert figures["mapped_db"] > 0 and 0 <= figures["mapped_miou"] <= 1
    held = [
        torch.load(tmp_path / name / CHECKPOINT, weights_only=True) for name in ("whole", "broken")
    ]
    assert held[0]["modules"]["memory"]["steps"] == 6
    for module, found in held[0]["modules"].items():
        for key, value in found.items():
            assert torch.equal(value, held[1]["modules"][module][key]), (module, key)


def test_regions_are_learned_and_stage_2_stands_on_them(data: Path, tmp_path: Path) -> None:
    trainer = replace(SMALL, regression=1.0, background=1.0, regression_lr=4e-3)
    before = train(trainer, data, tmp_path / "none", Schedule(kimg=0.002), quiet=True)
    schedule = Schedule(kimg=0.3, warmup_steps=10, final_rate=1.0)
    after = train(trainer, data, tmp_path / "run", schedule, quiet=True)
    assert after["mapped_miou"] > before["mapped_miou"] + 0.2
    path = str(tmp_path / "run" / "small.safetensors")
    volume = load_generator(path)
    assert isinstance(volume, CNeRF) and volume.regions == SMALL.regions
    larger = replace(SMALL, stage1=path, output="larger", critic=(6, 6, 6), critic_side=16)
    for regression in (1.0, 0.0):
        folder = tmp_path / f"stage2-{regression}"
        stage2 = replace(larger, regression=regression)
        train(stage2, data, folder, Schedule(kimg=0.002), quiet=True)
        grown = load_generator(str(folder / "larger.safetensors"))
        assert grown.resolution == 2 * SIDE and "noise" in grown.traits
        own = grown.state_dict()
        for key, value in volume.state_dict().items():  # the volume stays as it was
            torch.testing.assert_close(own[key], value, atol=1e-3, rtol=1e-2)
    with pytest.raises(OptionError):
        start(data, replace(SMALL, stage1=str(folder / "larger.safetensors")))
    with pytest.raises(OptionError):
        start(data, replace(SMALL, critic_side=16))
    for wrong in ({"regions": ("background", "beard")}, {"regions": ("face", "hair")}, {"rays": 0}):
        with pytest.raises(OptionError):
            start(data, replace(SMALL, **wrong))
