"""Trainer of the face detector, on rendered heads set into clutter.

    heat    focal loss about each face's middle, the farther off the milder
    size    |log size - log truth|,  points  |point - truth| / truth of size: near the middle

Every twentieth head is held out, and seen in scenes that are always the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semedit.datasets import augment
from semedit.datasets.rendered import Heads, read_heads
from semedit.datasets.scenes import Scene, compose, cut_out
from semedit.faces.singleshot import STRIDE, DetectorNet, DetectorOutput, middles, peaks, turn_of
from semedit.trainers.faces import STORED, FaceTask
from semedit.trainers.parts.start_from import start_from_file

NEAR = 0.3  # of a face's size: cells so near its middle learn its size and points
SPREAD = 0.16  # of a face's size: how fast the punishment of a find grows with the distance


@dataclass(frozen=True)
class Targets:
    """Of N scenes of h x w cells: heat [N,h,w] in [0,1], 1 in the cell of a face's middle; counts
    [N,h,w]: 0 where heat says nothing; near bool [N,h,w]: which cells know of a face; its log
    size [N,h,w] and points [N,5,2,h,w], px."""

    heat: Tensor
    counts: Tensor
    near: Tensor
    log_size: Tensor
    points: Tensor


def targets(scenes: list[Scene]) -> Targets:
    """What a network should say about scenes of one shape."""
    height, width = (side // STRIDE for side in scenes[0].pixels.shape[:2])
    grid = middles(height, width).numpy()
    n = len(scenes)
    heat, size = np.zeros((2, n, height, width), np.float32)
    counts = np.ones((n, height, width), np.float32)
    nearest = np.full((n, height, width), np.inf)
    points = np.zeros((n, 5, 2, height, width), np.float32)
    for i, scene in enumerate(scenes):
        for five, big, known in zip(scene.points, scene.size, scene.counts, strict=True):
            middle = five.mean(0)
            apart = np.hypot(*(grid - middle[:, None, None])) / big
            if not known:
                counts[i][apart < 0.6] = 0
                continue
            column, row = np.floor(middle / STRIDE).astype(int)
            inside = 0 <= row < height and 0 <= column < width
            heat[i] = np.maximum(heat[i], np.exp(-0.5 * (apart / SPREAD) ** 2).clip(0, 0.999))
            mine = apart < NEAR
            if inside:
                heat[i, row, column] = 1
                mine[row, column] = True
            mine &= apart < nearest[i]
            nearest[i][mine] = apart[mine]
            size[i][mine] = np.log(big)
            points[i][:, :, mine] = five[:, :, None]
    counts[heat == 1] = 1
    arrays = heat, counts, np.isfinite(nearest), size, points
    return Targets(*(torch.from_numpy(array) for array in arrays))


def heat_loss(heat: Tensor, truth: Targets) -> Tensor:
    """Focal loss per face.

    Source: Zhou et al. 2019, arXiv:1904.07850, equation 1.
    """
    chance = heat.sigmoid().clamp(1e-4, 1 - 1e-4)
    here = truth.heat == 1
    found = -((1 - chance) ** 2 * chance.log())[here].sum()
    false = -((1 - truth.heat) ** 4 * chance**2 * (1 - chance).log() * truth.counts)[~here].sum()
    return (found + false) / here.sum().clamp(min=1)


def place_loss(out: DetectorOutput, truth: Targets) -> tuple[Tensor, Tensor]:
    """Mean errors of size and of points, near faces' middles."""
    near = truth.near
    if not near.any():
        return out.size.sum() * 0, out.points.sum() * 0
    size = (out.size.log() - truth.log_size)[near].abs().mean()
    error = (out.points - truth.points) / truth.log_size.exp()[:, None, None]
    error = error.permute(0, 3, 4, 1, 2)[near]
    return size, F.smooth_l1_loss(error, torch.zeros_like(error), beta=0.05)


