"""Rendered heads as trainers read them: several views of each head, in memory at one size."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import InputError
from ..heads.dataset import EVALUATION_SEED


@dataclass(frozen=True)
class Views:
    """V views of n heads, and how the folder describes itself (heads.json).

    Attributes:
        images: uint8 [n,V,3,R,R], sRGB.  labels: uint8 [n,V,R,R].
        c: float32 [n,V,25].  z: float32 [n,P], the heads' parameters.
    """

    images: np.ndarray
    labels: np.ndarray
    c: Tensor
    z: Tensor
    about: dict[str, object]

    def __len__(self) -> int:
        return len(self.z)

    def pair(self, heads: Tensor, first: Tensor, second: Tensor) -> Pair:
        """Two views of each head; heads, first, second int64 [B]."""
        index = heads.numpy()[:, None], torch.stack([first, second], 1).numpy()
        return Pair(
            images=torch.from_numpy(self.images[index]).float() / 127.5 - 1,
            labels=torch.from_numpy(self.labels[index]).long(),
            c=self.c[index],
            z=self.z[heads],
        )


@dataclass(frozen=True)
class Pair:
    """Two views of B heads: images [B,2,3,R,R], labels [B,2,R,R], c [B,2,25], z [B,P]."""

    images: Tensor
    labels: Tensor
    c: Tensor
    z: Tensor


def read_views(data: Path, resolution: int) -> Views:
    """Read a folder written by `semedit heads`; resized pictures are kept beside it in `cache`.

    Raises: InputError: no such data set, or its heads are reserved for evaluation.
    """
    try:
        about = json.loads((data / "heads.json").read_text())
        with np.load(data / "arrays.npz") as arrays:
            c, z = torch.from_numpy(arrays["c"]), torch.from_numpy(arrays["z"])
    except (OSError, KeyError, ValueError) as error:
        raise InputError(f"{data} holds no rendered heads: {error}") from error
    if int(about["seed"]) + len(z) > EVALUATION_SEED:
        raise InputError(
            f"the heads of {data} are reserved for evaluation",
            hint=f"render others with a seed below {EVALUATION_SEED}",
        )
    images, labels = _cache(data, resolution, len(z), c.shape[1])
    return Views(images, labels, c, z, about)


def _cache(data: Path, resolution: int, n: int, views: int) -> tuple[np.ndarray, np.ndarray]:
    """Memory maps images [n,V,3,R,R] and labels [n,V,R,R], made at the first call."""
    folder = data / "cache"
    paths = [folder / f"{kind}-{resolution}-{n}.npy" for kind in ("images", "labels")]
    if not all(path.exists() for path in paths):
        folder.mkdir(exist_ok=True)
        images = np.empty((n, views, 3, resolution, resolution), np.uint8)
        labels = np.empty((n, views, resolution, resolution), np.uint8)
        for head in range(n):
            for view in range(views):
                images[head, view], labels[head, view] = _read(data, head, view, resolution)
        for path, values in zip(paths, (images, labels), strict=True):
            partial = path.with_suffix(".part.npy")
            np.save(partial, values)
            partial.replace(path)
    held = [np.load(path, mmap_mode="r") for path in paths]
    return held[0], held[1]


def _read(data: Path, head: int, view: int, resolution: int) -> tuple[np.ndarray, np.ndarray]:
    name, size = f"{head:06d}_{view}.png", (resolution, resolution)
    with Image.open(data / "images" / name) as image:
        pixels = np.asarray(image.convert("RGB").resize(size, Image.Resampling.BOX))
    with Image.open(data / "labels" / name) as image:
        labels = np.asarray(image.resize(size, Image.Resampling.NEAREST))
    return pixels.transpose(2, 0, 1), labels
