"""The one loop over files that all commands share.

Three things happen at once: threads read what comes next (and decoding happens in processes of
its own, see semedit.media.decoding), the calling thread computes, and threads write what is
finished. Batches are made of neighbours, done or not, so that a run that was killed is resumed in
the batches it would have had, and gives the same bytes.
"""

from __future__ import annotations

import errno
import gc
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from semedit.batch.origins import remark
from semedit.batch.places import STEPS
from semedit.batch.receipts import (
    InputDigests,
    Item,
    Observer,
    Outcome,
    Receipt,
    Result,
    Run,
    Status,
    Tally,
)
from semedit.errors import (
    EditedError,
    FailuresError,
    InputError,
    NoFaceError,
    PlaceError,
    SemeditError,
    WorkspaceError,
)
from semedit.media import decoding, reading
from semedit.media.files import write_bytes
from semedit.runtime import interrupts
from semedit.runtime.allocator import return_freed_memory

# What the system says when nothing at all can be written, now or for the next item.
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EIO}
# What it says when something else is in the place of one item's files.
_TAKEN = {errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ELOOP}
WRITERS = 2
LONGEST = 2000  # characters of an error that are told; some list what a file holds

Load = Callable[[Item], Any]
Work = Callable[[list[Item], list[Any]], Sequence[Result]]
Batch = list[tuple[str, str]]  # name and fingerprint of what is worked on together


def for_each(
    run: Run, items: Iterable[Item], load: Load, work: Work, observer: Observer, batch: int = 1
) -> Tally:
    """Do what is not done yet; every item ends with a receipt and an outcome.

    Args:
        load: reads one item's inputs; its failures stay that item's. Called by several threads.
        work: computes several loaded items, and leaves writing to its results.
        batch: how many items `work` takes at most.

    Returns:
        How many came to what. A SemeditError that is not fatal (and lack of memory for a single
        item) becomes that item's error.

    Raises:
        SemeditError: one that would meet every item alike, such as missing weights.
        WorkspaceError: nothing can be written.
        FailuresError: more items failed than the run allows.
    """
    mine: Iterable[Item] = run.shard.of(items)
    if isinstance(items, Sized):
        mine = list(mine)
        observer.start(len(mine))
        if items:
            run.workspace.clear()
    with Loop(run, load, work, observer) as loop:
        loop.go(chunks(mine, batch))
    return loop.tally


def chunks(items: Iterable[Item], batch: int) -> Iterator[list[Item]]:
    """Neighbours, `batch` of them, in the last chunk what is left."""
    rest = iter(items)
    while chunk := list(islice(rest, batch)):
        yield chunk


def threads() -> int:
    """How many files are read at once."""
    return max(2, min(8, os.cpu_count() or 1))


@dataclass(frozen=True, eq=False)
class _Ready:
    """An item that was looked at.

    Attributes:
        seconds: what it took so far: its reading, and its share of what was computed.
        settled: the receipt by which it need not be done; kept: what then is told of it.
        before: the receipt it had, of whatever fingerprint.
        loaded: its inputs; error: why there are none.
        remarks: what its face's photograph has come to; told, but no matter of its receipt.
    """

    item: Item
    seen: InputDigests
    seconds: float = 0.0
    settled: Receipt | None = None
    kept: Outcome | None = None
    before: Receipt | None = None
    loaded: Any = None
    error: BaseException | None = None
    remarks: tuple[str, ...] = ()

    def noted(self, outcome: Outcome) -> Outcome:
        """What became of it, with its remarks."""
        return replace(outcome, warnings=(*self.remarks, *outcome.warnings))


