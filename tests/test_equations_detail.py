"""The photograph's detail in edits: the network's equation, the region, the terms of training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny import descend
from torch import Tensor, nn

from semedit.datasets.edited import Edited
from semedit.detail import DetailNet, carry, changed_region
from semedit.detail.carry import GROWN, SEEN, SLIGHT
from semedit.detail.network import REACH, Carried, drawn_with
from semedit.media.labels import LABELS
from semedit.trainers import detail as trainer
from semedit.trainers.detail import DetailTask, DetailTrainer, Pairs
from semedit.trainers.parts.drawings import Drawings

SIDE = 32


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def picture(n: int = 1, side: int = SIDE) -> Tensor:
    return torch.rand(n, 3, side, side) * 1.6 - 0.8


# --- y = E + gate * H(x + flow) + residual ---------------------------------------------------


def carried(flow: tuple[float, float] = (0.0, 0.0), gate: float = 0.7) -> Carried:
    """One flow everywhere, in half sides; a residual that differs from pixel to pixel."""
    way = torch.tensor(flow).view(1, 2, 1, 1).expand(1, 2, SIDE, SIDE)
    return Carried(way, torch.full((1, 1, SIDE, SIDE), gate), 0.1 * picture())


def test_what_the_inversion_lost_is_added_gated_and_the_residual_with_it() -> None:
    photo, before, after = picture(), picture(), picture()
    one = carried()
    expected = after + 0.7 * (photo - before) + one.residual
    assert torch.allclose(drawn_with(one, photo, before, after), expected, atol=1e-5)


@pytest.mark.parametrize(("x", "y"), [(3, 0), (0, 2), (-2, 1)])
def test_the_flow_says_where_detail_comes_from_x_first(x: int, y: int) -> None:
    photo, zero = picture(), torch.zeros(1, 3, SIDE, SIDE)
    one = carried((2 * x / SIDE, 2 * y / SIDE), gate=1.0)
    found = drawn_with(one, photo, zero, zero) - one.residual
    for row, column in ((10, 12), (20, 8)):
        assert torch.allclose(found[..., row, column], photo[..., row + y, column + x], atol=1e-4)


def test_at_another_size_flow_gate_and_residual_are_enlarged() -> None:
    photo, before, after = (picture(side=2 * SIDE) for _ in range(3))
    one = carried((2 * 2 / SIDE, 0.0))  # two of its pixels, four of the picture's
    found = drawn_with(one, photo, before, after)
    lost = (photo - before).roll(-4, -1)
    rest = F.interpolate(one.residual, (2 * SIDE, 2 * SIDE), mode="bilinear")
    expected = after + 0.7 * lost + rest
    assert torch.allclose(found[..., 8:40], expected[..., 8:40], atol=1e-4)


def test_what_the_network_says_keeps_its_ranges_and_hears_every_input() -> None:
    network = DetailNet(size=SIDE, widths=(8, 8, 12, 12), meaning=2)
    nn.init.normal_(network.last.weight, std=1.0)
    pictures = [picture() for _ in range(3)]
    region, labels = torch.rand(1, 1, SIDE, SIDE), torch.randint(0, len(LABELS), (2, SIDE, SIDE))
    given: list[Tensor] = [*pictures, region, labels[:1], labels[1:]]
    first = network(*given)
    assert first.flow.shape == (1, 2, SIDE, SIDE) and first.residual.shape == (1, 3, SIDE, SIDE)
    assert 0.5 * REACH < first.flow.abs().max() <= REACH
    assert 0 <= first.gate.min() < first.gate.max() <= 1
    for i, value in enumerate(given):
        moved = list(given)
        moved[i] = value.roll(5, -1) if value.is_floating_point() else (value + 1) % len(LABELS)
        assert not torch.allclose(network(*moved).residual, first.residual), i
    swapped = network(*given[:4], given[5], given[4])  # the two label maps have a meaning each
    assert not torch.allclose(swapped.residual, first.residual)


def test_a_network_that_says_nothing_yet_carries_most_of_what_was_lost() -> None:
    network = DetailNet(size=SIDE, widths=(8, 8, 12, 12), meaning=2)
    nn.init.zeros_(network.last.weight)
    zeros = torch.zeros(1, SIDE, SIDE, dtype=torch.long)
    said = network(*[picture() for _ in range(3)], torch.ones(1, 1, SIDE, SIDE), zeros, zeros)
    assert torch.allclose(said.gate, torch.tensor(1.0).sigmoid()) and said.flow.abs().max() == 0


# --- which region changed --------------------------------------------------------------------


def region_of(amount: float, relabelled: bool) -> Tensor:
    """Of an edit by `amount` in the middle of a flat picture."""
    before = torch.zeros(1, 3, 100, 100)
    after = before.clone()
    after[..., 40:60, 40:60] = amount
    labels = torch.ones(1, 100, 100, dtype=torch.long)
    other = labels.clone()
    if relabelled:
        other[:, 40:60, 40:60] = 13
    return changed_region(before, after, labels, other)


def test_what_changed_counts_from_a_threshold_that_is_lower_under_another_label() -> None:
    assert region_of(1.3 * SEEN, False)[..., 45:55, 45:55].min() > 0.9
    assert region_of(-1.3 * SEEN, False)[..., 45:55, 45:55].min() > 0.9
    assert region_of(0.7 * SEEN, False).max() == 0
    assert region_of(0.7 * SEEN, True)[..., 45:55, 45:55].min() > 0.9
    assert region_of(0.7 * SLIGHT, True).max() == 0


def test_the_region_is_widened_a_little_and_ends() -> None:
    mask = region_of(0.5, False)
    widened = round(GROWN)
    assert mask[0, 0, 50, 40 - widened] > 0
    assert mask[0, 0, 50, 40 - widened - 2].item() == 0 == mask[0, 0, 10, 10].item()
    assert mask.min() >= 0 and mask.max() <= 1


class Said(nn.Module):
    """A network that says the same of everything; its inputs are noted."""

    size = SIDE

    def __init__(self) -> None:
        super().__init__()
        self.given: list[tuple[Tensor, ...]] = []

    def forward(self, *given: Tensor) -> Carried:
        self.given.append(given)
        zero = torch.zeros(1, 2, SIDE, SIDE)
        return Carried(zero, torch.ones(1, 1, SIDE, SIDE), torch.full((1, 3, SIDE, SIDE), 0.05))


def test_outside_the_region_the_photograph_is_kept_to_the_bit_at_its_own_size() -> None:
    photo = picture(side=96)
    before = F.interpolate(photo, (24, 24), mode="area")
    after = before.clone()
    after[..., 8:14, 8:14] += 0.3
    labels = torch.ones(1, 24, 24, dtype=torch.long)
    network: Any = Said()
    image, mask = carry(network, photo, before, after, labels, labels)
    assert image.shape == photo.shape and mask.shape == (1, 1, 96, 96)
    outside = (mask == 0).expand_as(photo)
    assert torch.equal(image[outside], photo[outside]) and 0.5 < outside.float().mean() < 0.95
    inside = mask[0, 0, 40, 40]
    assert inside > 0.9
    there = image[0, :, 40, 40] - photo[0, :, 40, 40]
    assert torch.allclose(there, inside * (0.3 + 0.05) * torch.ones(3), atol=0.02)
    seen = network.given[0]
    assert [tuple(x.shape[-2:]) for x in seen] == [(SIDE, SIDE)] * 6
    assert torch.allclose(seen[0], F.interpolate(photo, (SIDE, SIDE), mode="bicubic",
                                                 antialias=True), atol=1e-5)  # fmt: skip
    assert (seen[2] - seen[1]).max() > 0.2 > (seen[0] - seen[1]).abs().mean()


# --- terms of training -----------------------------------------------------------------------


def region() -> Tensor:
    mask = torch.zeros(1, 1, SIDE, SIDE)
    mask[..., 4:20, 8:24] = 1
    mask[..., 20:22, 8:24] = 0.5
    return mask


def test_the_pixel_term_is_the_mean_absolute_error_in_the_region() -> None:
    image, truth, mask = picture(), picture(), region()
    error = (image - truth).abs().numpy() * mask.numpy()
    expected = error.sum() / (3 * mask.numpy().sum())
    assert float(trainer.pixel_loss(image, truth, mask)) == pytest.approx(expected, rel=1e-4)
    image[..., 25:, :] += 1  # outside nothing counts
    assert float(trainer.pixel_loss(image, truth, mask)) == pytest.approx(expected, rel=1e-4)


def test_the_slope_term_compares_differences_to_the_right_and_below() -> None:
    image, truth, mask = picture(), picture(), region()
    apart = (image - truth).numpy()
    right = np.abs(np.diff(apart, axis=3)) * mask.numpy()[..., 1:]
    below = np.abs(np.diff(apart, axis=2)) * mask.numpy()[..., 1:, :]
    expected = right.sum() / (3 * mask[..., 1:].sum()) + below.sum() / (3 * mask[..., 1:, :].sum())
    found = float(trainer.slope_loss(image, truth, mask))
    assert found == pytest.approx(float(expected), rel=1e-4)
    assert float(trainer.slope_loss(truth + 0.3, truth, mask)) == pytest.approx(0, abs=1e-5)


def test_the_sharpness_term_counts_edges_wherever_they_are() -> None:
    mask, stripes = torch.ones(1, 1, SIDE, SIDE), torch.zeros(1, 3, SIDE, SIDE)
    stripes[..., ::2] = 0.5
    moved, flat = 0.5 - stripes, torch.full_like(stripes, 0.25)
    assert float(trainer.sharpness_loss(moved, stripes, mask)) == pytest.approx(0, abs=1e-6)
    # Each cell misses slopes of half a unit to the right, none below.
    assert float(trainer.sharpness_loss(flat, stripes, mask)) == pytest.approx(0.5, rel=1e-4)
    twice = 2 * stripes
    assert float(trainer.sharpness_loss(twice, stripes, mask)) == pytest.approx(0.5, rel=1e-4)
    assert float(trainer.sharpness_loss(flat, stripes, 0 * mask)) == 0


def edits(n: int = 24) -> Edited:
    """Heads of noise with two edits each: a square that is lighter, in other labels."""
    random = np.random.default_rng(0)
    images = random.integers(60, 120, (n, 3, SIDE // 4, SIDE // 4, 3), dtype=np.uint8)
    images = images.repeat(4, 2).repeat(4, 3)
    images[:, 1:] = images[:, :1]
    labels = np.ones((n, 3, SIDE, SIDE), np.uint8)
    labels[..., :8] = 4  # what is on the left changes its name when mirrored
    for edit in (1, 2):
        images[:, edit, 8:20, 10:22] += np.uint8(60 * edit)
        labels[:, edit, 8:20, 10:22] = 13
    kinds = np.full((n, 2), "smile")
    held = np.arange(n) % 20 == 19
    c = np.zeros((n, 25), np.float32)
    return Edited(images, labels, c, kinds, np.flatnonzero(~held), np.flatnonzero(held), {}, Path())


def task(drawn: bool = False, **options: Any) -> DetailTask:
    data = edits()
    small = None
    if drawn:
        half = data.images[:, :, ::2, ::2]
        after = np.stack([half[:, 1:], half[:, 1:]], 2)
        other = np.stack([data.labels[:, 1:, ::2, ::2]] * 2, 2)
        small = Drawings(half[:, 0], data.labels[:, 0, ::2, ::2], after, other)
    network = DetailNet(size=SIDE, widths=(8, 8, 12, 12), meaning=2)
    return DetailTask(DetailTrainer(crop=16, **options), data, network, small)


def pairs(n: int = 2) -> Pairs:
    labels = torch.randint(0, 19, (2, n, SIDE, SIDE))
    mask = region().expand(n, -1, -1, -1)
    return Pairs(*(picture(n) for _ in range(4)), mask, labels[0], labels[1])


WEIGHTS = {"slope": 0.3, "sharpness": 0.7, "adversary": 0.11}


@pytest.mark.parametrize("progress", [0.1, 0.9])
def test_a_step_descends_the_weighted_sum_of_its_terms(
    progress: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, batch = task(critic_from=0.5, r1=0.0, **WEIGHTS), pairs()
    image = one.draw(one.network, batch)
    terms = [trainer.pixel_loss(image, batch.truth, batch.region)]
    terms += [0.3 * trainer.slope_loss(image, batch.truth, batch.region)]
    terms += [0.7 * trainer.sharpness_loss(image, batch.truth, batch.region)]
    if progress > 0.5:
        logits = one.critic(image, batch.after, batch.region)
        where = F.adaptive_avg_pool2d(batch.region, logits.shape[-2:])[:, 0]
        terms += [0.11 * (F.softplus(-logits) * where).sum() / where.sum()]
    expected = torch.autograd.grad(sum(terms), list(one.network.parameters()))
    limit = torch.stack([g.square().sum() for g in expected]).sum().sqrt().clamp(min=1)
    found: list[Tensor] = []
    monkeypatch.setattr(
        one.optimisers["network"],
        "step",
        lambda: found.extend(p.grad.clone() for p in one.network.parameters()),
    )
    monkeypatch.setattr(one.optimisers["critic"], "step", lambda: None)
    told = one.step(batch, progress)
    assert told.keys() == {"pixel", "slope", "sharpness"} | (
        {"critic", "adversary"} if progress > 0.5 else set()
    )
    for a, b in zip(found, expected, strict=True):
        assert torch.allclose(a, b / limit, atol=1e-5)


def test_the_network_shows_the_photograph_outside_and_its_drawing_inside() -> None:
    one, batch = task(), pairs()
    said = one.network(batch.photo, batch.before, batch.after, batch.region, batch.labels,
                       batch.labels_after)  # fmt: skip
    drawn = drawn_with(said, batch.photo, batch.before, batch.after)
    expected = batch.photo * (1 - batch.region) + drawn * batch.region
    assert torch.allclose(one.draw(one.network, batch), expected, atol=1e-5)


def test_the_critic_learns_that_true_edits_are_true_and_drawn_ones_are_not() -> None:
    one, batch = task(r1=0.0, critic_lr=1e-3), pairs()
    image = picture(2)
    real = batch.photo * (1 - batch.region) + batch.truth * batch.region
    where = F.adaptive_avg_pool2d(batch.region, (SIDE // 8, SIDE // 8))[:, 0]

    def verdicts() -> tuple[float, float]:
        true, false = (one.critic(x, batch.after, batch.region) for x in (real, image))
        return float((true * where).sum().detach()), float((false * where).sum().detach())

    before = verdicts()
    told = one._teach(batch, image)
    logits = [one.critic.cpu()(x, batch.after, batch.region) for x in (real, image)]
    assert told.shape == () and len(logits) == 2
    for _ in range(5):
        one._teach(batch, image)
    after = verdicts()
    assert after[0] > before[0] and after[1] < before[1]


def test_what_the_critic_is_told_and_its_gradient_penalty(monkeypatch: pytest.MonkeyPatch) -> None:
    batch, image = pairs(), picture(2)
    for penalised in (False, True):
        one = task(r1=0.4)
        monkeypatch.setattr(torch, "rand", lambda *size, on=penalised: torch.tensor(1.0 - on))
        real = (batch.photo * (1 - batch.region) + batch.truth * batch.region).requires_grad_()
        true = one.critic(real, batch.after, batch.region)
        false = one.critic(image, batch.after, batch.region)
        where = F.adaptive_avg_pool2d(batch.region, true.shape[-2:])[:, 0]
        apart = ((F.softplus(-true) + F.softplus(false)) * where).sum() / where.sum()
        whole = apart
        if penalised:
            each = (true * where).flatten(1).sum(1) / where.flatten(1).sum(1)
            (slope,) = torch.autograd.grad(each.sum(), real, create_graph=True)
            penalty = slope.square().flatten(1).sum(1).mean()
            whole = apart + 0.5 * 0.4 * trainer.R1_EVERY * penalty
        expected = torch.autograd.grad(whole, list(one.critic.parameters()))
        found: list[Tensor] = []
        parameters = list(one.critic.parameters())
        monkeypatch.setattr(
            one.optimisers["critic"],
            "step",
            lambda found=found, parameters=parameters: found.extend(p.grad for p in parameters),
        )
        assert float(one._teach(batch, image)) == pytest.approx(float(apart.detach()), rel=1e-4)
        for a, b in zip(found, expected, strict=True):
            assert torch.allclose(a, b, atol=1e-5), penalised


def test_crops_in_which_nothing_changed_teach_nothing_and_spoil_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, batch = task(critic_from=0.0), pairs()
    monkeypatch.setattr(torch, "rand", lambda *size: torch.tensor(0.0))  # with the penalty
    nothing = Pairs(**{**vars(batch), "region": 0 * batch.region})
    told = one.step(nothing, 0.5)
    assert all(value == 0 for value in told.values())
    for module in one.modules.values():
        assert all(torch.isfinite(p).all() for p in module.parameters())


def test_a_network_that_is_taught_does_not_move_its_critic_and_fools_it_more() -> None:
    one, batch = task(), pairs()
    nn.init.normal_(one.network.last.weight, std=0.05)
    before = one._fooled(batch, one.draw(one.network, batch))
    before.backward(retain_graph=True)
    assert all(p.grad is None for p in one.critic.parameters())
    assert all(p.requires_grad for p in one.critic.parameters())
    descend(before, one.network.parameters(), 1e-2)
    assert one._fooled(batch, one.draw(one.network, batch)) < before


# --- what it learns from ---------------------------------------------------------------------


def test_imitated_pairs_are_two_states_of_one_head_softened_alike() -> None:
    one = task()
    states = [torch.from_numpy(p.astype(np.float32)).permute(2, 0, 1) / 127.5 - 1
              for p in one.data.images[3]]  # fmt: skip
    for _ in range(5):
        pair = one.imitated_pair(3)
        which = [
            next(i for i, state in enumerate(states) if torch.equal(x[0], state))
            for x in (pair.photo, pair.truth)
        ]
        assert which[0] != which[1]
        assert torch.equal(pair.labels[0], torch.from_numpy(one.data.labels[3, which[0]]).long())
        assert torch.equal(
            pair.labels_after[0], torch.from_numpy(one.data.labels[3, which[1]]).long()
        )
        middle = (..., slice(10, 18), slice(12, 20))  # of the square that differs

        def apart(a: Tensor, b: Tensor, middle: Any = middle) -> float:
            return float((a - b)[middle].mean().abs())

        assert apart(pair.before, pair.photo) < apart(pair.before, pair.truth)
        assert apart(pair.after, pair.truth) < apart(pair.after, pair.photo)
        assert torch.equal(
            pair.region,
            changed_region(pair.before, pair.after, pair.labels, pair.labels_after),
        )


def test_drawn_pairs_are_the_generators_of_that_head_edit_and_way() -> None:
    one = task(drawn=True)
    assert one.drawn is not None
    one.drawn.after[5, 1, 1] = 7
    one.drawn.before[5] = 200
    pair = one.true_pair(5, 1, 1)
    assert torch.allclose(pair.after, torch.full_like(pair.after, 7 / 127.5 - 1))
    assert torch.allclose(pair.before, torch.full_like(pair.before, 200 / 127.5 - 1))
    pixels = torch.from_numpy(one.data.images[5].astype(np.float32)).permute(0, 3, 1, 2) / 127.5 - 1
    assert torch.equal(pair.photo[0], pixels[0]) and torch.equal(pair.truth[0], pixels[2])
    assert pair.labels_after[0, 12, 14] == 13 and pair.labels[0, 12, 14] == 1


def test_the_share_of_drawn_pairs_and_only_heads_that_are_trained_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def noted(name: str, make: Any, seen: list[tuple[str, int]]) -> Any:
        return lambda head, *more: (seen.append((name, head)), make(head, *more))[1]

    for share, kind in ((0.0, "imitated"), (1.0, "true")):
        one = task(drawn=True, drawn_share=share)
        seen: list[tuple[str, int]] = []
        monkeypatch.setattr(one, "imitated_pair", noted("imitated", one.imitated_pair, seen))
        monkeypatch.setattr(one, "true_pair", noted("true", one.true_pair, seen))
        batch = one.batch(torch.arange(20))
        assert {name for name, _ in seen} == {kind}
        assert 19 not in {head for _, head in seen} and batch.photo.shape == (20, 3, 16, 16)
        assert all(len(value) == 20 and value.shape[-1] == 16 for value in vars(batch).values())


def test_mirroring_turns_everything_and_renames_left_and_right(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pair = task().imitated_pair(0)
    monkeypatch.setattr(torch, "rand", lambda *size: torch.tensor(0.9))
    found = trainer._mirrored(pair)
    for name in ("photo", "before", "after", "truth", "region"):
        assert torch.equal(getattr(found, name), getattr(pair, name).flip(-1))
    assert (found.labels[0, 2, -8:] == 5).all() and (pair.labels[0, 2, :8] == 4).all()
    assert (found.labels_after[0, 2, -8:] == 5).all()
    monkeypatch.setattr(torch, "rand", lambda *size: torch.tensor(0.1))
    assert trainer._mirrored(pair) is pair


def test_crops_lie_about_what_changed_and_cut_everything_alike() -> None:
    side = torch.arange(SIDE * SIDE, dtype=torch.float32).view(1, 1, SIDE, SIDE)
    mask = torch.zeros(1, 1, SIDE, SIDE)
    mask[..., 26:28, 4:6] = 1
    ids = side[:, 0].long()
    pair = Pairs(*(side.expand(1, 3, -1, -1) for _ in range(4)), mask, ids, ids)
    for _ in range(10):
        found = trainer._cropped(pair, 16)
        assert found.region.sum() == 4 and found.photo.shape == (1, 3, 16, 16)
        assert all(torch.equal(found.photo[0, 0].long(), x[0]) for x in
                   (found.labels, found.labels_after))  # fmt: skip
        assert torch.equal(found.photo, found.truth) and torch.equal(found.photo, found.after)


def test_softened_pictures_lose_edges_and_little_else() -> None:
    sharp = (torch.rand(6, 3, 64, 64) > 0.5).float() - 0.5
    sharp = F.interpolate(sharp[..., :32, :32], (64, 64), mode="nearest")
    soft = trainer.softened(sharp)
    edges = [sum(g.abs().mean() for g in trainer.slopes(x)) for x in (soft, sharp)]
    assert edges[0] < 0.6 * edges[1]
    assert (F.avg_pool2d(soft - sharp, 16)).abs().mean() < 0.08
    assert not torch.equal(soft[0], trainer.softened(sharp)[0])  # by chance


def test_figures_of_a_perfect_drawing_and_of_doing_nothing() -> None:
    one = task(drawn=True)
    pair = one.true_pair(19, 0, 0)

    class Perfect(nn.Module):
        def forward(self, photo: Tensor, before: Tensor, after: Tensor, *rest: Tensor) -> Carried:
            truth = one.true_pair(19, 0, 0).truth
            zero = torch.zeros(1, 1, SIDE, SIDE)
            return Carried(zero.expand(1, 2, -1, -1), zero, truth - after)

    with torch.no_grad():
        figures = one._figures(Perfect(), [pair], "drawn_")
    assert figures["drawn_detail_db"] > 80
    assert figures["drawn_detail_gradient"] == pytest.approx(1, abs=1e-4)
    assert figures["drawn_enlarged_db"] < 30
    error = ((pair.after - pair.truth).square() * pair.region).sum() / (3 * pair.region.sum())
    expected = float(10 * torch.log10(4 / error))
    assert figures["drawn_enlarged_db"] == pytest.approx(expected, abs=1e-3)
    assert figures["drawn_enlarged_gradient"] > 0
    with torch.no_grad():
        assert one.evaluate({"network": one.network}).keys() >= figures.keys()
