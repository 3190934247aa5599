"""Files from anybody: no code of theirs is run, no file outside is deleted.

Each test makes its own hostile input. What lies outside the workspace must stay as it was.
"""

from __future__ import annotations

import contextlib
import copy
import errno
import hashlib
import json
import os
import random
import resource
import runpy
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import grey_task as light
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save, save_file
from small_trainers import Line
from torch import nn
from typer.testing import CliRunner

import semedit
from semedit import latents, weights
from semedit.batch import Item, Run, Shard, for_each, ray
from semedit.batch.inputs import photographs
from semedit.batch.places import own
from semedit.batch.plan import plan
from semedit.batch.receipts import InputDigests, Outcome
from semedit.batch.workspace import RECEIPT, Workspace, _held
from semedit.cli import common
from semedit.cli.app import app
from semedit.cli.report import data
from semedit.directions.directions import read_directions
from semedit.errors import (
    InputError,
    LatentError,
    LockedError,
    NothingMatchedError,
    OptionError,
    PlaceError,
    WeightsError,
    WorkspaceError,
)
from semedit.generators import load_generator
from semedit.heads.dataset import Job, write_dataset
from semedit.media import decoding, reading, valid_json
from semedit.media.files import alone_in, is_temporary, write_bytes
from semedit.media.photographs import write_image
from semedit.runtime import isolation
from semedit.tasks import demo
from semedit.tasks.demo import examples
from semedit.trainers import TRAINERS, loop
from semedit.trainers.loop import Schedule, train

# --- 1, 6, 7. Code beside the photographs; killed processes, caches, signals -------------------


ROOT = Path(semedit.__file__).parents[1]


START = "import sys; sys.argv[0] = 'semedit'; from semedit.cli import main; main()"


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    return kept | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | more


# Modules in the current folder ------------------------------------------------------------------
MODULES = ("json", "signal", "struct", "typing", "pickle", "multiprocessing", "subprocess",
           "threading", "numpy", "torch", "yaml", "concurrent", "filelock", "evil")  # fmt: skip


