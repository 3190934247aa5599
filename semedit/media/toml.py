"""TOML files as people save them: in any Unicode encoding, and mistakes told with their line and
what to write instead."""

from __future__ import annotations

import codecs
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from semedit.errors import InputError
from semedit.media import reading

# What files that say their encoding begin with; the longer marks first.
MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)
SHOWN = 200  # characters of a line in a message
# Characters that a backslash and a letter make of what was meant as a path.
ESCAPES = {8: r"\b", 9: r"\t", 10: r"\n", 12: r"\f", 13: r"\r", 27: r"\e"}
CURLY = str.maketrans("“”„‟‘’‚‛", '""""' + "''''")
_PLACE = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")
_BACKSLASH = re.compile(r'"([^"]*\\[^"]*)"?')
_COLON = re.compile(r"\s*(?:- *)?[\w-]+:(?:\s|$)|\s*- ")
_BARE = re.compile(r"\s*([\w-]+)\s*=\s*([^\s\"'\[{#].*?)\s*(?:#.*)?$")


def read_toml(path: str | Path, most: int = reading.RECORD_BYTES) -> tuple[str, dict[str, Any]]:
    """The text of a TOML file, and what it says.

    Raises:
        InputError: it cannot be read, is no TOML or nested too deeply, or a text in it has become
            another by a backslash that was meant as one.
    """
    path = Path(path)
    text = _decoded(path, reading.read(path, most))
    try:
        values = tomllib.loads(re.sub(r"\r\n?", "\n", text))
    except RecursionError:
        raise InputError(f"{path}: nested too deeply") from None
    except ValueError as error:
        raise _explained(path, text, str(error)) from error
    _check_texts(path, text, values)
    return text, values


def place(path: Path, text: str, word: str, first: int = 1) -> str:
    """Where a file has a word, best behind its first lines: `FILE: line 3`; else `FILE`."""
    whole = re.compile(rf"(?<![\w-]){re.escape(word)}(?![\w-])")
    found = [i for i, line in enumerate(text.splitlines(), 1) if whole.search(line)]
    if not found:
        return str(path)
    return f"{path}: line {next((i for i in found if i >= first), found[0])}"


def _decoded(path: Path, data: bytes) -> str:
    encoding = next((name for mark, name in MARKS if data.startswith(mark)), "utf-8")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InputError(
            f"{path}: line {line}: not {encoding.removesuffix('-sig').upper()}",
            "save the file as UTF-8",
        ) from error


def _explained(path: Path, text: str, reason: str) -> InputError:
    """What is wrong with a line, in words of those who wrote it."""
    at = _PLACE.search(reason)
    lines = text.splitlines() or [""]
    number = int(at[1]) if at and at[1] else len(lines)
    where = f"{path}: line {number}"
    line = lines[min(number, len(lines)) - 1].strip()[:SHOWN]
    if "\0" in text:
        return InputError(f"{path}: it holds NUL characters", "save the file as UTF-8")
    if line.translate(CURLY) != line:
        return InputError(
            f"{where}: curly quotation marks", f"write straight ones: {line.translate(CURLY)}"
        )
    path_like = _BACKSLASH.search(line)
    if path_like:
        return _backslash(where, path_like[1])
    if _COLON.match(line):
        return InputError(
            f"{where}: this is YAML, not TOML", 'write name = "value", and [[step]] for each step'
        )
    bare = _BARE.match(line)
    if bare and bare[2].lower() in ("true", "false", "yes", "no", "on", "off"):
        meant = "true" if bare[2].lower() in ("true", "yes", "on") else "false"
        return InputError(f"{where}: {bare[2]} is no value", f"write {bare[1]} = {meant}")
    if bare and not re.match(r"[\d.+-]", bare[2]):
        return InputError(
            f"{where}: a text without quotation marks", f"write {bare[1]} = '{bare[2]}'"
        )
    return InputError(f"{where}: {reason[: at.start()] if at else reason}")


def _backslash(where: str, written: str) -> InputError:
    return InputError(
        f"{where}: a backslash in double quotes begins a special character, like \\n",
        f"write paths in single quotes: '{written[:SHOWN]}'",
    )


def _check_texts(path: Path, text: str, values: Any) -> None:
    """Raise InputError where a path's backslashes have become line breaks and the like."""
    for value in _texts(values):
        if any(ord(one) in ESCAPES for one in value):
            written = value.translate(ESCAPES)
            lines = enumerate(text.splitlines(), 1)
            line = next((i for i, one in lines if written in one.replace("\\\\", "\\")), None)
            raise _backslash(f"{path}: line {line}" if line else str(path), written)


def _texts(value: Any) -> Iterator[str]:
    """All texts in a value, however deep."""
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, dict | list):
            left += one.values() if isinstance(one, dict) else one
