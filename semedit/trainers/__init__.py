"""Trainers by name: what `semedit train NAME` knows. Add one: write its file, add its line."""

from __future__ import annotations

from typing import Any

from semedit.trainers.attributes import AttributeTrainer
from semedit.trainers.canonical import CanonicalTrainer
from semedit.trainers.cnerf import CNeRFTrainer
from semedit.trainers.deeplab import DeepLabTrainer
from semedit.trainers.detail import DetailTrainer
from semedit.trainers.detector import DetectorTrainer
from semedit.trainers.encoder import EncoderTrainer
from semedit.trainers.faces import FaceTrainer, JudgeTrainer, TraitTrainer
from semedit.trainers.ide3d import IDE3DTrainer
from semedit.trainers.identity import IdentityTrainer
from semedit.trainers.l2sae import L2SAETrainer
from semedit.trainers.landmarks import LandmarkTrainer
from semedit.trainers.lift import LiftTrainer
from semedit.trainers.semfaceedit import SemFaceEditTrainer
from semedit.trainers.stylegan2 import StyleGAN2Trainer
from semedit.trainers.triplane import HeadsTrainer

TRAINERS: dict[str, Any] = {
    "detector": DetectorTrainer,
    "landmarks": LandmarkTrainer,
    "faces": FaceTrainer,
    "traits": TraitTrainer,
    "judge": JudgeTrainer,
    "heads-128": HeadsTrainer,
    "encoder": EncoderTrainer,
    "canonical": CanonicalTrainer,
    "lift": LiftTrainer,
    "identity": IdentityTrainer,
    "detail": DetailTrainer,
    "attributes": AttributeTrainer,
    "deeplab": DeepLabTrainer,
    "stylegan2": StyleGAN2Trainer,
    "l2sae": L2SAETrainer,
    "cnerf": CNeRFTrainer,
    "ide3d": IDE3DTrainer,
    "semfaceedit": SemFaceEditTrainer,
}
