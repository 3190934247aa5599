"""The formats of checkpoints: how each is known by its content, and what networks it holds.

To add one: write its two functions, add its line to FORMATS in this package's `__init__`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from semedit.checkpoints.pickles import LazyTensor, value_of
from semedit.checkpoints.reader import Checkpoint
from semedit.errors import WeightsError
from semedit.generators import GENERATORS, build_generator
from semedit.generators.parts.encoder import ENCODERS, build_encoder
from semedit.generators.stylegan2.stylegan2 import MappingNetwork, StyleGAN2Config

MEAN_SAMPLES = 10000  # mapped to find a mean style that a checkpoint lacks


@dataclass(frozen=True)
class Part:
    """One network of a checkpoint, under semedit's names.

    Attributes:
        kind: of GENERATORS or ENCODERS, or "mapping"; config: fields of its configuration.
        tensors: semedit's name -> value; names that the format does not know as they are.
        ignored: the file's names that are known and not needed, like filters.
        beside: other entries of the file, like a discriminator.
        suffix: of the weights' name, for a part that is not the main one.
        complete: makes tensors that the file lacks from a network that has all others.
        notes: what a user has to know of it, a line each.
    """

    kind: str
    config: dict[str, Any]
    tensors: Mapping[str, Tensor | LazyTensor]
    ignored: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    suffix: str = ""
    complete: Mapping[str, Callable[[Any], Tensor]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def build(self) -> nn.Module:
        """The network with random weights."""
        if self.kind in GENERATORS:
            return build_generator(self.kind, self.config, self.kind)
        if self.kind in ENCODERS:
            return build_encoder(self.kind, self.config)
        if self.kind == "mapping":
            return MappingNetwork(StyleGAN2Config(**self.config))
        raise WeightsError(f"there is no network of the kind {self.kind!r}")


@dataclass(frozen=True)
class Format:
    """A kind of checkpoint.

    Attributes:
        name, about: for people. licence: what is known of such files' licence.
        matches: whether a file is of this format; of one file, at most one format says so.
        parts: its networks, the main one first.
    """

    name: str
    about: str
    licence: str
    matches: Callable[[Checkpoint], bool]
    parts: Callable[[Checkpoint], list[Part]]


@dataclass(frozen=True)
class Coverage:
    """How the tensors of a part fit its network.

    Attributes:
        used: names that fit. unknown: names that the network lacks. missing: names that the file
        lacks. mismatched: name, shape in the file, shape in the network. ignored: as Part's, and
        what is beside.
    """

    used: tuple[str, ...]
    unknown: tuple[str, ...]
    missing: tuple[str, ...]
    mismatched: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]
    ignored: tuple[str, ...]

    @property
    def complaints(self) -> list[str]:
        """What keeps the part from being used, a phrase each."""
        found = []
        if self.mismatched:
            key, theirs, ours = self.mismatched[0]
            found.append(f"{len(self.mismatched)} of another shape ({key}: {theirs}, not {ours})")
        for how in ("missing", "unknown"):
            names = getattr(self, how)
            if names:
                found.append(f"{len(names)} {how} ({names[0]})")
        return found


def coverage(part: Part) -> Coverage:
    """Compare names and shapes; no values are read."""
    with torch.device("meta"):
        own = {key: tuple(v.shape) for key, v in part.build().state_dict().items()}
    theirs = {key: tuple(v.shape) for key, v in part.tensors.items()}
    both = sorted(own.keys() & theirs.keys())
    optional = {key for key in own if key.endswith("num_batches_tracked")} | set(part.complete)
    return Coverage(
        used=tuple(key for key in both if own[key] == theirs[key]),
        unknown=tuple(sorted(theirs.keys() - own.keys())),
        missing=tuple(sorted(own.keys() - theirs.keys() - optional)),
        mismatched=tuple((k, theirs[k], own[k]) for k in both if own[k] != theirs[k]),
        ignored=(*part.ignored, *part.beside),
    )


def filled(part: Part) -> dict[str, Tensor]:
    """All tensors of the part's network, those that the file lacks computed.

    Raises: WeightsError: a value is no finite number.
    """
    found = {key: _value(value) for key, value in part.tensors.items()}
    for key, value in found.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise WeightsError(f"{key} holds values that are not finite numbers")
    if any(key not in found for key in part.complete):
        network = part.build().eval()
        network.load_state_dict(found, strict=False)
        with torch.no_grad():
            found |= {k: make(network) for k, make in part.complete.items() if k not in found}
    return found


def _value(value: Tensor | LazyTensor) -> Tensor:
    tensor = value_of(value)
    # A copy: what is read may lie in a mapped file, which must not be kept open.
    return tensor.float().clone() if tensor.is_floating_point() else tensor.clone()
