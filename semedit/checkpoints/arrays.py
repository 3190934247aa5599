"""Arrays that others saved, in whatever file: .npy, .npz, .pt, .pkl, .safetensors, JSON, text.

What a file is, its content says, not its name. No code in it is ever run.
"""

from __future__ import annotations

import io
import json
import math
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from semedit import weights
from semedit.checkpoints import pickles
from semedit.checkpoints.pickles import Array, LazyTensor, value_of
from semedit.checkpoints.reader import ZIP, read
from semedit.errors import InputError, SemeditError
from semedit.media import reading

NPY = b"\x93NUMPY"
DEEPEST = 8  # containers around an array
KINDS = "NumPy, PyTorch, safetensors, JSON or text"


def read_arrays(path: str | Path) -> dict[str, Tensor]:
    """The arrays of numbers in a file by their keys, as they are stored; "" of an only one.

    Keys within keys are joined by dots; members of lists have their number.

    Raises:
        InputError: no such file, damaged, of another kind, or it holds no numbers.
        WeightsError: a pickle that would have to run code.
    """
    path = Path(path)
    if path.is_file():
        weights.refuse_impostors(path, "file")
    contents = _contents(path)
    found = dict(_named(contents, ""))
    if not found and isinstance(contents, Array):
        raise InputError(f"{path.name} is not a NumPy array of numbers")
    if not found:
        raise InputError(f"{path.name} holds no array of numbers but a {_kind(contents)}")
    return found


def pick(
    path: Path, arrays: Mapping[str, Tensor], key: str | None, what: str
) -> tuple[str, Tensor]:
    """The key and the array that is meant: by its key, or the only one.

    Raises: InputError: there is no such key; or there are several arrays, which are listed.
    """
    if key is None and len(arrays) == 1:
        return next(iter(arrays.items()))
    if key is not None and key in arrays:
        return key, arrays[key]
    names = sorted(arrays)
    shown = ", ".join(f"{name} {tuple(arrays[name].shape)}" for name in names[:20])
    shown += f" and {len(names) - 20} more" if len(names) > 20 else ""
    if key is not None:
        raise InputError(f"{path.name} has no key {key!r}", f"it has {shown}")
    raise InputError(f"{path.name} holds several {what}: {shown}", f"choose one: --key {names[0]}")


def _contents(path: Path) -> Any:
    with reading.opened(path, 1 << 40) as (file, _):
        start = file.read(64)
    if start.startswith(NPY):
        return _npy(path, reading.read(path, reading.MAX_BYTES))
    if start.startswith(ZIP) and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if any(one.filename.endswith(".npy") for one in members):
                return _npz(path, archive, members)
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text[:1] in (b"[", b"{") or re.match(rb"[-+.\d#]", text):
        return _text(path)
    try:
        return read(path).data
    except SemeditError as error:
        if error.message.startswith(f"{path}: neither"):
            raise InputError(f"{path} is no array of {KINDS}") from None
        raise


def _npz(path: Path, archive: zipfile.ZipFile, members: list[zipfile.ZipInfo]) -> dict[str, Any]:
    found = {}
    for one in members:
        if one.filename.endswith(".npy"):
            if one.file_size > reading.MAX_BYTES:
                raise InputError(f"{path}: {one.filename} is too large")
            try:
                data = archive.read(one)
            except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError) as error:
                raise InputError(f"{path} is damaged or cut short: {error}") from error
            found[one.filename.removesuffix(".npy")] = _npy(path, data)
    return found


def _npy(path: Path, data: bytes) -> Any:
    """An array of NumPy's own format; one of objects is a pickle, read as data."""
    file = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        header = getattr(np.lib.format, f"read_array_header_{version[0]}_0")
        shape, fortran, kind = header(file)
        rest = data[file.tell() :]
        if kind.hasobject:
            return pickles.load(io.BytesIO(rest))
        count = math.prod(shape)
        values = np.frombuffer(rest, kind, count)
    except SemeditError as error:
        raise InputError(f"{path}: {error.message}", error.hint) from error
    except Exception as error:  # a malformed pickle makes its reader raise nearly anything
        raise InputError(f"{path} is damaged or cut short") from error
    return values.reshape(shape, order="F" if fortran else "C")


def _text(path: Path) -> Any:
    """JSON, or numbers parted by spaces, commas or semicolons."""
    try:
        text = reading.read(path, reading.MAX_BYTES).decode("utf-8-sig")
        if text.lstrip()[:1] in ("[", "{"):
            return _as_arrays(json.loads(text))
        lines = (line.partition("#")[0].strip(" ,;\t") for line in text.splitlines())
        rows = [[float(n) for n in re.split(r"[\s,;]+", line)] for line in lines if line]
        return np.array([row[0] for row in rows] if all(len(row) == 1 for row in rows) else rows)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no array of {KINDS}") from error


def _named(value: Any, name: str, depth: int = DEEPEST) -> Iterator[tuple[str, Tensor]]:
    """Arrays in a value by their keys."""
    array = _array(value)
    if array is not None:
        yield name, array
        return
    if isinstance(value, Array):
        value = value.value
    if isinstance(value, np.ndarray):  # of objects
        value = value.item() if value.ndim == 0 else value.ravel().tolist()
        yield from _named(value, name, depth)
    elif isinstance(value, Mapping | list | tuple) and depth:
        pairs = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, one in pairs:
            yield from _named(one, f"{name}.{key}" if name else str(key), depth - 1)


def _array(value: Any) -> Tensor | None:
    """A value that is an array of numbers."""
    if isinstance(value, Tensor | LazyTensor):
        return value_of(value).detach()
    if isinstance(value, Array):
        value = value.value
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiub":
        return None
    native = value.astype(value.dtype.newbyteorder("="))
    # torch knows few operations on other unsigned numbers
    return torch.from_numpy(
        native.astype(np.int64) if native.dtype.kind == "u" and native.itemsize > 1 else native
    )


def _as_arrays(value: Any) -> Any:
    """JSON with arrays in the place of lists of numbers."""
    if isinstance(value, dict):
        return {key: _as_arrays(one) for key, one in value.items()}
    if not isinstance(value, list):
        return value
    try:
        array = np.array(value)
    except (ValueError, OverflowError):  # rows of unlike length
        array = np.empty(0, object)
    if array.dtype.kind in "fi" and array.size:
        return array.astype(np.float64)
    return [_as_arrays(one) for one in value]


def _kind(value: Any) -> str:
    return "dict" if isinstance(value, Mapping) else type(value).__name__
