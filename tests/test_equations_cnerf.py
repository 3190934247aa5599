"""CNeRF's objective, term by term: GD and SD, views and classes, R1, the field, the regression."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tiny import Calls, Updates, descend, tiny_views, touched
from torch import Tensor

from semedit import cameras
from semedit.generators.cnerf.cnerf import CNeRF
from semedit.trainers import cnerf
from semedit.trainers.cnerf import CNeRFTask, CNeRFTrainer, part_of, region_numbers
from semedit.trainers.parts.cnerf_critics import (
    Critic,
    class_loss,
    critic_loss,
    mix,
    region_crop,
    slopes,
    view_loss,
)
from semedit.trainers.parts.discriminators import spread

TRAINER = CNeRFTrainer(
    resolution=16,
    regions=("background", "face", "eye", "hair"),
    width=8,
    w_dim=6,
    samples=6,
    rays=24,
    critic_side=8,
    critic=(6, 6),
    regression=0.0,
    held_out=2,
)
FACE, EYE, HAIR = 1, 2, 3  # places in these regions
ANGLES = torch.tensor([[0.3, -0.1], [-0.2, 1.9]])


def start(up: tuple[int, ...] = (), **options: Any) -> CNeRFTask:
    torch.manual_seed(0)
    trainer = replace(TRAINER, **options)
    config = replace(trainer.config(5), up=up)
    return CNeRFTask(trainer, tiny_views(), CNeRF(config, "small"))


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp x)."""
    return (1 + x.double().exp()).log()


def smooth(found: Tensor, true: Tensor) -> Tensor:
    """Half the squared distance up to 1, then the distance less a half."""
    away = (found - true).abs().double()
    return torch.where(away < 1, away**2 / 2, away - 0.5).mean()


def surprise(found: Tensor, region: list[int]) -> Tensor:
    """Cross-entropy [N] of logits [N,K]."""
    chances = found.double().exp() / found.double().exp().sum(1, keepdim=True)
    return torch.stack([-chances[i, k].log() for i, k in enumerate(region)])


def close(found: Any, expected: Any, rtol: float = 1e-5) -> None:
    found, expected = (torch.as_tensor(x).detach().double() for x in (found, expected))
    torch.testing.assert_close(found, expected, rtol=rtol, atol=1e-6)


def test_weights_are_those_told() -> None:
    of = CNeRFTrainer()
    assert (of.view, of.semantic, of.r1_image, of.r1_maps, of.r1_every) == (15, 1, 10, 1000, 8)
    assert (of.eikonal, of.surface, of.anchor, of.mixing, of.near) == (0.1, 0.001, 2, 0.9, 0.2)
    assert (of.label, of.mask, of.small, of.background, of.mapped) == (0.3, 0.5, 4, 0.3, 0.25)
    assert (of.lr, of.critic_lr, of.regression_lr) == (2e-3, 5e-3, 2e-3)
    assert (of.sine_speed, of.modulation_speed) == (0.05, 0.25)


# --- parts of the critics ----------------------------------------------------------------------


def test_a_critic_adds_the_towers_of_picture_and_maps() -> None:
    torch.manual_seed(0)
    critic = Critic((4, 5), 3, 2)
    image, maps = torch.randn(4, 3, 8, 8), torch.randn(4, 3, 8, 8)
    down = torch.linspace(-1, 1, 8)[:, None].expand(4, 1, 8, 8)
    across = torch.linspace(-1, 1, 8).expand(4, 1, 8, 8)
    x = critic.image(torch.cat([image, down, across], 1)) + critic.maps(maps)
    x = critic.last(torch.cat([x, spread(x)], 1)).flatten(1)
    hidden = x @ critic.hidden.weight.T / math.sqrt(80) + critic.hidden.bias
    hidden = math.sqrt(2) * F.leaky_relu(hidden, 0.2)
    expected = hidden @ critic.out.weight.T / math.sqrt(5) + critic.out.bias
    torch.testing.assert_close(critic(image, maps), expected, rtol=1e-4, atol=1e-5)
    assert critic.side == 8


def test_a_region_is_cut_out_by_its_map() -> None:
    image, maps = torch.randn(2, 3, 4, 4), torch.rand(2, 4, 4, 4)
    cut, own = region_crop(image, maps, torch.tensor([3, 1]))
    for i, k in enumerate((3, 1)):
        assert torch.equal(own[i, 0], maps[i, k])
        for channel in range(3):
            torch.testing.assert_close(cut[i, channel], image[i, channel] * maps[i, k])


