"""What a run tells: lines and bars on stderr, JSON lines on stdout, and the closing table."""

from __future__ import annotations

import re
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from semedit.errors import SemeditError, WorkspaceError
from semedit.media import valid_json
from semedit.runtime import interrupts

if TYPE_CHECKING:
    from semedit.batch import Outcome
    from semedit.batch.plan import Plan

stderr = Console(stderr=True)
stdout = Console()

STATUSES = {"done": "done", "uptodate": "up to date", "skipped": "skipped", "error": "failed"}
REASONS = 12  # kinds of failures that the closing table lists
FEW = 6  # output files that the closing table is followed by; of more, the folder says enough
KINDS = 1000  # kinds that are told apart at all
LOG_WIDTH = 120  # characters of the tables in a log
EVERY, ITEMS = 30.0, 500  # seconds, items: how often a run without a terminal says how far it is
LOUD = {"error": "red", "warning": "yellow", "skipped": "yellow", "left out": "yellow"}


@dataclass
class Voice:
    """How this process tells: without what goes well, and what it writes of it to a log."""

    quiet: bool = False
    log: Console | None = None


voice = Voice()


@contextmanager
def speaking(quiet: bool, log: Path | None) -> Iterator[None]:
    """A block in which stderr gets only what went wrong, and a file, at its end, all that is told.

    Raises: OSError: the file cannot be written.
    """
    global voice
    before = voice
    with ExitStack() as stack:
        console = None
        if log is not None:
            log.parent.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(log.open("a", encoding="utf-8", errors="backslashreplace"))
            console = Console(file=file, width=LOG_WIDTH, no_color=True)
        voice = Voice(quiet, console)
        try:
            yield
        except BaseException as error:
            wrong = told(error)
            if wrong is not None and before.log is None:  # else that one is told it, too
                hint = f" ({wrong['hint']})" if wrong["hint"] else ""
                log_line(f"error: {printable(wrong['message'] + hint)}")
            raise
        finally:
            voice = before


def say(kind: str, message: str, hint: str | None = None) -> None:
    """One line on stderr: `error: what is wrong (what to do)`."""
    text = printable(f"{message} ({hint})" if hint else message)
    if kind in LOUD or not voice.quiet:
        stderr.print(f"[{LOUD.get(kind, 'none')}]{kind}:[/] ", end="")
        stderr.print(text, markup=False, highlight=False, soft_wrap=True)
    log_line(f"{kind}: {text}")


def log_line(text: str) -> None:
    """One line in the log alone, with the time."""
    if voice.log is not None:
        now = datetime.now().astimezone().isoformat(" ", "seconds")
        voice.log.print(f"{now} {text}", markup=False, highlight=False, soft_wrap=True)
        voice.log.file.flush()


def show(table: Table | str) -> None:
    """A table, or what belongs to one, on stderr and in the log."""
    for console in (None if voice.quiet else stderr, voice.log):
        if console is not None:
            console.print(table, markup=False, highlight=False, soft_wrap=isinstance(table, str))


def printable(text: str) -> str:
    """Text that does not rule the terminal: names may hold control characters, or no Unicode."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )


_summed = [False]  # of the commands at work, the innermost last: whether their summary is told


def data(**values: Any) -> None:
    """One JSON line on stdout.

    Raises: WorkspaceError: it does not get there, say, to a file on a full disk.
    """
    _summed[-1] |= values.get("summary") is True
    with to_stdout():
        print(valid_json.dumps(values, default=str))


@contextmanager
def summed(command: str, as_json: bool) -> Iterator[None]:
    """The block of a command whose JSON lines end with a summary, also when something ends it."""
    _summed.append(False)
    try:
        yield
    except BaseException as error:
        if as_json and not _summed[-1]:
            data(summary=True, command=command, interrupted=True, ended_by=told(error))
        raise
    finally:
        _summed.pop()


def told(error: BaseException | None) -> dict[str, Any] | None:
    """What ended a command, as JSON has it; None where nothing, or a signal, did, or an exit code
    says it all."""
    if error is None or isinstance(error, KeyboardInterrupt | SystemExit | typer.Exit):
        return None
    if isinstance(error, SemeditError):
        return {"code": error.code, "message": error.message, "hint": error.hint}
    return {"code": type(error).__name__, "message": str(error), "hint": None}


@contextmanager
def to_stdout() -> Iterator[None]:
    """Write there, and see that it arrives.

    Raises: WorkspaceError: it does not. BrokenPipeError: whoever read it has enough.
    """
    try:
        yield
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        sys.stdout = None  # or Python tries again at its end
        if isinstance(error, BrokenPipeError):
            raise
        raise WorkspaceError(
            f"cannot write to stdout: {error.strerror}", "what is finished is safe"
        ) from error


def _bar() -> Progress:
    """A progress bar on stderr, which shows only on a terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=stderr,
        transient=True,
        disable=voice.quiet or not stderr.is_terminal,
    )


