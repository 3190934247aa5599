"""StyleGAN2's objective, term by term: adversaries, R1, path length, and the regression."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny import Calls, Updates, descend, tiny_triplane, tiny_views, touched
from torch import Tensor, nn

from semedit import cameras, losses
from semedit.generators import Output
from semedit.generators.stylegan2.stylegan2 import StyleGAN2, StyleGAN2Config
from semedit.trainers.parts.guide import Guide, followed
from semedit.trainers.parts.held_out import held_out_figures
from semedit.trainers.parts.mean_style import set_mean_style
from semedit.trainers.stylegan2 import (
    StyleGAN2Task,
    StyleGAN2Trainer,
    lazy_adam,
    standard_angles,
)

TRAINER = StyleGAN2Trainer(
    resolution=16, critic=(8, 8, 8), w_dim=8, regression=0.0, coarse=1, held_out=2
)
SMALL = ("nose", "eye_g", "l_eye", "r_eye", "l_brow", "r_brow", "mouth", "u_lip", "l_lip")
NAMES = (
    "background skin nose eye_g l_eye r_eye l_brow r_brow l_ear r_ear mouth u_lip l_lip hair hat"
)
NAMES += " ear_r neck_l neck cloth"


def start(**options: Any) -> StyleGAN2Task:
    torch.manual_seed(0)
    config = StyleGAN2Config(16, (8, 8, 8), 5 + 3, 8, mapping_layers=2)
    return StyleGAN2Task(replace(TRAINER, **options), tiny_views(), StyleGAN2(config, "small"))


@pytest.fixture(autouse=True)
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """All in float32: equal to what is written here, and quicker."""
    monkeypatch.setattr(torch, "autocast", lambda *of: nullcontext())


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp x)."""
    return (1 + x.double().exp()).log()


def close(found: Any, expected: Any, rtol: float = 1e-5) -> None:
    found, expected = (torch.as_tensor(x).detach().double() for x in (found, expected))
    torch.testing.assert_close(found, expected, rtol=rtol, atol=1e-6)


def test_weights_are_those_told() -> None:
    of = StyleGAN2Trainer()
    assert (of.lr, of.gamma, of.r1_every, of.path, of.path_every) == (1e-3, 0.5, 16, 2.0, 8)
    assert (of.mixing, of.ada, of.near, of.anchor, of.edge, of.small) == (0.9, 0, 1, 4, 0.5, 3)
    assert (of.mapped, of.regression_lr, of.mapping_speed, of.coarse) == (0.25, 5e-3, 150, 2)


# --- the discriminator -------------------------------------------------------------------------


def test_the_discriminators_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    run = start()
    updates, batch, grads = Updates(run, monkeypatch), run.batch(torch.arange(4)), []
    fake = torch.randn(4, 3, 16, 16, requires_grad=True)

    def drawn(n: int) -> tuple[Tensor, Tensor]:
        grads.append(torch.is_grad_enabled())
        assert n == 4
        return fake, torch.zeros(())

    monkeypatch.setattr(run, "_fake", drawn)
    run.memory.steps += 1
    values = run._criticise(batch)
    assert [name for name, _ in updates] == ["discriminator"] and grads == [False]
    real, made = run.discriminator(batch.images), run.discriminator(fake)
    close(updates[0][1], (softplus(-real) + softplus(made)).mean())
    close(values["critic"], (softplus(-real) + softplus(made)).mean())
    close(values["real"], real.mean())
    close(values["fake"], made.mean())
    for _ in range(4):
        run._criticise(batch)
        descend(updates[-1][1], run.discriminator.parameters(), 0.1)
    later = run.discriminator(batch.images), run.discriminator(fake)
    assert (later[0] - later[1]).mean().item() > (real - made).mean().item() + 0.05


def test_r1_at_real_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """gamma / 2 |grad D(x)|^2 for all r1_every steps."""
    run = start(gamma=3.0, r1_every=4)
    updates, batch = Updates(run, monkeypatch), run.batch(torch.arange(4))
    for step, count in ((0, 2), (3, 1), (4, 2)):
        updates.clear()
        run.memory.steps.fill_(step)
        values = run._criticise(batch)
        assert len(updates) == count
    x = batch.images.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(run.discriminator(x).sum(), x)
    size = slope.double().flatten(1).norm(dim=1).square().mean()
    close(values["r1"], size)
    close(updates[1][1], 3.0 / 2 * size * 4)
    assert updates[1][0] == "discriminator" and touched(updates[1][1], run.discriminator)


