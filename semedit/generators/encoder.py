"""An encoder: aligned image, label map and camera -> codes.

Two towers of residual blocks, as in IDE-3D's hybrid encoder: the label map gives the shape codes,
image and label map give the texture codes.

Source: Sun et al. 2022 (IDE-3D), arXiv:2205.15517, section 3.2.
Departs: the camera is given, not predicted (the face record holds it); both towers are small.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import cameras, weights
from ..errors import WeightsError
from .layers import Conv, Linear, activate

KIND = "encoder"


@dataclass(frozen=True)
class EncoderConfig:
    """Sizes of an encoder; the defaults are those of the built-in one."""

    generator: str = "heads-128"  # whose codes it gives
    num_shape: int = 9  # styles from the label map
    num_texture: int = 5  # styles from image and label map
    w_dim: int = 192  # entries of a style
    classes: int = 19  # of the label map
    resolution: int = 128  # pixels a side of image and label map
    channels: tuple[int, ...] = (32, 64, 96, 128, 160)  # at half, quarter, ... of the resolution
    hidden: int = 256  # features per tower behind the convolutions


class Encoder(nn.Module):
    """See the module."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.shape = Tower(config, config.classes, config.num_shape)
        self.texture = Tower(config, config.classes + 3, config.num_texture)

    def forward(self, images: Tensor, labels: Tensor, c: Tensor) -> Tensor:
        """images [N,3,R,R] in [-1,1], labels int64 [N,R,R], c [N,25] -> ws [N,num_ws,w_dim]."""
        maps = F.one_hot(labels, self.config.classes).permute(0, 3, 1, 2).float()
        six = cameras.to_six(c.float())
        shape = self.shape(maps, six)
        texture = self.texture(torch.cat([images, maps], 1), six)
        return torch.cat([shape, texture], 1).float()


class Tower(nn.Module):
    """Input [N,I,R,R] and camera numbers [N,6] -> styles [N,num_ws,w_dim]."""

    def __init__(self, config: EncoderConfig, inputs: int, num_ws: int) -> None:
        super().__init__()
        sides = (inputs, *config.channels)
        self.down = nn.ModuleList(
            Conv(a, b, stride=2) for a, b in zip(sides, config.channels, strict=False)
        )
        # The finest level is the dearest and gets no second convolution.
        self.residual = nn.ModuleList(Conv(b, b) for b in config.channels[1:])
        last = config.resolution // 2 ** len(config.channels)
        self.flat = Linear(config.channels[-1] * last * last + 6, config.hidden)
        self.middle = Linear(config.hidden, config.hidden)
        self.out = Linear(config.hidden, num_ws * config.w_dim, scale=0.1)
        self.shape = (num_ws, config.w_dim)

    def forward(self, x: Tensor, six: Tensor) -> Tensor:
        x = self.down[0](x.contiguous(memory_format=torch.channels_last))
        for down, residual in zip(self.down[1:], self.residual, strict=True):
            x = down(x)
            x = (x + residual(x)) * math.sqrt(0.5)
        x = activate(self.flat(torch.cat([x.flatten(1), six.to(x.dtype)], 1)))
        x = activate(self.middle(x))
        return self.out(x).unflatten(1, self.shape)


def load_encoder(name: str, device: str | torch.device = "cpu") -> Encoder:
    """The encoder of a weight file, in eval mode.

    Raises: WeightsError: no such weights, or they are no encoder's.
    """
    tensors, metadata = weights.load(name)
    if metadata.get("kind") != KIND:
        raise WeightsError(f"{name} is no encoder", hint=f"its kind is {metadata.get('kind')}")
    values = json.loads(metadata["config"])
    encoder = Encoder(EncoderConfig(**{**values, "channels": tuple(values["channels"])}))
    encoder.load_state_dict(tensors)
    return encoder.eval().requires_grad_(False).to(device)
