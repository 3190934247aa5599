"""Equation 7, the descent, pivotal tuning: every term of every inverter against it written out."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import formulas
import pytest
import torch
import torch.nn.functional as F
from descents import Descents, falls, slope_along
from formulas import close
from safetensors.torch import save_file
from tiny import Painter, Pixels
from torch import Tensor

from semedit import cameras, losses
from semedit.errors import OptionError, ShapeError, TraitError
from semedit.generators import GENERATORS, Output
from semedit.inverters import Hybrid, Optimize, Pivotal, codes, descent, pivotal, tuning
from semedit.inverters.coarse import coarse_steps, phases
from semedit.inverters.codes import Offsets, check_faces, known_traits, layer_axis, spread
from semedit.inverters.descent import Steps, descend, marks, schedule
from semedit.inverters.tuning import Tuning
from semedit.latents import Latent
from semedit.media.pixels import resize


@pytest.fixture(autouse=True)
def pixels(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(losses, "perceptual", lambda name, device="cpu": Pixels())
    yield


@pytest.fixture
def generator() -> Painter:
    return Painter().requires_grad_(False)


@pytest.fixture
def descents(monkeypatch: pytest.MonkeyPatch) -> Descents:
    found = Descents()
    for module in (codes, tuning):
        monkeypatch.setattr(module, "descend", found)
    return found


def faces(n: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    numbers = torch.Generator().manual_seed(1)
    images = torch.rand(n, 3, 8, 8, generator=numbers) * 2 - 1
    labels = torch.randint(0, 19, (n, 8, 8), generator=numbers)
    return images, labels, cameras.orbit(torch.linspace(-0.3, 0.2, n), torch.zeros(n))


def equation_7(
    out: Any, images: Tensor, labels: Tensor, weights: tuple[float, float, float], kind: str
) -> Tensor:
    label_weight, image_weight, perceptual_weight = weights
    of = formulas.label_entropy if kind == "ce" else formulas.label_squares
    return (
        label_weight * of(out.seg, labels[:, ::2, ::2])
        + image_weight
        * formulas.masked_squares(out.image, images, torch.ones(len(images), 1, 8, 8))
        + perceptual_weight * formulas.pixel_distance(out.image, images)
    )


def hand_spread(generator: Painter, c: Tensor) -> Tensor:
    z = torch.randn(512, 4, generator=torch.Generator().manual_seed(0))
    ws = generator.mapping(z, c)["ws"].double()
    deviation = ((ws - ws.mean(0)) ** 2).sum(0).div(511).sqrt()
    return deviation.clamp(min=float(deviation.mean()) * 0.01 + 1e-8)[None].float()


WEIGHTS = (0.7, 5.0, 1.3)
OPTIONS: dict[str, Any] = dict(
    zip(("label_weight", "image_weight", "perceptual_weight"), WEIGHTS, strict=True)
) | {"prior_weight": 0.9, "lr": 0.21}


def with_one_missing() -> list[tuple[str, dict[str, Any]]]:
    names = ["", "label_weight", "image_weight", "perceptual_weight", "prior_weight"]
    return [(name, OPTIONS | ({name: 0.0} if name else {})) for name in names]


# --- inversion -------------------------------------------------------------------------------


@pytest.mark.parametrize(("off", "options"), with_one_missing())
@pytest.mark.parametrize("space", ["w", "w+"])
@pytest.mark.parametrize("kind", ["mse", "ce"])
def test_optimize_term_by_term(
    generator: Painter, descents: Descents, off: str, options: dict[str, Any], space: str, kind: str
) -> None:
    images, labels, c = faces()
    method = Optimize(**options, steps=6, space=space, labels=kind)
    found = method(generator, images, labels, c)
    (call,) = descents.calls
    assert (call["steps"], call["lr"], call["betas"]) == (6, 0.21, (0.9, 0.99))
    (leaf,) = call["parameters"]
    assert leaf.shape == ((2, 1, 304) if space == "w" else (2, 2, 304)) and leaf.abs().max() == 0
    assert close(found.codes["ws"], generator.middle.expand(2, -1, -1))
    first = call["loss"]().detach()
    assert found.meta["loss"] == pytest.approx(first.tolist())
    (leaf,) = descents.shaken(call)
    ws = generator.middle + hand_spread(generator, c) * leaf
    weights = tuple(options[k] for k in ("label_weight", "image_weight", "perceptual_weight"))
    expected = equation_7(generator.synthesis({"ws": ws}, c), images, labels, weights, kind)
    expected += options["prior_weight"] * leaf.square().mean((1, 2))
    assert close(call["loss"]().detach(), expected, rtol=1e-4)
    assert falls(call["loss"], call["parameters"])
    assert found.meta["space"] == space and found.meta["perceptual"] == "pixels"
    assert found.method == "optimize"


@pytest.mark.parametrize(("off", "options"), with_one_missing())
def test_hybrid_term_by_term(
    generator: Painter, descents: Descents, off: str, options: dict[str, Any]
) -> None:
    images, labels, c = faces()
    found = Hybrid(**options, steps=6, tune_steps=0)(generator, images, labels, c)
    (call,) = descents.calls
    start = generator.encode(images, labels, c)["ws"]
    assert close(found.codes["ws"], start) and found.tuned is None
    assert (call["steps"], call["lr"]) == (6, 0.21)
    (leaf,) = descents.shaken(call)
    ws = start + hand_spread(generator, c) * leaf
    weights = tuple(options[k] for k in ("label_weight", "image_weight", "perceptual_weight"))
    expected = equation_7(generator.synthesis({"ws": ws}, c), images, labels, weights, "ce")
    expected += options["prior_weight"] * leaf.square().mean((1, 2))
    assert close(call["loss"]().detach(), expected, rtol=1e-4)
    assert falls(call["loss"], call["parameters"])


def test_hybrid_tunes_each_face_around_its_pivot(generator: Painter, descents: Descents) -> None:
    images, labels, c = faces()
    seen: list[tuple[int, int]] = []
    method = Hybrid(**OPTIONS, steps=6, tune_steps=4, tune_lr=0.01, locality_weight=0.6)
    found = method(generator, images, labels, c, lambda *at: seen.append(at))
    pivot = found.codes["ws"]
    assert len(descents.calls) == 3
    for i, call in enumerate(descents.calls[1:]):
        row = slice(i, i + 1)
        assert (call["steps"], call["lr"], call["rates"], call["soft"]) == (4, 0.01, [1.0], 0.0)
        (gain,) = descents.shaken(call)
        first = call["loss"]().detach()
        check_tuned(generator, gain, pivot[row], (images[row], labels[row], c[row]), call, first, 1)
        assert not call["stop"](torch.tensor([0.0])) and call["stop"](torch.tensor([-1.0]))
        assert falls(call["loss"], call["parameters"])
    assert set(found.tuned) == {"gain"} and found.tuned["gain"].dtype == torch.float16
    assert len(found.meta["loss"]) == 2 and found.method == "hybrid"


def check_tuned(
    generator: Painter, gain: Tensor, ws: Tensor, face: tuple[Tensor, Tensor, Tensor],
    call: dict[str, Any], value: Tensor, turn: int,
) -> None:  # fmt: skip
    """One face's tuning: equation 7 without the prior, and locality in the view of its turn."""
    images, labels, c = face
    yaw, pitch = ((-0.44, 0.0), (0.44, 0.0), (-0.2, 0.15), (0.2, -0.15))[turn % 4]
    colours = ws[:, 1, :192].view(1, 3, 8, 8)

    def image(camera: Tensor, factor: Tensor) -> Tensor:
        return factor * (colours + 0.5 * camera[0, 2])

    side = cameras.turn(c, yaw, pitch)
    away = image(side, 1 + gain) - image(side, torch.ones_like(gain))
    out = Output(image(c, 1 + gain), ws[:, 0].view(1, 19, 4, 4))
    expected = equation_7(out, images, labels, WEIGHTS, "ce") + 0.6 * away.square().mean()
    assert close(value, expected, rtol=1e-4)


