"""Cameras: the label c [N,25], views around a head, rays and projection. Angles in radians.

World (the head's own frame): x to the picture's right, y up, z out of the face, about
[-0.5, 0.5] for everything visible. Camera: x right, y down, z forward (OpenCV).

    c = [cam2world 4x4 row by row (16), intrinsics 3x3 row by row (9)]

with intrinsics in units of the picture's side: a point at camera coordinates (X, Y, Z) falls on
u = fx X/Z + cx, v = fy Y/Z + cy, both in [0, 1]. The camera looks at the origin from `RADIUS`.

    yaw > 0    the face points to the picture's right
    pitch > 0  the face points up
    roll > 0   the head is turned clockwise in the picture

An aligned crop is a similarity of the photograph, so it folds into c without loss: its rotation
becomes roll, its scale and shift become fx, cx and cy. Six numbers say it all:
six = (yaw, pitch, roll, log(fx / FOCAL), cx - 1/2, cy - 1/2).

Source: Chan et al. 2022 (EG3D), arXiv:2112.07945, supplement: label layout, radius and focal
length of aligned FFHQ crops.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

RADIUS = 2.7  # world units from the origin to the camera
# Aligned crops: their middle shows the point of the head's axis that lies so many picture sides
# before the origin, at this many times the focal length; measured on rendered heads.
FRONT, ZOOM = 0.31, 1.05
SLACK, FARTHEST = 0.01, 1000.0  # how far entries of c may be off, and how large they may be
FOCAL = 4.2647  # in sides of the picture: 13.4 degrees of view at the crop of an aligned face


def orbit(
    yaw: Tensor | float,
    pitch: Tensor | float,
    roll: Tensor | float = 0.0,
    fx: Tensor | float = FOCAL,
    cx: Tensor | float = 0.5,
    cy: Tensor | float = 0.5,
    radius: float = RADIUS,
) -> Tensor:
    """Camera label of a head seen at the given angles.

    Args:    yaw, pitch, roll: float or [N], radians. fx, cx, cy: float or [N], picture sides.
    Returns: c float32 [N,25].
    """
    values = [torch.as_tensor(v, dtype=torch.float32) for v in (yaw, pitch, roll, fx, cx, cy)]
    yaw_, pitch_, roll_, fx_, cx_, cy_ = torch.broadcast_tensors(*(v.reshape(-1) for v in values))
    sin_y, cos_y, sin_p, cos_p = yaw_.sin(), yaw_.cos(), pitch_.sin(), pitch_.cos()
    zero = torch.zeros_like(yaw_)
    # A face that points right is one seen from its left: azimuth = -yaw, elevation = -pitch.
    backward = torch.stack([-sin_y * cos_p, -sin_p, cos_y * cos_p], -1)
    right = torch.stack([cos_y, zero, sin_y], -1)
    down = torch.linalg.cross(right, backward)
    sin_r, cos_r = roll_.sin()[:, None], roll_.cos()[:, None]
    # Turning the camera by -roll about its axis turns the head clockwise in the picture.
    axes = [cos_r * right - sin_r * down, cos_r * down + sin_r * right, -backward]
    cam2world = torch.zeros(len(yaw_), 4, 4, device=yaw_.device)
    cam2world[:, :3, :3] = torch.stack(axes, -1)
    cam2world[:, :3, 3] = radius * backward
    cam2world[:, 3, 3] = 1
    return join(cam2world, intrinsics(fx_, cx_, cy_))


def intrinsics(fx: Tensor, cx: Tensor, cy: Tensor) -> Tensor:
    """Intrinsics [N,3,3] of square pixels from fx, cx, cy [N], in sides of the picture."""
    k = torch.zeros(len(fx), 3, 3, dtype=fx.dtype, device=fx.device)
    k[:, 0, 0] = k[:, 1, 1] = fx
    k[:, 0, 2], k[:, 1, 2], k[:, 2, 2] = cx, cy, 1
    return k


def join(cam2world: Tensor, k: Tensor) -> Tensor:
    """c [N,25] from cam2world [N,4,4] and intrinsics [N,3,3]."""
    return torch.cat([cam2world.flatten(1), k.flatten(1)], 1)


def split(c: Tensor) -> tuple[Tensor, Tensor]:
    """cam2world [N,4,4] and intrinsics [N,3,3] of c [N,25]."""
    return c[:, :16].reshape(-1, 4, 4), c[:, 16:].reshape(-1, 3, 3)


def proper(c: Tensor) -> Tensor:
    """Whether c [N,25] are cameras, bool [N]: a rotation, a place not far off, focal lengths above
    zero."""
    cam2world, k = split(c)
    rotation = cam2world[:, :3, :3]
    last = torch.tensor([0.0, 0.0, 0.0, 1.0]).to(c)
    turned = (rotation @ rotation.transpose(1, 2) - last.new_ones(3).diag()).abs() < SLACK
    focal = k.diagonal(dim1=1, dim2=2)[:, :2]
    alike = [
        turned.flatten(1).all(1) & (torch.linalg.det(rotation) > 0),
        ((cam2world[:, 3] - last).abs() < SLACK).all(1),
        ((k[:, 2] - last[1:]).abs() < SLACK).all(1) & (k[:, 1, 0].abs() < SLACK),
        (focal > 1 / FARTHEST).all(1) & (k.abs() < FARTHEST).flatten(1).all(1),
        (cam2world[:, :3, 3].abs() < FARTHEST).all(1),
    ]
    return torch.stack(alike).all(0)


def angles(c: Tensor) -> Tensor:
    """(yaw, pitch, roll) [N,3] in radians of c [N,25]; inverse of `orbit`."""
    rotation = split(c)[0][:, :3, :3]
    backward = -rotation[:, :, 2]
    yaw = torch.atan2(-backward[:, 0], backward[:, 2])
    pitch = -torch.asin(backward[:, 1].clamp(-1, 1))
    right = torch.stack([yaw.cos(), torch.zeros_like(yaw), yaw.sin()], -1)
    down = torch.linalg.cross(right, backward)
    roll = torch.atan2(
        (rotation[:, :, 1] * right).sum(-1),
        (rotation[:, :, 1] * down).sum(-1),
    )
    return torch.stack([yaw, pitch, roll], -1)


def to_six(c: Tensor) -> Tensor:
    """c [N,25] -> (yaw, pitch, roll, log(fx/FOCAL), cx - 1/2, cy - 1/2) [N,6]."""
    k = split(c)[1]
    crop = [(k[:, 0, 0] / FOCAL).log(), k[:, 0, 2] - 0.5, k[:, 1, 2] - 0.5]
    return torch.cat([angles(c), torch.stack(crop, -1)], -1)


def from_six(six: Tensor) -> Tensor:
    """Inverse of `to_six`: [N,6] -> c float32 [N,25]."""
    yaw, pitch, roll, log_f, dx, dy = six.float().unbind(-1)
    return orbit(yaw, pitch, roll, FOCAL * log_f.exp(), dx + 0.5, dy + 0.5)


def aligned(yaw: Tensor | float, pitch: Tensor | float = 0.0) -> Tensor:
    """Cameras c [N,25] of upright crops that are aligned to a face seen at these angles."""
    yaw_, pitch_ = (torch.as_tensor(v, dtype=torch.float32).reshape(-1) for v in (yaw, pitch))
    cx, cy = 0.5 - FRONT * yaw_.sin(), 0.5 + FRONT * pitch_.sin()
    return orbit(yaw_, pitch_, 0.0, ZOOM * FOCAL, cx, cy)


def canonical() -> Tensor:
    """The camera c [1,25] that sees faces from the front, as aligned crops show them."""
    return aligned(0.0)


def turn(c: Tensor, yaw: Tensor | float = 0.0, pitch: Tensor | float = 0.0) -> Tensor:
    """The same crop and roll seen from elsewhere: angles are added to those of c [N,25]."""
    six = to_six(c)
    by = torch.stack(
        [torch.as_tensor(v, dtype=six.dtype).expand(len(six)) for v in (yaw, pitch)], -1
    )
    return from_six(torch.cat([six[:, :2] + by, six[:, 2:]], -1)).to(c)


def carried(c: Tensor, true: Tensor, seen: Tensor) -> Tensor:
    """Cameras c of faces whose camera `true` is taken for `seen`, all [N,25], as that error has
    them: turned, enlarged and shifted by as much. carried(true, true, seen) is seen.

    A view next to another one is where it is by their difference, whatever the head's own axes
    are taken for.
    """
    pose, k = split(c)
    (before, k_before), (after, k_after) = split(true), split(seen)
    k = k.clone()
    for axis in (0, 1):
        k[:, axis, axis] *= k_after[:, axis, axis] / k_before[:, axis, axis]
        k[:, axis, 2] += k_after[:, axis, 2] - k_before[:, axis, 2]
    return join(after @ torch.linalg.inv(before) @ pose, k)


def mirrored(c: Tensor) -> Tensor:
    """Cameras of mirrored pictures: of the head mirrored at x = 0, where c [N,25] sees the head.

    Any camera, whether or not it looks at the head's centre.
    """
    cam2world, k = split(c)
    at_x = torch.diag(torch.tensor([-1.0, 1.0, 1.0, 1.0])).to(c)
    k = k.clone()
    k[:, 0, 1], k[:, 0, 2] = -k[:, 0, 1], 1 - k[:, 0, 2]
    return join(at_x @ cam2world @ at_x, k)


def crop(c: Tensor, scale: Tensor, rotation: Tensor, shift: Tensor) -> Tensor:
    """Fold a similarity of the picture into c.

        uv' = scale * R(rotation) * (uv - 1/2) + 1/2 + shift

    with R clockwise for rotation > 0, as roll is.

    Args:    c [N,25]; scale [N]; rotation [N] radians; shift [N,2] in sides of the new picture.
    Returns: c [N,25] that projects every point where the similarity moved it.
    """
    six = to_six(c)
    sin, cos = rotation.sin(), rotation.cos()
    dx, dy = six[:, 4], six[:, 5]
    moved = torch.stack([cos * dx - sin * dy, sin * dx + cos * dy], -1) * scale[:, None] + shift
    head = torch.stack([six[:, 0], six[:, 1], six[:, 2] + rotation, six[:, 3] + scale.log()], -1)
    return from_six(torch.cat([head, moved], -1)).to(c)


def zoomed(c: Tensor, factor: float) -> Tensor:
    """c [N,25] with focal lengths times factor; what lies on the axis stays in its place."""
    cam2world, k = split(c)
    scale = torch.ones_like(k)
    scale[:, :2, :2] = factor
    return join(cam2world, k * scale)


def project(points: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Where points fall.

    Args:    points [N,P,3] world; c [N,25].
    Returns: uv [N,P,2] in sides of the picture (x right, y down); depth [N,P] along the axis.
    """
    cam2world, k = split(c)
    local = (points - cam2world[:, None, :3, 3]) @ cam2world[:, :3, :3]
    plane = local @ k.transpose(1, 2)
    return plane[..., :2] / plane[..., 2:], local[..., 2]


