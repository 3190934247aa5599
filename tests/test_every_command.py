"""The guide's table of commands and generators is what the commands say."""

from __future__ import annotations

from pathlib import Path

import pytest
from every_command import GUIDE, HEAD, KINDS, line, marks, row


def guide() -> list[str]:
    """The lines of the table."""
    begin, end = marks("commands")
    text = GUIDE.read_text("utf-8")
    return text.split(begin)[1].split(end)[0].strip().splitlines()


@pytest.mark.parametrize("kind", KINDS)
def test_commands_do_what_the_guide_says(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEMEDIT_WEIGHTS", str(tmp_path / "none"))
    assert line([f"`{kind}`", *row(tmp_path, kind)]) in guide()


def test_the_table_is_of_all_kinds_and_commands() -> None:
    head, _, *rows = guide()
    assert head == line(HEAD)
    assert [text.split(" | ")[0] for text in rows] == [f"| `{kind}`" for kind in KINDS]
