"""Decoding in other processes: what a file can do there is that file's error."""

import os
import signal
import threading
import time

import numpy as np
import pytest
from PIL import Image

from semedit.errors import InputError, MaskError
from semedit.media import decoding
from semedit.media.masks import write_labels
from semedit.media.photographs import read_photo


def hang(path, max_pixels=0):
    time.sleep(100)


def crash(path, max_pixels=0):
    os.kill(os.getpid(), signal.SIGSEGV)


def leave(path, max_pixels=0):
    os._exit(3)


def hog(path, max_pixels=0):
    return np.ones(64 << 30, np.uint8)


def chatter(path, max_pixels=0):
    os.write(1, b"a library prints where answers go")
    return np.arange(6, dtype=np.int64).reshape(2, 3)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(decoding, "SECONDS", 20.0)
    yield
    decoding.close()


def test_a_photograph_is_what_it_is_in_this_process(tmp_path):
    path = tmp_path / "ä b.gif"
    frames = [Image.new("RGB", (9, 7), colour) for colour in ("red", "lime")]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    here, there = read_photo(path), decoding.read_photo(path)
    assert (here.pixels == there.pixels).all() and there.pixels.shape == (7, 9, 3)
    assert (here.sha256, here.warnings) == (there.sha256, there.warnings)


def test_label_maps_and_their_errors_come_through(tmp_path):
    labels = np.arange(12).reshape(3, 4)
    write_labels(tmp_path / "a.png", labels)
    read = decoding.read_labels(tmp_path / "a.png")
    assert read.dtype == np.int64 and (read == labels).all()
    Image.new("RGB", (4, 4), "#010203").save(tmp_path / "b.png")
    with pytest.raises(MaskError, match="#010203") as caught:
        decoding.read_labels(tmp_path / "b.png")
    assert caught.value.hint
    with pytest.raises(InputError, match="max-pixels"):
        decoding.read_photo(tmp_path / "b.png", max_pixels=15)


@pytest.mark.parametrize(
    ("read", "says"),
    [(crash, "SIGSEGV"), (leave, "exit status 3"), (hog, "memory")],
)
def test_crashes_and_bombs_are_one_files_error(tmp_path, read, says):
    good = tmp_path / "a.png"
    Image.new("RGB", (4, 4)).save(good)
    with pytest.raises(InputError, match=says) as caught:
        decoding.call(read, "bad.jpg")
    assert "bad.jpg" in caught.value.message
    assert decoding.read_photo(good).pixels.shape == (4, 4, 3)


def test_a_hang_ends(monkeypatch):
    monkeypatch.setattr(decoding, "SECONDS", 0.5)
    with pytest.raises(InputError, match=r"longer than 0\.5 s"):
        decoding.call(hang, "bad.jpg")


def test_signals_that_end_a_run_are_no_fault_of_a_file(tmp_path):
    """Slurm sends them to all processes at once; the run itself ends its children."""
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    decoding.read_photo(tmp_path / "a.png")
    (child,) = decoding._pool._idle
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(child.process.pid, number)
        assert decoding.read_photo(tmp_path / "a.png").pixels.shape == (4, 4, 3)
    assert decoding._pool._idle == [child]
    decoding.close()
    assert not child.running


def test_what_libraries_print_is_no_answer():
    assert decoding.call(chatter, "a.jpg").tolist() == [[0, 1, 2], [3, 4, 5]]


def test_threads_have_a_child_each(tmp_path):
    for i in range(8):
        Image.new("RGB", (4 + i, 5)).save(tmp_path / f"{i}.png")
    found = {}

    def read(i):
        found[i] = decoding.read_photo(tmp_path / f"{i}.png").pixels.shape[1]

    threads = [threading.Thread(target=read, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {i: 4 + i for i in range(8)}


def test_closing_ends_who_waits():
    raised = []

    def wait():
        try:
            decoding.call(hang, "slow.jpg")
        except InputError as error:
            raised.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.3)
    decoding.close()
    thread.join(10)
    assert len(raised) == 1


def test_children_are_replaced_before_they_grow_old(tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "FILES_PER_CHILD", 2)
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    seen = set()
    for _ in range(4):
        decoding.read_photo(tmp_path / "a.png")
        seen |= {child.process.pid for child in decoding._pool._idle}
    assert len(seen) == 2
