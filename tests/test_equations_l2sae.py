"""L2SAE's objective, term by term: equation 2, the twins' swap, critics, patches, R1."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny import Calls, Updates, descend, tiny_views, touched
from torch import Tensor

from semedit.datasets.labelled import Labelled
from semedit.generators.l2sae.l2sae import L2SAE, ROIS, L2SAEConfig
from semedit.media.labels import LABELS, REGIONS
from semedit.trainers import l2sae
from semedit.trainers.l2sae import L2SAEBatch, L2SAETask, L2SAETrainer, uniformity
from semedit.trainers.parts.patches import PatchDiscriminator, random_crops
from semedit.trainers.parts.recolouring import groups, recoloured
from semedit.trainers.parts.region_losses import (
    region_counts,
    region_ious,
    region_losses,
    region_masks,
)

TRAINER = L2SAETrainer(
    critic=(4, 4),
    patch_size=8,
    patch_critic=(4, 4),
    crops=2,
    regression=0.0,
    device="cpu",
)
SIZES = L2SAEConfig(
    resolution=32,
    style=6,
    encoder=(4, 4, 6, 6),
    summary=(8,),
    head=(6,),
    decoder=(6, 4, 4),
    slicing="first",
    map_encoder=(4, 4, 6, 6),
    map_summary=(8,),
    map_head=(6,),
    map_decoder=(6, 4, 4),
    rank=2,
)
SMALL = ("nose", "eye_g", "l_eye", "r_eye", "l_brow", "r_brow", "mouth", "u_lip", "l_lip")


@pytest.fixture(autouse=True)
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """All in float32: equal to what is written here, and quicker."""
    monkeypatch.setattr(torch, "autocast", lambda *of: nullcontext())


def start(**options: Any) -> L2SAETask:
    torch.manual_seed(0)
    views = tiny_views(count=6, views=1, side=32)
    parts = ((views.images[:, 0], views.labels[:, 0]),)
    data = Labelled(parts, np.arange(5), np.array([5]), [])
    return L2SAETask(replace(TRAINER, **options), data, L2SAE(SIZES, "small"))


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp x)."""
    return (1 + x.double().exp()).log()


def close(found: Any, expected: Any, rtol: float = 1e-5) -> None:
    found, expected = (torch.as_tensor(x).detach().double() for x in (found, expected))
    torch.testing.assert_close(found, expected, rtol=rtol, atol=1e-6)


def test_weights_are_those_told() -> None:
    of = L2SAETrainer()
    assert (of.edge, of.small, of.label, of.uniform, of.anchor) == (0.5, 4, 1, 0.04, 4)
    assert (of.gan, of.patch, of.gamma, of.patch_gamma, of.r1_every) == (0.25, 0.25, 10, 1, 16)
    assert (of.lr, of.maps_lr, of.gan_lr, of.maps_every) == (4e-3, 6e-3, 1e-3, 2)
    assert (of.twin, of.tint, of.crops, l2sae.SHARE) == (1, 0.06, 8, 0.2)


# --- equation 2 --------------------------------------------------------------------------------


def test_equation_2_of_one_region() -> None:
    """Cross-entropy, what is rare weighed by sqrt(outside / inside), and 1 - soft IoU."""
    torch.manual_seed(0)
    logits = torch.randn(2, 5, 6, 6)
    masks = (
        torch.rand(2, 5, 6, 6) < torch.tensor([0.1, 0.3, 0.5, 0.7, 0.0])[:, None, None]
    ).float()
    found = region_losses(logits, masks)
    for k in range(5):
        share = min(max(float(masks[:, k].mean()), 1e-3), 0.5)
        for i in range(2):
            mask, chance = masks[i, k].double(), logits[i, k].double().sigmoid()
            weight = torch.where(mask > 0, math.sqrt((1 - share) / share), 1.0)
            entropy = -(mask * chance.log() + (1 - mask) * (1 - chance).log())
            both, either = (chance * mask).sum(), (chance + mask - chance * mask).sum()
            expected = (weight * entropy).sum() / weight.sum() + 1 - (both + 1) / (either + 1)
            close(found[i, k], expected)


