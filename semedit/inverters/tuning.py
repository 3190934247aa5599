"""Pivotal tuning: small differences of a generator, each face its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
import torch.nn.functional as F
from torch import Tensor

from semedit import cameras
from semedit.errors import OptionError
from semedit.generators import Output
from semedit.generators.contract import Generator
from semedit.inverters.descent import Descended, descend
from semedit.latents import PLANES, TunedGenerator, shapes_of

VIEWS = ((-0.44, 0.0), (0.44, 0.0), (-0.2, 0.15), (0.2, -0.15))  # yaw, pitch added, radians
PLANE_RATE = 25.0  # planes are no weights: a step moves them so much farther
COARSEST = 4  # side of the coarsest level of what is added to planes
SOFT = 0.3  # see descent.descend: places that are hardly seen hardly move
KEPT = ("mapping", "intersections")  # networks that are not tuned, unless they are named
WEIGHTS = "weights"  # as `layers`: all parameters


@dataclass(frozen=True)
class Tuning:
    """theta* = argmin L(G(w_p; theta), x) + locality * |G(w_p; theta, c') - G(w_p; theta_0, c')|^2

    over what `layers` names, for a pivot w_p and views c' beside the face's own, where the
    generator knows the face and the photograph does not.

    Source: Roich et al. 2021, arXiv:2106.05744, equations 3 to 5.
    Departs: besides weights, theta may be what is added to the planes of a 3D generator. That
    changes the face where it is seen and nothing else, so it needs a few steps, no locality, and
    all faces can share a batch. Locality is kept in views of the pivot; generators without a
    camera keep their neighbours: codes moved a standard deviation towards a sample.
    """

    steps: int
    lr: float
    layers: str = ""  # patterns of names, comma separated; empty: the generator's choice
    locality: float = 0.0

    def __call__(
        self,
        generator: Generator,
        codes: dict[str, Tensor],
        c: Tensor,
        loss: Callable[[Output], Tensor],
        stop: Callable[[Tensor], bool] | None = None,
        progress: Callable[[], None] | None = None,
        begin: Mapping[str, Tensor] | None = None,
    ) -> tuple[dict[str, Tensor], Descended]:
        """Tune for the faces of a batch: one face, unless only planes are tuned.

        Args:    codes [N, ...]; c [N,25]; loss: Output -> [N]; begin: what is added to the planes
                 already [N, *shape]: the differences are counted from there, and hold it.
        Returns: differences, name -> float32 [N, *shape]; how it ended.
        """
        shapes = chosen(generator, self.layers)
        batch = only_planes(shapes)
        leaves = {
            k: pyramid(
                ((len(c),) if k.startswith(PLANES) else ()) + shape, k.startswith(PLANES), c.device
            )
            for k, shape in shapes.items()
        }
        pivot = {k: v.detach() for k, v in codes.items()}
        started = dict(begin or {})
        if batch:
            with torch.no_grad():
                # The same at every step.
                planes = TunedGenerator(generator, started).planes(pivot)
        asides = self._asides(generator, pivot, c)
        count = 0

        def objective() -> Tensor:
            nonlocal count
            moved = {k: total(v) for k, v in leaves.items()}
            tuned = TunedGenerator(generator, moved if batch else added(started, moved))
            output = tuned.render(tuned.add(planes), c) if batch else tuned.synthesis(pivot, c)
            value = loss(output)
            if asides:
                code, camera, image = asides[count % len(asides)]
                away = tuned.synthesis(code, camera).image - image
                value = value + self.locality * away.square().flatten(1).mean(1)
            count += 1
            return value

        final = descend(
            [leaf for levels in leaves.values() for leaf in levels],
            objective,
            self.steps,
            self.lr,
            stop=stop,
            progress=progress,
            rates=[
                PLANE_RATE if k.startswith(PLANES) else 1.0
                for k, levels in leaves.items()
                for _ in levels
            ],
            soft=SOFT if batch else 0.0,
        )
        whole = {k: total(v).detach() for k, v in leaves.items()}
        found = {k: v if k.startswith(PLANES) else v[None] for k, v in whole.items()}
        return added(started, found), final

    @torch.no_grad()
    def _asides(
        self, generator: Generator, codes: dict[str, Tensor], c: Tensor
    ) -> list[tuple[dict[str, Tensor], Tensor, Tensor]]:
        """Codes, camera and untuned image of what shall stay as it is."""
        if self.locality <= 0:
            return []
        if "camera" in generator.traits:
            views = [cameras.turn(c, yaw, pitch) for yaw, pitch in VIEWS]
            return [(codes, view, generator.synthesis(codes, view).image) for view in views]
        z = torch.randn(len(VIEWS), generator.z_dim, generator=torch.Generator().manual_seed(0))
        sampled = generator.mapping(z.to(c), c.expand(len(z), -1))
        found: list[tuple[dict[str, Tensor], Tensor, Tensor]] = []
        for i in range(len(z)):
            near = {k: v + _towards(v, sampled[k][i : i + 1]) for k, v in codes.items()}
            found.append((near, c, generator.synthesis(near, c).image))
        return found


def _towards(code: Tensor, other: Tensor) -> Tensor:
    difference = other - code
    size = difference.square().flatten(1).mean(1).sqrt().clamp(min=1e-8)
    return difference / size.view(-1, *[1] * (code.ndim - 1))


def chosen(generator: Generator, layers: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of what tuning may change: parameters, and "planes.NAME" for what is added
    to an entry of the planes.

    Without patterns: what the generator declares in `tunable` (patterns), else all parameters.
    Those of its mapping network, which the pivot has already passed, are left out, and those of
    its surfaces, so that where rays meet them is found once a view.

    Raises: OptionError: a pattern that matches nothing.
    """
    declared: Sequence[str] = getattr(generator, "tunable", ())
    patterns = [p.strip() for p in layers.split(",") if p.strip()] or list(declared)
    shapes = shapes_of(generator, planes=any(p.startswith(PLANES) for p in patterns))
    if not patterns or patterns == [WEIGHTS]:
        return {k: v for k, v in shapes.items() if not k.startswith(KEPT)}
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in shapes):
            raise OptionError(f"no parameter of {generator.name} matches {pattern}")
    return {k: v for k, v in shapes.items() if any(fnmatchcase(k, p) for p in patterns)}


