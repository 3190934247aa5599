"""What a run tells of every file: the summary in every case, logs, quiet runs, progress."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from semedit.batch import Outcome, Result
from semedit.cli import report
from semedit.cli.app import app
from semedit.cli.report import Reporter
from semedit.errors import NoFaceError, WorkspaceError
from semedit.tasks.align import Align


def ran(*arguments: object, code: int = 0) -> Any:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == code, result.output
    return result


def rows(*arguments: object, code: int = 0) -> list[dict[str, Any]]:
    return [json.loads(line) for line in ran(*arguments, "--json", code=code).stdout.splitlines()]


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of four pictures of nobody and of what is no picture; nothing looks for faces."""
    monkeypatch.chdir(tmp_path)
    folder = Path("raw")
    folder.mkdir()
    for name in "abcd":
        Image.new("RGB", (8, 8)).save(folder / f"{name}.png")
    for name in ("clip.mov", "two.mov", "README", "a.json"):
        (folder / name).write_bytes(b"no picture")
    monkeypatch.setattr(Align, "batch", 1)
    monkeypatch.setattr(Align, "work", lambda *_: [Result(error=NoFaceError("no face found"))])
    return folder


def ended_by(monkeypatch: pytest.MonkeyPatch, error: BaseException, at: int) -> None:
    """Let the work on the photograph of that number, from 0, end with an error."""
    calls = iter(range(9))

    def work(*_: object) -> list[Result]:
        if next(calls) == at:
            raise error
        return [Result(error=NoFaceError("no face found"))]

    monkeypatch.setattr(Align, "work", work)


@pytest.mark.parametrize("at", [0, 2])
def test_an_interrupted_run_says_what_it_did_not_reach(
    raw: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    ended_by(monkeypatch, KeyboardInterrupt(), at)
    result = CliRunner().invoke(app, ["align", str(raw), "--json"])
    assert result.exit_code != 0
    *lines, summary = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["status"] for line in lines] == ["skipped"] * at
    assert summary["total"] == 4 and summary["skipped"] == at
    assert summary["not_reached"] == 4 - at and summary["interrupted"] is True
    assert summary["ended_by"] is None
    assert "ended early" in result.stderr and "not reached" in result.stderr


