"""Losses of inversion and editing, one value per face; regions and how they are weighed.

Every loss returns [N], so that faces optimised as one batch do not touch each other.
"""

from semedit.losses.adversarial import discriminator_loss, generator_loss, path_lengths, r1
from semedit.losses.features import (
    LPIPS_SIDE,
    Lpips,
    NetworkFeatures,
    NoPerceptual,
    Perceptual,
    distance,
    perceptual,
)
from semedit.losses.regions import changed, dilate, drawn, feather, region
from semedit.losses.semantic import Loss, SemanticLoss, Target, image_loss, label_loss, noise_loss

__all__ = [
    "LPIPS_SIDE",
    "Loss",
    "Lpips",
    "NetworkFeatures",
    "NoPerceptual",
    "Perceptual",
    "SemanticLoss",
    "Target",
    "changed",
    "dilate",
    "discriminator_loss",
    "distance",
    "drawn",
    "feather",
    "generator_loss",
    "image_loss",
    "label_loss",
    "noise_loss",
    "path_lengths",
    "perceptual",
    "r1",
    "region",
]
