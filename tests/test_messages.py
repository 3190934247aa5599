"""What is said to users: errors end alike, and every option of every command is explained."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import semedit
from semedit import errors
from semedit.cli.app import app
from semedit.media.labels import CELEBA

ROOT = Path(semedit.__file__).parent
OWN = {name for name in vars(errors) if name.endswith("Error")}
# Words that begin a sentence, and are no names.
OPENING = re.compile(r"(A|An|The|There|This|No|Nothing|Neither|Not|It|Its|To|Use|Give|Say|You)\b")


def texts(node: ast.expr) -> Iterator[str]:
    """The message or hint that an expression may be, \\0 for what is filled in."""
    if isinstance(node, ast.IfExp):
        yield from (*texts(node.body), *texts(node.orelse))
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield "".join(v.value if isinstance(v, ast.Constant) else "\0" for v in node.values)


def messages(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name in OWN:
                hints = [one.value for one in node.keywords if one.arg == "hint"]
                for part in (*node.args, *hints):
                    yield from ((node.lineno, text) for text in texts(part))


def test_errors_begin_small_and_end_without_a_full_stop() -> None:
    found = [(path, *one) for path in sorted(ROOT.rglob("*.py")) for one in messages(path)]
    assert len(found) > 300
    odd = [
        f"{path.relative_to(ROOT)}:{line}: {text}"
        for path, line, text in found
        if (re.search(r"[^.]\.$", text) or OPENING.match(text) or text.endswith(("!", "?")))
    ]
    assert not odd, "\n".join(odd)


def commands(group: Any, above: str = "semedit") -> Iterator[tuple[str, Any]]:
    for name, one in group.commands.items():
        if hasattr(one, "commands"):
            yield from commands(one, f"{above} {name}")
        else:
            yield f"{above} {name}", one


COMMANDS = dict(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_a_sentence_of_its_own(name: str) -> None:
    command = COMMANDS[name]
    assert command.help
    for option in command.params:
        if option.name.lstrip("_") in CELEBA or getattr(option, "hidden", False):
            continue
        assert option.help and option.help.endswith("."), option.name
        assert not re.match(r"(Of|None|In|From|For)\b", option.help), option.help
