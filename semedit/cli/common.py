"""What all commands share: their common options, errors as one line, and how a task is run."""

from __future__ import annotations

import copy
import errno
import functools
import inspect
import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup

from semedit.cli.report import (
    Reporter,
    StepBar,
    data,
    say,
    show_plan,
    speaking,
    stdout,
    summed,
    to_stdout,
)
from semedit.cli.settings import USAGE
from semedit.errors import OptionError, SemeditError

if TYPE_CHECKING:
    from semedit.batch.ray import Cluster
    from semedit.tasks import Task

__all__ = ["Reporter", "StepBar", "data", "say", "stdout"]  # so that commands need one import

ON_FOLDERS: list[str] = []  # commands that work on a folder, and so can be steps of a recipe
WORKSPACE = "Workspace"  # headings of `--help`
RUN = "Run"


def setting(given: Any) -> Any:
    """One NAME=VALUE: that text, or a table of a file, whose values have types."""
    return given


Options = Annotated[
    list[Any] | None,
    typer.Option(
        "-o",
        parser=setting,
        metavar="NAME=VALUE",
        help="Set an option of the method; see `semedit methods`.",
    ),
]
Mark = Annotated[
    bool,
    typer.Option("--mark/--no-mark", help="Note in the picture's XMP metadata that it was edited."),
]
Method = Annotated[
    str, typer.Option("--method", "-m", help="Name of the method; see `semedit methods`.")
]
Detail = Annotated[
    bool,
    typer.Option(
        "--detail/--no-detail",
        help="Edit at the photograph's own size, with its detail; or show the generator's picture.",
    ),
]
MaxDrift = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=2,
        help="Largest drift from the photograph's person: 1 minus the likeness that receipts tell. "
        "Edits that drift farther are done by a part of their way.",
    ),
]
From = Annotated[
    str | None,
    typer.Option(
        "--from",
        help="Start from `latents`, the label of an inversion, or a step, like 01-smiling; "
        "default: the newest step. With --mask, `none` makes a face from the map alone.",
    ),
]
Start = Annotated[
    str | None,
    typer.Option(
        "--from",
        help="Start from `latents`, the label of an inversion, or a step, like 01-smiling; "
        "default: the newest step.",
    ),
]
Label = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Name the result, so that it stands beside those of other settings.",
    ),
]
GeneratorName = Annotated[
    str,
    typer.Option("--generator", "-w", help="Generator to use: the name or path of its weights."),
]
Fresh = Annotated[
    int, typer.Option("-n", min=0, help="Number of new heads to render; 0: use the shipped set.")
]


Seed = Annotated[int, typer.Option(help="Seed of all random numbers.", rich_help_panel=RUN)]
Jobs = Annotated[
    int,
    typer.Option("--jobs", "-j", min=0, help="Number of CPU threads; 0: all.", rich_help_panel=RUN),
]
Json = Annotated[
    bool,
    typer.Option(
        "--json", help="Write JSON lines to stdout, ending with a summary.", rich_help_panel=RUN
    ),
]
Work = Annotated[
    Path, typer.Option(envvar="SEMEDIT_WORK", help="Workspace folder.", rich_help_panel=WORKSPACE)
]
Names = Annotated[list[str] | None, typer.Argument(help="Names or globs of faces; default: all.")]
Overwrite = Annotated[
    bool,
    typer.Option("--overwrite", help="Redo even what is up to date.", rich_help_panel=WORKSPACE),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Show what would be done, and do nothing.", rich_help_panel=WORKSPACE
    ),
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Say only what goes wrong.", rich_help_panel=RUN)
]
Log = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Also write all that is said to a file.", rich_help_panel=RUN
    ),
]


@dataclass(frozen=True)
class Shared:
    """Options that every command has that computes."""

    device: Annotated[
        str,
        typer.Option(
            envvar="SEMEDIT_DEVICE",
            help="Device: auto, cpu, cuda, cuda:N or mps.",
            rich_help_panel=RUN,
        ),
    ] = "auto"
    jobs: Jobs = 0
    json: Json = False


@dataclass(frozen=True)
class Seeded(Shared):
    """Options of commands that draw random numbers."""

    seed: Seed = 0


@dataclass(frozen=True)
class Common(Shared):
    """Options that every command has that works on a folder."""

    work: Work = Path("semedit-work")
    overwrite: Overwrite = False
    retry_failed: Annotated[
        bool,
        typer.Option(
            "--retry-failed", help="Retry inputs that failed before.", rich_help_panel=WORKSPACE
        ),
    ] = False
    max_failures: Annotated[
        int,
        typer.Option(
            min=0,
            help="Stop after this many failed inputs; 0: never.",
            rich_help_panel=WORKSPACE,
        ),
    ] = 0
    dry_run: DryRun = False
    quiet: Quiet = False
    log: Log = None
    shard: Annotated[
        str,
        typer.Option(
            metavar="I/N",
            help="Do only part I of N, to share the work among N runs.",
            rich_help_panel=RUN,
        ),
    ] = "1/1"
    engine: Annotated[
        Literal["local", "ray"],
        typer.Option(
            help="local, or ray: run on all devices of a Ray cluster.", rich_help_panel=RUN
        ),
    ] = "local"
    address: Annotated[
        str | None,
        typer.Option(
            help="Address of the Ray cluster; default: start one on this machine.",
            rich_help_panel=RUN,
        ),
    ] = None


