"""The app: every command in its place."""

from __future__ import annotations

from typing import Annotated

import typer

from semedit.cli import (
    chain,
    demo,
    interpolate,
    mesh,
    models,
    paste,
    recipes,
    settings,
    status,
    web,
)
from semedit.cli.common import App, say
from semedit.version import __version__

app = typer.Typer(
    cls=App,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    help="Semantic face editing in batches: align, invert, edit by mask or attribute, turntable.",
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"semedit {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    context.default_map = settings.defaults(context.command)
    files = settings.settings_files()
    if files:
        say("settings", ", then ".join(str(path) for path in reversed(files)))


chain.register(app)
paste.register(app)
interpolate.register(app)
mesh.register(app)
status.register(app)
web.register(app)
demo.register(app)
models.register(app)
recipes.register(app, lambda: typer.main.get_command(app))
