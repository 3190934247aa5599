"""Latents -> animations of the head turning."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from semedit import latents, renders, weights
from semedit.batch import Item, Result, Run
from semedit.generators import load_generator
from semedit.latents import Latent
from semedit.tasks import planned, used
from semedit.workspace import Workspace


@dataclass(frozen=True)
class Turntable:
    """Render faces along a closed camera path.

    Attributes:
        format: "gif", "webp" or "mp4".
        yaw_deg, pitch_deg: how far to either side, degrees.
        path: "swing", there and back, or "orbit", once around.
        seg: put the label map beside.
        start: which latent, as Workspace.source takes it; None: the newest.
        names: names or globs of faces; empty means all.
    """

    frames: int = 72
    format: Literal["gif", "webp", "mp4"] = "gif"
    yaw_deg: float = 30.0
    pitch_deg: float = 8.0
    path: Literal["swing", "orbit"] = "swing"
    fps: float = 24.0
    seg: bool = False
    generator_name: str = "heads-128"
    start: str | None = None
    names: Sequence[str] = ()
    device: str = "cpu"
    progress: Callable[[int, int], None] | None = field(default=None, compare=False)

    command = "turntable"
    batch = 1

    @cached_property
    def generator(self) -> Any:
        return load_generator(self.generator_name, self.device)

    def parameters(self) -> dict[str, Any]:
        shown = ("frames", "format", "yaw_deg", "pitch_deg", "path", "fps", "seg")
        return {"generator": self.generator_name} | {name: getattr(self, name) for name in shown}

    def weights(self) -> dict[str, str]:
        weights.resolve(self.generator_name)
        return used(self.generator_name)

    def items(self, run: Run) -> list[Item]:
        space = run.workspace
        return [
            planned(name, lambda name=name: self._item(space, name))  # type: ignore[misc]
            for name in space.faces(self.names)
        ]

    def _item(self, space: Workspace, name: str) -> Item:
        return Item(name, {"latent": space.source(name, self.start)}, data=space)

    def load(self, item: Item) -> Latent:
        return latents.load(item.inputs["latent"], self.generator).to(self.device)

    def work(self, items: list[Item], loaded: list[Latent]) -> list[Result]:
        (item,), (latent,) = items, loaded
        yaw, pitch = math.radians(self.yaw_deg), math.radians(self.pitch_deg)
        c = renders.camera_path(latent.c, self.path, self.frames, yaw, pitch)
        frames = renders.render_frames(
            self.generator, latent, c, seg=self.seg, progress=self.progress
        )
        path = item.data.path("turntables", item.name, f".{self.format}")
        renders.write_animation(path, frames, self.fps)
        return [Result([path], figures={"frames": len(frames)})]
