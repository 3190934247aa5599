"""DetailNet: how the photograph's detail moves with an edit, and what is new.

    y = E + gate * H(x + flow(x)) + residual,    H = P - I

with P the photograph, I and E the face before and after the edit as the generator draws them:
H is what the inversion lost, carried to where the edit moved it.

Source: Wang et al. 2022 (HFGI), arXiv:2109.06590: what an inversion lost, aligned with the edit
and gated.
Departs: added to the picture instead of to features; a plain flow; sees label maps.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semedit import weights
from semedit.generators.parts.layers import Refine
from semedit.media.labels import LABELS

NAME = "detail"  # of its weight file
REACH = 0.25  # of the picture's half side: about how far a flow goes


@dataclass(frozen=True)
class Carried:
    """flow [N,2,W,W] (x, y) in half sides of the picture; gate [N,1,W,W] in [0,1]; residual
    [N,3,W,W] in the pictures' range."""

    flow: Tensor
    gate: Tensor
    residual: Tensor


class DetailNet(nn.Module):
    """A U-Net over cells of 2 x 2 px.

    Args: size: px a side that it sees, W. widths: channels at W/2, W/4, ... px. meaning: channels
          that say what a label means.
    """

    def __init__(
        self, size: int = 256, widths: tuple[int, ...] = (40, 56, 80, 112), meaning: int = 6
    ) -> None:
        super().__init__()
        self.size = size
        self.config = {"size": size, "widths": list(widths), "meaning": meaning}
        self.meaning = nn.Embedding(2 * len(LABELS), meaning)
        self.first = nn.Conv2d(4 * 13 + 2 * meaning, widths[0], 3, 1, 1)
        self.down = nn.ModuleList(nn.Conv2d(a, b, 2, 2) for a, b in pairwise(widths))
        self.fine = nn.ModuleList(Refine(width) for width in widths)
        self.up = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in pairwise(widths))
        self.fuse = nn.ModuleList(Refine(width) for width in widths[:-1])
        self.last = nn.Conv2d(widths[0], 18, 3, 1, 1)
        nn.init.normal_(self.last.weight, std=1e-3)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]

    def forward(
        self,
        photo: Tensor,
        before: Tensor,
        after: Tensor,
        region: Tensor,
        labels: Tensor,
        labels_after: Tensor,
    ) -> Carried:
        """
        Args: photo, before, after [N,3,W,W] in [-1,1]; region [N,1,W,W] in [0,1]: what changed;
              labels, labels_after int64 [N,W,W]: of before and after. W a multiple of 16.
        """
        pictures = torch.cat([photo, before, after, after - before, region], 1)
        ids = torch.stack([labels, labels_after + len(LABELS)], 1)[..., ::2, ::2]
        said = self.meaning(ids).permute(0, 1, 4, 2, 3).flatten(1, 2)
        x = self.first(torch.cat([F.pixel_unshuffle(pictures, 2), said], 1))
        x = self.fine[0](x.contiguous(memory_format=torch.channels_last))
        kept = [x]
        for down, fine in zip(self.down, self.fine[1:], strict=True):
            x = fine(down(x))
            kept.append(x)
        kept.pop()
        for up, fuse in zip(reversed(self.up), reversed(self.fuse), strict=True):
            x = fuse(kept.pop() + F.interpolate(up(x), scale_factor=2.0, mode="nearest"))
        y = self.last(F.silu(x)).float()
        flow = F.interpolate(REACH * y[:, :2].tanh(), scale_factor=2.0, mode="bilinear")
        rest = F.pixel_shuffle(y[:, 2:], 2)
        return Carried(flow, torch.sigmoid(rest[:, :1] + 1), rest[:, 1:])


def drawn_with(carried: Carried, photo: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """y of the module's equation [N,3,S,S], of pictures of any size S; see DetailNet."""
    size = photo.shape[-2:]
    flow, gate, residual = (
        part
        if part.shape[-2:] == size
        else F.interpolate(part, size, mode="bilinear", align_corners=False)
        for part in (carried.flow, carried.gate, carried.residual)
    )
    n = len(photo)
    identity = torch.eye(2, 3, device=photo.device, dtype=photo.dtype).expand(n, 2, 3)
    places = F.affine_grid(identity, [n, 3, *size], align_corners=False) + flow.permute(0, 2, 3, 1)
    lost = F.grid_sample(photo - before, places, padding_mode="border", align_corners=False)
    return after + gate * lost + residual


@cache
def load(device: str = "cpu") -> DetailNet:
    """The shipped network in eval mode, without parameter gradients.

    Raises: WeightsError: the file is missing, or its tensors are not those of the network.
    """
    tensors, metadata = weights.load(NAME)
    network = weights.built(lambda config: DetailNet(**config), metadata, NAME)
    weights.fill(network, tensors, NAME)
    return network.eval().requires_grad_(False).to(device)