def snapshot_a(folder: Path) -> dict[str, str]:
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
    before = snapshot_a(strange)
    run = subprocess.run(
        [sys.executable, *command, "align", ".", "-j", "1", "--work", "../work"],
        cwd=strange, env=environment(), capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert run.returncode == 3, run.stderr[-2000:]
    assert (strange.parent / "work" / "faces" / "head.json").is_file()
    assert not (strange.parent / "ran").exists()
    assert snapshot_a(strange) == before


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
from semedit.heads.parameters import DIMENSIONS
from semedit.media.labels import ATTRIBUTES

class Head:  # rendered without the scanned geometry
    attributes, z = np.zeros(len(ATTRIBUTES), bool), np.zeros(DIMENSIONS)

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
    before = snapshot_a(strange)
    process = rendering(strange, 3, 0.0)
    _, told = process.communicate(timeout=200)
    assert process.returncode == 0, told
    assert not (strange.parent / "ran").exists()
    left = {name for name in snapshot_a(strange) if ".tmp" in name}
    assert left == {"out/images/.tmp-mine"}  # it is the user's own
    kept = {k: v for k, v in before.items() if not k.startswith("out/")}
    assert {k: v for k, v in snapshot_a(strange).items() if not k.startswith("out/")} == kept


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
    sizes, watch = [], light.Watch()
    for i in range(8):
        write_image(tmp_path / "raw" / f"{i}.png", np.full((4, 4, 3), i, np.uint8))
    task = light.Grey([str(tmp_path / "raw")])
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
from semedit.runtime.compiled import compiled

@compiled()
def twice(x):
    return 2 * x
"""


def looped(script: Path) -> int:
    """Compile a compiled_loop, or take it from the cache: how often that was hit."""
    module = runpy.run_path(str(script))
    assert module["twice"](21) == 42
    return sum(module["twice"].stats.cache_hits.values())


@pytest.fixture
def compiled_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
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
    compiled_loop: Path, change: Callable[[bytes], bytes], suffix: str
) -> None:
    assert looped(compiled_loop) == 0 and looped(compiled_loop) == 1
    (file,) = compiled_loop.parent.joinpath("cache").rglob(f"*{suffix}")
    file.write_bytes(change(file.read_bytes()))
    assert looped(compiled_loop) == 0
    assert looped(compiled_loop) == 1  # and it is used again


def test_a_full_cache_is_none(compiled_loop: Path) -> None:
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (0, hard)
    )  # nothing can be written, as on a full disk
    try:
        assert looped(compiled_loop) == 0
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list((compiled_loop.parent / "cache").rglob("*.nbc"))
    (compiled_loop.parent / "cache").is_dir() and shutil.rmtree(compiled_loop.parent / "cache")
    (compiled_loop.parent / "cache").write_text("no folder")
    assert runpy.run_path(str(compiled_loop))["twice"](21) == 42


# --- 2, 3, 8. Paths that are read from files; links; temporary files ---------------------------


HALF = ".tmp-0123456789abcdef.png"  # as a file that is being written is called


def semedit_b(*arguments, code=0):
    """Run a command in this process: its JSON lines, and all that it says."""
    result = CliRunner().invoke(app, [*map(str, arguments), "--json", "-j", "1"])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return [json.loads(line) for line in result.stdout.splitlines()], result.stderr


def tree(folder):
    """Everything below a folder: kind, size and digest, or where a link leads."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = str(path.readlink())
        elif path.is_file():
            content = path.read_bytes()
            found[name] = (len(content), hashlib.sha256(content).hexdigest())
        else:
            found[name] = path.lstat().st_mode
    return found


@contextmanager
def untouched(*folders):
    """What is in these folders stays as it is."""
    before = [tree(folder) for folder in folders]
    yield
    assert [tree(folder) for folder in folders] == before


@pytest.fixture
def outside(tmp_path):
    """A folder beside the workspace, full of what is somebody's own."""
    folder = tmp_path / "outside"
    for name in ("x", "a.png", "a.json", "a.safetensors", "01-mine.png", "log.jsonl", HALF):
        write_bytes(folder / name, f"precious {name}".encode())
    return folder


@pytest.fixture
def raw(tmp_path):
    folder = tmp_path / "raw"
    for i, name in enumerate("ab"):
        write_image(folder / f"{name}.png", np.full((8, 8, 3), 90 * i, np.uint8), mark=False)
    return folder


@pytest.fixture
def space(tmp_path):
    return Workspace(tmp_path / "work")


class Task(light.Grey):
    """As `align`: writes to faces; `changed` makes what it made before out of date."""

    command = "align"
    changed = 0

    def parameters(self):
        return {"changed": self.changed}


def go(space, raw, changed=0, **settings):
    task = Task([str(raw)])
    object.__setattr__(task, "changed", changed)
    return light.go(space, task, **settings)


def edit_receipt(space, command, name, **changes):
    path = space.receipt_path(command, name)
    receipt = json.loads(path.read_text())
    for key, value in changes.items():
        receipt[key] = receipt[key] | value if isinstance(value, dict) else value
    path.write_text(json.dumps(receipt))


# Receipts ----------------------------------------------------------------------------------------
def _absolute(space, outside):
    return str(outside / "x")


def _fifo(space, outside):
    os.mkfifo(space.root / "faces" / "a-pipe.png")
    return "faces/a-pipe.png"


def _folder(space, outside):
    (space.root / "faces" / "a-folder.png").mkdir()
    return "faces/a-folder.png"


def _link(to, space, outside):
    (space.root / "faces" / "a-link.png").symlink_to(to)
    return "faces/a-link.png"


def _through(space, outside):
    (space.root / "faces" / "a-in").symlink_to(outside)
    return "faces/a-in/x"


def _file(path, space, outside):
    write_bytes(space.root / path, b"somebody's")
    return path


HOSTILE = {
    "absolute": _absolute,
    "up": lambda *_: "../outside/x",
    "up from within": lambda *_: "faces/../../outside/x",
    "up behind its name": lambda *_: "faces/a.d/../../../outside/x",
    "the folder": lambda *_: "faces",
    "nothing": lambda *_: "",
    "NUL": lambda *_: "faces/a\0.png",
    "long": lambda *_: "faces/a." + "x" * 5000,
    "no Unicode": lambda *_: "faces/a.\ud800",
    "spelled another way": lambda *_: "faces//a.png",
    "and another": lambda *_: "faces/./a.png",
    "pipe": _fifo,
    "a folder": _folder,
    "link out": partial(_link, "../../outside/x"),
    "dangling link": partial(_link, "nowhere"),
    "circle": partial(_link, "a-link.png"),
    "device": partial(_link, "/dev/null"),
    "below a link": _through,
    "another face": lambda *_: "faces/b.png",
    "one that begins alike": partial(_file, "faces/ab.png"),
    "another command's": partial(_file, "latents/a.safetensors"),
    "none's": partial(_file, "notes/a.txt"),
    "the settings": partial(_file, "semedit.toml"),
    "a receipt": lambda *_: "receipts/align/b.json",
}


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("kind", HOSTILE)
def test_a_receipt_deletes_nothing_that_is_not_its_own(
    space, raw, outside, kind, overwrite, caplog
):
    go(space, raw)
    named = HOSTILE[kind](space, outside)
    true = hashlib.sha256(b"precious x").hexdigest()
    edit_receipt(space, "align", "a", outputs={named: true})
    assert plan(Run(space, "align", {"changed": 0}), Task([str(raw)]).items(Run(space, "")), 1).todo
    before = tree(space.root)
    with untouched(outside, raw):
        watch = go(space, raw, changed=1, overwrite=overwrite)
    assert watch.statuses == {"a": "done", "b": "done"}
    assert tree(space.root).keys() == before.keys()
    assert "receipts/align/a.json is not valid" in caplog.text
    assert "align/b.json is not valid" not in caplog.text
    # The new receipt counts.
    caplog.clear()
    assert go(space, raw, changed=1).statuses == {"a": "uptodate", "b": "uptodate"}
    assert not caplog.text


def test_a_stale_output_that_was_changed_by_hand_stays(space, raw):
    """Its own one goes, one that somebody wrote does not, be it with --overwrite."""
    go(space, raw)
    for path, content in (("faces/a@2.png", b"made"), ("faces/a@3.png", b"made")):
        write_bytes(space.root / path, content)
        edit_receipt(space, "align", "a", outputs={path: hashlib.sha256(content).hexdigest()})
    (space.root / "faces" / "a@3.png").write_bytes(b"drawn over")
    go(space, raw, changed=1, overwrite=True)
    assert not (space.root / "faces" / "a@2.png").exists()
    assert (space.root / "faces" / "a@3.png").read_bytes() == b"drawn over"


def test_no_string_of_a_receipt_leads_out(space, outside):
    """Whatever is put together of what paths are made of."""
    parts = [
        "..",
        ".",
        "",
        "/",
        "faces",
        "a",
        "a.png",
        "a@2",
        "~",
        "\\",
        "..\\x",
        "link",
        "outside",
    ]
    (space.root / "faces").mkdir(parents=True)
    (space.root / "faces" / "link").symlink_to(outside)
    numbers, taken = np.random.default_rng(0), 0
    for _ in range(3000):
        path = "/".join(numbers.choice(parts, numbers.integers(1, 6)))
        path = f"faces/{path}" if numbers.random() < 0.5 else path
        try:
            found = own(space.root, path, ("faces",), "a")
        except PlaceError:
            continue
        taken += 1
        assert found.resolve().parent == (space.root / "faces").resolve()
        assert found.name in ("a.png", "a@2")
    assert taken


def test_the_command_says_which_receipt_is_not_valid(small, outside):
    """And nothing of the surroundings changes."""
    for name in ("../outside/x", str(outside / "a.png"), "faces/a.json"):
        edit_receipt(small, "invert", "a", outputs={name: "0" * 64})
        with untouched(outside, small.root / "faces"):
            invert = ("invert", "-o", "steps=1", "-o", "tune_steps=0")
            lines, told = semedit_b(*invert, "--work", small.root)
        assert lines[0]["status"] == "done"
        assert told.count("receipts/invert/a.json is not valid") == 1
    _, told = semedit_b("invert", "--dry-run", "--work", small.root)
    assert "not valid" not in told


# Steps -------------------------------------------------------------------------------------------
def step(space, name, latent, command="edit", sha256="0" * 64):
    """A step that says it was made from a latent."""
    write_bytes(space.path("edits", name, ".safetensors"), b"a step")
    receipt = {"format": 1, "fingerprint": "", "status": "done", "inputs": {}, "outputs": {}}
    receipt |= {"figures": {}, "warnings": [], "batch": []}
    receipt["inputs"] = {} if latent is None else {"latent": [latent, sha256]}
    write_bytes(space.receipt_path(command, name), json.dumps(receipt).encode())


@pytest.mark.parametrize(
    "latent",
    [
        "../outside/a.safetensors",
        "{outside}/a.safetensors",
        "edits/a/../../../outside/a.safetensors",
        "edits/link/01-smiling.safetensors",
        "latents/b.safetensors",
        "latents/a-pipe.safetensors",
        "edits/b/01-smiling.safetensors",
        "edits/a/02-hat.safetensors",  # itself
        "edits/a/03-hair.safetensors",  # a later one
        "receipts/edit/a/01-smiling.json",
        "latents/a\0.safetensors",
        3,
        None,
        ["latents/a.safetensors"],
    ],
)
def test_a_step_comes_from_its_face_alone(space, outside, latent):
    base = space.path("latents", "a", ".safetensors")
    write_bytes(base, b"w")
    os.mkfifo(space.path("latents", "a-pipe", ".safetensors"))
    sha256 = hashlib.sha256(b"w").hexdigest()
    step(space, "a/01-smiling", "latents/a.safetensors", sha256=sha256)
    (space.root / "edits" / "link").symlink_to("../../outside")
    named = latent.format(outside=outside) if isinstance(latent, str) else latent
    step(space, "a/02-hat", named)
    step(space, "a/03-hair", "edits/a/02-hat.safetensors")
    assert space.steps("a") == ["a/01-smiling", "a/03-hair"]
    assert space.parent("a/02-hat") is None
    assert space.lineage(space.path("edits", "a/03-hair", ".safetensors")) is None
    assert space.source("a") == space.path("edits", "a/01-smiling", ".safetensors")


def test_steps_that_go_round_in_a_circle_are_none(space):
    write_bytes(space.path("latents", "a", ".safetensors"), b"w")
    digest = hashlib.sha256(b"a step").hexdigest()
    step(space, "a/01-x", "edits/a/02-y.safetensors", sha256=digest)
    step(space, "a/02-y", "edits/a/01-x.safetensors", "attr", sha256=digest)
    assert space.steps("a") == ["a/02-y"]
    assert space.source("a") == space.path("latents", "a", ".safetensors")


@pytest.mark.parametrize("name", ["1x-y", "01", "0１-y", "-1-y", "9" * 200 + "-y", "01x-y"])
def test_what_is_not_called_like_a_step_is_none(space, name):
    write_bytes(space.path("latents", "a", ".safetensors"), b"w")
    step(space, f"a/{name}", "latents/a.safetensors")
    assert space.steps("a") == []


def test_a_wrong_start_is_told_each_time_as_it_was_given(small):
    edit = ("edit", "--direction", "smiling", "--work", small.root)
    for start in ("7", "01-smilin", "²", "7"):
        lines, _ = semedit_b(*edit, "--from", start, code=3)
        assert repr(start) in lines[0]["error"]["message"]
    with pytest.raises(OptionError):
        small.source("a", "²")


# Links -------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def inverted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inverted")
    (folder / "raw").mkdir()
    shutil.copyfile(demo.examples()[0], folder / "raw" / "a.png")
    semedit_b("align", folder / "raw", "--work", folder / "work", "--size", 64)
    semedit_b("invert", "-o", "steps=1", "-o", "tune_steps=0", "--work", folder / "work")
    return folder / "work"


@pytest.fixture
def small(inverted, tmp_path):
    """A workspace with one small face and its inversion."""
    return Workspace(Path(shutil.copytree(inverted, tmp_path / "work")))


def elsewhere(space, folder, outside):
    """Put a link to somebody's folder where one of the workspace was."""
    place = space.root / folder
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.is_dir():
        shutil.copytree(place, outside, dirs_exist_ok=True)
        shutil.rmtree(place)
    place.symlink_to(os.path.relpath(outside, place.parent))


@pytest.mark.parametrize(
    ("command", "folder"),
    [
        (["pose"], "faces"),
        (["pose"], "receipts"),
        (["pose"], "receipts/pose"),
        (["parse"], "masks"),
        (["invert", "-o", "steps=1", "--overwrite"], "latents"),
        (["invert", "-o", "steps=1", "--overwrite"], "receipts/invert"),
        (["edit", "--direction", "smiling"], "edits"),
        (["edit", "--direction", "smiling"], "edits/a"),
        (["edit", "--direction", "smiling"], "receipts/edit/a"),
        (["edit", "--direction", "smiling", "--strength", "-1:1:2"], "sweeps"),
        (["turntable", "--frames", "2"], "turntables"),
        (["mesh", "--resolution", "16"], "meshes"),
    ],
)
def test_nothing_is_written_through_a_folder_that_leads_out(small, outside, command, folder):
    elsewhere(small, folder, outside)
    with untouched(outside, small.root):
        (plan_,), _ = semedit_b(*command, "--dry-run", "--work", small.root)
        assert plan_["refused"] == 1 and plan_["todo"] == 0
    with untouched(outside, *(p for p in small.root.iterdir() if p.is_dir())):
        lines, told = semedit_b(*command, "--work", small.root, code=3)
    assert lines[0]["error"]["code"] == "place" and str(outside) in told
    (small.root / folder).unlink()
    if folder in ("edits", "edits/a"):
        assert semedit_b(*command, "--work", small.root)[0][0]["status"] == "done"


def test_a_link_to_nowhere_is_not_written_through(space, raw, tmp_path):
    space.root.mkdir()
    (space.root / "faces").symlink_to("../made")
    assert go(space, raw).statuses == {"a": "error", "b": "error"}
    assert not (tmp_path / "made").exists()


def test_a_link_of_a_files_name_is_replaced_not_followed(space, raw, outside):
    (space.root / "faces").mkdir(parents=True)
    (space.root / "faces" / "a.png").symlink_to("../../outside/a.png")
    (space.root / "receipts" / "align").mkdir(parents=True)
    (space.root / "receipts" / "align" / "a.json").symlink_to("../../../outside/a.json")
    with untouched(outside):
        assert go(space, raw).statuses["a"] == "done"
    assert not space.path("faces", "a", ".png").is_symlink()


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: write_bytes(path / "x", b"")])
@pytest.mark.parametrize("place", ["faces/a.png", "receipts/align/a.json"])
def test_what_is_no_file_is_not_replaced(space, raw, place, make):
    path = space.root / place
    path.parent.mkdir(parents=True)
    make(path)
    before = path.lstat().st_mode
    watch = go(space, raw)
    assert watch.statuses == {"a": "error", "b": "done"} and path.lstat().st_mode == before
    assert "in the way" in watch.outcomes["a"].error["message"]


