"""Settings files: options that need not be typed each time.

An option's value is, in this order: what the command line says, SEMEDIT_NAME or
SEMEDIT_COMMAND_NAME from the environment, ./semedit.toml, the user's own config.toml, the default.

    device = "cuda:1"        # of every command that has the option

    [align]                  # of this command
    faces = "all"

    [weights.fetch]          # of a command of a group

./semedit.toml lies in a folder that may come from anybody. It cannot say what only the user
should: OWN, and nothing that points out of the folder.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import typer

from semedit.errors import InputError, OptionError
from semedit.media.toml import place, read_toml
from semedit.options import suggestion

FILE = Path("semedit.toml")
LARGEST = 1 << 20  # bytes of a settings file or a recipe
OWN = ("address", "engine", "overwrite")  # options that a folder's file cannot set
WERE_SWITCHES = ("parse", "pose")  # in files of earlier versions; now names of back-ends
SHOWN = 60  # characters of a name in a message
USAGE: Any = typer.BadParameter.__mro__[1]  # the parser's error for all that is typed wrongly


def settings_files() -> list[Path]:
    """The settings files that are there, the weaker one first.

    Raises: OptionError: one is a folder, a pipe or a link to nothing.
    """
    # What cannot be looked at, say another user's home, holds no settings.
    there = [path for path in (_own(), FILE) if os.path.lexists(path)]
    for path in there:
        if not os.path.isfile(path):  # noqa: PTH113
            raise OptionError(f"{path} is no regular file", "remove it, or write settings into it")
    return there


def _own() -> Path:
    from platformdirs import user_config_dir

    return Path(user_config_dir("semedit")) / "config.toml"


def defaults(group: Any) -> dict[str, Any]:
    """What the files say, as the `default_map` of a group of commands.

    Raises:
        OptionError: no file, not TOML, no command has such an option, or the folder's file may not
            set it.
    """
    found: dict[str, Any] = {}
    for path in settings_files():
        _merge(found, _of_file(path, group))
    return found


def read_file(path: Path) -> tuple[str, dict[str, Any]]:
    """The text of a TOML file, and its values.

    Raises:
        OptionError: it cannot be read, is larger than LARGEST, or is not TOML.
    """
    try:
        return read_toml(path, LARGEST)
    except InputError as error:
        raise OptionError(error.message, error.hint) from error


def _of_file(path: Path, group: Any) -> dict[str, Any]:
    text, values = read_file(path)
    everywhere = {k: v for k, v in values.items() if not isinstance(v, dict)}
    known = {name for command in _commands(group) for name in parameters(command)}
    for key in everywhere:
        if bare_name(key) not in known:
            every = {name for command in _commands(group) for name in told(command)}
            raise OptionError(
                f"{place(path, text, key)}: no command has an option {key[:SHOWN]!r}",
                suggestion(key, every),
            )
    tables = {k: v for k, v in values.items() if k not in everywhere}
    return _of_group(path, text, group, everywhere, tables)


def _of_group(
    path: Path, text: str, group: Any, everywhere: Mapping[str, Any], tables: Mapping[str, Any]
) -> dict[str, Any]:
    for name, table in tables.items():
        if name not in group.commands:
            raise OptionError(
                f"{place(path, text, name)}: no command {name[:SHOWN]!r}",
                suggestion(name, group.commands),
            )
        if not isinstance(table, dict):
            raise OptionError(f"{path}: {name} is a command, whose options are a table")
    found: dict[str, Any] = {}
    for name, command in group.commands.items():
        own = tables.get(name, {})
        if hasattr(command, "commands"):
            found[name] = _of_group(path, text, command, everywhere, own)
            continue
        known = parameters(command)
        for key in own:
            if bare_name(key) not in known:
                raise OptionError(
                    f"{place(path, text, key)}: {name} has no option {key[:SHOWN]!r}",
                    suggestion(key, told(command)),
                )
        found[name] = {
            known[bare_name(key)].name: _value(path, command, key, known[bare_name(key)], value)
            for key, value in {**everywhere, **own}.items()
            if bare_name(key) in known
        }
    return found


def _value(path: Path, command: Any, key: str, option: Any, value: Any) -> Any:
    """What a file says of an option, if the option takes it and the file may say it."""
    fits = file_value(str(path), key, option, value)
    try:
        option.process_value(command.context_class(command), fits)
    except USAGE as error:
        raise OptionError(f"{path}: {error.format_message()}") from error
    return _allowed(path, name_of(option), fits)


def _merge(into: dict[str, Any], other: Mapping[str, Any]) -> None:
    for key, value in other.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def _commands(group: Any) -> Iterator[Any]:
    for command in group.commands.values():
        if hasattr(command, "commands"):
            yield from _commands(command)
        else:
            yield command


def parameters(command: Any, arguments: bool = False) -> dict[str, Any]:
    """What a command takes, by its names in files: those of flags, with _ for -, and its own.

    --min-face is min_face or min-face, --from is from, --no-mark is no_mark.
    """
    found: dict[str, Any] = {}
    for parameter in command.params:
        if parameter.name == "help" or not (arguments or parameter.param_type_name == "option"):
            continue
        for name in (*parameter.opts, *parameter.secondary_opts, parameter.name):
            found[bare_name(name)] = parameter
    return found


def bare_name(name: str) -> str:
    """A flag's name or a key as files are compared: without dashes in front, with _ inside."""
    return name.lstrip("-").replace("-", "_")


