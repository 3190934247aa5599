"""What a batch tool promises, seen from outside: bad files, kills, full disks, odd folders."""

import errno
import io
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import grey_task
import malformed
import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from semedit.batch import Outcome
from semedit.batch.inputs import photographs
from semedit.batch.workspace import Workspace
from semedit.cli import report
from semedit.cli.app import app
from semedit.cli.report import Reporter, reason_of
from semedit.media import decoding
from semedit.media.photographs import write_image
from semedit.tasks.demo import examples

HERE = Path(__file__).parent
LIGHT = [sys.executable, str(HERE / "grey_task.py")]


def semedit(*arguments, code=0):
    """Run a command; returns its JSON lines."""
    result = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def environment(**more):
    return {**os.environ, "PYTHONPATH": f"{HERE}{os.pathsep}{HERE.parent}", **more}


@pytest.fixture(autouse=True)
def closed():
    yield
    decoding.close()


# Bad input ---------------------------------------------------------------------------------------


def told(line):
    error = line["error"] or {}
    return " ".join([error.get("message", ""), error.get("hint") or "", *line["warnings"]])


@pytest.fixture(scope="module")
def bad(tmp_path_factory):
    """A folder of all that is malformed or odd, a head among it, aligned by the command line."""
    folder = tmp_path_factory.mktemp("bad")
    (folder / "raw").mkdir()
    expected = malformed.write(folder / "raw")
    shutil.copyfile(examples()[0], folder / "raw" / "head.png")
    expected["head"] = ("done", "")
    lines = semedit("align", folder / "raw", "--work", folder / "work", code=3)
    return folder, expected, lines


def test_every_input_is_accounted_for(bad):
    folder, expected, lines = bad
    found = {line["name"]: line for line in lines[:-1]}
    assert set(found) == set(expected)
    wrong = {
        name: (status, words, found[name]["status"], told(found[name]))
        for name, (status, words) in expected.items()
        if found[name]["status"] != status or not re.search(words, told(found[name]))
    }
    assert not wrong, [(n[:20], w[0], w[1], w[2], w[3][:300]) for n, w in wrong.items()]
    odd = [name for name, (status, words) in expected.items() if status == "skipped" and not words]
    assert odd and not [name for name in odd if found[name]["warnings"]]
    space = Workspace(folder / "work")
    for name, (status, _) in expected.items():
        receipt = space.receipt("align", name)
        assert receipt["status"] == status and bool(receipt["error"]) == (status != "done")
    summary = lines[-1]
    assert summary["total"] == len(expected)
    for status in ("done", "skipped", "error"):
        assert summary[status] == [s for s, _ in expected.values()].count(status)


def test_collisions_are_told_before_work_starts(bad):
    _, _, lines = bad
    twins = [i for i, line in enumerate(lines[:-1]) if "same name" in told(line)]
    assert twins == list(range(3))


def test_a_second_run_changes_nothing(bad):
    folder, expected, _ = bad
    before = grey_task.tree(Workspace(folder / "work"))
    lines = semedit("align", folder / "raw", "--work", folder / "work", code=3)
    assert lines[-1]["uptodate"] == 1 and lines[-1]["done"] == 0
    assert lines[-1]["error"] == [s for s, _ in expected.values()].count("error")
    assert grey_task.tree(Workspace(folder / "work")) == before


def test_no_place_and_no_turn_is_written(tmp_path):
    """EXIF of the photograph: it lay on its side, and says where it was taken."""
    exif = Image.Exif()
    exif[0x0112] = 6
    exif.get_ifd(0x8825).update({1: "N", 2: (52.0, 31.0, 12.0), 3: "E", 4: (13.0, 24.0, 18.0)})
    (tmp_path / "raw").mkdir()
    with Image.open(examples()[0]) as head:
        upright = head.convert("RGB")
    upright.save(tmp_path / "raw" / "upright.png")
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "raw" / "lying.png", exif=exif)
    assert b"eXIf" in (tmp_path / "raw" / "lying.png").read_bytes()
    semedit("align", tmp_path / "raw", "--work", tmp_path / "work")
    space = Workspace(tmp_path / "work")
    crops = [space.path("faces", name, ".png") for name in ("upright", "lying")]
    with Image.open(crops[1]) as crop:
        assert not dict(crop.getexif()) and "exif" not in crop.info
    pixels = [np.asarray(Image.open(path)) for path in crops]
    assert (pixels[0] == pixels[1]).all()


