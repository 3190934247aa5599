"""Give a face regions of another one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from semedit import losses
from semedit.editors.contract import Editor, Way
from semedit.editors.mask import ParserLoss, Shown, with_shown
from semedit.editors.parts.codes import descend_codes
from semedit.editors.parts.composites import keep_outside
from semedit.editors.parts.tones import Tones
from semedit.editors.parts.tuned import fade_tuning
from semedit.errors import MaskError, OptionError
from semedit.generators import Output, with_labels
from semedit.generators.contract import Generator
from semedit.inverters.codes import check_faces, spread
from semedit.inverters.descent import Progress, Steps, marks
from semedit.latents import Latent, picture, stack, synthesize
from semedit.media.labels import REGIONS
from semedit.media.pixels import resize
from semedit.options import suggestion

# What a region brings with it: a mouth is lips and what lies between them.
WHOLE = {"mouth": ("mouth", "lips"), "lips": ("mouth", "lips"), "hair": ("hair", "hat")}


def whole_regions(names: Sequence[str]) -> tuple[str, ...]:
    """Regions (labels.REGIONS) of the named ones and what belongs to them.

    Raises: OptionError: none is named, or there is no such region.
    """
    for name in names:
        if name not in REGIONS:
            raise OptionError(f"there is no region {name!r}", suggestion(name, REGIONS))
    if not names:
        raise OptionError(
            "no region is given", "say which regions, for example --region hair,mouth"
        )
    found = (part for name in names for part in WHOLE.get(name, (name,)))
    return tuple(dict.fromkeys(found))


@dataclass(frozen=True, eq=False)
class Exchange:
    """What shall come of N faces.

    Attributes:
        image, donor: [N,3,R,R], the donor seen by the faces' cameras.
        own, labels: int64 [N,R,R]: label maps of the faces, and with the donor's labels in r.
        r: [N,1,R,R], where one of the two has the regions; near: r widened; coloured: where the
            donor's colours count.
    """

    image: Tensor
    donor: Tensor
    own: Tensor
    labels: Tensor
    r: Tensor
    near: Tensor
    coloured: Tensor

    @property
    def mixed(self) -> Tensor:
        """The face, the donor inside r."""
        return torch.lerp(self.image, self.donor, self.r)

    def row(self, i: int) -> Exchange:
        """One face."""
        return Exchange(*(getattr(self, f.name)[i : i + 1] for f in fields(self)))


@torch.no_grad()
def seen_by(generator: Generator, donor: Latent, c: Tensor) -> tuple[Tensor, Tensor]:
    """One donor as cameras c [N,25] see it: images [N,3,R,R] and labels int64 [N,R,R].

    A generator without cameras shows it as it is.
    """
    if "camera" in generator.traits:
        views = [synthesize(generator, donor, c[i : i + 1]) for i in range(len(c))]
    else:
        views = [picture(generator, donor)] * len(c)
    image = torch.cat([view.image for view in views])
    seg = torch.cat([view.seg for view in views if view.seg is not None])
    return image, resize(seg, image.shape[-1]).argmax(1)


@dataclass(frozen=True)
class Transfer(Editor):
    """Give a face regions of another one, in shape and colour, and leave the rest as it is.

        L(dw) = label_weight (L_s(S' (1 - r), S_s (1 - r)) + L_s(S' r, S_t r))
              + image_weight (|(I' - I_s) (1 - r)|^2 + |(I' - I_t) r|^2)
              + perceptual_weight (L_vgg(I' (1 - r), I_s (1 - r)) + L_vgg(I' r, I_t r))

    with r where the face I_s or the donor I_t has the regions. A donor is seen by the face's own
    camera.

    Source: Verma and Raman 2025 (SemFaceEdit), arXiv:2506.22833, supplement, equation 9.
    Departs: the donor's colours count where it has the regions, so that no forehead of its own
    comes along with shorter hair (`colours=all` is the equation as it stands); the donor's terms
    weigh more (`region_weight`), the parser must see the regions, too, and what they bare has the
    colours that the face has elsewhere; the descent starts
    where an encoder sees both faces put together, or at the donor's codes of the regions where
    codes have regions; pixels outside r stay the face's, feathered within it, in its own view;
    where the generator draws no labels, S' is what a parser sees in I' (`parser`).
    """

    way: ClassVar[Way] = "transfer"
    takes: ClassVar[tuple[str, ...]] = ("donor", "labels")
    regions: tuple[str, ...] = ("hair",)  # what is taken from the donor, comma between them
    steps: int = 40  # Adam updates
    lr: float = 0.2  # standard deviations per update
    label_weight: float = 4.0  # of the label maps' squared difference
    image_weight: float = 30.0  # of the squared pixel difference
    perceptual_weight: float = 0.5  # of the perceptual distance
    parse_weight: float = 0.5  # of the cross-entropy of what the parser sees inside r
    region_weight: float = 4.0  # how much more the donor's terms count
    tone_weight: float = 5.0  # of how far bared skin is in colour from the face's own
    prior_weight: float = 0.01  # of the squared way from the start
    colours: Literal["regions", "all"] = "regions"  # where in r the donor's colours count
    grow: float = 2.0  # r is widened by this much for the blend, hundredths of the side
    soft: float = 1.0  # blur of the blend at its edge, hundredths of the side
    release: float = 1.0  # share of the face's own tuning taken back inside r
    start: Literal["encoder", "current"] = "encoder"  # where codes start, if there is an encoder
    composite: bool = True  # keep the pixels outside r
    parser: str = "auto"  # reads label maps off the pictures of generators that draw none
    perceptual: Literal["auto", "lpips", "faces", "none"] = "auto"  # backbone of that distance

    def __call__(
        self,
        generator: Generator,
        latent: Latent,
        donor: Latent,
        labels: Tensor,
        progress: Progress | None = None,
    ) -> Latent:
        """
        Args:    donor: one face. labels int64 [N,R,R]: the faces' own label maps.
        Returns: the edited latent; meta["region"]: share of the picture that r takes.
        Raises:  MaskError: neither face has the regions.  ShapeError: maps of another size.
                 OptionError: no such region or parser.
        """
        generator = with_labels(generator, self.parser)
        before = picture(generator, latent).image.detach()
        check_faces(generator, before, labels, latent.c)
        perceptual = losses.perceptual(self.perceptual, before.device)
        both = self.exchange(before, labels, *seen_by(generator, donor, latent.c))
        started = self._start(generator, latent, donor, both)
        latent = fade_tuning(generator, latent, both.near, self.release)
        scale = spread(generator, latent.c)
        steps = Steps(progress, self.steps * len(latent))
        faces = []
        for i in range(len(latent)):
            loss = self.loss(both.row(i), perceptual)
            face = descend_codes(
                generator, latent[i], started[i], scale, loss, self.steps, self.lr,
                self.prior_weight, steps,
            )  # fmt: skip
            faces.append(face)
        after = replace(
            stack(faces),
            method=f"{latent.method}+transfer",
            meta={
                **latent.meta,
                **marks(face.meta["diverged"] for face in faces),
                "perceptual": perceptual.name,
                "region": [round(float(v), 4) for v in both.near.flatten(1).mean(1)],
                "composited": self.composite,
            },
        )
        soft = self.soft * generator.resolution / 100
        return keep_outside(after, before, both.near, soft) if self.composite else after

    def exchange(
        self, image: Tensor, labels: Tensor, donor: Tensor, donor_labels: Tensor
    ) -> Exchange:
        """What shall come of faces: image [N,3,R,R], labels [N,R,R], and the donor's.

        Raises: MaskError: neither has the regions.
        """
        names = whole_regions(self.regions)
        theirs = losses.region(donor_labels, names)
        r = torch.maximum(losses.region(labels, names), theirs)
        if not bool(r.flatten(1).any(1).all()):
            raise MaskError(f"neither face has any {' or '.join(self.regions)}")
        near = losses.dilate(r, round(self.grow * image.shape[-1] / 100))
        inside = r[:, 0] > 0
        return Exchange(
            image=image,
            donor=donor,
            own=labels,
            labels=torch.where(inside, donor_labels, labels),
            r=r,
            near=near,
            coloured=r if self.colours == "all" else theirs,
        )

    def loss(self, both: Exchange, perceptual: losses.Perceptual) -> losses.Loss:
        """Equation 9, the donor's terms weighed, and what the parser sees."""
        weights = self.label_weight, self.image_weight, self.perceptual_weight
        own, theirs = losses.SemanticLoss.transfer(
            (both.image, both.labels), (both.donor, both.labels), both.r
        )
        own, theirs = (
            replace(own, image_mask=1 - both.near),
            replace(theirs, image_mask=both.coloured),
        )
        kept, given = (losses.SemanticLoss([t], perceptual, *weights) for t in (own, theirs))
        bare = both.near * (1 - both.coloured)  # what the donor's colours leave
        shown: list[tuple[float, Shown]] = [
            (self.parse_weight, ParserLoss(both.mixed, both.labels, both.near)),
            (self.tone_weight, Tones(both.image, both.own, both.labels, bare)),
        ]

        def total(output: Output) -> Tensor:
            return kept(output) + self.region_weight * given(output)

        return with_shown(total, [pair for pair in shown if pair[0] > 0])

    @torch.no_grad()
    def _start(
        self, generator: Generator, latent: Latent, donor: Latent, both: Exchange
    ) -> list[dict[str, Tensor]]:
        """Current codes, plus what the donor's regions change in the encoder's eyes."""
        codes = dict(latent.codes)
        if self.start == "encoder" and "borrow" in generator.traits:
            codes = generator.borrow(codes, donor.codes, whole_regions(self.regions))
        elif self.start == "encoder" and "encode" in generator.traits:
            own = generator.encode(both.image, both.own, latent.c)
            drawn = generator.encode(both.mixed, both.labels, latent.c)
            codes = {k: v + drawn[k] - own[k] for k, v in codes.items()}
        return [{k: v[i : i + 1] for k, v in codes.items()} for i in range(len(latent))]
