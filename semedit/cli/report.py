"""What a run tells: lines and bars on stderr, JSON lines on stdout, and the closing table."""

from __future__ import annotations

import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from semedit.errors import WorkspaceError
from semedit.media import valid_json

if TYPE_CHECKING:
    from semedit.batch import Outcome
    from semedit.batch.plan import Plan

stderr = Console(stderr=True)
stdout = Console()

STATUSES = {"done": "done", "uptodate": "up to date", "skipped": "skipped", "error": "failed"}
REASONS = 12  # kinds of failures that the closing table lists
FEW = 6  # output files that the closing table is followed by; of more, the folder says enough
KINDS = 1000  # kinds that are told apart at all


def say(kind: str, message: str, hint: str | None = None) -> None:
    """One line on stderr: `error: what is wrong (what to do)`."""
    colour = {"error": "red", "warning": "yellow", "skipped": "yellow"}.get(kind, "none")
    text = f"{message} ({hint})" if hint else message
    stderr.print(f"[{colour}]{kind}:[/] ", end="")
    stderr.print(printable(text), markup=False, highlight=False, soft_wrap=True)


def printable(text: str) -> str:
    """Text that does not rule the terminal: names may hold control characters, or no Unicode."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )


def data(**values: Any) -> None:
    """One JSON line on stdout.

    Raises: WorkspaceError: it does not get there, say, to a file on a full disk.
    """
    with to_stdout():
        print(valid_json.dumps(values, default=str))


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
        disable=not stderr.is_terminal,
    )


class Reporter:
    """Progress while a task runs (a bar only on a terminal), JSON lines, and the closing table,
    which is shown also when the run ends early."""

    def __init__(self, command: str, as_json: bool, workspace: Path, device: str) -> None:
        self.command, self.as_json = command, as_json
        self.workspace, self.device = workspace, device
        self.started = time.perf_counter()
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

    def __exit__(self, kind: Any, *exception: Any) -> None:
        self.bar.stop()
        if kind is None or self.counts:
            self._close(interrupted=kind is not None)

    @property
    def failed(self) -> int:
        return self.counts["error"]

    def start(self, total: int) -> None:
        self.bar.update(self.items, total=total)

    def step(self, done: int, total: int) -> None:
        """Progress of the batch at work."""
        self.bar.update(self.steps, completed=done, total=total, visible=done < total)

    def finish(self, outcome: Outcome) -> None:
        self.counts[outcome.status] += 1
        if outcome.status in ("done", "uptodate") and len(self.outputs) <= FEW:
            self.outputs.extend(outcome.outputs)
        if outcome.error:
            kind = "skipped" if outcome.status == "skipped" else "error"
            say(kind, f"{outcome.name}: {outcome.error['message']}", outcome.error["hint"])
            self._count(STATUSES[outcome.status], outcome)
        for warning in outcome.warnings:
            say("warning", f"{outcome.name}: {warning}")
        self.counts["warned"] += bool(outcome.warnings)
        if self.as_json:
            data(command=self.command, **asdict(outcome))
        self.bar.advance(self.items)

    def _count(self, status: str, outcome: Outcome) -> None:
        assert outcome.error is not None
        key = (status, reason_of(outcome.error["message"]))
        if key in self.reasons or len(self.reasons) < KINDS:
            self.reasons[key] += 1
            self.firsts.setdefault(key, outcome.name)

    def _close(self, interrupted: bool) -> None:
        """The closing table on stderr, the summary line on stdout."""
        counts = {status: self.counts[status] for status in STATUSES}
        seconds = time.perf_counter() - self.started
        if self.as_json:
            data(
                summary=True,
                command=self.command,
                total=sum(counts.values()),
                **counts,
                warned=self.counts["warned"],
                seconds=round(seconds, 2),
                device=self.device,
                workspace=str(self.workspace),
                interrupted=interrupted,
            )
        title = f"semedit {self.command}" + (", ended early" if interrupted else "")
        table = Table(title=title, title_justify="left")
        columns = {"items": sum(counts.values())}
        columns |= {name: counts[status] for status, name in STATUSES.items()}
        columns["warned"] = self.counts["warned"]
        for name in columns:
            table.add_column(name, justify="right", no_wrap=True)
        table.add_row(*map(str, columns.values()))
        stderr.print(table)
        stderr.print(
            f"{seconds:.1f} s on {self.device}, results in {self.workspace}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
        if len(self.outputs) <= FEW:
            for path in self.outputs:
                say("file", str(self.workspace / path))
        if self.reasons:
            stderr.print(self._why())

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


def reason_of(message: str) -> str:
    """A message without what is only this file's: its path in front, digits, a list of its
    colours, what stands in parentheses at its end."""
    text = re.sub(r"^(\S.*?\.\w+|\S*/\S*): ", "", printable(message))
    text = re.sub(r": #[0-9a-f]{6} .*", "", text)
    text = re.sub(r" \(.*\)$", "", text)
    text = re.sub(r" (in|at) \S*[/.]\S*$", "", text)
    return re.sub(r"(?<![\w-])\d[\d.,]*(?!\w)", "N", text)[:80]


def show_plan(command: str, found: Plan, as_json: bool) -> None:
    """A plan as a table on stderr, or as one JSON line."""
    if as_json:
        data(summary=True, plan=True, command=command, **found.json())
        return
    table = Table(title=f"semedit {command}, a plan only", title_justify="left")
    columns = {
        "items": found.total,
        "up to date": found.uptodate,
        "no face": found.skipped,
        "failed before": found.failed,
        "refused": found.refused,
        "would run": found.todo,
    }
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_row(*map(str, columns.values()))
    stderr.print(table)
    needed, free = _megabytes(found.bytes_needed), _megabytes(found.bytes_free)
    stderr.print(f"disk: about {needed} needed, {free} free", highlight=False)
    if found.bytes_needed > found.bytes_free:
        say("warning", "the disk has less room than the outputs need")


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
