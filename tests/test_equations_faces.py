"""Objectives of the trainers of face networks, term by term; pictures, label maps, points and
cameras are mirrored together."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from semedit import cameras
from semedit.datasets import augment
from semedit.datasets.augment import CropView
from semedit.datasets.rendered import Heads
from semedit.faces import networks
from semedit.faces.align import MIRROR
from semedit.faces.networks import FaceOutput, LandmarkOutput, TraitOutput
from semedit.media.labels import ATTRIBUTES
from semedit.trainers import faces, landmarks
from semedit.trainers.faces import (
    Crops,
    FaceTrainer,
    JudgeTask,
    JudgeTrainer,
    MapTask,
    TraitTask,
    TraitTrainer,
    attribute_loss,
    moved_six,
    seg_loss,
)
from semedit.trainers.landmarks import LandmarkTask, LandmarkTrainer, at, wing
from tests.tiny import Calls

SIDE = 32


class Net(nn.Module):
    """Stands where a network is trained; one weight, one bias."""

    config = {"size": SIDE}

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(1, 1)), nn.Parameter(torch.zeros(1))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few scenes without faces, of one colour each."""
    colours = np.random.default_rng(0).integers(0, 256, (5, 1, 1, 3), dtype=np.uint8)
    monkeypatch.setattr(
        faces, "clutter", lambda n, size: np.broadcast_to(colours, (5, size, size, 3)).copy()
    )


def heads(count: int = 8) -> Heads:
    numbers = np.random.default_rng(0)
    images = numbers.integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)
    labels = numbers.integers(0, 19, (count, SIDE, SIDE), dtype=np.uint8)

    def some(*shape: int) -> Tensor:
        return torch.from_numpy(numbers.uniform(size=(count, *shape))).float()

    face = torch.from_numpy(numbers.uniform(0.3, 0.7, (68, 2))).float()
    face[36:42] = face[36:42] * 0.1 + torch.tensor([0.35, 0.4])
    face[42:48] = face[42:48] * 0.1 + torch.tensor([0.6, 0.4])
    face[48:68] = face[48:68] * 0.1 + torch.tensor([0.47, 0.7])
    return Heads(
        ((images, labels),),
        face + 0.02 * some(68, 2),
        some(68) < 0.7,
        0.2 * some(6) - 0.1,
        (some(len(ATTRIBUTES)) < 0.4).float(),
        np.arange(count - 2),
        np.arange(count - 2, count),
    )


def close(found: Any, expected: Any, rtol: float = 1e-3) -> None:
    found, expected = (torch.as_tensor(x).detach().double() for x in (found, expected))
    torch.testing.assert_close(found, expected, rtol=rtol, atol=1e-5)


def updated(task: Any, patch: pytest.MonkeyPatch) -> list[Tensor]:
    found: list[Tensor] = []
    patch.setattr(task, "update", found.append)
    return found


def turned(n: int) -> CropView:
    """Squares that are a little off; every second is mirrored."""
    torch.manual_seed(3)
    view = faces.crop_views(n, 0.1)
    return CropView(view.centre, view.side, view.rotation, torch.arange(n) % 2 == 1)


def upright(n: int) -> CropView:
    """Whole pictures; every second is mirrored."""
    return CropView(
        torch.full((n, 2), 0.5), torch.ones(n), torch.zeros(n), torch.arange(n) % 2 == 1
    )


def seen_in(points: Tensor, view: CropView) -> Tensor:
    """Points of pictures where the view shows them, by hand."""
    found = torch.empty_like(points)
    for i in range(len(points)):
        away = points[i] - view.centre[i]
        sin, cos = view.rotation[i].sin(), view.rotation[i].cos()
        x = (cos * away[:, 0] + sin * away[:, 1]) / view.side[i]
        y = (cos * away[:, 1] - sin * away[:, 0]) / view.side[i]
        found[i] = torch.stack([-x if view.mirror[i] else x, y], 1) + 0.5
    return found


def test_weights_are_those_told() -> None:
    assert (FaceTrainer().camera, FaceTrainer().rare, FaceTrainer().negatives) == (1, 0.2, 0.07)
    assert (TraitTrainer().seg, TraitTrainer().rare) == (0.3, 0.35)
    assert LandmarkTrainer().negatives == 0.4
    assert networks.SIX_SCALE == (0.4, 0.25, 0.1, 0.1, 0.03, 0.03)


