"""Volume rendering of tri-planes: rays, samples, plane lookup, compositing.

Planes are channels-last, [N,3,H,W,C]: one lookup reads whole rows. A point (x, y, z) of the box
[-1,1]^3 is looked up at (x,y), (x,z) and (z,y), unless other axes are given; first of a pair along
W, second along H.

Source: Chan et al. 2022 (EG3D), arXiv:2112.07945; Mildenhall et al. 2020, arXiv:2003.08934.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from semedit.runtime.late import compiled_late

Axes = tuple[tuple[int, int], ...]

AXES: Axes = ((0, 1), (0, 2), (2, 1))  # the coordinates along (W, H) of each plane


def lookup(planes: Tensor, points: Tensor, face: Tensor, axes: Axes = AXES) -> Tensor:
    """Mean over the three planes of their bilinear values; zeros outside (grid_sample's rule
    with align_corners=False).

    Args:    planes float32 [N,3,H,W,C]; points [M,3] in the box's units; face int64 [M];
             axes: of the points along (W, H) of each plane.
    Returns: [M,C]. The gradient goes to the planes only.
    """
    table = planes.reshape(-1, planes.shape[-1])
    find, bag = (_find, _Bag.apply) if table.device.type == "cpu" else (find_rows, _bag)
    return bag(table, *find(points.detach(), face, planes.shape[2], planes.shape[3], axes))


def find_rows(
    points: Tensor, face: Tensor, height: int, width: int, axes: Axes = AXES
) -> tuple[Tensor, Tensor]:
    """The twelve corners that a point is read from.

    Returns: rows [M,12] of the flattened planes and their weights [M,12].
    """
    size = torch.tensor([width, height], device=points.device)
    place = (points[:, torch.tensor(axes, device=points.device)] + 1) * (size / 2) - 0.5  # [M,3,2]
    low = place.floor()
    part = (place - low)[:, :, None]
    corner = torch.tensor([[0, 0], [1, 0], [0, 1], [1, 1]], device=points.device)
    at = low.long()[:, :, None] + corner  # [M,3,4,2]
    weights = torch.where(corner == 1, part, 1 - part).prod(-1)
    inside = ((at >= 0) & (at < size)).all(-1)
    plane = face[:, None] * 3 + torch.arange(3, device=points.device)
    rows = (plane[:, :, None] * height + at[..., 1]) * width + at[..., 0]
    return (rows * inside).flatten(1), (weights * inside / 3).flatten(1)


def _bag(table: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums of rows: table [T,C], rows and weights [M,K] -> [M,C]."""
    return F.embedding_bag(rows, table, per_sample_weights=weights, mode="sum")


def _find(
    points: Tensor, face: Tensor, height: int, width: int, axes: Axes = AXES
) -> tuple[Tensor, Tensor]:
    """`find_rows` in one compiled loop, ten times as fast on a CPU."""
    rows = torch.empty(len(points), 12, dtype=torch.int32)
    weights = torch.empty(len(points), 12)
    at = points.contiguous().numpy(), face.contiguous().numpy()
    _find_loop(*at, np.array(axes), height, width, rows.numpy(), weights.numpy())
    return rows, weights


class _Bag(torch.autograd.Function):
    """`_bag` with a compiled backward: torch's own takes thirty times as long as its forward."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(rows, weights)
        ctx.shape = table.shape
        return _bag(table, rows, weights)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        rows, weights = ctx.saved_tensors
        out = torch.zeros(ctx.shape)
        gradient = gradients[0].float().contiguous().numpy()
        _scatter_loop(gradient, rows.numpy(), weights.numpy(), out.numpy())
        return out, None, None


def splat(
    values: Tensor, points: Tensor, face: Tensor, shape: tuple[int, int, int], axes: Axes = AXES
) -> Tensor:
    """What `lookup` reads, written: each point's values are spread over its corners of the three
    planes, and each cell has the weighted mean of what reached it.

    Args:    values [M,C]; points [M,3] in the box's units; face int64 [M]; shape: N, H, W.
    Returns: [N,3,H,W,C+1]; the last channel is the weight that reached the cell, 0 to about 1 a
             point; cells that nothing reached are 0. The gradient goes to the values only.
    """
    n, height, width = shape
    find = _find if values.device.type == "cpu" else find_rows
    rows, weights = find(points.detach(), face, height, width, axes)
    ones = values.new_ones(len(values), 1)
    size = n * 3 * height * width
    written = _Splat.apply(torch.cat([values, ones], 1), rows, 3 * weights, size)
    weight = written[:, -1:]
    mean = written[:, :-1] / weight.clamp(min=1e-3)
    return torch.cat([mean, weight], 1).view(n, 3, height, width, -1)


class _Splat(torch.autograd.Function):
    """The transpose of `_bag`: values [M,C], rows and weights [M,K] -> table [size,C]."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, rows: Tensor, weights: Tensor, size: int) -> Tensor:
        ctx.save_for_backward(rows, weights)
        out = values.new_zeros(size, values.shape[1])
        if values.device.type == "cpu":
            flat = values.float().contiguous().numpy()
            _scatter_loop(flat, rows.numpy(), weights.numpy(), out.numpy())
            return out
        spread = weights[..., None] * values[:, None]
        return out.index_add_(0, rows.flatten(), spread.flatten(0, 1))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        rows, weights = ctx.saved_tensors
        return _bag(gradients[0].contiguous(), rows, weights), None, None, None


