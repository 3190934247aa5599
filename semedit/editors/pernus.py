"""Edit by attribute as its paper has it: local inversion and a classifier in one descent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from semedit import losses
from semedit.editors.contract import Editor, Way
from semedit.editors.parts.attribute_regions import freed_components
from semedit.editors.parts.tuned import fade_tuning
from semedit.editors.parts.wanted import WantedAttributes, cross_entropy
from semedit.errors import ShapeError
from semedit.faces.attributes import classifier_weights, load_classifier
from semedit.faces.components import (
    COMPONENTS,
    Segmenter,
    load_segmenter,
    of_labels,
    segmenter_weights,
)
from semedit.generators.contract import Generator
from semedit.inverters.coarse import coarse_steps
from semedit.inverters.codes import known_traits
from semedit.inverters.descent import Progress, Steps, descend, marks
from semedit.latents import NOISE, Composite, Latent, picture, stack, tuned_generator
from semedit.media.pixels import resize
from semedit.options import check_traits

SIDE = 1024  # pixels a side of the pictures that the paper's blur is given for
FACE = ("skin", "nose", "eyes", "eyebrows", "mouth")  # components that the noise moves on
BETAS = (0.9, 0.999)  # of Adam, as its paper has them


@dataclass(frozen=True)
class Pernus(Editor):
    """Optimise codes and noise until a classifier sees the attributes, holding the other parts.

        L(w, n) = mse_weight |M (G(w, n) - I)|^2
                + ce_weight sum_a (-y_a log C_a(G(w, n)) - (1 - y_a) log(1 - C_a(G(w, n))))

    over W+, every layer's own w, and the noise n on the face; | |^2 is a mean over pixels in
    [-1,1]. M = blur([p > threshold]), p the probability of the components that the attributes
    leave alone (regions.ATTRIBUTE_COMPONENTS).

    Source: Pernuš, Štruc and Dobrišek 2020, "Semantic Face Editing with GAN Latent Code
    Optimization", equation 1 and section 4.1. `settle`, `smooth`, `give_way`,
    `perceptual_weight`, `noise_weight` and `composite` are terms of its successor MaskFaceGAN
    (Pernuš et al. 2023, arXiv:2103.11135), off by default.
    Departs: nowhere by default. What the paper leaves open: the rate rises over the first
    twentieth of the steps, as StyleGAN2's projection does; ATTRIBUTE_COMPONENTS; several
    attributes add up.
    """

    way: ClassVar[Way] = "attributes"
    takes: ClassVar[tuple[str, ...]] = ("wanted", "labels", "image")
    steps: int = 2000  # Adam updates; warm-up and decay are shares of them
    lr: float = 0.01  # of codes and noise, per update
    warmup: float = 0.05  # share of the steps in which the rate rises
    decay: float = 0.25  # share of the steps in which it falls: 500 of 2,000
    mse_weight: float = 100.0  # of the masked squared error
    ce_weight: float = 10.0  # of the cross-entropy of each attribute
    start: Literal["mean", "current"] = "mean"  # where codes start: the mean, or the inversion
    samples: int = 10_000  # mapped for the mean
    release: float = 1.0  # share of an inversion's own tuning taken back where M is 0
    target: Literal["photo", "current"] = "photo"  # I: the photograph, or the latent's picture
    threshold: float = 0.9  # of the probability that a pixel is held
    blur: int = 51  # pixels that the Gaussian blur of M is wide, at 1024
    sigma: float = 31.0  # pixels, its standard deviation, at 1024
    noise: Literal["face", "none"] = "face"  # whether the noise on the face moves as well
    classifier: str = "auto"  # what C is: builtin, branched (semedit train attributes), or auto
    segmenter: str = "auto"  # what M comes from: builtin, deeplab, labels (the label map), or auto
    coarse: int = 0  # pixels a side of the first three quarters of the steps; 0: all at full size
    settle: float = 0.0  # share of the steps that only invert; Adam then begins anew
    smooth: float = 0.0  # y is that far from 0 and 1
    give_way: float = 0.0  # share of the steps after which M frees what the edit has grown to
    perceptual_weight: float = 0.0  # of the perceptual distance under M
    noise_weight: float = 0.0  # of the noise's correlation with itself
    composite: bool = False  # keep the pixels of I where M is 1

    @property
    def looks_at(self) -> tuple[str, ...]:
        """Without the photograph where it keeps to the latent's picture."""
        return self.takes if self.target == "photo" else self.takes[:-1]

    def weights_of(self, generator: str) -> tuple[str, ...]:
        """The classifier's, and the segmenter's."""
        return (classifier_weights(self.classifier), *segmenter_weights(self.segmenter))

    def __call__(
        self,
        generator: Generator,
        latent: Latent,
        wanted: Mapping[str, bool],
        labels: Tensor,
        progress: Progress | None = None,
        image: Tensor | None = None,
    ) -> Latent:
        """
        Args:    wanted: attribute -> True to give it, False to take it away; several at once.
                 labels int64 [N,R,R]: the faces' label maps (segmenter "labels"). image [N,3,R,R]:
                 I; None: the latent's own picture.
        Returns: the edited latent; tuned["noise.LAYER"]: what was added to the noise.
                 meta["probability"]: of each attribute as wanted; meta["error"]: |M (G - I)|^2.
        Raises:  OptionError: an unknown attribute, classifier or segmenter.  ShapeError: image.
        """
        check_traits("pernus", self, generator, known_traits())
        own = picture(generator, latent).image.detach()
        target = own if image is None else image.to(own)
        if target.shape != own.shape:
            raise ShapeError(f"the image is {tuple(target.shape)}, not {tuple(own.shape)}")
        classify = load_classifier(self.classifier, str(own.device))
        segment = self._segmenter(str(own.device))
        question = WantedAttributes(classify, wanted)
        mean = self._mean(generator, latent.c) if self.start == "mean" else None
        steps = Steps(progress, self.steps * len(latent))
        faces = []
        for i in range(len(latent)):
            row = slice(i, i + 1)
            scene = FaceTarget.of(self, target[row], labels[row], wanted, segment)
            if mean is None:
                face = fade_tuning(generator, latent[i], 1 - scene.keep, self.release)
            else:
                face = replace(latent[i], codes=mean, tuned=None)
            faces.append(self._edit(generator, face, question, scene, steps))
        told = {k: [face.meta[k] for face in faces] for k in ("probability", "error")}
        told |= marks(face.meta["diverged"] for face in faces)
        meta = {**latent.meta, **told, "wanted": dict(wanted), "composited": self.composite}
        meta |= {"classifier": classify.name, "segmenter": segment.name if segment else "labels"}
        return replace(stack(faces), method=f"{latent.method}+pernus", meta=meta)

    def _edit(
        self,
        generator: Generator,
        face: Latent,
        question: WantedAttributes,
        scene: FaceTarget,
        steps: Steps,
    ) -> Latent:
        """One face: invert alone, if asked for, then equation 1."""
        search = Search(self, generator, face, question, scene)
        settling, diverged = round(self.steps * self.settle), False
        for count, asking in ((settling, False), (self.steps - settling, True)):
            ended = descend(
                search.leaves,
                lambda asking=asking: search.loss(asking),  # type: ignore[misc]
                count,
                self.lr,
                self.warmup,
                self.decay,
                betas=BETAS,
                progress=steps,
            )
            diverged |= bool(ended.diverged.any())
        after = search.result()
        with torch.no_grad():
            shown = picture(generator, after).image
            logits = question(shown)[0]
            error = losses.image_loss(shown, scene.image, search.keep)
        meta = {
            "probability": [round(float(p), 4) for p in logits.sigmoid()],
            "error": round(float(error), 6),
            "diverged": diverged,
        }
        return replace(after, meta=meta)

    def _segmenter(self, device: str) -> Segmenter | None:
        return None if self.segmenter == "labels" else load_segmenter(self.segmenter, device)

    @torch.no_grad()
    def _mean(self, generator: Generator, c: Tensor) -> dict[str, Tensor]:
        """Mean of mapped samples, always the same ones."""
        numbers = torch.Generator().manual_seed(0)
        total: dict[str, Tensor] = {}
        for first in range(0, self.samples, 1000):
            count = min(1000, self.samples - first)
            z = torch.randn(count, generator.z_dim, generator=numbers).to(c)
            for k, v in generator.mapping(z, c[:1].expand(count, -1)).items():
                total[k] = total.get(k, torch.zeros_like(v[:1])) + v.sum(0, keepdim=True)
        return {k: v / self.samples for k, v in total.items()}


