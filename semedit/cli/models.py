"""heads, train, methods, weights: what the chain is made of."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Column, Table

from semedit.cli import directions, evaluations, latents
from semedit.cli.common import (
    Command,
    Jobs,
    Json,
    Options,
    Seed,
    Seeded,
    StepBar,
    command,
    data,
    device,
    refuse,
    say,
    stdout,
)
from semedit.errors import OptionError, SemeditError

if TYPE_CHECKING:
    from semedit.checkpoints import ImportPlan


def register(app: typer.Typer) -> None:
    """Add the commands to an app."""
    command(app, "heads")(heads)
    command(app, "train")(train)
    app.command("methods", cls=Command)(list_methods)
    evaluations.register(_group(app, "eval", "Measure methods against known truth."))
    directions.register(
        _group(app, "directions", "Fit, import and list linear directions of codes.")
    )
    latents.register(_group(app, "latents", "Import and export codes of other tools."))
    group = _group(app, "weights", "List, fetch, add, import and verify weight files.")
    group.command("list", cls=Command)(list_weights)
    group.command("fetch", cls=Command)(fetch)
    group.command("add", cls=Command)(add)
    group.command("import", cls=Command)(import_checkpoint)
    group.command("verify", cls=Command)(verify)


def _group(app: typer.Typer, name: str, text: str) -> typer.Typer:
    group = typer.Typer(no_args_is_help=True)
    app.add_typer(group, name=name, help=text)
    return group


@dataclass(frozen=True)
class Rendered:
    """Options of `heads`, which renders on CPUs."""

    jobs: Jobs = 0
    seed: Seed = 0
    json: Json = False


def heads(
    common: Rendered,
    out: Annotated[Path, typer.Argument(help="Folder to write to.")],
    n: Annotated[int, typer.Option("-n", min=1, help="Number of heads.")] = 1000,
    size: Annotated[
        int, typer.Option(min=16, max=2048, help="Side of the pictures, in pixels.")
    ] = 256,
    look: Annotated[
        Literal["plain", "hard", "mixed"],
        typer.Option(
            help="plain, or hard: with random light, cover and camera faults; mixed: both in turn."
        ),
    ] = "plain",
    views: Annotated[int, typer.Option(min=1, help="Number of views of each head.")] = 1,
    depth: Annotated[bool, typer.Option("--depth", help="Also write depth maps.")] = False,
    edits: Annotated[
        int, typer.Option(min=0, help="Number of true edits of each head, as `train detail` needs.")
    ] = 0,
) -> None:
    """Render heads with exact labels, landmarks, cameras and attributes, to train on."""
    from semedit.heads import write_dataset

    with StepBar("heads") as steps:
        write_dataset(
            out,
            n=n,
            size=size,
            seed=common.seed,
            look=look,
            views=views,
            workers=common.jobs or os.cpu_count() or 1,
            depth=depth,
            edits=edits,
            progress=steps,
        )
    _tell(common, f"{n} heads in {out}", command="heads", heads=n, folder=str(out))


def train(
    common: Seeded,
    name: Annotated[str, typer.Argument(help="What to train; see `semedit methods`.")],
    data_folder: Annotated[
        Path,
        typer.Option("--data", help="Folder made by `semedit heads`, or CelebA or CelebAMask-HQ."),
    ],
    run: Annotated[
        Path | None,
        typer.Option(help="Folder of the run; default: runs/NAME. An existing run is resumed."),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(help="Stop after this many minutes; default: the trainer's own end, or 60."),
    ] = None,
    kimg: Annotated[float | None, typer.Option(help="Stop after this many thousand items.")] = None,
    preset: Annotated[
        str | None,
        typer.Option(help="Preset of sizes and losses, if the trainer has any: heads or paper."),
    ] = None,
    options: Options = None,
) -> None:
    """Train a built-in network; a run that was stopped continues exactly where it was."""
    from semedit.options import build_method, options_of, pick_method
    from semedit.trainers import TRAINERS
    from semedit.trainers.loop import Schedule
    from semedit.trainers.loop import train as train_loop

    kind = pick_method(TRAINERS, name, "trainer")
    placed = any(option.name == "device" for option in options_of(kind))
    if not placed and common.device not in ("auto", "cpu"):
        refuse(f"{name} is trained on CPUs", "device")
    device(common)
    given = {"device": common.device} if placed and common.device != "auto" else {}
    settings = [{"preset": preset}, *(options or ())]
    trainer = build_method(kind, settings, **given)
    folder = run or Path("runs") / name
    schedule = getattr(trainer, "schedule", Schedule(minutes=60.0))
    if kimg is not None or minutes is not None:
        schedule = replace(schedule, kimg=kimg, minutes=minutes, epochs=None)
    # Its bar is on stdout, which with --json holds JSON alone.
    figures = train_loop(trainer, data_folder, folder, schedule, common.seed, quiet=common.json)
    text = "  ".join(f"{key} {value:.4g}" for key, value in figures.items())
    _tell(common, f"{folder}: {text}", command="train", name=name, folder=str(folder), **figures)


def _tell(common: Rendered | Seeded, text: str, **values: Any) -> None:
    """The result of a command that has just one."""
    if common.json:
        data(**values)
    else:
        stdout.print(text, markup=False, highlight=False, soft_wrap=True)


# Methods ----------------------------------------------------------------------------------------

AsJson = Annotated[bool, typer.Option("--json", help="Write JSON lines to stdout.")]


def list_methods(
    name: Annotated[str | None, typer.Argument(help="Show only this method.")] = None,
    as_json: AsJson = False,
) -> None:
    """List generators, inverters, editors and trainers, with their options."""
    from semedit.editors import EDITORS
    from semedit.generators import GENERATORS
    from semedit.inverters import INVERTERS
    from semedit.options import method_rows, pick_method, summary_of
    from semedit.trainers import TRAINERS

    known = {**GENERATORS, **INVERTERS, **EDITORS, **TRAINERS}
    if name is not None:
        pick_method(known, name, "method")
    for kind, entry in GENERATORS.items():
        if name in (None, kind):
            traits = sorted(entry.traits)
            _show("generator", kind, summary_of(entry), traits, (), as_json)
    for title, registry in (
        ("inverter", INVERTERS),
        ("editor", EDITORS),
        ("trainer", TRAINERS),
    ):
        for row in method_rows(registry):
            if name in (None, row.name):
                _show(title, row.name, row.summary, row.requires, row.options, as_json)


def _show(
    kind: str, name: str, summary: str, traits: Any, options: tuple[Any, ...], as_json: bool
) -> None:
    """One method: a heading and a line per option, or one JSON line."""
    if as_json:
        described = [
            {"name": o.name, "type": o.kind_name, "default": o.default, "help": o.help}
            for o in options
        ]
        data(kind=kind, name=name, summary=summary, traits=list(traits), options=described)
        return
    has = "offers" if kind == "generator" else "needs"
    note = f"  ({has} {', '.join(traits)})" if traits else ""
    stdout.print(f"[bold]{name}[/]  {kind}: {summary}{note}", highlight=False)
    for option in options:
        text = f"    -o {option.name}={option.default}  {option.kind_name}  {option.help}"
        stdout.print(text, markup=False, highlight=False, soft_wrap=True)


# Weights ----------------------------------------------------------------------------------------


def list_weights(as_json: AsJson = False) -> None:
    """List all weight files that semedit knows, by what one wants to do with them, and whether
    they are on this disk."""
    from semedit import weights

    rows = weights.table().values()
    if as_json:
        for row in rows:
            place = str(weights.resolve(row.name)) if weights.on_disk(row.name) else None
            data(
                name=row.name,
                kind=row.kind,
                file=place,
                licence=row.licence,
                use=row.use,
                group=row.group,
            )
        for name, facts in weights.imported().items():
            place, use = str(weights.resolve(name)), _origin(facts)
            data(name=name, kind="imported", file=place, licence=facts.get("licence", "?"), use=use)
        return
    for group in dict.fromkeys(row.group for row in rows):
        _listed(
            group,
            {row.name: (row.licence, row.use, row.size) for row in rows if row.group == group},
        )
    own = {k: (v.get("licence", "?"), _origin(v), "?") for k, v in weights.imported().items()}
    if own:
        _listed("your own", own)


def _listed(title: str, rows: dict[str, tuple[str, str, str]]) -> None:
    """A table of weights: name -> licence, use, size where it is not on the disk."""
    from semedit import weights

    short = (Column(name, no_wrap=True) for name in ("name", "here", "size"))
    table = Table(*short, "licence", "what for", title=title, title_justify="left")
    for name, (licence, use, size) in rows.items():
        here = weights.on_disk(name)
        if here and (held := weights.resolve(name).stat().st_size):
            size = f"{held / 1e6:.1f} MB"
        table.add_row(name, "yes" if here else "", size, licence, use)
    stdout.print(table)


def _origin(facts: dict[str, str]) -> str:
    """Where an imported file comes from."""
    kind, source, format = (facts.get(key, "?") for key in ("kind", "source", "format"))
    return f"{kind}, imported from {source} ({format})"


def fetch(
    names: Annotated[list[str], typer.Argument(help="Names, as `weights list` shows them.")],
) -> None:
    """Download weights, check them, and put them where the libraries look for them."""
    from semedit import weights

    for name in names:
        if not weights.on_disk(name):
            with StepBar(name) as steps:
                found = weights.fetch(
                    name, lambda file, done, total: steps(done, total or done, file)
                )
            if weights.row(name).kind == "asset":
                _convert(name, found)
        _placed(name)


def add(
    name: Annotated[str, typer.Argument(help="A name that `weights list` shows, or a new one.")],
    file: Annotated[Path, typer.Argument(help="File to add.")],
) -> None:
    """Add a local file to the weights, after checking it."""
    from semedit import weights

    if not file.exists():
        raise OptionError(f"no file at {file}")
    if name in weights.table() and weights.row(name).kind == "asset":
        _convert(name, file)
    else:
        weights.add(name, file)
    _placed(name)


def import_checkpoint(
    file: Annotated[Path, typer.Argument(help="A .pkl, .pt, .pth or .safetensors file.")],
    name: Annotated[
        str | None, typer.Option(help="Name of the weights; default: the file's own name.")
    ] = None,
    number: Annotated[
        int | None,
        typer.Option("--class", min=0, help="The class to draw, for a StyleGAN2 of several."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Convert another project's checkpoint, to be used by `-w NAME`. No code in it is run."""
    from semedit.checkpoints import examine

    plan = examine(file, number)
    if not as_json:
        _coverages(plan)
    written = plan.write(name)
    licence = plan.licence(name)
    if as_json:
        files = [str(path) for path in written]
        data(name=written[0].stem, format=plan.format.name, files=files, licence=licence)
        return
    stdout.print(f"licence: {licence}", markup=False, highlight=False, soft_wrap=True)
    for path in written:
        stdout.print(f"{path.stem}: {path}", markup=False, highlight=False, soft_wrap=True)


