"""Edits at the photograph's own size: the folder of true edits, drawings, tasks, the evaluation."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_heads import heads
from PIL import Image
from tiny import TinyGenerator
from torch import Tensor

from semedit import detail, losses, metrics, weights
from semedit.datasets.edited import read_edited
from semedit.detail.carry import SEEN
from semedit.detail.network import Carried, DetailNet
from semedit.errors import InputError, OptionError
from semedit.evaluations import detail as evaluation
from semedit.evaluations.detail import DetailEvaluation
from semedit.heads import Head, geometry, write_dataset
from semedit.heads.changes import KINDS, changed
from semedit.heads.dataset import view_angles
from semedit.inverters import Hybrid
from semedit.latents import Composite, Latent, fingerprint, picture
from semedit.media.pixels import to_tensor
from semedit.trainers.detail import DetailTrainer
from semedit.trainers.loop import Schedule, train
from semedit.trainers.parts import drawings as drawing
from semedit.trainers.parts.drawings import WAYS, drawings


@pytest.fixture(scope="module")
def model() -> geometry.Model:
    if not geometry.available():
        pytest.skip("the head geometry is not at hand")
    return geometry.load()


# --- true edits ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_changes_its_parameters_alone(kind: str, model: geometry.Model) -> None:
    for seed in range(6):
        head = Head(seed)
        found, other = changed(head, np.random.default_rng(seed), kind)
        assert found == kind
        moved = np.flatnonzero(head.z != other.z)
        names = set(KINDS[kind][0](head.parameters, np.random.default_rng(seed)))
        assert 1 <= len(moved) <= len(names)
        assert other.parameters.values.keys() == head.parameters.values.keys()


def test_edits_take_away_what_is_there_and_give_what_is_not(model: geometry.Model) -> None:
    switches = {"glasses": "glasses", "hat": "hat"}
    for kind, name in switches.items():
        for seed in range(8):
            head = Head(seed)
            _, other = changed(head, np.random.default_rng(0), kind)
            assert other.parameters.values[name] != head.parameters.values[name]
    for seed in range(8):
        head = Head(seed)
        smiled = changed(head, np.random.default_rng(0), "smile")[1].parameters.smile
        assert (smiled > 0.3) != (head.parameters.smile > 0.3)
    with pytest.raises(OptionError, match="kinds of edits are"):
        changed(Head(0), np.random.default_rng(0), "moustache")


def test_a_folder_of_edits_is_seen_by_one_camera_and_resumes(
    model: geometry.Model, tmp_path: Path
) -> None:
    write_dataset(tmp_path, 2, size=48, seed=30, look="mixed", edits=2)
    first = (tmp_path / "edited" / "000000_0.png").stat().st_mtime_ns
    write_dataset(tmp_path, 3, size=48, seed=30, look="mixed", edits=2)
    assert (tmp_path / "edited" / "000000_0.png").stat().st_mtime_ns == first
    data = read_edited(tmp_path, 48)
    assert data.images.shape == (3, 3, 48, 48, 3) and data.kinds.shape == (3, 2)
    rng = np.random.default_rng([30, 13])
    head = Head(30)
    camera = head.camera(*view_angles(30, 1, "plain")[0])
    for edit in range(2):
        kind, other = changed(head, rng)
        assert data.kinds[0, edit] == kind
        view = other.render(camera, 48, "plain")
        assert np.array_equal(data.images[0, 1 + edit], view.image)
        assert np.array_equal(data.labels[0, 1 + edit], view.labels)
    hard = Head(31).render(Head(31).camera(*view_angles(31, 1, "hard")[0]), 48, "plain")
    assert not np.array_equal(data.images[1, 0], hard.image)  # every second head is hard
    with pytest.raises(InputError, match="other options"):
        write_dataset(tmp_path, 3, size=48, seed=30, look="mixed", edits=1)


def test_folders_without_edits_are_refused(model: geometry.Model, tmp_path: Path) -> None:
    write_dataset(tmp_path, 1, size=32, seed=30)
    with pytest.raises(InputError, match="have no edits") as error:
        read_edited(tmp_path, 32)
    assert "--edits 2" in str(error.value.hint)
    with pytest.raises(InputError, match="holds no rendered heads"):
        read_edited(tmp_path / "nowhere", 32)
    told = json.loads((tmp_path / "heads.json").read_text())
    told.pop("edits")  # a folder of before
    (tmp_path / "heads.json").write_text(json.dumps(told))
    write_dataset(tmp_path, 1, size=32, seed=30)


def small_edits(folder: Path, n: int = 3, side: int = 32) -> Path:
    """A folder as `semedit heads --edits 2` writes it: flat hair above flat skin, then less."""
    for part in ("images", "labels", "edited"):
        (folder / part).mkdir(parents=True)
    for head in range(n):
        for state in range(3):
            pixels = np.full((side, side, 3), 120 + 20 * head, np.uint8)
            labels = np.ones((side, side), np.uint8)
            pixels[: 16 - 6 * state], labels[: 16 - 6 * state] = 30, 13
            place, name = (
                (folder / "images", f"{head:06d}_0.png")
                if state == 0
                else (folder / "edited", f"{head:06d}_{state - 1}.png")
            )
            maps = folder / "labels" / name if state == 0 else place / f"{name[:-4]}.labels.png"
            Image.fromarray(pixels).save(place / name)
            Image.fromarray(labels).save(maps)
    np.savez(
        folder / "arrays.npz",
        c=np.zeros((n, 1, 25), np.float32),
        kinds=np.full((n, 2), "hair_length"),
    )
    (folder / "heads.json").write_text(json.dumps({"seed": 0, "n": n, "size": side}))
    return folder


def test_a_missing_edit_is_named(tmp_path: Path) -> None:
    data = small_edits(tmp_path)
    (data / "edited" / "000001_1.png").unlink()
    with pytest.raises(InputError, match=r"000001_1\.png is missing or damaged"):
        read_edited(data, 32)


# --- drawings --------------------------------------------------------------------------------


def seen(images: Tensor) -> tuple[Tensor, Tensor]:
    """Labels by brightness, and the tiny generator's camera for all."""
    labels = torch.where(images.mean(1) < -0.5, 13, 1)
    return labels, TinyGenerator().sample(1, seed=3)[1].expand(len(images), -1)


