"""interpolate: one face into another."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from semedit.cli.common import Common, GeneratorName, Mark, Start, command, run
from semedit.errors import OptionError


def register(app: typer.Typer) -> None:
    """Add the command to an app."""
    command(app, "interpolate")(interpolate)


def interpolate(
    common: Common,
    first: Annotated[str, typer.Argument(help="The face to start from.")],
    second: Annotated[str, typer.Argument(help="The face to end with.")],
    frames: Annotated[
        int, typer.Option(min=2, help="Number of pictures, both faces included.")
    ] = 24,
    shape_only: Annotated[
        bool, typer.Option("--shape-only", help="Keep the first face's texture.")
    ] = False,
    texture_only: Annotated[
        bool, typer.Option("--texture-only", help="Keep the first face's shape.")
    ] = False,
    format: Annotated[Literal["gif", "webp", "mp4"], typer.Option(help="File format.")] = "gif",
    fps: Annotated[float, typer.Option(min=1, max=60, help="Frames per second.")] = 12.0,
    start: Start = None,
    generator: GeneratorName = "heads-128",
    mark: Mark = True,
) -> None:
    """Morph one face into another: an animation and a strip of pictures."""
    if shape_only and texture_only:
        raise OptionError(
            "--shape-only and --texture-only exclude each other", "give only one of them"
        )
    part: Any = "shape" if shape_only else "texture" if texture_only else "all"

    def make(device: str, progress: Any) -> Any:
        from semedit.tasks.interpolate import Interpolate

        return Interpolate(
            first,
            second,
            frames=frames,
            part=part,
            start=start,
            format=format,
            fps=fps,
            generator_name=generator,
            device=device,
            mark=mark,
            progress=progress,
        )

    run(common, "interpolate", make)