class Reporter:
    """Progress while a task runs (a bar on a terminal, else a line now and then), JSON lines, and
    the closing table and summary, which are told however the run ends.

    Attributes:
        device: what it runs on, as far as that is known.
        left_out: files of the inputs that are no photographs; a task may still be adding to it.
    """

    def __init__(self, command: str, as_json: bool, workspace: Path, device: str = "") -> None:
        self.command, self.as_json = command, as_json
        self.workspace, self.device = workspace, device
        self.left_out: Sequence[Path] = ()
        self.total: int | None = None
        self.started = self.spoke = time.perf_counter()
        self.spoken = 0  # items that were settled when it spoke last
        self.counts: Counter[str] = Counter()
        self.reasons: Counter[tuple[str, str]] = Counter()
        self.firsts: dict[tuple[str, str], str] = {}
        self.outputs: list[str] = []
        self.bar = _bar()
        self.items = self.bar.add_task(command, total=None)
        self.steps = self.bar.add_task("steps", total=None, visible=False)

    def __enter__(self) -> Reporter:
        self.bar.start()
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self.bar.stop()
        with interrupts.held():  # whoever is in a hurry has the account all the same
            self._close(error)

    @property
    def failed(self) -> int:
        return self.counts["error"]

    @property
    def settled(self) -> int:
        return sum(self.counts[status] for status in STATUSES)

    def start(self, total: int) -> None:
        self.total = total
        self.bar.update(self.items, total=total)

    def step(self, done: int, total: int) -> None:
        """Progress of the batch at work."""
        self.bar.update(self.steps, completed=done, total=total, visible=done < total)
        self._speak(f"step {done} of {total}")

    def finish(self, outcome: Outcome) -> None:
        self.counts[outcome.status] += 1
        if outcome.status in ("done", "uptodate") and len(self.outputs) <= FEW:
            self.outputs.extend(outcome.outputs)
        if outcome.error:
            kind = "skipped" if outcome.status == "skipped" else "error"
            say(kind, f"{outcome.name}: {outcome.error['message']}", outcome.error["hint"])
            self._count(STATUSES[outcome.status], outcome.error["message"], outcome.name)
        else:
            status = STATUSES[outcome.status]
            log_line(f"{status}: {printable(outcome.name)}, {outcome.seconds:.1f} s")
        for warning in outcome.warnings:
            say("warning", f"{outcome.name}: {warning}")
        self.counts["warned"] += bool(outcome.warnings)
        if self.as_json:
            data(command=self.command, **asdict(outcome))
        self.bar.advance(self.items)
        self._speak()

    def _speak(self, more: str = "") -> None:
        """Say how far it is, where no bar shows it and it is time to."""
        now = time.perf_counter()
        due = now - self.spoke >= EVERY or self.settled - self.spoken >= ITEMS
        if due and (voice.log is not None or not stderr.is_terminal):
            self.spoke, self.spoken = now, self.settled
            done = f"{self.settled} of {self.total}" if self.total else str(self.settled)
            parts = [f"{self.command}: {done}", *([f"{self.failed} failed"] if self.failed else [])]
            parts += [more] if more else []
            say("progress", f"{', '.join(parts)}, after {now - self.started:.0f} s")

    def _count(self, status: str, message: str, name: str) -> None:
        key = (status, reason_of(message))
        if key in self.reasons or len(self.reasons) < KINDS:
            self.reasons[key] += 1
            self.firsts.setdefault(key, name)

    def _close(self, error: BaseException | None) -> None:
        """The closing table on stderr, the summary line on stdout."""
        counts = {status: self.counts[status] for status in STATUSES}
        total = self.settled if self.total is None else max(self.total, self.settled)
        seconds = time.perf_counter() - self.started
        for path in self.left_out:
            log_line(f"left out: {printable(str(path))}")
            kind = path.suffix.lower() or "a file without a suffix"
            self._count("left out", f"{kind} is not read", path.name)
        if self.as_json:
            data(
                summary=True,
                command=self.command,
                total=total,
                **counts,
                not_reached=total - self.settled,
                warned=self.counts["warned"],
                left_out=[str(path) for path in self.left_out],
                seconds=round(seconds, 2),
                device=self.device,
                workspace=str(self.workspace),
                interrupted=error is not None,
                ended_by=told(error),
            )
        if self.total is None and error is not None and not self.settled:
            return  # it did not begin; the error says why
        title = f"semedit {self.command}" + ("" if error is None else ", ended early")
        columns = {"items": total}
        columns |= {name: counts[status] for status, name in STATUSES.items()}
        columns |= {"not reached": total - self.settled} if total > self.settled else {}
        columns["warned"] = self.counts["warned"]
        show(_row(title, columns))
        on = f" on {self.device}" if self.device else ""
        show(printable(f"{seconds:.1f} s{on}, results in {self.workspace}"))
        _show_left_out(self.left_out)
        if len(self.outputs) <= FEW:
            for output in self.outputs:
                say("file", str(self.workspace / output))
        if self.reasons:
            show(self._why())

    def _why(self) -> Table:
        """Failures and skips by their reason, the most frequent first."""
        table = Table("", "why", "for instance", title="not done, and why", title_justify="left")
        table.columns[0].no_wrap = True
        for (status, reason), count in self.reasons.most_common(REASONS):
            first = printable(self.firsts[status, reason])
            table.add_row(f"{count} {status}", Text(reason), Text(first))  # [b] is no markup there
        if len(self.reasons) > REASONS:
            rest = sum(n for _, n in self.reasons.most_common()[REASONS:])
            table.add_row(str(rest), "for other reasons, told above", "")
        return table