@pytest.mark.parametrize("place", ["faces", "receipts", "receipts/align"])
def test_a_file_that_is_no_folder_is_that_faces_error(space, raw, place):
    write_bytes(space.root / place, b"somebody's")
    assert go(space, raw).statuses == {"a": "error", "b": "error"}
    assert (space.root / place).read_bytes() == b"somebody's"


def test_a_record_does_not_say_where_it_is_written(small, outside):
    """Nor is the photograph that it names looked at."""
    path = small.path("faces", "a", ".json")
    record = json.loads(path.read_text())
    for name, source in (("../../outside/a", "../outside/x"), (str(outside / "a"), "\0")):
        path.write_text(json.dumps({**record, "name": name, "source": source}))
        with untouched(outside, small.root / "latents", small.root / "masks"):
            lines, _ = semedit_b("pose", "--overwrite", "--work", small.root)
        assert lines[0]["outputs"] == ["faces/a.json"]
        assert json.loads(path.read_text())["name"] == "a"


def test_copies_of_recipes_are_not_written_through_a_link(small, outside, tmp_path):
    recipe = tmp_path / "x"
    recipe.write_text(f'work = "{small.root}"\n[[step]]\ncommand = "pose"\n')
    (small.root / "recipes").symlink_to("../outside")
    with untouched(outside):
        _, told = semedit_b("run", recipe, code=1)
    assert "recipes leads out" in told
    (small.root / "recipes").unlink()
    (small.root / "recipes").mkdir()
    (small.root / "recipes" / "x").symlink_to("../../outside/x")
    with untouched(outside):
        semedit_b("run", recipe)


def test_the_demo_writes_through_no_link(tmp_path, outside):
    folder = tmp_path / "demo"
    (folder / "photographs").mkdir(parents=True)
    first = demo.examples()[0].name
    (folder / "photographs" / first).symlink_to(outside / "x")
    with untouched(outside):
        demo.photographs(folder / "photographs")
    assert (folder / "photographs" / first).read_bytes() == demo.examples()[0].read_bytes()
    (folder / "masks-drawn").symlink_to(outside)
    with untouched(outside), pytest.raises(PlaceError):
        demo.run(folder, Workspace(folder / "work"), lambda task: None, 4, "cpu", lambda *_: None)


@pytest.mark.parametrize("name", [".lock", ".lock-1-of-2", ".lock-9-of-9"])
@pytest.mark.parametrize("to", ["../outside/x", "../made"])
def test_locks_are_no_links(space, outside, tmp_path, name, to):
    space.root.mkdir()
    (space.root / name).symlink_to(to)
    with untouched(outside), pytest.raises(WorkspaceError, match="cannot be a lock"):  # noqa: SIM117
        with space.locked(shard="1/2" if "1-of" in name else "1/1"):
            pass
    assert not (tmp_path / "made").exists()


class OneWeight:
    """The smallest that can be trained."""

    def __init__(self):
        self.model = nn.Linear(1, 1)
        self.modules, self.averaged, self.size = {"model": self.model}, ("model",), 4
        self.optimisers = {"sgd": torch.optim.SGD(self.model.parameters(), 0.1)}

    def batch(self, indices):
        return indices

    def step(self, batch, progress):
        return {"loss": 0.0}

    def evaluate(self, modules):
        return {}

    def export(self, *_):
        pass


@dataclass(frozen=True)
class Trainer:
    name: ClassVar[str] = "one"
    batch_size: int = 4

    def start(self, data):
        return OneWeight()


@pytest.mark.parametrize("name", ["log.jsonl", "checkpoint.pt", "checkpoint.pt.part"])
@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_links_in_a_run_folder_are_not_written_through(tmp_path, outside, name, link):
    run = tmp_path / "run"
    schedule = loop.Schedule(kimg=0.01)
    if name == "checkpoint.pt":  # it is read, so let it be one
        loop.train(Trainer(), tmp_path, tmp_path / "before", schedule, quiet=True)
        shutil.copyfile(tmp_path / "before" / name, outside / name)
    run.mkdir()
    link(outside / (name if name != "checkpoint.pt.part" else "x"), run / name)
    with untouched(outside):
        if name == "log.jsonl":
            with pytest.raises(PlaceError, match="link"):
                loop.train(Trainer(), tmp_path, run, schedule, quiet=True)
            (run / name).unlink()
        loop.train(Trainer(), tmp_path, run, schedule, quiet=True)
    assert (run / "checkpoint.pt").is_file() and not (run / "checkpoint.pt").is_symlink()


# What a killed run leaves ------------------------------------------------------------------------
def test_only_our_own_leftovers_go(space, raw, outside):
    """Of our full pattern, regular files, in folders that commands write to."""
    ours = [f"faces/{HALF}", "receipts/align/.tmp-00000000000000ff.json", ".tmp-fedcba9876543210"]
    ours += ["edits/deep/er/.tmp-0123456789abcdef.safetensors", f"meshes/{HALF}-signed.png"]
    theirs = [".tmp-a.png", ".tmp-", ".tmp-0123", ".tmp-0123456789ABCDEF.png", f"{HALF}.bak"]
    theirs += [".tmp-0123456789abcdef0.png", "x.tmp-0123456789abcdef.png", f"{HALF[:-4]}@2.png"]
    kept = [f"faces/{name}" for name in theirs] + [f"mine/{HALF}", f"mine/faces/{HALF}"]
    kept += ["faces/.tmp-x/a.png", f"faces/{HALF[:-5]}e.png/x.png"]  # in folders of such names
    for path in (*ours, *kept):
        write_bytes(space.root / path, b"half")
    (space.root / "faces" / ".tmp-1111111111111111.png").symlink_to("../../outside/x")
    os.mkfifo(space.root / "faces" / ".tmp-2222222222222222")
    (space.root / "masks").symlink_to("../outside")  # in which there is one, too
    with untouched(outside):
        go(space, raw / "a.png")
    assert not [path for path in ours if (space.root / path).exists()]
    assert not [path for path in kept if not (space.root / path).exists()]
    assert (space.root / "faces" / ".tmp-1111111111111111.png").is_symlink()
    assert (space.root / "faces" / ".tmp-2222222222222222").exists()


def test_nothing_goes_when_nothing_matched(small, tmp_path):
    write_bytes(small.root / "faces" / HALF, b"half")
    semedit_b("pose", "nobody", "--work", small.root, code=4)
    semedit_b("align", tmp_path / "nothing", "--work", small.root, code=4)
    semedit_b("pose", "--dry-run", "--work", small.root)
    assert (small.root / "faces" / HALF).exists()
    semedit_b("pose", "--work", small.root)
    assert not (small.root / "faces" / HALF).exists()


