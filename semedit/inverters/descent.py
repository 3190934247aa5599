"""The descent that all inverters and editors share: Adam on offsets of codes or of weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

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


@dataclass(frozen=True, eq=False)
class Descended:
    """How a descent ended: losses [N] before the last update, all finite unless the first were
    not; diverged [N], bool: faces that were taken back to where their loss was finite last."""

    losses: Tensor
    diverged: Tensor

    def told(self) -> dict[str, Any]:
        """What a latent's meta keeps: one entry a face; who diverged only if any did."""
        losses = [loss if math.isfinite(loss) else None for loss in self.losses.tolist()]
        return {"loss": losses} | marks(self.diverged.tolist())


def marks(diverged: Iterable[bool]) -> dict[str, list[bool]]:
    """The mark of faces whose descent diverged, for a latent's meta: nothing if none did."""
    found = [bool(one) for one in diverged]
    return {"diverged": found} if any(found) else {}


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
) -> Descended:
    """Adam on leaf tensors; in place. A face whose loss is no longer finite goes back to where it
    was finite last, and stays there.

    Args:    parameters: leaves that require grad.
             loss: [N], one value per face; their sum is descended, so faces stay independent.
             stop: looks at the losses before each update and may end the descent.
             progress: called after each step.
             rates: factor of the learning rate of each leaf.
             soft: what the loss hardly feels hardly moves: Adam's epsilon is this share of the
             first gradients' root mean square, leaf by leaf. 0: every entry moves alike.
    Returns: Descended; `stop` and the result see losses of the last finite states.
    """
    leaves = list(parameters)
    last = _LastFinite(leaves)
    factors = rates or [1.0] * len(leaves)
    adam = [_Adam(leaf, betas) for leaf in leaves]
    for step in range(steps):
        value = loss()
        losses = last.see(value.detach())
        if stop is not None and stop(losses):
            break
        gradients = torch.autograd.grad(value.sum(), leaves, allow_unused=True)
        rate = lr * schedule(step, steps, warmup, decay)
        for one, gradient, factor in zip(adam, gradients, factors, strict=True):
            if gradient is not None:
                one.update(last.still(gradient), rate * factor, soft)
        last.hold()
        if progress is not None:
            progress()
    last.check()
    return last.result()


class _LastFinite:
    """The state in which each face's loss was finite last.

    A leaf belongs to the faces row by row, or, where it has other rows, to all of them.
    """

    def __init__(self, leaves: Sequence[Tensor]) -> None:
        self.leaves = leaves
        self.kept = [leaf.detach().clone() for leaf in leaves]
        self.losses = torch.zeros(0)
        self.diverged = torch.zeros(0, dtype=torch.bool)

    @torch.no_grad()
    def see(self, losses: Tensor) -> Tensor:
        """Take the losses of the present state; returns each face's last finite one."""
        finite = losses.isfinite()
        if len(self.diverged) != len(losses):  # the first step
            self.losses, self.diverged = losses.clone(), ~finite
        else:
            self.diverged |= ~finite
            self.losses = torch.where(self.diverged, self.losses, losses)
        calm = not self.diverged.any()
        for leaf, kept in zip(self.leaves, self.kept, strict=True):
            kept.copy_(leaf if calm else torch.where(self._rows(leaf), kept, leaf))
        return self.losses

    @torch.no_grad()
    def hold(self) -> None:
        """Who diverged stays where the last finite loss was."""
        if self.diverged.any():
            for leaf, kept in zip(self.leaves, self.kept, strict=True):
                leaf.copy_(torch.where(self._rows(leaf), kept, leaf))

    @torch.no_grad()
    def check(self) -> None:
        """The last update was not followed by a loss: its outcome must be finite all the same."""
        for leaf in self.leaves:
            finite = leaf.isfinite()
            if not finite.all():
                own = self._own(leaf)
                self.diverged |= ~(finite.view(len(leaf), -1).all(1) if own else finite.all())
        self.hold()

    def still(self, gradient: Tensor) -> Tensor:
        """The gradient without the rows of those who diverged, and without what is not finite."""
        if not self.diverged.any():
            return gradient
        return torch.where(self._rows(gradient), 0.0, gradient).nan_to_num(0.0, 0.0, 0.0)

    def _rows(self, like: Tensor) -> Tensor:
        """bool that broadcasts to a leaf: where its faces diverged."""
        if not self._own(like):
            return self.diverged.any()
        return self.diverged.view(-1, *[1] * (like.ndim - 1))

    def _own(self, leaf: Tensor) -> bool:
        """Whether each face has a row of a leaf."""
        return leaf.ndim > 0 and len(leaf) == len(self.diverged)

    def result(self) -> Descended:
        return Descended(self.losses, self.diverged)


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
