"""What a workspace holds, face by face: what is stale, orphaned, failed, and what comes next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from semedit.batch.holdings import Holding, holdings
from semedit.batch.workspace import Workspace
from semedit.faces import photo_of
from semedit.media import reading


@dataclass(frozen=True)
class FaceStatus:
    """One face, or what is left of one.

    Attributes:
        photograph: "there", "changed" since it was aligned, "gone", or "unknown".
        map: "made", "by hand" where it was changed since, or "none".
        inverted: generator and method of the inversion, or "".
        edits: labels of the finished steps, oldest first.
        turntable: "there", "stale" where the face was edited or inverted since, or "none".
        pasted: whether its edits are in its photograph again: as turntable.
        troubles: what is wrong: stale, orphaned, failed, with the reason.
        next: the command that comes next or mends it, "" where nothing is asked for.
    """

    name: str
    photograph: str = "unknown"
    aligned: bool = True
    map: str = "none"
    inverted: str = ""
    edits: tuple[str, ...] = ()
    turntable: str = "none"
    pasted: str = "none"
    troubles: tuple[str, ...] = ()
    next: str = ""

    def json(self) -> dict[str, Any]:
        return asdict(self)


def status(space: Workspace, names: Sequence[str] = ()) -> list[FaceStatus]:
    """What a workspace holds, by name; leftovers of faces that are gone come last.

    Raises: NothingMatchedError: there is no workspace, or nothing in it.
    """
    found = [_face(space, one) for one in holdings(space, names)]
    if names:
        return found
    known = {one.name for one in found if one.aligned}
    return [one for one in found if one.name not in _orphans(space, known)] + [
        FaceStatus(
            name,
            aligned=False,
            troubles=(f"orphaned: {', '.join(left)} of a face that is not there",),
            next="`semedit align` on its photograph, or delete them",
        )
        for name, left in _orphans(space, known).items()
    ]


def _face(space: Workspace, one: Holding) -> FaceStatus:
    if one.crop is None:
        event = next((event for event in one.events if event.message), None)
        lost = () if event is None else (f"{event.status}: {event.message}",)
        return FaceStatus(one.name, _photograph(space, one.name), False, troubles=lost)
    photograph, stale = _photograph(space, one.name), space.stale(one.name)
    receipt = space.receipt("invert", one.name)
    made = receipt["parameters"] if receipt and receipt["status"] == "done" else {}
    inverted = one.inversion is not None
    told = [f"failed: {e.command}: {e.message}" for e in one.events if e.status == "error"]
    if stale:
        told.insert(0, "stale: inverted from another picture than it is now")
    if photograph in ("changed", "gone"):
        told.insert(0, f"its photograph is {photograph}")
    return FaceStatus(
        one.name,
        photograph,
        True,
        _map(space, one),
        f"{made.get('generator', '?')}, {made.get('method', '?')}" if inverted else "",
        tuple(edit.label for edit in one.edits),
        _turntable(space, one),
        _pasted(space, one),
        tuple(told),
        _next(one, photograph, stale, inverted),
    )


def _next(one: Holding, photograph: str, stale: bool, inverted: bool) -> str:
    failed = next((e.command.split("-")[0] for e in one.events if e.status == "error"), None)
    if photograph == "changed":
        return "semedit align"
    if one.map is None:
        return f"semedit parse {one.name}"
    if stale:
        return f"semedit invert {one.name}"
    if failed is not None:
        return f"semedit {failed} --retry-failed"
    return "" if inverted else f"semedit invert {one.name}"


def _photograph(space: Workspace, name: str) -> str:
    """What became of the photograph since it was aligned."""
    receipt = space.receipt("align", photo_of(name))
    photo = receipt["inputs"].get("photo") if receipt else None
    if photo is None:
        return "unknown"
    path = Path(photo[0])
    if not path.is_file():
        return "gone" if path.is_absolute() or path.parent.is_dir() else "unknown"
    return "there" if reading.digest(path) == photo[1] else "changed"


def _map(space: Workspace, one: Holding) -> str:
    if one.map is None:
        return "none"
    path = space.relative(one.map)
    for command in ("parse", "align"):
        receipt = space.receipt(command, one.name if command == "parse" else photo_of(one.name))
        if receipt and path in receipt["outputs"]:
            edited = space.fate(path, receipt["outputs"][path]) == "edited"
            return "by hand" if edited else "made"
    return "made"


def _turntable(space: Workspace, one: Holding) -> str:
    if one.turntable is None:
        return "none"
    suffix = one.turntable.suffix.removeprefix(".")
    receipt = space.receipt(f"turntable-{suffix}", one.name)
    if receipt is None or "latent" not in receipt["inputs"]:
        return "there"
    return "there" if _newest(space, one, receipt["inputs"]["latent"]) else "stale"


def _pasted(space: Workspace, one: Holding) -> str:
    if one.pasted is None:
        return "none"
    receipt = space.receipt("paste", photo_of(one.name))
    latent = receipt["inputs"].get(f"latent {one.name}") if receipt else None
    if latent is None:  # of this photograph other faces were edited
        return "stale" if one.edits else "none"
    return "there" if _newest(space, one, latent) else "stale"


def _newest(space: Workspace, one: Holding, made_from: tuple[str, str]) -> bool:
    """Whether what was made from a latent, its path and digest, shows the face as it is now."""
    named, sha256 = made_from
    newest = [one.name, *(f"{one.name}/{edit.label}" for edit in one.edits)][-1]
    own = space.path("edits" if one.edits else "latents", newest, ".safetensors")
    return space.relative(own) == named and own.is_file() and reading.digest(own) == sha256


def _orphans(space: Workspace, known: set[str]) -> dict[str, list[str]]:
    """Faces that are not there -> the folders in which something of theirs is left."""
    found: dict[str, list[str]] = {}
    for folder, suffix in (("masks", ".png"), ("latents", ".safetensors")):
        place = space.root / folder
        for path in sorted(place.rglob(f"*{suffix}")):
            name = path.relative_to(place).with_suffix("").as_posix()
            if name not in known:
                found.setdefault(name, []).append(folder)
    return found


def summary(found: Sequence[FaceStatus]) -> dict[str, Any]:
    """How many faces came to what."""
    return {
        "summary": True,
        "faces": sum(one.aligned for one in found),
        "inverted": sum(bool(one.inverted) for one in found),
        "edited": sum(bool(one.edits) for one in found),
        "troubled": sum(bool(one.troubles) for one in found),
    }