@pytest.mark.parametrize("inner", ["inner", "faces/inner", "faces/deep/inner", "edits"])
def test_a_workspace_within_one_is_left_alone(space, raw, inner):
    """Another process is at work there."""
    script = (
        "import sys; from pathlib import Path; from semedit.batch.workspace import Workspace\n"
        "with Workspace(Path(sys.argv[1])).locked(make=True): print('in', flush=True); input()"
    )
    other = space.root / inner
    with subprocess.Popen(
        [sys.executable, "-c", script, str(other)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    ) as process:  # fmt: skip
        assert process.stdout.readline() == b"in\n"
        places = [other / "faces" / HALF, other / HALF, other / "x" / HALF]
        for path in places:
            write_bytes(path, b"half")
        go(space, raw / "a.png")
        assert all(path.exists() for path in places)
        process.communicate(b"\n")


def test_a_folder_called_like_a_leftover_breaks_nothing(raw, space):
    for folder in (".tmp-x", HALF[:-4]):
        write_image(raw / folder / "c.png", np.full((8, 8, 3), 9, np.uint8), mark=False)
    for _ in range(2):
        assert len(go(space, raw).statuses) == 4
    assert space.path("faces", ".tmp-x/c", ".png").is_file()


@pytest.mark.parametrize(
    "name",
    [".tmp-a.png", ".tmp-x.v2.jpg", HALF, f"{HALF}-signed.png", f"{HALF[:-4]}.v2.png", HALF[:-4]],
)
def test_a_photograph_called_like_a_leftover_keeps_its_results(raw, space, name):
    with (raw / name).open("wb") as file:
        Image.new("RGB", (8, 8), "red").save(file, "PNG")
    for expected in ("done", "uptodate"):
        watch = go(space, raw / name)
        assert list(watch.statuses.values()) == [expected]
    (outcome,) = watch.outcomes.values()
    assert all((space.root / path).is_file() for path in outcome.outputs)
    assert not [path for path in outcome.outputs if is_temporary(Path(path).name)]


def test_names_that_are_mended_do_not_collide(raw, space):
    for name in (HALF, f"{HALF[:-4]}_.png"):
        shutil.copyfile(raw / "a.png", raw / name)
    found = photographs([raw / HALF, raw / f"{HALF[:-4]}_.png"], space)
    assert len({one.name for one in found}) == 2


def test_what_is_being_written_is_no_face(space):
    write_bytes(space.root / "faces" / ".tmp-0123456789abcdef.json", b"{")
    with pytest.raises(NothingMatchedError):
        space.faces()


# Shards ------------------------------------------------------------------------------------------
def test_shards_of_several_counts_are_told_of(space, caplog):
    other = Workspace(space.root)
    with space.locked(make=True, shard="1/2"):
        _held.clear()  # as another process sees it
        with other.locked(shard="2/2"):
            assert not caplog.text
        _held.clear()
        with other.locked(shard="1/3"):
            assert "shard 1/3 runs beside shard 1/2" in caplog.text
    caplog.clear()
    _held.clear()
    with space.locked(shard=str(Shard(1, 3))):  # the locks of the others are there, but not held
        assert not caplog.text


# --- 4. Damaged and hostile records, receipts, latents, steps ----------------------------------


HERE = Path(__file__).parent


INVERT = ("invert", "-o", "steps=0", "-o", "tune_steps=0")


TURN = ("turntable", "--frames", "2")


MUTATED = 20  # of each kind of file


@pytest.fixture(autouse=True)
def closed():
    yield
    decoding.close()


def semedit_c(work, *arguments, codes=(3,)):
    """Run a command on a workspace: its outcomes, name -> JSON line; the summary under None."""
    result = CliRunner().invoke(app, [*map(str, arguments), "--work", str(work), "--json"])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code in codes, result.output
    return {line.get("name"): line for line in map(json.loads, result.stdout.splitlines())}


def surroundings(folder):
    """What is in a folder beside the workspace: path -> kind, size and digest."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if not path.is_relative_to(folder / "work"):
            content = path.read_bytes() if path.is_file() else b""
            found[path] = (path.lstat().st_mode, len(content), hashlib.sha256(content).hexdigest())
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A workspace of one face, `good`, inverted and turned, and what lies beside it."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "raw").mkdir()
    shutil.copyfile(examples()[0], folder / "raw" / "good.png")
    (folder / "precious.txt").write_text("not to be touched")
    for command in (("align", folder / "raw"), INVERT, TURN):
        semedit_c(folder / "work", *command, codes=(0,))
    return folder


@pytest.fixture
def folder(made, tmp_path):
    """A copy of it, of this test's own; afterwards nothing outside the workspace is changed."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    before = surroundings(tmp_path)
    yield tmp_path
    assert surroundings(tmp_path) == before


def face(work, name):
    """One more face, like `good`."""
    for kind, suffix in (("faces", ".png"), ("masks", ".png"), ("latents", ".safetensors")):
        shutil.copyfile(work / kind / f"good{suffix}", work / kind / f"{name}{suffix}")
    record = json.loads((work / "faces/good.json").read_text())
    (work / "faces" / f"{name}.json").write_text(json.dumps({**record, "name": name}))


def put(path, content):
    """A file of some bytes, or what a function makes at a path that is free."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    content(path) if callable(content) else path.write_bytes(content)


def sparse(path):
    with path.open("wb") as file:
        file.truncate(20_000_000_000)


# What is in the place of a file, whatever file that is.
PLACES = {
    "pipe": os.mkfifo,
    "endless": lambda path: path.symlink_to("/dev/zero"),
    "waiting": lambda path: path.symlink_to("/proc/kmsg"),
    "sparse": sparse,
    "loop": lambda path: path.symlink_to(path),
    "dangling": lambda path: path.symlink_to("nowhere"),
    "empty": b"",
    "brackets": b"[" * 100_000,
    "tables": b'{"a":' * 100_000,
    "noise": random.Random(0).randbytes(5000),
    "number": b"1" * 100_000,
}


def in_place(record):
    """A record with some changes."""
    return lambda **changes: json.dumps({**record, **changes}).encode()


# Face records ------------------------------------------------------------------------------------
def records(work):
    changed = in_place(json.loads((work / "faces/good.json").read_text()))
    return {
        **PLACES,
        "long-c": changed(c=[0.0] * 1000),
        "nan-c": changed(c=[float("nan")] * 25),
        "no-camera": changed(c=[1.0] * 25),
        "huge-c": changed(c=[1e300] * 25),
        "integer": changed(c=[10**400] * 25),
        "inf": changed(quad=[[float("inf")] * 2] * 4),
        "backends": changed(backends=3),
        "flags": changed(flags=[[]]),
        "attributes": changed(attributes={"smiling": {}}),
        "size": changed(size="256"),
        "name": changed(name="a\0b"),
        "long": changed(name="n" * 5000),
        "version": changed(version=[]),
        "landmarks": changed(landmarks=[["a", "b"]] * 68),
    }


def test_a_hostile_record_is_its_face_s_error(folder):
    work = folder / "work"
    made = records(work)
    for name, content in made.items():
        face(work, name)
        put(work / "faces" / f"{name}.json", content)
    found = semedit_c(work, *INVERT)
    assert {n: found[n]["status"] for n in made} == dict.fromkeys(made, "error")
    assert found["good"]["status"] == "uptodate"
    assert all(found[name]["error"]["code"] == "input" for name in made)
    assert semedit_c(work, *INVERT, "--retry-failed")[None]["error"] == len(made)
    found = semedit_c(work, "pose")
    assert found["good"]["status"] == "done" and found[None]["error"] == len(made)


# Latents -----------------------------------------------------------------------------------------
class Parts:
    """The tensors and metadata of a latent, to be changed."""

    def __init__(self, path):
        latent = latents.load(path)
        self.tensors = {f"code.{k}": v for k, v in latent.codes.items()} | {"c": latent.c}
        self.metadata = {
            "kind": "latent",
            "generator": latent.generator,
            "fingerprint": latent.fingerprint,
            "method": latent.method,
        }

    def __call__(self, tensors=(), **metadata):
        return save({**self.tensors, **dict(tensors)}, {**self.metadata, **metadata})

    def every(self, change):
        return self({k: change(v).contiguous() for k, v in self.tensors.items()})


def hostile_latents(work):
    parts = Parts(work / "latents/good.safetensors")
    whole = parts()
    far = parts.tensors["c"].clone()
    far[0, 3] = 1e30
    return {
        **PLACES,
        "whole-numbers": parts.every(lambda v: v.long()),
        "halves": parts.every(lambda v: v.half()),
        "bits": parts.every(lambda v: v > 0),
        "small-floats": parts.every(lambda v: v.to(torch.float8_e4m3fn)),
        "zero-c": parts({"c": torch.zeros(1, 25)}),
        "huge-c": parts({"c": torch.full((1, 25), 1e30)}),
        "far-c": parts({"c": far}),
        "nan-code": parts.every(lambda v: v * float("nan")),
        "huge-codes": parts({k: v * 1e30 for k, v in parts.tensors.items() if k != "c"}),
        "nobody": parts.every(lambda v: v[:0]),
        "crowd": parts.every(lambda v: v.repeat(3, *[1] * (v.ndim - 1))),
        "flat-c": parts({"c": torch.zeros(25)}),
        "scalar": parts({"c": torch.tensor(1.0)}),
        "unequal": parts({"c": parts.tensors["c"].repeat(2, 1)}),
        "half-a-composite": parts({"composite.image": torch.zeros(1, 3, 128, 128).half()}),
        "odd-composite": parts(
            {
                "composite.image": torch.zeros(1, 3, 8, 8).half(),
                "composite.mask": torch.zeros(1, 1, 8, 8).half(),
            }
        ),
        "style-alone": parts({"code.style": torch.zeros(1, 3, 4, 8)}),
        "strange": parts({"tuned.nothing": torch.zeros(1, 3).half()}),
        "meta-list": parts(meta="[]"),
        "meta-deep": parts(meta="[" * 100_000),
        "meta-nested": parts(meta='{"a":' * 500 + "1" + "}" * 500),
        "meta-huge": parts(meta='{"loss": 1e999}'),
        "other": parts(generator="g" * 100_000),
        "cut": whole[:-9],
        "long-header": struct.pack("<Q", 1 << 62) + whole[8:],
        "header": struct.pack("<Q", 90_000_000) + b"{" * 90_000_000,
    }


def test_a_hostile_latent_is_its_face_s_error(folder):
    work = folder / "work"
    made = hostile_latents(work)
    for name, content in made.items():
        face(work, name)
        put(work / "latents" / f"{name}.safetensors", content)
    found = semedit_c(work, *TURN)
    assert {n: found[n]["status"] for n in made} == dict.fromkeys(made, "error")
    assert found["good"]["status"] == "uptodate"
    assert max(len(found[name]["error"]["message"]) for name in made) < 5000
    found = semedit_c(work, "attr", "--smiling", "-o", "steps=1", "--batch", "8")
    assert found["good/01-smiling"]["status"] == "done" and found[None]["error"] == len(made)


# Receipts and steps ------------------------------------------------------------------------------
def receipts(work):
    changed = in_place(json.loads((work / "receipts/pose/good.json").read_text()))
    return {
        **{k: v for k, v in PLACES.items() if k != "loop"},
        "no-inputs": changed(inputs={}, outputs={"": "x"}),
        "null": changed(inputs={"latent": None}),
        "numbers": changed(inputs={"latent": [1, 2]}),
        "status": changed(status="perhaps"),
        "odd-status": changed(status=["done"]),
        "failed": changed(status="error", error=None),
        "odd-error": changed(status="error", error="no"),
        "nul": changed(outputs={"faces/a\0b.json": "0"}),
        "long-output": changed(outputs={"x" * 5000: "0"}),
        "digest": changed(outputs={"faces/good.json": [[]]}),
        "warnings": changed(warnings=[3]),
        "batch": changed(batch=[[[], {}]]),
        "figures": changed(figures=[]),
        "format": changed(format=True),
        "name": changed(format=2, name="n" * 5000, command=7),
    }


def test_a_hostile_receipt_is_none(folder):
    work = folder / "work"
    semedit_c(work, "pose", codes=(0,))
    made = receipts(work)
    for name, content in made.items():
        face(work, name)
        put(work / "receipts/pose" / f"{name}.json", content)
    plan = semedit_c(work, "pose", "--dry-run", codes=(0,))[None]
    assert (plan["todo"], plan["refused"], plan["uptodate"]) == (len(made) - 1, 1, 1)
    found = semedit_c(work, "pose")
    assert {name for name in made if found[name]["status"] != "done"} == {"pipe"}  # in the way
    assert semedit_c(work, "pose")[None]["uptodate"] == len(made)


def test_a_folder_in_the_place_of_a_file_is_its_face_s_error(folder):
    work = folder / "work"
    for name in ("receipt", "output"):
        face(work, name)
    (work / "receipts/turntable-gif/receipt.json").mkdir()
    (work / "turntables/output.gif").mkdir()
    for _ in range(2):
        found = semedit_c(work, *TURN)
        assert found["receipt"]["status"] == found["output"]["status"] == "error"
        assert "in the way" in found["output"]["error"]["message"]


@pytest.mark.parametrize("steps", [1, 2])
def test_steps_that_are_made_of_themselves(folder, steps):
    work = folder / "work"
    smile = ("attr", "--smiling", "-o", "steps=1", "--dry-run")
    names = [f"good/0{i + 1}-round" for i in range(steps)]
    face(work, "other")
    receipt = json.loads((work / "receipts/turntable-gif/good.json").read_text())
    for i, name in enumerate(names):
        path = work / "edits" / f"{name}.safetensors"
        put(path, (work / "latents/good.safetensors").read_bytes())
        parent = f"edits/{names[i - 1]}.safetensors"
        own = {"inputs": {"latent": [parent, reading.digest(path)]}, "name": name, "outputs": {}}
        put(work / "receipts/edit" / f"{name}.json", json.dumps({**receipt, **own}).encode())
    put(work / "edits/good/01abc-odd.safetensors", b"no step")
    for more in ((), ("--from", "latents")):  # their receipts do not count, so they are no steps
        plan = semedit_c(work, *smile, *more, codes=(0,))[None]
        assert (plan["refused"], plan["todo"]) == (0, 2)
    found = semedit_c(work, *TURN, codes=(0,))
    assert found["good"]["status"] == "uptodate"
    assert found["other"]["status"] == "done"


def test_an_unreadable_output_is_its_item_s_error(tmp_path, monkeypatch):
    """Whoever runs this may read everything, so the system's refusal is played."""
    space = Workspace(tmp_path)
    put(tmp_path / "in.txt", b"in")
    put(tmp_path / "faces/a.txt", b"out")
    item = Item("a", {"photo": tmp_path / "in.txt"})
    run = Run(space, "grey")
    receipt = {"format": 1, "status": "done", "inputs": {}, "warnings": [], "figures": {}}
    receipt |= {"fingerprint": "old", "outputs": {"faces/a.txt": "0"}, "error": None, "batch": []}
    assert reading.misfit(receipt, RECEIPT) is None
    put(space.receipt_path("grey", "a"), json.dumps(receipt).encode())
    before = os.open

    def refuse(path, *rest, **more):
        if str(path).endswith("faces/a.txt"):
            raise PermissionError(13, "Permission denied")
        return before(path, *rest, **more)

    monkeypatch.setattr(os, "open", refuse)
    from grey_task import Watch

    from semedit.batch import for_each

    watch = Watch()
    for_each(run, [item], lambda item: None, lambda *_: [], watch)
    assert watch.statuses == {"a": "error"}
    assert "Permission denied" in watch.outcomes["a"].error["message"]
    assert (tmp_path / "faces/a.txt").read_bytes() == b"out"


# Ends --------------------------------------------------------------------------------------------
def test_sigterm_ends_a_run_that_waits(tmp_path):
    """A thread waits for what never comes; so would one that reads a disk that is gone."""
    script = (
        "import os, sys, threading, time; import semedit.cli, signal\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "semedit.cli.GRACE = 0.5\n"
        "signal.signal(signal.SIGTERM, semedit.cli._terminate)\n"
        "with ThreadPoolExecutor() as pool:\n"
        "    waiting = pool.submit(open, sys.argv[1])\n"
        "    print('in', flush=True); waiting.result()"
    )
    os.mkfifo(tmp_path / "pipe")
    process = subprocess.Popen(
        [sys.executable, "-c", script, tmp_path / "pipe"],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(HERE.parent)},
    )
    assert process.stdout.readline() == b"in\n"
    started = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 143 and time.monotonic() - started < 15
    process.stdout.close()