def test_the_real_photographs_and_all_that_is_bad(shared, tmp_path):
    raw = tmp_path / "raw"
    shutil.copytree(shared / "real" / "images", raw / "real")
    (raw / "bad").mkdir()
    malformed.write(raw / "bad")
    count = len(photographs([raw], Workspace(tmp_path / "work")))
    lines = semedit("align", raw, "--work", tmp_path / "work", code=3)
    receipts = list((tmp_path / "work" / "receipts").rglob("[!.]*.json"))
    assert lines[-1]["total"] == count == len(receipts)
    done = [line["name"] for line in lines[:-1] if line["status"] == "done"]
    assert all(name.startswith("real/") for name in done) and len(done) >= 12


def test_damaged_files_of_the_workspace_are_their_faces_errors(tmp_path):
    """Sidecar, crop, label map, latent: each damaged in a way of its own, and one face whole."""
    (tmp_path / "raw").mkdir()
    for name in ("bytes", "crop", "map", "whole"):
        shutil.copyfile(examples()[0], tmp_path / "raw" / f"{name}.png")
    work = ("--work", tmp_path / "work", "-j", "1")
    semedit("align", tmp_path / "raw", *work)
    space = Workspace(tmp_path / "work")
    space.path("faces", "bytes", ".json").write_bytes(b"\xff\xfe\x00")
    space.path("faces", "crop", ".png").write_bytes(malformed.noise("PNG")[:-900])
    space.path("masks", "map", ".png").write_bytes(malformed.bomb(14000, 14000))
    invert = ("invert", "-o", "steps=1", "-o", "tune_steps=0", *work)
    lines = {line.get("name"): line for line in semedit(*invert, code=3)}
    assert lines["whole"]["status"] == "done"
    for name, words in (("bytes", "cannot be read"), ("crop", "damaged"), ("map", "pixels")):
        assert lines[name]["status"] == "error" and words in told(lines[name])
    latent = space.path("latents", "whole", ".safetensors")
    latent.write_bytes(latent.read_bytes().replace(b'"meta":"{', b'"meta":"[', 1))
    (line, _) = semedit("edit", "--direction", "smiling", *work, "whole", code=3)
    assert line["error"]["code"] == "latent" and "meta" in told(line)


def test_the_closing_table_and_where_things_are_told(tmp_path):
    """Data on stdout alone, no colours and no bar where stderr is no terminal."""
    (tmp_path / "raw").mkdir()
    for i in range(3):
        (tmp_path / "raw" / f"bad{i}.jpg").write_bytes(b"no picture")
    (tmp_path / "raw" / "empty.png").write_bytes(b"")
    Image.new("RGB", (30, 30)).save(tmp_path / "raw" / "nobody.png")
    result = subprocess.run(
        [sys.executable, "-m", "semedit.cli", "align", "raw", "-j", "1"],
        cwd=tmp_path, capture_output=True, text=True, env=environment(COLUMNS="100"), check=False,
    )  # fmt: skip
    assert result.returncode == 3 and result.stdout == "" and "\x1b" not in result.stderr
    assert "device: cpu" in result.stderr or "device: cuda" in result.stderr
    rows = [re.split(r"\s*[│┃]\s*", line)[1:-1] for line in result.stderr.splitlines()]
    assert ["items", "done", "up to date", "skipped", "failed", "warned"] in rows
    assert ["5", "0", "0", "1", "4", "0"] in rows
    assert ["3 failed", "not a picture, or in a format that is not read", "bad0"] in rows
    assert ["1 failed", "the file is empty", "empty"] in rows
    assert ["1 skipped", "no face found", "nobody"] in rows


def test_names_rule_neither_the_terminal_nor_the_table(capsys, tmp_path):
    reporter = Reporter("align", False, tmp_path, "cpu")
    names = [
        "[/]",
        "[bold]x[/bold]",
        "\x1b[31mred\x1b]0;title\x07\r",
        "two\nlines",
        "\udce9",
        "ü 日",
    ]
    with reporter:
        for i, name in enumerate(names):
            error = {"code": "input", "message": f"raw/{name}.png: wrong {'x' * i}", "hint": None}
            reporter.finish(Outcome(name, "error", error=error))
    told = capsys.readouterr().err
    assert "\x1b" not in told and "\r" not in told and "\x07" not in told
    for shown in (
        "[/]",
        "[bold]x[/bold]",
        r"\x1b[31mred\x1b]0;title\x07",
        r"two\nlines",
        r"\udce9",
    ):
        assert told.count(shown) >= 3  # twice in its line, and in the table
    assert told.count("ü 日") >= 3


