"""Two latents -> an animation of one face becoming the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from semedit import latents, renders
from semedit.batch import Item, Result, Run
from semedit.batch.workspace import Workspace
from semedit.errors import OptionError
from semedit.latents import Latent
from semedit.latents.interpolation import Part, between
from semedit.media.photographs import write_image
from semedit.media.pixels import to_uint8
from semedit.tasks import OnGenerator, read_latent, used_by

SHOWN = 9  # pictures of the strip, at most


@dataclass(frozen=True)
class Interpolate(OnGenerator):
    """Move from one face to another, in equal steps.

    Attributes:
        first, second: faces of the workspace.
        start: which latents of theirs, as Workspace.source takes it; None: the newest.
        frames: pictures, both ends among them.
        part: what moves: "all", "shape" or "texture".
    """

    first: str
    second: str
    frames: int = 24
    part: Part = "all"
    start: str | None = None
    format: Literal["gif", "webp", "mp4"] = "gif"
    fps: float = 12.0
    generator_name: str = "heads-128"
    device: str = "cpu"
    mark: bool = True
    progress: Callable[[int, int], None] | None = field(default=None, compare=False)

    command = "interpolate"
    batch = 1

    @property
    def item_bytes(self) -> int:
        return 100_000 + self.frames * renders.FRAME_BYTES[self.format]

    def parameters(self) -> dict[str, Any]:
        shown = ("frames", "part", "format", "fps", "mark")
        return {"generator": self.generator_name} | {name: getattr(self, name) for name in shown}

    def weights(self) -> dict[str, str]:
        return used_by(self.generator_name)

    def items(self, run: Run) -> list[Item]:
        """One.

        Raises: OptionError: fewer than two frames, or an end that is not one face.
        """
        if self.frames < 2:
            raise OptionError("an interpolation takes at least 2 frames")
        space = run.workspace
        faces = {}
        for role, given in (("first", self.first), ("second", self.second)):
            names = space.faces([given])
            if len(names) != 1:
                raise OptionError(f"{given} is not one face but {len(names)}")
            faces[role] = names[0]
        part = "" if self.part == "all" else f"-{self.part}"
        name = f"{faces['first']}--{faces['second'].replace('/', '-')}{part}"
        inputs = {role: space.source(face, self.start) for role, face in faces.items()}
        return [Item(name, inputs, data=space)]

    def load(self, item: Item) -> tuple[Latent, Latent]:
        first, second = (
            read_latent(item.inputs[role], self.generator).to(self.device)
            for role in ("first", "second")
        )
        return first, second

    @torch.no_grad()
    def work(self, items: list[Item], loaded: list[tuple[Latent, Latent]]) -> list[Result]:
        (item,), ((first, second),) = items, loaded
        pictures = []
        for i in range(self.frames):
            share = i / (self.frames - 1)
            here = between(self.generator, first, second, share, self.part)
            pictures.append(to_uint8(latents.synthesize(self.generator, here).image)[0])
            if self.progress is not None:
                self.progress(i + 1, self.frames)
        write = partial(self._write, item, np.stack(pictures))
        return [Result(write, figures={"frames": self.frames})]

    def _write(self, item: Item, pictures: np.ndarray) -> list[Path]:
        space: Workspace = item.data
        path, strip = (
            space.path("interpolations", item.name, suffix)
            for suffix in (f".{self.format}", ".png")
        )
        renders.write_animation(path, pictures, self.fps, mark=self.mark)
        chosen = np.linspace(0, self.frames - 1, min(SHOWN, self.frames)).round().astype(int)
        write_image(strip, renders.contact_sheet([[pictures[i] for i in chosen]]), mark=self.mark)
        return [path, strip]
