"""Finding directions: boundaries between samples, regression on known attributes, components.

What is measured of a direction over the samples it was found in (Directions.figures):

    deviation         standard deviation of codes along it: the unit of strength
    samples           how many
    accuracy          balanced accuracy of its best threshold, on samples that did not make it
    score_mean, score_deviation   of the classifier's logits, or of the known attribute
    share             of all variance (components only)
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from semedit import cameras
from semedit.directions.directions import Directions
from semedit.errors import OptionError
from semedit.generators.contract import Generator
from semedit.inverters.descent import Progress
from semedit.latents import fingerprint
from semedit.media.labels import ATTRIBUTES
from semedit.options import pick_method

PIXELS = 2**20  # drawn together while sampling: 16 pictures of 256, one of 1024

Codes = Mapping[str, Tensor]
Figures = dict[str, float]
Loose = Mapping[str, Collection[str]]
Classify = Callable[[Tensor], Tensor]  # image [N,3,R,R] in [-1,1] -> logits [N,A]


# --- codes as vectors ------------------------------------------------------------------------


def flatten(codes: Codes) -> Tensor:
    """Codes [N, ...] side by side in name order: [N,D]."""
    return torch.cat([codes[k].flatten(1) for k in sorted(codes)], 1)


def unflatten(vector: Tensor, like: Codes) -> dict[str, Tensor]:
    """Inverse of `flatten` for one vector [D]; `like` gives names and shapes."""
    found, start = {}, 0
    for name in sorted(like):
        shape = like[name].shape[1:]
        size = shape.numel()
        found[name] = vector[start : start + size].reshape(shape)
        start += size
    return found


def shared(codes: Codes) -> dict[str, Tensor]:
    """Codes with those of one style for all layers, W, cut to one layer: [N,1,w_dim]; and so
    those of one style for all clubs: [N,1,1,w_dim]."""
    found = {}
    for name, code in codes.items():
        for axis in range(1, code.ndim - 1):
            first = code.narrow(axis, 0, 1)
            code = first if torch.equal(code, first.expand_as(code)) else code
        found[name] = code
    return found


@torch.no_grad()
def sample(
    generator: Generator,
    count: int,
    seed: int = 0,
    batch: int = 0,
    classify: Classify | None = None,
    cut: Callable[[Codes], dict[str, Tensor]] = shared,
    progress: Progress | None = None,
) -> tuple[dict[str, Tensor], Tensor]:
    """Codes of random samples, and how a classifier scores their pictures from the front.

    Args:    batch: samples made together; 0: as many as PIXELS allows. cut: what is kept of codes.
    Returns: codes [n, ...] as `cut` leaves them, scores [n,A]; scores [n,0] without a classifier;
             on the CPU.
    """
    batch = batch or max(1, min(16, PIXELS // generator.resolution**2))
    device = generator.device
    numbers = torch.Generator().manual_seed(seed)
    c = cameras.orbit(0.0, 0.0).to(device)
    codes: list[dict[str, Tensor]] = []
    scores: list[Tensor] = []
    for first in range(0, count, batch):
        z = torch.randn(min(batch, count - first), generator.z_dim, generator=numbers).to(device)
        views = c.expand(len(z), -1)
        made = generator.mapping(z, views)
        codes.append({k: v.cpu() for k, v in cut(made).items()})
        if classify is not None:
            scores.append(classify(generator.synthesis(made, views).image.clamp(-1, 1)).cpu())
        if progress is not None:
            progress(first + len(z), count)
    together = {k: torch.cat([part[k] for part in codes]) for k in codes[0]}
    return together, torch.cat(scores) if scores else torch.zeros(count, 0)


# --- boundaries (InterFaceGAN) ---------------------------------------------------------------


@dataclass(frozen=True)
class Boundary:
    """Unit normal of the plane that parts the most positive samples from the most negative.

        min_n,b  |n|^2 / 2 + penalty sum max(0, 1 - y (n x + b))^2,   direction = n / |n|

    Source: Shen et al. 2020 (InterFaceGAN), arXiv:1907.10786; samples and choice as in Pernuš,
    Štruc and Dobrišek 2020, section 4.2.
    Departs: the hinge is squared (scikit-learn's LinearSVC), codes are scaled to unit variance.
    """

    share: float = 0.1  # of the samples taken at either end; the paper has 0.02 of 500,000
    penalty: float = 0.01  # of samples on the wrong side; small values average, large ones fit

    def __call__(self, codes: Tensor, scores: Tensor) -> tuple[Tensor, Figures]:
        """
        Args:    codes [n,D]; scores [n].
        Returns: normal [D]; figures.
        Raises:  OptionError: all scores are alike, or there are too few.
        """
        from sklearn.svm import LinearSVC

        count = min(round(self.share * len(scores)), len(scores) // 2)
        if count < 2 or float(scores.std()) == 0:
            raise OptionError(
                f"{len(scores)} samples show no boundary: they are too few, or score alike",
                hint="take more samples",
            )
        order = scores.argsort()
        ends = torch.cat([order[:count], order[-count:]])
        x = (codes[ends] - codes.mean(0)) / codes.std()
        machine = LinearSVC(C=self.penalty, dual="auto", random_state=0, max_iter=20_000)
        machine.fit(x.numpy(), [0] * count + [1] * count)
        normal = torch.from_numpy(machine.coef_[0]).float()
        normal = normal / normal.norm()
        rest = order[count:-count]
        return normal, measure(codes, normal, scores, rest)


def orthogonal(direction: Tensor, others: Sequence[Tensor]) -> Tensor:
    """The part of a unit direction [D] that leaves all others as they are, of unit length.

    Source: Shen et al. 2020, conditional manipulation.

    Raises: OptionError: nothing is left of it.
    """
    if not others:
        return direction
    basis = torch.linalg.qr(torch.stack(list(others), 1))[0]
    rest = direction - basis @ (basis.T @ direction)
    if float(rest.norm()) < 1e-4:
        raise OptionError("nothing is left of a direction without those that it is to leave alone")
    return rest / rest.norm()


def measure(
    codes: Tensor, unit: Tensor, scores: Tensor, rows: Tensor | slice = slice(None)
) -> Figures:
    """Figures of a direction; the accuracy on `rows` of the samples.

    Args: codes [n,D]; unit [D]; scores [n], logits or 0 and 1.
    """
    along = (codes - codes.mean(0)) @ unit
    middle = 0.5 if bool(((scores == 0) | (scores == 1)).all()) else 0.0
    return {
        "deviation": float(along.std()),
        "accuracy": round(accuracy(along[rows], scores[rows] > middle), 4),
        "samples": float(len(scores)),
        "score_mean": round(float(scores.mean()), 4),
        "score_deviation": round(float(scores.std()), 4),
    }


def accuracy(along: Tensor, positive: Tensor) -> float:
    """Balanced accuracy of the best threshold on values [n] for telling which are positive [n]."""
    best = 0.5
    if bool(positive.any()) and bool((~positive).any()):
        for threshold in along.quantile(torch.linspace(0.02, 0.98, 49)):
            side = along > threshold
            rate = (side[positive].float().mean() + (~side[~positive]).float().mean()) / 2
            best = max(best, float(rate))
    return best


def fit_boundaries(
    generator: Generator,
    codes: Codes,
    scores: Tensor,
    names: Sequence[str] = ATTRIBUTES,
    condition: Sequence[str] = (),
    boundary: Boundary | None = None,
    known: Sequence[str] = ATTRIBUTES,
) -> Directions:
    """Boundaries of attributes, each with those of `condition` projected out.

    Args:   codes, scores [n,A]: of `sample`. known: names of the A.
    Raises: OptionError: an unknown attribute, or one that shows no boundary.
    """
    fit = boundary or Boundary()
    vectors = flatten(codes)
    columns = {name: i for i, name in enumerate(known)}

    def of(name: str) -> tuple[Tensor, Figures]:
        return fit(vectors, scores[:, pick_method(columns, name, "attribute")])

    others = {name: of(name)[0] for name in condition}
    units, figures = {}, {}
    for name in names:
        try:
            unit, told = of(name)
        except OptionError as error:
            raise OptionError(f"{name}: {error.message}", error.hint) from None
        away = [other for key, other in others.items() if key != name]
        if away:
            unit = orthogonal(unit, away)
            told = measure(vectors, unit, scores[:, columns[name]])
        units[name], figures[name] = unflatten(unit, codes), told
    return Directions(units, generator.name, fingerprint(generator), figures)


# --- regression on known attributes ----------------------------------------------------------


def regress(
    generator: Generator,
    codes: Codes,
    scores: Tensor,
    names: Sequence[str],
    loose: Loose | None = None,
) -> Directions:
    """Directions of attributes: how the codes change with one, the others held; `fit_regression`.

    Args: codes [n, ...] as the generator's mapping gives them; scores [n,A]; names of the A.
    """
    units, figures = fit_regression(flatten(codes), scores, names, loose)
    apart = {name: unflatten(unit, codes) for name, unit in units.items()}
    return Directions(apart, generator.name, fingerprint(generator), figures)


def fit_regression(
    codes: Tensor,
    scores: Tensor,
    names: Sequence[str],
    loose: Loose | None = None,
    ridge: float = 1e-3,
) -> tuple[dict[str, Tensor], dict[str, Figures]]:
    """B = argmin |X - mean(X) - S B|^2 + ridge |B|^2,  direction_a = row a of B

    with X the codes and S the standardised scores of a and of all attributes that are to stay.
    Regressing on them together is what separates those that merely occur together: the row is the
    change with the other scores fixed.

    Args:    codes [n,D]; scores [n,A] (logits, or 0 and 1); names of the A attributes.
             loose: of an attribute, the others that need not stay while it changes.
    Returns: unit directions name -> [D], and figures, of the attributes that vary.
    """
    spread = scores.std(0)
    known = [i for i in range(len(names)) if float(spread[i]) > 0]
    s = (scores[:, known] - scores[:, known].mean(0)) / spread[known]
    gram = s.T @ s / len(s) + ridge * torch.eye(len(known))
    cross = s.T @ (codes - codes.mean(0)) / len(s)
    found, figures = {}, {}
    for place, i in enumerate(known):
        free = (loose or {}).get(names[i], ())
        held = [k for k, j in enumerate(known) if names[j] not in free]
        row = torch.linalg.solve(gram[held][:, held], cross[held])[held.index(place)]
        found[names[i]] = row / row.norm()
        figures[names[i]] = measure(codes, found[names[i]], scores[:, i])
    return found, figures


# --- components (GANSpace) -------------------------------------------------------------------


def fit_components(generator: Generator, codes: Codes, count: int) -> Directions:
    """Principal components of codes, the widest first: pc00, pc01, ...

        C = cov(w) = sum_i s_i^2 v_i v_i^T,   direction_i = v_i,  deviation_i = s_i

    The largest entry of each is positive, so that their signs are always the same.

    Source: Härkönen et al. 2020 (GANSpace), arXiv:2004.02546.

    Args:   codes [n, ...] of `sample`; count: components.
    Raises: OptionError: there are not so many.
    """
    vectors = flatten(codes).double()
    most = min(vectors.shape[1], len(vectors) - 1)
    if not 1 <= count <= most:
        raise OptionError(f"{len(vectors)} samples have 1 to {most} components, not {count}")
    values, columns = torch.linalg.eigh(vectors.T.cov())
    units, figures = {}, {}
    for i in range(count):
        unit = columns[:, -1 - i].float()
        unit = unit * unit[unit.abs().argmax()].sign()
        name = f"pc{i:02d}"
        units[name] = unflatten(unit, codes)
        figures[name] = {
            "deviation": float(values[-1 - i].clamp(min=0).sqrt()),
            "samples": float(len(vectors)),
            "share": round(float(values[-1 - i] / values.sum()), 5),
        }
    return Directions(units, generator.name, fingerprint(generator), figures)
