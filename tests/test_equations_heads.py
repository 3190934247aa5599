"""Objectives of heads-128, of encoders and of the canonical encoder, term by term."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tiny import Calls, TinyFaceNet, tiny_encoder, tiny_triplane, tiny_views, touched
from torch import Tensor

from semedit import cameras, losses
from semedit.media.labels import LABELS
from semedit.trainers import triplane
from semedit.trainers.canonical import CanonicalTask, CanonicalTrainer
from semedit.trainers.encoder import EncoderTask, EncoderTrainer, begin_as_own, new_encoder
from semedit.trainers.parts.synthesis import FaceSampler, SyntheticViews
from semedit.trainers.triplane import (
    SMALL,
    HeadsTask,
    HeadsTrainer,
    class_weights,
    differences,
    opacity_loss,
    small_parts,
    wobble,
)


@pytest.fixture(autouse=True)
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """All in float32: equal to what is written here, and quicker."""
    monkeypatch.setattr(torch, "autocast", lambda *of: nullcontext())


@pytest.fixture
def clear(monkeypatch: pytest.MonkeyPatch) -> None:
    """Encoders see pictures and label maps as they are."""
    monkeypatch.setattr(triplane, "wobble", lambda labels: labels)
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)


def heads(**options: Any) -> HeadsTask:
    torch.manual_seed(0)
    trainer = replace(HeadsTrainer(held_out=2, device="cpu"), **options)
    both = ("generator", "encoder")
    return HeadsTask(trainer, tiny_views(), tiny_triplane(), tiny_encoder(), both)


def encoders(angles: int = 0, views: int = 2, **options: Any) -> EncoderTask:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"held_out": 2, "device": "cpu", "same_features": 0.0}
    trainer = replace(EncoderTrainer(), **sizes | options)
    generator = tiny_triplane()
    own = tiny_encoder(angles)
    return EncoderTask(trainer, tiny_views(views=views), generator, own)


def canonical(**options: Any) -> CanonicalTask:
    torch.manual_seed(0)
    trainer = replace(CanonicalTrainer(held_out=2, device="cpu"), **options)
    return CanonicalTask(trainer, tiny_views(), tiny_triplane(), tiny_encoder())


def updated(task: Any, patch: pytest.MonkeyPatch) -> list[Tensor]:
    found: list[Tensor] = []
    patch.setattr(task, "_update", found.append)
    return found


def close(found: Any, expected: Any, rtol: float = 1e-3) -> None:
    found, expected = (torch.as_tensor(x).detach().double() for x in (found, expected))
    torch.testing.assert_close(found, expected, rtol=rtol, atol=1e-5)


def box(x: Tensor, side: int) -> Tensor:
    """Means of squares: [...,R,R] -> [...,side,side]."""
    factor = x.shape[-1] // side
    return x.unflatten(-1, (side, factor)).unflatten(-3, (side, factor)).mean((-3, -1))


def likeness(run: Any, output: Any, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """|I - I*|, |grad|, CE of one picture, small parts and rare classes weighed, by hand."""
    side = output.image.shape[-1]
    step = 16 // side
    ids = labels[:, step // 2 :: step, step // 2 :: step]
    away = output.image - box(images, side)
    weight = torch.tensor([run.trainer.small if name in SMALL else 1.0 for name in LABELS])[ids]
    across, down = away[..., 1:] - away[..., :-1], away[..., 1:, :] - away[..., :-1, :]
    chances = output.seg.double().softmax(1).gather(1, ids[:, None])[:, 0]
    rare = run.class_weights[ids]
    return {
        "image": (away.abs() * weight[:, None]).mean(),
        "edge": across.abs().mean() + down.abs().mean(),
        "label": (rare * -chances.log()).sum() / rare.sum(),
    }


def test_weights_are_those_told() -> None:
    of = HeadsTrainer()
    assert (of.edge, of.label, of.low, of.small, of.opacity) == (0.5, 0.15, 0.5, 3, 0.1)
    assert (of.mapped, of.consistency, of.coarse, of.lr) == (0.25, 0.3, 0.5, 8e-3)
    e = EncoderTrainer()
    assert (e.same_codes, e.same_features, e.pose, e.random_z, e.swapped) == (
        0.1,
        0.2,
        1,
        0.25,
        0.5,
    )
    assert (e.edge, e.label, e.low, e.small, e.coarse, e.lr) == (0.5, 0.15, 0.5, 3, 0.3, 2e-3)
    assert e.multi_view == 1 and e.synthetic and e.second_view
    c = CanonicalTrainer()
    assert (c.codes, c.random_z, c.swapped, c.kept) == (0.2, 0.25, 0.5, ("flat", "direct"))
    assert set(SMALL) == {LABELS[i] for i in (2, 3, 4, 5, 6, 7, 10, 11, 12)}


# --- heads-128 ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("clear")
@pytest.mark.parametrize(("progress", "neural"), [(0.2, 4), (0.6, 8)])
def test_heads(progress: float, neural: int, monkeypatch: pytest.MonkeyPatch) -> None:
    run = heads(edge=0.7, label=0.3, low=0.6, opacity=0.2, consistency=0.9, small=5.0)
    found, rendered = updated(run, monkeypatch), Calls(run.generator, "render", monkeypatch)
    drawn = Calls(run.generator, "planes", monkeypatch)
    batch = run.batch(torch.arange(4))
    values = run.step(batch, progress)
    mapped = run.generator.mapping(batch.z, batch.c[:, 0])["ws"]
    encoded = run.encoder(batch.images[:, 0], batch.labels[:, 0], batch.c[:, 0])
    torch.testing.assert_close(drawn[0][0][0]["ws"], torch.cat([mapped[:1], encoded[1:]]))
    (planes, c, size), options, output = rendered[0]
    assert planes is drawn[0][2] and torch.equal(c, batch.c.flatten(0, 1)) and size == neural
    assert options == {"jitter": True, "keep_empty": 0.25}
    images, labels = batch.images.flatten(0, 1), batch.labels.flatten(0, 1)
    high, low = (likeness(run, x, images, labels) for x in (output, output.low))
    for name in ("image", "edge", "label"):
        close(values[name], high[name])
    there = box((labels > 0).float(), output.low.opacity.shape[-1])
    stopped = output.low.opacity[:, 0].clamp(1e-4, 1 - 1e-4)
    opacity = -(there * stopped.log() + (1 - there) * (1 - stopped).log()).mean()
    close(values["opacity"], opacity)
    near = (encoded - mapped).square().mean()
    close(values["near"], near)
    sums = [one["image"] + 0.7 * one["edge"] + 0.3 * one["label"] for one in (high, low)]
    close(found[0], sums[0] + 0.6 * sums[1] + 0.2 * opacity + 0.9 * near)
    assert touched(found[0], run.encoder) and touched(found[0], run.generator.mapping_network)


@pytest.mark.usefixtures("clear")
def test_the_mapping_network_follows_the_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pictures' terms, nothing is asked of the encoder."""
    run = heads(edge=0.0, label=0.0, low=0.0, opacity=0.0, consistency=1.0, mapped=1.0)
    found = updated(run, monkeypatch)
    monkeypatch.setattr(run, "_total", lambda terms: torch.zeros(()))
    run.step(run.batch(torch.arange(4)), 0.9)
    assert touched(found[0], run.generator.mapping_network) and not touched(found[0], run.encoder)


