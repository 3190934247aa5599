"""The folder loop: receipts, resume, isolated failures, chains of edits, the lock."""

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from semedit.batch import Item, Result, Run, for_each, next_step
from semedit.batch.inputs import photographs
from semedit.batch.receipts import InputDigests
from semedit.batch.workspace import Workspace
from semedit.errors import (
    InputError,
    LockedError,
    NoFaceError,
    NothingMatchedError,
    OptionError,
    TraitError,
    WorkspaceError,
)
from semedit.faces import numbered
from semedit.media.files import write_bytes


class Watch:
    """An observer that remembers."""

    def __init__(self):
        self.total, self.seen, self.outcomes = None, [], {}

    def start(self, total):
        self.total = total

    def finish(self, outcome):
        self.seen.append((outcome.name, outcome.status))
        self.outcomes[outcome.name] = outcome

    @property
    def only(self):
        (outcome,) = self.outcomes.values()
        return outcome


@pytest.fixture
def space(tmp_path):
    return Workspace(tmp_path / "work")


@pytest.fixture
def raw(tmp_path):
    folder = tmp_path / "raw"
    for name in ("a", "b", "c/d", "e"):
        write_bytes(folder / f"{name}.jpg", name.encode())
    return folder


class Upper:
    """Work for tests: writes its input in capitals; remembers the batches it was given."""

    def __init__(self, space):
        self.space, self.batches, self.read = space, [], []

    @property
    def loads(self):
        """Names of what was read, sorted: readers run side by side."""
        return sorted(self.read)

    def load(self, item):
        text = item.inputs["photo"].read_text()
        self.read.append(item.name)
        if text == "bad":
            raise InputError("a bad file", "mend it")
        return text

    def work(self, items, loaded):
        self.batches.append([item.name for item in items])
        if "nobody" in loaded:
            raise NoFaceError("no face")
        if len(loaded) > 2 and "big" in loaded:
            raise RuntimeError("CUDA out of memory")
        if loaded == ["huge"]:
            raise MemoryError
        if "bug" in loaded:
            raise RuntimeError("a bug")
        results = []
        for item, text in zip(items, loaded, strict=True):
            path = self.space.path("faces", item.name, ".txt")
            write_bytes(path, text.upper().encode())
            results.append(Result([path], ["odd"] if text == "a" else [], {"size": len(text)}))
        return results


def go(space, raw, *, batch=1, **settings):
    work, watch = Upper(space), Watch()
    items = [Item(one.name, {"photo": one.path}) for one in photographs([raw], space)]
    with space.locked(make=True):
        tally = for_each(Run(space, "align", **settings), items, work.load, work.work, watch, batch)
    assert watch.total == len(items) == len(watch.seen) == tally.total
    return watch.outcomes, work


def alone(run, item, load, work):
    """The outcome of one item."""
    watch = Watch()
    for_each(run, [item], load, work, watch)
    return watch.only


def status(outcomes):
    return {name: outcome.status for name, outcome in outcomes.items()}


def test_everything_is_done_once(space, raw):
    outcomes, work = go(space, raw)
    assert set(status(outcomes).values()) == {"done"} and work.loads == ["a", "b", "c/d", "e"]
    assert (space.root / "faces/c/d.txt").read_text() == "C/D"
    assert outcomes["a"].warnings == ("odd",) and outcomes["a"].figures == {"size": 1}
    receipt = space.receipt("align", "c/d")
    assert receipt["status"] == "done" and list(receipt["outputs"]) == ["faces/c/d.txt"]
    again, work = go(space, raw)
    assert set(status(again).values()) == {"uptodate"} and work.loads == []
    assert again["a"].outputs == ("faces/a.txt",)


def test_only_what_changed_is_redone(space, raw):
    go(space, raw)
    (raw / "b.jpg").write_text("new")
    (space.root / "faces/e.txt").unlink()
    outcomes, work = go(space, raw)
    assert work.loads == ["b", "e"]
    assert status(outcomes) == {"a": "uptodate", "b": "done", "e": "done", "c/d": "uptodate"}
    assert go(space, raw, parameters={"size": 2})[1].loads == ["a", "b", "c/d", "e"]
    assert go(space, raw, parameters={"size": 2}, weights={"n": "0"})[1].loads
    assert len(go(space, raw, parameters={"size": 2}, weights={"n": "0"}, overwrite=True)[1].loads)


