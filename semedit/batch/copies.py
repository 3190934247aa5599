"""Pasted photographs out of the workspace, into a folder of the user's."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from semedit.batch.origins import place_of
from semedit.batch.receipts import Item, Shard
from semedit.batch.workspace import Workspace
from semedit.errors import NothingMatchedError, PlaceError, SemeditError
from semedit.faces import photo_of
from semedit.media import reading
from semedit.media.files import atomic_path, check_file

FOLDER = "pasted"


def pasted_files(
    space: Workspace, names: Sequence[str] = (), shard: Shard | None = None
) -> dict[str, str]:
    """What `semedit paste` made of the photographs of some faces: file, relative to pasted/ ->
    sha256. Nothing where there is no face."""
    try:
        photos = sorted({photo_of(name) for name in space.faces(names)})
    except NothingMatchedError:
        return {}
    found = {}
    for item in (shard or Shard()).of(Item(photo, {}) for photo in photos):
        receipt = space.receipt("paste", item.name)
        for path, sha256 in (receipt["outputs"] if receipt else {}).items():
            found[path.removeprefix(f"{FOLDER}/")] = sha256
    return found


def copy_into(
    space: Workspace,
    folder: Path,
    files: Iterable[str],
    known: Mapping[str, str],
    overwrite: bool = False,
) -> Iterator[tuple[Path, SemeditError | None]]:
    """Copy pasted photographs to a folder, mirrored.

    Args:
        files: relative to pasted/. known: what earlier runs may have put there, file -> sha256.
        overwrite: what else is in the way, too; but never a photograph that was aligned.

    Yields: each file's place, and why nothing was written there.
    """
    originals = {path.resolve() for path in _originals(space)}
    for file in files:
        source, target = space.root / FOLDER / file, folder / file
        try:
            if target.resolve() in originals:
                raise PlaceError(
                    f"{target} is a photograph that was aligned, and is kept",
                    "choose another folder for --into",
                )
            _check_place(target, {known.get(file), reading.digest(source)}, overwrite)
            with atomic_path(target) as temporary:
                shutil.copyfile(source, temporary)
        except SemeditError as error:
            yield target, error
        else:
            yield target, None


def _check_place(target: Path, own: set[str | None], overwrite: bool) -> None:
    """Raise PlaceError if what is at the target is to stay: it has none of the digests."""
    check_file(target)
    if reading.there(target) and not overwrite and reading.digest(target) not in own:
        raise PlaceError(
            f"{target} is there already", "choose another folder for --into, or add --overwrite"
        )


def _originals(space: Workspace) -> Iterator[Path]:
    for photo in {photo_of(name) for name in space.faces()}:
        path = place_of(space, photo)
        if path is not None:
            yield path