def _coverages(plan: ImportPlan) -> None:
    """How the tensors of each network of a checkpoint fit."""
    titles = ("network", "used", "not needed", "unknown", "missing", "other shape")
    table = Table(*titles, title=f"{plan.checkpoint.path.name}: {plan.format.name}")
    for part, found in zip(plan.parts, plan.coverages, strict=True):
        lists = (found.used, found.ignored, found.unknown, found.missing, found.mismatched)
        table.add_row(part.kind, *(str(len(names)) for names in lists))
    stdout.print(table)
    for note in (note for part in plan.parts for note in part.notes):
        stdout.print(note, markup=False, highlight=False, soft_wrap=True)
    for found in plan.coverages:
        wrong = [f"unknown: {key}" for key in found.unknown]
        wrong += [f"missing: {key}" for key in found.missing]
        wrong += [f"{key}: shape {theirs}, not {ours}" for key, theirs, ours in found.mismatched]
        for line in wrong[:20]:
            stdout.print(line, markup=False, highlight=False, soft_wrap=True)
        if len(wrong) > 20:
            stdout.print(f"and {len(wrong) - 20} more")


def verify() -> None:
    """Check all weight files on this disk against their digests."""
    from semedit import weights

    wrong = 0
    for name, row in weights.table().items():
        try:
            path = weights.resolve(name)
            if path.suffix == ".safetensors":
                weights.load(path)
        except SemeditError as error:
            if "not on this disk" not in error.message:
                wrong += 1
                say("error", f"{name}: {error.message}", error.hint)
            continue
        stdout.print(f"{name}: {row.kind}, sha256 {weights.file_sha256(path)}", highlight=False)
    if wrong:
        raise typer.Exit(1)


def _convert(name: str, source: Path) -> None:
    """Head geometry from its source files (a folder or archive) or from the array file."""
    import shutil

    from semedit import weights
    from semedit.heads.geometry import convert
    from semedit.media.files import atomic_path

    target = weights.folder() / weights.row(name).file
    with weights.writing(), atomic_path(target) as temporary:
        convert(source, temporary)
    if source.is_dir() and source.is_relative_to(weights.folder()):
        shutil.rmtree(source)


def _placed(name: str) -> None:
    from semedit import weights

    row = weights.table().get(name)
    path = weights.place(name) if row and row.kind == "library" else weights.resolve(name)
    stdout.print(f"{name}: {path}", markup=False, highlight=False, soft_wrap=True)