def test_masks_and_figures_of_regions() -> None:
    labels = torch.arange(19).view(1, 1, 19).expand(1, 19, 19)
    masks = region_masks(labels)
    for k, names in enumerate(ROIS.values()):
        ids = {i for name in names for i in REGIONS[name]}
        assert set(masks[0, k, 0].nonzero().flatten().tolist()) == ids
    logits = torch.where(masks.bool(), 1.0, -1.0).roll(1, 3)
    counts = region_counts(logits, labels)
    moved = masks.roll(1, 3).bool()
    both = [(moved[0, k] & masks[0, k].bool()).sum() for k in range(5)]
    either = [(moved[0, k] | masks[0, k].bool()).sum() for k in range(5)]
    assert counts.tolist() == [[float(a), float(b)] for a, b in zip(both, either, strict=True)]
    mean, each = region_ious(counts)
    expected = [float(a / max(1, b)) for a, b in zip(both, either, strict=True)]
    assert list(each) == list(ROIS) and list(each.values()) == pytest.approx(expected)
    assert mean == pytest.approx(sum(expected) / 5)
    assert region_ious(torch.zeros(5, 2))[0] == 0


def test_the_map_network_descends_equation_2(monkeypatch: pytest.MonkeyPatch) -> None:
    """0.2 of the sum over regions, of pictures or their twins; no other network learns."""
    run = start()
    updates, asked = Updates(run, monkeypatch), Calls(run.network, "region_logits", monkeypatch)
    batch = run.batch(torch.arange(4).repeat(8))
    values = run._map(batch)
    (seen,), _, logits = asked[0]
    own = [torch.equal(a, b) for a, b in zip(seen, batch.images, strict=True)]
    other = [torch.equal(a, b) for a, b in zip(seen, batch.twins, strict=True)]
    assert all(a != b for a, b in zip(own, other, strict=True)) and 6 < sum(own) < 26
    each = region_losses(logits, region_masks(batch.labels))
    close(updates.one("maps"), 0.2 * each.sum() / 32)
    close(values["regions"], each.mean())
    loss = updates.one("maps")
    assert touched(loss, run.network.SMPN)
    assert not touched(loss, run.network.E) and not touched(loss, run.network.G)
    before = region_losses(run.network.region_logits(batch.images), region_masks(batch.labels))
    descend(loss, run.network.SMPN.parameters(), 1e-2)
    after = region_losses(run.network.region_logits(batch.images), region_masks(batch.labels))
    assert after.mean().item() < before.mean().item()


# --- twins -------------------------------------------------------------------------------------


def test_a_twins_colours() -> None:
    """x' = lift + (1 - lift) x^(1 / gain), one of each for every group of labels and channel."""
    torch.manual_seed(0)
    images, labels = torch.rand(2, 3, 8, 8) * 2 - 1, torch.randint(0, 19, (2, 8, 8))
    torch.manual_seed(1)
    found = recoloured(images, labels, 0.1, 0.5)
    torch.manual_seed(1)
    lift = (0.18 * torch.randn(2, 19, 1)).abs() + 0.3 * 0.1 * torch.randn(2, 19, 3)
    gain = 0.30 * torch.randn(2, 19, 1) + 0.1 * torch.randn(2, 19, 3)
    of = groups()
    for i in range(2):
        for row in range(8):
            for column in range(8):
                group = of[labels[i, row, column]]
                up, by = (0.5 * lift[i, group]).clamp(0, 0.6), (0.5 * gain[i, group]).exp()
                x = ((images[i, :, row, column] + 1) / 2).clamp(1e-4, 1)
                expected = 2 * (up + (1 - up) * x.pow(1 / by)) - 1
                torch.testing.assert_close(found[i, :, row, column], expected)


