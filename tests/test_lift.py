"""Lifting: what pixels write into the planes, its training and its inversion, term by term."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_trainers import SmallHeads, write_heads
from tiny import small_eg3d, small_stylegan2, small_triplane, touched
from torch import Tensor

from semedit import cameras, latents, metrics, weights
from semedit.errors import LatentError, OptionError, TraitError, WeightsError
from semedit.generators import Output, load_generator
from semedit.generators.parts import volume
from semedit.generators.triplane import lifting
from semedit.generators.triplane.lifting import LiftConfig, LiftNet, load_lift, others, surface
from semedit.generators.triplane.triplane import Triplane
from semedit.inverters import Hybrid, Lift, usual, usual_for
from semedit.inverters.tuning import Tuning
from semedit.latents import PLANES, TunedGenerator
from semedit.trainers import lift as training
from semedit.trainers.lift import LiftTask, LiftTrainer, seen_as
from semedit.trainers.loop import Schedule, train


def small_config(generator: Triplane) -> LiftConfig:
    return replace(LiftConfig.of(generator), widths=(8, 8), plane_widths=(8, 8), written=2)


def small_net(generator: Triplane, seed: int = 1, moved: float = 0.1) -> LiftNet:
    """A network whose planes move by about `moved`."""
    torch.manual_seed(seed)
    network = LiftNet(small_config(generator))
    for last in (network.shape, network.texture, network.behind):
        torch.nn.init.normal_(last.weight, std=moved)
    return network


def faces(n: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    numbers = torch.Generator().manual_seed(1)
    images = torch.rand(n, 3, 16, 16, generator=numbers) * 2 - 1
    labels = torch.randint(0, 19, (n, 16, 16), generator=numbers)
    return images, labels, cameras.orbit(torch.linspace(-0.3, 0.2, n), 0.1)


# Planes that are written into -----------------------------------------------------------------


def test_splat_is_the_transpose_of_lookup() -> None:
    numbers = torch.Generator().manual_seed(0)
    points = torch.rand(50, 3, generator=numbers) * 2.4 - 1.2  # some lie outside
    face = torch.randint(0, 2, (50,), generator=numbers)
    values = torch.randn(50, 4, generator=numbers)
    table = torch.randn(2, 3, 5, 6, 4, generator=numbers)
    written = volume.splat(values, points, face, (2, 5, 6))
    sums = written[..., :-1] * written[..., -1:]
    read = 3 * volume.lookup(table, points, face)  # the mean of three planes
    assert torch.isclose((sums * table).sum(), (values * read).sum(), rtol=1e-4)


def test_a_cell_has_the_mean_of_what_reached_it() -> None:
    at = torch.tensor([[-0.5, -0.5, -0.5], [-0.5, -0.5, -0.5], [0.5, 0.5, 0.5]])
    values = torch.tensor([[1.0], [3.0], [7.0]])
    written = volume.splat(values, at, torch.zeros(3, dtype=torch.int64), (1, 2, 2))
    assert torch.equal(written[0, :, 0, 0], torch.tensor([[2.0, 2.0]] * 3))
    assert torch.equal(written[0, :, 1, 1], torch.tensor([[7.0, 1.0]] * 3))
    assert torch.equal(written[0, :, 0, 1], torch.zeros(3, 2))


def test_splat_gives_its_gradient_to_the_values() -> None:
    numbers = torch.Generator().manual_seed(0)
    points = torch.rand(6, 3, generator=numbers) * 2 - 1
    face = torch.tensor([0, 0, 0, 1, 1, 1])
    values = torch.randn(6, 2, generator=numbers, requires_grad=True)
    weight = torch.randn(2, 3, 4, 4, 3, generator=numbers)
    (gradient,) = torch.autograd.grad(
        (volume.splat(values, points, face, (2, 4, 4)) * weight).sum(), values
    )
    for i, j in ((0, 0), (4, 1)):
        step = torch.zeros(6, 2)
        step[i, j] = 1.0  # linear in the values
        more, less = (
            (volume.splat(values.detach() + sign * step, points, face, (2, 4, 4)) * weight).sum()
            for sign in (0.5, -0.5)
        )
        assert torch.isclose(gradient[i, j], more - less, rtol=1e-3, atol=1e-4)


def test_splat_is_the_same_without_the_compiled_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = torch.Generator().manual_seed(0)
    points, values = torch.rand(20, 3, generator=numbers) * 2 - 1, torch.randn(20, 2)
    face = torch.zeros(20, dtype=torch.int64)
    compiled = volume.splat(values, points, face, (1, 4, 4))
    monkeypatch.setattr(volume, "_find", volume.find_rows)
    rows, shares = volume.find_rows(points, face, 4, 4)
    plain = torch.zeros(48, 3)
    ones = torch.cat([values, torch.ones(20, 1)], 1)
    for point in range(20):
        for row, share in zip(rows[point], 3 * shares[point], strict=True):
            plain[row] += share * ones[point]
    mean = plain[:, :-1] / plain[:, -1:].clamp(min=1e-3)
    assert torch.allclose(compiled.view(48, 3), torch.cat([mean, plain[:, -1:]], 1), atol=1e-5)


def test_planes_see_what_the_others_know_of_their_axes() -> None:
    """A function of one coordinate alone is seen from both planes that have it."""
    side = 4
    x, y, z = (torch.arange(side) * scale for scale in (1.0, 10.0, 100.0))
    xy = x[None, :] + y[:, None]  # rows along H
    xz = x[None, :] + z[:, None]
    zy = z[None, :] + y[:, None]
    found = others(torch.stack([xy, xz, zy])[:, None])
    mean = {"x": x.mean(), "y": y.mean(), "z": z.mean()}
    assert torch.allclose(found[0, 0], (x + mean["z"])[None].expand(side, -1))
    assert torch.allclose(found[0, 1], (y + mean["z"])[:, None].expand(-1, side))
    assert torch.allclose(found[1, 0], (x + mean["y"])[None].expand(side, -1))
    assert torch.allclose(found[1, 1], (z + mean["y"])[:, None].expand(-1, side))
    assert torch.allclose(found[2, 0], (z + mean["x"])[None].expand(side, -1))
    assert torch.allclose(found[2, 1], (y + mean["x"])[:, None].expand(-1, side))


def drawn_as(depth: float, opacity: Tensor) -> Output:
    n, _, side, _ = opacity.shape
    return Output(
        torch.zeros(n, 3, 2 * side, 2 * side),
        torch.zeros(n, 19, 2 * side, 2 * side),
        torch.full((n, 1, side, side), depth),
        opacity,
    )


def test_pixels_write_where_their_surface_is() -> None:
    opacity = torch.ones(1, 1, 8, 8)
    opacity[..., 4:] = 0.0  # the right half shows nothing
    c = cameras.orbit(0.3, -0.1)
    points, solid = surface(drawn_as(2.5, opacity), c, 8)
    eye = cameras.split(c)[0][:, None, :3, 3]
    away = (points - eye).norm(dim=-1).view(8, 8)
    assert solid.view(8, 8)[:, :4].all() and not solid.view(8, 8)[:, 4:].any()
    assert torch.allclose(away[:, :4], torch.tensor(2.5))
    # Of an empty ray the point nearest to the origin: at a right angle to it.
    _, directions = cameras.rays(c, 8)
    across = (points * directions).sum(-1).view(8, 8)
    assert across[:, 4:].abs().max() < 1e-5
    uv, _ = cameras.project(points, c)
    grid = (torch.arange(8) + 0.5) / 8
    assert torch.allclose(uv[0, :, 0].view(8, 8), grid[None].expand(8, -1), atol=1e-4)
    assert torch.allclose(uv[0, :, 1].view(8, 8), grid[:, None].expand(-1, 8), atol=1e-4)


def test_the_background_writes_nothing() -> None:
    generator = small_triplane()
    network = small_net(generator)
    images, labels, c = faces(1)
    drawn = drawn_as(2.7, torch.zeros(1, 1, 8, 8))
    network.requires_grad_(False)
    seen = network._seen(images, labels, drawn)
    nothing = network._written(seen, images, labels * 0, c, drawn, 1.0)
    assert not nothing.any()
    labels = torch.zeros_like(labels)
    labels[:, 7:9, 7:9] = 1  # in the middle: four pixels
    some = network._written(seen, images, labels, c, drawn, 1.0)
    assert some[..., -1].sum() == pytest.approx(3 * 4, rel=1e-3)  # each once in each plane
    lacked = some[..., -4:-1][some[..., -1] > 0]
    assert torch.isfinite(lacked).all()
    shown = images[:, :, 7:9, 7:9].mean()  # what is written is the photograph and what it lacks
    weight = some[..., -1:]
    for part in (some[..., -7:-4], some[..., -4:-1]):
        assert (part * weight).sum() / (3 * weight.sum()) == pytest.approx(float(shown), abs=1e-4)


def test_the_network_moves_nothing_at_the_start() -> None:
    generator = small_triplane()
    torch.manual_seed(0)
    network = LiftNet(small_config(generator))
    images, labels, c = faces()
    with torch.no_grad():
        planes = generator.planes({"ws": torch.randn(2, generator.num_ws, 12)})
        added = network(images, labels, c, planes, generator.render(planes, c), 1.0)
    for name, value in added.items():
        assert value.shape == planes[name].shape and value.abs().max() < 0.02


def test_faces_of_a_batch_are_lifted_apart() -> None:
    generator = small_triplane()
    network = small_net(generator)
    images, labels, c = faces()
    with torch.no_grad():
        planes = generator.planes({"ws": torch.randn(2, generator.num_ws, 12)})
        drawn = generator.render(planes, c)
        both = network(images, labels, c, planes, drawn, 1.0)
        one = {k: v[:1] for k, v in planes.items()}
        first = Output(drawn.image[:1], drawn.seg[:1], drawn.depth[:1], drawn.opacity[:1])
        alone = network(images[:1], labels[:1], c[:1], one, first, 1.0)
    for name, value in alone.items():
        assert torch.allclose(value, both[name][:1], atol=1e-4)


# Cameras ----------------------------------------------------------------------------------------


def test_cameras_are_carried_with_an_error() -> None:
    true, seen, other = (
        cameras.from_six(torch.tensor([six]))
        for six in (
            [0.2, 0.1, 0.02, 0.0, 0.01, 0.0],
            [0.25, 0.05, 0.0, 0.1, 0.0, 0.02],
            [-0.3, 0.1, 0.0, 0.05, 0.0, 0.0],
        )
    )
    assert torch.allclose(cameras.carried(true, true, seen), seen, atol=1e-5)
    assert torch.allclose(cameras.carried(other, true, true), other, atol=1e-5)
    there = cameras.carried(other, true, seen)
    between = [
        torch.linalg.inv(cameras.split(a)[0]) @ cameras.split(b)[0]
        for a, b in ((true, other), (seen, there))
    ]
    assert torch.allclose(*between, atol=1e-5)
    (k, k_true, k_seen, k_there) = (cameras.split(x)[1][0] for x in (other, true, seen, there))
    for axis in (0, 1):
        grown = k_seen[axis, axis] / k_true[axis, axis]
        assert torch.isclose(k_there[axis, axis], k[axis, axis] * grown)
        moved = k_seen[axis, 2] - k_true[axis, 2]
        assert torch.isclose(k_there[axis, 2], k[axis, 2] + moved)


# Training ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny generator with an encoder beside it."""
    folder = tmp_path_factory.mktemp("small")
    data = write_heads(folder / "heads")
    train(SmallHeads(), data, folder / "run", Schedule(kimg=0.002), quiet=True)
    return folder / "run" / "small.safetensors"


