"""Edit by label map in one forward pass: an encoder that sees every face from the front."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semedit import cameras, losses, weights
from semedit.editors.contract import Editor, Way
from semedit.editors.parts.composites import keep_outside
from semedit.editors.parts.tuned import fade_tuning
from semedit.errors import LatentError, MaskError, WeightsError
from semedit.generators import Output
from semedit.generators.contract import Generator
from semedit.generators.parts.encoder import load_encoder
from semedit.inverters.codes import check_faces, known_traits
from semedit.inverters.descent import Progress
from semedit.latents import Latent, fingerprint, picture, tuned_generator
from semedit.media.pixels import resize
from semedit.options import check_traits

SAME_SURFACE = 0.08  # world units: nearer points of two views are one
STOPPED = 0.5  # share of a ray from which it shows a surface


@dataclass(frozen=True)
class Canonical(Editor):
    """Give a face the label map that was drawn for it in one forward pass, seen from the front.

        w' = w + strength (E_can(I_0, S_0') - E_can(I_0, S_0))

    with I_0 and S_0 the face as its inversion shows it to the canonical camera, and S_0' its label
    map with what was drawn: the drawing is carried there along the face's own surface.

    Source: Sun et al. 2022 (IDE-3D), arXiv:2205.15517, section 3.2, the canonical editor.
    Departs: codes are moved by what the drawing changes in the encoder's eyes, which keeps the
    inversion; one may draw in the face's own view; pixels around the drawing stay (`composite`).
    """

    way: ClassVar[Way] = "mask"
    takes: ClassVar[tuple[str, ...]] = ("edited", "labels")
    requires: ClassVar[frozenset[str]] = frozenset({"camera", "seg", "texture"})
    encoder: str = ""  # its weights, by name or path; empty: canonical-GENERATOR
    strength: float = 1.5  # of the move: encoders say less than what is drawn
    grow: float = 2.0  # the drawn region is widened by this much, hundredths of the side
    soft: float = 1.0  # blur of the blend at its edge, hundredths of the side
    release: float = 1.0  # share of the face's own tuning taken back inside the region
    composite: bool = True  # keep the pixels around it

    def weights_of(self, generator: str) -> tuple[str]:
        """Weights that it reads besides those of a generator, given by name."""
        return (self.encoder or f"canonical-{generator}",)

    def __call__(
        self,
        generator: Generator,
        latent: Latent,
        edited: Tensor,
        labels: Tensor,
        progress: Progress | None = None,
    ) -> Latent:
        """
        Args:    edited int64 [N,R,R]: the drawn label map; labels int64 [N,R,R]: the face's own,
                 both in the latent's view.
        Returns: the edited latent; meta["region"]: share of the picture that was drawn.
        Raises:  MaskError: nothing was drawn.  ShapeError: maps of another size.
                 TraitError: the generator has no cameras, label maps or shape styles.
                 WeightsError: no canonical encoder.  LatentError: it is another generator's.
        """
        check_traits("canonical", self, generator, known_traits())
        (name,) = self.weights_of(generator.name)
        encoder = canonical_encoder(name, generator)
        before = picture(generator, latent).image.detach()
        check_faces(generator, before, labels, latent.c)
        check_faces(generator, before, edited, latent.c)
        r = losses.drawn(labels, edited)
        if not bool(r.flatten(1).any(1).all()):
            raise MaskError("the drawn label map is the face's own: there is nothing to edit")
        moved = [
            self._moved(generator, encoder, latent[i], edited[i : i + 1], r[i : i + 1])
            for i in range(len(latent))
        ]
        size = generator.resolution
        wide = losses.dilate(r, round(self.grow * size / 100))
        after = fade_tuning(generator, latent, wide, self.release)
        after = replace(
            after,
            codes={**latent.codes, "ws": torch.cat(moved)},
            method=f"{latent.method}+canonical",
            composite=None,
            meta={
                **latent.meta,
                "region": [round(float(v), 4) for v in wide.flatten(1).mean(1)],
                "composited": self.composite,
            },
        )
        if progress is not None:
            progress(1, 1)
        return (
            keep_outside(after, before, wide, self.soft * size / 100) if self.composite else after
        )

    @torch.no_grad()
    def _moved(
        self, generator: Generator, encoder: nn.Module, face: Latent, edited: Tensor, r: Tensor
    ) -> Tensor:
        """Styles [1,num_ws,w_dim] of one face with what was drawn."""
        tuned = tuned_generator(generator, face)
        front = cameras.canonical().to(face.c)
        both = tuned.render(tuned.planes(face.codes), torch.cat([face.c, front]))
        size = generator.resolution
        own, canonical = _row(both, 0), _row(both, 1)
        before = resize(both.seg[1:], size).argmax(1)
        drawn = carried(own, canonical, face.c, front, edited, r, before)
        image = both.image[1:]
        seen = encoder(
            image.repeat(2, 1, 1, 1), torch.cat([drawn, before]), front.expand(2, -1)
        ).to(face.c)
        return face.codes["ws"] + self.strength * (seen[:1] - seen[1:])


def _row(output: Output, index: int) -> tuple[Tensor, Tensor]:
    """Depth and opacity [1,1,r,r] of one view."""
    assert output.depth is not None and output.opacity is not None
    return output.depth[index : index + 1], output.opacity[index : index + 1]


@lru_cache(maxsize=2)
def _load(path: str, device: str, own: nn.Module | None) -> nn.Module:
    """The encoder of a weight file; what the file lacks is read from the generator's own one.

    Raises: WeightsError: the rest is that of another encoder.
    """
    rest = weights.metadata(path).get("rest")
    if rest is None:
        return load_encoder(path, device)
    if own is None or fingerprint(own) != rest:
        raise WeightsError(
            f"{path} holds a part of an encoder, and the generator's own is not the other part",
            "its encoder was trained again since then: semedit train canonical",
        )
    return load_encoder(path, device, own)


def canonical_encoder(name: str, generator: Generator) -> nn.Module:
    """The canonical encoder of a generator.

    Raises: WeightsError: no such weights, or a part of them that the generator's own encoder does
            not complete.  LatentError: they were made for another generator.
    """
    path = weights.resolve(name)
    made_for = weights.metadata(path).get("generator")
    if made_for not in (None, generator.name):
        raise LatentError(
            f"the encoder in {path.name} belongs to {made_for}, not to {generator.name}",
            hint=f"train one: semedit train canonical -o generator={generator.name}",
        )
    own = getattr(generator, "encoder", None)
    return _load(str(path), str(next(generator.parameters()).device), own)


def carried(
    own: tuple[Tensor, Tensor],
    canonical: tuple[Tensor, Tensor],
    c: Tensor,
    front: Tensor,
    edited: Tensor,
    r: Tensor,
    labels: Tensor,
) -> Tensor:
    """A drawing in one view as another view of the same surface has it.

    A pixel of the second view gets the drawn label when its surface point falls into the drawn
    region of the first view and is seen there. Pixels that show no surface count as points at the
    head's middle depth, so that hair may be drawn where there was none.

    Args:    own, canonical: depth along the rays and opacity [1,1,h,w] of the views. c, front
             [1,25]: their cameras. edited int64 [1,R,R] and r [1,1,R,R]: drawn map and region of
             the first view. labels int64 [1,R,R]: map of the second one.
    Returns: int64 [1,R,R].
    """
    size = labels.shape[-1]
    depth, opacity = (resize(x.float(), size)[0, 0].flatten() for x in canonical)
    origins, directions = (x[0] for x in cameras.rays(front, size))
    axis = cameras.split(front)[0][0, :3, 2]
    middle = cameras.RADIUS / (directions @ axis)
    solid = opacity > STOPPED
    points = origins + torch.where(solid, depth, middle)[:, None] * directions
    uv, _ = cameras.project(points[None], c)
    away = (points - cameras.split(c)[0][0, :3, 3]).norm(dim=-1)
    places = (2 * uv - 1)[:, None]  # [1,1,size*size,2]

    def at(values: Tensor, mode: str) -> Tensor:
        return F.grid_sample(values, places, mode, align_corners=False)[0, 0, 0]

    seen, stopped = (at(x.float(), "bilinear") for x in own)
    visible = ~solid | (stopped <= STOPPED) | (away < seen + SAME_SURFACE)
    inside = (at(r, "nearest") > 0.5) & visible
    drawn = at(edited[:, None].float(), "nearest").long()
    return torch.where(inside, drawn, labels.flatten()).view(1, size, size)