# Mutations ---------------------------------------------------------------------------------------
JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, -1, 2**63, 10**400, 1e300, float("nan"), float("-inf")]),
    st.sampled_from(["", "\0", "n" * 5000, "\ud800", "../../precious.txt", "/etc/passwd", "\x1b["]),
    st.recursive(
        st.text(max_size=4),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
        max_leaves=8,
    ),
)


def places(value, path=()):
    """Every place in a value of JSON, as the keys that lead there; of long lists the first."""
    inside = value.items() if isinstance(value, dict) else enumerate(value[:3])
    for key, one in inside:
        yield (*path, key)
        if isinstance(one, dict | list):
            yield from places(one, (*path, key))


@st.composite
def mutated_json(draw, value):
    """A record in which one to three places hold junk, or nothing at all; or cut short."""
    value = copy.deepcopy(value)
    for path in draw(st.lists(st.sampled_from(list(places(value))), min_size=1, max_size=3)):
        inner = value
        try:
            for key in path[:-1]:
                inner = inner[key]
            if draw(st.booleans()):
                inner[path[-1]] = draw(JUNK)
            else:
                del inner[path[-1]]
        except (LookupError, TypeError):  # that place is gone
            continue
    text = json.dumps(value).encode()
    return text[: draw(st.integers(1, len(text)))] if draw(st.integers(0, 4)) == 0 else text


@st.composite
def mutated_bytes(draw, data, most):
    """Bytes in which one to eight of the first `most` are others."""
    found = bytearray(data)
    for place in draw(st.lists(st.integers(0, min(most, len(data)) - 1), min_size=1, max_size=8)):
        found[place] = draw(st.integers(0, 255))
    return bytes(found)


@st.composite
def mutated_latent(draw, parts):
    """A latent with a tensor of another type, shape or value, other metadata, or other bytes."""
    tensors = dict(parts.tensors)
    name = draw(st.sampled_from(sorted(tensors)))
    value = tensors[name].to(draw(st.sampled_from([torch.float32, torch.float64, torch.int8])))
    shape = draw(st.sampled_from([value.shape, value.shape[1:], (0, *value.shape[1:]), (2, 2)]))
    filling = draw(st.sampled_from([0, 1, -1, 100, float("nan")]))
    if shape != value.shape or draw(st.booleans()):
        value = torch.full(tuple(shape), filling).to(value.dtype)
    tensors[name] = value.contiguous()
    data = parts(tensors, meta=json.dumps(draw(JUNK)))
    length = int.from_bytes(data[:8], "little")
    return draw(st.just(data) | mutated_bytes(data, 8 + length))


