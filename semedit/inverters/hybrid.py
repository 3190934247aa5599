"""Hybrid inversion: an encoder's start, a short descent of the codes, a short pivotal tuning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from semedit import losses
from semedit.generators.contract import Generator
from semedit.inverters.coarse import phases
from semedit.inverters.codes import Offsets, check_faces, known_traits, spread
from semedit.inverters.contract import Inverter
from semedit.inverters.descent import Progress, Steps
from semedit.inverters.pivotal import tune_faces
from semedit.inverters.tuning import Tuning, chosen, only_planes
from semedit.latents import Latent, fingerprint
from semedit.options import check_traits


@dataclass(frozen=True)
class Hybrid(Inverter):
    """Start where an encoder sees the face, descend in W+, then tune the generator a little.

        w*     = argmin  label_weight L_s(S', S) + image_weight |I' - I|^2
                       + perceptual_weight L_vgg(I', I) + prior_weight |(w - E(I, S)) / std|^2
        theta* = argmin  the same around the pivot w*, + locality_weight L_R

    The camera and the crop are the face record's and stay fixed: left free, the pose drifts.

    Source: Sun et al. 2022 (IDE-3D), arXiv:2205.15517, section 3.2; the loss is equation 7 of
    Verma and Raman 2025, arXiv:2506.22833; tuning after Roich et al. 2021, arXiv:2106.05744.
    Departs: codes stay near the encoder's, in units of their own standard deviation; a 3D
    generator's planes are tuned, not its weights (see tuning.Tuning).
    """

    name: ClassVar[str] = "hybrid"
    requires: ClassVar[frozenset[str]] = frozenset({"encode"})
    steps: int = 20  # Adam updates of the codes, all faces as one batch
    lr: float = 0.4  # standard deviations per update
    labels: Literal["ce", "mse"] = "ce"  # cross-entropy, or squared difference, of label maps
    label_weight: float = 0.3  # of that
    image_weight: float = 10.0  # of the squared pixel difference
    perceptual_weight: float = 0.3  # of the perceptual distance
    prior_weight: float = 0.002  # of the squared way from the encoder's codes
    tune_steps: int = 30  # Adam updates of planes or weights; 0 leaves them
    tune_lr: float = 2e-3  # per update of a weight; planes move 25 times as far
    locality_weight: float = 0.0  # of keeping other views as the pivot has them
    layers: str = ""  # patterns of names to tune; empty: the generator's choice
    perceptual: Literal["auto", "lpips", "faces", "none"] = "auto"  # backbone of that distance
    coarse: int = 0  # pixels a side of the codes' first steps; see optimize
    camera: Literal["given", "encoder"] = "given"  # who tells yaw and pitch: face record or encoder

    def __call__(
        self,
        generator: Generator,
        images: Tensor,
        labels: Tensor,
        c: Tensor,
        progress: Progress | None = None,
    ) -> Latent:
        """
        Args:    images float32 [N,3,R,R] in [-1,1], R = generator.resolution; labels int64
                 [N,R,R]; c [N,25].
        Returns: Latent of N faces; tuned holds each face's differences, unless tune_steps is 0.
        Raises:  TraitError: the generator has no encoder, or none that predicts cameras where it
                 is asked to.  ShapeError: R or N differ.
                 OptionError: `layers` matches nothing.
        """
        check_traits(self.name, self, generator, known_traits())
        check_faces(generator, images, labels, c)
        perceptual = losses.perceptual(self.perceptual, images.device)
        together = only_planes(chosen(generator, self.layers))
        count = Steps(progress, self.steps + self.tune_steps * (1 if together else len(c)))
        with torch.no_grad():
            if self.camera == "encoder":
                c = generator.viewed(images, labels, c)
            start = generator.encode(images, labels, c)
        offsets = Offsets(start, spread(generator, c))
        for phase in phases(generator, images, labels, self.steps, self.coarse):
            targets = losses.SemanticLoss.inversion(phase.images, phase.labels)
            loss = losses.SemanticLoss(targets, perceptual, *self._weights, self.labels)
            codes, final = offsets.fitted(
                generator,
                c,
                loss,
                self.prior_weight,
                phase.steps,
                self.lr,
                count,
                phase.resolution,
            )
        latent = Latent(
            codes=codes,
            c=c,
            generator=generator.name,
            fingerprint=fingerprint(generator),
            method=self.name,
            meta={"perceptual": perceptual.name, **final.told()},
        )
        latent = self.lifted(generator, latent, images, labels)
        if self.tune_steps == 0:
            return latent
        tuning = Tuning(self.tune_steps, self.tune_lr, self.layers, self.locality_weight)
        return tune_faces(
            tuning,
            generator,
            latent,
            images,
            labels,
            perceptual,
            self._weights,
            0.0,
            count,
            self.labels,
        )

    def lifted(
        self, generator: Generator, latent: Latent, images: Tensor, labels: Tensor
    ) -> Latent:
        """The latent from which tuning starts: see inverters/lift.py."""
        return latent

    @property
    def _weights(self) -> tuple[float, float, float]:
        return self.label_weight, self.image_weight, self.perceptual_weight