def test_locality_goes_round_the_views(generator: Painter, descents: Descents) -> None:
    images, labels, c = faces(1)
    Hybrid(**OPTIONS, steps=1, tune_steps=4, locality_weight=0.6)(generator, images, labels, c)
    call = descents.calls[-1]
    pivot = generator.encode(images, labels, c)["ws"]
    (gain,) = descents.shaken(call)
    for turn in (1, 2, 3, 4, 5):  # its first was asked for already
        value = call["loss"]().detach()
        check_tuned(generator, gain, pivot, (images, labels, c), call, value, turn)


def test_pivotal_passes_its_weights_on(generator: Painter, descents: Descents) -> None:
    images, labels, c = faces()
    seen: list[tuple[int, int]] = []
    method = Pivotal(
        space="w", pivot_steps=6, pivot_lr=0.21, steps=3, lr=0.05, l2_weight=5.0, label_weight=0.7,
        perceptual_weight=1.3, prior_weight=0.9, locality_weight=0.6, labels="ce", stop_loss=0.4,
        layers="",
    )  # fmt: skip
    found = method(generator, images, labels, c, lambda *at: seen.append(at))
    first, *rest = descents.calls
    assert (first["steps"], first["lr"]) == (6, 0.21)
    (leaf,) = descents.shaken(first)
    assert leaf.shape == (2, 1, 304)
    ws = generator.middle + hand_spread(generator, c) * leaf
    expected = equation_7(generator.synthesis({"ws": ws}, c), images, labels, WEIGHTS, "ce")
    expected += 0.9 * leaf.square().mean((1, 2))
    assert close(first["loss"]().detach(), expected, rtol=1e-4)
    assert len(rest) == 2
    for i, call in enumerate(rest):
        row = slice(i, i + 1)
        assert (call["steps"], call["lr"]) == (3, 0.05)
        assert call["stop"](torch.tensor([0.39])) and not call["stop"](torch.tensor([0.41]))
        (gain,) = descents.shaken(call)
        value = call["loss"]().detach()
        pivot = generator.middle
        check_tuned(generator, gain, pivot, (images[row], labels[row], c[row]), call, value, 1)
    assert seen[-1] == (12, 12) and found.method == "pivotal"


