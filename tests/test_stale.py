"""Work that goes stale: another picture under a face's name, maps corrected by hand, leftovers."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from semedit.batch.holdings import holdings
from semedit.batch.workspace import Workspace
from semedit.cli.app import app
from semedit.media.masks import read_labels, write_labels
from semedit.tasks import used_by
from semedit.tasks.demo import examples
from semedit.tasks.sheet import default_columns, sheet

INVERT = ("invert", "-o", "steps=1", "-o", "tune_steps=0")


def semedit(*arguments: object, code: int = 0) -> list[dict]:
    result = CliRunner().invoke(app, [str(a) for a in (*arguments, "--json")])
    assert result.exit_code == code, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two photographs, aligned and inverted, one step each; copy it, do not change it."""
    folder = tmp_path_factory.mktemp("stale")
    (folder / "raw").mkdir()
    for name, path in zip("ab", examples(), strict=False):
        shutil.copyfile(path, folder / "raw" / f"{name}.png")
    semedit("align", folder / "raw", "--work", folder / "work")
    semedit(*INVERT, "--work", folder / "work")
    semedit("edit", "--direction", "smiling", "--work", folder / "work")
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "copy"
    shutil.copytree(made, copy)
    for receipt in (copy / "work" / "receipts" / "align").glob("*.json"):  # where it is now
        receipt.write_text(receipt.read_text().replace(str(made), str(copy)))
    return copy


def another(folder: Path) -> None:
    """Another person's photograph under the name of a."""
    shutil.copyfile(examples()[2], folder / "raw" / "a.png")
    semedit("align", folder / "raw", "--work", folder / "work")


def test_another_person_under_the_name_is_not_drawn_as_the_old_one(folder: Path) -> None:
    work = folder / "work"
    old = (work / "edits/a/01-smiling+2.safetensors").read_bytes()
    another(folder)
    for command in (("attr", "--smiling", "-o", "steps=1"), ("turntable", "--frames", "2")):
        found = {row.get("name"): row for row in semedit(*command, "a", "--work", work, code=3)}
        assert "was inverted from another picture" in found["a"]["error"]["message"]
        assert "semedit invert a" in found["a"]["error"]["hint"]
    row, _ = semedit(*INVERT, "a", "--work", work)
    assert any("edits/a~before-" in warning for warning in row["warnings"])
    space = Workspace(work)
    assert space.steps("a") == [] and len(space.steps("b")) == 1
    assert (work / "edits/a~before-1/01-smiling+2.safetensors").read_bytes() == old
    assert (work / "receipts/edit/a~before-1/01-smiling+2.json").is_file()
    row, _ = semedit("edit", "--direction", "young", "a", "--work", work)
    assert row["name"].startswith("a/01-")


def test_the_same_picture_again_keeps_its_edits(folder: Path) -> None:
    work = folder / "work"
    semedit("invert", "-o", "steps=2", "-o", "tune_steps=0", "a", "--work", work)
    assert len(Workspace(work).steps("a")) == 1


def test_a_workspace_that_does_not_tell_is_not_called_stale(folder: Path) -> None:
    work = folder / "work"
    (work / "receipts/invert/a.json").unlink()
    assert not Workspace(work).stale("a")
    semedit("turntable", "a", "--frames", "2", "--work", work)


def test_a_map_corrected_by_hand_is_kept_and_edited_by(folder: Path) -> None:
    work = folder / "work"
    path = work / "masks/a.png"
    drawn = read_labels(path)
    drawn[:60] = 14  # a hat
    write_labels(path, drawn)
    for _ in range(2):
        found = {row.get("name"): row for row in semedit("parse", "--work", work)}
        assert "by hand" in found["a"]["warnings"][0] and found["b"]["warnings"] == []
        assert np.array_equal(read_labels(path), drawn)
    row, _ = semedit("edit", "--mask", path, "a", "-o", "steps=1", "--work", work)
    assert row["status"] == "done" and row["figures"]["region"][0] > 0.05
    (row, _) = semedit("status", "a", "--work", work)
    assert row["map"] == "by hand"
    for kept, command in (
        ("a~by-hand", ("parse", "a")),
        ("a~by-hand-2", ("align", folder / "raw")),
    ):
        write_labels(path, drawn)
        row = semedit(*command, "--overwrite", "--work", work)[0]
        assert row["warnings"] == [f"masks/a.png was changed by hand, kept as masks/{kept}.png"]
        assert not np.array_equal(read_labels(path), drawn)
        assert np.array_equal(read_labels(work / "masks" / f"{kept}.png"), drawn)
    *rows, _ = semedit("status", "--work", work)
    assert [(row["name"], row["map"]) for row in rows] == [("a", "made"), ("b", "made")]


