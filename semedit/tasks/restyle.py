"""Aligned faces -> one region in another style or shape, in one pass and without inversion."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from semedit import cameras, latents, methods
from semedit.batch import Item, Result, Run, next_step
from semedit.decoding import read_photo
from semedit.editors import Roi
from semedit.errors import InputError, OptionError
from semedit.images import resize, to_tensor, to_uint8, write_image
from semedit.latents import Latent
from semedit.tasks import latent_bytes, load_generator, planned, read_face, used_by
from semedit.workspace import Workspace


@dataclass(frozen=True, eq=False)
class Shown:
    """What an edit starts from: a face's picture [1,3,R,R], its camera [1,25], and the picture
    whose style its region gets."""

    image: Tensor
    c: Tensor
    reference: Tensor | None


@dataclass(frozen=True)
class Restyle:
    """Edit one region of faces as they look now: the aligned face, or what its last edit made.

    Attributes:
        method: the edit. reference: a face of the workspace, or a picture of an aligned face,
            whose style the region gets.
        start: where to start from, as Workspace.source takes it; "latents" is the aligned face.
        names: names or globs of faces; empty means all.
    """

    method: Roi
    reference: str | None = None
    generator_name: str = "heads-l2sae-128"
    start: str | None = None
    names: Sequence[str] = ()
    batch: int = 4
    device: str = "cpu"
    mark: bool = True
    progress: Callable[[int, int], None] | None = field(default=None, compare=False)

    command = "edit"

    @property
    def item_bytes(self) -> int:
        return latent_bytes(self.generator_name)

    @cached_property
    def generator(self) -> Any:
        return load_generator(self.generator_name, self.device)

    @cached_property
    def fingerprint(self) -> str:
        return latents.fingerprint(self.generator)

    @property
    def label(self) -> str:
        """What the step is called."""
        if self.reference is not None:
            return f"{self.method.region}-style-from"
        return f"{self.method.region}-{'style' if self.method.style_noise else 'structure'}"

    def parameters(self) -> dict[str, Any]:
        return {
            "generator": self.generator_name,
            "method": "roi",
            "options": methods.parameters(self.method),
            "mark": self.mark,
        }

    def weights(self) -> dict[str, str]:
        return used_by(self.generator_name)

    def items(self, run: Run) -> list[Item]:
        self.method.check(self.reference is not None)
        space = run.workspace
        inputs = {}
        if self.reference is not None:
            inputs["reference"] = self._reference(space, self.reference)
        return [
            planned(name, lambda name=name: self._item(run, name, inputs))  # type: ignore[misc]
            for name in space.faces(self.names)
        ]

    def _item(self, run: Run, name: str, inputs: dict[str, Path]) -> Item:
        face = {"face": run.workspace.path("faces", name, ".json")}
        item = Item(name, {**inputs, **face}, data=run.workspace)
        return next_step(run, name, self.label, item, self.start, photo=True)

    def _reference(self, space: Workspace, given: str) -> Path:
        """The picture of a face of the workspace, or a file.

        Raises: OptionError: neither.
        """
        names = space.faces()
        if given in names:
            return space.path("faces", given, ".png")
        if Path(given).is_file():
            return Path(given)
        raise OptionError(
            f"{given} is neither a face of {space.root} nor a file",
            methods.suggestion(given, names[:200]),
        )

    def load(self, item: Item) -> Shown:
        source = item.inputs["latent"]
        # A step's latent has its picture beside it.
        image = self._read(source.with_suffix(".png"))
        c = torch.from_numpy(np.array(read_face(item.inputs["face"]).c, np.float32))[None]
        reference = item.inputs.get("reference")
        return Shown(
            image,
            c if bool(c.any()) else cameras.orbit(0.0, 0.0),
            None if reference is None else self._read(reference),
        )

    def _read(self, path: Path) -> Tensor:
        """A square picture at the generator's resolution.

        Raises: InputError: it is not square.
        """
        image = to_tensor(read_photo(path).pixels)
        height, width = image.shape[-2:]
        if height != width:
            raise InputError(
                f"{path} is {width} x {height} pixels, no aligned face", "run `semedit align` on it"
            )
        return resize(image, self.generator.resolution)

    def work(self, items: list[Item], loaded: list[Shown]) -> list[Result]:
        images = torch.cat([one.image for one in loaded]).to(self.device)
        reference = loaded[0].reference  # the same for all
        if reference is not None:
            reference = reference.to(self.device)
        found = self.method(self.generator, images, reference)
        # The latent keeps what is written: values of a picture's file, which float16 holds.
        pixels = to_uint8(found.image)
        found = replace(found, image=to_tensor(pixels).to(self.device))
        c = torch.cat([one.c for one in loaded])
        made = found.latent(self.generator.name, self.fingerprint, c).to("cpu")
        if self.progress is not None:
            self.progress(1, 1)
        return [
            Result(
                partial(self._write, item, made[i], pixels[i]),
                figures={"region": made[i].meta["region"]},
            )
            for i, item in enumerate(items)
        ]

    def _write(self, item: Item, latent: Latent, pixels: np.ndarray) -> list[Path]:
        """Picture, and last the latent, which makes it a step."""
        space: Workspace = item.data
        picture, path = (space.path("edits", item.name, s) for s in (".png", ".safetensors"))
        write_image(picture, pixels, mark=self.mark)
        latent.save(path)
        return [picture, path]
