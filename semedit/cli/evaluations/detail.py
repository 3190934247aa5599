"""eval detail: edits at the photograph's own size, against true edits."""

from __future__ import annotations

from typing import Annotated

import typer

from semedit.cli.common import Fresh, GeneratorName, Options, Seeded, StepBar, device, refuse
from semedit.cli.evaluations.tables import show_figures


def eval_detail(
    common: Seeded,
    n: Fresh = 0,
    generator: GeneratorName = "heads-128",
    edits: Annotated[int, typer.Option(min=1, help="Most edits of each head.")] = 1,
    options: Options = None,
) -> None:
    """Measure edits with the photograph's detail against true edits of rendered heads.

    -o sets options of the method `mask`. New heads use seeds from 1,000,000 up.
    """
    from semedit.editors import Mask
    from semedit.evaluations.detail import DetailEvaluation
    from semedit.generators import load_generator
    from semedit.heads.truth import first_seed, read_truths, render_truths
    from semedit.options import build_method

    if not n:
        refuse("the shipped heads are rendered already (-n renders new ones)", "seed")
    chosen = device(common)
    evaluation = DetailEvaluation(edits, editor=build_method(Mask, options or ()))
    with StepBar("eval detail") as steps:
        truths = render_truths(n, first_seed(common.seed), progress=steps) if n else read_truths()
        figures = evaluation(
            truths,
            load_generator(generator, chosen),
            progress=lambda part, done, total: steps(done, total, part),
        )
    show_figures(common, figures, f"{len(truths)} heads, {generator}")
