"""Linear directions of attributes in code space: fitting, keeping, moving."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from semedit import cameras, methods, weights
from semedit.editors.release import moved, release
from semedit.errors import LatentError, OptionError
from semedit.faces.attributes import Classifier
from semedit.images import ATTRIBUTES
from semedit.inverters.descent import Progress
from semedit.latents import Latent, fingerprint, require_same

Codes = Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class Directions:
    """Directions of several attributes for one generator.

    moves        attribute -> code name -> float32, shaped like one face's code: the move of one
                 standard deviation of the codes along the direction
    figures      attribute -> what was measured when it was fitted
    generator    its name; fingerprint: sha256 of its weights
    """

    moves: dict[str, dict[str, Tensor]]
    generator: str
    fingerprint: str
    figures: dict[str, dict[str, float]]

    def save(self, path: Path, **facts: str) -> None:
        """Write as safetensors with weights' metadata; facts: command, seed, data, licence."""
        tensors = {f"{a}/{k}": v.half() for a, move in self.moves.items() for k, v in move.items()}
        metadata = {
            "kind": "directions",
            "config": json.dumps({"generator": self.generator, "fingerprint": self.fingerprint}),
            "figures": json.dumps(self.figures, sort_keys=True),
            **facts,
        }
        weights.save(path, tensors, metadata)


def read_directions(source: str | Path) -> Directions:
    """Directions by the name of a weight file or by path.

    Raises: LatentError: not a file of directions.  WeightsError: no such weights.
    """
    path = source if isinstance(source, Path) else weights.resolve(source)
    try:
        with safe_open(str(path), "pt") as file:
            metadata = file.metadata() or {}
            tensors = {k: file.get_tensor(k).float() for k in file.keys()}
    except (SafetensorError, OSError) as error:
        raise LatentError(f"{path.name} holds no directions: {error}") from None
    if metadata.get("kind") != "directions":
        raise LatentError(f"{path.name} holds no directions.")
    moves: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        attribute, code = key.split("/", 1)
        moves.setdefault(attribute, {})[code] = value
    config = json.loads(metadata["config"])
    figures = json.loads(metadata.get("figures", "{}"))
    return Directions(moves, config["generator"], config["fingerprint"], figures)


def directions_for(generator: Any) -> Directions:
    """The shipped or installed directions of a generator: weights `directions-NAME`.

    Raises: WeightsError: there are none.  LatentError: they were fitted on other weights.
    """
    found = read_directions(f"directions-{generator.name}")
    if (found.generator, found.fingerprint) != (generator.name, fingerprint(generator)):
        raise LatentError(
            f"The directions belong to generator {found.generator} ({found.fingerprint[:12]}), "
            f"not to {generator.name} ({fingerprint(generator)[:12]}).",
            hint="fit them anew: semedit directions fit",
        )
    return found


# --- fitting ---------------------------------------------------------------------------------


def fit_directions(
    codes: Tensor, scores: Tensor, names: Sequence[str], ridge: float = 1e-3
) -> tuple[dict[str, Tensor], dict[str, dict[str, float]]]:
    """Directions of all attributes at once: how the codes change with one, the others held.

        B = argmin |X - mean(X) - S B|^2 + ridge |B|^2,  direction_a = row a of B

    with X the codes and S the standardised scores. Regressing on all attributes together is what
    separates those that occur together: each row is the change with the other scores fixed.

    Args:    codes [n,D]; scores [n,A] (logits, or 0 and 1); names of the A attributes.
    Returns: unit directions name -> [D]; figures name -> {deviation, accuracy, samples}:
             deviation of the codes along it, and how often the side of the median along it tells
             the score's side.
    """
    spread = scores.std(0)
    known = [i for i in range(len(names)) if float(spread[i]) > 0]
    s = (scores[:, known] - scores[:, known].mean(0)) / spread[known]
    x = codes - codes.mean(0)
    gram = s.T @ s / len(s) + ridge * torch.eye(len(known))
    rows = torch.linalg.solve(gram, s.T @ x / len(s))
    found, figures = {}, {}
    for row, i in zip(rows, known, strict=True):
        unit = row / row.norm()
        found[names[i]] = unit
        figures[names[i]] = measure(x @ unit, scores[:, i])
    return found, figures


