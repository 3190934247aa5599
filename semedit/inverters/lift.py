"""Inversion in one pass: an encoder's codes, then what they miss, written into the planes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from semedit import losses, weights
from semedit.errors import LatentError
from semedit.generators.contract import Generator
from semedit.generators.triplane.lifting import load_lift
from semedit.inverters.codes import check_faces, known_traits
from semedit.inverters.contract import Inverter
from semedit.inverters.descent import Progress, Steps
from semedit.inverters.pivotal import tune_faces
from semedit.inverters.tuning import Tuning
from semedit.latents import PLANES, Latent, fingerprint
from semedit.options import check_traits


@dataclass(frozen=True)
class Lift(Inverter):
    """Start where an encoder sees the face, and move its tri-planes as a network says.

        w = E(I, S, c);  P' = P(w) + T(I, S, c, P(w), G(P(w), c))

    and, where steps are asked for, a short descent of what was added, by hybrid's loss.

    Source: Bhattarai et al. 2023 (TriPlaneNet), arXiv:2303.13497; see generators/triplane/lifting.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"encode", "texture", "field"})
    network: str = ""  # weights of T, by name or path; empty: lift-GENERATOR
    steps: int = 8  # Adam updates of what was added; 0: none
    lr: float = 2e-3  # per update; planes move 25 times as far
    labels: Literal["ce", "mse"] = "ce"  # cross-entropy, or squared difference, of label maps
    label_weight: float = 0.3  # of that
    image_weight: float = 10.0  # of the squared pixel difference
    perceptual_weight: float = 0.3  # of the perceptual distance
    perceptual: Literal["auto", "lpips", "faces", "none"] = "auto"  # backbone of that distance

    def weights_of(self, generator: str) -> tuple[str]:
        """Weights that it reads besides those of a generator, given by name."""
        return (self.network or f"lift-{generator}",)

    def __call__(
        self,
        generator: Generator,
        images: Tensor,
        labels: Tensor,
        c: Tensor,
        progress: Progress | None = None,
    ) -> Latent:
        """
        Args:    as Hybrid's.
        Returns: Latent of N faces; tuned holds what is added to each face's planes.
        Raises:  TraitError: the generator has no encoder or no tri-planes.  ShapeError: R or N
                 differ.  WeightsError: there is no such network.  LatentError: it is another
                 generator's.
        """
        check_traits("lift", self, generator, known_traits())
        check_faces(generator, images, labels, c)
        (name,) = self.weights_of(generator.name)
        network = load_lift(name, generator)
        mark = fingerprint(generator)
        if weights.metadata(weights.resolve(name)).get("made_for", mark) != mark:
            raise LatentError(
                f"{name} was trained for other weights that are called {generator.name}",
                hint=f"semedit train lift -o generator={generator.name}, or --method hybrid",
            )
        count = Steps(progress, 1 + self.steps)
        with torch.no_grad():
            codes = generator.encode(images, labels, c)
            planes = generator.planes(codes)
            drawn = generator.render(planes, c)
            added = network(images, labels, c, planes, drawn, generator.config.box)
        count()
        latent = Latent(
            codes=codes,
            c=c,
            generator=generator.name,
            fingerprint=mark,
            method="lift",
            tuned={PLANES + k: v.half() for k, v in added.items()},
        )
        if self.steps == 0:
            return latent
        return tune_faces(
            Tuning(self.steps, self.lr),
            generator,
            latent,
            images,
            labels,
            losses.perceptual(self.perceptual, images.device),
            (self.label_weight, self.image_weight, self.perceptual_weight),
            0.0,
            count,
            self.labels,
        )
