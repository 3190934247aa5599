"""Stage 2 of CNeRF: features of rays -> a picture and region maps at 2, 4, 8 times the side.

    x = conv1(transfer(features));  image = torgb(x);  maps = rendered maps + toseg(x)
    then per doubling: x = conv(up(x));  image = up(image) + torgb(x);  maps = up(maps) + toseg(x)

Its styles come from the mean style of the regions by a mapping network of its own.

Source: Ma et al. 2023 (CNeRF), arXiv:2302.01579; the blocks are StyleGAN2's, arXiv:1912.04958.
"""

from __future__ import annotations

from itertools import pairwise
from typing import cast

from torch import Tensor, nn

from semedit.generators.parts.layers import (
    Conv,
    Linear,
    ModulatedConv,
    activate,
    normalize,
    upsample,
)
from semedit.generators.stylegan2.stylegan2 import (
    MAPPING_RATE,
    Noise,
    NoisyConv,
    check_noise,
    noise_maps,
)

MAPPING_LAYERS = 5


class Superresolution(nn.Module):
    """See the module.

    Args: features: channels of a ray. regions: maps. side: pixels of the volume rendering.
          channels: at side, 2 side, ... pixels. w_dim: of the regions' styles.
          style_dim: of the styles here. transfer: channels between features and the first block.
    """

    def __init__(
        self, features: int, regions: int, side: int, channels: tuple[int, ...], w_dim: int,
        style_dim: int = 512, transfer: int = 256,
    ) -> None:  # fmt: skip
        super().__init__()
        self.transfer = Conv(features, transfer)
        sizes = [w_dim] + [style_dim] * MAPPING_LAYERS
        self.mapping = nn.ModuleList(Linear(a, b, rate=MAPPING_RATE) for a, b in pairwise(sizes))
        convs = [NoisyConv(transfer, channels[0], side, w_dim=style_dim)]
        for level, (before, width) in enumerate(pairwise(channels), 1):
            here = side * 2**level
            convs.append(NoisyConv(before, width, here, w_dim=style_dim, up=2))
            convs.append(NoisyConv(width, width, here, w_dim=style_dim))
        self.convs = nn.ModuleList(convs)
        self.torgb, self.toseg = (
            nn.ModuleList(
                ModulatedConv(width, outputs, style_dim, kernel=1, normal=False)
                for width in channels
            )
            for outputs in (3, regions)
        )
        self.num_ws = len(convs) + 1

    def styles(self, w: Tensor) -> Tensor:
        """w [N,w_dim] -> style [N,style_dim]."""
        x = normalize(w)
        for layer in self.mapping:
            x = activate(layer(x))
        return x

    def noises(self) -> dict[str, Tensor]:
        """The noise maps that "const" uses, by layer: [1,1,r,r]."""
        return noise_maps(self)

    def forward(
        self, features: Tensor, maps: Tensor, ws: Tensor, noise: Noise = "const"
    ) -> tuple[Tensor, Tensor]:
        """features [N,F,r,r], region maps [N,K,r,r], styles [N,num_ws,style_dim] -> image
        [N,3,R,R] and region maps [N,K,R,R].

        Raises: OptionError: no such noise.
        """
        check_noise(noise, self.noises())
        first, *rest = convs = cast(list[NoisyConv], list(self.convs))
        drawn = [conv.noise(f"convs.{i}", noise, len(ws)) for i, conv in enumerate(convs)]
        x = first(self.transfer(features), ws[:, 0], drawn[0])
        image = self.torgb[0](x, ws[:, 1])
        maps = maps + self.toseg[0](x, ws[:, 1])
        for i, conv in enumerate(rest, 1):
            x = conv(x, ws[:, i], drawn[i])
            if i % 2 == 0:
                style = ws[:, i + 1]  # the next block's first layer has it, too
                image = upsample(image) + self.torgb[i // 2](x, style)
                maps = upsample(maps) + self.toseg[i // 2](x, style)
        return image, maps
