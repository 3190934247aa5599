"""Every term of semedit.losses against the same written out, its weight, and which way it pulls."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from formulas import close, label_squares, pixel_distance
from tiny import Pixels, TinyFaceNet
from torch import Tensor, nn

from semedit import losses
from semedit.errors import OptionError
from semedit.generators import Output
from semedit.losses.semantic import Target
from semedit.media.labels import LABELS, REGIONS

K = len(LABELS)


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def label_map(n: int = 2, size: int = 8, seed: int = 0) -> Tensor:
    return torch.randint(K, (n, size, size), generator=torch.Generator().manual_seed(seed))


def output(seed: int = 0) -> Output:
    return Output(numbers(2, 3, 8, 8, seed=seed), numbers(2, K, 4, 4, seed=seed + 50), None, None)


# --- regions ---------------------------------------------------------------------------------


def test_where_labels_changed() -> None:
    labels, other = label_map(), label_map()
    other[0, 3, 5] = (other[0, 3, 5] + 1) % K
    found = losses.changed(labels, other)
    assert found.shape == (2, 1, 8, 8) and found.sum() == 1 and found[0, 0, 3, 5] == 1
    mask = losses.region(labels, ["nose", "hair"])
    ids = [*REGIONS["nose"], *REGIONS["hair"]]
    assert mask[:, 0].tolist() == [
        [[float(int(v) in ids) for v in row] for row in one] for one in labels
    ]


def test_a_drawn_pixel_has_three_changed_neighbours() -> None:
    mask = (torch.rand(3, 12, 12, generator=torch.Generator().manual_seed(0)) < 0.45).long()
    mask[:, :, -1] = 1  # at the border fewer neighbours can be drawn
    found = losses.drawn(torch.zeros_like(mask), mask)[:, 0]
    for n in range(3):
        for y in range(12):
            for x in range(12):
                around = mask[n, max(0, y - 1) : y + 2, max(0, x - 1) : x + 2].sum() - mask[n, y, x]
                assert found[n, y, x] == int(mask[n, y, x] == 1 and around >= 3)


def test_dilation_is_the_maximum_of_a_square() -> None:
    mask = (torch.rand(2, 1, 11, 11, generator=torch.Generator().manual_seed(1)) < 0.05).float()
    mask[0, 0, 0, 10] = 1
    for px in (1, 3):
        found = losses.dilate(mask, px)
        for y in range(11):
            for x in range(11):
                part = mask[:, 0, max(0, y - px) : y + px + 1, max(0, x - px) : x + px + 1]
                assert torch.equal(found[:, 0, y, x], part.amax((1, 2)))
    assert losses.dilate(mask, 0) is mask and losses.dilate(mask, -1) is mask


@pytest.mark.parametrize(("px", "reach"), [(1.5, None), (0.49, None), (0.1, None), (2.0, 1)])
def test_feather_is_a_gaussian(px: float, reach: int | None) -> None:
    mask = torch.rand(1, 1, 9, 9, generator=torch.Generator().manual_seed(0))
    far = reach if reach is not None else max(1, round(3 * px))
    weights = np.array([math.exp(-(d * d) / (2 * px * px)) for d in range(-far, far + 1)])
    weights /= weights.sum()
    wide = np.pad(mask[0, 0].double().numpy(), far, mode="edge")
    rows = np.stack([np.convolve(row, weights, "valid") for row in wide])
    expected = np.stack([np.convolve(column, weights, "valid") for column in rows.T]).T
    found = losses.feather(mask, px, reach)[0, 0]
    assert np.allclose(found, expected, atol=1e-5)
    assert losses.feather(mask, 0) is mask


def test_a_feathered_mask_stays_a_mask() -> None:
    assert losses.feather(torch.full((1, 1, 5, 5), 1.0001), 1.0).max() == 1
    assert losses.feather(torch.full((1, 1, 5, 5), -0.0001), 1.0).min() == 0


# --- terms -----------------------------------------------------------------------------------


def test_image_loss_by_hand() -> None:
    a, b, mask = numbers(2, 3, 4, 4), numbers(2, 3, 4, 4, seed=1), numbers(2, 1, 4, 4, seed=2)
    for n in range(2):
        away = (a[n] - b[n]).numpy()
        masked = away * mask[n].numpy()
        assert float(losses.image_loss(a, b)[n]) == pytest.approx((away**2).mean(), rel=1e-5)
        assert float(losses.image_loss(a, b, mask)[n]) == pytest.approx(
            (masked**2).mean(), rel=1e-5
        )
        assert float(losses.image_loss(a, b, mask, "l1")[n]) == pytest.approx(
            np.abs(masked).mean(), rel=1e-5
        )


def test_label_loss_by_hand() -> None:
    seg, labels, mask = numbers(2, K, 4, 4), label_map(size=4), numbers(2, 1, 4, 4, seed=3).abs()
    assert close(losses.label_loss(seg, labels), label_squares(seg, labels), rtol=1e-4)
    assert close(losses.label_loss(seg, labels, mask), label_squares(seg, labels, mask), rtol=1e-4)
    p = seg.double().softmax(1).gather(1, labels[:, None])[:, 0]
    expected = (-p.log() * mask[:, 0]).mean((1, 2)).float()
    assert close(losses.label_loss(seg, labels, mask, "ce"), expected, rtol=1e-4)
    # Larger maps are sampled where seg is: labels at one pixel of a block, masks as its mean.
    large = label_map(size=8, seed=4)
    wide = numbers(2, 1, 8, 8, seed=5).abs()
    blocks = wide.view(2, 1, 4, 2, 4, 2).mean((3, 5))
    assert close(
        losses.label_loss(seg, large, wide),
        label_squares(seg, large[:, ::2, ::2], blocks),
        rtol=1e-4,
    )


@pytest.mark.parametrize("kind", ["mse", "ce"])
def test_a_step_against_the_label_loss_makes_the_label_likelier(kind: str) -> None:
    seg, labels = numbers(1, K, 4, 4).requires_grad_(), label_map(1, 4)
    (slope,) = torch.autograd.grad(losses.label_loss(seg, labels, kind=kind).sum(), seg)
    before, after = (s.softmax(1).gather(1, labels[:, None]) for s in (seg, seg - slope))
    assert (after > before).all()


def test_noise_loss_by_hand() -> None:
    maps = [numbers(1, 1, 16, 16), numbers(1, 1, 8, 8, seed=1), numbers(1, 1, 4, 4, seed=2)]
    expected = 0.0
    for one in maps:
        values = one[0, 0].double().numpy()
        while True:
            expected += np.mean(values * np.roll(values, 1, 0)) ** 2
            expected += np.mean(values * np.roll(values, 1, 1)) ** 2
            if len(values) <= 8:
                break
            values = values.reshape(len(values) // 2, 2, -1, 2).mean((1, 3))
    found = losses.noise_loss(maps)
    assert found.shape == (1,) and float(found) == pytest.approx(expected, rel=1e-4)
    # One map alone at every size down to 8: [16, 8], [8], [4].
    assert float(losses.noise_loss([])) == 0


# --- perceptual distance ---------------------------------------------------------------------


def test_distance_by_hand() -> None:
    a, b = numbers(2, 3, 8, 8), numbers(2, 3, 8, 8, seed=1)
    pixels = Pixels()
    found = losses.distance(pixels.features(a), pixels.features(b))
    assert close(found, pixel_distance(a, b), rtol=1e-4)
    assert losses.distance([], []).tolist() == [0.0]
    with pytest.raises(ValueError):
        losses.distance(pixels.features(a), pixels.features(b)[:1])


def test_features_have_unit_length_along_channels() -> None:
    network = TinyFaceNet()
    backbone = losses.NetworkFeatures(network, "faces")
    image = numbers(2, 3, 16, 16)
    for unit, raw in zip(backbone.features(image), network.features(image), strict=True):
        length = (raw.double() ** 2).sum(1, keepdim=True).sqrt()
        expected = raw / length.clamp(min=1e-5)
        assert close(unit.double(), expected.double(), atol=1e-4)
    nothing = losses.NetworkFeatures(_Nothing(), "nothing").features(image)
    assert torch.equal(nothing[0], torch.zeros_like(image))  # no 0 / 0
    assert not network.training and not any(p.requires_grad for p in network.parameters())


class _Nothing(nn.Module):
    def features(self, image: Tensor) -> list[Tensor]:
        return [0 * image]


class _Backbone(nn.Module):
    """Of LPIPS: five layers, the first a convolution whose weights are loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.slice1 = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False))

    def forward(self, image: Tensor) -> list[Tensor]:
        return [self.slice1[0](image), image]