def test_real_and_drawn_pictures_are_augmented_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    run = start(ada=0.6, r1_every=1, anchor=0.0)
    Updates(run, monkeypatch)
    seen: list[Tensor] = []
    followed_: list[Tensor] = []
    monkeypatch.setattr(run.augment, "forward", lambda x: seen.append(x) or 0.5 * x)
    monkeypatch.setattr(run.augment, "follow", followed_.append)
    judged = Calls(run.discriminator, "forward", monkeypatch)
    fake = torch.randn(4, 3, 16, 16)
    monkeypatch.setattr(run, "_fake", lambda n: (fake, fake))
    batch = run.batch(torch.arange(4))
    run._criticise(batch)
    expected = [batch.images, fake, batch.images]
    assert all(torch.equal(a, b) for a, b in zip(seen, expected, strict=True))
    assert all(torch.equal(a[0][0], 0.5 * b) for a, b in zip(judged, expected, strict=True))
    (logits,) = followed_
    assert torch.equal(logits, judged[0][2]) and not logits.requires_grad
    run.trainer = replace(run.trainer, path=0.0)
    run._please(batch)
    assert seen[-1] is fake and torch.equal(judged[-1][0][0], 0.5 * fake)


# --- the generator -----------------------------------------------------------------------------


def test_the_generators_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    run = start(anchor=0.0, path=0.0)
    updates, calls = Updates(run, monkeypatch), Calls(run, "_fake", monkeypatch)
    batch = run.batch(torch.arange(4))
    torch.manual_seed(3)
    values = run._please(batch)
    before = run.discriminator(calls[0][2][0])
    assert [name for name, _ in updates] == ["generator"] and set(values) == {"generator"}
    close(updates[0][1], softplus(-before).mean())
    assert touched(updates[0][1], run.generator)
    for _ in range(4):
        torch.manual_seed(3)
        run._please(batch)
        descend(updates[-1][1], run.generator.parameters(), 0.1)
    torch.manual_seed(3)
    assert run.discriminator(run._fake(4)[0]).mean().item() > before.mean().item()


def test_weights_of_the_generators_terms(monkeypatch: pytest.MonkeyPatch) -> None:
    run = start(anchor=3.0, path_every=2)
    updates = Updates(run, monkeypatch)
    fake = torch.randn(4, 3, 16, 16)
    monkeypatch.setattr(run, "_fake", lambda n: (fake, fake))
    regressed, straight = [], []
    given = {"image": torch.tensor(0.7), "near": torch.tensor(0.2)}
    monkeypatch.setattr(run, "_regress", lambda of: regressed.append(of) or given)
    monkeypatch.setattr(run, "_straighten", lambda n: straight.append(n) or torch.tensor(9.0))
    batch = run.batch(torch.arange(4))
    values = run._please(batch)
    adversarial = softplus(-run.discriminator(fake)).mean()
    close(updates.one("generator"), adversarial + 3 * 0.9)
    assert values["path"] == 9 and straight == [2]
    for name in ("images", "labels", "z"):
        assert torch.equal(getattr(regressed[0], name), getattr(batch, name)[:2])
    run.memory.steps += 1
    assert "path" not in run._please(batch)
    run.memory.steps += 1
    run.trainer = replace(run.trainer, path=0.0)
    assert "path" not in run._please(batch)


def test_path_lengths_are_pulled_to_their_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    """path (|J^T y| - a)^2 for all path_every steps; a follows by a hundredth, and is given."""
    run = start(path=3.0, path_every=5)
    updates = Updates(run, monkeypatch)
    lengths = torch.tensor([1.0, 4.0], requires_grad=True)
    drawn = Calls(run, "_fake", monkeypatch)
    asked = []
    monkeypatch.setattr(losses, "path_lengths", lambda *of: asked.append(of) or lengths)
    run.memory.path.fill_(2.0)
    found = run._straighten(2)
    assert asked[0][0] is drawn[0][2][0] and asked[0][1] is drawn[0][2][1]
    mean = 2.0 + 0.01 * (2.5 - 2.0)
    close(run.memory.path, mean)
    close(found, ((1 - mean) ** 2 + (4 - mean) ** 2) / 2)
    close(updates.one("generator"), found * 15)
    (slope,) = torch.autograd.grad(found, lengths)
    close(slope, torch.tensor([1 - mean, 4 - mean]))


