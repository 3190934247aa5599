"""Settings of a stranger's folder, full disks, damaged files: one clear line, nothing else."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file
from small_trainers import Line
from typer.testing import CliRunner

from semedit import weights
from semedit.batch.receipts import InputDigests, Item, Outcome, Run
from semedit.batch.workspace import Workspace
from semedit.cli import common
from semedit.cli.app import app
from semedit.cli.report import data
from semedit.heads.dataset import Job, write_dataset
from semedit.media import valid_json
from semedit.trainers import TRAINERS

USUAL = 0, 1, 2, 3, 4, 11  # exit codes


def semedit(*arguments, codes=(1, 2), **environment):
    """Run a command that must end with one of these codes, without a traceback; its output."""
    result = CliRunner().invoke(app, [str(a) for a in arguments], env=environment)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code in codes, result.output
    if result.exit_code in (1, 2):
        told = [line for line in result.output.splitlines() if line.startswith("error: ")]
        assert len(told) == 1, result.output
    return result.output


def snapshot(folder):
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
    before = snapshot(tmp_path)
    told = semedit("align", "raw", codes=(2,))
    assert "semedit.toml: the settings of a folder cannot set" in told and "config.toml" in told
    assert snapshot(tmp_path) == before


def test_the_user_can_set_it_all(here, tmp_path):
    own = tmp_path / "home" / ".config" / "semedit" / "config.toml"
    own.write_text(f'work = "{tmp_path}/other"\noverwrite = true\n')
    lines = semedit("align", "raw", "--dry-run", "--json", codes=(0,))
    assert f"settings: {own}" in lines
    semedit("align", "raw", codes=(0,))
    assert (tmp_path / "other" / "receipts").is_dir() and not (here / "semedit-work").exists()


def test_which_file_counts_is_said_once(here, tmp_path):
    own = tmp_path / "home" / ".config" / "semedit" / "config.toml"
    own.write_text("seed = 1\n")
    (here / "semedit.toml").write_text('work = "inside"\n')
    recipe = here / "r.toml"
    recipe.write_text('inputs = ["raw"]\n[[step]]\ncommand = "align"\n[[step]]\ncommand = "pose"\n')
    told = semedit("run", recipe, codes=(4,))
    assert told.count("settings:") == 1
    assert f"settings: semedit.toml, then {own}" in told
    assert (here / "inside" / "receipts").is_dir()
    (here / "semedit.toml").unlink()
    own.unlink()
    assert "settings:" not in semedit("methods", "hybrid", codes=(0,))


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
    told = semedit("align", "raw", codes=(2,))
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
    told = semedit("run", "r.toml", codes=(2,))
    assert "r.toml" in told and len(told) < 5000
    assert not (here / "semedit-work").exists()


@pytest.mark.parametrize("path", ["none", "raw", "/dev/zero", "a" * 300, "raw/nobody.png/x"])
def test_what_is_no_recipe_is_one_line(here, path):
    semedit("run", path, codes=(2,))


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
        before = snapshot(here.parent)
        file.write_text(text, "utf-8")
        semedit("methods", "hybrid", codes=(0, 2))
        file.unlink()
        recipe.write_text(text, "utf-8")
        semedit("run", recipe, "--dry-run", codes=(0, 2, 4))
        recipe.unlink()
        assert snapshot(here.parent) == before
    finally:
        file.unlink(missing_ok=True)
        recipe.unlink(missing_ok=True)


# ~ -----------------------------------------------------------------------------------------------


def test_home_is_meant_wherever_a_path_comes_from(here, tmp_path, monkeypatch):
    home = tmp_path / "home"
    recipe = here / "r.toml"
    recipe.write_text(f'inputs = ["~/../here/raw"]\nwork = "~/d"\n{STEP}')
    semedit("align", "raw", "--work=~/a", codes=(0,))
    semedit("align", "~/../here/raw", codes=(0,), SEMEDIT_WORK="~/b")
    semedit("run", recipe, codes=(0,))
    own = home / ".config" / "semedit" / "config.toml"
    own.write_text('work = "~/c"\n')
    semedit("align", "raw", codes=(0,))
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
            semedit("heads", "data", "-n", 1, "--size", 32, "-j", 1, codes=(1,)),
            semedit("train", "line", "--data", "raw", "--kimg", 0.01, "--json", codes=(1,)),
            semedit("demo", "demo", codes=(1,)),
            semedit("weights", "add", "new", "x.safetensors", codes=(1,)),
        ]
    assert all("File too large" in one for one in told), told
    assert not [p for p in here.rglob("*") if p.name.startswith(".tmp-")]
    semedit("weights", "list", codes=(0,))
    semedit("train", "line", "--data", "raw", "--kimg", 0.01, "--json", codes=(0,))


@pytest.mark.parametrize("kind", ["file", "loop", "long", "file/below"])
def test_folders_that_cannot_be_are_one_line(here, monkeypatch, kind):
    monkeypatch.setitem(TRAINERS, "line", Line)
    (here / "file").write_text("x")
    (here / "loop").symlink_to(here / "loop")
    (here / "x.safetensors").write_bytes(weights.resolve("directions-heads-128").read_bytes())
    place = "a" * 300 if kind == "long" else kind
    semedit("heads", place, "-n", 1, codes=(1,))
    semedit("train", "line", "--data", "raw", "--run", place, "--kimg", 0.01, codes=(1,))
    semedit("demo", place, codes=(1,))
    semedit("align", "raw", "--work", place, codes=(1,))
    monkeypatch.setenv("SEMEDIT_WEIGHTS", place)
    semedit("weights", "add", "new", "x.safetensors", codes=(1,))
    semedit("weights", "list", codes=(0, 1))


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
    assert says in semedit("weights", "list", codes=(1,))


def test_an_unreadable_folder_of_masks_is_one_line(here, monkeypatch):
    (here / "masks").mkdir(mode=0)
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.X_OK)  # as root may all
    for more in ((), ("--from", "none")):
        assert "masks cannot be read" in semedit("edit", "--mask", "masks", *more, codes=(2,))


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
    semedit(*line, "--kimg", 0.01, codes=(0,))
    whole = path.read_bytes()
    for name, content in list(mutations(path)):
        path.write_bytes(content)
        told = semedit(*line, "--kimg", 0.02, codes=(1,))
        assert "checkpoint.pt" in told and "folder for the run" in told, name
        assert path.read_bytes() == content, name
    path.unlink()
    path.mkdir()
    semedit(*line, "--kimg", 0.02, codes=(1,))
    path.rmdir()
    os.mkfifo(path)
    semedit(*line, "--kimg", 0.02, codes=(1,))
    path.unlink()
    path.write_bytes(whole)
    semedit(*line, "--kimg", 0.02, codes=(0,))


@pytest.mark.parametrize("text", ["", "{", "[1]", "3", "null", "[" * 100_000, b"\xff\xfe", '"x"'])
def test_a_damaged_list_of_heads_is_one_line(here, monkeypatch, text):
    content = text if isinstance(text, bytes) else text.encode()
    (here / "data").mkdir()
    (here / "data" / "heads.json").write_bytes(content)
    before = snapshot(here / "data")
    assert "heads.json" in semedit("heads", "data", "-n", 1, "-j", 1, codes=(1,))
    semedit("train", "faces", "--data", "data", "--kimg", 0.01, codes=(1,))
    assert snapshot(here / "data").items() >= before.items()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"\x93NUMPY", b"text"])
def test_a_damaged_part_of_heads_is_one_line(here, content):
    job = Job(1, 32, 0, "plain", 1)
    (here / "data" / "parts").mkdir(parents=True)
    (here / "data" / "parts" / "000000.npz").write_bytes(content)
    with pytest.raises(Exception, match=r"000000\.npz is damaged"):
        write_dataset(here / "data", job.n, job.size)
    assert "000000.npz is damaged" in semedit("heads", "data", "-n", 1, "--size", 32, "-j", 1)


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
        json.loads(line) for line in semedit("weights", "list", "--json", codes=(0,)).splitlines()
    ]
    names = {line["name"] for line in lines}
    assert "odd" in names and left not in names
    semedit("weights", "list", codes=(0,))
    assert not weights.on_disk(left)
    assert (place / f"{left}.safetensors").is_file()  # listing changes nothing
    with weights.writing():  # another process that writes just now keeps what it has
        fresh = place / f".tmp-{'3' * 16}.safetensors"
        fresh.write_bytes(b"half")
        with weights.writing():
            assert fresh.exists()
    (here / "x.safetensors").write_bytes(weights.resolve("directions-heads-128").read_bytes())
    semedit("weights", "add", "new", "x.safetensors", codes=(0,))
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
        told = semedit("turntable", f"--yaw-deg={value}", codes=(2,))
        assert "yaw_deg is not a finite number" in told
