"""What all commands share: their common options, errors as one line, progress and closing table."""

from __future__ import annotations

import functools
import inspect
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from semedit.errors import OptionError, SemeditError

if TYPE_CHECKING:
    from semedit.batch import Outcome
    from semedit.tasks import Task

stderr = Console(stderr=True)
stdout = Console()

WORKSPACE = "Workspace"  # headings of `--help`
RUN = "Run"

Options = Annotated[
    list[str] | None,
    typer.Option("-o", metavar="NAME=VALUE", help="Option of the method; see `semedit methods`."),
]
Generator = Annotated[
    str, typer.Option("--generator", "-w", help="Weights of the generator, by name or path.")
]


@dataclass(frozen=True)
class Shared:
    """Options that every command has that computes."""

    device: Annotated[
        str,
        typer.Option(
            envvar="SEMEDIT_DEVICE", help="auto, cpu, cuda, cuda:N or mps.", rich_help_panel=RUN
        ),
    ] = "auto"
    seed: Annotated[int, typer.Option(help="Of everything drawn.", rich_help_panel=RUN)] = 0
    jobs: Annotated[
        int, typer.Option("--jobs", "-j", min=0, help="CPU threads; 0: all.", rich_help_panel=RUN)
    ] = 0
    json: Annotated[
        bool,
        typer.Option("--json", help="JSON lines on stdout, a summary last.", rich_help_panel=RUN),
    ] = False


@dataclass(frozen=True)
class Common(Shared):
    """Options that every command has that works on a folder."""

    work: Annotated[
        Path,
        typer.Option(envvar="SEMEDIT_WORK", help="The workspace.", rich_help_panel=WORKSPACE),
    ] = Path("semedit-work")
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Redo what is up to date.", rich_help_panel=WORKSPACE),
    ] = False
    retry_failed: Annotated[
        bool,
        typer.Option(
            "--retry-failed", help="Try again what failed before.", rich_help_panel=WORKSPACE
        ),
    ] = False


@dataclass(frozen=True)
class OnFaces(Common):
    """Options that every command has that works on aligned faces."""

    names: Annotated[
        list[str] | None, typer.Argument(help="Names or globs of faces; none means all.")
    ] = None


@dataclass(frozen=True)
class Drawn(OnFaces):
    """Options that every command has that lets a generator draw."""

    generator: Generator = "heads-128"


@dataclass(frozen=True)
class Made(Drawn):
    """Options that every command has that makes latents."""

    options: Options = None
    batch: Annotated[int, typer.Option(min=1, help="Faces worked on together.")] = 4
    mark: Annotated[
        bool, typer.Option("--mark/--no-mark", help="Say in the picture's XMP that it is edited.")
    ] = True


