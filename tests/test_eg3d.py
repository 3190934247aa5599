"""EG3D: its sampling and compositing against loops, its plane axes, its early ends, its files."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pickled import EasyDict, module, nvidia_modules  # noqa: F401
from tiny import SMALL_EG3D as SMALL
from tiny import small_eg3d
from torch import Tensor

from semedit import cameras
from semedit.checkpoints import eg3d as eg3d_file
from semedit.checkpoints import examine
from semedit.errors import OptionError, WeightsError
from semedit.generators import load_generator
from semedit.generators.parts import volume
from semedit.generators.triplane.eg3d import EG3D, concentrated, shares, spaced, weigh
from semedit.inverters import Optimize, Pivotal
from semedit.latents import synthesize


@torch.no_grad()
def test_a_ray_is_composited_as_a_loop_does_it() -> None:
    torch.manual_seed(0)
    t = torch.rand(3, 7).sort(1).values + 2
    sigma, colour = 4 * torch.randn(3, 7), torch.rand(3, 7, 2)
    weights, distance = weigh(t, sigma)
    order = torch.argsort(torch.rand(3, 7), 1)
    each = shares(weights, order)
    for ray in range(3):
        through, mixed, way = 1.0, torch.zeros(2), 0.0
        for i in range(6):
            density = F.softplus((sigma[ray, i] + sigma[ray, i + 1]) / 2 - 1)
            alpha = 1 - torch.exp(-density * (t[ray, i + 1] - t[ray, i]))
            mixed += through * alpha * (colour[ray, i] + colour[ray, i + 1]) / 2
            way += float(through * alpha * (t[ray, i] + t[ray, i + 1]) / 2)
            through *= float(1 - alpha)
        # Colours in the order in which they were made, before the samples were sorted.
        unsorted = torch.empty(7, 2)
        unsorted[order[ray]] = colour[ray]
        torch.testing.assert_close((each[ray, :, None] * unsorted).sum(0), mixed)
        assert float(distance[ray]) == pytest.approx(way, rel=1e-5)


def test_fine_samples_stand_where_the_weights_are() -> None:
    t = spaced(torch.zeros(1), torch.ones(1), 48, 0.0)
    weights = torch.zeros(1, 47)
    weights[0, 30] = 5.0
    found = concentrated(t, weights, 48)
    assert (found.diff(dim=1) >= 0).all()
    near = (found - float(t[0, 30:32].mean())).abs() < 1.6 / 47
    assert near.float().mean() > 0.8


def test_axes_say_where_a_point_is_looked_up() -> None:
    torch.manual_seed(0)
    planes, points = torch.randn(1, 3, 5, 5, 4), torch.rand(40, 3) * 2 - 1
    axes = ((0, 1), (0, 2), (2, 0))
    found = volume.lookup(planes, points, torch.zeros(40, dtype=torch.int64), axes)
    wanted = torch.zeros(40, 4)
    for i, pair in enumerate(axes):
        grid = points[None, None][..., list(pair)]
        maps = planes[:, i].permute(0, 3, 1, 2)
        wanted += F.grid_sample(maps, grid, align_corners=False)[0, :, 0].t() / 3
    torch.testing.assert_close(found, wanted)


@torch.no_grad()
def test_synthesis_ends_at_the_volume_or_at_a_block() -> None:
    generator = small_eg3d()
    codes, c = generator.mean_codes(), cameras.orbit(0.2, 0.1)
    low = generator.synthesis(codes, c).low
    early = generator.synthesis(codes, c, resolution=8)
    assert low is not None and torch.equal(early.image, low.image)
    assert generator.synthesis(codes, c, resolution=16).image.shape == (1, 3, 16, 16)
    with pytest.raises(OptionError, match="cannot end at 12"):
        generator.synthesis(codes, c, resolution=12)


def test_codes_descend_on_the_low_picture_first_then_planes_are_tuned() -> None:
    generator, c = small_eg3d().requires_grad_(False), cameras.orbit(0.2, 0.0)
    torch.manual_seed(3)
    target = generator.synthesis(generator.mapping(torch.randn(1, 6), c), c).image
    labels = torch.zeros(1, 32, 32, dtype=torch.int64)
    sides: list[int | None] = []
    render = generator.render

    def counted(planes: Any, c: Tensor, resolution: int | None = None) -> Any:
        sides.append(resolution)
        return render(planes, c, resolution)

    generator.render = counted  # type: ignore[method-assign]
    latent = Optimize(steps=8, coarse=8, perceptual="none")(generator, target, labels, c)
    assert sides == [8] * 6 + [None] * 2
    assert not torch.equal(latent.codes["ws"], generator.mean_codes()["ws"])
    tuned = Pivotal(pivot_steps=2, steps=3, layers="", perceptual="none")
    found = tuned(generator, target, labels, c)
    assert found.tuned is not None and set(found.tuned) == {"planes.features"}
    assert synthesize(generator, found).image.shape == (1, 3, 32, 32)


# Its files ----------------------------------------------------------------------------------------


def published(generator: EG3D) -> dict[str, Tensor]:
    """Under EG3D's names."""
    back = {new: old for old, new in eg3d_file.NAMES.items()}
    found = {}
    for key, value in generator.state_dict().items():
        for new, old in back.items():
            if key.startswith(new):
                key = old + key.removeprefix(new)
        found[key] = value
    return found


