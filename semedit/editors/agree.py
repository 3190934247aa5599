"""The descent that edits towards a loss share: one face's codes, with what was tuned for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from semedit.generators import Output
from semedit.inverters.codes import Offsets
from semedit.inverters.descent import descend
from semedit.latents import Latent, tuned_generator


def agree(
    generator: Any,
    face: Latent,
    start: Mapping[str, Tensor],
    scale: Mapping[str, Tensor],
    loss: Callable[[Output], Tensor],
    steps: int,
    lr: float,
    prior_weight: float,
    progress: Callable[[], None],
) -> Latent:
    """The face with codes that descend loss(G(codes)) + prior_weight |offset / scale|^2.

    Args:
        face: one face; its tuned differences hold, its kept pixels do not.
        start: codes [1, ...]; scale: [1, ...] of the same names, see codes.Offsets.
        lr: in units of `scale`, per step.
    """
    tuned = tuned_generator(generator, face)
    offsets = Offsets(start, scale)

    def objective() -> Tensor:
        output = tuned.synthesis(offsets.codes(), face.c)
        return loss(output) + prior_weight * offsets.size()

    ended = descend(offsets.leaves.values(), objective, steps, lr, progress=progress)
    codes = {k: v.detach() for k, v in offsets.codes().items()}
    meta = {**face.meta, "diverged": bool(ended.diverged.any())}
    return replace(face, codes=codes, composite=None, meta=meta)