def command(
    app: typer.Typer, name: str, extra: Sequence[inspect.Parameter] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a command whose first parameter is `common`, a Shared or Common.

    Its signature gets the fields of that class, and `extra` parameters, which arrive as one dict
    `extra`. SemeditError ends it with one line on stderr and the error's exit code.
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        first, *own = inspect.signature(function, eval_str=True).parameters.values()
        kind = first.annotation
        own = [parameter for parameter in own if parameter.name != "extra"]
        shared = inspect.signature(kind, eval_str=True).parameters.values()
        keyword = inspect.Parameter.KEYWORD_ONLY
        parameters = [p.replace(kind=keyword) for p in (*own, *extra, *shared)]

        @functools.wraps(function)
        def run(**given: Any) -> None:
            common = kind(**{field.name: given.pop(field.name) for field in fields(kind)})
            if extra:
                given["extra"] = {parameter.name: given.pop(parameter.name) for parameter in extra}
            with reported():
                function(common, **given)

        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        return app.command(name)(run)

    return register


@contextmanager
def reported() -> Iterator[None]:
    """Turn errors that a user can cause into one line and an exit code."""
    try:
        yield
    except SemeditError as error:
        say("error", error.message, error.hint)
        raise typer.Exit(error.exit_code) from error


def say(kind: str, message: str, hint: str | None = None) -> None:
    """One line on stderr: `error: what is wrong (what to do)`."""
    colour = {"error": "red", "warning": "yellow", "skipped": "yellow"}.get(kind, "none")
    text = f"{message} ({hint})" if hint else message
    text = text.encode(errors="backslashreplace").decode()  # names that are not UTF-8
    stderr.print(f"[{colour}]{kind}:[/] ", end="")
    stderr.print(text, markup=False, highlight=False, soft_wrap=True)


def data(**values: Any) -> None:
    """One JSON line on stdout."""
    sys.stdout.write(json.dumps(values, default=str) + "\n")
    sys.stdout.flush()


def device(common: Shared) -> str:
    """The device to run on, as torch names it; also sets the number of threads.

    Raises:
        OptionError: there is no such device here.
    """
    import torch

    if common.jobs:
        torch.set_num_threads(common.jobs)
    found = ["cpu"]
    if torch.cuda.is_available():
        found = ["cuda", *(f"cuda:{i}" for i in range(torch.cuda.device_count())), *found]
    if torch.backends.mps.is_available():
        found.append("mps")
    if common.device == "auto":
        return found[0]
    if common.device not in found:
        raise OptionError(f"no device {common.device!r} here", f"there is {', '.join(found)}")
    return common.device


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
    """Progress while a task runs (a bar only on a terminal), JSON lines, and the closing table."""

    def __init__(self, command: str, as_json: bool) -> None:
        self.command, self.as_json = command, as_json
        self.started = time.perf_counter()
        self.bar = _bar()
        self.items = self.bar.add_task(command, total=None)
        self.steps = self.bar.add_task("steps", total=None, visible=False)

    def __enter__(self) -> Reporter:
        self.bar.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        self.bar.stop()

    def start(self, total: int) -> None:
        self.bar.update(self.items, total=total)

    def step(self, done: int, total: int) -> None:
        """Progress of the batch at work."""
        self.bar.update(self.steps, completed=done, total=total, visible=done < total)

    def finish(self, outcome: Outcome) -> None:
        if outcome.error:
            kind = "skipped" if outcome.status == "skipped" else "error"
            say(kind, f"{outcome.name}: {outcome.error['message']}", outcome.error["hint"])
        for warning in outcome.warnings:
            say("warning", f"{outcome.name}: {warning}")
        if self.as_json:
            data(command=self.command, **asdict(outcome))
        self.bar.advance(self.items)

    def close(self, outcomes: Sequence[Outcome], workspace: Path, used_device: str) -> None:
        """The closing table on stderr, the summary line on stdout."""
        names = {
            "done": "done",
            "uptodate": "up to date",
            "skipped": "skipped",
            "error": "failed",
        }
        counts = {status: sum(o.status == status for o in outcomes) for status in names}
        warned = sum(bool(o.warnings) for o in outcomes)
        seconds = time.perf_counter() - self.started
        if self.as_json:
            data(
                summary=True,
                command=self.command,
                **counts,
                warned=warned,
                seconds=round(seconds, 2),
                device=used_device,
                workspace=str(workspace),
            )
        table = Table(title=f"semedit {self.command}", title_justify="left")
        columns = {title: str(counts[status]) for status, title in names.items()}
        columns |= {"warned": str(warned), "seconds": f"{seconds:.1f}"}
        for title in columns:
            table.add_column(title, justify="right")
        table.add_column("device")
        table.add_column("workspace")
        table.add_row(*columns.values(), used_device, str(workspace))
        stderr.print(table)


def run(
    common: Common,
    name: str,
    make: Callable[[str, Callable[[int, int], None]], Task],
    new: bool = False,
) -> list[Outcome]:
    """Run one task over the workspace.

    Args:
        name: of the command.
        make: (device, progress) -> task.
        new: make the workspace if it is not there.

    Raises:
        typer.Exit: with code 3 when inputs failed.
    """
    from semedit.workspace import Workspace

    space = Workspace(common.work)
    with space.locked(make=new):
        from semedit.tasks import perform

        chosen = device(common)
        with Reporter(name, common.json) as reporter:
            task = make(chosen, reporter.step)
            outcomes = perform(task, space, reporter, common.overwrite, common.retry_failed)
    reporter.close(outcomes, space.root, chosen)
    if any(outcome.status == "error" for outcome in outcomes):
        raise typer.Exit(3)
    return outcomes


class Steps:
    """A bar for a count that is not over items of a workspace."""

    def __init__(self, title: str) -> None:
        self.bar = _bar()
        self.title = title
        self.task = self.bar.add_task(title, total=None)

    def __enter__(self) -> Steps:
        self.bar.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        self.bar.stop()

    def __call__(self, done: int, total: int, title: str | None = None) -> None:
        self.bar.update(self.task, completed=done, total=total, description=title or self.title)
