"""Inversion in one pass: an encoder's codes, then what they miss, written into the planes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from semedit import weights
from semedit.errors import LatentError
from semedit.generators.contract import Generator
from semedit.generators.triplane.lifting import load_lift
from semedit.inverters.hybrid import Hybrid
from semedit.latents import PLANES, Latent


@dataclass(frozen=True)
class Lift(Hybrid):
    """Start where an encoder sees the face, then move its tri-planes as a network says.

        w = E(I, S, c);  P' = P(w) + T(I, S, c, P(w), G(P(w), c))

    and a few steps of tuning from there; `steps` asks for a descent of the codes before.

    Source: Bhattarai et al. 2023 (TriPlaneNet), arXiv:2303.13497; see generators/triplane/lifting.
    """

    name: ClassVar[str] = "lift"
    requires: ClassVar[frozenset[str]] = frozenset({"encode", "texture", "field"})
    network: str = ""  # weights of T, by name or path; empty: lift-GENERATOR
    steps: int = 0  # Adam updates of the codes, all faces as one batch
    tune_steps: int = 8  # Adam updates of planes; 0 leaves them as the network moved them

    def weights_of(self, generator: str) -> tuple[str]:
        """Weights that it reads besides those of a generator, given by name."""
        return (self.network or f"lift-{generator}",)

    @torch.no_grad()
    def lifted(
        self, generator: Generator, latent: Latent, images: Tensor, labels: Tensor
    ) -> Latent:
        """The latent with what T adds to the planes of its codes.

        Raises: WeightsError: there is no such network.  LatentError: it is another generator's.
        """
        (name,) = self.weights_of(generator.name)
        network = load_lift(name, generator)
        made_for = weights.metadata(weights.resolve(name)).get("made_for")
        if made_for not in (None, latent.fingerprint):
            raise LatentError(
                f"{name} was trained for other weights that are called {generator.name}",
                hint=f"semedit train lift -o generator={generator.name}, or --method hybrid",
            )
        planes = generator.planes(latent.codes)
        drawn = generator.render(planes, latent.c)
        added = network(images, labels, latent.c, planes, drawn, generator.config.box)
        return replace(latent, tuned={PLANES + k: v.half() for k, v in added.items()})