def test_defaults_of_the_inverters() -> None:
    o, h, p = Optimize(), Hybrid(), Pivotal()
    assert (o.space, o.steps, o.lr, o.label_weight, o.image_weight) == ("w+", 150, 0.05, 1.0, 10.0)
    assert (o.perceptual_weight, o.prior_weight, o.labels, o.coarse) == (1.0, 0.005, "mse", 0)
    assert (h.steps, h.lr, h.label_weight, h.image_weight) == (20, 0.4, 0.3, 10.0)
    assert (h.perceptual_weight, h.prior_weight, h.labels, h.coarse) == (0.3, 0.002, "ce", 0)
    assert (h.tune_steps, h.tune_lr, h.locality_weight, h.camera) == (30, 2e-3, 0.0, "given")
    assert (p.space, p.pivot_steps, p.pivot_lr, p.steps, p.lr) == ("w", 150, 0.05, 100, 3e-4)
    assert (p.l2_weight, p.label_weight, p.perceptual_weight) == (10.0, 1.0, 1.0)
    assert (p.prior_weight, p.locality_weight, p.stop_loss, p.coarse) == (0.005, 1.0, 0.0, 0)
    assert p.layers == "weights" and p.labels == "mse"
    t = Tuning(1, 0.1)
    assert (t.layers, t.locality) == ("", 0.0)
    assert (tuning.PLANE_RATE, tuning.SOFT, tuning.COARSEST) == (25.0, 0.3, 4)
    assert tuning.VIEWS == ((-0.44, 0.0), (0.44, 0.0), (-0.2, 0.15), (0.2, -0.15))


