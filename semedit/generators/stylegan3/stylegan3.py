"""StyleGAN3: z -> w -> a picture whose details move with what they belong to.

    ws = mapping(z, c);  x = fourier(ws_0);  x = L_i(x, ws_i+1), i = 0 ... 14;  image = x / 4

There is no noise and no resolution to grow through: each layer is a convolution, then a leaky
ReLU at a higher sampling rate between two low-pass filters. The picture may be shifted and turned
before it is drawn, since it begins as waves of all places.

Both published kinds: T, whose details keep to translations, and R, to rotations, too (1x1
convolutions, radial filters).

Source: Karras et al. 2021, arXiv:2106.12423.
Departs: pure PyTorch; styles scale activations, not weights; styles are not normalised, which
demodulation undoes anyhow.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semedit.errors import OptionError, ShapeError
from semedit.generators.contract import Output
from semedit.generators.parts.layers import GAIN, SLOPE, Linear
from semedit.generators.stylegan2.stylegan2 import Mapped
from semedit.generators.stylegan3.filters import down, lowpass, up

PLACE = "place"  # the optional code: how far a face is shifted and turned
TAPS = 6  # of a filter, for each doubling
OUTPUT = 0.25  # of the last layer's values, which the picture is


@dataclass(frozen=True)
class StyleGAN3Config:
    """Sizes of a StyleGAN3; the defaults are those of configuration T at 1024 pixels."""

    resolution: int = 1024  # pixels a side
    channels: tuple[int, ...] = ()  # of each layer but the last; empty: those of configuration T
    z_dim: int = 512  # entries of z
    w_dim: int = 512  # entries of a style
    c_dim: int = 0  # entries of the label that the mapping network sees
    mapping_layers: int = 2  # linear layers from z to w
    layers: int = 14  # besides the last, which writes the picture
    critical: int = 2  # of the last of them, at the full resolution, filter no more than they must
    kernel: int = 3  # side of the convolutions; 1 in configuration R
    radial: bool = False  # filters that are the same in all directions, as in configuration R
    clamp: float | None = 256.0  # bound of activations
    first_cutoff: float = 2.0  # frequency that the first layer keeps, per width of the picture
    first_stop: float = 2.0**2.1  # and the one from which on it keeps nothing
    last_stop: float = 2.0**0.3  # the same of the last layer, as a share of its cutoff
    margin: int = 10  # samples around the picture

    @property
    def shape(self) -> tuple[Stage, ...]:
        """What each layer, the last one too, gives.

        Raises: OptionError: another number of channels than of layers.
        """
        kept = [self._between(i, self.first_cutoff, self.resolution / 2) for i in self._all]
        last = self.resolution / 2 * self.last_stop
        stops = [self._between(i, self.first_stop, last) for i in self._all]
        channels = self.channels or tuple(
            round(min(CHANNEL_BASE / 2 / cutoff, MOST_CHANNELS)) for cutoff in kept[:-1]
        )
        if len(channels) != self.layers:
            raise OptionError(f"{len(channels)} numbers of channels are given for {self.layers}")
        found = []
        for i, (cutoff, stop) in enumerate(zip(kept, stops, strict=True)):
            rate = 2 ** math.ceil(math.log2(min(2 * stop, self.resolution)))
            size = self.resolution if i >= self.layers - 1 else rate + 2 * self.margin
            wide = 3 if i == self.layers else channels[i]
            found.append(Stage(wide, size, rate, cutoff, max(stop, rate / 2) - cutoff))
        return tuple(found)

    def filters(self, i: int) -> tuple[Tensor, Tensor]:
        """Of the i-th layer, before and behind its leaky ReLU, whose new frequencies have room at
        twice the higher of the two rates: float32 [taps], radial ones [taps,taps]."""
        stages = self.shape
        before, after = stages[max(i - 1, 0)], stages[i]
        rate = room(before, after)
        radial = self.radial and i < self.layers - self.critical
        return (
            lowpass(TAPS * rate // before.rate, before.cutoff, 2 * before.half_width, rate),
            lowpass(TAPS * rate // after.rate, after.cutoff, 2 * after.half_width, rate, radial),
        )

    @property
    def _all(self) -> range:
        return range(self.layers + 1)

    def _between(self, i: int, first: float, last: float) -> float:
        """A frequency of the i-th layer: they rise geometrically, and are the last at the end."""
        return first * (last / first) ** min(i / (self.layers - self.critical), 1.0)


CHANNEL_BASE, MOST_CHANNELS = 32768, 512  # of configuration T


@dataclass(frozen=True)
class Stage:
    """What a layer gives: channels, pixels a side with the margins; per width of the picture, the
    sampling rate, the cutoff frequency and half the width of the transition to nothing."""

    channels: int
    size: int
    rate: int
    cutoff: float
    half_width: float


def room(before: Stage, after: Stage) -> int:
    """The sampling rate at which a leaky ReLU works between two layers."""
    return 2 * max(before.rate, after.rate)


class StyleGAN3(Mapped):
    """StyleGAN3, from NVIDIA's checkpoints (`semedit weights import`)."""

    traits: frozenset[str] = frozenset({"ws", "shift"})

    def __init__(self, config: StyleGAN3Config, name: str = "stylegan3") -> None:
        super().__init__(config, config.layers + 2)
        self.config, self.name = config, name
        self.resolution = config.resolution
        self.synthesis_network = Synthesis(config)

    def optional_codes(self) -> dict[str, Tensor]:
        """`place`: see `synthesis`."""
        return {PLACE: self.mapping_network.w_avg.new_zeros(1, 1, 3)}

    def synthesis(self, codes: Mapping[str, Tensor], c: Tensor, noise: str = "const") -> Output:
        """Codes -> Output with the image alone.

        Args:
            codes: "ws" [N,num_ws,w_dim]; "place" [N,k,3], if given: shifts to the right and down,
                shares of the picture's width, and turns to the left, radians, of which each adds
                to the others; first the face turns about the middle, then it is shifted.
            c, noise: without influence here.

        Raises: ShapeError: codes of another shape.
        """
        place = codes.get(PLACE)
        return Output(self.synthesis_network(codes["ws"], None if place is None else place.sum(1)))


