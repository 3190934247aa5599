"""Random changes of training pictures: each drawn again from the same numbers, and written out."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from semedit.datasets import augment
from semedit.datasets.augment import CropView


def close(found: Any, expected: Any, atol: float = 1e-5) -> None:
    found, expected = (torch.from_numpy(np.array(x, float)) for x in (found, expected))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=atol)


def pictures(n: int = 4, size: int = 12) -> Tensor:
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(1))


def views() -> CropView:
    """Of four pictures: off the middle, small or large, turned, two mirrored."""
    return CropView(
        torch.tensor([[0.45, 0.55], [0.6, 0.5], [0.5, 0.4], [0.5, 0.5]]),
        torch.tensor([0.8, 1.2, 1.0, 0.7]),
        torch.tensor([0.3, -0.2, 0.1, 0.0]),
        torch.tensor([False, True, False, True]),
    )


def into_picture(view: CropView, i: int, u: float, v: float) -> tuple[float, float]:
    """Where a place of a view lies in its picture: turned clockwise, made as large, moved."""
    x, y = u - 0.5, v - 0.5
    if view.mirror[i]:
        x = -x
    angle, side = float(view.rotation[i]), float(view.side[i])
    turned = math.cos(angle) * x - math.sin(angle) * y, math.sin(angle) * x + math.cos(angle) * y
    return tuple(float(c) + side * t for c, t in zip(view.centre[i], turned, strict=True))  # type: ignore[return-value]


@pytest.mark.parametrize("bent", [False, True])
def test_places_of_a_view(bent: bool) -> None:
    view, size = views(), 6
    bend = 0.05 * torch.randn(4, 2, size, size, generator=torch.Generator().manual_seed(2))
    places = augment.grid(view, size, bend if bent else None)
    assert places.shape == (4, size, size, 2)
    for i in range(4):
        for row in range(size):
            for column in range(size):
                u, v = (column + 0.5) / size, (row + 0.5) / size
                if bent:
                    u, v = u + float(bend[i, 0, row, column]), v + float(bend[i, 1, row, column])
                x, y = into_picture(view, i, u, v)
                close(places[i, row, column], [2 * x - 1, 2 * y - 1])


def test_points_go_where_the_view_shows_them() -> None:
    view, n = views(), 5
    shown = 0.3 + 0.4 * torch.rand(4, n, 2, generator=torch.Generator().manual_seed(3))
    points = torch.tensor(
        [[into_picture(view, i, *shown[i, k].tolist()) for k in range(n)] for i in range(4)]
    )
    close(augment.move(points, view), shown)
    # A field that grows to the right and down: what is at u comes from u + bend(u).
    line = (torch.arange(64) + 0.5) / 64
    bend = torch.stack([0.2 * line.expand(64, 64), -0.1 * line[:, None].expand(64, 64)])
    found = augment.move(points, view, bend.expand(4, -1, -1, -1))
    close(found[..., 0] * 1.2, shown[..., 0], atol=1e-4)
    close(found[..., 1] * 0.9, shown[..., 1], atol=1e-4)


def test_pictures_are_reflected_outside() -> None:
    image = torch.arange(4.0).view(1, 1, 1, 4).expand(1, 1, 4, 4)
    x = torch.tensor([-1.25, -0.75, 0.0, 1.25])  # pixels -1, 0, 1.5, 4
    places = torch.stack([x, torch.zeros(4)], 1).view(1, 1, 4, 2)
    close(augment.see(image, places)[0, 0, 0], [0.0, 0.0, 1.5, 3.0])
    close(augment.see(image, places, "nearest")[0, 0, 0, [0, 1, 3]], [0.0, 0.0, 3.0])
    same = augment.sized(image, 4)
    assert same is image
    close(augment.sized(image, 2)[0, 0], [[0.5, 2.5], [0.5, 2.5]])


def test_random_numbers_in_a_range() -> None:
    torch.manual_seed(0)
    share = torch.rand(9)
    torch.manual_seed(0)
    close(augment.uniform(9, 2.0, 5.0), 2 + 3 * share)
    torch.manual_seed(0)
    assert augment.chance(9, 0.4).tolist() == [float(v) < 0.4 for v in share]


def test_a_bend_is_coarse_and_fine() -> None:
    torch.manual_seed(4)
    coarse, fine = (torch.randn(3, 2, cells, cells).clamp(-2, 2) for cells in (4, 9))
    torch.manual_seed(4)
    found = augment.bends(3, 0.5)
    assert found.shape == (3, 2, 64, 64) and float(coarse.abs().max()) == 2
    whole = [
        F.interpolate(0.5 * size * knots, (64, 64), mode="bicubic", align_corners=True)
        for knots, size in ((coarse, 0.025), (fine, 0.012))
    ]
    close(found, whole[0] + whole[1])
    corners = 0.5 * (0.025 * coarse[..., ::3, ::3] + 0.012 * fine[..., ::8, ::8])
    close(found[..., ::63, ::63], corners)  # the outermost knots lie at the corners


@pytest.mark.parametrize("strength", [1.0, 0.4])
def test_light_by_hand(strength: float) -> None:
    images, n = pictures(40), 40
    images[0, :, 0, 0] = 0  # black stays above it
    torch.manual_seed(5)
    gamma, contrast = torch.randn(n, 1, 1, 1), torch.randn(n, 1, 1, 1)
    cast = torch.randn(n, 3, 1, 1)
    grey_ones, saturation = torch.rand(n) < 0.12, 0.3 + 1.3 * torch.rand(n)
    uneven, shift = torch.randn(n, 1, 3, 3), torch.randn(n, 3, 1, 1)
    torch.manual_seed(5)
    found = augment.light(images, strength)
    field = F.interpolate(uneven, (12, 12), mode="bicubic").double().numpy()
    assert grey_ones.any() and not grey_ones.all()
    for i in range(n):
        x = np.maximum(images[i].double().numpy(), 1e-3)
        x = x ** math.exp(0.28 * strength * float(gamma[i]))
        x = x.mean() + (x - x.mean()) * math.exp(0.25 * strength * float(contrast[i]))
        x = x * np.exp(0.1 * strength * cast[i].double().numpy())
        grey = x.mean(0)
        x = grey + (x - grey) * (0.0 if grey_ones[i] else float(saturation[i]))
        x = x * np.exp(0.2 * strength * field[i])
        x = x + 0.05 * strength * shift[i].double().numpy()
        close(found[i], np.clip(x, 0, 1), atol=1e-4)


def test_blur_is_a_gaussian_over_half_of_the_pictures() -> None:
    images = pictures(12)[..., :9]
    torch.manual_seed(6)
    blurred, sigma = torch.rand(12) < 0.5, 0.3 + 0.7 * torch.rand(12)
    torch.manual_seed(6)
    found = augment.blur(images, 1.0)
    assert 0 < int(blurred.sum()) < 12
    for i in range(12):
        expected = images[i].double().numpy()
        if blurred[i]:
            for axis in (1, 2):
                expected = gaussian_filter1d(
                    expected, float(sigma[i]), axis, mode="nearest", radius=3
                )
        close(found[i], expected)
    torch.manual_seed(6)
    again = augment.blur(images)  # up to 1.6 px
    sigma = 0.3 + 1.3 / 0.7 * (sigma - 0.3)
    i = int(blurred.nonzero()[0])
    expected = images[i].double().numpy()
    for axis in (1, 2):
        expected = gaussian_filter1d(expected, float(sigma[i]), axis, mode="nearest", radius=3)
    close(again[i], expected)


@pytest.mark.parametrize(("size", "low", "high"), [(12, 8, 9), (40, 10, 28)])
def test_some_pictures_lose_resolution(size: int, low: int, high: int) -> None:
    images = pictures(8, size)
    torch.manual_seed(7)
    chosen = torch.rand(8) < 0.4
    small = int(torch.randint(low, high, (1,)))
    torch.manual_seed(7)
    found = augment.coarsen(images, 0.4)
    assert 0 < int(chosen.sum()) < 8
    less = F.interpolate(images, (small, small), mode="area")
    expected = F.interpolate(less, (size, size), mode="bilinear")
    close(found, torch.where(chosen.view(8, 1, 1, 1), expected, images))
    assert augment.coarsen(images, 0.0) is images
    torch.manual_seed(7)
    many = pictures(400, 12)
    count = (augment.coarsen(many) != many).flatten(1).any(1)
    torch.manual_seed(7)
    assert torch.equal(count, torch.rand(400) < 0.25)


def test_grain_by_hand() -> None:
    images = pictures(5)
    torch.manual_seed(8)
    share, noise = torch.rand(5), torch.randn(5, 3, 12, 12)
    torch.manual_seed(8)
    found = augment.grain(images, 0.3)
    expected = images + (0.3 * share**2).view(5, 1, 1, 1) * noise
    close(found, expected.clamp(0, 1))
    assert bool(((expected < 0) | (expected > 1)).any())
    torch.manual_seed(8)
    expected = images + (0.06 * share**2).view(5, 1, 1, 1) * noise
    close(augment.grain(images), expected.clamp(0, 1))


def test_some_pictures_go_through_jpeg() -> None:
    images = pictures(8, 16)
    torch.manual_seed(9)
    chosen, quality = torch.rand(8) < 0.5, torch.randint(20, 90, (8,))
    torch.manual_seed(9)
    found = augment.jpeg(images, 0.5)
    assert 0 < int(chosen.sum()) < 8
    for i in range(8):
        expected = images[i]
        if chosen[i]:
            buffer = io.BytesIO()
            pixels = np.round(255 * images[i].numpy()).astype(np.uint8).transpose(1, 2, 0)
            Image.fromarray(pixels).save(buffer, "JPEG", quality=int(quality[i]))
            decoded = np.asarray(Image.open(buffer)).transpose(2, 0, 1)
            expected = torch.from_numpy(decoded / 255).float()
        close(found[i], expected)
    assert augment.jpeg(images, 0.0) is images


def test_blobs_by_hand() -> None:
    n, h, w = 60, 9, 12
    images = torch.rand(n, 3, h, w, generator=torch.Generator().manual_seed(2))
    torch.manual_seed(10)
    angle = 3.15 * torch.rand(n)
    x0, y0 = -0.1 + 1.2 * torch.rand(n), -0.1 + 1.2 * torch.rand(n)
    a0, b0 = 0.05 + 0.25 * torch.rand(n), 0.05 + 0.45 * torch.rand(n)
    round_ones, there = torch.rand(n) < 0.5, torch.rand(n) < 0.5
    colour, plain = torch.rand(n, 3, 1, 1), torch.rand(n) < 0.5
    torch.manual_seed(10)
    found, covered = augment.occlude(images, 0.5)
    own = images.numpy()
    kinds = set()
    for i in range(n):
        other = np.roll(np.roll(own[i - 1], h // 3, 1), w // 3, 2)
        fill = 0.3 * colour[i].numpy() + 0.7 * other
        if plain[i]:
            fill = np.broadcast_to(colour[i].numpy(), fill.shape)
        row, column = np.mgrid[:h, :w]
        dx, dy = (column + 0.5) / w - float(x0[i]), (row + 0.5) / h - float(y0[i])
        sin, cos = math.sin(angle[i]), math.cos(angle[i])
        a, b = (cos * dx + sin * dy) / float(a0[i]), (cos * dy - sin * dx) / float(b0[i])
        power = 2 if round_ones[i] else 8
        inside = (np.abs(a) ** power + np.abs(b) ** power < 1) & bool(there[i])
        assert (covered[i].numpy() == inside).all()
        close(found[i], np.where(inside, fill, own[i]))
        kinds.add((bool(inside.any()), bool(round_ones[i]), bool(plain[i])))
    assert len(kinds) == 8


def test_other_scenes_by_hand() -> None:
    n = 12
    images, scenes = pictures(n, 6), pictures(n, 6).flip(1)
    labels = torch.randint(0, 3, (n, 6, 6), generator=torch.Generator().manual_seed(3))
    labels[labels == 2] = 18
    torch.manual_seed(11)
    behind, worn = torch.rand(n) < 0.4, torch.rand(n) < 0.4
    torch.manual_seed(11)
    found = augment.rescene(images, labels, scenes, 0.4)
    assert bool((behind & worn).any()) and not bool((behind | worn).all())
    for i in range(n):
        empty = np.pad((labels[i] == 0).double().numpy(), 1)
        share = sum(empty[a : a + 6, b : b + 6] for a in range(3) for b in range(3)) / 9
        share = share * bool(behind[i])
        x = images[i].double().numpy() * (1 - share) + scenes[i].double().numpy() * share
        share = 0.7 * (labels[i] == 18).double().numpy() * bool(worn[i])
        x = x * (1 - share) + scenes[i - 1].double().numpy() * share
        close(found[i], x)


def test_what_a_photograph_goes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, float]] = []

    def step(name: str) -> Any:
        def change(images: Tensor, amount: float) -> Tensor:
            seen.append((name, amount))
            return images + 1

        return change

    for name in ("light", "blur", "coarsen", "grain", "jpeg"):
        monkeypatch.setattr(augment, name, step(name))
    images = pictures(40)
    torch.manual_seed(12)
    clean = torch.rand(40) < 0.25
    torch.manual_seed(12)
    found = augment.photograph(images, 0.5)
    names, amounts = zip(*seen, strict=True)
    assert names == ("light", "blur", "coarsen", "grain", "jpeg")
    assert amounts == pytest.approx((0.5, 0.4 + 0.6, 0.125, 0.03, 0.125))
    close(found, torch.where(clean.view(-1, 1, 1, 1), images, images + 5))
    assert torch.equal(augment.photograph(images, 1.0, 1.0), images)


def test_labels_of_mirrored_pictures() -> None:
    labels = torch.arange(256).view(1, 16, 16).expand(2, 16, 16)
    found = augment.mirrored_labels(labels, torch.tensor([True, False]))
    table = list(range(256))
    for left, right in ((4, 5), (6, 7), (8, 9)):
        table[left], table[right] = right, left
    assert found[0].flatten().tolist() == table and torch.equal(found[1], labels[1])


def test_defaults() -> None:
    for name, values in {
        "bends": (1.0,), "light": (1.0,), "blur": (1.6,), "coarsen": (0.25,), "grain": (0.06,),
        "jpeg": (0.25,), "occlude": (0.35,), "rescene": (0.5,), "photograph": (1.0, 0.25),
    }.items():  # fmt: skip
        assert getattr(augment, name).__defaults__ == values, name
    assert augment.see.__defaults__ == ("bilinear",)
