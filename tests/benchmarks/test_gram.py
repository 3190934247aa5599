"""A picture of GRAM at 64 pixels against the plain formulation, whose picture it must equal (that
is tested in tests/test_manifolds.py)."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("gram_steps.py")
ROOT = SCRIPT.parents[2]
PICTURES = 6


def measure(kind: str) -> tuple[float, float]:
    """Median CPU seconds of a picture whose view is known, and peak MiB, in a process whose
    allocator starts as the system's."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), kind],
        input="\n" * PICTURES,
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    seconds = statistics.median(row["seconds"] for row in rows[1:])
    first, peak = rows[0]["seconds"], rows[-1]["mebibytes"]
    print(f"{kind}: {seconds:.2f} s, the first {first:.2f} s, {peak} MiB")
    return seconds, peak


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_picture_takes_at_most_half_of_the_time() -> None:
    ours, theirs = measure("semedit"), measure("textbook")
    assert ours[0] <= 0.5 * theirs[0]
    assert ours[1] <= theirs[1]