def twenty(strategy):
    """Different examples of a strategy, the same in every run."""
    found = {}

    @settings(
        max_examples=3 * MUTATED,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def keep(one):
        found.setdefault(one)

    keep()
    assert len(found) >= MUTATED
    return {f"m{i}": one for i, one in enumerate(list(found)[-MUTATED:])}


def test_mutated_records(folder):
    work = folder / "work"
    made = twenty(mutated_json(json.loads((work / "faces/good.json").read_text())))
    for name, content in made.items():
        face(work, name)
        put(work / "faces" / f"{name}.json", content)
    for command in (INVERT, ("pose",)):
        found = semedit_c(work, *command, codes=(0, 3))
        assert found[None]["total"] == MUTATED + 1
        assert found["good"]["status"] in ("done", "uptodate")


def test_mutated_latents(folder):
    work = folder / "work"
    made = twenty(mutated_latent(Parts(work / "latents/good.safetensors")))
    for name, content in made.items():
        face(work, name)
        put(work / "latents" / f"{name}.safetensors", content)
    for command in (TURN, ("mesh", "--resolution", "32")):
        found = semedit_c(work, *command, codes=(0, 3))
        assert found[None]["total"] == MUTATED + 1
        assert found["good"]["status"] in ("done", "uptodate")


def test_mutated_receipts(folder):
    """Of items, and of steps that the latent of an item may be."""
    work = folder / "work"
    semedit_c(work, "pose", codes=(0,))
    receipt = json.loads((work / "receipts/pose/good.json").read_text())
    receipt["inputs"]["latent"] = ["latents/good.safetensors", "0"]
    for name, content in twenty(mutated_json(receipt)).items():
        face(work, name)
        put(work / "receipts/pose" / f"{name}.json", content)
        put(work / "receipts/edit" / name / "01-x.json", content)
        step = work / "edits" / name / "01-x.safetensors"
        put(step, (work / "latents/good.safetensors").read_bytes())
    pose, dry = ("pose",), ("--dry-run",)
    for command in ((*TURN, *dry), (*pose, *dry), pose, (*pose, "--overwrite")):
        found = semedit_c(work, *command, codes=(0, 3))
        assert found[None]["total"] == MUTATED + 1


def test_mutated_settings(folder, monkeypatch):
    monkeypatch.chdir(folder)
    text = b'seed = 1\njobs = 1\n[align]\nfaces = "all"\nsize = 256\n[turntable]\nfps = 9.5\n'
    for content in twenty(mutated_bytes(text, len(text))).values():
        put(folder / "semedit.toml", content)
        semedit_c(folder / "work", *TURN, "--dry-run", codes=(0, 1, 2, 3))
    (folder / "semedit.toml").unlink()


@pytest.mark.parametrize("name", sorted(PLACES))
def test_settings_and_recipes_that_are_no_files(folder, monkeypatch, name):
    """Where a file is no regular one, that is said; it does not pass for no settings."""
    monkeypatch.chdir(folder)
    put(folder / "semedit.toml", PLACES[name])
    if name in ("pipe", "endless", "loop", "dangling"):
        told = semedit_d(*TURN, "--dry-run", "--work", folder / "work", codes=(2,))
        assert "error: semedit.toml is no regular file" in told
    else:
        semedit_c(folder / "work", *TURN, "--dry-run", codes=(0, 1, 2))
    (folder / "semedit.toml").rename(folder / "recipe.toml")
    semedit_c(folder / "work", "run", "recipe.toml", codes=(1, 2))
    (folder / "recipe.toml").unlink()


def hollow(path, kind, **metadata):
    """A weight file that says odd things of itself."""
    save_file({"smiling/ws": torch.ones(1, 4)}, str(path), {"kind": kind, **metadata})
    return path


CONFIGURATIONS = {
    "none": {},
    "text": {"config": "plain"},
    "list": {"config": "[1, 2]"},
    "brackets": {"config": "[" * 100_000},
    "unknown": {"config": '{"colour": "red"}'},
    "texts": {"config": '{"resolution": "large"}'},
    "negative": {"config": '{"resolution": -4}'},
}


@pytest.mark.parametrize("name", CONFIGURATIONS)
@pytest.mark.parametrize("kind", ["triplane", "stylegan2", "l2sae"])
def test_weights_that_describe_themselves_oddly(folder, kind, name):
    path = hollow(folder / "odd.safetensors", kind, **CONFIGURATIONS[name])
    told = semedit_d("invert", "-w", path, "--work", folder / "work", codes=(1, 2, 3))
    assert "Traceback" not in told
    with pytest.raises(WeightsError):
        load_generator(str(path))
    path.unlink()


@pytest.mark.parametrize("encoder", ["../../etc/passwd", "a/b", "", "\0", "x" * 5000])
def test_weights_that_name_an_odd_encoder(tmp_path, encoder):
    path = hollow(tmp_path / "odd.safetensors", "triplane", encoder=encoder)
    with pytest.raises(WeightsError):
        load_generator(str(path))


GOOD = {"config": '{"generator": "tiny", "fingerprint": "00"}', "figures": "{}"}


@pytest.mark.parametrize(
    "changed",
    [{"config": "{}"}, {"config": "[]"}, {"config": "[" * 100_000}, {"figures": "3"},
     {"config": '{"generator": 3, "fingerprint": "00"}'}, {"config": "nothing"}],
)  # fmt: skip
def test_directions_that_are_damaged(tmp_path, changed):
    path = hollow(tmp_path / "odd.safetensors", "directions", **{**GOOD, **changed})
    with pytest.raises(LatentError, match="holds damaged directions"):
        read_directions(path)


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_directions_that_lead_nowhere(tmp_path, value):
    path = tmp_path / "odd.safetensors"
    save_file({"smiling/ws": torch.full((1, 4), value)}, str(path), {"kind": "directions", **GOOD})
    with pytest.raises(LatentError, match="zero or not finite"):
        read_directions(path)
    save_file({"smiling": torch.ones(4)}, str(path), {"kind": "directions", **GOOD})
    with pytest.raises(LatentError, match="holds damaged directions"):
        read_directions(path)


@given(st.recursive(JUNK, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
@settings(max_examples=60, deadline=None, derandomize=True, database=None)
def test_any_json_is_of_its_kind_or_refused(value):
    for kind in (RECEIPT, reading.plain, {reading.path: [float]}, (int, str), [reading.Maybe(str)]):
        text = json.dumps(value).encode()
        try:
            found = reading.parse(text, kind)
        except ValueError:
            continue
        assert reading.misfit(found, kind) is None


@pytest.mark.parametrize("name", sorted(PLACES))
def test_the_opener_reads_whole_small_files_or_none(tmp_path, name):
    put(tmp_path / "a", PLACES[name])
    try:
        found = reading.read(tmp_path / "a")
    except InputError as error:
        assert name in ("pipe", "endless", "sparse", "loop", "dangling", "waiting"), error
    else:
        assert found == (b"" if name == "waiting" else PLACES[name])


# --- 5, 6, 8. Settings files, full disks, damaged weights and checkpoints, valid JSON ----------


USUAL = 0, 1, 2, 3, 4, 11  # exit codes


def semedit_d(*arguments, codes=(1, 2), **environment):
    """Run a command that must end with one of these codes, without a traceback; its output."""
    result = CliRunner().invoke(app, [str(a) for a in arguments], env=environment)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code in codes, result.output
    if result.exit_code in (1, 2):
        told = [line for line in result.output.splitlines() if line.startswith("error: ")]
        assert len(told) == 1, result.output
    return result.output


def snapshot_d(folder):
    """What lies below a folder: path -> size and digest, or where a link leads."""
    found = {}
    for place, folders, names in os.walk(folder):
        for path in (Path(place, name) for name in (*folders, *names)):
            if path.is_symlink():
                found[str(path)] = str(path.readlink())
            elif path.is_file():
                content = path.read_bytes()
                found[str(path)] = (len(content), hashlib.sha256(content).hexdigest())
            else:
                found[str(path)] = "folder or other"
    return found


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder, a stranger's: a picture, and a link that leads out; a home beside it."""
    folder, home = tmp_path / "here", tmp_path / "home"
    (folder / "raw").mkdir(parents=True)
    (home / ".config" / "semedit").mkdir(parents=True)
    Image.fromarray(np.full((8, 8, 3), 90, np.uint8)).save(folder / "raw" / "nobody.png")
    (folder / "out").symlink_to(tmp_path)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.chdir(folder)
    return folder


@contextlib.contextmanager
def full_disk(least=512):
    """No file grows beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (least, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


# Settings ----------------------------------------------------------------------------------------
ELSEWHERE = (
    'engine = "ray"',
    'address = "10.0.0.1:6379"',
    "overwrite = true",
    'work = "/tmp/x"',
    'work = "../x"',
    'work = "~/x"',
    'work = "a/../../x"',
    'work = "out/x"',
    'generator = "/tmp/x.safetensors"',
    '[invert]\ngenerator = "~/x.safetensors"',
    '[invert]\noptions = ["start_from=/tmp/x"]',
    '[invert]\noptions = { start_from = "~/x" }',
    '[edit]\nmask = "../masks"',
    '[edit]\nstyle-from = "out/a.png"',
    '[train]\ndata-folder = "/data"',
    '[train]\nrun = "out"',
    '[eval.ide3d]\nencoder = ["a=/tmp/x"]',
    '[directions.fit]\nout = "/tmp/x"',
)


@pytest.mark.parametrize("text", ELSEWHERE)
def test_the_folders_settings_cannot_set_what_is_the_users(here, tmp_path, text):
    (here / "semedit.toml").write_text(text + "\n")
    before = snapshot_d(tmp_path)
    told = semedit_d("align", "raw", codes=(2,))
    assert "semedit.toml: the settings of a folder cannot set" in told and "config.toml" in told
    assert snapshot_d(tmp_path) == before


def test_the_user_can_set_it_all(here, tmp_path):
    own = tmp_path / "home" / ".config" / "semedit" / "config.toml"
    own.write_text(f'work = "{tmp_path}/other"\noverwrite = true\n')
    lines = semedit_d("align", "raw", "--dry-run", "--json", codes=(0,))
    assert f"settings: {own}" in lines
    semedit_d("align", "raw", codes=(0,))
    assert (tmp_path / "other" / "receipts").is_dir() and not (here / "semedit-work").exists()


def test_which_file_counts_is_said_once(here, tmp_path):
    own = tmp_path / "home" / ".config" / "semedit" / "config.toml"
    own.write_text("seed = 1\n")
    (here / "semedit.toml").write_text('work = "inside"\n')
    recipe = here / "r.toml"
    recipe.write_text('inputs = ["raw"]\n[[step]]\ncommand = "align"\n[[step]]\ncommand = "pose"\n')
    told = semedit_d("run", recipe, codes=(4,))
    assert told.count("settings:") == 1
    assert f"settings: semedit.toml, then {own}" in told
    assert (here / "inside" / "receipts").is_dir()
    (here / "semedit.toml").unlink()
    own.unlink()
    assert "settings:" not in semedit_d("methods", "hybrid", codes=(0,))


ODD = (
    "[weights]\nlist = 3\n",
    "[[align]]\nsize = 100\n",
    "[align.size]\na = 1\n",
    "[align]\nsize = [100, 200]\n",
    "[align]\nsize = true\n",
    "[align]\nparse = 'perhaps'\n",
    "[align]\nwork = 3\n",
    "[align]\nwork = 'a\\u0000b'\n".replace("'", '"'),
    "[align]\nsize = 1e400\n",
    f"[align]\nsize = 0x{'f' * 6000}\n",
    f"[align]\nsize = {'1' * 6000}\n",
    "[align]\nfaces = 2020-01-01\n",
    "[turntable]\nyaw_deg = nan\n",
    "[invert]\noptions = [['steps=2']]\n",
    "[invert]\noptions = { steps = { a = 1 } }\n",
    f"device = {'[' * 50_000}\n",
    f"{'a.' * 5_000}b = 1\n",
    f"{'a' * 100_000} = 1\n",
    "#" * (2 << 20),
)


@pytest.mark.parametrize("text", [*ODD, b"device = '\xff'\n", b"\0\0\0\0"])
def test_odd_settings_are_one_line(here, text):
    (here / "semedit.toml").write_bytes(text if isinstance(text, bytes) else text.encode())
    told = semedit_d("align", "raw", codes=(2,))
    assert "semedit.toml: " in told and len(told) < 5000
    assert not (here / "semedit-work").exists()


STEP = '[[step]]\ncommand = "align"\n'


ODD_RECIPES = (
    "step = [1]\n",
    "step = ['ab']\n",
    "step = 3\n",
    "step = [[]]\n",
    "[step]\ncommand = 'align'\n",
    "[[step]]\ncommand = ['align']\n",
    "[[step]]\ncommand = { a = 1 }\n",
    "[[step]]\n",
    f"inputs = [['raw']]\n{STEP}",
    f"inputs = {{ a = 1 }}\n{STEP}",
    f"{STEP}size = [100, 200]\n",
    f"{STEP}size = {{ a = 1 }}\n",
    f"{STEP}detect = true\n",
    f"{STEP}overwrite = 'yes'\n",
    f'{STEP}work = "a\\u0000b"\n',
    f"{STEP}size = inf\n",
    f"device = {'[' * 50_000}\n{STEP}",
    "#" * (2 << 20),
)


@pytest.mark.parametrize("text", ODD_RECIPES)
def test_odd_recipes_are_one_line(here, text):
    (here / "r.toml").write_text(text)
    told = semedit_d("run", "r.toml", codes=(2,))
    assert "r.toml" in told and len(told) < 5000
    assert not (here / "semedit-work").exists()


@pytest.mark.parametrize("path", ["none", "raw", "/dev/zero", "a" * 300, "raw/nobody.png/x"])
def test_what_is_no_recipe_is_one_line(here, path):
    semedit_d("run", path, codes=(2,))


plain = st.one_of(
    st.booleans(), st.integers(), st.floats(), st.text(max_size=9), st.sampled_from(["..", "~/x"])
)


values = st.recursive(
    plain,
    lambda of: st.lists(of, max_size=3) | st.dictionaries(st.text(max_size=3), of, max_size=3),
)


tables = st.dictionaries(
    st.sampled_from(["align", "invert", "edit", "weights", "step", "inputs", "device", "size"]),
    values | st.dictionaries(st.sampled_from(["size", "list", "work", "mask", "command"]), values),
    max_size=4,
)


def toml(value):
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value).replace("NaN", "nan").replace("Infinity", "inf")


@settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(found=tables)
def test_random_settings_and_recipes_never_end_in_a_traceback(here, found):
    text = "\n".join(f"{json.dumps(k)} = {toml(v)}" for k, v in found.items())
    file, recipe = here / "semedit.toml", here / "r.toml"
    try:
        before = snapshot_d(here.parent)
        file.write_text(text, "utf-8")
        semedit_d("methods", "hybrid", codes=(0, 2))
        file.unlink()
        recipe.write_text(text, "utf-8")
        semedit_d("run", recipe, "--dry-run", codes=(0, 2, 4))
        recipe.unlink()
        assert snapshot_d(here.parent) == before
    finally:
        file.unlink(missing_ok=True)
        recipe.unlink(missing_ok=True)


# ~ -----------------------------------------------------------------------------------------------
def test_home_is_meant_wherever_a_path_comes_from(here, tmp_path, monkeypatch):
    home = tmp_path / "home"
    recipe = here / "r.toml"
    recipe.write_text(f'inputs = ["~/../here/raw"]\nwork = "~/d"\n{STEP}')
    semedit_d("align", "raw", "--work=~/a", codes=(0,))
    semedit_d("align", "~/../here/raw", codes=(0,), SEMEDIT_WORK="~/b")
    semedit_d("run", recipe, codes=(0,))
    own = home / ".config" / "semedit" / "config.toml"
    own.write_text('work = "~/c"\n')
    semedit_d("align", "raw", codes=(0,))
    assert {p.name for p in home.iterdir()} == {".config", *"abcd"}
    assert (home / "d" / "recipes" / "r.toml").is_file()
    assert not (here / "~").exists() and not (here / "semedit-work").exists()
    monkeypatch.setenv("SEMEDIT_WEIGHTS", "~/w")
    assert weights.folder() == home / "w"
    expanded = common._expanded("options", ["start_from=~/x", "a=b~c", "~nobody-here/x"])
    assert expanded == [f"start_from={home}/x", "a=b~c", "~nobody-here/x"]


# Full disks, folders that cannot be written ------------------------------------------------------
def test_commands_on_a_full_disk_end_in_one_line(here, monkeypatch, shared):
    monkeypatch.setenv("SEMEDIT_WEIGHTS", str(here / "w"))
    monkeypatch.setenv("SEMEDIT_ICT", str(shared / "ict" / "ict_facekit_light.npz"))
    monkeypatch.setitem(TRAINERS, "line", Line)
    save_file({"a": torch.zeros(400)}, here / "x.safetensors")
    with full_disk():
        told = [
            semedit_d("heads", "data", "-n", 1, "--size", 32, "-j", 1, codes=(1,)),
            semedit_d("train", "line", "--data", "raw", "--kimg", 0.01, "--json", codes=(1,)),
            semedit_d("demo", "demo", codes=(1,)),
            semedit_d("weights", "add", "new", "x.safetensors", codes=(1,)),
        ]
    assert all("File too large" in one for one in told), told
    assert not [p for p in here.rglob("*") if p.name.startswith(".tmp-")]
    semedit_d("weights", "list", codes=(0,))
    semedit_d("train", "line", "--data", "raw", "--kimg", 0.01, "--json", codes=(0,))


@pytest.mark.parametrize("kind", ["file", "loop", "long", "file/below"])
def test_folders_that_cannot_be_are_one_line(here, monkeypatch, kind):
    monkeypatch.setitem(TRAINERS, "line", Line)
    (here / "file").write_text("x")
    (here / "loop").symlink_to(here / "loop")
    (here / "x.safetensors").write_bytes(weights.resolve("directions-heads-128").read_bytes())
    place = "a" * 300 if kind == "long" else kind
    semedit_d("heads", place, "-n", 1, codes=(1,))
    semedit_d("train", "line", "--data", "raw", "--run", place, "--kimg", 0.01, codes=(1,))
    semedit_d("demo", place, codes=(1,))
    semedit_d("align", "raw", "--work", place, codes=(1,))
    monkeypatch.setenv("SEMEDIT_WEIGHTS", place)
    semedit_d("weights", "add", "new", "x.safetensors", codes=(1,))
    semedit_d("weights", "list", codes=(0, 1))


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(28, "No space left on device"), "make room"),
        (OSError(30, "Read-only file system", "/mnt/x"), "/mnt/x: Read-only"),
        (PermissionError(13, "Permission denied", b"/x/\xff"), "change its permissions"),
        (OSError("encoder error -2"), "encoder error"),
        (MemoryError(), "not enough memory"),
    ],
)
def test_whatever_the_system_refuses_is_one_line(here, monkeypatch, error, says):
    def refuse(*_):
        raise error

    monkeypatch.setattr(weights, "table", refuse)
    assert says in semedit_d("weights", "list", codes=(1,))


def test_an_unreadable_folder_of_masks_is_one_line(here, monkeypatch):
    (here / "masks").mkdir(mode=0)
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.X_OK)  # as root may all
    for more in ((), ("--from", "none")):
        assert "masks cannot be read" in semedit_d("edit", "--mask", "masks", *more, codes=(2,))


def test_a_full_or_closed_stdout_shows_no_traceback(here):
    command = [sys.executable, "-P", "-m", "semedit.cli", "--help"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, env=environment)
    assert ended.returncode == 1 and ended.stderr.startswith(b"error: ")
    assert ended.stderr.count(b"\n") == 1
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, env=environment)
    os.close(writing)
    assert ended.returncode == 1 and not ended.stderr
    names = {**environment, "PYTHONIOENCODING": "ascii"}
    ended = subprocess.run(command, capture_output=True, env=names)
    assert ended.returncode == 0 and not ended.stderr


# Damaged files -----------------------------------------------------------------------------------
def mutations(path):
    """Contents that a checkpoint may have come to, by name."""
    whole = path.read_bytes()
    held = torch.load(path, weights_only=True)

    def saved(value):
        torch.save(value, path)
        return path.read_bytes()

    yield "empty", b""
    yield "cut", whole[: len(whole) // 2]
    yield "text", b"no checkpoint"
    yield "page", b"<!doctype html>"
    yield "code", b"cos\nsystem\n(S'true'\ntR."
    yield "list", saved([1, 2])
    yield "bare", saved({"record": held["record"]})
    yield "shape", saved({**held, "modules": {"line": {"weight": torch.zeros(5)}}})
    yield "odd", saved({**held, "modules": 3, "means": None})
    yield "optimiser", saved({**held, "optimisers": {"line": {"state": 3}}})
    yield "step", saved({**held, "step": "x"})
    yield "before", saved({**held, "step": -1})
    yield "nan", saved({**held, "seconds": float("nan")})
    yield "tensor", saved({**held, "record": torch.zeros(3)})


def test_a_damaged_checkpoint_is_one_line(here, monkeypatch):
    monkeypatch.setitem(TRAINERS, "line", Line)
    path = here / "run" / "checkpoint.pt"
    line = ("train", "line", "--data", "raw", "--run", "run", "--json")
    semedit_d(*line, "--kimg", 0.01, codes=(0,))
    whole = path.read_bytes()
    for name, content in list(mutations(path)):
        path.write_bytes(content)
        told = semedit_d(*line, "--kimg", 0.02, codes=(1,))
        assert "checkpoint.pt" in told and "folder for the run" in told, name
        assert path.read_bytes() == content, name
    path.unlink()
    path.mkdir()
    semedit_d(*line, "--kimg", 0.02, codes=(1,))
    path.rmdir()
    os.mkfifo(path)
    semedit_d(*line, "--kimg", 0.02, codes=(1,))
    path.unlink()
    path.write_bytes(whole)
    semedit_d(*line, "--kimg", 0.02, codes=(0,))


@pytest.mark.parametrize("text", ["", "{", "[1]", "3", "null", "[" * 100_000, b"\xff\xfe", '"x"'])
def test_a_damaged_list_of_heads_is_one_line(here, monkeypatch, text):
    content = text if isinstance(text, bytes) else text.encode()
    (here / "data").mkdir()
    (here / "data" / "heads.json").write_bytes(content)
    before = snapshot_d(here / "data")
    assert "heads.json" in semedit_d("heads", "data", "-n", 1, "-j", 1, codes=(1,))
    semedit_d("train", "faces", "--data", "data", "--kimg", 0.01, codes=(1,))
    assert snapshot_d(here / "data").items() >= before.items()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"\x93NUMPY", b"text"])
def test_a_damaged_part_of_heads_is_one_line(here, content):
    job = Job(1, 32, 0, "plain", 1)
    (here / "data" / "parts").mkdir(parents=True)
    (here / "data" / "parts" / "000000.npz").write_bytes(content)
    with pytest.raises(Exception, match=r"000000\.npz is damaged"):
        write_dataset(here / "data", job.n, job.size)
    assert "000000.npz is damaged" in semedit_d("heads", "data", "-n", 1, "--size", 32, "-j", 1)


# Weights -----------------------------------------------------------------------------------------
def test_leftovers_of_killed_imports_are_cleared_and_never_weights(here, monkeypatch):
    place = here / "w"
    place.mkdir()
    monkeypatch.setenv("SEMEDIT_WEIGHTS", str(place))
    facts = {"kind": "triplane", "source_sha256": "0" * 64}
    left = f".tmp-{'0a' * 8}"
    save_file({"a": torch.zeros(1)}, place / f"{left}.safetensors", facts)
    save_file({"a": torch.zeros(1)}, place / "odd.safetensors", facts)  # lacks licence and source
    kept = (".tmp-mine.safetensors", ".tmp-notes", f"{left}x.safetensors", f"{left}-2")
    for name in kept:
        (place / name).write_bytes(b"the user's own")
    (place / f".tmp-{'1' * 16}").mkdir()
    (place / f".tmp-{'2' * 16}.pt").symlink_to(here / "raw" / "nobody.png")
    lines = [
        json.loads(line) for line in semedit_d("weights", "list", "--json", codes=(0,)).splitlines()
    ]
    names = {line["name"] for line in lines}
    assert "odd" in names and left not in names
    semedit_d("weights", "list", codes=(0,))
    assert not weights.on_disk(left)
    assert (place / f"{left}.safetensors").is_file()  # listing changes nothing
    with weights.writing():  # another process that writes just now keeps what it has
        fresh = place / f".tmp-{'3' * 16}.safetensors"
        fresh.write_bytes(b"half")
        with weights.writing():
            assert fresh.exists()
    (here / "x.safetensors").write_bytes(weights.resolve("directions-heads-128").read_bytes())
    semedit_d("weights", "add", "new", "x.safetensors", codes=(0,))
    assert {p.name for p in place.iterdir()} == {
        *kept, "new.safetensors", "odd.safetensors", f".tmp-{'1' * 16}", f".tmp-{'2' * 16}.pt"
    }  # fmt: skip
    assert (here / "raw" / "nobody.png").is_file()


# JSON --------------------------------------------------------------------------------------------
def strict(text):
    def refuse(name):
        raise ValueError(name)

    return json.loads(text, parse_constant=refuse)


def test_all_json_is_valid(tmp_path, capsys):
    odd = {
        "a": float("nan"),
        "b": [float("inf"), (np.float64("-inf"), 1.5)],
        "c": {"d": float("nan")},
    }
    data(**odd)
    assert strict(capsys.readouterr().out) == {
        "a": None,
        "b": [None, [None, 1.5]],
        "c": {"d": None},
    }
    item = Item("x", {})
    run = Run(Workspace(tmp_path), "grey", {"level": float("nan")})
    receipt = run.receipt(item, InputDigests.of(item), Outcome("x", "done", figures=odd), {}, [])
    assert strict(receipt)["figures"]["a"] is None
    assert strict(receipt)["parameters"] == {"level": None}
    assert valid_json.dumps(np.float64("nan")) == "null"


def test_numbers_that_are_none_are_refused(here):
    for value in ("nan", "inf", "-inf"):
        told = semedit_d("turntable", f"--yaw-deg={value}", codes=(2,))
        assert "yaw_deg is not a finite number" in told
