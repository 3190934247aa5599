"""Rendered heads as training data: what `semedit heads` wrote, shrunken and held in memory."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from semedit import cameras
from semedit.errors import InputError
from semedit.heads.dataset import EVALUATION_SEED

STORED = 160  # px a side at which pictures are held in memory
HELD_OUT = 20  # every how many-th head


@dataclass(frozen=True, eq=False)
class Heads:
    """Rendered heads in memory; M pictures of all heads and views.

    Attributes:
        images: uint8 [M,160,160,3]; labels: uint8 [M,160,160] (both maybe mapped from disk).
        points: float32 [M,68,2] in sides of the picture; visible: bool [M,68].
        six: float32 [M,6], see cameras.to_six; attributes: float32 [M,A], 0 or 1.
        train, held: indices of pictures, int64.
    """

    images: np.ndarray
    labels: np.ndarray
    points: Tensor
    visible: Tensor
    six: Tensor
    attributes: Tensor
    train: np.ndarray
    held: np.ndarray

    def pictures(self, indices: np.ndarray) -> Tensor:
        """float32 [N,3,160,160] in [0,1]."""
        pixels = torch.from_numpy(np.ascontiguousarray(self.images[indices]))
        return pixels.permute(0, 3, 1, 2).float() / 255


def read(data: Path) -> Heads:
    """Read a folder of rendered heads, or all such folders in it (say, one of each look).

    Shrunken pictures are kept in the folders for the next time.

    Raises: InputError: no such data set, or one made from seeds reserved for evaluation.
    """
    if (data / "arrays.npz").is_file():
        return _read_one(data)
    folders = sorted(p.parent for p in data.glob("*/arrays.npz"))
    if not folders:
        raise InputError(f"{data} holds no rendered heads", "semedit heads OUT makes them")
    parts = [_read_one(folder) for folder in folders]
    before = np.cumsum([0, *(len(part.points) for part in parts[:-1])])
    return Heads(
        np.concatenate([part.images for part in parts]),
        np.concatenate([part.labels for part in parts]),
        torch.cat([part.points for part in parts]),
        torch.cat([part.visible for part in parts]),
        torch.cat([part.six for part in parts]),
        torch.cat([part.attributes for part in parts]),
        np.concatenate([part.train + n for part, n in zip(parts, before, strict=True)]),
        np.concatenate([part.held + n for part, n in zip(parts, before, strict=True)]),
    )


def _read_one(data: Path) -> Heads:
    try:
        first = int(json.loads((data / "heads.json").read_text())["seed"])
    except (OSError, KeyError, ValueError) as error:
        raise InputError(f"{data} does not say from which seeds it was rendered") from error
    with np.load(data / "arrays.npz") as arrays:
        n, views = arrays["landmarks"].shape[:2]
        if first + n > EVALUATION_SEED:
            raise InputError(f"{data} was rendered from seeds reserved for evaluation")
        points = torch.from_numpy(arrays["landmarks"].astype(np.float32)).flatten(0, 1)
        visible = torch.from_numpy(arrays["visible"]).flatten(0, 1)
        c = torch.from_numpy(arrays["c"].astype(np.float32)).flatten(0, 1)
        attributes = torch.from_numpy(arrays["attributes"].astype(np.float32))
    names = [f"{i:06d}_{v}.png" for i in range(n) for v in range(views)]
    images, labels, size = _shrunken(data, names)
    head = np.arange(n * views) // views
    held = head % HELD_OUT == HELD_OUT - 1
    return Heads(
        images,
        labels,
        points / size,
        visible,
        cameras.to_six(c),
        attributes.repeat_interleave(views, 0),
        np.flatnonzero(~held),
        np.flatnonzero(held),
    )


def _shrunken(data: Path, names: list[str]) -> tuple[np.ndarray, np.ndarray, int]:
    """Pictures and label maps at 160 px, mapped from disk; and the size they had."""
    with Image.open(data / "images" / names[0]) as first:
        size = first.width
    kept = [data / f"images-{STORED}.npy", data / f"labels-{STORED}.npy"]
    if not all(p.is_file() and len(np.load(p, mmap_mode="r")) == len(names) for p in kept):
        images = np.empty((len(names), STORED, STORED, 3), np.uint8)
        labels = np.empty((len(names), STORED, STORED), np.uint8)
        shape = (STORED, STORED)
        for i, name in enumerate(names):
            with Image.open(data / "images" / name) as picture:
                small = picture.convert("RGB").resize(shape, Image.Resampling.BOX)
                images[i] = np.asarray(small)
            with Image.open(data / "labels" / name) as ids:
                labels[i] = np.asarray(ids.resize(shape, Image.Resampling.NEAREST))
        np.save(kept[0], images)
        np.save(kept[1], labels)
    return np.load(kept[0], mmap_mode="r"), np.load(kept[1], mmap_mode="r"), size
