"""Latents -> strips: a face moved along a direction by several strengths, side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from semedit import latents
from semedit.batch import Item, Result, Run
from semedit.editors import Direction
from semedit.errors import OptionError
from semedit.latents import Latent
from semedit.media.photographs import write_image
from semedit.media.pixels import to_uint8
from semedit.options import parameters_of
from semedit.renders import contact_sheet
from semedit.tasks import OnGenerator, named, planned_each, read_latent, used, used_by
from semedit.tasks.edit import directions_read
from semedit.tasks.original import (
    WEIGHTS,
    Original,
    original_inputs,
    read_original,
    with_detail,
)

MOST = 101  # pictures of a strip


def strengths_of(text: str) -> tuple[float, ...]:
    """FROM:TO:COUNT -> evenly spaced numbers, both ends among them.

    Raises: OptionError: not of that form.
    """
    try:
        first, last, count = text.split(":")
        found = np.linspace(float(first), float(last), int(count))
    except ValueError:
        raise OptionError(f"strength {text}: write it as FROM:TO:COUNT, like -3:3:7") from None
    if not 2 <= len(found) <= MOST or not np.isfinite(found).all():
        raise OptionError(f"strength {text}: a strip has 2 to {MOST} pictures")
    return tuple(float(f"{v:.6g}") for v in found)


@dataclass(frozen=True)
class Sweep(OnGenerator):
    """A strip of each face, moved by some strengths: sweeps/NAME/DIRECTION.png.

    Attributes:
        method: the editor; its own strength is left out of account.
        start: where to start from, as Workspace.source takes it; None: the newest.
        names: names or globs of faces; empty means all.
        detail: as of tasks.edit.Edit.
        label: what the strip is called; "": like the direction.
    """

    method: Direction
    strengths: tuple[float, ...]
    generator_name: str = "heads-128"
    start: str | None = None
    names: Sequence[str] = ()
    device: str = "cpu"
    mark: bool = True
    detail: bool = True
    label: str = ""
    progress: Callable[[int, int], None] | None = field(default=None, compare=False)

    command = "sweep"
    batch = 1

    @property
    def item_bytes(self) -> int:
        return 40_000 * len(self.strengths)

    def parameters(self) -> dict[str, Any]:
        return {
            "generator": self.generator_name,
            "options": parameters_of(replace(self.method, strength=0.0)),
            "strengths": list(self.strengths),
            "mark": self.mark,
            "detail": self.detail,
            **named(self.label),
        }

    def weights(self) -> dict[str, str]:
        read = used(*((WEIGHTS,) if self.detail else ())) | used_by(self.generator_name)
        return read | directions_read(self.generator_name, self.method)

    def items(self, run: Run) -> list[Item]:
        space = run.workspace

        def plan(name: str) -> Item:
            inputs = {"latent": space.source(name, self.start)}
            if self.detail:
                inputs |= original_inputs(space, name, self.start)
            return Item(f"{name}/{self.label or self.method.name}", inputs, data=space, face=name)

        return planned_each(space.faces(self.names), plan)

    def load(self, item: Item) -> tuple[Latent, Original | None, str | None]:
        latent = read_latent(item.inputs["latent"], self.generator)
        return (latent, *read_original(item.inputs, self.generator))

    def work(
        self, items: list[Item], loaded: list[tuple[Latent, Original | None, str | None]]
    ) -> list[Result]:
        return [self._strip(item, *one) for item, one in zip(items, loaded, strict=True)]

    @torch.no_grad()
    def _strip(
        self, item: Item, latent: Latent, original: Original | None, warning: str | None
    ) -> Result:
        latent = latent.to(self.device)
        pictures = []
        for i, strength in enumerate(self.strengths):
            after = replace(self.method, strength=strength)(self.generator, latent)
            output = latents.picture(self.generator, after)
            if original is None:
                pictures.append(to_uint8(output.image)[0])
            else:
                image, _ = with_detail(self.generator, original, output, self.device)
                pictures.append(to_uint8(image)[0])
            if self.progress is not None:
                self.progress(i + 1, len(self.strengths))
        captions = [f"{self.method.name} {strength:+g}" for strength in self.strengths]
        strip = contact_sheet([pictures], captions, cell=max(128, pictures[0].shape[0]))
        return Result(partial(self._write, item, strip), () if warning is None else (warning,))

    def _write(self, item: Item, strip: np.ndarray) -> list[Path]:
        path: Path = item.data.path("sweeps", item.name, ".png")
        write_image(path, strip, mark=self.mark)
        return [path]
