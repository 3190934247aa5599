"""IDE-3D's objective, term by term: equations 2 to 4, R1, and what conditions a style."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tiny import (
    SMALL_IDE3D,
    Calls,
    Updates,
    descend,
    tiny_encoder,
    tiny_triplane,
    tiny_views,
    touched,
)
from torch import Tensor

from semedit import cameras
from semedit.datasets.rendered import View
from semedit.generators import Output
from semedit.generators.triplane.ide3d import IDE3D
from semedit.generators.triplane.triplane import Triplane
from semedit.trainers.ide3d import IDE3DTask, IDE3DTrainer
from semedit.trainers.parts.image_label_pairs import blurred, drawn_pair, paired, true_pair
from semedit.trainers.triplane import SMALL as SMALL_PARTS

TRAINER = IDE3DTrainer(
    critic=(4, 6, 8),
    critic_labels=(4, 6, 8),
    density_points=20,
    regression=0.0,
    held_out=2,
    device="cpu",
)


def start(parameters: int = 5, encoder: Any = None, **options: Any) -> IDE3DTask:
    torch.manual_seed(0)
    views = tiny_views(views=2 if parameters else 1, parameters=parameters)
    generator: Triplane = IDE3D(replace(SMALL_IDE3D, z_dim=5, up=(6,)), "small")
    if encoder is not None:
        generator = tiny_triplane()
    return IDE3DTask(replace(TRAINER, **options), views, generator, encoder)


def faked(run: IDE3DTask, n: int = 4) -> Output:
    """Some output of the generator's kinds that the discriminator can be shown."""
    torch.manual_seed(5)

    def some(*shape: int) -> Tensor:
        return torch.randn(n, *shape, requires_grad=True)

    low = Output(some(3, 8, 8), some(19, 8, 8))
    return Output(some(3, 16, 16), some(19, 16, 16), low=low)


def bce(logits: Tensor, real: bool) -> Tensor:
    """-log of the probability that the discriminator gives to what is so."""
    chance = logits.double().sigmoid()
    return -(chance if real else 1 - chance).log()


def close(found: Tensor | float, expected: Tensor | float, rtol: float = 2e-4) -> None:
    found, expected = (torch.as_tensor(x).detach().double() for x in (found, expected))
    torch.testing.assert_close(found, expected, rtol=rtol, atol=1e-6)


def test_weights_are_the_published_ones() -> None:
    """Supplement B, and the density regularisation of EG3D's code."""
    paper = IDE3DTrainer(preset="paper")
    assert IDE3DTrainer.PRESETS["paper"] == {"batch_size": 32, "regression": 0.0, "anchor": 0.0}
    assert (paper.lr, paper.critic_lr, paper.r1_every) == (2.5e-3, 2e-3, 16)
    assert (paper.gamma_image, paper.gamma_labels) == (2.0, 200.0)
    assert (paper.density, paper.density_step, paper.density_points) == (0.25, 0.004, 1000)
    assert (paper.swapping, paper.mixing, paper.mirrored) == (0.5, 0.9, 0.5)
    assert (paper.blur, paper.blur_part, paper.first_stage) == (0.02, 0.02, 0.8)
    assert (paper.label, paper.opacity, paper.small, paper.encoded) == (0.15, 0.1, 3.0, 0.5)
    assert not paper.joint and not paper.density_everywhere


# --- the discriminator -------------------------------------------------------------------------