def test_encoders_see_noise_and_wobbling_outlines(monkeypatch: pytest.MonkeyPatch) -> None:
    run = heads()
    seen = Calls(run.encoder, "look", monkeypatch)
    images, labels = torch.zeros(8, 3, 16, 16), run.batch(torch.arange(8) % 6).labels[:, 0]
    monkeypatch.setattr(triplane, "wobble", lambda x: x.flip(-1))
    run._encode(images, labels, run.views.c[:8, 0])
    (noisy, wobbling, c), _, _ = seen[0]
    assert float(noisy.std()) == pytest.approx(0.03, rel=0.1) and torch.equal(c, run.views.c[:8, 0])
    assert torch.equal(wobbling, labels.flip(-1))
    other = Calls(run.encoder, "forward", monkeypatch)
    updated(run, monkeypatch)
    batch = run.batch(torch.arange(4))
    run.step(batch, 0.0)
    (noisy, wobbling, c), _, _ = other[0]
    assert float((noisy - batch.images[:, 0]).std()) == pytest.approx(0.03, rel=0.1)
    assert torch.equal(wobbling, batch.labels[:, 0].flip(-1)) and torch.equal(c, batch.c[:, 0])


def test_wobbling_outlines_move_smoothly_by_some_pixels() -> None:
    torch.manual_seed(0)
    rows = torch.arange(32)[None, :, None].expand(64, 32, 32)
    for labels, axis in ((rows, 0), (rows.transpose(1, 2), 1)):
        moved = (wobble(labels) - labels).float()[:, 8:24, 8:24]
        # Bilinear between knots of deviation 1.5: 1.5 times 2/3 in the mean over both axes.
        assert float(moved.std()) == pytest.approx(1.5 * 0.67, abs=0.2), axis
        assert float(moved.diff(dim=2).abs().max()) <= 3
    still = torch.zeros(1, 16, 16, dtype=torch.int64)
    assert torch.equal(wobble(still), still)
    assert torch.equal(wobble(rows, 0.0), rows)