def test_regions_mix_by_shape_and_texture() -> None:
    """Each region from the first, the second, or its shape from the first alone: a third each."""
    torch.manual_seed(0)
    ws = torch.arange(2.0).repeat_interleave(1500).view(-1, 1, 1, 1).expand(-1, 2, 5, 3)
    found = mix(ws, 3, 1.0)[..., 0].flatten(0, 1)
    kinds = {(0.0,) * 5: 0, (0.0,) * 3 + (1.0,) * 2: 0, (1.0,) * 5: 0}
    for row in found.tolist():
        kinds[tuple(row)] += 1
    assert all(count / 3000 == pytest.approx(1 / 3, abs=0.04) for count in kinds.values())
    pairs = mix(ws, 3, 0.5)[..., 0].flatten(1)
    assert float((pairs == 0).all(1).float().mean()) == pytest.approx(0.5 + 0.5 / 9, abs=0.05)
    assert torch.equal(mix(ws, 3, 0.0), ws[:1500])


def test_views_and_classes() -> None:
    found = torch.tensor([[0.5, 0.0], [0.0, 4.0]])
    close(view_loss(found, ANGLES), smooth(found, ANGLES))
    close(smooth(found, ANGLES), (0.2**2 / 2 + 0.1**2 / 2 + 0.2**2 / 2 + 1.6) / 4)
    logits, own = torch.randn(3, 4), torch.zeros(3, 1, 4, 4)
    assert float(class_loss(logits, torch.tensor([1, 2, 0]), own)) == 0
    own[0, 0, 1, 2], own[1, 0, 3, 3], own[2] = 0.6, 1.0, 0.5  # half is not shown
    own.requires_grad_(True)
    expected = surprise(logits, [1, 2, 0])[:2].mean()
    found_ = class_loss(logits.requires_grad_(True), torch.tensor([1, 2, 0]), own)
    close(found_, expected)
    with pytest.raises(RuntimeError):
        torch.autograd.grad(found_, own)  # how much is shown is no way to please


def test_slopes_are_of_the_verdict_alone() -> None:
    torch.manual_seed(0)
    critic = Critic((6, 6), 2, 3)
    image, maps = torch.randn(3, 3, 8, 8, requires_grad=True), torch.randn(3, 2, 8, 8)
    maps.requires_grad_(True)
    both = torch.autograd.grad(critic(image, maps)[:, 0].sum(), (image, maps))
    found = slopes(critic, image, maps)
    for size, slope in zip(found, both, strict=True):
        close(size, sum(one.norm() ** 2 for one in slope) / 3)
        assert touched(size, critic)


def test_real_heads_are_told_from_fake_ones() -> None:
    torch.manual_seed(0)
    critic = Critic((6, 6), 2, 3)
    real, fake = ((torch.randn(4, 3, 8, 8), torch.randn(4, 2, 8, 8)) for _ in range(2))
    loss = critic_loss(critic, real, fake)
    before = critic(*real)[:, 0], critic(*fake)[:, 0]
    close(loss, (softplus(-before[0]) + softplus(before[1])).mean())
    for _ in range(5):
        descend(critic_loss(critic, real, fake), critic.parameters(), 0.1)
    after = critic(*real)[:, 0], critic(*fake)[:, 0]
    assert (after[0] - after[1]).mean().item() > (before[0] - before[1]).mean().item() + 0.05


# --- the critics' step -------------------------------------------------------------------------


