"""weights.toml: a row for every weight file, and where the files are."""

from __future__ import annotations

import os
import re
import tomllib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from semedit.errors import WeightsError
from semedit.options import suggestion

if TYPE_CHECKING:
    pass


DATA = Path(__file__).parents[1] / "data"


@dataclass(frozen=True)
class Row:
    """One table of weights.toml; the file's head says what the fields mean.

    Attributes:
        files: assets only: (path below url, bytes, sha256) of each source file.
    """

    name: str
    kind: Literal["builtin", "library", "asset", "checkpoint"]
    file: str
    use: str
    licence: str
    url: str = ""
    sha256: str = ""
    bytes: int | None = None
    looks: Literal["semedit", "torch-hub"] = "semedit"
    command: str = ""
    group: str = ""
    files: tuple[tuple[str, int, str], ...] = field(default=(), repr=False)

    @property
    def size(self) -> str:
        """Size to read, e.g. `1.8 MB`, or `?`."""
        total = self.bytes or sum(entry[1] for entry in self.files)
        return f"{total / 1e6:.1f} MB" if total else "?"


@cache
def table() -> dict[str, Row]:
    """All rows of the weights.toml that came with this installation."""
    packaged = Path(__file__).parents[1] / "weights.toml"  # in a wheel
    checkout = Path(__file__).parents[2] / "weights.toml"
    path = packaged if packaged.is_file() else checkout
    return read_table(path.read_text("utf-8"))


def read_table(text: str) -> dict[str, Row]:
    """Parse and check the text of a weights.toml.

    Raises:
        WeightsError: not TOML (a name given twice is not), an unknown or missing field, an
            unsafe path, an address that is not https, a digest that is none.
    """
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise WeightsError(f"weights.toml: {error}") from error
    rows = {name: _row(name, values) for name, values in tables.items()}
    taken: dict[str, str] = {}
    for row in rows.values():
        other = taken.setdefault(row.file.lower(), row.name)
        if other != row.name:
            raise WeightsError(f"weights.toml: {other} and {row.name} share the file {row.file}")
    return rows


def _row(name: str, values: Any) -> Row:
    if not isinstance(values, dict):
        raise WeightsError(f"weights.toml: {name} is not a table")
    _check_path(name, name)
    try:
        files = tuple((str(f), int(size), str(sha)) for f, size, sha in values.pop("files", ()))
        row = Row(name=name, files=files, **values)
    except (TypeError, ValueError) as error:
        raise WeightsError(f"weights.toml: [{name}]: {error}") from error
    for key, value in values.items():
        wanted = int if key == "bytes" else str
        if not isinstance(value, wanted) or isinstance(value, bool):
            raise WeightsError(f"weights.toml: [{name}]: {key} = {value!r} is no {wanted.__name__}")
    if row.kind not in ("builtin", "library", "asset", "checkpoint"):
        raise WeightsError(f"weights.toml: [{name}]: kind = {row.kind!r}")
    if row.looks not in ("semedit", "torch-hub"):
        raise WeightsError(f"weights.toml: [{name}]: looks = {row.looks!r}")
    if row.kind != "builtin" and not row.url.startswith("https://"):
        raise WeightsError(f"weights.toml: [{name}]: url must begin with https://")
    if row.kind == "library" and not row.sha256:
        raise WeightsError(f"weights.toml: [{name}]: a downloaded file needs its sha256")
    _check_path(name, row.file)
    for path, _, digest in row.files:
        _check_path(name, path, folders=True)
        _check_digest(name, digest, 64)
    if row.sha256:
        _check_digest(name, row.sha256, 8)
    return row


def _check_path(name: str, text: Any, folders: bool = False) -> None:
    pattern = r"[A-Za-z0-9_][A-Za-z0-9_.+-]*"
    if folders:
        pattern = rf"{pattern}(/{pattern})*"
    if not isinstance(text, str) or not re.fullmatch(pattern, text):
        raise WeightsError(f"weights.toml: [{name}]: {text!r} is not a safe file name")


def _check_digest(name: str, digest: str, least: int) -> None:
    if not re.fullmatch(rf"[0-9a-f]{{{least},64}}", digest):
        raise WeightsError(f"weights.toml: [{name}]: {digest!r} is not a sha256")


def row(name: str) -> Row:
    """The row of a name; WeightsError with the nearest names when there is none."""
    rows = table()
    if name not in rows:
        raise WeightsError(f"no weights are called {name!r}", suggestion(name, rows))
    return rows[name]


def folder() -> Path:
    """The user's folder of weights: SEMEDIT_WEIGHTS, else in the user's data folder."""
    named = os.environ.get("SEMEDIT_WEIGHTS")
    if named:
        return Path(os.path.expanduser(named))  # noqa: PTH111  ~x stays if no user
    from platformdirs import user_data_dir

    return Path(user_data_dir("semedit")) / "weights"


def how_to_get(entry: Row) -> str:
    """One phrase: which commands bring a row's file, and where it goes."""
    if entry.kind == "checkpoint":
        return f"get it from {entry.url}, then: semedit weights import FILE --name {entry.name}"
    if entry.kind == "builtin":
        made_by = entry.command or f"semedit train {entry.name}"
        return f"{made_by} makes them; the file goes to {DATA / entry.file}"
    return (
        f"run: semedit weights fetch {entry.name} ({entry.size} from {entry.url}); or without "
        f"network: semedit weights add {entry.name} FILE; the file goes to {folder() / entry.file}"
    )


def _library_folders(entry: Row) -> list[Path]:
    if entry.looks != "torch-hub":
        return []
    import torch

    return [Path(torch.hub.get_dir()) / "checkpoints"]
