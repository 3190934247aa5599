"""Faces on real photographs, against real networks; skipped where neither is at hand.

RetinaFace's five points and FSA-Net's angles are the yardsticks, as the photographs carry no
annotations. `python tests/test_faces_real.py` prints the table of figures.
"""

import os
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from semedit import cameras, weights
from semedit.faces import align, networks
from semedit.faces.detect import (
    BuiltinDetector,
    Detection,
    FaceAlignmentDetector,
    RetinaFaceDetector,
)
from semedit.media.photographs import read_photo
from semedit.media.pixels import to_tensor

# Faces looking more or less into the camera; the others are listed so that none is forgotten.
FRONTAL = (
    "fr_32bit.png",
    "fr_biden.jpg",
    "fr_obama.jpg",
    "fr_obama2.jpg",
    "fr_obama_small.jpg",
    "fr_two_people.jpg",
    "lp_s9_monalisa.jpg",
    "pillow_hopper.jpg",
    "pillow_hopper_gray.jpg",
    "pillow_hopper_orientation_3.jpg",
    "pillow_hopper_orientation_6.jpg",
    "pillow_hopper_orientation_6.webp",
    "pillow_hopper_orientation_8.jpg",
    "skimage_astronaut.png",
)
HARD = ("fr_obama_partial_face.jpg", "lp_s10_pearl_earring.jpg", "skimage_camera.png")
EMPTY = (
    "exif_Portrait_6.jpg",
    "pillow_cmyk.jpg",
    "skimage_chelsea.png",
    "skimage_coffee.png",
)


@dataclass(frozen=True, eq=False)
class Seen:
    """One photo: what RetinaFace saw, and what the built-in detector saw."""

    pixels: np.ndarray
    truth: list[Detection]
    found: list[Detection]


def interocular(points: np.ndarray) -> float:
    """Between the eyes' centres of five points [5,2], px."""
    return float(np.hypot(*(points[1] - points[0])))


def pairs(seen: Seen) -> list[tuple[Detection, Detection | None]]:
    """Each face RetinaFace saw, with the built-in detection nearest to it, if near at all."""
    out: list[tuple[Detection, Detection | None]] = []
    for face in seen.truth:
        assert face.points is not None
        near = [
            (np.hypot(*(align.five_points(d.landmarks) - face.points).mean(0)), d)
            for d in seen.found
            if d.landmarks is not None
        ]
        best = min(near, key=lambda pair: pair[0], default=None)
        close = best is not None and best[0] < 0.5 * interocular(face.points)
        out.append((face, best[1] if best and close else None))
    return out


def point_errors(face: Detection, found: Detection) -> np.ndarray:
    """Distances [5] of eyes, nose and mouth corners, in inter-ocular distances."""
    assert face.points is not None
    assert found.landmarks is not None
    apart = align.five_points(found.landmarks) - face.points
    return np.hypot(*apart.T) / interocular(face.points)


@cache
def look(folder: Path) -> dict[str, Seen]:
    """Every photograph, seen by RetinaFace and by the built-in detector."""
    judge, own = RetinaFaceDetector(network="mobile0.25"), BuiltinDetector()
    out = {}
    for name in FRONTAL + HARD + EMPTY:
        pixels = read_photo(folder / "images" / name).pixels
        out[name] = Seen(pixels, judge(pixels), own(pixels))
    return out


class FsaNet:
    """Both FSA-Nets (Yang et al. 2019), averaged: yaw, pitch, roll as semedit counts them, rad."""

    def __init__(self, folder: Path) -> None:
        import onnxruntime

        names = ("fsanet-1x1-iter-688590.onnx", "fsanet-var-iter-688590.onnx")
        self.sessions = [onnxruntime.InferenceSession(folder / name) for name in names]

    def __call__(self, photo: np.ndarray, box: np.ndarray) -> np.ndarray:
        """Photo uint8 [H,W,3]; box [4] px of a face, brow to chin -> (yaw, pitch, roll) rad."""
        middle, side = (box[:2] + box[2:]) / 2, float((box[2:] - box[:2]).max())
        answers = []
        for scale in (1.1, 1.25, 1.4):
            crop = align.cut(photo, align.square_quad(middle, scale * side), 64)[:, :, ::-1]
            image = ((crop.astype(np.float32) - 127.5) / 128).transpose(2, 0, 1)[None]
            answers += [s.run(["output"], {"input": image})[0][0] for s in self.sessions]
        yaw, pitch, roll = np.deg2rad(np.mean(answers, 0))
        return np.array([-yaw, pitch, roll])  # its yaw is positive towards the picture's left


SIZES_PX = (30, 45, 60, 80, 100)  # between the eyes, at which RetinaFace looks again


def steady(pixels: np.ndarray, face: Detection) -> Detection:
    """A face with the median of what RetinaFace says of it at several sizes of the photo.

    Its points move with the size: on a face of 128 px by 0.09 inter-ocular distances.
    """
    assert face.points is not None
    judge = RetinaFaceDetector(network="mobile0.25", longest=10**6)
    between = interocular(face.points)
    corner = np.maximum(face.points.min(0) - 2.5 * between, 0).astype(int)
    end = (face.points.max(0) + 2.5 * between).astype(int)
    near = Image.fromarray(pixels[corner[1] : end[1], corner[0] : end[0]])
    found = []
    for wanted in SIZES_PX:
        scale = wanted / between
        shape = (round(near.width * scale), round(near.height * scale))
        for other in judge(np.asarray(near.resize(shape, Image.Resampling.LANCZOS))):
            assert other.points is not None
            points = other.points / scale + corner
            if np.hypot(*(points - face.points).T).mean() < 0.5 * between:
                found.append(points)
    return replace(face, points=np.median(found, 0))