@pytest.mark.parametrize("joint", [False, True])
def test_the_discriminators_loss(joint: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    run = start(joint=joint)
    updates, fake, grads = Updates(run, monkeypatch), faked(run), []

    def drawn(c: Tensor, neural: int) -> tuple[Output, dict[str, Tensor]]:
        grads.append(torch.is_grad_enabled())
        assert torch.equal(c, batch.c) and neural == 8
        return fake, {}

    monkeypatch.setattr(run, "_fake", drawn)
    batch = run.batch(torch.arange(4))
    run.memory.steps += 1  # no R1 in this one
    values = run._criticise(batch, 8, 0.1)
    assert [name for name, _ in updates] == ["discriminator"] and grads == [False]
    real, made = (
        run.discriminator(*pair, batch.c)
        for pair in (true_pair(batch, 8, 0.1), drawn_pair(fake, 0.1))
    )
    each = bce(real, True) + bce(made, False)  # [4,outputs]: verdicts add up, faces are meant
    loss = updates.one("discriminator")
    close(loss, each.sum(1).mean())
    close(values["critic"], each.sum(1).mean())
    close(values["real"], real.mean())
    close(values["fake"], made.mean())
    assert touched(loss, run.discriminator) and not touched(loss, run.generator)
    for _ in range(6):
        run._criticise(batch, 8, 0.1)
        descend(updates.one("discriminator"), run.discriminator.parameters(), 0.1)
    later = [
        run.discriminator(*pair, batch.c)
        for pair in (true_pair(batch, 8, 0.1), drawn_pair(fake, 0.1))
    ]
    assert (later[0] - later[1]).mean().item() > (real - made).mean().item() + 0.05


def test_r1_of_pictures_and_of_label_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    """gamma_image / 2 |grad_x D|^2 + gamma_labels / 2 |grad_s D|^2, for all r1_every steps."""
    run = start(gamma_image=3.0, gamma_labels=7.0, r1_every=5)
    updates = Updates(run, monkeypatch)
    batch = run.batch(torch.arange(4))
    images, maps = (x.requires_grad_(True) for x in true_pair(batch, 8, 0.0))
    for step, count in ((0, 2), (1, 1), (4, 1), (5, 2)):
        updates.clear()
        run.memory.steps.fill_(step)
        values = run._criticise(batch, 8, 0.0)
        assert len(updates) == count
    verdicts = run.discriminator(images, maps, batch.c)
    slopes = torch.autograd.grad(verdicts[:, 0].sum() + verdicts[:, 1].sum(), (images, maps))
    sizes = [sum(float(one.double().norm() ** 2) for one in slope) / 4 for slope in slopes]
    close(values["r1_image"], sizes[0])
    close(values["r1_labels"], sizes[1])
    close(updates[1][1], (3.0 / 2 * sizes[0] + 7.0 / 2 * sizes[1]) * 5)
    assert updates[1][0] == "discriminator" and touched(updates[1][1], run.discriminator)
    descend(updates[1][1], run.discriminator.parameters(), 1e-5)
    run._criticise(batch, 8, 0.0)
    assert (updates[-1][1] < updates[1][1]).item()


def test_what_the_discriminator_sees_of_real_faces() -> None:
    """(I_h, I_l, S_h, S_l): the small ones are box means, one-hot maps lie in [-1,1]."""
    batch = start().batch(torch.arange(2))
    images, maps = true_pair(batch, 8, 0.0)
    hot = torch.zeros(2, 19, 16, 16).scatter_(1, batch.labels[:, None], 1.0)
    for found, whole in ((images, batch.images), (maps, 2 * hot - 1)):
        n = whole.shape[1]
        assert torch.equal(found[:, :n], whole)
        small = whole.unflatten(3, (8, 2)).unflatten(2, (8, 2)).mean((3, 5))
        large = F.interpolate(small, scale_factor=2, mode="bilinear")
        torch.testing.assert_close(found[:, n:], large)
    blurry = true_pair(batch, 8, 0.1)
    for found, whole in zip(blurry, (images, maps), strict=True):
        torch.testing.assert_close(found, blurred(whole, 0.1))


def test_what_the_discriminator_sees_of_drawn_faces() -> None:
    fake = faked(start())
    images, maps = drawn_pair(fake, 0.1)
    assert fake.low is not None and fake.seg is not None and fake.low.seg is not None
    both = [fake.image, F.interpolate(fake.low.image, (16, 16), mode="bilinear")]
    torch.testing.assert_close(images, blurred(torch.cat(both, 1), 0.1))
    chances = [x.exp() / x.exp().sum(1, keepdim=True) for x in (fake.seg, fake.low.seg)]
    high, low = (2 * x - 1 for x in chances)
    both = [high, F.interpolate(low, (16, 16), mode="bilinear")]
    torch.testing.assert_close(maps, blurred(torch.cat(both, 1), 0.1))
    torch.testing.assert_close(paired(high, low, 0.1), maps)


def test_blur_is_a_gaussian_cut_off_at_three_deviations() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 12, 12)
    sigma, reach = 0.15 * 12, 5
    line = [torch.tensor(-((i / sigma) ** 2) / 2).exp() for i in range(-reach, reach + 1)]
    line = [one / sum(line) for one in line]
    wide = F.pad(x, (reach,) * 4, "reflect")
    expected = torch.zeros_like(x)
    for i, row in enumerate(line):
        for j, column in enumerate(line):
            expected += row * column * wide[..., i : i + 12, j : j + 12]
    torch.testing.assert_close(blurred(x, 0.15), expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(blurred(x, 0.33 / 12), x) and not torch.equal(blurred(x, 0.34 / 12), x)
    assert blurred(x, 5.0).shape == x.shape


# --- the generator -----------------------------------------------------------------------------


def test_the_generators_adversarial_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    run = start(density=0.0, anchor=0.0)
    calls = Calls(run, "_fake", monkeypatch)
    batch = run.batch(torch.arange(4))
    torch.manual_seed(3)
    terms = run._pleasing(batch, 8, 0.1)
    (c, neural), _, (output, _) = calls[0]
    assert torch.equal(c, batch.c) and neural == 8
    before = run.discriminator(*drawn_pair(output, 0.1), batch.c)
    assert list(terms) == ["generator"]
    close(terms["generator"], bce(before, True).sum(1).mean())
    assert touched(terms["generator"], run.generator)
    assert not any(p.grad is not None for p in run.discriminator.parameters())
    descend(terms["generator"], run.generator.parameters(), 1e-2)
    torch.manual_seed(3)
    run._pleasing(batch, 8, 0.1)
    after = run.discriminator(*drawn_pair(calls[1][2][0], 0.1), batch.c)
    assert (after.mean() > before.mean()).item()


def test_weights_of_the_generators_terms(monkeypatch: pytest.MonkeyPatch) -> None:
    run = start(density=0.5, anchor=3.0)
    updates, planes = Updates(run, monkeypatch), {"some": torch.ones(1)}
    monkeypatch.setattr(run, "_fake", lambda c, neural: (faked(run), planes))
    given = {"image": torch.tensor(0.7), "low": torch.tensor(-0.2)}
    regressed, roughened = [], []
    monkeypatch.setattr(run, "_regress", lambda *of: regressed.append(of) or given)
    monkeypatch.setattr(run, "_rough", lambda of: roughened.append(of) or torch.tensor(0.3))
    batch = run.batch(torch.arange(4))
    values = run._please(batch, 8, 0.0)
    assert roughened == [planes] and regressed == [(batch, 8)]
    adversarial = bce(run.discriminator(*drawn_pair(faked(run), 0.0), batch.c), True).sum(1).mean()
    close(values["generator"], adversarial)
    close(values["density"], 0.5 * 0.3)
    close(values["image"], 3 * 0.7)
    close(values["low"], 3 * -0.2)
    close(updates.one("generator"), adversarial + 0.15 + 2.1 - 0.6)
    assert all(p.requires_grad for p in run.discriminator.parameters())
    run.trainer = replace(run.trainer, density=0.0, anchor=0.0)
    assert set(run._please(batch, 8, 0.0)) == {"generator"}


@pytest.mark.parametrize("everywhere", [True, False])
def test_equation_3(everywhere: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """mean |d(x) - d(x + e)|, e normal with density_step of the box, whose sides are 2 units."""
    run = start(density_everywhere=everywhere, density_step=0.25, density_points=3000)
    seen = []

    def raw(shape: Tensor, points: Tensor, face: Tensor) -> Tensor:
        seen.append((points, face))
        return points @ torch.tensor([3.0, -4.0, 12.0]) * (1 + face)

    planes = {"shape": torch.zeros(2, 1), "density": torch.zeros(2, 1, 4, 4, 4)}
    planes["density"][:, :, 2, 1, 3] = 1e3
    monkeypatch.setattr(run.generator, "raw_density", raw)
    found = run._rough(planes)
    # Along (3,-4,12) / 13 the step is normal with deviation 2 * 0.25; E|e| = sqrt(2 / pi).
    per_face = 13 * 2 * 0.25 * (2 / torch.pi) ** 0.5
    close(found, (per_face + 2 * per_face) / 2, rtol=0.05)
    (here, face), (there, _) = seen
    assert face.tolist() == [0] * 3000 + [1] * 3000
    assert float((there - here).std()) == pytest.approx(0.5, rel=0.05)
    assert float((there - here).mean()) == pytest.approx(0, abs=0.05)
    low = torch.tensor([0.5, -0.5, 0.0])  # of the cell that stops rays
    inside = ((here >= low) & (here <= low + 0.5)).all(1).float().mean()
    assert (float(inside) > 0.9) != everywhere
    assert float(here.min()) >= -1 and float(here.max()) <= 1
    if everywhere:
        assert float(here.min()) < -0.99 and float(here.max()) > 0.99
        assert float(here.mean()) == pytest.approx(0, abs=0.05)


def test_the_density_term_smooths() -> None:
    run = start()
    _, planes = run._fake(run.batch(torch.arange(2)).c, 8)
    torch.manual_seed(4)
    rough = run._rough(planes)
    assert touched(rough, run.generator)
    leaf = {**planes, "shape": planes["shape"].detach().requires_grad_(True)}
    torch.manual_seed(4)
    before = run._rough(leaf)
    (slope,) = torch.autograd.grad(before, leaf["shape"])
    moved = leaf | {"shape": leaf["shape"].detach() - 0.1 * slope / slope.norm()}
    torch.manual_seed(4)
    assert 0 < run._rough(moved).item() < before.item()
    close(before, rough)


# --- random faces ------------------------------------------------------------------------------


@pytest.mark.parametrize("chance", [0.0, 0.5, 1.0])
def test_styles_are_conditioned_on_other_cameras(chance: float) -> None:
    run = start(swapping=chance)
    c = run.views.c.flatten(0, 1)[:1].expand(600, -1)
    found = run._conditions(c)
    other = (found != c).any(1)
    assert float(other.float().mean()) == pytest.approx(chance, abs=0.08)
    if chance:
        six = cameras.to_six(found[other])
        mean = cameras.to_six(run.views.c[:6].flatten(0, 1)).mean(0)
        assert float((six.mean(0) - mean).abs().max()) < 0.1
        assert float(six[:, 0].std()) > 0.1


@pytest.mark.parametrize("chance", [0.0, 0.5, 1.0])
def test_random_faces_mix_two_styles(chance: float, monkeypatch: pytest.MonkeyPatch) -> None:
    run = start(mixing=chance, swapping=1.0)
    generator, count, n = run.generator, run.generator.num_ws, 64
    mapped, drawn = (
        Calls(generator, "mapping", monkeypatch),
        Calls(generator, "planes", monkeypatch),
    )
    rendered = []
    output = faked(run)
    monkeypatch.setattr(generator, "render", lambda *a, **o: rendered.append((a, o)) or output)
    c = run.views.c.flatten(0, 1)[:1].expand(n, -1)
    found, planes = run._fake(c, 4)
    (z, conditions), _, codes = mapped[0]
    assert z.shape == (2 * n, 5) and float(z.std()) == pytest.approx(1, abs=0.15)
    assert torch.equal(conditions[:n], conditions[n:]) and not torch.equal(conditions[:n], c)
    first, second = codes["ws"][:n], codes["ws"][n:]
    cuts = []
    for i, ws in enumerate(drawn[0][0][0]["ws"]):
        cut = next(k for k in range(count, -1, -1) if torch.equal(ws[:k], first[i, :k]))
        assert torch.equal(ws[cut:], second[i, cut:])
        cuts.append(cut)
    mixed = [cut for cut in cuts if cut < count]
    assert len(mixed) / n == pytest.approx(chance, abs=0.2)
    if chance == 1:
        assert set(cuts) == set(range(1, count))
    (args, options) = rendered[0]
    assert found is output and args[0] is planes is drawn[0][2]
    assert torch.equal(args[1], c) and args[2] == 4 and options == {"jitter": True}


# --- the regression ----------------------------------------------------------------------------


def test_the_regressions_terms(monkeypatch: pytest.MonkeyPatch) -> None:
    run = start(swapping=0.0, label=0.3, opacity=0.7, small=5.0)
    rendered = Calls(run.generator, "render", monkeypatch)
    mapped = Calls(run.generator, "mapping", monkeypatch)
    planes = Calls(run.generator, "planes", monkeypatch)
    batch = run.batch(torch.arange(4))
    terms = run._regress(batch, 8)
    assert torch.equal(mapped[0][0][0], batch.z) and torch.equal(mapped[0][0][1], batch.c)
    assert torch.equal(planes[0][0][0]["ws"], mapped[0][2]["ws"])
    args, options, output = rendered[0]
    assert args[0] is planes[0][2] and torch.equal(args[1], batch.c) and args[2] == 8
    assert options == {"jitter": True}
    names = ["background skin nose eye_g l_eye r_eye l_brow r_brow l_ear r_ear mouth u_lip l_lip"]
    names = " ".join([*names, "hair hat ear_r neck_l neck cloth"]).split()
    weight = torch.tensor([5.0 if name in SMALL_PARTS else 1.0 for name in names])
    assert sum(weight == 5.0) == 9
    away = (output.image - batch.images).abs() * weight[batch.labels][:, None]
    close(terms["image"], away.sum() / away.numel())
    small = batch.images.unflatten(3, (8, 2)).unflatten(2, (8, 2)).mean((3, 5))
    close(terms["low"], 0.5 * (output.low.image - small).abs().mean())
    entropy = [
        weighed_entropy(seg, ids, run.class_weights)
        for seg, ids in ((output.seg, batch.labels), (output.low.seg, batch.labels[:, ::2, ::2]))
    ]
    close(terms["label"], 0.3 * (entropy[0] + entropy[1] / 2))
    there = (batch.labels > 0).float().unflatten(2, (8, 2)).unflatten(1, (8, 2)).mean((2, 4))
    stopped = output.opacity[:, 0].clamp(1e-4, 1 - 1e-4)
    crossed = -(there * stopped.log() + (1 - there) * (1 - stopped).log())
    close(terms["opacity"], 0.7 * crossed.mean())
    assert set(terms) == {"image", "low", "label", "opacity"}
    assert all(touched(term, run.generator) for term in terms.values())


def weighed_entropy(seg: Tensor, ids: Tensor, weight: Tensor) -> Tensor:
    """Cross-entropy by hand, pixels weighed by their class."""
    chances = seg.double().softmax(1).gather(1, ids[:, None])[:, 0]
    return (weight[ids] * -chances.log()).sum() / weight[ids].sum()


def test_some_of_the_regressions_faces_are_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    run = start(encoder=tiny_encoder(), swapping=0.0, encoded=0.25)
    assert run.encoder is not None and run.kind == "triplane" and start().kind == "ide3d"
    planes = Calls(run.generator, "planes", monkeypatch)
    batch = run.batch(torch.arange(4))
    run._regress(batch, 8)
    ws = planes[0][0][0]["ws"]
    seen = run.encoder(batch.images[:1], batch.labels[:1], batch.c[:1])
    torch.testing.assert_close(ws[:1], seen)
    torch.testing.assert_close(ws[1:], run.generator.mapping(batch.z, batch.c)["ws"][1:])


# --- a step ------------------------------------------------------------------------------------


def test_stages_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression, then adversaries; half the neural resolution, then all; blur that fades."""
    run = start(regression=0.5, first_stage=0.75, blur=0.1, blur_part=0.5)
    seen: list[tuple[Any, ...]] = []
    for name in ("_regress", "_criticise", "_please"):
        monkeypatch.setattr(run, name, lambda _, *a, name=name: seen.append((name, *a)) or {})
    monkeypatch.setattr(run, "_update", lambda name, loss: seen.append((name,)))
    batch = run.batch(torch.arange(2))
    for progress in (0.0, 0.49):
        seen.clear()
        run.step(batch, progress)
        assert seen == [("_regress", 4), ("regression",)] and int(run.memory.steps) == 0
    for progress, neural, sigma in ((0.5, 4, 0.1), (0.625, 4, 0.05), (0.75, 8, 0.0), (0.9, 8, 0.0)):
        seen.clear()
        run.step(batch, progress)
        assert [one[:2] for one in seen] == [("_criticise", neural), ("_please", neural)]
        assert all(one[2] == pytest.approx(sigma, abs=1e-6) for one in seen)
    assert int(run.memory.steps) == 4


def test_a_step_moves_both_networks_and_no_other() -> None:
    run = start()
    batch = run.batch(torch.arange(2))
    before = {k: v.clone() for k, v in run.discriminator.state_dict().items()}
    seen = {k: v.clone() for k, v in run.generator.state_dict().items()}
    values = run.step(batch, 0.9)
    assert any(not torch.equal(v, before[k]) for k, v in run.discriminator.state_dict().items())
    assert any(not torch.equal(v, seen[k]) for k, v in run.generator.state_dict().items())
    assert {"critic", "real", "fake", "r1_image", "generator", "density", "image"} <= set(values)


def test_pictures_without_parameters_are_mirrored_with_all_that_they_have() -> None:
    run = start(parameters=0, regression=0.0, anchor=0.0, mirrored=0.5)
    batch = run.batch(torch.zeros(64, dtype=torch.int64))
    (head,) = run.faces[:1].tolist()
    once = run.views.one(torch.tensor([head]), torch.tensor([0]))
    turned = View(*vars(once).values()).mirrored(torch.tensor([True]))
    count = 0
    for i in range(64):
        other = not torch.equal(batch.images[i], once.images[0])
        expected = turned if other else once
        for name in ("images", "labels", "c"):
            torch.testing.assert_close(getattr(batch, name)[i], getattr(expected, name)[0])
        count += other
    assert 16 < count < 48
    rendered = start(mirrored=1.0).batch(torch.zeros(8, dtype=torch.int64))
    shows = start().views.images[int(start().faces[0])]
    both = torch.from_numpy(shows).permute(0, 3, 1, 2).float() / 127.5 - 1
    assert all(any(torch.equal(x, y) for y in both) for x in rendered.images)


def test_optimisers() -> None:
    run = start()
    trainer, found = run.trainer, run.optimisers
    own = {id(p) for p in run.generator.parameters()}
    for name, rate, betas in (
        ("generator", 2.5e-3, (0.0, 0.99)),
        ("regression", 5e-3, (0.9, 0.98)),
    ):
        groups = found[name].param_groups
        assert {id(p) for g in groups for p in g["params"]} == own
        assert groups[0]["lr"] == rate and groups[0]["betas"] == betas
    quick = found["regression"].param_groups[1]
    assert quick["lr"] == trainer.regression_lr * trainer.mapping_speed
    mapping = {id(p) for p in run.generator.mapping_network.parameters()}
    assert {id(p) for p in quick["params"]} == mapping
    (critic,) = found["discriminator"].param_groups
    assert {id(p) for p in critic["params"]} == {id(p) for p in run.discriminator.parameters()}
    assert critic["lr"] == pytest.approx(2e-3 * 16 / 17)
    assert critic["betas"] == pytest.approx((0.0, 0.99 ** (16 / 17)))
    assert set(run.held.tolist()) == {6, 7} and set(run.faces.tolist()) == set(range(6))


def test_w_avg_is_the_mean_style() -> None:
    run = start()
    run.centre(run.generator, 512)
    once = run.generator.w_avg.clone()
    z, c = torch.randn(2000, 5), run.poses.sample(2000)
    mean = run.generator.mapping_network(z, c).mean(0)
    torch.testing.assert_close(once, mean, atol=0.2, rtol=0)
    run.centre(run.generator, 512)
    assert torch.equal(once, run.generator.w_avg)