@pytest.mark.parametrize("plain", [True, False])
def test_a_terminal_has_a_bar_and_colours_unless_it_wants_none(monkeypatch, tmp_path, plain):
    (monkeypatch.setenv if plain else monkeypatch.delenv)("NO_COLOR", *(["1"] if plain else []))
    monkeypatch.setenv("TERM", "xterm")
    screen = io.StringIO()
    monkeypatch.setattr(report, "stderr", Console(file=screen, force_terminal=True))
    with Reporter("align", False, tmp_path, "cpu") as reporter:
        reporter.start(7)
        error = {"code": "input", "message": "raw/a.png: wrong", "hint": None}
        reporter.finish(Outcome("a", "error", error=error))
        reporter.bar.refresh()
    assert "1/7" in screen.getvalue()
    assert ("\x1b[31m" in screen.getvalue()) != plain


def test_reasons_are_told_apart_at_a_glance():
    """Not what is one file's own: its path, numbers, what the decoder says of it."""
    messages = [
        "raw/a b/x.jpg: damaged picture (image file is truncated (40 bytes not processed))",
        "raw/folder: x/y.tif: damaged picture (-2)",
        "raw/a.png: more than 64 million pixels (9000 x 9000)",
        "raw/closed: cannot be read: Permission denied",
        "no face found in raw/a.png",
    ]
    assert [reason_of(message) for message in messages] == [
        "damaged picture",
        "damaged picture",
        "more than N million pixels",
        "cannot be read: Permission denied",
        "no face found",
    ]


# Disks -------------------------------------------------------------------------------------------


def test_a_folder_that_cannot_be_written_ends_before_weights_are_read(tmp_path):
    (tmp_path / "raw").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "raw" / "a.png")
    script = (
        "import sys; from semedit.cli.app import app\n"
        "try: app(sys.argv[1:])\n"
        "finally: print('torch' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, "align", str(tmp_path / "raw"), "--work", "/proc/work"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1 and "cannot be written" in result.stderr
    assert result.stdout.strip() == "False"


def test_a_full_disk_leaves_what_is_finished(tmp_path):
    """A limit on the size of files stands in for a full disk: the second picture does not fit."""
    raw = tmp_path / "raw"
    write_image(raw / "a.png", np.zeros((64, 64, 3), np.uint8), mark=False)
    random = np.random.default_rng(0).integers(0, 255, (256, 256, 3)).astype(np.uint8)
    write_image(raw / "b.png", random, mark=False)
    result = subprocess.run(
        [*LIGHT, str(tmp_path / "work"), str(raw)],
        env=environment(),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192)),
        capture_output=True,
        text=True,
        check=False,
    )
    space = Workspace(tmp_path / "work")
    assert result.returncode == 1 and "WorkspaceError: cannot write" in result.stderr
    assert os.strerror(errno.EFBIG) in result.stderr
    assert space.receipt("grey", "a")["status"] == "done" and space.receipt("grey", "b") is None
    assert space.path("faces", "a", ".png").is_file() and not list(space.root.rglob(".tmp-*"))
    assert grey_task.go(space, grey_task.Grey([str(raw)])).statuses == {
        "a": "uptodate",
        "b": "done",
    }


def test_a_small_disk_fills_up(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=96k", "none", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a small disk")
    try:
        raw = tmp_path / "raw"
        random = np.random.default_rng(0).integers(0, 255, (20, 60, 60, 3)).astype(np.uint8)
        for i in range(20):
            write_image(raw / f"{i:02d}.png", random[i], mark=False)
        command = [*LIGHT, str(disk / "work"), str(raw)]
        result = subprocess.run(
            command, env=environment(), capture_output=True, text=True, check=False
        )
        assert result.returncode == 1 and os.strerror(errno.ENOSPC) in result.stderr
        space = Workspace(disk / "work")
        done = [p.stem for p in (space.root / "receipts" / "grey").glob("[!.]*.json")]
        assert 1 < len(done) < 20 and not list(space.root.rglob(".tmp-*"))
        for name in done:
            receipt = space.receipt("grey", name)
            assert all((space.root / path).is_file() for path in receipt["outputs"])
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        again = subprocess.run(
            command, env=environment(), capture_output=True, text=True, check=False
        )
        assert again.returncode == 1 and "cannot be written" in again.stderr
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_data_that_cannot_be_written_ends_a_command():
    """What it goes to is full; Python must not try again at its end, and exit with 120."""
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            [sys.executable, "-m", "semedit.cli", "weights", "list", "--json"],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert result.returncode == 1 and result.stderr.startswith("error: cannot write to stdout")
    assert len(result.stderr.splitlines()) == 1