def rays(c: Tensor, resolution: int) -> tuple[Tensor, Tensor]:
    """One ray through the centre of each pixel, row by row.

    Args:    c [N,25]; resolution R, pixels a side.
    Returns: origins [N,R*R,3] and unit directions [N,R*R,3], world.
    """
    cam2world, k = split(c)
    steps = (torch.arange(resolution, dtype=c.dtype, device=c.device) + 0.5) / resolution
    v, u = torch.meshgrid(steps, steps, indexing="ij")
    x = (u.flatten() - k[:, 0, 2:3]) / k[:, 0, 0:1]
    y = (v.flatten() - k[:, 1, 2:3]) / k[:, 1, 1:2]
    local = torch.stack([x, y, torch.ones_like(x)], -1)
    directions = local @ cam2world[:, :3, :3].transpose(1, 2)
    directions = directions / directions.norm(dim=-1, keepdim=True)
    return cam2world[:, None, :3, 3].expand_as(directions), directions


def swing(c: Tensor, frames: int, yaw: float, pitch: float = 0.0) -> Tensor:
    """A seamless loop there and back about the frontal view, starting at the face's own side.

    yaw(t) = yaw sin(2 pi t), pitch(t) = pitch cos(2 pi t), t = i / frames.

    Args:    c [1,25] gives the crop; frames; yaw, pitch: the largest angles, radians.
    Returns: c [frames,25].
    """
    t = torch.arange(frames) * (2 * math.pi / frames)
    six = to_six(c).expand(frames, 6).clone()
    six[:, 0], six[:, 1], six[:, 2] = yaw * t.sin(), pitch * t.cos(), 0
    return from_six(six)


def full_orbit(c: Tensor, frames: int, pitch: float = 0.0) -> Tensor:
    """Once around the head: yaw from 0 to 2 pi in equal steps; c [1,25] -> [frames,25]."""
    six = to_six(c).expand(frames, 6).clone()
    six[:, 0] = torch.arange(frames) * (2 * math.pi / frames)
    six[:, 1], six[:, 2] = pitch, 0
    return from_six(six)
