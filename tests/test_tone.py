"""Grey in, grey out; a tint stays a tint; colours stay colours."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import TinyGenerator, random_faces
from torch import Tensor
from typer.testing import CliRunner

from semedit import latents
from semedit.cli.app import app
from semedit.errors import LatentError
from semedit.latents import Tone, tone_of
from semedit.latents.interpolation import between
from semedit.media.photographs import read_frames
from semedit.renders import render_frames
from semedit.tasks.demo import examples

SEPIA = np.array([[1.0, 0.9, 0.7]])  # of brightness


def noise(n: int = 1, side: int = 24) -> Tensor:
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1


def grey(images: Tensor) -> Tensor:
    return images.mean(1, keepdim=True).expand(-1, 3, -1, -1)


def sepia(images: Tensor) -> Tensor:
    """Brown shadows, yellowish lights."""
    y = (grey(images) + 1) / 2
    powers = torch.tensor([0.8, 1.0, 1.3])[:, None, None]
    return 2 * y**powers - 1


def spread(image: Tensor) -> float:
    """How far a picture is from grey, levels of 255."""
    return float((image.amax(1) - image.amin(1)).max()) * 127.5


def test_a_picture_of_colours_has_no_tone_and_one_of_a_tone_has() -> None:
    assert tone_of(noise()) is None
    gentle = grey(noise()) + 0.1 * noise(1)  # weak colours are colours
    assert tone_of(gentle) is None
    for made in (grey, sepia):
        image = made(noise(2))
        tone = tone_of(image)
        assert tone is not None and tone.share.tolist() == [1, 1]
        assert (tone(image) - image).abs().max() < 3 / 127.5
        again = tone_of((image * 127.5).round() / 127.5 + 0.008 * noise(2).sign())  # as JPEG
        assert again is not None


def test_whatever_is_drawn_has_the_tone() -> None:
    tone = tone_of(grey(noise()))
    assert tone is not None
    drawn = tone(noise(5))  # five pictures of the one face
    assert spread(drawn) < 0.5
    luma = torch.tensor([0.299, 0.587, 0.114])
    kept = torch.einsum("nchw,c->nhw", noise(5), luma)
    assert torch.allclose(drawn[:, 0], kept, atol=0.02)
    brown = tone_of(sepia(noise()))
    assert brown is not None
    own = tone_of(brown(noise(1, 40)))
    assert own is not None and torch.allclose(own.curve, brown.curve, atol=0.03)


def test_a_tone_lets_gradients_through() -> None:
    tone = tone_of(sepia(noise()))
    assert tone is not None
    image = (0.9 * noise()).requires_grad_()
    (slope,) = torch.autograd.grad(tone(image).sum(), image)
    assert (slope.abs().sum(1) > 0).all()


def test_latents_keep_tones_face_by_face(tmp_path: Path) -> None:
    generator = TinyGenerator().requires_grad_(False)
    both = random_faces(generator, 2)
    tone = tone_of(torch.cat([grey(noise()), noise()]))
    assert tone is not None
    first, second = both[0], both[1]
    first = replace(first, tone=tone.of(slice(0, 1)))
    assert tone.of(slice(1, 2)) is None
    first.save(tmp_path / "a.safetensors")
    read = latents.load(tmp_path / "a.safetensors", generator)
    assert read.tone is not None and torch.equal(read.tone.curve, tone.curve[:1])
    together = latents.stack([second, read])
    assert together.tone is not None and together.tone.share.tolist() == [0, 1]
    assert together[0].tone is None
    images = latents.picture(generator, together).image
    plain = latents.picture(generator, both).image
    assert torch.equal(images[0], plain[1]) and spread(images[1:]) < 0.5 < spread(plain[:1])
    frames = render_frames(generator, read, read.c.repeat(3, 1))
    assert int(np.ptp(frames.astype(int), axis=-1).max()) <= 1
    shares = [between(generator, read, second, way, "all") for way in (0.0, 0.5, 1.0)]
    spreads = [spread(latents.picture(generator, one).image) for one in shares]
    assert spreads[0] < 0.5 < spreads[1] < spreads[2]


@pytest.mark.parametrize("shape", [(1, 17, 4), (1, 1, 3), (1, 999, 3), (2, 17, 3)])
def test_a_tone_of_another_shape_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    face = random_faces(TinyGenerator(), 1)
    replace(face, tone=Tone(torch.zeros(shape), torch.ones(shape[:1]))).save(tmp_path / "a.st")
    with pytest.raises(LatentError):
        latents.load(tmp_path / "a.st")


def test_inversions_edits_and_turntables_keep_to_grey_and_sepia(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    with Image.open(examples()[0]) as image:
        y = np.asarray(image.convert("L"))[..., None]
    Image.fromarray(y[..., 0]).save(raw / "grey.jpg", quality=90)
    brown = Image.fromarray((y * SEPIA).astype(np.uint8))
    brown.save(raw / "sepia.jpg", quality=95, subsampling=0)
    work = ("--work", str(tmp_path / "work"), "--json")
    chain = (
        ("align", str(raw)),
        ("invert", "-o", "steps=1", "-o", "tune_steps=0"),
        ("edit", "--direction", "smiling"),
        ("edit", "--region", "hair", "--style-noise", "1"),
        ("turntable", "--frames", "3", "--from", "1"),
    )
    for command in chain:
        result = CliRunner().invoke(app, [*command, *work])
        assert result.exit_code == 0, result.output
        for row in map(json.loads, result.stdout.splitlines()):
            for path in (tmp_path / "work" / one for one in row.get("outputs", ())):
                if path.suffix not in (".png", ".gif") or "labels" in path.name:
                    continue
                if path.parts[-2] == "masks":
                    continue
                frames = read_frames(path, 3).astype(float)
                tint = np.ones(3) if row["name"].startswith("grey") else SEPIA[0]
                wrong = np.abs(frames - frames[..., :1] * tint).max(-1)
                assert np.quantile(wrong, 0.99) < 8, (command, path.name)
