"""GRAM and SemFaceEdit's generator: surfaces, sines, masking, compositing, files."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import golden
import pytest
import torch
from tiny import SMALL_SURFACES, small_gram, small_manifolds
from torch import Tensor, nn

from semedit import cameras, weights
from semedit.checkpoints import examine
from semedit.checkpoints import gram as gram_file
from semedit.errors import OptionError, ShapeError, WeightsError
from semedit.generators import load_generator
from semedit.generators.surfaces import intersections, shells
from semedit.generators.surfaces.films import Films, evaluate
from semedit.generators.surfaces.gram import GRAM, GRAMConfig
from semedit.generators.surfaces.intersections import Intersections, Lens, Surfaces, composite
from semedit.generators.surfaces.manifolds import CLUBS, Manifolds, club_numbers
from semedit.latents import TunedGenerator
from semedit.media.labels import LABELS, REGIONS
from tests.benchmarks.gram_steps import textbook

C = cameras.orbit(torch.tensor([0.2, -0.3]), 0.1)


# Sines -------------------------------------------------------------------------------------------


def slowly(
    layers: list[tuple[Tensor, Tensor]], reads: Tensor, x: Tensor, counts: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """`evaluate` by ordinary operations."""
    first, found, last = len(layers) - len(reads), [], []
    for group, h in enumerate(x.split(list(counts))):
        y = torch.zeros(len(h), reads.shape[3])
        for layer, (matrix, offset) in enumerate(layers):
            h = (h @ matrix[group] + offset[group]).sin()
            if layer >= first:
                y = y + h @ reads[layer - first, group]
        found.append(y)
        last.append(h)
    return torch.cat(found), torch.cat(last)


@pytest.mark.parametrize("remember", [True, False])
@pytest.mark.parametrize("own", [True, False])
def test_sines_of_groups_and_their_gradients(remember: bool, own: bool) -> None:
    torch.manual_seed(0)
    films = Films(3 if own else 1, 4, 3, 16, 1 / 3)
    gamma = (5 * torch.randn(3, 4, 16) + 30).requires_grad_()
    beta = torch.randn(3, 4, 16, requires_grad=True)
    reads = torch.randn(2, 3, 16, 5, requires_grad=True)
    x, counts = torch.randn(50, 3, requires_grad=True), (20, 0, 30)
    chosen = torch.arange(3) if own else None
    found = evaluate(films.folded(gamma, beta, chosen), reads, x, counts, remember, hidden=True)
    wanted = slowly(films.folded(gamma, beta, chosen), reads, x, counts)
    of = [gamma, beta, reads, x, *films.parameters()]
    weigh = [torch.randn_like(part) for part in found]
    slopes = [
        torch.autograd.grad(sum((a * b).sum() for a, b in zip(parts, weigh, strict=True)), of)
        for parts in (found, wanted)
    ]
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    for a, b in zip(*slopes, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4 * float(b.detach().abs().max()))


# Surfaces ----------------------------------------------------------------------------------------


def surfaces(**options: Any) -> Intersections:
    torch.manual_seed(0)
    return Intersections(Surfaces.of(SMALL_SURFACES | options), Lens(8, cameras.FOCAL))


@torch.no_grad()
def test_rays_meet_spheres_where_spheres_are() -> None:
    """Samples are far apart, but the distance from a centre is nearly linear along a ray."""
    meetings = surfaces(samples=40)(C[:1])
    away = meetings.points * 2 / 0.24 - torch.tensor(SMALL_SURFACES["centre"])
    levels = torch.linspace(25.0, 12.0, 4)
    found = 10 * away.norm(dim=-1)
    front = meetings.valid & ~meetings.behind
    assert float(front.float().mean()) > 0.4
    nearest = (found[..., None] - levels).abs().amin(-1)
    assert float(nearest[front].max()) < 0.02
    assert torch.allclose(meetings.points[meetings.behind][:, 2], torch.tensor(-0.12))
    assert (meetings.distance.diff(dim=1) >= 0).all() and meetings.valid[meetings.behind].all()


def test_intersections_by_a_loop() -> None:
    """The first two neighbours whose values enclose a level, the value linear between them."""
    one = surfaces(sphere=False)
    nn.init.normal_(one.out.weight, 1.0, 1.0)
    origins, directions = (x[0] for x in one.lens.rays(C[:1]))
    with torch.no_grad():
        meetings = one.meet(origins, directions)
        t = torch.linspace(0.85, 1.15, 12)
        s = one.values(origins[:, None] + t[:, None] * directions[:, None])
    for ray in range(0, 64, 7):
        wanted = []
        for level in torch.linspace(25.0, 12.0, 4):
            for i in range(11):
                if s[ray, i] >= level >= s[ray, i + 1]:
                    part = (s[ray, i] - level) / (s[ray, i] - s[ray, i + 1])
                    wanted.append(float(t[i] + part * (t[i + 1] - t[i])))
                    break
        front = meetings.valid[ray] & ~meetings.behind[ray]
        assert sorted(wanted) == pytest.approx(meetings.distance[ray][front].tolist(), abs=1e-5)


def test_intersections_are_found_once_per_view(monkeypatch: pytest.MonkeyPatch) -> None:
    one, calls = surfaces().requires_grad_(False), []
    meet = one.meet
    monkeypatch.setattr(one, "meet", lambda *rays: calls.append(1) or meet(*rays))
    first = one(C[:1])
    assert one(C[:1].clone()) is first and len(calls) == 1
    one(C[1:])
    assert len(calls) == 2 and one(C[:1]) is first
    with torch.no_grad():
        one.out.bias.add_(0.5)  # other surfaces
    assert one(C[:1]) is not first and len(calls) == 3
    one.requires_grad_(True)
    assert one(C[:1]).points.requires_grad  # they learn


def test_compositing_stops_light() -> None:
    alpha = torch.tensor([[0.5, 0.0, 0.5, 1.0], [1.0, 0.3, 0.0, 1.0]])
    expected = torch.tensor([[0.5, 0.0, 0.25, 0.25], [1.0, 0.0, 0.0, 0.0]])
    torch.testing.assert_close(composite(alpha), expected, atol=1e-6, rtol=0)


# The generator -----------------------------------------------------------------------------------


def test_every_label_is_in_one_club() -> None:
    together = [name for regions in CLUBS.values() for name in regions]
    assert sorted(together) == sorted(set(REGIONS) - {"face"})
    numbers = club_numbers(tuple(CLUBS))
    assert numbers[LABELS.index("hat")] == numbers[LABELS.index("hair")] != numbers[0]


def test_masking_takes_the_likeliest_club() -> None:
    generator = small_manifolds(clubs=tuple(CLUBS))
    labels = torch.zeros(2, len(LABELS))
    labels[0, LABELS.index("hair")] = 0.4
    labels[0, [LABELS.index("l_eye"), LABELS.index("l_brow")]] = 0.3  # clubbed, they are 0.6
    labels[1, LABELS.index("u_lip")] = 1.0
    found = [generator.clubs[club] for club in generator.club(labels)]
    assert found == ["eyes", "mouth"]


@torch.no_grad()
def test_a_clubs_latent_changes_that_club_alone() -> None:
    generator = small_manifolds()
    codes, other = (generator.mapping(torch.randn(1, 6), C[:1]) for _ in range(2))
    before = generator.synthesis(codes, C[:1])
    taken = generator.borrow(codes, other, ("skin", "nose", "ears", "neck"))
    assert torch.equal(taken["appearance"][:, :, 0], codes["appearance"][:, :, 0])
    after = generator.synthesis(taken, C[:1])
    assert torch.equal(before.seg, after.seg)  # geometry stays
    assert not torch.allclose(before.image, after.image)
    none = generator.borrow(codes, other, ("skin",))  # a part of a club is not enough
    assert torch.equal(none["appearance"], codes["appearance"])


@torch.no_grad()
def test_latents_of_clubs_are_apart_or_one() -> None:
    generator = small_manifolds(apart=True)
    assert generator.z_dim == 18
    z = torch.randn(2, 18)
    w, each = generator.styles(z)
    changed = z.clone()
    changed[:, 12:] += 1  # the last club's
    again = generator.styles(changed)
    assert torch.equal(w, again[0]) and torch.equal(each[:, 0], again[1][:, 0])
    assert not torch.equal(each[:, 1], again[1][:, 1])
    one = small_manifolds(apart=False)
    assert one.z_dim == 6
    w, each = one.styles(z[:, :6])
    assert torch.equal(each[:, 0], each[:, 1])
    longer = one.styles(torch.cat([z[:, :6]] * 3, 1))
    torch.testing.assert_close(longer[1], each)
    with pytest.raises(ShapeError):
        one.mapping(torch.randn(1, 7), C[:1])


@pytest.mark.parametrize("sharing", ["none", "proposed", "all"])
@torch.no_grad()
def test_what_clubs_share(sharing: Any) -> None:
    generator = small_manifolds(sharing=sharing)
    films, read = generator.appearance.films.weights[1], generator.appearance.read
    assert (len(films), read.shape[1]) == {"none": (2, 2), "proposed": (1, 2), "all": (1, 1)}[
        sharing
    ]
    codes = generator.mapping(torch.randn(2, 6), C)
    image = generator.synthesis(codes, C).image
    assert torch.isfinite(image).all()
    # One style for all clubs need not be repeated.
    one = {**codes, "appearance": codes["appearance"][:, :, :1]}
    torch.testing.assert_close(generator.synthesis(one, C).image, image, rtol=1e-4, atol=1e-5)


def test_other_choices_are_refused() -> None:
    with pytest.raises(OptionError):
        small_manifolds(sharing="some")
    with pytest.raises(OptionError):
        small_manifolds(clubs=("background", "beard"))


def test_parts_of_a_picture_are_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither chunks nor memory change what is seen, or its gradient."""
    generator = small_manifolds()
    codes = generator.mapping(torch.randn(1, 6), C[:1])

    def run() -> list[Tensor]:
        leaves = {k: v.detach().clone().requires_grad_() for k, v in codes.items()}
        output = generator.synthesis(leaves, C[:1])
        total = output.image.square().sum() + output.seg.square().sum()
        return [output.image, *torch.autograd.grad(total, list(leaves.values()))]

    whole = run()
    generator.intersections._kept.clear()
    monkeypatch.setattr(intersections, "PART", 30)
    monkeypatch.setattr(shells, "RAYS", 50)
    monkeypatch.setattr(shells, "MEMORY", 0)
    for a, b in zip(whole, run(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4 * float(b.detach().abs().max()))


def test_training_sees_what_is_rendered() -> None:
    generator = small_manifolds()
    codes = generator.mapping(torch.randn(2, 6), C)
    planes = generator.planes(codes)
    pixels = torch.stack([torch.randperm(256)[:20] for _ in range(2)])
    found = generator.volume(planes, C, pixels, learn=True)
    whole = generator.render(planes, C).image.flatten(2).transpose(1, 2)
    chosen = whole.gather(1, pixels[:, :, None].expand(-1, -1, 3))
    torch.testing.assert_close(2 * found["colour"] - 1, chosen, rtol=1e-3, atol=1e-4)
    found["colour"].sum().backward()
    assert float(generator.intersections.layers[0].bias.grad.abs().sum()) >= 0
    assert generator.intersections.out.weight.grad is not None  # surfaces learn from colours


def test_tuning_reaches_both_modules() -> None:
    generator = small_manifolds().requires_grad_(False)
    codes = generator.mapping(torch.randn(1, 6), C[:1])
    moved = {"appearance.bias": torch.full((2, 3), 5.0)}
    tuned = TunedGenerator(generator, moved).synthesis(codes, C[:1]).image
    assert float((tuned - generator.synthesis(codes, C[:1]).image).mean()) > 0.2


def test_wrong_codes_are_refused() -> None:
    for generator in (small_gram(), small_manifolds()):
        codes = dict(generator.mean_codes())
        codes["ws"] = codes["ws"][:, :2]
        with pytest.raises(ShapeError):
            generator.planes(codes)


# Checkpoints -------------------------------------------------------------------------------------


def published(width: int = 12) -> dict[str, Tensor]:
    """Random weights under the published names, small but for what names say."""
    numbers = torch.Generator().manual_seed(0)
    found = {}
    for name in gram_file.NAMES:
        stem, kind = name.rsplit(".", 1)
        mapping = "mapping_network" in stem
        inputs = 8 if "sample" in stem or mapping else width
        outputs = 8 if "sample" in stem or mapping else width
        if stem.endswith(("sample_network.network.0", "rf_network.network.0.layer")):
            inputs = 3
        if "color_layer" in stem:
            inputs = width + 3
        if stem.endswith("output_layer") or "output_sigma" in stem:
            outputs = 1
        if "output_color" in stem:
            outputs = 3
        if stem.endswith("mapping_network.network.6"):
            outputs = 2 * 9 * width
        shape = (outputs, inputs) if kind == "weight" else (outputs,)
        found[name] = 0.3 * torch.randn(shape, generator=numbers)
    return found


@pytest.fixture
def averages(monkeypatch: pytest.MonkeyPatch) -> type:
    """torch_ema's class, as far as a pickle knows it."""
    made = types.ModuleType("torch_ema.ema")

    class ExponentialMovingAverage:
        pass

    ExponentialMovingAverage.__module__ = "torch_ema.ema"
    ExponentialMovingAverage.__qualname__ = "ExponentialMovingAverage"
    made.ExponentialMovingAverage = ExponentialMovingAverage  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch_ema", types.ModuleType("torch_ema"))
    monkeypatch.setitem(sys.modules, "torch_ema.ema", made)
    return ExponentialMovingAverage


@torch.no_grad()
def test_gram_checkpoints_by_name_and_averages_by_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, averages: type
) -> None:
    monkeypatch.setenv("SEMEDIT_WEIGHTS", str(tmp_path / "weights"))
    tensors = published()
    torch.save(tensors, tmp_path / "generator.pth")
    mean: Any = averages()
    mean.__dict__ |= {"decay": 0.999, "num_updates": 3, "collected_params": []}
    mean.shadow_params = [2 * tensor for tensor in tensors.values()]
    torch.save(mean, tmp_path / "ema.pth")
    plan = examine(tmp_path / "generator.pth")
    assert plan.format.name == "GRAM"
    plan.write("mine")
    generator = load_generator("mine")
    assert isinstance(generator, GRAM) and generator.w_avg.abs().sum() > 0
    codes = generator.mapping(torch.zeros(1, 8), C[:1])
    phase = generator.planes(codes)["beta"].flatten()
    last = tensors[f"{gram_file.FIELD}mapping_network.network.6.bias"][9 * 12 :]
    w = codes["ws"][0, 0] @ tensors[f"{gram_file.FIELD}mapping_network.network.6.weight"].T
    torch.testing.assert_close(phase, w[9 * 12 :] + last)
    examine(tmp_path / "ema.pth").write("averaged")
    averaged = load_generator("averaged")
    torch.testing.assert_close(averaged.read_colour, 2 * generator.read_colour)


