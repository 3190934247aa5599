"""Discriminators by hand: what their layers compute, and how often pictures are changed."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semedit.generators.parts.layers import activate
from semedit.trainers.parts.discriminators import (
    Augment,
    Branch,
    BranchedDiscriminator,
    Discriminator,
    DualDiscriminator,
    Halving,
    Memory,
    Verdict,
    similarities,
    spread,
)


def conv(layer: nn.Module, x: Tensor) -> Tensor:
    """An equalised convolution and its leaky ReLU, by the library."""
    weight, bias = layer.weight, layer.bias
    y = F.conv2d(x, weight / math.sqrt(weight[0].numel()), bias, padding=weight.shape[-1] // 2)
    return y if layer.linear else math.sqrt(2) * F.leaky_relu(y, 0.2)


def linear(layer: nn.Module, x: Tensor) -> Tensor:
    return x @ layer.weight.T / math.sqrt(x.shape[1]) + layer.bias


def halves(x: Tensor) -> Tensor:
    """2 x 2 means."""
    return (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4


def halving(block: nn.Module, x: Tensor) -> Tensor:
    return (conv(block.second, halves(conv(block.first, x))) + conv(block.skip, halves(x))) / 2**0.5


def deviation(x: Tensor) -> Tensor:
    """[N,1,H,W]: of groups of four pictures i, i+n/4, ..., or of all."""
    n = len(x)
    groups = 4 if n % 4 == 0 else n
    found = torch.zeros(n)
    for i in range(n // groups):
        own = x[i :: n // groups]
        found[i :: n // groups] = own.std(0, unbiased=False).mean()
    return found[:, None, None, None].expand(n, 1, *x.shape[2:])


@pytest.mark.parametrize("n", [4, 8, 3])
def test_spread_of_groups_of_four(n: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(n, 5, 4, 4)
    torch.testing.assert_close(spread(x), deviation(x), rtol=1e-4, atol=1e-5)
    assert spread(x.bfloat16()).dtype is torch.bfloat16
    same = x[:1].expand(4, -1, -1, -1)
    torch.testing.assert_close(spread(same), torch.full((4, 1, 4, 4), 1e-4))


def test_a_residual_block() -> None:
    torch.manual_seed(0)
    block, x = Halving(3, 5), torch.randn(2, 3, 8, 8)
    assert block.skip.linear and not block.first.linear and not block.second.linear
    torch.testing.assert_close(block(x), halving(block, x))


def test_the_residual_discriminator() -> None:
    torch.manual_seed(0)
    critic, x = BranchedDiscriminator(16, (4, 5, 6), 3, 2), torch.randn(4, 3, 16, 16)
    y = conv(critic.colour, x)
    for block in critic.blocks:
        y = halving(block, y)
    y = conv(critic.last, torch.cat([y, deviation(y)], 1)).flatten(1)
    features = activate(linear(critic.hidden, y))
    logits, guess = critic.judge(x)
    torch.testing.assert_close(critic.features(x), features, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(logits, linear(critic.out, features)[:, 0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(guess, linear(critic.branch, features), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(critic(x), logits)
    assert logits.dtype is torch.float32 and critic.bfloat16()(x.bfloat16()).dtype is torch.float32
    with pytest.raises(AssertionError):
        Discriminator(16, (4, 5))


@pytest.mark.parametrize("joint", [False, True])
def test_the_dual_discriminator(joint: bool) -> None:
    """Supplement, figure 11: pictures and label maps pass blocks of their own; a camera is
    projected on what was found."""
    torch.manual_seed(0)
    critic = DualDiscriminator(16, (4, 5, 6), (3, 4, 7), 2, 25, joint)
    images, maps, c = torch.randn(4, 6, 16, 16), torch.randn(4, 4, 16, 16), torch.randn(4, 25)
    ends = [through(critic.pictures, images), through(critic.maps, maps)]
    ends = [torch.cat(ends, 1)] if joint else ends
    expected = [verdict(v, x, c) for v, x in zip(critic.verdicts, ends, strict=True)]
    torch.testing.assert_close(
        critic(images, maps, c), torch.stack(expected, 1), rtol=1e-3, atol=1e-5
    )
    for channels in (((4, 5), (3, 4, 7)), ((4, 5, 6), (3, 4))):
        with pytest.raises(AssertionError):
            DualDiscriminator(16, *channels)


def through(branch: Branch, x: Tensor) -> Tensor:
    y = conv(branch.colour, x)
    for block in branch.blocks:
        y = halving(block, y)
    return y


def verdict(one: Verdict, x: Tensor, c: Tensor) -> Tensor:
    y = conv(one.last, torch.cat([x, deviation(x)], 1)).flatten(1)
    said = linear(one.out, activate(linear(one.hidden, y)))
    told = linear(one.embed, c)
    told = told / told.square().mean(1, keepdim=True).sqrt()
    told = activate(linear(one.camera, told))
    return torch.einsum("nc,nc->n", said, told) / math.sqrt(x.shape[1])


# --- augmentation ------------------------------------------------------------------------------


def test_the_chance_follows_the_sign_of_real_logits() -> None:
    augment = Augment(target=0.5, kimg=0.1)
    for logits, expected in (
        ([1.0, 2.0, 3.0, 0.1], 0.04),  # r = 1
        ([1.0, 2.0, 3.0, 0.1], 0.08),
        ([1.0, 2.0, 3.0, -9.0], 0.08),  # r = 0.5, as wanted
        ([1.0, 2.0, -0.1, -9.0], 0.04),  # r = 0
        ([-1.0, -2.0, -0.1, -9.0], 0.0),
        ([-1.0, -2.0, -0.1, -9.0], 0.0),  # no less than none
    ):
        augment.follow(torch.tensor(logits))
        assert float(augment.p) == pytest.approx(expected, abs=1e-6)
    for _ in range(40):
        augment.follow(torch.ones(4))
    assert float(augment.p) == pytest.approx(0.9)
    none = Augment()
    none.follow(torch.ones(4))
    assert float(none.p) == 0 and none.target == 0 and none.kimg == 100
    images = torch.rand(2, 3, 8, 8)
    assert none(images) is images and int(Memory().steps) == 0


def test_similarities_are_flips_turns_sizes_and_shifts() -> None:
    """[linear | shift] of affine_grid: R(angle) size, its first column flipped."""
    torch.manual_seed(0)
    theta = similarities(4000, 1.0)
    flip = -theta[:, :, :2].det().sign()
    first, second = theta[:, :, 0], theta[:, :, 1]
    size = first.norm(dim=1)
    torch.testing.assert_close(size, second.norm(dim=1))
    torch.testing.assert_close((first * second).sum(1), torch.zeros(4000), atol=1e-4, rtol=0)
    assert float((flip > 0).float().mean()) == pytest.approx(0.5, abs=0.04)
    assert float(size.log().std()) == pytest.approx(0.2, rel=0.06)
    assert float(size.log().mean()) == pytest.approx(0, abs=0.02)
    angle = torch.atan2(-second[:, 0], second[:, 1])
    assert float(angle.min()) < -3.1 and float(angle.max()) > 3.1
    assert float(angle.std()) == pytest.approx(2 * math.pi / 12**0.5, rel=0.05)
    shift = theta[:, :, 2]
    assert float(shift.abs().max()) == pytest.approx(0.25, abs=0.01)
    assert float(shift.std()) == pytest.approx(0.5 / 12**0.5, rel=0.05)
    assert float(shift.mean()) == pytest.approx(0, abs=0.02)
    assert float(torch.corrcoef(shift.T)[0, 1].abs()) < 0.1
    upright = torch.eye(2, 3).expand(4000, 2, 3)
    torch.testing.assert_close(similarities(4000, 0.0), upright)
    some = similarities(4000, 0.3)
    assert float((some[:, 0, 2] != 0).float().mean()) == pytest.approx(0.3, abs=0.04)
    assert float((some[:, 1, 2] != 0).float().mean()) == pytest.approx(0.3, abs=0.04)
    turned = (some[:, 0, 1].abs() > 1e-6).float().mean()
    assert float(turned) == pytest.approx(0.3, abs=0.04)
    flipped = (some[:, :, :2].det() < 0).float().mean()
    assert float(flipped) == pytest.approx(0.15, abs=0.03)


def test_colours_change_in_brightness_contrast_and_saturation() -> None:
    augment = Augment(0.5)
    augment.p.fill_(1.0)
    torch.manual_seed(0)
    base = torch.tensor([[0.2, 0.5, 0.8], [0.0, 0.0, 0.0]]).view(2, 3, 1, 1)
    images = base[:1].expand(4000, 3, 2, 2)
    found = augment._recoloured(images)
    torch.manual_seed(0)
    column = (4000, 1, 1, 1)
    draws = []
    for _ in range(3):
        draws.append(torch.randn(column))
        torch.rand(column)
    bright, contrast, colour = 0.2 * draws[0], (0.35 * draws[1]).exp(), (0.5 * draws[2]).exp()
    changed = (images + bright) * contrast
    grey = changed.mean(1, keepdim=True)
    torch.testing.assert_close(found, grey + colour * (changed - grey))
    augment.p.fill_(0.0)
    torch.testing.assert_close(augment._recoloured(images), images)
    augment.p.fill_(0.3)
    same = torch.isclose(augment._recoloured(images), images, atol=1e-5).flatten(1).all(1)
    assert float(same.float().mean()) == pytest.approx(0.7**3, abs=0.04)


def test_pictures_are_moved_then_recoloured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flip alone leaves the picture's mirror image; gradients pass."""
    augment = Augment(0.5)
    augment.p.fill_(0.9)
    turned = torch.tensor([[-1.0, 0, 0], [0, 1, 0]]).expand(2, 2, 3)
    monkeypatch.setattr("semedit.trainers.parts.discriminators.similarities", lambda n, p: turned)
    monkeypatch.setattr(augment, "_recoloured", lambda x: 2 * x)
    images = torch.rand(2, 3, 8, 8, requires_grad=True)
    torch.testing.assert_close(augment(images), 2 * images.flip(-1))
    augment(images).sum().backward()
    torch.testing.assert_close(images.grad, torch.full_like(images, 2.0))
    shifted = torch.tensor([[1.0, 0, 0.5], [0, 1, 0]]).expand(2, 2, 3)  # a quarter: reflected
    monkeypatch.setattr("semedit.trainers.parts.discriminators.similarities", lambda n, p: shifted)
    expected = torch.cat([images[..., 2:], images[..., 6:].flip(-1)], -1)
    torch.testing.assert_close(augment(images), 2 * expected)