class DetectorTask(FaceTask):
    """DetectorNet from scenes; a batch of heads is strewn over fewer scenes."""

    def __init__(self, options: DetectorTrainer, heads: Heads) -> None:
        network = DetectorNet()
        before = start_from_file(network, options.start_from) if options.start_from else {}
        super().__init__("detector", heads, network, options.lr, options.half, before)
        self.options = options

    def compose(self, indices: np.ndarray, random: np.random.Generator) -> list[Scene]:
        """Scenes with the heads of indices, a few in each."""
        count = max(1, len(indices) // self.options.heads)
        pictures, labels = self.heads.pixels(indices), self.heads.labels(indices).numpy()
        points = self.heads.points[indices].numpy().astype(float) * self.heads.size
        where = random.integers(0, count, len(indices))
        out = []
        for scene in range(count):
            mine = [
                cut_out(pictures[i], labels[i], points[i], random)
                for i in np.flatnonzero(where == scene)
            ]
            pixels = self.clutter[int(random.integers(len(self.clutter)))][None].float() / 255
            behind = augment.sized(pixels, self.resolution)[0].permute(1, 2, 0)
            background = (behind * 255).round().to(torch.uint8).numpy()
            out.append(compose(background, mine, random))
        return out

    def step(self, indices: np.ndarray, progress: float) -> dict[str, float]:
        """One update."""
        del progress
        random = np.random.default_rng(int(torch.randint(2**62, ())))
        scenes = self.compose(indices, random)
        images = _pictures(scenes)
        images = augment.photograph(images, self.options.strength)
        truth = targets(scenes)
        out = self.run(images)
        heat = heat_loss(out.heat, truth)
        size, points = place_loss(out, truth)
        self.update(heat + 0.5 * size + 5 * points)
        values = {"heat": heat, "size": size, "points": points}
        return {name: float(value.detach()) for name, value in values.items()}

    def evaluate(self, modules: dict[str, nn.Module]) -> dict[str, float]:
        """Of held-out heads in scenes: share found, false finds a scene, errors of the found.

        recall, false_per_scene   at a chance of 0.5
        point_error               mean, in faces' sizes; turn_error_deg: median
        """
        network, held = modules["network"], self.heads.held[:256]
        random = np.random.default_rng(0)
        scenes = self.compose(held, random)
        found = missed = false = 0
        errors, turns = [], []
        for scene in scenes:
            out = network(_pictures([scene]) * 2 - 1)
            hits = peaks(out.heat[0], 0.5)
            points = out.points[0][..., hits[:, 0], hits[:, 1]].permute(2, 0, 1).numpy()
            apart = np.linalg.norm(points.mean(1)[:, None] - scene.points.mean(1)[None], axis=2)
            apart = apart / scene.size[None]
            false += int((apart.min(1, initial=np.inf) > 0.4).sum())
            for k in np.flatnonzero(scene.counts):
                near = apart[:, k].argmin() if len(points) else -1
                if near < 0 or apart[near, k] > 0.4:
                    missed += 1
                    continue
                found += 1
                errors.append(np.hypot(*(points[near] - scene.points[k]).T).mean() / scene.size[k])
                turns.append(abs(_angle(turn_of(points[near]) - turn_of(scene.points[k]))))
        return {
            "recall": found / max(1, found + missed),
            "false_per_scene": false / len(scenes),
            "point_error": float(np.mean(errors)) if errors else 1.0,
            "turn_error_deg": float(np.rad2deg(np.median(turns))) if turns else 180.0,
        }


def _angle(difference: float) -> float:
    return (difference + np.pi) % (2 * np.pi) - np.pi


def _pictures(scenes: list[Scene]) -> Tensor:
    """float32 [N,3,R,R] in [0,1]."""
    pixels = torch.from_numpy(np.stack([scene.pixels for scene in scenes]))
    return pixels.permute(0, 3, 1, 2).float() / 255


@dataclass(frozen=True)
class DetectorTrainer:
    """Where faces are in a photograph, of any size and turn."""

    name: ClassVar[str] = "detector"

    batch_size: int = 40  # heads
    heads: int = 5  # of each scene, in the mean
    lr: float = 2e-3  # AdamW
    strength: float = 0.7  # of the changes of light, optics and file
    start_from: str = ""  # weight file of a like network, whose fitting tensors are taken over
    half: bool = False  # compute in bfloat16, which on many CPUs is slow for so few channels

    def start(self, data: Path) -> DetectorTask:
        """The task on a folder of rendered heads."""
        return DetectorTask(self, read_heads(data, STORED))