class Synthesis(nn.Module):
    """ws [N,num_ws,w_dim] -> image [N,3,R,R]; layers L0, L1, ... by their number."""

    def __init__(self, config: StyleGAN3Config) -> None:
        super().__init__()
        stages = config.shape
        self.input = Fourier(config.w_dim, stages[0])
        pairs = pairwise((stages[0], *stages))
        self.layers = [f"L{i}" for i in range(len(stages))]
        for i, (before, after) in enumerate(pairs):
            self.add_module(self.layers[i], Layer(i, before, after, config))
        self.shape = (len(stages) + 1, config.w_dim)

    def forward(self, ws: Tensor, place: Tensor | None = None) -> Tensor:
        """place [N,3]: shifts and turn."""
        if ws.shape[1:] != self.shape:
            raise ShapeError(f"ws has the shape {tuple(ws.shape)}, not {(len(ws), *self.shape)}")
        styles = ws.float().unbind(1)
        x = self.input(styles[0], place)
        for name, w in zip(self.layers, styles[1:], strict=True):
            x = self.get_submodule(name)(x, w)
        return x * OUTPUT


class Fourier(nn.Module):
    """Waves of all places: w [N,w_dim] -> [N,channels,size,size].

        x_k(p) = sum_j W_kj a_j sin(2 pi (f_j . T p + phase_j)) / sqrt(channels)

    T turns and shifts as the style says, then as `transform` (the file's own) and the place do.
    Waves that T makes too short for the sampling rate fade (a_j).
    """

    freqs: Tensor
    phases: Tensor
    transform: Tensor

    def __init__(self, w_dim: int, stage: Stage) -> None:
        super().__init__()
        channels = stage.channels
        freqs = torch.randn(channels, 2)
        radii = freqs.norm(dim=1, keepdim=True)
        # Uniform over a disc of the radius `cutoff`.
        freqs = freqs / (radii * radii.square().exp().pow(0.25)) * stage.cutoff
        self.weight = nn.Parameter(torch.randn(channels, channels))
        self.affine = Linear(w_dim, 4, scale=0.0)
        with torch.no_grad():
            self.affine.bias.copy_(torch.tensor([1.0, 0.0, 0.0, 0.0]))
        self.register_buffer("freqs", freqs)
        self.register_buffer("phases", torch.rand(channels) - 0.5)
        self.register_buffer("transform", torch.eye(3))
        self.stage = stage

    def forward(self, w: Tensor, place: Tensor | None = None) -> Tensor:
        """place [N,3] as in StyleGAN3.synthesis, None: as it is."""
        t = self.affine(w)
        cos, sin, right, under = (t / t[:, :2].norm(dim=1, keepdim=True)).unbind(1)
        turn = rigid(cos, -sin, torch.zeros_like(cos), torch.zeros_like(cos))
        shift = rigid(torch.ones_like(cos), torch.zeros_like(cos), -right, -under)
        transform = turn @ shift @ self.transform
        if place is not None:
            transform = transform @ back(place.float())
        freqs = self.freqs @ transform[:, :2, :2]
        phases = self.phases + (self.freqs @ transform[:, :2, 2:])[..., 0]
        highest = self.stage.rate / 2 - self.stage.cutoff
        fading = (1 - (freqs.norm(dim=2) - self.stage.cutoff) / highest).clamp(0, 1)
        side = self.stage.size
        line = (torch.arange(side, device=w.device) - (side - 1) / 2) / self.stage.rate
        angle = freqs[:, :, :1] * line  # of columns; rows add theirs
        angle = angle[:, :, None] + (freqs[:, :, 1:] * line)[..., None]
        waves = torch.sin(2 * math.pi * (angle + phases[:, :, None, None]))
        waves = waves * fading[:, :, None, None]
        return F.conv2d(waves, self.weight[:, :, None, None] / math.sqrt(len(self.weight)))


