"""Weight files on the disk, found by name and counted only when their sha256 is right."""

from __future__ import annotations

import hashlib
import os
import shutil
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from semedit.errors import WeightsError
from semedit.media.files import atomic_path, is_temporary
from semedit.weights import rows
from semedit.weights.rows import _library_folders, folder, how_to_get, row, table

if TYPE_CHECKING:
    pass


CHUNK = 1 << 20  # bytes


def resolve(name: str | Path) -> Path:
    """The verified local file of a name.

    Args:
        name: a row of weights.toml, a file added under its own name, or a path to a file.

    Raises:
        WeightsError: unknown, not on this disk, or the digest is wrong.
    """
    text = str(name)
    if "/" in text or os.sep in text or text.endswith(".safetensors"):
        if not Path(name).is_file():
            raise WeightsError(f"no weight file at {name}")
        return Path(name)
    own = folder() / f"{text}.safetensors"
    if text not in table() and not is_temporary(own.name) and own.is_file():
        return own
    entry = row(text)
    if entry.kind == "builtin" and (rows.DATA / entry.file).is_file():
        return rows.DATA / entry.file
    for place in (folder(), *_library_folders(entry)):
        if (place / entry.file).is_file():
            if entry.kind != "checkpoint":  # whose digest is the source's
                _verify(place / entry.file, entry.sha256, text)
            return place / entry.file
    raise WeightsError(f"the weights {text!r} are not on this disk", how_to_get(entry))


def on_disk(name: str) -> bool:
    """Whether `resolve` finds a verified file."""
    try:
        resolve(name)
    except WeightsError:
        return False
    return True


def file_sha256(path: str | Path) -> str:
    """sha256 of a file, hex; remembered while size and time of change stay."""
    path = Path(path)
    status = path.stat()
    return _digest(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=256)
def _digest(path: Path, _size: int, _changed_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _verify(path: Path, sha256: str, name: str) -> None:
    found = file_sha256(path)
    if not found.startswith(sha256):
        raise WeightsError(
            f"{name}: {path} has sha256 {found[:16]}..., not {sha256[:16]}...",
            "delete it and fetch it again",
        )


def place(name: str) -> Path:
    """Put a library's verified file where that library looks, so that it need not download.

    facexlib is told the folder (`model_rootpath=str(weights.folder())`); lpips' and
    face-alignment's files go to torch.hub's checkpoints folder.
    """
    entry, source = row(name), resolve(name)
    where = (_library_folders(entry) or [folder()])[0]
    target = where / entry.file
    if target != source:
        with atomic_path(target) as temporary:
            shutil.copyfile(source, temporary)
    return target


def refuse_impostors(path: Path, name: str) -> None:
    """Web pages and Git LFS pointers that were saved under a weight file's name."""
    with path.open("rb") as file:
        start = file.read(512).lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html", b"<?xml")):
        raise WeightsError(f"{name}: {path.name} is a web page, not weights")
    if start.startswith(b"version https://git-lfs"):
        raise WeightsError(f"{name}: {path.name} is a Git LFS pointer, not the weights themselves")