class _LpipsNetwork(nn.Module):
    """The parts of lpips.LPIPS that are used, without torchvision."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        assert options == {"net": "alex", "pnet_rand": True, "verbose": False}
        self.net = _Backbone()
        linear = [nn.Conv2d(c, 1, 1, bias=False) for c in (4, 3)]
        with torch.no_grad():
            for i, one in enumerate(linear):
                one.weight.copy_(numbers(*one.weight.shape, seed=i))
        self.lins = nn.ModuleList([_Lin(one) for one in linear])

    @staticmethod
    def scaling_layer(image: Tensor) -> Tensor:
        return (image - 0.1) / 0.5


class _Lin(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Identity(), layer)


def test_lpips_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = numbers(4, 3, 1, 1, seed=9)
    monkeypatch.setitem(__import__("sys").modules, "lpips", SimpleNamespace(LPIPS=_LpipsNetwork))
    monkeypatch.setattr(losses.features.torchvision_ops, "ensure", lambda: None)
    monkeypatch.setattr(losses.features.weights, "resolve", lambda name: name)
    monkeypatch.setattr(
        losses.features.weights, "load_pickle", lambda path: {"features.0.weight": weights}
    )
    network = losses.Lpips()
    a, b = numbers(2, 3, 6, 6), numbers(2, 3, 6, 6, seed=1)

    def embedded(image: Tensor) -> list[Tensor]:
        seen = (image.double() - 0.1) / 0.5
        return [torch.einsum("oc,nchw->nohw", weights[:, :, 0, 0].double(), seen), seen]

    expected = torch.zeros(2).double()
    for i, (x, y) in enumerate(zip(embedded(a), embedded(b), strict=True)):
        linear = numbers(1, x.shape[1], 1, 1, seed=i).double().clamp(min=0)
        x, y = (v / (v**2).sum(1, keepdim=True).sqrt() for v in (x, y))
        expected += ((x - y) ** 2 * linear).sum(1).mean((1, 2))
    found = losses.distance(network.features(a), network.features(b))
    assert close(found, expected.float(), rtol=1e-4)
    assert network.features(torch.zeros(1, 3, 512, 512))[1].shape[-1] == losses.LPIPS_SIDE == 256
    assert network.features(torch.zeros(1, 3, 256, 256))[1].shape[-1] == 256
    assert not network._network.training
    assert not any(p.requires_grad for p in network._network.parameters())


def test_the_perceptual_distance_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        losses.features, "Lpips", lambda device: SimpleNamespace(name="L", weights="w")
    )
    monkeypatch.setattr(losses.features.Lpips, "weights", "w", raising=False)
    monkeypatch.setattr(losses.features.networks, "load", lambda name, device: TinyFaceNet())
    for here in (True, False):
        monkeypatch.setattr(losses.features.weights, "on_disk", lambda name, here=here: here)
        assert losses.perceptual("auto").name == ("L" if here else "faces")
        assert losses.perceptual("lpips").name == "L"
        assert losses.perceptual("faces").name == "faces"
        assert losses.perceptual("none").features(torch.zeros(1)) == []
    with pytest.raises(OptionError):
        losses.perceptual("vgg")


# --- equations 7, 8 and 9 --------------------------------------------------------------------

WEIGHTS: dict[str, float] = {"label_weight": 3.0, "image_weight": 5.0, "perceptual_weight": 7.0}


def semantic(out: Output, targets: list[losses.Target], **weights: float) -> Tensor:
    return losses.SemanticLoss(targets, Pixels(), **{**WEIGHTS, **weights})(out)


def terms(
    out: Output, image: Tensor, labels: Tensor, seen: Tensor, counted: Tensor
) -> dict[str, Tensor]:
    """The three terms by hand; labels and `counted` [.,8,8] of constant blocks of 2."""
    assert out.seg is not None
    error = ((out.image - image) * seen) ** 2
    return {
        "label_weight": label_squares(out.seg, labels[:, ::2, ::2], counted[..., ::2, ::2]),
        "image_weight": error.mean((1, 2, 3)),
        "perceptual_weight": pixel_distance(out.image * seen, image * seen),
    }


def blocks() -> Tensor:
    r = torch.zeros(2, 1, 8, 8)
    r[0, :, 2:6, 4:], r[1, :, :4, :2] = 1, 1
    return r


@pytest.mark.parametrize("alone", [None, *WEIGHTS])
def test_equations_7_8_and_9(alone: str | None) -> None:
    out, source, donor = output(0), output(1).image, output(2).image
    labels, other = label_map(size=8, seed=1), label_map(size=8, seed=2)
    r, one = blocks(), torch.ones(2, 1, 8, 8)
    weights = {k: (v if alone in (None, k) else 0.0) for k, v in WEIGHTS.items()}

    def expected(*sets: dict[str, Tensor]) -> Tensor:
        return sum(weights[k] * v for one in sets for k, v in one.items())  # type: ignore[return-value]

    seven = semantic(out, losses.SemanticLoss.inversion(source, labels), **weights)
    assert close(seven, expected(terms(out, source, labels, one, one)), rtol=1e-4)
    eight = semantic(out, [Target(source, other, image_mask=1 - r)], **weights)
    assert close(eight, expected(terms(out, source, other, 1 - r, one)), rtol=1e-4)
    pairs = (source, labels), (donor, other)
    nine = semantic(out, losses.SemanticLoss.transfer(*pairs, r), **weights)
    assert close(
        nine,
        expected(terms(out, source, labels, 1 - r, 1 - r), terms(out, donor, other, r, r)),
        rtol=1e-4,
    )


def test_weights_of_the_paper_and_generators_without_labels() -> None:
    out, source, labels = output(0), output(1).image, label_map(size=8)
    one = torch.ones(2, 1, 8, 8)
    found = losses.SemanticLoss(losses.SemanticLoss.inversion(source, labels), Pixels())(out)
    by_name = terms(out, source, labels, one, one)
    expected = 10 * by_name["label_weight"] + by_name["image_weight"] + by_name["perceptual_weight"]
    assert close(found, expected, rtol=1e-4)
    bare = Output(out.image, None, None, None)
    found = semantic(bare, losses.SemanticLoss.inversion(source, labels))
    assert close(found, 5 * by_name["image_weight"] + 7 * by_name["perceptual_weight"], rtol=1e-4)
    crossed = losses.SemanticLoss(
        losses.SemanticLoss.inversion(source, labels), Pixels(), 1.0, 0.0, 0.0, "ce"
    )(out)
    assert close(crossed, losses.label_loss(out.seg, labels, kind="ce"))


def test_what_weighs_nothing_is_not_computed() -> None:
    class Never:
        name = "never"

        def features(self, image: Tensor) -> list[Tensor]:
            raise AssertionError("asked")

    targets = losses.SemanticLoss.inversion(output(1).image, label_map(size=8))
    loss = losses.SemanticLoss(targets, Never(), perceptual_weight=0.0)
    assert loss(output()).shape == (2,)
    wrong = losses.SemanticLoss(targets, Pixels(), label_weight=0.0)
    bad = Output(output().image, torch.full((2, K, 4, 4), torch.nan), None, None)
    assert torch.isfinite(wrong(bad)).all()


def test_targets_take_no_part_in_the_descent() -> None:
    target = output(1).image.requires_grad_()
    out = output()
    out.image.requires_grad_()
    loss = losses.SemanticLoss(
        losses.SemanticLoss.inversion(target, label_map(size=8)), Pixels(), image_weight=0.0
    )
    found = loss(out).sum()
    slope, none = torch.autograd.grad(found, [out.image, target], allow_unused=True)
    assert slope is not None and (none is None or none.abs().max() == 0)
    nearer = Output((out.image - 0.1 * slope).detach(), out.seg, None, None)
    assert float(loss(nearer).sum()) < float(found)


# --- adversarial -----------------------------------------------------------------------------


def test_adversarial_losses_by_hand_and_by_step() -> None:
    real, fake = numbers(5).requires_grad_(), numbers(5, seed=1).requires_grad_()
    p, q = (1 / (1 + np.exp(-v.detach().double().numpy())) for v in (real, fake))
    assert np.allclose(losses.generator_loss(fake).detach(), -np.log(q), atol=1e-5)
    found = losses.discriminator_loss(real, fake)
    assert np.allclose(found.detach(), -np.log(p) - np.log(1 - q), atol=1e-5)
    up, down = torch.autograd.grad(found.sum(), [real, fake])
    assert (up < 0).all() and (down > 0).all()  # a step against it: real up, fake down
    (slope,) = torch.autograd.grad(losses.generator_loss(fake).sum(), fake)
    assert (slope < 0).all()


def test_r1_by_hand() -> None:
    inputs = numbers(2, 3, 4).requires_grad_()
    weight = torch.tensor([1.5, -2.0], requires_grad=True)
    logits = (weight[:, None, None] * inputs**2).sum((1, 2))
    found = losses.r1(logits, inputs)
    expected = (2 * weight[:, None, None] * inputs).square().sum((1, 2))
    assert close(found, expected, rtol=1e-5)
    (slope,) = torch.autograd.grad(found.sum(), weight)  # a critic is pulled towards flat
    assert close(slope, 8 * weight * inputs.square().sum((1, 2)), rtol=1e-5)


def test_path_lengths_by_hand() -> None:
    ws = numbers(2, 3, 4).requires_grad_()
    matrix = numbers(3 * 2 * 5, 12, seed=1).requires_grad_()
    images = (ws.flatten(1) @ matrix.T).view(2, 3, 2, 5)
    torch.manual_seed(7)
    found = losses.path_lengths(images, ws)
    torch.manual_seed(7)
    y = torch.randn(2, 3, 2, 5).double() / math.sqrt(10)
    j = (y.flatten(1) @ matrix.double()).view(2, 3, 4)
    expected = [math.sqrt(sum(float((w**2).sum()) for w in one) / 3) for one in j.detach()]
    assert found.tolist() == pytest.approx(expected, rel=1e-4)
    assert torch.autograd.grad(found.sum(), matrix)[0].abs().max() > 0  # the generator learns
