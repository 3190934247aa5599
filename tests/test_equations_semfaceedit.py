"""SemFaceEdit's objective, term by term: equations 1 to 6, the regression, and who sees what."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny import Calls, Updates, descend, small_manifolds, tiny_views, touched
from torch import Tensor

from semedit import cameras
from semedit.trainers import semfaceedit
from semedit.trainers.parts.ray_sampling import grid_picture, grid_pixels, ray_density, thinned
from semedit.trainers.semfaceedit import Fake, SemFaceEditTask, SemFaceEditTrainer, critic_terms

TRAINER = SemFaceEditTrainer(
    critic_side=8, critic=(4, 6), rays=40, second=0.0, regression=0.0, held_out=2
)


def start(**options: Any) -> SemFaceEditTask:
    torch.manual_seed(0)
    generator = small_manifolds(z_dim=5, apart=False)
    return SemFaceEditTask(replace(TRAINER, **options), tiny_views(), generator)


def softplus(x: Tensor) -> Tensor:
    """f(x) = log(1 + exp x)."""
    return (1 + x.double().exp()).log()


def close(found: Any, expected: Any, rtol: float = 1e-3) -> None:
    found, expected = (torch.as_tensor(x).detach().double() for x in (found, expected))
    torch.testing.assert_close(found, expected, rtol=rtol, atol=1e-5)


def faked(n: int = 4) -> Fake:
    torch.manual_seed(5)
    images = torch.randn(n, 3, 8, 8, requires_grad=True)
    labels = torch.rand(n, 19, 8, 8, requires_grad=True)
    return Fake(images, labels, torch.randn(n, 2), torch.randn(n, 5))


def prepared(run: SemFaceEditTask, patch: pytest.MonkeyPatch) -> tuple[Any, Fake, list[Any]]:
    """A batch, the faces that are drawn, how they were asked for; pictures are thinned from their
    first pixel."""
    fake, asked = faked(), []
    patch.setattr(run, "_fake", lambda n: asked.append((n, torch.is_grad_enabled())) or fake)
    patch.setattr(semfaceedit, "thinned", lambda x, side: x[..., ::2, ::2])
    return run.batch(torch.arange(4)), fake, asked


def test_weights_are_the_published_ones() -> None:
    of = SemFaceEditTrainer(preset="paper")
    assert (of.lambda_im, of.lambda_s, of.lambda_p, of.lambda_l, of.second_im) == (5, 1, 10, 1, 1)
    assert SemFaceEditTrainer.PRESETS == {"paper": {"regression": 0.0, "anchor": 0.0}}
    assert (of.label, of.near, of.anchor, of.small, of.background) == (0.15, 0.2, 2, 4, 0.4)
    assert (of.lr, of.critic_lr, of.mapped, of.apart, of.second) == (5e-4, 5e-4, 0.25, 0.5, 0.1)


# --- discriminators ----------------------------------------------------------------------------


def test_the_loss_of_one_discriminator() -> None:
    """E f(D(fake)) + E f(-D(real)) and lambda E |grad D(real)|^2; the generator is not asked."""
    run = start()
    real, fake = torch.randn(4, 3, 8, 8), faked().images
    terms = critic_terms(run.of_images, real, fake, 5.0)
    x = real.clone().requires_grad_(True)
    before = run.of_images(x), run.of_images(fake)
    (slope,) = torch.autograd.grad(before[0].sum(), x, retain_graph=True)
    close(terms["loss"], (softplus(before[1]) + softplus(-before[0])).mean())
    close(terms["r1"], 5 * sum(one.norm() ** 2 for one in slope) / 4)
    assert set(terms) == {"loss", "r1"} and touched(terms["r1"], run.of_images)
    with pytest.raises(RuntimeError):
        torch.autograd.grad(terms["loss"], fake, retain_graph=True)
    for _ in range(5):
        loss = critic_terms(run.of_images, real, fake, 0.0)["loss"]
        descend(loss, run.of_images.parameters(), 0.1)
    after = run.of_images(real), run.of_images(fake)
    assert (after[0] - after[1]).mean().item() > (before[0] - before[1]).mean().item() + 0.05


@pytest.mark.parametrize("second", [False, True])
def test_terms_of_the_discriminators(second: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """D_c sees pictures and tells their angles, D_s label maps and the latent; stage 2: D_c."""
    weights = {"lambda_im": 2.0, "second_im": 3.0, "lambda_s": 0.6, "lambda_p": 4.0}
    run = start(**weights, lambda_l=0.7)
    batch, fake, asked = prepared(run, monkeypatch)
    updates = Updates(run, monkeypatch)
    found = run._criticise(batch, second)
    assert asked == [(4, False)]
    images = batch.images[..., ::2, ::2]
    hot = torch.zeros(4, 19, 16, 16).scatter_(1, batch.labels[:, None], 1.0)[..., ::2, ::2]
    of_images = critic_terms(run.of_images, images, fake.images, 3.0 if second else 2.0)
    close(found["critic_loss"], of_images["loss"])
    close(found["critic_r1"], of_images["r1"])
    real, drawn = run.of_images.judge(images)[1], run.of_images.judge(fake.images)[1]
    six = cameras.to_six(batch.c)
    pose = ((real - six[:, :2]) ** 2).sum() / 8 + ((drawn - fake.angles) ** 2).sum() / 8
    close(found["critic_pose"], 4 * pose)
    close(updates.one("images"), of_images["loss"] + of_images["r1"] + 4 * pose)
    assert touched(updates.one("images"), run.of_images)
    if second:
        assert set(found) == {"critic_loss", "critic_r1", "critic_pose"}
        assert [name for name, _ in updates] == ["images"]
        return
    of_labels = critic_terms(run.of_labels, hot, fake.labels, 0.6)
    close(found["labels_loss"], of_labels["loss"])
    close(found["labels_r1"], of_labels["r1"])
    latent = ((run.of_labels.judge(fake.labels)[1] - fake.z) ** 2).sum() / 20
    close(found["labels_latent"], 0.7 * latent)
    close(updates.one("labels"), of_labels["loss"] + of_labels["r1"] + 0.7 * latent)
    assert [name for name, _ in updates] == ["images", "labels"] and len(found) == 6


@pytest.mark.parametrize("second", [False, True])
def test_terms_of_the_generator(second: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    run = start(lambda_p=4.0, lambda_l=0.7, anchor=0.5)
    batch, fake, asked = prepared(run, monkeypatch)
    updates, regressed = Updates(run, monkeypatch), []
    near = {"image": torch.tensor(0.7), "label": torch.tensor(-0.2)}
    monkeypatch.setattr(run, "_regress", lambda of: regressed.append(of) or near)
    found = run._please(batch, second)
    assert asked == [(4, True)] and regressed[0] is batch
    logits, angles = run.of_images.judge(fake.images)
    close(found["generator"], softplus(-logits).mean())
    close(found["pose"], 4 * ((angles - fake.angles) ** 2).sum() / 8)
    close(found["image"], 0.35)
    close(found["label"], -0.1)
    (name, loss) = updates[0]
    assert name == ("appearance" if second else "generator") and len(updates) == 1
    close(loss, sum(found.values()))
    wrt = [fake.images] if second else [fake.images, fake.labels]
    slopes = torch.autograd.grad(found["generator"], fake.images, retain_graph=True)
    (own,) = torch.autograd.grad(logits.mean(), fake.images)
    assert (slopes[0] * own).sum().item() < 0  # a step against it looks more real
    assert all(s.abs().sum().item() > 0 for s in torch.autograd.grad(loss, wrt))
    if second:
        assert set(found) == {"generator", "pose", "image", "label"}
        return
    logits, z = run.of_labels.judge(fake.labels)
    close(found["labels"], softplus(-logits).mean())
    close(found["latent"], 0.7 * ((z - fake.z) ** 2).sum() / 20)
    run.trainer = replace(run.trainer, anchor=0.0)
    assert set(run._please(batch, second)) == {"generator", "pose", "labels", "latent"}


def test_fewer_faces_are_judged_than_regressed(monkeypatch: pytest.MonkeyPatch) -> None:
    run = start(fakes=2)
    Updates(run, monkeypatch)
    asked = []
    monkeypatch.setattr(run, "_fake", lambda n: asked.append(n) or faked(n))
    seen = Calls(semfaceedit, "critic_terms", monkeypatch)
    batch = run.batch(torch.arange(4))
    run._criticise(batch, False)
    assert asked == [2] and [len(call[0][1]) for call in seen] == [2, 2]
    assert [call[0][0] for call in seen] == [run.of_images, run.of_labels]
    assert run._few(run.batch(torch.arange(1))) == 1


def test_random_faces_are_seen_by_cameras_of_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    run = start(apart=0.2)
    marched, mapped = (
        Calls(run.generator, "volume", monkeypatch),
        Calls(run.generator, "mapping", monkeypatch),
    )
    fake = run._fake(40)
    (z, c), _, _ = mapped[0]
    (_, seen, pixels, learn), _, found = marched[0]
    given = run.views.c[:6].flatten(0, 1)
    assert all(any(torch.equal(one, other) for other in given) for one in c) and seen is c
    torch.testing.assert_close(fake.angles, cameras.to_six(c)[:, :2])
    parts = z.view(40, 3, 5)
    assert torch.equal(fake.z, parts[:, 0]) and learn is True
    same = (parts == parts[:, :1]).all(2).all(1)  # one z for all clubs
    assert 24 < int(same.sum()) < 40
    assert pixels.shape == (40, 64) and fake.images.shape == (40, 3, 8, 8)
    close(fake.images[:, :, 2, 5], 2 * found["colour"][:, 2 * 8 + 5] - 1)
    close(fake.labels[:, :, 2, 5], found["labels"][:, 2 * 8 + 5])


# --- regression --------------------------------------------------------------------------------


def test_the_regression(monkeypatch: pytest.MonkeyPatch) -> None:
    run = start(regression=0.5, label=0.3, near=0.7)
    marched = Calls(run.generator, "volume", monkeypatch)
    led, spread = (
        Calls(semfaceedit, "followed", monkeypatch),
        Calls(run.generator, "spread", monkeypatch),
    )
    batch = run.batch(torch.arange(4))
    terms = run._regress(batch)
    (mapped, guide, seen, seen_labels, share), _, (styles, near) = led[0]
    w, each = run.generator.styles(batch.z)
    torch.testing.assert_close(mapped, torch.stack([w, each[:, 0]], 1))
    assert guide is run.guide and seen is batch.seen and seen_labels is batch.seen_labels
    assert share == 0.25
    (first, rest), _, _ = spread[0]
    assert torch.equal(first, styles[:, 0]) and torch.equal(rest, styles[:, 1:])
    (_, c, pixels, learn), _, found = marched[0]
    assert c is batch.c and pixels.shape == (4, 40) and learn is True
    image = 0.0
    for i in range(4):
        for j, k in enumerate(pixels[i].tolist()):
            true = batch.images[i].flatten(1)[:, k]
            image += (2 * found["colour"][i, j] - 1 - true).abs().mean().item() / 160
    close(terms["image"], image)
    seg = run.generator.output({k: v.transpose(1, 2) for k, v in found.items()}).seg
    chances = seg.double().softmax(1)
    labels = batch.labels.flatten(1).gather(1, pixels)
    own = run.class_weights[labels]
    surprise = -chances.gather(1, labels[:, None])[:, 0].log()
    close(terms["label"], 0.3 * (own * surprise).sum() / own.sum())
    close(terms["near"], 0.7 * near)
    assert set(terms) == {"image", "label", "near"}


def test_a_batch_shows_one_view_and_the_guide_another() -> None:
    run = start(small=5.0, background=0.2)
    batch = run.batch(torch.tensor([4, 2]))
    pixels = torch.from_numpy(run.views.images).permute(0, 1, 4, 2, 3).float() / 127.5 - 1
    labels = torch.from_numpy(run.views.labels).long()
    for i, head in enumerate((4, 2)):
        (view,) = [k for k in range(2) if torch.equal(batch.images[i], pixels[head, k])]
        assert torch.equal(batch.labels[i], labels[head, view])
        assert torch.equal(batch.c[i], run.views.c[head, view])
        assert torch.equal(batch.z[i], run.views.z[head])
        (seen,) = [k for k in range(2) if torch.equal(batch.seen[i], pixels[head, k])]
        assert torch.equal(batch.seen_labels[i], labels[head, seen])
        small = (2, 3, 4, 5, 6, 7, 10, 11, 12)
        expected = [
            0.2 if k == 0 else 5.0 if k in small else 1.0 for k in labels[head, view].flatten()
        ]
        close(batch.density[i], torch.tensor(expected))
    many = run.batch(torch.zeros(64, dtype=torch.int64))
    same = (many.images == many.seen).flatten(1).all(1).float().mean()
    assert float(same) == pytest.approx(0.5, abs=0.2)
    assert len(many.first(3).z) == 3 and torch.equal(many.first(3).c, many.c[:3])


# --- a step ------------------------------------------------------------------------------------


def test_stages_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    run = start(regression=0.5, second=0.25)
    seen: list[Any] = []
    for name in ("_regress", "_criticise", "_please"):
        monkeypatch.setattr(run, name, lambda _, *a, name=name: seen.append((name, *a)) or {})
    updates = Updates(run, monkeypatch)
    batch, generator = run.batch(torch.arange(2)), run.generator
    run.step(batch, 0.49)
    assert seen == [("_regress",)] and updates[-1][0] == "regression"
    assert int(run.memory.steps) == 0
    for progress, second in ((0.5, False), (0.74, False), (0.75, True)):
        seen.clear()
        run.step(batch, progress)
        assert seen == [("_criticise", second), ("_please", second)]
        for name in ("geometry", "mapping_geometry", "intersections"):
            weights = list(getattr(generator, name).parameters())
            assert weights and all(p.requires_grad != second for p in weights), name
        assert all(p.requires_grad for p in generator.appearance.parameters())
    assert int(run.memory.steps) == 3
    run.trainer = replace(run.trainer, surfaces=False)
    run.step(batch, 0.6)
    assert not any(p.requires_grad for p in generator.intersections.parameters())
    late = start(regression=0.9, second=0.5)
    monkeypatch.setattr(late, "_regress", lambda of: pytest.fail("stage 2 is adversarial"))
    monkeypatch.setattr(late, "_criticise", lambda *of: {})
    monkeypatch.setattr(late, "_please", lambda *of: {})
    late.step(batch, 0.6)


def test_optimisers() -> None:
    run = start(regression=0.5)
    of = {k: v.param_groups for k, v in run.optimisers.items()}
    names = {id(p): name for name, p in run.generator.named_parameters()}
    chosen = {k: {names.get(id(p), "") for g in v for p in g["params"]} for k, v in of.items()}
    assert chosen["generator"] == set(names.values()) == chosen["regression"] - {""}
    frozen = ("geometry", "mapping_geometry", "intersections")
    assert chosen["appearance"] == {n for n in names.values() if not n.startswith(frozen)}
    for name, critic in (("images", run.of_images), ("labels", run.of_labels)):
        assert {id(p) for p in of[name][0]["params"]} == {id(p) for p in critic.parameters()}
        assert of[name][0]["lr"] == 5e-4 and of[name][0]["betas"] == (0.0, 0.9)
    assert of["generator"][0]["betas"] == (0.0, 0.9) and of["generator"][0]["lr"] == 5e-4
    assert of["appearance"][0]["lr"] == 5e-4
    for group in of["regression"]:
        assert group["betas"] == (0.9, 0.98)
        for p in group["params"]:
            name = names.get(id(p), "guide")
            slow = name.startswith("mapping") or ".films." in name
            assert group["lr"] == pytest.approx(1e-3 if slow else 2e-3)


# --- which rays --------------------------------------------------------------------------------


def test_lattices_are_thinned_pictures() -> None:
    whole = torch.arange(144.0).view(1, 1, 12, 12).expand(300, 2, 12, 12)
    torch.manual_seed(0)
    pixels = grid_pixels(300, 12, 4)
    found = grid_picture(
        whole.flatten(2).gather(2, pixels[:, None].expand(-1, 2, -1)).transpose(1, 2)
    )
    begins = set()
    for one in found:
        row, column = divmod(int(one[0, 0, 0]), 12)
        begins.add((row, column))
        assert torch.equal(one, whole[0][:, row::3, column::3])
    assert begins == {(row, column) for row in range(3) for column in range(3)}
    begins = set()
    for _ in range(60):
        one = thinned(whole[:2], 4)
        row, column = divmod(int(one[0, 0, 0, 0]), 12)
        begins.add((row, column))
        assert torch.equal(one, whole[:2, :, row::3, column::3])
    assert begins == {(row, column) for row in range(3) for column in range(3)}
    dense = ray_density(4.0, 0.3).tolist()
    assert dense[0] == pytest.approx(0.3) and dense[1] == 1 and dense[4] == dense[2] == 4
