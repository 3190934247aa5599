"""Trainer of the landmark network, on rendered heads.

Wing loss on 68 points, visibility, and face or not: against heads looked at in the wrong place,
clutter, and what the cascade wrongly takes for faces. Every twentieth head is held out.
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
from semedit.datasets.augment import CropView, chance, uniform
from semedit.datasets.clutter import MARGIN, mined
from semedit.datasets.rendered import Heads, read_heads
from semedit.datasets.stored import stored
from semedit.faces import align, networks
from semedit.faces.landmarks import view_of_points
from semedit.media.files import atomic_path
from semedit.trainers.faces import STORED, FaceTask, channels, mirrored_points
from semedit.trainers.parts.start_from import start_from_file


def wing(error: Tensor, width: float = 0.16, curve: float = 0.04) -> Tensor:
    """Logarithmic for small errors, linear for large ones.

    Source: Feng et al. 2018, arXiv:1711.06753.
    """
    offset = width - width * float(np.log1p(width / curve))
    return torch.where(error < width, width * torch.log1p(error / curve), error - offset)


def squares(points: Tensor) -> Tensor:
    """The network's own square about faces with points [M,68,2]: centre, side, rotation [M,4]."""
    rows = np.empty((len(points), 4), np.float32)
    for i, view in enumerate(map(view_of_points, points.numpy().astype(np.float64))):
        x, y = view[3] - view[0]
        rows[i] = (*view.mean(0), np.hypot(x, y), np.arctan2(y, x))
    return torch.from_numpy(rows)


def face_views(square: Tensor, fine: bool = False) -> CropView:
    """Where LandmarkNet looks: half as a cascade proposes, half (or all) as a first look corrects.

    Args: square [N,4]: centre, side and rotation of the best view.
    """
    n = len(square)
    spread = torch.where(chance(n, 0.0 if fine else 0.5), 1.0, 0.25)
    turn = spread * torch.where(chance(n, 0.3), uniform(n, -0.75, 0.75), 0.25 * torch.randn(n))
    side = square[:, 2] * (spread * 0.22 * torch.randn(n)).clamp(-0.5, 0.5).exp()
    shift = (spread * 0.11 * square[:, 2])[:, None] * torch.randn(n, 2).clamp(-2.5, 2.5)
    return CropView(square[:, :2] + shift, side, square[:, 3] + turn, chance(n, 0.5))


def false_views(n: int) -> CropView:
    """Squares about a picture of a face that show no whole face: far off, tiny, huge, or turned."""
    kind = torch.randint(0, 4, (n,))
    angle = uniform(n, 0, 6.2832)
    away = torch.where(kind == 0, uniform(n, 0.48, 0.9), uniform(n, 0, 0.2))
    centre = 0.5 + torch.stack([angle.cos(), angle.sin()], 1) * away[:, None]
    side = 0.85 * (0.2 * torch.randn(n)).exp()
    side = torch.where(kind == 1, uniform(n, 0.12, 0.38), side)
    side = torch.where(kind == 2, uniform(n, 2.2, 4.0), side)
    rotation = torch.where(kind == 3, uniform(n, 1.9, 4.38), 0.3 * torch.randn(n))
    return CropView(centre, side, rotation, chance(n, 0.5))


def join(a: CropView, b: CropView) -> CropView:
    """The views of a, then those of b."""
    pairs = ((a.centre, b.centre), (a.side, b.side), (a.rotation, b.rotation), (a.mirror, b.mirror))
    return CropView(*(torch.cat(pair) for pair in pairs))


