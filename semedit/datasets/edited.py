"""Rendered heads and their true edits: what `semedit heads --edits N` wrote."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from semedit.datasets.cache import resized
from semedit.datasets.split import held_out
from semedit.datasets.stored import DAMAGED
from semedit.errors import InputError
from semedit.heads.dataset import EVALUATION_SEED


@dataclass(frozen=True, eq=False)
class Edited:
    """n heads, each as it is and truly edited in E ways, seen by one camera; mapped from disk.

    Attributes:
        images: uint8 [n,1+E,R,R,3], the head as it is first; labels: uint8 [n,1+E,R,R].
        c: float32 [n,25]; kinds: [n,E] of heads.changes.KINDS.
        train, held: indices of heads, int64; see split.held_out.
        about: what heads.json says. folder: where it all stands.
    """

    images: np.ndarray
    labels: np.ndarray
    c: np.ndarray
    kinds: np.ndarray
    train: np.ndarray
    held: np.ndarray
    about: dict[str, object]
    folder: Path


def read_edited(data: str | Path, resolution: int) -> Edited:
    """Read a folder; resized pictures are kept in its `cache`.

    Raises: InputError: no such data set, without edits, or reserved for evaluation.
    """
    data = Path(data)
    try:
        about = json.loads((data / "heads.json").read_text())
        first = int(about["seed"])
        with np.load(data / "arrays.npz") as file:
            c = file["c"][:, 0]
            kinds = file["kinds"] if "kinds" in file.files else np.empty((len(c), 0), "<U1")
    except (*DAMAGED, OSError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{data} holds no rendered heads: {error}", hint="semedit heads OUT makes them"
        ) from error
    n, edits = kinds.shape
    if not edits:
        raise InputError(
            f"the heads of {data} have no edits", hint="semedit heads OUT --edits 2 makes them"
        )
    if first + n > EVALUATION_SEED:
        raise InputError(
            f"the heads of {data} are reserved for evaluation",
            hint=f"render others with a seed below {EVALUATION_SEED}",
        )

    def read(number: int) -> tuple[np.ndarray, np.ndarray]:
        head, edit = divmod(number, 1 + edits)
        if edit == 0:
            name = f"{head:06d}_0.png"
            return _read(data / "images" / name, data / "labels" / name, resolution)
        folder, name = data / "edited", f"{head:06d}_{edit - 1}"
        return _read(folder / f"{name}.png", folder / f"{name}.labels.png", resolution)

    images, labels = resized(data, f"edited-{n}-{edits}", (n, 1 + edits), resolution, read)
    held = held_out(n)
    return Edited(
        images,
        labels,
        np.asarray(c, np.float32),
        kinds,
        np.flatnonzero(~held),
        np.flatnonzero(held),
        about,
        data,
    )


def _read(image: Path, labels: Path, size: int) -> tuple[np.ndarray, np.ndarray]:
    """A picture and its label map, resized.

    Raises: InputError: one is missing or damaged.
    """
    try:
        with Image.open(image) as file:
            pixels = np.asarray(file.convert("RGB").resize((size, size), Image.Resampling.BOX))
        with Image.open(labels) as file:
            ids = np.asarray(file.resize((size, size), Image.Resampling.NEAREST))
    except (OSError, SyntaxError) as error:
        raise InputError(f"{image} is missing or damaged: {error}", "render the heads again") from (
            error
        )
    return pixels, ids