@pytest.fixture
def task(weights_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LiftTask:
    monkeypatch.setattr(training, "LiftNet", lambda config: small_net(GENERATOR))
    trainer = LiftTrainer(
        generator=str(weights_file),
        batch_size=2,
        estimated=0.0,
        recoloured=0.0,
        coarse=0.0,
        device="cpu",
    )
    return trainer.start(write_heads(tmp_path / "heads"))


GENERATOR = small_triplane()


def test_each_term_of_a_step(task: LiftTask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values, weights, which view is seen and which camera sees what is drawn."""
    batch = task.batch(torch.tensor([0, 1]))
    seen: list[Any] = []

    def lift(network: Any, images: Tensor, labels: Tensor, c: Tensor) -> tuple[Any, Output]:
        seen.append((images, labels, c))
        return real(network, images, labels, c)

    real = task.lift
    monkeypatch.setattr(task, "lift", lift)
    shown: list[Any] = []
    render = task.generator.render

    def rendered(planes: Any, c: Tensor, neural: int | None = None, **options: Any) -> Output:
        output = render(planes, c, neural)  # without the samples' jitter
        if "jitter" in options:
            shown.append((c, output))
        return output

    monkeypatch.setattr(task.generator, "render", rendered)
    updates: list[Tensor] = []
    monkeypatch.setattr(task, "_update", updates.append)
    terms = task.step(batch, 1.0)
    images, labels, c = seen[0]
    assert (images - batch.images[:, 0]).abs().mean() < 0.03
    assert torch.equal(labels, labels.clamp(0, 18)) and labels.shape == batch.labels[:, 0].shape
    away = cameras.to_six(c) - cameras.to_six(batch.c[:, 0])
    assert 0 < away.abs().max() < 0.2
    cameras_, output = shown[0]
    assert torch.allclose(cameras_, seen_as(batch.c, c).flatten(0, 1))
    assert torch.allclose(cameras_[::2], c, atol=1e-4)
    total = torch.zeros(())
    for view, name in ((0, "own"), (1, "other")):
        value = torch.zeros(())
        for picture, weight in ((output, 1.0), (output.low, task.trainer.low)):
            true = batch.images[:, view]
            factor = true.shape[-1] // picture.image.shape[-1]
            true = F.avg_pool2d(true, factor)
            ids = batch.labels[:, view, factor // 2 :: factor, factor // 2 :: factor]
            off = picture.image[view::2] - true
            part = (off.abs() * task.weights[ids][:, None]).mean()
            edges = off.diff(dim=3).abs().mean() + off.diff(dim=2).abs().mean()
            label = F.cross_entropy(picture.seg[view::2], ids, task.class_weights)
            value = value + weight * (part + 0.5 * edges + 0.1 * label)
        assert terms[name] == pytest.approx(float(value), rel=1e-4)
        total = total + value
    assert float(updates[0]) == pytest.approx(float(total), rel=1e-4)
    assert touched(updates[0], task.network)


def test_the_other_view_counts_by_its_weight(
    task: LiftTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = task.batch(torch.tensor([0, 1]))
    monkeypatch.setattr(task, "_update", lambda loss: None)
    found = []
    for weight in (1.0, 0.25):
        task.trainer = replace(task.trainer, other=weight)
        torch.manual_seed(3)
        found.append(task.step(batch, 1.0))
    assert found[1]["other"] == pytest.approx(0.25 * found[0]["other"], rel=1e-4)
    assert found[1]["own"] == pytest.approx(found[0]["own"], rel=1e-4)


def test_regions_get_other_colours_in_all_views(task: LiftTask) -> None:
    """What has one label and one colour in two views has one colour in both afterwards."""
    batch = task.batch(torch.tensor([0, 1]))
    flat = (batch.labels[:, :, None] * 0.7 - 0.4).expand(-1, -1, 3, -1, -1)
    batch = replace(batch, images=flat)
    assert torch.equal(task._recoloured(batch).images, batch.images)
    task.trainer = replace(task.trainer, recoloured=1.0)
    found = task._recoloured(batch)
    assert torch.equal(found.labels, batch.labels) and torch.equal(found.c, batch.c)
    assert (found.images - batch.images).abs().mean() > 0.02
    for head in range(2):
        for label in (0, 1):
            own = [
                found.images[head, view][:, batch.labels[head, view] == label] for view in (0, 1)
            ]
            assert torch.allclose(own[0].mean(1), own[1].mean(1), atol=1e-3)
            assert own[0].std(1).max() < 1e-3


def test_only_the_network_learns(task: LiftTask) -> None:
    before = latents.fingerprint(task.generator), latents.fingerprint(task.encoder)
    network = {k: v.clone() for k, v in task.network.state_dict().items()}
    task.step(task.batch(torch.tensor([0, 1])), 1.0)
    assert before == (latents.fingerprint(task.generator), latents.fingerprint(task.encoder))
    assert any(not torch.equal(v, network[k]) for k, v in task.network.state_dict().items())


def test_estimates_are_the_face_network_s_in_their_part_of_the_steps(
    task: LiftTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = task.batch(torch.tensor([0, 1]))
    told = batch.labels[:, 0] * 0, cameras.orbit(torch.zeros(2), 0.0)
    monkeypatch.setattr(training, "estimates", lambda images: told)
    task.trainer = replace(task.trainer, estimated=1.0)
    assert task._estimates(batch.images[:, 0], batch) is told
    task.trainer = replace(task.trainer, estimated=0.0)
    assert task._estimates(batch.images[:, 0], batch)[1] is not told[1]


def test_training_learns_and_its_file_inverts(
    weights_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "LiftNet", lambda config: LiftNet(small_config(GENERATOR)))
    data = write_heads(tmp_path / "heads")
    trainer = LiftTrainer(
        generator=str(weights_file), batch_size=2, estimated=0.0, lr=0.01, device="cpu"
    )
    schedule = Schedule(kimg=0.1, warmup_steps=1, ema_steps=1)
    figures = train(trainer, data, tmp_path / "run", schedule, quiet=True)
    assert figures["own_db"] > figures["codes_db"] + 0.5
    file = tmp_path / "run" / "lift-small.safetensors"
    generator = load_generator(str(weights_file))
    network = load_lift(str(file), generator)
    assert asdict(network.config) == asdict(small_config(GENERATOR)) | {"generator": "small"}
    again = replace(trainer, start_from=str(file)).start(data)
    for name, value in again.network.state_dict().items():
        assert torch.allclose(value, network.state_dict()[name], atol=1e-3)


def test_what_cannot_be_trained_is_told(weights_file: Path, tmp_path: Path) -> None:
    data = write_heads(tmp_path / "heads")
    arrays = dict(np.load(data / "arrays.npz"))
    np.savez(data / "arrays.npz", **{k: v[:, :1] if k == "c" else v for k, v in arrays.items()})
    with pytest.raises(OptionError, match="one view"):
        LiftTrainer(generator=str(weights_file)).start(data)


# Inversion --------------------------------------------------------------------------------------


def write_lift(
    folder: Path, network: LiftNet, name: str = "small", kind: str = "lift", **more: str
) -> Path:
    about = {"licence": "MIT", "command": "none", "seed": "0", "data": "none", "figures": "{}"}
    config = asdict(replace(network.config, generator=name))
    path = folder / "lift-small.safetensors"
    facts = about | {"kind": kind, "config": json.dumps(config)} | more
    weights.save(path, network.state_dict(), facts)
    return path


@pytest.fixture
def generator(weights_file: Path) -> Triplane:
    found = load_generator(str(weights_file))
    assert isinstance(found, Triplane)
    return found


def test_inversion_is_what_the_network_says(generator: Triplane, tmp_path: Path) -> None:
    network = small_net(generator)
    file = write_lift(tmp_path, network)
    images, labels, c = faces()
    found = Lift(network=str(file), tune_steps=0)(generator, images, labels, c)
    assert found.method == "lift"
    with torch.no_grad():
        codes = generator.encode(images, labels, c)
        planes = generator.planes(codes)
        added = network(images, labels, c, planes, generator.render(planes, c), 1.0)
    assert torch.allclose(found.codes["ws"], codes["ws"], atol=1e-6)
    assert found.tuned is not None and set(found.tuned) == {PLANES + k for k in added}
    for name, value in added.items():
        assert torch.allclose(found.tuned[PLANES + name].float(), value, atol=2e-3)
    shown = latents.synthesize(generator, found)
    moved = {k: planes[k] + v for k, v in added.items()}
    there = generator.render(generator.settled({**planes, **moved}), c)
    assert torch.allclose(shown.image, there.image, atol=2e-2)
    assert (shown.image - generator.render(planes, c).image).abs().max() > 0.05


def test_steps_go_on_from_there(generator: Triplane, tmp_path: Path) -> None:
    file = write_lift(tmp_path, small_net(generator, moved=0.03))
    images, labels, c = faces()
    errors = []
    for steps in (0, 1, 12):
        inverter = Lift(network=str(file), tune_steps=steps, perceptual="none")
        shown = latents.synthesize(generator, inverter(generator, images, labels, c)).image
        errors.append(-float(metrics.psnr(shown, images).mean()))
    assert errors[2] < errors[1] < errors[0]


def test_the_planes_that_are_tuned_hold_what_was_added_before(generator: Triplane) -> None:
    """One step of no length: the differences are those of the beginning."""
    images, _, c = faces()
    codes = {"ws": torch.randn(2, generator.num_ws, 12)}
    begin = {PLANES + "shape": 0.3 * torch.randn(2, 3, 16, 16, 4)}
    seen: list[Tensor] = []

    def loss(output: Output) -> Tensor:
        seen.append(output.image.detach())
        return (output.image - images).square().flatten(1).mean(1)

    found, _ = Tuning(1, 0.0)(generator, codes, c, loss, begin=begin)
    assert torch.allclose(found[PLANES + "shape"], begin[PLANES + "shape"])
    assert not found[PLANES + "texture"].any()
    tuned = TunedGenerator(generator, begin)
    assert torch.allclose(seen[0], tuned.render(tuned.planes(codes), c).image, atol=1e-5)


def test_weights_are_tuned_beside_what_was_added(generator: Triplane) -> None:
    images, _, c = faces(1)
    codes = {"ws": torch.randn(1, generator.num_ws, 12)}
    begin = {PLANES + "shape": 0.3 * torch.randn(1, 3, 16, 16, 4)}
    seen: list[Tensor] = []

    def loss(output: Output) -> Tensor:
        seen.append(output.image.detach())
        return (output.image - images).square().flatten(1).mean(1)

    layers = "planes.shape,texture_decoder.*"
    found, _ = Tuning(1, 0.0, layers)(generator, codes, c, loss, begin=begin)
    assert torch.allclose(found[PLANES + "shape"], begin[PLANES + "shape"])
    tuned = TunedGenerator(generator, begin)
    assert torch.allclose(seen[0], tuned.synthesis(codes, c).image, atol=1e-5)


def test_tuned_planes_are_settled(generator: Triplane) -> None:
    """Density that was added is marched through, also where the codes alone have none."""
    codes = {"ws": torch.zeros(1, generator.num_ws, 12)}
    added = {PLANES + "shape": 5.0 * torch.randn(1, 3, 16, 16, 4)}
    planes = TunedGenerator(generator, added).planes(codes)
    assert torch.allclose(planes["density"], generator.density(planes["shape"]))
    assert not torch.allclose(planes["density"], generator.planes(codes)["density"])


def test_the_default_is_the_first_that_suits(
    generator: Triplane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lifting where there is a network for the generator, hybrid where there is an encoder."""
    monkeypatch.setenv("SEMEDIT_WEIGHTS", str(tmp_path))
    assert usual("small", generator.traits) == "hybrid"
    assert isinstance(usual_for(generator), Hybrid)
    write_lift(tmp_path, small_net(generator))
    assert usual("small", generator.traits) == "lift" and isinstance(usual_for(generator), Lift)
    assert usual("another", generator.traits) == "hybrid"
    for name, traits, expected in (
        ("small", small_stylegan2().traits, "pivotal"),
        ("small", generator.traits - {"encode"}, "pivotal"),
    ):
        assert usual(name, traits) == expected


def test_what_cannot_be_lifted_is_told(generator: Triplane, tmp_path: Path) -> None:
    images, labels, c = faces()
    file = write_lift(tmp_path, small_net(generator), name="another")
    with pytest.raises(LatentError, match="another"):
        Lift(network=str(file))(generator, images, labels, c)
    lifting._load.cache_clear()
    file = write_lift(tmp_path, small_net(generator), made_for="0" * 64)
    with pytest.raises(LatentError, match="other weights"):
        Lift(network=str(file))(generator, images, labels, c)
    file = write_lift(tmp_path, small_net(generator), kind="encoder")
    lifting._load.cache_clear()
    with pytest.raises(WeightsError, match="lifts no faces"):
        Lift(network=str(file))(generator, images, labels, c)
    with pytest.raises(WeightsError, match="lift-small"):
        Lift()(generator, images, labels, c)
    for other in (small_stylegan2(), small_eg3d()):
        side = other.resolution
        with pytest.raises(TraitError, match="lift"):
            Lift()(other, torch.zeros(1, 3, side, side), torch.zeros(1, side, side).long(), c[:1])
