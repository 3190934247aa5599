"""directions fit, pca, import, list: linear directions of a generator's codes."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from semedit.cli.common import (
    GeneratorName,
    Seeded,
    Shared,
    StepBar,
    command,
    data,
    device,
    refuse,
    say,
    stdout,
)
from semedit.errors import LatentError, OptionError

if TYPE_CHECKING:
    from semedit.directions.directions import Directions
    from semedit.generators import Generator

Out = Annotated[
    Path | None, typer.Option(help="File to write; default: a file among your weights.")
]
Samples = Annotated[
    int,
    typer.Option(
        "--samples", "-n", min=16, help="Number of random faces drawn from the generator."
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands to the group `directions`."""
    command(app, "fit")(fit)
    command(app, "pca")(pca)
    command(app, "import")(import_)
    command(app, "list")(list_directions)


def fit(
    common: Seeded,
    attributes: Annotated[
        list[str] | None, typer.Argument(help="Attributes; default: all.")
    ] = None,
    samples: Samples = 20000,
    condition: Annotated[
        list[str] | None,
        typer.Option(help="Attribute to leave unchanged; may be given several times."),
    ] = None,
    share: Annotated[
        float,
        typer.Option(
            min=0.001, max=0.5, help="Share of the samples taken at each end of the scores."
        ),
    ] = 0.1,
    classifier: Annotated[
        str, typer.Option(help="Classifier that scores the samples: auto, builtin or branched.")
    ] = "auto",
    region: Annotated[
        str,
        typer.Option(
            help="Move only this region's codes, like mouth, if the generator's codes have regions."
        ),
    ] = "",
    out: Out = None,
    generator: GeneratorName = "heads-128",
    heads: Annotated[
        Path | None,
        typer.Option(
            "--data",
            help="Folder of rendered heads to regress on, through the generator's encoder.",
        ),
    ] = None,
) -> None:
    """Fit directions of attributes: boundaries between samples that a classifier scores.

    With --data, all are fitted at once by regression on rendered heads, whose attributes are known.
    With --region, edits along the direction leave the codes of all other regions unchanged.
    """
    from semedit.generators import load_generator

    if heads is not None:
        refuse("with --data attributes are known", "classifier", "share")
    loaded = load_generator(generator, device(common))
    names = tuple(a.replace("-", "_") for a in attributes or ())
    apart = tuple(a.replace("-", "_") for a in condition or ())
    told = ["semedit directions fit", *names, *(f"--condition {a}" for a in apart)]
    told += [
        *([f"--region {region}"] if region else []),
        f"-n {samples} -w {generator} --seed {common.seed}",
        *(["--data DIR"] if heads else []),
    ]
    with StepBar("directions") as steps:
        if heads is not None:
            if names or apart or region:
                raise OptionError(
                    "--data fits all attributes at once, in all codes",
                    "leave out the attributes and the region",
                )
            from semedit.trainers.directions import from_heads

            found = from_heads(loaded, heads, samples, progress=steps)
        else:
            from semedit.faces.attributes import load_classifier

            asked = load_classifier(classifier, device(common))
            found = _boundaries(loaded, asked, names, apart, share, samples, region, common, steps)
    made_of = f"{samples} rendered heads" if heads else f"{samples} samples of {loaded.name}"
    _keep(common, loaded, found, out, " ".join(told), made_of)


def _boundaries(
    generator: Any,
    classify: Any,
    names: tuple[str, ...],
    apart: tuple[str, ...],
    share: float,
    samples: int,
    region: str,
    common: Seeded,
    steps: StepBar,
) -> Directions:
    """Boundaries between samples of the generator; of one region's codes, if one is given."""
    from semedit.directions import fitting
    from semedit.directions.directions import OfRegions
    from semedit.media.labels import ATTRIBUTES

    wanted = [part.strip() for part in region.split(",") if part.strip()]
    own = OfRegions.named(generator, wanted) if wanted else None
    codes, scores = fitting.sample(
        generator,
        samples,
        common.seed,
        classify=classify,
        cut=fitting.shared if own is None else own.cut,
        progress=steps,
    )
    known = classify.names
    usual = names or [name for name in ATTRIBUTES if name in known]
    found = fitting.fit_boundaries(
        generator, codes, scores, usual, apart, fitting.Boundary(share), known
    )
    return found if own is None else own.whole(found, region)


def pca(
    common: Seeded,
    components: Annotated[
        int, typer.Option(min=1, help="Number of components, the largest first.")
    ] = 20,
    samples: Samples = 20000,
    out: Out = None,
    generator: GeneratorName = "heads-128",
) -> None:
    """Principal components of the codes as directions: pc00, pc01, ..."""
    from semedit.directions import fitting
    from semedit.generators import load_generator

    loaded = load_generator(generator, device(common))
    with StepBar("components") as steps:
        codes, _ = fitting.sample(loaded, samples, common.seed, batch=500, progress=steps)
        found = fitting.fit_components(loaded, codes, components)
    told = f"semedit directions pca --components {components} -n {samples} -w {generator}"
    made_of = f"{samples} samples of {loaded.name}"
    _keep(common, loaded, found, out, f"{told} --seed {common.seed}", made_of)


def import_(
    common: Shared,
    file: Annotated[Path, typer.Argument(help="A published .npy, .npz, .pt or .safetensors file.")],
    name: Annotated[
        str | None, typer.Option(help="Name of the direction; default: the file's name.")
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="Which array of a file that holds several.")
    ] = None,
    out: Out = None,
    generator: GeneratorName = "heads-128",
) -> None:
    """Import a published direction of W or W+, after checking that it fits the generator."""
    from semedit.directions.published import import_directions
    from semedit.generators import load_generator

    loaded = load_generator(generator, device(common))
    found = import_directions(loaded, file, name, key=key)
    _keep(
        common, loaded, found, out, f"semedit directions import {file.name}", file.name, "unknown"
    )


def _keep(
    common: Shared,
    generator: Generator,
    found: Directions,
    out: Path | None,
    told: str,
    made_of: str,
    licence: str = "MIT",
) -> None:
    """Write directions: to a file of their own, or beside the user's other ones."""
    from semedit import weights
    from semedit.directions.directions import own_file, read_directions, require_made_for

    path = out or own_file(found.generator)
    count = len(found.units)
    if out is None and path.is_file():
        before = read_directions(path)
        try:
            require_made_for(before, generator, path)
            found = before.joined(found)
        except LatentError as error:
            say("warning", f"{error.message}; they are replaced")
    seed = common.seed if isinstance(common, Seeded) else 0
    facts = {"command": told, "seed": str(seed), "data": made_of, "licence": licence}
    with weights.writing() if out is None else nullcontext():
        found.save(path, **facts)
    if common.json:
        data(command=told.split()[2], directions=count, file=str(path))
    else:
        stdout.print(
            f"{count} direction{'s' * (count != 1)} in {path}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )


def list_directions(common: Shared, generator: GeneratorName = "heads-128") -> None:
    """List a generator's directions, and how well each separates its attribute."""
    from semedit.directions.directions import directions_for
    from semedit.generators import load_generator

    found = directions_for(load_generator(generator, device(common)))
    if common.json:
        for name in found.units:
            data(name=name, **found.figures[name])
        return
    columns = ("deviation", "accuracy", "share", "samples")
    table = Table("direction", *columns, title=f"directions of {generator}")
    for name in found.units:
        figures = found.figures[name]
        table.add_row(name, *(f"{figures[c]:.4g}" if c in figures else "" for c in columns))
    stdout.print(table)
