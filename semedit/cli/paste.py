"""paste: edited faces back into their photographs, also behind an edit (`--into-photo`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from semedit.cli.common import Drawn, Made, Mark, command, run, say
from semedit.errors import OptionError
from semedit.media.photographs import MAX_PIXELS

SOME_FAILED = 3  # exit code
IntoPhoto = Annotated[
    bool,
    typer.Option(
        "--into-photo", help="Also put the edits into the photographs; see `semedit paste`."
    ),
]


def register(app: typer.Typer) -> None:
    """Add the command to an app."""
    command(app, "paste")(paste)


def paste(
    common: Drawn,
    start: Annotated[
        str | None,
        typer.Option("--from", help="Paste this step, like 01-smiling; default: the newest."),
    ] = None,
    into: Annotated[
        Path | None,
        typer.Option(help="Folder that also gets the photographs, in folders as they had."),
    ] = None,
    max_pixels: Annotated[
        int, typer.Option(help="Largest photograph to read, in pixels.")
    ] = MAX_PIXELS,
    mark: Mark = True,
) -> None:
    """Put edited faces back into their photographs, pasted/NAME.jpg: at the photograph's own size,
    only where the edit changed something.

    All edited faces of a photograph go into the same file. Format, quality, colour profile and
    EXIF are the photograph's, without the place where it was taken. No original is ever written
    over, and a photograph that was changed since it was aligned is refused.
    """
    paste_photos(common, start, into, max_pixels, mark)


def paste_photos(
    common: Drawn,
    start: str | None = None,
    into: Path | None = None,
    max_pixels: int = MAX_PIXELS,
    mark: bool = True,
) -> None:
    """`semedit paste`.

    Raises: typer.Exit: with code 3 when photographs failed.
    """
    from semedit.batch import Shard
    from semedit.batch.copies import FOLDER, pasted_files
    from semedit.batch.workspace import Workspace

    def make(device: str, _progress: Any) -> Any:
        from semedit.tasks.paste import Paste

        return Paste(
            generator_name=common.generator,
            start=start,
            names=common.names or (),
            max_pixels=max_pixels,
            device=device,
            mark=mark,
        )

    space, shard = Workspace(common.work), Shard.parse(common.shard)
    if into is not None and into.resolve() == (space.root / FOLDER).resolve():
        into = None
    if into is not None and into.resolve().is_relative_to(space.root.resolve()):
        raise OptionError(f"{into} is a folder of the workspace", "choose one outside of it")
    known = {} if into is None else pasted_files(space)
    failed = _some_failed(lambda: run(common, "paste", make))
    if into is not None and not common.dry_run:
        made = pasted_files(space, common.names or (), shard)
        failed |= _copy(space, into, made, known, common.overwrite)
    if failed:
        raise typer.Exit(SOME_FAILED)


def _copy(space: Any, into: Path, made: Any, known: Any, overwrite: bool) -> bool:
    """Copy what was pasted, and tell of it; whether some of it stayed behind."""
    from semedit.batch.copies import copy_into

    failed = False
    for path, error in copy_into(space, into, made, known, overwrite):
        if error is None:
            say("file", str(path))
        else:
            say("error", error.message, error.hint)
        failed |= error is not None
    return failed


@contextmanager
def pasted_after(common: Made, wanted: bool) -> Iterator[None]:
    """Paste what the block has edited, if that is wanted."""
    if not wanted:
        yield
        return
    failed = False
    try:
        yield
    except typer.Exit as end:
        if end.exit_code != SOME_FAILED:
            raise
        failed = True
    if common.dry_run:
        say("plan", "paste works on what the edit has yet to make")
    else:
        failed |= _some_failed(lambda: paste_photos(common, mark=common.mark))
    if failed:
        raise typer.Exit(SOME_FAILED)


def _some_failed(act: Callable[[], None]) -> bool:
    """Do something; whether inputs failed in it."""
    try:
        act()
    except typer.Exit as end:
        if end.exit_code != SOME_FAILED:
            raise
        return True
    return False
