"""interpolate, mesh, and faces from drawn maps: what a generator of shape and texture offers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from semedit.cli.common import Common, Drawn, GeneratorName, Made, Mark, command, run
from semedit.errors import OptionError

From = Annotated[
    str | None,
    typer.Option(
        "--from", help="Start from `latents` or from a step, like 01-smiling; default: the newest."
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands to an app."""
    command(app, "interpolate")(interpolate)
    command(app, "mesh")(mesh)


def draw(common: Made, mask: Path) -> None:
    """Make faces of the workspace from drawn label maps alone: `edit --mask FILE --from none`."""
    if common.names:
        raise OptionError(
            "a face made from a map alone takes the map's name", "leave out the names of faces"
        )

    def make(device: str, progress: Any) -> Any:
        from semedit.editors import Drawing
        from semedit.options import build_method
        from semedit.tasks.draw import Draw

        return Draw(
            mask,
            build_method(Drawing, common.options or (), seed=common.seed),
            generator_name=common.generator,
            device=device,
            mark=common.mark,
            progress=progress,
        )

    run(common, "edit", make, new=True)


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
    start: From = None,
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


def mesh(
    common: Drawn,
    format: Annotated[Literal["ply", "obj"], typer.Option(help="File format.")] = "ply",
    resolution: Annotated[
        int, typer.Option(min=16, max=512, help="Grid cells along each side.")
    ] = 160,
    level: Annotated[
        float, typer.Option(min=0.01, help="Density at which the surface lies, per world unit.")
    ] = 10.0,
    start: From = None,
) -> None:
    """Write the surface of faces as a coloured mesh, and depth maps from three sides.

    Depth maps are grey PNGs of 16 bits: 10,000 is one world unit (the camera is 2.7 away), 0 is
    no surface.
    """

    def make(device: str, progress: Any) -> Any:
        from semedit.tasks.mesh import MeshFaces

        return MeshFaces(
            format=format,
            resolution=resolution,
            level=level,
            generator_name=common.generator,
            start=start,
            names=common.names or (),
            device=device,
            progress=progress,
        )

    run(common, "mesh", make)
