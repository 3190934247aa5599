"""A face from a label map alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from semedit import cameras, losses
from semedit.editors.contract import Editor, Way
from semedit.generators.contract import Generator
from semedit.inverters.codes import Offsets, known_traits, spread
from semedit.inverters.descent import Descended, Progress, Steps, descend
from semedit.latents import Latent, fingerprint
from semedit.options import check_traits

YAWS_DEG = (-50, -40, -30, -20, -10, 0, 10, 20, 30, 40, 50)  # tried first
# Then yaw, pitch, roll (radians), log of the focal length and the crop's middle (picture sides)
# are moved to and fro by so much, twice, the second time by half.
MOVES = (0.09, 0.12, 0.05, 0.06, 0.02, 0.02)


@dataclass(frozen=True)
class Drawing(Editor):
    """Make a face whose label map is the drawn one; its texture is a random one.

        w_s* = argmin  label_weight CE(S'(w_s, w_t), S) + prior_weight |(w_s - E_s(S)) / std|^2

    with w_s the styles that shape a face, E_s an encoder's (the mean style where the generator has
    no encoder), and w_t the styles of a random z, which stay.

    Source: Sun et al. 2022 (IDE-3D), arXiv:2205.15517, section 4.3: interactive 3D face drawing.
    Departs: a drawing has no camera; the one is searched for whose encoded face agrees with it
    best.
    """

    way: ClassVar[Way] = "drawing"
    takes: ClassVar[tuple[str, ...]] = ("labels",)
    requires: ClassVar[frozenset[str]] = frozenset({"camera", "seg", "texture"})
    seed: int = 0  # of the texture
    truncation: float = 1.0  # of the texture: 0 is the mean, 1 any
    steps: int = 40  # Adam updates
    lr: float = 0.2  # standard deviations per update
    label_weight: float = 4.0  # of the label maps' cross-entropy
    prior_weight: float = 0.01  # of the squared way from the start
    yaw_deg: float | None = None  # of the drawn view; none: searched for

    def __call__(
        self, generator: Generator, labels: Tensor, progress: Progress | None = None
    ) -> Latent:
        """
        Args:    labels int64 [N,R,R]: the drawn maps.
        Returns: Latent of N faces, with the cameras that were found.
        Raises:  TraitError: the generator lacks cameras, labels or textures.
        """
        check_traits("drawing", self, generator, known_traits())
        steps = Steps(progress, self.steps * len(labels))
        found = [self._draw(generator, labels[i : i + 1], steps) for i in range(len(labels))]
        codes, c, final, diverged = (torch.cat(values) for values in zip(*found, strict=True))
        return Latent(
            codes={"ws": codes},
            c=c,
            generator=generator.name,
            fingerprint=fingerprint(generator),
            method="drawing",
            meta=Descended(final, diverged).told(),
        )

    def _draw(self, generator: Generator, labels: Tensor, steps: Steps) -> tuple[Tensor, ...]:
        """One face: ws, c, the last loss [1], and whether it diverged [1]."""
        ws, c = self._start(generator, labels)
        scale = spread(generator, c)["ws"].clone()
        scale[:, generator.num_shape :] = 0  # the texture stays
        offsets = Offsets({"ws": ws}, {"ws": scale})

        def objective() -> Tensor:
            seg = generator.synthesis(offsets.codes(), c).seg
            assert seg is not None
            agreement = losses.label_loss(seg, labels, kind="ce")
            return self.label_weight * agreement + self.prior_weight * offsets.size()

        final = descend(offsets.leaves.values(), objective, self.steps, self.lr, progress=steps)
        return offsets.codes()["ws"].detach(), c, final.losses, final.diverged

    @torch.no_grad()
    def _start(self, generator: Generator, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Styles and camera whose face agrees best."""
        z = torch.randn(1, generator.z_dim, generator=torch.Generator().manual_seed(self.seed))
        z, shapes = z.to(labels.device), generator.num_shape

        def face(six: Tensor) -> tuple[float, Tensor, Tensor]:
            """How far from the drawing is what an encoder sees in it, its styles and camera."""
            c = cameras.from_six(six[None])
            ws = generator.mapping(z, c, self.truncation)["ws"].clone()
            seen = generator.mean_codes()
            if "encode" in generator.traits:
                seen = generator.encode(_grey(labels), labels, c)
            ws[:, :shapes] = seen["ws"][:, :shapes]
            seg = generator.synthesis({"ws": ws}, c).seg
            assert seg is not None
            return float(losses.label_loss(seg, labels, kind="ce")), ws, c

        yaws = YAWS_DEG if self.yaw_deg is None else (self.yaw_deg,)
        views = cameras.aligned(torch.tensor(yaws).deg2rad()).to(labels.device)
        tried = [(*face(six), six) for six in cameras.to_six(views)]
        error, ws, c, six = min(tried, key=lambda found: found[0])
        for share in (1.0, 0.5):
            for entry, size in enumerate(MOVES):
                for step in (size * share, -size * share):
                    near = six.clone()
                    near[entry] += step
                    found = face(near)
                    if found[0] < error:
                        (error, ws, c), six = found, near
                        break
        return ws, c


def _grey(labels: Tensor) -> Tensor:
    """A picture [N,3,R,R] that says nothing: encoders draw shape from label maps alone."""
    return torch.zeros(len(labels), 3, *labels.shape[1:], device=labels.device)