# --- terms -------------------------------------------------------------------------------------


def test_cross_entropy_and_dice_of_label_maps() -> None:
    torch.manual_seed(0)
    seg, labels = torch.randn(2, 19, 6, 6), torch.randint(0, 9, (2, 6, 6))
    labels[0, :2] = faces.IGNORED
    labels[1, 5, 5] = 12  # there once
    weight = torch.rand(19) + 0.5
    chances = seg.double().softmax(1)
    entropy = norm = 0.0
    both, there = torch.zeros(19).double(), torch.zeros(19).double()
    for i in range(2):
        for y in range(6):
            for x in range(6):
                k = int(labels[i, y, x])
                if k == faces.IGNORED:
                    continue
                p = chances[i, k, y, x]
                entropy -= weight[k] * p.log()
                norm += weight[k]
                both[k] += p
                there[k] += 1
    said = chances.sum((0, 2, 3))
    dice = [(2 * both[k] + 10) / (said[k] + there[k] + 10) for k in range(19) if there[k] > 0]
    found = seg_loss(seg, labels, weight)
    close(found, entropy / norm + sum(1 - d for d in dice) / len(dice))
    seg.requires_grad_(True)
    (slope,) = torch.autograd.grad(seg_loss(seg, labels, weight), seg)
    true = labels.where(labels != faces.IGNORED, 0)[:, None]
    assert (slope.gather(1, true)[:, 0][labels != faces.IGNORED] < 0).all()


def test_both_values_of_an_attribute_weigh_the_same() -> None:
    logits = torch.tensor([[0.5, -1.0, 2.0], [-0.3, 0.7, 0.1]])
    truth = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    rate = torch.tensor([0.25, 0.9, 0.02])
    expected = 0.0
    for i in range(2):
        for k in range(3):
            share = rate[k] if truth[i, k] else 1 - rate[k]
            chance = logits[i, k].sigmoid() if truth[i, k] else 1 - logits[i, k].sigmoid()
            expected += min(8.0, 0.5 / share) * -chance.log() / 6
    close(attribute_loss(logits, truth, rate), expected)


def test_wing() -> None:
    """w ln(1 + e / curve) up to w, then e less what makes it continuous."""
    error = torch.tensor([0.0, 0.05, 0.159, 0.161, 0.5])
    found = wing(error)
    assert float(found[0]) == 0
    close(found[1], 0.16 * math.log(1 + 0.05 / 0.04))
    close(found[2], found[3], rtol=0.03)
    close(found[4] - found[3], 0.339)
    close(found[4], 0.5 - (0.16 - 0.16 * math.log(1 + 0.16 / 0.04)))


def test_cameras_follow_their_views() -> None:
    view, six = turned(4), 0.2 * torch.randn(4, 6)
    points = 0.1 * torch.randn(4, 9, 3)
    before, _ = cameras.project(points, cameras.from_six(six))
    points[1::2, :, 0] *= -1  # a mirrored picture shows a mirrored head
    after, _ = cameras.project(points, cameras.from_six(moved_six(six, view)))
    torch.testing.assert_close(after, seen_in(before, view), atol=1e-4, rtol=0)


def test_points_and_visibility_are_renamed_when_mirrored() -> None:
    values = torch.arange(2 * 68.0).view(2, 68)
    found = faces.mirrored_points(values, torch.tensor([False, True]))
    assert torch.equal(found[0], values[0])
    assert torch.equal(found[1], values[1][torch.from_numpy(MIRROR)])
    pairs = faces.mirrored_points(values[..., None].expand(2, 68, 2), torch.tensor([True, True]))
    assert torch.equal(pairs[1, :, 1], found[1])


def test_masks_at_points() -> None:
    mask = torch.zeros(1, 4, 4, dtype=torch.bool)
    mask[0, 1, 2] = True
    points = torch.tensor([[[0.6, 0.3], [0.3, 0.6], [0.9, 0.9]]])
    assert at(mask, points).tolist() == [[True, False, False]]


# --- steps -------------------------------------------------------------------------------------


def crop_task(kind: Any, trainer: Any) -> Any:
    torch.manual_seed(0)
    return kind(trainer, heads(), Net())


