"""Every figure of semedit.metrics against loops in numpy, with errors that it must show."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from formulas import close
from scipy import linalg
from torch import Tensor

from semedit import metrics
from semedit.media.labels import LABELS


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_psnr() -> None:
    image, target = 1.5 * numbers(3, 3, 4, 4), numbers(3, 3, 4, 4, seed=1).clamp(-1, 1)
    found = metrics.psnr(image, target)
    for n in range(3):
        away = np.clip(image[n].double().numpy(), -1, 1) - target[n].double().numpy()
        assert float(found[n]) == pytest.approx(20 * math.log10(2) - 10 * math.log10(
            (away**2).mean()), rel=1e-5)  # fmt: skip
    assert metrics.psnr(target, target).tolist() == [100.0] * 3
    assert float(metrics.psnr(target + 1e-7, target).max()) == 100.0
    one = torch.zeros(1, 3, 1, 1)
    assert float(metrics.psnr(one + 1e-5, one)) == 100.0
    assert float(metrics.psnr(one + 4e-5, one)) == pytest.approx(93.979, abs=1e-2)


def test_mean_change() -> None:
    a, b, mask = 1.5 * numbers(2, 3, 4, 4), 1.5 * numbers(2, 3, 4, 4, seed=1), numbers(2, 1, 4, 4)
    mask = (mask > 0).float()
    found = metrics.mean_change(a, b, mask)
    for n in range(2):
        x, y = (np.clip(v[n].double().numpy(), -1, 1) for v in (a, b))
        chosen = np.abs(x - y)[:, mask[n, 0].numpy() > 0]
        assert float(found[n]) == pytest.approx(chosen.mean() / 2, rel=1e-5)
    assert metrics.mean_change(a, b, torch.zeros_like(mask)).tolist() == [0.0, 0.0]
    single = torch.zeros(1, 1, 4, 4)
    single[..., 0, 0] = 1
    expected = (a[:1, :, 0, 0].clamp(-1, 1) - b[:1, :, 0, 0].clamp(-1, 1)).abs().mean() / 2
    assert close(metrics.mean_change(a[:1], b[:1], single), expected[None])


def label_maps() -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(0)
    found, truth = torch.randint(0, 6, (2, 3, 5, 5), generator=draws)
    return found, torch.where(truth == 5, 4, truth)  # 5 is found and never true


def test_labels() -> None:
    found, truth = label_maps()
    pairs = [(int(a), int(b)) for a, b in zip(found.flatten(), truth.flatten(), strict=True)]
    for n in range(3):
        right = (found[n].numpy() == truth[n].numpy()).mean()
        assert float(metrics.label_accuracy(found, truth)[n]) == pytest.approx(right)
    counts = metrics.confusion(found, truth)
    assert counts.shape == (len(LABELS), len(LABELS)) and counts.sum() == 75
    for row in range(6):
        for column in range(6):
            assert counts[row, column] == pairs.count((column, row))
    iou = {
        k: sum(a == b == k for a, b in pairs) / sum(k in pair for pair in pairs) for k in range(5)
    }
    assert metrics.mean_iou(counts) == pytest.approx(sum(iou.values()) / 5)
    assert metrics.mean_iou(counts, [1, 3, 5, 9]) == pytest.approx((iou[1] + iou[3]) / 2)
    assert metrics.confusion(found, truth, 6).shape == (6, 6)


def test_region_iou() -> None:
    a, b = (torch.rand(3, 1, 5, 5, generator=torch.Generator().manual_seed(i)) for i in (0, 1))
    a[2], b[2] = 0.2, 0.4
    b[1] = 0
    found = metrics.region_iou(a, b)
    for n in range(2):
        x, y = a[n].numpy() > 0.5, b[n].numpy() > 0.5
        assert float(found[n]) == pytest.approx((x & y).sum() / (x | y).sum())
    assert found[1] == 0 and found[2] == 1
    one = torch.zeros(1, 1, 1, 1)
    assert metrics.region_iou(one + 1, one + 1) == 1  # a union of a single pixel
    half = torch.zeros(1, 1, 1, 2)
    half[..., 0] = 1
    assert metrics.region_iou(half, torch.ones(1, 1, 1, 2)) == 0.5


def test_balanced_accuracy() -> None:
    found, truth = (numbers(40, 3, seed=i) > 0.3 * i for i in (0, 1))
    truth[:, 2] = True
    values = metrics.balanced_accuracy(found, truth)
    for a in range(2):
        x, y = found[:, a].numpy(), truth[:, a].numpy()
        assert float(values[a]) == pytest.approx((x[y].mean() + (~x)[~y].mean()) / 2)
    assert values[2].isnan()


def test_pose_error() -> None:
    a, b = 3 * numbers(4, 3), 3 * numbers(4, 3, seed=1)
    away = np.rad2deg((a - b).double().numpy())
    away = np.abs((away + 180) % 360 - 180)
    assert close(metrics.pose_error(a, b).double(), torch.tensor(away.mean(1)), atol=1e-3)


def test_landmark_error() -> None:
    found, truth = numbers(2, 68, 2), 3 * numbers(2, 68, 2, seed=1)
    for n in range(2):
        x, y = found[n].numpy(), truth[n].numpy()
        away = [math.dist(p, q) for p, q in zip(x, y, strict=True)]
        expected = np.mean(away) / math.dist(y[36], y[45])
        assert float(metrics.landmark_error(found, truth)[n]) == pytest.approx(expected, rel=1e-4)


def test_frechet_by_matrix_roots() -> None:
    a = numbers(30, 4) @ numbers(4, 4, seed=2) + 1
    b = numbers(20, 4, seed=1) @ numbers(4, 4, seed=3)
    x, y = a.double().numpy(), b.double().numpy()
    c1, c2 = np.cov(x.T), np.cov(y.T)
    root = np.real(linalg.sqrtm(c1 @ c2))
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(c1 + c2 - 2 * root)
    assert metrics.frechet(a, b) == pytest.approx(expected, rel=1e-4)
    assert metrics.frechet(b, a) == pytest.approx(expected, rel=1e-4)
    assert metrics.frechet(a[:3], b) > 0  # fewer than dimensions
    one = metrics.frechet(a[:1], b)  # of one picture: a point
    assert one == pytest.approx(((x[0] - y.mean(0)) ** 2).sum() + np.trace(c2), rel=1e-4)


def mmd(x: np.ndarray, y: np.ndarray) -> float:
    """Unbiased, pair by pair."""

    def k(u: np.ndarray, v: np.ndarray) -> float:
        return float((u @ v / len(u) + 1) ** 3)

    n = len(x)
    within = sum(k(z[i], z[j]) for z in (x, y) for i in range(n) for j in range(n) if i != j) / (
        n * (n - 1)
    )
    between = sum(k(u, v) for u in x for v in y) / n**2
    return within - 2 * between


def test_kernel_distance_by_pairs() -> None:
    a, b = numbers(12, 3), numbers(12, 3, seed=1) + 0.5
    x, y = a.double().numpy(), b.double().numpy()
    assert metrics.kernel_distance(a, b) == pytest.approx(mmd(x, y), rel=1e-6)
    more = numbers(15, 3, seed=2) + 0.5
    draws = torch.Generator().manual_seed(5)
    found = []
    for _ in range(4):
        i = torch.randperm(12, generator=draws)[:6].numpy()
        j = torch.randperm(15, generator=draws)[:6].numpy()
        found.append(mmd(x[i], more.double().numpy()[j]))
    assert metrics.kernel_distance(a, more, 4, 6, 5) == pytest.approx(np.mean(found), rel=1e-6)
    # As many as the smaller set holds, a hundred times, if one holds more.
    draws, found = torch.Generator().manual_seed(0), []
    for _ in range(100):
        i = torch.randperm(12, generator=draws).numpy()
        j = torch.randperm(15, generator=draws)[:12].numpy()
        found.append(mmd(x[i], more.double().numpy()[j]))
    assert metrics.kernel_distance(a, more) == pytest.approx(np.mean(found), rel=1e-6)
    assert metrics.kernel_distance(a, a + 3) > metrics.kernel_distance(a, b)
