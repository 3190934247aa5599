"""Pictures with label maps and cameras, in the folders that people have; poses.

    DIR/images/..., DIR/labels/...     pictures, and label maps of the same names, CelebAMask-HQ ids
    DIR/dataset.json                   cameras, as EG3D's preparation writes them:
                                       {"labels": [[file, c of 25 numbers], ...]}
    DIR/CelebA-HQ-img/...              CelebAMask-HQ as it is published (see celebamask)

Files of dataset.json may lie below DIR or DIR/images; without it, the built-in face network
estimates the cameras, once. Mirrored pictures, which EG3D's preparation writes beside the others,
count like any other.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from semedit import cameras, weights
from semedit.datasets.cache import resized
from semedit.datasets.celebamask import IMAGES
from semedit.datasets.labelled import read_labelled
from semedit.datasets.rendered import Views, read_views
from semedit.datasets.stored import stored
from semedit.errors import InputError
from semedit.faces.networks import six
from semedit.faces.pose import camera
from semedit.media.files import alone_in, atomic_path
from semedit.media.kinds import SUFFIXES
from semedit.media.masks import read_labels
from semedit.media.photographs import read_photo

INDEX = "dataset.json"
BATCH = 32  # pictures whose cameras are estimated together


def read_faces(data: str | Path, resolution: int) -> Views:
    """Rendered heads, or pictures of a folder as above: one view each, z without entries.

    Raises: InputError: neither, or a picture without label map or camera.
    """
    data = Path(data)
    if (data / "heads.json").is_file():
        return read_views(data, resolution)
    if (data / IMAGES).is_dir():
        labelled = read_labelled(data, resolution)
        ((images, labels),) = labelled.parts
        about: dict[str, object] = {"name": "CelebAMask-HQ", "licence": labelled.licence}
        return _views(images, labels, _estimated(data, images), about)
    if (data / INDEX).is_file():
        rows = _rows(data)
        images, labels = _resized(data, [name for name, _ in rows], resolution)
        c = torch.tensor([camera for _, camera in rows])
        return _views(images, labels, c, {"index": INDEX})
    names = _names(data)
    images, labels = _resized(data, names, resolution)
    return _views(images, labels, _estimated(data, images), {"cameras": "estimated"})


def _views(images: np.ndarray, labels: np.ndarray, c: Tensor, about: dict[str, object]) -> Views:
    about = {"pictures": len(images), **about}
    return Views(images[:, None], labels[:, None], c[:, None], torch.zeros(len(images), 0), about)


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


def _names(data: Path) -> list[str]:
    """Pictures below DIR/images, which have label maps below DIR/labels.

    Raises: InputError: there are none, or one has no label map.
    """
    folder = data / "images"
    found = (path for path in sorted(folder.rglob("*")) if path.suffix.lower() in SUFFIXES)
    names = [path.relative_to(folder).as_posix() for path in found]
    lacking = [name for name in names if not _label_file(data, name).is_file()]
    if lacking or not names:
        what = f"no label map of {lacking[0]}" if lacking else "neither heads nor pictures"
        raise InputError(
            f"{data} holds {what}",
            hint="`semedit heads` makes heads; pictures lie in images/, label maps in labels/",
        )
    return names


def _label_file(data: Path, name: str) -> Path:
    return (data / "labels" / name).with_suffix(".png")


def _estimated(data: Path, images: np.ndarray) -> Tensor:
    """Cameras [n,25] of pictures uint8 [n,R,R,3] as the built-in face network sees them, kept in
    the folder's `cache`."""
    own = weights.file_sha256(weights.resolve("faces"))[:12]
    digest = hashlib.sha256(np.ascontiguousarray(images).data).hexdigest()[:12]
    path = data / "cache" / f"cameras-{len(images)}-{images.shape[1]}-{own}-{digest}.npy"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        parts = []
        for first in range(0, len(images), BATCH):
            pixels = torch.from_numpy(np.array(images[first : first + BATCH]))
            parts.append(camera(six(pixels.permute(0, 3, 1, 2).float() / 127.5 - 1)))
        held = alone_in(path.parent, wait=True)
        with held, atomic_path(path) as partial, partial.open("wb") as file:
            np.save(file, torch.cat(parts).numpy())
    return torch.from_numpy(stored(path, (len(images), 25)))


def _resized(data: Path, names: list[str], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Memory maps images uint8 [n,size,size,3] and labels [n,size,size], made at the first call
    and where a file has changed."""
    key = hashlib.sha256("\n".join(_state(data, name) for name in names).encode()).hexdigest()[:12]
    shape = (len(names),)
    return resized(data, f"posed-{key}", shape, size, lambda i: _read(data, names[i], size))


def _picture_file(data: Path, name: str) -> Path:
    return next((f for f in (data / name, data / "images" / name) if f.is_file()), data / name)


def _state(data: Path, name: str) -> str:
    """What tells one version of a picture and its label map from another."""
    files = _picture_file(data, name), _label_file(data, name)
    sizes = (file.stat() for file in files if file.is_file())
    return " ".join([name, *(f"{s.st_size} {s.st_mtime_ns}" for s in sizes)])


def _read(data: Path, name: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    pixels = Image.fromarray(read_photo(_picture_file(data, name)).pixels)
    labels = Image.fromarray(read_labels(_label_file(data, name)).astype(np.uint8))
    for picture in (pixels, labels):
        if picture.width != picture.height:
            raise InputError(f"{name} is {picture.width} x {picture.height}, not square")
    small = pixels.resize((size, size), Image.Resampling.BOX)
    return np.asarray(small), np.asarray(labels.resize((size, size), Image.Resampling.NEAREST))


@dataclass(frozen=True)
class Poses:
    """A normal distribution of the six numbers of cameras: mean [6], factor [6,6] of the
    covariance. All look at the head's centre, also where those of the data pass by it a little."""

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


def rebalanced(c: Tensor, steep: float) -> Tensor:
    """Indices int64 of faces seen by cameras c [n,V,25], those turned aside more than once.

    A face at 45 degrees of yaw or more occurs `steep` times, one from the front once.
    """
    yaw = cameras.angles(c.flatten(0, 1))[:, 0].abs().view(c.shape[:2]).mean(1)
    times = 1 + (steep - 1) * (yaw / math.radians(45)).clamp(max=1)
    return torch.arange(len(c)).repeat_interleave(times.round().long())
