"""latents import, export: W+ codes from and for other tools."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from semedit.cli.common import (
    Common,
    DryRun,
    GeneratorName,
    Json,
    Log,
    Mark,
    Names,
    Overwrite,
    Quiet,
    Start,
    Work,
    command,
    data,
    run,
    say,
    stdout,
)
from semedit.errors import InputError


@dataclass(frozen=True)
class Exported:
    """Options of `export`, which computes nothing."""

    names: Names = None
    work: Work = Path("semedit-work")
    overwrite: Overwrite = False
    dry_run: DryRun = False
    quiet: Quiet = False
    log: Log = None
    json: Json = False


def register(app: typer.Typer) -> None:
    """Add the commands to the group `latents`."""
    command(app, "import")(import_)
    command(app, "export")(export)


def import_(
    common: Common,
    file: Annotated[
        Path, typer.Argument(help="Codes [1,L,W] or [N,L,W]: .pt, .npz, .npy, .safetensors.")
    ],
    names: Annotated[
        list[str] | None,
        typer.Option(help="Names of the faces, in the order of the codes, like anna,ben."),
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="Which array of a file that holds several.")
    ] = None,
    generator: GeneratorName = "heads-128",
    mark: Mark = True,
) -> None:
    """Take over W+ codes of e4e, pSp, PTI, HyperStyle and others, as faces to edit and turn.

    A face that is aligned already gets them as its inversion; others are drawn from their codes.
    """
    asked = [part.strip() for one in names or () for part in one.split(",") if part.strip()]

    def make(device: str, progress: Any) -> Any:
        from semedit.tasks.codes import ImportCodes

        return ImportCodes(file, asked, key, generator, device, mark, progress)

    run(common, "import", make, new=True)


def export(
    common: Exported,
    out: Annotated[Path, typer.Option("--out", help="Folder to write.")] = Path("codes"),
    format: Annotated[
        Literal["pt", "npz", "npy"], typer.Option(help="File format; npz has the key w.")
    ] = "pt",
    start: Start = None,
) -> None:
    """Write codes of faces as [1,L,W] for other tools, OUT/NAME.pt."""
    from semedit.batch.origins import remark
    from semedit.batch.workspace import Workspace
    from semedit.latents import load
    from semedit.tasks.codes import export_codes, lost

    space, files = Workspace(common.work), list[str]()
    with space.locked():
        for name in space.faces(common.names or ()):
            latent = load(space.source(name, start))
            path = out / f"{name}.{format}"
            if path.exists() and not common.overwrite:
                raise InputError(f"{path} is there already", "give another --out, or --overwrite")
            if common.dry_run:
                say("plan", str(path))
                continue
            export_codes(latent, path, format)
            for warning in filter(None, (remark(space, name), lost(latent))):
                say("warning", f"{name}: {warning}")
            files.append(str(path))
            if common.json:
                data(name=name, file=str(path), generator=latent.generator)
            else:
                stdout.print(f"{name}: {path}", markup=False, highlight=False, soft_wrap=True)
    if common.json:
        data(summary=True, command="export", files=files)
