"""semedit in ten lines, for a notebook: load faces, invert, edit, render, show.

    faces = semedit.load_faces("photograph.jpg")
    generator = semedit.load_generator("heads-128")
    latent = semedit.invert(generator, faces)
    smiling = semedit.edit(generator, latent, faces, attributes={"smiling": True})
    frames = semedit.turntable(generator, smiling, frames=24)
    semedit.show(generator, latent, smiling)

What these do is what the commands do; methods with all options are in semedit.inverters and
semedit.editors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from semedit.editors import editors_of
from semedit.errors import InputError, OptionError
from semedit.faces import Face
from semedit.faces.pipeline import FacePipeline
from semedit.generators import Generator
from semedit.inverters import INVERTERS, usual
from semedit.latents import Latent, picture, tone_of
from semedit.media.masks import fit_labels
from semedit.media.photographs import read_photo
from semedit.media.pixels import resize, to_tensor, to_uint8
from semedit.options import pick_method
from semedit.renders import camera_path, contact_sheet, render_frames


@dataclass(frozen=True, eq=False)
class Faces:
    """N aligned faces.

    Attributes:
        images: float32 [N,3,S,S], sRGB in [-1,1]. labels: int64 [N,S,S], CelebAMask-HQ ids.
        c: camera labels float32 [N,25]. records: the face of each, with its quad and landmarks.
    """

    images: Tensor
    labels: Tensor
    c: Tensor
    records: tuple[Face, ...]

    def __len__(self) -> int:
        return len(self.images)

    def at(self, size: int) -> tuple[Tensor, Tensor, Tensor]:
        """images, labels and c at another size, pixels a side."""
        maps = [fit_labels(one.numpy(), size, size)[0] for one in self.labels]
        return resize(self.images, size), torch.from_numpy(np.stack(maps)), self.c


def load_faces(
    *paths: str | Path, size: int = 256, every: bool = False, device: str = "cpu"
) -> Faces:
    """The faces of photographs: cropped, aligned, parsed, their cameras estimated.

    Args:
        paths: photographs. size: pixels a side of the crops. every: all faces of each photograph,
            not the largest alone. device: of the networks.

    Raises:
        InputError: no path, or a file that cannot be read. NoFaceError: no face in one of them.
    """
    if not paths:
        raise InputError("there is no photograph to load", "give a path")
    pipeline = FacePipeline(size=size, faces="all" if every else "largest", device=device)
    found = [
        one for path in paths for one in pipeline(read_photo(path), str(path), Path(path).stem)
    ]
    maps = [one.labels for one in found if one.labels is not None]
    return Faces(
        images=to_tensor(np.stack([one.crop for one in found])),
        labels=torch.from_numpy(np.stack(maps).astype(np.int64)),
        c=torch.from_numpy(np.stack([one.face.c for one in found])),
        records=tuple(one.face for one in found),
    )


def invert(generator: Generator, faces: Faces, method: str | None = None, **options: Any) -> Latent:
    """The codes of faces.

    Args:
        method: name of an inverter; None: what `semedit invert` uses.
        options: of the method, see `semedit methods`.
    """
    default = usual(generator.name, generator.traits)
    kind = pick_method(INVERTERS, method or default, "inverter")
    images, labels, c = faces.at(generator.resolution)
    found: Latent = kind(**options)(generator, images, labels, c)
    return replace(found, tone=tone_of(images))


def edit(
    generator: Generator,
    latent: Latent,
    faces: Faces,
    attributes: Mapping[str, bool] | None = None,
    direction: str | None = None,
    labels: Tensor | None = None,
    donor: Latent | None = None,
    method: str | None = None,
    **options: Any,
) -> Latent:
    """Faces edited in one way: by attributes, along a direction, by drawn label maps, or with
    regions of another face.

    Args:
        attributes: e.g. {"smiling": True}. direction: a name; options: strength, layers.
        labels: drawn maps int64 [N,R,R], R of the generator. donor: a latent of one face; options:
            regions. method: an editor of that way; None: the first that suits the generator.

    Raises:
        OptionError: not one way, or an unknown name. TraitError: the generator does not suit.
    """
    asked = {"attributes": attributes, "direction": direction, "mask": labels, "transfer": donor}
    ways: list[Any] = [way for way, value in asked.items() if value is not None]
    if len(ways) != 1:
        raise OptionError("give exactly one way to edit", f"one of {', '.join(asked)}")
    known = editors_of(ways[0])
    fitting = [name for name, editor in known.items() if editor.requires <= generator.traits]
    kind = pick_method(known, method or (fitting or list(known))[0], "editor")
    editor = kind(**({"name": direction} if direction is not None else {}), **options)
    images, own, _ = faces.at(generator.resolution)
    given = {"labels": own, "edited": labels, "wanted": attributes, "donor": donor, "image": images}
    edited: Latent = editor(generator, latent, **{name: given[name] for name in editor.looks_at})
    return edited


def turntable(
    generator: Generator, latent: Latent, frames: int = 24, yaw_deg: float = 25.0
) -> np.ndarray:
    """Frames uint8 [F,H,W,3] around the first face, swinging there and back."""
    path = camera_path(latent.c[:1], "swing", frames, math.radians(yaw_deg), math.radians(4.0))
    return render_frames(generator, latent[0], path)


def show(generator: Generator, *latents: Latent, faces: Faces | None = None) -> Image.Image:
    """A sheet to look at: a row for each face, a column for each latent, the photograph first
    where `faces` are given."""
    columns: list[Sequence[np.ndarray]] = []
    if faces is not None:
        columns.append(list(to_uint8(resize(faces.images, generator.resolution))))
    with torch.no_grad():
        columns += [list(to_uint8(picture(generator, latent).image)) for latent in latents]
    rows = [list(row) for row in zip(*columns, strict=True)]
    return Image.fromarray(contact_sheet(rows))
