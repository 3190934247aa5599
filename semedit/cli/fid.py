"""eval fid, eval semfaceedit, eval transfer: what SemFaceEdit's paper measures, and its edits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.table import Table

from semedit.cli.common import Fresh, GeneratorName, Options, Shared, StepBar, data, device, stdout

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
    common: Shared,
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
    _print(f"{generator}, {data_folder}", "generator", {generator: figures})


def eval_semfaceedit(
    common: Shared,
    data_folder: Folder,
    kimg: Annotated[
        float, typer.Option(help="Thousands of pictures to train each variant on.")
    ] = 8.0,
    run: Annotated[
        Path, typer.Option(help="Folder of the runs; existing runs are resumed.")
    ] = Path("runs/semfaceedit-ablation"),
    n: Count = 1000,
    features: Features = "faces",
    options: Options = None,
) -> None:
    """Reproduce tables 1 and 2 of SemFaceEdit at small scale: FID and KID of its variants.

    -o sets options of `semedit train semfaceedit`.
    """
    from semedit.evaluations.fid import FidEvaluation
    from semedit.evaluations.semfaceedit import Ablation
    from semedit.options import build_method
    from semedit.trainers.semfaceedit import SemFaceEditTrainer

    device(common)
    trainer = build_method(SemFaceEditTrainer, options or ())
    ablation = Ablation(kimg, trainer, FidEvaluation(n, features, seed=common.seed), common.seed)
    with StepBar("eval semfaceedit") as steps:
        found = ablation(
            data_folder, run, progress=lambda name, done, total: steps(done, total, name)
        )
    if common.json:
        data(**found)
        return
    for title, rows in found.items():
        _print(f"{title}, {kimg:g} kimg each", "", rows)


def eval_transfer(
    common: Shared,
    n: Fresh = 0,
    heads: Annotated[int, typer.Option(min=2, help="Most heads to use of the shipped set.")] = 8,
    generator: GeneratorName = "heads-128",
    region: Annotated[
        str, typer.Option(help="Regions, separated by commas; each is transferred on its own.")
    ] = "hair,mouth",
    options: Options = None,
) -> None:
    """Measure transfers of regions between rendered heads: overlap, colours, changes elsewhere.

    -o sets options of the method `transfer`. New heads use seeds from 1,000,000 up.
    """
    from semedit.editors import Transfer
    from semedit.evaluations.transfer import TransferEvaluation
    from semedit.generators import load_generator
    from semedit.heads.truth import first_seed, read_truths, render_truths
    from semedit.options import build_method

    chosen = device(common)
    evaluation = TransferEvaluation(
        tuple(name.strip() for name in region.split(",")), build_method(Transfer, options or ())
    )
    with StepBar("eval transfer") as steps:
        truths = render_truths(n, first_seed(common.seed), progress=steps) if n else []
        truths = truths or read_truths()[:heads]
        figures = evaluation(
            truths,
            load_generator(generator, chosen),
            progress=lambda part, done, total: steps(done, total, part),
        )
    if common.json:
        data(**figures)
        return
    table = Table("figure", "value", title=f"{len(truths)} heads, {generator}")
    for key, value in figures.items():
        table.add_row(key, f"{value:.4g}")
    stdout.print(table)


def _print(title: str, first: str, rows: dict[str, dict[str, Any]]) -> None:
    """A row for each set of figures, and what they are of."""
    table = Table(first, "FID", "KID x 1000", title=title)
    for name, figures in rows.items():
        table.add_row(name, f"{figures['fid']:.4g}", f"{1000 * figures['kid']:.4g}")
    stdout.print(table)
    one = next(iter(rows.values()))
    text = f"features: {one['features']}; {one['n']} pictures of each set, {one['resolution']} px"
    stdout.print(text, markup=False, highlight=False, soft_wrap=True)