def test_outputs_edited_by_hand_are_kept(space, raw):
    go(space, raw)
    (space.root / "faces/a.txt").write_text("mine")
    outcomes, work = go(space, raw)
    assert work.loads == [] and "changed since" in outcomes["a"].warnings[0]
    assert (space.root / "faces/a.txt").read_text() == "mine"


def test_what_another_command_wrote_over_is_refined_again(space, raw):
    """As `parse` with another back-end does over `align`: the last of the two that ran counts."""

    class Lower(Upper):
        def work(self, items, loaded):
            path = space.path("faces", items[0].name, ".txt")
            write_bytes(path, loaded[0].encode())
            return [Result([path])]

    def parse():
        work = Lower(space)
        item = Item("a", {"photo": raw / "a.jpg"}, refines=True)
        return alone(Run(space, "parse"), item, work.load, work.work)

    go(space, raw)
    assert [parse().status, parse().status] == ["done", "uptodate"]
    outcomes, work = go(space, raw)  # its outputs were replaced on purpose: nothing to do
    assert work.loads == [] and outcomes["a"].warnings == ()
    go(space, raw, overwrite=True)
    assert (space.root / "faces/a.txt").read_text() == "A"
    assert parse().status == "done" and (space.root / "faces/a.txt").read_text() == "a"
    (space.root / "faces/a.txt").write_text("mine")
    kept = parse()
    assert kept.status == "uptodate" and "changed since" in kept.warnings[0]


@pytest.mark.parametrize("batch", [1, 3])
def test_a_bad_file_fails_alone(space, raw, batch):
    (raw / "b.jpg").write_text("bad")
    (raw / "e.jpg").write_text("nobody")
    outcomes, _ = go(space, raw, batch=batch)
    assert status(outcomes) == {"a": "done", "b": "error", "e": "skipped", "c/d": "done"}
    assert outcomes["b"].error == {"code": "input", "message": "a bad file", "hint": "mend it"}
    assert space.receipt("align", "b")["status"] == "error"
    again, work = go(space, raw, batch=batch)
    assert status(again)["b"] == "error" and work.loads == []
    _, work = go(space, raw, batch=batch, retry_failed=True)
    assert work.loads == ["b"]
    (raw / "b.jpg").write_text("mended")
    assert status(go(space, raw, batch=batch)[0])["b"] == "done"


def test_batches_and_lack_of_memory(space, raw):
    _, work = go(space, raw, batch=3)
    assert work.batches == [["a", "b", "e"], ["c/d"]]
    (raw / "b.jpg").write_text("big")
    _, work = go(space, raw, batch=3, overwrite=True)
    assert work.batches == [["a", "b", "e"], ["a", "b"], ["e"], ["c/d"]]
    (raw / "e.jpg").write_text("huge")
    outcomes, _ = go(space, raw)
    assert outcomes["e"].error["code"] == "memory" and status(outcomes)["a"] == "uptodate"


def test_a_bug_is_not_swallowed(space, raw):
    (raw / "b.jpg").write_text("bug")
    with pytest.raises(RuntimeError, match="a bug"):
        go(space, raw)
    assert space.receipt("align", "a") and not space.receipt("align", "b")


def test_an_error_that_meets_all_alike_ends_the_run(space, raw):
    class Misfit(Upper):
        def work(self, items, loaded):
            raise TraitError("the method does not fit")

    work = Misfit(space)
    with pytest.raises(TraitError):
        for_each(
            Run(space, "invert"),
            [Item("a", {"photo": raw / "a.jpg"})],
            work.load,
            work.work,
            Watch(),
        )
    assert not space.receipt("invert", "a")


