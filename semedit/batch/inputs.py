"""Inputs of a run: photographs named by files, folders and globs, mirrored, never flattened."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from semedit.batch.places import (
    lasting,
)
from semedit.batch.workspace import PHOTO_SUFFIXES, Workspace, _without_photo_suffix
from semedit.errors import (
    InputError,
    NothingMatchedError,
)
from semedit.faces import photo_of
from semedit.media import reading
from semedit.media.kinds import HEAD, RAW, kind_of

# What names of files end with that commands write; folders of that name would be in their way.
WRITTEN = (".json", ".png", ".safetensors", ".gif", ".webp", ".mp4", ".ply", ".obj")


WILDCARDS = "*?["

# What programs write beside photographs: it says something of them, and is nobody's picture.
SIDECARS = frozenset({".json", ".xmp", ".aae", ".thm"})


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


def photographs(
    inputs: Sequence[str | Path], workspace: Workspace, left_out: list[Path] | None = None
) -> list[Found]:
    """Photographs named by files, folders or globs.

    Folders are walked without following links to folders and without the workspace itself; in
    them count files whose name ends like a picture's, files whose first bytes are a picture's
    whatever their name, and folders that cannot be listed. A file named outright is taken as it
    is. Names that differ only by suffix, case or Unicode form would overwrite each other: all but
    the first are marked as twins. A name that is one of faces.numbered keeps its suffix; a folder
    that is called like a file, `a.png`, gets a `_`.

    Args:
        left_out: gets the files of folders that are no photographs; not hidden ones and SIDECARS.

    Raises:
        NothingMatchedError: nothing was found for an input.
    """
    rest: list[Path] = [] if left_out is None else left_out
    named: dict[str, tuple[Path, str]] = {}
    own = Path(os.path.realpath(workspace.root))
    for given in inputs:
        some, before = False, len(rest)
        for path, name in _matching(Path(given), own, rest):
            # realpath, because resolve() raises where links go round in circles
            if not Path(os.path.realpath(path)).is_relative_to(own):
                named.setdefault(str(path.absolute()), (path, name))
                some = True
        if not some:
            others = rest[before:]
            raise NothingMatchedError(
                f"no photographs at {given}", f"left out: {tell(others)}" if others else None
            )
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


def by_suffix(paths: Iterable[Path]) -> dict[str, int]:
    """How many files end in what, the most frequent first; in lower case, with the dot."""
    counts = Counter(path.suffix.lower() or "no suffix" for path in paths)
    return dict(sorted(counts.items(), key=lambda one: (-one[1], one[0])))


def tell(left_out: Iterable[Path]) -> str:
    """`2 .txt, 1 .mov, 1 no suffix`."""
    return ", ".join(f"{count} {suffix}" for suffix, count in by_suffix(left_out).items())


def _matching(given: Path, own: Path, left_out: list[Path]) -> Iterator[tuple[Path, str]]:
    if os.path.isdir(given):  # noqa: PTH112  too long a path makes Path.is_dir raise
        closed: list[OSError] = []
        for folder, folders, files in os.walk(given, onerror=closed.append):
            folders[:] = sorted(f for f in folders if os.path.realpath(Path(folder, f)) != str(own))
            for path in (Path(folder, file) for file in sorted(files)):
                if path.name.startswith("."):
                    continue
                if path.suffix.lower() in PHOTO_SUFFIXES or _looks_like_one(path):
                    yield path, _bare(path.relative_to(given))
                elif path.suffix.lower() not in SIDECARS:
                    left_out.append(path)
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


def _looks_like_one(path: Path) -> bool:
    """Whether a file begins like a picture."""
    try:
        with reading.opened(path, 1 << 63) as (file, size):
            kind = kind_of(file.read(HEAD), size, path.suffix)
    except InputError:
        return False
    return kind is not None and kind != RAW


def _before_wildcard(path: Path) -> Iterator[str]:
    for part in path.parts[:-1]:
        if any(character in part for character in WILDCARDS):
            return
        yield part


def _bare(path: Path) -> str:
    return _without_photo_suffix(path.as_posix())
