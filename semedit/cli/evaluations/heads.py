"""eval heads: face networks, inversion and edits, against heads whose truth is known."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from semedit.cli.common import Fresh, GeneratorName, Seeded, StepBar, device, refuse
from semedit.cli.evaluations.tables import show_figures


def eval_heads(
    common: Seeded,
    n: Fresh = 0,
    generator: GeneratorName = "heads-128",
    parts: Annotated[
        str, typer.Option(help="Parts to measure, separated by commas.")
    ] = "faces,inversion,masks,attributes",
    batch: Annotated[int, typer.Option(min=1, help="Number of heads inverted at once.")] = 4,
    inputs: Annotated[
        Literal["estimates", "truth"],
        typer.Option(help="Use estimated cameras and label maps, as users have, or true ones."),
    ] = "estimates",
    edits: Annotated[int, typer.Option(min=1, help="Most mask edits of each head.")] = 1,
) -> None:
    """Measure face networks, inversion and edits against heads whose truth is known.

    New heads use seeds from 1,000,000 up, which no training uses; a smaller --seed is added to
    that.
    """
    from semedit.evaluations.heads import HeadsEvaluation
    from semedit.generators import load_generator
    from semedit.heads.truth import first_seed, read_truths, render_truths

    if not n:
        refuse("the shipped heads are rendered already (-n renders new ones)", "seed")
    chosen = device(common)
    with StepBar("eval heads") as steps:
        truths = render_truths(n, first_seed(common.seed), progress=steps) if n else read_truths()
        evaluation = HeadsEvaluation(
            parts=tuple(parts.split(",")), batch=batch, inputs=inputs, edits=edits
        )
        figures = evaluation(
            truths,
            None if parts == "faces" else load_generator(generator, chosen),
            progress=lambda part, done, total: steps(done, total, part),
        )
    show_figures(common, figures, f"{len(truths)} heads, {generator}")
