"""Files of a workspace that are damaged or meant to do harm: the error is their face's alone."""

import copy
import hashlib
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from safetensors.torch import save
from typer.testing import CliRunner

from semedit import latents
from semedit.batch import Item, Run
from semedit.batch.workspace import RECEIPT, Workspace
from semedit.cli.app import app
from semedit.errors import InputError
from semedit.media import decoding, reading
from semedit.tasks.demo import examples

HERE = Path(__file__).parent
INVERT = ("invert", "-o", "steps=0", "-o", "tune_steps=0")
TURN = ("turntable", "--frames", "2")
MUTATED = 20  # of each kind of file


@pytest.fixture(autouse=True)
def closed():
    yield
    decoding.close()


def semedit(work, *arguments, codes=(3,)):
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
        semedit(folder / "work", *command, codes=(0,))
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
    found = semedit(work, *INVERT)
    assert {n: found[n]["status"] for n in made} == dict.fromkeys(made, "error")
    assert found["good"]["status"] == "uptodate"
    assert all(found[name]["error"]["code"] == "input" for name in made)
    assert semedit(work, *INVERT, "--retry-failed")[None]["error"] == len(made)
    found = semedit(work, "pose")
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
    found = semedit(work, *TURN)
    assert {n: found[n]["status"] for n in made} == dict.fromkeys(made, "error")
    assert found["good"]["status"] == "uptodate"
    assert max(len(found[name]["error"]["message"]) for name in made) < 5000
    found = semedit(work, "attr", "--smiling", "-o", "steps=1", "--batch", "8")
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
    semedit(work, "pose", codes=(0,))
    made = receipts(work)
    for name, content in made.items():
        face(work, name)
        put(work / "receipts/pose" / f"{name}.json", content)
    plan = semedit(work, "pose", "--dry-run", codes=(0,))[None]
    assert (plan["todo"], plan["uptodate"]) == (len(made), 1)
    found = semedit(work, "pose", codes=(0,))
    assert {found[name]["status"] for name in made} == {"done"}
    assert semedit(work, "pose", codes=(0,))[None]["uptodate"] == len(made) + 1


def test_a_folder_in_the_place_of_a_file_is_its_face_s_error(folder):
    work = folder / "work"
    for name in ("receipt", "output"):
        face(work, name)
    (work / "receipts/turntable-gif/receipt.json").mkdir()
    (work / "turntables/output.gif").mkdir()
    for _ in range(2):
        found = semedit(work, *TURN)
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
    for more, todo in (((), 1), (("--from", "1"), 0), (("--from", "latents"), 2)):
        plan = semedit(work, *smile, *more, codes=(0,))[None]
        assert (plan["refused"], plan["todo"]) == (2 - todo, todo)
    found = semedit(work, *TURN)
    assert "made of itself" in found["good"]["error"]["message"]
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
        found = semedit(work, *command, codes=(0, 3))
        assert found[None]["total"] == MUTATED + 1
        assert found["good"]["status"] in ("done", "uptodate")


def test_mutated_latents(folder):
    work = folder / "work"
    made = twenty(mutated_latent(Parts(work / "latents/good.safetensors")))
    for name, content in made.items():
        face(work, name)
        put(work / "latents" / f"{name}.safetensors", content)
    for command in (TURN, ("mesh", "--resolution", "32")):
        found = semedit(work, *command, codes=(0, 3))
        assert found[None]["total"] == MUTATED + 1
        assert found["good"]["status"] in ("done", "uptodate")


def test_mutated_receipts(folder):
    """Of items, and of steps that the latent of an item may be."""
    work = folder / "work"
    semedit(work, "pose", codes=(0,))
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
        found = semedit(work, *command, codes=(0, 3))
        assert found[None]["total"] == MUTATED + 1


def test_mutated_settings(folder, monkeypatch):
    monkeypatch.chdir(folder)
    text = b'seed = 1\njobs = 1\n[align]\nfaces = "all"\nsize = 256\n[turntable]\nfps = 9.5\n'
    for content in twenty(mutated_bytes(text, len(text))).values():
        put(folder / "semedit.toml", content)
        semedit(folder / "work", *TURN, "--dry-run", codes=(0, 1, 2, 3))
    (folder / "semedit.toml").unlink()


@pytest.mark.parametrize("name", sorted(PLACES))
def test_settings_and_recipes_that_are_no_files(folder, monkeypatch, name):
    """Where a file is no regular one, there are no settings."""
    if name == "loop":
        return
    monkeypatch.chdir(folder)
    put(folder / "semedit.toml", PLACES[name])
    semedit(folder / "work", *TURN, "--dry-run", codes=(0, 1, 2))
    (folder / "semedit.toml").rename(folder / "recipe.toml")
    semedit(folder / "work", "run", "recipe.toml", codes=(1, 2))
    (folder / "recipe.toml").unlink()


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
