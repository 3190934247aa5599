"""Regions as masks, widened and softened."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from semedit.errors import OptionError
from semedit.media.labels import LABELS, REGIONS


def region(labels: Tensor, names: Sequence[str]) -> Tensor:
    """Where the labels are one of the named regions (labels.REGIONS): mask [N,1,R,R].

    Raises: OptionError: an unknown region.
    """
    ids: list[int] = []
    for name in names:
        if name not in REGIONS:
            raise OptionError(f"there is no region {name}; regions: {', '.join(REGIONS)}")
        ids.extend(REGIONS[name])
    chosen = torch.zeros(len(LABELS), device=labels.device)
    chosen[ids] = 1
    return chosen[labels][:, None]


def changed(labels: Tensor, other: Tensor) -> Tensor:
    """Where two label maps [N,R,R] differ: mask [N,1,R,R]."""
    return (labels != other).float()[:, None]


def drawn(labels: Tensor, edited: Tensor) -> Tensor:
    """Where a label map was drawn on: mask [N,1,R,R] of what changed, without lone pixels.

    A pixel counts with at least three changed ones among its eight neighbours; thin strands whose
    labels flicker between two renderings or parsings are no drawing.
    """
    mask = changed(labels, edited)
    around = F.avg_pool2d(mask, 3, stride=1, padding=1) * 9
    return mask * (around >= 4).float()


def dilate(mask: Tensor, px: int) -> Tensor:
    """Grow a mask [N,1,R,R] by px pixels in every direction (a square)."""
    if px <= 0:
        return mask
    # One axis after the other: at 1024 pixels a square of a tenth has 40,000 of them.
    rows = F.max_pool2d(mask, (1, 2 * px + 1), stride=1, padding=(0, px))
    return F.max_pool2d(rows, (2 * px + 1, 1), stride=1, padding=(px, 0))


def feather(mask: Tensor, px: float, reach: int | None = None) -> Tensor:
    """Blur a mask [N,1,R,R] by a Gaussian of standard deviation px, cut off `reach` pixels from
    its middle (None: three deviations)."""
    if px <= 0:
        return mask
    reach = max(1, round(3 * px)) if reach is None else reach
    steps = torch.arange(-reach, reach + 1, dtype=mask.dtype, device=mask.device)
    line = torch.exp(-0.5 * (steps / px) ** 2)
    line = line / line.sum()
    wide = F.pad(mask, (reach,) * 4, mode="replicate")
    wide = F.conv2d(wide, line.view(1, 1, 1, -1))
    return F.conv2d(wide, line.view(1, 1, -1, 1)).clamp(0, 1)
