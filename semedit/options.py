"""A method is a frozen dataclass: its fields are its options, calling it runs it.

    @dataclass(frozen=True)
    class Optimize:
        \"\"\"Fit codes to a photograph by gradient descent.\"\"\"

        requires: ClassVar = frozenset({"ws"})
        steps: int = 200   # Adam updates
        lr: float = 0.05   # per update

A registry is a dict from names to such classes. Everything that lists or sets options (the
command line, `semedit methods`, the README's table, the contract tests) reads the fields here:
their names, types, defaults, and the comment behind each (or `field(metadata={"help": ...})`).
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import inspect
import io
import math
import textwrap
import tokenize
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from semedit.errors import OptionError, TraitError

T = TypeVar("T")


@dataclass(frozen=True)
class Option:
    """One option of a method.

    Attributes:
        kind: its type as a hint object, e.g. int, float | None, Literal["w", "ws"].
        default: dataclasses.MISSING when the option must be given.
        help: meaning and unit, one phrase.
    """

    name: str
    kind: Any
    default: Any
    help: str

    @property
    def kind_name(self) -> str:
        """The type as a user reads it, e.g. `float or none`, `w|ws`."""
        return _kind_name(self.kind)


def options_of(method: type) -> list[Option]:
    """The options of a method class, in the order of its fields."""
    hints = typing.get_type_hints(method)
    comments = _field_comments(method)
    found = []
    for field in dataclasses.fields(method):
        if not field.init:
            continue
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        text = field.metadata.get("help", comments.get(field.name, ""))
        found.append(Option(field.name, hints[field.name], default, text))
    return found


def pick_method(registry: Mapping[str, T], name: str, what: str) -> T:
    """Look a name up; unknown ones raise OptionError with the nearest names."""
    if name in registry:
        return registry[name]
    raise OptionError(f"no {what} is called {name!r}", suggestion(name, registry))


def suggestion(name: str, known: Iterable[str]) -> str:
    """`did you mean ...?` for a near miss, else the list of what there is."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"there is {', '.join(names)}" if names else "there is none"


Setting = str | Mapping[str, Any]  # "name=value", or typed values by name


def build_method(
    method: type[T], settings: Sequence[Setting] | Mapping[str, Any] = (), **given: Any
) -> T:
    """Make a method from settings: texts as `-o` gives them, typed values as flags and files do.

    Args:
        method: its PRESETS, name -> values, say what the option `preset` sets beside itself.
        settings: later ones win. In mappings, None is no value, and a text is read as behind `-o`.
        given: defaults; a setting of the same name wins.

    Raises:
        OptionError: no `=`, an unknown name, or a value that is not of the option's type.
    """
    known = {option.name: option for option in options_of(method)}
    values: dict[str, Any] = {}
    for name, value in _pairs(settings):
        if name not in known:
            raise OptionError(f"{method.__name__} has no option {name!r}", suggestion(name, known))
        values[name] = typed_value(value, known[name].kind, name)
    values = given | getattr(method, "PRESETS", {}).get(values.get("preset"), {}) | values
    missing = [o.name for o in known.values() if o.default is dataclasses.MISSING]
    missing = [name for name in missing if name not in values]
    if missing:
        raise OptionError(f"{method.__name__} needs -o {missing[0]}=...")
    try:
        return method(**values)
    except ValueError as error:  # a method may check its values in __post_init__
        raise OptionError(f"{method.__name__}: {error}") from error


