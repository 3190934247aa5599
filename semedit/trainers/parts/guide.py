"""A guide: an encoder that is not kept, which a mapping network follows while a regression lasts.

    w = E(x), for a share of the faces M(z*);   near |M(z*) - E(x)|^2

z* are the parameters of the head in picture x. From z* alone, a generator learns blurs for very
long, as most of what it draws is then still to be found there; E finds the styles of a picture at
once. Where pictures come in several views, E sees one and the generator draws any.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semedit.generators.parts.encoder import (
    COARSE,
    EncoderConfig,
    Tower,
    coarse_background,
    region_colours,
)


class Guide(nn.Module):
    """Pictures [N,3,R,R] in [-1,1] and label maps int64 [N,R,R] -> styles [N,count,w_dim].

    Args: resolution: R. count: styles of a face. widths: channels at R/2, R/4, ...
    """

    def __init__(self, resolution: int, w_dim: int, widths: Sequence[int], count: int = 1) -> None:
        super().__init__()
        levels = resolution.bit_length() - 3  # down to 4 pixels, if there are so many widths
        channels = tuple(widths[:levels])
        config = EncoderConfig(w_dim=w_dim, resolution=resolution, channels=channels)
        self.classes = config.classes
        direct = 4 * config.classes + 4 * COARSE * COARSE
        self.tower = Tower(config, config.classes + 3, direct, num_ws=count)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        maps = F.one_hot(labels, self.classes).permute(0, 3, 1, 2).float()
        seen = torch.cat([region_colours(images, maps), coarse_background(images, maps)], 1)
        no_camera = images.new_zeros(len(images), 6)
        return self.tower(torch.cat([images, maps], 1), seen, no_camera)[0]


def followed(
    mapped: Tensor, guide: nn.Module | None, images: Tensor, labels: Tensor, share: float
) -> tuple[Tensor, Tensor]:
    """Styles to draw from, the first ones mapped; and how far the mapping network is from the
    guide, which is not to give up what z cannot say.

    Args: mapped [N,...,w_dim]: of the mapping network. guide: makes as many of images and labels;
          None: there is none. share: of faces whose styles are the mapping network's.
    """
    if guide is None:
        return mapped, mapped.new_zeros([])
    found = guide(images, labels).view_as(mapped)
    count = round(share * len(mapped))
    near = (mapped.float() - found.detach().float()).square().mean()
    return torch.cat([mapped[:count].to(found), found[count:]]), near