def test_path_lengths_reach_the_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    run = start()
    updates = Updates(run, monkeypatch)
    run._straighten(2)
    assert touched(updates.one("generator"), run.generator)


@pytest.mark.parametrize("chance", [0.0, 0.5, 1.0])
def test_random_pictures_mix_two_styles(chance: float, monkeypatch: pytest.MonkeyPatch) -> None:
    run = start(mixing=chance)
    count, n = run.generator.num_ws, 64
    mapped = Calls(run.generator, "mapping", monkeypatch)
    made = []
    output = Output(torch.zeros(n, 3, 16, 16))
    monkeypatch.setattr(run.generator, "synthesis", lambda *a, **o: made.append((a, o)) or output)
    image, ws = run._fake(n)
    z, codes = mapped[0][0][0], mapped[0][2]["ws"]
    assert z.shape == (2 * n, 8) and image is output.image and made[0][1] == {"noise": "random"}
    assert made[0][0][0]["ws"] is ws and torch.equal(made[0][0][1], z[:n])
    cuts = []
    for i in range(n):
        cut = next(k for k in range(count, -1, -1) if torch.equal(ws[i, :k], codes[i, :k]))
        assert torch.equal(ws[i, cut:], codes[n + i, cut:])
        cuts.append(cut)
    assert sum(c < count for c in cuts) / n == pytest.approx(chance, abs=0.2)
    if chance == 1:
        assert set(cuts) == set(range(1, count))


# --- the regression ----------------------------------------------------------------------------