def _pairs(settings: Sequence[Setting] | Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Names and values of settings.

    Raises: OptionError: a text without `=`.
    """
    for setting in [settings] if isinstance(settings, Mapping) else settings:
        if isinstance(setting, Mapping):
            yield from ((k.replace("-", "_"), v) for k, v in setting.items() if v is not None)
            continue
        name, equals, text = setting.partition("=")
        if not equals:
            raise OptionError(f"-o {setting}: write it as name=value")
        yield name.strip().replace("-", "_"), text.strip()


def typed_value(value: Any, kind: Any, name: str) -> Any:
    """A value as an option of this type takes it.

    Text is read, whole numbers are floats, too, numbers are text, and lists are tuples.

    Raises:
        OptionError: the value is not of the type, or not finite.
    """
    if isinstance(value, str):
        return parse_value(value, kind, name)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _first_that_fits(typed_value, value, kind, name)
    if origin is Literal:
        fits = any(value == choice and type(value) is type(choice) for choice in arguments)
    elif origin is tuple and isinstance(value, list | tuple):
        return tuple(typed_value(part, arguments[0], name) for part in value)
    elif isinstance(value, bool):
        fits = kind is bool
    elif kind in (float, str) and isinstance(value, int | float):
        return parse_value(str(value), kind, name)
    else:
        fits = isinstance(kind, type) and isinstance(value, kind)
    if not fits:
        raise _refusal(value, kind, name)
    return value


def parse_value(text: str, kind: Any, name: str) -> Any:
    """Read one value of a type hint from text.

    Understood are str, int, float (finite), bool, Path, Literal, `X | None`, tuple[X, ...].

    Raises:
        OptionError: the text is no such value.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if type(None) in arguments and text.lower() in ("none", ""):
            return None
        return _first_that_fits(parse_value, text, kind, name)
    if origin is Literal:
        for choice in arguments:
            if text == str(choice):
                return choice
        raise _refusal(text, kind, name)
    if origin is tuple:
        return tuple(
            parse_value(part.strip(), arguments[0], name) for part in text.split(",") if part
        )
    if kind is bool:
        if text.lower() not in _TRUTH:
            raise _refusal(text, kind, name)
        return _TRUTH[text.lower()]
    try:
        value = kind(text)
    except ValueError as error:
        raise _refusal(text, kind, name) from error
    if isinstance(value, float) and not math.isfinite(value):
        raise _refusal(text, kind, name)
    return value


def parameters_of(method: Any) -> dict[str, Any]:
    """A method's option values, as they go into receipts: plain JSON types."""
    values = {}
    for option in options_of(type(method)):
        value = getattr(method, option.name)
        values[option.name] = str(value) if isinstance(value, Path) else value
    return values


def check_traits(
    name: str, method: Any, generator: Any, known: Mapping[str, frozenset[str]]
) -> None:
    """Raise TraitError unless the generator offers all that the method requires.

    Args:
        name: the method's name, for the message.
        method: class or object with `requires`, a set of trait names.
        generator: object with `name` and `traits`.
        known: traits of the generators on this disk by name; the message lists those that fit.
    """
    lacking = sorted(method.requires - generator.traits)
    if not lacking:
        return
    fitting = sorted(n for n, traits in known.items() if method.requires <= traits)
    hint = f"these fit: {', '.join(fitting)}" if fitting else "no generator on this disk fits"
    raise TraitError(f"{name} needs {', '.join(lacking)}, which {generator.name} lacks", hint)


@dataclass(frozen=True)
class MethodRow:
    """What `semedit methods` prints about one registry entry."""

    name: str
    summary: str
    requires: tuple[str, ...]
    options: tuple[Option, ...]


def method_rows(registry: Mapping[str, type]) -> list[MethodRow]:
    """One row per entry of a registry of methods."""
    rows = []
    for name, entry in registry.items():
        requires = tuple(sorted(getattr(entry, "requires", ())))
        rows.append(MethodRow(name, summary_of(entry), requires, tuple(options_of(entry))))
    return rows


def summary_of(entry: Any) -> str:
    """First line of an object's own docstring."""
    return (entry.__doc__ or "").strip().split("\n")[0]


_TRUTH = {"true": True, "yes": True, "on": True, "1": True}
_TRUTH |= {"false": False, "no": False, "off": False, "0": False}


def _kind_name(kind: Any) -> str:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_kind_name(argument) for argument in arguments)
    if origin is Literal:
        return "|".join(str(choice) for choice in arguments)
    if origin is tuple:
        return f"{_kind_name(arguments[0])},..."
    return "none" if kind is type(None) else getattr(kind, "__name__", str(kind))


def _first_that_fits(
    read: Callable[[Any, Any, str], Any], value: Any, whole: Any, name: str
) -> Any:
    """The value as the first type of a union takes it."""
    for kind in typing.get_args(whole):
        if kind is type(None):
            continue
        try:
            return read(value, kind, name)
        except OptionError:
            continue
    raise _refusal(value, whole, name)


def _refusal(value: Any, kind: Any, name: str) -> OptionError:
    return OptionError(f"{name}={value}: not a value of type {_kind_name(kind)}")


def _field_comments(method: type) -> dict[str, str]:
    """The comment behind each annotated field, base classes first."""
    found: dict[str, str] = {}
    for base in reversed(method.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        try:
            source = textwrap.dedent(inspect.getsource(base))
        except (OSError, TypeError):  # made without a source file
            continue
        lines = _comments_by_line(source)
        body = typing.cast(ast.ClassDef, ast.parse(source).body[0]).body
        for node in body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                text = lines.get(node.end_lineno or node.lineno)
                if text:
                    found[node.target.id] = text
    return found


def _comments_by_line(source: str) -> dict[int, str]:
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {t.start[0]: t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT}
