"""Inputs of a run: photographs named by files, folders and globs, mirrored, never flattened."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from semedit.batch.places import (
    lasting,
)
from semedit.batch.workspace import PHOTO_SUFFIXES, Workspace, _without_photo_suffix
from semedit.errors import (
    NothingMatchedError,
)
from semedit.faces import photo_of

# What names of files end with that commands write; folders of that name would be in their way.
WRITTEN = (".json", ".png", ".safetensors", ".gif", ".webp", ".mp4", ".ply", ".obj")


WILDCARDS = "*?["


@dataclass(frozen=True)
class Found:
    """A photograph under the relative name, without suffix, that its face will have.

    Attributes:
        twin: another photograph that has the name already; this one's own then ends with its
            suffix, and it cannot be used.
    """

    name: str
    path: Path
    twin: Path | None = None


def photographs(inputs: Sequence[str | Path], workspace: Workspace) -> list[Found]:
    """Photographs named by files, folders or globs.

    Folders are walked without following links to folders and without the workspace itself; in
    them only names that end like pictures count, and folders that cannot be listed. A file named
    outright is taken as it is. Names that differ only by suffix, case or Unicode form would
    overwrite each other: all but the first are marked as twins. A name that is one of
    faces.numbered keeps its suffix; a folder that is called like a file, `a.png`, gets a `_`.

    Raises:
        NothingMatchedError: nothing was found for an input.
    """
    named: dict[str, tuple[Path, str]] = {}
    own = Path(os.path.realpath(workspace.root))
    for given in inputs:
        some = False
        for path, name in _matching(Path(given)):
            # realpath, because resolve() raises where links go round in circles
            if not Path(os.path.realpath(path)).is_relative_to(own):
                named.setdefault(str(path.absolute()), (path, name))
                some = True
        if not some:
            raise NothingMatchedError(f"no photographs at {given}")
    taken: dict[str, Path] = {}
    found = []
    for path, name in named.values():
        if photo_of(name) != name:
            name += path.suffix or "_"
        name = lasting(name)
        *folders, last = name.split("/")
        name = "/".join([*(f"{f}_" if f.lower().endswith(WRITTEN) else f for f in folders), last])
        twin = taken.get(_key(name))
        while _key(name) in taken:
            name += path.suffix or "_"
        taken[_key(name)] = path
        found.append(Found(name, path, twin))
    return found


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _matching(given: Path) -> Iterator[tuple[Path, str]]:
    if os.path.isdir(given):  # noqa: PTH112  too long a path makes Path.is_dir raise
        closed: list[OSError] = []
        for folder, folders, reading in os.walk(given, onerror=closed.append):
            folders.sort()
            for path in (Path(folder, file) for file in sorted(reading)):
                if path.suffix.lower() in PHOTO_SUFFIXES and not path.name.startswith("."):
                    yield path, _bare(path.relative_to(given))
        for error in closed:
            path = Path(error.filename)
            yield path, path.relative_to(given).as_posix()
    elif os.path.lexists(given):  # a link that leads nowhere is an input that cannot be read
        yield given, _bare(Path(given.name))
    elif any(character in str(given) for character in WILDCARDS):
        anchor = Path(given.anchor) if given.is_absolute() else Path()
        fixed = list(_before_wildcard(given.relative_to(anchor)))
        base = anchor.joinpath(*fixed)
        pattern = str(given.relative_to(base)) if fixed else str(given.relative_to(anchor))
        for path in sorted(base.glob(pattern)):
            if path.is_file():
                yield path, _bare(path.relative_to(base))


def _before_wildcard(path: Path) -> Iterator[str]:
    for part in path.parts[:-1]:
        if any(character in part for character in WILDCARDS):
            return
        yield part


def _bare(path: Path) -> str:
    return _without_photo_suffix(path.as_posix())
