"""Commands and files that the pages name exist; what they say of methods and weights is so.

`python tests/test_docs.py` writes the generated parts anew; a name after it: that part.
"""

import json
import re
import shlex
import sys
from pathlib import Path

import pytest
import typer
from every_command import GUIDE, marks, table

from semedit.cli.app import app

README = Path(__file__).resolve().parents[1] / "README.md"
ROOT = README.parent
PAGES = (
    README,
    *sorted((ROOT / "examples").glob("*.md")),
    *sorted((ROOT / ".github").glob("*.md")),
)


def commands(text: str) -> list[str]:
    """Every `semedit ...` line of the README's code blocks, and in its running text."""
    blocks = re.findall(r"^```[a-z]*\n(.*?)^```|((?:^ {4}.*\n)+)", text, re.M | re.S)
    lines = [
        line.strip() for pair in blocks for line in "".join(pair).replace("\\\n", " ").split("\n")
    ]
    parts = [part.strip() for line in lines for part in line.split("&&")]
    inline = re.findall(r"`(semedit [^`]+)`", text)
    return [c.removeprefix("$ ") for c in parts + inline if re.match(r"(\$ )?semedit( |$)", c)]


def check(line: str) -> None:
    """Raise AssertionError unless command, sub-command and every option exist."""
    words = shlex.split(line, comments=True)[1:]
    command = typer.main.get_command(app)
    while words and hasattr(command, "commands") and not words[0].startswith("-"):
        name = words.pop(0)
        if name.isupper():  # a placeholder
            return
        assert name in command.commands, f"{line}: no command {name}"
        command = command.commands[name]
    known = {opt for p in command.params for opt in (*p.opts, *p.secondary_opts)} | {"--help", "-h"}
    for word in words:
        if re.match(r"--?[a-z]", word):
            assert word.split("=")[0] in known, f"{line}: no option {word}"


def methods_table() -> str:
    """The README's table of inverters and editors."""
    from semedit.editors import EDITORS
    from semedit.inverters import INVERTERS
    from semedit.options import method_rows

    lines = ["| | name | what it does | needs |", "|-|-|-|-|"]
    for kind, registry in (("inverter", INVERTERS), ("editor", EDITORS)):
        for row in method_rows(registry):
            needs = ", ".join(row.requires) or "-"
            lines.append(f"| {kind} | `{row.name}` | {row.summary} | {needs} |")
    return "\n".join(lines)


def plain(text: str) -> str:
    """A metadata value as a phrase: JSON objects as `key value, key value`, several with `;`."""
    if not text.startswith(("{", "[{")):
        return text
    found = json.loads(text)
    objects = [found] if isinstance(found, dict) else found
    return "; ".join(", ".join(f"{k} {v}" for k, v in one.items()) for one in objects)


def weights_table() -> str:
    """The README's table of built-in weights, from what the files say about themselves."""
    from semedit import weights

    lines = ["| name | what for | made by | data | minutes | held-out figures | size |"]
    lines += ["|-|-|-|-|-|-|-|"]
    for row in weights.table().values():
        path = weights.rows.DATA / row.file
        if row.kind != "builtin" or not path.is_file():
            continue
        _, about = weights.load(path)
        figures = json.loads(about.get("figures", "{}"))
        told = ", ".join(f"{k} {v:.3g}" for k, v in figures.items() if isinstance(v, int | float))
        cells = [
            f"`{row.name}`",
            row.use,
            f"`{about['command']}`" if about.get("command") else "",
            plain(about.get("data", "")),
            str(json.loads(about.get("training", "{}")).get("minutes", "")),
            told,
            f"{path.stat().st_size / 1e6:.1f} MB",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


SECTIONS = {
    "methods": (README, methods_table),
    "commands": (GUIDE, table),
    "weights": (ROOT / "examples" / "training.md", weights_table),
}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_of_the_pages_exist(page):
    for line in commands(page.read_text("utf-8")):
        check(line)


@pytest.mark.parametrize(
    "line",
    ["semedit fly", "semedit align --wings x", "semedit weights burn", "semedit edit --msk x"],
)
def test_the_check_can_fail(line):
    with pytest.raises(AssertionError):
        check(line)


@pytest.mark.parametrize("name", [name for name in SECTIONS if name != "commands"])
def test_generated_parts_of_the_readme_are_current(name):
    (begin, end), (page, section) = marks(name), SECTIONS[name]
    assert page.read_text("utf-8").split(begin)[1].split(end)[0].strip() == section()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_the_pages_name_are_there(page):
    """Modules in code spans, pictures and links."""
    text = page.read_text("utf-8")
    modules = re.findall(r"`((?:[a-z0-9_]+/)+(?:[a-z0-9_]+\.py)?)`", text)
    rooms = {path.name for path in (ROOT / "semedit").iterdir()}
    for module in modules:
        if module.split("/")[0] in rooms:
            assert (ROOT / "semedit" / module).exists(), module
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        if "://" not in link:
            assert (page.parent / link).exists(), link


def test_the_readme_is_short_and_shows_pictures():
    text = README.read_text("utf-8")
    assert len(text.split()) <= 1500
    assert len(re.findall(r"!\[", text)) >= 4


def test_what_weights_were_made_from_reads_as_a_phrase():
    """One folder of data, several, or plain words."""
    assert plain('{"n": 4, "look": "plain"}') == "n 4, look plain"
    assert plain('[{"n": 4}, {"n": 5, "look": "hard"}]') == "n 4; n 5, look hard"
    assert plain("5 rendered heads") == "5 rendered heads"


def test_every_command_and_option_has_help():
    def walk(name, command):
        assert command.help, name
        for parameter in command.params:
            flags = parameter.opts
            assert getattr(parameter, "help", None) or name == "attr", f"{name} {flags}"
        for sub, inner in getattr(command, "commands", {}).items():
            walk(sub, inner)

    walk("semedit", typer.main.get_command(app))


if __name__ == "__main__":
    for name in sys.argv[1:] or SECTIONS:
        (begin, end), (page, section) = marks(name), SECTIONS[name]
        before, rest = page.read_text("utf-8").split(begin)
        page.write_text(f"{before}{begin}\n\n{section()}\n\n{end}{rest.split(end)[1]}", "utf-8")