def test_what_is_coloured_alike() -> None:
    of, at = groups().tolist(), LABELS.index
    for names in (
        ("skin", "nose", "l_ear", "r_ear", "neck"),
        ("hair", "l_brow", "r_brow"),
        ("l_eye", "r_eye"),
        ("u_lip", "l_lip"),
    ):
        assert len({of[at(name)] for name in names}) == 1
    assert len(set(of)) == 19 - 4 - 2 - 1 - 1


def test_pictures_labels_and_twins_are_mirrored_together(monkeypatch: pytest.MonkeyPatch) -> None:
    run = start()
    made = []
    own = l2sae.recoloured
    monkeypatch.setattr(l2sae, "recoloured", lambda *of: made.append((of, own(*of))) or made[0][1])
    batch = run.batch(torch.tensor([2]).repeat(64))
    images, labels = run.data.read(np.array([2]))
    pairs = {"l_eye": "r_eye", "l_brow": "r_brow", "l_ear": "r_ear"}
    table = list(range(19))
    for left, right in pairs.items():
        a, b = LABELS.index(left), LABELS.index(right)
        table[a], table[b] = b, a
    turned = torch.tensor(table)[labels.flip(-1)]
    count = 0
    for i in range(64):
        other = not torch.equal(batch.images[i], images[0])
        assert torch.equal(batch.images[i], images[0].flip(-1) if other else images[0])
        assert torch.equal(batch.labels[i], turned[0] if other else labels[0])
        count += other
    assert 16 < count < 48
    (seen, ids, tint, strength), others = made[0]
    assert seen is batch.images and ids is batch.labels and batch.twins is others
    assert (tint, strength) == (0.06, 1.0)


# --- the regression ----------------------------------------------------------------------------


def test_pictures_and_twins_swap(monkeypatch: pytest.MonkeyPatch) -> None:
    """G(S(x'), T(x)) is to be x, G(S(x), T(x')) to be x'."""
    run = start(edge=0.7, label=0.3, uniform=0.2, small=5.0)
    encoded, drawn = (
        Calls(run.network.E, "forward", monkeypatch),
        Calls(run.network.G, "features", monkeypatch),
    )
    batch = run.batch(torch.arange(4))
    image, terms = run._swapped(batch)
    structure, style = run.network.E(torch.cat([batch.images, batch.twins]))
    torch.testing.assert_close(encoded[0][2][0], structure)
    (shapes, styles, noise), _, features = drawn[0]
    expected = torch.cat([structure[4:6], structure[2:4]]), torch.cat([style[:2], style[6:8]])
    torch.testing.assert_close(shapes, expected[0])
    torch.testing.assert_close(styles, expected[1])
    assert noise == "random"
    torch.testing.assert_close(image, run.network.G.ToRGB(features, styles))
    away = image - torch.cat([batch.images[:2], batch.twins[2:]])
    weight = torch.tensor([5.0 if name in SMALL else 1.0 for name in LABELS])
    close(terms["image"], (weight[batch.labels][:, None] * away.abs()).mean())
    across = (away[..., 1:] - away[..., :-1]).abs().mean()
    close(terms["edge"], 0.7 * (across + (away[..., 1:, :] - away[..., :-1, :]).abs().mean()))
    chances = run.reader(features).double().softmax(1).gather(1, batch.labels[:, None])[:, 0]
    rare = run.classes[batch.labels]
    close(terms["label"], 0.3 * (rare * -chances.log()).sum() / rare.sum())
    close(terms["uniform"], 0.2 * uniformity(style))
    assert set(terms) == {"image", "edge", "label", "uniform"}
    for name in ("image", "edge", "label"):
        assert touched(terms[name], run.network.E) and touched(terms[name], run.network.G)
    assert touched(terms["uniform"], run.network.E) and touched(terms["label"], run.reader)