@dataclass(frozen=True, eq=False)
class FaceTarget:
    """What one face's loss looks at.

    image [1,3,R,R]: I; keep [1,1,R,R]: M; face [1,1,R,R]: where the noise moves; freed: components
    that may change; segment: what finds components, None where a label map tells them.
    """

    image: Tensor
    keep: Tensor
    face: Tensor
    freed: tuple[str, ...]
    segment: Segmenter | None

    @classmethod
    def of(
        cls,
        method: Pernus,
        image: Tensor,
        labels: Tensor,
        wanted: Mapping[str, bool],
        segment: Segmenter | None,
    ) -> FaceTarget:
        found = of_labels(labels) if segment is None else segment(image.clamp(-1, 1))
        found = found.to(image)
        freed = freed_components(wanted)
        held = [name for name in COMPONENTS if name not in freed]
        keep = (_probability(found, held) > method.threshold).to(image)
        face = (_probability(found, FACE) > 0.5).to(image)
        return cls(image, feathered(keep, method.blur, method.sigma), face, freed, segment)


def _probability(found: Tensor, names: tuple[str, ...] | list[str]) -> Tensor:
    """Of a pixel to be of any of the named components: [N,1,R,R]."""
    places = [list(COMPONENTS).index(name) for name in names]
    return found[:, places].sum(1, keepdim=True)


