"""Receipts, resume, and the one loop over files that all commands share.

A command says what its items are, how to load one and how to work on loaded ones. The loop does
the rest: skips what is up to date, isolates failures, batches, halves batches that do not fit in
memory, and leaves a receipt for every item. Receipts are the truth about what is done: an item is
up to date when its receipt's fingerprint (input bytes, parameters, weights, format version)
matches and its outputs are there.
"""

from __future__ import annotations

import errno
import hashlib
import json
import stat
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from semedit.errors import InputError, NoFaceError, SemeditError, WorkspaceError
from semedit.images import write_bytes
from semedit.weights import fingerprint as file_sha256
from semedit.workspace import FORMAT, Workspace, step_number

_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG}

Status = Literal["done", "uptodate", "skipped", "error"]


@dataclass(frozen=True)
class Item:
    """One unit of work.

    Attributes:
        name: what its outputs are called, relative, without suffix: "folder/photo".
        inputs: role -> file whose bytes decide about the outputs.
        parameters: what decides besides, on top of the command's own parameters.
        group: items of unequal groups never share a batch (say, crops of other sizes).
        data: whatever the command wants to find again.
        error: what is wrong with it already; it fails without being loaded.
        refines: its outputs take the place of another command's. When that one writes them again,
            this item is no longer up to date.
    """

    name: str
    inputs: Mapping[str, Path]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    group: Hashable = None
    data: Any = None
    error: SemeditError | None = None
    refines: bool = False


