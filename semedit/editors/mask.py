"""Edit by label map."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from semedit import losses
from semedit.editors.contract import Editor, Way
from semedit.editors.parts.codes import descend_codes
from semedit.editors.parts.composites import keep_outside
from semedit.editors.parts.starts import drawn_attributes, nearest_start
from semedit.editors.parts.tones import Tones
from semedit.editors.parts.tuned import fade_tuning
from semedit.errors import MaskError
from semedit.faces import networks
from semedit.generators import Output, with_labels
from semedit.generators.contract import Generator
from semedit.inverters.codes import check_faces, spread
from semedit.inverters.descent import Progress, Steps, marks
from semedit.latents import Latent, picture, stack


@dataclass(frozen=True)
class Mask(Editor):
    """Give a face the label map that was drawn for it, and leave the rest as it is.

        L(dw) = label_weight L_s(S', S_ed) + image_weight |(I' - I) (1 - r)|^2
              + perceptual_weight L_vgg(I' (1 - r), I (1 - r))

    with r the region where the drawn map differs from the face's own.

    Source: Verma and Raman 2025 (SemFaceEdit), arXiv:2506.22833, supplement, equation 8.
    Departs: the descent starts where an encoder sees the drawn map, if the generator has one (Sun
    et al. 2022, IDE-3D), and along directions of what was drawn, if it has some; labels weigh more
    inside r, where the parser must see them too; new parts have the colour of old ones of their
    label; I is the face's own inversion, and its pixels
    stay outside r, feathered within it, in the face's own view (`composite`); where the generator
    draws no labels, S' is what a parser sees in I' (`parser`).
    """

    way: ClassVar[Way] = "mask"
    takes: ClassVar[tuple[str, ...]] = ("edited", "labels")
    steps: int = 40  # Adam updates
    lr: float = 0.05  # standard deviations per update; larger steps find what fools the parser
    label_weight: float = 4.0  # of the label maps' squared difference
    image_weight: float = 30.0  # of the squared pixel difference outside r
    perceptual_weight: float = 0.5  # of the perceptual distance outside r
    parse_weight: float = 0.5  # of the cross-entropy of what the parser sees inside r
    region_weight: float = 4.0  # how much more a label counts inside r
    tone_weight: float = 5.0  # of how far new parts are in colour from the old ones of their label
    prior_weight: float = 0.01  # of the squared way from the start
    grow: float = 2.0  # r is widened by this much, hundredths of the side
    soft: float = 1.0  # blur of the blend at its edge, hundredths of the side
    release: float = 1.0  # share of the face's own tuning taken back inside r
    start: Literal["encoder", "current"] = "encoder"  # where codes start, if there is an encoder
    search: bool = True  # start along directions of attributes whose parts were drawn
    composite: bool = True  # keep the pixels outside r
    parser: str = "auto"  # reads label maps off the pictures of generators that draw none
    perceptual: Literal["auto", "lpips", "faces", "none"] = "auto"  # backbone of that distance

    def __call__(
        self,
        generator: Generator,
        latent: Latent,
        edited: Tensor,
        labels: Tensor,
        progress: Progress | None = None,
    ) -> Latent:
        """
        Args:    edited int64 [N,R,R]: the drawn label map; labels int64 [N,R,R]: the face's own.
        Returns: the edited latent; meta["region"]: share of the picture that r takes.
        Raises:  MaskError: nothing was drawn.  ShapeError: maps of another size.
                 OptionError: no such parser.
        """
        generator = with_labels(generator, self.parser)
        before = picture(generator, latent).image.detach()
        check_faces(generator, before, labels, latent.c)
        check_faces(generator, before, edited, latent.c)
        perceptual = losses.perceptual(self.perceptual, before.device)
        size = generator.resolution
        r = losses.drawn(labels, edited)
        if not bool(r.flatten(1).any(1).all()):
            raise MaskError("the drawn label map is the face's own: there is nothing to edit")
        r = losses.dilate(r, round(self.grow * size / 100))
        started = self._start(generator, latent, before, edited, labels)
        latent = fade_tuning(generator, latent, r, self.release)
        scale = spread(generator, latent.c)
        steps = Steps(progress, self.steps * len(latent))
        faces = []
        for i in range(len(latent)):
            row = slice(i, i + 1)
            target = losses.Target(
                before[row], edited[row], 1 - r[row], 1 + (self.region_weight - 1) * r[row]
            )
            loss = losses.SemanticLoss(
                [target], perceptual, self.label_weight, self.image_weight, self.perceptual_weight
            )
            shown: list[tuple[float, Shown]] = [
                (self.parse_weight, ParserLoss(before[row], edited[row], r[row])),
                (self.tone_weight, Tones(before[row], labels[row], edited[row], r[row])),
            ]
            whole = with_shown(loss, [pair for pair in shown if pair[0] > 0])
            start = started[i]
            if self.search:
                drawn = drawn_attributes(labels[i], edited[i])
                start = nearest_start(generator, latent[i], start, drawn, whole)
            faces.append(
                descend_codes(
                    generator,
                    latent[i],
                    start,
                    scale,
                    whole,
                    self.steps,
                    self.lr,
                    self.prior_weight,
                    steps,
                )
            )
        after = replace(
            stack(faces),
            method=f"{latent.method}+mask",
            meta={
                **latent.meta,
                **marks(face.meta["diverged"] for face in faces),
                "perceptual": perceptual.name,
                "region": [round(float(v), 4) for v in r.flatten(1).mean(1)],
                "composited": self.composite,
            },
        )
        return keep_outside(after, before, r, self.soft * size / 100) if self.composite else after

    @torch.no_grad()
    def _start(
        self, generator: Generator, latent: Latent, image: Tensor, edited: Tensor, labels: Tensor
    ) -> list[dict[str, Tensor]]:
        """Current codes, plus what the drawn map changes in the encoder's eyes."""
        codes = dict(latent.codes)
        if self.start == "encoder" and "encode" in generator.traits:
            own = generator.encode(image, labels, latent.c)
            drawn = generator.encode(image, edited, latent.c)
            codes |= {k: codes[k] + v - own[k] for k, v in drawn.items()}
        return [{k: v[i : i + 1] for k, v in codes.items()} for i in range(len(latent))]


Shown = Callable[[Tensor], Tensor]  # a loss of a picture [1,3,R,R] alone: [1]


def with_shown(loss: losses.Loss, shown: Sequence[tuple[float, Shown]]) -> losses.Loss:
    """A loss, and weighted ones of the picture alone."""

    def total(output: Output) -> Tensor:
        value = loss(output)
        for weight, of in shown:
            value = value + weight * of(output.image)
        return value

    return total


class ParserLoss:
    """Cross-entropy [1] of what the built-in parser sees inside r, in the picture that is kept
    outside it: labels that the generator claims shall show.

    Args: image [1,3,R,R] before the edit; edited [1,R,R]; r [1,1,R,R].
    """

    def __init__(self, image: Tensor, edited: Tensor, r: Tensor) -> None:
        self._network = networks.load("faces", str(image.device))
        self._image, self._edited, self._r = image, edited, r
        self._share = r.mean().clamp(min=1e-3)

    def __call__(self, image: Tensor) -> Tensor:
        shown = image * self._r + self._image * (1 - self._r)
        seg = self._network(shown).seg
        return losses.label_loss(seg, self._edited, self._r, "ce") / self._share
