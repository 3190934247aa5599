"""Twins: the same pictures with every region in other colours.

A twin has its picture's structure in another style. So what a swap between the two shall look
like is known, and an autoencoder learns by plain regression to keep colour out of its structure.
"""

from __future__ import annotations

import torch
from torch import Tensor

from semedit.media.labels import LABELS

# What is coloured alike; every other label is coloured by itself.
ALIKE = (
    ("skin", "nose", "l_ear", "r_ear", "neck"),
    ("hair", "l_brow", "r_brow"),
    ("l_eye", "r_eye"),
    ("u_lip", "l_lip"),
)
LIFT = 0.18  # spread of the colour that black becomes, shares of the range
GAIN = 0.30  # spread of the logarithm of the contrast


def groups() -> Tensor:
    """int64 [19]: the number of the group that each label is coloured with."""
    found = list(range(len(LABELS)))
    for names in ALIKE:
        for name in names:
            found[LABELS.index(name)] = LABELS.index(names[0])
    return torch.tensor(found)


def recoloured(images: Tensor, labels: Tensor, tint: float = 0.06, strength: float = 1.0) -> Tensor:
    """Pictures [N,3,R,R] in [-1,1] with regions of labels int64 [N,R,R] in random other colours.

    x' = lift + (1 - lift) x^(1 / gain), by group and channel, x in [0,1]

    Args: tint: spread of both between the channels. strength: factor on all spreads; with 0 twins
          are the pictures themselves.
    """
    if strength == 0:
        return images
    n, kinds = len(images), len(LABELS)
    lift = (LIFT * torch.randn(n, kinds, 1)).abs() + 0.3 * tint * torch.randn(n, kinds, 3)
    gain = GAIN * torch.randn(n, kinds, 1) + tint * torch.randn(n, kinds, 3)
    which = groups()[labels].flatten(1)[..., None].expand(-1, -1, 3)

    def spread(values: Tensor) -> Tensor:
        found = values.expand(n, kinds, 3).gather(1, which)
        return found.permute(0, 2, 1).reshape(images.shape)

    lift, gain = (strength * lift).clamp(0, 0.6), (strength * gain).exp()
    lift, gain = spread(lift), spread(gain)
    x = ((images + 1) / 2).clamp(1e-4, 1)
    return (lift + (1 - lift) * x ** (1 / gain)) * 2 - 1
