"""The folder loop at work: overlap, batches that were killed, hand-made changes, shards, plans."""

import json
import threading
import time

import grey_task
import numpy as np
import pytest

from semedit.batch import Item, Result, Run, Shard, for_each, loop
from semedit.batch.plan import plan
from semedit.batch.workspace import LONGEST_RECEIPT, Workspace
from semedit.errors import FailuresError, InputError, LockedError, OptionError
from semedit.media import decoding
from semedit.media.files import write_bytes
from semedit.media.photographs import write_image


@pytest.fixture
def space(tmp_path):
    yield Workspace(tmp_path / "work")
    decoding.close()


@pytest.fixture
def raw(tmp_path):
    for i in range(10):
        pixels = np.full((8, 8 + i, 3), 20 * i, np.uint8)
        write_image(tmp_path / "raw" / f"{i}.png", pixels, mark=False)
    return tmp_path / "raw"


# Batches -----------------------------------------------------------------------------------------


def test_the_rest_of_a_killed_batch_is_computed_with_its_mates(space, raw):
    grey_task.go(space, grey_task.Grey([str(raw)]))
    whole = grey_task.tree(space)
    assert b"with 4+5+6+7" in whole["faces/6.txt"]
    for name in ("5", "6"):  # as if the run had been killed before it wrote them
        space.receipt_path("grey", name).unlink()
        space.path("faces", name, ".txt").unlink()
    written = space.path("faces", "4", ".txt").stat().st_mtime_ns
    again = grey_task.go(space, grey_task.Grey([str(raw)]))
    assert [n for n, s in again.statuses.items() if s == "done"] == ["5", "6"]
    assert grey_task.tree(space) == whole
    assert space.path("faces", "4", ".txt").stat().st_mtime_ns == written  # only kept company


def test_a_changed_input_is_computed_without_its_old_mates(space, raw):
    grey_task.go(space, grey_task.Grey([str(raw)]))
    write_image(raw / "5.png", np.zeros((4, 4, 3), np.uint8), mark=False)
    grey_task.go(space, grey_task.Grey([str(raw)]))
    assert space.path("faces", "5", ".txt").read_text() == "0.000000 with 5\n"
    assert space.path("faces", "4", ".txt").read_text().endswith("with 4+5+6+7\n")


def test_a_batch_that_did_not_fit_is_not_tried_again(space, raw):
    sizes = []

    class Small(grey_task.Grey):
        def work(self, items, loaded):
            sizes.append(len(items))
            if len(items) > 2:
                raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return super().work(items, loaded)

    watch = grey_task.go(space, Small([str(raw)]))
    assert sizes == [4, 2, 2, 2, 2, 2] and set(watch.statuses.values()) == {"done"}


def test_one_that_does_not_fit_alone_leaves_the_others_their_batches(space, raw):
    """A run that is taken up again, the huge one settled, makes the same batches."""
    sizes = []

    class Huge(grey_task.Grey):
        def work(self, items, loaded):
            sizes.append(len(items))
            if "1" in {item.name for item in items}:
                raise MemoryError
            return super().work(items, loaded)

    watch = grey_task.go(space, Huge([str(raw)]))
    assert sizes == [4, 2, 1, 1, 2, 4, 2]
    assert watch.outcomes["1"].error["code"] == "memory"
    assert [n for n, s in watch.statuses.items() if s != "done"] == ["1"]


def test_an_item_can_fail_within_its_batch(space, raw):
    class Picky(grey_task.Grey):
        def work(self, items, loaded):
            results = super().work(items, loaded)
            return [Result(error=InputError("odd")) if item.name == "2" else one
                    for item, one in zip(items, results, strict=True)]  # fmt: skip

    watch = grey_task.go(space, Picky([str(raw)]))
    assert watch.statuses["2"] == "error" and list(watch.statuses.values()).count("done") == 9
    assert "with 0+1+2+3" in space.path("faces", "3", ".txt").read_text()


