"""Trainers of the face networks, on rendered heads (the folders `semedit heads` writes).

    landmarks  LandmarkNet: wing loss on 68 points, visibility, face or not (against clutter)
    faces      FaceNet: label map (cross-entropy + dice), camera, attributes
    judge      JudgeNet: attributes

Every twentieth head is held out for the figures.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semedit import weights
from semedit.faces import align, networks
from semedit.faces.landmarks import VIEW_DOWN, VIEW_SIDE
from semedit.images import LABELS
from semedit.trainers import augment
from semedit.trainers.augment import View, chance, uniform
from semedit.trainers.clutter import MARGIN, clutter, mined
from semedit.trainers.rendered import STORED, Heads, read

IGNORED = 255  # label of pixels that a blob covers
EYES = 0.25  # between the eyes' centres, in sides of the aligned crop: unit of landmark errors


def mirrored_points(points: Tensor, mirror: Tensor) -> Tensor:
    """Values [N,68,...] renamed where their picture was mirrored."""
    order = torch.from_numpy(align.MIRROR)
    shape = (-1,) + (1,) * (points.ndim - 1)
    return torch.where(mirror.view(shape), points[:, order], points)


def mirrored_labels(labels: Tensor, mirror: Tensor) -> Tensor:
    """Label ids int64 [N,H,W] with left and right exchanged where the picture was mirrored."""
    table = torch.full((256,), IGNORED)
    table[: len(LABELS)] = torch.tensor(networks.MIRROR_LABELS)
    return torch.where(mirror.view(-1, 1, 1), table[labels], labels)


def moved_six(six: Tensor, view: View) -> Tensor:
    """Camera numbers [N,6] of what the view shows; the same fold as cameras.crop."""
    sin, cos = view.rotation.sin(), view.rotation.cos()
    dx, dy = (six[:, 4:] - (view.centre - 0.5)).unbind(1)
    middle = torch.stack([cos * dx + sin * dy, cos * dy - sin * dx], 1) / view.side[:, None]
    angles = torch.stack([six[:, 0], six[:, 1], six[:, 2] - view.rotation], 1)
    out = torch.cat([angles, (six[:, 3] - view.side.log())[:, None], middle], 1)
    sign = torch.where(view.mirror[:, None], out.new_tensor(networks.MIRROR_SIX), 1.0)
    return out * sign


def balanced_accuracy(logits: Tensor, truth: Tensor) -> float:
    """Mean of (sensitivity + specificity) / 2 over the attributes that occur with both values.

    Args: logits, truth [N,A].
    """
    said, truth = logits > 0, truth > 0.5
    right = [
        ((said & truth).sum(0) / truth.sum(0).clamp(min=1)),
        ((~said & ~truth).sum(0) / (~truth).sum(0).clamp(min=1)),
    ]
    both = truth.any(0) & (~truth).any(0)
    return float(((right[0] + right[1]) / 2)[both].mean())


def mean_iou(said: Tensor, truth: Tensor) -> float:
    """Mean over the labels that occur of intersection over union, all pixels pooled."""
    known = truth != IGNORED
    pairs = torch.bincount((truth[known] * len(LABELS) + said[known]).flatten(), minlength=19 * 19)
    table = pairs.view(19, 19).double()
    union = table.sum(0) + table.sum(1) - table.diag()
    occurs = table.sum(1) > 0
    return float((table.diag() / union.clamp(min=1))[occurs].mean())


def attribute_loss(logits: Tensor, truth: Tensor, rate: Tensor) -> Tensor:
    """Cross-entropy in which both values of an attribute weigh the same; rate [A]: mean truth."""
    weight = torch.where(truth > 0.5, 0.5 / rate, 0.5 / (1 - rate)).clamp(max=8)
    return (weight * F.binary_cross_entropy_with_logits(logits, truth, reduction="none")).mean()


def seg_loss(seg: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
    """Weighted cross-entropy plus 1 - dice over the labels of the batch.

    Args: seg logits [N,19,H,W]; labels int64 [N,H,W], IGNORED where unknown; weight [19].
    """
    known = labels != IGNORED
    ids = labels.where(known, 0)
    log_p = seg.log_softmax(1)
    at_truth = log_p.gather(1, ids[:, None])[:, 0]
    weights_here = weight[ids] * known
    entropy = -(weights_here * at_truth).sum() / weights_here.sum()
    hit = (at_truth.exp() * known).flatten()
    counted = known.float().flatten()
    both = torch.zeros(len(LABELS)).index_add(0, ids.flatten(), hit)
    truth = torch.zeros(len(LABELS)).index_add(0, ids.flatten(), counted)
    said = log_p.exp().sum((0, 2, 3))
    dice = (2 * both + 10) / (said + truth + 10)
    return entropy + (1 - dice)[truth > 0].mean()


@dataclass
class FaceTask:
    """What the three tasks share: data, one network, one optimiser, export."""

    name: str
    heads: Heads
    network: nn.Module
    lr: float
    half: bool

    def __post_init__(self) -> None:
        self.network = self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.modules: dict[str, nn.Module] = {"network": self.network}
        self.averaged = ("network",)
        decayed = [p for p in self.network.parameters() if p.ndim > 1]
        plain = [p for p in self.network.parameters() if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": 0.02}, {"params": plain, "weight_decay": 0.0}]
        self.optimisers: dict[str, torch.optim.Optimizer] = {
            "network": torch.optim.AdamW(groups, lr=self.lr, betas=(0.9, 0.98))
        }
        self.size = len(self.heads.train)

    def batch(self, indices: Tensor) -> np.ndarray:
        """Indices into all pictures, of training items."""
        return self.heads.train[indices.numpy()]

    def run(self, images: Tensor) -> Any:
        """The network on pictures in [0,1]; in bfloat16 where asked for."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.half):
            return self.network((images * 2 - 1).contiguous(memory_format=torch.channels_last))

    def update(self, loss: Tensor) -> None:
        """One step of the optimiser, with the gradient's norm held below 1."""
        optimiser = self.optimisers["network"]
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        optimiser.step()

    def export(
        self,
        modules: dict[str, nn.Module],
        figures: dict[str, float],
        folder: Path,
        record: dict[str, Any],
    ) -> None:
        """Write the weight file that semedit/data ships."""
        network = modules["network"]
        metadata = {
            "kind": self.name,
            "config": json.dumps(network.config),
            "command": f"semedit train {self.name}",
            "seed": str(record["seed"]),
            "data": f"{self.size} rendered pictures of heads",
            "training": json.dumps(record),
            "figures": json.dumps({k: round(v, 4) for k, v in figures.items()}),
            "licence": "MIT",
        }
        weights.save(folder / f"{self.name}.safetensors", networks.tensors(network), metadata)