def test_an_input_changed_meanwhile_is_an_error(space, raw):
    class Slow(Upper):
        def work(self, items, loaded):
            (raw / "a.jpg").write_text("changed")
            return super().work(items, loaded)

    work = Slow(space)
    item = Item("a", {"photo": raw / "a.jpg"})
    outcome = alone(Run(space, "align"), item, work.load, work.work)
    assert outcome.status == "error" and "changed while" in outcome.error["message"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_full_disk_ends_the_run(space, raw, number):
    class Full(Upper):
        def work(self, items, loaded):
            if items[0].name == "b":
                raise OSError(number, os.strerror(number))
            return super().work(items, loaded)

    work = Full(space)
    items = [Item(name, {"photo": raw / f"{name}.jpg"}) for name in ("a", "b")]
    with pytest.raises(WorkspaceError, match="cannot write"):
        for_each(Run(space, "align"), items, work.load, work.work, Watch())
    assert (space.root / "faces/a.txt").is_file()


def test_pipes_are_not_opened(space, raw):
    os.mkfifo(raw / "pipe.jpg")

    def load(item):
        raise InputError("not a regular file")

    item = Item("pipe", {"photo": raw / "pipe.jpg"})
    outcome = alone(Run(space, "align"), item, load, lambda *_: [])
    assert outcome.status == "error"


def test_files_without_end_are_not_read_to_their_end(space, tmp_path):
    """Of /proc, which waits for news; and of 4 TiB: neither decides with its content."""
    (tmp_path / "kernel").symlink_to("/proc/kmsg")
    (tmp_path / "sparse").touch()
    os.truncate(tmp_path / "sparse", 1 << 42)
    item = Item("a", {name: tmp_path / name for name in ("kernel", "sparse")})
    seen = InputDigests.of(item)
    assert seen.sha256["kernel"] == hashlib.sha256().hexdigest()
    os.truncate(tmp_path / "sparse", 1 << 41)
    assert InputDigests.of(item).sha256["sparse"] != seen.sha256["sparse"]


def names(inputs, space):
    return [one.name for one in photographs(inputs, space)]


# Inputs ------------------------------------------------------------------------------------------


def test_folders_are_mirrored_and_globs_expand(space, raw):
    (raw / "notes.txt").write_text("x")
    (raw / "loop").symlink_to(raw)
    assert names([raw], space) == ["a", "b", "e", "c/d"]
    assert names([raw / "c" / "d.jpg", raw / "a.jpg"], space) == ["d", "a"]
    assert names([str(raw / "c*" / "*.jpg")], space) == ["c/d"]
    assert names([str(raw / "[ab].jpg")], space) == ["a", "b"]
    with pytest.raises(NothingMatchedError):
        photographs([raw / "none"], space)
    with pytest.raises(NothingMatchedError):
        photographs([str(raw / "*.webp")], space)


def test_what_is_named_twice_is_one_photograph(space, raw, monkeypatch):
    assert names([raw, raw / "c", raw / "a.jpg"], space) == ["a", "b", "e", "c/d"]
    monkeypatch.chdir(raw.parent)
    found = photographs(["raw", raw, "./raw/a.jpg"], space)
    assert [one.name for one in found] == ["a", "b", "e", "c/d"]
    assert not any(one.twin for one in found)


def test_folders_called_like_outputs_are_not_in_their_way(space, raw):
    """`q.png/x` as it is would need a folder where the crop of q is."""
    for name in ("q.jpg", "q.png/x.jpg", "q.json/x.jpg", "Q.PNG_/x.jpg", "v1.2/x.jpg"):
        write_bytes(raw / name, name.encode())
    found, _ = go(space, raw)
    assert {"q", "q.json_/x", "v1.2/x"} <= set(found) and len(found) == 9
    assert set(status(found).values()) == {"done"}
    assert [one.name for one in photographs([raw], space) if one.twin] == ["q.png_/x.jpg"]


def test_folders_that_cannot_be_listed_are_inputs(space, raw, monkeypatch):
    real = os.scandir

    def closed(folder):
        if str(folder).endswith("raw/c"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), folder)
        return real(folder)

    monkeypatch.setattr(os, "scandir", closed)
    found = photographs([raw], space)
    assert [(one.name, one.path) for one in found][-1] == ("c", raw / "c") and len(found) == 4


def test_an_input_too_long_for_a_path_is_not_there(space):
    with pytest.raises(NothingMatchedError):
        photographs(["x" * 300], space)


def test_the_workspace_is_left_out_of_the_scan(raw):
    inside = Workspace(raw / "work")
    write_bytes(inside.path("faces", "a", ".png"), b"x")
    assert names([raw], inside) == ["a", "b", "e", "c/d"]


@pytest.mark.parametrize(("twin", "first"), [("a.png", "a.jpg"), ("A.jpg", "A.jpg")])
def test_twins_do_not_overwrite_each_other(space, raw, twin, first):
    (raw / twin).write_text("x")
    found = photographs([raw], space)
    refused = [one for one in found if one.twin]
    assert len(found) == 5 and len({one.name.lower() for one in found}) == 5
    assert [one.twin for one in refused] == [raw / first]


