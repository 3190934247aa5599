"""DetectorNet: faces of a picture of any size and turn, in one pass.

Each cell of 8 x 8 px answers for the face whose middle, the mean of its five points, it holds:

    size = SMALLEST * exp(s) px,  point_k = middle of the cell + size * p_k

where size is half the side of the face's aligned crop: about from brow to chin.

Source: Zhou et al. 2019, arXiv:1904.07850 (objects as points); Deng et al. 2019, arXiv:1905.00641
(five points beside each box).
Departs: no offset of the middle, which the points tell; one scale, for a pyramid of pictures.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semedit.faces.align import face_quad
from semedit.faces.layers import Pyramid, TopDown, convolution

STRIDE = 8  # px a side of a cell
MULTIPLE = 32  # px that both sides of a picture are filled up to a multiple of
SMALLEST, LARGEST = 16.0, 64.0  # px: sizes of the faces that it is asked for
CHANNELS = 12  # heat, size, five points


@dataclass(frozen=True)
class DetectorOutput:
    """heat [N,h,w] logits; size [N,h,w] px; points [N,5,2,h,w] px of the picture (x, y): eyes,
    nose tip and mouth corners, those on the face's own left in the crop first."""

    heat: Tensor
    size: Tensor
    points: Tensor


class DetectorNet(nn.Module):
    """A pyramid of convolutions, down to a 32nd and up again to cells of 8 px."""

    def __init__(
        self,
        size: int = 256,
        widths: tuple[int, ...] = (16, 32, 64, 96, 128),
        depths: tuple[int, ...] = (0, 1, 1, 1),
    ) -> None:
        """size: px a side of the scenes that it learns from."""
        super().__init__()
        self.size = size
        self.config = {"size": size, "widths": list(widths), "depths": list(depths)}
        self.encoder = Pyramid(tuple(widths), tuple(depths))
        self.decoder = TopDown(tuple(widths)[2:])
        self.head = nn.Sequential(
            convolution(widths[2], widths[2]), nn.Conv2d(widths[2], CHANNELS, 1)
        )
        last = self.head[-1]
        assert isinstance(last, nn.Conv2d)
        nn.init.normal_(last.weight, std=1e-2)
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]
        with torch.no_grad():
            last.bias[0] = -4.0  # type: ignore[index]  # at first, few places hold a face

    def forward(self, images: Tensor) -> DetectorOutput:
        """images [N,3,H,W] in [-1,1]; h and w are H / 8 and W / 8, rounded up."""
        height, width = images.shape[-2:]
        beyond = (0, -width % MULTIPLE, 0, -height % MULTIPLE)
        images = F.pad(images, beyond, "replicate") if any(beyond) else images
        out = self.head(self.decoder(self.encoder(images)[2:])[0]).float()
        out = out[..., : -(-height // STRIDE), : -(-width // STRIDE)]
        size = SMALLEST * out[:, 1].clamp(-1.5, 3.0).exp()
        points = out[:, 2:].unflatten(1, (5, 2)) * size[:, None, None]
        return DetectorOutput(out[:, 0], size, points + middles(*out.shape[-2:]).to(out.device))


def middles(height: int, width: int) -> Tensor:
    """Middles of cells, px: [2,height,width]."""
    y = (torch.arange(height) + 0.5) * STRIDE
    x = (torch.arange(width) + 0.5) * STRIDE
    return torch.stack(torch.meshgrid(x, y, indexing="xy"))


def size_of(points: np.ndarray) -> float:
    """What DetectorNet calls the size of a face with points [5,2] or [68,2], in their unit."""
    quad = face_quad(points)
    return float(np.hypot(*(quad[3] - quad[0]))) / 2


def turn_of(points: np.ndarray) -> float:
    """How far a face with points [5,2] is turned, clockwise radians."""
    down = points[3:].mean(0) - points[:2].mean(0)
    return float(np.arctan2(-down[0], down[1]))


def peaks(heat: Tensor, threshold: float) -> Tensor:
    """Cells that are a local maximum above a threshold: int64 [K,2] (row, column).

    Args: heat [h,w] logits; threshold: chance in [0,1].
    """
    chance = heat.sigmoid()
    highest = F.max_pool2d(chance[None, None], 3, 1, 1)[0, 0]
    return torch.nonzero((chance == highest) & (chance > threshold))
