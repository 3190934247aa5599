"""Pictures resized once, kept in a data set's folder `cache`, and mapped from disk."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from semedit.datasets.stored import blank, stored

Row = tuple[np.ndarray, np.ndarray]  # a picture uint8 [R,R,3] and its labels uint8 [R,R]


def resized(
    data: Path, key: str, shape: tuple[int, ...], size: int, read: Callable[[int], Row]
) -> tuple[np.ndarray, np.ndarray]:
    """Memory maps images uint8 [*shape,size,size,3] and labels uint8 [*shape,size,size].

    Made at the first call of a key, in place: several gigabytes need not fit into memory. A run
    that is killed leaves drafts that no later one takes for finished.

    Raises: InputError: a kept file is damaged.

    Args:
        data: the data set's folder. key: what tells these pictures from others, e.g. their digest.
        shape: [n] pictures, or [n,V] views of n heads.
        read: the picture and labels of a number, counted row by row through `shape`.
    """
    folder = data / "cache"
    shapes = [(*shape, size, size, 3), (*shape, size, size)]
    paths = [folder / f"{kind}-{size}-{key}.npy" for kind in ("images", "labels")]
    if not all(path.exists() for path in paths):
        folder.mkdir(exist_ok=True)
        drafts = [path.with_suffix(f".{os.getpid()}.part") for path in paths]
        arrays = [blank(draft, whole) for draft, whole in zip(drafts, shapes, strict=True)]
        for number, place in enumerate(np.ndindex(*shape)):
            arrays[0][place], arrays[1][place] = read(number)
        for array, draft, path in zip(arrays, drafts, paths, strict=True):
            array.flush()
            draft.replace(path)
    images, labels = (stored(p, s, mapped=True) for p, s in zip(paths, shapes, strict=True))
    return images, labels
