"""Faces that are hard to find, on photographs that are not shipped; skipped where they are not."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semedit import weights
from semedit.errors import NoFaceError
from semedit.faces import align
from semedit.faces.detect import BuiltinDetector, Detection
from semedit.faces.pipeline import Described, FacePipeline
from semedit.media.decoding import read_photo
from semedit.media.photographs import Photo

ROTATED = {
    "photo_030.jpg": 30,
    "photo_045.jpg": 45,
    "photo_090.jpg": 90,
    "photo_180.jpg": 180,
    "head_090.png": 90,
    "head_180.png": 180,
}


@pytest.fixture(scope="module")
def cases(shared: Path) -> Path:
    if not weights.on_disk("detector"):
        pytest.skip("the built-in detector is not here")
    return shared / "cases"


@cache
def detector() -> BuiltinDetector:
    return BuiltinDetector()


@cache
def pipeline(faces: str = "largest") -> FacePipeline:
    return FacePipeline(
        detect="builtin",
        landmarks="builtin",
        parse="none",
        pose="none",
        faces=faces,  # type: ignore[arg-type]
    )


def seen(path: Path, faces: str = "largest") -> list[Described]:
    return pipeline(faces)(read_photo(path), str(path), path.stem)


@pytest.mark.parametrize("name", ROTATED)
def test_turned_faces_are_found_and_the_turn_is_noted(cases: Path, name: str) -> None:
    (one,) = seen(cases / "rotated" / name)
    apart = (abs(one.face.turn_deg) - ROTATED[name] + 180) % 360 - 180
    assert abs(apart) < 20, one.face.turn_deg


def test_both_faces_of_an_album_page(cases: Path) -> None:
    found = seen(cases / "rotated" / "album_page.jpg", "all")
    assert sorted(round(abs(one.face.turn_deg) / 90) for one in found) == [0, 1]


@pytest.mark.parametrize(
    "name",
    ["brow_cut.jpg", "chin_cut.jpg", "left_half_cut.jpg", "tight_passport.jpg", "top_cut.jpg"],
)
def test_faces_that_the_frame_cuts_are_found(cases: Path, name: str) -> None:
    (one,) = seen(cases / "border" / name)
    inside = align.covered(one.face.quad, *read_photo(cases / "border" / name).pixels.shape[:2])
    assert one.face.invented == pytest.approx(1 - inside)
    assert ("cut" in one.face.flags) == (one.face.invented > 0.05)


@pytest.mark.parametrize("name", ["surgical_mask.jpg", "behind_pole.jpg", "sunglasses.jpg"])
def test_hidden_faces_are_found_or_hinted_at(cases: Path, name: str) -> None:
    try:
        (one,) = seen(cases / "occluded" / name)
    except NoFaceError as error:
        assert error.hint
        assert "might be one" in error.hint
        assert name != "sunglasses.jpg"
    else:
        assert ("sunglasses" in one.face.flags) == (name == "sunglasses.jpg")


@pytest.mark.slow
def test_a_school_picture(cases: Path) -> None:
    assert len(seen(cases / "crowd" / "school72.jpg", "all")) >= 70


def faces_set(shared: Path, canvas: tuple[int, int], places: list[tuple[int, int]], eyes: int):
    """A grey picture (width, height) with the head of a portrait at places, so many px between
    its eyes."""
    portrait = Image.open(shared / "real" / "images" / "fr_obama.jpg").convert("RGB")
    head = portrait.crop((250, 20, 750, 620))
    scale = eyes / 110
    head = head.resize((round(500 * scale), round(600 * scale)), Image.Resampling.LANCZOS)
    picture = Image.new("RGB", canvas, (120, 130, 125))
    for place in places:
        picture.paste(head, place)
    return np.asarray(picture)


@pytest.mark.slow
def test_a_wide_panorama(cases: Path, shared: Path) -> None:
    places = [(x, 300) for x in (200, 3100, 6900, 9000, 13700)]
    found = detector()(faces_set(shared, (14000, 900), places, 60))
    assert len(found) == 5


@pytest.mark.slow
def test_a_small_face_in_a_large_photograph(cases: Path, shared: Path) -> None:
    found = detector()(faces_set(shared, (4032, 3024), [(3000, 1500)], 31))
    assert len(found) == 1
    assert 50 < np.ptp(across(found[0]), axis=0).max() < 90


def across(detection: Detection) -> np.ndarray:
    assert detection.landmarks is not None
    return detection.landmarks


def test_nothing_is_found_in_plain_colour(cases: Path) -> None:
    photo = Photo(np.full((400, 600, 3), 128, np.uint8), "", ())
    with pytest.raises(NoFaceError, match="no face") as caught:
        pipeline()(photo, "a.png", "a")
    assert "--min-face" in str(caught.value.hint)
