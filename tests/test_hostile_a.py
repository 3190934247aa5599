"""No code of a stranger's folder is run, nothing damaged or killed hangs, signals end in order."""

from __future__ import annotations

import errno
import hashlib
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grey_task
import numpy as np
import pytest
import torch
from small_trainers import Line

import semedit
from semedit.batch import Run, for_each, ray
from semedit.batch.workspace import Workspace
from semedit.errors import LockedError, OptionError
from semedit.media import decoding
from semedit.media.files import alone_in
from semedit.media.photographs import write_image
from semedit.runtime import isolation
from semedit.tasks.demo import examples
from semedit.trainers.loop import Schedule, train

ROOT = Path(semedit.__file__).parents[1]
START = "import sys; sys.argv[0] = 'semedit'; from semedit.cli import main; main()"


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    return kept | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | more


# Modules in the current folder ------------------------------------------------------------------

MODULES = ("json", "signal", "struct", "typing", "pickle", "multiprocessing", "subprocess",
           "threading", "numpy", "torch", "yaml", "concurrent", "filelock", "evil")  # fmt: skip


def snapshot(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def strange(tmp_path: Path) -> Path:
    """A folder whose modules, if anything runs them, leave a trace outside of it."""
    folder = tmp_path / "strange"
    folder.mkdir()
    for name in MODULES:
        trace = f"open({str(tmp_path / 'ran')!r}, 'a').write({name!r})\n"
        (folder / f"{name}.py").write_text(trace)
    (folder / ".numba_config.yaml").write_text("cache_locator_classes: evil.Locator\n")
    return folder


@pytest.mark.parametrize(
    "command", [["-m", "semedit.cli"], ["-c", START]], ids=["module", "script"]
)
def test_no_module_beside_photographs_is_run(strange: Path, command: list[str]) -> None:
    shutil.copyfile(examples()[0], strange / "head.png")
    (strange / "bad.png").write_bytes(b"no picture")
    before = snapshot(strange)
    run = subprocess.run(
        [sys.executable, *command, "align", ".", "-j", "1", "--work", "../work"],
        cwd=strange, env=environment(), capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert run.returncode == 3, run.stderr[-2000:]
    assert (strange.parent / "work" / "faces" / "head.json").is_file()
    assert not (strange.parent / "ran").exists()
    assert snapshot(strange) == before


def test_a_library_call_isolates_its_children_and_nothing_else(
    strange: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(strange)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["", str(ROOT), "."]))
    monkeypatch.syspath_prepend("")
    before = list(sys.path)
    shutil.copyfile(examples()[0], "head.png")
    decoding.close()
    assert decoding.read_photo("head.png").pixels.ndim == 3
    assert isolation.environment()["PYTHONPATH"] == str(ROOT)
    with isolation.Isolated():
        assert "" not in sys.path and os.environ["PYTHONPATH"] == str(ROOT)
    assert sys.path == before and "" in sys.path and "PYTHONSAFEPATH" not in os.environ
    assert os.environ["PYTHONPATH"].startswith(os.pathsep)
    assert not (strange.parent / "ran").exists()


# heads ------------------------------------------------------------------------------------------

HEADS = """
import os, sys, time
from pathlib import Path
from types import SimpleNamespace
import numpy as np
from semedit.heads import dataset

class Head:  # rendered without the scanned geometry
    attributes, z = np.zeros(40, bool), np.zeros(3)

    def __init__(self, seed, lids):
        self.seed = seed

    def camera(self, *angles):
        return angles

    def render(self, camera, size, look):
        Path("..", f"worker-{os.getpid()}").touch()
        time.sleep(float(sys.argv[2]))
        grey = np.zeros((size, size), np.uint8)
        return SimpleNamespace(image=np.stack([grey] * 3, 2), labels=grey, c=np.zeros(25),
                               landmarks=np.zeros((68, 2)), visible=np.zeros(68, bool))

dataset.Head = Head

if __name__ == "__main__":
    from semedit.cli import main
    sys.argv = ["semedit", "heads", "out", "-n", sys.argv[1], "--size", "16", "-j", "2"]
    main()
"""


def rendering(strange: Path, count: int, seconds: float) -> subprocess.Popen[str]:
    script = strange.parent / "heads.py"
    script.write_text(HEADS.replace("float(sys.argv[2])", str(seconds)))
    return subprocess.Popen(
        [sys.executable, "-P", str(script), str(count)], cwd=strange, env=environment(),
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def appeared(folder: Path, pattern: str, count: int = 1) -> list[Path]:
    deadline = time.monotonic() + 200
    while len(found := list(folder.glob(pattern))) < count and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(found) >= count, pattern
    return found


def test_processes_of_heads_run_no_module_of_the_folder(strange: Path) -> None:
    for folder, name in (("parts", ".tmp-0123456789abcdef.npz"), ("images", ".tmp-mine")):
        (strange / "out" / folder).mkdir(parents=True)
        (strange / "out" / folder / name).touch()
    before = snapshot(strange)
    process = rendering(strange, 3, 0.0)
    _, told = process.communicate(timeout=200)
    assert process.returncode == 0, told
    assert not (strange.parent / "ran").exists()
    left = {name for name in snapshot(strange) if ".tmp" in name}
    assert left == {"out/images/.tmp-mine"}  # it is the user's own
    kept = {k: v for k, v in before.items() if not k.startswith("out/")}
    assert {k: v for k, v in snapshot(strange).items() if not k.startswith("out/")} == kept


@pytest.mark.parametrize("whom", ["worker", "SIGINT", "SIGTERM"])
def test_heads_end_when_a_process_is_killed(strange: Path, whom: str) -> None:
    process = rendering(strange, 40, 30.0)
    workers = [int(p.name.rpartition("-")[2]) for p in appeared(strange.parent, "worker-*", 2)]
    code = {"worker": 1, "SIGINT": 130, "SIGTERM": 143}[whom]
    if whom == "worker":
        os.kill(workers[0], signal.SIGKILL)
    else:
        process.send_signal(getattr(signal, whom))
    _, told = process.communicate(timeout=20)
    assert process.returncode == code
    assert "Traceback" not in told and ("was killed" in told) == (whom == "worker")
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


# Training and signals ---------------------------------------------------------------------------

TRAIN = """
import sys
from pathlib import Path
sys.path.append(sys.argv.pop(1))
import time
from small_trainers import Line, LineTask
from semedit.trainers import TRAINERS

class Slow(LineTask):
    def step(self, batch, progress):
        Path("stepped").touch()
        time.sleep(0.05)
        return super().step(batch, progress)

Line.start = lambda self, data: Slow(self)
TRAINERS["line"] = Line
from semedit.cli import main
main()
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_training_with_a_checkpoint(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    command = ["train", "line", "--data", ".", "--run", "run", "--kimg", "1000"]
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".tmp-0123456789abcdef.pt").touch()
    process = subprocess.Popen(
        [sys.executable, "-c", TRAIN, str(Path(__file__).parent), *command], cwd=tmp_path,
        env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    appeared(tmp_path, "stepped")
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    assert process.returncode == code, told
    assert "Traceback" not in told
    assert torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["step"] > 0
    assert (tmp_path / "run" / "line.json").exists() == (number == signal.SIGINT)
    assert not list((tmp_path / "run").glob(".tmp-*"))


def test_files_are_on_the_disk_before_they_have_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    replace, fsync = Path.replace, os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (events.append("fsync"), fsync(file)))
    monkeypatch.setattr(
        Path, "replace", lambda self, to: (events.append(to.name), replace(self, to))[1]
    )
    train(Line(), tmp_path, tmp_path / "run", Schedule(kimg=0.01), quiet=True)
    place = events.index("checkpoint.pt")
    assert events[place - 1] == "fsync"
    with alone_in(tmp_path / "run"), pytest.raises(LockedError):
        train(Line(), tmp_path, tmp_path / "run", Schedule(kimg=0.01), quiet=True)


LOADING = """
import sys
sys.argv = ["semedit", "methods"]
import semedit.cli
class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == sys.modules["__main__"].WHERE:
            import time
            print("here", flush=True)
            time.sleep(60)
sys.meta_path.insert(0, Slow())
semedit.cli.main()
"""


@pytest.mark.parametrize("where", ["typer", "semedit.cli.chain", "torch._tensor"])
def test_an_interrupt_while_modules_load_shows_no_traceback(where: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", f"WHERE = {where!r}\n{LOADING}"], env=environment(),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert process.stdout and process.stdout.readline() == "here\n"
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert (process.returncode, told) == (130, "")


@pytest.mark.parametrize("address", ["nohost.invalid:1", "127.0.0.1:1", "host:port"])
def test_a_cluster_that_does_not_answer_is_given_up(address: str) -> None:
    started = time.monotonic()
    with pytest.raises(OptionError, match="no Ray cluster at"):
        ray._reach(address)
    assert time.monotonic() - started < ray.PATIENCE + 2


# Memory -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("could not create a primitive"),
        RuntimeError("could not create a primitive descriptor for a convolution"),
        RuntimeError("could not execute a primitive"),
        RuntimeError("std::bad_alloc"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."),
        RuntimeError("can't start new thread"),
    ],
    ids=str,
)
def test_a_batch_that_memory_does_not_suffice_for_is_halved(
    tmp_path: Path, error: BaseException
) -> None:
    sizes, watch = [], grey_task.Watch()
    for i in range(8):
        write_image(tmp_path / "raw" / f"{i}.png", np.full((4, 4, 3), i, np.uint8))
    task = grey_task.Grey([str(tmp_path / "raw")])
    run = Run(Workspace(tmp_path / "work"), "grey")

    def work(items: list[Any], loaded: list[Any]) -> Any:
        sizes.append(len(items))
        if len(items) > 2:
            raise error
        return task.work(items, loaded)

    tally = for_each(run, task.items(run), task.load, work, watch, batch=8)
    assert (tally.done, tally.error) == (8, 0)
    assert sizes == [8, 4, 2, 2, 2, 2]


# numba ------------------------------------------------------------------------------------------

LOOP = """
from semedit.compiled import compiled

@compiled()
def twice(x):
    return 2 * x
"""


def looped(script: Path) -> int:
    """Compile a loop, or take it from the cache: how often that was hit."""
    module = runpy.run_path(str(script))
    assert module["twice"](21) == 42
    return sum(module["twice"].stats.cache_hits.values())


@pytest.fixture
def loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from semedit.runtime.compiled import numba

    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "cache"))
    script = tmp_path / "loop.py"
    script.write_text(LOOP)
    return script


@pytest.mark.parametrize(
    "change",
    [
        lambda data: b"",
        lambda data: bytes(reversed(data)),
        lambda data: data[: len(data) // 2],
        lambda data: data[:300] + bytes(100) + data[400:],  # what is machine code still unpickles
    ],
    ids=["emptied", "garbled", "cut", "holed"],
)
@pytest.mark.parametrize("suffix", [".nbi", ".nbc"])
def test_a_damaged_cache_of_compiled_loops_is_made_anew(
    loop: Path, change: Callable[[bytes], bytes], suffix: str
) -> None:
    assert looped(loop) == 0 and looped(loop) == 1
    (file,) = loop.parent.joinpath("cache").rglob(f"*{suffix}")
    file.write_bytes(change(file.read_bytes()))
    assert looped(loop) == 0
    assert looped(loop) == 1  # and it is used again


def test_a_full_cache_is_none(loop: Path) -> None:
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (0, hard)
    )  # nothing can be written, as on a full disk
    try:
        assert looped(loop) == 0
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list((loop.parent / "cache").rglob("*.nbc"))
    (loop.parent / "cache").is_dir() and shutil.rmtree(loop.parent / "cache")
    (loop.parent / "cache").write_text("no folder")
    assert runpy.run_path(str(loop))["twice"](21) == 42