def rigid(cos: Tensor, sin: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Matrices [N,3,3] (cos, sin, x; -sin, cos, y; 0, 0, 1) of numbers [N]."""
    none, one = torch.zeros_like(cos), torch.ones_like(cos)
    rows = (cos, sin, x, -sin, cos, y, none, none, one)
    return torch.stack(rows, 1).unflatten(1, (3, 3))


def back(place: Tensor) -> Tensor:
    """place [N,3] -> [N,3,3]: from where a point is to where it was before the turn and shift."""
    right, under, angle = place.unbind(1)
    cos, sin = angle.cos(), angle.sin()
    # The inverse of p -> R p + t is p -> R^T p - R^T t.
    return rigid(cos, -sin, sin * under - cos * right, -(sin * right + cos * under))


class Layer(nn.Module):
    """A modulated convolution, then a leaky ReLU between two filters; the last layer has neither.

        y_o = d_o sum_i W_oi (s_i g x_i) + b_o;  s = affine(w);  d_o = 1 / |W_o s|;  g = 1 / rms(x)

    g is of the training's mean square `magnitude_ema`.
    """

    magnitude_ema: Tensor
    up_filter: Tensor
    down_filter: Tensor

    def __init__(self, index: int, before: Stage, after: Stage, config: StyleGAN3Config) -> None:
        super().__init__()
        self.last = index == config.layers
        kernel = 1 if self.last else config.kernel
        self.affine = Linear(config.w_dim, before.channels, bias=1.0)
        self.weight = nn.Parameter(torch.randn(after.channels, before.channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(after.channels))
        self.register_buffer("magnitude_ema", torch.ones([]))
        self.clamp = math.inf if config.clamp is None else config.clamp
        self.gain = 1.0 / math.sqrt(before.channels * kernel * kernel)
        if self.last:
            return
        rate = room(before, after)
        self.up, self.down = rate // before.rate, rate // after.rate
        first, second = config.filters(index)
        self.register_buffer("up_filter", first, persistent=False)
        self.register_buffer("down_filter", second, persistent=False)
        # What is filtered spans the result's samples and the second filter's reach.
        self.size = (after.size - 1) * self.down + len(second)
        padding = self.size - (before.size + kernel - 1) * self.up + len(first) - 1
        self.before = (padding + self.up) // 2

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """x [N,I,S,S], w [N,w_dim] -> [N,O,S',S']."""
        style = self.affine(w) * self.gain
        given = x * (style * self.magnitude_ema.rsqrt())[:, :, None, None]
        y = F.conv2d(given, self.weight, padding=self.weight.shape[-1] - 1)
        bias = self.bias[:, None, None]
        if self.last:
            return (y + bias).clamp(-self.clamp, self.clamp)
        energy = style.square() @ self.weight.square().sum((2, 3)).t()
        # The gain goes through the filter and the leaky ReLU: there are fewer values before them.
        scale = (energy + 1e-8).rsqrt() * GAIN
        y = torch.addcmul(bias * GAIN, y, scale[:, :, None, None])
        y = up(y, self.up_filter, self.up, self.before, self.size)
        y = F.leaky_relu(y, SLOPE)
        return down(y.clamp(-self.clamp, self.clamp), self.down_filter, self.down)