def prepared(run: CNeRFTask, patch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Two fake heads, region `hair` and `face`, pictures thinned from their first pixel."""
    torch.manual_seed(7)
    image = torch.randn(2, 3, 8, 8, requires_grad=True)
    maps = torch.rand(2, 4, 8, 8, requires_grad=True)
    region, grads = torch.tensor([HAIR, FACE]), []

    def drawn(n: int) -> tuple[Tensor, Tensor, Tensor]:
        grads.append(torch.is_grad_enabled())
        return image, maps, ANGLES

    patch.setattr(run, "_fake", drawn)
    asked: list[Tensor] = []
    patch.setattr(run, "_regions", lambda of: asked.append(of) or region)
    patch.setattr(cnerf, "thinned", lambda x, side: x[:, :, ::2, ::2])
    batch = run.batch(torch.arange(4))
    hot = torch.zeros(4, 4, 16, 16).scatter_(1, batch.regions[:, None], 1.0)
    real = batch.images[:2, :, ::2, ::2], hot[:2, :, ::2, ::2]
    return {
        "batch": batch,
        "region": region,
        "real": real,
        "fake": (image, maps),
        "grads": grads,
        "asked": asked,
        "parts": [region_crop(*heads, region) for heads in (real, (image, maps))],
    }


def test_terms_of_the_critics(monkeypatch: pytest.MonkeyPatch) -> None:
    run = start(view=3.0, semantic=0.7)
    given, updates = prepared(run, monkeypatch), Updates(run, monkeypatch)
    run.memory.steps += 1
    values = run._criticise(given["batch"])
    real, fake = run.whole(*given["real"]), run.whole(*given["fake"])
    close(values["critic"], (softplus(-real[:, 0]) + softplus(fake[:, 0])).mean())
    close(values["angles"], 3 * smooth(fake[:, 1:], ANGLES))
    parts = [run.part(*part) for part in given["parts"]]
    close(values["region"], 0.7 * (softplus(-parts[0][:, 0]) + softplus(parts[1][:, 0])).mean())
    there = given["parts"][0][1].amax((1, 2, 3)) > 0.5
    assert bool(there.all())
    classes = sum(surprise(part[:, 1:], [HAIR, FACE]).mean() for part in parts)
    close(values["class"], 0.7 * classes)
    assert set(values) == {"critic", "angles", "region", "class"}
    loss = updates.one("critics")
    close(loss, sum(values.values()))
    assert touched(loss, run.whole) and touched(loss, run.part)
    assert given["grads"] == [False]  # the generator is not asked
    assert torch.equal(given["asked"][0], given["batch"].regions[:2])


def test_r1_of_both_critics(monkeypatch: pytest.MonkeyPatch) -> None:
    run = start(semantic=0.7, r1_image=3.0, r1_maps=5.0, r1_every=4)
    given, updates = prepared(run, monkeypatch), Updates(run, monkeypatch)
    for step in (1, 3):
        run.memory.steps.fill_(step)
        assert "r1" not in run._criticise(given["batch"])
    run.memory.steps.fill_(4)
    values = run._criticise(given["batch"])

    def size(critic: Critic, image: Tensor, maps: Tensor) -> Tensor:
        image, maps = image.clone().requires_grad_(True), maps.clone().requires_grad_(True)
        both = torch.autograd.grad(critic(image, maps)[:, 0].sum(), (image, maps))
        sizes = [sum(one.norm() ** 2 for one in slope) / 2 for slope in both]
        return 3.0 / 2 * sizes[0] + 5.0 / 2 * sizes[1]

    expected = size(run.whole, *given["real"]) + 0.7 * size(run.part, *given["parts"][0])
    close(values["r1"], 4 * expected)
    close(updates.one("critics"), sum(values.values()))


# --- the generator's step ----------------------------------------------------------------------


def test_terms_of_the_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    run = start(view=3.0, semantic=0.7, anchor=0.0)
    given, updates = prepared(run, monkeypatch), Updates(run, monkeypatch)
    values = run._please(given["batch"])
    fake, part = run.whole(*given["fake"]), run.part(*given["parts"][1])
    close(values["generator"], softplus(-fake[:, 0]).mean())
    close(values["view"], 3 * smooth(fake[:, 1:], ANGLES))
    close(values["local"], 0.7 * softplus(-part[:, 0]).mean())
    close(values["kind"], 0.7 * surprise(part[:, 1:], [HAIR, FACE]).mean())
    assert set(values) == {"generator", "view", "local", "kind"} and given["grads"] == [True]
    close(updates.one("generator"), sum(values.values()))
    assert all(p.requires_grad for c in (run.whole, run.part) for p in c.parameters())
    # Against the gradient, both critics take the heads for more real.
    loss = run.whole(*given["fake"])[:, 0].mean(), part[:, 0].mean()
    slopes_ = torch.autograd.grad(updates.one("generator"), given["fake"])
    for logit in loss:
        own = torch.autograd.grad(logit, given["fake"], retain_graph=True)
        assert sum((a * b).sum() for a, b in zip(slopes_, own, strict=True)).item() < 0


def test_the_critics_weights_get_no_gradient_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    run = start(anchor=0.0)
    run._please(run.batch(torch.arange(2)))
    assert all(p.grad is None for c in (run.whole, run.part) for p in c.parameters())
    assert any(p.grad is not None for p in run.generator.parameters())


def test_the_anchor(monkeypatch: pytest.MonkeyPatch) -> None:
    run = start(anchor=0.5)
    given, updates = prepared(run, monkeypatch), Updates(run, monkeypatch)
    regressed = []
    terms = {"image": torch.tensor(0.7), "near": torch.tensor(-0.2)}
    monkeypatch.setattr(run, "_regress", lambda of: regressed.append(of) or terms)
    values = run._please(given["batch"])
    close(values["image"], 0.35)
    close(values["near"], -0.1)
    close(updates.one("generator"), sum(values.values()))
    assert torch.equal(regressed[0].z, given["batch"].z[:2])


def test_regions_that_are_shown_are_asked_for() -> None:
    run = start()
    regions = torch.tensor([[[0, 2]], [[3, 3]]]).expand(2, 4, 2).repeat_interleave(300, 0)
    found = run._regions(regions)
    assert (found[300:] == 3).all() and set(found[:300].tolist()) == {0, 2}
    assert float((found[:300] == 2).float().mean()) == pytest.approx(0.5, abs=0.12)


def test_random_heads_are_seen_by_cameras_of_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    run = start(mixing=1.0)
    mapped, marched = (
        Calls(run.generator, "mapping", monkeypatch),
        Calls(run.generator, "volume", monkeypatch),
    )
    mixed = []
    own = cnerf.mix
    monkeypatch.setattr(cnerf, "mix", lambda *of: mixed.append((of, own(*of))) or mixed[0][1])
    drawn = Calls(run.generator, "planes", monkeypatch)
    image, maps, angles = run._fake(3)
    z, codes = mapped[0][0][0], mapped[0][2]
    assert z.shape == (6, 5) and mixed[0][0][0] is codes["ws"]
    assert mixed[0][0][1:] == (run.generator.config.shape_layers, 1.0)
    assert drawn[0][0][0]["ws"] is mixed[0][1]
    (planes, c, pixels), options, found = marched[0]
    assert planes is drawn[0][2] and options == {"jitter": True}
    given = run.views.c[:6].flatten(0, 1)
    assert all(any(torch.equal(one, other) for other in given) for one in c)
    torch.testing.assert_close(angles, cameras.angles(c)[:, :2])
    assert pixels.shape == (3, 64) and int(pixels.max()) < 256
    assert torch.equal(image[:, :, 2, 5], found["colour"][:, 2 * 8 + 5])
    assert torch.equal(maps[:, :, 2, 5], found["maps"][:, 2 * 8 + 5])


# --- regression and field ----------------------------------------------------------------------


def test_likeness_of_rays(monkeypatch: pytest.MonkeyPatch) -> None:
    run = start(label=0.3, mask=0.7)
    torch.manual_seed(1)
    image, images = torch.randn(2, 3, 10), torch.randn(2, 3, 10)
    maps, regions = torch.rand(2, 4, 10), torch.randint(0, 4, (2, 10))
    density = torch.rand(2, 10)
    weight = density / density.mean()
    for given, pixel in ((density, weight), (None, torch.ones(2, 10))):
        found = run._likeness(image, maps, images, regions, given)
        away = (image - images).abs().sum(1) / 3
        close(found["image"], (away * pixel).mean())
        entropy = torch.zeros(2, 10).double()
        squared = torch.zeros(2, 10)
        for i in range(2):
            for j in range(10):
                entropy[i, j] = surprise(8 * maps[i, :, j][None], [int(regions[i, j])])[0]
                true = torch.eye(4)[regions[i, j]]
                squared[i, j] = ((maps[i, :, j] - true) ** 2).sum()
        close(found["label"], 0.3 * (entropy * pixel).mean())
        close(found["mask"], 0.7 * (squared * pixel).mean())
        assert set(found) == {"image", "label", "mask"}


def test_the_field_is_an_eikonal_one_with_few_surfaces(monkeypatch: pytest.MonkeyPatch) -> None:
    """(|grad d| - 1)^2 at points of the box; exp(-100 |d|) along rays."""
    run = start(eikonal=0.7, surface=0.3)
    slope, seen = torch.tensor(1.5, requires_grad=True), []

    def distances(generator: Any, face: Any, points: Tensor) -> Tensor:
        seen.append(points.detach())
        return slope * points @ torch.tensor([0.6, 0.0, 0.8])

    monkeypatch.setattr(cnerf, "distances", distances)
    codes = run.generator.mapping(torch.zeros(2, 5), run.views.c[:2, 0])
    planes = run.generator.planes(codes)
    found = {"maps": torch.zeros(2, 1), "distances": torch.tensor([[0.01, -0.02], [0.0, 1.0]])}
    terms = run._field(planes, found)
    close(terms["eikonal"], 0.7 * 0.5**2)
    (moved,) = torch.autograd.grad(terms["eikonal"], slope)
    assert moved.item() > 0  # a step against it makes the slope less steep, nearer 1
    close(terms["surface"], 0.3 * (math.exp(-1) + math.exp(-2) + 1 + math.exp(-100)) / 4)
    points, depth = torch.cat(seen), run.generator.config.depth
    assert points.shape == (128, 3) and float(points.abs().max()) <= depth
    assert float(points.min()) < -0.9 * depth and float(points.max()) > 0.9 * depth
    with torch.no_grad():
        slope.fill_(0.2)
    found = {**found, "distances": torch.zeros(2, 2)}
    close(run._field(planes, found)["eikonal"], 0.7 * 0.8**2)


def test_the_field_term_reaches_the_generator() -> None:
    run = start()
    codes = run.generator.mapping(torch.zeros(1, 5), run.views.c[:1, 0])
    planes = run.generator.planes(codes)
    found = run.generator.volume(planes, run.views.c[:1, 0], torch.arange(20)[None], jitter=True)
    terms = run._field(planes, found)
    assert touched(terms["eikonal"], run.generator) and touched(terms["surface"], run.generator)


def test_the_regression(monkeypatch: pytest.MonkeyPatch) -> None:
    run = start(regression=0.5, near=0.3)
    marched, likened = (
        Calls(run.generator, "volume", monkeypatch),
        Calls(run, "_likeness", monkeypatch),
    )
    fielded, led = Calls(run, "_field", monkeypatch), []
    mapped = Calls(run.generator.mapping_network, "forward", monkeypatch)
    own = cnerf.followed
    monkeypatch.setattr(cnerf, "followed", lambda *of: led.append((of, own(*of))) or led[0][1])
    batch = run.batch(torch.arange(4))
    terms = run._regress(batch)
    of, (w, near) = led[0]
    assert of[0] is mapped[0][2] and mapped[0][0][0] is batch.z and of[1] is run.guide
    assert of[2] is batch.seen and of[3] is batch.seen_labels and of[4] == 0.25
    (planes, c, pixels), options, found = marched[0]
    assert c is batch.c and pixels.shape == (4, 24) and options == {"jitter": True}
    (colour, maps, images, regions), _, like = likened[0]
    for i in range(4):
        flat = batch.images[i].flatten(1)[:, pixels[i]]
        assert torch.equal(images[i], flat)
        assert torch.equal(regions[i], batch.regions[i].flatten()[pixels[i]])
        assert torch.equal(colour[i], found["colour"][i].T) and torch.equal(
            maps[i], found["maps"][i].T
        )
        assert torch.equal(planes["ws"][i] if "ws" in planes else w[i], w[i])
    assert fielded[0][0][0] is planes and fielded[0][0][1] is found
    expected = like | fielded[0][2] | {"near": 0.3 * near}
    assert {k: v.item() for k, v in terms.items()} == {k: v.item() for k, v in expected.items()}
    both = torch.nn.ModuleList([run.generator.local, run.guide])
    own_weights = [next(m.parameters()) for m in both]  # the sines' gradient is computed once
    found = torch.autograd.grad(terms["image"], own_weights, allow_unused=True)
    assert all(one is not None for one in found)


def test_rays_are_denser_on_small_parts() -> None:
    run = start(small=5.0, background=0.2)
    batch = run.batch(torch.arange(2))
    labels = run.views.labels[:2]
    small = (2, 3, 4, 5, 6, 7, 10, 11, 12)
    for i in range(2):
        (view,) = [
            k
            for k in range(2)
            if torch.equal(batch.regions[i], run.numbers[torch.from_numpy(labels[i, k]).long()])
        ]
        flat = labels[i, view].ravel().tolist()
        expected = [0.2 if k == 0 else 5.0 if k in small else 1.0 for k in flat]
        close(batch.density[i], torch.tensor(expected))
        torch.testing.assert_close(batch.c[i], run.views.c[i, view])
        assert torch.equal(batch.z[i], run.views.z[i])
    numbers = region_numbers(run.generator.config)
    assert numbers[0] == 0 and numbers[13] == HAIR and numbers[4] == numbers[5] == EYE
    assert numbers[1] == numbers[2] == numbers[10] == FACE and numbers[14] == HAIR


def test_stages_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    run = start(regression=0.5)
    seen: list[str] = []
    for name in ("_regress", "_criticise", "_please"):
        monkeypatch.setattr(run, name, lambda _, name=name: seen.append(name) or {})
    updates = Updates(run, monkeypatch)
    batch = run.batch(torch.arange(2))
    run.step(batch, 0.49)
    assert seen == ["_regress"] and updates[-1][0] == "regression" and int(run.memory.steps) == 0
    run.step(batch, 0.5)
    assert seen[1:] == ["_criticise", "_please"] and int(run.memory.steps) == 1


def test_stage_2_keeps_the_volume(monkeypatch: pytest.MonkeyPatch) -> None:
    run = start(up=(6, 5), critic=(6, 6, 6), critic_side=16, regression=0.5)
    assert run.guide is None
    codes = run.generator.mapping(torch.randn(2, 5), run.views.c[:2, 0])
    assert codes["ws"].grad_fn is None
    image, maps = run._enlarge(codes, run.views.c[:2, 0])
    assert image.shape == (2, 3, 32, 32) and maps.shape == (2, 4, 32, 32)
    assert touched(image.mean(), run.generator.stage2)
    assert not any(p.requires_grad for p in run.generator.local.parameters())
    grown = Calls(run, "_enlarge", monkeypatch)
    monkeypatch.setattr(cnerf, "thinned", lambda x, side: x[:, :, ::2, ::2])
    found = run._fake(2)
    assert grown[0][0][0]["up"].shape[0] == 2
    for given, whole in zip(found[:2], grown[0][2], strict=True):
        assert torch.equal(given, whole[:, :, ::2, ::2])
    likened = Calls(run, "_likeness", monkeypatch)
    run.views = tiny_views(side=32)
    batch = run.batch(torch.arange(2))
    terms = run._regress(batch)
    (codes, c), _, (image, maps) = grown[1]
    torch.testing.assert_close(codes["ws"], run.generator.mapping(batch.z, batch.c)["ws"])
    (found, of, *true), _, expected = likened[0]
    assert c is batch.c and torch.equal(found, image.flatten(2))
    assert torch.equal(of, maps.flatten(2)) and terms is expected
    for given, own in zip(true, (batch.images, batch.regions, batch.density), strict=True):
        assert given is own


def test_optimisers() -> None:
    run = start(regression=0.5)
    of = {k: v.param_groups for k, v in run.optimisers.items()}
    chosen = {k: {id(p) for g in v for p in g["params"]} for k, v in of.items()}
    own = {id(p) for p in run.generator.parameters()}
    guide = {id(p) for p in run.guide.parameters()}
    assert chosen["generator"] == own and chosen["regression"] == own | guide
    critics = [*run.whole.parameters(), *run.part.parameters()]
    assert chosen["critics"] == {id(p) for p in critics} and of["critics"][0]["lr"] == 5e-3
    speeds = {"sines": 0.05, "modulation": 0.25, "rest": 1.0}
    names = {id(p): name for name, p in run.generator.named_parameters()}
    for name in ("regression", "generator"):
        for group in of[name]:
            for p in group["params"]:
                speed = speeds[part_of(names[id(p)])] if id(p) in names else 1.0
                assert group["lr"] == pytest.approx(2e-3 * speed)
    assert of["generator"][0]["betas"] == (0.0, 0.99) == of["critics"][0]["betas"]
    assert of["regression"][0]["betas"] == (0.9, 0.98)
    kinds = {part_of(name) for name in names.values()}
    assert kinds == set(speeds)
    assert part_of("local.linears.0.weight") == "sines" and part_of("x.gamma_1") == "modulation"
    assert part_of("x.beta_1") == part_of("sigmoid_beta") == "modulation"
