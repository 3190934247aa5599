"""`semedit eval attributes`: Pernuš' method against InterFaceGAN, as in its paper, but measured.

Heads are held out and rendered, so what they lack is known. Either method is to give one
attribute to one head, seen in one picture I; both are steered by the same classifier, judged by a
network that neither has seen, and compared where they succeed alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from semedit import metrics, weights
from semedit.directions.directions import Directions
from semedit.directions.fitting import fit_boundaries, sample
from semedit.editors import Pernus
from semedit.editors.parts.attribute_regions import attribute_region
from semedit.errors import OptionError
from semedit.evaluations.heads import COLOURS, HeadAtSize, at_resolution
from semedit.faces import networks
from semedit.faces.attributes import Judge, load_classifier
from semedit.faces.identity import ArcFace, similarity
from semedit.faces.layers import fit
from semedit.generators.contract import Generator
from semedit.heads.truth import Truth
from semedit.inverters import Hybrid, Optimize
from semedit.latents import Latent, picture
from semedit.media.labels import ATTRIBUTES
from semedit.media.pixels import to_tensor

# Eight of the twelve attributes in the paper's figures 1 and 2. Heads carry all of them; left out
# are those of which classifier and judge, both small, think unlike: big noses, arched eyebrows,
# earrings and straight hair (their logits on 2400 samples of heads-128 correlate by less than 0.6).
EIGHT = (
    "bushy_eyebrows",
    "narrow_eyes",
    "smiling",
    "wearing_lipstick",
    "blond_hair",
    "brown_hair",
    "gray_hair",
    "wavy_hair",
)
HAIR = (*COLOURS, "straight_hair", "wavy_hair")  # asked only of heads with hair to be seen
STRENGTHS = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0)  # of InterFaceGAN's moves, deviations
MEASURES = ("success", "outside", "identity")

Progress = Callable[[str, int, int], None]  # part, done, in all
Figures = dict[str, Any]


# --- identity --------------------------------------------------------------------------------


class Embedding(Protocol):
    """Takes aligned crops [N,3,R,R] in [-1,1], returns unit vectors [N,D]."""

    name: str

    def __call__(self, images: Tensor) -> Tensor: ...


class HeadEmbedding:
    """Features of the judge, weighed by how little they change within a head: [N,D], unit.

        e = A (f - mean f),  A = Sw^(-1/2) P,  Sw the scatter of P f within heads

    within a head: seen from either side, and with hair, smile, glasses or nose truly changed.
    P: principal components of f over all those pictures. So what an edit may change counts
    little, and what makes a head another one much (linear discriminant analysis).

    Args: truths: heads to learn A from; device: of the pictures.
    """

    name = "judge features"

    def __init__(self, truths: Sequence[Truth], device: str = "cpu", components: int = 48) -> None:
        self._network = networks.load("judge", device)
        heads = [self._features(torch.cat(_pictures(truth)).to(device)) for truth in truths]
        together = torch.cat(heads)
        self._mean = together.mean(0)
        count = min(components, len(together) - 1)
        self._axes = torch.linalg.svd(together - self._mean, full_matrices=False)[2][:count]
        within = torch.cat([(f - f.mean(0)) @ self._axes.T for f in heads])
        scatter = within.T @ within / len(within)
        values, vectors = torch.linalg.eigh(scatter)
        # A tenth of the mean keeps directions that hardly vary in few heads from ruling.
        root = (values.clamp(min=0) + 0.1 * values.mean()).rsqrt()
        self._whiten = vectors * root @ vectors.T

    @torch.no_grad()
    def _features(self, images: Tensor) -> Tensor:
        maps = self._network.body(fit(images, self._network.size))
        return F.adaptive_avg_pool2d(maps, 2).flatten(1)

    def __call__(self, images: Tensor) -> Tensor:
        return F.normalize((self._features(images) - self._mean) @ self._axes.T @ self._whiten)


def _pictures(truth: Truth) -> list[Tensor]:
    """All pictures of one head: the first as it is, the others from elsewhere or changed."""
    others = [image for _, image in truth.views] + [image for image, _ in truth.edits.values()]
    return [to_tensor(pixels) for pixels in (truth.image, *others)]


def embedding(truths: Sequence[Truth], device: str = "cpu") -> Embedding:
    """ArcFace where its weights are on the disk, else `HeadEmbedding` of the heads given."""
    if weights.on_disk(ArcFace.needs[0]):
        return ArcFace(device)
    return HeadEmbedding(truths, device)


def calibration(embed: Embedding, truths: Sequence[Truth], device: str = "cpu") -> Figures:
    """What the cosine says of the same head and of others.

    embedding        whose cosine it is
    identity_same    mean cosine between a head's picture and its other views and true edits
    identity_other   mean cosine between pictures of different heads
    """
    heads = [embed(torch.cat(_pictures(truth)).to(device)) for truth in truths]
    same = torch.cat([similarity(e[1:], e[:1]) for e in heads])
    first = torch.cat([e[:1] for e in heads])
    other = (first @ first.T)[~torch.eye(len(first), dtype=torch.bool, device=first.device)]
    return {
        "embedding": "ArcFace" if isinstance(embed, ArcFace) else embed.name,
        "identity_same": float(same.mean()),
        "identity_other": float(other.mean()),
    }


# --- the comparison --------------------------------------------------------------------------


def wanted_of(truth: Truth, attributes: Sequence[str]) -> list[str]:
    """Those of the attributes that a head lacks and can be given."""
    has = dict(zip(ATTRIBUTES, truth.attributes.tolist(), strict=True))
    bare = has["bald"] or has["wearing_hat"]
    return [name for name in attributes if not has[name] and not (bare and name in HAIR)]


@dataclass(frozen=True)
class Case:
    """One attribute to be given to one head."""

    head: HeadAtSize
    name: str

    @property
    def wanted(self) -> dict[str, bool]:
        return {self.name: True}


@dataclass(frozen=True)
class Comparison:
    """What is compared, and how.

    attributes   given to heads that lack them
    each         attributes tried per head, in turn; 0: all that it lacks
    pernus       the method, whose I is the head's picture; start "current": from W+
    spaces       of the codes that InterFaceGAN moves: "w" as the paper has it, "w+"
    inversion_steps   of `optimize`, which finds them where the generator has no encoder for W+
    samples      of the generator, scored by the classifier, for InterFaceGAN's boundaries
    """

    attributes: tuple[str, ...] = EIGHT
    each: int = 0
    pernus: Pernus = field(default_factory=Pernus)
    spaces: tuple[str, ...] = ("w", "w+")
    inversion_steps: int = 150
    samples: int = 4000
    seed: int = 0

    def __call__(
        self,
        truths: Sequence[Truth],
        generator: Generator,
        embed: Embedding,
        progress: Progress | None = None,
    ) -> Figures:
        """Compare on some heads.

        Returns: figures; see `summary`.
        Raises:  OptionError: an unknown attribute, or no head lacks any of them.
        """
        unknown = [name for name in self.attributes if name not in ATTRIBUTES]
        if unknown:
            raise OptionError(f"there is no attribute {unknown[0]}", ", ".join(ATTRIBUTES))
        tell = progress or (lambda part, done, total: None)
        device = generator.device
        heads = [at_resolution(truth, generator.resolution, device) for truth in truths]
        cases = self._cases(heads)
        if not cases:
            raise OptionError("no head lacks any of these attributes", "take more heads or others")
        gauge = Gauge(embed, Judge(str(device)))
        invert = Inversions(generator, self.inversion_steps)
        rows = {"pernus": self._pernus(generator, cases, invert, gauge, tell)}
        found = self._boundaries(generator, cases, tell)
        for space in self.spaces:
            key = "interfacegan" if space == "w" else "interfacegan_wplus"
            rows[key] = self._interface(generator, cases, found, space, invert, gauge, tell)
        before = [gauge(case, case.head.image) for case in cases]
        figures = summary(rows, cases)
        figures["success_before"] = mean(before, "success")
        return figures

    def _cases(self, heads: Sequence[HeadAtSize]) -> list[Case]:
        cases = []
        for i, head in enumerate(heads):
            names = wanted_of(head.truth, self.attributes)
            count = min(self.each or len(names), len(names))
            cases += [Case(head, names[(i + k) % len(names)]) for k in range(count)]
        return cases

    def _pernus(
        self,
        generator: Generator,
        cases: Sequence[Case],
        invert: Inversions,
        gauge: Gauge,
        tell: Progress,
    ) -> list[Figures]:
        rows = []
        for i, case in enumerate(cases):
            start = invert(case.head, "w+" if self.pernus.start == "current" else "mean")
            after = self.pernus(
                generator, start, case.wanted, case.head.labels, image=case.head.image
            )
            rows.append(gauge(case, shown(generator, after)))
            tell("pernus", i + 1, len(cases))
        return rows

    def _boundaries(
        self, generator: Generator, cases: Sequence[Case], tell: Progress
    ) -> Directions:
        device = generator.device
        classify = load_classifier(self.pernus.classifier, str(device))
        codes, scores = sample(
            generator,
            self.samples,
            self.seed,
            classify=classify,
            progress=lambda done, total: tell("samples", done, total),
        )
        names = [name for name in self.attributes if any(case.name == name for case in cases)]
        known = getattr(classify, "names", ATTRIBUTES)
        return fit_boundaries(generator, codes, scores, names, known=known)

    def _interface(
        self,
        generator: Generator,
        cases: Sequence[Case],
        found: Directions,
        space: str,
        invert: Inversions,
        gauge: Gauge,
        tell: Progress,
    ) -> list[Figures]:
        """Rows with a list over STRENGTHS for each measure."""
        rows = []
        for i, case in enumerate(cases):
            latent = invert(case.head, space)
            steps = [
                gauge(case, shown(generator, moved(latent, found, case.name, strength)))
                for strength in STRENGTHS
            ]
            rows.append({key: [step[key] for step in steps] for key in MEASURES})
            tell(f"interfacegan {space}", i + 1, len(cases))
        return rows


class Inversions:
    """Each head's codes in a space, found once: "w", "w+" (with all that `hybrid` does, where the
    generator has an encoder), or "mean", which looks at nothing."""

    def __init__(self, generator: Generator, steps: int) -> None:
        self._generator, self._steps = generator, steps
        self._known: dict[tuple[int, str], Latent] = {}

    def __call__(self, head: HeadAtSize, space: str) -> Latent:
        key = (head.truth.seed, space)
        if key not in self._known:
            self._known[key] = self._find(head, space)
        return self._known[key]

    def _find(self, head: HeadAtSize, space: str) -> Latent:
        generator = self._generator
        if space == "mean":
            codes = {k: v.clone() for k, v in generator.mean_codes().items()}
            return Latent(codes, head.c, generator.name, "", "mean")
        inverter: Any = Optimize(space=space, steps=self._steps)  # type: ignore[arg-type]
        if space == "w+" and "encode" in generator.traits:
            inverter = Hybrid()
        return inverter(generator, head.image, head.labels, head.c)


def moved(latent: Latent, found: Directions, name: str, strength: float) -> Latent:
    """The latent moved along a boundary's normal."""
    codes = {k: v + strength * found.move(name)[k].to(v) for k, v in latent.codes.items()}
    return replace(latent, codes=codes)