@compiled_late(fastmath=True)
def _find_loop(
    points: Any, face: Any, axes: Any, height: int, width: int, rows: Any, weights: Any
) -> None:
    for m in range(len(points)):
        for p in range(3):
            u = (points[m, axes[p, 0]] + 1) * (width * 0.5) - 0.5
            v = (points[m, axes[p, 1]] + 1) * (height * 0.5) - 0.5
            left, top = np.floor(u), np.floor(v)
            right, down = u - left, v - top
            for j in range(4):
                x, y = int(left) + (j & 1), int(top) + (j >> 1)
                inside = 0 <= x < width and 0 <= y < height
                weight = (right if j & 1 else 1 - right) * (down if j >> 1 else 1 - down) / 3
                weights[m, 4 * p + j] = weight if inside else 0.0
                rows[m, 4 * p + j] = ((face[m] * 3 + p) * height + y) * width + x if inside else 0


@compiled_late(fastmath=True)
def _scatter_loop(gradient: Any, rows: Any, weights: Any, out: Any) -> None:
    for m in range(len(rows)):
        for j in range(rows.shape[1]):
            row, weight = rows[m, j], weights[m, j]
            for k in range(gradient.shape[1]):
                out[row, k] += weight * gradient[m, k]


def box_interval(origins: Tensor, directions: Tensor, half: float) -> tuple[Tensor, Tensor]:
    """Where rays enter and leave the box [-half, half]^3.

    Args:    origins, directions [..., 3], unit directions; half in world units.
    Returns: near, far [...] along the ray; a ray that misses gets near == far.
    """
    safe = torch.where(directions.abs() < 1e-9, torch.full_like(directions, 1e-9), directions)
    first, second = (-half - origins) / safe, (half - origins) / safe
    near = torch.minimum(first, second).amax(-1)
    far = torch.maximum(first, second).amin(-1)
    return near, torch.maximum(near, far)


def composite(sigma: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Weights of samples along rays.

        alpha_i = 1 - exp(-sigma_i length_i);  T_i = prod_{j<i} (1 - alpha_j);  w_i = T_i alpha_i

    Args:    sigma, lengths [M,S], front to back.
    Returns: weights [M,S] and the transmittance [M] behind the last sample; they sum to 1.
    """
    thickness = torch.cumsum(sigma * lengths, -1)
    after = torch.exp(-thickness)
    before = torch.cat([torch.ones_like(after[:, :1]), after[:, :-1]], -1)
    return before - after, after[:, -1]


def density_weights(
    density: Tensor, origins: Tensor, directions: Tensor, t: Tensor, lengths: Tensor, half: float
) -> Tensor:
    """Weights of samples in a coarse density grid, without gradient.

    Args:    density [N,1,G,G,G] over (z,y,x) of the box; origins, directions [N,M,3];
             t, lengths [N,M,S].
    Returns: weights [N,M,S].
    """
    points = (origins[:, :, None] + t[..., None] * directions[:, :, None]) / half
    sigma = F.grid_sample(density, points[:, None], padding_mode="zeros", align_corners=False)
    weights, _ = composite(sigma.reshape(-1, t.shape[-1]), lengths.reshape(-1, t.shape[-1]))
    return weights.view_as(t)


def resample(near: Tensor, far: Tensor, weights: Tensor, u: Tensor, floor: float) -> Tensor:
    """Draw samples where the weights are.

    The weights of equal intervals of [near, far] are spread to their neighbours, given a floor,
    and inverted as a distribution.

    Args:    near, far [M]; weights [M,S]; u [M,K] ascending in [0,1]; floor: weight shared evenly.
    Returns: t [M,K], ascending.
    """
    count = weights.shape[-1]
    wide = F.max_pool1d(weights[:, None], 3, 1, 1)[:, 0]
    wide = wide + floor / count
    ends = torch.cumsum(wide, -1)
    ends = ends / ends[:, -1:]
    place = torch.searchsorted(ends, u.contiguous()).clamp(max=count - 1)
    starts = F.pad(ends[:, :-1], (1, 0))
    begin, end = starts.gather(1, place), ends.gather(1, place)
    part = ((u - begin) / (end - begin).clamp(min=1e-8)).clamp(0, 1)
    return near[:, None] + (place + part) / count * (far - near)[:, None]


def cells(near: Tensor, far: Tensor, t: Tensor) -> Tensor:
    """Length [M,K] of ray that each sample t [M,K] stands for: up to halfway to its neighbours."""
    middles = (t[:, 1:] + t[:, :-1]) / 2
    edges = torch.cat([near[:, None], middles, far[:, None]], -1)
    return edges.diff(dim=-1)


def fine_points(density: Tensor, count: int) -> Tensor:
    """Points [N,count,3] in the box's units, of the chance that a cell of a grid stops a ray.

    Args: density [N,1,G,G,G] over (z,y,x) of the box.
    """
    side = density.shape[-1]
    stops = 1 - torch.exp(-density.float().flatten(1) / side)
    # A trace everywhere, as rays through empty space have samples, too.
    cells = torch.multinomial(stops + 1e-4, count, replacement=True)
    places = torch.stack([cells % side, cells // side % side, cells // side**2], -1)
    return (places + torch.rand(places.shape)) * (2 / side) - 1