def matrices(axes: volume.Axes) -> Tensor:
    """plane_axes of pairs of coordinates."""
    found = torch.zeros(3, 3, 3)
    for i, (across, down) in enumerate(axes):
        for row, axis in enumerate((across, down, 3 - across - down)):
            found[i, row, axis] = 1
    return found


def write(generator: EG3D, path: Path, **settings: Any) -> Path:
    """As EG3D's training loop writes its snapshots; plain classes beside persistent ones."""
    config = generator.config
    rendering = EasyDict(
        depth_resolution=config.samples,
        depth_resolution_importance=config.fine,
        ray_start=config.near,
        ray_end=config.far,
        box_warp=config.box,
        c_scale=1,
        clamp_mode="softplus",
        disparity_space_sampling=False,
        superresolution_noise_mode="none",
    )
    network = module(
        "TriPlaneGenerator",
        published(generator),
        _init_kwargs=EasyDict(rendering_kwargs=EasyDict(depth_resolution=3)),
        rendering_kwargs=EasyDict(rendering | settings),
        neural_rendering_resolution=config.neural,
    )
    renderer = module("ImportanceRenderer", {}, plane_axes=matrices(generator.axes))
    network.meta["state"]["_modules"]["renderer"] = renderer
    network.meta["state"]["_modules"]["superresolution"].meta["state"]["input_resolution"] = (
        config.up_input
    )
    path.write_bytes(pickle.dumps({"G_ema": network, "D": None}, protocol=4))
    return path


@torch.no_grad()
@pytest.mark.parametrize("axes", [((0, 1), (0, 2), (2, 0)), ((0, 1), (0, 2), (2, 1))])
def test_a_pickle_keeps_its_axes_and_draws_the_same(
    axes: volume.Axes,
    nvidia: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SEMEDIT_WEIGHTS", str(tmp_path / "weights"))
    generator = small_eg3d(replace(SMALL, axes=axes, near=2.3, fine=5))
    generator.mapping_network.w_avg.normal_()
    plan = examine(write(generator, tmp_path / "ffhq.pkl"))
    assert plan.format.name == "EG3D" and not plan.coverages[0].complaints
    plan.write()
    assert not nvidia  # nothing in it ran
    found = load_generator("ffhq")
    c = cameras.orbit(0.3, -0.1)
    codes = generator.mapping(torch.randn(1, 6), c, 0.5)
    wanted = generator.synthesis(codes, c)
    torch.testing.assert_close(found.synthesis(codes, c).image, wanted.image)
    torch.testing.assert_close(found.mean_codes()["ws"], generator.mean_codes()["ws"])


def test_another_way_to_render_is_refused(
    nvidia: list[str],
    tmp_path: Path,
) -> None:
    path = write(small_eg3d(), tmp_path / "x.pkl", disparity_space_sampling=True)
    with pytest.raises(WeightsError, match="disparity_space_sampling"):
        examine(path)


@torch.no_grad()
def test_a_first_block_that_doubles_the_side(tmp_path: Path) -> None:
    generator = small_eg3d(replace(SMALL, up_input=8))
    image = generator.synthesis(generator.mean_codes(), cameras.orbit(0.0, 0.0)).image
    assert image.shape == (1, 3, 32, 32)
    with pytest.raises(OptionError, match="no super-resolution from 4"):
        EG3D(replace(SMALL, up_input=4))
