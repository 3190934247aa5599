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
    adam = [_Adam(leaf, betas) for leaf in leaves]
    losses = torch.zeros(0)
    for step in range(steps):
        value = loss()
        losses = value.detach()
        if stop is not None and stop(losses):
            break
        gradients = torch.autograd.grad(value.sum(), leaves, allow_unused=True)
        rate = lr * schedule(step, steps, warmup, decay)
        for one, gradient, factor in zip(adam, gradients, factors, strict=True):
            if gradient is not None:
                one.update(gradient, rate * factor, soft)
        if progress is not None:
            progress()
    return losses


class _Adam:
    """Adam of one leaf [N, ...].

    torch.optim's is the same, but its first step imports torch's compiler, which takes longer than
    a face; and epsilon is a number there, not one a face.

    Source: Kingma and Ba 2015, arXiv:1412.6980.
    """

    def __init__(self, leaf: Tensor, betas: tuple[float, float]) -> None:
        self.leaf, self.betas, self.steps = leaf, betas, 0
        self.first, self.second = torch.zeros_like(leaf), torch.zeros_like(leaf)
        self.epsilon: Tensor | float = 1e-8

    @torch.no_grad()
    def update(self, gradient: Tensor, rate: float, soft: float) -> None:
        """One step; soft as `descend` has it."""
        if self.steps == 0 and soft > 0:
            size = gradient.flatten(1).square().mean(1).sqrt()
            self.epsilon = (soft * size).clamp(min=1e-12).view(-1, *[1] * (gradient.ndim - 1))
        self.steps += 1
        one, two = self.betas
        self.first.lerp_(gradient, 1 - one)
        self.second.lerp_(gradient.square(), 1 - two)
        spread = (self.second / (1 - two**self.steps)).sqrt_().add_(self.epsilon)
        self.leaf.sub_(rate / (1 - one**self.steps) * self.first / spread)


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
