"""Contracts of every inverter, and what each one promises, on a tiny random generator."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tiny import FAST_INVERTERS, TinyFaceNet, TinyGenerator
from torch import Tensor

from semedit import latents, metrics, weights
from semedit.errors import OptionError, ShapeError, TraitError
from semedit.faces import networks
from semedit.inverters import INVERTERS, Hybrid, Optimize
from semedit.inverters.codes import Offsets, known_traits, spread
from semedit.inverters.descent import descend, schedule
from semedit.inverters.tuning import chosen
from semedit.options import build_method, options_of


@pytest.fixture(autouse=True)
def face_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    network = TinyFaceNet().eval().requires_grad_(False)
    monkeypatch.setattr(networks, "load", lambda name, device="cpu": network)
    yield


@pytest.fixture
def generator() -> TinyGenerator:
    return TinyGenerator().requires_grad_(False)


def faces(generator: TinyGenerator, n: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """Images, labels and cameras that the generator can draw."""
    codes, c = generator.sample(n, seed=5)
    with torch.no_grad():
        output = generator.synthesis(codes, c)
    return output.image, output.seg.argmax(1), c


def test_every_inverter_is_tested() -> None:
    assert {*FAST_INVERTERS, "lift"} == set(INVERTERS)  # lift: test_lift.py


@pytest.mark.parametrize("name", FAST_INVERTERS)
def test_contract(generator: TinyGenerator, name: str) -> None:
    images, labels, c = faces(generator)
    before = latents.fingerprint(generator)
    seen: list[tuple[int, int]] = []
    latent = FAST_INVERTERS[name](
        generator, images, labels, c, progress=lambda *at: seen.append(at)
    )
    latents.check(latent, generator)
    assert latent.method == name and torch.equal(latent.c, c)
    assert latent.meta["perceptual"] == "faces"
    assert len(latent.meta["loss"]) == 2
    assert not any(v.requires_grad for v in latent.codes.values())
    assert latents.fingerprint(generator) == before
    assert seen[-1][0] == seen[-1][1] == len(seen)


@pytest.mark.parametrize("name", FAST_INVERTERS)
def test_the_same_twice(generator: TinyGenerator, name: str) -> None:
    images, labels, c = faces(generator)
    first = FAST_INVERTERS[name](generator, images, labels, c)
    second = FAST_INVERTERS[name](generator, images, labels, c)
    assert torch.equal(first.codes["ws"], second.codes["ws"])


@pytest.mark.parametrize("name", FAST_INVERTERS)
def test_a_batch_is_its_faces(generator: TinyGenerator, name: str) -> None:
    images, labels, c = faces(generator)
    both = FAST_INVERTERS[name](generator, images, labels, c)
    one = FAST_INVERTERS[name](generator, images[1:], labels[1:], c[1:])
    assert torch.allclose(both[1].codes["ws"], one.codes["ws"], atol=1e-3)


@pytest.mark.parametrize("name", FAST_INVERTERS)
def test_other_sizes_are_refused(generator: TinyGenerator, name: str) -> None:
    images, labels, c = faces(generator)
    with pytest.raises(ShapeError, match="tiny"):
        FAST_INVERTERS[name](generator, images[..., :8, :8], labels, c)
    with pytest.raises(ShapeError):
        FAST_INVERTERS[name](generator, images, labels, c[:1])


@pytest.mark.parametrize("name", INVERTERS)
def test_options_are_read_from_text(name: str) -> None:
    for option in options_of(INVERTERS[name]):
        assert option.help, option.name
    built = build_method(INVERTERS[name], ["steps=7", "perceptual=faces"])
    assert built.steps == 7
    with pytest.raises(OptionError):
        build_method(INVERTERS[name], ["perceptual=vgg"])


@pytest.mark.parametrize("space", ["w", "w+"])
def test_optimize_recovers_its_own_sample(generator: TinyGenerator, space: str) -> None:
    images, labels, c = faces(generator)
    start = generator.synthesis(generator.mean_codes(), c).image
    method = Optimize(
        space=space, steps=250, lr=0.1, prior_weight=0, label_weight=0, perceptual="none"
    )
    latent = method(generator, images, labels, c)
    found = latents.synthesize(generator, latent).image
    near, far = metrics.psnr(found, images), metrics.psnr(start, images)
    assert near.min() > 35 and (near > far + 8).all()
    if space == "w":
        ws = latent.codes["ws"]
        assert torch.allclose(ws, ws[:, :1].expand_as(ws), atol=1e-5)


def test_tuning_brings_the_picture_nearer_and_only_where_declared(
    generator: TinyGenerator,
) -> None:
    images, labels, c = faces(generator, 1)
    images = images + 0.3  # what codes alone cannot draw
    plain = Hybrid(steps=20, tune_steps=0, perceptual="faces")(generator, images, labels, c)
    tuned = Hybrid(steps=20, tune_steps=60, tune_lr=2e-2, locality_weight=0, perceptual="faces")(
        generator, images, labels, c
    )
    assert plain.tuned is None and tuned.tuned is not None
    assert all(name.startswith("colour.") for name in tuned.tuned)
    first = metrics.psnr(latents.synthesize(generator, plain).image, images)
    second = metrics.psnr(latents.synthesize(generator, tuned).image, images)
    assert second > first + 3


def test_locality_keeps_other_views(generator: TinyGenerator) -> None:
    from semedit import cameras

    images, labels, c = faces(generator, 1)
    images = images + 0.3
    aside = cameras.turn(c, 0.4)
    change = []
    for weight in (0.0, 100.0):
        method = Hybrid(steps=2, tune_steps=40, tune_lr=2e-2, locality_weight=weight,
                        perceptual="faces")  # fmt: skip
        latent = method(generator, images, labels, c)
        tuned = latents.synthesize(generator, latent, aside).image
        plain = generator.synthesis(latent.codes, aside).image
        change.append(float((tuned - plain).abs().mean()))
    assert change[1] < 0.5 * change[0]


def test_hybrid_needs_an_encoder(generator: TinyGenerator) -> None:
    generator.traits = frozenset({"camera", "seg"})
    with pytest.raises(TraitError, match="tiny"):
        FAST_INVERTERS["hybrid"](generator, *faces(generator))


def test_the_hint_at_a_misfit_tells_what_is_on_the_disk(
    generator: TinyGenerator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEMEDIT_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(weights.rows, "DATA", tmp_path / "none")
    generator.traits = frozenset({"camera", "seg"})
    with pytest.raises(TraitError, match="no generator on this disk fits"):
        FAST_INVERTERS["hybrid"](generator, *faces(generator))
    tensors = {"w_avg": torch.zeros(2)}
    for name in ("with", "without"):
        facts = {"kind": "triplane", "encoder": f"{name}-encoder"}
        weights.save(tmp_path / f"{name}.safetensors", tensors, facts)
    weights.save(tmp_path / "with-encoder.safetensors", tensors, {"kind": "encoder"})
    (tmp_path / "damaged.safetensors").write_bytes(b"cut")
    assert {k: "encode" in v for k, v in known_traits().items()} == {"with": True, "without": False}
    with pytest.raises(TraitError, match=r"these fit: with\)"):
        FAST_INVERTERS["hybrid"](generator, *faces(generator))


def test_hybrid_starts_where_the_encoder_sees_the_face(generator: TinyGenerator) -> None:
    images, labels, c = faces(generator)
    latent = Hybrid(steps=0, tune_steps=0, perceptual="faces")(generator, images, labels, c)
    assert torch.allclose(latent.codes["ws"], generator.encode(images, labels, c)["ws"])


def test_patterns_choose_parameters(generator: TinyGenerator) -> None:
    assert chosen(generator, "shape.*, colour.2.bias") == {
        "shape.weight": (20, 6),
        "shape.bias": (20,),
        "colour.2.bias": (3,),
    }
    assert all(n.startswith("colour.") for n in chosen(generator, ""))
    with pytest.raises(OptionError, match="texture"):
        chosen(generator, "texture.*")
    generator.tunable = ()
    assert not any(n.startswith("mapping") for n in chosen(generator, ""))


@pytest.mark.parametrize(("layers", "steps"), [("planes.maps", 2 + 4), ("colour.*", 2 + 2 * 4)])
def test_planes_are_tuned_as_one_batch_and_weights_face_by_face(
    generator: TinyGenerator, layers: str, steps: int
) -> None:
    images, labels, c = faces(generator)
    seen: list[tuple[int, int]] = []
    method = Hybrid(steps=2, tune_steps=4, layers=layers, perceptual="none")
    method(generator, images, labels, c, progress=lambda *at: seen.append(at))
    assert seen[-1] == (steps, steps)


def test_planes_can_be_tuned(generator: TinyGenerator, tmp_path: Path) -> None:
    images, labels, c = faces(generator)
    method = Hybrid(steps=2, tune_steps=30, layers="planes.maps", locality_weight=0,
                    perceptual="faces")  # fmt: skip
    latent = method(generator, images, labels, c)
    assert latent.tuned is not None and set(latent.tuned) == {"planes.maps"}
    assert latent.tuned["planes.maps"].shape == (2, 3, 8, 8, 6)
    latents.check(latent, generator)
    latent.save(tmp_path / "face.safetensors")
    back = latents.load(tmp_path / "face.safetensors", generator)
    plain = metrics.psnr(generator.synthesis(latent.codes, c).image, images)
    tuned = latents.synthesize(generator, back)
    assert (metrics.psnr(tuned.image, images) > plain + 1).all()
    one = latents.tuned_generator(generator, back[0])
    rendered = one.render(one.planes(back[0].codes), c[:1])
    assert torch.allclose(rendered.image, tuned.image[:1], atol=1e-6)


def test_spread_is_the_deviation_of_codes(generator: TinyGenerator) -> None:
    codes = generator.sample(4000, seed=9)[0]["ws"]
    scale = spread(generator, generator.sample(1)[1])["ws"]
    assert scale.shape == (1, 3, 8)
    assert torch.allclose(scale[0], codes.std(0), rtol=0.15, atol=1e-3)


def test_offsets_reach_every_code_with_a_gradient(generator: TinyGenerator) -> None:
    codes, c = generator.sample(2)
    offsets = Offsets(codes, spread(generator, c))
    generator.synthesis(offsets.codes(), c).image.square().sum().backward()
    for leaf in offsets.leaves.values():
        assert leaf.grad is not None and (leaf.grad.flatten(1).abs().sum(1) > 0).all()
    with pytest.raises(OptionError):
        Offsets(codes, spread(generator, c), "z")


def test_schedule_rises_and_falls() -> None:
    rates = [schedule(i, 100, 0.1, 0.5) for i in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates[9:51] == [1.0] * 42
    assert rates[75] == pytest.approx(0.5) and rates[99] < 0.01


def test_adam_is_adam() -> None:
    ours, theirs = (torch.ones(2, 3).requires_grad_(True) for _ in range(2))
    weights = torch.tensor([1.0, 4.0, 0.1])
    descend([ours], lambda: (weights * ours.square()).sum(1), 20, 0.05, warmup=0, decay=0)
    adam = torch.optim.Adam([theirs], lr=0.05, betas=(0.9, 0.99))
    for _ in range(20):
        adam.zero_grad()
        (weights * theirs.square()).sum().backward()
        adam.step()
    assert torch.allclose(ours, theirs, atol=1e-6)


def test_what_is_hardly_felt_hardly_moves() -> None:
    felt = torch.tensor([[1e3, 0.1], [1.0, 1e-4]])  # the second face weighs a thousandth
    moved = []
    for soft in (0.0, 0.3):
        x = torch.zeros(2, 2, requires_grad=True)
        descend([x], lambda x=x: (felt * (x - 1).square()).sum(1), 10, 0.05, soft=soft)
        moved.append(x.detach())
    assert torch.allclose(moved[0][:, 0], moved[0][:, 1], rtol=1e-2)
    assert (moved[1][:, 1] < 0.01 * moved[1][:, 0]).all()
    assert torch.allclose(moved[1][0], moved[1][1], rtol=1e-3)  # faces are independent


def test_who_diverges_goes_back_to_the_last_finite_state_and_others_go_on() -> None:
    """The logarithm's argument leaves its range at the third step of the second face."""
    path: list[list[float]] = []

    def loss() -> torch.Tensor:
        path.append(x.detach()[:, 0].tolist())
        limit = torch.tensor([[-9.0], [0.25], [-9.0]])
        return ((x + 1).square() + 0 * (x - limit).sqrt()).sum(1)

    x = torch.zeros(3, 2)
    x[1] = 0.5
    x.requires_grad_()
    final = descend([x], loss, steps=8, lr=0.1, warmup=0, decay=0)
    assert final.diverged.tolist() == [False, True, False]
    assert bool(x.isfinite().all()) and bool(final.losses.isfinite().all())
    last = [state[1] for state in path if state[1] > 0.25][-1]
    assert float(x[1, 0].detach()) == pytest.approx(last) and last < 0.5
    assert float(x[0, 0].detach()) < -0.5 and torch.equal(x[0], x[2])
    assert final.told()["diverged"] == [False, True, False]


def test_a_last_step_that_is_not_finite_is_taken_back() -> None:
    x = torch.ones(1, requires_grad=True)
    final = descend([x], lambda: x * x.detach() * 1e30, steps=1, lr=float("inf"))
    assert final.diverged.tolist() == [True] and x.tolist() == [1.0]
    y = torch.full((2,), float("nan"), requires_grad=True)
    ended = descend([y], lambda: y.square(), steps=2, lr=0.1)
    assert ended.told() == {"loss": [None, None], "diverged": [True, True]}


def test_descend_finds_a_minimum_and_may_stop() -> None:
    x = torch.zeros(3, requires_grad=True)
    final = descend([x], lambda: (x - 1).square(), steps=300, lr=0.05)
    assert final.losses.shape == (3,) and final.losses.max() < 1e-4 and not final.diverged.any()
    count = 0

    def step() -> None:
        nonlocal count
        count += 1

    y = torch.zeros(1, requires_grad=True)
    descend([y], lambda: (y - 1).square(), 300, 0.05, stop=lambda v: bool(v < 0.5), progress=step)
    assert 0 < count < 50
