"""Trainers with tiny networks, and small data sets for them."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from tiny import SMALL_ENCODER, SMALL_IDE3D, small_manifolds, small_triplane
from torch import nn

from semedit import cameras
from semedit.datasets.rendered import read_views
from semedit.generators.parts.encoder import Encoder
from semedit.generators.triplane.ide3d import IDE3D
from semedit.trainers.ide3d import IDE3DTask, IDE3DTrainer
from semedit.trainers.semfaceedit import SemFaceEditTask, SemFaceEditTrainer
from semedit.trainers.triplane import HeadsTask, HeadsTrainer

SIDE, HEADS = 16, 8


@dataclass(frozen=True)
class SmallHeads(HeadsTrainer):
    """The trainer of heads-128 with tiny networks."""

    batch_size: int = 2
    coarse: float = 0.0  # as long as runs of different lengths are to agree

    def start(self, data: Path) -> HeadsTask:
        generator = small_triplane(0)
        generator.name = "small"
        views = read_views(data, SIDE)
        return HeadsTask(self, views, generator, Encoder(SMALL_ENCODER), ("generator", "encoder"))


def write_heads(folder: Path, seed: int = 0, size: int = 32) -> Path:
    """A data set in the format of `semedit heads`: flat colours, a square for a face."""
    numbers = np.random.default_rng(0)
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
    z = numbers.normal(size=(HEADS, 5)).astype(np.float32)
    for head in range(HEADS):
        for view in range(2):
            pixels = np.full((size, size, 3), 40 * head // 2, np.uint8)
            labels = np.zeros((size, size), np.uint8)
            labels[8:24, 8 + view : 24 + view] = 1
            pixels[labels == 1] = 200
            Image.fromarray(pixels).save(folder / "images" / f"{head:06d}_{view}.png")
            Image.fromarray(labels).save(folder / "labels" / f"{head:06d}_{view}.png")
    c = cameras.orbit(torch.linspace(-0.3, 0.3, 2 * HEADS), 0.0).view(HEADS, 2, 25)
    np.savez(folder / "arrays.npz", c=c.numpy(), z=z)
    (folder / "heads.json").write_text(json.dumps({"seed": seed, "n": HEADS, "size": size}))
    return folder


def write_faces(folder: Path, count: int = 6) -> Path:
    """A data set in the format of EG3D's, with label maps."""
    (folder / "00000").mkdir(parents=True)
    (folder / "labels" / "00000").mkdir(parents=True)
    rows = []
    for i in range(count):
        name = f"00000/img{i:08d}.png"
        labels = np.zeros((32, 32), np.uint8)
        labels[8:24, 8:24] = 1 + i
        Image.fromarray(np.full((32, 32, 3), 30 * i, np.uint8)).save(folder / name)
        Image.fromarray(labels).save(folder / "labels" / name)
        rows.append([name, cameras.orbit(0.1 * i, 0.0)[0].tolist()])
    (folder / "dataset.json").write_text(json.dumps({"labels": rows}))
    return folder


@dataclass(frozen=True)
class SmallIDE3D(IDE3DTrainer):
    """The trainer with tiny networks."""

    output: str = "small"
    batch_size: int = 2
    critic: tuple[int, ...] = (4, 6, 8)
    critic_labels: tuple[int, ...] = (4, 6, 8)
    r1_every: int = 2
    density_points: int = 20
    regression: float = 0.0
    # As long as runs of different lengths are to agree.
    first_stage: float = 0.0
    blur: float = 0.0
    held_out: int = 2

    def start(self, data: Path) -> IDE3DTask:
        config = replace(SMALL_IDE3D, z_dim=5, up=(6,))
        return IDE3DTask(self, read_views(data, SIDE), IDE3D(config, self.output))


@dataclass(frozen=True)
class SmallSemFaceEdit(SemFaceEditTrainer):
    """The trainer with tiny networks."""

    output: str = "small"
    batch_size: int = 2
    critic_side: int = 8
    critic: tuple[int, ...] = (4, 6)
    rays: int = 40
    second: float = 0.0
    regression: float = 0.0
    held_out: int = 2

    def start(self, data: Path) -> SemFaceEditTask:
        generator = small_manifolds(z_dim=5, apart=False)
        generator.name = self.output
        return SemFaceEditTask(self, read_views(data, SIDE), generator)


class LineTask:
    """Fit y = 2x with noise drawn in the step."""

    def __init__(self, trainer: Line) -> None:
        self.modules: dict[str, nn.Module] = {"line": nn.Linear(1, 1)}
        self.averaged = ("line",)
        self.optimisers = {
            "line": torch.optim.Adam(self.modules["line"].parameters(), lr=trainer.lr)
        }
        self.size = 7

    def batch(self, indices: torch.Tensor) -> torch.Tensor:
        return indices[:, None].float()

    def step(self, batch: torch.Tensor, progress: float) -> dict[str, float]:
        x = batch + torch.rand_like(batch)
        loss = (self.modules["line"](x) - 2 * x).square().mean()
        self.optimisers["line"].zero_grad()
        loss.backward()
        self.optimisers["line"].step()
        return {"loss": loss.item()}

    def evaluate(self, modules: dict[str, nn.Module]) -> dict[str, float]:
        return {"at_one": modules["line"](torch.ones(1, 1)).item()}

    def export(self, modules: Any, figures: Any, folder: Path, record: dict[str, Any]) -> None:
        (folder / "line.json").write_text(json.dumps({**figures, **record}))


@dataclass(frozen=True)
class Line:
    name: ClassVar[str] = "line"
    batch_size: int = 3
    lr: float = 0.05

    def start(self, data: Path) -> LineTask:
        return LineTask(self)
