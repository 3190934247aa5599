"""A task light enough for tests of the folder loop by the thousand: no network, no torch.

`python tests/grey_task.py WORK RAW` runs it as a program of its own, to be killed.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from semedit.batch import Item, Outcome, Result, Run, Shard, for_each
from semedit.batch.inputs import photographs
from semedit.batch.workspace import Workspace
from semedit.media.decoding import read_photo
from semedit.media.files import write_bytes
from semedit.media.photographs import Photo, write_image


@dataclass(frozen=True)
class Grey:
    """Writes the mean grey of photographs, and which ones were worked on together.

    As with networks, an output depends on the whole batch: a run that was killed must compute the
    same batches again to give the same bytes.
    """

    inputs: Sequence[str]
    seconds: float = 0.0  # that a batch takes
    batch: int = 4
    log: str | None = None  # a file to which each batch adds the number of its process
    device: str = "cpu"

    command = "grey"
    item_bytes = 300

    def parameters(self) -> dict[str, Any]:
        return {}

    def weights(self) -> dict[str, str]:
        return {}

    def items(self, run: Run) -> list[Item]:
        found = photographs(self.inputs, run.workspace)
        return [Item(one.name, {"photo": one.path}, data=run.workspace) for one in found]

    def load(self, item: Item) -> Photo:
        return read_photo(item.inputs["photo"])

    def work(self, items: list[Item], loaded: list[Photo]) -> list[Result]:
        time.sleep(self.seconds)
        if self.log is not None:
            with Path(self.log).open("a") as file:
                file.write(f"{os.getpid()}\n")
        together = "+".join(Path(item.name).name for item in items)
        means = [float(photo.pixels.mean()) for photo in loaded]
        return [
            Result(partial(write, item, photo, f"{mean:.6f} with {together}\n"))
            for item, photo, mean in zip(items, loaded, means, strict=True)
        ]


def write(item: Item, photo: Photo, text: str) -> list[Path]:
    space: Workspace = item.data
    picture, note = space.path("faces", item.name, ".png"), space.path("faces", item.name, ".txt")
    write_image(picture, photo.pixels[::2, ::2], mark=False)
    write_bytes(note, text.encode())
    return [picture, note]


class Watch:
    """An observer that remembers."""

    def __init__(self) -> None:
        self.outcomes: dict[str, Outcome] = {}

    def start(self, total: int) -> None:
        self.total = total

    def finish(self, outcome: Outcome) -> None:
        assert outcome.name not in self.outcomes
        self.outcomes[outcome.name] = outcome

    @property
    def statuses(self) -> dict[str, str]:
        return {name: outcome.status for name, outcome in self.outcomes.items()}


def go(space: Workspace, task: Any, **settings: Any) -> Watch:
    """Run a task as `semedit.tasks.perform` does, without importing torch."""
    watch = Watch()
    with space.locked(make=True, shard=str(settings.get("shard", Shard()))):
        run = Run(space, task.command, task.parameters(), task.weights(), **settings)
        for_each(run, task.items(run), task.load, task.work, watch, task.batch)
    return watch


def tree(space: Workspace) -> dict[str, bytes]:
    """What is in a workspace: path -> bytes, of all that is not hidden."""
    return {
        path.relative_to(space.root).as_posix(): path.read_bytes()
        for path in sorted(space.root.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


if __name__ == "__main__":
    go(Workspace(Path(sys.argv[1])), Grey(sys.argv[2:]))
