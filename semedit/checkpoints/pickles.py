"""Pickles read as data: tensors and plain containers are rebuilt, everything else stays a record.

A pickle is a program that names functions to call. Here every name leads to an entry of a closed
list, whose functions only store what they are given; any other name ends the reading. The classes
that NVIDIA's checkpoints bring along as source text become `Record`s: their class's name, their
state and the arguments of their constructor, which hold all that a network consists of. Nothing
of the source is compiled or run.
"""

from __future__ import annotations

import collections
import io
import pickle
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from semedit.errors import WeightsError

CODE = "it names {}, which is code, and code of a checkpoint is never run"
TENSORFLOW = "networks of TensorFlow ({}), which PyTorch has no use for"
CONVERT = (
    "convert them with legacy.py of stylegan2-ada-pytorch (--source OLD.pkl --dest NEW.pkl), "
    "then import NEW.pkl"
)
_TENSORFLOW = ("dnnlib.tflib.", "tensorflow.", "tensorflow_core.", "keras.", "tf_keras.")
# Whose classes become records: those of networks. Names from elsewhere are refused.
RECORDED = ("torch_utils.", "training.", "dnnlib.", "torch.nn.modules.", "torch_ema.")


@dataclass
class Record:
    """An object of a class that is not ours: what the pickle says of it, and nothing done with it.

    Attributes:
        name: of the class, as the pickle or the persistent object gives it.
        args, state: what it was made with and what it holds.
    """

    name: str
    args: tuple[Any, ...] = ()
    state: dict[str, Any] = field(default_factory=dict)

    @property
    def init(self) -> dict[str, Any]:
        """Keyword arguments of a persistent object's constructor."""
        found = self.state.get("_init_kwargs", {})
        return found if isinstance(found, dict) else {}

    def module(self, path: str) -> Record | None:
        """A module within, by its dotted name."""
        found: Any = self
        for name in path.split("."):
            modules = found.state.get("_modules") if isinstance(found, Record) else None
            found = modules.get(name) if isinstance(modules, Mapping) else None
        return found if isinstance(found, Record) else None


class Fields(dict[str, Any]):
    """argparse's Namespace and NVIDIA's EasyDict: names and values."""


@dataclass(frozen=True)
class LazyTensor:
    """A tensor whose values are still in the pickle's bytes; `tensor` reads them."""

    storage: Stored
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def tensor(self) -> Tensor:
        return rebuilt(self.storage.read(), self.offset, self.shape, self.stride)


@dataclass(frozen=True, eq=False)
class Stored:
    """The bytes of a storage within a plain pickle, which are a small PyTorch file themselves."""

    data: bytes

    def read(self) -> Any:
        return torch.load(io.BytesIO(self.data), map_location="cpu", weights_only=True)


def rebuilt(storage: Any, offset: int, shape: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    """A view of a storage, which must hold it.

    Raises: WeightsError: it does not.
    """
    last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
    held = storage._untyped_storage.nbytes() // storage.dtype.itemsize
    if min((offset, *shape, *stride), default=0) < 0 or (0 not in shape and last >= held):
        raise WeightsError(f"a tensor of shape {shape} does not fit its storage")
    empty: Tensor = torch.empty(0, dtype=storage.dtype)
    return empty.set_(storage._untyped_storage, offset, shape, stride)


# What names in a pickle lead to ------------------------------------------------------------------


def _tensor(storage: Any, offset: int, shape: Any, stride: Any, *_: Any) -> Tensor | LazyTensor:
    """torch._utils._rebuild_tensor_v2."""
    if isinstance(storage, Stored):
        return LazyTensor(storage, int(offset), tuple(shape), tuple(stride))
    return rebuilt(storage, int(offset), tuple(shape), tuple(stride))


def _parameter(value: Any, *_: Any) -> Any:
    """torch._utils._rebuild_parameter."""
    return value


def _persistent(meta: Mapping[str, Any]) -> Record:
    """NVIDIA's objects with their source; the source is not kept."""
    state = meta.get("state")
    return Record(str(meta.get("class_name", "?")), (), state if isinstance(state, dict) else {})


def _encoded(text: str, encoding: str = "latin1") -> bytes:
    """_codecs.encode, which is how protocol 2 keeps bytes."""
    if encoding not in ("latin1", "latin-1"):
        raise WeightsError(f"bytes kept as {encoding}")
    return text.encode("latin1")


class _Kind:
    """numpy.dtype: its code, e.g. `f8`."""

    def __init__(self, code: str, *_: Any) -> None:
        self.code, self.order = str(code), "<"

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">"):
            self.order = state[1]

    def values(self, data: Any) -> Any:
        import numpy as np

        if self.code[:1] == "O" and isinstance(data, list):
            found = np.empty(len(data), object)
            for i, one in enumerate(data):
                found[i] = one
            return found
        if self.code[:1] not in "fiub" or not isinstance(data, bytes):
            raise WeightsError(f"an array of kind {self.code} is no plain numbers")
        return np.frombuffer(data, np.dtype(self.order + self.code))


