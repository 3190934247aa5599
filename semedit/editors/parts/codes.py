"""The descent that edits towards a loss share: one face's codes, with what was tuned for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from torch import Tensor

from semedit.generators import Output
from semedit.generators.contract import Generator
from semedit.inverters.codes import Offsets
from semedit.inverters.descent import descend
from semedit.latents import NOISE, PLANES, Latent, tuned_generator

WEIGHT_RATE = 4e-3  # a weight's step, where codes take one of 1


def descend_codes(
    generator: Generator,
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

    What was tuned of its weights, if anything, descends along: a generator without planes has no
    other place for what is this face's own, and hair that was tuned green would stay green.

    Args:
        face: one face; what was added to its planes holds, its kept pixels do not.
        start: codes [1, ...]; scale: [1, ...] of the same names, see codes.Offsets.
        lr: in units of `scale`, per step.
    """
    offsets = Offsets(start, scale)
    own = {
        k: v.detach().float().requires_grad_(not k.startswith((PLANES, NOISE)))
        for k, v in (face.tuned or {}).items()
    }
    tuned = tuned_generator(generator, replace(face, tuned=own or None))
    weights = [v for v in own.values() if v.requires_grad]

    def objective() -> Tensor:
        output = tuned.synthesis(offsets.codes(), face.c)
        return loss(output) + prior_weight * offsets.size()

    leaves = [*offsets.leaves.values(), *weights]
    rates = [1.0] * len(offsets.leaves) + [WEIGHT_RATE] * len(weights)
    ended = descend(leaves, objective, steps, lr, progress=progress, rates=rates)
    meta = {**face.meta, "diverged": bool(ended.diverged.any())}
    return replace(
        face,
        codes={k: v.detach() for k, v in offsets.codes().items()},
        tuned={k: v.detach().to(face.tuned[k]) for k, v in own.items()} if face.tuned else None,
        composite=None,
        meta=meta,
    )
