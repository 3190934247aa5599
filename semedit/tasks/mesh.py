"""Latents -> coloured meshes and depth maps."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from semedit import cameras
from semedit.batch import Item, Result, Run
from semedit.batch.workspace import Workspace
from semedit.latents import Latent
from semedit.renders.meshes import (
    LEVEL,
    DensityField,
    Mesh,
    depth_map,
    extract,
    write_depth,
    write_mesh,
)
from semedit.tasks import OnGenerator, planned_each, read_latent, used_by

SIDES_DEG = (("", 0.0), ("-left", -30.0), ("-right", 30.0))  # turns of the depth maps


@dataclass(frozen=True)
class MeshFaces(OnGenerator):
    """Write the surface of faces as a mesh, and depth maps from three sides.

    Attributes:
        format: "ply" or "obj".
        resolution: cells a side of the grid; level: density of the surface, 1 / world unit.
        start: which latent, as Workspace.source takes it; None: the newest.
        names: names or globs of faces; empty means all.
    """

    format: Literal["ply", "obj"] = "ply"
    resolution: int = 160
    level: float = LEVEL
    generator_name: str = "heads-128"
    start: str | None = None
    names: Sequence[str] = ()
    device: str = "cpu"
    progress: Callable[[int, int], None] | None = field(default=None, compare=False)

    batch = 1

    @property
    def item_bytes(self) -> int:
        return 60 * self.resolution**2 + 100_000  # the surface grows with the square

    @property
    def command(self) -> str:
        """One for each format: a face may have meshes of both."""
        return f"mesh-{self.format}"

    def parameters(self) -> dict[str, Any]:
        sizes = {"resolution": self.resolution, "level": self.level}
        return {"generator": self.generator_name, "format": self.format, **sizes}

    def weights(self) -> dict[str, str]:
        return used_by(self.generator_name)

    def items(self, run: Run) -> list[Item]:
        space = run.workspace
        return planned_each(space.faces(self.names), partial(self._item, space))

    def _item(self, space: Workspace, name: str) -> Item:
        return Item(name, {"latent": space.source(name, self.start)}, data=space)

    def load(self, item: Item) -> Latent:
        return read_latent(item.inputs["latent"], self.generator).to(self.device)

    def work(self, items: list[Item], loaded: list[Latent]) -> list[Result]:
        (item,), (latent,) = items, loaded
        found = DensityField(self.generator, latent)
        mesh = extract(found, self.resolution, self.level, self.progress)
        depths = [
            depth_map(found, cameras.turn(latent.c, math.radians(angle)), self.generator.resolution)
            for _, angle in SIDES_DEG
        ]
        sizes = {"vertices": len(mesh.vertices), "triangles": len(mesh.triangles)}
        return [Result(partial(self._write, item, mesh, depths), figures=sizes)]

    def _write(self, item: Item, mesh: Mesh, depths: Sequence[tuple[Tensor, Tensor]]) -> list[Path]:
        space: Workspace = item.data
        outputs = [space.path("meshes", item.name, f".{self.format}")]
        write_mesh(outputs[0], mesh)
        for (side, _), (depth, opacity) in zip(SIDES_DEG, depths, strict=True):
            outputs.append(space.path("meshes", item.name, f"-depth{side}.png"))
            write_depth(outputs[-1], depth, opacity)
        return outputs
