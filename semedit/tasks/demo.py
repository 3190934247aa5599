"""The whole chain on four faces: three rendered heads and scikit-image's astronaut.

Everything happens in one folder: photographs/, masks-drawn/, a workspace, and at the end a
contact sheet.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from semedit.batch.holdings import holding
from semedit.batch.places import check_folder
from semedit.batch.workspace import Workspace
from semedit.editors import Fast, Mask
from semedit.faces import Face
from semedit.generators import traits_of
from semedit.inverters import INVERTERS, usual
from semedit.media.files import write_bytes
from semedit.media.labels import LABELS, REGIONS
from semedit.media.masks import read_labels, write_labels
from semedit.media.photographs import write_image
from semedit.tasks import Task, read_face
from semedit.tasks import sheet as pictures
from semedit.tasks.align import Align
from semedit.tasks.edit import Edit
from semedit.tasks.invert import Invert
from semedit.tasks.turntable import Turntable

Perform = Callable[[Task], object]
Progress = Callable[[int, int], None]

GLASSES, SKIN = REGIONS["glasses"][0], REGIONS["skin"][0]
COLUMNS = ("crop", "map", "inversion", "mask", "smiling|no-smiling", "left", "front", "right")
CAPTIONS = ("before", "mask", "inverted", "by mask", "attribute", "left", "front", "right")


def examples() -> list[Path]:
    """The rendered heads that come with this installation."""
    packaged = Path(__file__).parents[1] / "examples"  # in a wheel
    checkout = Path(__file__).parents[2] / "examples"
    return sorted((packaged if packaged.is_dir() else checkout).glob("heads-*.png"))


def write_photographs(folder: Path) -> None:
    """Put the demo's pictures into a folder."""
    from skimage.data import astronaut

    folder.mkdir(parents=True, exist_ok=True)
    for path in examples():
        write_bytes(folder / path.name, path.read_bytes())
    if not (folder / "astronaut.png").exists():
        write_image(folder / "astronaut.png", np.asarray(astronaut()), mark=False)


def run_chain(
    folder: Path, space: Workspace, perform: Perform, frames: int, device: str, progress: Progress
) -> Path:
    """Align, invert, edit by drawn masks, edit an attribute, turn; returns the contact sheet.

    Args:
        perform: runs a task over the workspace.
        frames: of each turntable.
        progress: told the steps of the batch at work.
    """
    drawn = folder / "masks-drawn"
    for one in (folder / "photographs", drawn):
        check_folder(folder, one)
    write_photographs(folder / "photographs")
    perform(Align([folder / "photographs"], device=device))
    names = space.faces()
    kind = usual("heads-128", traits_of("heads-128"))
    perform(Invert(kind, INVERTERS[kind](), names=names, device=device, progress=progress))
    for name in names:
        labels = read_labels(space.path("masks", name, ".png"))
        write_labels(drawn / f"{name}.png", drawn_over(labels, face_of(space, name)))
    perform(Edit("edit", "mask", Mask(), "mask", mask=drawn, device=device, progress=progress))
    for wanted in (True, False):  # who smiles stops, who does not begins
        chosen = [name for name in names if smiles(face_of(space, name)) != wanted]
        label = "smiling" if wanted else "no-smiling"
        if chosen:
            perform(
                Edit(
                    "attr",
                    "fast",
                    Fast(),
                    label,
                    wanted={"smiling": wanted},
                    names=chosen,
                    device=device,
                    progress=progress,
                )
            )
    perform(Turntable(frames=frames, device=device, progress=progress))
    sheet = folder / "contact-sheet.png"
    write_image(sheet, demo_sheet(space, names))
    return sheet


def face_of(space: Workspace, name: str) -> Face:
    return read_face(space.path("faces", name, ".json"))


def smiles(face: Face) -> bool:
    return bool(face.attributes and face.attributes["smiling"] > 0.5)


def drawn_over(labels: np.ndarray, face: Face) -> np.ndarray:
    """What a hand would draw over a label map: glasses, or, on who wears some, bare eyes.

    Args:
        labels: int64 [S,S].

    Returns:
        int64 [S,S].
    """
    if (labels == GLASSES).mean() > 0.002:
        bare = np.where(labels == GLASSES, SKIN, labels)
        for eye, points in (("r_eye", slice(36, 42)), ("l_eye", slice(42, 48))):
            bare[polygon(face.landmarks[points], len(labels))] = LABELS.index(eye)
        return bare
    glasses = spectacles(face.landmarks, len(labels)) & ~np.isin(labels, REGIONS["eyes"])
    return np.where(glasses, GLASSES, labels)


def polygon(points: np.ndarray, size: int) -> np.ndarray:
    """The inside of an outline [P,2] px: bool [size,size]."""
    canvas = Image.new("1", (size, size))
    ImageDraw.Draw(canvas).polygon([tuple(point) for point in points], fill=1)
    return np.asarray(canvas)


def spectacles(landmarks: np.ndarray, size: int) -> np.ndarray:
    """Lenses around the eyes and the bridge between them: bool [size,size]."""
    eyes = landmarks[36:42].mean(0), landmarks[42:48].mean(0)
    along = eyes[1] - eyes[0]
    down = np.array([-along[1], along[0]])
    angle = np.linspace(0, 2 * np.pi, 64)
    # Superellipses look like lenses.
    x, y = (np.sign(f) * np.abs(f) ** 0.7 for f in (np.cos(angle), np.sin(angle)))
    canvas = Image.new("1", (size, size))
    pen = ImageDraw.Draw(canvas)
    for eye in eyes:
        lens = eye + 0.05 * down + np.outer(0.4 * x, along) + np.outer(0.32 * y, down)
        pen.polygon([tuple(point) for point in lens], fill=1)
    bridge = [tuple(eyes[0] + share * along - 0.04 * down) for share in (0.35, 0.65)]
    pen.line(bridge, fill=1, width=max(2, size // 85))
    return np.asarray(canvas)


def demo_sheet(space: Workspace, names: list[str]) -> np.ndarray:
    """One row a face, COLUMNS across: uint8 [H,W,3]; what failed is left empty."""
    return pictures.sheet([holding(space, name) for name in names], COLUMNS, CAPTIONS)
