"""From Enter to the first photograph or latent, beside `python -c "import torch"`.

Printed and compared are processor seconds, which other work on the machine hardly changes.
"""

import os
import platform
import resource
import shutil
import subprocess
import sys

import pytest
import torch
from command_line import FAST_INVERT, semedit

from semedit.tasks.demo import examples

TORCH = ("-c", "import torch")
# A command up to where it first reads a picture or a latent.
UP_TO_WORK = """
import os
from semedit import latents
from semedit.media import decoding
def stop(*arguments, **options):
    os._exit(0)
decoding._pool.call = latents.load = stop
from semedit.cli import main
main()
"""
ASKED = 2.0  # times `import torch`
ROUNDS = 3

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("start")
    (folder / "raw").mkdir()
    shutil.copyfile(examples()[0], folder / "raw" / "face.png")
    semedit("align", folder / "raw", "--work", folder / "work")
    semedit("invert", *FAST_INVERT, "--work", folder / "work")
    return folder


def processor_s(*arguments) -> float:
    """Of a process of its own and those that it waited for."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *map(str, arguments)], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def test_commands_start_within_two_imports_of_torch(work):
    at = ("--work", work / "work")
    commands = {
        "align": ("align", work / "raw", "--work", work / "other"),
        "edit": ("edit", "face", "--direction", "young", *at),
        "turntable": ("turntable", "face", "--frames", 8, *at),
    }
    runs = {"import torch": TORCH}
    runs |= {name: ("-c", UP_TO_WORK, *command) for name, command in commands.items()}
    for command in runs.values():  # files into the cache
        processor_s(*command)
    found = {name: min(processor_s(*runs[name]) for _ in range(ROUNDS)) for name in runs}
    print(f"\nPython {platform.python_version()}, torch {torch.__version__}, {os.cpu_count()} CPUs")
    print(f"{'ratio':>6} {'CPU s':>6}  start of")
    for name, seconds in found.items():
        print(f"{seconds / found['import torch']:6.2f} {seconds:6.2f}  {name}")
    for name in commands:
        ratio = found[name] / found["import torch"]
        assert ratio <= ASKED, f"semedit {name} starts in {ratio:.2f} of `import torch`"