def test_gram_of_other_scenes_is_refused(tmp_path: Path) -> None:
    tensors = published()
    stem = f"{gram_file.SURFACES}output_layer.weight"
    tensors[stem] = torch.zeros(1, 256)
    torch.save(tensors, tmp_path / "cars.pth")
    with pytest.raises(WeightsError, match="not those of faces"):
        examine(tmp_path / "cars.pth")


def test_published_names_stand_in_the_order_of_parameters(shared: Path) -> None:
    assert list(golden.read(shared, "gram-64").facts["state"]) == list(gram_file.NAMES)


def test_sizes_survive_a_file(tmp_path: Path) -> None:
    config = small_manifolds(sharing="all").config
    path = tmp_path / "small.safetensors"
    import json
    from dataclasses import asdict

    metadata = {"kind": "manifolds", "config": json.dumps(asdict(config))}
    weights.save(path, small_manifolds(sharing="all").state_dict(), metadata)
    loaded = load_generator(str(path))
    assert isinstance(loaded, Manifolds) and loaded.config == config
    assert GRAMConfig().surfaces == Surfaces.of(asdict(Surfaces()))


@torch.no_grad()
def test_gram_by_the_textbook() -> None:
    generator = small_gram()
    ws = generator.mapping(torch.randn(1, 6), C[:1])["ws"]
    found = generator.synthesis({"ws": ws}, C[:1]).image.flatten(2)[0].t()
    torch.testing.assert_close(found, textbook(generator, ws, C[:1]), rtol=1e-3, atol=1e-4)
