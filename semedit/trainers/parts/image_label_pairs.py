"""What a discriminator of pictures and label maps sees, of real faces and of drawn ones.

Source: Sun et al. 2022 (IDE-3D), arXiv:2205.15517, section 3.1: (I_h, I_l, S_h, S_l).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from semedit.datasets.rendered import View
from semedit.generators import Output
from semedit.media.labels import LABELS


def drawn_pair(output: Output, sigma: float) -> tuple[Tensor, Tensor]:
    """What the discriminator sees of a face: pictures [N,6,R,R] and label maps [N,2K,R,R]."""
    low = output.low
    assert low is not None and low.seg is not None and output.seg is not None
    high, coarse = (2 * seg.float().softmax(1) - 1 for seg in (output.seg, low.seg))
    return paired(output.image, low.image, sigma), paired(high, coarse, sigma)


def true_pair(batch: View, neural: int, sigma: float) -> tuple[Tensor, Tensor]:
    """The same of real pictures, made small as the volume rendering is."""
    maps = 2 * F.one_hot(batch.labels, len(LABELS)).permute(0, 3, 1, 2).float() - 1
    images, maps = (
        paired(x, F.interpolate(x, (neural, neural), mode="area"), sigma)
        for x in (batch.images, maps)
    )
    return images, maps


def paired(high: Tensor, low: Tensor, sigma: float) -> Tensor:
    """[N,C,R,R] and [N,C,r,r] -> [N,2C,R,R], blurred by sigma picture sides."""
    size = high.shape[-2:]
    return blurred(torch.cat([high, F.interpolate(low, size, mode="bilinear")], 1), sigma)


def blurred(x: Tensor, sigma: float) -> Tensor:
    """A Gaussian of sigma picture sides over [N,C,R,R]; less than a third of a pixel is none."""
    pixels = sigma * x.shape[-1]
    reach = min(int(3 * pixels), x.shape[-1] - 1)
    if reach < 1:
        return x
    line = torch.arange(-reach, reach + 1, dtype=x.dtype, device=x.device)
    line = torch.exp(-0.5 * (line / pixels).square())
    line = (line / line.sum()).expand(x.shape[1], 1, 1, -1)
    x = F.conv2d(F.pad(x, (reach, reach, 0, 0), "reflect"), line, groups=x.shape[1])
    x = F.pad(x, (0, 0, reach, reach), "reflect")
    return F.conv2d(x, line.transpose(2, 3), groups=x.shape[1])
