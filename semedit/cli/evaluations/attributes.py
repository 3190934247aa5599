"""eval attributes: Pernuš' method against InterFaceGAN."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.table import Table

from semedit.cli.common import Fresh, GeneratorName, Options, Seeded, StepBar, data, device, stdout


def eval_attributes(
    common: Seeded,
    n: Fresh = 0,
    generator: GeneratorName = "heads-128",
    attributes: Annotated[
        str | None,
        typer.Option(help="Attributes, separated by commas; default: eight of the paper's."),
    ] = None,
    each: Annotated[
        int,
        typer.Option(min=0, help="Number of attributes tried on each head; 0: all that it lacks."),
    ] = 0,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Number of descent steps; default: the paper's 2,000.")
    ] = None,
    samples: Annotated[
        int,
        typer.Option(min=100, help="Number of random faces used to fit InterFaceGAN's boundaries."),
    ] = 4000,
    options: Options = None,
) -> None:
    """Compare Pernuš' method with InterFaceGAN on heads whose truth is known, at equal success.

    Both are guided by the same classifier; -o sets options of the method `pernus`. New heads use
    seeds after those of the shipped set.
    """
    from semedit.editors import Pernus
    from semedit.evaluations.attributes import EIGHT, Comparison, calibration, embedding
    from semedit.generators import load_generator
    from semedit.heads import EVALUATION_SEED
    from semedit.heads.truth import first_seed, read_truths, render_truths
    from semedit.options import build_method

    chosen = device(common)
    given = [{"steps": steps}, *(options or ())]
    names = EIGHT if attributes is None else tuple(attributes.replace("-", "_").split(","))
    comparison = Comparison(
        names, each, build_method(Pernus, given), samples=samples, seed=common.seed
    )
    shipped = read_truths()
    # The shipped heads teach the built-in embedding, so that fresh ones are others.
    first = first_seed(common.seed, EVALUATION_SEED + len(shipped))
    with StepBar("eval attributes") as bar:
        truths = render_truths(n, first, progress=bar) if n else shipped
        embed = embedding(shipped, chosen)
        figures = comparison(
            truths,
            load_generator(generator, chosen),
            embed,
            progress=lambda part, done, total: bar(done, total, part),
        )
    figures |= calibration(embed, truths, chosen)
    if common.json:
        data(**figures)
    else:
        _comparison_tables(figures, f"{len(truths)} heads, {generator}")


def _comparison_tables(figures: dict[str, Any], title: str) -> None:
    """The means of each method, and success and identity by attribute."""
    methods_ = ("pernus", *figures["curves"])
    table = Table("method", "success", "outside", "identity", "strength", title=title)
    for method in methods_:
        row = [figures[f"{method}_{k}"] for k in ("success", "outside", "identity")]
        strength = figures.get(f"{method}_strength")
        note = "" if strength is None else f"{strength:.2f}"
        if figures.get(f"{method}_reached") == 0:
            note += ", less success at all others"
        table.add_row(method, *(f"{value:.4f}" for value in row), note)
    stdout.print(table)
    columns = [f"{method} {k}" for method in methods_ for k in ("success", "identity")]
    table = Table("attribute", "heads", *columns)
    for name, found in figures["attributes"].items():
        cells = [f"{found[m][k]:.3f}" for m in methods_ for k in ("success", "identity")]
        table.add_row(name, str(found["cases"]), *cells)
    stdout.print(table)
    same, other = figures["identity_same"], figures["identity_other"]
    text = (
        f"identity: cosine of {figures['embedding']}; {same:.2f} for the same head seen from "
        f"elsewhere or truly edited, {other:.2f} for others"
    )
    stdout.print(text, markup=False, highlight=False, soft_wrap=True)