def test_the_encoder_may_tell_the_camera(generator: Painter, descents: Descents) -> None:
    images, labels, c = faces()
    other = cameras.orbit(torch.tensor([0.5, -0.5]), torch.zeros(2))
    asked = []

    def viewed(*given: Tensor) -> Tensor:
        asked.append(given)
        return other

    generator.viewed = viewed
    found = Hybrid(camera="encoder", tune_steps=0)(generator, images, labels, c)
    assert torch.equal(found.c, other) and [torch.equal(a, b) for a, b in zip(
        asked[0], (images, labels, c), strict=True)] == [True] * 3  # fmt: skip
    expected = generator.encode(images, labels, other)["ws"]
    assert close(found.codes["ws"], expected)
    assert torch.equal(Hybrid(tune_steps=0)(generator, images, labels, c).c, c)


# --- tuning ----------------------------------------------------------------------------------


class Planes(Painter):
    tunable = ("planes.colours",)


def test_planes_are_tuned_together(descents: Descents) -> None:
    generator = Planes().requires_grad_(False)
    images, labels, c = faces()
    found = Hybrid(**OPTIONS, steps=2, tune_steps=3, tune_lr=0.01)(generator, images, labels, c)
    call = descents.calls[-1]
    assert len(descents.calls) == 2 and call["soft"] == 0.3
    assert [tuple(v.shape) for v in call["parameters"]] == [(2, 3, 8, 8), (2, 3, 4, 4)]
    assert call["rates"] == [25.0, 25.0]
    fine, coarse = descents.shaken(call)
    pivot = generator.encode(images, labels, c)["ws"]
    added = fine + F.interpolate(coarse, scale_factor=2.0, mode="bilinear")
    image = pivot[:, 1, :192].view(2, 3, 8, 8) + added + 0.5 * c[:, 2].view(2, 1, 1, 1)
    out = Output(image, pivot[:, 0].view(2, 19, 4, 4))
    expected = equation_7(out, images, labels, WEIGHTS, "ce")
    assert close(call["loss"]().detach(), expected, rtol=1e-4)
    assert found.tuned["planes.colours"].shape == (2, 3, 8, 8)
    gone = Tuning(3, 0.1)(generator, found.codes, c, lambda out: out.image.square().mean((1, 2, 3)))
    assert gone[0]["planes.colours"].shape == (2, 3, 8, 8)


def test_what_was_found_is_the_sum_of_its_levels() -> None:
    levels = tuning.pyramid((2, 3, 16, 16, 5), True, torch.device("cpu"))
    assert [tuple(v.shape) for v in levels] == [(2, 3, s, s, 5) for s in (16, 8, 4)]
    assert all(v.requires_grad and v.abs().max() == 0 for v in levels)
    assert len(tuning.pyramid((2, 3, 16, 16), False, torch.device("cpu"))) == 1
    a, b, c = (torch.randn(v.shape) for v in levels)

    def twice(x: Tensor) -> Tensor:
        planes = [[F.interpolate(x[n, p].permute(2, 0, 1)[None], scale_factor=2.0, mode="bilinear")
                   [0].permute(1, 2, 0) for p in range(3)] for n in range(2)]  # fmt: skip
        return torch.stack([torch.stack(one) for one in planes])

    assert close(tuning.total([a, b, c]), a + twice(b + twice(c)), atol=1e-5)
    assert torch.equal(tuning.total([a]), a)
    flat = torch.randn(2, 3, 4, 4)
    assert tuning.enlarged(flat).shape == (2, 3, 8, 8)


