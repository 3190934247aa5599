"""eval styles: edits of one region in one pass, beside the optimisation-based route."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.table import Table

from semedit.cli.common import Fresh, GeneratorName, Options, Seeded, StepBar, data, device, stdout


def eval_styles(
    common: Seeded,
    n: Fresh = 0,
    generator: GeneratorName = "heads-l2sae-128",
    rival: Annotated[
        str,
        typer.Option(help="Generator to invert for the table: the name or path of its weights."),
    ] = "heads-128",
    rivals: Annotated[
        int, typer.Option(min=1, help="Number of heads of the shipped set in the table.")
    ] = 8,
    parts: Annotated[
        str, typer.Option(help="Parts to measure, separated by commas.")
    ] = "regions,styles,table",
    options: Options = None,
) -> None:
    """Measure edits of one region: its mask, what stays unchanged, and table 1 of the paper.

    The table compares them with inversion and an edit by label map of the same heads; -o sets
    options of the method `roi`. New heads use seeds from 1,000,000 up.
    """
    from semedit.editors import Roi
    from semedit.evaluations.styles import StylesEvaluation
    from semedit.generators import load_generator
    from semedit.heads.truth import first_seed, read_truths, render_truths
    from semedit.options import build_method

    chosen = device(common)
    editor = build_method(Roi, options or (), style_noise=1.0, seed=common.seed)
    evaluation = StylesEvaluation(tuple(parts.split(",")), editor, rivals)
    evaluation.check()
    network = load_generator(generator, chosen)
    other = load_generator(rival, chosen) if "table" in evaluation.parts else None
    with StepBar("eval styles") as steps:
        shipped = read_truths()
        truths = (
            render_truths(n, first_seed(common.seed), progress=steps, alone=True) if n else shipped
        )
        figures = evaluation(
            truths,
            network,
            other,
            shipped,
            progress=lambda part, done, total: steps(done, total, part),
        )
    if common.json:
        data(**figures)
    else:
        _print(figures, f"{len(truths)} heads, {generator}", rival)


def _print(figures: dict[str, Any], title: str, rival: str) -> None:
    """The figures of regions and styles, and table 1."""
    routes = ("roi", "mask")
    apart = [key for key in figures if key.startswith(routes) or key.endswith("_by")]
    table = Table("figure", "value", title=title)
    for key, value in figures.items():
        if key not in apart:
            table.add_row(key, f"{value:.4g}")
    stdout.print(table)
    if "ratio" not in figures:
        return
    columns = (f"FID ({figures['fid_by']})", f"LPIPS ({figures['lpips_by']})", "seconds")
    table = Table("method", *columns, title=f"{figures['heads']} heads, one edit each")
    names = {"roi": "region in one pass", "mask": f"label map, {rival}"}
    for route in routes:
        row = [figures[f"{route}_{key}"] for key in ("fid", "lpips", "seconds")]
        table.add_row(names[route], *(f"{value:.4g}" for value in row))
    stdout.print(table)
