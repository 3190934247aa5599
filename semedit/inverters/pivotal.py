"""Pivotal tuning inversion."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from semedit import losses
from semedit.generators.contract import Generator
from semedit.inverters.contract import Inverter
from semedit.inverters.descent import Descended, Progress, Steps
from semedit.inverters.optimize import Optimize
from semedit.inverters.tuning import WEIGHTS, Tuning, chosen, only_planes
from semedit.latents import Latent


@dataclass(frozen=True)
class Pivotal(Inverter):
    """Optimise a pivot in W, then tune the generator around it so that it draws one photograph.

        w_p    = argmin  label_weight L_s(S', S) + l2_weight |I' - I|^2
                       + perceptual_weight L_vgg(I', I) + prior_weight |(w - w_avg) / std|^2
        theta* = argmin  the same of G(w_p; theta), without the prior, + locality_weight L_R

    The first line is equation 7 of SemFaceEdit: `space=w+ label_weight=10 l2_weight=1
    prior_weight=0` has its weights and its offsets, of every layer of every code (geometry's W+
    and each region's W+, where a generator has both).

    Source: Roich et al. 2021, arXiv:2106.05744; Verma and Raman 2025, arXiv:2506.22833.
    Departs: keeps the weights' differences per face, not a pickled network; the label map counts
    where the generator draws one.
    """

    requires: ClassVar[frozenset[str]] = frozenset()
    space: Literal["w", "w+"] = "w"  # of the pivot: "w" keeps it editable, "w+" is nearer
    pivot_steps: int = 150  # Adam updates of the codes
    pivot_lr: float = 0.05  # standard deviations per update
    steps: int = 100  # Adam updates of the weights, at most
    lr: float = 3e-4  # per update of a weight
    l2_weight: float = 10.0  # of the squared pixel difference
    label_weight: float = 1.0  # of the label maps' difference
    labels: Literal["mse", "ce"] = "mse"  # that difference: squared, or cross-entropy
    perceptual_weight: float = 1.0  # of the perceptual distance
    prior_weight: float = 0.005  # of the pivot's squared way from w_avg
    locality_weight: float = 1.0  # of keeping other views (or neighbours) as they were
    stop_loss: float = 0.0  # a face's tuning ends below this loss
    layers: str = WEIGHTS  # patterns of names to tune; weights: all; empty: the generator's choice
    perceptual: Literal["auto", "lpips", "faces", "none"] = "auto"  # backbone of that distance
    coarse: int = 0  # pixels a side of the pivot's first steps; see optimize

    def __call__(
        self,
        generator: Generator,
        images: Tensor,
        labels: Tensor,
        c: Tensor,
        progress: Progress | None = None,
    ) -> Latent:
        """
        Args:    as Optimize's.
        Returns: Latent of N faces; tuned holds each face's differences.
        Raises:  ShapeError: R or N differ.  OptionError: `layers` matches nothing.
        """
        count = Steps(progress, self.pivot_steps + self.steps * len(c))
        pivot = Optimize(
            space=self.space,
            steps=self.pivot_steps,
            lr=self.pivot_lr,
            label_weight=self.label_weight,
            image_weight=self.l2_weight,
            perceptual_weight=self.perceptual_weight,
            prior_weight=self.prior_weight,
            labels=self.labels,
            perceptual=self.perceptual,
            coarse=self.coarse,
        )(generator, images, labels, c, progress=lambda done, total: count())
        latent = tune_faces(
            Tuning(self.steps, self.lr, self.layers, self.locality_weight),
            generator,
            pivot,
            images,
            labels,
            losses.perceptual(self.perceptual, images.device),
            (self.label_weight, self.l2_weight, self.perceptual_weight),
            self.stop_loss,
            count,
            self.labels,
        )
        count.finish()
        return replace(latent, method="pivotal")


def tune_faces(
    tuning: Tuning,
    generator: Generator,
    latent: Latent,
    images: Tensor,
    labels: Tensor,
    perceptual: losses.Perceptual,
    loss_weights: tuple[float, float, float],
    stop_loss: float,
    progress: Steps,
    label_kind: str = "mse",
) -> Latent:
    """The latent with each face's own differences tuned towards its image and labels, from those
    of its planes that it has already.

    Args: loss_weights: of labels, pixels and perceptual distance.
    """
    shared = only_planes(chosen(generator, tuning.layers))
    rows = [slice(None)] if shared else [slice(i, i + 1) for i in range(len(latent))]
    found, final, diverged = [], [], []
    for row in rows:
        face = latent.take(row)
        targets = losses.SemanticLoss.inversion(images[row], labels[row])
        loss = losses.SemanticLoss(targets, perceptual, *loss_weights, label_kind)
        differences, value = tuning(
            generator,
            face.codes,
            face.c,
            loss,
            lambda v: bool((v < stop_loss).all()),
            progress,
            {k: v.float() for k, v in (face.tuned or {}).items()},
        )
        found.append(differences)
        final.extend(value.losses.tolist())
        diverged.extend(value.diverged.tolist())
    tuned = {k: torch.cat([d[k] for d in found]).half() for k in found[0]}
    calm = [False] * len(latent)
    both = zip(latent.meta.get("diverged", calm), diverged or calm, strict=True)
    ended = Descended(torch.tensor(final), torch.tensor([pivot or tune for pivot, tune in both]))
    return replace(latent, tuned=tuned, meta={**latent.meta, **ended.told()})
