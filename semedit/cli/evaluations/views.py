"""eval views: faces seen from several sides, their diversity, regions exchanged between them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from semedit.cli.common import GeneratorName, Seeded, StepBar, data, device, stdout


def eval_views(
    common: Seeded,
    generator: GeneratorName = "heads-cnerf-64",
    faces: Annotated[
        int, typer.Option(min=2, help="Number of random faces to measure views and diversity on.")
    ] = 16,
    pairs: Annotated[
        int, typer.Option(min=1, help="Number of pairs of faces that swap a region.")
    ] = 50,
    parts: Annotated[
        str, typer.Option(help="Parts to measure, separated by commas.")
    ] = "consistency,diversity,swaps",
    grid: Annotated[
        Path | None, typer.Option(help="File for a picture of faces from all sides, and of swaps.")
    ] = None,
) -> None:
    """Measure random faces: the reprojection error as the camera turns by 15 and 30 degrees, the
    mean perceptual distance between them, and what swapping regions changes elsewhere.

    Swaps need a generator whose codes have regions.
    """
    from semedit.evaluations.views import ViewsEvaluation
    from semedit.generators import load_generator
    from semedit.media.photographs import write_image

    evaluation = ViewsEvaluation(tuple(parts.split(",")), faces, pairs, common.seed)
    with StepBar("eval views") as steps:
        figures = evaluation(
            load_generator(generator, device(common)),
            progress=lambda part, done, total: steps(done, total, part),
        )
    if grid is not None:
        write_image(grid, evaluation.grid())
    if common.json:
        data(**figures)
        return
    table = Table("figure", "value", title=f"{faces} faces, {generator}")
    for key, value in figures.items():
        table.add_row(key, f"{value:.4g}" if isinstance(value, float) else str(value))
    stdout.print(table)
