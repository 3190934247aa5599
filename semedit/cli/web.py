"""paint, report and sheet: at the screen, and on paper."""

from __future__ import annotations

import os
import sys
import webbrowser
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from semedit.cli.common import (
    RUN,
    GeneratorName,
    Mark,
    Names,
    Shared,
    Work,
    command,
    data,
    device,
    refuse,
    say,
)
from semedit.errors import NothingMatchedError, OptionError

Select = Annotated[
    str,
    typer.Option(
        metavar="STATUS|GLOB,...",
        help="Show only faces that failed, skipped, warned or done, or that match a glob.",
    ),
]


@dataclass(frozen=True)
class Painted(Shared):
    """Options of `paint`."""

    names: Names = None
    work: Work = Path("semedit-work")
    generator: GeneratorName = "heads-128"
    mark: Mark = True


@dataclass(frozen=True)
class Told:
    """Options of commands that only look at a workspace."""

    names: Names = None
    work: Work = Path("semedit-work")
    json: Annotated[
        bool, typer.Option("--json", help="Write a JSON line to stdout.", rich_help_panel=RUN)
    ] = False


def register(app: typer.Typer) -> None:
    """Add the commands to an app."""
    command(app, "paint")(paint)
    command(app, "report")(report)
    command(app, "sheet")(sheet)


def paint(
    common: Painted,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to serve the page on; 0: any free one.")
    ] = 0,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the page in a browser.")
    ] = True,
) -> None:
    """Paint label maps in a browser and see the faces follow.

    Edits are saved as `edit` and `attr` save them. The page is served to this machine only, at an
    address that holds a secret: whoever has the address can edit. Ctrl-C ends it. Needs the extra
    semedit[web].
    """
    from semedit.batch.workspace import Workspace

    try:
        from semedit.web.server import serve
    except ImportError as error:
        raise OptionError(f"{error.name} is not installed", 'pip install "semedit[web]"') from error
    from semedit.web.studio import Studio

    studio = Studio(
        Workspace(common.work),
        common.names or (),
        common.generator,
        device(common),
        common.mark,
    )

    def ready(address: str) -> None:
        if common.json:
            data(command="paint", address=address, faces=len(studio.names))
        else:
            say("page", address, "Ctrl-C ends it")
        if browser and _has_screen():
            webbrowser.open(address)

    try:
        serve(studio, port, ready)
    except OSError as error:
        raise OptionError(
            f"port {port} cannot be used: {error.strerror}", "leave it out"
        ) from error


def _has_screen() -> bool:
    """Whether a browser would be a window, not a program in this terminal."""
    shown = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return sys.platform in ("darwin", "win32") or bool(shown)


def report(
    common: Told,
    select: Select = "",
    output: Annotated[
        Path | None, typer.Option(help="File of the first page; default: WORK/report.html.")
    ] = None,
    sort: Annotated[
        str,
        typer.Option(
            help="Figure to sort by, like 'invert: psnr_db', largest first; -FIGURE: reversed."
        ),
    ] = "",
    per_page: Annotated[int, typer.Option(min=1, help="Number of faces on each page.")] = 100,
    side: Annotated[
        int, typer.Option(min=32, max=1024, help="Side of its pictures, in pixels.")
    ] = 160,
) -> None:
    """Write a page that shows every face with its photograph, label map, inversion, edits,
    turntable, figures, warnings and failures.

    The page contains its pictures, so it can be sent to others, sorted and filtered in the browser,
    and printed. More than --per-page faces make several pages, report-2.html and so on (10,000
    faces: 100 pages of some 5 MB), which --sort orders as a whole. Needs the extra semedit[web].
    """
    from semedit.batch.holdings import holdings
    from semedit.batch.workspace import Workspace
    from semedit.web.report import write_report

    faces = holdings(Workspace(common.work), common.names or (), select)
    path = output or common.work / "report.html"
    title = common.work.resolve().name
    pages = write_report(path, faces, title, per_page, side, sort)
    _say(common, "report", pages, len(faces))


def sheet(
    common: Told,
    select: Select = "",
    columns: Annotated[
        str | None,
        typer.Option(
            help="photograph, crop, map, inversion, edit (the newest), left, front, right (of a "
            "turntable), the name of a step, like smiling, or, of what has a label, "
            "inversion@LABEL or left@LABEL; a|b: the first that exists. Default: crop, map, "
            "inversion, edit, and all that has a label."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="File to write, .png, .jpg, .webp or .pdf; default: WORK/sheet.png."),
    ] = None,
    cell: Annotated[
        int, typer.Option(min=32, max=1024, help="Side of each picture, in pixels.")
    ] = 192,
    rows: Annotated[int, typer.Option(min=1, help="Number of faces on each page of a PDF.")] = 8,
    mark: Mark = True,
) -> None:
    """Put faces side by side on a contact sheet."""
    from semedit.batch.holdings import holdings
    from semedit.batch.workspace import Workspace
    from semedit.tasks.sheet import default_columns, write_sheet

    every = holdings(Workspace(common.work), common.names or (), select)
    faces = [one for one in every if one.crop is not None]
    if not faces:
        raise NothingMatchedError(f"no faces in {common.work}", "run `semedit align` first")
    path = output or common.work / "sheet.png"
    if path.suffix.lower() != ".pdf":
        refuse("only a PDF has pages", "rows")
    given = default_columns(faces) if columns is None else columns.split(",")
    chosen = [column.strip() for column in given if column.strip()]
    if not chosen:
        raise OptionError("no columns are given", "for example --columns crop,map,edit")
    write_sheet(path, faces, chosen, cell, rows, mark)
    _say(common, "sheet", [path], len(faces))


def _say(common: Told, name: str, files: list[Path], faces: int) -> None:
    if common.json:
        data(summary=True, command=name, files=[str(path) for path in files], faces=faces)
    else:
        for path in files:
            say("file", str(path))