def test_parts_of_the_losses() -> None:
    x = torch.randn(2, 3, 4, 5)
    across, down = differences(x)
    torch.testing.assert_close(across, x.diff(dim=-1))
    torch.testing.assert_close(down, x.diff(dim=-2))
    labels = np.zeros((2, 1, 10, 10), np.uint8)
    labels[0, 0, :5], labels[1, 0, 0, 0] = 1, 13
    found = class_weights(labels)
    expected = [(share / 200) ** -0.35 for share in (149, 50)]
    close(found[:2], torch.tensor(expected))
    close(found[13], (1 / 200) ** -0.35)
    assert float(found[7]) == 8 and float(found.min()) >= 1
    assert small_parts(4.0).tolist() == [4.0 if name in SMALL else 1.0 for name in LABELS]
    ids = torch.zeros(1, 4, 4, dtype=torch.int64)
    ids[0, :2, :1] = 3
    stopped = torch.tensor([[[[0.3, 0.0], [0.6, 1.0]]]])
    terms = [(0.5, 0.3), (0.0, 1e-4), (0.0, 0.6), (0.0, 1 - 1e-4)]
    expected_ = [-(t * np.log(p) + (1 - t) * np.log(1 - p)) for t, p in terms]
    close(opacity_loss(stopped, ids), np.mean(expected_))


def test_two_views_of_each_head() -> None:
    run = heads()
    batch = run.batch(torch.zeros(64, dtype=torch.int64))
    firsts = set()
    for i in range(64):
        first, second = (
            next(k for k in range(2) if torch.equal(c, run.views.c[0, k])) for c in batch.c[i]
        )
        assert first != second
        firsts.add(first)
    assert firsts == {0, 1} and torch.equal(batch.z[5], run.views.z[0])


def test_a_step_descends() -> None:
    run = heads()
    weight = next(run.generator.parameters())
    before = weight.detach().clone()
    for _ in range(2):
        run._update((2 * weight).sum())
        assert torch.equal(weight.grad, torch.full_like(weight, 2.0))
    torch.testing.assert_close(weight.detach(), before - 16e-3, rtol=1e-3, atol=1e-6)
    (group,) = run.optimisers["all"].param_groups
    own = {id(p) for m in (run.generator, run.encoder) for p in m.parameters()}
    assert {id(p) for p in group["params"]} == own and group["betas"] == (0.9, 0.98)
    (group,) = encoders().optimisers["all"].param_groups
    assert len(group["params"]) == len(list(tiny_encoder().parameters())) and group["lr"] == 2e-3