@pytest.mark.parametrize("halvings", [0, 1])
def test_the_regressions_terms(halvings: int, monkeypatch: pytest.MonkeyPatch) -> None:
    run = start(regression=0.5, edge=0.7, near=0.3, small=5.0, mapped=0.25)
    made = Calls(run.generator, "synthesis", monkeypatch)
    batch = run.batch(torch.arange(4))
    terms = run._regress(batch, halvings)
    (codes, z), options, output = made[0]
    side = 16 // 2**halvings
    assert torch.equal(z, batch.z) and options == {"resolution": side}
    found = run.encoder(batch.images, batch.labels)
    mapped = run.generator.mapping(batch.z, batch.z)["ws"][:, :1]
    for i in range(4):
        expected = (mapped if i < 1 else found)[i]
        close(codes["ws"][i], expected.expand(run.generator.num_ws, -1), rtol=0.05)
    size = 2**halvings
    true = batch.images.unflatten(3, (side, size)).unflatten(2, (side, size)).mean((3, 5))
    away = output.image.float() - true
    weight = torch.tensor([5.0 if name in SMALL else 1.0 for name in NAMES.split()])
    labels = batch.labels[:, size // 2 :: size, size // 2 :: size]
    close(terms["image"], (weight[labels][:, None] * away.abs()).mean())
    across = (away[..., 1:] - away[..., :-1]).abs().mean()
    down = (away[..., 1:, :] - away[..., :-1, :]).abs().mean()
    close(terms["edge"], 0.7 * (across + down))
    close(terms["near"], 0.3 * (mapped.double() - found.double()).square().mean(), rtol=0.02)
    assert set(terms) == {"image", "edge", "near"}
    # The mapping network follows the encoder, not the other way round.
    assert touched(terms["near"], run.generator.mapping_network)
    assert not touched(terms["near"], run.encoder)
    assert touched(terms["image"], run.encoder) and touched(terms["edge"], run.generator)


def test_a_mapping_network_follows_its_guide() -> None:
    mapped = torch.randn(4, 2, 3, requires_grad=True)
    images, labels = torch.randn(4, 3, 8, 8), torch.zeros(4, 8, 8, dtype=torch.int64)
    of = torch.randn(4, 6, requires_grad=True)
    seen: list[Any] = []

    class Told(nn.Module):
        def forward(self, *args: Tensor) -> Tensor:
            seen.append(args)
            return 2 * of

    styles, near = followed(mapped, Told(), images, labels, 0.25)
    assert seen[0][0] is images and seen[0][1] is labels
    found = 2 * of.view(4, 2, 3)
    close(near, ((mapped - found) ** 2).mean())
    assert torch.equal(styles, torch.cat([mapped[:1], found[1:]]))
    close(torch.autograd.grad(near, mapped)[0], (mapped - found) * 2 / 24)
    with pytest.raises(RuntimeError):
        torch.autograd.grad(followed(mapped, Told(), images, labels, 0.25)[1], of)
    alone, none = followed(mapped, None, images, labels, 0.25)
    assert alone is mapped and float(none) == 0


def test_without_a_regression_there_is_no_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    run = start(regression=0.0)
    made = Calls(run.generator, "synthesis", monkeypatch)
    batch = run.batch(torch.arange(2))
    terms = run._regress(batch)
    mapped = run.generator.mapping(batch.z, batch.z)["ws"]
    close(made[0][0][0]["ws"], mapped)
    assert float(terms["near"]) == 0


def test_a_guide_sees_picture_and_label_map() -> None:
    torch.manual_seed(0)
    guide = Guide(16, 6, (4, 4, 4, 4), count=2)
    images, labels = torch.randn(2, 3, 16, 16), torch.randint(0, 19, (2, 16, 16))
    found = guide(images, labels)
    assert found.shape == (2, 2, 6) and len(guide.tower.down) == 2  # down to 4 pixels
    assert not torch.allclose(guide(images, labels.flip(0)), found)
    assert not torch.allclose(guide(images.flip(0), labels), found)
    one_hot = torch.zeros(2, 19, 16, 16).scatter_(1, labels[:, None], 1.0)
    inner = []
    guide.tower.register_forward_hook(lambda _, args, out: inner.append(args))
    guide(images, labels)
    assert torch.equal(inner[0][0], torch.cat([images, one_hot], 1))
    assert float(inner[0][2].abs().max()) == 0  # no camera


# --- a step ------------------------------------------------------------------------------------


def test_stages_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    run = start(regression=0.6, coarse=2)
    seen: list[Any] = []
    for name in ("_regress", "_criticise", "_please"):
        monkeypatch.setattr(run, name, lambda _, *a, name=name: seen.append((name, *a)) or {})
    updates = Updates(run, monkeypatch)
    batch = run.batch(torch.arange(2))
    for progress, halvings in ((0.0, 2), (0.19, 2), (0.21, 1), (0.41, 0), (0.59, 0)):
        seen.clear()
        run.step(batch, progress)
        assert seen == [("_regress", halvings)] and updates[-1][0] == "regression"
    assert int(run.memory.steps) == 0
    seen.clear()
    run.step(batch, 0.6)
    assert seen == [("_criticise",), ("_please",)] and int(run.memory.steps) == 1


def test_a_step_descends() -> None:
    """Of each optimiser, by its own loss."""
    run = start(regression=0.5)
    weight = next(run.generator.synthesis_network.parameters())
    before = weight.detach().clone()
    run._update("regression", (2 * weight).sum())
    assert bool((weight < before).all())
    torch.testing.assert_close(weight.detach(), before - 5e-3, rtol=1e-3, atol=1e-6)
    other = next(run.discriminator.parameters())
    assert other.grad is None


def test_z_is_the_heads_parameters_and_angles() -> None:
    run = start()
    batch = run.batch(torch.tensor([3, 1]))
    pixels = torch.from_numpy(run.views.images).permute(0, 1, 4, 2, 3).float() / 127.5 - 1
    for i, head in enumerate((3, 1)):
        (view,) = [k for k in range(2) if torch.equal(batch.images[i], pixels[head, k])]
        assert batch.labels[i].tolist() == run.views.labels[head, view].tolist()
        assert torch.equal(batch.z[i, :5], run.views.z[head])
        torch.testing.assert_close(batch.z[i, 5:], standard_angles(run.views.c[head, view]))
    c = cameras.orbit(math.radians(36), math.radians(-7), math.radians(6))
    close(standard_angles(c), torch.tensor([[2.0, -1.0, 2.0]]), rtol=1e-3)


def test_optimisers() -> None:
    run = start()
    own = {id(p) for p in run.generator.parameters()}
    encoder = {id(p) for p in run.encoder.parameters()}
    of = {k: v.param_groups for k, v in run.optimisers.items()}
    chosen = {k: {id(p) for g in v for p in g["params"]} for k, v in of.items()}
    assert chosen["generator"] == own and chosen["regression"] == own | encoder
    assert chosen["discriminator"] == {id(p) for p in run.discriminator.parameters()}
    mapping = {id(p) for p in run.generator.mapping_network.parameters()}
    assert {id(p) for p in of["regression"][1]["params"]} == mapping
    assert [g["lr"] for g in of["regression"]] == [5e-3, 0.75, 5e-3]
    assert of["regression"][0]["betas"] == (0.9, 0.98)
    assert of["generator"][0]["lr"] == pytest.approx(1e-3 * 8 / 9)
    assert of["discriminator"][0]["lr"] == pytest.approx(1e-3 * 16 / 17)
    lazy = lazy_adam([nn.Parameter(torch.zeros(1))], 0.3, 2)
    assert lazy.param_groups[0]["lr"] == pytest.approx(0.2)
    assert lazy.param_groups[0]["betas"] == pytest.approx((0.0, 0.99 ** (2 / 3)))


# --- figures -----------------------------------------------------------------------------------


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Of pictures in [-1,1], each."""
    error = (a.clamp(-1, 1) - b).square().flatten(1).mean(1)
    return 20 * torch.log10(2 / error.sqrt())


@torch.no_grad()
def test_figures_of_held_out_heads() -> None:
    run = start()
    figures = run.evaluate(run.modules)
    views = run.views.one(torch.tensor([6, 7]), torch.tensor([0, 0]))
    z = torch.cat([views.z, standard_angles(views.c)], 1)
    ws = run.generator.mapping(z, z)["ws"]
    found = run.generator.synthesis({"ws": ws}, z).image
    close(figures["mapped_db"], psnr(found, views.images).mean(), rtol=1e-4)
    styles = run.encoder(views.images, views.labels).expand(-1, run.generator.num_ws, -1)
    found = run.generator.synthesis({"ws": styles}, z).image
    close(figures["encoded_db"], psnr(found, views.images).mean(), rtol=1e-4)
    random = torch.randn(4000, 8)
    mapping = run.generator.mapping_network
    set_mean_style(mapping.w_avg, lambda z: mapping(z, z), 8, 4000)
    mean = run.generator.mapping_network(random, random).mean(0)
    torch.testing.assert_close(run.generator.mapping_network.w_avg, mean, atol=0.1, rtol=0)


@torch.no_grad()
def test_figures_of_generators_that_know_cameras() -> None:
    generator, views = tiny_triplane(), tiny_views()
    heads = torch.arange(2, 7)
    seen: list[Any] = []
    codes = generator.mapping(torch.zeros(1, 5), views.c[:1, 0])

    def guided(view: Any) -> dict[str, Tensor]:
        seen.append(view)
        return {"ws": codes["ws"].expand(len(view.z), -1, -1)}

    found = held_out_figures(generator, views, heads, guided)
    one = views.one(heads, torch.zeros(5, dtype=torch.int64))
    output = generator.synthesis(generator.mapping(one.z, one.c), one.c)
    close(found["mapped_db"], psnr(output.image, one.images).mean(), rtol=1e-4)
    said = output.seg.argmax(1)
    close(found["mapped_labels"], (said == one.labels).float().mean(), rtol=1e-3)
    shared = [
        ((said == k) & (one.labels == k)).sum() / ((said == k) | (one.labels == k)).sum()
        for k in range(19)
        if (one.labels == k).any()
    ]
    assert found["mapped_miou"] == pytest.approx(torch.stack(shared).mean().item(), abs=6e-5)
    drawn = generator.synthesis({"ws": codes["ws"].expand(5, -1, -1)}, one.c).image
    close(found["encoded_db"], psnr(drawn, one.images).mean(), rtol=1e-4)
    last = views.one(heads[:4], torch.ones(4, dtype=torch.int64))
    assert torch.equal(seen[0].images, last.images)
    assert "encoded_db" not in held_out_figures(generator, views, heads)
    assert held_out_figures(generator, tiny_views(parameters=3), heads) == {}