def fit_boundary(
    codes: Tensor, scores: Tensor, chosen: int = 0, penalty: float = 1.0, steps: int = 200
) -> tuple[Tensor, dict[str, float]]:
    """Unit normal of the plane that parts the most positive from the most negative codes.

        min_n,b  |n|^2 / 2 + penalty * sum max(0, 1 - y (n x + b))^2

    Source: Shen et al. 2020 (InterFaceGAN), arXiv:1907.10786.
    Departs: the hinge is squared, which L-BFGS solves exactly in seconds.

    Args:    codes [n,D]; scores [n]; chosen: how many from either end, 0 = a tenth.
    Returns: normal [D]; figures {deviation, accuracy, samples}.
    """
    count = min(chosen or max(1, len(scores) // 10), len(scores) // 2)
    order = scores.argsort()
    rows = torch.cat([order[:count], order[-count:]])
    y = torch.cat([-torch.ones(count), torch.ones(count)])
    mean, scale = codes.mean(0), codes.std()
    x = (codes[rows] - mean) / scale
    normal = torch.zeros(x.shape[1], requires_grad=True)
    bias = torch.zeros(1, requires_grad=True)
    solver = torch.optim.LBFGS([normal, bias], max_iter=steps, line_search_fn="strong_wolfe")

    def objective() -> Tensor:
        solver.zero_grad()
        hinge = (1 - y * (x @ normal + bias)).clamp(min=0).square().mean()
        loss = normal.square().sum() / (2 * len(y)) + penalty * hinge
        loss.backward()
        return loss

    solver.step(objective)
    unit = (normal / normal.norm()).detach()
    return unit, measure((codes - mean) @ unit, scores)


def orthogonal(direction: Tensor, others: Sequence[Tensor]) -> Tensor:
    """The part of a unit direction [D] that leaves all others as they are, of unit length.

    Source: Shen et al. 2020, conditional manipulation.
    """
    if not others:
        return direction
    basis = torch.linalg.qr(torch.stack(list(others), 1))[0]
    rest = direction - basis @ (basis.T @ direction)
    return rest / rest.norm()


def measure(along: Tensor, scores: Tensor) -> dict[str, float]:
    """Spread along a direction, and balanced accuracy of its best threshold."""
    positive = scores > (0.5 if bool(((scores == 0) | (scores == 1)).all()) else 0.0)
    accuracy = 0.5
    if bool(positive.any()) and bool((~positive).any()):
        for threshold in along.quantile(torch.linspace(0.02, 0.98, 49)):
            side = along > threshold
            rate = (side[positive].float().mean() + (~side[~positive]).float().mean()) / 2
            accuracy = max(accuracy, float(rate))
    return {
        "deviation": float(along.std()),
        "accuracy": round(accuracy, 4),
        "samples": float(len(scores)),
    }


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


def fit(generator: Any, codes: Codes, scores: Tensor, names: Sequence[str]) -> Directions:
    """Directions of a generator from codes of samples and their attribute scores.

    Args: codes [n, ...] as its mapping gives them; scores [n,A]; names of the A attributes.
    """
    units, figures = fit_directions(flatten(codes), scores, names)
    moves = {
        name: unflatten(unit * figures[name]["deviation"], codes) for name, unit in units.items()
    }
    return Directions(moves, generator.name, fingerprint(generator), figures)


@torch.no_grad()
def fit_generator(
    generator: Any, n: int, seed: int = 0, batch: int = 16, progress: Progress | None = None
) -> Directions:
    """Directions of a generator from n random samples, scored by the built-in classifier.

    Args: n: samples, seen from the front. seed: of the samples.
    """
    device = next(iter(generator.mean_codes().values())).device
    classifier = Classifier(str(device))
    numbers = torch.Generator().manual_seed(seed)
    c = cameras.orbit(0.0, 0.0).to(device)
    codes: list[dict[str, Tensor]] = []
    scores: list[Tensor] = []
    for first in range(0, n, batch):
        z = torch.randn(min(batch, n - first), generator.z_dim, generator=numbers).to(device)
        views = c.expand(len(z), -1)
        codes.append(generator.mapping(z, views))
        scores.append(classifier(generator.synthesis(codes[-1], views).image.clamp(-1, 1)))
        if progress is not None:
            progress(first + len(z), n)
    joined = {k: torch.cat([part[k] for part in codes]).cpu() for k in codes[0]}
    return fit(generator, joined, torch.cat(scores).cpu(), ATTRIBUTES)


# --- moving ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Direction:
    """Move codes along the linear direction of an attribute.

        codes' = codes + strength * deviation * direction

    Source: Shen et al. 2020 (InterFaceGAN), arXiv:1907.10786.
    Departs: the unit of strength is one standard deviation of codes along the direction.
    """

    requires: ClassVar[frozenset[str]] = frozenset()
    name: str = "smiling"  # attribute of the direction
    strength: float = 2.0  # standard deviations; negative takes the attribute away
    layers: str = ""  # layers to move, like 0-5,8; empty: all
    release: float = 1.0  # share of the face's own tuning taken back where the move shows
    directions: str = ""  # weights or file with the directions; empty: the generator's own

    def __call__(self, generator: Any, latent: Latent, progress: Progress | None = None) -> Latent:
        """
        Returns: the moved latent; tuned weights stay, kept pixels around older edits do not.
        Raises:  OptionError: no such direction or layer.  LatentError: fitted on another generator.
        """
        found = self._directions(generator)
        move = methods.pick(found.moves, self.name, "direction")
        codes = {
            k: v + self.strength * self._chosen(move[k]).to(v) for k, v in latent.codes.items()
        }
        after = replace(
            latent,
            codes=codes,
            method=f"{latent.method}+direction",
            composite=latent.composite if self.strength == 0 else None,
            meta={**latent.meta, "direction": {"name": self.name, "strength": self.strength}},
        )
        if self.strength != 0 and self.release > 0:
            after = release(generator, after, moved(generator, latent, after), self.release)
        if progress is not None:
            progress(1, 1)
        return after

    def _directions(self, generator: Any) -> Directions:
        if not self.directions:
            return directions_for(generator)
        path = Path(self.directions)
        found = read_directions(path if path.suffix else self.directions)
        own = Latent({}, torch.zeros(0, 25), found.generator, found.fingerprint, "directions")
        require_same(own, generator.name, fingerprint(generator))
        return found

    def _chosen(self, move: Tensor) -> Tensor:
        """The move with layers (axis 0 of a W+ code) that are not asked for left still."""
        if not self.layers:
            return move
        keep = torch.zeros(len(move))
        for part in self.layers.split(","):
            first, _, last = part.strip().partition("-")
            try:
                low, high = int(first), int(last or first)
            except ValueError:
                raise OptionError(f"layers={self.layers}: write them like 0-5,8.") from None
            if not 0 <= low <= high < len(move):
                raise OptionError(f"layers={self.layers}: there are layers 0 to {len(move) - 1}.")
            keep[low : high + 1] = 1
        return move * keep.view(-1, *[1] * (move.ndim - 1))
