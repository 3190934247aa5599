"""`semedit train deeplab`: DeepLabv3 on the eight face components of CelebAMask-HQ.

CelebAMask-HQ as it is published:

    CelebA-HQ-img/0.jpg ... 29999.jpg                  1024 x 1024 pixels
    CelebAMask-HQ-mask-anno/0/00000_skin.png ...       512 x 512, white where the part is;
                                                       2000 pictures to a folder of masks

A part that a face has not has no file. Every twentieth picture is held out.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from semedit import metrics, weights
from semedit.errors import InputError
from semedit.faces.components import COMPONENTS, component_ids
from semedit.faces.deeplab import WEIGHTS, DeepLab
from semedit.faces.networks import tensors
from semedit.images import LABELS
from semedit.trainers.celeba import read_picture
from semedit.trainers.loop import Schedule, write_weights
from semedit.trainers.parallel import device_of

IMAGES, MASKS = "CelebA-HQ-img", "CelebAMask-HQ-mask-anno"
PER_FOLDER = 2000  # pictures whose masks share a folder
HELD = 200  # pictures that figures are taken on, at most


def read_folder(data: Path) -> list[int]:
    """Numbers of the pictures that a CelebAMask-HQ folder holds masks for.

    Raises: InputError: there are none.
    """
    found = sorted(
        int(path.stem)
        for path in (data / IMAGES).glob("*.jpg")
        if path.stem.isdecimal() and mask_path(data, int(path.stem), "skin").is_file()
    )
    if not found:
        raise InputError(
            f"{data} holds no pictures with masks: {IMAGES}/0.jpg, {MASKS}/0/00000_skin.png",
            "give --data the folder CelebAMask-HQ",
        )
    return found


def mask_path(data: Path, number: int, part: str) -> Path:
    """The file of one part of one picture."""
    return data / MASKS / str(number // PER_FOLDER) / f"{number:05d}_{part}.png"


def read_components(data: Path, number: int, size: int) -> np.ndarray:
    """uint8 [size,size]: index into COMPONENTS.

    Raises: InputError: a mask cannot be read.
    """
    return component_ids().numpy().astype(np.uint8)[read_label_map(data, number, size)]


def read_label_map(data: Path, number: int, size: int) -> np.ndarray:
    """uint8 [size,size]: index into LABELS; later parts lie over earlier ones.

    Raises: InputError: a mask cannot be read.
    """
    found = np.zeros((size, size), np.uint8)
    for label, part in enumerate(LABELS):
        path = mask_path(data, number, part)
        if label == 0 or not path.is_file():
            continue
        try:
            with Image.open(path) as image:
                mask = image.convert("L").resize((size, size), Image.Resampling.NEAREST)
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: {error}") from None
        found[np.asarray(mask) >= 128] = label
    return found


class DeepLabTask:
    """What changes while DeepLab trains."""

    def __init__(self, options: DeepLabTrainer, data: Path) -> None:
        self.options, self.data = options, data
        self.device = device_of(options.device)
        numbers = np.array(read_folder(data))
        held = np.arange(len(numbers)) % 20 == 0 if len(numbers) > 1 else np.zeros(1, bool)
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

    def start(self, data: Path, seed: int) -> DeepLabTask:
        """The task on a CelebAMask-HQ folder; the loop has seeded torch by `seed`."""
        return DeepLabTask(self, data)