@dataclass(frozen=True)
class OnFaces(Common):
    """Options that every command has that works on aligned faces."""

    names: Names = None


@dataclass(frozen=True)
class Drawn(OnFaces):
    """Options that every command has that lets a generator draw."""

    generator: GeneratorName = "heads-128"


@dataclass(frozen=True)
class Made(Drawn):
    """Options that every command has that makes latents."""

    options: Options = None
    batch: Annotated[int, typer.Option(min=1, help="Number of faces processed at once.")] = 4
    mark: Mark = True


def command(
    app: typer.Typer, name: str, extra: Sequence[inspect.Parameter] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a command whose first parameter is `common`, a Shared or Common.

    Its signature gets the fields of that class, and `extra` parameters, which arrive as one dict
    `extra`.
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        first, *own = _signature(function)
        kind = first.annotation
        if issubclass(kind, Common):
            ON_FOLDERS.append(name)
        shared = [_from_environment(p, f"{name}_", "") for p in _signature(kind)]
        own = [
            _from_environment(p, f"{name}_") if get_origin(p.annotation) is Annotated else p
            for p in (*own, *extra)
            if p.name != "extra"
        ]
        keyword = inspect.Parameter.KEYWORD_ONLY
        parameters = [p.replace(kind=keyword) for p in (*own, *shared)]

        @functools.wraps(function)
        def run(**given: Any) -> None:
            common = kind(**{field.name: given.pop(field.name) for field in fields(kind)})
            if extra:
                given["extra"] = {parameter.name: given.pop(parameter.name) for parameter in extra}
            as_json = getattr(common, "json", False)
            quiet, log = getattr(common, "quiet", False), getattr(common, "log", None)
            with summed(name, as_json), speaking(quiet, log):
                function(common, **given)

        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        return app.command(name, cls=Command)(run)

    return register


def _signature(of: Callable[..., Any]) -> list[inspect.Parameter]:
    """Parameters with their types; those of a class may be named in other modules."""
    hints = get_type_hints(of, include_extras=True)
    found = inspect.signature(of).parameters.values()
    return [parameter.replace(annotation=hints[parameter.name]) for parameter in found]


def _from_environment(parameter: inspect.Parameter, *prefixes: str) -> inspect.Parameter:
    """An option that SEMEDIT_NAME sets for all commands that share it, SEMEDIT_COMMAND_NAME for
    one."""
    kind, option = get_args(parameter.annotation)
    if not isinstance(option, typer.models.OptionInfo) or option.envvar:
        return parameter
    option = copy.copy(option)  # commands share it
    words = (option.default, *(option.param_decls or ()))  # Annotated has the first as a default
    long = [word for word in words if isinstance(word, str) and word.startswith("--")]
    flag = long[0].partition("/")[0].lstrip("-").replace("-", "_") if long else parameter.name
    names = dict.fromkeys((flag, parameter.name))
    option.envvar = [f"SEMEDIT_{prefix}{name}".upper() for prefix in prefixes for name in names]
    option.show_envvar = False
    return parameter.replace(annotation=Annotated[kind, option])


class App(TyperGroup):
    """The group of all commands: whatever ends one, also before it starts, is told in one line."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        with reported():
            return super().main(*args, **kwargs)


@dataclass(frozen=True)
class Given:
    """What a recipe gives a command: parameter -> value with its type, in the place of words."""

    values: Mapping[str, Any]
    shared: frozenset[str] = frozenset()  # parameters that the recipe gives all its steps

    def parse_args(self, args: list[str]) -> tuple[dict[str, Any], list[str], list[Any]]:
        """As a parser of a command line answers: values, words left, the order of options."""
        return dict(self.values), list(args), []


class Command(TyperCommand):
    """A command whose paths may begin with ~, wherever they come from: the command line, the
    environment, a settings file, a recipe. Its context's object may be a Given."""

    def make_parser(self, ctx: Any) -> Any:
        parser = super().make_parser(ctx)
        if isinstance(ctx.obj, Given):
            parser.parse_args = ctx.obj.parse_args  # type: ignore[method-assign]
        return parser

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        given = list(args)
        try:
            rest = super().parse_args(ctx, args)
        except USAGE as error:
            if "--json" in given:  # who reads that is told here, too
                wrong = {"code": "option", "message": error.format_message(), "hint": None}
                data(summary=True, command=self.name, interrupted=True, ended_by=wrong)
            raise
        ctx.params.update({name: _expanded(name, value) for name, value in ctx.params.items()})
        shared = ctx.obj.shared if isinstance(ctx.obj, Given) else ()
        sources = {name: ctx.get_parameter_source(name) for name in ctx.params}
        _typed.clear()
        _typed.update(n for n, s in sources.items() if s and s.name == "COMMANDLINE")
        _typed.difference_update(shared)
        return rest


_typed: set[str] = set()


def typed(name: str) -> bool:
    """Whether a parameter of the command at work was given for it: on the command line, or by its
    step of a recipe; not by what counts for several commands."""
    return name in _typed


def refuse(why: str, *names: str) -> None:
    """Raise OptionError if one of some options was given, which have nothing to say: why."""
    for name in names:
        if typed(name):
            flag = f"--{name.replace('_', '-')}"
            raise OptionError(f"{flag} has no effect: {why}", f"leave out {flag}")


def _expanded(name: str, value: Any) -> Any:
    """An option's value with the home folder for ~, also behind NAME= and in tables.

    Raises:
        OptionError: a number that is not finite.
    """
    if isinstance(value, list | tuple):
        return type(value)(_expanded(name, one) for one in value)
    if isinstance(value, Mapping):
        return {key: _expanded(key, one) for key, one in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        raise OptionError(f"{name} is not a finite number")
    if isinstance(value, Path):
        return Path(_expanded(name, str(value)))
    if not isinstance(value, str):
        return value
    before, equals, path = value.rpartition("=~")
    home = os.path.expanduser(f"~{path}" if equals else value)  # noqa: PTH111  ~x stays if no user
    return f"{before}={home}" if equals else home


HINTS = {
    errno.ENOSPC: "make room, then run it again",
    errno.EDQUOT: "make room, then run it again",
    errno.EFBIG: "this system allows no larger files",
    errno.EACCES: "change its permissions, or choose another place",
    errno.EPERM: "change its permissions, or choose another place",
    errno.EROFS: "choose another place",
}


@contextmanager
def reported() -> Iterator[None]:
    """Turn errors that a user or their machine can cause into one line and an exit code, and what
    is logged as a warning into a line, once.

    Raises:
        SystemExit: with the error's exit code; 1 where the system refuses something.
    """
    try:
        try:
            with _told():
                yield
        finally:
            with to_stdout():  # what was printed, while a failure can still be told
                pass
    except SemeditError as error:
        say("error", error.message, error.hint)
        raise SystemExit(error.exit_code) from error
    except BrokenPipeError as error:  # whoever read stdout has enough
        raise SystemExit(1) from error
    except MemoryError as error:
        say(
            "error",
            "not enough memory",
            "free some, or process less at once",
        )
        raise SystemExit(1) from error
    except OSError as error:
        reason = error.strerror or str(error)
        place = "cannot write" if error.filename is None else os.fsdecode(error.filename)
        known = error.errno in HINTS or error.filename is not None
        say("error", f"{place}: {reason}" if known else reason, HINTS.get(error.errno or 0))
        raise SystemExit(1) from error


class _Warnings(logging.Handler):
    """Says what is logged as a warning, but nothing twice."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if message not in self.said:
            self.said.add(message)
            say("warning", message)


@contextmanager
def _told() -> Iterator[None]:
    """Say warnings of semedit's modules; within a command that does so already, leave it that."""
    log = logging.getLogger("semedit")
    if any(isinstance(handler, _Warnings) for handler in log.handlers):
        yield
        return
    handler = _Warnings()
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)


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


def label_of(given: str | None) -> str:
    """A label as it was given, "" for none.

    Raises: OptionError: it cannot be one.
    """
    from semedit.batch.places import check_label

    return check_label(given)


def run(
    common: Common,
    name: str,
    make: Callable[[str, Callable[[int, int], None]], Task],
    new: bool = False,
) -> None:
    """Run one task over the workspace, or only plan to.

    Args:
        name: of the command.
        make: (device, progress) -> task.
        new: make the workspace if it is not there.

    Raises:
        typer.Exit: with code 3 when inputs failed.
    """
    from semedit.batch.workspace import Workspace

    if common.engine == "local":
        refuse("it goes with --engine ray", "address")
    space, settings = Workspace(common.work), _settings(common)
    if common.dry_run:
        from semedit.tasks import plan_of

        task = make(device(common), lambda *_: None)
        found = plan_of(task, space, **settings)
        show_plan(name, found, common.json, getattr(task, "left_out", ()))
        return
    with (
        Reporter(name, common.json, space.root) as reporter,
        space.locked(make=new, shard=str(settings["shard"])),
    ):
        from semedit.tasks import run_task

        chosen, cluster = device(common), _cluster(common)
        reporter.device = "Ray" if cluster else chosen
        if common.device == "auto":
            say("device", chosen)
        task = make(chosen, reporter.step)
        reporter.left_out = getattr(task, "left_out", ())
        run_task(task, space, reporter, cluster, **settings)
    if reporter.failed:
        raise typer.Exit(3)


def _settings(common: Common) -> dict[str, Any]:
    """How a run goes about its items, as `perform` takes it."""
    from semedit.batch import Shard

    return {
        "overwrite": common.overwrite,
        "retry_failed": common.retry_failed,
        "max_failures": common.max_failures,
        "shard": Shard.parse(common.shard),
    }


def _cluster(common: Common) -> Cluster | None:
    """The Ray cluster to run on, if any."""
    if common.engine == "local":
        return None
    from semedit.batch.ray import Cluster

    return Cluster(common.address, gpus=common.device != "cpu")