def added(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The sum of two sets of differences."""
    both = {k: first[k] + v if k in first else v for k, v in second.items()}
    return {**first, **both}


def pyramid(shape: tuple[int, ...], spatial: bool, device: torch.device) -> list[Tensor]:
    """Zero leaves whose `total` has the shape: finest first, each level half as fine.

    What is added to planes is the sum of all levels, so places that no ray of the photograph
    reaches follow their neighbourhood. Weights have one level.

    Args: shape: of an entry of planes, [N,3,H,W,C] or [N,C,H,W].
    """
    leaves = [torch.zeros(shape, device=device, requires_grad=True)]
    if not spatial:
        return leaves
    axes = (2, 3)  # of H and W, in both layouts
    side = shape[axes[0]]
    while side > COARSEST:
        side //= 2
        coarse = list(shape)
        coarse[2] = coarse[3] = side
        leaves.append(torch.zeros(coarse, device=device, requires_grad=True))
    return leaves


def total(levels: Sequence[Tensor]) -> Tensor:
    """Sum of a pyramid's levels at the finest one's size."""
    result = levels[-1]
    for level in levels[-2::-1]:
        result = level + enlarged(result)
    return result


def enlarged(maps: Tensor) -> Tensor:
    """[N,3,H,W,C] or [N,C,H,W] at twice the size, bilinear."""
    if maps.ndim == 4:
        return F.interpolate(maps, scale_factor=2.0, mode="bilinear")
    n, planes, high, wide, channels = maps.shape
    flat = maps.reshape(n * planes, high, wide, channels).permute(0, 3, 1, 2)
    flat = F.interpolate(flat, scale_factor=2.0, mode="bilinear").permute(0, 2, 3, 1)
    return flat.reshape(n, planes, 2 * high, 2 * wide, channels)


def only_planes(names: Iterable[str]) -> bool:
    """Whether all of these are added to planes, so that weights stay as they are."""
    return all(name.startswith(PLANES) for name in names)
