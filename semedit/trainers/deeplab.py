"""`semedit train deeplab`: DeepLabv3 on the eight face components of CelebAMask-HQ."""

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

from semedit import metrics, weights
from semedit.datasets.celeba import read_picture
from semedit.datasets.celebamask import IMAGES, read_components, read_folder
from semedit.datasets.split import held_out
from semedit.errors import InputError
from semedit.faces.components import COMPONENTS
from semedit.faces.deeplab import WEIGHTS, DeepLab
from semedit.faces.networks import tensors
from semedit.trainers.loop import Schedule, write_weights
from semedit.trainers.parallel import device_of

HELD = 200  # pictures that figures are taken on, at most


class DeepLabTask:
    """What changes while DeepLab trains."""

    def __init__(self, options: DeepLabTrainer, data: Path) -> None:
        self.options, self.data = options, data
        self.device = device_of(options.device)
        numbers = np.array(read_folder(data))
        held = held_out(len(numbers))
        self.train, self.held = numbers[~held], numbers[held]
        self.network = DeepLab(len(COMPONENTS), options.size, options.body)
        if options.backbone:
            _begin(self.network, Path(options.backbone))
        self.network.to(self.device)
        self.modules: dict[str, nn.Module] = {"network": self.network}
        self.averaged: tuple[str, ...] = ()
        self.optimisers: dict[str, torch.optim.Optimizer] = {
            "network": torch.optim.Adam(self.network.parameters(), lr=options.lr)
        }
        self.size = len(self.train)
        self._readers = ThreadPoolExecutor(os.cpu_count() or 1)

    def read(self, numbers: np.ndarray) -> tuple[Tensor, Tensor]:
        """Pictures float32 [N,3,size,size] in [-1,1], components int64 [N,size,size]."""
        size = self.options.size
        paths = [self.data / IMAGES / f"{number}.jpg" for number in numbers]
        images = list(self._readers.map(lambda path: read_picture(path, size), paths))
        maps = list(self._readers.map(lambda n: read_components(self.data, int(n), size), numbers))
        pixels = torch.from_numpy(np.stack(images)).to(self.device).permute(0, 3, 1, 2)
        return pixels.float() / 127.5 - 1, torch.from_numpy(np.stack(maps)).to(self.device).long()

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        return self.read(self.train[indices.numpy()])

    def step(self, batch: tuple[Tensor, Tensor], progress: float) -> dict[str, float]:
        """One update; half of the pictures are mirrored (no component is left or right)."""
        del progress
        images, truth = batch
        mirrored = (torch.rand(len(images), 1, 1, 1) < 0.5).to(self.device)
        images = torch.where(mirrored, images.flip(-1), images)
        truth = torch.where(mirrored[:, 0], truth.flip(-1), truth)
        loss = F.cross_entropy(self.network(images), truth)
        optimiser = self.optimisers["network"]
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        return {"loss": float(loss.detach())}

    def evaluate(self, modules: dict[str, nn.Module]) -> dict[str, float]:
        """component_miou over held-out pictures, from one confusion matrix."""
        held, classes = self.held[:HELD], len(COMPONENTS)
        if not len(held):
            return {}
        counts = torch.zeros(classes, classes, dtype=torch.long)
        for part in np.array_split(held, -(-len(held) // 4)):
            images, truth = self.read(part)
            found = modules["network"](images).argmax(1)
            counts += metrics.confusion(found, truth, classes).cpu()
        return {"component_miou": metrics.mean_iou(counts)}

    def export(
        self,
        modules: dict[str, nn.Module],
        figures: dict[str, float],
        folder: Path,
        record: dict[str, Any],
    ) -> None:
        """Write deeplab.safetensors."""
        network = modules["network"]
        write_weights(
            folder / f"{WEIGHTS}.safetensors",
            tensors(network),
            record,
            figures,
            f"{self.size} pictures of CelebAMask-HQ",
            WEIGHTS,
            network.config,
            licence="CelebAMask-HQ: non-commercial research",
        )


def _begin(network: DeepLab, path: Path) -> None:
    """Fill DeepLab's body from a classifier's weights, torchvision's ResNet-50 or MobileNetV3.

    Raises: InputError: they are those of another network.
    """
    body = network.network.backbone
    own = body.state_dict()
    held = weights.load_pickle(path)
    fitting = {k.removeprefix("features."): v for k, v in held.items()}
    fitting = {k: v for k, v in fitting.items() if k in own and own[k].shape == v.shape}
    lacking = own.keys() - fitting.keys()
    if lacking:
        raise InputError(f"{path} lacks {len(lacking)} tensors of the body ({min(lacking)})")
    body.load_state_dict(fitting)


@dataclass(frozen=True)
class DeepLabTrainer:
    """DeepLabv3 for the eight face components, whose map is the mask M of attribute edits.

    Source: Chen et al. 2017, arXiv:1706.05587, by the schedule of Pernuš, Štruc and Dobrišek
    2020: 5 epochs at a rate of 3e-4, Adam.
    """

    name: ClassVar[str] = WEIGHTS
    schedule: ClassVar[Schedule] = Schedule(epochs=5, warmup_steps=0, final_rate=1.0)

    batch_size: int = 8
    lr: float = 3e-4  # Adam
    size: int = 512  # pixels a side that the network looks at
    body: Literal["resnet50", "mobilenet"] = "resnet50"  # mobilenet for small machines
    backbone: str = ""  # torchvision checkpoint that the body starts from; empty: random
    device: str = "auto"  # to train on; auto: a GPU where there is one

    def start(self, data: Path) -> DeepLabTask:
        """The task on a CelebAMask-HQ folder."""
        return DeepLabTask(self, data)
