"""eval fid: FID and KID of a generator's random faces."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.table import Table

from semedit.cli.common import GeneratorName, Seeded, StepBar, data, device, stdout

Folder = Annotated[
    Path,
    typer.Option("--data", help="Folder of rendered heads, of EG3D's layout, or CelebAMask-HQ."),
]
Count = Annotated[int, typer.Option("-n", min=2, help="Number of pictures in each set.")]
Features = Annotated[
    Literal["faces", "lpips"],
    typer.Option(
        help="Features of the built-in face network, or of LPIPS' AlexNet if it was fetched."
    ),
]


def eval_fid(
    common: Seeded,
    data_folder: Folder,
    n: Count = 1000,
    generator: GeneratorName = "heads-128",
    features: Features = "faces",
    psi: Annotated[float, typer.Option(help="Truncation; 1: none.")] = 1.0,
) -> None:
    """Measure FID and KID of a generator's random faces against real pictures.

    Both depend on the features, the size and the number of pictures: compare only figures that
    agree in these.
    """
    from semedit.evaluations.fid import FidEvaluation
    from semedit.generators import load_generator

    chosen = device(common)
    with StepBar("eval fid") as steps:
        evaluation = FidEvaluation(n, features, psi, seed=common.seed)
        figures = evaluation(load_generator(generator, chosen), data_folder, progress=steps)
    if common.json:
        data(**figures)
        return
    show_distances(f"{generator}, {data_folder}", "generator", {generator: figures})


def show_distances(title: str, first: str, rows: dict[str, dict[str, Any]]) -> None:
    """A row for each set of figures, and what they are of."""
    table = Table(first, "FID", "KID x 1000", title=title)
    for name, figures in rows.items():
        table.add_row(name, f"{figures['fid']:.4g}", f"{1000 * figures['kid']:.4g}")
    stdout.print(table)
    one = next(iter(rows.values()))
    text = f"features: {one['features']}; {one['n']} pictures of each set, {one['resolution']} px"
    stdout.print(text, markup=False, highlight=False, soft_wrap=True)