def feathered(mask: Tensor, width: int, sigma: float) -> Tensor:
    """A mask [N,1,R,R] under a Gaussian; width and sigma in pixels of a picture of 1024."""
    scale = mask.shape[-1] / SIDE
    return losses.feather(mask, sigma * scale, max(1, round((width - 1) / 2 * scale)))


class Search:
    """The leaves of one face's descent, and equation 1 as a function of them."""

    def __init__(
        self,
        method: Pernus,
        generator: Generator,
        face: Latent,
        question: WantedAttributes,
        scene: FaceTarget,
    ) -> None:
        self._method, self._face, self._question, self._scene = method, face, question, scene
        self._tuned = tuned_generator(generator, face)
        own = generator.mean_codes()
        # Optional codes, say of regions with another texture, stay as they are.
        self._codes = {
            k: v.detach().clone().requires_grad_(k in own) for k, v in face.codes.items()
        }
        self._own: dict[str, Tensor] = {}  # noise that the face has without the edit
        self._noise: dict[str, Tensor] = {}  # what is added to it
        self._scope: dict[str, Tensor] = {}  # where
        if method.noise == "face" and "noise" in generator.traits:
            for name, const in generator.noises().items():
                before = (face.tuned or {}).get(NOISE + name)
                self._own[name] = const if before is None else const + before.to(const)
                self._noise[name] = torch.zeros_like(const).requires_grad_()
                self._scope[name] = F.adaptive_max_pool2d(scene.face, const.shape[-1])
        self.leaves = [v for v in self._codes.values() if v.requires_grad]
        self.leaves += self._noise.values()
        self.keep = scene.keep
        self._calls = 0
        self._coarse_calls = coarse_steps(generator, method.steps, method.coarse)
        self._perceptual = losses.perceptual(
            "auto" if method.perceptual_weight > 0 else "none", scene.image.device
        )

    def loss(self, asking: bool) -> Tensor:
        """Equation 1 [1]; only its first term unless asking."""
        method = self._method
        coarse = self._calls < self._coarse_calls
        if method.give_way > 0 and self._calls == round(method.steps * method.give_way):
            self._give_way()
        self._calls += 1
        drawn = self._draw(method.coarse if coarse else None)
        image, keep = self._scene.image, self.keep
        if coarse:
            image, keep = resize(image, method.coarse), F.adaptive_avg_pool2d(keep, method.coarse)
        total = method.mse_weight * losses.image_loss(drawn, image, keep)
        if asking:
            total = total + method.ce_weight * cross_entropy(self._question(drawn), method.smooth)
        if method.perceptual_weight > 0:
            features = self._perceptual.features
            distance = losses.distance(features(drawn * keep), features(image * keep))
            total = total + method.perceptual_weight * distance
        if method.noise_weight > 0 and self._noise:
            total = total + method.noise_weight * losses.noise_loss(self._maps().values()).to(total)
        return total

    def _maps(self) -> dict[str, Tensor]:
        added = {k: v * self._scope[k] for k, v in self._noise.items()}
        return {k: self._own[k] + v for k, v in added.items()}

    def _draw(self, resolution: int | None = None) -> Tensor:
        given: dict[str, Any] = {} if resolution is None else {"resolution": resolution}
        if self._noise:
            given["noise"] = self._maps()
        return self._tuned.synthesis(self._codes, self._face.c, **given).image

    @torch.no_grad()
    def _give_way(self) -> None:
        """Free what the generator now draws of the freed components, where M still holds it."""
        if self._scene.segment is None:
            return
        found = self._scene.segment(self._draw().clamp(-1, 1)).to(self.keep)
        grown = (_probability(found, self._scene.freed) > 0.5).to(self.keep)
        held = self.keep * (1 - grown)
        self.keep = torch.minimum(self.keep, feathered(held, self._method.blur, self._method.sigma))

    def result(self) -> Latent:
        """The face with the codes and the noise that were found."""
        tuned = dict(self._face.tuned or {})
        for name, added in self._noise.items():
            before = tuned.get(NOISE + name)
            change = (added * self._scope[name]).detach().half()
            tuned[NOISE + name] = change if before is None else before + change
        box = Composite(self._scene.image, 1 - self.keep) if self._method.composite else None
        codes = {k: v.detach() for k, v in self._codes.items()}
        return replace(self._face, codes=codes, tuned=tuned or None, composite=box)
