"""`semedit train attributes`: the branched network on CelebA's 40 attributes."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semedit import metrics
from semedit.datasets.celeba import Listed, read_celeba, read_picture
from semedit.faces.branched import WEIGHTS, BranchedNet
from semedit.faces.networks import tensors
from semedit.trainers.loop import Schedule, write_weights
from semedit.trainers.parallel import device_of

HELD = 2000  # pictures that figures are taken on, at most


class AttributeTask:
    """What changes while the branched network trains."""

    def __init__(self, options: AttributeTrainer, listed: Listed) -> None:
        self.options, self.listed = options, listed
        self.device = device_of(options.device)
        self.network = BranchedNet(listed.names, options.size, options.width)
        self.network.to(self.device)
        self.modules: dict[str, nn.Module] = {"network": self.network}
        self.averaged: tuple[str, ...] = ()
        kinds: dict[str, Any] = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}
        self.optimisers: dict[str, torch.optim.Optimizer] = {
            "network": kinds[options.optimiser](self.network.parameters(), lr=options.lr)
        }
        self.size = len(listed.train)
        self._readers = ThreadPoolExecutor(os.cpu_count() or 1)

    def pictures(self, rows: np.ndarray) -> Tensor:
        """float32 [N,3,size,size] in [-1,1]."""
        paths = [self.listed.paths[row] for row in rows]
        read = self._readers.map(lambda path: read_picture(path, self.options.size), paths)
        pixels = torch.from_numpy(np.stack(list(read))).to(self.device)
        return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures and what is true of them."""
        rows = self.listed.train[indices.numpy()]
        return self.pictures(rows), self.listed.truth[rows].to(self.device)

    def step(self, batch: tuple[Tensor, Tensor], progress: float) -> dict[str, float]:
        """One update; half of the pictures are mirrored."""
        del progress
        images, truth = batch
        mirrored = (torch.rand(len(images), 1, 1, 1) < 0.5).to(self.device)
        images = torch.where(mirrored, images.flip(-1), images)
        loss = F.binary_cross_entropy_with_logits(self.network(images), truth)
        optimiser = self.optimisers["network"]
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        return {"loss": float(loss.detach())}

    def evaluate(self, modules: dict[str, nn.Module]) -> dict[str, float]:
        """accuracy, and balanced accuracy of the attributes that occur with both values."""
        held = self.listed.held[:HELD]
        if not len(held):
            return {}
        parts = np.array_split(held, -(-len(held) // 64))
        logits = torch.cat([modules["network"](self.pictures(part)).cpu() for part in parts])
        truth = self.listed.truth[held]
        right = ((logits > 0) == (truth > 0.5)).float().mean()
        return {
            "attribute_accuracy": float(right),
            "attribute_balanced_accuracy": float(
                metrics.balanced_accuracy(logits > 0, truth > 0.5).nanmean()
            ),
        }

    def export(
        self,
        modules: dict[str, nn.Module],
        figures: dict[str, float],
        folder: Path,
        record: dict[str, Any],
    ) -> None:
        """Write attributes.safetensors."""
        network = modules["network"]
        write_weights(
            folder / f"{WEIGHTS}.safetensors",
            tensors(network),
            record,
            figures,
            f"{self.size} pictures, {len(self.listed.names)} attributes",
            WEIGHTS,
            network.config,
            licence="that of the pictures: CelebA is for research only",
        )


@dataclass(frozen=True)
class AttributeTrainer:
    """The branched classifier over CelebA's 40 attributes.

    Source: Vandenhende et al. 2019, arXiv:1904.02920, by the schedule of Pernuš, Štruc and
    Dobrišek 2020: 23 epochs, rate 0.05 that falls to a tenth every 40,000 steps, Adam.
    Departs: pictures are cut as FFHQ's are, which is what editors show the network.
    """

    name: ClassVar[str] = WEIGHTS
    schedule: ClassVar[Schedule] = Schedule(epochs=23, warmup_steps=0, decay_steps=40_000)

    batch_size: int = 32
    lr: float = 0.05  # initial rate
    optimiser: Literal["adam", "sgd"] = "adam"  # the paper has Adam for all its models
    size: int = 224  # pixels a side that the network looks at
    width: int = 32  # channels of every convolution
    device: str = "auto"  # to train on; auto: a GPU where there is one

    def start(self, data: Path) -> AttributeTask:
        """The task on a CelebA folder."""
        return AttributeTask(self, read_celeba(data))
