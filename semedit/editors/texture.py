"""Another texture for some regions of a face, in 3D."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from semedit import losses
from semedit.editors.contract import Editor, Way
from semedit.editors.parts.composites import keep_outside
from semedit.errors import MaskError, OptionError
from semedit.generators.contract import Generator
from semedit.inverters.codes import known_traits
from semedit.inverters.descent import Progress
from semedit.latents import PLANES, Latent, picture, synthesize
from semedit.media.labels import LABELS, REGIONS
from semedit.media.pixels import resize
from semedit.options import check_traits, pick_method


@dataclass(frozen=True)
class Texture(Editor):
    """Give regions of a face the texture of another one, or a random one, in every view.

        colour(x) = Phi_t(planes(shape, style') at x)  where argmax labels(x) is in the region
                    Phi_t(planes(shape, style) at x)   elsewhere

    Shape and density are not touched, so the region is where it was; what was tuned into the
    planes by inversion stays outside the region. The picture is enlarged with style', too, where
    its labels are in the region.

    Source: Sun et al. 2022 (IDE-3D), arXiv:2205.15517, section 4.3, the 3D style mask.
    Departs: the enlarging, which would turn colours back; in the face's own view the pixels around
    the region stay as they were (`composite`).
    """

    way: ClassVar[Way] = "texture"
    takes: ClassVar[tuple[str, ...]] = ("donor", "labels")
    requires: ClassVar[frozenset[str]] = frozenset({"texture"})
    region: str = "hair"  # regions or labels, comma between them
    seed: int = 0  # of the random texture, where no face is given to take it from
    composite: bool = True  # keep the pixels around the region
    grow: float = 2.0  # it is widened by this much for that, hundredths of the side
    soft: float = 1.0  # blur of the blend at its edge, hundredths of the side

    def __post_init__(self) -> None:
        self.labels  # noqa: B018  (raises where a region is unknown)

    @property
    def labels(self) -> tuple[int, ...]:
        """The labels of the region.

        Raises: OptionError: no region or label is called so.
        """
        known = {name: (i,) for i, name in enumerate(LABELS)} | REGIONS
        names = [name.strip() for name in self.region.split(",") if name.strip()]
        if not names:
            raise OptionError("no region is given", "for example hair,lips")
        found = (label for name in names for label in pick_method(known, name, "region"))
        return tuple(dict.fromkeys(found))

    @torch.no_grad()
    def __call__(
        self,
        generator: Generator,
        latent: Latent,
        donor: Latent | None = None,
        labels: Tensor | None = None,
        progress: Progress | None = None,
    ) -> Latent:
        """
        Args:    donor: one face, or one for each of the latent's, whose texture is taken; None: a
                 random one. labels: not looked at, the generator knows where its regions are.
        Returns: the edited latent; its codes "style" and "where" have one more layer, see
                 generators.triplane; meta["region"]: share of the picture that the region takes.
        Raises:  MaskError: a face has no such region.  TraitError: the generator has no textures
                 by region.
        """
        check_traits("texture", self, generator, known_traits())
        wanted = torch.tensor(self.labels, device=latent.c.device)
        before = picture(generator, latent).image
        mask = self._region(generator, latent, wanted)
        if not bool(mask.flatten(1).any(1).all()):
            raise MaskError(
                f"the face shows no {self.region}", hint="choose a region that its label map has"
            )
        style = self._style(generator, latent, donor)
        where = torch.zeros(len(latent), 1, len(LABELS), device=latent.c.device)
        where[:, :, wanted] = 1
        layers = {"style": style[:, None], "where": where}
        had = {k: v for k, v in latent.codes.items() if k in layers}
        codes = {k: torch.cat([had[k], v], 1) if k in had else v for k, v in layers.items()}
        after = replace(
            latent,
            codes={**latent.codes, **codes},
            method=f"{latent.method}+texture",
            composite=None,
            tuned=self._tuned(latent),
            meta={
                **latent.meta,
                "region": [round(float(v), 4) for v in mask.flatten(1).mean(1)],
                "composited": self.composite,
            },
        )
        if progress is not None:
            progress(1, 1)
        if not self.composite:
            return after
        size = before.shape[-1]
        wide = losses.dilate(mask, round(self.grow * size / 100))
        return keep_outside(after, before, wide, self.soft * size / 100)

    def _tuned(self, latent: Latent) -> dict[str, Tensor] | None:
        """What was tuned, without the old background where that is of the region."""
        behind = f"{PLANES}background"
        if latent.tuned is None or 0 not in self.labels or behind not in latent.tuned:
            return latent.tuned
        return {**latent.tuned, behind: torch.zeros_like(latent.tuned[behind])}

    def _region(self, generator: Generator, latent: Latent, labels: Tensor) -> Tensor:
        """Where the generator's own label map shows the region: [N,1,R,R], 0 or 1."""
        output = synthesize(generator, latent)
        assert output.seg is not None
        seen = resize(output.seg, generator.resolution).argmax(1, keepdim=True)
        return torch.isin(seen, labels).float()

    def _style(self, generator: Generator, latent: Latent, donor: Latent | None) -> Tensor:
        """Styles of texture planes and up-sampler [N,k,w_dim]."""
        if donor is None:
            numbers = torch.Generator().manual_seed(self.seed)
            z = torch.randn(1, generator.z_dim, generator=numbers).to(latent.c)
            codes = generator.mapping(z, latent.c[:1])
        else:
            codes = donor.codes
        return generator.style({k: v.to(latent.c) for k, v in codes.items()}).expand(
            len(latent), -1, -1
        )
