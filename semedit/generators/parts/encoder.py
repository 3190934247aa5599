"""An encoder: aligned image, label map and camera -> codes.

Two towers of residual blocks, as in IDE-3D's hybrid encoder: the label map gives the shape codes,
image and label map give the texture codes.

Source: Sun et al. 2022 (IDE-3D), arXiv:2205.15517, section 3.2.
Departs: the camera is given (the face record holds it), unless `angles` asks for the paper's two
more outputs, yaw and pitch; both towers are small; beside each runs a linear path from what says
most: coarse label maps for the shape codes, mean colours of the regions and a coarse background
for the texture codes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semedit import cameras, weights
from semedit.errors import TraitError, WeightsError
from semedit.generators.contract import Generator
from semedit.generators.parts.layers import Conv, Linear, activate
from semedit.generators.stylegan2 import e4e
from semedit.generators.triplane import ide3d_encoder

KIND = "encoder"
COARSE = 8  # cells a side of what the linear paths see


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
    angles: int = 0  # 2: cameras are not looked at, yaw and pitch are predicted


class Encoder(nn.Module):
    """See the module."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        coarse = COARSE * COARSE
        self.shape = Tower(config, config.classes, config.classes * coarse, config.num_shape)
        direct = 4 * config.classes + 4 * coarse
        self.texture = Tower(config, config.classes + 3, direct, config.num_texture, config.angles)

    def forward(self, images: Tensor, labels: Tensor, c: Tensor) -> Tensor:
        """images [N,3,R,R] in [-1,1], labels int64 [N,R,R], c [N,25] -> ws [N,num_ws,w_dim]."""
        return self.look(images, labels, c)[0]

    def look(self, images: Tensor, labels: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """The same, and yaw and pitch [N,2] in radians, [N,0] where they are not predicted."""
        maps = F.one_hot(labels, self.config.classes).permute(0, 3, 1, 2).float()
        six = cameras.to_six(c.float())
        if self.config.angles:
            six = torch.zeros_like(six)
        shape, _ = self.shape(maps, F.adaptive_avg_pool2d(maps, COARSE).flatten(1), six)
        seen = torch.cat([region_colours(images, maps), coarse_background(images, maps)], 1)
        texture, angles = self.texture(torch.cat([images, maps], 1), seen, six)
        return torch.cat([shape, texture], 1).float(), angles.float()


def region_colours(images: Tensor, maps: Tensor) -> Tensor:
    """Root of the area and mean colour of each region [N,4K]; images [N,3,R,R], maps [N,K,R,R]."""
    area = maps.mean((2, 3))
    sums = torch.einsum("nkhw,nchw->nkc", maps, images) / maps[0, 0].numel()
    colours = sums / (area[..., None] + 1e-4)
    return torch.cat([area.sqrt(), colours.flatten(1)], 1)


def coarse_background(images: Tensor, maps: Tensor) -> Tensor:
    """What is behind the head, in coarse cells: share and colour [N,4*COARSE^2]."""
    behind = maps[:, :1]
    cells = F.adaptive_avg_pool2d(torch.cat([behind, behind * images], 1), COARSE)
    return torch.cat([cells[:, :1], cells[:, 1:] / (cells[:, :1] + 0.02)], 1).flatten(1)


class Tower(nn.Module):
    """Input [N,I,R,R], numbers for the linear path [N,D], camera numbers [N,6] -> styles
    [N,num_ws,w_dim] and `more` numbers [N,more]."""

    def __init__(
        self, config: EncoderConfig, inputs: int, direct: int, num_ws: int, more: int = 0
    ) -> None:
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
        outputs = num_ws * config.w_dim + more
        self.out = Linear(config.hidden, outputs, scale=0.1)
        self.direct = nn.Sequential(
            Linear(direct + 6, config.hidden),
            Linear(config.hidden, outputs, scale=0.1),
        )
        self.shape = (num_ws, config.w_dim)

    def forward(self, x: Tensor, direct: Tensor, six: Tensor) -> tuple[Tensor, Tensor]:
        linear = self.direct(torch.cat([direct, six], 1))
        x = self.down[0](x.contiguous(memory_format=torch.channels_last))
        for down, residual in zip(self.down[1:], self.residual, strict=True):
            x = down(x)
            x = (x + residual(x)) * math.sqrt(0.5)
        x = activate(self.flat(torch.cat([x.flatten(1), six.to(x.dtype)], 1)))
        x = activate(self.middle(x))
        out = self.out(x) + linear
        styles = math.prod(self.shape)
        return out[:, :styles].unflatten(1, self.shape), out[:, styles:]


class WithEncoder(Generator):
    """A generator that an encoder can be attached to; the encoder is no part of its weights."""

    def __init__(self) -> None:
        super().__init__()
        # In a tuple: not among the weights. A function reads it when it is first needed.
        self._encoder: tuple[nn.Module | Callable[[], nn.Module], ...] = ()

    def encode(self, images: Tensor, labels: Tensor, c: Tensor) -> dict[str, Tensor]:
        """Codes of images [N,3,R,R] with labels int64 [N,R,R], seen by cameras c [N,25].

        Raises: TraitError: no encoder was attached.
        """
        if self.encoder is None:
            raise TraitError(f"{self.name} has no encoder", hint="its weights name none")
        return {"ws": self.encoder(images, labels, c)}

    def viewed(self, images: Tensor, labels: Tensor, c: Tensor) -> Tensor:
        """Cameras c [N,25] with yaw and pitch as the encoder sees them.

        Raises: TraitError: there is no encoder, or none that predicts them.
        """
        encoder: Any = self.encoder
        if encoder is None or not getattr(encoder.config, "angles", 0):
            raise TraitError(
                f"{self.name} has no encoder that predicts yaw and pitch",
                hint="train one: semedit train encoder -o angles=true",
            )
        six = cameras.to_six(c)
        return cameras.from_six(
            torch.cat([encoder.look(images, labels, c)[1][:, :2].to(six), six[:, 2:]], 1)
        ).to(c)

    @property
    def encoder(self) -> nn.Module | None:
        """What `encode` uses."""
        if not self._encoder:
            return None
        found = self._encoder[0]
        if not isinstance(found, nn.Module):
            found = found()
            self._encoder = (found,)
        return found

    def attach(self, encoder: nn.Module | Callable[[], nn.Module]) -> Self:
        """Let `encode` use a network (images, labels, c) -> ws, or what a function reads when it
        is first needed: encoders of other projects are larger than their generators."""
        self._encoder = (encoder,)
        self.traits = type(self).traits | {"encode"}
        return self


def load_encoder(
    name: str, device: str | torch.device = "cpu", rest: nn.Module | None = None
) -> nn.Module:
    """The encoder of a weight file, in eval mode; the tensors that it lacks are those of `rest`.

    Raises: WeightsError: no such weights, or they are no encoder's.
    """
    tensors, metadata = weights.load(name)
    kind = metadata.get("kind", "")
    if kind not in ENCODERS:
        raise WeightsError(f"{name} is no encoder", hint=f"its kind is {kind or 'not given'}")
    encoder = weights.built(lambda config: build_encoder(kind, config), metadata, name)
    weights.fill(encoder, ({} if rest is None else rest.state_dict()) | tensors, name)
    return encoder.eval().requires_grad_(False).to(device)


def build_encoder(kind: str, config: dict[str, Any]) -> nn.Module:
    """An encoder with random weights; config: fields of its configuration, as JSON gives them."""
    network, settings = ENCODERS[kind]
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}
    return network(settings(**values))


ENCODERS: dict[str, tuple[type[nn.Module], type]] = {
    KIND: (Encoder, EncoderConfig),
    e4e.KIND: (e4e.E4E, e4e.E4EConfig),
    ide3d_encoder.KIND: (ide3d_encoder.HybridEncoder, ide3d_encoder.HybridEncoderConfig),
}
