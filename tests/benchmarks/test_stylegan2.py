"""A descent step of StyleGAN2's codes against the textbook formulation, which it must equal."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.benchmarks.stylegan2_steps import generator, textbook

SCRIPT = Path(__file__).with_name("stylegan2_steps.py")
ROOT = SCRIPT.parents[2]
WARM, ROUNDS = 2, 5  # steps


class Worker:
    """A process that makes one step per line it is given; its allocator starts as the system's."""

    def __init__(self, kind: str, resolution: int) -> None:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
        environment["PYTHONPATH"] = str(ROOT)
        self.process = subprocess.Popen(
            [sys.executable, str(SCRIPT), kind, str(resolution)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def step(self) -> dict[str, float]:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        self.process.communicate()


def measure(resolution: int, kinds: tuple[str, ...]) -> dict[str, tuple[float, float]]:
    """Median CPU seconds of a step and peak MiB by kind, their steps taken in turn."""
    workers = {kind: Worker(kind, resolution) for kind in kinds}
    try:
        rounds = [{k: w.step() for k, w in workers.items()} for _ in range(WARM + ROUNDS)][WARM:]
    finally:
        for worker in workers.values():
            worker.close()
    found = {}
    for kind in kinds:
        seconds = statistics.median(r[kind]["seconds"] for r in rounds)
        found[kind] = (seconds, rounds[-1][kind]["mebibytes"])
        ratio = seconds / found["textbook"][0]
        print(f"{resolution} {kind}: {seconds:.3f} s, {found[kind][1]:.0f} MiB, ratio {ratio:.3f}")
    return found


@pytest.mark.parametrize("resolution", [64, 256])
def test_the_textbook_gives_the_same_picture_and_gradient(resolution: int) -> None:
    network = generator(resolution)
    ws = torch.randn(1, network.num_ws, 512, generator=torch.Generator().manual_seed(2))
    ws.requires_grad_(True)
    ours = network.synthesis({"ws": ws}, ws[:, 0]).image
    theirs = textbook(network.synthesis_network, ws)
    assert float((ours - theirs).detach().abs().max() / theirs.detach().std()) < 1e-4
    # The loss of a step. One that weighs pixels by random numbers would mostly measure on which
    # side of zero rounding puts an activation.
    gradients = [torch.autograd.grad(x.square().mean(), ws)[0] for x in (ours, theirs)]
    away = (gradients[0] - gradients[1]).norm() / gradients[1].norm()
    assert float(away) <= 1e-4, f"gradients differ by {float(away):.1e}"


@pytest.mark.slow
def test_a_step_at_256_takes_at_most_55_hundredths() -> None:
    found = measure(256, ("textbook", "semedit"))
    assert found["semedit"][0] <= 0.55 * found["textbook"][0]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_step_at_1024_takes_at_most_two_fifths_and_a_coarse_one_a_fifth() -> None:
    found = measure(1024, ("textbook", "semedit", "coarse"))
    assert found["semedit"][0] <= 0.40 * found["textbook"][0]
    assert found["coarse"][0] <= 0.20 * found["textbook"][0]
