"""A checkpoint file of any container format -> its contents, as data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from semedit import weights
from semedit.checkpoints import pickles
from semedit.checkpoints.pickles import LazyTensor, Record, Tensors, tensors_of
from semedit.errors import SemeditError, WeightsError

ZIP = b"PK\x03\x04"
# How PyTorch's files before 1.6 begin: a pickle of their magic number.
LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
PICKLE = b"\x80"
HDF5 = b"\x89HDF\r\n"
DEEPEST = 5  # containers and prefixes around a network


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds.

    Attributes:
        data: plain containers, tensors, pickles.Record.
        metadata: of a safetensors file.
        prefix: of the names of the network's tensors, entries of the file counted in, like
            "state_dict.g_ema."; None: as formats have it.
    """

    path: Path
    data: Any
    metadata: Mapping[str, str] = field(default_factory=dict)
    prefix: str | None = None

    def network(self, *names: str) -> tuple[str, Any, Tensors]:
        """The first of the named entries that holds tensors, or else the whole file.

        Returns: its name ("" for the whole), the entry as read, its state dict.
        """
        if self.prefix is not None:
            entry, _, below = self.prefix.partition(".")
            held = entry if self.entry(entry) is not None else ""
            return held, self.entry(entry) if not below else None, self._under(self.prefix)
        for name in names:
            found = tensors_of(self.entry(name))
            if found:
                return name, self.entry(name), _plain(found)
        return "", self.data, _plain(tensors_of(self.data))

    def entry(self, name: str) -> Any:
        """An entry of the file's own dictionary, or None."""
        return self.data.get(name) if isinstance(self.data, Mapping) else None

    def deeper(self) -> Iterator[list[Checkpoint]]:
        """The same file, its network looked for under each prefix that names in it share: all of
        one part, then all of two, ..."""
        names = [name.split(".") for name in self._flat]
        for depth in range(1, DEEPEST + 1):
            found = dict.fromkeys(
                ".".join(parts[:depth]) + "." for parts in names if len(parts) > depth
            )
            yield [replace(self, prefix=prefix) for prefix in found]

    @cached_property
    def _flat(self) -> Tensors:
        """All tensors of the file by their dotted names."""
        return dict(_dotted(self.data, "", DEEPEST))

    def _under(self, prefix: str) -> Tensors:
        found = self._flat.items()
        return {k.removeprefix(prefix): v for k, v in found if k.startswith(prefix)}

    def others(self, *names: str) -> tuple[str, ...]:
        """Entries of the file's own dictionary besides these."""
        entries = self.data if isinstance(self.data, Mapping) else {}
        return tuple(str(key) for key in entries if key not in names)


def _dotted(value: Any, prefix: str, depth: int) -> Iterator[tuple[str, Any]]:
    """Tensors below a value, which may hold containers and networks; numbers alone are none."""
    if isinstance(value, Mapping) and depth:
        for key, one in value.items():
            if isinstance(one, Tensor | LazyTensor):
                yield f"{prefix}{key}", one
            else:
                yield from _dotted(one, f"{prefix}{key}.", depth - 1)
    elif isinstance(value, Record):
        yield from ((prefix + key, one) for key, one in tensors_of(value).items())


def _plain(tensors: Tensors) -> Tensors:
    """Without the prefix of DataParallel."""
    if tensors and all(key.startswith("module.") for key in tensors):
        return {key.removeprefix("module."): value for key, value in tensors.items()}
    return tensors


def read(path: str | Path) -> Checkpoint:
    """Read a file; what kind it is, its first bytes say.

    Raises: WeightsError: no file, a web page, an LFS pointer, damaged or cut short, of no known
            format, or a pickle that would have to run code.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"no file at {path}")
    weights.refuse_impostors(path, "checkpoint")
    with path.open("rb") as file:
        start = file.read(64)
    try:
        return _read(path, start)
    except SemeditError as error:
        raise WeightsError(f"{path}: {error.message}", error.hint) from error
    except Exception as error:  # a malformed pickle makes its reader raise nearly anything
        reason = str(error).split("\n")[0][:200] or type(error).__name__
        raise WeightsError(
            f"{path} is damaged or cut short: {reason}", "fetch it again and compare its size"
        ) from error


def _read(path: Path, start: bytes) -> Checkpoint:
    if start.startswith((ZIP, LEGACY)):
        data = torch.load(
            path,
            map_location="cpu",
            weights_only=False,  # the pickle module decides what is built
            pickle_module=pickles,
            mmap=start.startswith(ZIP),
        )
        return Checkpoint(path, data)
    if start.startswith(PICKLE):
        with path.open("rb") as file:
            return Checkpoint(path, pickles.load(file))
    length = int.from_bytes(start[:8], "little")
    if start[8:9] == b"{" and length <= path.stat().st_size:
        tensors, metadata = weights.load(path)
        return Checkpoint(path, tensors, metadata)
    if start.startswith(HDF5):
        raise WeightsError(pickles.TENSORFLOW.format("HDF5, as Keras writes it"), pickles.CONVERT)
    raise WeightsError(
        "neither a PyTorch checkpoint nor a pickle nor safetensors",
        f"it begins with {start[:8]!r}" if start else "it is empty",
    )