def test_no_photograph_is_called_like_another_ones_second_face(space, tmp_path):
    for name in ("b.jpg", "b.2.jpg", "b@2.jpg", "c@3"):
        write_bytes(tmp_path / "raw" / name, b"x")
    found = photographs([tmp_path / "raw", tmp_path / "raw" / "c@3"], space)
    assert [one.name for one in found] == ["b.2", "b", "b@2.jpg", "c@3_"]
    assert not any(one.twin for one in found)
    assert numbered("b", 1) not in {one.name for one in found}


def test_a_second_face_is_found_by_its_name(space):
    for name in ("b", "b@2", "b@2.jpg"):
        write_bytes(space.path("faces", name, ".json"), b"{}")
    assert space.faces(["b@2"]) == ["b@2"] and space.faces(["b.jpg"]) == ["b"]
    assert space.faces(["b@2.jpg"]) == ["b@2.jpg"]


def test_odd_names_are_kept(space, tmp_path):
    names = ["ü", "two words", "-dash", "x" * 240, "dots.in.name", "日本"]
    for name in names:
        write_bytes(tmp_path / "odd" / f"{name}.jpg", b"x")
    found, _ = go(space, tmp_path / "odd")
    assert set(found) == set(names)
    assert all((space.root / "faces" / f"{name}.txt").is_file() for name in names)


def test_faces_are_chosen_by_name_and_glob(space):
    for name in ("a", "b", "c/d"):
        write_bytes(space.path("faces", name, ".json"), b"{}")
    assert space.faces() == ["a", "b", "c/d"]
    assert space.faces(["c/*", "a.jpg"]) == ["a", "c/d"]
    with pytest.raises(NothingMatchedError, match="did you mean c/d"):
        space.faces(["c/e"])
    with pytest.raises(NothingMatchedError, match="semedit align"):
        Workspace(space.root / "other").faces()


# Chains of edits ---------------------------------------------------------------------------------


def edit(space, label, strength, *, chosen=None, command="edit", content="x"):
    run = Run(space, command, {"label": label, "strength": strength})
    item = next_step(run, "a", label, Item("", {}), chosen)

    def work(items, loaded):
        path = space.path("edits", items[0].name, ".safetensors")
        write_bytes(path, loaded[0] + f"+{label}{strength}".encode())
        return [Result([path])]

    return alone(run, item, lambda i: i.inputs["latent"].read_bytes(), work)


def test_edits_chain_and_the_same_edit_is_no_new_step(space):
    with pytest.raises(InputError, match="semedit invert"):
        space.source("a")
    write_bytes(space.path("latents", "a", ".safetensors"), b"w")
    assert edit(space, "smiling", 1).name == "a/01-smiling"
    assert edit(space, "smiling", 1).status == "uptodate"
    assert edit(space, "hair", 1, command="attr").name == "a/02-hair"
    assert edit(space, "hair", 1, command="attr").status == "uptodate"
    assert edit(space, "smiling", 1).status == "uptodate"  # a script of both, run again
    assert edit(space, "smiling", 2).name == "a/03-smiling"
    last = space.path("edits", "a/03-smiling", ".safetensors")
    assert last.read_bytes() == b"w+smiling1+hair1+smiling2" and space.source("a") == last
    assert edit(space, "smiling", 1, chosen="3").name == "a/04-smiling"


def test_the_source_of_an_edit_can_be_named(space):
    write_bytes(space.path("latents", "a", ".safetensors"), b"w")
    edit(space, "smiling", 1)
    edit(space, "hair", 2)
    assert edit(space, "hat", 1, chosen="latents").name == "a/03-hat"
    assert space.path("edits", "a/03-hat", ".safetensors").read_bytes() == b"w+hat1"
    assert edit(space, "hat", 1, chosen="latents").status == "uptodate"
    assert edit(space, "smiling", 1, chosen="latents").status == "uptodate"
    assert edit(space, "hat", 1, chosen="1").name == "a/04-hat"
    assert edit(space, "hat", 1, chosen="01-smiling").status == "uptodate"
    with pytest.raises(OptionError, match="did you mean 02-hair"):
        space.source("a", "02-hairs")


