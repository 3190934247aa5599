"""Inversion with a generator that has neither camera nor label maps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import FAST_INVERTERS, TinyFaceNet, TinyGenerator, small_stylegan2
from torch import Tensor, nn

from semedit import latents
from semedit.batch import Item
from semedit.batch.workspace import Workspace
from semedit.errors import InputError, TraitError
from semedit.faces import Face, networks
from semedit.generators.stylegan2.stylegan2 import StyleGAN2
from semedit.inverters import Hybrid, Optimize
from semedit.inverters.coarse import phases
from semedit.media.masks import write_labels
from semedit.media.photographs import write_image
from semedit.tasks import face_inputs, load_face


class TinyStart(nn.Module):
    """An encoder of random weights."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3 * 16 * 16, 6 * 12)

    def forward(self, images: Tensor, labels: Tensor, c: Tensor) -> Tensor:
        return 0.1 * self.layer(images.flatten(1)).unflatten(1, (6, 12))


@pytest.fixture(autouse=True)
def face_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    network = TinyFaceNet().eval().requires_grad_(False)
    monkeypatch.setattr(networks, "load", lambda name, device="cpu": network)
    yield


@pytest.fixture
def generator() -> StyleGAN2:
    return small_stylegan2().attach(TinyStart()).requires_grad_(False)


@torch.no_grad()
def faces(generator: StyleGAN2) -> tuple[Tensor, Tensor, Tensor]:
    """Two of the generator's own pictures; labels and cameras of a face record."""
    z = torch.randn(2, 6, generator=torch.Generator().manual_seed(3))
    c = torch.zeros(2, 25)
    images = generator.synthesis(generator.mapping(z, c), c).image
    return images, torch.zeros(2, 16, 16, dtype=torch.int64), c


@pytest.mark.parametrize("name", FAST_INVERTERS)
@pytest.mark.parametrize("coarse", [0, 8])
def test_every_inverter_works(generator: StyleGAN2, name: str, coarse: int) -> None:
    images, labels, c = faces(generator)
    method: Any = replace(FAST_INVERTERS[name], coarse=coarse)
    seen: list[tuple[int, int]] = []
    latent = method(generator, images, labels, c, progress=lambda *at: seen.append(at))
    latents.check(latent, generator)
    assert latent.codes["ws"].shape == (2, 6, 12) and len(latent.meta["loss"]) == 2
    assert seen[-1][0] == seen[-1][1] == len(seen)
    shown = latents.picture(generator, latent)
    assert shown.image.shape == (2, 3, 16, 16) and shown.seg is None


def test_tuning_brings_the_picture_nearer(generator: StyleGAN2) -> None:
    images, labels, c = faces(generator)
    images = images.flip(3)  # what codes alone do not draw
    codes = Hybrid(steps=3, tune_steps=0, perceptual="none")
    tuned = Hybrid(steps=3, tune_steps=20, perceptual="none")
    errors = []
    for method in (codes, tuned):
        image = latents.picture(generator, method(generator, images, labels, c)).image
        errors.append(float((image - images).square().mean()))
    assert errors[1] < 0.9 * errors[0]


def test_optimize_finds_its_own_sample_coarse_first(generator: StyleGAN2) -> None:
    images, labels, c = faces(generator)
    method = Optimize(space="w", steps=80, perceptual="none", prior_weight=0, coarse=8)
    image = latents.picture(generator, method(generator, images, labels, c)).image
    mean = generator.synthesis(generator.mean_codes(), c[:1]).image
    start = (mean - images).square().mean()
    assert float((image - images).square().mean()) < 0.2 * float(start)


def test_coarse_needs_a_generator_that_can_end_early() -> None:
    tiny = TinyGenerator()
    images, labels = torch.zeros(1, 3, 16, 16), torch.zeros(1, 16, 16, dtype=torch.int64)
    with pytest.raises(TraitError, match="coarse"):
        phases(tiny, images, labels, 8, 8)
    (only,) = phases(tiny, images, labels, 8, 0)
    assert only.resolution is None and only.steps == 8


def test_phases_share_the_steps(generator: StyleGAN2) -> None:
    images, labels, _ = faces(generator)
    first, last = phases(generator, images, labels, 8, 8)
    assert (first.resolution, first.steps, last.resolution, last.steps) == (8, 6, None, 2)
    assert first.images.shape == (2, 3, 8, 8) and first.labels.shape == (2, 8, 8)
    # What is no lower resolution, or leaves no steps for the end, is one phase.
    assert len(phases(generator, images, labels, 8, 16)) == 1
    assert len(phases(generator, images, labels, 1, 8)) == 1


def test_a_face_without_a_camera_will_do(tmp_path: Path) -> None:
    space = Workspace(tmp_path)
    face = Face(
        name="a",
        source="a.jpg",
        source_sha256="0" * 64,
        index=0,
        size=16,
        quad=np.zeros((4, 2), np.float32),
        landmarks=np.zeros((68, 2), np.float32),
        c=np.zeros(25, np.float32),
        attributes=None,
        backends={},
        flags=(),
    )
    item = Item("a", face_inputs(space, "a"), data=space)
    item.inputs["face"].parent.mkdir(parents=True, exist_ok=True)
    item.inputs["face"].write_text(face.to_json(), "utf-8")
    write_image(item.inputs["crop"], np.zeros((16, 16, 3), np.uint8))
    write_labels(item.inputs["labels"], torch.zeros(16, 16, dtype=torch.int64))
    with pytest.raises(InputError, match="no camera"):
        load_face(item)
    assert load_face(item, camera=False).image.shape == (1, 3, 16, 16)
