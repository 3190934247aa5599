"""`semedit demo`: the whole chain in a folder of its own."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from semedit.cli.common import Reporter, Shared, command, data, device, stdout


def register(app: typer.Typer) -> None:
    """Add the command to an app."""
    command(app, "demo")(demo)


def demo(
    common: Shared,
    folder: Annotated[Path, typer.Argument(help="Folder to work in.")] = Path("semedit-demo"),
    frames: Annotated[int, typer.Option(min=4, help="Number of frames in each turntable.")] = 36,
) -> None:
    """Run the whole chain on four faces and show it on a contact sheet."""
    from semedit.batch.workspace import Workspace
    from semedit.tasks import Task, run_task
    from semedit.tasks import demo as chain

    begun = time.perf_counter()
    chosen = device(common)
    space = Workspace(folder / "semedit-work")
    watching: list[Reporter] = []
    failed = False

    def step(done: int, total: int) -> None:
        watching[-1].step(done, total)

    def reported(task: Task) -> None:
        nonlocal failed
        with Reporter(task.command.split("-")[0], common.json, space.root, chosen) as reporter:
            watching.append(reporter)
            run_task(task, space, reporter)
        failed |= reporter.failed > 0

    with space.locked(make=True):
        sheet = chain.run_chain(folder, space, reported, frames, chosen, step)
    places = {
        "photographs": folder / "photographs",
        "aligned faces": space.root / "faces",
        "label maps": space.root / "masks",
        "drawn masks": folder / "masks-drawn",
        "inversions": space.root / "latents",
        "edits": space.root / "edits",
        "turntables": space.root / "turntables",
        "contact sheet": sheet,
    }
    seconds = time.perf_counter() - begun
    if common.json:
        data(summary=True, command="demo", seconds=round(seconds, 1), sheet=str(sheet))
    else:
        for title, path in places.items():
            stdout.print(f"{title:>14}  {path}", markup=False, highlight=False, soft_wrap=True)
        stdout.print(f"{'':>14}  in {seconds:.0f} s", highlight=False)
    if failed:
        raise typer.Exit(3)
