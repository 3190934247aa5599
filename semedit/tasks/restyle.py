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

from semedit import cameras, latents
from semedit.batch import Item, Result, Run, next_step
from semedit.batch.places import LONGEST_LABEL
from semedit.batch.workspace import Workspace
from semedit.editors import Roi
from semedit.latents import Latent
from semedit.media.photographs import write_image
from semedit.media.pixels import resize, to_tensor, to_uint8
from semedit.options import parameters_of
from semedit.tasks import OnGenerator, latent_bytes, named, planned_each, read_face, used_by
from semedit.tasks.donors import donor_file, read_aligned, receivers


@dataclass(frozen=True, eq=False)
class RestyleInput:
    """What an edit starts from: a face's picture [1,3,S,S], its camera [1,25], and the picture
    whose style its region gets."""

    image: Tensor
    c: Tensor
    reference: Tensor | None


@dataclass(frozen=True)
class Restyle(OnGenerator):
    """Edit one region of faces as they look now: the aligned face, or what its last edit made.

    Attributes:
        method: the edit. reference: a face of the workspace, as it looks now, or a picture of an
            aligned face, whose style the region of the others gets.
        start: where to start from, as Workspace.source takes it; "latents" is the aligned face.
        names: names or globs of faces; empty means all.
        called: what the user calls the step; "": like its region and what is done to it.
    """

    method: Roi
    reference: str | None = None
    generator_name: str = "heads-l2sae-128"
    start: str | None = None
    names: Sequence[str] = ()
    batch: int = 4
    device: str = "cpu"
    mark: bool = True
    called: str = ""
    progress: Callable[[int, int], None] | None = field(default=None, compare=False)

    command = "edit"

    @property
    def item_bytes(self) -> int:
        return latent_bytes(self.generator_name)

    @cached_property
    def fingerprint(self) -> str:
        return latents.fingerprint(self.generator)

    @property
    def label(self) -> str:
        """What the step is called."""
        if self.called:
            return self.called
        parts = [f"style-from-{Path(self.reference).stem}"] if self.reference is not None else []
        parts += ["style"] if self.method.style_noise else []
        parts += ["structure"] if self.method.structure_noise else []
        return "-".join([self.method.region, *parts])[:LONGEST_LABEL]

    def parameters(self) -> dict[str, Any]:
        return {
            "generator": self.generator_name,
            "method": "roi",
            "options": parameters_of(self.method),
            "mark": self.mark,
            **named(self.called),
        }

    def weights(self) -> dict[str, str]:
        return used_by(self.generator_name)

    def items(self, run: Run) -> list[Item]:
        self.method.check(self.reference is not None)
        space = run.workspace
        names, inputs = space.faces(self.names), {}
        if self.reference is not None:
            inputs["reference"] = donor_file(space, self.reference, photo=True)
            names = receivers(names, self.reference)
        return planned_each(names, lambda name: self._item(run, name, inputs))

    def _item(self, run: Run, name: str, inputs: dict[str, Path]) -> Item:
        face = {"face": run.workspace.path("faces", name, ".json")}
        item = Item(name, {**inputs, **face}, data=run.workspace)
        return next_step(run, name, self.label, item, self.start, True, _picture_beside)

    def load(self, item: Item) -> RestyleInput:
        image = read_aligned(item.inputs.get("picture", item.inputs["latent"]))
        c = torch.from_numpy(np.array(read_face(item.inputs["face"]).c, np.float32))[None]
        reference = item.inputs.get("reference")
        return RestyleInput(
            image,
            c if bool(c.any()) else cameras.orbit(0.0, 0.0),
            None if reference is None else read_aligned(reference),
        )

    def work(self, items: list[Item], loaded: list[RestyleInput]) -> list[Result]:
        sizes = {one.image.shape[-1] for one in loaded}
        if len(sizes) > 1:
            pairs = zip(items, loaded, strict=True)
            return [result for item, one in pairs for result in self.work([item], [one])]
        images = torch.cat([one.image for one in loaded]).to(self.device)
        reference = loaded[0].reference  # the same for all
        if reference is not None:
            reference = reference.to(self.device)
        found = self.method(self.generator, images, reference)
        tone = latents.tone_of(images)
        if tone is not None:  # pixels that stay as they are do so to the bit
            toned = torch.where(found.alpha > 0, tone(found.image), found.image)
            found = replace(found, image=toned)
        # The latent keeps what is written: values of a picture's file, which float16 holds.
        pixels = to_uint8(found.image)
        small = to_uint8(resize(to_tensor(pixels), self.generator.resolution))
        found = replace(found, image=to_tensor(small).to(self.device))
        c = torch.cat([one.c for one in loaded])
        made = replace(found.latent(self.generator, self.fingerprint, c).to("cpu"), tone=tone)
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


def _picture_beside(latent: Path) -> dict[str, Path]:
    """The picture of a step or an inversion; an aligned face is one itself."""
    return {} if latent.suffix == ".png" else {"picture": latent.with_suffix(".png")}
