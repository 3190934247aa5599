"""Settings files: options that need not be typed each time.

An option's value is, in this order: what the command line says, SEMEDIT_NAME or
SEMEDIT_COMMAND_NAME from the environment, ./semedit.toml, the user's own config.toml, the default.

    device = "cuda:1"        # of every command that has the option

    [align]                  # of this command
    faces = "all"

    [weights.fetch]          # of a command of a group
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from semedit.errors import InputError, OptionError
from semedit.media.reading import read_toml
from semedit.options import suggestion

FILE = Path("semedit.toml")


def files() -> list[Path]:
    """The settings files that are there, the weaker one first."""
    from platformdirs import user_config_dir

    return [p for p in (Path(user_config_dir("semedit")) / "config.toml", FILE) if p.is_file()]


def defaults(group: Any) -> dict[str, Any]:
    """What the files say, as the `default_map` of a group of commands.

    Raises:
        OptionError: not TOML, or no command has such an option.
    """
    found: dict[str, Any] = {}
    for path in files():
        _merge(found, _of_file(path, group))
    return found


def _of_file(path: Path, group: Any) -> dict[str, Any]:
    try:
        _, values = read_toml(path)
    except InputError as error:
        raise OptionError(error.message) from error
    everywhere = {k: v for k, v in values.items() if not isinstance(v, dict)}
    known = {name for command in _commands(group) for name in parameters(command)}
    for key in everywhere:
        if key.replace("-", "_") not in known:
            raise OptionError(f"{path}: no command has an option {key!r}", suggestion(key, known))
    return _of_group(
        path, group, everywhere, {k: v for k, v in values.items() if k not in everywhere}
    )


def _of_group(
    path: Path, group: Any, everywhere: Mapping[str, Any], tables: Mapping[str, Any]
) -> dict[str, Any]:
    for name in tables:
        if name not in group.commands:
            raise OptionError(f"{path}: no command {name!r}", suggestion(name, group.commands))
    found: dict[str, Any] = {}
    for name, command in group.commands.items():
        own = tables.get(name, {})
        if hasattr(command, "commands"):
            found[name] = _of_group(path, command, everywhere, own)
            continue
        known = parameters(command)
        for key in own:
            if key.replace("-", "_") not in known:
                raise OptionError(f"{path}: {name} has no option {key!r}", suggestion(key, known))
        plain = {k.replace("-", "_"): v for k, v in {**everywhere, **own}.items()}
        found[name] = {k: v for k, v in plain.items() if k in known}
    return found


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


def parameters(command: Any) -> dict[str, Any]:
    """Options of a command by their names in files: --min-face is min_face, --from is from."""
    found: dict[str, Any] = {}
    for parameter in command.params:
        if parameter.param_type_name == "option" and parameter.name != "help":
            found[parameter.name] = parameter
    return found