class Loop:
    """The state of one `for_each`: a context that ends its threads and child processes."""

    def __init__(self, run: Run, load: Load, work: Work, observer: Observer) -> None:
        self.run, self.load, self.work, self.observer = run, load, work, observer
        self.tally = Tally()
        self.failures = 0  # of this run, without those known from earlier ones
        self.most = sys.maxsize  # items that fit into memory together, as far as is known
        self._readers = ThreadPoolExecutor(threads(), "read")
        self._writers = ThreadPoolExecutor(WRITERS, "write")
        self._written: deque[Future[Outcome]] = deque()

    def __enter__(self) -> Loop:
        return self

    def __exit__(self, kind: Any, *exception: Any) -> None:
        self._readers.shutdown(wait=False, cancel_futures=True)
        if kind is not None:
            decoding.close()  # readers that wait for a child do not wait any longer
        self._readers.shutdown()
        # What was computed before an interrupt is still written; not on a disk that refuses it.
        refused = kind is not None and issubclass(kind, SemeditError)
        self._writers.shutdown(cancel_futures=refused)
        if kind is not None and not issubclass(kind, BrokenPipeError):  # who would hear it?
            self._report_rest()

    def go(self, every: Iterable[list[Item]]) -> None:
        """Settle all items of some batches."""
        for chunk in self._ahead(every):
            self.settle(chunk)
        self._report(0)

    def _ahead(self, every: Iterable[list[Item]]) -> Iterator[list[_Ready]]:
        """Batches whose items are looked at and loaded; the next ones are being so meanwhile."""
        coming: deque[list[Future[_Ready]]] = deque()
        for chunk in every:
            coming.append([self._readers.submit(self._look, item) for item in chunk])
            while sum(map(len, coming)) - len(coming[0]) >= threads():
                yield [future.result() for future in coming.popleft()]
        while coming:
            yield [future.result() for future in coming.popleft()]

    def _look(self, item: Item) -> _Ready:
        """Whether an item is to be done; if so, load it; and whether its photograph is the same."""
        run, one = self.run, self._looked(item)
        told = None if run.command == "align" else remark(run.workspace, item.face or item.name)
        return one if told is None else replace(one, remarks=(told,))

    def _looked(self, item: Item) -> _Ready:
        run, started = self.run, time.perf_counter()
        seen = InputDigests.of(item)
        if obstacle := run.workspace.obstacle(run.command, item.name):
            return _Ready(item, seen, error=obstacle)
        before: Receipt | None = None
        error: SemeditError | None = item.error
        try:
            settled = run.settled(item, seen.sha256)
            if settled is not None and not run.due(settled):
                return _Ready(item, seen, settled=settled, kept=self._kept(item, settled))
            before = run.workspace.receipt(run.command, item.name)
            if item.refines and not run.overwrite and (hand := run.by_hand(item)):
                kept = f"{hand} was changed by hand, kept (--overwrite replaces it)"
                outcome = Outcome(item.name, "uptodate", (), (kept,))
                return _Ready(item, seen, kept=outcome)
            if before and not run.overwrite and (edited := next(run.edited(before), None)):
                error = EditedError(
                    f"{edited} was changed by hand since it was made, and is kept",
                    "--overwrite makes it again",
                )
        except InputError as unreadable:
            kept = f"{unreadable.message}, so what it holds is kept"
            error = EditedError(kept, "--overwrite makes it again")
        one = self._loaded(_Ready(item, seen, before=before, error=error))
        return replace(one, seconds=time.perf_counter() - started)

    def _loaded(self, one: _Ready) -> _Ready:
        if one.error is not None:
            return one
        loaded, failure = None, None
        try:
            loaded = self.load(one.item)
        except (SemeditError, MemoryError) as error:
            if _ends_the_run(error):
                raise
            failure = error
        except OSError as error:
            failure = InputError(f"{one.item.name}: cannot be read: {error.strerror or error}")
        return replace(one, loaded=loaded, error=failure)

    # Computing

    def settle(self, chunk: list[_Ready]) -> None:
        """Tell what is up to date or failed, compute the rest, hand it to the writers."""
        pending = []
        for one in chunk:
            if one.kept is not None:
                with interrupts.held():
                    self._count(one.noted(one.kept))
            elif one.error is not None:
                self._hand_over(self._fail, one, one.error)
            else:
                pending.append(one)
        if pending:
            self._attempt(self._with_mates(chunk, pending))

    def _with_mates(self, chunk: list[_Ready], pending: list[_Ready]) -> list[_Ready]:
        """The pending items, and those that were computed together with one of them before.

        A batch's composition decides about the last bits of its results. So, when a run was
        killed while it wrote a batch, the rest of that batch is computed with the same mates.
        """
        wanted = {(one.item.name, self._print(one)) for one in pending}
        working = []
        for one in chunk:
            if one in pending:
                working.append(one)
            elif one.settled and wanted & {tuple(mate) for mate in one.settled.get("batch", ())}:
                mate = self._loaded(one)
                if mate.error is None:
                    working.append(mate)
        return working

    def _print(self, one: _Ready) -> str:
        return self.run.fingerprint(one.item, one.seen.sha256)

    def _attempt(self, batch: list[_Ready]) -> None:
        """Work on a batch; if it fails, on its parts, so that one item fails alone."""
        if len(batch) > self.most:
            self._attempt_parts(batch, self.most)
            return
        items, loaded = [one.item for one in batch], [one.loaded for one in batch]
        failure: BaseException
        begun = time.perf_counter()
        try:
            with _writing():
                results = self.work(items, loaded)
        except (SemeditError, MemoryError, RuntimeError, OSError) as error:
            if _ends_the_run(error):
                raise
            failure = _bare(error)
            batch = _spent(batch, begun)
        else:
            batch = _spent(batch, begun)
            names = [(one.item.name, self._print(one)) for one in batch] if len(batch) > 1 else []
            for one, result in zip(batch, results, strict=True):
                self._hand_result(one, result, names)
            return
        if len(batch) == 1:
            if _lacks_memory(failure):
                _free_memory()
                self.most = sys.maxsize  # the others of its batch may well have fitted
            self._hand_over(self._fail, batch[0], failure)
        elif _lacks_memory(failure):
            _free_memory()
            self.most = (len(batch) + 1) // 2
            self._attempt_parts(batch, self.most)
        else:
            self._attempt_parts(batch, 1)

    def _attempt_parts(self, batch: list[_Ready], size: int) -> None:
        for first in range(0, len(batch), size):
            self._attempt(batch[first : first + size])

    # Writing

    def _hand_result(self, one: _Ready, result: Result, batch: Batch) -> None:
        if one.settled is not None:
            return  # it only kept another one company
        if result.error is not None:
            self._hand_over(self._fail, one, result.error, result.warnings)
        else:
            self._hand_over(self._done, one, result, batch)

    def _hand_over(self, write: Callable[..., Outcome], one: _Ready, *given: Any) -> None:
        """Let a writer do it; waits while too much is still unwritten."""
        with interrupts.held():
            self._written.append(self._writers.submit(lambda: one.noted(write(one, *given))))
        self._report(2 * WRITERS)

    def _report(self, most: int) -> None:
        """Tell of what is written, until no more than `most` items are not."""
        while self._written and (len(self._written) > most or self._written[0].done()):
            outcome = self._written[0].result()  # while it waits it may be interrupted
            with interrupts.held():
                self._written.popleft()
                self._tell(outcome)

    def _report_rest(self) -> None:
        """Tell of what was finished before the run ended early; why it did is told by others."""
        with interrupts.held():
            for written in self._written:
                if not written.cancelled() and written.exception() is None:
                    self._count(written.result())
            self._written.clear()

    def _done(self, one: _Ready, result: Result, batch: Batch) -> Outcome:
        item, space, begun = one.item, self.run.workspace, time.perf_counter()
        if not one.seen.still(item):
            return self._fail(one, InputError("an input was changed while it was read"))
        try:
            # An old receipt goes first: it must never vouch for a mixture of old and new files.
            with _writing():
                kept = self._aside(one)
                space.receipt_path(self.run.command, item.name).unlink(missing_ok=True)
                outputs = {space.relative(path): reading.digest(path) for path in result.write()}
        except SemeditError as error:
            if error.fatal:
                raise
            return self._fail(one, error)
        seconds = one.seconds + time.perf_counter() - begun
        told = (tuple(outputs), (*kept, *result.warnings), result.figures, None, seconds)
        return self._write(one, Outcome(item.name, "done", *told), outputs, batch)

    def _aside(self, one: _Ready) -> list[str]:
        """Set aside what was made by hand and is to be made anew; returns what to say of it."""
        if not self.run.overwrite:
            return []
        made = self.run.hand_made(one.item, one.before)
        keep = self.run.workspace.keep_by_hand
        return [f"{path} was changed by hand, kept as {keep(path)}" for path in made]

    def _fail(self, one: _Ready, error: BaseException, warnings: Sequence[str] = ()) -> Outcome:
        if isinstance(error, SemeditError):
            told = {"code": error.code, "message": _shortened(error.message), "hint": error.hint}
        else:
            told = {"code": "memory", "message": "not enough memory", "hint": None}
        status: Status = "skipped" if isinstance(error, NoFaceError) else "error"
        remarks = tuple(warnings)
        outcome = Outcome(one.item.name, status, (), remarks, {}, told, one.seconds)
        if isinstance(error, EditedError | PlaceError):
            return outcome  # a receipt stays: it tells what the file was; or there is no place
        return self._write(one, outcome, {}, [])

    def _write(
        self, one: _Ready, outcome: Outcome, outputs: Mapping[str, str], batch: Batch
    ) -> Outcome:
        """The receipt; then what an earlier state of the item left and this one has not goes."""
        run, item = self.run, one.item
        text = run.receipt(item, one.seen, outcome, outputs, batch)
        try:
            with _writing():
                write_bytes(run.workspace.receipt_path(run.command, item.name), text)
                if outcome.status != "error" and one.before:
                    run.workspace.remove(run.command, item.name, one.before, outputs)
                if outcome.status == "done" and run.command in STEPS:
                    run.workspace.forget(run.command, item.face)
        except InputError as error:  # then the failure is told, and left to the next run
            told = {"code": error.code, "message": error.message, "hint": error.hint}
            return replace(outcome, status="error", outputs=(), error=outcome.error or told)
        return outcome

    # Telling

    def _kept(self, item: Item, receipt: Receipt) -> Outcome:
        """An item that is up to date, or failed before in just the same way."""
        if receipt["status"] != "done":
            remarks = tuple(receipt["warnings"])
            return Outcome(item.name, receipt["status"], (), remarks, {}, receipt["error"])
        edited = (
            f"{path} was changed since, kept (--overwrite makes it again)"
            for path in self.run.edited(receipt)
        )
        outputs, figures = tuple(receipt["outputs"]), receipt["figures"]
        return Outcome(item.name, "uptodate", outputs, tuple(edited), figures)

    def _tell(self, outcome: Outcome) -> None:
        """Of what this run did, which alone counts for --max-failures."""
        self._count(outcome)
        self.failures += outcome.status == "error"
        if 0 < self.run.max_failures <= self.failures:
            raise FailuresError(
                f"{self.failures} inputs failed, so the run ends",
                "fix them, or raise --max-failures",
            )

    def _count(self, outcome: Outcome) -> None:
        self.tally.add(outcome)
        self.observer.finish(outcome)