def test_drawings_are_the_generators_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawing, "estimates", seen)
    data = read_edited(small_edits(tmp_path), 32)
    generator = TinyGenerator()
    inverter = Hybrid(steps=1, tune_steps=1, perceptual="none")
    found = drawings(data, generator, inverter, 2)
    assert found.before.shape == (2, 16, 16, 3) and found.labels.shape == (2, 16, 16)
    assert found.after.shape == (2, 2, WAYS, 16, 16, 3) and len(found) == 2
    # Where no head changed, all drawings keep the inversion's pixels.
    assert (found.after[:, :, :, -1] == found.before[:, None, None, -1]).all()
    assert (found.after[:, :, :, 1:6] != found.before[:, None, None, 1:6]).any(-1).mean() > 0.2
    assert (found.after[:, :, 0] != found.after[:, :, 1]).any()  # ways differ

    def refuse(*given: Any) -> Any:
        raise AssertionError("these heads are drawn already")

    monkeypatch.setattr(drawing, "draw", refuse)
    again = drawings(data, generator, inverter, 2)
    assert np.array_equal(again.after, found.after)
    with pytest.raises(AssertionError):
        drawings(data, generator, inverter, 3)


def test_a_small_run_of_training_writes_the_network(tmp_path: Path) -> None:
    data = small_edits(tmp_path / "data")

    class Small(DetailTrainer):
        def start(self, data: Path) -> Any:
            monkey = DetailNet.__init__.__defaults__
            DetailNet.__init__.__defaults__ = (32, (8, 8, 12, 12), 2)
            try:
                return super().start(data)
            finally:
                DetailNet.__init__.__defaults__ = monkey

    trainer = Small(batch_size=2, crop=16, drawn=0, critic_from=0.0)
    figures = train(trainer, data, tmp_path / "run", Schedule(kimg=0.008), quiet=True)
    assert {"detail_db", "enlarged_db", "difference_db", "detail_gradient"} <= figures.keys()
    held, told = weights.load(tmp_path / "run" / "detail.safetensors")
    assert told["kind"] == "detail" and json.loads(told["config"])["size"] == 32
    assert any("fuse" in name for name in held)