def test_neighbours_are_kept_where_there_is_no_camera(
    generator: Painter, descents: Descents
) -> None:
    generator.traits = frozenset({"seg"})
    images, labels, c = faces(1)
    ws = generator.encode(images, labels, c)["ws"]

    def loss(out: Any) -> Tensor:
        return 0 * out.image.flatten(1).mean(1)

    Tuning(3, 0.1, "gain", locality=2.0)(generator, {"ws": ws}, c, loss)
    (call,) = descents.calls
    (gain,) = descents.shaken(call)
    z = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    sampled = generator.mapping(z, c)["ws"]
    for turn in (1, 2, 3, 0):
        way = sampled[turn : turn + 1] - ws
        near = ws + way / (way**2).mean().sqrt()
        image = near[:, 1, :192].view(1, 3, 8, 8) + 0.5 * c[0, 2]
        expected = 2.0 * (gain * image).square().mean()
        assert float(call["loss"]().detach()) == pytest.approx(float(expected), rel=1e-4)


def test_the_pivot_is_not_descended(generator: Painter, descents: Descents) -> None:
    images, labels, c = faces(1)
    ws = generator.encode(images, labels, c)["ws"].requires_grad_()

    def loss(out: Any) -> Tensor:
        return out.image.square().flatten(1).mean(1)

    tuned, _ = Tuning(3, 0.1, "gain", locality=0.5)(generator, {"ws": ws}, c, loss)
    value = descents.calls[0]["loss"]()
    assert torch.autograd.grad(value.sum(), ws, allow_unused=True) == (None,)
    assert tuned["gain"].shape == (1, 3, 1, 1) and not tuned["gain"].requires_grad


class Tinted(Planes):
    """Whose planes depend on its weights, too."""

    def planes(self, codes: dict[str, Tensor]) -> dict[str, Tensor]:
        made = super().planes(codes)
        return made | {"colours": self.gain * made["colours"]}


def test_what_is_kept_as_it_was_is_not_descended(descents: Descents) -> None:
    """Views that stay, and the planes that something is added to, are numbers."""
    _, _, c = faces(1)
    ws = 0.4 * torch.randn(1, 2, 304, generator=torch.Generator().manual_seed(0))

    def loss(out: Any) -> Tensor:
        return out.image.square().flatten(1).mean(1)

    generator: Painter = Painter()
    Tuning(3, 0.1, "gain", locality=0.5)(generator, {"ws": ws}, c, loss)
    value = descents.calls[-1]["loss"]()
    assert torch.autograd.grad(value.sum(), generator.gain, allow_unused=True) == (None,)
    generator = Tinted()
    Tuning(3, 0.1)(generator, {"ws": ws}, c, loss)
    by_autograd, by_steps = slope_along(descents.calls[-1]["loss"], generator.gain)
    assert by_autograd == pytest.approx(by_steps, rel=2e-2)


def test_what_is_chosen(generator: Painter) -> None:
    assert tuning.chosen(generator, "") == {"gain": (3, 1, 1)}
    assert tuning.chosen(generator, "planes.*") == {
        "planes.labels": (19, 4, 4),
        "planes.colours": (3, 8, 8),
    }
    assert set(tuning.chosen(generator, "gain, planes.colours")) == {"gain", "planes.colours"}
    generator.mapping_net = torch.nn.Linear(1, 1)
    generator.tunable = ()
    assert set(tuning.chosen(generator, "weights")) == {"gain"}
    assert set(tuning.chosen(generator, "")) == {"gain"}
    assert "mapping_net.bias" in tuning.chosen(generator, "mapping*")
    with pytest.raises(OptionError):
        tuning.chosen(generator, "gain,none")
    assert tuning.only_planes(["planes.a"]) and not tuning.only_planes(["planes.a", "gain"])


def test_the_pivots_marks_stay(generator: Painter, descents: Descents) -> None:
    images, labels, c = faces()
    ws = generator.encode(images, labels, c)["ws"]
    meta = {"diverged": [True, False], "space": "w"}
    latent = Latent({"ws": ws}, c, "painter", "", "x", meta=meta)
    found = pivotal.tune_faces(
        Tuning(2, 0.1), generator, latent, images, labels, Pixels(), WEIGHTS, 0.0, Steps(None, 4)
    )
    assert found.meta["diverged"] == [True, False] and found.meta["space"] == "w"
    out = generator.synthesis({"ws": ws}, c)
    assert found.meta["loss"] == pytest.approx(
        equation_7(out, images, labels, WEIGHTS, "mse").tolist(), rel=1e-4
    )
    calm = pivotal.tune_faces(
        Tuning(2, 0.1), generator, replace(latent, meta={}), images, labels, Pixels(), WEIGHTS,
        0.0, Steps(None, 4),
    )  # fmt: skip
    assert "diverged" not in calm.meta


