"""Compiled loops work where nothing can be cached."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numba
import pytest

import semedit
from semedit.runtime.compiled import compiled

CODE = """
import numpy as np
import semedit, semedit.generators, semedit.heads
from semedit.heads import raster

b = raster.buffers(8)
points = np.array([[1, 1, 2], [7, 1, 2], [1, 7, 2]], np.float32)
raster.draw_triangles(points, np.array([[0, 1, 2]], np.int32), *b)
print(semedit.__file__, (b.triangle == 0).sum(), raster.draw_triangles.stats.cache_path)
"""


def test_a_read_only_installation_without_a_home_compiles_in_memory(tmp_path: Path) -> None:
    source = Path(semedit.__file__).parent
    copy = tmp_path / "site" / "semedit"
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__", "data", "examples"))
    for folder in (copy, *(path for path in copy.rglob("*") if path.is_dir())):
        (folder / "__pycache__").write_text("no folder")  # not even root can write in here
    nowhere = {"HOME": "/dev/null", "XDG_CACHE_HOME": "/dev/null", "PYTHONPATH": str(copy.parent)}
    kept = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    run = subprocess.run(
        [sys.executable, "-c", CODE],
        cwd=tmp_path,
        env=kept | nowhere,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    file, pixels, cache = run.stdout.split()
    assert Path(file) == copy / "__init__.py" and int(pixels) == 21 and cache == "None"


def test_other_refusals_of_the_compiler_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**options: object) -> None:
        raise RuntimeError("something else")

    monkeypatch.setattr(numba, "njit", broken)
    with pytest.raises(RuntimeError, match="something else"):
        compiled()(len)
