"""W+ codes that other tools made <-> latents of the workspace.

e4e, pSp, ReStyle, HyperStyle, PTI and the projectors of StyleGAN keep the codes of faces as arrays
[1,L,W] or [N,L,W], L layers of W numbers; W codes, [1,W], stand for all layers alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from semedit import cameras, latents
from semedit.batch import Item, Result, Run
from semedit.batch.places import lasting
from semedit.batch.workspace import PHOTO_SUFFIXES, Workspace
from semedit.checkpoints.arrays import pick, read_arrays
from semedit.errors import InputError, LatentError, OptionError, TraitError
from semedit.faces.estimates import estimates
from semedit.generators.contract import Generator
from semedit.latents import LARGEST, Latent, Tone
from semedit.media.decoding import read_photo
from semedit.media.files import atomic_path
from semedit.media.photographs import write_image
from semedit.media.pixels import to_tensor, to_uint8
from semedit.tasks import (
    face_inputs,
    latent_bytes,
    load_generator,
    planned,
    read_face,
    used,
    used_by,
)
from semedit.tasks.made import MADE, MadeFace

Format = Literal["pt", "npz", "npy"]


@dataclass(frozen=True)
class ImportCodes:
    """Take codes of faces from a file into the workspace.

    A face that the workspace has gets them as its inversion; any other is made from its codes, with
    a picture, record and label map of its own.

    Attributes:
        file: see arrays.read_arrays. key: of its array, where it holds several.
        names: of the faces, in the order of the codes; empty: the keys of the file, or its name.
    """

    file: Path
    names: Sequence[str] = ()
    key: str | None = None
    generator_name: str = "heads-128"
    device: str = "cpu"
    mark: bool = True
    progress: Callable[[int, int], None] | None = field(default=None, compare=False)

    command = "import"
    batch = 1

    @property
    def item_bytes(self) -> int:
        return latent_bytes(self.generator_name)

    @cached_property
    def generator(self) -> Generator:
        return load_generator(self.generator_name, self.device)

    @cached_property
    def codes(self) -> dict[str, Tensor]:
        """Name -> ws [1,L,W] of every face of the file."""
        return read_codes(self.file, self.generator, self.names, self.key)

    def parameters(self) -> dict[str, Any]:
        return {"generator": self.generator_name, "key": self.key, "mark": self.mark}

    def weights(self) -> dict[str, str]:
        return used_by(self.generator_name) | used(*MADE)

    def items(self, run: Run) -> list[Item]:
        return [
            planned(name, lambda name=name: self._item(run, name))  # type: ignore[misc]
            for name in self.codes
        ]

    def _item(self, run: Run, name: str) -> Item:
        space = run.workspace
        there = space.path("faces", name, ".json").is_file()
        own = space.receipt(self.command, name)
        if not own and not run.overwrite and space.path("latents", name, ".safetensors").is_file():
            raise InputError(f"{name} has a latent already", "give other --names, or --overwrite")
        made = bool(own and space.relative(space.path("faces", name, ".png")) in own["outputs"])
        inputs = {"codes": self.file}
        if there and not made:
            inputs |= face_inputs(space, name)
        return Item(name, inputs, data=space)

    def load(self, item: Item) -> tuple[Tensor, Tone | None]:
        """Camera and tone of the face."""
        crop = item.inputs.get("crop")
        tone = None if crop is None else latents.tone_of(to_tensor(read_photo(crop).pixels))
        return self._camera(item), tone

    def _camera(self, item: Item) -> Tensor:
        """c [1,25]: of the face, or from the front; none where the generator knows no cameras."""
        if "face" in item.inputs:
            c = torch.from_numpy(read_face(item.inputs["face"]).c)[None]
            if c.any():
                return c
        needed = "camera" in self.generator.traits
        return cameras.orbit(0.0, 0.0).reshape(1, 25) if needed else torch.zeros(1, 25)

    @torch.no_grad()
    def work(self, items: list[Item], loaded: list[tuple[Tensor, Tone | None]]) -> list[Result]:
        (item,), ((c, tone),) = items, loaded
        print_ = latents.fingerprint(self.generator)
        meta = {"imported": self.file.name}
        codes = {"ws": self.codes[item.name]}
        latent = Latent(codes, c.float(), self.generator.name, print_, "import", meta=meta)
        latent = replace(latent, tone=tone)
        output = latents.picture(self.generator, latent.to(self.device))
        image = output.image.cpu()
        if "face" in item.inputs:
            return [Result(partial(self._write, item, latent, to_uint8(image)[0]))]
        seen = estimates(output.image)[0] if output.seg is None else output.seg.argmax(1)
        labels = seen[0].cpu().numpy()
        made = MadeFace(latent, image, labels, self.file, {"import": self.generator_name})
        return [Result(partial(made.write, item.data, item.name, self.device, self.mark))]

    def _write(self, item: Item, latent: Latent, preview: np.ndarray) -> list[Path]:
        space: Workspace = item.data
        picture, path = (space.path("latents", item.name, s) for s in (".png", ".safetensors"))
        write_image(picture, preview, mark=self.mark)
        latent.save(path)
        return [picture, path]


def read_codes(
    file: str | Path, generator: Generator, names: Sequence[str] = (), key: str | None = None
) -> dict[str, Tensor]:
    """The codes of a file by the names of their faces: ws float32 [1,L,W].

    Args: names, key: as ImportCodes has them.

    Raises:
        InputError: no file, or no array of finite floating point numbers; several keys.
        LatentError: of another shape than the generator's codes; both are told.
        OptionError: not as many names as codes, or one twice.
        TraitError: the generator has no W+.
    """
    file, shape = Path(file), _shape(generator)
    arrays = read_arrays(file)
    fitting = {k: v for k, v in arrays.items() if _as_ws(v, shape) is not None}
    alike = len(fitting) == len(arrays) and len({tuple(v.shape) for v in arrays.values()}) == 1
    if key is None and (alike or len(fitting) == 1):  # of each face by its name; or the only one
        chosen = fitting
    else:
        chosen = dict([pick(file, fitting or arrays, key, "arrays")])
    found: list[tuple[str, Tensor]] = []
    for own, array in chosen.items():
        ws = _as_ws(array, shape)
        if ws is None:
            raise LatentError(
                f"{file.name} holds codes of the shape {tuple(array.shape)}; "
                f"{generator.name} takes {shape}",
                "name the generator that they were made for: -w NAME",
            )
        label = _plain(own) if len(chosen) > 1 else file.stem
        many = len(ws) > 1
        found += [
            (f"{label}-{i + 1:02d}" if many else label, one[None]) for i, one in enumerate(ws)
        ]
    _check(file, found)
    if names and len(names) != len(found):
        raise OptionError(f"{len(names)} names for {len(found)} codes in {file}")
    called = [lasting(name) for name in (names or [label for label, _ in found])]
    if len(set(called)) < len(called):
        raise OptionError("a name is given twice", "each face has a name of its own")
    return {name: ws for name, (_, ws) in zip(called, found, strict=True)}


def _shape(generator: Generator) -> tuple[int, ...]:
    mean = generator.mean_codes()
    if set(mean) != {"ws"} or mean["ws"].ndim != 3:
        raise TraitError(
            f"{generator.name} has no W+ codes, which other tools' files hold",
            "name a StyleGAN2: -w NAME",
        )
    return tuple(mean["ws"].shape)


def _as_ws(array: Tensor, shape: tuple[int, ...]) -> Tensor | None:
    """An array as ws [N,L,W]; None if it is none."""
    _, layers, width = shape
    if not 1 <= array.ndim <= 4 or array.shape[-1] != width or 0 in array.shape:
        return None
    if array.ndim > 1 and array.shape[-2] == layers:
        ws = array.reshape(-1, layers, width)
        return ws if array.ndim < 4 or len(ws) == max(array.shape[:2]) else None
    rows = array.reshape(-1, width)
    if array.ndim < 3 or array.shape[-2] == 1:
        return rows[:, None].expand(-1, layers, -1)
    return None


def _check(file: Path, found: list[tuple[str, Tensor]]) -> None:
    """Raise InputError unless all codes are finite floating point numbers of a size that is
    meant."""
    for i, (label, ws) in enumerate(found):
        if not ws.is_floating_point():
            kind = str(ws.dtype).removeprefix("torch.")
            raise InputError(f"{file.name} holds {kind}, not floating point numbers")
        ws = ws.float()
        if not bool(ws.isfinite().all()) or float(ws.abs().max()) > LARGEST:
            raise InputError(f"{file.name} holds NaN, infinity or numbers above {LARGEST:g}")
        found[i] = (label, ws.contiguous())


def _plain(key: str) -> str:
    """The name of a face by the key of its codes, which may be that of its picture."""
    path = Path(key)
    return path.stem if path.suffix.lower() in PHOTO_SUFFIXES else key


def export_codes(latent: Latent, path: str | Path, format: Format) -> None:
    """Write the codes of a latent for other tools, atomically: ws as [N,L,W] under "w" in .npz, and
    bare in .pt and .npy.

    Raises: LatentError: it has no W+ codes.
    """
    path = Path(path)
    if set(latent.codes) != {"ws"} or latent.codes["ws"].ndim != 3:
        raise LatentError(f"{path.stem} has no W+ codes, which other tools' files hold")
    ws = latent.codes["ws"].detach().cpu().contiguous()
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        if format == "pt":
            torch.save(ws.clone(), file)
        elif format == "npz":
            np.savez(file, w=ws.numpy())
        else:
            np.save(file, ws.numpy())


def lost(latent: Latent) -> str | None:
    """A warning of what of a latent is not in its codes."""
    parts: Mapping[str, Any] = {
        "what tuning changed": latent.tuned,
        "the pixels kept around an edit": latent.composite,
    }
    told = [name for name, value in parts.items() if value is not None]
    return f"the codes are without {' and '.join(told)}" if told else None