@torch.no_grad()
def shown(generator: Generator, latent: Latent) -> Tensor:
    """The latent's picture as it would be written: [1,3,R,R] in [-1,1]."""
    return picture(generator, latent).image.clamp(-1, 1)


class Gauge:
    """Measures one result against the head it was to keep.

    success    1 where the judge, a network that no editor uses, sees the attribute, else 0
    outside    mean absolute difference from the head's picture outside the attribute's region
               (attribute_regions.ATTRIBUTE_REGIONS on the true map), as a share of the range
    identity   cosine of the embeddings of the result and of the head's picture
    """

    def __init__(self, embed: Embedding, judge: Callable[[Tensor], Tensor]) -> None:
        self._embed, self._judge = embed, judge
        self._known: dict[int, Tensor] = {}

    @torch.no_grad()
    def __call__(self, case: Case, image: Tensor) -> Figures:
        seed = case.head.truth.seed
        if seed not in self._known:
            self._known[seed] = self._embed(case.head.image)
        outside = 1 - attribute_region(case.head.labels, [case.name])
        logit = self._judge(image)[0, ATTRIBUTES.index(case.name)]
        return {
            "success": float(logit > 0),
            "outside": float(metrics.mean_change(image, case.head.image, outside)),
            "identity": float(similarity(self._embed(image), self._known[seed])),
        }


