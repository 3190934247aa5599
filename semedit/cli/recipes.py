"""run: steps of a recipe over folders, in one process.

    inputs = ["photos", "scans/*.tif"]     # of align
    work = "semedit-work"                  # and any option that all steps share
    device = "auto"

    [[step]]
    command = "align"
    faces = "all"

    [[step]]
    command = "attr"
    smiling = true
    options = { steps = 50 }               # of the method, as -o has them

A step's other keys are the command's options, by the names they have on the command line.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from semedit.cli import settings
from semedit.cli.common import ON_FOLDERS, Common, Given, command, data, reported, say
from semedit.errors import OptionError
from semedit.media.toml import place
from semedit.options import suggestion
from semedit.version import __version__

NOTHING, SOME_FAILED = 4, 3  # exit codes that do not end a recipe


def register(app: typer.Typer, commands: Callable[[], Any]) -> None:
    """Add the command to an app.

    Args:
        commands: the group whose commands are the steps.
    """

    def run(
        common: Common,
        context: typer.Context,
        recipe: Annotated[Path, typer.Argument(help="TOML file with the steps; see the guide.")],
    ) -> None:
        """Run the steps of a recipe: align, invert, edit, attr, turntable, with their options.

        All options are checked before the first step starts, and models are loaded only once. The
        recipe, and the options that it resolved to, are written to recipes/ in the workspace.
        Options given here override the recipe's.
        """
        run_steps(recipe, common, _typed(context, common), commands())

    command(app, "run")(run)


@dataclass(frozen=True)
class RecipeStep:
    """One step: a command, the context in which its options are resolved, its place in the
    recipe."""

    name: str
    command: Any
    given: Given
    settings: dict[str, Any]
    place: str

    @property
    def makes_faces(self) -> bool:
        """Whether it works on what the user has, photographs or drawn maps, not on what other
        steps make."""
        takes_photographs = any(parameter.name == "inputs" for parameter in self.command.params)
        return takes_photographs or self.given.values.get("start") == "none"

    def resolved(self) -> dict[str, Any]:
        """All its options.

        Raises: OptionError: a value that the command does not take.
        """
        try:
            context = self.command.make_context(self.name, [], **self._extra)
        except settings.USAGE as error:
            raise OptionError(
                f"{self.place}: step {self.name}: {error.format_message()}"
            ) from error
        return dict(context.params)

    def run(self) -> int:
        """Its exit code."""
        main = self.command.main
        try:
            with reported():
                return int(main([], self.name, standalone_mode=False, **self._extra) or 0)
        except SystemExit as end:
            return int(end.code or 0)

    @property
    def _extra(self) -> dict[str, Any]:
        """Settings files count for steps as they do for commands."""
        return {"default_map": self.settings, "obj": self.given}


def run_steps(recipe: Path, common: Common, given: dict[str, Any], group: Any) -> None:
    """Run all steps.

    Args:
        given: options that overrule the recipe's.

    Raises:
        typer.Exit: 3 when inputs failed in some step; else the code of the step that ended it.
    """
    from semedit.batch.workspace import Workspace

    text, values = settings.read_file(recipe)
    steps = list(_steps(recipe, text, values, given, group))
    resolved = [{"command": step.name, **step.resolved()} for step in steps]
    space = Workspace(Path(str(resolved[0]["work"])))
    if common.dry_run:
        failed = _follow(steps, planning=True)
        _tell(common, recipe, steps, failed, plan=True)
        return
    with space.locked(make=True, shard=str(common.shard)):
        _keep(space, recipe, text, resolved)
        failed = _follow(steps, planning=False)
    _tell(common, recipe, steps, failed)
    if failed:
        raise typer.Exit(SOME_FAILED)


def _tell(
    common: Common, recipe: Path, steps: list[RecipeStep], failed: bool, **more: bool
) -> None:
    """The summary of the whole."""
    if common.json:
        told = {"recipe": str(recipe), "steps": len(steps), "failed": failed}
        data(summary=True, command="run", **told, **more)


def _follow(steps: list[RecipeStep], planning: bool) -> bool:
    """Run the steps one after another; returns whether inputs failed in any."""
    failed = False
    for number, step in enumerate(steps, 1):
        say("step", f"{number} of {len(steps)}, {step.name}")
        code = step.run()
        to_come = any(before.makes_faces for before in steps[: number - 1])
        if planning and code == NOTHING and to_come and not step.makes_faces:
            say("plan", f"{step.name} works on what the steps before it have yet to make")
        elif code not in (0, SOME_FAILED):
            raise typer.Exit(code)
        failed |= code == SOME_FAILED
    return failed


def _steps(
    recipe: Path, text: str, values: dict[str, Any], given: dict[str, Any], group: Any
) -> Iterator[RecipeStep]:
    """The steps of a recipe.

    Raises: OptionError: a step or an option that there is not; says in which line.
    """
    tables = values.pop("step", [])
    if isinstance(tables, dict):
        raise OptionError(
            f"{place(recipe, text, 'step')}: [step] is a single table", "write [[step]]"
        )
    if not isinstance(tables, list) or not tables:
        raise _stepless(recipe, text, values)
    inputs = values.pop("inputs", [])
    defaults = settings.defaults(group)
    starts = [i for i, line in enumerate(text.splitlines(), 1) if STEP.match(line)]
    known: set[str] = set()
    for number, table in enumerate(tables):
        if not isinstance(table, dict):
            raise OptionError(
                f"{recipe}: a step is a table", 'write [[step]] and command = "align"'
            )
        first = starts[number] if len(starts) == len(tables) else 1
        where = partial(place, recipe, text, first=first)
        options = dict(table)
        name = options.pop("command", None)
        own = _command(where, name, options, group)
        takes = settings.parameters(own, arguments=True)
        known |= set(takes)
        shared = {k: v for k, v in values.items() if settings.bare_name(k) in takes}
        if name == "align":
            options.setdefault("inputs", inputs)
        values_ = parameter_values(where, name, own, {**shared, **options}, given)
        own_keys = {takes[settings.bare_name(k)].name for k in options}
        given_ = Given(values_, frozenset(values_.keys() - own_keys))
        yield RecipeStep(name, own, given_, defaults.get(name, {}), where("command"))
    for key in values:
        if settings.bare_name(key) not in known:
            raise OptionError(
                f"{place(recipe, text, key)}: no step has an option {key[:60]!r}",
                suggestion(key, {*known, "inputs", "step"}),
            )
    if inputs and not any(table.get("command") == "align" for table in tables):
        say("warning", f"{place(recipe, text, 'inputs')}: inputs have no effect: no step is align")


STEP = re.compile(r"\s*\[\[\s*step\s*\]\]")
Where = Callable[[str], str]  # a word of a recipe -> the file and the line


def _stepless(recipe: Path, text: str, values: dict[str, Any]) -> OptionError:
    """What a recipe without steps may have called them."""
    near = difflib.get_close_matches("step", values, n=1, cutoff=0.6)
    if near:
        return OptionError(
            f"{place(recipe, text, near[0])}: no [[{near[0][:60]}]]", "write [[step]]"
        )
    return OptionError(f"{recipe} has no steps", 'write [[step]] and command = "align"')


def _command(where: Where, name: Any, options: Mapping[str, Any], group: Any) -> Any:
    """The command of a step.

    Raises: OptionError: the step names none that works on a folder.
    """
    steps = [one for one in ON_FOLDERS if one in group.commands and one != "run"]
    if isinstance(name, str) and name in steps:
        return group.commands[name]
    if isinstance(name, str):
        raise OptionError(f"{where(name)}: no step {name[:60]!r}", suggestion(name, steps))
    near = difflib.get_close_matches("command", options, n=1)
    hint = f"write command for {near[0]}" if near else 'write command = "align", or another'
    raise OptionError(f"{where(near[0] if near else 'step')}: a step without a command", hint)


def _typed(context: typer.Context, common: Common) -> dict[str, Any]:
    """Options that were typed behind `semedit run`."""

    def typed(name: str) -> bool:
        source = context.get_parameter_source(name)
        return source is not None and source.name == "COMMANDLINE"

    return {f.name: getattr(common, f.name) for f in fields(Common) if typed(f.name)}


def parameter_values(
    where: Where, name: str, own: Any, options: Mapping[str, Any], given: Mapping[str, Any]
) -> dict[str, Any]:
    """The parameters of a step's command, and their values.

    Args: where: tells places of the recipe. options: of it. given: such as overrule them.
    Raises: OptionError: the command has no such option, or not with such a value.
    """
    found: dict[str, Any] = {}
    takes = settings.parameters(own, arguments=True)
    for key, value in {**options, **given}.items():
        parameter = takes.get(settings.bare_name(key))
        if parameter is None:
            every = settings.told(own, arguments=True)
            raise OptionError(
                f"{where(key)}: {name} has no option {key[:60]!r}", suggestion(key, every)
            )
        typed = key in given
        found[parameter.name] = (
            value if typed else settings.file_value(f"{where(key)}: {name}", key, parameter, value)
        )
    return found


def _keep(space: Any, recipe: Path, text: str, resolved: list[dict[str, Any]]) -> None:
    """Write the recipe, and what became of its options, beside the results."""
    from semedit.batch.places import check_folder
    from semedit.media.files import write_bytes

    folder = space.root / "recipes"
    check_folder(space.root, folder)
    write_bytes(folder / recipe.name, text.encode())
    lines = [f"# {recipe.name} with all options resolved, by semedit {__version__}"]
    for step in resolved:
        lines.append("\n[[step]]")
        for key, value in step.items():
            if value is not None and value != []:
                lines.append(f"{key} = {_toml(value)}")
    told = ("\n".join(lines) + "\n").encode(errors="surrogateescape")  # as paths have it
    write_bytes(folder / f"{recipe.stem}.resolved.toml", told)


def _toml(value: Any) -> str:
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, dict):
        inside = ", ".join(f"{_toml(str(key))} = {_toml(one)}" for key, one in value.items())
        return f"{{ {inside} }}"
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
