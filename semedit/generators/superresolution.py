"""Stage 2 of CNeRF: features of rays -> a picture and region maps at 2, 4, 8 times the side.

    x = conv1(transfer(features));  image = torgb(x);  maps = rendered maps + toseg(x)
    then per doubling: x = conv(up(x));  image = up(image) + torgb(x);  maps = up(maps) + toseg(x)

Its styles come from the mean style of the regions by a mapping network of its own.

Source: Ma et al. 2023 (CNeRF), arXiv:2302.01579; the blocks are StyleGAN2's, arXiv:1912.04958.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn

from semedit.errors import OptionError, ShapeError
from semedit.generators.layers import Conv, Linear, ModulatedConv, activate, normalize, upsample
from semedit.generators.stylegan2 import MAPPING_RATE, NOISES, Noise, NoisyConv

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
        return {f"convs.{i}": conv.noise_const[None, None] for i, conv in enumerate(self._noisy())}

    def forward(
        self, features: Tensor, maps: Tensor, ws: Tensor, noise: Noise = "const"
    ) -> tuple[Tensor, Tensor]:
        """features [N,F,r,r], region maps [N,K,r,r], styles [N,num_ws,style_dim] -> image
        [N,3,R,R] and region maps [N,K,R,R].

        Raises: OptionError: no such noise.
        """
        self._check(noise)
        first, *rest = self._noisy()
        x = first(self.transfer(features), ws[:, 0], self._noise(0, noise, len(ws)))
        image = self.torgb[0](x, ws[:, 1])
        maps = maps + self.toseg[0](x, ws[:, 1])
        for i, conv in enumerate(rest, 1):
            x = conv(x, ws[:, i], self._noise(i, noise, len(ws)))
            if i % 2 == 0:
                style = ws[:, i + 1]  # the next block's first layer has it, too
                image = upsample(image) + self.torgb[i // 2](x, style)
                maps = upsample(maps) + self.toseg[i // 2](x, style)
        return image, maps

    def _noisy(self) -> list[NoisyConv]:
        return [conv for conv in self.convs if isinstance(conv, NoisyConv)]

    def _noise(self, index: int, noise: Noise, n: int) -> Tensor | None:
        """The scaled map of one layer."""
        layer, name = self._noisy()[index], f"convs.{index}"
        if isinstance(noise, Mapping) and name in noise:
            return noise[name] * layer.noise_strength
        if noise == "none":
            return None
        const = layer.noise_const[None, None]
        if noise == "random":
            const = torch.randn(n, *const.shape[1:], device=const.device)
        return const * layer.noise_strength

    def _check(self, noise: Noise) -> None:
        if isinstance(noise, str):
            if noise not in NOISES:
                raise OptionError(f"there is no noise {noise!r}: {', '.join(NOISES)}")
            return
        known = self.noises()
        for name, value in noise.items():
            if name not in known:
                raise OptionError(f"no layer {name} takes noise: {', '.join(known)}")
            if value.ndim != 4 or value.shape[1:] != known[name].shape[1:]:
                found, wanted = tuple(value.shape), tuple(known[name].shape[1:])
                raise ShapeError(f"noise of {name} has the shape {found}, not (N, *{wanted})")