def _spent(batch: list[_Ready], begun: float) -> list[_Ready]:
    """Items with their shares of the time since, in equal parts."""
    share = (time.perf_counter() - begun) / len(batch)
    return [replace(one, seconds=one.seconds + share) for one in batch]


def _shortened(text: str) -> str:
    """A message with its middle left out where it is too long: a path begins it, why ends it."""
    half = LONGEST // 2
    return text if len(text) <= LONGEST else f"{text[:half]} ... {text[-half:]}"


def _ends_the_run(error: BaseException) -> bool:
    """Whether an error is none of a single item: it would meet all alike, or it is a bug."""
    if isinstance(error, SemeditError):
        return error.fatal
    return not _lacks_memory(error)


# How torch, oneDNN, C++, Python and the system say that memory ran out; under a limit of address
# space, threads cannot start either.
_LACKING = (
    "out of memory",
    "not enough memory",
    "allocate memory",
    "bad_alloc",
    "bad allocation",
    "could not create a",  # a primitive, its descriptor, a memory object
    "could not execute a primitive",
    "can't start new thread",
)


def _lacks_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out."""
    if isinstance(error, SemeditError):
        return False
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(words in text for words in _LACKING)


def _bare(error: BaseException) -> BaseException:
    """An error without the frames it came through, which would hold the tensors that did not fit;
    nor those of errors that it followed."""
    seen: BaseException | None = error
    while seen is not None:
        seen.__traceback__ = None
        seen = seen.__cause__ or seen.__context__
    return error


def _free_memory() -> None:
    """Give back what is kept of memory, so that a smaller batch finds it."""
    gc.collect()
    return_freed_memory()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextmanager
def _writing() -> Iterator[None]:
    """Tell a disk that cannot be written from a name that cannot be, and both from a bug.

    Raises:
        WorkspaceError: it would meet every item. InputError: the name is too long.
    """
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise InputError("its name is too long for the files to be made from it") from error
        if error.errno in _TAKEN:
            raise InputError(
                f"{error.filename} is in the way: {error.strerror}", "move it away"
            ) from error
        if error.errno not in _DISK:
            raise
        where = f" in {Path(error.filename).parent}" if error.filename else ""
        raise WorkspaceError(
            f"cannot write{where}: {error.strerror or error}",
            "what is finished is safe; run it again when there is room",
        ) from error
