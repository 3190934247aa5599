"""`semedit attr` on an imported StyleGAN2 of 1024 pixels: it runs, and its memory is bounded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from semedit.generators.stylegan2.stylegan2 import StyleGAN2, StyleGAN2Config, widths
from tests.published import rosinality_tensors

PHOTOGRAPH = Path(__file__).parents[2] / "examples" / "heads-900003.png"
STEPS = 20
PEAK = (
    "import resource, subprocess, sys; code = subprocess.run(sys.argv[1:]).returncode\n"
    "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(code)"
)


def semedit(folder: Path, *command: str) -> float:
    """Run a command of the chain; peak GiB of resident memory."""
    done = subprocess.run(
        [sys.executable, "-c", PEAK, sys.executable, "-m", "semedit.cli", *command],
        cwd=folder,
        env=os.environ | {"SEMEDIT_WEIGHTS": str(folder / "weights")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return int(done.stdout.splitlines()[-1]) / 2**20


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_smile_at_1024_takes_less_than_6_gib(tmp_path: Path) -> None:
    torch.manual_seed(0)
    generator = StyleGAN2(StyleGAN2Config(1024, widths(1024)), "random")
    torch.save({"g_ema": rosinality_tensors(generator)}, tmp_path / "random.pt")
    del generator
    semedit(tmp_path, "weights", "import", "random.pt", "--name", "random")
    semedit(tmp_path, "align", str(PHOTOGRAPH))
    semedit(tmp_path, "invert", "-w", "random", "--method", "optimize", "-o", "steps=2")
    peaks = [
        semedit(tmp_path, "attr", "--smiling", "-w", "random", "--steps", str(STEPS), *method)
        for method in ((), ("--method", "pernus", "--from", "latents"))
    ]
    print(f"peak {peaks[0]:.2f} GiB by the default method, {peaks[1]:.2f} GiB by pernus")
    assert max(peaks) < 6
