"""The real chain on a folder with bad files among good, driven through the command line."""

import json
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from command_line import FAST_EDIT, FAST_INVERT, semedit, statuses
from PIL import Image
from safetensors.torch import load_file
from tiny import SMALL_CNERF, make_cnerf

from semedit import weights
from semedit.batch.workspace import Workspace
from semedit.media.labels import LABELS
from semedit.media.masks import read_labels, write_labels
from semedit.tasks.demo import examples


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three heads (one in a folder of its own), and files that are no faces or no pictures."""
    folder = tmp_path_factory.mktemp("chain")
    raw = folder / "raw"
    (raw / "süb dir").mkdir(parents=True)
    for name, path in zip(("a", "b", "süb dir/c"), examples(), strict=True):
        shutil.copyfile(path, raw / f"{name}.png")
    (raw / "bad.jpg").write_bytes(b"\xff\xd8\xff\xe0 not a JPEG at all")
    (raw / "empty.png").write_bytes(b"")
    Image.fromarray(np.zeros((200, 200, 3), np.uint8) + 90).save(raw / "nobody.png")
    (raw / "notes.txt").write_text("no picture")
    return folder


@pytest.fixture(scope="module")
def space(folder):
    """The workspace after align and invert."""
    work = folder / "work"
    lines = semedit("align", folder / "raw", "--work", work, "--json", code=3)
    assert statuses(lines) == {
        "a": "done",
        "b": "done",
        "süb dir/c": "done",
        "bad": "error",
        "empty": "error",
        "nobody": "skipped",
    }
    summary = lines[-1]
    assert summary["summary"] and (summary["done"], summary["error"]) == (3, 2)
    assert summary["warned"] == 0, lines
    lines = semedit("invert", *FAST_INVERT, "--work", work, "--json")
    assert set(statuses(lines).values()) == {"done"}
    return Workspace(work)


def test_align_leaves_a_receipt_for_every_input(space, folder):
    names = {"a", "b", "süb dir/c", "bad", "empty", "nobody"}
    assert all(space.receipt("align", name) for name in names)
    assert space.faces() == ["a", "b", "süb dir/c"]
    for name in space.faces():
        labels = read_labels(space.path("masks", name, ".png"))
        assert labels.shape == (256, 256) and len(np.unique(labels)) > 5
    again = semedit("align", folder / "raw", "--work", space.root, "--json", code=3)
    assert set(statuses(again).values()) == {"uptodate", "error", "skipped"}


def test_parse_and_pose_alone_leave_the_rest_up_to_date(space, folder):
    before = read_labels(space.path("masks", "a", ".png"))
    assert statuses(semedit("parse", "a", "--work", space.root, "--json")) == {"a": "done"}
    assert statuses(semedit("pose", "a", "--work", space.root, "--json")) == {"a": "done"}
    assert statuses(semedit("pose", "a", "--work", space.root, "--json")) == {"a": "uptodate"}
    lines = semedit("align", folder / "raw" / "a.png", "--work", space.root, "--json")
    assert statuses(lines) == {"a": "uptodate"} and lines[0]["warnings"] == []
    assert (read_labels(space.path("masks", "a", ".png")) == before).mean() > 0.99


def test_a_drawn_mask_finds_its_face_and_edits_chain(space, folder):
    labels = read_labels(space.path("masks", "b", ".png"))
    drawn = labels.copy()
    drawn[(labels == LABELS.index("background")) & (np.arange(256)[:, None] < 60)] = 14
    write_labels(folder / "edited.png", drawn)
    mask = ("edit", "--mask", folder / "edited.png", *FAST_EDIT, "--work", space.root, "--json")
    assert statuses(semedit(*mask)) == {"b/01-mask": "done"}
    assert statuses(semedit(*mask)) == {"b/01-mask": "uptodate"}
    smile = ("attr", "--smiling", *FAST_EDIT, "--work", space.root, "--json")
    assert statuses(semedit(*smile)) == {
        "a/01-smiling": "done",
        "b/02-smiling": "done",
        "süb dir/c/01-smiling": "done",
    }
    assert statuses(semedit(*mask)) == {"b/01-mask": "uptodate"}  # the script of both, again
    assert set(statuses(semedit(*smile)).values()) == {"uptodate"}
    receipt = space.receipt("attr", "b/02-smiling")
    assert receipt["inputs"]["latent"][0] == "edits/b/01-mask.safetensors"
    picture = space.path("edits", "b/02-smiling", ".png")
    assert b"compositeWithTrainedAlgorithmicMedia" in picture.read_bytes()
    assert read_labels(space.path("edits", "b/02-smiling", ".labels.png")).shape == (256, 256)
    lines = semedit("attr", "b", "--no-smiling", "--from", "latents", *FAST_EDIT, "--work",
                    space.root, "--json")  # fmt: skip
    assert statuses(lines) == {"b/03-no-smiling": "done"}


def test_a_folder_of_masks_pairs_by_name(space, folder):
    labels = read_labels(space.path("masks", "süb dir/c", ".png"))
    labels[:40] = 14
    write_labels(folder / "masks" / "süb dir" / "c.png", labels)
    lines = semedit("edit", "--mask", folder / "masks", *FAST_EDIT, "--work", space.root,
                    "--from", "latents", "--json")  # fmt: skip
    (name,) = statuses(lines)
    assert name.startswith("süb dir/c/")


def test_regions_come_from_another_face(space):
    give = ("edit", "a", "--transfer-from", "b", "--from", "latents", *FAST_EDIT, "--work",
            space.root, "--region")  # fmt: skip
    (name,) = statuses(semedit(*give, "nose,brows", "--json"))
    assert name.startswith("a/") and name.endswith("-nose+brows-from-b")
    receipt = space.receipt("edit", name)
    read = {"latent", "labels", "donor", "photograph", "inversion"}
    assert set(receipt["inputs"]) == read and receipt["figures"]["region"]
    assert statuses(semedit(*give, "nose,brows", "--json")) == {name: "uptodate"}
    assert "no region" in semedit(*give, "beard", code=2)
    assert "neither a face" in semedit("edit", "--transfer-from", "nobody", "--region", "hair",
                                   "--work", space.root, code=2)  # fmt: skip
    assert "one way" in semedit(*give, "hair", "--direction", "smiling", code=2)


def test_codes_of_regions_are_exchanged(space, tmp_path):
    cnerf = make_cnerf(SMALL_CNERF)
    config = json.dumps(asdict(cnerf.config))
    facts = {"kind": "cnerf", "config": config, "licence": "MIT", "command": "none",
             "seed": "0", "data": "none", "figures": "{}"}  # fmt: skip
    weights.save(tmp_path / "small.safetensors", cnerf.state_dict(), facts)
    work = tmp_path / "work"
    for part in ("faces", "masks"):
        shutil.copytree(space.root / part, work / part)
    chosen = ("-w", tmp_path / "small.safetensors", "--work", work, "--json")
    lines = semedit("invert", "a", "b", "--method", "optimize", "-o", "steps=2", *chosen)
    assert statuses(lines) == {"a": "done", "b": "done"}
    lines = semedit("edit", "a", "--transfer-from", "b", "--region", "hair", *chosen)
    assert statuses(lines) == {"a/01-hair-from-b": "done"}
    after, a, b = (
        load_file(work / f"{name}.safetensors")["code.ws"]
        for name in ("edits/a/01-hair-from-b", "latents/a", "latents/b")
    )
    hair = SMALL_CNERF.regions.index("hair")
    assert (after[:, hair] == b[:, hair]).all()
    after[:, hair] = a[:, hair]
    assert (after == a).all()


def test_directions_move_faces(space):
    lines = semedit("edit", "a", "--direction", "smiling", "--strength", "1.5", "--work",
                    space.root, "--json")  # fmt: skip
    assert [name.split("-", 1)[1] for name in statuses(lines)] == ["smiling+1.5"]


def test_a_strip_of_strengths_is_no_step_of_the_chain(space):
    steps = space.steps("a")
    command = ("edit", "a", "--direction", "smiling", "--strength", "-1:1:3", "--layers", "0-7",
               "--work", space.root, "--json")  # fmt: skip
    assert statuses(semedit(*command)) == {"a/smiling": "done"}
    assert statuses(semedit(*command)) == {"a/smiling": "uptodate"}
    with Image.open(space.root / "sweeps" / "a" / "smiling.png") as image:
        assert image.width > 3 * 128
    assert space.steps("a") == steps
    wrong = ("edit", "a", "--direction", "smiling", "--work", space.root, "--strength")
    assert "FROM:TO:COUNT" in semedit(*wrong, "1:2", code=2)
    assert "2 to 101" in semedit(*wrong, "0:1:1", code=2)
    assert "direction" in semedit("edit", "--mask", space.root, "--strength", "0:1:3", "--work",
                                  space.root, code=2)  # fmt: skip


def test_attributes_by_the_papers_method(space):
    command = ("attr", "b", "--smiling", "--method", "pernus", "--steps", "2", "-o", "samples=50",
               "--from", "latents", "--work", space.root, "--json")  # fmt: skip
    (name,) = statuses(semedit(*command))
    receipt = space.receipt("attr", name)
    assert receipt["inputs"]["crop"][0] == "faces/b.png"
    assert {"probability", "error", "identity", "judged"} <= set(receipt["figures"])
    assert "fast, pernus" in semedit(
        "attr", "--smiling", "-m", "mask", "--work", space.root, code=2
    )


def test_turntables_loop(space):
    lines = semedit("turntable", "a", "--frames", 6, "--seg", "--work", space.root, "--json")
    assert statuses(lines) == {"a": "done"}
    with Image.open(space.root / "turntables" / "a.gif") as image:
        assert image.n_frames == 6 and image.size == (256, 128) and image.info["loop"] == 0
    lines = semedit("turntable", "a", "--frames", 4, "--format", "mp4", "--work", space.root,
                    "--json")  # fmt: skip
    assert lines[0]["outputs"] == ["turntables/a.mp4"]
    again = semedit("turntable", "a", "--frames", 6, "--seg", "--work", space.root)
    assert str(space.path("turntables", "a", ".gif")) in again  # few files are named


def test_other_weights_are_refused(space):
    text = semedit("invert", "-w", "nobody", "--work", space.root, code=1)
    assert "nobody" in text


def test_a_photograph_without_a_face_may_be_an_error(tmp_path, folder):
    nobody = folder / "raw" / "nobody.png"
    align = (
        "align",
        nobody,
        "--work",
        tmp_path / "work",
        "--parse",
        "none",
        "--pose",
        "none",
        "--json",
    )
    line, _ = semedit(*align)
    assert line["status"] == "skipped" and line["error"]["code"] == "no-face"
    line, _ = semedit(*align, "--on-no-face", "fail", code=3)
    assert line["status"] == "error" and line["error"]["code"] == "input"
    assert Workspace(tmp_path / "work").receipt("align", "nobody")["status"] == "error"


# Exit codes --------------------------------------------------------------------------------------


def test_usage_errors_end_with_2(tmp_path, folder):
    work = ("--work", tmp_path / "work")
    assert "did you mean hybrid" in semedit_after_align(tmp_path, "invert", "-m", "hybird")
    assert "did you mean steps" in semedit_after_align(tmp_path, "invert", "-o", "step=1")
    semedit("invert", "--wings", *work, code=2)
    semedit("edit", *work, code=2)
    semedit("attr", *work, code=2)
    semedit("align", folder / "raw", "--device", "warp", *work, code=2)
    told = semedit("align", folder / "raw", "--device", "cuda:99", *work, code=2)
    assert "no device 'cuda:99' here (there is" in told and "cpu" in told
    semedit("align", folder / "raw", "--shard", "3/2", *work, code=2)
    semedit("align", folder / "raw", "--on-no-face", "perhaps", *work, code=2)


def semedit_after_align(tmp_path, *arguments):
    (tmp_path / "work").mkdir(exist_ok=True)
    return semedit(*arguments, "--work", tmp_path / "work", code=2)


def test_nothing_matched_ends_with_4(tmp_path):
    semedit("align", tmp_path / "none", "--work", tmp_path / "work", code=4)
    assert "semedit align" in semedit("invert", "--work", tmp_path / "other", code=4)
    assert not (tmp_path / "other").exists()


def test_a_locked_workspace_ends_with_11(tmp_path, folder):
    with Workspace(tmp_path / "work").locked(make=True):
        command = [sys.executable, "-m", "semedit.cli", "align", str(folder / "raw")]
        result = subprocess.run(
            [*command, "--work", str(tmp_path / "work")], capture_output=True, check=False
        )
    assert result.returncode == 11 and b"another run" in result.stderr


def test_a_folder_that_cannot_be_written_ends_with_1(tmp_path, folder):
    (tmp_path / "file").write_text("x")
    semedit("align", folder / "raw", "--work", tmp_path / "file" / "work", code=1)


# Commands without a workspace ------------------------------------------------------------------


def test_methods_lists_every_registry():
    lines = semedit("methods", "--json")
    assert not [line["name"] for line in lines if line["summary"].startswith("See")]
    kinds = {(line["kind"], line["name"]) for line in lines}
    assert {("generator", "triplane"), ("inverter", "hybrid"), ("editor", "mask")} <= kinds
    hybrid = next(line for line in lines if line["name"] == "hybrid")
    steps = next(option for option in hybrid["options"] if option["name"] == "steps")
    assert steps["type"] == "int" and steps["help"]
    assert "tune_steps" in semedit("methods", "hybrid")
    assert "did you mean" in semedit("methods", "hybird", code=2)


def test_directions_are_fitted_made_and_imported(tmp_path, monkeypatch):
    monkeypatch.setenv("SEMEDIT_WEIGHTS", str(tmp_path))
    np.save(tmp_path / "turn.npy", np.ones((1, 192)))
    (line,) = semedit("directions", "import", tmp_path / "turn.npy", "--name", "turned", "--json")
    assert line["directions"] == 1
    semedit("directions", "pca", "-n", "300", "--components", "2")
    semedit("directions", "fit", "smiling", "--condition", "young", "--samples", "40")
    rows = {line["name"]: line for line in semedit("directions", "list", "--json")}
    assert {"turned", "pc00", "pc01", "smiling", "young"} <= set(rows)
    assert rows["smiling"]["samples"] == 40 and rows["pc00"]["samples"] == 300
    np.save(tmp_path / "wide.npy", np.ones((1, 512)))
    assert "(1, 192)" in semedit("directions", "import", tmp_path / "wide.npy", code=1)
    assert "did you mean smiling" in semedit("directions", "fit", "smilling", "-n", "16", code=2)


def test_weights_are_listed_added_and_verified(tmp_path, monkeypatch):
    monkeypatch.setenv("SEMEDIT_WEIGHTS", str(tmp_path / "weights"))
    rows = {line["name"]: line for line in semedit("weights", "list", "--json")}
    assert rows["alexnet"]["file"] is None
    (tmp_path / "x.pth").write_bytes(b"<html>")
    assert "web page" in semedit("weights", "add", "alexnet", tmp_path / "x.pth", code=1)
    assert "cannot fetch" in semedit("weights", "fetch", "retinaface-mobilenet", code=1)
    assert "did you mean" in semedit("weights", "fetch", "alexnett", code=1)
    semedit("weights", "verify")


def test_head_geometry_is_added_from_the_array_file(tmp_path, monkeypatch, shared):
    monkeypatch.setenv("SEMEDIT_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.delenv("SEMEDIT_ICT", raising=False)
    semedit("weights", "add", "ict-facekit", shared / "ict" / "ict_facekit_light.npz")
    assert weights.resolve("ict-facekit").parent == tmp_path / "weights"
    semedit("weights", "add", "ict-facekit", Path(__file__), code=1)


def test_version():
    assert semedit("--version").startswith("semedit 0.")
