"""Aligned faces -> latents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

from semedit import methods, metrics
from semedit.batch import Item, Result, Run
from semedit.errors import LatentError
from semedit.generators import load_generator
from semedit.images import to_uint8, write_image
from semedit.latents import Latent, picture
from semedit.tasks import Aligned, cameras_of, face_inputs, load_face, used, used_by
from semedit.workspace import Workspace

PERCEPTUAL = ("faces", "alexnet")  # weights that decide which perceptual distance is used


@dataclass(frozen=True)
class Invert:
    """Find the codes of aligned faces.

    Attributes:
        name: the inverter's name; method: the inverter with its options.
        generator_name: weights of the generator.
        names: names or globs of faces; empty means all.
        progress: told the steps done and in all, of the batch at work.
    """

    name: str
    method: Any
    generator_name: str = "heads-128"
    names: Sequence[str] = ()
    seed: int = 0
    batch: int = 4
    device: str = "cpu"
    mark: bool = True
    progress: Callable[[int, int], None] | None = field(default=None, compare=False)

    command = "invert"

    @cached_property
    def generator(self) -> Any:
        return load_generator(self.generator_name, self.device)

    def parameters(self) -> dict[str, Any]:
        return {
            "generator": self.generator_name,
            "method": self.name,
            "options": methods.parameters(self.method),
            "seed": self.seed,
            "mark": self.mark,
        }

    def weights(self) -> dict[str, str]:
        # Missing weights end the run before it begins.
        return used_by(self.generator_name) | used(*PERCEPTUAL)

    def items(self, run: Run) -> list[Item]:
        space = run.workspace
        return [
            Item(name, face_inputs(space, name), data=space) for name in space.faces(self.names)
        ]

    def load(self, item: Item) -> Aligned:
        aligned = load_face(item, "camera" in self.generator.traits)
        return aligned.at(self.generator.resolution)

    def work(self, items: list[Item], loaded: list[Aligned]) -> list[Result]:
        images = torch.cat([one.image for one in loaded]).to(self.device)
        labels = torch.cat([one.labels for one in loaded]).to(self.device)
        c = cameras_of(loaded).to(self.device)
        latent = self.method(
            self.generator, images, labels, c, progress=self.progress, seed=self.seed
        )
        return [self._write(item, latent[i], images[i : i + 1]) for i, item in enumerate(items)]

    def _write(self, item: Item, latent: Latent, image: torch.Tensor) -> Result:
        space: Workspace = item.data
        for key, value in latent.codes.items():
            if not torch.isfinite(value).all():
                raise LatentError(f"the inversion of {item.name} diverged: {key} is not finite")
        with torch.no_grad():
            shown = picture(self.generator, latent).image
        preview = space.path("latents", item.name, ".png")
        path = space.path("latents", item.name, ".safetensors")
        write_image(preview, to_uint8(shown)[0], mark=self.mark)
        latent.save(path)
        figures = {
            "psnr_db": round(float(metrics.psnr(shown, image)), 2),
            "perceptual": latent.meta.get("perceptual"),
        }
        return Result([preview, path], figures=figures)
