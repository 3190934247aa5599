"""CNeRF against the official network and against the paper's plain formulation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import golden
import pytest
import torch
from published import to_published_cnerf
from tiny import SMALL_CNERF, TINY_CNERF, make_cnerf, random_cnerf_codes

from semedit import cameras, weights
from semedit.checkpoints import cnerf as published
from semedit.checkpoints import cnerf_keys as keys
from semedit.checkpoints.formats import Part, coverage
from semedit.errors import OptionError
from semedit.generators import build_generator
from semedit.generators.cnerf.cnerf import CNeRF
from semedit.generators.cnerf.config import PUBLISHED, CNeRFConfig
from semedit.generators.cnerf.march import WINDOWS, distances, march
from semedit.generators.cnerf.rays import Rays
from semedit.generators.parts import siren
from tests.benchmarks.cnerf_steps import textbook


@torch.no_grad()
def test_agrees_with_the_official_volume_renderer(shared: Path) -> None:
    facts = golden.read(shared, "cnerf-low-64")
    state = facts.state()
    cnerf = build_generator("cnerf", published.config(state), "golden")
    tensors = keys.from_published(state) | {"w_avg": torch.zeros(1, 1, 256)}
    weights.fill(cnerf, tensors, "golden")
    w = cnerf.mapping_network(facts.input("z"))[:, 0]
    facts.check("w", w[:, 0])
    pose = facts.input("extrinsics")
    cam2world = torch.eye(4)[None].repeat(1, 1, 1)
    cam2world[:, :3, :3] = pose[:, :, :3] * torch.tensor([1.0, -1.0, -1.0])
    cam2world[:, :3, 3] = pose[:, :, 3] * cameras.RADIUS
    zoom = float(facts.input("focal")) / 64 / cnerf.config.focal
    c = cameras.join(cam2world, cameras.split(cameras.orbit(0.0, 0.0, fx=zoom * cameras.FOCAL))[1])
    torch.testing.assert_close(c, cameras.orbit(-0.1, -0.05))  # azimuth 0.1, elevation 0.05
    ws = cnerf.spread((w + facts.input("dw")).unflatten(1, (9, 2)))
    found = cnerf.volume(cnerf.planes({"ws": ws}), c)
    for name, key in (("o1", "colour"), ("o2", "maps")):
        facts.check(name, found[key].view(1, 64, 64, -1).permute(0, 3, 1, 2), 1e-3)
    back = to_published_cnerf(cnerf.state_dict(), {k: tuple(v.shape) for k, v in state.items()})
    assert {k for k in state if k not in back} == {k for k in state if keys.UNUSED.fullmatch(k)}
    assert all(torch.equal(back[k], state[k]) for k in back)


def whole_file() -> dict[str, tuple[int, ...]]:
    """Names and shapes of a published file with stage 2 at 512 pixels, apart from the regions'."""
    found = {"renderer.sigmoid_beta": (1,), "feature_transfer.0.weight": (256, 128, 3, 3)}
    found["feature_transfer.1.bias"] = (256,)
    for i in range(3):
        found |= {f"style.{i}.weight": (256, 256), f"style.{i}.bias": (256,)}
    for i in range(1, 6):
        found[f"decoder.style.{i}.weight"] = (512, 256 if i == 1 else 512)
        found[f"decoder.style.{i}.bias"] = (512,)

    def modulated(name: str, inputs: int, outputs: int, side: int) -> None:
        found[f"{name}.conv.weight"] = (1, outputs, inputs, side, side)
        found[f"{name}.conv.modulation.weight"] = (inputs, 512)
        found[f"{name}.conv.modulation.bias"] = (inputs,)
        found[f"{name}.bias"] = (1, outputs, 1, 1)

    layers = [(256, 512), (512, 256), (256, 256), (256, 128), (128, 128), (128, 64), (64, 64)]
    for i, (inputs, outputs) in enumerate(layers):
        name = f"decoder.convs.{i - 1}" if i else "decoder.conv1"
        modulated(name, inputs, outputs, 3)
        found |= {f"{name}.noise.weight": (1,), f"{name}.activate.bias": (outputs,)}
        found[f"decoder.noises.noise_{i}"] = (1, 1, *[64 * 2 ** ((i + 1) // 2)] * 2)
        if i % 2:
            found[f"{name}.conv.blur.kernel"] = (4, 4)
        if i % 2 == 0:
            for kind, maps in (("rgb", 3), ("seg", 9)):
                name = f"decoder.to_{kind}1" if i == 0 else f"decoder.to_{kind}s.{i // 2 - 1}"
                modulated(name, outputs, maps, 1)
                if i:
                    found[f"{name}.upsample.kernel"] = (4, 4)
    return found


def test_every_tensor_of_a_whole_file_is_accounted_for(shared: Path) -> None:
    state = golden.read(shared, "cnerf-low-64").facts["state"]
    shapes = whole_file() | {k: tuple(v["shape"]) for k, v in state.items()}
    assert len(shapes) == 489
    file = {k: torch.zeros(v) for k, v in shapes.items()}
    config = published.config(file)
    assert config["up"] == [512, 256, 128, 64] and config["neural"] == 64
    tensors = keys.from_published(file) | {"w_avg": torch.zeros(1, 1, 256)}
    found = coverage(Part("cnerf", config, tensors | {"up_avg": torch.zeros(512)}))
    assert not found.complaints and not found.unknown
    back = to_published_cnerf(tensors, shapes)
    left = {k for k in shapes if k not in back}
    assert left == {k for k in shapes if keys.UNUSED.fullmatch(k) or keys.FILTERS.search(k)}


@pytest.mark.parametrize("remember", [True, False])
@pytest.mark.parametrize("trained", [True, False])
def test_gradients_are_those_of_ordinary_operations(remember: bool, trained: bool) -> None:
    torch.manual_seed(0)
    sines = siren.Sines(3, 5, 16, 8).requires_grad_(trained)
    ws = torch.randn(1, 3, 5, 8, requires_grad=True)
    early, late = (torch.randn(3, n, 16, requires_grad=True) for n in (1, 4))
    points = torch.rand(700, 3) * 2 - 1
    leaves = [ws, early, late, *(sines.parameters() if trained else ())]
    sights = []
    for function in (siren.plain, siren.evaluate):
        gamma, beta = (x[0] for x in sines.modulation(ws))
        field = siren.RegionField(gamma, beta, sines.layers(), early, late, 3)
        options = (remember, True) if function is siren.evaluate else ()
        outputs = function(field, points, *options)
        torch.manual_seed(1)
        # Some points move nothing: they are left out.
        seen = (torch.arange(700) < 200)[:, None]
        loss = sum((x * seen * torch.randn_like(x)).sum() for x in outputs)
        sights.append([loss.detach(), *torch.autograd.grad(loss, leaves)])
    for theirs, ours in zip(*sights, strict=True):
        assert float((ours - theirs).norm()) <= 2e-4 * float(theirs.norm())


def test_sines_are_sines() -> None:
    x = torch.linspace(-300, 300, 10_001)
    assert float((siren.sine(x, torch.empty_like(x)) - x.sin()).abs().max()) < 1e-6
    g, sums = torch.ones(1, 10_001, 1), torch.zeros(1, 2, 1)
    siren.slope(g, x.view(1, -1, 1).contiguous(), sums)
    assert float((g.flatten() - x.cos()).abs().max()) < 1e-6
    expected = torch.stack([x.cos().sum(), (x * x.cos()).sum()])
    torch.testing.assert_close(sums.flatten(), expected, atol=0.1, rtol=1e-3)


def test_distances_start_as_a_sphere() -> None:
    config = replace(SMALL_CNERF, windows=True)
    torch.manual_seed(0)
    cnerf = CNeRF(config)
    planes, points = cnerf.planes({"ws": random_cnerf_codes(cnerf)}), torch.randn(50, 3) / 10
    face = cnerf.local.field({k: v[0] for k, v in planes.items()})
    sphere = points.norm(dim=1) - config.depth * 0.6
    torch.testing.assert_close(distances(cnerf, face, points), sphere)


def test_the_background_lies_in_the_picture() -> None:
    """It is what it is at each pixel, from wherever a face is seen."""
    cnerf = make_cnerf(replace(SMALL_CNERF, windows=True, neural=8, sphere=0.1, beta=0.001))
    with torch.no_grad():
        cnerf.local.sdf.weight.zero_(), cnerf.local.sdf.bias.zero_()
        cnerf.local.mask.weight[..., -3:] = 0  # no part of masks or colours is linear in the view
        cnerf.local.feature.weight[..., -3:] = 0
    codes = {"ws": random_cnerf_codes(cnerf)}
    views = [cnerf.synthesis(codes, cameras.orbit(yaw, 0.0)).image for yaw in (0.0, 0.5)]
    corner = [view[..., :2, :2] for view in views]
    torch.testing.assert_close(*corner, atol=1e-4, rtol=1e-3)
    assert float(corner[0].detach().std()) > 1e-3


WINDOWED = replace(SMALL_CNERF, windows=True, beta=0.01)


@pytest.mark.parametrize(
    "config", [TINY_CNERF, SMALL_CNERF, WINDOWED], ids=["published", "small", "windowed"]
)
def test_is_the_plain_formulation(config: CNeRFConfig) -> None:
    cnerf, c = make_cnerf(config), cameras.orbit(0.2, -0.1)
    sights = []
    for plain in (True, False):
        ws = random_cnerf_codes(cnerf).requires_grad_(True)
        if plain:
            colour, maps = textbook(cnerf, ws, c)
        else:
            found = cnerf.volume(cnerf.planes({"ws": ws}), c)
            colour, maps = found["colour"][0], found["maps"][0]
        loss = colour.square().mean() + maps.square().mean()
        sights.append([colour.detach(), maps.detach(), *torch.autograd.grad(loss, [ws])])
    for theirs, ours in zip(*sights, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-3)


def test_what_is_hidden_is_left_out() -> None:
    config = replace(SMALL_CNERF, neural=8, samples=32, beta=0.002)
    exact, quick = make_cnerf(config), make_cnerf(replace(config, skip_weight=1e-3))
    codes, c = {"ws": random_cnerf_codes(exact)}, cameras.orbit(0.1, 0.0)
    first, second = exact.synthesis(codes, c), quick.synthesis(codes, c)
    assert float((first.image - second.image).detach().abs().max()) < 0.02
    assert not torch.equal(first.image, second.image)


def test_a_regions_texture_moves_no_surface_and_no_label() -> None:
    cnerf, c = make_cnerf(SMALL_CNERF), cameras.orbit(0.1, 0.0)
    codes, donor = ({"ws": x[None]} for x in random_cnerf_codes(cnerf, 2))
    other = cnerf.exchange(codes, donor, ["face"], "texture")
    first, second = (cnerf.synthesis(x, c) for x in (codes, other))
    assert torch.equal(first.seg, second.seg) and torch.equal(first.depth, second.depth)
    assert not torch.equal(first.image, second.image)


def test_regions_are_exchanged() -> None:
    cnerf = make_cnerf(SMALL_CNERF)
    codes, donor = ({"ws": x[None]} for x in random_cnerf_codes(cnerf, 2))
    both = cnerf.exchange(codes, donor, ["hair", "eye"])["ws"]
    for index, name in enumerate(cnerf.regions):
        source = donor if name in ("hair", "eye") else codes
        assert torch.equal(both[:, index], source["ws"][:, index])
    shape = cnerf.exchange(codes, donor, ["face"], "shape")["ws"]
    assert torch.equal(shape[:, 1, 3:], codes["ws"][:, 1, 3:])
    assert torch.equal(shape[:, 1, :3], donor["ws"][:, 1, :3])
    for regions, part in ((["beard"], "both"), (["face"], "colour")):
        with pytest.raises(OptionError):
            cnerf.exchange(codes, donor, regions, part)


def test_small_regions_stay_in_their_windows() -> None:
    cnerf = make_cnerf(replace(SMALL_CNERF, windows=True))
    codes, c = {"ws": random_cnerf_codes(cnerf)}, cameras.orbit(0.0, 0.0)
    maps = cnerf.volume(cnerf.planes(codes), c)["maps"][0].view(6, 6, -1)
    eye = cnerf.regions.index("eye")
    assert (maps[[0, -1]][..., eye] == 0).all() and (maps[..., eye] != 0).any()
    assert set(WINDOWS) >= {"eye", "glasses", "mouth"}


def test_left_and_right_are_told_apart() -> None:
    cnerf = make_cnerf()
    maps, left = torch.zeros(1, 9, 2, 2), torch.full((1, 9, 2, 2), 0.5)
    maps[:, 0], maps[:, 0, 0] = 1, 0
    maps[:, PUBLISHED.index("brow"), 0] = 1
    left[:, PUBLISHED.index("brow"), 0] = torch.tensor([0.0, 1.0])
    labels = cnerf.logits(maps, left).argmax(1)[0]
    assert labels.tolist() == [[7, 6], [0, 0]]


def test_distances_and_their_slope() -> None:
    for config in (TINY_CNERF, SMALL_CNERF, replace(SMALL_CNERF, windows=True)):
        cnerf, c = make_cnerf(config), cameras.orbit(0.0, 0.0)
        planes = cnerf.planes({"ws": random_cnerf_codes(cnerf)})
        found = cnerf.volume(planes, c)["distances"][0]
        rays = Rays.of(c, config, None, False).of_views(0, 1)
        points = rays.points().flatten(0, 1).requires_grad_(True)
        face = cnerf.local.field({k: v[0] for k, v in planes.items()})
        again = distances(cnerf, face, points)
        if not config.windows:  # whose background is at the end of the rays alone
            torch.testing.assert_close(again.view_as(found), found, atol=1e-4, rtol=1e-3)
        (slope,) = torch.autograd.grad(again.sum(), points, create_graph=True)
        slope.square().sum().backward()
        assert cnerf.local.sdf.weight.grad.abs().sum() > 0


def test_stage_2_keeps_nothing_and_has_the_same_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    cnerf, c = make_cnerf(replace(TINY_CNERF, up=(6, 5))), cameras.orbit(0.0, 0.0)
    found = []
    for again in (False, True):
        if not again:
            monkeypatch.setattr("semedit.generators.cnerf.cnerf._again", march)
        else:
            monkeypatch.undo()
        ws = random_cnerf_codes(cnerf).requires_grad_(True)
        codes = {"ws": ws, "up": torch.zeros(1, cnerf.stage2.num_ws, 512)}
        image = cnerf.synthesis(codes, c).image
        assert image.shape == (1, 3, 12, 12)
        found.append(torch.autograd.grad(image.square().sum(), ws)[0])
    torch.testing.assert_close(found[0], found[1])
