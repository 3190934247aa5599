"""Trainers on aligned crops of rendered heads (the folders `semedit heads` writes).

    faces      FaceNet: label map (cross-entropy + dice) and camera
    traits     TraitNet: attributes, and the label map that tells it where to look
    judge      JudgeNet: attributes

Every twentieth head is held out for the figures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semedit import metrics
from semedit.datasets import augment
from semedit.datasets.augment import CropView, chance, mirrored_labels
from semedit.datasets.clutter import clutter
from semedit.datasets.rendered import Heads, read_heads
from semedit.faces import align, networks
from semedit.media.labels import LABELS
from semedit.trainers.loop import write_weights
from semedit.trainers.parts.start_from import start_from_file, whole_training

IGNORED = 255  # label of pixels that a blob covers
STORED = 160  # px a side of the pictures that small networks are trained on


def mirrored_points(points: Tensor, mirror: Tensor) -> Tensor:
    """Values [N,68,...] renamed where their picture was mirrored."""
    order = torch.from_numpy(align.MIRROR)
    shape = (-1,) + (1,) * (points.ndim - 1)
    return torch.where(mirror.view(shape), points[:, order], points)


def moved_six(six: Tensor, view: CropView) -> Tensor:
    """Camera numbers [N,6] of what the view shows; the same fold as cameras.crop."""
    sin, cos = view.rotation.sin(), view.rotation.cos()
    dx, dy = (six[:, 4:] - (view.centre - 0.5)).unbind(1)
    middle = torch.stack([cos * dx + sin * dy, cos * dy - sin * dx], 1) / view.side[:, None]
    angles = torch.stack([six[:, 0], six[:, 1], six[:, 2] - view.rotation], 1)
    out = torch.cat([angles, (six[:, 3] - view.side.log())[:, None], middle], 1)
    sign = torch.where(view.mirror[:, None], out.new_tensor(networks.MIRROR_SIX), 1.0)
    return out * sign


def known_miou(said: Tensor, truth: Tensor) -> float:
    """Mean IoU over the labels that occur in truth, where it is not IGNORED."""
    known = truth != IGNORED
    return metrics.mean_iou(metrics.confusion(said[known], truth[known]))


def channels(pictures: np.ndarray) -> Tensor:
    """uint8 [N,H,W,3] -> uint8 tensor [N,3,H,W]."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous()


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
    """What the tasks share: data, one network, one optimiser, export."""

    name: str
    heads: Heads
    network: nn.Module
    lr: float
    half: bool
    before: dict[str, Any] = field(default_factory=dict)  # training of the file it starts from

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
        self.resolution = int(self.network.config["size"])  # type: ignore[index]
        self.clutter = channels(clutter(512, self.heads.size))

    def scenes(self, n: int) -> Tensor:
        """Pictures without faces, float32 [n,3,R,R] in [0,1], R as the heads' pictures."""
        return self.clutter[torch.randint(0, len(self.clutter), (n,))].float() / 255

    def labels(self, indices: np.ndarray, places: Tensor | None = None) -> Tensor:
        """int64 [N,H,W]: label maps as stored, or sampled at places."""
        stored = self.heads.labels(indices)
        if places is None:
            return stored.long()
        return augment.see(stored[:, None].float(), places, "nearest")[:, 0].long()

    def batch(self, indices: Tensor) -> np.ndarray:
        """Indices into all pictures, of training items."""
        return self.heads.train[indices.numpy()]

    def run(self, images: Tensor, **options: Any) -> Any:
        """The network on pictures in [0,1]; in bfloat16 where asked for."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.half):
            images = (images * 2 - 1).contiguous(memory_format=torch.channels_last)
            return self.network(images, **options)

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
        write_weights(
            folder / f"{self.name}.safetensors",
            networks.tensors(network),
            whole_training(record, self.before),
            figures,
            f"{self.size} rendered pictures of heads",
            self.name,
            network.config,
        )


def crop_views(n: int, jitter: float) -> CropView:
    """Aligned crops as landmarks that are slightly off would cut them."""
    return CropView(
        0.5 + 0.5 * jitter * torch.randn(n, 2).clamp(-2, 2),
        (jitter * torch.randn(n).clamp(-2, 2)).exp(),
        jitter * torch.randn(n).clamp(-2, 2),
        chance(n, 0.5),
    )


@dataclass(frozen=True)
class Crops:
    """Augmented crops: images [N,3,R,R] in [0,1]; labels int64 [N,R,R], IGNORED where covered;
    view: where each looks; true: how many of the first ones show a face."""

    images: Tensor
    labels: Tensor
    view: CropView
    true: int


class CropTask(FaceTask):
    """What FaceNet and TraitNet share: crops with label maps."""

    def __init__(
        self, options: FaceTrainer | TraitTrainer, heads: Heads, network: nn.Module
    ) -> None:
        before = start_from_file(network, options.start_from) if options.start_from else {}
        super().__init__(options.name, heads, network, options.lr, options.half, before)
        self.options: Any = options
        some = heads.labels(heads.train[:: max(1, len(heads.train) // 400)]).numpy()
        share = np.bincount(some.ravel(), minlength=256)[: len(LABELS)] / some.size
        weight = (share + 1e-4) ** -options.rare
        self.label_weight = torch.from_numpy(weight / (weight * share).sum()).float()
        self.rate = heads.attributes[heads.train].mean(0).clamp(0.02, 0.98)

    def crops(self, indices: np.ndarray) -> Crops:
        """Pictures as photographs would show them; the last ones show no face."""
        n = len(indices)
        true = n - int(n * self.options.negatives)
        view = crop_views(n, self.options.jitter)
        places = augment.grid(view, self.resolution, augment.bends(n, self.options.bend))
        seen = augment.see(self.heads.pictures(indices), places)
        labels = self.labels(indices, places)
        around = augment.sized(self.scenes(n), self.resolution)
        seen = augment.rescene(seen, labels, around)
        seen[true:], labels[true:] = around[true:], 0  # no face: nothing but background
        seen = augment.photograph(seen, self.options.strength)
        seen, covered = augment.occlude(seen, 0.25)
        labels = mirrored_labels(labels, view.mirror)
        labels[covered] = IGNORED
        return Crops(seen, labels, view, true)


class MapTask(CropTask):
    """FaceNet: label map and camera at once."""

    def step(self, indices: np.ndarray, progress: float) -> dict[str, float]:
        """One update on augmented crops."""
        del progress
        crops = self.crops(indices)
        true = crops.true
        six = moved_six(self.heads.six[indices], crops.view)[:true]
        row, column = torch.randint(0, 2, (2,)).tolist()
        out = self.run(crops.images, part=(row, column))
        labels = crops.labels[:, row::2, column::2]
        seg = seg_loss(out.seg, labels, self.label_weight)
        scale = torch.tensor(networks.SIX_SCALE)
        camera = F.smooth_l1_loss(out.six[:true] / scale, six / scale, beta=0.1)
        self.update(seg + self.options.camera * camera)
        with torch.no_grad():
            angle = torch.rad2deg((out.six[:true] - six)[:, :3].abs().mean())
            iou = known_miou(out.seg[:4].argmax(1), labels[:4])
        values: dict[str, Any] = {"seg": seg, "camera": camera, "angle_deg": angle, "iou": iou}
        return {name: float(torch.as_tensor(value).detach()) for name, value in values.items()}

    def evaluate(self, modules: dict[str, nn.Module]) -> dict[str, float]:
        """parse_miou and pose_mae_deg of held-out crops."""
        network, held = modules["network"], self.heads.held[:1000]
        counts = torch.zeros(len(LABELS), len(LABELS), dtype=torch.long)
        angle = []
        for chosen in np.array_split(held, max(1, len(held) // 32)):
            out = network(self.heads.pictures(chosen) * 2 - 1)
            said = augment.sized(out.seg, self.heads.size).argmax(1)
            counts += metrics.confusion(said, self.labels(chosen))
            angle.append((out.six - self.heads.six[chosen])[:, :3].abs())
        return {
            "parse_miou": metrics.mean_iou(counts),
            "pose_mae_deg": float(torch.rad2deg(torch.cat(angle).mean())),
        }


class TraitTask(CropTask):
    """TraitNet: attributes, beside a coarse label map."""

    def step(self, indices: np.ndarray, progress: float) -> dict[str, float]:
        """One update on augmented crops."""
        del progress
        crops = self.crops(indices)
        row, column = torch.randint(0, 2, (2,)).tolist()
        out = self.run(crops.images, part=(row, column))
        seg = seg_loss(out.seg, crops.labels[:, row::2, column::2], self.label_weight)
        truth = self.heads.attributes[indices][: crops.true]
        traits = attribute_loss(out.attributes[: crops.true], truth, self.rate)
        self.update(self.options.seg * seg + traits)
        return {"seg": float(seg.detach()), "traits": float(traits.detach())}

    def evaluate(self, modules: dict[str, nn.Module]) -> dict[str, float]:
        """attribute_balanced_accuracy of held-out crops."""
        network = modules["network"]
        return held_out_accuracy(self.heads, lambda images: network(images).attributes)


def held_out_accuracy(heads: Heads, classify: Callable[[Tensor], Tensor]) -> dict[str, float]:
    """attribute_balanced_accuracy of held-out heads; classify: images in [-1,1] -> logits."""
    held = heads.held[:1000]
    parts = np.array_split(held, max(1, len(held) // 32))
    logits = torch.cat([classify(heads.pictures(part) * 2 - 1) for part in parts])
    right = metrics.balanced_accuracy(logits > 0, heads.attributes[held] > 0.5)
    return {"attribute_balanced_accuracy": float(right.nanmean())}


class JudgeTask(FaceTask):
    """JudgeNet: attributes only."""

    def __init__(self, options: JudgeTrainer, heads: Heads) -> None:
        super().__init__("judge", heads, networks.JudgeNet(), options.lr, options.half)
        self.options = options
        self.rate = heads.attributes[heads.train].mean(0).clamp(0.02, 0.98)

    def step(self, indices: np.ndarray, progress: float) -> dict[str, float]:
        """One update on augmented crops."""
        del progress
        places = augment.grid(crop_views(len(indices), self.options.jitter), self.resolution)
        seen = augment.see(self.heads.pictures(indices), places)
        around = augment.sized(self.scenes(len(indices)), self.resolution)
        seen = augment.rescene(seen, self.labels(indices, places), around, 0.3)
        seen = augment.photograph(seen, self.options.strength)
        loss = attribute_loss(self.run(seen), self.heads.attributes[indices], self.rate)
        self.update(loss)
        return {"traits": float(loss.detach())}

    def evaluate(self, modules: dict[str, nn.Module]) -> dict[str, float]:
        """attribute_balanced_accuracy of held-out crops."""
        return held_out_accuracy(self.heads, modules["network"])


@dataclass(frozen=True)
class FaceTrainer:
    """Label map and camera from aligned crops."""

    name: ClassVar[str] = "faces"

    batch_size: int = 24
    lr: float = 2e-3  # AdamW
    jitter: float = 0.05  # standard deviation of scale and rotation; twice that of the shift
    strength: float = 0.5  # of the changes of light, optics and file
    bend: float = 0.7  # strength of the smooth random displacements of a face's features
    negatives: float = 0.07  # share of each batch without a face
    camera: float = 1.0  # weight of the camera's loss
    rare: float = 0.2  # labels weigh as their share of the pixels to the power of minus this
    start_from: str = ""  # weight file of a like network, whose fitting tensors are taken over
    half: bool = True  # compute in bfloat16

    def start(self, data: Path) -> MapTask:
        """The task on a folder of rendered heads."""
        network = networks.FaceNet()
        return MapTask(self, read_heads(data, network.size), network)


@dataclass(frozen=True)
class TraitTrainer:
    """Attributes from aligned crops."""

    name: ClassVar[str] = "traits"

    batch_size: int = 32
    lr: float = 2e-3  # AdamW
    jitter: float = 0.05  # standard deviation of scale and rotation; twice that of the shift
    strength: float = 0.5  # of the changes of light, optics and file
    bend: float = 0.0  # strength of the smooth random displacements of a face's features
    negatives: float = 0.0  # share of each batch without a face
    seg: float = 0.3  # weight of the label map's loss
    rare: float = 0.35  # labels weigh as their share of the pixels to the power of minus this
    start_from: str = ""  # weight file of a like network, whose fitting tensors are taken over
    half: bool = True  # compute in bfloat16

    def start(self, data: Path) -> TraitTask:
        """The task on a folder of rendered heads."""
        return TraitTask(self, read_heads(data, STORED), networks.TraitNet())


@dataclass(frozen=True)
class JudgeTrainer:
    """Attributes from aligned crops, for evaluations only: train it with another seed."""

    name: ClassVar[str] = "judge"

    batch_size: int = 48
    lr: float = 2e-3  # AdamW
    jitter: float = 0.04  # standard deviation of scale and rotation; twice that of the shift
    strength: float = 0.4  # of the changes of light, optics and file
    half: bool = True  # compute in bfloat16

    def start(self, data: Path) -> JudgeTask:
        """The task on a folder of rendered heads."""
        return JudgeTask(self, read_heads(data, STORED))