def test_a_new_inversion_is_newer_than_old_edits(space):
    base = space.path("latents", "a", ".safetensors")
    write_bytes(base, b"w")
    edit(space, "smiling", 1)
    edit(space, "hair", 1)
    write_bytes(base, b"another")
    assert space.source("a") == base
    assert edit(space, "hat", 1).name == "a/03-hat"
    assert space.path("edits", "a/03-hat", ".safetensors").read_bytes() == b"another+hat1"


def test_a_step_without_a_receipt_does_not_count(space):
    write_bytes(space.path("latents", "a", ".safetensors"), b"w")
    write_bytes(space.path("edits", "a/01-smiling", ".safetensors"), b"half a run")
    assert space.steps("a") == []
    assert edit(space, "smiling", 1).name == "a/01-smiling"


# Crashes and locks -------------------------------------------------------------------------------


def test_two_runs_do_not_share_a_workspace(space):
    script = (
        "import sys, time; from pathlib import Path\n"
        "from semedit.batch.workspace import Workspace\n"
        "with Workspace(Path(sys.argv[1])).locked(make=True):\n"
        "    print('in', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", script, str(space.root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(LockedError) as caught, space.locked(make=True):
            pass
        other.kill()
    assert caught.value.exit_code == 11
    with space.locked(make=True):
        pass


def test_leftovers_of_a_killed_run_are_cleared(space):
    write_bytes(space.root / "faces" / "a.txt", b"x")
    (space.root / "faces" / ".tmp-0123456789abcdef.png").write_bytes(b"half")
    space.clear()  # does nothing for who does not hold it
    assert len(list((space.root / "faces").iterdir())) == 2
    with space.locked(make=True):
        space.clear()
        assert [p.name for p in (space.root / "faces").iterdir()] == ["a.txt"]


def test_a_workspace_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("x")
    with (
        pytest.raises(WorkspaceError, match="cannot be written"),
        Workspace(tmp_path / "file" / "work").locked(make=True),
    ):
        pass


KILLED = """
import sys, time
from pathlib import Path
from semedit.batch import Item, Result, Run, for_each
from semedit.media.files import write_bytes
from semedit.batch.workspace import Workspace; from semedit.batch.inputs import photographs

space = Workspace(Path(sys.argv[1]))

class Quiet:
    start = finish = lambda *_: None

def work(items, loaded):
    time.sleep(0.002)
    path = space.path("faces", items[0].name, ".txt")
    write_bytes(path, loaded[0].upper() * 1000)
    return [Result([path])]

items = [Item(one.name, {"photo": one.path}) for one in photographs([sys.argv[2]], space)]
with space.locked(make=True):
    for_each(Run(space, "align"), items, lambda i: i.inputs["photo"].read_bytes(), work, Quiet())
"""


def tree(space):
    return {
        p.relative_to(space.root).as_posix(): p.read_bytes()
        for p in sorted(space.root.rglob("*"))
        if p.is_file() and p.name != ".lock"
    }


def test_killed_at_any_moment_a_rerun_gives_the_same_bytes(tmp_path):
    raw = tmp_path / "raw"
    for i in range(60):
        write_bytes(raw / f"{i}.jpg", str(i).encode())
    unbroken = Workspace(tmp_path / "unbroken")
    broken = Workspace(tmp_path / "broken")
    command = [sys.executable, "-c", KILLED]
    subprocess.run([*command, str(unbroken.root), str(raw)], check=True)
    expected = tree(unbroken)
    for attempt in range(5):
        with subprocess.Popen([*command, str(broken.root), str(raw)]) as process:
            wanted = 8 * (attempt + 1)
            deadline = time.monotonic() + 20
            while time.monotonic() < deadline and process.poll() is None:
                if len(list(broken.root.glob("receipts/align/*.json"))) >= wanted:
                    break
            process.send_signal(signal.SIGKILL)
        whole = {k: v for k, v in tree(broken).items() if "/.tmp-" not in k}
        assert whole.items() <= expected.items()
    subprocess.run([*command, str(broken.root), str(raw)], check=True)
    assert tree(broken) == expected and len(expected) == 120


def test_receipts_are_plain_json(space, raw):
    go(space, raw, parameters={"size": 256})
    text = (space.root / "receipts/align/a.json").read_text()
    receipt = json.loads(text)
    assert receipt["parameters"] == {"size": 256}
    assert receipt["inputs"]["photo"] == [str(raw / "a.jpg"), receipt["inputs"]["photo"][1]]
