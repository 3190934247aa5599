"""What became of the photographs that faces were aligned from."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal

from semedit.batch.workspace import Workspace
from semedit.errors import InputError
from semedit.faces import photo_of
from semedit.media import reading

log = logging.getLogger(__name__)

State = Literal["there", "changed", "gone", "away", "unknown"]


def photograph(space: Workspace, face: str) -> tuple[State, Path]:
    """The state of a face's photograph since it was aligned, and its path as it was given.

    Returns:
        "there", "changed": other bytes, "gone": deleted or renamed, "away": its whole folder is
        not there, "unknown": no receipt tells of it, or it cannot be read.
    """
    receipt = space.receipt("align", photo_of(face))
    told = receipt["inputs"].get("photo") if receipt else None
    if told is None:
        return "unknown", Path()
    given, sha256 = Path(told[0]), told[1]
    beside = space.root.absolute().parent  # where commands are mostly given
    places = _places(space, given)
    found = [place for place in places if reading.there(place)]
    if found:
        try:
            same = any(reading.digest(place) == sha256 for place in found)
        except InputError:
            return "unknown", given
        return "there" if same else "changed", given
    if given.parent == Path() and Path.cwd() != beside:  # then nothing tells where that was
        return "unknown", given
    return "gone" if any(place.parent.is_dir() for place in places) else "away", given


def _places(space: Workspace, given: Path) -> list[Path]:
    """Where a photograph may be that was given by that path."""
    if given.is_absolute():
        return [given]
    return [given.absolute(), space.root.absolute().parent / given]


def place_of(space: Workspace, face: str) -> Path | None:
    """Where a face's photograph is, whatever its bytes are now, or was, if it is gone; None where
    no receipt tells.

    Raises: InputError: it cannot be read.
    """
    receipt = space.receipt("align", photo_of(face))
    told = receipt["inputs"].get("photo") if receipt else None
    if told is None:
        return None
    given = Path(told[0])
    found = [place for place in _places(space, given) if reading.there(place)]
    return next((one for one in found if reading.digest(one) == told[1]), (*found, given)[0])


def remark(space: Workspace, face: str) -> str | None:
    """A warning for whoever works on a face whose photograph is not what it was; of folders that
    are not there at all one is logged."""
    state, path = photograph(space, face)
    if state == "changed":
        return f"its photograph {path} is another now than was aligned (`semedit align {path}`)"
    if state == "gone":
        return f"its photograph {path} was deleted or renamed since it was aligned"
    if state == "away":
        log.warning("%s is not there, so nothing tells what became of its photographs", path.parent)
    return None
