"""Terms of a loss by name: {name: weighted scalar}."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def total(terms: Mapping[str, Tensor]) -> Tensor:
    """Their sum; 0 of none."""
    return sum(terms.values(), torch.zeros([]))


def report(terms: Mapping[str, Tensor]) -> dict[str, float]:
    """As numbers, for a step's report."""
    return {name: float(value.detach()) for name, value in terms.items()}