def test_styles_lie_apart() -> None:
    """log mean exp(-2 |a - b|^2) over pairs; a step against it moves two styles apart."""
    torch.manual_seed(0)
    styles = F.normalize(torch.randn(4, 5), dim=1).requires_grad_(True)
    pairs = [(a - b).square().sum() for i, a in enumerate(styles) for b in styles[:i]]
    close(uniformity(styles), (sum((-2 * p).exp() for p in pairs) / 6).log())
    (slope,) = torch.autograd.grad(uniformity(styles), styles)
    moved = F.normalize(styles - 0.01 * slope, dim=1)
    assert torch.pdist(moved).mean().item() > torch.pdist(styles).mean().item()


def test_the_regression_descends_its_terms(monkeypatch: pytest.MonkeyPatch) -> None:
    run = start()
    updates = Updates(run, monkeypatch)
    terms = {"image": torch.tensor(0.7), "edge": torch.tensor(-0.2)}
    monkeypatch.setattr(run, "_swapped", lambda batch: (torch.zeros(1), terms))
    values = run._regress(run.batch(torch.arange(2)))
    close(updates.one("regression"), 0.5)
    assert values == {k: float(v) for k, v in terms.items()}


# --- adversaries -------------------------------------------------------------------------------


def prepared(
    run: L2SAETask, patch: pytest.MonkeyPatch
) -> tuple[L2SAEBatch, Tensor, Tensor, list[bool]]:
    """A batch, swapped and mixed pictures, whether the first ones were drawn with gradients; crops
    are those of `middle`, from another place at every call."""
    torch.manual_seed(7)
    swapped, mixed = (torch.randn(4, 3, 32, 32, requires_grad=True) for _ in range(2))
    terms = {"image": torch.tensor(0.7), "edge": torch.tensor(0.2)}
    grads: list[bool] = []
    patch.setattr(
        run, "_swapped", lambda of: (grads.append(torch.is_grad_enabled()), (swapped, terms))[1]
    )
    batch = run.batch(torch.arange(4))
    patch.setattr(run, "_mixed", lambda of: mixed if of is batch.images else None)
    count = iter(range(100))
    patch.setattr(run, "_crops", lambda images: middle(images, next(count)))
    return batch, swapped, mixed, grads


def middle(images: Tensor, call: int) -> Tensor:
    """Two crops of each picture."""
    at = call % 3 * 4
    return torch.stack([images[..., at : at + 8, 8:16], images[..., 8:16, at : at + 8]], 1)


def test_terms_of_the_critics(monkeypatch: pytest.MonkeyPatch) -> None:
    """-log D(x) - 0.5 log(1 - D(rec)) - 0.5 log(1 - D(mix)) - log P(x, x) - log(1 - P(x, mix))."""
    run = start()
    updates = Updates(run, monkeypatch)
    batch, swapped, mixed, grads = prepared(run, monkeypatch)
    run.memory.steps += 2  # no R1
    values = run._criticise(batch)

    def verdicts() -> list[Tensor]:
        crops = [middle(x, i) for i, x in enumerate((batch.images, batch.images, mixed))]
        alike, unlike = run.patches(crops[0], crops[1]), run.patches(crops[0], crops[2])
        return [run.critic(batch.images), run.critic(swapped[:2]), run.critic(mixed), alike, unlike]

    real, made, mix, alike, unlike = before = verdicts()
    critic = softplus(-real).mean() + softplus(made).mean() / 2 + softplus(mix).mean() / 2
    patch = (softplus(-alike) + softplus(unlike)).mean()
    close(values["critic"], critic)
    close(values["patches"], patch)
    assert [name for name, _ in updates] == ["critics"] and grads == [False]
    loss = updates.one("critics")
    close(loss, critic + patch)
    assert touched(loss, run.critic) and touched(loss, run.patches)
    both = [*run.critic.parameters(), *run.patches.parameters()]
    for _ in range(6):
        run._criticise(batch)
        descend(updates[-1][1], both, 0.1)
    after = verdicts()
    gaps = [
        [(v[0].mean() - v[1].mean() / 2 - v[2].mean() / 2).item(), (v[3] - v[4]).mean().item()]
        for v in (before, after)
    ]
    assert gaps[1][0] > gaps[0][0] and gaps[1][1] > gaps[0][1]