def test_reading_computing_and_writing_overlap(space, raw):
    """At some moment a file is read, another computed and a third written."""
    together = {"most": 0, "now": set()}
    lock = threading.Lock()

    def busy(part, seconds=0.04):
        with lock:
            together["now"].add(part)
            together["most"] = max(together["most"], len(together["now"]))
        time.sleep(seconds)
        with lock:
            together["now"].discard(part)

    def load(item):
        busy("read")
        return item.name

    def work(items, loaded):
        busy("compute", 0.04 * len(items))

        def write(name):
            busy("write")
            path = space.path("faces", name, ".txt")
            write_bytes(path, name.encode())
            return [path]

        return [Result(lambda name=name: write(name)) for name in loaded]

    items = [Item(str(i), {"photo": raw / f"{i}.png"}) for i in range(10)]
    tally = for_each(Run(space, "x"), items, load, work, grey_task.Watch(), batch=2)
    assert tally.done == 10 and together["most"] == 3


def test_no_more_is_read_than_is_soon_needed(space, raw, monkeypatch):
    monkeypatch.setattr(loop, "threads", lambda: 2)
    read, ahead = [], []

    def load(item):
        read.append(item.name)

    def work(items, loaded):
        time.sleep(0.02)
        ahead.append(len(read))
        return [Result([]) for _ in items]

    items = [Item(f"{i:03d}", {"photo": raw / "0.png"}) for i in range(60)]
    for_each(Run(space, "x"), iter(items), load, work, grey_task.Watch(), batch=2)
    assert max(n - 2 * i for i, n in enumerate(ahead)) <= 8


# What was made before ----------------------------------------------------------------------------


def test_hand_made_changes_are_kept_when_parameters_change(space, raw):
    class Other(grey_task.Grey):
        def parameters(self):
            return {"other": True}

    grey_task.go(space, grey_task.Grey([str(raw)]))
    mine = space.path("faces", "3", ".txt")
    mine.write_text("mine")
    kept = grey_task.go(space, grey_task.Grey([str(raw)])).outcomes["3"]
    assert kept.status == "uptodate" and "changed since" in kept.warnings[0]
    refused = grey_task.go(space, Other([str(raw)])).outcomes["3"]
    assert refused.status == "error" and refused.error["code"] == "edited"
    assert "--overwrite" in refused.error["hint"] and mine.read_text() == "mine"
    grey_task.go(space, Other([str(raw)]), overwrite=True)
    assert mine.read_text() != "mine"


def test_outputs_that_are_no_longer_made_go(space, raw):
    count = 3

    class Several(grey_task.Grey):
        def parameters(self):
            return {"count": count}

        def work(self, items, loaded):
            def write(name):
                paths = [space.path("faces", f"{name}@{i}", ".txt") for i in range(count)]
                for path in paths:
                    write_bytes(path, b"x")
                return paths

            return [Result(lambda item=item: write(item.name)) for item in items]

    grey_task.go(space, Several([str(raw / "1.png")]))
    count = 2
    grey_task.go(space, Several([str(raw / "1.png")]))
    assert sorted(p.name for p in (space.root / "faces").iterdir()) == ["1@0.txt", "1@1.txt"]


def test_a_receipt_never_vouches_for_files_it_does_not_know(space, raw):
    """Killed while it writes over outputs of other parameters: both sets of parameters redo."""

    class Killed(grey_task.Grey):
        def parameters(self):
            return {"other": True}

        def work(self, items, loaded):
            def write():
                write_bytes(space.path("faces", "1", ".txt"), b"half")
                raise KeyboardInterrupt

            return [Result(write)]

    task = grey_task.Grey([str(raw / "1.png")])
    grey_task.go(space, task)
    before = grey_task.tree(space)
    with pytest.raises(KeyboardInterrupt):
        grey_task.go(space, Killed([str(raw / "1.png")]))
    assert space.receipt("grey", "1") is None
    assert grey_task.go(space, task).statuses == {"1": "done"} and grey_task.tree(space) == before


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"format": 1}', '{"format": 1, "outputs": []}', "[" * 100_000],
)
def test_a_damaged_receipt_is_none(space, raw, text):
    task = grey_task.Grey([str(raw)])
    grey_task.go(space, task)
    before = grey_task.tree(space)
    space.receipt_path("grey", "3").write_text(text)
    watch = grey_task.go(space, task)
    assert [n for n, s in watch.statuses.items() if s == "done"] == ["3"]
    assert grey_task.tree(space) == before


