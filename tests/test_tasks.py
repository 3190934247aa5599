"""Tasks beside the command line: what an edit tells of each face of a batch."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from tiny import TinyGenerator

from semedit import latents, tasks
from semedit.batch import Item, Run
from semedit.batch.workspace import Workspace
from semedit.editors import Direction, Editor, Way
from semedit.errors import LatentError, OptionError, WeightsError
from semedit.faces.parsing import PARSERS
from semedit.latents import Latent
from semedit.media.masks import read_labels, write_labels
from semedit.media.photographs import write_image
from semedit.tasks import check_finite, edit, run_task, turntable
from semedit.tasks.align import Describe
from semedit.tasks.turntable import Turntable


@dataclass(frozen=True)
class Shift(Editor):
    """Adds to codes, and tells how much, face by face."""

    way: ClassVar[Way] = "direction"
    by: float = 0.5  # of every entry

    def __call__(self, generator: Any, latent: Latent, progress: Any = None) -> Latent:
        codes = {k: v + self.by for k, v in latent.codes.items()}
        told = {**latent.meta, "probability": [0.1 * i for i in range(len(latent))]}
        return replace(latent, codes=codes, meta=told, method=f"{latent.method}+shift")


def test_nothing_that_is_not_finite_is_written() -> None:
    latent = Latent({"ws": torch.ones(1, 2, 3)}, torch.zeros(1, 25), "tiny", "0", "optimize")
    assert check_finite(latent, "the inversion of a") is None
    diverged = replace(latent, meta={"diverged": [True]})
    assert "kept as it was when last finite" in str(check_finite(diverged, "the inversion of a"))
    for wrong in (math.nan, math.inf):
        broken = replace(latent, tuned={"planes": torch.full((1, 2), wrong)})
        with pytest.raises(LatentError, match="inversion of a diverged: planes is not finite"):
            check_finite(broken, "the inversion of a")


def test_faces_of_unlike_histories_keep_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = TinyGenerator()
    monkeypatch.setattr(tasks, "load_generator", lambda name, device: generator)
    space = Workspace(tmp_path)
    codes, c = generator.sample(2)
    print_ = latents.fingerprint(generator)
    both = Latent(codes, c, "tiny", print_, "?")
    items = []
    for i, (name, method) in enumerate((("a", "hybrid"), ("b", "hybrid+mask"))):
        write_labels(space.path("masks", name, ".png"), torch.zeros(16, 16, dtype=torch.int64))
        path = space.path("latents", name, ".safetensors")
        path.parent.mkdir(exist_ok=True)
        replace(both[i], method=method, meta={"loss": [float(i)]}).save(path)
        inputs = {"latent": path, "labels": space.path("masks", name, ".png")}
        items.append(Item(f"{name}/01-shift", inputs, data=space))
    task = edit.Edit("edit", "shift", Shift(), "shift", generator_name="tiny")
    for result in task.work(items, [task.load(item) for item in items]):
        result.write()
    for i, method in enumerate(("hybrid+shift", "hybrid+mask+shift")):
        made = latents.load(space.path("edits", items[i].name, ".safetensors"), generator)
        assert made.method == method and made.meta["loss"] == [float(i)]
        assert made.meta["probability"] == [0.1 * i]
        assert torch.allclose(made.codes["ws"], codes["ws"][i : i + 1] + 0.5, atol=1e-6)


def test_a_receipt_tells_of_its_own_step_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = TinyGenerator()
    monkeypatch.setattr(tasks, "load_generator", lambda name, device: generator)
    space = Workspace(tmp_path)
    codes, c = generator.sample(1)
    before = Latent(codes, c, "tiny", latents.fingerprint(generator), "hybrid+fast")
    write_labels(space.path("masks", "a", ".png"), torch.zeros(16, 16, dtype=torch.int64))
    path = space.path("latents", "a", ".safetensors")
    path.parent.mkdir()
    replace(before, meta={"region": [0.3], "error": 2.0}).save(path)
    inputs = {"latent": path, "labels": space.path("masks", "a", ".png")}
    item = Item("a/02-shift", inputs, data=space)
    task = edit.Edit("edit", "shift", Shift(), "shift", generator_name="tiny")
    (result,) = task.work([item], [task.load(item)])
    result.write()
    assert result.figures == {"probability": [0.0]}  # not the step before's region and error
    made = latents.load(space.path("edits", "a/02-shift", ".safetensors"), generator)
    assert made.meta["error"] == 2.0


def test_crops_of_several_sizes_are_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    skin = torch.eye(19)[1][:, None, None]
    parser = lambda device: lambda images: skin.expand(len(images), 19, *images.shape[-2:])  # noqa: E731
    monkeypatch.setitem(PARSERS, "builtin", parser)
    space, items = Workspace(tmp_path), []
    for size in (32, 48):
        crop = space.path("faces", str(size), ".png")
        write_image(crop, np.zeros((size, size, 3), np.uint8))
        items.append(Item(str(size), {"crop": crop}, data=space))
    task = Describe("parse", backend="builtin")
    for result in task.work(items, [task.load(item) for item in items]):
        result.write()
    for size in (32, 48):
        labels = read_labels(space.path("masks", str(size), ".png"))
        assert labels.shape == (size, size) and (labels == 1).all()


def test_a_file_of_directions_counts_by_its_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "mine.bin"  # an option names it; it is no row of the weights' table

    def fingerprint() -> str:
        method = Direction(directions=file.name)
        task = edit.Edit("edit", "direction", method, "smiling+2")
        run = Run(Workspace(tmp_path), task.command, task.parameters(), task.weights())
        return run.fingerprint(Item("a/01-smiling+2", {}), {})

    file.write_bytes(b"one")
    first = fingerprint()
    assert fingerprint() == first
    file.write_bytes(b"another")
    assert fingerprint() != first
    file.unlink()
    with pytest.raises(WeightsError, match=r"mine\.bin"):
        fingerprint()


class Quiet:
    """An observer that says nothing."""

    def start(self, total: int) -> None: ...

    def finish(self, outcome: Any) -> None: ...


@pytest.fixture
def turned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A workspace with the latent of one face, of a generator that declares what it knows."""
    generator = TinyGenerator()
    generator.view_limit_deg = (40.0, 12.0)
    monkeypatch.setattr(tasks, "load_generator", lambda name, device: generator)
    monkeypatch.setattr(Turntable, "weights", lambda self: {})
    space = Workspace(tmp_path)
    codes, c = generator.sample(1)
    codes = {k: v.detach() for k, v in codes.items()}
    latent = Latent(codes, c, "tiny", latents.fingerprint(generator), "?")
    for folder in ("latents", "faces"):
        (tmp_path / folder).mkdir()
    latent.save(space.path("latents", "a", ".safetensors"))
    space.path("faces", "a", ".json").write_text("{}")
    return space


