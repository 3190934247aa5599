"""eval transfer: regions of one rendered head for another."""

from __future__ import annotations

from typing import Annotated

import typer

from semedit.cli.common import Fresh, GeneratorName, Options, Seeded, StepBar, device, refuse
from semedit.cli.evaluations.tables import show_figures


def eval_transfer(
    common: Seeded,
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

    if n:
        refuse("new heads are rendered", "heads")
    else:
        refuse("the shipped heads are rendered already (-n renders new ones)", "seed")
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
    show_figures(common, figures, f"{len(truths)} heads, {generator}")
