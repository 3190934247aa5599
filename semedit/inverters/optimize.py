"""Inversion by optimising codes from the average face."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from semedit import losses
from semedit.generators.contract import Generator
from semedit.inverters.coarse import phases
from semedit.inverters.codes import Offsets, check_faces, spread
from semedit.inverters.contract import Inverter
from semedit.inverters.descent import Progress, Steps
from semedit.latents import Latent, fingerprint


@dataclass(frozen=True)
class Optimize(Inverter):
    """Find the codes that draw a photograph, from w_avg.

        w* = argmin  label_weight L_s(S', S) + image_weight |I' - I|^2
                   + perceptual_weight L_vgg(I', I) + prior_weight |(w - w_avg) / std|^2

    Source: Karras et al. 2020, arXiv:1912.04958 (projection); the loss is equation 7 of Verma and
    Raman 2025, arXiv:2506.22833.
    Departs: codes move in units of their own standard deviation; no noise is optimised.
    """

    requires: ClassVar[frozenset[str]] = frozenset()
    space: Literal["w", "w+"] = "w+"  # "w+": each layer alone, "w": one code for all layers
    steps: int = 150  # Adam updates
    lr: float = 0.05  # standard deviations per update
    label_weight: float = 1.0  # of the label maps' squared difference
    image_weight: float = 10.0  # of the squared pixel difference
    perceptual_weight: float = 1.0  # of the perceptual distance
    prior_weight: float = 0.005  # of the squared way from w_avg
    labels: Literal["mse", "ce"] = "mse"  # squared difference, or cross-entropy, of label maps
    perceptual: Literal["auto", "lpips", "faces", "none"] = "auto"  # backbone of that distance
    coarse: int = 0  # pixels a side of the first three quarters of the steps; 0: all at full size

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
        Returns: Latent of N faces, optimised as one batch.
        Raises:  ShapeError: R or N differ.  TraitError: `coarse`, but the generator draws at one
                 resolution only.
        """
        check_faces(generator, images, labels, c)
        perceptual = losses.perceptual(self.perceptual, images.device)
        stretches = phases(generator, images, labels, self.steps, self.coarse)
        mean = {k: v.expand(len(c), *v.shape[1:]) for k, v in generator.mean_codes().items()}
        offsets = Offsets(mean, spread(generator, c), self.space)
        count = Steps(progress, self.steps)
        for phase in stretches:
            loss = losses.SemanticLoss(
                losses.SemanticLoss.inversion(phase.images, phase.labels),
                perceptual,
                self.label_weight,
                self.image_weight,
                self.perceptual_weight,
                self.labels,
            )
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
        return Latent(
            codes=codes,
            c=c,
            generator=generator.name,
            fingerprint=fingerprint(generator),
            method="optimize",
            meta={"perceptual": perceptual.name, **final.told(), "space": self.space},
        )
