"""`align` over 200 photographs of 1024 x 1024: the folder loop against one by one, in one run.

`python tests/benchmarks/test_batch.py [COUNT]` prints the figures.
"""

import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from semedit.batch import Outcome, Run, Tally
from semedit.demo import examples
from semedit.images import read_photo
from semedit.tasks import perform
from semedit.tasks.align import Align
from semedit.weights import fingerprint
from semedit.workspace import Workspace


def photographs(folder: Path, count: int) -> None:
    """Heads of the demo as JPEG files of 1024 x 1024, in changing light and place."""
    folder.mkdir()
    heads = [Image.open(path).convert("RGB").resize((1024, 1024)) for path in examples()]
    for i in range(count):
        shifted = Image.fromarray(np.roll(np.asarray(heads[i % len(heads)]), i % 40, axis=1))
        picture = ImageEnhance.Brightness(shifted).enhance(0.8 + 0.4 * i / count)
        picture.save(folder / f"{i:03d}.jpg", quality=92)


class Quiet:
    """An observer that says nothing."""

    def start(self, total: int) -> None: ...

    def finish(self, outcome: Outcome) -> None: ...


def one_by_one(task: Align, space: Workspace) -> dict[str, float]:
    """The same work without the loop's help: seconds of each part."""
    spent = dict.fromkeys(("read", "compute", "write"), 0.0)
    items = task.items(Run(space, "align"))
    for item in items:
        marks = [time.perf_counter()]
        fingerprint(item.inputs["photo"])
        loaded = read_photo(item.inputs["photo"])
        marks.append(time.perf_counter())
        (result,) = task.work([item], [loaded])
        marks.append(time.perf_counter())
        for path in result.write():
            fingerprint(path)
        marks.append(time.perf_counter())
        for part, before, after in zip(spent, marks, marks[1:], strict=False):
            spent[part] += after - before
    return spent


def measure(count: int) -> dict[str, float]:
    """Seconds of both, and their ratio; models are loaded before either."""
    folder = Path(tempfile.mkdtemp())
    try:
        photographs(folder / "raw", count)
        task = Align([folder / "raw"], device=device())
        warm = Workspace(folder / "warm")
        one_by_one(Align([folder / "raw" / "000.jpg"], device=device()), warm)
        spent = one_by_one(task, Workspace(folder / "apart"))
        started = time.perf_counter()
        tally: Tally = perform(task, Workspace(folder / "together"), Quiet())
        seconds = time.perf_counter() - started
        assert tally.done == count
        apart = sum(spent.values())
        rounded = {f"one_by_one_{part}": round(value, 2) for part, value in spent.items()}
        figures = {"photographs": count, "one_by_one": round(apart, 2), **rounded}
        return figures | {"loop": round(seconds, 2), "ratio": round(apart / seconds, 3)}
    finally:
        shutil.rmtree(folder)


def device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


@pytest.mark.slow
def test_the_loop_is_no_slower_than_one_by_one() -> None:
    figures = measure(24)
    print(json.dumps(figures))
    assert figures["ratio"] > 0.9


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 200)))