def wing(error: Tensor, width: float = 0.04, curve: float = 0.01) -> Tensor:
    """Logarithmic for small errors, linear for large ones.

    Source: Feng et al. 2018, arXiv:1711.06753.
    """
    offset = width - width * float(np.log1p(width / curve))
    return torch.where(error < width, width * torch.log1p(error / curve), error - offset)


def face_views(n: int) -> View:
    """Where LandmarkNet looks: half as a cascade proposes, half as a first look corrects.

    The picture is the aligned crop, so the face's own square is always the same one.
    """
    rough = chance(n, 0.5)
    spread = torch.where(rough, 1.0, 0.25)
    rotation = spread * torch.where(chance(n, 0.3), uniform(n, -0.75, 0.75), 0.25 * torch.randn(n))
    side = VIEW_SIDE * (spread * 0.22 * torch.randn(n)).clamp(-0.5, 0.5).exp()
    shift = (spread * VIEW_SIDE * 0.11)[:, None] * torch.randn(n, 2).clamp(-2.5, 2.5)
    centre = torch.tensor([0.5, 0.5 + VIEW_DOWN]) + shift
    return View(centre, side, rotation, chance(n, 0.5))


def false_views(n: int) -> View:
    """Squares about a picture of a face that show no whole face: far off, tiny, huge, or turned."""
    kind = torch.randint(0, 4, (n,))
    angle = uniform(n, 0, 6.2832)
    away = torch.where(kind == 0, uniform(n, 0.48, 0.9), uniform(n, 0, 0.2))
    centre = 0.5 + torch.stack([angle.cos(), angle.sin()], 1) * away[:, None]
    side = 0.85 * (0.2 * torch.randn(n)).exp()
    side = torch.where(kind == 1, uniform(n, 0.12, 0.38), side)
    side = torch.where(kind == 2, uniform(n, 2.2, 4.0), side)
    rotation = torch.where(kind == 3, uniform(n, 1.9, 4.38), 0.3 * torch.randn(n))
    return View(centre, side, rotation, chance(n, 0.5))


