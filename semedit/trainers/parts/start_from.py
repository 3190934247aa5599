"""Runs that begin with the weights of an earlier one, and the record that tells of both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import nn

from semedit import weights


def start_from_file(network: nn.Module, file: str | Path) -> dict[str, Any]:
    """Copy those tensors of a weight file whose name and shape a network has.

    Returns: how the file was trained, and its sha256.
    """
    own = network.state_dict()
    held, metadata = weights.load(Path(file))
    fitting = {k: v for k, v in held.items() if k in own and own[k].shape == v.shape}
    network.load_state_dict(own | fitting)
    training: dict[str, Any] = json.loads(metadata.get("training", "{}"))
    return {**training, "sha256": weights.file_sha256(Path(file))}


def whole_training(record: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """A run's record with that of the file it started from; minutes and kimg are those of both."""
    if not before:
        return record
    options = {**record["options"], "start_from": before["sha256"]}
    sums = {k: round(record[k] + before.get(k, 0), 3) for k in ("minutes", "kimg")}
    return {**record, **sums, "options": options, "before": before}
