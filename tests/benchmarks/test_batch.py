"""`align` over 200 photographs of 1024 x 1024: the folder loop against one by one, in one run.

`python tests/benchmarks/test_batch.py [COUNT [BLOCK]]` prints the figures.
"""

import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from semedit.batch import Outcome, Run
from semedit.batch.workspace import Workspace
from semedit.media import decoding
from semedit.media.photographs import read_photo
from semedit.tasks import run_task
from semedit.tasks.align import Align
from semedit.tasks.demo import examples
from semedit.weights import file_sha256


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
    for item in task.items(Run(space, "align")):
        marks = [time.perf_counter()]
        file_sha256(item.inputs["photo"])
        loaded = read_photo(item.inputs["photo"])
        marks.append(time.perf_counter())
        (result,) = task.work([item], [loaded])
        marks.append(time.perf_counter())
        for path in result.write():
            file_sha256(path)
        marks.append(time.perf_counter())
        for part, before, after in zip(spent, marks, marks[1:], strict=False):
            spent[part] += after - before
    return spent


def measure(count: int, block: int = 20) -> dict[str, float]:
    """Seconds of both, and their ratio. They take turns, block by block, so that what else the
    machine does falls on both alike; processor seconds hardly depend on it. Models are loaded
    before either."""
    folder = Path(tempfile.mkdtemp())
    try:
        photographs(folder / "raw", count)
        paths = sorted((folder / "raw").iterdir())
        one_by_one(Align(paths[:1], device=device()), Workspace(folder / "warm"))
        parts = dict.fromkeys(("read", "compute", "write"), 0.0)
        wall, processor = ({"one_by_one": 0.0, "loop": 0.0} for _ in range(2))
        for first in range(0, count, block):
            task = Align(paths[first : first + block], device=device())
            _ = task.pipeline
            for way in sorted(wall, reverse=first // block % 2 == 0):
                space, began, busy = Workspace(folder / way), time.perf_counter(), processor_s()
                if way == "loop":
                    assert run_task(task, space, Quiet()).done == len(task.inputs)
                    decoding.close()  # so that its children's seconds are counted
                else:
                    for part, seconds in one_by_one(task, space).items():
                        parts[part] += seconds
                wall[way] += time.perf_counter() - began
                processor[way] += processor_s() - busy
        figures = dict(wall)
        figures |= {f"one_by_one_{part}": seconds for part, seconds in parts.items()}
        figures |= {f"{way}_processor": seconds for way, seconds in processor.items()}
        figures |= {"ratio": wall["one_by_one"] / wall["loop"]}
        return {"photographs": count} | {k: round(v, 3) for k, v in figures.items()}
    finally:
        shutil.rmtree(folder)


def processor_s() -> float:
    """Seconds of processors spent by this process and its finished children."""
    return sum(os.times()[:4])


def device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


@pytest.mark.slow
def test_the_loop_is_no_slower_than_one_by_one() -> None:
    figures = measure(24, 6)
    print(json.dumps(figures))
    assert figures["ratio"] > 0.9


if __name__ == "__main__":
    print(json.dumps(measure(*map(int, sys.argv[1:] or ["200"]))))