def _row(title: str, columns: Mapping[str, int]) -> Table:
    """A table of one row of numbers."""
    table = Table(title=title, title_justify="left")
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_row(*map(str, columns.values()))
    return table


def reason_of(message: str) -> str:
    """A message without what is only this file's: its path in front, digits, a list of its
    colours, what stands in parentheses at its end."""
    text = re.sub(r"^(\S.*?\.\w+|\S*/\S*): ", "", printable(message))
    text = re.sub(r": #[0-9a-f]{6} .*", "", text)
    text = re.sub(r" \(.*\)$", "", text)
    text = re.sub(r" (in|at) \S*[/.]\S*$", "", text)
    return re.sub(r"(?<![\w-])\d[\d.,]*(?!\w)", "N", text)[:80]


def show_plan(command: str, found: Plan, as_json: bool, left_out: Sequence[Path] = ()) -> None:
    """A plan as a table on stderr, or as one JSON line.

    Args: left_out: files of the inputs that are no photographs.
    """
    if as_json:
        files = [str(path) for path in left_out]
        data(summary=True, plan=True, command=command, **found.json(), left_out=files)
        return
    columns = {
        "items": found.total,
        "up to date": found.uptodate,
        "no face": found.skipped,
        "failed before": found.failed,
        "refused": found.refused,
        "would run": found.todo,
    }
    show(_row(f"semedit {command}, a plan only", columns))
    needed, free = _megabytes(found.bytes_needed), _megabytes(found.bytes_free)
    show(f"disk: about {needed} needed, {free} free")
    _show_left_out(left_out)
    if found.bytes_needed > found.bytes_free:
        say("warning", "the disk has less room than the outputs need")


def _show_left_out(files: Sequence[Path]) -> None:
    if files:
        from semedit.batch.inputs import tell

        show(printable(f"left out, as no reader knows them: {tell(files)}"))


def _megabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


class StepBar:
    """A bar for a count that is not over items of a workspace."""

    def __init__(self, title: str) -> None:
        self.bar = _bar()
        self.title = title
        self.task = self.bar.add_task(title, total=None)

    def __enter__(self) -> StepBar:
        self.bar.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        self.bar.stop()

    def __call__(self, done: int, total: int, title: str | None = None) -> None:
        self.bar.update(self.task, completed=done, total=total, description=title or self.title)
