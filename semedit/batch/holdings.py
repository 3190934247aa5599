"""What a workspace has of each face: pictures, figures, warnings, what failed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from math import isfinite
from pathlib import Path
from types import MappingProxyType
from typing import Any

from semedit.batch.places import labelled, unlabelled
from semedit.batch.workspace import STEPS, Workspace, parameters_in
from semedit.errors import InputError, NothingMatchedError
from semedit.faces import Face, photo_of
from semedit.media import reading

STATUSES = ("failed", "skipped", "warned", "done")  # of a face: the worst that happened to it
ANIMATIONS = (".gif", ".webp", ".mp4")


@dataclass(frozen=True)
class Event:
    """What a command did for a face, as its receipt tells.

    Attributes:
        command: "invert"; item: what the receipt is of, a face or a step.
        status: done, skipped or error.
        figures: name -> number, see `numbers`.
        message: what went wrong, with what to do about it.
        label: what the user called the result.
        detail: whether its picture has the photograph's own.
    """

    command: str
    item: str
    status: str
    figures: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    message: str = ""
    label: str = ""
    detail: bool = False


@dataclass(frozen=True)
class Edited:
    """A step of a face's chain: its picture, the one it was made from, and its event.

    The picture before the first step is the photograph's crop where the step keeps its detail,
    else the inversion.
    """

    label: str
    picture: Path
    before: Path | None
    event: Event


@dataclass(frozen=True)
class Holding:
    """One face, or a photograph without one. Files are None where they are not there.

    Attributes:
        labelled: "inversion@LABEL" and "turntable@LABEL" -> their files.
        pasted: the photograph with its faces' edits.
    """

    name: str
    photograph: Path | None = None
    crop: Path | None = None
    map: Path | None = None
    inversion: Path | None = None
    edits: tuple[Edited, ...] = ()
    turntable: Path | None = None
    pasted: Path | None = None
    labelled: Mapping[str, Path] = field(default_factory=dict)
    attributes: Mapping[str, float] = field(default_factory=dict)
    events: tuple[Event, ...] = ()

    @property
    def status(self) -> str:
        told = {event.status for event in self.events}
        if "error" in told:
            return "failed"
        if "skipped" in told:
            return "skipped"
        return "warned" if any(event.warnings for event in self.events) else "done"

    @property
    def commands(self) -> list[str]:
        return sorted({event.command.split("-")[0] for event in self.events})

    @property
    def figures(self) -> dict[str, float]:
        """Command and name -> number: of edits, the newest that tells it."""
        return {
            f"{event.command.split('-')[0]}: {name}": value
            for event in self.events
            for name, value in event.figures.items()
        }


def holdings(space: Workspace, names: Sequence[str] = (), select: str = "") -> list[Holding]:
    """What a workspace has, by name; photographs that came to no face last.

    Args:   names: names or globs of faces; empty means all.
            select: only those of a status (STATUSES) or that a glob matches; several with commas.
    Raises: NothingMatchedError: there is nothing.
    """
    if not space.root.is_dir():
        raise NothingMatchedError(f"no workspace at {space.root}", "run `semedit align` first")
    faces = (space.root / "faces").rglob("*.json")
    known = {p.relative_to(space.root / "faces").with_suffix("").as_posix() for p in faces}
    chosen = space.faces(names) if names else sorted(known)
    events: dict[str, list[Event]] = {}
    photographs: dict[str, str] = {}
    faces_of: dict[str, list[str]] = {}
    for name in known:
        faces_of.setdefault(photo_of(name), []).append(name)
    for receipt in receipts(space):
        event = _event(receipt)
        if event.command in ("align", "paste"):
            owners = faces_of.get(event.item, [event.item])
        else:
            owners = _owners(event.item, known)
        for owner in owners:
            events.setdefault(owner, []).append(event)
        if event.command == "align":
            photographs[event.item] = str(dict(receipt["inputs"]).get("photo", [""])[0])
    found = [holding(space, name, events.get(name, ()), photographs) for name in chosen]
    if not names:
        lost = sorted(events.keys() - known)
        found += [_lost(name, photographs, events[name]) for name in lost]
    parts = [part.strip() for part in select.split(",") if part.strip()]
    found = [one for one in found if not parts or _selected(one, parts)]
    if not found:
        raise NothingMatchedError(f"nothing to show in {space.root}", "run `semedit align` first")
    return found


def _selected(one: Holding, parts: Iterable[str]) -> bool:
    return any(one.status == part or fnmatch(one.name, part) for part in parts)


def receipts(space: Workspace) -> Iterator[dict[str, Any]]:
    """All receipts that can be read; those of an older form count as none, as for commands."""
    folder = space.root / "receipts"
    for path in sorted(folder.rglob("*.json")):
        command = path.relative_to(folder).parts[0]
        try:
            name = json.loads(path.read_bytes())["name"]
        except (OSError, ValueError, RecursionError, TypeError, KeyError):
            continue
        receipt = space.receipt(command, name) if isinstance(name, str) else None
        if receipt is not None:
            yield {**receipt, "command": command}


def _event(receipt: Mapping[str, Any]) -> Event:
    error = receipt.get("error") or {}
    said, hint = error.get("message"), error.get("hint")
    return Event(
        receipt["command"],
        receipt["name"],
        receipt["status"],
        numbers(receipt["figures"]),
        tuple(map(str, receipt["warnings"])),
        (f"{said} ({hint})" if hint else str(said)) if said else "",
        str(parameters_in(receipt).get("label", "")),
        parameters_in(receipt).get("detail") is True,
    )


def numbers(figures: Mapping[str, Any]) -> dict[str, float]:
    """The numbers among figures: of lists the mean, of objects their own, "a b"."""
    found: dict[str, float] = {}
    for name, value in figures.items():
        if isinstance(value, Mapping):
            found |= {f"{name} {key}": number for key, number in numbers(value).items()}
        else:
            some = list(_flat(value))
            if some and all(map(_is_number, some)):
                found[name] = sum(some) / len(some)
    return found


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        for one in value:
            yield from _flat(one)
    else:
        yield value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def _owners(item: str, known: set[str]) -> list[str]:
    """The face a receipt of a face or a step is about; none where it is gone."""
    if item in known:
        return [item]
    others = (unlabelled(item)[0], item.rpartition("/")[0])
    return [next(name for name in others if name in known)] if known & set(others) else []


def holding(
    space: Workspace,
    name: str,
    events: Sequence[Event] = (),
    photographs: Mapping[str, str] = MappingProxyType({}),
) -> Holding:
    """What there is of one face.

    Args: events: of its receipts; photographs: name of a photo -> its path.
    """
    attributes: Mapping[str, float] = {}
    try:
        path = space.path("faces", name, ".json")
        record = Face.from_json(reading.read(path).decode(errors="replace"))
        attributes = record.attributes or {}
    except InputError as error:
        events = [*events, Event("align", name, "error", message=str(error))]
    labels = space.inversions(name), space.labels("turntables", name, ANIMATIONS)
    inversions = {n: space.path("latents", labelled(name, n), ".png") for n in labels[0]}
    turntables = {n: _animations(space, labelled(name, n))[0] for n in labels[1]}
    named = {labelled("inversion", n): path for n, path in inversions.items() if n}
    named |= {labelled("turntable", n): path for n, path in turntables.items() if n}
    return Holding(
        name,
        _there(Path(photographs.get(photo_of(name), ""))),
        _there(space.path("faces", name, ".png")),
        _there(space.path("masks", name, ".png")),
        _there(space.path("latents", name, ".png")),
        tuple(_edits(space, name, events)),
        turntables.get(""),
        _pasted(space, name),
        named,
        attributes,
        tuple(events),
    )


def _animations(space: Workspace, name: str) -> list[Path]:
    """The turntables of that name, one for each format."""
    paths = (space.path("turntables", name, suffix) for suffix in ANIMATIONS)
    return [path for path in paths if path.exists()]


def _lost(name: str, photographs: Mapping[str, str], events: list[Event]) -> Holding:
    return Holding(name, _there(Path(photographs.get(name, ""))), events=tuple(events))


def _edits(space: Workspace, name: str, events: Sequence[Event]) -> Iterator[Edited]:
    """Finished steps, oldest first."""
    told = {event.item: event for event in events if event.command in STEPS}
    for step in space.steps(name):
        picture = space.path("edits", step, ".png")
        if picture.is_file():
            event = told.get(step, Event("edit", step, "done"))
            made = space.parent(step)
            first = made is not None and not made.is_relative_to(space.root / "edits")
            if first and event.detail:
                made = space.path("faces", name, ".png")
            before = None if made is None else _there(made.with_suffix(".png"))
            yield Edited(step.removeprefix(f"{name}/"), picture, before, event)


def _pasted(space: Workspace, name: str) -> Path | None:
    receipt = space.receipt("paste", photo_of(name))
    return (
        next((_there(space.root / path) for path in receipt["outputs"]), None) if receipt else None
    )


def _there(path: Path) -> Path | None:
    return path if path.is_file() else None
