"""Workspaces that come from anybody: what they name or link to elsewhere is neither written nor
deleted."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import grey_task
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner

from semedit.batch import Run, Shard
from semedit.batch.inputs import photographs
from semedit.batch.places import own
from semedit.batch.plan import plan
from semedit.batch.workspace import Workspace, __file__, _held
from semedit.cli.app import app
from semedit.errors import NothingMatchedError, OptionError, PlaceError, WorkspaceError
from semedit.media.files import is_temporary, write_bytes
from semedit.media.photographs import write_image
from semedit.tasks import demo
from semedit.trainers import loop

HALF = ".tmp-0123456789abcdef.png"  # as a file that is being written is called


def semedit(*arguments, code=0):
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


class Task(grey_task.Grey):
    """As `align`: writes to faces; `changed` makes what it made before out of date."""

    command = "align"
    changed = 0

    def parameters(self):
        return {"changed": self.changed}


def go(space, raw, changed=0, **settings):
    task = Task([str(raw)])
    object.__setattr__(task, "changed", changed)
    return grey_task.go(space, task, **settings)


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
            invert = ("invert", "-o", "steps=1", "-o", "tune_steps=0", "--seed", len(name))
            lines, told = semedit(*invert, "--work", small.root)
        assert lines[0]["status"] == "done"
        assert told.count("receipts/invert/a.json is not valid") == 1
    _, told = semedit("invert", "--dry-run", "--work", small.root)
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
        lines, _ = semedit(*edit, "--from", start, code=3)
        assert repr(start) in lines[0]["error"]["message"]
    with pytest.raises(OptionError):
        small.source("a", "²")


# Links -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def inverted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inverted")
    (folder / "raw").mkdir()
    shutil.copyfile(demo.examples()[0], folder / "raw" / "a.png")
    semedit("align", folder / "raw", "--work", folder / "work", "--size", 64)
    semedit("invert", "-o", "steps=1", "-o", "tune_steps=0", "--work", folder / "work")
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
        (plan_,), _ = semedit(*command, "--dry-run", "--work", small.root)
        assert plan_["refused"] == 1 and plan_["todo"] == 0
    with untouched(outside, *(p for p in small.root.iterdir() if p.is_dir())):
        lines, told = semedit(*command, "--work", small.root, code=3)
    assert lines[0]["error"]["code"] == "place" and str(outside) in told
    (small.root / folder).unlink()
    if folder in ("edits", "edits/a"):
        assert semedit(*command, "--work", small.root)[0][0]["status"] == "done"


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
            lines, _ = semedit("pose", "--overwrite", "--work", small.root)
        assert lines[0]["outputs"] == ["faces/a.json"]
        assert json.loads(path.read_text())["name"] == "a"


def test_copies_of_recipes_are_not_written_through_a_link(small, outside, tmp_path):
    recipe = tmp_path / "x"
    recipe.write_text(f'work = "{small.root}"\n[[step]]\ncommand = "pose"\n')
    (small.root / "recipes").symlink_to("../outside")
    with untouched(outside):
        _, told = semedit("run", recipe, code=1)
    assert "recipes leads out" in told
    (small.root / "recipes").unlink()
    (small.root / "recipes").mkdir()
    (small.root / "recipes" / "x").symlink_to("../../outside/x")
    with untouched(outside):
        semedit("run", recipe)


def test_the_demo_writes_through_no_link(tmp_path, outside):
    folder = tmp_path / "demo"
    (folder / "photographs").mkdir(parents=True)
    first = demo.examples()[0].name
    (folder / "photographs" / first).symlink_to(outside / "x")
    with untouched(outside):
        demo.write_photographs(folder / "photographs")
    assert (folder / "photographs" / first).read_bytes() == demo.examples()[0].read_bytes()
    (folder / "masks-drawn").symlink_to(outside)
    with untouched(outside), pytest.raises(PlaceError):
        demo.run_chain(
            folder, Workspace(folder / "work"), lambda task: None, 4, "cpu", lambda *_: None
        )


@pytest.mark.parametrize("name", [".lock", ".lock-1-of-2", ".lock-9-of-9"])
@pytest.mark.parametrize("to", ["../outside/x", "../made"])
def test_locks_are_no_links(space, outside, tmp_path, name, to):
    space.root.mkdir()
    (space.root / name).symlink_to(to)
    with untouched(outside), pytest.raises(WorkspaceError, match="it cannot be a lock"):  # noqa: SIM117
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
    semedit("pose", "nobody", "--work", small.root, code=4)
    semedit("align", tmp_path / "nothing", "--work", small.root, code=4)
    semedit("pose", "--dry-run", "--work", small.root)
    assert (small.root / "faces" / HALF).exists()
    semedit("pose", "--work", small.root)
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