# --- codes -----------------------------------------------------------------------------------


def test_codes_move_in_units_of_their_spread(generator: Painter) -> None:
    start = {"ws": torch.randn(2, 3, 4), "geo": torch.randn(2, 5), "style": torch.randn(2, 1, 2)}
    scale = {"ws": torch.rand(1, 3, 4) + 1, "geo": torch.rand(1, 5)}
    offsets = Offsets(start, scale, "w")
    assert {k: tuple(v.shape) for k, v in offsets.leaves.items()} == {
        "ws": (2, 1, 4), "geo": (2, 5),
    }  # fmt: skip
    with torch.no_grad():
        for leaf in offsets.leaves.values():
            leaf.copy_(torch.randn(leaf.shape))
    found = offsets.codes()
    assert torch.equal(found["ws"], start["ws"] + scale["ws"] * offsets.leaves["ws"])
    assert found["style"] is start["style"]
    squares = [(v**2).flatten(1).mean(1) for v in offsets.leaves.values()]
    assert close(offsets.size(), (squares[0] + squares[1]) / 2)
    regions = Offsets({"ws": torch.zeros(2, 5, 3, 4)}, {"ws": torch.ones(1, 5, 3, 4)}, "w")
    assert regions.leaves["ws"].shape == (2, 5, 1, 4)
    assert layer_axis("ws", torch.zeros(1, 2, 3, 4)) == 2
    assert layer_axis("geo", torch.zeros(1, 2, 3, 4)) == layer_axis("ws", torch.zeros(1, 2, 3)) == 1
    with pytest.raises(OptionError):
        Offsets(start, scale, "z")


def test_entries_that_never_vary_can_move(generator: Painter) -> None:
    generator.matrix[:, 0, 0] = 0
    found = spread(generator, torch.zeros(3, 25))["ws"]
    assert found.shape == (1, 2, 304)
    assert close(found, hand_spread(generator, torch.zeros(1, 25)), rtol=1e-3)
    assert 0 < float(found[0, 0, 0]) < 0.011 * float(found.mean())
    generator.matrix.zero_()
    assert (spread(generator, torch.zeros(1, 25))["ws"] > 0).all()