class LandmarkTask(FaceTask):
    """LandmarkNet from squares about faces, well and badly placed, and about no faces."""

    def __init__(self, options: LandmarkTrainer, heads: Heads, mistakes: np.ndarray) -> None:
        network = networks.LandmarkNet()
        before = start_from_file(network, options.start_from) if options.start_from else {}
        super().__init__("landmarks", heads, network, options.lr, options.half, before)
        self.options = options
        self.mined = channels(mistakes)
        self.squares = squares(heads.points)
        eyes = [heads.points[:, part].mean(1) for part in (align.EYE_LEFT, align.EYE_RIGHT)]
        self.eyes = (eyes[1] - eyes[0]).norm(dim=-1)  # [M] inter-ocular distances

    def step(self, indices: np.ndarray, progress: float) -> dict[str, float]:
        """One update; the first pictures of the batch show faces, the last ones none."""
        del progress
        n = len(indices)
        true = n - int(n * self.options.negatives)
        images = self.heads.pictures(indices)
        images = augment.rescene(images, self.labels(indices), self.scenes(n))
        view = self.spoil(images, self.squares[indices], true)
        bend = augment.bends(n, self.options.bend)
        seen = self.look(images, augment.grid(view, self.resolution, bend), self.scenes(n))
        seen, covered = augment.occlude(augment.photograph(seen, self.options.strength))
        points = augment.move(self.heads.points[indices], view, bend)[:true]
        points = mirrored_points(points, view.mirror[:true])
        visible = mirrored_points(self.heads.visible[indices][:true], view.mirror[:true])
        visible = visible & ~at(covered[:true], points)
        out = self.run(seen)
        # A face that light or noise has wiped out teaches nothing.
        clear = (seen[:true].mean(1).std((1, 2)) > 0.06).float()
        error = (out.points[:true] - points).norm(dim=-1) * view.side[:true, None]
        error = error / self.eyes[indices][:true, None]
        place = (clear[:, None] * (0.4 + 0.6 * visible.float()) * wing(error)).mean()
        shown = F.binary_cross_entropy_with_logits(out.visible[:true], visible.float())
        target = (torch.arange(n) < true).float()
        counted = torch.cat([clear, torch.ones(n - true)])
        face = F.binary_cross_entropy_with_logits(out.face, target, counted)
        self.update(2.5 * place + 0.2 * shown + 0.5 * face)
        right = ((out.face > 0) == (target > 0.5)).float().mean()
        values = {"nme": error.mean(), "visible": shown, "face": face, "face_right": right}
        return {name: float(torch.as_tensor(value).detach()) for name, value in values.items()}

    def spoil(self, images: Tensor, square: Tensor, true: int) -> CropView:
        """Replace pictures from `true` on by what shows no face; where to look at all of them.

        A third stays heads, looked at in the wrong place; then clutter; half is mined.
        """
        n = len(images)
        a, b = true + (n - true) // 3, true + (n - true) // 2
        images[a:b] = self.scenes(b - a)
        images[b:] = self.mistakes(n - b)
        close = face_views(torch.tensor([0.5, 0.5, 1 / MARGIN, 0.0]).expand(n - b, 4))
        return join(join(face_views(square[:true]), false_views(b - true)), close)

    def mistakes(self, n: int) -> Tensor:
        """What the cascade wrongly proposes, float32 [n,3,160,160] in [0,1]."""
        if not len(self.mined):
            return self.scenes(n)
        return self.mined[torch.randint(0, len(self.mined), (n,))].float() / 255

    def look(self, images: Tensor, places: Tensor, around: Tensor) -> Tensor:
        """What lies at places; beyond the picture, its reflection or other scenes."""
        seen = augment.see(images, places)
        outside = (places.abs() > 1).any(-1) & chance(len(images), 0.6).view(-1, 1, 1)
        return torch.where(outside[:, None], augment.see(around, places), seen)

    def evaluate(self, modules: dict[str, nn.Module]) -> dict[str, float]:
        """landmark_nme of held-out heads: the network about the square that a first look gives."""
        network, held = modules["network"], self.heads.held[:1000]
        errors, right = [], []
        torch.manual_seed(1)
        for chosen in np.array_split(held, max(1, len(held) // 64)):
            n = len(chosen)
            view = face_views(self.squares[chosen], fine=True)
            seen = augment.see(self.heads.pictures(chosen), augment.grid(view, self.resolution))
            out = network(seen * 2 - 1)
            truth = augment.move(self.heads.points[chosen], view)
            truth = mirrored_points(truth, view.mirror)
            error = (out.points - truth).norm(dim=-1).mean(1) * view.side
            errors.append(error / self.eyes[chosen])
            nothing = F.interpolate(self.mistakes(n), (self.resolution, self.resolution))
            false = network(nothing * 2 - 1)
            right += [(out.face > 0).float(), (false.face < 0).float()]
        return {
            "landmark_nme": float(torch.cat(errors).mean()),
            "face_accuracy": float(torch.cat(right).mean()),
        }


def at(mask: Tensor, points: Tensor) -> Tensor:
    """Whether a mask bool [N,H,W] covers points [N,P,2] in sides of the picture: bool [N,P]."""
    places = (points * 2 - 1)[:, None]
    values = F.grid_sample(mask[:, None].float(), places, "nearest", align_corners=False)
    return values[:, 0, 0] > 0.5


@dataclass(frozen=True)
class LandmarkTrainer:
    """Landmarks and face verification from proposals."""

    name: ClassVar[str] = "landmarks"

    batch_size: int = 64
    lr: float = 2e-3  # AdamW
    strength: float = 0.7  # of the changes of light, optics and file
    bend: float = 1.0  # strength of the smooth random displacements of a face's features
    negatives: float = 0.4  # share of each batch without a face
    mined: int = 120  # scenes, and as many heads, that are searched for false proposals
    start_from: str = ""  # weight file of a like network, whose fitting tensors are taken over
    half: bool = True  # compute in bfloat16

    def start(self, data: Path) -> LandmarkTask:
        """The task on a folder of rendered heads."""
        heads = read_heads(data, STORED)
        kept = data / f"mined-{self.mined}-{STORED}.npy"
        if not kept.is_file():
            chosen = heads.train[:: max(1, len(heads.train) // self.mined)][: self.mined]
            found = mined(list(heads.pixels(chosen)), self.mined, STORED)
            with atomic_path(kept) as partial, partial.open("wb") as file:
                np.save(file, found)
        return LandmarkTask(self, heads, stored(kept))
