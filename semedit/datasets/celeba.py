"""`semedit train attributes`: the branched network on CelebA's 40 attributes.

CelebA as it is published, all of it below one folder:

    [Img/]img_align_celeba/000001.jpg ...     178 x 218 pixels
    [Anno/]list_attr_celeba.txt               count, names, then "000001.jpg -1 1 ..."
    [Eval/]list_eval_partition.txt            "000001.jpg 0": 0 training, 1 validation, 2 test

A folder of `semedit heads` has such a list of its own attributes and serves as well. Where there
is no partition, split.held_out decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from semedit.datasets.split import held_out
from semedit.errors import InputError

# What of an aligned CelebA picture FFHQ's crop shows, from the mean landmarks of these pictures:
# eyes at (69.6, 111.2) and (107.6, 111.3), mouth corners at (71.8, 152.6) and (105.6, 152.6).
CROP = (12.6, 39.4, 164.6, 191.4)


ALIGNED = (178, 218)  # pixels of an aligned picture


@dataclass(frozen=True, eq=False)
class Listed:
    """Pictures and what is said of them.

    paths of n pictures; names of A attributes, lower case; truth float32 [n,A], 0 or 1;
    train, held: int64 indices.
    """

    paths: list[Path]
    names: tuple[str, ...]
    truth: Tensor
    train: np.ndarray
    held: np.ndarray


def read_celeba(data: str | Path) -> Listed:
    """Read the lists of a CelebA folder; the pictures themselves are read when used.

    Raises: InputError: a list or the pictures are missing, or a list is damaged.
    """
    data = Path(data)
    names, files, values = _attributes(_find(data, "list_attr_celeba.txt", ("", "Anno")))
    places = ("img_align_celeba", "Img/img_align_celeba", "images")
    folder = next((data / p for p in places if (data / p / files[0]).is_file()), None)
    if folder is None:
        tried = ", ".join(str(data / place) for place in places)
        raise InputError(f"{files[0]} is in none of {tried}", "CelebA's aligned pictures go there")
    part = held_out(len(files)).astype(int)
    split = next((p for p in _places(data, "list_eval_partition.txt", ("", "Eval"))), None)
    if split is not None:
        part = _partition(split, files)
    return Listed(
        paths=[folder / file for file in files],
        names=names,
        truth=torch.from_numpy(values),
        train=np.flatnonzero(part == 0),
        held=np.flatnonzero(part == 1),
    )


def _places(data: Path, name: str, folders: tuple[str, ...]) -> list[Path]:
    return [data / f / name for f in folders if (data / f / name).is_file()]


def _find(data: Path, name: str, folders: tuple[str, ...]) -> Path:
    found = _places(data, name, folders)
    if not found:
        raise InputError(f"{data} has no {name}", "give --data the folder that CelebA is in")
    return found[0]


def _attributes(path: Path) -> tuple[tuple[str, ...], list[str], np.ndarray]:
    """Names, files and values 0 or 1 [n,A] of a list of attributes."""
    lines = path.read_text("utf-8").splitlines()
    rows = [line.split() for line in lines[2:] if line.strip()]
    names = tuple(name.lower() for name in lines[1].split()) if len(lines) > 2 else ()
    if not names or any(len(row) != len(names) + 1 for row in rows):
        raise InputError(f"{path} is no list of attributes as CelebA has it")
    values = np.array([row[1:] for row in rows])
    if not np.isin(values, ("-1", "1")).all():
        raise InputError(f"{path} holds values other than -1 and 1")
    return names, [row[0] for row in rows], (values == "1").astype(np.float32)


def _partition(path: Path, files: list[str]) -> np.ndarray:
    rows = [line.split() for line in path.read_text("utf-8").splitlines() if line.strip()]
    parts = {row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1] in ("0", "1", "2")}
    if len(parts) != len(rows) or any(file not in parts for file in files):
        raise InputError(f"{path} does not say for every picture which part it belongs to")
    return np.array([parts[file] for file in files])


def read_picture(path: str | Path, size: int) -> np.ndarray:
    """uint8 [size,size,3]: an aligned CelebA picture as FFHQ would crop it, another one whole.

    Raises: InputError: it cannot be read.
    """
    try:
        with Image.open(path) as image:
            box = CROP if image.size == ALIGNED else None
            small = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR, box)
            return np.asarray(small)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: {error}") from None
