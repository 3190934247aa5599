"""Files that anybody may have written: the one place where they are opened.

A workspace, or a folder of photographs, may come from a stranger. What is read from it is a regular
file of a bounded size, read without ever waiting, and what JSON says is checked against a kind:

    str, int, float     text; a whole number; a finite number no larger than LARGEST
    frozenset           one of its values
    function            whatever it says yes to: `path`, `plain`
    (a, b)              a list of just these kinds, in this order; [a]: a list of any length
    {"x": a}            a table with this key; {a: b}: a table of keys and values of these kinds
    Maybe(a)            this kind, or null, or not there
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from semedit.errors import InputError

MAX_BYTES = 1 << 29  # of any input; larger files are refused before they are read
RECORD_BYTES = 4 << 20  # of a file that people could read
LARGEST = 1e9  # of the numbers in a record
DEPTH = 16  # of what is nested freely
LONGEST_PATH, LONGEST_PART = 1 << 14, 255  # bytes; a path in a record may be longer than one opened


@contextmanager
def opened(path: str | Path, most: int) -> Iterator[tuple[BinaryIO, int]]:
    """A regular file of at most `most` bytes, and its size.

    Pipes and devices are never opened, and nobody waits should one take the file's place.

    Raises:
        InputError: it is none, is larger, or cannot be read.
    """
    try:
        path = Path(path)
        _size(path, path.stat(), most)
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        with os.fdopen(os.open(path, flags), "rb") as file:
            yield file, _size(path, os.fstat(file.fileno()), most)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:  # no path at all
        raise InputError(f"{str(path)[:LONGEST_PART]!r}: cannot be read: {error}") from error


def _size(path: Path, status: os.stat_result, most: int) -> int:
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{path}: not a regular file")
    if status.st_size > most:
        raise InputError(f"{path}: more than {most >> 20} MiB")
    return status.st_size


def there(path: str | Path) -> bool:
    """Whether a regular file is there; not, where the system would not say."""
    return os.path.isfile(path)  # noqa: PTH113  Path.is_file raises where a name is too long


def read(path: str | Path, most: int = RECORD_BYTES) -> bytes:
    """The whole of a file; of one that says it is empty, as those of /proc do, nothing.

    Raises:
        InputError: as `opened`.
    """
    with opened(path, most) as (file, size):
        return file.read(size)


def digest(path: str | Path) -> str:
    """sha256 of a file, hex; larger files than any input stand for themselves by size and time.

    Raises:
        InputError: it is not a regular file, or cannot be read.
    """
    with opened(path, 1 << 63) as (file, size):
        changed_ns = os.fstat(file.fileno()).st_mtime_ns
        if size > MAX_BYTES:
            return f"{size} bytes of {changed_ns}"
    return _digest(Path(path), size, changed_ns)


@lru_cache(maxsize=1024)
def _digest(path: Path, _size: int, _changed_ns: int) -> str:
    found = hashlib.sha256()
    with opened(path, MAX_BYTES) as (file, left):
        while left > 0 and (part := file.read(min(left, 1 << 20))):
            found.update(part)
            left -= len(part)
    return found.hexdigest()


# JSON -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Maybe:
    """This kind, or null, or not there."""

    kind: Any


def parse(text: str | bytes, kind: Any) -> Any:
    """JSON of a kind. NaN and infinity, which JSON has not, are null.

    Raises:
        ValueError: it is none, or not of that kind; says where.
    """
    try:
        value = json.loads(text, parse_constant=lambda _: None)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    wrong = misfit(value, kind)
    if wrong is not None:
        raise ValueError(wrong)
    return value


def misfit(value: Any, kind: Any, place: str = "the whole") -> str | None:
    """What is wrong with a value, and where; None if it is of that kind."""
    if isinstance(kind, Maybe):
        return None if value is None else misfit(value, kind.kind, place)
    if isinstance(kind, dict):
        return _table_misfit(value, kind, place)
    if isinstance(kind, list | tuple):
        return _list_misfit(value, kind, place)
    if isinstance(kind, frozenset):
        fits = any(value == one and type(value) is type(one) for one in kind)
    elif kind is float:
        fits = type(value) in (int, float) and abs(value) <= LARGEST
    elif kind is int:
        fits = type(value) is int and abs(value) <= LARGEST
    else:
        fits = isinstance(value, kind) if isinstance(kind, type) else kind(value)
    return None if fits else f"{place} is not as it should be"


def _table_misfit(value: Any, kind: dict[Any, Any], place: str) -> str | None:
    if not isinstance(value, dict):
        return f"{place} is no table"
    named = all(isinstance(key, str) for key in kind)
    if named:
        found = (misfit(value.get(key), one, f"{place}: {key}") for key, one in kind.items())
        return next(filter(None, found), None)
    ((key_kind, value_kind),) = kind.items()
    for key, one in value.items():
        where = f"{place}: {key[:40]!r}"
        wrong = misfit(key, key_kind, where) or misfit(one, value_kind, where)
        if wrong:
            return wrong
    return None


def _list_misfit(value: Any, kind: list[Any] | tuple[Any, ...], place: str) -> str | None:
    if not isinstance(value, list):
        return f"{place} is no list"
    if isinstance(kind, tuple) and len(value) != len(kind):
        return f"{place} has {len(value)} entries, not {len(kind)}"
    kinds = enumerate(kind if isinstance(kind, tuple) else kind * len(value))
    found = (misfit(one, own, f"{place}, {i}") for one, (i, own) in zip(value, kinds, strict=True))
    return next(filter(None, found), None)


def path(value: Any) -> bool:
    """Whether a system could have a file of that path."""
    if not isinstance(value, str) or not value or "\0" in value:
        return False
    try:
        whole = os.fsencode(value)
    except UnicodeEncodeError:
        return False
    parts = whole.split(b"/")
    return len(whole) <= LONGEST_PATH and max(map(len, parts)) <= LONGEST_PART


def plain(value: Any, depth: int = DEPTH) -> bool:
    """Whether a value of JSON is nested no deeper than that, and all its numbers are finite."""
    if isinstance(value, dict | list):
        inside = value.values() if isinstance(value, dict) else value
        return depth > 0 and all(plain(one, depth - 1) for one in inside)
    return not isinstance(value, int | float) or (
        abs(value) < 1 << 64 if isinstance(value, int) else math.isfinite(value)
    )
