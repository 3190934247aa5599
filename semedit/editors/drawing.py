"""A face from a label map alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from semedit import cameras, losses, methods
from semedit.inverters.codes import Offsets, known_traits, spread
from semedit.inverters.descent import Progress, Steps, descend
from semedit.latents import Latent, fingerprint

VIEWS_DEG = ((-40, -27, -13, 0, 13, 27, 40), (-8, 0, 8))  # yaw and pitch that are tried


@dataclass(frozen=True)
class Drawing:
    """Make a face whose label map is the drawn one; its texture is a random one.

        w_s* = argmin  label_weight CE(S'(w_s, w_t), S) + prior_weight |(w_s - E_s(S)) / std|^2

    with w_s the styles that shape a face, E_s an encoder's (the mean style where the generator has
    no encoder), and w_t the styles of a random z, which stay.

    Source: Sun et al. 2022 (IDE-3D), arXiv:2205.15517, section 4.3: interactive 3D face drawing.
    Departs: a drawing has no camera; the view among VIEWS_DEG is taken whose encoded face agrees
    with it best.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"camera", "seg", "texture"})
    seed: int = 0  # of the texture
    truncation: float = 0.7  # of the texture: 0 is the mean, 1 any
    steps: int = 40  # Adam updates
    lr: float = 0.2  # standard deviations per update
    label_weight: float = 4.0  # of the label maps' cross-entropy
    prior_weight: float = 0.01  # of the squared way from the start
    yaw_deg: float | None = None  # of the view; none: the one that agrees best
    pitch_deg: float | None = None  # likewise

    def __call__(self, generator: Any, labels: Tensor, progress: Progress | None = None) -> Latent:
        """
        Args:    labels int64 [N,R,R]: the drawn maps.
        Returns: Latent of N faces, with the cameras that were found.
        Raises:  TraitError: the generator lacks cameras, labels or textures.
        """
        methods.check_traits("drawing", self, generator, known_traits())
        steps = Steps(progress, self.steps * len(labels))
        found = [self._draw(generator, labels[i : i + 1], steps) for i in range(len(labels))]
        codes, c, final = (torch.cat(values) for values in zip(*found, strict=True))
        return Latent(
            codes={"ws": codes},
            c=c,
            generator=generator.name,
            fingerprint=fingerprint(generator),
            method="drawing",
            meta={"loss": final.tolist()},
        )

    def _draw(self, generator: Any, labels: Tensor, steps: Steps) -> tuple[Tensor, Tensor, Tensor]:
        """One face: ws, c, and the last loss [1]."""
        ws, c = self._start(generator, labels)
        scale = spread(generator, c)["ws"].clone()
        scale[:, generator.num_shape :] = 0  # the texture stays
        offsets = Offsets({"ws": ws}, {"ws": scale})

        def objective() -> Tensor:
            seg = generator.synthesis(offsets.codes(), c).seg
            agreement = losses.label_loss(seg, labels, kind="ce")
            return self.label_weight * agreement + self.prior_weight * offsets.size()

        final = descend(offsets.leaves.values(), objective, self.steps, self.lr, progress=steps)
        return offsets.codes()["ws"].detach(), c, final

    @torch.no_grad()
    def _start(self, generator: Any, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Styles and camera of the view that agrees best."""
        z = torch.randn(1, generator.z_dim, generator=torch.Generator().manual_seed(self.seed))
        best: tuple[float, Tensor, Tensor] | None = None
        for yaw, pitch in self._views():
            c = cameras.orbit(math.radians(yaw), math.radians(pitch)).to(labels.device)
            ws = generator.mapping(z.to(c), c, self.truncation)["ws"].clone()
            shape = generator.mean_codes()
            if "encode" in generator.traits:
                shape = generator.encode(_grey(labels), labels, c)
            ws[:, : generator.num_shape] = shape["ws"][:, : generator.num_shape]
            output = generator.synthesis({"ws": ws}, c)
            error = float(losses.label_loss(output.seg, labels, kind="ce"))
            if best is None or error < best[0]:
                best = error, ws, c
        assert best is not None
        return best[1:]

    def _views(self) -> list[tuple[float, float]]:
        yaws, pitches = (
            tried if given is None else (given,)
            for given, tried in zip((self.yaw_deg, self.pitch_deg), VIEWS_DEG, strict=True)
        )
        return [(yaw, pitch) for yaw in yaws for pitch in pitches]


def _grey(labels: Tensor) -> Tensor:
    """A picture [N,3,R,R] that says nothing: encoders draw shape from label maps alone."""
    return torch.zeros(len(labels), 3, *labels.shape[1:], device=labels.device)
