"""Freed memory is kept, unless the user says otherwise. Each case in a process of its own."""

import os
import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource
from semedit.runtime.allocator import keep_freed_memory
keeps = keep_freed_memory()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = b"x" * (96 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(keeps, faults())
"""


def measured(**settings: str) -> tuple[bool, int]:
    """Whether freed memory is kept, and page faults of a second block of the same size."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "SEMEDIT_KEEP"))}
    done = subprocess.run(
        [sys.executable, "-c", FAULTS],
        env=clean | settings,
        check=True,
        capture_output=True,
        text=True,
    )
    keeps, faults = done.stdout.split()
    return keeps == "True", int(faults)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="asks glibc")
def test_a_block_that_was_freed_costs_no_page_faults_again() -> None:
    keeps, kept = measured()
    assert keeps
    for settings in ({"SEMEDIT_KEEP_MEMORY": "0"}, {"MALLOC_PERTURB_": "0"}):
        keeps, faults = measured(**settings)
        assert not keeps
        assert kept < 0.1 * faults
