"""Animations hold the frames asked for and close their loop; sheets put pictures where told."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import TinyGenerator

from semedit import latents, renders
from semedit.errors import OptionError, TraitError
from semedit.latents import Latent
from semedit.media.labels import PALETTE
from semedit.media.pixels import to_uint8


def face(generator: TinyGenerator) -> Latent:
    codes, c = generator.sample(1)
    codes = {k: v.detach() for k, v in codes.items()}
    return Latent(codes, c, generator.name, latents.fingerprint(generator), "test")


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    """A disc that runs around a circle: 12 frames, all different."""
    y, x = np.mgrid[0:33, 0:35]
    turn = [2 * math.pi * i / 12 for i in range(12)]
    discs = [np.hypot(x - 17 - 8 * math.cos(t), y - 16 - 8 * math.sin(t)) < 6 for t in turn]
    colours = np.array([[30, 60, 90], [220, 120, 40]], np.uint8)
    return np.stack([colours[d.astype(int)] for d in discs])


def test_frames_are_those_of_separate_syntheses() -> None:
    generator = TinyGenerator()
    latent = face(generator)
    c = renders.camera_path(latent.c, "swing", 6, 0.4, 0.1)
    found = renders.render_frames(generator, latent, c, chunk=4)
    assert found.shape == (6, 16, 16, 3) and found.dtype == np.uint8
    with torch.no_grad():
        for i in range(6):
            one = generator.synthesis(latent.codes, c[i : i + 1]).image
            assert np.array_equal(to_uint8(one)[0], found[i])


def test_planes_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = TinyGenerator()
    calls = []
    planes = generator.planes
    monkeypatch.setattr(generator, "planes", lambda codes: calls.append(1) or planes(codes))
    latent = face(generator)
    renders.render_frames(generator, latent, latent.c.expand(9, -1), chunk=2)
    assert len(calls) == 1


def test_labels_stand_beside_the_face() -> None:
    generator = TinyGenerator()
    latent = face(generator)
    found = renders.render_frames(generator, latent, latent.c, seg=True)
    assert found.shape == (1, 16, 32, 3)
    colours = {tuple(p) for p in found[0, :, 16:].reshape(-1, 3).tolist()}
    assert colours <= set(PALETTE)


def test_a_generator_without_camera_is_refused() -> None:
    generator = TinyGenerator()
    generator.traits = frozenset({"seg"})
    latent = face(generator)
    with pytest.raises(TraitError, match="camera"):
        renders.render_frames(generator, latent, latent.c)


@pytest.mark.parametrize("path", renders.PATHS)
def test_paths_close(path: str) -> None:
    c = TinyGenerator().sample(1)[1]
    found = renders.camera_path(c, path, 12, 0.5, 0.2)
    assert found.shape == (12, 25)
    steps = (found - found.roll(1, 0)).norm(dim=1)
    assert steps[0] < 1.5 * steps.median() + 1e-6  # the last frame is one step from the first


def test_unknown_paths_formats_and_single_frames_are_refused(
    tmp_path: Path, frames: np.ndarray
) -> None:
    c = TinyGenerator().sample(1)[1]
    with pytest.raises(OptionError, match="paths"):
        renders.camera_path(c, "spiral", 12, 0.5, 0.2)
    with pytest.raises(OptionError):
        renders.camera_path(c, "swing", 1, 0.5, 0.2)
    with pytest.raises(OptionError, match="formats"):
        renders.write_animation(tmp_path / "a.avi", frames)


@pytest.mark.parametrize("kind", ["gif", "webp"])
def test_pictures_hold_every_frame_and_loop(tmp_path: Path, frames: np.ndarray, kind: str) -> None:
    path = tmp_path / f"turn.{kind}"
    renders.write_animation(path, frames, fps=20)
    with Image.open(path) as image:
        assert image.n_frames == len(frames)
        assert image.info["loop"] == 0
        seen = []
        for i in range(image.n_frames):
            image.seek(i)
            if kind == "gif":
                assert image.info["duration"] == 50
            seen.append(np.asarray(image.convert("RGB"), int))
    for found, frame in zip(seen, frames, strict=True):
        assert np.abs(found - frame).mean() < 6
    around = [np.abs(a - b).mean() for a, b in zip(seen, seen[1:] + seen[:1], strict=True)]
    assert around[-1] < 1.5 * np.median(around)  # the loop closes without a jump


@pytest.mark.parametrize("kind", renders.FORMATS)
def test_files_say_that_a_model_made_them(tmp_path: Path, frames: np.ndarray, kind: str) -> None:
    for mark in (True, False):
        path = tmp_path / f"{mark}.{kind}"
        renders.write_animation(path, frames, mark=mark)
        assert (b"compositeWithTrainedAlgorithmicMedia" in path.read_bytes()) == mark


def test_a_gif_of_equal_frames_keeps_them_all(tmp_path: Path, frames: np.ndarray) -> None:
    renders.write_animation(tmp_path / "still.gif", np.repeat(frames[:1], 5, 0))
    with Image.open(tmp_path / "still.gif") as image:
        assert sum(1 for _ in _durations(image)) >= 1
        assert sum(_durations(image)) == 5 * 40


def _durations(image: Image.Image) -> list[int]:
    found = []
    for i in range(getattr(image, "n_frames", 1)):
        image.seek(i)
        found.append(image.info["duration"])
    return found


def test_mp4_has_even_sides_and_every_frame(tmp_path: Path, frames: np.ndarray) -> None:
    av = pytest.importorskip("av")
    renders.write_animation(tmp_path / "turn.mp4", frames, fps=24)
    with av.open(str(tmp_path / "turn.mp4")) as film:
        decoded = [f.to_ndarray(format="rgb24") for f in film.decode(video=0)]
    assert len(decoded) == len(frames)
    assert decoded[0].shape == (34, 36, 3)
    assert np.abs(decoded[3][:33, :35].astype(int) - frames[3]).mean() < 8


def test_contact_sheet() -> None:
    red = np.full((40, 20, 3), (200, 0, 0), np.uint8)
    sheet = renders.contact_sheet([[red, None], [red, red]], ["a", "b"], ["one", "two"], cell=64)
    assert sheet.dtype == np.uint8
    reds = (sheet == (200, 0, 0)).all(-1)
    assert reds.sum() > 3 * 60 * 30  # three pictures, fitted, proportions kept
    assert not reds[: sheet.shape[0] // 2, -64:].any()  # the empty cell
