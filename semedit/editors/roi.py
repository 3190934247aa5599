"""Edit one region of a picture in one forward pass: its style, or its shape."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from semedit.editors.contract import Editor, Way
from semedit.errors import OptionError
from semedit.generators.contract import Generator
from semedit.generators.l2sae.layers import smooth
from semedit.inverters.codes import known_traits
from semedit.latents import Composite, Latent
from semedit.media.pixels import resize
from semedit.options import check_traits

SIGMA = (math.exp(-0.5), 1.0, math.exp(-0.5))  # sigma(3,3): a 3x3 Gaussian, deviation 1 pixel
MOST = 100.0  # noise of which nothing of the codes is left


@dataclass(frozen=True, eq=False)
class Restyled:
    """What an edit of regions made of N pictures.

    Attributes:
        image: float32 [N,3,S,S] in [-1,1].
        alpha: float32 [N,1,S,S] in [0,1]: where it is 0, pixels are as they were.
        codes: "structure", "style": of the picture that shows through alpha.
    """

    image: Tensor
    alpha: Tensor
    codes: dict[str, Tensor]

    def latent(self, generator: Generator, fingerprint: str, c: Tensor) -> Latent:
        """As a latent of the generator that shows this very picture, at the generator's size.

        Args: c: cameras [N,25] of the faces.
        """
        image = resize(self.image, generator.resolution)
        return Latent(
            codes=self.codes,
            c=c,
            generator=generator.name,
            fingerprint=fingerprint,
            method="roi",
            composite=Composite(image, torch.zeros_like(image[:, :1])),
            meta={"region": [round(float(v), 4) for v in self.alpha.flatten(1).mean(1)]},
        )


@dataclass(frozen=True)
class Roi(Editor):
    """Restyle or reshape one region in one pass, straight from the picture.

        S, T = E(x);  S', T' = S + structure_noise slice N(0,1), T + style_noise N(0,1)
        y = x + G(S', T') - G(S, T)
        alpha = (SMPN_region(x) > 0) * sigma(3,3);  x' = (1 - alpha) x + alpha y

    T' may be another picture's, which swaps the region's style. Tomar and Rajagopalan's algorithms
    1 and 2; structure noise as in their figure 5.

    Source: Tomar and Rajagopalan 2023 (L2SAE), arXiv:2312.15037.
    Departs: published is y = G(S', T'), and a last smoothing of x' by sigma(3,3), which blurs the
    whole picture. Here y keeps the detail of x that G does not draw, pictures may be larger than
    G's, and nothing is smoothed, so that pixels where alpha is 0 stay as they are, to the bit.
    `detail=false` takes y as published, smoothed where alpha is not 0; `as_published` smooths
    everything. sigma(3,3) is centred and of sum 1. A region whose structure changes is blended
    where it was and where it went. Slices of the structure part regions in the SMPN, which is
    taught so, and not in G: alpha alone keeps structure noise local. Noise is the same for all
    faces.
    """

    way: ClassVar[Way] = "region"
    requires: ClassVar[frozenset[str]] = frozenset({"encode", "slices"})
    region: Literal["hair", "skin", "nose", "eyes", "lips"] = "hair"  # what is edited
    style_noise: float = 0.0  # standard deviations of noise on the style, of unit length as it is
    structure_noise: float = 0.0  # of noise on the region's slice of the structure
    detail: bool = True  # keep what the picture shows and the decoder does not draw
    as_published: bool = False  # no detail; smooth the whole picture
    seed: int = 0  # of the noise

    @torch.no_grad()
    def __call__(
        self, generator: Generator, images: Tensor, reference: Tensor | None = None
    ) -> Restyled:
        """
        Args:    images float32 [N,3,S,S] in [-1,1], aligned, of any size; reference [1 or N,3,...]:
                 pictures whose style the region gets.
        Raises:  OptionError: there is nothing to do.  TraitError: the generator knows no regions.
        """
        check_traits("roi", self, generator, known_traits())
        self.check(reference is not None)
        x = resize(images, generator.resolution)
        own = generator.encode(x)
        codes = dict(own)
        if reference is not None:
            style = generator.encode(resize(reference, generator.resolution))["style"]
            codes["style"] = style.expand_as(own["style"])
        codes = self._noisy(generator, codes)
        drawn = generator.synthesis(codes).image
        mask = generator.region_logits(x, [self.region]) > 0
        if self.structure_noise:
            shown = drawn.clamp(-1, 1)
            mask = mask | (generator.region_logits(shown, [self.region]) > 0)
        size = images.shape[-1]
        alpha = resize(gaussian(mask.float()), size)
        if self.detail and not self.as_published:
            change = resize(drawn - generator.synthesis(own).image, size)
            y = (images + change).clamp(-1, 1)
            mixed = torch.where(alpha > 0, torch.lerp(images, y, alpha), images)
        else:
            y = resize(drawn, size).clamp(-1, 1)
            mixed = blend(images, y, alpha, self.as_published)
        return Restyled(mixed, alpha, codes)

    def check(self, referred: bool) -> None:
        """Raise OptionError where there is nothing to do, or more than noise can say.

        Args: referred: whether there is a picture to take the style from.
        """
        for name in ("style_noise", "structure_noise"):
            if not 0 <= getattr(self, name) <= MOST:
                raise OptionError(f"{name} is from 0 to {MOST:.0f}")
        if not (referred or self.style_noise or self.structure_noise):
            raise OptionError(
                f"nothing to do to the {self.region}",
                "give style noise, structure noise, or a face to take the style from",
            )

    def _noisy(self, generator: Generator, codes: dict[str, Tensor]) -> dict[str, Tensor]:
        numbers = torch.Generator().manual_seed(self.seed)
        style, structure = codes["style"], codes["structure"]
        if self.style_noise:
            noise = torch.randn(1, *style.shape[1:], generator=numbers)
            style = style + self.style_noise * noise.to(style)
        if self.structure_noise:
            noise = torch.randn(1, *structure.shape[1:], generator=numbers).to(structure)
            channels = generator.channels(self.region).to(structure)[:, None, None]
            structure = structure + self.structure_noise * noise * channels
        return {"structure": structure, "style": style}


def gaussian(x: Tensor) -> Tensor:
    """x [N,C,H,W] * sigma(3,3); the border's pixels count as if they went on."""
    return smooth(F.pad(x, (1, 1, 1, 1), mode="replicate"), SIGMA)


def blend(x: Tensor, y: Tensor, alpha: Tensor, as_published: bool = False) -> Tensor:
    """Algorithm 2: y over x by alpha [N,1,H,W], smoothed; everywhere only as published."""
    mixed = (1 - alpha) * x + alpha * y
    smoothed = gaussian(mixed)
    if as_published:
        return smoothed
    return torch.where(alpha > 0, smoothed, x)