def own_angles(seen: Seen, found: Detection) -> np.ndarray:
    """(yaw, pitch, roll) rad of a face by the built-in network; roll counted in the photo."""
    assert found.landmarks is not None
    crop, quad, _ = align.align(seen.pixels, found.landmarks, 128)
    six = networks.six(to_tensor(crop[None]))
    angles = cameras.angles(cameras.from_six(six))[0].numpy()
    right = quad[3] - quad[0]
    return angles + np.array([0, 0, np.arctan2(right[1], right[0])])


@pytest.fixture(scope="module")
def real(shared: Path) -> Path:
    if not all(weights.on_disk(name) for name in ("landmarks", "faces")):
        pytest.skip("the built-in face networks are not here")
    return shared / "real"


@pytest.fixture(autouse=True)
def _folder_of_weights(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEMEDIT_WEIGHTS", str(shared / "real" / "weights"))


def test_retinaface_finds_the_faces(shared: Path) -> None:
    detector = RetinaFaceDetector(network="mobile0.25")
    expected = {"fr_obama_small.jpg": 1, "fr_two_people.jpg": 2, "skimage_chelsea.png": 0}
    for name, count in expected.items():
        found = detector(read_photo(shared / "real" / "images" / name).pixels)
        assert len(found) == count, name
        for one in found:
            assert one.points is not None
            left, right, nose, *mouth = one.points
            assert left[0] < nose[0] < right[0]
            assert max(left[1], right[1]) < nose[1] < min(m[1] for m in mouth)


@pytest.mark.parametrize("network", ["blazeface", "blazeface-back"])
def test_blazeface_agrees_with_retinaface(shared: Path, network: str) -> None:
    blaze = FaceAlignmentDetector(network=network)
    retina = RetinaFaceDetector(network="mobile0.25")
    photo = read_photo(shared / "real" / "images" / "skimage_astronaut.png").pixels
    (one,), (other,) = blaze(photo), retina(photo)
    assert other.points is not None
    nose = other.points[2]
    assert (one.box[:2] < nose).all()
    assert (nose < one.box[2:]).all()
    coffee = read_photo(shared / "real" / "images" / "skimage_coffee.png").pixels
    assert blaze(coffee) == []


def test_clear_frontal_faces_are_found(real: Path) -> None:
    matched = [pair for name in FRONTAL for pair in pairs(look(real)[name])]
    found = [other is not None for _, other in matched]
    assert np.mean(found) >= 0.9, dict(zip(FRONTAL, found, strict=False))


def test_points_lie_where_retinaface_puts_them(real: Path) -> None:
    errors, once = [], []
    for name in FRONTAL:
        seen = look(real)[name]
        for face, other in pairs(seen):
            if other is not None:
                errors.append(point_errors(steady(seen.pixels, face), other))
                once.append(point_errors(face, other))
    assert np.median(errors) <= 0.06
    assert np.mean(errors, 1).max() <= 0.10
    # At the photo's own size RetinaFace errs itself: six of the faces are one photo of 128 px.
    assert np.median(once) <= 0.07
    assert np.mean(once, 1).max() <= 0.125


@pytest.mark.parametrize("name", EMPTY)
def test_no_face_where_there_is_none(real: Path, name: str) -> None:
    assert look(real)[name].found == []


def test_yaw_agrees_with_fsanet(real: Path) -> None:
    pytest.importorskip("onnxruntime")
    judge = FsaNet(real / "weights")
    apart = []
    for name in FRONTAL + HARD:
        seen = look(real)[name]
        for _, found in pairs(seen):
            if found is not None:
                apart.append(own_angles(seen, found) - judge(seen.pixels, found.box))
    assert np.median(np.abs(np.rad2deg(np.array(apart)[:, 0]))) <= 8


def main() -> None:
    """Print what was found where, and how far the points and angles lie from the yardsticks."""
    shared = Path(os.environ.get("SEMEDIT_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    os.environ["SEMEDIT_WEIGHTS"] = str(shared / "real" / "weights")
    torch.set_num_threads(1)
    judge = FsaNet(shared / "real" / "weights")
    errors, settled, yaws = [], [], []
    for name, seen in look(shared / "real").items():
        print(f"{name}: {len(seen.truth)} there, scores {[round(d.score, 2) for d in seen.found]}")
        for face, found in pairs(seen):
            if found is None:
                print("    missed")
                continue
            error = point_errors(face, found)
            own, other = own_angles(seen, found), judge(seen.pixels, found.box)
            print(
                f"    points {np.round(error, 3)}  ypr {np.rad2deg(own).round(0)}"
                f"  FSA-Net {np.rad2deg(other).round(0)}"
            )
            if name in FRONTAL:
                errors.append(error)
                settled.append(point_errors(steady(seen.pixels, face), found))
            yaws.append(abs(np.rad2deg(own[0] - other[0])))
    for what, found_errors in (("one look", errors), ("median of sizes", settled)):
        worst, largest = np.mean(found_errors, 1).max(), np.max(found_errors)
        print(f"points against RetinaFace, {what}: median {np.median(found_errors):.3f}, ", end="")
        print(f"worst face {worst:.3f}, largest {largest:.3f}")
    print(f"yaw against FSA-Net: median {np.median(yaws):.1f} degrees apart")


if __name__ == "__main__":
    main()
