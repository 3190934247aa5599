"""Seconds of an edit by label map in one pass, with the built-in weights at 128 pixels."""

from __future__ import annotations

import os
import statistics
import time

import pytest
import torch

from semedit import weights
from semedit.editors import Canonical
from semedit.evaluations.heads import at_resolution
from semedit.generators import load_generator
from semedit.heads.truth import read_truths
from semedit.inverters import Hybrid


@pytest.mark.slow
def test_an_edit_takes_at_most_half_a_second_on_two_cores() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(min(2, os.cpu_count() or 1))
    generator = load_generator("heads-128")
    # The generator's own encoder costs as much, where no canonical one is shipped.
    named = "canonical-heads-128"
    method = Canonical(
        encoder=named if weights.on_disk(named) else str(weights.rows.DATA / "encoder.safetensors")
    )
    head = at_resolution(read_truths()[2], generator.resolution)
    latent = Hybrid(steps=2, tune_steps=2)(generator, head.image, head.labels, head.c)
    drawn = head.edits["glasses"][1]
    seconds = []
    for _ in range(6):
        began = time.perf_counter()
        method(generator, latent, drawn, head.labels)
        seconds.append(time.perf_counter() - began)
    torch.set_num_threads(threads)
    found = statistics.median(seconds[1:])
    print(f"{found:.3f} s an edit")
    assert found <= 0.5
