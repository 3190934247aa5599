"""`eval views`: its figures where the answer is known."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from tiny import SMALL_CNERF, make_cnerf, small_manifolds, small_stylegan2

from semedit import cameras
from semedit.errors import OptionError, TraitError
from semedit.evaluations.views import ViewsEvaluation, change, reprojection
from semedit.generators import Output

SIDE = 32


def plane(yaw_deg: float, tint: float = 0.0, zoom: float = 1.0) -> Output:
    """A flat picture at z = 0 whose colour is the place: what every camera sees of it."""
    c = cameras.zoomed(cameras.aligned(torch.deg2rad(torch.tensor(yaw_deg))), zoom)
    origins, directions = cameras.rays(c, SIDE)
    depth = -origins[..., 2] / directions[..., 2]
    points = origins + directions * depth[..., None]

    def picture(x: torch.Tensor) -> torch.Tensor:
        return x.view(1, SIDE, SIDE, -1).permute(0, 3, 1, 2)

    seg = torch.zeros(1, 19, SIDE, SIDE)
    seg[:, 1] = 1
    return Output(picture(points) + tint, seg, picture(depth[..., None]))


@dataclass
class Nominal:
    """A generator of the label's own focal length, or another one."""

    zoom: float = 1.0


@pytest.mark.parametrize("zoom", [1.0, 1.1])
@pytest.mark.parametrize("yaw", [-30.0, 15.0, 30.0])
def test_a_rigid_surface_is_reprojected_onto_itself(yaw: float, zoom: float) -> None:
    front, side = plane(0.0, zoom=zoom), plane(yaw, zoom=zoom)
    error, share = reprojection(Nominal(zoom), front, side, yaw)
    assert error < 2e-3 and share > 0.8
    tinted, _ = reprojection(Nominal(zoom), front, plane(yaw, 0.2, zoom), yaw)
    assert tinted == pytest.approx(0.1, abs=5e-3)


def test_surfaces_are_seen_by_the_zoomed_camera() -> None:
    """What `reprojection` takes for the rays of a generator with another focal length."""
    generator = small_manifolds(focal=1.1 * cameras.FOCAL)
    c = cameras.aligned(0.3)
    origins, directions = cameras.rays(cameras.zoomed(c, generator.zoom), generator.resolution)
    own = generator.intersections.lens.rays(c)
    torch.testing.assert_close(own[0] * cameras.RADIUS, origins)
    torch.testing.assert_close(own[1], directions)


def test_surfaces_that_moved_do_not_count() -> None:
    moved = plane(30.0)
    assert moved.depth is not None
    away = Output(moved.image, moved.seg, moved.depth + 1)
    error, share = reprojection(Nominal(), plane(0.0), away, 30.0)
    assert share == 0 and error != error  # not a number


def test_change_is_measured_apart_from_the_region() -> None:
    before, after = plane(0.0), plane(0.0)
    assert before.seg is not None and after.seg is not None
    for view in (before, after):
        assert view.seg is not None
        view.seg[:, 13, :8] = 2
    after.image[:, :, :8] += 0.5
    outside, inside, labels = change(before, after, "hair")
    assert outside == 0 and inside == pytest.approx(0.25 * 8 / 9, abs=1e-3) and labels == 1


def test_all_parts_are_told_and_drawn() -> None:
    cnerf = make_cnerf(SMALL_CNERF)
    told: list[str] = []
    evaluation = ViewsEvaluation(faces=2, pairs=2)
    figures = evaluation(cnerf, lambda part, done, total: told.append(part))
    assert {"reprojection_15", "reprojection_30_seen", "diversity", "diversity_by"} <= set(figures)
    assert {"swap_outside", "swap_inside", "swap_labels", "swap_outside_hair"} <= set(figures)
    assert all(0 <= v <= 1 for k, v in figures.items() if k.startswith("swap_taken"))
    assert [len(row) for _, row in evaluation.rows] == [6, 6, 6, 6]  # the last ones label maps
    assert set(told) == {"views", "swaps"} and len(evaluation.rows) == 4
    assert evaluation.grid().ndim == 3
    bare = make_cnerf(replace(SMALL_CNERF, regions=("background", "face")))
    with pytest.raises(OptionError, match="none of hair"):
        ViewsEvaluation(("swaps",), pairs=1)(bare)
    for wrong in (ViewsEvaluation(("colours",)), ViewsEvaluation(faces=1)):
        with pytest.raises(OptionError):
            wrong(cnerf)
    with pytest.raises(TraitError, match="camera"):
        ViewsEvaluation()(small_stylegan2())
