"""The identity network: its loss, what it is shown of a head, its figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from semedit.faces import likeness, networks
from semedit.faces.identity import IdentityNet, face_part, similarity
from semedit.media.labels import ATTRIBUTES
from semedit.trainers import identity
from semedit.trainers.identity import IdentityTask, IdentityTrainer
from semedit.trainers.loop import Schedule, train

HEADS = 22  # number 19 is held out
SMALL = {"size": 32, "widths": (4, 8, 8), "depths": (0, 1), "entries": 6}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Heads of one colour each, in two views and two edits, as `semedit heads` writes them."""
    random = np.random.default_rng(0)
    for part in ("images", "labels", "edited"):
        (tmp_path / part).mkdir()
    labels = Image.fromarray(np.ones((32, 32), np.uint8))
    for head in range(HEADS):
        colour = random.integers(40, 200, 3, dtype=np.uint8)
        for number in range(4):
            pixels = np.broadcast_to(colour, (32, 32, 3)).copy()
            pixels[number] = 255  # tells the pictures of a head apart
            folder, name = (
                ("images", f"{head:06d}_{number}")
                if number < 2
                else ("edited", f"{head:06d}_{number - 2}")
            )
            Image.fromarray(pixels).save(tmp_path / folder / f"{name}.png")
            where = ("labels", f"{name}.png") if number < 2 else (folder, f"{name}.labels.png")
            labels.save(tmp_path / where[0] / where[1])
    np.savez(
        tmp_path / "arrays.npz",
        landmarks=np.zeros((HEADS, 2, 68, 2), np.float32),
        visible=np.ones((HEADS, 2, 68), bool),
        c=np.tile(np.eye(5, dtype=np.float32).reshape(25), (HEADS, 2, 1)),
        attributes=np.zeros((HEADS, len(ATTRIBUTES)), bool),
        kinds=np.array([["smile", "nose"]] * HEADS),
    )
    (tmp_path / "heads.json").write_text(json.dumps({"n": HEADS, "size": 32, "seed": 0}))
    return tmp_path


@pytest.fixture
def task(data: Path, monkeypatch: pytest.MonkeyPatch) -> IdentityTask:
    monkeypatch.setattr(identity, "STORED", 32)
    monkeypatch.setattr(identity, "IdentityNet", lambda: IdentityNet(**SMALL))  # type: ignore[arg-type]
    torch.manual_seed(0)
    return IdentityTrainer(pictures=3).start(data)


def test_the_loss_asks_each_picture_for_the_others_of_its_head() -> None:
    torch.manual_seed(0)
    embedded, owners = F.normalize(torch.randn(6, 5)), torch.tensor([0, 0, 1, 1, 1, 2])
    rows = []
    for i in range(5):  # the last has no other picture
        others = [k for k in range(6) if k != i]
        total = sum(np.exp(7.0 * float(embedded[i] @ embedded[k])) for k in others)
        same = [k for k in others if owners[k] == owners[i]]
        rows.append(np.mean([-(7.0 * float(embedded[i] @ embedded[k]) - np.log(total))
                             for k in same]))  # fmt: skip
    found = identity.contrast_loss(embedded, owners, 7.0)
    assert float(found) == pytest.approx(np.mean(rows), rel=1e-4)
    leaf = embedded.clone().requires_grad_()
    (slope,) = torch.autograd.grad(identity.contrast_loss(leaf, owners, 7.0), leaf)
    nearer = F.normalize(embedded - 0.05 * slope)
    assert float(nearer[0] @ nearer[1]) > float(embedded[0] @ embedded[1])


def test_edits_of_the_shape_are_another_person_and_so_not_shown(task: IdentityTask) -> None:
    assert task.views == 2 and task.places(4) == [(False, 8), (False, 9), (True, 1)]
    pixels, labels = task.pictures(4, task.places(4))
    assert [int(np.flatnonzero((p == 255).all((1, 2)))[0]) for p in pixels] == [0, 1, 2]
    assert len({tuple(p[20, 20]) for p in pixels}) == 1 and labels.shape == (3, 32, 32)


