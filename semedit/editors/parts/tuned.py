"""Taking a face's own tuning back where an edit changes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from semedit.generators.contract import Generator
from semedit.latents import PLANES, Latent, TunedGenerator
from semedit.losses import dilate, feather

PROBES = 2  # random signs per side of the mask


def fade_tuning(generator: Generator, latent: Latent, mask: Tensor, share: float = 1.0) -> Latent:
    """The latent with what was added to its planes faded where the mask's pixels read them.

        added' = added * (1 - share * f),  f = |d image[mask] / d planes|^2 / |d image / d planes|^2

    What inversion added to the planes shows the face as it was: closed lips under a smile, skin
    under new hair. In the edited region the generator shall draw freely, in every view. The
    squared derivatives are those of random signed sums of pixels (Hutchinson's estimate).

    Args: mask [N,1,R,R] in [0,1], in the latent's own view; share: 0 leaves all as it is.
    """
    added = {k: v for k, v in (latent.tuned or {}).items() if k.startswith(PLANES)}
    if not added or share <= 0:
        return latent
    inside, outside = _reach(generator, latent, list(added), (mask, 1 - mask))
    faded = {}
    for name, value in added.items():
        total = (inside[name] + outside[name]).clamp(min=1e-12)
        faded[name] = (value.float() * (1 - share * inside[name] / total)).to(value.dtype)
    return replace(latent, tuned={**(latent.tuned or {}), **faded})


@torch.enable_grad()
def _reach(
    generator: Generator, latent: Latent, names: list[str], masks: Sequence[Tensor]
) -> list[dict[str, Tensor]]:
    """Squared derivatives of each mask's pixels for each place of the planes, summed over channels.

    Channels are the last axis of an entry [N,3,H,W,C] and the second of one [N,C,H,W].
    """
    assert latent.tuned is not None
    numbers = torch.Generator().manual_seed(0)
    leaves = {k: latent.tuned[k].detach().float().requires_grad_(True) for k in names}
    tuned = TunedGenerator(generator, leaves)
    with torch.no_grad():
        planes = generator.planes(latent.codes)
    found = [{k: torch.zeros_like(v) for k, v in leaves.items()} for _ in masks]
    image = tuned.render(tuned.add(planes), latent.c).image
    last = PROBES * len(masks) - 1
    for i in range(PROBES):
        signs = torch.randint(0, 2, image.shape, generator=numbers).to(image) * 2 - 1
        for j, (mask, squares) in enumerate(zip(masks, found, strict=True)):
            gradients = torch.autograd.grad(
                (image * signs * mask).sum(),
                list(leaves.values()),
                retain_graph=i * len(masks) + j < last,
                allow_unused=True,
            )
            for k, gradient in zip(leaves, gradients, strict=True):
                if gradient is not None:
                    squares[k] += gradient.square()
    return [
        {k: v.sum(1 if v.ndim == 4 else -1, keepdim=True) for k, v in squares.items()}
        for squares in found
    ]


@torch.no_grad()
def changed_area(
    generator: Generator, before: Latent, after: Latent, threshold: float = 0.06
) -> Tensor:
    """Where an edit without a region changes the untuned picture: soft mask [N,1,R,R].

    Args: threshold: change of a pixel, as a fraction of the range, from which it counts.
    """
    first, second = (generator.synthesis(x.codes, before.c).image for x in (before, after))
    change = (first - second).clamp(-2, 2).abs().mean(1, keepdim=True) / 2
    size = change.shape[-1]
    mask = dilate((feather(change, size / 64) > threshold).float(), round(size / 64))
    return feather(mask, size / 64)
