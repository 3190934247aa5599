"""StyleGAN2: z -> w -> a picture, coarse to fine.

    ws = mapping(z, c);  x_4 = const;  x_2r = conv1(conv0(x_r));  image_2r = up(image_r) + torgb(x)

Any resolution from 16 to 1024 pixels; keys and conventions are those of NVIDIA's checkpoints, so
that these fit after renaming `mapping.` and `synthesis.`.

Source: Karras et al. 2020, arXiv:1912.04958; conditioning and clamping as in StyleGAN2-ADA,
Karras et al. 2020, arXiv:2006.06676.
Departs: pure PyTorch; styles scale activations, not weights (see layers.ModulatedConv), so a
descent of codes never computes gradients of weights; synthesis may end at a lower resolution.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn

from semedit.errors import OptionError, ShapeError
from semedit.generators.contract import Output
from semedit.generators.parts import frozen
from semedit.generators.parts.encoder import WithEncoder
from semedit.generators.parts.layers import (
    GAIN,
    SLOPE,
    Linear,
    ModulatedConv,
    activate,
    fir,
    normalize,
    upsample,
)

Noise = str | Mapping[str, Tensor]  # "const", "random", "none", or maps by name of the layer

NOISES = ("const", "random", "none")
MAPPING_RATE = 0.01  # of the mapping network's learning


def widths(resolution: int, base: int = 32768, most: int = 512) -> tuple[int, ...]:
    """Channels at 4, 8, ... pixels of NVIDIA's configurations; base 32768 is config F."""
    return tuple(min(base // side, most) for side in sides(resolution))


def sides(resolution: int) -> tuple[int, ...]:
    """4, 8, ..., resolution.

    Raises: OptionError: not a power of two from 4 to 1024.
    """
    found = tuple(4 * 2**level for level in range(9) if 4 * 2**level <= resolution)
    if not found or found[-1] != resolution:
        raise OptionError(f"StyleGAN2 has no resolution {resolution}: powers of two up to 1024")
    return found


@dataclass(frozen=True)
class StyleGAN2Config:
    """Sizes of a StyleGAN2; the defaults are those of FFHQ at 1024 pixels."""

    resolution: int = 1024  # pixels a side
    channels: tuple[int, ...] = ()  # at 4, 8, ... pixels; empty: those of config F
    z_dim: int = 512  # entries of z
    w_dim: int = 512  # entries of a style
    c_dim: int = 0  # entries of the label that the mapping network sees
    mapping_layers: int = 8  # linear layers from z to w
    image_channels: int = 3  # of the picture
    clamp: float | None = None  # bound of activations; 256 where NVIDIA trained with float16

    @property
    def levels(self) -> tuple[tuple[int, int], ...]:
        """(pixels a side, channels), coarse to fine."""
        channels = self.channels or widths(self.resolution)
        return tuple(zip(sides(self.resolution), channels, strict=True))


class Mapped(WithEncoder):
    """A generator whose styles of all layers come from z through one mapping network."""

    def __init__(self, config: Any, num_ws: int) -> None:
        super().__init__()
        self.z_dim, self.num_ws = config.z_dim, num_ws
        self.mapping_network = MappingNetwork(config)

    def mapping(
        self,
        z: Tensor,
        c: Tensor,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
    ) -> dict[str, Tensor]:
        """Styles of z.

        Args:    z [N,z_dim] standard normal; c [N,c_dim], without influence where c_dim is 0.
                 truncation_psi: 1 leaves w, 0 gives w_avg; truncation_cutoff: only in so many
                 of the first layers.
        Returns: {"ws": [N,num_ws,w_dim]}.
        """
        w = self.mapping_network(z, c)
        ws = w[:, None].expand(-1, self.num_ws, -1)
        if truncation_psi == 1.0:
            return {"ws": ws}
        near = self.mapping_network.w_avg.lerp(ws, truncation_psi)
        if truncation_cutoff is not None:
            near = torch.cat([near[:, :truncation_cutoff], ws[:, truncation_cutoff:]], 1)
        return {"ws": near}

    def mean_codes(self) -> dict[str, Tensor]:
        """Codes of the mean style, one face."""
        return {"ws": self.mapping_network.w_avg.expand(1, self.num_ws, -1)}


class StyleGAN2(Mapped):
    """StyleGAN2, from NVIDIA's or rosinality's checkpoints (`semedit weights import`)."""

    traits: frozenset[str] = frozenset({"ws", "noise", "coarse"})

    def __init__(self, config: StyleGAN2Config, name: str = "stylegan2") -> None:
        super().__init__(config, 2 * len(config.levels))
        self.config, self.name = config, name
        self.resolution = config.resolution
        self.synthesis_network = Synthesis(config)

    def noises(self) -> dict[str, Tensor]:
        """The noise maps that "const" uses, by layer, coarse to fine: [1,1,r,r]."""
        return noise_maps(self.synthesis_network)

    def synthesis(
        self,
        codes: Mapping[str, Tensor],
        c: Tensor,
        noise: Noise = "const",
        resolution: int | None = None,
    ) -> Output:
        """Codes -> Output with the image alone.

        Args:
            codes: "ws" [N,num_ws,w_dim]. c: without influence here.
            noise: "const", "random", "none"; or some of what `noises` names, each
                [N or 1,1,r,r], the others as in "const".
            resolution: end there; the image is what the layers up to it draw.

        Raises: ShapeError: codes or noise of another shape.  OptionError: no such noise or
                resolution.
        """
        return Output(self.synthesis_network(codes["ws"], noise, resolution).float())


class MappingNetwork(nn.Module):
    """z [N,z_dim] and label [N,c_dim] -> w [N,w_dim].

    Args: config: of any generator that has z_dim, w_dim, c_dim and mapping_layers.
    """

    w_avg: Tensor

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.c_dim, self.layers = config.c_dim, config.mapping_layers
        first = config.z_dim
        if config.c_dim:
            self.embed = Linear(config.c_dim, config.w_dim)
            first += config.w_dim
        inputs = [first] + [config.w_dim] * config.mapping_layers
        for i, (a, b) in enumerate(pairwise(inputs)):
            self.add_module(f"fc{i}", Linear(a, b, rate=MAPPING_RATE))
        self.register_buffer("w_avg", torch.zeros(config.w_dim))

    def forward(self, z: Tensor, c: Tensor) -> Tensor:
        x = normalize(z.float())
        if self.c_dim:
            if c.shape[-1] != self.c_dim:
                raise ShapeError(f"the label has {c.shape[-1]} entries, not {self.c_dim}")
            x = torch.cat([x, normalize(self.embed(c.float()))], 1)
        for i in range(self.layers):
            x = activate(self.get_submodule(f"fc{i}")(x))
        return x


class Synthesis(nn.ModuleDict):
    """ws [N,num_ws,w_dim] -> image [N,image_channels,R,R]; blocks b4, b8, ... by their side."""

    def __init__(self, config: StyleGAN2Config) -> None:
        levels = config.levels
        before = (0, *(channels for _, channels in levels))
        super().__init__(
            {
                f"b{side}": Block(inputs, channels, side, config)
                for inputs, (side, channels) in zip(before, levels, strict=False)
            }
        )
        self.num_ws, self.w_dim = 2 * len(levels), config.w_dim

    def forward(self, ws: Tensor, noise: Noise = "const", resolution: int | None = None) -> Tensor:
        if ws.shape[1:] != (self.num_ws, self.w_dim):
            found, wanted = tuple(ws.shape), (len(ws), self.num_ws, self.w_dim)
            raise ShapeError(f"ws has the shape {found}, not {wanted}")
        if resolution is not None and f"b{resolution}" not in self:
            raise OptionError(f"synthesis cannot end at {resolution} pixels, only at {list(self)}")
        check_noise(noise, noise_maps(self))
        x = image = None
        used = 0
        for name, module in self.items():
            block = cast(Block, module)
            layers = {key: cast(NoisyConv, block.get_submodule(key)) for key in block.noisy}
            maps = {k: x.noise(f"{name}.{k}", noise, len(ws)) for k, x in layers.items()}
            # The picture's layer shares its style with the next block's first.
            x, image = block(x, image, ws[:, used:], maps)
            used += len(block.noisy)
            if name == f"b{resolution}":
                break
        return cast(Tensor, image)


class Block(nn.Module):
    """Features and picture at half the side -> at `side`; the first starts from a constant."""

    def __init__(self, inputs: int, channels: int, side: int, config: StyleGAN2Config) -> None:
        super().__init__()
        shared: dict[str, Any] = {"w_dim": config.w_dim, "clamp": config.clamp}
        self.noisy = ("conv0", "conv1") if inputs else ("conv1",)
        if inputs:
            self.conv0 = NoisyConv(inputs, channels, side, up=2, **shared)
        else:
            self.const = nn.Parameter(torch.randn(channels, side, side))
        self.conv1 = NoisyConv(channels, channels, side, **shared)
        self.torgb = ToRGB(channels, config.image_channels, kernel=1, normal=False, **shared)

    def forward(
        self, x: Tensor | None, image: Tensor | None, ws: Tensor, noise: Mapping[str, Tensor | None]
    ) -> tuple[Tensor, Tensor]:
        """ws [N,>=3,w_dim], those of this block first."""
        styles = iter(ws.unbind(1))
        if x is None:
            x = self.const.expand(len(ws), -1, -1, -1)
        else:
            x = self.conv0(x, next(styles), noise["conv0"])
        x = self.conv1(x, next(styles), noise["conv1"])
        drawn = self.torgb(x, next(styles))
        return x, drawn if image is None else upsample(image) + drawn


class NoisyConv(ModulatedConv):
    """A modulated convolution with a noise map of its own, which is the same for all faces."""

    noise_const: Tensor

    def __init__(self, inputs: int, outputs: int, side: int, **options: Any) -> None:
        super().__init__(inputs, outputs, **options)
        self.register_buffer("noise_const", torch.randn(side, side))
        self.noise_strength = nn.Parameter(torch.zeros([]))

    def noise(self, name: str, noise: Noise, n: int) -> Tensor | None:
        """This layer's scaled map [N or 1,1,r,r] for n pictures; noise names it `name`."""
        if isinstance(noise, Mapping) and name in noise:
            return noise[name] * self.noise_strength
        if noise == "none":
            return None
        const = self.noise_const[None, None]
        if noise == "random":
            const = torch.randn(n, *const.shape[1:], device=const.device)
        return const * self.noise_strength

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None = None) -> Tensor:
        """As ModulatedConv's; on a CPU, with weights that learn nothing, by generators.frozen."""
        trained = torch.is_grad_enabled() and (self.weight.requires_grad or self.bias.requires_grad)
        if trained or x.device.type != "cpu" or x.dtype != torch.float32:
            return super().forward(x, w, noise)
        style = self.affine(w) * self.gain
        kernel = fir(self.weight.shape[0], x) if self.up == 2 else None
        scaled = None if noise is None else noise * GAIN
        scale = self.demodulation(style)
        bias = self.bias * GAIN
        y = frozen.layer(x, style, scale, scaled, self.weight, bias, kernel, SLOPE)
        return y if self.clamp is None else y.clamp(-self.clamp * GAIN, self.clamp * GAIN)


def noise_maps(network: nn.Module) -> dict[str, Tensor]:
    """The noise maps of a network's layers, by the layers' names: [1,1,r,r]."""
    layers = network.named_modules()
    return {k: x.noise_const[None, None] for k, x in layers if isinstance(x, NoisyConv)}


def check_noise(noise: Noise, known: Mapping[str, Tensor]) -> None:
    """Raise OptionError where there is no such noise among the known maps, ShapeError where a map
    has another shape."""
    if isinstance(noise, str):
        if noise not in NOISES:
            raise OptionError(f"there is no noise {noise!r}: {', '.join(NOISES)}")
        return
    for name, value in noise.items():
        if name not in known:
            raise OptionError(f"no layer {name} takes noise: {', '.join(known)}")
        wanted = tuple(known[name].shape[1:])
        if value.ndim != 4 or tuple(value.shape[1:]) != wanted:
            found = tuple(value.shape)
            raise ShapeError(f"noise of {name} has the shape {found}, not (N, *{wanted})")


class ToRGB(ModulatedConv):
    """The layer that writes the picture: one matrix a face, which its style goes into."""

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None = None) -> Tensor:
        style = self.affine(w) * self.gain
        matrix = (self.weight.flatten(1) * style[:, None]).to(x.dtype)
        y = torch.baddbmm(self.bias.to(x.dtype)[:, None], matrix, x.flatten(2))
        y = y.unflatten(2, x.shape[2:])
        return y if self.clamp is None else y.clamp(-self.clamp, self.clamp)
