"""Rendered heads as training data: what `semedit heads` wrote, resized once and mapped from disk.

Heads   single pictures, of one folder or of several   (face networks)
Views   several views of each head, of one folder      (generators, encoders, directions)
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from semedit import cameras
from semedit.datasets.augment import mirrored_labels
from semedit.datasets.cache import resized
from semedit.datasets.split import held_out
from semedit.datasets.stored import DAMAGED
from semedit.errors import InputError
from semedit.heads.dataset import EVALUATION_SEED


@dataclass(frozen=True, eq=False)
class Folder:
    """One folder of n rendered heads in V views, its pictures resized to R.

    Attributes:
        images: uint8 [n,V,R,R,3]; labels: uint8 [n,V,R,R]; both mapped from disk.
        arrays: those of arrays.npz; about: what heads.json says.
        size: px a side of the pictures as rendered.
    """

    images: np.ndarray
    labels: np.ndarray
    arrays: dict[str, np.ndarray]
    about: dict[str, object]
    size: int

    @classmethod
    def read(cls, data: str | Path, resolution: int) -> Folder:
        """Read a folder; resized pictures are kept in its `cache`.

        Raises: InputError: no such data set, or its heads are reserved for evaluation.
        """
        data = Path(data)
        try:
            about = json.loads((data / "heads.json").read_text())
            first = int(about["seed"])
            with np.load(data / "arrays.npz") as file:
                arrays = {name: file[name] for name in file.files}
            n, views = arrays["c"].shape[:2]
            with Image.open(data / "images" / _name(0, 0)) as picture:
                size = picture.width
        except (*DAMAGED, OSError, zipfile.BadZipFile) as error:
            raise InputError(
                f"{data} holds no rendered heads: {error}", hint="semedit heads OUT makes them"
            ) from error
        if first + n > EVALUATION_SEED:
            raise InputError(
                f"the heads of {data} are reserved for evaluation",
                hint=f"render others with a seed below {EVALUATION_SEED}",
            )
        return cls(*_resized(data, resolution, n, views), arrays, about, size)


def _name(head: int, view: int) -> str:
    return f"{head:06d}_{view}.png"


def _resized(data: Path, size: int, n: int, views: int) -> tuple[np.ndarray, np.ndarray]:
    """Memory maps images [n,V,size,size,3] and labels [n,V,size,size]."""

    def read(number: int) -> tuple[np.ndarray, np.ndarray]:
        return _read(data, _name(*divmod(number, views)), size)

    return resized(data, str(n), (n, views), size, read)


def _read(data: Path, name: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    shape = (size, size)
    with Image.open(data / "images" / name) as image:
        pixels = np.asarray(image.convert("RGB").resize(shape, Image.Resampling.BOX))
    with Image.open(data / "labels" / name) as image:
        labels = np.asarray(image.resize(shape, Image.Resampling.NEAREST))
    return pixels, labels


@dataclass(frozen=True, eq=False)
class Heads:
    """Pictures of rendered heads, of all views alike; M of them, from one or several folders.

    Attributes:
        parts: (images uint8 [M_i,R,R,3], labels uint8 [M_i,R,R]) of each folder, mapped from disk.
        points: float32 [M,68,2] in sides of the picture; visible: bool [M,68].
        six: float32 [M,6], see cameras.to_six; attributes: float32 [M,A], 0 or 1.
        train, held: indices of pictures, int64; see split.held_out.
    """

    parts: tuple[tuple[np.ndarray, np.ndarray], ...]
    points: Tensor
    visible: Tensor
    six: Tensor
    attributes: Tensor
    train: np.ndarray
    held: np.ndarray

    @property
    def size(self) -> int:
        """R, px a side."""
        return int(self.parts[0][0].shape[1])

    def pictures(self, indices: np.ndarray) -> Tensor:
        """float32 [N,3,R,R] in [0,1]."""
        return torch.from_numpy(self.pixels(indices)).permute(0, 3, 1, 2).float() / 255

    def pixels(self, indices: np.ndarray) -> np.ndarray:
        """uint8 [N,R,R,3]."""
        return self._gather(indices, 0)

    def labels(self, indices: np.ndarray) -> Tensor:
        """uint8 [N,R,R]."""
        return torch.from_numpy(self._gather(indices, 1))

    def _gather(self, indices: np.ndarray, kind: int) -> np.ndarray:
        ends = np.cumsum([len(part[0]) for part in self.parts])
        which = np.searchsorted(ends, indices, "right")
        rows = [
            self.parts[part][kind][index - (ends[part - 1] if part else 0)]
            for part, index in zip(which, indices, strict=True)
        ]
        return np.stack(rows)


def read_heads(data: str | Path, resolution: int) -> Heads:
    """Read a folder of rendered heads, or all such folders in it (say, one of each look).

    Raises: InputError: no such data set, or one made from seeds reserved for evaluation.
    """
    data = Path(data)
    places = [data] if (data / "heads.json").is_file() else sorted(data.glob("*/heads.json"))
    folders = [
        Folder.read(place if place == data else place.parent, resolution) for place in places
    ]
    if not folders:
        raise InputError(f"{data} holds no rendered heads", hint="semedit heads OUT makes them")
    held = []
    for folder in folders:
        n, views = folder.images.shape[:2]
        held.append(held_out(n, views))
    out = np.concatenate(held)

    def flat(name: str, folder: Folder) -> Tensor:
        return torch.from_numpy(folder.arrays[name]).flatten(0, 1)

    return Heads(
        tuple((_flat(folder.images), _flat(folder.labels)) for folder in folders),
        torch.cat([flat("landmarks", f).float() / f.size for f in folders]),
        torch.cat([flat("visible", f) for f in folders]),
        cameras.to_six(torch.cat([flat("c", f).float() for f in folders])),
        torch.cat(
            [
                torch.from_numpy(f.arrays["attributes"])
                .float()
                .repeat_interleave(f.images.shape[1], 0)
                for f in folders
            ]
        ),
        np.flatnonzero(~out),
        np.flatnonzero(out),
    )


def _flat(array: np.ndarray) -> np.ndarray:
    """[n,V,...] -> [n*V,...], still mapped."""
    return array.reshape(-1, *array.shape[2:])


@dataclass(frozen=True)
class Views:
    """V views of n heads, and how the folder describes itself (heads.json).

    Attributes:
        images: uint8 [n,V,R,R,3], sRGB.  labels: uint8 [n,V,R,R].
        c: float32 [n,V,25].  z: float32 [n,P], the heads' parameters.
    """

    images: np.ndarray
    labels: np.ndarray
    c: Tensor
    z: Tensor
    about: dict[str, object]

    def __len__(self) -> int:
        return len(self.z)

    def one(self, heads: Tensor, view: Tensor) -> View:
        """One view of each head; heads, view int64 [B]."""
        index = heads.numpy(), view.numpy()
        pixels = torch.from_numpy(np.ascontiguousarray(self.images[index]))
        labels = torch.from_numpy(np.ascontiguousarray(self.labels[index]))
        images = pixels.permute(0, 3, 1, 2).float() / 127.5 - 1
        return View(images, labels.long(), self.c[index], self.z[heads])

    def any(self, heads: Tensor) -> View:
        """A random view of each head; heads int64 [B]."""
        return self.one(heads, torch.randint(self.c.shape[1], heads.shape))

    def any_pair(self, heads: Tensor) -> Pair:
        """Two random views of each head, which may be the same; heads int64 [B]."""
        first, second = torch.randint(self.c.shape[1], (2, len(heads)))
        return self.pair(heads, first, second)

    def pair(self, heads: Tensor, first: Tensor, second: Tensor) -> Pair:
        """Two views of each head; heads, first, second int64 [B]."""
        index = heads.numpy()[:, None], torch.stack([first, second], 1).numpy()
        return Pair(
            images=torch.from_numpy(self.images[index]).movedim(-1, 2).float() / 127.5 - 1,
            labels=torch.from_numpy(self.labels[index]).long(),
            c=self.c[index],
            z=self.z[heads],
        )


@dataclass(frozen=True)
class View:
    """One view of B heads: images [B,3,R,R], labels [B,R,R], c [B,25], z [B,P]."""

    images: Tensor
    labels: Tensor
    c: Tensor
    z: Tensor

    def to(self, device: torch.device) -> View:
        """The same on another device."""
        return View(*(x.to(device) for x in vars(self).values()))

    def mirrored(self, chosen: Tensor) -> View:
        """With some faces, bool [B], mirrored: pictures, labels of left and right, cameras."""
        wide = chosen.view(-1, 1, 1)
        images = torch.where(wide[..., None], self.images.flip(-1), self.images)
        labels = torch.where(wide, self.labels.flip(-1), self.labels)
        c = torch.where(chosen[:, None], cameras.mirrored(self.c), self.c)
        return View(images, mirrored_labels(labels, chosen), c, self.z)


@dataclass(frozen=True)
class Pair:
    """Two views of B heads: images [B,2,3,R,R], labels [B,2,R,R], c [B,2,25], z [B,P]."""

    images: Tensor
    labels: Tensor
    c: Tensor
    z: Tensor

    def to(self, device: torch.device) -> Pair:
        """The same on another device."""
        return Pair(*(x.to(device) for x in vars(self).values()))


def read_views(data: str | Path, resolution: int) -> Views:
    """Read a folder written by `semedit heads`.

    Raises: InputError: no such data set, or its heads are reserved for evaluation.
    """
    data = Path(data)
    folder = Folder.read(data, resolution)
    c, z = (torch.from_numpy(folder.arrays[name]) for name in ("c", "z"))
    return Views(folder.images, folder.labels, c, z, folder.about)
