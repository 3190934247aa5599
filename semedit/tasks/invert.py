"""Aligned faces -> latents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from semedit import metrics
from semedit.batch import Item, Result, Run
from semedit.batch.workspace import CROP, Workspace, crop_told
from semedit.errors import LatentError
from semedit.latents import Latent, picture, tone_of
from semedit.media.photographs import write_image
from semedit.media.pixels import to_uint8
from semedit.options import parameters_of
from semedit.tasks import (
    Aligned,
    OnGenerator,
    cameras_of,
    check_finite,
    face_inputs,
    free_name,
    latent_bytes,
    load_face,
    named,
    planned_each,
    used,
    used_by,
)
from semedit.weights import file_sha256, resolve

PERCEPTUAL = ("faces", "alexnet")  # weights that decide which perceptual distance is used


@dataclass(frozen=True)
class Invert(OnGenerator):
    """Find the codes of aligned faces.

    Attributes:
        name: the inverter's name; method: the inverter with its options.
        generator_name: weights of the generator.
        names: names or globs of faces; empty means all.
        label: what the inversion is called, so that it stands beside others; "": the first.
        progress: told the steps done and in all, of the batch at work.
    """

    name: str
    method: Any
    generator_name: str = "heads-128"
    names: Sequence[str] = ()
    batch: int = 4
    device: str = "cpu"
    mark: bool = True
    label: str = ""
    progress: Callable[[int, int], None] | None = field(default=None, compare=False)

    command = "invert"

    @property
    def item_bytes(self) -> int:
        return latent_bytes(self.generator_name)

    def parameters(self) -> dict[str, Any]:
        return {
            "generator": self.generator_name,
            "method": self.name,
            "options": parameters_of(self.method),
            "seed": 0,  # as receipts have always had it; nothing here is random
            "mark": self.mark,
            **named(self.label),
        }

    def weights(self) -> dict[str, str]:
        # Missing weights end the run before it begins.
        own = self.method.weights_of(resolve(self.generator_name).stem)
        return used_by(self.generator_name) | used(*PERCEPTUAL, *own)

    def items(self, run: Run) -> list[Item]:
        space = run.workspace
        return planned_each(space.faces(self.names), partial(self._item, space))

    def _item(self, space: Workspace, face: str) -> Item:
        name = free_name(space, self.command, face, self.label)
        return Item(name, face_inputs(space, face), data=space, face=face)

    def load(self, item: Item) -> Aligned:
        aligned = load_face(item, "camera" in self.generator.traits)
        return aligned.at(self.generator.resolution)

    def work(self, items: list[Item], loaded: list[Aligned]) -> list[Result]:
        images = torch.cat([one.image for one in loaded]).to(self.device)
        labels = torch.cat([one.labels for one in loaded]).to(self.device)
        c = cameras_of(loaded).to(self.device)
        latent = self.method(self.generator, images, labels, c, progress=self.progress)
        tone = tone_of(images)
        latent = replace(latent, tone=None if tone is None else tone.to(self.device))
        return [self._result(item, latent[i], images[i : i + 1]) for i, item in enumerate(items)]

    def _result(self, item: Item, latent: Latent, image: torch.Tensor) -> Result:
        try:
            warning = check_finite(latent, f"the inversion of {item.name}")
        except LatentError as error:
            return Result(error=error)
        with torch.no_grad():
            shown = picture(self.generator, latent).image
        figures = {
            "psnr_db": round(float(metrics.psnr(shown, image)), 2),
            "perceptual": latent.meta.get("perceptual"),
        }
        warnings = [] if warning is None else [warning]
        latent = replace(latent, meta=latent.meta | {CROP: file_sha256(item.inputs["crop"])})
        others = self._others(item, latent)
        if others:
            warnings.append(f"edits of the picture before are kept in edits/{item.face}~before-...")
        write = partial(self._write, item, latent, to_uint8(shown)[0], others)
        return Result(write, warnings, figures)

    def _others(self, item: Item, latent: Latent) -> list[str]:
        """Steps of the face that are of another picture than this inversion."""
        space, steps = item.data, item.data.steps(item.face)
        before = crop_told(space.path("latents", item.name, ".safetensors"))
        another = before not in (None, latent.meta[CROP])
        told = {step: space.made_of(space.path("edits", step, ".safetensors")) for step in steps}
        # Those that do not tell are of the inversion that this one replaces.
        return [
            s
            for s, made in told.items()
            if (another if made is None else made != latent.meta[CROP])
        ]

    def _write(
        self, item: Item, latent: Latent, preview: np.ndarray, others: list[str]
    ) -> list[Path]:
        """Picture and latent; edits of another picture of that name are set aside first."""
        space: Workspace = item.data
        space.set_aside(item.face, others)
        picture, path = (space.path("latents", item.name, s) for s in (".png", ".safetensors"))
        write_image(picture, preview, mark=self.mark)
        latent.save(path)
        return [picture, path]
