"""Camera labels: conventions as numbers, round trips, projection against rays."""

import math

import pytest
import torch

from semedit import cameras


def test_frontal_camera_is_the_eg3d_label():
    cam2world, k = cameras.split(cameras.orbit(0.0, 0.0))
    assert torch.allclose(cam2world[0, :3, :3], torch.diag(torch.tensor([1.0, -1.0, -1.0])))
    assert torch.allclose(cam2world[0, :3, 3], torch.tensor([0.0, 0.0, 2.7]))
    assert torch.allclose(k[0], torch.tensor([[4.2647, 0, 0.5], [0, 4.2647, 0.5], [0, 0, 1]]))


@pytest.mark.parametrize(
    ("view", "axis", "sign"),
    [((0.3, 0.0), 0, 1), ((-0.3, 0.0), 0, -1), ((0.0, 0.3), 1, -1), ((0.0, -0.3), 1, 1)],
)
def test_positive_yaw_points_right_and_positive_pitch_points_up(view, axis, sign):
    nose = torch.tensor([[[0.0, 0.0, 0.3]]])
    uv, _ = cameras.project(nose, cameras.orbit(*view))
    assert (uv[0, 0, axis] - 0.5) * sign > 0.02


def test_positive_roll_is_clockwise():
    crown = torch.tensor([[[0.0, 0.3, 0.0]]])
    uv, _ = cameras.project(crown, cameras.orbit(0.0, 0.0, 0.3))
    assert uv[0, 0, 0] > 0.55


def random_six(n: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, 6, generator=generator) * torch.tensor([0.5, 0.3, 0.4, 0.2, 0.1, 0.1])


def test_six_numbers_round_trip():
    six = random_six(50)
    assert torch.allclose(cameras.to_six(cameras.from_six(six)), six, atol=2e-5)


def test_rays_hit_the_points_that_project_on_their_pixels():
    c = cameras.from_six(random_six(3))
    origins, directions = cameras.rays(c, 8)
    points = origins + 2.5 * directions
    uv, depth = cameras.project(points, c)
    steps = (torch.arange(8) + 0.5) / 8
    v, u = torch.meshgrid(steps, steps, indexing="ij")
    expected = torch.stack([u.flatten(), v.flatten()], -1).expand(3, -1, -1)
    assert torch.allclose(uv, expected, atol=1e-5)
    assert (depth > 2).all()


def test_crop_moves_every_projected_point_by_the_similarity():
    c = cameras.from_six(random_six(4))
    points = torch.randn(4, 20, 3, generator=torch.Generator().manual_seed(1)) * 0.2
    scale, rotation = torch.tensor([0.8, 1.1, 1.3, 0.9]), torch.tensor([0.1, -0.2, 0.3, 0.0])
    shift = torch.tensor([[0.1, 0.0], [0.0, -0.1], [0.05, 0.02], [0.0, 0.0]])
    before, _ = cameras.project(points, c)
    after, _ = cameras.project(points, cameras.crop(c, scale, rotation, shift))
    sin, cos = rotation.sin(), rotation.cos()
    matrix = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], 1)
    expected = scale[:, None, None] * (before - 0.5) @ matrix.transpose(1, 2) + 0.5 + shift[:, None]
    assert torch.allclose(after, expected, atol=1e-5)


def test_turn_keeps_the_crop_and_roll():
    c = cameras.from_six(random_six(4))
    turned = cameras.to_six(cameras.turn(c, yaw=0.2, pitch=-0.1))
    six = cameras.to_six(c)
    assert torch.allclose(turned[:, 2:], six[:, 2:], atol=2e-5)
    assert torch.allclose(turned[:, :2] - six[:, :2], torch.tensor([0.2, -0.1]), atol=2e-5)


def test_swing_is_a_closed_loop_bounded_by_its_angles():
    c = cameras.swing(cameras.orbit(0.2, 0.1), frames=36, yaw=0.4)
    yaw = cameras.angles(c)[:, 0]
    assert yaw.abs().max() == pytest.approx(0.4, abs=1e-4)
    steps = torch.diff(torch.cat([yaw, yaw[:1]]))
    assert steps.abs().max() < 0.4 * 2 * math.pi / 36 + 1e-4
