"""Figures against values worked out by hand."""

import math

import torch

from semedit import metrics


def test_psnr_of_a_known_error() -> None:
    image = torch.zeros(2, 3, 4, 4)
    image[1] = 0.2
    values = metrics.psnr(image, torch.zeros(2, 3, 4, 4))
    assert values[0] == 100  # the ceiling
    assert math.isclose(values[1], 20 * math.log10(2 / 0.2), rel_tol=1e-5)


def test_psnr_clamps_what_cannot_be_written() -> None:
    assert metrics.psnr(torch.full((1, 3, 2, 2), 1.7), torch.ones(1, 3, 2, 2)) == 100


def test_mean_change_counts_the_mask_only() -> None:
    a, b = torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 4)
    b[..., :2] = 1
    mask = torch.zeros(1, 1, 4, 4)
    assert metrics.mean_change(a, b, mask) == 0  # nothing is masked
    mask[..., 1:3] = 1
    assert metrics.mean_change(a, b, mask) == 0.25  # half of the mask moved half of the range


def test_mean_iou_over_classes_present_in_the_truth() -> None:
    truth = torch.tensor([[[0, 0, 1, 1]]])
    found = torch.tensor([[[0, 2, 1, 1]]])
    counts = metrics.confusion(found, truth, 3)
    assert counts.tolist() == [[1, 0, 1], [0, 2, 0], [0, 0, 0]]
    assert metrics.mean_iou(counts) == (0.5 + 1.0) / 2  # class 2 is not in the truth
    assert metrics.mean_iou(counts, [0, 2]) == 0.5


def test_region_iou() -> None:
    a, b = torch.zeros(2, 1, 2, 2), torch.zeros(2, 1, 2, 2)
    a[0, 0, 0] = 1
    b[0, 0, :, 0] = 1
    assert torch.allclose(metrics.region_iou(a, b), torch.tensor([1 / 3, 1.0]))


def test_balanced_accuracy() -> None:
    truth = torch.tensor([[1, 1], [1, 1], [1, 1], [0, 1]]).bool()
    found = torch.tensor([[1, 1], [1, 1], [0, 0], [0, 1]]).bool()
    values = metrics.balanced_accuracy(found, truth)
    assert math.isclose(values[0], (2 / 3 + 1) / 2, rel_tol=1e-6)
    assert values[1].isnan()  # no negative example


def test_pose_error_wraps() -> None:
    a = torch.tensor([[math.pi - 0.01, 0.0, 0.0]])
    b = torch.tensor([[-math.pi + 0.01, 0.0, 0.0]])
    assert math.isclose(metrics.pose_error(a, b), math.degrees(0.02) / 3, rel_tol=1e-3)


def test_landmark_error_in_eye_distances() -> None:
    truth = torch.zeros(1, 68, 2)
    truth[0, 45] = torch.tensor([40.0, 0.0])
    moved = truth + torch.tensor([3.0, 4.0])
    assert math.isclose(metrics.landmark_error(moved, truth), 5 / 40, rel_tol=1e-6)


def test_frechet_distance_of_known_gaussians() -> None:
    numbers = torch.Generator().manual_seed(0)
    a = torch.randn(4000, 3, generator=numbers)
    assert abs(metrics.frechet(a, a)) < 1e-6
    b = torch.randn(4000, 3, generator=numbers) * torch.tensor([1.0, 2.0, 3.0]) + 1
    true = 3 + 1 + 4  # |m|^2 = 3; of deviations s: sum (s - 1)^2
    assert math.isclose(metrics.frechet(a, b), true, rel_tol=0.05)
    assert math.isclose(metrics.frechet(a[:50], b[:40]), metrics.frechet(b[:40], a[:50]))