@dataclass(frozen=True)
class Result:
    """What work made of one item: files it wrote, remarks, figures worth keeping."""

    outputs: Sequence[Path]
    warnings: Sequence[str] = ()
    figures: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What became of one item in this run.

    Attributes:
        outputs: paths relative to the workspace.
        error: {"code", "message", "hint"} when status is "error" or "skipped".
    """

    name: str
    status: Status
    outputs: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    figures: Mapping[str, Any] = field(default_factory=dict)
    error: Mapping[str, Any] | None = None
    seconds: float = 0.0


class Observer(Protocol):
    """Who watches a run: a progress bar, a stream of JSON lines, a test."""

    def start(self, total: int) -> None:
        """The number of items is known."""

    def finish(self, outcome: Outcome) -> None:
        """One item is settled."""


@dataclass(frozen=True)
class Run:
    """One invocation of one command in a workspace.

    Attributes:
        parameters: all that decides about the outputs besides inputs and weights; JSON types.
        weights: name -> sha256 of the weight files used.
        overwrite: redo what is up to date, too.
        retry_failed: try again what failed before with the same inputs and parameters.
    """

    workspace: Workspace
    command: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    weights: Mapping[str, str] = field(default_factory=dict)
    overwrite: bool = False
    retry_failed: bool = False

    def fingerprint(self, item: Item, sha256: Mapping[str, str]) -> str:
        """One digest of all that decides about an item's outputs."""
        content = [FORMAT, self.command, self.parameters, item.parameters, self.weights, sha256]
        text = json.dumps(content, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def settled(self, item: Item, sha256: Mapping[str, str]) -> dict[str, Any] | None:
        """The receipt of an item that need not be done (again), or None.

        Args:
            sha256: of the item's inputs, by role.
        """
        receipt = self.workspace.receipt(self.command, item.name)
        if receipt is None or receipt["fingerprint"] != self.fingerprint(item, sha256):
            return None
        space, outputs = self.workspace, receipt["outputs"]
        if not all((space.root / path).is_file() for path in outputs):
            return None
        fates = (space.fate(path, sha256) for path, sha256 in outputs.items())
        if item.refines and "replaced" in fates:
            return None
        return receipt


def next_step(
    run: Run, face: str, label: str, item: Item, chosen: str | None = None, photo: bool = False
) -> Item:
    """Turn an item into the next step of a face's chain of edits.

    Doing the same edit again is no new step, so that a script of edits can be run again: where
    an edit that led to the source (with `chosen`: one that started from it) was just this one,
    the item stands for that step, which is up to date.

    Args:
        label: what the step is called behind its number.
        item: the edit's other inputs, parameters and data; its name is not used.
        chosen, photo: source of the edit, as Workspace.source takes them.
    """
    space = run.workspace
    source = space.source(face, chosen, photo)
    steps = space.steps(face)
    lineage = space.lineage(source) or []
    for step in reversed(steps):
        parent = space.parent(step)
        if parent and (parent == source if chosen else step in lineage):
            again = replace(item, name=step, inputs={"latent": parent, **item.inputs})
            if run.settled(again, _Seen.of(again).sha256):
                return again
    number = step_number(steps[-1]) + 1 if steps else 1
    name = f"{face}/{number:02d}-{label}"
    return replace(item, name=name, inputs={"latent": source, **item.inputs})


def for_each(
    run: Run,
    items: Sequence[Item],
    load: Callable[[Item], Any],
    work: Callable[[list[Item], list[Any]], Sequence[Result]],
    observer: Observer,
    batch: int = 1,
) -> list[Outcome]:
    """Do what is not done yet; every item ends with a receipt and an outcome.

    Args:
        load: reads one item's inputs; its failures stay that item's.
        work: makes the outputs of several loaded items of one group.
        batch: how many items `work` takes at most.

    Returns:
        One outcome per item, in order of completion. A SemeditError that is not fatal (and lack
        of memory for a single item) becomes that item's error.

    Raises:
        SemeditError: one that would meet every item alike, such as missing weights.
        WorkspaceError: the disk is full or read-only.
    """
    observer.start(len(items))
    loop = _Loop(run, load, work, observer)
    for chunk in _chunks(items, batch):
        try:
            loop.settle(chunk)
        except OSError as error:
            if error.errno in _DISK:
                raise WorkspaceError(f"cannot write: {error.strerror or error}") from error
            raise
    return loop.outcomes


def _chunks(items: Sequence[Item], batch: int) -> Iterator[list[Item]]:
    """Neighbours of one group. Items count whether done or not, so that an interrupted run is
    resumed in the batches it would have had, and gives the same bytes."""
    chunk: list[Item] = []
    for item in items:
        if chunk and (len(chunk) >= batch or item.group != chunk[0].group):
            yield chunk
            chunk = []
        chunk.append(item)
    if chunk:
        yield chunk


@dataclass(frozen=True)
class _Seen:
    """An item's inputs as they were when it was begun: role -> sha256, and size and time.

    A file that cannot be read, or is a pipe or device, has the digest "": loading it fails.
    """

    sha256: Mapping[str, str]
    status: Mapping[str, tuple[int, int]]

    @classmethod
    def of(cls, item: Item) -> _Seen:
        sha256, times = {}, {}
        for role, path in item.inputs.items():
            sha256[role], times[role] = "", (0, 0)
            try:
                status = path.stat()
                if stat.S_ISREG(status.st_mode):
                    sha256[role] = file_sha256(path)
                    times[role] = (status.st_size, status.st_mtime_ns)
            except OSError:
                continue
        return cls(sha256, times)


@dataclass(frozen=True)
class _Pending:
    """An item that is loaded and waits for its batch."""

    item: Item
    seen: _Seen
    started: float
    loaded: Any


class _Loop:
    """The state of one `for_each`."""

    def __init__(self, run: Run, load: Any, work: Any, observer: Observer) -> None:
        self.run, self.load, self.work, self.observer = run, load, work, observer
        self.outcomes: list[Outcome] = []

    def settle(self, items: list[Item]) -> None:
        """Neighbouring items: skip what is done, load the rest, work on it, write receipts."""
        pending: list[_Pending] = []
        for item in items:
            seen, started = _Seen.of(item), time.perf_counter()
            receipt = None if self.run.overwrite else self.run.settled(item, seen.sha256)
            if receipt and not (receipt["status"] == "error" and self.run.retry_failed):
                self._keep(item, receipt)
                continue
            if item.error:
                self._fail(item, seen, started, item.error)
                continue
            try:
                pending.append(_Pending(item, seen, started, self.load(item)))
            except (SemeditError, MemoryError) as error:
                if _ends_the_run(error):
                    raise
                self._fail(item, seen, started, error)
        if pending:
            self._attempt(pending)

    def _attempt(self, pending: list[_Pending]) -> None:
        """Work on a batch; if it fails, on its parts, so that one item fails alone."""
        try:
            results = self.work([one.item for one in pending], [one.loaded for one in pending])
        except (SemeditError, MemoryError, RuntimeError) as error:
            if _ends_the_run(error):
                raise
            if len(pending) == 1:
                (one,) = pending
                self._fail(one.item, one.seen, one.started, error)
                return
            size = (len(pending) + 1) // 2 if _lacks_memory(error) else 1
        else:
            for one, result in zip(pending, results, strict=True):
                self._done(one, result)
            return
        for first in range(0, len(pending), size):
            self._attempt(pending[first : first + size])

    def _keep(self, item: Item, receipt: Mapping[str, Any]) -> None:
        """An item that is up to date, or failed before in just the same way."""
        done = receipt["status"] == "done"
        outputs = receipt["outputs"]
        self._finish(
            Outcome(
                item.name,
                "uptodate" if done else receipt["status"],
                tuple(outputs),
                tuple(self._edited_by_hand(outputs)),
                receipt["figures"],
                receipt["error"],
            )
        )

    def _edited_by_hand(self, outputs: Mapping[str, str]) -> Iterable[str]:
        for path, sha256 in outputs.items():
            if self.run.workspace.fate(path, sha256) == "edited":
                yield f"{path} was changed since, kept (--overwrite makes it anew)"

    def _done(self, one: _Pending, result: Result) -> None:
        if _Seen.of(one.item).status != one.seen.status:
            changed = InputError("an input was changed while it was read")
            self._fail(one.item, one.seen, one.started, changed)
            return
        relative = self.run.workspace.relative
        outputs = {relative(path): file_sha256(path) for path in result.outputs}
        outcome = Outcome(
            one.item.name,
            "done",
            tuple(outputs),
            tuple(result.warnings),
            result.figures,
            None,
            time.perf_counter() - one.started,
        )
        self._write(one.item, one.seen, outcome, outputs)

    def _fail(self, item: Item, seen: _Seen, started: float, error: BaseException) -> None:
        if isinstance(error, SemeditError):
            told = {"code": error.code, "message": error.message, "hint": error.hint}
        else:
            told = {"code": "memory", "message": "not enough memory", "hint": None}
        status: Status = "skipped" if isinstance(error, NoFaceError) else "error"
        seconds = time.perf_counter() - started
        self._write(item, seen, Outcome(item.name, status, error=told, seconds=seconds), {})

    def _write(self, item: Item, seen: _Seen, outcome: Outcome, outputs: dict[str, str]) -> None:
        """The receipt first, then the word that the item is settled."""
        run = self.run
        relative = run.workspace.relative
        receipt = {
            "format": FORMAT,
            "command": run.command,
            "name": item.name,
            "status": outcome.status,
            "fingerprint": run.fingerprint(item, seen.sha256),
            "inputs": {k: [relative(path), seen.sha256[k]] for k, path in item.inputs.items()},
            "parameters": {**run.parameters, **item.parameters},
            "weights": dict(run.weights),
            "outputs": outputs,
            "warnings": list(outcome.warnings),
            "figures": dict(outcome.figures),
            "error": outcome.error,
        }
        text = json.dumps(receipt, indent=1) + "\n"
        write_bytes(run.workspace.receipt_path(run.command, item.name), text.encode())
        self._finish(outcome)

    def _finish(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        self.observer.finish(outcome)


def _ends_the_run(error: BaseException) -> bool:
    """Whether an error is none of a single item: it would meet all alike, or it is a bug."""
    if isinstance(error, SemeditError):
        return error.fatal
    return not _lacks_memory(error)


def _lacks_memory(error: BaseException) -> bool:
    """Whether an error is torch's or Python's way of saying that memory ran out."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "allocate memory" in text
