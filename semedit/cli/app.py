"""The app: every command in its place."""

from __future__ import annotations

from typing import Annotated

import typer

from semedit import __version__
from semedit.cli import between_and_mesh, chain, demo, models, recipes, settings, web
from semedit.cli.common import reported

app = typer.Typer(
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
        typer.Option("--version", callback=_version, is_eager=True, help="Say the version."),
    ] = False,
) -> None:
    with reported():
        context.default_map = settings.defaults(context.command)


chain.register(app)
between_and_mesh.register(app)
web.register(app)
demo.register(app)
models.register(app)
recipes.register(app, lambda: typer.main.get_command(app))
