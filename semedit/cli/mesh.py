"""mesh: surfaces and depth maps of faces."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from semedit.cli.common import Drawn, Start, command, run


def register(app: typer.Typer) -> None:
    """Add the command to an app."""
    command(app, "mesh")(mesh)


def mesh(
    common: Drawn,
    format: Annotated[Literal["ply", "obj"], typer.Option(help="File format.")] = "ply",
    resolution: Annotated[
        int, typer.Option(min=16, max=512, help="Grid cells along each side.")
    ] = 160,
    level: Annotated[
        float, typer.Option(min=0.01, help="Density at which the surface lies, per world unit.")
    ] = 10.0,
    start: Start = None,
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