def test_r1_of_both_critics(monkeypatch: pytest.MonkeyPatch) -> None:
    """gamma / 2 |grad D|^2 + patch_gamma / 2 |grad P|^2, half of that of reference and crop."""
    run = start(gamma=3.0, patch_gamma=5.0, r1_every=4)
    updates = Updates(run, monkeypatch)
    batch, *_ = prepared(run, monkeypatch)
    for steps, count in ((0, 2), (2, 1), (6, 1), (8, 2), (9, 2)):
        updates.clear()
        run.memory.steps.fill_(steps)
        run._criticise(batch)
        assert len(updates) == count
    x = batch.images.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(run.critic(x).sum(), x)
    one = sum(s.norm() ** 2 for s in slope) / 4
    updates.clear()
    run.memory.steps.fill_(0)
    seen = Calls(run, "_crops", monkeypatch)
    run._regularise(batch.images)
    crops = [call[2].detach().clone().requires_grad_(True) for call in seen]
    slopes = torch.autograd.grad(run.patches(*crops).sum(), crops)
    two = sum(sum(s.norm() ** 2 for s in slope) / 4 for slope in slopes) / 2
    close(updates.one("critics"), 4 * (3.0 / 2 * one + 5.0 / 2 * two))
    assert touched(updates.one("critics"), run.critic)
    assert touched(updates.one("critics"), run.patches)


def test_terms_of_encoder_and_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """anchor * regression - gan (0.5 log D(rec) + log D(mix)) - patch log P(x, mix)."""
    run = start(anchor=3.0, gan=0.7, patch=0.3)
    updates = Updates(run, monkeypatch)
    batch, swapped, mixed, grads = prepared(run, monkeypatch)
    values = run._please(batch)
    made, mix = run.critic(swapped[:2]), run.critic(mixed)
    alike = run.patches(middle(batch.images, 0), middle(mixed, 1))
    close(values["rec"], 0.5 * 0.7 * softplus(-made).mean())
    close(values["mix"], 0.7 * softplus(-mix).mean())
    close(values["patch"], 0.3 * softplus(-alike).mean())
    close(values["image"], 2.1)
    close(values["edge"], 0.6)
    loss = updates.one("swaps")
    close(loss, sum(values.values()))
    assert grads == [True] and [name for name, _ in updates] == ["swaps"]
    slopes = torch.autograd.grad(loss, (swapped, mixed), retain_graph=True)
    assert torch.count_nonzero(slopes[0][2:]) == 0
    for logit, slope, of in ((made, slopes[0], swapped), (mix, slopes[1], mixed)):
        (own,) = torch.autograd.grad(logit.mean(), of)
        assert (own * slope).sum().item() < 0  # a step against it looks more real


def test_mixed_pictures_have_their_neighbours_structure(monkeypatch: pytest.MonkeyPatch) -> None:
    run = start()
    batch = run.batch(torch.arange(4))
    drawn = Calls(run.network.G, "forward", monkeypatch)
    found = run._mixed(batch.images)
    structure, style = run.network.E(batch.images)
    (shapes, styles, noise), _, image = drawn[0]
    torch.testing.assert_close(shapes, structure[[1, 0, 3, 2]])
    torch.testing.assert_close(styles, style)
    assert noise == "random" and torch.equal(found, image)


