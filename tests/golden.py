"""What official networks computed with random weights that a rule gives (golden/README.md)."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Golden:
    """One network: its configuration, weights, inputs and outputs."""

    facts: dict[str, Any]
    arrays: dict[str, np.ndarray]

    @property
    def config(self) -> dict[str, Any]:
        return self.facts["config"]

    def state(self, prefix: str = "") -> dict[str, Tensor]:
        """The state dict by the rule; `prefix` is part of the random stream's name."""
        return {
            key: _tensor(prefix + key, entry)
            for key, entry in self.facts["state"].items()
            if not entry.get("keep")
        }

    def input(self, name: str) -> Tensor:
        if f"in.{name}" in self.arrays:
            return torch.from_numpy(self.arrays[f"in.{name}"])
        entry = self.facts["inputs"][name]
        return torch.from_numpy(entry["scale"] * _normal(entry["seed_key"], entry["shape"])).float()

    def check(self, name: str, found: Tensor, share: float = 1e-4) -> None:
        """Largest difference at most `share` of the standard deviation, plus 1e-5."""
        entry = self.facts["outputs"][name]
        assert list(found.shape) == entry["shape"]
        wanted = torch.from_numpy(self.arrays[f"out.{name}"])
        away = found.detach().float().flatten()[:: entry["stride"]] - wanted
        assert float(away.abs().max()) <= share * entry["std"] + 1e-5


def _normal(name: str, shape: list[int]) -> np.ndarray:
    numbers = np.random.RandomState(zlib.crc32(name.encode()))
    return numbers.standard_normal(shape).astype(np.float32)


def _tensor(name: str, entry: dict[str, Any]) -> Tensor:
    if "value" in entry:
        return torch.tensor(entry["value"], dtype=getattr(torch, entry["dtype"]))
    if not entry["shape"]:
        return torch.tensor(entry["mean"])
    values = entry["mean"] + entry["std"] * _normal(name, entry["shape"])
    return torch.from_numpy(values.astype(np.float32))


def read(shared: Path, name: str) -> Golden:
    """A network of the shared folder, by the name in its README."""
    folder = shared / "golden"
    with np.load(folder / f"{name}.npz") as arrays:
        found = {key: arrays[key] for key in arrays}
    return Golden(json.loads((folder / f"{name}.json").read_text("utf-8")), found)
