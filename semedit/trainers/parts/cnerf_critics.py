"""CNeRF's two discriminators: of the whole head, and of one region of it.

    whole    picture and region maps -> real?, yaw and pitch
    region   picture cut out by one region's map, and that map -> real?, which region?

Source: Ma et al. 2023 (CNeRF), arXiv:2302.01579. Departs: blocks are those of discriminators.py;
coordinates are told to the first layer alone.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semedit import losses
from semedit.generators.parts.layers import Conv, Linear, activate
from semedit.trainers.parts.discriminators import Halving, spread

LAST = 4  # pixels a side behind the last block
SHOWN = 0.5  # of a region's map somewhere: it is there


class Critic(nn.Module):
    """Pictures [N,3,R,R] and maps [N,M,R,R] -> [N,outputs]: a tower for each, summed.

    Args: channels: of both towers at R, R/2, ... 4 pixels. maps: M.
    """

    def __init__(self, channels: tuple[int, ...], maps: int, outputs: int) -> None:
        super().__init__()
        self.side = LAST * 2 ** (len(channels) - 1)
        self.image, self.maps = (
            nn.Sequential(
                Conv(inputs, channels[0], kernel=1),
                *(Halving(a, b) for a, b in pairwise(channels)),
            )
            for inputs in (3 + 2, maps)
        )
        self.last = Conv(channels[-1] + 1, channels[-1])
        self.hidden = Linear(channels[-1] * LAST * LAST, channels[-1])
        self.out = Linear(channels[-1], outputs)

    def forward(self, image: Tensor, maps: Tensor) -> Tensor:
        n, _, high, wide = image.shape
        line = [torch.linspace(-1, 1, size, device=image.device) for size in (high, wide)]
        places = torch.stack(torch.meshgrid(*line, indexing="ij")).expand(n, -1, -1, -1)
        x = self.image(torch.cat([image, places], 1)) + self.maps(maps)
        x = self.last(torch.cat([x, spread(x)], 1))
        return self.out(activate(self.hidden(x.flatten(1))))


def region_crop(image: Tensor, maps: Tensor, region: Tensor) -> tuple[Tensor, Tensor]:
    """One region each: image [N,3,R,R] times its map, and the map [N,1,R,R]; region int64 [N]."""
    own = maps[torch.arange(len(maps)), region][:, None]
    return image * own, own


def mix(ws: Tensor, shape_layers: int, chance: float) -> Tensor:
    """Codes [2n,K,L,w] of pairs of heads -> [n,...]: every region from the first, from the second,
    or its shape from the first and its texture from the second.

    Args: chance: that a pair is mixed at all.
    """
    first, second = ws.chunk(2)
    n, count = first.shape[:2]
    source = torch.randint(3, (n, count, 1, 1)) * (torch.rand(n, 1, 1, 1) < chance)
    texture = torch.arange(ws.shape[2])[:, None] >= shape_layers
    return torch.where((source == 2) | ((source == 1) & texture), second, first)


def view_loss(found: Tensor, angles: Tensor) -> Tensor:
    """Smooth L1 distance of yaw and pitch [N,2], radians."""
    return F.smooth_l1_loss(found, angles)


def class_loss(found: Tensor, region: Tensor, own: Tensor) -> Tensor:
    """Cross-entropy of the region's number where its map shows it; 0 if none does.

    A head without glasses has nothing that could tell, and is not to grow any.

    Args: found [N,K]; region int64 [N]; own: its maps [N,1,R,R].
    """
    there = (own.detach().amax((1, 2, 3)) > SHOWN).float()
    each = F.cross_entropy(found, region, reduction="none")
    return (each * there).sum() / there.sum().clamp(min=1)


def slopes(critic: Critic, image: Tensor, maps: Tensor) -> tuple[Tensor, Tensor]:
    """R1 at real heads, of pictures and of maps: their means."""
    image, maps = (x.detach().requires_grad_(True) for x in (image, maps))
    logits = critic(image, maps)[:, 0]
    both = torch.autograd.grad(logits.sum(), [image, maps], create_graph=True)
    of_image, of_maps = (g.square().flatten(1).sum(1).mean() for g in both)
    return of_image, of_maps


def critic_loss(critic: Critic, real: tuple[Tensor, Tensor], fake: tuple[Tensor, Tensor]) -> Tensor:
    """Outputs of real heads, then of fake ones, and the adversarial loss of both."""
    return losses.discriminator_loss(critic(*real)[:, 0], critic(*fake)[:, 0]).mean()