def test_a_map_that_no_command_made_is_kept(folder: Path) -> None:
    path = folder / "work/masks/a.png"
    semedit("align", folder / "raw", "--parse", "none", "--overwrite", "--work", folder / "work")
    assert not path.exists()
    write_labels(path, np.full((256, 256), 14))
    before = path.read_bytes()
    semedit("align", folder / "raw", "--parse", "none", "--overwrite", "--work", folder / "work")
    row, *_ = semedit("parse", "--work", folder / "work")
    assert path.read_bytes() == before and "by hand" in row["warnings"][0]


def test_a_face_record_that_was_changed_by_hand_is_set_aside_as_no_face(folder: Path) -> None:
    record = folder / "work/faces/a.json"
    record.write_text(record.read_text().replace('"size": 256', '"size": 255'))
    (row, *_) = semedit("align", folder / "raw", "--overwrite", "--work", folder / "work")
    assert "kept as faces/a~by-hand.json.kept" in row["warnings"][0]
    assert Workspace(folder / "work").faces() == ["a", "b"]


def test_status_tells_what_is_there_and_what_comes_next(folder: Path) -> None:
    work = folder / "work"
    semedit("turntable", "b", "--frames", "2", "--work", work)
    semedit("edit", "--direction", "young", "b", "--work", work)
    shutil.copyfile(examples()[0], folder / "raw" / "c.png")
    another(folder)
    (folder / "raw" / "b.png").unlink()
    shutil.copyfile(work / "latents/b.safetensors", work / "latents/gone.safetensors")
    shutil.copytree(work / "edits/b", work / "edits/left")
    (work / "turntables/spun.webp").write_bytes(b"")
    receipt = json.loads((work / "receipts/invert/b.json").read_text())
    receipt |= {"name": "told", "outputs": {}}
    (work / "receipts/invert/told.json").write_text(json.dumps(receipt))
    *rows, summary = semedit("status", "--work", work)
    found = {row["name"]: row for row in rows}
    assert found["a"]["troubles"][0].startswith("stale")
    assert found["a"]["next"] == "semedit invert a"
    assert found["b"]["photograph"] == "gone" and found["b"]["turntable"] == "stale"
    assert found["b"]["edits"] == ["01-smiling+2", "02-young+2"]
    assert found["c"]["inverted"] == "" and found["c"]["next"] == "semedit invert c"
    assert found["gone"]["troubles"][0].startswith("orphaned: latents")
    left = {"gone": "latents", "left": "edits", "spun": "turntables", "told": "receipts"}
    assert {n: found[n]["troubles"][0].split(" of ")[0] for n in left} == {
        name: f"orphaned: {folder}" for name, folder in left.items()
    }
    assert summary == {"summary": True, "faces": 3, "inverted": 2, "edited": 2, "troubled": 6}
    result = CliRunner().invoke(app, ["status", "--work", str(work)])
    assert result.exit_code == 0 and "orphaned" in result.output


def test_a_turntable_is_stale_where_the_face_is_another_now_and_only_there(folder: Path) -> None:
    work = folder / "work"

    def told() -> str:
        return semedit("status", "b", "--work", work)[0]["turntable"]

    turn = ("turntable", "b", "--frames", "2", "--work", work)
    semedit(*turn, "--from", "latents")
    assert told() == "there"  # of an earlier latent, but that was asked for
    semedit(*turn, "--format", "webp")
    assert told() == "there"
    semedit("edit", "--direction", "young", "b", "--work", work)
    assert told() == "stale"  # the second format
    semedit("invert", "-o", "steps=2", "-o", "tune_steps=0", "b", "--work", work)
    (work / "turntables/b.webp").unlink()
    assert told() == "stale"  # inverted anew since


def test_commands_tell_what_became_of_photographs(folder: Path) -> None:
    work = folder / "work"
    shutil.copyfile(examples()[2], folder / "raw" / "a.png")
    (folder / "raw" / "b.png").rename(folder / "raw" / "c.png")
    for _ in range(2):  # also of what is up to date
        rows = {row.get("name"): row for row in semedit("pose", "--work", work)}
        assert "is another now than was aligned" in rows["a"]["warnings"][0]
        assert "deleted or renamed" in rows["b"]["warnings"][0]
        assert len(rows["a"]["warnings"]) == 1 and rows[None]["warned"] == 2
    assert json.loads((work / "receipts/pose/a.json").read_text())["warnings"] == []
    shutil.rmtree(folder / "raw")
    result = CliRunner().invoke(app, ["pose", "--work", str(work)])
    assert result.exit_code == 0 and result.output.count("is not there, so nothing tells") == 1
    *rows, _ = semedit("status", "--work", work)
    assert {row["photograph"] for row in rows} == {"away"}


