"""What a folder run is about: items, what became of them, and the receipts that tell.

Receipts are the truth about what is done: an item is up to date when its receipt's fingerprint
(input bytes, parameters, weights, format version) matches and its outputs are there.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from semedit.batch.workspace import FORMAT, Receipt, Workspace, step_number
from semedit.errors import InputError, OptionError, SemeditError
from semedit.faces import photo_of
from semedit.media import reading, valid_json

Status = Literal["done", "uptodate", "skipped", "error"]


@dataclass(frozen=True)
class Item:
    """One unit of work.

    Attributes:
        name: what its outputs are called, relative, without suffix: "folder/photo".
        inputs: role -> file whose bytes decide about the outputs.
        data: whatever the command wants to find again.
        error: what is wrong with it already; it fails without being loaded.
        refines: its outputs take the place of another command's. When that one writes them again,
            this item is no longer up to date.
        face: the face it is about, where its name says more.
    """

    name: str
    inputs: Mapping[str, Path]
    data: Any = None
    error: SemeditError | None = None
    refines: bool = False
    face: str = ""


@dataclass(frozen=True)
class Result:
    """What work made of one item.

    Attributes:
        outputs: the files, or better a function that writes them and names them: it is called
            while the next batch is computed, and only if nothing of the user's is in the way.
        warnings: remarks. figures: what is worth keeping, JSON values.
        error: why there are no outputs, when others of the batch have some.
    """

    outputs: Sequence[Path] | Callable[[], Sequence[Path]] = ()
    warnings: Sequence[str] = ()
    figures: Mapping[str, Any] = field(default_factory=dict)
    error: SemeditError | None = None

    def write(self) -> Sequence[Path]:
        """Write the outputs, if that is still to be done; returns them."""
        return self.outputs() if callable(self.outputs) else self.outputs


@dataclass(frozen=True)
class Outcome:
    """What became of one item in this run.

    Attributes:
        outputs: paths relative to the workspace.
        error: {"code", "message", "hint"} when status is "error" or "skipped".
        seconds: its own: reading, its share of what was computed, writing; no waiting.
    """

    name: str
    status: Status
    outputs: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    figures: Mapping[str, Any] = field(default_factory=dict)
    error: Mapping[str, Any] | None = None
    seconds: float = 0.0


@dataclass
class Tally:
    """How many items came to what."""

    done: int = 0
    uptodate: int = 0
    skipped: int = 0
    error: int = 0

    @property
    def total(self) -> int:
        return self.done + self.uptodate + self.skipped + self.error

    def add(self, outcome: Outcome) -> None:
        setattr(self, outcome.status, getattr(self, outcome.status) + 1)


class Observer(Protocol):
    """Who watches a run: a progress bar, a stream of JSON lines, a test."""

    def start(self, total: int) -> None:
        """The number of items is known."""

    def finish(self, outcome: Outcome) -> None:
        """One item is settled."""


@dataclass(frozen=True)
class Shard:
    """Part `index` of `count`, from 1. All parts together are the whole.

    Names decide, so a photograph and all that comes of it belong to one part, whatever else is in
    the folder: the parts of a chain need not wait for each other.
    """

    index: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read "2/8".

        Raises: OptionError: not of that form, or there is no such part.
        """
        index, _, count = text.partition("/")
        if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
            raise OptionError(f"no shard {text!r}", "write 1/8, 2/8, ... 8/8 for eight shards")
        return cls(int(index), int(count))

    def of(self, items: Iterable[Item]) -> Iterator[Item]:
        """Those of the items that are in this part."""
        return (item for item in items if self._has(photo_of(item.face or item.name)))

    def _has(self, photo: str) -> bool:
        digest = hashlib.sha256(os.fsencode(photo)).digest()
        return int.from_bytes(digest[:8], "big") % self.count == self.index - 1

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


