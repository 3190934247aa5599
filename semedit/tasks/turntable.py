"""Latents -> animations of the head turning."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from semedit import renders
from semedit.batch import Item, Result, Run
from semedit.batch.workspace import Workspace
from semedit.errors import OptionError
from semedit.faces.pipeline import parser_weights
from semedit.generators import traits_of
from semedit.latents import Latent
from semedit.tasks import OnGenerator, free_name, named, planned_each, read_latent, used, used_by

ALL_ROUND = (180.0, 90.0)  # yaw and pitch known to a generator that declares no limit, degrees


@dataclass(frozen=True)
class Turntable(OnGenerator):
    """Render faces along a closed camera path.

    Attributes:
        format: "gif", "webp" or "mp4".
        yaw_deg, pitch_deg: how far to either side, degrees; see `angles_deg`.
        path: "swing", there and back, or "orbit", once around.
        seg: put the label map beside.
        start: which latent, as Workspace.source takes it; None: the newest.
        names: names or globs of faces; empty means all.
        label: what the turntable is called, so that it stands beside others; "": the first.
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
    mark: bool = True
    label: str = ""
    progress: Callable[[int, int], None] | None = field(default=None, compare=False)

    batch = 1

    @property
    def item_bytes(self) -> int:
        return self.frames * renders.FRAME_BYTES[self.format] * (2 if self.seg else 1)

    @property
    def command(self) -> str:
        """One for each format: a face may have animations of all."""
        return f"turntable-{self.format}"

    @property
    def limit_deg(self) -> tuple[float, float]:
        """Yaw and pitch to either side that the generator knows."""
        return self.generator.view_limit_deg

    @property
    def angles_deg(self) -> tuple[float, float]:
        """Yaw and pitch as rendered: those asked for, but no farther than the generator knows."""
        asked = zip((self.yaw_deg, self.pitch_deg), self.limit_deg, strict=True)
        yaw, pitch = (math.copysign(min(abs(angle), most), angle) for angle, most in asked)
        return yaw, pitch

    @property
    def note(self) -> str | None:
        """What a user should be told about the angles; None where they are kept as asked for."""
        yaw, pitch = self.limit_deg
        guessed = self.path == "orbit" and yaw < ALL_ROUND[0]
        if not guessed and self.angles_deg == (self.yaw_deg, self.pitch_deg):
            return None
        then = "what an orbit shows beyond is guessed" if guessed else "the turntable stays within"
        return (
            f"{self.generator.name} knows heads up to {yaw:g} degrees of yaw and {pitch:g} of "
            f"pitch: {then}"
        )

    def parameters(self) -> dict[str, Any]:
        shown = ("frames", "format", "path", "fps", "seg", "mark")
        given = {name: getattr(self, name) for name in shown}
        given |= {} if self.start is None else {"start": self.start}  # `status` asks for it
        given |= {"angles_deg": list(self.angles_deg), **named(self.label)}
        return {"generator": self.generator_name} | given

    def weights(self) -> dict[str, str]:
        read = used_by(self.generator_name)
        if self.seg and "seg" not in traits_of(self.generator_name):
            read |= used(*parser_weights())
        return read

    def items(self, run: Run) -> list[Item]:
        space = run.workspace
        if self.path == "orbit" and not self.generator.all_round:
            raise OptionError(
                f"{self.generator.name} draws on surfaces that nobody beside or behind a head sees",
                "take --path swing",
            )
        return planned_each(space.faces(self.names), partial(self._item, space))

    def _item(self, space: Workspace, face: str) -> Item:
        name = free_name(space, self.command, face, self.label)
        return Item(name, {"latent": space.source(face, self.start)}, data=space, face=face)

    def load(self, item: Item) -> Latent:
        return read_latent(item.inputs["latent"], self.generator).to(self.device)

    def work(self, items: list[Item], loaded: list[Latent]) -> list[Result]:
        (item,), (latent,) = items, loaded
        yaw, pitch = (math.radians(angle) for angle in self.angles_deg)
        c = renders.camera_path(latent.c, self.path, self.frames, yaw, pitch)
        frames = renders.render_frames(
            self.generator, latent, c, seg=self.seg, progress=self.progress
        )
        write = partial(self._write, item, frames)
        return [Result(write, figures={"frames": len(frames)})]

    def _write(self, item: Item, frames: np.ndarray) -> list[Path]:
        path: Path = item.data.path("turntables", item.name, f".{self.format}")
        renders.write_animation(path, frames, self.fps, mark=self.mark)
        return [path]
