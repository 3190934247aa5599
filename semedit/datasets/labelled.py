"""Pictures with label maps, from rendered heads or CelebAMask-HQ: resized once, mapped from disk.

Rendered heads are a folder of `semedit heads`, or a folder of such folders; CelebAMask-HQ is told
by its folder of pictures (see celebamask). See split for what is held out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from semedit.datasets.cache import resized
from semedit.datasets.celeba import read_picture
from semedit.datasets.celebamask import IMAGES, read_folder, read_label_map
from semedit.datasets.rendered import Folder
from semedit.datasets.split import held_out
from semedit.errors import InputError


@dataclass(frozen=True, eq=False)
class Labelled:
    """M pictures with their label maps.

    Attributes:
        parts: (images uint8 [M_i,R,R,3], labels uint8 [M_i,R,R]) of each folder, mapped from disk.
        train, held: indices of pictures, int64.
        about: how the folders describe themselves; licence: of what learns from them; both for
            the metadata of weights.
    """

    parts: tuple[tuple[np.ndarray, np.ndarray], ...]
    train: np.ndarray
    held: np.ndarray
    about: list[object]
    licence: str = "MIT"

    def read(self, indices: np.ndarray) -> tuple[Tensor, Tensor]:
        """Pictures float32 [N,3,R,R] in [-1,1] and labels int64 [N,R,R]."""
        ends = np.cumsum([len(images) for images, _ in self.parts])
        which = np.searchsorted(ends, indices, "right")
        places = [
            (self.parts[part], index - (ends[part - 1] if part else 0))
            for part, index in zip(which, indices, strict=True)
        ]
        pixels = torch.from_numpy(np.stack([part[0][row] for part, row in places]))
        labels = torch.from_numpy(np.stack([part[1][row] for part, row in places]))
        return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1, labels.long()


def read_labelled(data: str | Path, resolution: int) -> Labelled:
    """Read a data set of either layout.

    Raises: InputError: it is neither, or its heads are reserved for evaluation.
    """
    data = Path(data)
    if (data / IMAGES).is_dir():
        return _celebamask(data, resolution)
    places = [data] if (data / "heads.json").is_file() else _folders(data)
    if not places:
        raise InputError(
            f"{data} holds neither rendered heads nor CelebAMask-HQ",
            "semedit heads OUT makes some",
        )
    folders = [Folder.read(place, resolution) for place in places]
    parts, held = [], []
    for folder in folders:
        n, views = folder.images.shape[:2]
        parts.append((_flat(folder.images), _flat(folder.labels)))
        held.append(held_out(n, views))
    return _labelled(parts, np.concatenate(held), [folder.about for folder in folders])


def _folders(data: Path) -> list[Path]:
    return [path.parent for path in sorted(data.glob("*/heads.json"))]


def _flat(array: np.ndarray) -> np.ndarray:
    """[n,V,...] -> [n*V,...], still mapped."""
    return array.reshape(-1, *array.shape[2:])


def _labelled(
    parts: list[tuple[np.ndarray, np.ndarray]], held: np.ndarray, about: list[object]
) -> Labelled:
    return Labelled(tuple(parts), np.flatnonzero(~held), np.flatnonzero(held), about)


def _celebamask(data: Path, size: int) -> Labelled:
    """CelebAMask-HQ; what was resized is kept in the folder's `cache`."""
    numbers = read_folder(data)
    n = len(numbers)

    def read(i: int) -> tuple[np.ndarray, np.ndarray]:
        picture = read_picture(data / IMAGES / f"{numbers[i]}.jpg", size)
        return picture, read_label_map(data, numbers[i], size)

    about: list[object] = [{"name": "CelebAMask-HQ", "n": n}]
    found = _labelled([resized(data, str(n), (n,), size, read)], held_out(n), about)
    return replace(found, licence="CelebAMask-HQ: non-commercial research")
