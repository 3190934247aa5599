"""Directions in code space as a record: what they are, their files, which a generator has."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from semedit import weights
from semedit.errors import LatentError, TraitError, WeightsError
from semedit.generators.contract import Generator
from semedit.latents import fingerprint
from semedit.media import valid_json
from semedit.options import pick_method


@dataclass(frozen=True, eq=False)
class Directions:
    """Directions of one generator: of attributes, of its principal components, published ones.

    units        name -> code name -> float32, of unit length over all codes together; of one
                 face's code or broadcast to it: [1,w_dim] moves all layers alike
    figures      name -> what was measured over samples: "deviation", the standard deviation of
                 codes along the direction, always; see `fitting` for the others
    generator    its name; fingerprint: sha256 of its weights
    """

    units: dict[str, dict[str, Tensor]]
    generator: str
    fingerprint: str
    figures: dict[str, dict[str, float]]

    def move(self, name: str) -> dict[str, Tensor]:
        """Change of each code along a direction by one standard deviation of the codes.

        Raises: OptionError: no such direction.
        """
        unit = pick_method(self.units, name, "direction")
        return {k: v * self.figures[name]["deviation"] for k, v in unit.items()}

    def joined(self, other: Directions) -> Directions:
        """These and the others'; of two of one name, the other's."""
        units, figures = {**self.units, **other.units}, {**self.figures, **other.figures}
        return replace(self, units=units, figures=figures)

    def save(self, path: str | Path, **facts: str) -> None:
        """Write as safetensors with weights' metadata; facts: command, seed, data, licence."""
        tensors = {f"{a}/{k}": v for a, unit in self.units.items() for k, v in unit.items()}
        metadata = {
            "kind": "directions",
            "config": json.dumps({"generator": self.generator, "fingerprint": self.fingerprint}),
            "figures": valid_json.dumps(self.figures, sort_keys=True),
            **facts,
        }
        weights.save(path, tensors, metadata, half=False)


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
        raise LatentError(f"{path.name} holds no directions")
    try:
        found = _named(tensors, json.loads(metadata["config"]), json.loads(metadata["figures"]))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        reason = str(error).split("\n")[0]
        raise LatentError(f"{path.name} holds damaged directions: {reason}") from error
    return found


def _named(tensors: Mapping[str, Tensor], config: Any, figures: Any) -> Directions:
    """Directions of what their file holds.

    Raises: ValueError, LookupError, TypeError, AttributeError: it is damaged.
    """
    units: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        name, code = key.split("/", 1)
        units.setdefault(name, {})[code] = value
    for name, unit in units.items():
        size = sum(float(v.double().square().sum()) for v in unit.values())
        if not 0 < size < math.inf:
            raise ValueError(f"{name!r} is zero or not finite")
    if not all(isinstance(config[key], str) for key in ("generator", "fingerprint")):
        raise ValueError("their generator has no name")
    units = {name: normal(unit) for name, unit in units.items()}
    return Directions(units, config["generator"], config["fingerprint"], dict(figures))


def regional(name: str, region: str) -> str:
    """What a direction of some regions' codes alone is called, in whatever order they are named;
    no region: the name itself."""
    parts = sorted({part.strip() for part in region.split(",") if part.strip()})
    return f"{name}@{','.join(parts)}" if parts else name


def normal(direction: dict[str, Tensor]) -> dict[str, Tensor]:
    """The direction of unit length over all its codes."""
    length = sum(float(v.double().square().sum()) for v in direction.values()) ** 0.5
    return {k: v / length for k, v in direction.items()}


@dataclass(frozen=True)
class OfRegions:
    """The part of codes "ws" [n,K,L,w] that belongs to some regions: what a direction that leaves
    all others alone is fitted to.

    Args: count: K. chosen: the regions' numbers.
    """

    count: int
    chosen: tuple[int, ...]

    @classmethod
    def named(cls, generator: Generator, regions: Sequence[str]) -> OfRegions:
        """Of regions of a generator's, by the names of labels.REGIONS.

        Raises: TraitError: its codes have no regions.  OptionError: no such region.
        """
        if "regions" not in generator.traits:
            raise TraitError(
                f"the codes of {generator.name} have no regions",
                "take weights of `semedit train cnerf`, or leave --region out",
            )
        names = generator.covering(regions)
        return cls(len(generator.regions), tuple(generator.regions.index(n) for n in names))

    def cut(self, codes: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Codes [n,K,...] of all regions -> [n,chosen,...]."""
        return {"ws": codes["ws"][:, list(self.chosen)]}

    def only(self, move: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A move of "ws" [K or 1,L,w] that is zero in all other regions."""
        keep = torch.zeros(self.count, 1, 1)
        keep[list(self.chosen)] = 1
        return {"ws": move["ws"] * keep.to(move["ws"])}

    def whole(self, found: Directions, label: str) -> Directions:
        """Directions of the cut codes as ones of all, called NAME@label."""
        units = {}
        for name, unit in found.units.items():
            ws = unit["ws"].new_zeros(self.count, *unit["ws"].shape[1:])
            ws[list(self.chosen)] = unit["ws"]
            units[regional(name, label)] = {"ws": ws}
        figures = {regional(name, label): told for name, told in found.figures.items()}
        return replace(found, units=units, figures=figures)


def direction_files(name: str) -> list[Path]:
    """Where the directions of a generator lie: those that ship, then the user's own."""
    file = f"directions-{name}.safetensors"
    return [path for path in (weights.rows.DATA / file, own_file(name)) if path.is_file()]


def own_file(name: str) -> Path:
    """Where the user's directions of a generator are kept."""
    return weights.folder() / f"directions-{name}.safetensors"


def directions_for(generator: Generator) -> Directions:
    """The shipped directions of a generator and the user's, which count where both have a name.

    Raises: WeightsError: there are none.  LatentError: they were made for other weights.
    """
    found: Directions | None = None
    for path in direction_files(generator.name):
        own = read_directions(path)
        require_made_for(own, generator, path)
        found = own if found is None else found.joined(own)
    if found is None:
        raise WeightsError(
            f"{generator.name} has no directions",
            f"make some: semedit directions fit -w {generator.name}, or pca, or import",
        )
    return found


def require_made_for(found: Directions, generator: Generator, path: Path) -> None:
    """Raise LatentError unless the directions of a file were made for the generator."""
    own = (generator.name, fingerprint(generator))
    if (found.generator, found.fingerprint) != own:
        raise LatentError(
            f"the directions in {path} belong to generator {found.generator} "
            f"({found.fingerprint[:12]}), not to {own[0]} ({own[1][:12]})",
            hint="delete the file and fit them again: semedit directions fit",
        )
