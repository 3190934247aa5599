"""The task of region edits over a workspace: straight from the face, a step of its chain."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import small_l2sae
from typer.testing import CliRunner

from semedit import cameras, latents, weights
from semedit.batch.workspace import Workspace
from semedit.cli.app import app
from semedit.editors import Roi
from semedit.errors import InputError, OptionError
from semedit.faces import Face
from semedit.generators import load_generator
from semedit.media.photographs import read_photo, write_image
from semedit.media.pixels import resize, to_tensor, to_uint8
from semedit.tasks import run_task
from semedit.tasks.restyle import Restyle


class Watcher:
    """An observer that remembers."""

    def __init__(self) -> None:
        self.outcomes: list[Any] = []

    def start(self, total: int) -> None: ...

    def finish(self, outcome: Any) -> None:
        self.outcomes.append(outcome)


@pytest.fixture
def space(tmp_path: Path) -> Workspace:
    """Two aligned faces and a generator's file beside them."""
    generator = small_l2sae()
    facts = {"kind": "l2sae", "config": json.dumps(asdict(generator.config))}
    weights.save(tmp_path / "small.safetensors", generator.state_dict(), facts)
    space = Workspace(tmp_path / "work")
    for i, name in enumerate(("a", "b")):
        pixels = np.random.default_rng(i).integers(0, 255, (128, 128, 3), dtype=np.uint8)
        write_image(space.path("faces", name, ".png"), pixels)
        c = cameras.orbit(0.1 * i, 0.0)[0].numpy() if i else np.zeros(25)
        face = Face(name, name, "", 0, 128, np.zeros((4, 2)), np.zeros((68, 2)), c)
        space.path("faces", name, ".json").write_text(face.to_json())
    return space


def run(space: Workspace, task: Restyle) -> list[Any]:
    task = replace(task, generator_name=str(space.root.parent / "small.safetensors"))
    watcher = Watcher()
    run_task(task, space, watcher)
    return watcher.outcomes


def shown(space: Workspace, name: str) -> torch.Tensor:
    return to_tensor(read_photo(space.path("edits", name, ".png")).pixels)


def test_edits_follow_each_other_without_inversion(space: Workspace) -> None:
    task = Restyle(Roi("hair", style_noise=1.0))
    first = run(space, task)
    assert [one.name for one in first] == ["a/01-hair-style", "b/01-hair-style"]
    assert all(one.status == "done" for one in first)
    assert all(one.status == "uptodate" for one in run(space, task))
    generator = load_generator(str(space.root.parent / "small.safetensors"))
    face = to_tensor(read_photo(space.path("faces", "a", ".png")).pixels)
    assert face.shape[-1] == 128 > generator.resolution  # crops stay as large as they are
    made = task.method(generator, face).image
    assert torch.equal(shown(space, "a/01-hair-style"), to_tensor(to_uint8(made)))
    second = run(space, Restyle(Roi("nose", structure_noise=0.5), names=["a"]))
    assert [one.name for one in second] == ["a/02-nose-structure"]
    before = shown(space, "a/01-hair-style")
    after = Roi("nose", structure_noise=0.5)(generator, before).image
    assert torch.equal(shown(space, "a/02-nose-structure"), to_tensor(to_uint8(after)))
    again = run(space, Restyle(Roi("lips", style_noise=1.0), start="latents", names=["a"]))
    assert [one.name for one in again] == ["a/03-lips-style"]
    source = space.parent("a/03-lips-style")
    assert source == space.path("faces", "a", ".png")


def test_the_latent_of_a_step_shows_its_picture(space: Workspace) -> None:
    run(space, Restyle(Roi("hair", style_noise=1.0)))
    generator = load_generator(str(space.root.parent / "small.safetensors"))
    for name in ("a", "b"):
        path = space.path("edits", f"{name}/01-hair-style", ".safetensors")
        latent = latents.load(path, generator)
        drawn = to_uint8(latents.picture(generator, latent).image)
        small = to_uint8(resize(shown(space, f"{name}/01-hair-style"), generator.resolution))
        assert np.array_equal(drawn, small)
        camera = cameras.orbit(0.1 if name == "b" else 0.0, 0.0)
        torch.testing.assert_close(latent.c, camera, atol=1e-5, rtol=0)