def test_a_step_shows_unlike_pictures_of_the_batchs_heads_and_asks_for_these(
    task: IdentityTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[np.ndarray] = []
    asked: list[Any] = []
    monkeypatch.setattr(
        task,
        "_augmented",
        lambda pixels, labels: (shown.append(pixels), torch.rand(len(pixels), 3, 32, 32))[1],
    )

    def loss(embedded: Tensor, owners: Tensor, scale: float) -> Tensor:
        asked.append((embedded, owners, scale))
        return embedded.sum()

    monkeypatch.setattr(identity, "contrast_loss", loss)
    heads = task.batch(torch.tensor([19, 2]))  # behind the held-out head comes number 20
    assert heads.tolist() == [20, 2]
    task.step(heads, 0.25)
    (pixels,), ((embedded, owners, scale),) = shown, asked
    assert pixels.shape[0] == 6 and embedded.shape == (6, 6)
    assert owners.tolist() == [20, 20, 20, 2, 2, 2] and scale == task.options.scale
    colours = [task.pictures(head, task.places(head))[0][0, 20, 20] for head in (20, 2)]
    for i, picture in enumerate(pixels):
        assert np.array_equal(picture[20, 20], colours[i // 3])
    for head in (pixels[:3], pixels[3:]):
        assert len({int(np.flatnonzero((p == 255).all((1, 2)))[0]) for p in head}) == 3


def test_the_network_learns(task: IdentityTask) -> None:
    before = [p.detach().clone() for p in task.network.parameters()]
    told = task.step(task.batch(torch.arange(4)), 0.1)
    moved = [not torch.equal(a, b)
             for a, b in zip(before, task.network.parameters(), strict=True)]  # fmt: skip
    assert all(moved) and told.keys() == {"identity", "same", "others", "auc"}


def test_verification_counts_pairs() -> None:
    torch.manual_seed(0)
    embedded, owners = F.normalize(torch.randn(7, 5)), torch.tensor([0, 0, 1, 1, 1, 2, 3])
    same, others = [], []
    for i in range(7):
        for k in range(i + 1, 7):
            cosine = float(embedded[i] @ embedded[k])
            (same if owners[i] == owners[k] else others).append(cosine)
    found = identity.verification(embedded, owners)
    assert found["same"] == pytest.approx(np.mean(same), abs=1e-5)
    assert found["others"] == pytest.approx(np.mean(others), abs=1e-5)
    wins = np.mean([[(a > b) + 0.5 * (a == b) for b in others] for a in same])
    assert found["auc"] == pytest.approx(wins, abs=1e-5)
    assert identity.verification(embedded, torch.zeros(7)) == {}


def test_figures_are_of_held_out_heads(task: IdentityTask) -> None:
    assert task.unknown.tolist() == [19] and 19 not in task.known
    task.unknown = np.array([19, 3])  # one head alone has no other
    seen: list[Tensor] = []

    def network(images: Tensor) -> Tensor:
        seen.append(images)
        return F.normalize(images.mean((2, 3)))

    figures = task.evaluate({"network": network})  # type: ignore[dict-item]
    assert figures["auc"] == 1.0 and figures["same"] > figures["others"]
    assert -1 <= seen[0].min() < 0 < seen[0].max() <= 1


def test_the_network_sees_the_face_and_neither_hair_nor_background() -> None:
    torch.manual_seed(0)
    network, images = IdentityNet().eval(), torch.rand(2, 3, 200, 200) * 2 - 1
    found = network(images)
    assert found.shape == (2, 128) and torch.allclose(found.norm(dim=1), torch.ones(2))
    framed = images.clone()
    for side in (slice(0, 20), slice(180, 200)):
        framed[..., side, :] = 0
        framed[..., side] = 0
    assert torch.allclose(network(framed), found, atol=1e-5)
    assert not torch.allclose(network(-images), found, atol=1e-4)
    assert face_part(images, 112).shape == (2, 3, 112, 112)
    assert isinstance(networks.build("identity", {"size": 32, "widths": [4, 8], "depths": [0]}),
                      IdentityNet)  # fmt: skip


def test_a_run_writes_the_network(
    task: IdentityTask, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(IdentityTrainer(batch_size=2), data, tmp_path / "run", Schedule(kimg=0.004), quiet=True)
    assert (tmp_path / "run" / "identity.safetensors").is_file()


def test_likeness_is_told_by_the_best_network_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    small = IdentityNet(**SMALL).eval()  # type: ignore[arg-type]
    monkeypatch.setattr(likeness.weights, "on_disk", lambda name: name == "identity")
    monkeypatch.setattr(networks, "load", lambda name, device="cpu": {"identity": small}[name])
    one, image = likeness.recogniser(), torch.rand(2, 3, 64, 64)
    assert one.name == "builtin" and likeness.recogniser_weights() == ("identity",)
    told = one(image)
    assert torch.allclose(told, F.normalize(small(image) + small(image.flip(-1))), atol=1e-6)
    assert torch.allclose(similarity(told, one(image.flip(-1))), torch.ones(2), atol=1e-5)
    monkeypatch.setattr(likeness.weights, "on_disk", lambda name: True)
    built: list[str] = []
    monkeypatch.setattr(likeness.ArcFace, "__init__", lambda self, device: built.append(device))
    assert likeness.recogniser("cpu").name == "facexlib" and built == ["cpu"]
    assert likeness.recogniser_weights() == ("arcface",)