def test_an_error_that_ends_a_run_is_in_its_summary(
    raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended_by(monkeypatch, WorkspaceError("the disk is full", "make room"), 1)
    *_, summary = rows("align", raw, code=1)
    assert summary["ended_by"] == {
        "code": "workspace",
        "message": "the disk is full",
        "hint": "make room",
    }
    assert (summary["total"], summary["not_reached"]) == (4, 3)


def test_every_run_ends_with_a_summary(raw: Path) -> None:
    (summary,) = rows("invert", "nobody", code=4)
    assert summary["summary"] and summary["total"] == 0
    assert summary["ended_by"]["message"].startswith("no workspace at")
    rows("align", raw)
    (summary,) = rows("edit", "nobody", "--direction", "smiling", code=4)
    assert summary["ended_by"]["code"] == "nothing" and summary["command"] == "edit"
    (summary,) = rows("edit", code=2)  # before it begins
    assert summary["ended_by"]["message"] == "no edit is given"
    (summary,) = rows("turntable", "--frames", "x", code=2)  # before it is one
    assert summary["ended_by"]["code"] == "option" and "--frames" in summary["ended_by"]["message"]
    (summary,) = rows("latents", "export", "--work", "nowhere", code=4)
    assert summary["command"] == "export" and summary["interrupted"]
    Path("recipe.toml").write_text('[[step]]\ncommand = "pose"\n')
    step, whole = rows("run", "recipe.toml", code=4)
    assert (step["command"], whole["command"]) == ("pose", "run")
    (summary,) = rows("eval", "heads", "--fresh", "x", code=2)
    assert summary["summary"]


def test_what_is_no_photograph_is_counted_and_named(raw: Path) -> None:
    *lines, summary = rows("align", raw)
    assert [line["name"] for line in lines] == list("abcd")
    assert sorted(summary["left_out"]) == ["raw/README", "raw/clip.mov", "raw/two.mov"]
    (plan,) = rows("align", raw, "--dry-run")
    assert sorted(plan["left_out"]) == sorted(summary["left_out"]) and plan["total"] == 4
    told = ran("align", raw).stderr
    cells = [re.split(r"\s*[│┃]\s*", line)[1:-1] for line in told.splitlines()]
    assert ["2 left out", ".mov is not read", "clip.mov"] in cells
    assert ["1 left out", "a file without a suffix is not read", "README"] in cells
    for more in ((), ("--dry-run",)):
        told = ran("align", raw, *more).stderr
        assert "left out, as no reader knows them: 2 .mov, 1 no suffix\n" in told


def test_a_quiet_run_says_only_what_goes_wrong(raw: Path) -> None:
    (raw / "broken.png").write_bytes(b"")
    told = ran("align", raw, "-q", "--log", "logs/all.txt", code=3).stderr.splitlines()
    assert {line.split(":")[0] for line in told} == {"skipped", "error"} and len(told) == 5
    log = Path("logs/all.txt").read_text()
    for words in ("device: ", "back-ends: ", "skipped: a: no face found", "error: broken: "):
        assert re.search(rf"^20\d\d-\d\d-\d\d \d\d:\d\d:\d\d\S* {words}", log, re.M), words
    assert "left out: raw/clip.mov" in log and "not done, and why" in log
    ran("pose", "-q", "--log", "logs/all.txt", code=4)  # added; with what ended it
    assert Path("logs/all.txt").read_text().startswith(log)
    assert "error: no faces in semedit-work (run" in Path("logs/all.txt").read_text()


def test_a_log_that_cannot_be_written_ends_the_run_at_once(raw: Path) -> None:
    result = ran("align", raw, "--log", raw, code=1)
    assert "raw: " in result.stderr and not Path("semedit-work").exists()


def test_without_a_terminal_a_line_says_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr(report.time, "perf_counter", lambda: now[0])
    with Reporter("invert", False, tmp_path) as reporter:
        reporter.start(report.ITEMS + 3)
        for seconds in (1, 31, 40, 62):
            now[0] = seconds
            reporter.step(seconds, 99)
        for i in range(report.ITEMS + 2):
            reporter.finish(Outcome(str(i), "done"))
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("progress")]
    assert told == [
        f"progress: invert: 0 of {report.ITEMS + 3}, step 31 of 99, after 31 s",
        f"progress: invert: 0 of {report.ITEMS + 3}, step 62 of 99, after 62 s",
        f"progress: invert: {report.ITEMS} of {report.ITEMS + 3}, after 62 s",
    ]


# Options that would do nothing ---------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        "invert --seed 1",
        "attr --smiling --seed 1",
        "edit --direction smiling --seed 1",
        "edit --direction smiling --strength -1:1:3 --batch 2",
        "edit --mask raw/a.png --from none --method mask",
        "edit --mask raw/a.png --from none --batch 2",
        "turntable --path orbit --yaw-deg 20",
        "invert --address here:1",
        "latents export --device cpu",
        "sheet --rows 3",
        "demo --seed 1",
        "heads out --device cpu",
        "train stylegan2 --data raw --device cuda",
        "eval heads --seed 3",
        "eval transfer -n 2 --heads 3",
        "eval ide3d --side-deg 20",
        "eval ide3d --parts masks --plot plot.png",
        "eval semfaceedit --data raw --device cuda",
        "directions fit --data raw --share 0.2",
    ],
)
def test_an_option_without_effect_is_refused(raw: Path, given: str) -> None:
    (Path("semedit-work") / "faces").mkdir(parents=True)
    for name in ("a.json", "a.png"):
        (Path("semedit-work") / "faces" / name).write_bytes((raw / "a.png").read_bytes())
    told = " ".join(re.sub(r"[│╭╮╰╯─]", " ", ran(*given.split(), code=2).stderr).split())
    flags = re.findall(r"--[a-z-]+", given)
    assert any(f"{f} has no effect: " in told or f"No such option: {f}" in told for f in flags)


def test_what_a_recipe_gives_all_steps_need_not_suit_each(raw: Path) -> None:
    step = '[[step]]\ncommand = "edit"\ndirection = "smiling"\n'
    Path("recipe.toml").write_text(f"seed = 3\n{step}")
    ran("run", "recipe.toml", "--dry-run", code=4)  # no faces; but the seed is no matter
    Path("recipe.toml").write_text(f"{step}seed = 3\n")
    assert "--seed has no effect" in ran("run", "recipe.toml", "--dry-run", code=2).stderr
