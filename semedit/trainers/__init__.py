"""Trainers by name: what `semedit train NAME` knows. Add one: write its file, add its line."""

from __future__ import annotations

from typing import Any

from .celeba import AttributeTrainer
from .celebamask import DeepLabTrainer
from .cnerf import CNeRFTrainer
from .encoder import EncoderTrainer
from .faces import FaceTrainer, JudgeTrainer
from .ide3d import IDE3DTrainer
from .l2sae import L2SAETrainer
from .landmarks import LandmarkTrainer
from .stylegan2 import StyleGAN2Trainer
from .triplane import HeadsTrainer

TRAINERS: dict[str, Any] = {
    "landmarks": LandmarkTrainer,
    "faces": FaceTrainer,
    "judge": JudgeTrainer,
    "heads-128": HeadsTrainer,
    "encoder": EncoderTrainer,
    "attributes": AttributeTrainer,
    "deeplab": DeepLabTrainer,
    "stylegan2": StyleGAN2Trainer,
    "l2sae": L2SAETrainer,
    "cnerf": CNeRFTrainer,
    "ide3d": IDE3DTrainer,
}
