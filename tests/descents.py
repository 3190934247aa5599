"""What an objective is, and which way it pulls: descents that are looked at, not run."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from semedit.inverters import descent


class Descents:
    """In place of inverters.descent.descend: keeps what it was called with, moves nothing."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def __call__(self, *args: Any, **options: Any) -> descent.Descended:
        bound = inspect.signature(descent.descend).bind(*args, **options)
        bound.apply_defaults()
        call = dict(bound.arguments) | {"parameters": list(bound.arguments["parameters"])}
        self.calls.append(call)
        value = call["loss"]().detach()
        for _ in range(call["steps"] if call["progress"] is not None else 0):
            call["progress"]()
        return descent.Descended(value, torch.zeros(len(value), dtype=torch.bool))

    @staticmethod
    def shaken(call: dict[str, Any], size: float = 0.3, seed: int = 3) -> list[Tensor]:
        """Move the leaves of a call somewhere; returns where they are."""
        numbers = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for leaf in call["parameters"]:
                leaf.copy_(size * torch.randn(leaf.shape, generator=numbers))
        return [leaf.detach().clone() for leaf in call["parameters"]]


def falls(loss: Callable[[], Tensor], leaves: list[Tensor], rate: float = 1e-4) -> bool:
    """Whether a small step against the gradient makes a loss smaller."""
    before = loss().sum()
    slopes = torch.autograd.grad(before, leaves)
    with torch.no_grad():
        for leaf, slope in zip(leaves, slopes, strict=True):
            leaf -= rate * slope
    return bool(loss().sum() < before)


def slope_along(
    loss: Callable[[], Tensor], parameter: Tensor, step: float = 1e-2
) -> tuple[float, float]:
    """The derivative of a loss along all entries of a parameter: by autograd, and by steps to
    either side, in which nothing but the loss itself is computed again."""
    (slope,) = torch.autograd.grad(loss().sum(), parameter)
    sides = []
    for sign in (1, -1):
        with torch.no_grad():
            parameter += sign * step
        sides.append(float(loss().sum().detach()))
        with torch.no_grad():
            parameter -= sign * step
    return float(slope.sum()), (sides[0] - sides[1]) / (2 * step)