def test_traits_of_what_is_on_the_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Generators whose encoder lies beside can encode."""
    for name, facts in {
        "seeing": {"kind": "triplane", "encoder": "beside"},
        "blind": {"kind": "triplane", "encoder": "missing"},
        "beside": {"kind": "encoder"},
    }.items():
        save_file({"x": torch.zeros(1)}, str(tmp_path / f"{name}.safetensors"), facts)
    (tmp_path / "damaged.safetensors").write_bytes(b"no weights")
    monkeypatch.setattr(codes.weights.rows, "DATA", tmp_path)
    monkeypatch.setattr(codes.weights, "files", lambda: ())
    own = frozenset(GENERATORS["triplane"].traits)
    assert known_traits() == {"seeing": own | {"encode"}, "blind": own} and "encode" not in own


def test_faces_must_suit(generator: Painter) -> None:
    images, labels, c = faces()
    check_faces(generator, images, labels, c)
    for wrong in (
        (images[:, :2], labels, c), (images[..., :4], labels, c), (images, labels[:1], c),
        (images, labels[:, :4], c), (images, labels, c[:, :24]), (images, labels, c[:1]),
    ):  # fmt: skip
        with pytest.raises(ShapeError):
            check_faces(generator, *wrong)


def test_coarse_phases(generator: Painter) -> None:
    images, labels, _ = faces()
    assert [p.resolution for p in phases(generator, images, labels, 8, 0)] == [None]
    with pytest.raises(TraitError):
        phases(generator, images, labels, 8, 4)
    generator.traits |= {"coarse"}
    first, last = phases(generator, images, labels, 8, 4)
    assert (first.resolution, first.steps, last.resolution, last.steps) == (4, 6, None, 2)
    assert torch.equal(first.images, resize(images, 4))
    assert torch.equal(first.labels, labels[:, ::2, ::2]) and first.labels.dtype == torch.int64
    assert last.images is images and last.labels is labels
    assert len(phases(generator, images, labels, 8, 8)) == 1
    assert [coarse_steps(generator, n, 4) for n in (0, 1, 2, 4, 100)] == [0, 0, 1, 3, 75]


# --- the descent -----------------------------------------------------------------------------


def test_rates_rise_and_fall() -> None:
    for steps, warmup, decay in ((20, 0.2, 0.5), (7, 0.0, 0.3), (10, 0.1, 0.0)):
        for step in range(steps):
            rise = 1.0 if warmup == 0 else min(1.0, (step + 1) / (warmup * steps))
            late = 0.0 if decay == 0 else max(0.0, (step - (1 - decay) * steps) / (decay * steps))
            expected = rise * (0.5 + 0.5 * math.cos(math.pi * late))
            assert schedule(step, steps, warmup, decay) == pytest.approx(expected)


def test_the_descent_is_adam() -> None:
    """As torch.optim has it, leaf by leaf at its own rate, against the gradient."""
    numbers = torch.Generator().manual_seed(0)
    goal = torch.randn(2, 5, generator=numbers)
    ours = [torch.zeros(2, 5, requires_grad=True), torch.ones(2, 3, requires_grad=True)]
    theirs = [leaf.detach().clone().requires_grad_() for leaf in ours]

    def loss(leaves: list[Tensor]) -> Tensor:
        a, b = leaves
        return (a - goal).square().sum(1) + (b**4).sum(1) + (a[:, :3] * b).sum(1)

    adam = torch.optim.Adam(
        [{"params": [leaf], "lr": 0.0} for leaf in theirs], betas=(0.8, 0.95), eps=1e-8
    )
    seen: list[Tensor] = []
    for step in range(9):
        value = loss(theirs)
        seen.append(value.detach())
        for group, rate in zip(adam.param_groups, (1.0, 0.25), strict=True):
            group["lr"] = 0.1 * schedule(step, 9, 0.3, 0.4) * rate
        adam.zero_grad()
        value.sum().backward()
        adam.step()
    told: list[int] = []
    ended = descend(
        ours, lambda: loss(ours), 9, 0.1, 0.3, 0.4, (0.8, 0.95), rates=(1.0, 0.25),
        progress=lambda: told.append(1),
    )  # fmt: skip
    for a, b in zip(ours, theirs, strict=True):
        assert close(a, b, atol=1e-5)
    assert close(ended.losses, seen[-1], rtol=1e-4) and len(told) == 9
    assert not ended.diverged.any() and loss(ours).sum() < seen[0].sum()


def test_defaults_of_the_descent() -> None:
    leaf, other = (torch.zeros(1, 2, requires_grad=True) for _ in range(2))
    goal = torch.tensor([[1.0, -3.0]])
    descend([leaf], lambda: (leaf - goal).square().sum(1), 6, 0.1)
    descend(
        [other], lambda: (other - goal).square().sum(1), 6, 0.1, 0.1, 0.5, (0.9, 0.99), None, None,
        [1.0], 0.0,
    )  # fmt: skip
    assert torch.equal(leaf, other)


def test_what_the_loss_hardly_feels_hardly_moves() -> None:
    leaf = torch.zeros(2, 2, requires_grad=True)
    slope = torch.tensor([[1.0, 0.01], [100.0, 1.0]])
    descend([leaf], lambda: (leaf * slope).sum(1), 1, 0.1, 0.0, 0.0, soft=0.3)
    size = slope.square().mean(1, keepdim=True).sqrt()
    expected = -0.1 * slope / (slope + 0.3 * size)
    assert close(leaf.detach(), expected, rtol=1e-4)
    even = torch.zeros(2, 2, requires_grad=True)
    descend([even], lambda: (even * slope).sum(1), 1, 0.1, 0.0, 0.0)
    assert close(even.detach(), torch.full((2, 2), -0.1), rtol=1e-3)


def test_a_descent_may_stop_before_an_update() -> None:
    leaf = torch.ones(1, 1, requires_grad=True)
    told: list[int] = []
    ended = descend(
        [leaf], lambda: leaf.square().sum(1), 50, 0.1, 0.0, 0.0,
        stop=lambda values: float(values) < 0.5, progress=lambda: told.append(1),
    )  # fmt: skip
    assert float(ended.losses) < 0.5 and float(leaf.detach() ** 2) == float(ended.losses)
    assert 1 < len(told) < 50


def test_a_face_that_diverges_goes_back_alone() -> None:
    """The other one moves as if it were by itself; what all share goes back for all."""
    leaf = torch.tensor([1.0, 1.3]).view(2, 1, 1).requires_grad_()
    shared = torch.zeros(3, requires_grad=True)
    alone = torch.tensor([1.3]).view(1, 1, 1).requires_grad_()
    calls = 0

    def loss() -> Tensor:
        nonlocal calls
        calls += 1
        value = leaf.square().sum((1, 2))
        broken = value[0] / (0.0 if calls == 3 else 1.0)
        return torch.stack([broken, value[1]]) + 0 * shared.sum()

    before: list[Tensor] = []
    ended = descend(
        [leaf], loss, 6, 0.1, 0.0, 0.0, stop=lambda v: before.append(leaf.detach().clone()) or False
    )
    descend([alone], lambda: alone.square().sum((1, 2)), 6, 0.1, 0.0, 0.0)
    assert ended.diverged.tolist() == [True, False]
    assert torch.equal(leaf[:1], before[1][:1])  # where its loss was finite last
    assert close(ended.losses[:1], before[1][:1, 0, 0] ** 2)
    assert close(leaf[1:].detach(), alone.detach(), rtol=1e-6, atol=1e-7)
    calls = 0
    ended = descend([leaf, shared], loss, 6, 0.1)
    assert ended.diverged.tolist() == [True, False] and shared.isfinite().all()
    assert ended.told() == {"loss": ended.losses.tolist(), "diverged": [True, False]}


def test_the_last_update_must_be_finite() -> None:
    leaf = torch.ones(2, 1, requires_grad=True)
    ended = descend([leaf], lambda: leaf.square().sum(1), 1, math.inf)
    assert ended.diverged.all() and torch.equal(leaf.detach(), torch.ones(2, 1))
    both = torch.ones(3, requires_grad=True)  # of no face alone
    ended = descend([both], lambda: both.square().sum().expand(2), 1, math.inf)
    assert ended.diverged.all() and torch.equal(both.detach(), torch.ones(3))
    never = descend([leaf], lambda: leaf.sum(1) * math.nan, 2, 0.1)
    assert never.diverged.all() and never.told()["loss"] == [None, None]


def test_marks_and_steps() -> None:
    assert marks([False, False]) == {} and marks([0, 1]) == {"diverged": [False, True]}
    seen: list[tuple[int, int]] = []
    steps = Steps(lambda *at: seen.append(at), 4)
    steps(), steps()
    steps.finish()
    assert seen == [(1, 4), (2, 4), (4, 4)]
    steps(), steps(), steps.finish()
    assert seen[3:] == [(3, 4), (4, 4)]
    Steps(None, 3)()
    Steps(None, 3).finish()
    assert descent.Descended(torch.ones(1), torch.tensor([False])).told() == {"loss": [1.0]}
