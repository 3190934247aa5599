"""What a workspace holds, face by face: what is stale, orphaned, failed, and what comes next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from semedit.batch.holdings import ANIMATIONS, Holding, holdings, receipts
from semedit.batch.origins import photograph
from semedit.batch.places import unlabelled
from semedit.batch.workspace import ASIDE, STEPS, Workspace, parameters_in
from semedit.errors import InputError, OptionError
from semedit.faces import photo_of
from semedit.media import reading
from semedit.media.files import is_temporary

# What is left of a face that is gone: folder -> how files end that tell of it.
LEFT = {
    "masks": (".png",),
    "latents": (".safetensors",),
    "edits": (".safetensors",),
    "turntables": ANIMATIONS,
    "sweeps": (".png",),
    "meshes": (".ply", ".obj"),
}
TROUBLES = {
    "changed": "its photograph {} is another now than was aligned",
    "gone": "its photograph {} was deleted or renamed",
    "away": "the folder of its photograph {} is not there",
}
STEPWISE = ("edits", "sweeps")  # folders in which each face has one of its own


@dataclass(frozen=True)
class FaceStatus:
    """One face, or what is left of one.

    Attributes:
        photograph: "there", "changed", "gone", "away" or "unknown": see origins.photograph.
        map: "made", "by hand" where it was changed since, or "none".
        inverted: generator and method of the inversion, or "".
        labels: of inversions and turntables that have one: "inversion@LABEL", "turntable@LABEL".
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
    labels: tuple[str, ...] = ()
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
    orphans = _orphans(space, {one.name for one in found if one.aligned})
    return [one for one in found if one.name not in orphans] + [
        _orphan(space, name, left) for name, left in orphans.items()
    ]


def _orphan(space: Workspace, name: str, left: list[str]) -> FaceStatus:
    state, path = photograph(space, name)
    again = f"semedit align {path}" if state in ("there", "changed") else ""
    told = f"orphaned: {', '.join(left)} of a face that is not there"
    return FaceStatus(name, state, False, troubles=(told,), next=again or "delete them")


def _face(space: Workspace, one: Holding) -> FaceStatus:
    if one.crop is None:
        event = next((event for event in one.events if event.message), None)
        lost = "its face was deleted" if event is None else f"{event.status}: {event.message}"
        state, path = photograph(space, one.name)
        again = f"semedit align {path}" if event is None and state == "there" else ""
        return FaceStatus(one.name, state, False, troubles=(lost,), next=again)
    state, path = photograph(space, one.name)
    labels = space.inversions(one.name)
    stale = [label for label in labels if space.stale(one.name, label)]
    made = parameters_in(space.receipt("invert", one.name))
    inverted = one.inversion is not None
    told = [f"failed: {e.command}: {e.message}" for e in one.events if e.status == "error"]
    for label in reversed(stale):
        name = f" ({label})" if label else ""
        told.insert(0, f"stale: inverted{name} from another picture than it is now")
    if state in ("changed", "gone", "away"):
        told.insert(0, TROUBLES[state].format(path))
    return FaceStatus(
        one.name,
        state,
        True,
        _map(space, one),
        f"{made.get('generator', '?')}, {made.get('method', '?')}" if inverted else "",
        tuple(sorted(one.labelled)),
        tuple(edit.label for edit in one.edits),
        _turntable(space, one),
        _pasted(space, one),
        tuple(told),
        _next(one, str(path) if state == "changed" else "", stale, bool(labels)),
    )


def _next(one: Holding, changed: str, stale: Sequence[str], inverted: bool) -> str:
    """The command that comes next. changed: its photograph, if it is another now."""
    failed = next((e.command.split("-")[0] for e in one.events if e.status == "error"), None)
    if changed:
        return f"semedit align {changed}"
    if one.map is None:
        return f"semedit parse {one.name}"
    if stale:
        return f"semedit invert {one.name}" + (f" --label {stale[0]}" if stale[0] else "")
    if failed is not None:
        return f"semedit {failed} --retry-failed"
    return "" if inverted else f"semedit invert {one.name}"


def _map(space: Workspace, one: Holding) -> str:
    if one.map is None:
        return "none"
    return "by hand" if space.fate(space.relative(one.map), "") == "edited" else "made"


def _turntable(space: Workspace, one: Holding) -> str:
    names = [one.name] if one.turntable is not None else []
    names += [f"{one.name}@{unlabelled(n)[1]}" for n in one.labelled if n.startswith("turntable")]
    if not names:
        return "none"
    kinds = [(n, k) for n in names for k in ANIMATIONS if space.path("turntables", n, k).is_file()]
    outdated = any(_outdated(space, one.name, name, kind) for name, kind in kinds)
    return "stale" if outdated else "there"


def _outdated(space: Workspace, face: str, name: str, suffix: str) -> bool:
    """Whether an animation shows another latent than it would now; False where nothing tells."""
    receipt = space.receipt(f"turntable{suffix.replace('.', '-')}", name)
    if receipt is None or "latent" not in receipt["inputs"]:
        return False
    start = parameters_in(receipt).get("start")
    return _outdated_by(space, face, receipt["inputs"]["latent"], start)


def _pasted(space: Workspace, one: Holding) -> str:
    if one.pasted is None:
        return "none"
    receipt = space.receipt("paste", photo_of(one.name))
    latent = receipt["inputs"].get(f"latent {one.name}") if receipt else None
    if receipt is None or latent is None:  # of this photograph other faces were edited
        return "stale" if one.edits else "none"
    start = parameters_in(receipt).get("start")
    return "stale" if _outdated_by(space, one.name, latent, start) else "there"


def _outdated_by(space: Workspace, face: str, latent: Sequence[str], start: object) -> bool:
    """Whether what was made from a latent, its path and digest, would be made from another now."""
    named, sha256 = latent
    try:
        source = space.source(face, start if isinstance(start, str) else None)
        return space.relative(source) != named or reading.digest(source) != sha256
    except (InputError, OptionError):
        return True


def _orphans(space: Workspace, known: set[str]) -> dict[str, list[str]]:
    """Faces that are not there -> the folders in which something of theirs is left."""
    found: dict[str, set[str]] = {}
    for folder, suffixes in LEFT.items():
        place = space.root / folder
        for path in place.rglob("*"):
            if path.suffix in suffixes and not is_temporary(path.name):
                name = path.relative_to(place).with_suffix("").as_posix()
                name = _face_of(name, folder in STEPWISE, known)
                found.setdefault(name, set()).add(folder)
    for receipt in receipts(space):
        command = receipt["command"]
        if command not in ("align", "interpolate"):
            name = _face_of(receipt["name"], command in (*STEPS, "sweep"), known)
            found.setdefault(name, set()).add("receipts")
    return {name: sorted(found[name]) for name in sorted(found.keys() - known)}


def _face_of(name: str, in_folder: bool, known: set[str]) -> str:
    """The face that a file is of: of its name, or of its folder's; edits that were set aside and
    what has a label are still its own."""
    if in_folder:
        return ASIDE.sub("", name.rpartition("/")[0])
    return name if name in known else unlabelled(ASIDE.sub("", name))[0]


def summary(found: Sequence[FaceStatus]) -> dict[str, Any]:
    """How many faces came to what."""
    return {
        "summary": True,
        "faces": sum(one.aligned for one in found),
        "inverted": sum(bool(one.inverted) for one in found),
        "edited": sum(bool(one.edits) for one in found),
        "troubled": sum(bool(one.troubles) for one in found),
    }