def test_turntables_stay_within_what_the_generator_knows(
    turned: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Turntable(frames=4, yaw_deg=90.0, pitch_deg=-30.0)
    assert asked.angles_deg == (40.0, -12.0)
    assert asked.note and "40 degrees of yaw and 12 of pitch" in asked.note
    assert Turntable(yaw_deg=40.0, pitch_deg=8.0).note is None
    assert "guessed" in (Turntable(path="orbit").note or "")
    seen: list[tuple[float, float]] = []
    path = turntable.renders.camera_path
    monkeypatch.setattr(
        turntable.renders, "camera_path", lambda *a: (seen.append(a[3:]), path(*a))[1]
    )
    assert run_task(asked, turned, Quiet()).done == 1
    assert seen == [pytest.approx((math.radians(40), math.radians(-12)))]
    wider = Turntable(frames=4, yaw_deg=120.0, pitch_deg=-30.0)  # the same pictures
    assert run_task(wider, turned, Quiet()).uptodate == 1


def test_a_generator_without_limit_turns_all_round(turned: Workspace) -> None:
    task = Turntable(path="orbit", yaw_deg=170.0)
    del task.generator.view_limit_deg
    assert task.angles_deg == (170.0, 8.0) and task.note is None


def test_surfaces_are_not_seen_from_behind(turned: Workspace) -> None:
    task = Turntable(path="orbit")
    task.generator.all_round = False
    with pytest.raises(OptionError, match="surfaces"):
        run_task(task, turned, Quiet())


def test_animations_of_several_formats_are_made_once_each(turned: Workspace) -> None:
    def done(kind: Any) -> int:
        return run_task(Turntable(frames=2, format=kind), turned, Quiet()).done

    assert [done(kind) for kind in ("gif", "mp4", "gif", "mp4")] == [1, 1, 0, 0]