def test_receipts_name_all_that_was_read(folder: Path) -> None:
    space, work = Workspace(folder / "work"), ("b", "--work", folder / "work")
    edit = ("edit", "--direction", "young", "--from", "01-smiling+2", *work)
    assert semedit(*edit)[0]["name"] == "b/02-young+2"
    receipt = space.receipt("edit", "b/02-young+2")
    assert receipt is not None
    assert receipt["inputs"]["now"][0] == "edits/b/01-smiling+2.labels.png"
    assert semedit(*edit)[0]["status"] == "uptodate"
    path = space.path("edits", "b/01-smiling+2", ".labels.png")
    write_labels(path, 18 - read_labels(path))  # drawn over by hand
    assert semedit(*edit)[0]["name"] == "b/03-young+2"
    semedit("turntable", "--frames", "2", *work)
    semedit("edit", "--direction", "smiling", "--strength", "-1:1:2", *work)
    for command, name in (("turntable-gif", "b"), ("sweep", "b/smiling")):
        receipt = space.receipt(command, name)
        assert receipt is not None and used_by("heads-128").items() <= receipt["weights"].items()
    write_labels(folder / "drawn.png", read_labels(space.path("masks", "b", ".png")))
    drawn = ("--mask", folder / "drawn.png", "--from", "none", "-o", "steps=1")
    semedit("edit", *drawn, "--work", folder / "work")
    receipt = space.receipt("draw", "drawn")
    assert receipt is not None and "landmarks" in receipt["weights"]


# Labels ------------------------------------------------------------------------------------------


def test_two_settings_stand_side_by_side(folder: Path) -> None:
    work = ("a", "--work", folder / "work")
    space = Workspace(folder / "work")
    before = space.path("latents", "a", ".safetensors").read_bytes()
    quick = ("invert", "-o", "steps=2", "-o", "tune_steps=0", "--label", "quick", *work)
    row, _ = semedit(*quick)
    assert row["name"] == "a@quick" and "latents/a@quick.png" in row["outputs"]
    assert space.path("latents", "a", ".safetensors").read_bytes() == before
    gentle = ("edit", "--direction", "smiling", "--strength", "1", "--label", "gentle")
    row, _ = semedit(*gentle, "--from", "quick", *work)
    assert row["name"] == "a/02-gentle"
    receipt = space.receipt("edit", "a/02-gentle")
    assert receipt is not None
    assert receipt["inputs"]["latent"][0] == "latents/a@quick.safetensors"
    row, _ = semedit("turntable", "--frames", "2", "--label", "short", "--from", "1", *work)
    assert row["outputs"] == ["turntables/a@short.gif"]
    for again in ((*gentle, "--from", "latents@quick", *work), quick):
        assert semedit(*again)[0]["status"] == "uptodate"
    row, _ = semedit(*gentle[:-1], "other", "--from", "quick", *work)
    assert row["name"] == "a/03-other"  # the same edit, but it is to stand under that name

    row, *rest, _ = semedit("status", "--work", folder / "work")
    assert row["labels"] == ["inversion@quick", "turntable@short"] and row["troubles"] == []
    assert [one["name"] for one in rest] == ["b"]
    (face,) = holdings(space, ["a"])
    columns = ["crop", "map", "inversion", "inversion@quick", "gentle", "other"]
    assert default_columns([face]) == [*columns, "left@short"]
    for column in default_columns([face]):
        assert len(np.unique(sheet([face], [column], [""], 32).reshape(-1, 3), axis=0)) > 9, column
    semedit("sheet", "--work", folder / "work", "--columns", "inversion@quick,right@short,gentle")
    semedit("sheet", "--work", folder / "work", "--columns", "inversion@none", code=2)


def test_what_is_of_another_picture_is_set_aside_and_no_more(folder: Path) -> None:
    space, work = Workspace(folder / "work"), ("a", "--work", folder / "work")
    another(folder)
    semedit(*INVERT, "--label", "new", *work)
    assert space.steps("a") == [] and (space.root / "edits/a~before-1").is_dir()
    semedit("edit", "--direction", "young", *work, code=3)  # from the one without a label
    row, _ = semedit("edit", "--direction", "young", "--from", "new", *work)
    assert row["name"] == "a/01-young+2"
    (row, *_) = semedit("status", *work)
    assert row["troubles"] == ["stale: inverted from another picture than it is now"]
    row, _ = semedit(*INVERT, *work)
    assert row["warnings"] == [] and space.steps("a") == ["a/01-young+2"]


@pytest.mark.parametrize("label", ["2", "latents", "x/y", "..", "-q", "none", "x" * 99, ""])
def test_what_cannot_be_a_label_is_refused(tmp_path: Path, label: str) -> None:
    for command in ("invert", "turntable", "attr --smiling", "edit --direction smiling"):
        semedit(*command.split(), "--label", label, "--work", tmp_path, code=2)


def test_a_face_that_is_called_like_a_label_keeps_its_own(folder: Path) -> None:
    shutil.copyfile(examples()[0], folder / "raw" / "a@x.png")
    semedit("align", folder / "raw", "--work", folder / "work")
    semedit(*INVERT, "a@x", "--work", folder / "work")
    row, _ = semedit(*INVERT, "--label", "x", "a", "--work", folder / "work", code=3)
    assert "name of two things" in row["error"]["message"]
    assert Workspace(folder / "work").inversions("a") == [""]