# --- at equal success ------------------------------------------------------------------------


def mean(rows: Sequence[Mapping[str, Any]], key: str) -> float:
    return float(np.mean([row[key] for row in rows]))


def equal_strength(curve: Sequence[float], success: float) -> tuple[float, bool]:
    """The least strength at which the share of successes reaches that of another method.

    Args:    curve: share of successes at each of STRENGTHS; between them it is linear.
    Returns: strength, and whether it is reached; if not, the strength of the most successes.
    """
    best = np.maximum.accumulate(curve)
    if best[-1] < success:
        return STRENGTHS[int(np.argmax(curve))], False
    i = int(np.argmax(best >= success))
    if i == 0:
        return STRENGTHS[0], True
    share = (success - best[i - 1]) / (best[i] - best[i - 1])
    return float(STRENGTHS[i - 1] + share * (STRENGTHS[i] - STRENGTHS[i - 1])), True


def summary(rows: Mapping[str, Sequence[Figures]], cases: Sequence[Case]) -> Figures:
    """Means over all cases; those of moves at the strength of equal success.

    cases                              how many
    pernus_success, _outside, _identity        see Gauge
    interfacegan_success, ...          the same of moves in W, at the strength at which as many
                                       succeed (interfacegan_strength); interfacegan_reached: 0
                                       where no strength does, then of the most successful one
    interfacegan_wplus_...             the same from an inversion in W+
    curves                             method -> measure -> mean at each of STRENGTHS
    attributes                         attribute -> method -> measures, each at equal success
    """
    figures: Figures = {"cases": len(cases), "strengths": list(STRENGTHS), "curves": {}}
    for method, found in rows.items():
        if method != "pernus":
            figures["curves"][method] = {k: _curve(found, k) for k in MEASURES}
        measured = _at_equal(found, rows["pernus"])
        figures |= {f"{method}_{key}": value for key, value in measured.items()}
    figures["attributes"] = {}
    for name in dict.fromkeys(case.name for case in cases):
        chosen = [i for i, case in enumerate(cases) if case.name == name]
        theirs = [rows["pernus"][i] for i in chosen]
        figures["attributes"][name] = {"cases": len(chosen)} | {
            method: _at_equal([found[i] for i in chosen], theirs) for method, found in rows.items()
        }
    return figures


def _curve(rows: Sequence[Figures], key: str) -> list[float]:
    return [round(float(v), 4) for v in np.mean([row[key] for row in rows], 0)]


def _at_equal(rows: Sequence[Figures], pernus: Sequence[Figures]) -> Figures:
    """Measures of a method where it succeeds as often as `pernus`."""
    if rows is pernus or not isinstance(rows[0]["success"], list):
        return {key: round(mean(rows, key), 4) for key in MEASURES}
    curves = {key: np.mean([row[key] for row in rows], 0) for key in MEASURES}
    strength, reached = equal_strength(list(curves["success"]), mean(pernus, "success"))
    measured = {k: round(float(np.interp(strength, STRENGTHS, v)), 4) for k, v in curves.items()}
    return {**measured, "strength": round(strength, 3), "reached": float(reached)}
