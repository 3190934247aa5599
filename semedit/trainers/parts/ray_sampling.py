"""Which rays of pictures are marched to train: every n-th pixel of every n-th row, which is what a
critic can afford; or random ones, denser on some labels."""

from __future__ import annotations

import torch
from torch import Tensor

from semedit.trainers.triplane import small_parts


def grid_pixels(n: int, full: int, side: int) -> Tensor:
    """Pixels of n pictures of full x full, from a random one: int64 [n,side*side], counted row by
    row."""
    gap = full // side
    row, column = torch.randint(gap, (2, n, 1))
    line = torch.arange(side) * gap
    rows, columns = line + row, line + column
    return (rows[:, :, None] * full + columns[:, None]).flatten(1)


def thinned(pictures: Tensor, side: int) -> Tensor:
    """Pictures [N,C,R,R] -> [N,C,side,side], from a random pixel, the same for all."""
    gap = pictures.shape[-1] // side
    row, column = torch.randint(gap, (2,)).tolist()
    return pictures[:, :, row::gap, column::gap]


def grid_picture(rows: Tensor) -> Tensor:
    """Values of a lattice [N,side*side,C] as pictures [N,C,side,side]."""
    side = round(rows.shape[1] ** 0.5)
    return rows.transpose(1, 2).unflatten(2, (side, side))


def ray_density(small: float, background: float) -> Tensor:
    """How dense random rays are on each label, [19]: `small` on small parts of a face, 1 elsewhere
    but on the background."""
    found = small_parts(small)
    found[0] = background
    return found
