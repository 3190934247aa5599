"""Pictures resized once, kept in a data set's folder `cache`, and mapped from disk."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from semedit.datasets.stored import blank, stored
from semedit.media.files import alone_in, atomic_path

Row = tuple[np.ndarray, np.ndarray]  # a picture uint8 [R,R,3] and its labels uint8 [R,R]


def resized(
    data: Path, key: str, shape: tuple[int, ...], size: int, read: Callable[[int], Row]
) -> tuple[np.ndarray, np.ndarray]:
    """Memory maps images uint8 [*shape,size,size,3] and labels uint8 [*shape,size,size].

    Made at the first call of a key, in place: several gigabytes need not fit into memory. A
    process that comes meanwhile waits for it.

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
        with alone_in(folder, wait=True), ExitStack() as stack:
            if not all(path.exists() for path in paths):
                drafts = [stack.enter_context(atomic_path(path)) for path in paths]
                arrays = [blank(draft, whole) for draft, whole in zip(drafts, shapes, strict=True)]
                for number, place in enumerate(np.ndindex(*shape)):
                    arrays[0][place], arrays[1][place] = read(number)
                for array in arrays:
                    array.flush()
    images, labels = (stored(p, s, mapped=True) for p, s in zip(paths, shapes, strict=True))
    return images, labels
