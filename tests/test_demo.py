"""What the demo draws over label maps."""

import numpy as np
import pytest

from semedit.batch.workspace import Workspace
from semedit.faces import Face
from semedit.media.labels import LABELS
from semedit.media.masks import write_labels
from semedit.media.photographs import read_photo, write_image
from semedit.tasks.demo import COLUMNS, demo_sheet, drawn_over, examples, spectacles

GLASSES = LABELS.index("eye_g")


@pytest.fixture
def face():
    """Eyes at (80, 100) and (180, 100) of a crop of 256 pixels."""
    landmarks = np.full((68, 2), 128.0, np.float32)
    landmarks[36:42], landmarks[42:48] = (80, 100), (180, 100)
    zeros = np.zeros((4, 2)), landmarks, np.zeros(25, np.float32)
    return Face("a", "a.png", "00", 0, 256, *zeros)


def test_glasses_are_drawn_around_the_eyes(face):
    labels = np.ones((256, 256), np.int64)
    labels[95:105, 70:90] = LABELS.index("r_eye")
    drawn = drawn_over(labels, face)
    assert (drawn[95:105, 70:90] == labels[95:105, 70:90]).all()  # eyes show through
    assert drawn[96, 128] == GLASSES and drawn[100, 50] == GLASSES  # bridge and outer rim
    assert 0.05 < (drawn == GLASSES).mean() < 0.25
    lenses = spectacles(face.landmarks, 256)
    assert abs(int(lenses[:, :128].sum()) - int(lenses[:, 132:].sum())) < 0.1 * lenses.sum()


def test_worn_glasses_are_taken_off(face):
    labels = np.ones((256, 256), np.int64)
    labels[80:120, 60:200] = GLASSES
    bare = drawn_over(labels, face)
    assert set(np.unique(bare)) == {1, 4, 5}  # skin, and eyes where the landmarks are
    for points, eye in ((slice(36, 42), 5), (slice(42, 48), 4)):
        column, row = face.landmarks[points].mean(0).astype(int)
        assert bare[row, column] == eye


def test_what_failed_is_left_empty_on_the_sheet(tmp_path):
    space = Workspace(tmp_path)
    write_image(space.path("faces", "a", ".png"), np.full((64, 64, 3), 200, np.uint8))
    write_labels(space.path("masks", "a", ".png"), np.ones((64, 64), np.int64))
    sheet = demo_sheet(space, ["a"])
    assert sheet.shape[1] > len(COLUMNS) * 192 and (sheet == (204, 0, 0)).all(-1).sum() > 150**2


def test_the_sheet_shows_the_edits_of_a_face_whatever_its_name(tmp_path, monkeypatch):
    space = Workspace(tmp_path)
    name = "some-folder/two-words"
    write_labels(space.path("masks", name, ".png"), np.ones((64, 64), np.int64))
    colours = {"01-mask": (0, 255, 0), "02-no-smiling": (0, 0, 255)}
    for step, colour in colours.items():
        path = space.root / "edits" / name / f"{step}.png"
        write_image(path, np.full((64, 64, 3), colour, np.uint8))
    monkeypatch.setattr(Workspace, "steps", lambda self, face: [f"{face}/{s}" for s in colours])
    write_image(space.path("faces", name, ".png"), np.full((64, 64, 3), 200, np.uint8))
    sheet = demo_sheet(space, [name])
    for colour in colours.values():
        assert (sheet == colour).all(-1).sum() > 150**2


def test_examples_are_pictures_of_a_fair_size():
    assert len(examples()) == 3
    for path in examples():
        pixels = read_photo(path).pixels
        assert min(pixels.shape[:2]) >= 256 and pixels.std() > 20
