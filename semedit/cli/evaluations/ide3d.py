"""eval ide3d: starts of inversion, the canonical encoder, regions' textures, identity."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from semedit.cli.common import (
    Fresh,
    GeneratorName,
    Options,
    Seeded,
    StepBar,
    data,
    device,
    refuse,
    setting,
    stdout,
)
from semedit.errors import OptionError


def eval_ide3d(
    common: Seeded,
    n: Fresh = 0,
    generator: GeneratorName = "heads-128",
    parts: Annotated[
        str, typer.Option(help="Parts to measure, separated by commas.")
    ] = "inversion,canonical,texture,masks,identity",
    encoder: Annotated[
        list[Any] | None,
        typer.Option(
            parser=setting,
            metavar="NAME=FILE",
            help="Encoder that inversion starts from; default: the generator's own.",
        ),
    ] = None,
    canonical: Annotated[
        str, typer.Option(help="Weights of the canonical encoder; default: the generator's own.")
    ] = "",
    side_deg: Annotated[
        float, typer.Option(help="Yaw of the other views of new heads, in degrees.")
    ] = 30.0,
    views: Annotated[
        int, typer.Option(min=1, help="Number of faces at each yaw of figure 4.")
    ] = 24,
    pairs: Annotated[
        int, typer.Option(min=1, help="Number of random faces to measure identity on.")
    ] = 100,
    plot: Annotated[Path | None, typer.Option(help="File to draw figure 4 to.")] = None,
    options: Options = None,
) -> None:
    """Measure what the IDE-3D paper measures: figures 4 and 7, texture edits of regions, edits in
    one pass, identity between views.

    -o sets options of hybrid inversion. New heads use seeds from 1,000,000 up; those of the
    shipped set are seen from 25 degrees to either side.
    """
    from semedit.editors import Canonical
    from semedit.evaluations.attributes import calibration, embedding
    from semedit.evaluations.ide3d import IDE3DEvaluation
    from semedit.generators import load_generator
    from semedit.heads import EVALUATION_SEED
    from semedit.heads.truth import first_seed, read_truths, render_truths
    from semedit.inverters import Hybrid
    from semedit.options import build_method

    if not n:
        refuse("the shipped heads are rendered already (-n renders new ones)", "side_deg")
    if "canonical" not in parts.split(","):
        refuse("figure 4 is of the part canonical", "plot")
    chosen = device(common)
    shipped = read_truths()
    # The shipped heads teach the built-in embedding, so that fresh ones are others.
    first = first_seed(common.seed, EVALUATION_SEED + len(shipped))
    loaded = load_generator(generator, chosen)
    evaluation = IDE3DEvaluation(
        parts=tuple(parts.split(",")),
        encoders=_encoders(loaded, encoder or (), chosen),
        inverter=build_method(Hybrid, options or ()),
        editor=Canonical(encoder=canonical),
        views=views,
        pairs=pairs,
        seed=common.seed,
    )
    with StepBar("eval ide3d") as steps:
        truths = render_truths(n, first, progress=steps, side_deg=side_deg) if n else shipped
        embed = embedding(shipped, chosen) if "identity" in evaluation.parts else None
        figures = evaluation(
            truths, loaded, embed, progress=lambda part, done, total: steps(done, total, part)
        )
    if embed is not None:
        known = calibration(embed, shipped, chosen)
        figures |= {k: known[k] for k in ("identity_same", "identity_other")}
    if plot is not None and "figure4" in figures:
        _plot(plot, figures["figure4"])
    if common.json:
        data(**figures)
    else:
        _print(figures, f"{len(truths)} heads, {generator}")


def _encoders(generator: Any, given: Any, device: str) -> dict[str, Any]:
    """Name -> encoder.

    Raises: OptionError: not written as NAME=FILE.
    """
    from semedit.generators.parts.encoder import load_encoder

    found = {}
    for one in given:
        if isinstance(one, str) and "=" not in one:
            raise OptionError(f"--encoder {one}: write it as name=file")
        for name, file in [one.split("=", 1)] if isinstance(one, str) else one.items():
            found[name] = load_encoder(str(file), device)
    if not found and generator.encoder is not None:
        found["encoder"] = generator.encoder
    return found


def _plot(path: Path, table: dict[int, dict[str, dict[str, float]]]) -> None:
    """Figure 4: one panel for each measure."""
    import numpy as np

    from semedit.evaluations.ide3d import SETTINGS
    from semedit.media.photographs import write_image
    from semedit.renders import line_plot

    titles = {"db": "PSNR, dB", "perceptual": "perceptual distance", "labels": "right labels"}
    panels = [
        line_plot(
            list(table),
            {name: [row[name][key] for row in table.values()] for name in SETTINGS},
            title,
            ("yaw of the free view, degrees", ""),
        )
        for key, title in titles.items()
    ]
    write_image(path, np.concatenate(panels, 1), mark=False)


def _print(figures: dict[str, Any], title: str) -> None:
    """The figures, those of figures 4 and 7 as tables."""
    starts = [key.removesuffix("_start_db") for key in figures if key.endswith("_start_db")]
    kinds = ("start_db", "start_side_db", "start_views_db"), ("input_db", "side_db", "views_db")
    columns = [column for stage in kinds for column in stage]
    apart = {"figure4"} | {f"{name}_{column}" for name in starts for column in columns}
    table = Table("figure", "value", title=title)
    for key, value in figures.items():
        if key not in apart:
            table.add_row(key, f"{value:.4g}" if isinstance(value, float) else str(value))
    if table.row_count:
        stdout.print(table)
    if starts:
        views = "to the sides", "all views"
        table = Table("inversion from", *("start", *views), *("inverted", *views))
        for name in starts:
            table.add_row(name, *(f"{figures[f'{name}_{column}']:.2f}" for column in columns))
        stdout.print(table)
    if "figure4" in figures:
        rows = figures["figure4"]
        names = list(next(iter(rows.values())))
        table = Table("yaw", *(f"{name} {key}" for name in names for key in ("dB", "labels")))
        for yaw, row in rows.items():
            cells = [f"{row[name][key]:.3f}" for name in names for key in ("db", "labels")]
            table.add_row(str(yaw), *cells)
        stdout.print(table)
