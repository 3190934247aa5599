"""Pictures with label maps and cameras, in the folders that EG3D's datasets have; poses.

    DIR/dataset.json      {"labels": [[file, c of 25 numbers], ...]}, files below DIR or DIR/images
    DIR/labels/FILE.png   label maps, CelebAMask-HQ ids

Mirrored pictures, which EG3D's preparation writes beside the others, count like any other.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from semedit import cameras
from semedit.errors import InputError
from semedit.images import read_labels, read_photo
from semedit.trainers.rendered import Views, read_views

INDEX = "dataset.json"


def read_faces(data: Path, resolution: int) -> Views:
    """Rendered heads, or pictures of a folder as above: one view each, z without entries.

    Raises: InputError: neither, or a picture without label map or camera.
    """
    if (data / "heads.json").is_file():
        return read_views(data, resolution)
    rows = _rows(data)
    images, labels = _resized(data, [name for name, _ in rows], resolution)
    c = torch.tensor([camera for _, camera in rows])[:, None]
    about: dict[str, object] = {"pictures": len(rows), "index": INDEX}
    return Views(images[:, None], labels[:, None], c, torch.zeros(len(rows), 0), about)


def _rows(data: Path) -> list[tuple[str, list[float]]]:
    """Files and cameras."""
    try:
        held = json.loads((data / INDEX).read_text())["labels"]
        rows = [(str(name), [float(value) for value in camera]) for name, camera in held]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{data} holds neither rendered heads nor pictures with cameras: {error}",
            hint=f"`semedit heads` makes heads; EG3D's preparation writes {INDEX}",
        ) from error
    wrong = [name for name, camera in rows if len(camera) != 25]
    if wrong or not rows:
        what = f"no camera of 25 numbers for {wrong[0]}" if wrong else "no pictures"
        raise InputError(f"{data / INDEX} names {what}")
    return rows


def _resized(data: Path, names: list[str], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Memory maps images uint8 [n,size,size,3] and labels [n,size,size], made at the first call."""
    folder = data / "cache"
    key = hashlib.sha256("\n".join(names).encode()).hexdigest()[:12]
    paths = [folder / f"posed-{kind}-{size}-{key}.npy" for kind in ("images", "labels")]
    if not all(path.exists() for path in paths):
        folder.mkdir(exist_ok=True)
        parts = [path.with_suffix(f".{os.getpid()}.part") for path in paths]
        shapes = [(len(names), size, size, 3), (len(names), size, size)]
        arrays = [
            np.lib.format.open_memmap(part, "w+", np.uint8, shape)
            for part, shape in zip(parts, shapes, strict=True)
        ]
        for i, name in enumerate(names):
            arrays[0][i], arrays[1][i] = _read(data, name, size)
        for array, part, path in zip(arrays, parts, paths, strict=True):
            array.flush()
            part.replace(path)
    return np.load(paths[0], mmap_mode="r"), np.load(paths[1], mmap_mode="r")


def _read(data: Path, name: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    file = next((f for f in (data / name, data / "images" / name) if f.is_file()), data / name)
    pixels = Image.fromarray(read_photo(file).pixels)
    labels = Image.fromarray(
        read_labels((data / "labels" / name).with_suffix(".png")).astype(np.uint8)
    )
    for picture in (pixels, labels):
        if picture.width != picture.height:
            raise InputError(f"{name} is {picture.width} x {picture.height}, not square")
    small = pixels.resize((size, size), Image.Resampling.BOX)
    return np.asarray(small), np.asarray(labels.resize((size, size), Image.Resampling.NEAREST))


@dataclass(frozen=True)
class Poses:
    """A normal distribution of the six numbers of cameras: mean [6], factor [6,6] of the
    covariance."""

    mean: Tensor
    factor: Tensor

    @classmethod
    def of(cls, c: Tensor) -> Poses:
        """Fitted to cameras [M,25]."""
        six = cameras.to_six(c).double()
        away = six - six.mean(0)
        covariance = away.t() @ away / max(1, len(six) - 1) + 1e-10 * torch.eye(6).double()
        return cls(six.mean(0).float(), torch.linalg.cholesky(covariance).float())

    def sample(self, n: int) -> Tensor:
        """Cameras [n,25]."""
        return cameras.from_six(self.mean + torch.randn(n, 6) @ self.factor.t())