def channels(pictures: np.ndarray) -> Tensor:
    """uint8 [N,H,W,3] -> uint8 tensor [N,3,H,W]."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous()


def join(a: View, b: View) -> View:
    """The views of a, then those of b."""
    pairs = ((a.centre, b.centre), (a.side, b.side), (a.rotation, b.rotation), (a.mirror, b.mirror))
    return View(*(torch.cat(pair) for pair in pairs))


class LandmarkTask(FaceTask):
    """LandmarkNet from squares about faces, well and badly placed, and about no faces."""

    def __init__(self, options: LandmarkTrainer, heads: Heads, mistakes: np.ndarray) -> None:
        super().__init__("landmarks", heads, networks.LandmarkNet(), options.lr, options.half)
        self.options = options
        self.resolution = int(self.network.config["size"])  # type: ignore[index]
        self.clutter = channels(clutter(512, STORED))
        self.mined = channels(mistakes)

    def step(self, indices: np.ndarray, progress: float) -> dict[str, float]:
        """One update; the first pictures of the batch show faces, the last ones none."""
        del progress
        n = len(indices)
        true = n - int(n * self.options.negatives)
        images = self.heads.pictures(indices)
        view = self.spoil(images, true)
        seen = self.look(images, view, self.scenes(n))
        seen, covered = augment.occlude(augment.photograph(seen))
        points = augment.move(self.heads.points[indices], view)[:true]
        points = mirrored_points(points, view.mirror[:true])
        visible = mirrored_points(self.heads.visible[indices][:true], view.mirror[:true])
        visible = visible & ~at(covered[:true], points)
        out = self.run(seen)
        # A face that light or noise has wiped out teaches nothing.
        clear = (seen[:true].mean(1).std((1, 2)) > 0.06).float()
        error = (out.points[:true] - points).norm(dim=-1) * view.side[:true, None]
        place = (clear[:, None] * (0.4 + 0.6 * visible.float()) * wing(error)).mean()
        shown = F.binary_cross_entropy_with_logits(out.visible[:true], visible.float())
        target = (torch.arange(n) < true).float()
        counted = torch.cat([clear, torch.ones(n - true)])
        face = F.binary_cross_entropy_with_logits(out.face, target, counted)
        self.update(10 * place + 0.2 * shown + 0.5 * face)
        right = ((out.face > 0) == (target > 0.5)).float().mean()
        values = {"nme": error.mean() / EYES, "visible": shown, "face": face, "face_right": right}
        return {name: float(torch.as_tensor(value).detach()) for name, value in values.items()}

    def spoil(self, images: Tensor, true: int) -> View:
        """Replace pictures from `true` on by what shows no face; where to look at all of them.

        A third stays heads, looked at in the wrong place; then clutter; half is mined.
        """
        n = len(images)
        a, b = true + (n - true) // 3, true + (n - true) // 2
        images[a:b] = self.scenes(b - a)
        images[b:] = self.mistakes(n - b)
        close = face_views(n - b)
        close = View(
            close.centre - torch.tensor([0.0, VIEW_DOWN]),
            close.side / (VIEW_SIDE * MARGIN),
            close.rotation,
            close.mirror,
        )
        return join(join(face_views(true), false_views(b - true)), close)

    def mistakes(self, n: int) -> Tensor:
        """What the cascade wrongly proposes, float32 [n,3,160,160] in [0,1]."""
        if not len(self.mined):
            return self.scenes(n)
        return self.mined[torch.randint(0, len(self.mined), (n,))].float() / 255

    def scenes(self, n: int) -> Tensor:
        """Pictures without faces, float32 [n,3,160,160] in [0,1]."""
        return self.clutter[torch.randint(0, len(self.clutter), (n,))].float() / 255

    def look(self, images: Tensor, view: View, around: Tensor) -> Tensor:
        """What the views show; beyond the picture, its reflection or other scenes."""
        places = augment.grid(view, self.resolution)
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
            images = self.heads.pictures(chosen)
            straight = torch.zeros(n, dtype=torch.bool)
            view = View(
                torch.tensor([0.5, 0.5 + VIEW_DOWN]) + 0.02 * torch.randn(n, 2),
                VIEW_SIDE * (0.05 * torch.randn(n)).exp(),
                0.05 * torch.randn(n),
                straight,
            )
            seen = augment.see(images, augment.grid(view, self.resolution))
            out = network(seen * 2 - 1)
            truth = augment.move(self.heads.points[chosen], view)
            errors.append((out.points - truth).norm(dim=-1).mean(1) * view.side / EYES)
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


def crop_views(n: int, jitter: float) -> View:
    """Aligned crops as landmarks that are slightly off would cut them."""
    return View(
        0.5 + 0.5 * jitter * torch.randn(n, 2).clamp(-2, 2),
        (jitter * torch.randn(n).clamp(-2, 2)).exp(),
        jitter * torch.randn(n).clamp(-2, 2),
        chance(n, 0.5),
    )


class MultiTask(FaceTask):
    """FaceNet: labels, camera and attributes at once."""

    def __init__(self, options: FaceTrainer, heads: Heads) -> None:
        super().__init__("faces", heads, networks.FaceNet(), options.lr, options.half)
        self.options = options
        self.resolution = int(self.network.config["size"])  # type: ignore[index]
        some = np.asarray(heads.labels[heads.train[:: max(1, len(heads.train) // 400)]])
        share = np.bincount(some.ravel(), minlength=256)[: len(LABELS)] / some.size
        weight = 1 / np.sqrt(share + 1e-4)
        self.label_weight = torch.from_numpy(weight / (weight * share).sum()).float()
        self.rate = heads.attributes[heads.train].mean(0).clamp(0.02, 0.98)

    def step(self, indices: np.ndarray, progress: float) -> dict[str, float]:
        """One update on augmented crops."""
        del progress
        view = crop_views(len(indices), self.options.jitter)
        places = augment.grid(view, self.resolution)
        seen = augment.photograph(augment.see(self.heads.pictures(indices), places))
        seen, covered = augment.occlude(seen, 0.25)
        labels = mirrored_labels(self.labels(indices, places), view.mirror)
        labels[covered] = IGNORED
        six = moved_six(self.heads.six[indices], view)
        truth = self.heads.attributes[indices]
        out = self.run(seen)
        seg = seg_loss(out.seg, labels, self.label_weight)
        scale = torch.tensor(networks.SIX_SCALE)
        camera = F.smooth_l1_loss(out.six / scale, six / scale, beta=0.1)
        traits = attribute_loss(out.attributes, truth, self.rate)
        self.update(seg + camera + self.options.attributes * traits)
        with torch.no_grad():
            angle = torch.rad2deg((out.six - six)[:, :3].abs().mean())
            iou = mean_iou(out.seg[:4].argmax(1), labels[:4])
        values: dict[str, Any] = {
            "seg": seg,
            "camera": camera,
            "traits": traits,
            "angle_deg": angle,
            "iou": iou,
        }
        return {name: float(torch.as_tensor(value).detach()) for name, value in values.items()}

    def labels(self, indices: np.ndarray, places: Tensor | None = None) -> Tensor:
        """int64 [N,H,W]: label maps as stored, or sampled at places."""
        stored = torch.from_numpy(np.ascontiguousarray(self.heads.labels[indices]))
        if places is None:
            return stored.long()
        return augment.see(stored[:, None].float(), places, "nearest")[:, 0].long()

    def evaluate(self, modules: dict[str, nn.Module]) -> dict[str, float]:
        """parse_miou, pose_mae_deg and attribute_balanced_accuracy of held-out crops."""
        network, held = modules["network"], self.heads.held[:1000]
        said, angle, logits = [], [], []
        for chosen in np.array_split(held, max(1, len(held) // 32)):
            out = network(self.heads.pictures(chosen) * 2 - 1)
            said.append(F.interpolate(out.seg, (STORED, STORED), mode="bilinear").argmax(1))
            angle.append((out.six - self.heads.six[chosen])[:, :3].abs())
            logits.append(out.attributes)
        return {
            "parse_miou": mean_iou(torch.cat(said), self.labels(held)),
            "pose_mae_deg": float(torch.rad2deg(torch.cat(angle).mean())),
            "attribute_balanced_accuracy": balanced_accuracy(
                torch.cat(logits), self.heads.attributes[held]
            ),
        }


class JudgeTask(FaceTask):
    """JudgeNet: attributes only."""

    def __init__(self, options: JudgeTrainer, heads: Heads) -> None:
        super().__init__("judge", heads, networks.JudgeNet(), options.lr, options.half)
        self.options = options
        self.resolution = int(self.network.config["size"])  # type: ignore[index]
        self.rate = heads.attributes[heads.train].mean(0).clamp(0.02, 0.98)

    def step(self, indices: np.ndarray, progress: float) -> dict[str, float]:
        """One update on augmented crops."""
        del progress
        places = augment.grid(crop_views(len(indices), self.options.jitter), self.resolution)
        seen = augment.photograph(augment.see(self.heads.pictures(indices), places), 0.7)
        loss = attribute_loss(self.run(seen), self.heads.attributes[indices], self.rate)
        self.update(loss)
        return {"traits": float(loss.detach())}

    def evaluate(self, modules: dict[str, nn.Module]) -> dict[str, float]:
        """attribute_balanced_accuracy of held-out crops."""
        network, held = modules["network"], self.heads.held[:1000]
        parts = np.array_split(held, max(1, len(held) // 32))
        logits = torch.cat([network(self.heads.pictures(part) * 2 - 1) for part in parts])
        truth = self.heads.attributes[held]
        return {"attribute_balanced_accuracy": balanced_accuracy(logits, truth)}


@dataclass(frozen=True)
class LandmarkTrainer:
    """Landmarks and face verification from proposals."""

    name: ClassVar[str] = "landmarks"

    batch_size: int = 64
    lr: float = 2e-3  # AdamW
    negatives: float = 0.4  # share of each batch without a face
    mined: int = 120  # scenes, and as many heads, that are searched for false proposals
    half: bool = True  # compute in bfloat16

    def start(self, data: Path, seed: int) -> LandmarkTask:
        """The task on a folder of rendered heads; the loop has seeded torch by `seed`."""
        heads = read(data)
        kept = data / f"mined-{self.mined}-{STORED}.npy"
        if not kept.is_file():
            chosen = heads.train[:: max(1, len(heads.train) // self.mined)][: self.mined]
            pictures = [np.asarray(heads.images[i]) for i in chosen]
            np.save(kept, mined(pictures, self.mined, STORED))
        return LandmarkTask(self, heads, np.load(kept))


@dataclass(frozen=True)
class FaceTrainer:
    """Label map, camera and attributes from aligned crops."""

    name: ClassVar[str] = "faces"

    batch_size: int = 32
    lr: float = 2e-3  # AdamW
    jitter: float = 0.05  # standard deviation of scale and rotation; twice that of the shift
    attributes: float = 0.7  # weight of their loss
    half: bool = True  # compute in bfloat16

    def start(self, data: Path, seed: int) -> MultiTask:
        """The task on a folder of rendered heads; the loop has seeded torch by `seed`."""
        return MultiTask(self, read(data))


@dataclass(frozen=True)
class JudgeTrainer:
    """Attributes from aligned crops, for evaluations only: train it with another seed."""

    name: ClassVar[str] = "judge"

    batch_size: int = 48
    lr: float = 2e-3  # AdamW
    jitter: float = 0.04  # standard deviation of scale and rotation; twice that of the shift
    half: bool = True  # compute in bfloat16

    def start(self, data: Path, seed: int) -> JudgeTask:
        """The task on a folder of rendered heads; the loop has seeded torch by `seed`."""
        return JudgeTask(self, read(data))
