"""Face trainers: augmentation moves pictures, points and cameras together; runs repeat."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from semedit import cameras, weights
from semedit.datasets import augment, clutter, rendered
from semedit.errors import InputError
from semedit.faces import networks
from semedit.media.labels import ATTRIBUTES
from semedit.trainers import faces as trainers
from semedit.trainers.detector import DetectorTrainer
from semedit.trainers.landmarks import LandmarkTrainer
from semedit.trainers.loop import Schedule, train


def views(n: int = 4) -> augment.CropView:
    torch.manual_seed(3)
    view = trainers.crop_views(n, 0.1)
    mirror = torch.arange(n) % 2 == 1
    return augment.CropView(view.centre, view.side, view.rotation, mirror)


@pytest.fixture
def heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 40 'heads': squares of colour, in the layout `semedit heads` writes."""
    tmp_path = tmp_path_factory.mktemp("data") / "heads"
    tmp_path.mkdir()
    random = np.random.default_rng(0)
    n, size = 40, 64
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    for i in range(n):
        labels = np.zeros((size, size), np.uint8)
        labels[16:48, 16:48] = 1
        labels[24:30, 20:44] = 13
        picture = random.integers(0, 255, (19, 3), np.uint8)[labels]
        Image.fromarray(picture).save(tmp_path / "images" / f"{i:06d}_0.png")
        Image.fromarray(labels, "P").save(tmp_path / "labels" / f"{i:06d}_0.png")
    np.savez(
        tmp_path / "arrays.npz",
        landmarks=random.uniform(16, 48, (n, 1, 68, 2)).astype(np.float32),
        visible=random.uniform(size=(n, 1, 68)) < 0.8,
        c=cameras.from_six(0.1 * torch.randn(n, 6)).numpy()[:, None],
        attributes=random.uniform(size=(n, len(ATTRIBUTES))) < 0.4,
        z=np.zeros((n, 3), np.float32),
    )
    (tmp_path / "heads.json").write_text(json.dumps({"n": n, "size": size, "seed": 0}))
    return tmp_path


@pytest.mark.parametrize("bent", [False, True])
def test_views_move_pictures_and_points_alike(bent: bool) -> None:
    view = views()
    bend = augment.bends(4) if bent else None
    places = torch.tensor([[0.4, 0.55], [0.6, 0.45], [0.5, 0.6]]).expand(4, 3, 2)
    images = torch.zeros(4, 3, 200, 200)
    for k in range(3):
        x, y = (places[0, k] * 200).long().tolist()
        images[:, k, y - 2 : y + 2, x - 2 : x + 2] = 1
    seen = augment.see(images, augment.grid(view, 100, bend))
    moved = augment.move(places, view, bend)
    assert bent == bool((moved - augment.move(places, view)).abs().max() > 1e-3)
    steps = (torch.arange(100) + 0.5) / 100
    total = seen.sum((2, 3))
    x = (seen.sum(2) * steps).sum(-1) / total
    y = (seen.sum(3) * steps).sum(-1) / total
    torch.testing.assert_close(torch.stack([x, y], -1), moved, atol=4e-3, rtol=0)


def test_cameras_follow_the_views() -> None:
    view = views()
    points = 0.1 * torch.randn(4, 9, 3)
    six = 0.2 * torch.randn(4, 6)
    before, _ = cameras.project(points, cameras.from_six(six))
    mirrored = points.clone()
    mirrored[1::2, :, 0] *= -1  # a mirrored picture shows a mirrored head
    after, _ = cameras.project(mirrored, cameras.from_six(trainers.moved_six(six, view)))
    torch.testing.assert_close(after, augment.move(before, view), atol=1e-4, rtol=0)


def test_mirroring_renames_points_and_labels() -> None:
    mirror = torch.tensor([True, False])
    points = torch.arange(68.0).expand(2, 68)
    named = trainers.mirrored_points(points, mirror)
    assert named[0, 36] == 45
    assert named[1, 36] == 36
    labels = torch.tensor([[[4, 6, 13, 255]]] * 2)
    assert augment.mirrored_labels(labels, mirror).tolist() == [
        [[5, 7, 13, 255]],
        [[4, 6, 13, 255]],
    ]


def test_figures_by_hand() -> None:
    truth = torch.tensor([[0, 0, 1, 1]])
    said = torch.tensor([[0, 1, 1, 1]])
    assert trainers.known_miou(said, truth) == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_seg_loss_is_small_for_the_truth_and_ignores_the_unknown() -> None:
    labels = torch.randint(0, 19, (2, 16, 16))
    right = 20.0 * torch.nn.functional.one_hot(labels, 19).permute(0, 3, 1, 2).float()
    weight = torch.ones(19)
    assert float(trainers.seg_loss(right, labels, weight)) < 0.01
    hidden = labels.clone()
    hidden[:, :8] = trainers.IGNORED
    right[:, :, :8] = 0
    assert float(trainers.seg_loss(right, hidden, weight)) < 0.6
    assert float(trainers.seg_loss(-right, labels, weight)) > 3


def test_photographs_stay_in_range_and_repeat() -> None:
    images = torch.rand(6, 3, 48, 48)
    runs = []
    for _ in range(2):
        torch.manual_seed(5)
        runs.append(augment.photograph(augment.occlude(images, 1.0)[0], clean=0.0))
    torch.testing.assert_close(*runs)
    assert runs[0].min() >= 0
    assert runs[0].max() <= 1
    assert (runs[0] - images).abs().mean() > 0.01
    np.testing.assert_array_equal(clutter.clutter(3, 32), clutter.clutter(3, 32))


@pytest.mark.parametrize(
    "trainer",
    [
        DetectorTrainer(batch_size=8),
        LandmarkTrainer(batch_size=8, mined=2),
        trainers.FaceTrainer(batch_size=2),
        trainers.TraitTrainer(batch_size=2),
        trainers.JudgeTrainer(batch_size=4),
    ],
    ids=lambda t: t.name,
)
def test_a_run_repeats_and_exports(trainer, heads: Path, tmp_path: Path) -> None:
    kimg = 4 * trainer.batch_size / 1000
    whole = train(trainer, heads, tmp_path / "whole", Schedule(kimg=kimg), 1, quiet=True)
    assert all(np.isfinite(v) for v in whole.values())
    file = tmp_path / "whole" / f"{trainer.name}.safetensors"
    tensors, metadata = weights.load(file)
    network = networks.build(trainer.name, json.loads(metadata["config"]))
    assert set(tensors) == set(networks.tensors(network))
    figures = json.loads(metadata["figures"])
    assert set(figures) == set(whole)
    again = train(trainer, heads, tmp_path / "again", Schedule(kimg=kimg), 1, quiet=True)
    assert again == whole


def test_folders_are_joined_and_reserved_seeds_refused(heads: Path) -> None:
    one = rendered.read_heads(heads, 160)
    assert len(one.held) == 2
    (heads.parent / "all").mkdir()
    for name in ("a", "b"):
        (heads.parent / "all" / name).symlink_to(heads)
    both = rendered.read_heads(heads.parent / "all", 160)
    assert len(both.points) == 80
    assert (both.pixels(np.array([3, 43])) == one.pixels(np.array([3, 3]))).all()
    assert (both.held == [19, 39, 59, 79]).all()
    assert not set(both.held) & set(both.train)
    (heads / "heads.json").write_text(json.dumps({"n": 40, "size": 64, "seed": 1_000_000}))
    with pytest.raises(InputError, match="reserved"):
        rendered.read_heads(heads, 160)
    with pytest.raises(InputError):
        rendered.read_heads(heads / "nothing", 160)