def test_crops_of_several_sizes_go_together(space: Workspace) -> None:
    pixels = np.random.default_rng(5).integers(0, 255, (96, 96, 3), dtype=np.uint8)
    write_image(space.path("faces", "b", ".png"), pixels)
    run(space, Restyle(Roi("hair", style_noise=1.0), batch=2))
    assert [shown(space, f"{name}/01-hair-style").shape[-1] for name in ("a", "b")] == [128, 96]


def test_style_from_a_face_or_a_file(space: Workspace) -> None:
    task = Restyle(Roi("lips"), reference="b", names=["a"])
    (one,) = run(space, task)
    assert one.name == "a/01-lips-style-from-b" and one.status == "done"
    file = space.path("faces", "b", ".png")
    by_file = Restyle(Roi("lips"), reference=str(file), start="latents", names=["a"])
    (two,) = run(space, by_file)
    assert two.status == "uptodate"  # the same bytes
    with pytest.raises(OptionError, match="neither"):
        run(space, replace(task, reference="c"))
    assert [one.name for one in run(space, replace(task, names=[]))] == [one.name]  # b gives
    with pytest.raises(OptionError, match="no face other than"):
        run(space, replace(task, names=["b"]))
    write_image(space.root / "wide.png", np.zeros((64, 128, 3), np.uint8))
    (wide,) = run(space, replace(task, reference=str(space.root / "wide.png")))
    assert wide.error["code"] == InputError.code and "no aligned face" in wide.error["message"]


def test_the_command_line(space: Workspace) -> None:
    common = ["--work", str(space.root), "-w", str(space.root.parent / "small.safetensors")]

    def semedit(*arguments: str, code: int = 0) -> str:
        result = CliRunner().invoke(app, [arguments[0], *common, *arguments[1:]])
        assert result.exit_code == code, result.output
        return result.output

    semedit("edit", "a", "--style-noise", "1.0", "--region", "hair")
    semedit("edit", "a", "--style-from", "b", "--region", "lips", "--as-published")
    semedit("edit", "a", "--structure-noise", "0.5", "--region", "nose", "--seed", "2")
    assert space.steps("a") == ["a/01-hair-style", "a/02-lips-style-from-b", "a/03-nose-structure"]
    receipt = space.receipt("edit", "a/02-lips-style-from-b")
    assert receipt is not None
    assert receipt["inputs"].keys() == {"latent", "picture", "face", "reference"}
    assert receipt["inputs"]["picture"][0] == "edits/a/01-hair-style.png"
    for wrong, told in (
        (("--region", "hair"), "nothing to do"),
        (("--style-noise", "1"), "no region is given"),
        (("--region", "hair", "--mask", "drawn.png"), "--mask takes no --region"),
        (("--region", "hair", "--style-noise", "1", "--strength", "3"), "takes no --strength"),
        (("--direction", "smiling", "--style-noise", "1"), "takes no --style-noise"),
        (("--direction", "smiling", "--mask", "drawn.png"), "only one way to edit"),
        (("--layers", "0-3"), "no edit is given"),
        (("--region", "hair", "--style-noise", "-1"), "from 0 to"),
        (("--region", "hair", "--style-from", "nobody"), "neither"),
        (("--region", "hair", "--style-noise", "1", "-w", "heads-128"), "heads-128 lacks"),
    ):
        assert told in semedit("edit", "a", *wrong, code=OptionError.exit_code)


def test_a_generator_that_stands_in_is_named(space: Workspace) -> None:
    edit = ["edit", "a", "--region", "hair", "--style-noise", "1", "--work", str(space.root)]
    result = CliRunner().invoke(app, [*edit, "--dry-run"])
    assert result.exit_code == 0 and "generator: heads-l2sae-128" in result.stderr