def test_who_learns_when(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    for part, progress, expected in (
        ("both", 0.4, [["_map", "_regress"], ["_regress"]] * 2),
        ("both", 0.6, [["_map", "_criticise"], ["_please"]] * 2),
        ("smn", 0.6, [["_criticise"], ["_please"]] * 2),
        ("smn", 0.4, [["_regress"]] * 4),
        ("smpn", 0.4, [["_map"]] * 4),
    ):
        run = start(part=part, regression=0.5)
        seen.clear()
        for name in ("_map", "_regress", "_criticise", "_please"):
            monkeypatch.setattr(run, name, lambda _, name=name: seen.append(name) or {})
        batch = run.batch(torch.arange(2))
        for step in expected:
            seen.clear()
            run.step(batch, progress)
            assert seen == step
        assert int(run.memory.steps) == 4


def test_optimisers_and_their_steps() -> None:
    run = start()
    of = {k: v.param_groups for k, v in run.optimisers.items()}
    chosen = {k: {id(p) for g in v for p in g["params"]} for k, v in of.items()}
    network = run.network
    own = [*network.E.parameters(), *network.G.parameters(), *run.reader.parameters()]
    assert chosen["regression"] == chosen["swaps"] == {id(p) for p in own}
    assert chosen["maps"] == {id(p) for p in network.SMPN.parameters()}
    critics = [*run.critic.parameters(), *run.patches.parameters()]
    assert chosen["critics"] == {id(p) for p in critics}
    rates = {k: v[0]["lr"] for k, v in of.items()}
    assert rates == pytest.approx(
        {"regression": 4e-3, "maps": 6e-3, "swaps": 1e-3, "critics": 1e-3 * 16 / 17}
    )
    betas = {k: v[0]["betas"] for k, v in of.items()}
    assert betas["regression"] == betas["maps"] == (0.9, 0.98) and betas["swaps"] == (0, 0.99)
    weight = own[0]
    before = weight.detach().clone()
    run._update("regression", weight.sum())
    torch.testing.assert_close(weight.detach(), before - 4e-3, rtol=1e-3, atol=1e-6)
    run._update("regression", weight.sum())
    assert torch.equal(weight.grad, torch.ones_like(weight))  # of this step alone


# --- patches -----------------------------------------------------------------------------------


def test_patches_are_judged_beside_the_mean_of_their_reference() -> None:
    torch.manual_seed(0)
    network = PatchDiscriminator(8, (4, 5))
    reference, crops = torch.randn(2, 3, 3, 8, 8), torch.randn(2, 2, 3, 8, 8)

    def features(one: Tensor) -> Tensor:
        x = network.first(one[None])
        for block in network.blocks:
            x = block(x)
        return network.last(x).flatten()

    def linear(layer: Any, x: Tensor) -> Tensor:
        return x @ layer.weight.T / math.sqrt(x.shape[-1]) + layer.bias

    found = network(reference, crops)
    for i in range(2):
        mean = sum(features(one) for one in reference[i]) / 3
        for j in range(2):
            both = torch.cat([mean, features(crops[i, j])])
            hidden = math.sqrt(2) * F.leaky_relu(linear(network.hidden, both), 0.2)
            close(found[i, j], linear(network.out, hidden)[0])


def test_crops_have_random_places_sizes_and_sides() -> None:
    torch.manual_seed(0)
    line = torch.linspace(-1, 1, 64) * 63 / 64  # where pixels are, in [-1,1]
    places = torch.stack([line.expand(64, 64), line[:, None].expand(64, 64), torch.zeros(64, 64)])
    crops = random_crops(torch.stack([places, places + 10]), 400, 8)
    assert crops.shape == (2, 400, 3, 8, 8)
    close(crops[1].min() > 8, True)
    first = crops[0]
    across = (first[:, 0, 0, -1] - first[:, 0, 0, 0]) * 8 / 7
    down = (first[:, 1, -1, 0] - first[:, 1, 0, 0]) * 8 / 7
    torch.testing.assert_close(across.abs(), down, rtol=0.1, atol=0.02)
    assert float((across < 0).float().mean()) == pytest.approx(0.5, abs=0.08)
    assert (down > 0).all() and float(down.min()) == pytest.approx(0.25, abs=0.03)
    assert float(down.max()) == pytest.approx(0.5, abs=0.03)
    centre = first[:, :2].mean((2, 3))
    assert float(centre.min()) < -0.7 and float(centre.max()) > 0.7
    assert float((centre.abs() + down[:, None] / 2).max()) < 1.02
    assert float(centre.mean()) == pytest.approx(0, abs=0.08)
