"""The patch co-occurrence discriminator: whether crops are of one texture.

    D(reference, crop) from the mean features of a picture's reference crops and one other crop

Source: Park et al. 2020 (Swapping Autoencoder), arXiv:2007.00653, section 3.3.
Departs: small crops and networks, halved by a 2x2 mean.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semedit.generators.parts.layers import Conv, Linear, activate
from semedit.trainers.parts.discriminators import Halving

SCALES = (1 / 8, 1 / 4)  # of the crops' sides, shares of the picture's


class PatchDiscriminator(nn.Module):
    """Crops -> logits.

    Args: size: pixels a side of the crops. channels: at `size`, `size`/2, ..., 4 pixels.
    """

    def __init__(self, size: int, channels: tuple[int, ...]) -> None:
        super().__init__()
        assert size == 4 * 2 ** (len(channels) - 1)
        self.first = Conv(3, channels[0])
        self.blocks = nn.ModuleList(Halving(a, b) for a, b in pairwise(channels))
        self.last = Conv(channels[-1], channels[-1])
        features = channels[-1] * 16
        self.hidden = Linear(2 * features, 2 * channels[-1])
        self.out = Linear(2 * channels[-1], 1)

    def features(self, crops: Tensor) -> Tensor:
        """[N,T,3,P,P] -> [N,T,F]."""
        x = self.first(crops.flatten(0, 1).contiguous(memory_format=torch.channels_last))
        for block in self.blocks:
            x = block(x)
        return self.last(x).flatten(1).unflatten(0, crops.shape[:2])

    def forward(self, reference: Tensor, crops: Tensor) -> Tensor:
        """Logits [N,T] of crops [N,T,3,P,P] beside reference crops [N,T',3,P,P]."""
        mean = self.features(reference).mean(1, keepdim=True)
        found = self.features(crops)
        pairs = torch.cat([mean.expand_as(found), found], 2)
        return self.out(activate(self.hidden(pairs)))[..., 0].float()


def random_crops(images: Tensor, count: int, size: int) -> Tensor:
    """Square crops of random place, size (SCALES) and side: [N,3,R,R] -> [N,count,3,size,size]."""
    n = len(images) * count
    low, high = SCALES
    scale = low + (high - low) * torch.rand(n)
    shift = (2 * torch.rand(n, 2) - 1) * (1 - scale[:, None])
    flip = torch.where(torch.rand(n) < 0.5, -scale, scale)
    zero = torch.zeros(n)
    rows = [torch.stack([flip, zero, shift[:, 0]], 1), torch.stack([zero, scale, shift[:, 1]], 1)]
    places = F.affine_grid(torch.stack(rows, 1), [n, 3, size, size], align_corners=False)
    repeated = images.repeat_interleave(count, 0)
    found = F.grid_sample(repeated, places.to(images), "bilinear", "border", align_corners=False)
    return found.unflatten(0, (len(images), count))