def test_crops_show_pictures_and_labels_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mirrored together, left and right exchanged; what is covered is unknown; no face: nothing."""
    for name in ("rescene", "photograph"):
        monkeypatch.setattr(augment, name, lambda images, *of: images)
    covered = torch.zeros(4, SIDE, SIDE, dtype=torch.bool)
    covered[0, :5] = True
    shares: list[float] = []
    monkeypatch.setattr(
        augment, "occlude", lambda images, share: shares.append(share) or (images, covered)
    )
    monkeypatch.setattr(faces, "crop_views", lambda n, jitter: upright(n))
    run = crop_task(MapTask, FaceTrainer(negatives=0.25, bend=0.0, half=False))
    scenes = torch.full((4, 3, SIDE, SIDE), 0.3)
    monkeypatch.setattr(run, "scenes", lambda n: scenes)
    found = run.crops(np.array([2, 3, 0, 1]))
    assert found.true == 3 and shares == [0.25]
    pixels = torch.from_numpy(run.heads.parts[0][0]).permute(0, 3, 1, 2).float() / 255
    labels = torch.from_numpy(run.heads.parts[0][1]).long()
    for i, head in enumerate((2, 3, 0)):
        image, ids = pixels[head], labels[head]
        if i % 2:
            image = image.flip(-1)
            ids = augment.mirrored_labels(ids.flip(-1)[None], torch.tensor([True]))[0]
        torch.testing.assert_close(found.images[i], image, atol=1e-4, rtol=0)
        ids = torch.where(covered[i], faces.IGNORED, ids)
        assert torch.equal(found.labels[i], ids)
    torch.testing.assert_close(found.images[3], scenes[3])
    assert (found.labels[3] == 0).all()


@pytest.mark.parametrize("part", [(0, 0), (1, 0), (0, 1)])
def test_face_nets_terms(part: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    run = crop_task(MapTask, FaceTrainer(camera=0.7, half=False))
    found = updated(run, monkeypatch)
    view = turned(4)
    labels = torch.randint(0, 19, (4, SIDE, SIDE))
    crops = Crops(torch.rand(4, 3, SIDE, SIDE), labels, view, 3)
    monkeypatch.setattr(run, "crops", lambda of: crops)
    out = FaceOutput(torch.randn(4, 19, SIDE // 2, SIDE // 2), 0.1 * torch.randn(4, 6))
    asked = []
    monkeypatch.setattr(run, "run", lambda images, **o: asked.append((images, o)) or out)
    monkeypatch.setattr(
        torch, "randint", lambda *of: torch.tensor(part) if of == (0, 2, (2,)) else None
    )
    indices = np.array([5, 1, 2, 0])
    values = run.step(indices, 0.0)
    assert asked[0][0] is crops.images and asked[0][1] == {"part": part}
    seg = seg_loss(out.seg, labels[:, part[0] :: 2, part[1] :: 2], run.label_weight)
    close(values["seg"], seg)
    true = moved_six(run.heads.six[indices], view)[:3]
    away = ((out.six[:3] - true).abs() / torch.tensor(networks.SIX_SCALE)).double()
    camera = torch.where(away < 0.1, away**2 / 0.2, away - 0.05).mean()
    close(values["camera"], camera)
    close(values["angle_deg"], torch.rad2deg((out.six[:3] - true)[:, :3].abs().mean()))
    close(found[0], seg + 0.7 * camera)
    said, shown = out.seg.argmax(1), labels[:, part[0] :: 2, part[1] :: 2]
    ious = [
        ((said == k) & (shown == k)).sum() / ((said == k) | (shown == k)).sum()
        for k in shown.unique()
    ]
    close(values["iou"], torch.stack(ious).mean())


def test_trait_nets_terms(monkeypatch: pytest.MonkeyPatch) -> None:
    run = crop_task(TraitTask, TraitTrainer(seg=0.7, half=False))
    found = updated(run, monkeypatch)
    labels = torch.randint(0, 19, (4, SIDE, SIDE))
    crops = Crops(torch.rand(4, 3, SIDE, SIDE), labels, turned(4), 3)
    monkeypatch.setattr(run, "crops", lambda of: crops)
    out = TraitOutput(torch.randn(4, len(ATTRIBUTES)), torch.randn(4, 19, 16, 16))
    monkeypatch.setattr(run, "run", lambda images, **o: out)
    monkeypatch.setattr(
        torch, "randint", lambda *of: torch.tensor([1, 0]) if of == (0, 2, (2,)) else None
    )
    values = run.step(np.array([5, 1, 2, 0]), 0.0)
    seg = seg_loss(out.seg, labels[:, 1::2, ::2], run.label_weight)
    truth = run.heads.attributes[[5, 1, 2]]
    traits = attribute_loss(out.attributes[:3], truth, run.rate)
    close(values["seg"], seg)
    close(values["traits"], traits)
    close(found[0], 0.7 * seg + traits)
    close(run.rate, run.heads.attributes[:6].mean(0).clamp(0.02, 0.98))
    share = np.bincount(run.heads.parts[0][1][:6].ravel(), minlength=19) / (6 * SIDE * SIDE)
    weight = (share + 1e-4) ** -0.35
    close(run.label_weight, weight / (weight * share).sum())


def test_the_judges_term(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    run = JudgeTask(JudgeTrainer(half=False), heads())
    run.resolution = SIDE
    found = updated(run, monkeypatch)
    scened = Calls(augment, "rescene", monkeypatch)
    logits = torch.randn(3, len(ATTRIBUTES))
    monkeypatch.setattr(run, "run", lambda images: logits)
    values = run.step(np.array([4, 0, 2]), 0.0)
    assert scened[0][0][3] == 0.3
    expected = attribute_loss(logits, run.heads.attributes[[4, 0, 2]], run.rate)
    close(found[0], expected)
    close(values["traits"], expected)


def test_landmark_nets_terms(monkeypatch: pytest.MonkeyPatch) -> None:
    """2.5 wing + 0.2 visibility + 0.5 face; only what is clear, by inter-ocular distances."""
    torch.manual_seed(0)
    run = LandmarkTask(
        LandmarkTrainer(negatives=0.4, half=False), heads(), np.zeros((0, 8, 8, 3), np.uint8)
    )
    found, n, true = updated(run, monkeypatch), 5, 3
    view, indices = turned(n), np.array([5, 1, 2, 0, 3])
    monkeypatch.setattr(run, "spoil", lambda images, square, count: view if count == true else None)
    monkeypatch.setattr(augment, "bends", lambda n, strength: torch.zeros(n, 2, 64, 64))
    covered = torch.zeros(n, 96, 96, dtype=torch.bool)
    covered[:, :, :48] = True
    plain: list[Tensor] = []

    def occlude(images: Tensor) -> tuple[Tensor, Tensor]:
        images = images.clone()
        images[1] = 0.5  # wiped out
        images[[0, 2, 3, 4]] = torch.rand(4, *images.shape[1:])
        plain.append(images)
        return images, covered

    monkeypatch.setattr(augment, "occlude", occlude)
    out = LandmarkOutput(0.5 + 0.1 * torch.randn(n, 68, 2), torch.randn(n, 68), torch.randn(n))
    monkeypatch.setattr(run, "run", lambda images: out if images is plain[0] else None)
    values = run.step(indices, 0.0)
    own = run.heads.points[indices][:true]
    points = seen_in(own, view)
    order = torch.from_numpy(MIRROR)
    shown = run.heads.visible[indices][:true].clone()
    points[1], shown[1] = points[1][order], shown[1][order]
    shown &= points[..., 0] >= 0.5
    eyes = (own[:, 42:48].mean(1) - own[:, 36:42].mean(1)).norm(dim=1)
    error = (out.points[:true] - points).norm(dim=2) * (view.side[:true] / eyes)[:, None]
    clear = torch.tensor([1.0, 0.0, 1.0])
    place = (clear[:, None] * torch.where(shown, 1.0, 0.4) * wing(error)).mean()

    def entropy(logits: Tensor, truth: Tensor) -> Tensor:
        chance = logits.double().sigmoid()
        return -torch.where(truth.bool(), chance, 1 - chance).log()

    seen = entropy(out.visible[:true], shown).mean()
    face = entropy(out.face, torch.tensor([1, 1, 1, 0, 0]))
    face = (face * torch.tensor([1.0, 0, 1, 1, 1])).sum() / 5
    close(values["nme"], error.mean())
    close(values["visible"], seen)
    close(values["face"], face)
    close(
        values["face_right"],
        ((out.face > 0) == torch.tensor([1, 1, 1, 0, 0]).bool()).float().mean(),
    )
    close(found[0], 2.5 * place + 0.2 * seen + 0.5 * face)


def test_beyond_a_picture_lie_its_reflection_or_other_scenes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = LandmarkTask(LandmarkTrainer(), heads(), np.zeros((0, 8, 8, 3), np.uint8))
    images, around = torch.full((200, 3, 8, 8), 0.2), torch.full((200, 3, 8, 8), 0.7)
    places = torch.zeros(200, 4, 4, 2)
    places[:, :, 2:, 0] = 1.1
    torch.manual_seed(0)
    found = run.look(images, places, around)
    close(found[:, :, :, :2], torch.full((200, 3, 4, 2), 0.2))
    other = (found[:, :, :, 2:] > 0.5).flatten(1)
    assert torch.equal(other.all(1), other.any(1))
    assert float(other.all(1).float().mean()) == pytest.approx(0.6, abs=0.1)


def test_a_step_descends_with_a_bounded_gradient() -> None:
    run = crop_task(MapTask, FaceTrainer())
    network = run.network
    for _ in range(2):
        run.update(300 * network.bias.sum() + 400 * network.weight.sum())
        close(network.bias.grad, torch.tensor([0.6]))
        close(network.weight.grad, torch.tensor([[0.8]]))
    close(network.bias, torch.tensor([-4e-3]))
    decayed, plain = run.optimisers["network"].param_groups
    assert decayed["weight_decay"] == 0.02 and plain["weight_decay"] == 0
    assert decayed["params"][0] is network.weight and plain["params"][0] is network.bias
    assert decayed["lr"] == 2e-3 and decayed["betas"] == (0.9, 0.98)


def test_what_shows_no_face(monkeypatch: pytest.MonkeyPatch) -> None:
    """A third are heads looked at in the wrong place, then scenes, and half are mined."""
    torch.manual_seed(0)
    run = LandmarkTask(LandmarkTrainer(), heads(), np.full((3, SIDE, SIDE, 3), 51, np.uint8))
    assert torch.equal(run.mistakes(2), torch.full((2, 3, SIDE, SIDE), 0.2))
    images = torch.full((10, 3, SIDE, SIDE), 0.9)
    square = run.squares[:8].repeat(2, 1)[:10]
    view = run.spoil(images, square, 4)
    assert (images[:6] == 0.9).all() and (images[7:] == 0.2).all() and (images[6] != 0.9).any()
    assert len(view.side) == len(view.mirror) == 10
    quad = run.squares[:4]
    assert float((view.centre[:4] - quad[:, :2]).abs().max()) < 0.4
    assert float((view.side[7:] * landmarks.MARGIN).log().abs().max()) <= 0.5 + 1e-4
    assert float((view.centre[7:] - 0.5).abs().max()) < 0.35
    mined = torch.tensor([0.5, 0.5, 1 / landmarks.MARGIN, 0.0])
    asked = Calls(landmarks, "face_views", monkeypatch)
    run.spoil(images, square, 4)
    torch.testing.assert_close(asked[0][0][0], mined.expand(3, 4))
    assert torch.equal(asked[1][0][0], square[:4])
    none = landmarks.false_views(400)
    far = (none.centre - 0.5).norm(dim=1) > 0.45
    tiny, huge = none.side < 0.4, none.side > 2
    over = none.rotation.abs() > 1.6
    assert float((far | tiny | huge | over).float().mean()) > 0.95
    for kind in (far, tiny, huge, over):
        assert 0.15 < float(kind.float().mean()) < 0.4
    near = landmarks.face_views(square[:1].expand(400, 4))
    fine = landmarks.face_views(square[:1].expand(400, 4), fine=True)
    assert fine.side.std() < near.side.std() and fine.centre.std(0).max() < near.centre.std(0).max()
    assert float((fine.side / square[0, 2]).log().std()) == pytest.approx(0.055, rel=0.2)
    assert 0.4 < float(near.mirror.float().mean()) < 0.6
