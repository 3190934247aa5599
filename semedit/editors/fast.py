"""Edit by attribute, in few steps: the classifier asks, the masked error keeps the person."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from semedit import losses
from semedit.directions.directions import Directions, directions_for
from semedit.editors.parts.attribute_regions import attribute_region
from semedit.editors.parts.composites import keep_outside
from semedit.editors.parts.tuned import changed_area, fade_tuning
from semedit.editors.parts.wanted import WantedAttributes, cross_entropy
from semedit.errors import WeightsError
from semedit.faces.attributes import load_classifier
from semedit.inverters.codes import Offsets, known_traits, spread
from semedit.inverters.descent import Progress, Steps, descend, marks
from semedit.latents import Latent, picture, stack, tuned_generator
from semedit.options import check_traits

STRENGTHS = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0)  # of a start along a direction, deviations


@dataclass(frozen=True)
class Fast:
    """Move an inversion until a classifier sees the attributes, holding the face around them.

        L(w) = mse_weight |M (G(w) - I)|^2 + ce_weight sum_a BCE(y_a, C_a(G(w)))

    M is 1 away from the attributes' regions (regions.ATTRIBUTE_REGIONS), blurred at its edge.

    Source: Pernuš, Štruc and Dobrišek 2020, equation 1 (`pernus` does all of it).
    Departs: starts from the face's own inversion, moved along the attributes' directions as far as
    the classifier needs, where the generator has directions; stops when the classifier is sure and
    the rest is kept; I is the face's own inversion, and its pixels stay where M is 1
    (`composite`).
    """

    requires: ClassVar[frozenset[str]] = frozenset()
    steps: int = 30  # Adam updates, at most
    lr: float = 0.05  # standard deviations per update
    mse_weight: float = 100.0  # of the masked squared error
    ce_weight: float = 1.0  # of the cross-entropy of each attribute; more paints what fools it
    prior_weight: float = 0.1  # of the squared way from the start
    sure: float = 0.98  # ends when every attribute is at least so probable ...
    bound: float = 0.02  # ... and the masked squared error is no more than this
    warmup: float = 0.1  # share of the steps in which the rate rises
    decay: float = 0.25  # share of the steps in which it falls
    soft: float = 3.0  # blur of M and of the blend, hundredths of the side
    release: float = 1.0  # share of the face's own tuning taken back inside the regions
    start: Literal["direction", "current"] = "direction"  # where codes start
    composite: bool = True  # keep the pixels where M is 1
    classifier: str = "auto"  # what C is: builtin, branched (semedit train attributes), or auto

    def __call__(
        self,
        generator: Any,
        latent: Latent,
        wanted: Mapping[str, bool],
        labels: Tensor,
        progress: Progress | None = None,
    ) -> Latent:
        """
        Args:    wanted: attribute -> True to give it, False to take it away; several at once.
                 labels int64 [N,R,R]: the faces' label maps, which place M.
        Returns: the edited latent; meta["probability"]: of each attribute as wanted, per face.
        Raises:  OptionError: an attribute the classifier does not know.
        """
        check_traits("fast", self, generator, known_traits())
        before = picture(generator, latent).image.detach()
        size = before.shape[-1]
        question = WantedAttributes(load_classifier(self.classifier, str(before.device)), wanted)
        region = attribute_region(labels, wanted)
        keep = 1 - losses.feather(region, self.soft * size / 100)
        scale, found = spread(generator, latent.c), self._directions(generator)
        steps = Steps(progress, self.steps * len(latent))
        faces = [
            self._edit(generator, latent[i], question, before[i : i + 1], keep[i : i + 1],
                       scale, found, steps)
            for i in range(len(latent))
        ]  # fmt: skip
        steps.finish()
        after = replace(
            stack(faces),
            method=f"{latent.method}+fast",
            meta={
                **latent.meta,
                **marks(face.meta["diverged"] for face in faces),
                "wanted": dict(wanted),
                "start": "direction" if found else "current",
                "probability": [face.meta["probability"] for face in faces],
                "composited": self.composite,
            },
        )
        return (
            keep_outside(after, before, region, self.soft * size / 100) if self.composite else after
        )

    def _edit(
        self,
        generator: Any,
        face: Latent,
        question: WantedAttributes,
        image: Tensor,
        keep: Tensor,
        scale: dict[str, Tensor],
        directions: Directions | None,
        steps: Steps,
    ) -> Latent:
        """One face: start, then descend until the classifier is sure."""
        start, shows = dict(face.codes), 1 - keep
        if directions is not None:
            start = self._moved(tuned_generator(generator, face), face, question, directions)
            shows = shows * changed_area(generator, face, replace(face, codes=start))
        face = fade_tuning(generator, face, shows, self.release)
        tuned = tuned_generator(generator, face)
        offsets = Offsets(start, scale)
        logits, error = torch.zeros(0), torch.zeros(0)

        def draw() -> Tensor:
            nonlocal logits
            drawn = tuned.synthesis(offsets.codes(), face.c).image
            # The classifier judges the picture that will be written.
            shown = drawn * (1 - keep) + image * keep if self.composite else drawn
            logits = question(shown)
            return drawn

        def objective() -> Tensor:
            nonlocal error
            error = losses.image_loss(draw(), image, keep)
            return (
                self.mse_weight * error
                + self.ce_weight * cross_entropy(logits)
                + self.prior_weight * offsets.size()
            )

        ended = descend(
            offsets.leaves.values(),
            objective,
            self.steps,
            self.lr,
            self.warmup,
            self.decay,
            stop=lambda _: bool((logits.sigmoid() >= self.sure).all() and error <= self.bound),
            progress=steps,
        )
        codes = {k: v.detach() for k, v in offsets.codes().items()}
        with torch.no_grad():
            draw()
        probability = [round(float(p), 4) for p in logits.sigmoid()[0]]
        meta = {"probability": probability, "diverged": bool(ended.diverged.any())}
        return replace(face, codes=codes, composite=None, meta=meta)

    @torch.no_grad()
    def _moved(
        self, tuned: Any, face: Latent, question: WantedAttributes, directions: Directions
    ) -> dict[str, Tensor]:
        """Codes moved along the attributes' directions, no further than the classifier needs."""
        codes = dict(face.codes)
        for i, (name, yes) in enumerate(question.wanted.items()):
            if name not in directions.units:
                continue
            move = directions.move(name)
            for strength in STRENGTHS:
                sign = strength if yes else -strength
                changed_area = codes | {
                    k: codes[k] + sign * v.to(codes[k]) for k, v in move.items()
                }
                logit = question(tuned.synthesis(changed_area, face.c).image)[0, i]
                if float(logit.sigmoid()) >= self.sure:
                    break
            codes = changed_area
        return codes

    def _directions(self, generator: Any) -> Directions | None:
        """The generator's directions; None where it has none, which meta["start"] tells."""
        if self.start == "current":
            return None
        try:
            return directions_for(generator)
        except WeightsError:
            return None
