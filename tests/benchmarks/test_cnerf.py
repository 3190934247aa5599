"""A descent step of CNeRF's codes against the plain formulation, whose picture it must equal (that
is tested in tests/test_cnerf.py)."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("cnerf_steps.py")
ROOT = SCRIPT.parents[2]
WARM, STEPS = 1, 3


def measure(kind: str) -> tuple[float, float]:
    """Median CPU seconds of a step, and peak MiB, in a process whose allocator starts as the
    system's."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), kind],
        input="\n" * (WARM + STEPS),
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    rows = [json.loads(line) for line in done.stdout.splitlines()][WARM:]
    seconds = statistics.median(row["seconds"] for row in rows)
    print(f"{kind}: {seconds:.2f} s, {rows[-1]['mebibytes']} MiB")
    return seconds, rows[-1]["mebibytes"]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_step_takes_at_most_a_quarter_of_the_time_and_3_gib() -> None:
    ours, theirs = measure("semedit"), measure("textbook")
    assert ours[0] <= 0.25 * theirs[0]
    assert ours[1] < 3 * 1024