# Kills -------------------------------------------------------------------------------------------


def pictures(folder, count, seed=0):
    """Tiny pictures, all different, and one bad file in twenty."""
    numbers = np.random.default_rng(seed)
    folder.mkdir()
    for i in range(count):
        path = folder / f"{i % 7}" / f"{i:04d}.png"
        path.parent.mkdir(exist_ok=True)
        if i % 20 == 13:
            path.write_bytes(b"\x89PNG\r\n\x1a\n damaged")
        else:
            colours = numbers.integers(0, 255, (6, 6, 3)).astype(np.uint8)
            Image.fromarray(colours).save(path)
    return folder


def killed_and_resumed(tmp_path, count, kills, seed=0):
    """Kill a run at random moments, again and again, then let it finish; compare with one that
    was never disturbed."""
    raw = pictures(tmp_path / "raw", count)
    unbroken, broken = Workspace(tmp_path / "unbroken"), Workspace(tmp_path / "broken")
    started = time.monotonic()
    subprocess.run([*LIGHT, str(unbroken.root), str(raw)], env=environment(), check=True)
    seconds = time.monotonic() - started
    expected = grey_task.tree(unbroken)
    moments, struck = random.Random(seed), 0
    for _ in range(4 * kills):
        process = subprocess.Popen(
            [*LIGHT, str(broken.root), str(raw)], env=environment(), start_new_session=True
        )
        held = broken.root / ".lock"
        while not held.exists() and process.poll() is None:
            time.sleep(0.005)
        time.sleep(moments.uniform(0.2, 0.4 + 1.5 * seconds / kills))
        struck += process.poll() is None
        process.kill()
        process.wait()
        visible = grey_task.tree(broken)
        assert visible.items() <= expected.items()  # nothing half-written under a final name
        if struck == kills:
            break
    assert struck == kills, "the run was over before it was killed often enough"
    subprocess.run([*LIGHT, str(broken.root), str(raw)], env=environment(), check=True)
    assert grey_task.tree(broken) == expected
    assert len(list((broken.root / "receipts").rglob("[!.]*.json"))) == count
    assert not list(broken.root.rglob(".tmp-*"))


def test_killed_twenty_times_a_run_gives_the_same_bytes(tmp_path):
    killed_and_resumed(tmp_path, 1000, 20)


@pytest.mark.slow
def test_soak_of_2000_files_and_20_kills(tmp_path):
    killed_and_resumed(tmp_path, 2000, 20, seed=int(time.time()))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_end_a_run_and_its_children(tmp_path, number, code):
    raw = pictures(tmp_path / "raw", 400)
    work = tmp_path / "work"
    process = subprocess.Popen(
        [sys.executable, "-m", "semedit.cli", "align", str(raw), "--work", str(work), "-j", "1"],
        stderr=subprocess.DEVNULL,
        env=environment(),
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    receipts = work / "receipts" / "align"
    deadline = time.monotonic() + 200
    while not list(receipts.rglob("[!.]*.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    children = _children(process.pid)
    process.send_signal(number)
    assert process.wait(60) == code
    assert children and not [pid for pid in children if Path(f"/proc/{pid}").exists()]
    assert not list(work.rglob(".tmp-*"))
    assert len(list(receipts.rglob("[!.]*.json"))) < 400


def _children(pid):
    """Of all its threads."""
    return " ".join(p.read_text() for p in Path(f"/proc/{pid}/task").glob("*/children")).split()


# Memory ------------------------------------------------------------------------------------------


def peak(command):
    """The most resident memory of a command and its children, bytes."""
    script = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=False)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, *map(str, command)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    return int(result.stdout)


def test_memory_is_flat(tmp_path):
    few, many = pictures(tmp_path / "few", 50), pictures(tmp_path / "many", 1000)
    peaks = [peak([*LIGHT, tmp_path / f"work-{raw.name}", raw]) for raw in (few, many)]
    assert peaks[1] < 1.1 * peaks[0]


@pytest.mark.slow
def test_memory_of_align_is_flat(tmp_path):
    few, many = pictures(tmp_path / "few", 50), pictures(tmp_path / "many", 2000)
    peaks = [
        peak([sys.executable, "-m", "semedit.cli", "align", raw, "-j", "1",
              "--work", tmp_path / f"work-{raw.name}"])
        for raw in (few, many)
    ]  # fmt: skip
    assert peaks[1] < 1.1 * peaks[0]