# --- the evaluation --------------------------------------------------------------------------


class Given:
    """A network that draws what it is told: the true edit's difference, or nothing."""

    size = 32

    def __init__(self, residual: float) -> None:
        self.residual = residual

    def __call__(self, photo: Tensor, *rest: Tensor) -> Carried:
        n = len(photo)
        zero = torch.zeros(n, 1, 32, 32)
        told = torch.full((n, 3, 32, 32), self.residual)
        return Carried(zero.expand(-1, 2, -1, -1), zero + 1, told)


class Painted:
    """An inverter and an editor of tests: codes are the generator's own samples; an edit shows in
    the upper half alone."""

    def __init__(self, number: int, edits: bool = False) -> None:
        self.number, self.edits, self.given = number, edits, []

    def __call__(self, generator: Any, *given: Any) -> Latent:
        self.given.append(given)
        codes, c = generator.sample(6, seed=3)
        row = slice(self.number, self.number + 1)
        found = Latent({k: v[row] for k, v in codes.items()}, c[:1], "tiny",
                       fingerprint(generator), "test")  # fmt: skip
        if not self.edits:
            return found
        mask = torch.zeros(1, 1, 16, 16)
        mask[..., :8, :] = 1
        before = picture(generator, given[0]).image.detach()
        return replace(found, composite=Composite(before, mask))


def test_the_evaluation_scores_the_true_region_and_the_network_that_did_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    truths = heads(2)
    rng = np.random.default_rng(0)
    for truth in truths:  # the true edit: another picture in the upper half
        image, labels = truth.edits["hair_length"]
        image = image.copy()
        image[:10] = rng.integers(0, 255, image[:10].shape)
        truth.edits["hair_length"] = (image, labels)
    monkeypatch.setattr(evaluation, "estimates", lambda images: (
        torch.full((1, 16, 16), 4), torch.eye(5).view(1, 25)))  # fmt: skip
    editor = Painted(1, edits=True)
    figures = {
        name: DetailEvaluation(1, Painted(0), editor, Given(value))(truths, TinyGenerator())
        for name, value in (("none", 0.0), ("grain", 0.4))
    }
    assert figures["none"]["detail_outside"] == 0 == figures["grain"]["detail_outside"]
    assert figures["none"]["enlarged_outside"] > 0
    assert figures["none"]["detail_db"] != figures["grain"]["detail_db"]
    assert figures["none"]["enlarged_db"] == figures["grain"]["enlarged_db"]
    gain = figures["none"]["detail_db"] - figures["none"]["enlarged_db"]
    assert figures["none"]["gain_hair_length"] == pytest.approx(gain, abs=1e-3)
    # Doing nothing is scored where the truth changed: the photograph against the new pixels.
    plain = []
    for truth in truths:
        photo, true = to_tensor(truth.image), to_tensor(truth.edits["hair_length"][0])
        mask = ((true - photo).abs().mean(1, keepdim=True) > SEEN).float()
        mask = losses.dilate(mask, round(0.02 * 32))
        plain.append(float(metrics.psnr_within(photo, true, mask)))
    assert figures["none"]["plain_db"] == pytest.approx(np.mean(plain), abs=1e-3)
    # The drawn map: the estimated one, and what the true edit changes in the true one.
    wanted, own = editor.given[0][1:]
    assert (own == 4).all() and (wanted[0, :5] == 13).all() and (wanted[0, 5:] == 4).all()


def test_an_evaluation_needs_an_edit() -> None:
    truth = heads(1)[0]
    truth.edits.pop("hair_length")
    with pytest.raises(OptionError, match="no head whose edit changes"):
        DetailEvaluation(1, Painted(0), Painted(1, True), Given(0.0))([truth], TinyGenerator())


# --- the shipped network ---------------------------------------------------------------------


def test_the_shipped_network_keeps_a_face_that_was_not_edited() -> None:
    network = detail.load()
    photo = torch.rand(1, 3, 300, 300) * 1.6 - 0.8
    before = torch.nn.functional.interpolate(photo, (128, 128), mode="area")
    labels = torch.ones(1, 128, 128, dtype=torch.long)
    image, mask = detail.carry(network, photo, before, before, labels, labels)
    assert torch.equal(image, photo) and mask.max() == 0
