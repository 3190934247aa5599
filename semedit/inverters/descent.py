"""The descent that all inverters and editors share: Adam on offsets of codes or of weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

Progress = Callable[[int, int], None]  # steps done, steps in all


def schedule(step: int, steps: int, warmup: float, decay: float) -> float:
    """Factor of the learning rate: linear rise over the first `warmup`, cosine fall over the last
    `decay`, both as fractions of all steps.
    """
    t = (step + 1) / steps
    rise = min(1.0, t / warmup) if warmup > 0 else 1.0
    fall = 1.0
    if decay > 0:
        late = max(0.0, (step / steps - (1 - decay)) / decay)
        fall = 0.5 * (1 + math.cos(math.pi * late))
    return rise * fall


def descend(
    parameters: Iterable[Tensor],
    loss: Callable[[], Tensor],
    steps: int,
    lr: float,
    warmup: float = 0.1,
    decay: float = 0.5,
    betas: tuple[float, float] = (0.9, 0.99),
    stop: Callable[[Tensor], bool] | None = None,
    progress: Callable[[], None] | None = None,
    rates: Sequence[float] | None = None,
    soft: float = 0.0,
) -> Tensor:
    """Adam on leaf tensors; in place.

    Args:    parameters: leaves that require grad.
             loss: [N], one value per face; their sum is descended, so faces stay independent.
             stop: looks at the losses before each update and may end the descent.
             progress: called after each step.
             rates: factor of the learning rate of each leaf.
             soft: what the loss hardly feels hardly moves: Adam's epsilon is this share of the
             first gradients' root mean square, leaf by leaf. 0: every entry moves alike.
    Returns: the losses [N] before the last update, detached.
    """
    leaves = list(parameters)
    factors = rates or [1.0] * len(leaves)
    groups = [{"params": [leaf], "rate": r} for leaf, r in zip(leaves, factors, strict=True)]
    adam = torch.optim.Adam(groups, lr=lr, betas=betas)
    losses = torch.zeros(0)
    for step in range(steps):
        for group in adam.param_groups:
            group["lr"] = lr * group["rate"] * schedule(step, steps, warmup, decay)
        adam.zero_grad(set_to_none=True)
        value = loss()
        losses = value.detach()
        if stop is not None and stop(losses):
            break
        value.sum().backward()
        if step == 0 and soft > 0:
            _soften(adam, soft)
        adam.step()
        if progress is not None:
            progress()
    return losses


def _soften(adam: torch.optim.Adam, soft: float) -> None:
    for group in adam.param_groups:
        (leaf,) = group["params"]
        if leaf.grad is not None:
            group["eps"] = max(soft * float(leaf.grad.square().mean().sqrt()), 1e-12)


class Steps:
    """Counts the steps of several phases into one progress callback."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress, self._done, self._total = progress, 0, total

    def __call__(self) -> None:
        self._done += 1
        if self._progress is not None:
            self._progress(self._done, self._total)

    def finish(self) -> None:
        """Phases that ended early count as done."""
        if self._progress is not None and self._done < self._total:
            self._progress(self._total, self._total)