class Array:
    """numpy.ndarray; `value` is it."""

    value: Any = None

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, fortran, data = state
        self.value = kind.values(data).reshape(shape, order="F" if fortran else "C")


def _from_buffer(data: Any, kind: _Kind, shape: Any, order: str = "C") -> Array:
    """numpy.core.numeric._frombuffer, of pickles of protocol 5."""
    found = Array()
    found.value = kind.values(bytes(data)).reshape(shape, order="F" if order == "F" else "C")
    return found


def _scalar(kind: _Kind, data: bytes) -> Any:
    """numpy.core.multiarray.scalar."""
    return kind.values(data)[0].item()


_ARRAYS = ("numpy.core.multiarray", "numpy._core.multiarray")
_NAMES: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
    ("_codecs", "encode"): _encoded,
    ("torch", "Size"): tuple,
    ("torch", "device"): str,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch.storage", "_load_from_bytes"): Stored,
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): _persistent,
    ("numpy", "dtype"): _Kind,
    ("numpy", "ndarray"): Array,
    **{(module, "_reconstruct"): Array for module in _ARRAYS},
    **{(module, "scalar"): _scalar for module in _ARRAYS},
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
}
_FIELDS = (("argparse", "Namespace"), ("dnnlib.util", "EasyDict"), ("dnnlib", "EasyDict"))


class Unpickler(pickle.Unpickler):
    """Builds what `_NAMES` has and records what `RECORDED` covers; refuses every other name."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _NAMES:
            # Wrapped anew: a pickle may set attributes of what it was given, but of nothing shared.
            found = _NAMES[module, name]
            return type(name, (found,), {}) if isinstance(found, type) else partial(found)
        if (module, name) in _FIELDS:
            return _fields_class(name)
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        if f"{module}.".startswith(_TENSORFLOW):
            raise WeightsError(TENSORFLOW.format(f"{module}.{name}"), CONVERT)
        if f"{module}.".startswith(RECORDED):
            return _record_class(name)
        raise WeightsError(CODE.format(f"{module}.{name}"))


def _fields_class(name: str) -> type:
    """A class of its own for each name in a pickle."""

    def take(self: Fields, state: Any) -> None:
        if isinstance(state, dict):
            self.update(state)

    return type(name, (Fields,), {"__setstate__": take})


def _record_class(name: str) -> type:
    def make(self: Record, *args: Any) -> None:
        Record.__init__(self, name, args)

    def take(self: Record, state: Any) -> None:
        self.state = state if isinstance(state, dict) else {"state": state}

    return type(name, (Record,), {"__init__": make, "__setstate__": take})


def load(file: Any, **_: Any) -> Any:
    """pickle.load, as torch.load wants it of its pickle_module."""
    return Unpickler(file).load()


# What was read -----------------------------------------------------------------------------------


Tensors = dict[str, Tensor | LazyTensor]


def tensors_of(value: Any) -> Tensors:
    """State dict of a record of a network, or of a mapping that is one; empty if it is neither."""
    if isinstance(value, Record):
        return dict(_of_record(value, ""))
    if isinstance(value, Mapping):
        return {k: v for k, v in value.items() if isinstance(v, Tensor | LazyTensor)}
    return {}


def value_of(tensor: Tensor | LazyTensor) -> Tensor:
    """The tensor itself."""
    return tensor.tensor() if isinstance(tensor, LazyTensor) else tensor


def _of_record(record: Record, prefix: str) -> Iterator[tuple[str, Tensor | LazyTensor]]:
    passing = record.state.get("_non_persistent_buffers_set", ())
    for group in ("_parameters", "_buffers"):
        for key, value in _entries(record.state, group):
            if isinstance(value, Tensor | LazyTensor) and key not in passing:
                yield prefix + key, value
    for key, value in _entries(record.state, "_modules"):
        if isinstance(value, Record):
            yield from _of_record(value, f"{prefix}{key}.")


def _entries(state: Mapping[str, Any], name: str) -> list[tuple[str, Any]]:
    group = state.get(name)
    return list(group.items()) if isinstance(group, Mapping) else []
