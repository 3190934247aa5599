"""Files written whole or not at all."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from semedit.errors import LockedError, PlaceError

TEMPORARY = ".tmp-"  # prefix of files being written; 16 hexadecimal digits and a suffix follow


_TEMPORARY = re.compile(rf"{re.escape(TEMPORARY)}[0-9a-f]{{16}}(\.\w+(-signed\.\w+)?)?", re.ASCII)


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path`, moved over it when the block ends well, else removed.

    The bytes are on the disk before the name changes, so a reader sees the old file or the whole
    new one, after a crash too. A link is replaced, not followed.

    Raises: PlaceError: a folder, pipe or device of that name is there, or no folder to write to.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise PlaceError(f"{path.parent} is in the way: it is no folder", "move it away") from error
    check_file(path)
    temporary = path.parent / f"{TEMPORARY}{secrets.token_hex(8)}{path.suffix}"
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def check_file(path: Path) -> None:
    """Raise PlaceError if a folder, pipe or device is where a file is to be written."""
    if os.path.lexists(path) and not (path.is_symlink() or path.is_file()):
        raise PlaceError(f"{path} is in the way: it is no regular file", "move it away")


def is_temporary(name: str) -> bool:
    """Whether a file is called as one that is being written (or signed) is."""
    return _TEMPORARY.fullmatch(name) is not None


@contextmanager
def alone_in(folder: Path, below: Sequence[str] = (), wait: bool = False) -> Iterator[None]:
    """Hold a folder for this run alone, and clear what killed ones left half-written in it.

    Args:
        below: its folders in which files are written, too; they need not be there.
        wait: for another run to end, in place of an error.

    Raises:
        LockedError: another run holds it.
    """
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=-1 if wait else 0):
            for place in (folder, *(folder / name for name in below)):
                for entry in os.scandir(place) if place.is_dir() else ():
                    if is_temporary(entry.name) and entry.is_file(follow_symlinks=False):
                        Path(entry.path).unlink(missing_ok=True)
            yield
    except Timeout as error:
        raise LockedError(f"another run is working in {folder}") from error


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)
