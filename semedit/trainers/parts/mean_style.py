"""The mean style of random z, which truncation and inversion start from."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


@torch.no_grad()
def set_mean_style(
    w_avg: Tensor, styles: Callable[[Tensor], Tensor], z_dim: int, samples: int = 4096
) -> None:
    """Set w_avg, in place, to the mean of styles(z) over random z [samples,z_dim]; always the
    same ones."""
    numbers = torch.Generator().manual_seed(0)
    w_avg.copy_(styles(torch.randn(samples, z_dim, generator=numbers).to(w_avg)).mean(0))
