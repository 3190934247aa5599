"""Drawn label maps -> faces of the workspace, without a photograph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from semedit import latents
from semedit.batch import Item, Result, Run
from semedit.batch.places import lasting
from semedit.batch.workspace import Workspace
from semedit.editors import Drawing
from semedit.errors import InputError, NothingMatchedError
from semedit.faces import Face
from semedit.faces.align import square_quad
from semedit.faces.landmarks import VIEW_DOWN, VIEW_SIDE, BuiltinLandmarks
from semedit.latents import Latent
from semedit.media.decoding import read_labels
from semedit.media.files import write_bytes
from semedit.media.masks import fit_labels, write_labels
from semedit.media.photographs import write_image
from semedit.media.pixels import resize, to_uint8
from semedit.options import parameters_of
from semedit.tasks import OnGenerator, latent_bytes, planned, used_by
from semedit.weights import file_sha256


@dataclass(frozen=True)
class Draw(OnGenerator):
    """Make a face from each drawn label map: its picture, record, label map and latent.

    The new face is called like the map; every command works with it as with one of a photograph.

    Attributes:
        mask: a label map, or a folder of them.
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
    def item_bytes(self) -> int:
        return latent_bytes(self.generator_name) + 4 * 256**2

    def parameters(self) -> dict[str, Any]:
        options = parameters_of(self.method)
        return {"generator": self.generator_name, "options": options, "mark": self.mark}

    def weights(self) -> dict[str, str]:
        return used_by(self.generator_name)

    def items(self, run: Run) -> list[Item]:
        """Raises: NothingMatchedError: there are no maps."""
        paths = sorted(self.mask.glob("*.png")) if self.mask.is_dir() else [self.mask]
        if not paths:
            raise NothingMatchedError(f"no label maps in {self.mask}")
        return [
            planned(lasting(path.stem), lambda path=path: self._item(run, path))  # type: ignore[misc]
            for path in paths
        ]

    def _item(self, run: Run, path: Path) -> Item:
        space, name = run.workspace, lasting(path.stem)
        if space.path("faces", name, ".json").is_file() and not space.receipt(self.command, name):
            raise InputError(
                f"{space.root} has a face called {name}", "give the drawn map another name"
            )
        return Item(name, {"mask": path}, data=space)

    def load(self, item: Item) -> np.ndarray:
        """int64 [S,S].

        Raises: MaskError: it is no label map, or not square.
        """
        labels = read_labels(item.inputs["mask"])
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
        write = partial(self._write, item, latent.to("cpu"), output.image.cpu(), labels)
        return [Result(write, figures={"labels": round(right, 4)})]

    def _write(self, item: Item, latent: Latent, image: Tensor, labels: np.ndarray) -> list[Path]:
        space: Workspace = item.data
        side = len(labels)
        pixels = to_uint8(resize(image, side))[0]
        places = [("faces", ".png"), ("faces", ".json"), ("masks", ".png")]
        places += [("latents", ".png"), ("latents", ".safetensors")]
        crop, record, map_, preview, path = (space.path(a, item.name, b) for a, b in places)
        write_image(crop, pixels, mark=self.mark)
        write_image(preview, to_uint8(image)[0], mark=self.mark)
        write_labels(map_, labels)
        face = self._face(item, latent, pixels)
        write_bytes(record, face.to_json().encode())
        latent.save(path)
        return [crop, record, map_, preview, path]

    def _face(self, item: Item, latent: Latent, pixels: np.ndarray) -> Face:
        side = len(pixels)
        middle = side * np.array([0.5, 0.5 + VIEW_DOWN])
        found = BuiltinLandmarks(self.device)(pixels, [square_quad(middle, VIEW_SIDE * side)])
        return Face(
            name=item.name,
            source=str(item.inputs["mask"]),
            source_sha256=file_sha256(item.inputs["mask"]),
            index=0,
            size=side,
            quad=np.array([[0, 0], [0, side], [side, side], [side, 0]], np.float64),
            landmarks=found.points[0],
            c=latent.c[0].numpy(),
            backends={"landmarks": "builtin", "draw": self.generator_name},
        )
