"""status: what a workspace holds, and what comes next."""

from __future__ import annotations

import logging
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from semedit.cli.common import WORKSPACE, command, data, stdout
from semedit.cli.report import printable
from semedit.errors import OptionError

if TYPE_CHECKING:
    from semedit.batch.holdings import Holding
    from semedit.batch.status import FaceStatus

LINES = 8  # of the terminal, that a face's pictures take


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
    pictures: Annotated[
        bool,
        typer.Option(
            "--pictures",
            help="Show each face's crop, label map, inversion and newest edit in the terminal: by "
            "sixel or kitty's protocol where it has them, else in coloured blocks. Needs the extra "
            "semedit[web].",
        ),
    ] = False,
) -> None:
    """Show what the workspace holds, face by face: what is stale, orphaned or failed, and what
    the next command would be."""
    from semedit.batch.holdings import holdings
    from semedit.batch.status import status as look
    from semedit.batch.status import summary
    from semedit.batch.workspace import Workspace

    if pictures and (common.json or not _is_screen()):
        raise OptionError("pictures are shown in a terminal", "or write a file: `semedit sheet`")
    found = look(Workspace(common.work), names or ())
    if common.json:
        for one in found:
            data(**one.json())
        data(**summary(found))
    else:
        _show(found)
    if pictures:
        _show_pictures(holdings(Workspace(common.work), names or ()))


def _show(found: list[FaceStatus]) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table("face", "photograph", "map", "inverted", "edits", "turntable", "pasted", "next")
    for one in found:
        edits = ", ".join(one.edits)
        inverted = ", ".join(filter(None, (one.inverted, *one.labels)))
        first = (one.name, one.photograph, one.map, inverted, edits)
        cells = (*first, one.turntable, one.pasted, one.next)
        table.add_row(*(escape(printable(cell)) for cell in cells))
    stdout.print(table)
    for one in found:
        for trouble in one.troubles:
            stdout.print(escape(printable(f"{one.name}: {trouble}")))


def _is_screen() -> bool:
    """Whether stdout is a terminal with lines and columns: pictures are measured in them."""
    try:
        return sys.__stdout__ is not None and all(os.get_terminal_size(sys.__stdout__.fileno()))
    except (OSError, ValueError):
        return False


def _show_pictures(faces: list[Holding]) -> None:
    try:  # it asks the terminal what it can
        from textual_image.renderable import Image as Picture
    except ImportError as error:
        told = "textual-image is not installed"
        raise OptionError(told, 'pip install "semedit[web]"') from error
    from PIL import Image

    from semedit.tasks.sheet import strip

    logging.getLogger("textual_image").setLevel(logging.ERROR)  # what a terminal does not answer
    for face in faces:
        pixels = strip(face)
        if pixels is not None:
            stdout.print(printable(face.name), markup=False, highlight=False)
            stdout.print(Picture(Image.fromarray(pixels), width="auto", height=LINES))