@dataclass(frozen=True)
class Run:
    """One invocation of one command in a workspace.

    Attributes:
        parameters: all that decides about the outputs besides inputs and weights; JSON types.
        weights: name -> sha256 of the weight files used.
        overwrite: redo what is up to date, too.
        retry_failed: try again what failed before with the same inputs and parameters.
        max_failures: end the run when so many items failed in it; 0: never.
        shard: the part of the items that this run is for.
    """

    workspace: Workspace
    command: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    weights: Mapping[str, str] = field(default_factory=dict)
    overwrite: bool = False
    retry_failed: bool = False
    max_failures: int = 0
    shard: Shard = Shard()

    def fingerprint(self, item: Item, sha256: Mapping[str, str]) -> str:
        """One digest of all that decides about an item's outputs."""
        # {}: workspaces of before have it there
        content = [FORMAT, self.command, self.parameters, {}, self.weights, sha256]
        if item.error is not None:  # of which there may be several kinds
            content.append(item.error.message)
        text = json.dumps(content, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def settled(self, item: Item, sha256: Mapping[str, str]) -> Receipt | None:
        """The receipt of an item that need not be done (again), or None.

        Args:
            sha256: of the item's inputs, by role.

        Raises:
            InputError: an output of it cannot be read.
        """
        receipt = self.workspace.receipt(self.command, item.name)
        if receipt is None or receipt["fingerprint"] != self.fingerprint(item, sha256):
            return None
        space, outputs = self.workspace, receipt["outputs"]
        if not all(reading.there(space.root / path) for path in outputs):
            return None
        fates = (space.fate(path, sha256) for path, sha256 in outputs.items())
        return None if item.refines and "replaced" in fates else receipt

    def due(self, receipt: Receipt | None) -> bool:
        """Whether an item is to be done, given the receipt that may settle it."""
        if receipt is None or self.overwrite:
            return True
        return self.retry_failed and receipt["status"] == "error"

    def by_hand(self, item: Item) -> str | None:
        """The label map that this command makes of a face, where another command left it but it
        was changed by hand since, or no command made it; None: there is none.

        Raises:
            InputError: it cannot be read.
        """
        path = f"masks/{item.name}.png"
        if self.command != "parse" or not reading.there(self.workspace.root / path):
            return None
        return path if self.workspace.fate(path, "") == "edited" else None

    def hand_made(self, item: Item, before: Receipt | None) -> list[str]:
        """All files of an item that were made or changed by hand, or cannot be read.

        Args: before: the item's receipt.
        """
        paths = [] if before is None else list(before["outputs"])
        paths += [f"masks/{item.name}.png"] if self.command == "parse" else []
        return [path for path in dict.fromkeys(paths) if self._is_by_hand(path)]

    def _is_by_hand(self, path: str) -> bool:
        if not reading.there(self.workspace.root / path):
            return False
        try:
            return self.workspace.fate(path, "") == "edited"
        except InputError:
            return True

    def edited(self, receipt: Receipt) -> Iterator[str]:
        """Outputs of a receipt that were changed by hand since.

        Raises:
            InputError: one cannot be read.
        """
        space = self.workspace
        for path, sha256 in receipt["outputs"].items():
            if reading.there(space.root / path) and space.fate(path, sha256) == "edited":
                yield path

    def receipt(
        self, item: Item, seen: InputDigests, outcome: Outcome, outputs: Any, batch: Any
    ) -> bytes:
        """The text of a receipt.

        Args:
            outputs: path -> sha256.
            batch: (name, fingerprint) of the items that were worked on together, if several.
        """
        relative = self.workspace.relative
        receipt = {
            "format": FORMAT,
            "command": self.command,
            "name": item.name,
            "status": outcome.status,
            "fingerprint": self.fingerprint(item, seen.sha256),
            "inputs": {k: [relative(path), seen.sha256[k]] for k, path in item.inputs.items()},
            "parameters": self.parameters,
            "weights": dict(self.weights),
            "outputs": outputs,
            "warnings": list(outcome.warnings),
            "figures": dict(outcome.figures),
            "error": outcome.error,
            "batch": batch,
        }
        return (valid_json.dumps(receipt, indent=1) + "\n").encode()


@dataclass(frozen=True)
class InputDigests:
    """An item's inputs as they were when it was begun: role -> sha256, and size and time.

    A file that cannot be read, or is a pipe or device, has the digest "": loading it fails. Files
    larger than any input is meant to be stay unread, too: their size and time stand for them.
    """

    sha256: Mapping[str, str]
    status: Mapping[str, tuple[int, int]]

    @classmethod
    def of(cls, item: Item) -> InputDigests:
        sha256, times = {}, _times(item)  # times first: what changes later is noticed
        for role, path in item.inputs.items():
            try:
                sha256[role] = reading.digest(path)
            except InputError:
                sha256[role] = ""
        return cls(sha256, times)

    def still(self, item: Item) -> bool:
        """Whether the inputs are what they were."""
        return self.status == _times(item)


def _times(item: Item) -> dict[str, tuple[int, int]]:
    times = {}
    for role, path in item.inputs.items():
        times[role] = (0, 0)
        try:
            status = path.stat()
        except (OSError, ValueError):
            continue
        times[role] = (status.st_size, status.st_mtime_ns)
    return times


def next_step(
    run: Run,
    face: str,
    label: str,
    item: Item,
    chosen: str | None = None,
    photo: bool = False,
    beside: Callable[[Path], Mapping[str, Path]] = lambda latent: {},
) -> Item:
    """Turn an item into the next step of a face's chain of edits.

    Doing the same edit again is no new step, so that a script of edits can be run again: where
    an edit that led to the source (with `chosen`: one that started from it) was just this one,
    the item stands for that step, which is up to date.

    Args:
        label: what the step is called behind its number.
        item: the edit's other inputs, parameters and data; its name is not used.
        chosen, photo: source of the edit, as Workspace.source takes them.
        beside: what the edit reads that lies beside its source: role -> file.
    """
    space = run.workspace
    source = space.source(face, chosen, photo)
    steps = space.steps(face)
    lineage = space.lineage(source) or []
    for step in reversed(steps):
        parent = space.parent(step)
        if parent and (parent == source if chosen else step in lineage):
            inputs = {"latent": parent, **item.inputs, **beside(parent)}
            again = replace(item, name=step, inputs=inputs, face=face)
            if run.settled(again, InputDigests.of(again).sha256):
                return again
    number = step_number(steps[-1]) + 1 if steps else 1
    name = f"{face}/{number:02d}-{label}"
    inputs = {"latent": source, **item.inputs, **beside(source)}
    return replace(item, name=name, inputs=inputs, face=face)