# --- encoders ----------------------------------------------------------------------------------


def shown(run: Any, ws: Tensor, views: int) -> SyntheticViews:
    c = run.views.c[: len(ws), :views]
    return run.faces.show(ws, c)


@pytest.mark.usefixtures("clear")
@pytest.mark.parametrize("second", [True, False])
def test_real_faces(second: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    run = encoders(second_view=second, edge=0.7, label=0.3, low=0.6, synthetic=False, coarse=0.5)
    found, rendered = updated(run, monkeypatch), Calls(run.generator, "render", monkeypatch)
    batch = run.batch(torch.arange(4))
    values = run.step(batch, 0.5)
    views = 2 if second else 1
    (planes, c, size), options, output = rendered[0]
    assert torch.equal(c, batch.c[:, :views].flatten(0, 1)) and size == 8
    assert options == {"jitter": True, "keep_empty": 0.25}
    ws = run.encoder(batch.images[:, 0], batch.labels[:, 0], batch.c[:, 0])
    torch.testing.assert_close(planes["ws"], run.generator.planes({"ws": ws})["ws"])
    truth = batch.images[:, :views].flatten(0, 1), batch.labels[:, :views].flatten(0, 1)
    sums = []
    for one in (output, output.low):
        terms = likeness(run, one, *truth)
        sums.append(terms["image"] + 0.7 * terms["edge"] + 0.3 * terms["label"])
    close(values["high"], sums[0])
    close(values["low"], 0.6 * sums[1])
    assert set(values) == {"high", "low"}
    close(found[0], sums[0] + 0.6 * sums[1])
    assert touched(found[0], run.encoder)
    run.step(batch, 0.49)
    assert rendered[-1][0][2] == 4


@pytest.mark.usefixtures("clear")
def test_codes_agree_between_views(monkeypatch: pytest.MonkeyPatch) -> None:
    """|E(x_i) - E(x_0)|^2 / std^2, a mean over the other views."""
    run = encoders(multi_view=2, same_codes=0.7)
    found, encoded = updated(run, monkeypatch), Calls(run, "_encode", monkeypatch)
    asked, drawn = Calls(FaceSampler, "codes", monkeypatch), Calls(run, "_drawn", monkeypatch)
    viewed = Calls(FaceSampler, "show", monkeypatch)
    batch = run.batch(torch.arange(4))
    values = run.step(batch, 0.9)
    for given, own in zip(asked[0][0][1:], (batch.images, batch.labels, batch.c), strict=True):
        assert torch.equal(given, own[:, 0])
    true = viewed[0][2]
    assert viewed[0][0][1] is asked[0][2] and true.c.shape == (4, 3, 25)
    (images, labels, c), _, (codes, _) = encoded[1]
    assert torch.equal(images, true.images.flatten(0, 1))
    assert torch.equal(labels, true.labels.flatten(0, 1)) and torch.equal(c, true.c.flatten(0, 1))
    (ws, seen, ids, at, neural), _, terms = drawn[1]
    assert ws is codes and torch.equal(seen[:, 0], images) and torch.equal(ids[:, 0], labels)
    assert torch.equal(at[:, 0], c) and neural == 8
    each = codes.view(4, 3, *codes.shape[1:])
    away = [((each[:, k] - each[:, 0]) / run.scale) ** 2 for k in (1, 2)]
    close(values["synthetic_same_codes"], 0.7 * torch.stack(away).mean())
    close(values["synthetic_high"], terms["high"])
    assert set(values) == {"high", "low"} | {
        f"synthetic_{k}" for k in ("high", "low", "same_codes")
    }
    close(found[0], sum(values.values()))


@pytest.mark.usefixtures("clear")
def test_features_agree_between_views(monkeypatch: pytest.MonkeyPatch) -> None:
    """|phi(G(E(x_i), c_0)) - phi(x_0)|^2 of the last layer."""
    monkeypatch.setattr(
        losses, "perceptual", lambda name, device: losses.NetworkFeatures(TinyFaceNet(), name)
    )
    run = encoders(multi_view=2, same_features=0.7, same_codes=0.0)
    assert run.perceptual.name == "faces"
    found, viewed = updated(run, monkeypatch), Calls(FaceSampler, "show", monkeypatch)
    encoded = Calls(run, "_encode", monkeypatch)
    values = run.step(run.batch(torch.arange(3)), 0.9)
    true, codes = viewed[0][2], encoded[1][2][0].view(3, 3, 10, 12)

    def phi(x: Tensor) -> Tensor:
        maps = TinyFaceNet().features(x)[-1]
        return maps / (maps.square().sum(1, keepdim=True) + 1e-10).sqrt()

    away = []
    for i in range(3):
        for k in (1, 2):
            planes = run.generator.planes({"ws": codes[i : i + 1, k]})
            drawn = run.generator.render(planes, true.c[i : i + 1, 0]).image
            away.append((phi(drawn) - phi(true.images[i : i + 1, 0])).square().sum(1).mean())
    close(values["synthetic_same_features"], 0.7 * torch.stack(away).mean(), rtol=0.01)
    assert touched(found[0], run.encoder)
    assert run.perceptual.name == "faces" and encoders(multi_view=0).perceptual.name != "faces"


@pytest.mark.usefixtures("clear")
def test_angles_are_predicted(monkeypatch: pytest.MonkeyPatch) -> None:
    run = encoders(angles=2, pose=0.7, multi_view=0)
    found = updated(run, monkeypatch)
    encoded = Calls(run, "_encode", monkeypatch)
    batch = run.batch(torch.arange(3))
    values = run.step(batch, 0.9)
    for name, ((_, _, c), _, (_, angles)) in zip(("pose", "synthetic_pose"), encoded, strict=True):
        true = cameras.to_six(c)[:, :2]
        close(values[name], 0.7 * ((angles - true) ** 2).sum() / angles.numel())
    close(found[0], sum(values.values()))
    torch.testing.assert_close(encoded[0][0][2], batch.c[:, 0])
    assert run._posed(torch.zeros(3, 0), batch.c[:, 0]) == {}
    assert "synthetic_same_codes" not in values


def test_one_view_of_pictures_of_a_folder() -> None:
    batch = encoders(views=1).batch(torch.tensor([2, 4]))
    assert batch.images.shape[1] == 2 and torch.equal(batch.images[:, 0], batch.images[:, 1])


def test_an_encoder_begins_as_the_generators_own() -> None:
    generator = tiny_triplane()
    other = new_encoder(generator)
    assert begin_as_own(other, generator)
    own = generator.encoder.state_dict()
    assert all(torch.equal(v, own[k]) for k, v in other.state_dict().items())
    assert not begin_as_own(new_encoder(generator, 2), generator)
    assert new_encoder(generator, 2).config.angles == 2 and other.config.angles == 0


# --- the canonical encoder ---------------------------------------------------------------------


@pytest.mark.usefixtures("clear")
def test_faces_from_the_front_are_drawn_from_the_front_and_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = canonical(codes=0.7, coarse=0.5)
    found, drawn = updated(run, monkeypatch), Calls(run, "_drawn", monkeypatch)
    encoded, viewed = Calls(run, "_encode", monkeypatch), Calls(FaceSampler, "show", monkeypatch)
    asked = Calls(FaceSampler, "codes", monkeypatch)
    batch = run.batch(torch.arange(3))
    assert torch.equal(batch.c[:, 0], batch.c[:, 1])
    values = run.step(batch, 0.5)
    assert torch.equal(asked[0][0][1], batch.images[:, 0])
    true = viewed[0][2]
    front = cameras.canonical()
    torch.testing.assert_close(true.c[:, 0], front.expand(3, -1))
    assert true.c.shape == (3, 2, 25) and true.ws is asked[0][2]
    assert not torch.equal(true.c[:, 1], true.c[:, 0])
    (images, labels, c), _, (codes, _) = encoded[0]
    assert torch.equal(images, true.images[:, 0]) and torch.equal(labels, true.labels[:, 0])
    assert torch.equal(c, true.c[:, 0])
    (ws, *rest, neural), _, terms = drawn[0]
    assert ws is codes and neural == 8
    assert all(a is b for a, b in zip(rest, (true.images, true.labels, true.c), strict=True))
    close(values["codes"], 0.7 * (((codes - true.ws) / run.scale) ** 2).mean())
    close(values["high"], terms["high"])
    close(found[0], sum(values.values()))
    assert set(values) == {"high", "low", "codes"} and touched(found[0], run.encoder)
    run.step(batch, 0.49)
    assert drawn[1][0][4] == 4


# --- synthetic faces ---------------------------------------------------------------------------


def test_codes_of_synthetic_faces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Encoded or from random z; the texture of the next face or their own."""
    generator = tiny_triplane()
    views = tiny_views().one(torch.arange(8).repeat(8), torch.zeros(64, dtype=torch.int64))
    mapped = Calls(generator, "mapping", monkeypatch)
    cut, of = generator.num_shape, (views.images, views.labels, views.c)
    seen = generator.encoder(*of).detach()

    def drawn(mapped_share: float, swapped: float) -> tuple[Tensor, Tensor]:
        faces = FaceSampler.of(generator, views.c, mapped_share, swapped)
        torch.manual_seed(1)
        return faces.codes(*of), mapped[-1][2]["ws"]

    torch.testing.assert_close(drawn(0.0, 0.0)[0], seen)
    found, random = drawn(1.0, 0.0)
    assert torch.equal(found, random) and mapped[-1][0][1] is views.c
    found, _ = drawn(0.0, 1.0)
    torch.testing.assert_close(found, torch.cat([seen[:, :cut], seen.roll(1, 0)[:, cut:]], 1))
    found, random = drawn(0.25, 0.0)
    share = (found == random).flatten(1).all(1).float().mean()
    assert float(share) == pytest.approx(0.25, abs=0.15)
    found, _ = drawn(0.0, 0.25)
    share = torch.isclose(found, seen).flatten(1).all(1).float().mean()
    assert float(share) == pytest.approx(0.75, abs=0.15)
    alone = FaceSampler(
        generator, None, FaceSampler.of(generator, views.c, 0.0, 0.0).poses, 0.0, 0.0
    )
    torch.manual_seed(1)
    assert torch.equal(alone.codes(*of), mapped[-1][2]["ws"])


def test_what_synthetic_faces_show() -> None:
    generator, views = tiny_triplane(), tiny_views()
    faces = FaceSampler.of(generator, views.c.flatten(0, 1), 0.25, 0.5)
    assert (faces.mapped, faces.swapped) == (0.25, 0.5)
    assert not any(p.requires_grad for p in faces.encoder.parameters())
    ws = generator.mapping(torch.randn(3, 5), views.c[:3, 0])["ws"].detach()
    found = faces.show(ws, views.c[:3])
    for i in range(3):
        for k in range(2):
            output = generator.synthesis({"ws": ws[i : i + 1]}, views.c[i, k][None])
            torch.testing.assert_close(
                found.images[i, k], output.image[0].clamp(-1, 1), atol=1e-4, rtol=1e-4
            )
            assert float((found.labels[i, k] == output.seg[0].argmax(0)).float().mean()) > 0.98
    assert found.ws is ws and torch.equal(found.c, views.c[:3])
    given = cameras.to_six(faces.cameras(400, 2).flatten(0, 1))
    limit = torch.tensor(generator.view_limit_deg).deg2rad()
    assert (given[:, :2].abs() <= limit + 1e-4).all()
    assert float(given[:, 0].std()) == pytest.approx(
        float(cameras.to_six(views.c.flatten(0, 1))[:, 0].std()), rel=0.25
    )
