"""Drawn label maps -> faces of the workspace, without a photograph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from semedit import latents
from semedit.batch import Item, Result, Run
from semedit.batch.places import lasting
from semedit.editors import Drawing
from semedit.errors import InputError, NothingMatchedError
from semedit.media.masks import fit_labels
from semedit.media.pixels import resize
from semedit.options import parameters_of
from semedit.tasks import OnGenerator, latent_bytes, planned, used, used_by
from semedit.tasks.drawn import every_map, read_map
from semedit.tasks.made import MADE, MadeFace


@dataclass(frozen=True)
class Draw(OnGenerator):
    """Make a face from each drawn label map: its picture, record, label map and latent.

    The new face is called like the map; every command works with it as with one of a photograph.

    Attributes:
        mask: a label map, or a folder of them, or of their parts.
    """

    mask: Path
    method: Drawing
    generator_name: str = "heads-128"
    device: str = "cpu"
    mark: bool = True
    progress: Callable[[int, int], None] | None = field(default=None, compare=False)

    command = "draw"
    batch = 1

    @property
    def backends(self) -> dict[str, str]:
        """Of the face's record."""
        return {"draw": self.generator_name}

    @property
    def item_bytes(self) -> int:
        return latent_bytes(self.generator_name) + 4 * 256**2

    def parameters(self) -> dict[str, Any]:
        options = parameters_of(self.method)
        return {"generator": self.generator_name, "options": options, "mark": self.mark}

    def weights(self) -> dict[str, str]:
        return used_by(self.generator_name) | used(*MADE)

    def items(self, run: Run) -> list[Item]:
        """Raises: NothingMatchedError: there are no maps."""
        maps = every_map(self.mask)
        if not maps:
            raise NothingMatchedError(f"no label maps in {self.mask}")
        return [
            planned(lasting(name), lambda name=name: self._item(run, name, maps[name]))  # type: ignore[misc]
            for name in maps
        ]

    def _item(self, run: Run, stem: str, files: dict[str, Path]) -> Item:
        space, name = run.workspace, lasting(stem)
        if space.path("faces", name, ".json").is_file() and not space.receipt(self.command, name):
            raise InputError(
                f"{space.root} has a face called {name}", "give the drawn map another name"
            )
        return Item(name, files, data=space)

    def load(self, item: Item) -> np.ndarray:
        """int64 [S,S].

        Raises: MaskError: it is no label map, or not square.
        """
        labels = read_map(item.inputs)
        return fit_labels(labels, len(labels), len(labels))[0]

    def work(self, items: list[Item], loaded: list[np.ndarray]) -> list[Result]:
        (item,), (labels,) = items, loaded
        small, _ = fit_labels(labels, self.generator.resolution, self.generator.resolution)
        drawn = torch.from_numpy(small)[None].to(self.device)
        latent = self.method(self.generator, drawn, progress=self.progress)
        with torch.no_grad():
            output = latents.picture(self.generator, latent)
        assert output.seg is not None  # a drawing needs a generator that draws labels
        right = float((resize(output.seg, len(small)).argmax(1) == drawn).float().mean())
        source = next(iter(item.inputs.values()))
        made = MadeFace(latent.to("cpu"), output.image.cpu(), labels, source, self.backends)
        write = partial(made.write, item.data, item.name, self.device, self.mark)
        return [Result(write, figures={"labels": round(right, 4)})]
