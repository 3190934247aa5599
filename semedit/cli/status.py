"""status: what a workspace holds, and what comes next."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from semedit.cli.common import WORKSPACE, command, data, stdout

if TYPE_CHECKING:
    from semedit.batch.status import FaceStatus


@dataclass(frozen=True)
class Looked:
    """Options of a command that only looks."""

    work: Annotated[
        Path,
        typer.Option(envvar="SEMEDIT_WORK", help="The workspace.", rich_help_panel=WORKSPACE),
    ] = Path("semedit-work")
    json: Annotated[
        bool, typer.Option("--json", help="One JSON line a face on stdout, a summary last.")
    ] = False


def register(app: typer.Typer) -> None:
    """Add the command to an app."""
    command(app, "status")(status)


def status(
    common: Looked,
    names: Annotated[
        list[str] | None, typer.Argument(help="Names or globs of faces; none means all.")
    ] = None,
) -> None:
    """Show what the workspace holds, face by face: what is stale, orphaned or failed, and what
    the next command would be."""
    from semedit.batch.status import status as look
    from semedit.batch.status import summary
    from semedit.batch.workspace import Workspace

    found = look(Workspace(common.work), names or ())
    if common.json:
        for one in found:
            data(**one.json())
        data(**summary(found))
    else:
        _show(found)


def _show(found: list[FaceStatus]) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table("face", "photograph", "map", "inverted", "edits", "turntable", "next")
    for one in found:
        edits = ", ".join(one.edits)
        inverted = ", ".join(filter(None, (one.inverted, *one.labels)))
        cells = (one.name, one.photograph, one.map, inverted, edits, one.turntable, one.next)
        table.add_row(*map(escape, cells))
    stdout.print(table)
    for one in found:
        for trouble in one.troubles:
            stdout.print(f"{escape(one.name)}: {escape(trouble)}")