def test_names_too_long_for_a_receipt_have_one(space):
    deep = space.receipt_path("align", "/".join(["d" * 200] * 19 + ["a"]))
    assert len(str(deep)) < 3000
    assert deep != space.receipt_path("align", "/".join(["d" * 200] * 18 + ["e" * 200, "a"]))
    name = "folder/" + "ü" * 126
    assert len(name.rsplit("/", 1)[1].encode()) > LONGEST_RECEIPT
    path = space.receipt_path("align", name)
    assert len(path.name.encode()) <= 255 and path.parent.name == "folder"
    write_bytes(path, b"{}")
    assert path != space.receipt_path("align", name[:-1] + "u")


# Runs --------------------------------------------------------------------------------------------


def test_too_many_failures_end_the_run(space, raw):
    for i in range(5):
        (raw / f"{i}.png").write_bytes(b"")
    with pytest.raises(FailuresError) as caught:
        grey_task.go(space, grey_task.Grey([str(raw)], batch=1), max_failures=3)
    assert caught.value.exit_code == 1
    # Those known from the run before count no more.
    watch = grey_task.go(space, grey_task.Grey([str(raw)], batch=1), max_failures=3)
    assert list(watch.statuses.values()).count("error") == 5


def test_shards_make_up_the_whole(space, raw, tmp_path):
    seen = []
    for i in (1, 2, 3):
        watch = grey_task.go(space, grey_task.Grey([str(raw)], batch=1), shard=Shard(i, 3))
        seen += watch.outcomes
    assert sorted(seen) == [str(i) for i in range(10)]
    alone = Workspace(tmp_path / "alone")
    grey_task.go(alone, grey_task.Grey([str(raw)], batch=1))
    assert grey_task.tree(space) == grey_task.tree(alone)
    items = [Item("a/01-smiling", {}, face="a"), Item("a@2", {}), Item("a", {})]
    assert {len(list(Shard(i, 5).of(items))) for i in range(1, 6)} == {0, 3}  # all or none


def test_shards_share_a_folder_and_nothing_else_does(space):
    with space.locked(make=True, shard="1/2"):
        write_bytes(space.root / "faces" / ".tmp-0123456789abcdef", b"half")
        held = Workspace(space.root)
        from semedit.batch.workspace import _held

        _held.clear()  # as another process sees it
        with held.locked(shard="2/2"):
            _held.clear()
            for shard in ("1/2", "1/1"):
                with pytest.raises(LockedError), held.locked(shard=shard):
                    pass
            held.clear()
        assert (
            space.root / "faces" / ".tmp-0123456789abcdef"
        ).exists()  # another shard may be writing it
    _held.clear()
    with space.locked():
        space.clear()
        assert not (space.root / "faces" / ".tmp-0123456789abcdef").exists()
        with space.locked():  # a step of a recipe
            pass


@pytest.mark.parametrize("text", ["0/3", "4/3", "2", "a/b", "1/0", "-1/2", "1/2/3"])
def test_no_such_shard(text):
    with pytest.raises(OptionError, match="1/8"):
        Shard.parse(text)
    assert str(Shard.parse("2/3")) == "2/3"


def test_a_plan_says_what_a_run_does(space, raw):
    task = grey_task.Grey([str(raw)])
    (raw / "8.png").write_bytes(b"")

    def planned(**settings):
        run = Run(space, "grey", **settings)
        return plan(run, task.items(run), task.item_bytes)

    first = planned()
    assert (first.total, first.todo, first.bytes_needed) == (10, 10, 10 * task.item_bytes)
    assert first.bytes_free > 0 and not space.root.exists()
    grey_task.go(space, task)
    (raw / "2.png").write_bytes(b"x")
    second = planned()
    assert (second.uptodate, second.failed, second.todo) == (8, 1, 1)
    sizes = [sum(p.stat().st_size for p in (space.root / "faces").glob(f"{i}.*")) for i in (0, 1)]
    assert second.bytes_needed > max(sizes)  # measured, receipt and all
    assert planned(overwrite=True).todo == 10 and planned(retry_failed=True).todo == 2
    assert json.dumps(second.json())