def told(command: Any, arguments: bool = False) -> list[str]:
    """The names of what a command takes, as a message suggests them: hidden ones are not."""
    every = parameters(command, arguments)
    return [name_of(p) for p in every.values() if not getattr(p, "hidden", False)]


def name_of(parameter: Any) -> str:
    """What a parameter is called in files and messages: like its long flag."""
    long = [opt for opt in parameter.opts if opt.startswith("--")]
    return bare_name(long[0] if long and parameter.param_type_name == "option" else parameter.name)


def file_value(file: str, key: str, parameter: Any, value: Any) -> Any:
    """What a key of a file says of its parameter; no_mark = true is mark = false.

    Raises: OptionError: as `fitting`.
    """
    fits = fitting(file, parameter, value)
    negative = bare_name(key) in map(bare_name, parameter.secondary_opts)
    return not fits if negative and isinstance(fits, bool) else fits


# Values -----------------------------------------------------------------------------------------


def fitting(file: str, parameter: Any, value: Any) -> Any:
    """A value of a file as its option takes it: one value, or a list where several may be given.

    Raises:
        OptionError: a list or table where one value belongs, a switch that is neither true nor
            false, a number that is not finite or too large, a text with a NUL.
    """
    at = f"{file}: {name_of(parameter)}"
    if isinstance(value, bool) and parameter.name in WERE_SWITCHES:
        return value
    if not (getattr(parameter, "multiple", False) or parameter.nargs == -1):
        return _single(at, value, bool(getattr(parameter, "is_flag", False)))
    several = value if isinstance(value, list) else [value]
    pairs = (parameter.metavar or "").startswith("NAME=")
    return [_pairs(at, v) if pairs else _single(at, v, False) for v in several]


def _pairs(at: str, value: Any) -> Any:
    """A text, or a table, which keeps its types: options = { steps = 50 }, for -o steps=50."""
    if not isinstance(value, dict):
        return _single(at, value, False)
    for name, one in value.items():
        for part in one if isinstance(one, list) else [one]:
            _single(f"{at}.{name[:SHOWN]}", part, isinstance(part, bool))
    return value


def _single(where: str, value: Any, switch: bool) -> Any:
    if isinstance(value, bool) != switch:
        hint = "write true or false" if switch else "write a value"
        raise OptionError(f"{where} is {'' if switch else 'not '}a switch", hint)
    if isinstance(value, list | dict):
        raise OptionError(f"{where} takes one value, not a {_KINDS[type(value)]}")
    if not isinstance(value, str | int | float):
        raise OptionError(f"{where} takes a text or a number", "put it in quotation marks")
    if isinstance(value, str):
        _check_text(where, value)
    if not isinstance(value, str) and not (abs(value) < 1 << 63 and math.isfinite(value)):
        raise OptionError(f"{where} is too large a number, or not a finite one")
    return value


_KINDS = {list: "list", dict: "table"}
_VARIABLE = re.compile(r"(?:\$\{?(\w+)\}?|%(\w+)%)(?=[/\\]|$)")


def _check_text(where: str, text: str) -> None:
    """Raise OptionError for what a shell, or Windows, would make a path of, and no file does."""
    if "\0" in text:
        raise OptionError(f"{where} holds a NUL character")
    variable = _VARIABLE.match(text)
    if variable and not os.path.lexists(text):
        home = (variable[1] or variable[2]) in ("HOME", "USERPROFILE")
        meant = f"write ~{text[variable.end() :]}" if home else "write out what it stands for"
        raise OptionError(f"{where}: variables like {variable[0]} have no meaning in a file", meant)
    if "\\" in text and os.sep == "/" and not os.path.lexists(text):
        drive = re.match(r"[A-Za-z]:\\", text)
        meant = "name the folder as it is called here" if drive else "write "
        meant += "" if drive else text.replace("\\", "/")
        raise OptionError(f"{where}: {text[:SHOWN]} is a path of Windows", meant)


def _allowed(path: Path, name: str, value: Any) -> Any:
    """The value, if the file may set it.

    Raises:
        OptionError: it is the folder's file, and this is for the user alone to say.
    """
    if path == FILE and (name in OWN or any(map(_elsewhere, _texts(value)))):
        what = "" if name in OWN else " to what lies elsewhere"
        raise OptionError(
            f"{path}: the settings of a folder cannot set {name}{what}",
            f"say it on the command line, as SEMEDIT_{name.upper()}, or in {_own()}",
        )
    return value


def _texts(value: Any) -> Iterator[str]:
    """Texts in a value that may be paths: whole, behind NAME=, or in a table."""
    for one in value if isinstance(value, list) else [value]:
        if isinstance(one, dict):
            yield from (text for inner in one.values() for text in _texts(inner))
        elif isinstance(one, str):
            yield one
            yield one.partition("=")[2]


def _elsewhere(text: str) -> bool:
    """Whether a path leads out of the current folder, be it by links."""
    place = Path(os.path.realpath(os.path.expanduser(text)))  # noqa: PTH111  ~x stays if no user
    return not place.is_relative_to(os.path.realpath("."))
