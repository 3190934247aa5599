"""Chosen faces by chosen columns, as one picture or a PDF."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from semedit.batch.holdings import Holding
from semedit.batch.places import unlabelled
from semedit.errors import OptionError, SemeditError
from semedit.media import decoding
from semedit.media.decoding import read_labels, read_photo
from semedit.media.files import atomic_path
from semedit.media.masks import colorize
from semedit.media.photographs import MAX_PIXELS, read_frames, write_image
from semedit.renders import Pixels, contact_sheet
from semedit.version import __version__

COLUMNS = ("photograph", "crop", "map", "inversion", "edit", "pasted", "left", "front", "right")
QUARTERS = {"front": 0, "right": 1, "left": 3}  # of a turntable's loop
STRIP = ("crop", "map", "inversion", "edit")  # what `status --pictures` shows
LONGEST_NAME = 28  # characters before a row
DPI = 200  # of a PDF


def default_columns(faces: Sequence[Holding]) -> list[str]:
    """What a sheet shows where nothing is asked for: what has a label stands beside what has
    none, or, of edits, in place of the newest."""
    named = {name: None for face in faces for name in face.labelled}
    turned = [f"left@{unlabelled(name)[1]}" for name in named if name.startswith("turntable")]
    inverted = [name for name in named if name.startswith("inversion")]
    events = (edit.event for face in faces for edit in face.edits)
    edits = list(dict.fromkeys(event.label for event in events if event.label))
    plain = ["left"] if any(face.turntable is not None for face in faces) else []
    left = [*plain, *turned] if turned else []
    return ["crop", "map", "inversion", *inverted, *(edits or ["edit"]), *left]


def sheet(
    faces: Sequence[Holding],
    columns: Sequence[str],
    captions: Sequence[str] | None = None,
    cell: int = 192,
) -> Pixels:
    """One row a face: uint8 [H,W,3]; what is not there, or cannot be read, is left empty.

    Args:   columns: of COLUMNS ("edit": the newest), "inversion@LABEL", "left@LABEL", or what a
            step is called, like "smiling"; "smiling|no-smiling": the first that is there.
            captions: above them; None: their names. cell: px.
    Raises: OptionError: the picture would be too large.
    """
    if len(faces) * (len(columns) + 1) * cell**2 > MAX_PIXELS:
        raise OptionError(
            f"a picture of {len(faces)} rows is too large", "write a PDF, or take a smaller --cell"
        )
    rows = [[_cell(face, column) for column in columns] for face in faces]
    names = [_name(face.name) for face in faces]
    return contact_sheet(rows, columns if captions is None else captions, names, cell)


def strip(face: Holding, columns: Sequence[str] = STRIP, cell: int = 128) -> Pixels | None:
    """What there is of a face's pictures side by side, uint8 [H,W,3]; None: nothing."""
    found = [pixels for column in columns if (pixels := _cell(face, column)) is not None]
    return contact_sheet([found], cell=cell, margin=4) if found else None


def write_sheet(
    path: Path,
    faces: Sequence[Holding],
    columns: Sequence[str],
    cell: int = 192,
    rows: int = 8,
    mark: bool = True,
) -> int:
    """Write a sheet as the path's suffix says; returns the number of pages.

    Args:   rows: of a page of a PDF. mark: say in the file that pictures are edited.
    Raises: OptionError: another suffix than .png, .jpg, .webp, .pdf; no face has such a column.
    """
    _check(faces, columns)
    kind = path.suffix.lower()
    if kind not in (".png", ".jpg", ".jpeg", ".webp", ".pdf"):
        raise OptionError(f"a sheet is written as .png, .jpg, .webp or .pdf, not {kind or path}")
    if kind != ".pdf":
        write_image(path, sheet(faces, columns, cell=cell), mark=mark)
        return 1
    pages = [
        Image.fromarray(sheet(faces[first : first + rows], columns, cell=cell))
        for first in range(0, len(faces), rows)
    ]
    told = "Pictures edited by a trained model" if mark else ""
    with atomic_path(path) as partial:
        pages[0].save(
            partial,
            "PDF",
            save_all=True,
            append_images=pages[1:],
            resolution=DPI,
            quality=92,
            title=path.stem,
            subject=told,
            creator=f"semedit {__version__}",
        )
    return len(pages)


def _check(faces: Sequence[Holding], columns: Sequence[str]) -> None:
    steps = {edit.label for face in faces for edit in face.edits}
    labels = {name for face in faces for name in face.labelled}
    sides = {
        f"{side}@{unlabelled(name)[1]}"
        for name in labels
        for side in QUARTERS
        if name.startswith("turntable")
    }
    labels = {name for name in labels if name.startswith("inversion")} | sides
    known = [*COLUMNS, *sorted(labels), *sorted(steps | {_label(step) for step in steps})]
    for column in columns:
        if not any(part in known for part in column.split("|")):
            raise OptionError(f"no face has a column {column!r}", f"there is {', '.join(known)}")


def _cell(face: Holding, column: str) -> Pixels | None:
    for wanted in column.split("|"):
        try:
            found = _picture(face, wanted)
        except SemeditError:
            continue
        if found is not None:
            return found
    return None


def _picture(face: Holding, column: str) -> Pixels | None:
    plain, label = unlabelled(column)
    if plain in QUARTERS:
        turntable = face.labelled.get(f"turntable@{label}") if label else face.turntable
        if turntable is None:
            return None
        frames: np.ndarray = decoding.call(read_frames, turntable, most=4)
        return frames[QUARTERS[plain] * len(frames) // 4]
    if column == "map":
        return None if face.map is None else colorize(read_labels(face.map))
    own = {
        "photograph": face.photograph,
        "crop": face.crop,
        "inversion": face.inversion,
        "pasted": face.pasted,
    }
    if column in own or column in face.labelled:
        path = own[column] if column in own else face.labelled[column]
    else:
        fitting = (e for e in face.edits if column in ("edit", e.label, _label(e.label)))
        path = next((edit.picture for edit in reversed(list(fitting))), None)
    return None if path is None else read_photo(path).pixels


def _label(step: str) -> str:
    """What a step is called, without its number."""
    return step.split("-", 1)[1]


def _name(name: str) -> str:
    """A name that fits before a row."""
    shown = "".join(c if c.isprintable() else "?" for c in name)
    half = LONGEST_NAME // 2
    return shown if len(shown) <= LONGEST_NAME else f"{shown[: half - 1]}…{shown[-half:]}"
