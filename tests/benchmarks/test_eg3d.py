"""A descent step of EG3D's codes on the picture of the volume rendering, against one at 512."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("eg3d_steps.py")
ROOT = SCRIPT.parents[2]
WARM, STEPS = 1, 3


def measure(kind: str) -> float:
    """Median CPU seconds of a step."""
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
    return seconds


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_coarse_step_takes_at_most_35_hundredths_of_a_full_one() -> None:
    coarse, full = measure("coarse"), measure("full")
    print(f"ratio {coarse / full:.3f}")
    assert coarse <= 0.35 * full
