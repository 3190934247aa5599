"""L2SAE: a picture -> structure and style -> a picture; and which pixels are which region.

    SMN    structure, style = E(x);   y = G(structure, style)
    SMPN   structure, style = E'(x);  logit_i = mean over channels of G'(slice_i structure, style)

Two Swapping Autoencoders. The one for style manipulation (SMN) rebuilds the picture, so that a
change of its style vector restyles all of it. The one that predicts semantic maps (SMPN) decodes
one slice of its structure at a time; each slice answers for one region, which is where the
decoder's result is positive. All its decoders are one.

Names of tensors `E.*` and `G.*` are those of the Swapping Autoencoder's checkpoints.

Source: Tomar and Rajagopalan 2023 (L2SAE), arXiv:2312.15037; Park et al. 2020 (Swapping
Autoencoder), arXiv:2007.00653.
Departs: a slice is not brought to unit length again, which of one channel would leave the sign
only; codes are drawn from a linear prior, as an autoencoder has no z of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn

from semedit.errors import OptionError, ShapeError, TraitError
from semedit.generators.contract import Generator, Output
from semedit.generators.l2sae.layers import (
    Layer,
    Modulation,
    SmoothHalving,
    Styling,
    ToRGB,
    unit_length,
)
from semedit.generators.parts.layers import Linear
from semedit.generators.stylegan2.stylegan2 import NOISES

# The regions that slices answer for -> the names of labels.REGIONS that make them.
ROIS: dict[str, tuple[str, ...]] = {
    "hair": ("hair",),
    "skin": ("skin",),
    "nose": ("nose",),
    "eyes": ("eyes",),
    "lips": ("lips", "mouth"),
}
# Regions in order of their channels, and how many each has: the two approaches of the paper. It
# tells their order; the sizes are those of its authors' Latents2Segments, arXiv:2207.01871.
SLICINGS: dict[str, tuple[tuple[str, int], ...]] = {
    "first": (("hair", 2), ("skin", 2), ("nose", 2), ("eyes", 1), ("lips", 1)),
    "second": (("hair", 2), ("skin", 2), ("nose", 2), ("lips", 1), ("eyes", 1)),
}


@dataclass(frozen=True)
class L2SAEConfig:
    """Sizes of an L2SAE; the defaults are those of the Swapping Autoencoder at 512 pixels."""

    resolution: int = 512  # pixels a side
    structure: int = 8  # channels of the structure
    style: int = 2048  # entries of the style
    encoder: tuple[int, ...] = (32, 64, 128, 256, 512)  # channels at R, R/2, ...
    summary: tuple[int, ...] = (1024, 2048)  # channels from there to the style, halving each time
    head: tuple[int, ...] = (256, 512)  # channels of the decoder at the structure's resolution
    decoder: tuple[int, ...] = (512, 512, 256, 128)  # channels of the decoder, doubling each time
    noise: bool = True  # whether the decoder's layers have noise maps
    slicing: str = ""  # of SLICINGS; empty: there is no SMPN
    map_encoder: tuple[int, ...] = ()  # the same of the SMPN; empty: as above
    map_summary: tuple[int, ...] = ()
    map_head: tuple[int, ...] = ()
    map_decoder: tuple[int, ...] = ()
    rank: int = 0  # directions of the prior of codes; 0: none

    def __post_init__(self) -> None:
        if self.slicing and self.slicing not in SLICINGS:
            raise OptionError(f"slicing={self.slicing}: there is {', '.join(SLICINGS)}")
        if self.slicing and sum(n for _, n in SLICINGS[self.slicing]) != self.structure:
            raise OptionError(f"the slicing {self.slicing} is not one of {self.structure} channels")
        for net in (self, self.of_maps()):
            if len(net.encoder) != len(net.decoder) + 1 or not net.head:
                raise OptionError("an L2SAE's encoder has one width more than its decoder")
            side = net.side
            for _ in net.summary:
                side = (side - 3) // 2 + 1 if side >= 3 else 0
            if net.resolution != net.side * net.stride or side < 1:
                raise OptionError(f"these widths do not fit {self.resolution} pixels")

    @property
    def stride(self) -> int:
        """Pixels of the picture to one of the structure."""
        return int(2 ** len(self.decoder))

    @property
    def side(self) -> int:
        """Pixels a side of the structure."""
        return self.resolution // self.stride

    def of_maps(self) -> L2SAEConfig:
        """The sizes of the SMPN."""
        if not (self.map_encoder or self.map_summary or self.map_head or self.map_decoder):
            return self
        return L2SAEConfig(
            resolution=self.resolution,
            structure=self.structure,
            style=self.style,
            encoder=self.map_encoder or self.encoder,
            summary=self.map_summary or self.summary,
            head=self.map_head or self.head,
            decoder=self.map_decoder or self.decoder,
            noise=self.noise,
        )


class L2SAE(Generator):
    """Latents2Semantics: structure and style of a picture, and its regions."""

    traits: frozenset[str] = frozenset({"encode", "slices"})
    tunable: ClassVar[tuple[str, ...]] = ("G.*",)

    def __init__(self, config: L2SAEConfig, name: str = "l2sae") -> None:
        super().__init__()
        self.config, self.name = config, name
        self.resolution, self.z_dim = config.resolution, config.rank
        self.E, self.G = L2SAEEncoder(config), L2SAEDecoder(config)
        self.SMPN = Autoencoder(config.of_maps()) if config.slicing else None
        self.traits = type(self).traits if config.slicing else frozenset({"encode"})
        entries = config.structure * config.side**2 + config.style
        self.prior = Prior(config.rank, entries)

    def encode(
        self, images: Tensor, labels: Tensor | None = None, c: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Codes of aligned images [N,3,R,R] in [-1,1]; labels and c are without influence.

        Returns: "structure" [N,8,side,side], side of the config, R/16 as published, of unit
                 length along the channels; "style" [N,config.style], 2048 as published, of unit
                 length.
        Raises:  ShapeError: another resolution.
        """
        structure, style = self.E(self._checked(images))
        return {"structure": structure, "style": style}

    def synthesis(
        self, codes: dict[str, Tensor], c: Tensor | None = None, noise: str = "const"
    ) -> Output:
        """Codes -> Output with the image alone; c is without influence.

        Args:   noise: "const", "random" or "none".
        Raises: OptionError: no such noise.
        """
        return Output(self.G(codes["structure"], codes["style"], noise).float())

    def mapping(
        self, z: Tensor, c: Tensor | None = None, truncation_psi: float = 1.0
    ) -> dict[str, Tensor]:
        """Codes of z [N,z_dim] standard normal, by the linear prior.

        Raises: TraitError: these weights have no prior, as published ones.
        """
        if not self.config.rank:
            raise TraitError(f"{self.name} has no prior to draw faces from", "encode a picture")
        return self.split(self.prior(z * truncation_psi))

    def mean_codes(self) -> dict[str, Tensor]:
        """Mean codes, one face."""
        return self.split(self.prior.mean[None])

    def split(self, flat: Tensor) -> dict[str, Tensor]:
        """Codes as rows [N,D] -> codes."""
        style = self.config.style
        shape = (self.config.structure, self.config.side, self.config.side)
        return {"structure": flat[:, :-style].unflatten(1, shape), "style": flat[:, -style:]}

    def region_logits(self, images: Tensor, names: Sequence[str] = tuple(ROIS)) -> Tensor:
        """Where images [N,3,R,R] show regions: [N,len(names),R,R], positive inside.

        Raises: TraitError: no SMPN.  OptionError: no such region.  ShapeError: other resolution.
        """
        if self.SMPN is None:
            raise TraitError(
                f"{self.name} predicts no regions",
                f"semedit train l2sae -o base={self.name} teaches it",
            )
        masks = torch.stack([self.channels(name) for name in names]).to(images)
        structure, style = self.SMPN.E(self._checked(images))
        n, k = len(images), len(names)
        slices = (structure[:, None] * masks[None, :, :, None, None]).flatten(0, 1)
        drawn = self.SMPN.G(slices, style.repeat_interleave(k, 0), "none", unit=False)
        return drawn.float().mean(1).view(n, k, *drawn.shape[-2:])

    def channels(self, region: str) -> Tensor:
        """Which channels of the structure answer for a region: float32 [8], 0 or 1.

        Raises: OptionError: no such region, or weights without slicing.
        """
        if not self.config.slicing:
            raise OptionError(
                f"{self.name} has no regions", f"semedit train l2sae -o base={self.name} adds them"
            )
        if region not in ROIS:
            raise OptionError(f"there is no region {region} to style: {', '.join(ROIS)}")
        chosen, first = torch.zeros(self.config.structure), 0
        for name, count in SLICINGS[self.config.slicing]:
            if name == region:
                chosen[first : first + count] = 1
            first += count
        return chosen

    def _checked(self, images: Tensor) -> Tensor:
        if images.shape[-2:] != (self.resolution, self.resolution):
            found = tuple(images.shape[-2:])
            raise ShapeError(f"{self.name} takes {self.resolution} pixels a side, not {found}")
        return images


class Autoencoder(nn.Module):
    """An encoder and its decoder."""

    def __init__(self, config: L2SAEConfig) -> None:
        super().__init__()
        self.E, self.G = L2SAEEncoder(config), L2SAEDecoder(config)


class Prior(nn.Module):
    """mean + z basis: z [N,rank] -> codes as rows [N,entries]."""

    mean: Tensor
    basis: Tensor

    def __init__(self, rank: int, entries: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(entries))
        self.register_buffer("basis", torch.zeros(rank, entries))

    def forward(self, z: Tensor) -> Tensor:
        return self.mean + z @ self.basis

    @torch.no_grad()
    def fit(self, rows: Tensor) -> None:
        """Mean and principal components of codes [M,entries]."""
        self.mean.copy_(rows.mean(0))
        rank = min(len(self.basis), *rows.shape)
        if rank:
            _, sizes, axes = torch.linalg.svd(rows - self.mean, full_matrices=False)
            spread = sizes[:rank, None] / max(1, len(rows) - 1) ** 0.5
            self.basis.zero_()[:rank] = spread * axes[:rank]


class L2SAEEncoder(nn.Module):
    """Pictures [N,3,R,R] -> structure [N,8,r,r] and style [N,D], both of unit length."""

    def __init__(self, config: L2SAEConfig) -> None:
        super().__init__()
        widths, deep = config.encoder, len(config.encoder) - 1
        self.FromRGB = Layer(3, widths[0])
        self.DownToSpatialCode = nn.Sequential()
        for i, (a, b) in enumerate(pairwise(widths)):
            self.DownToSpatialCode.add_module(f"ResBlockDownBy{2**i}", SmoothHalving(a, b))
        self.ToSpatialCode = nn.Sequential(
            Layer(widths[-1], widths[-1]), Layer(widths[-1], config.structure, active=False)
        )
        self.DownToGlobalCode = nn.Sequential()
        for i, (a, b) in enumerate(pairwise((widths[-1], *config.summary))):
            layer = Layer(a, b, kernel=3, stride=2)
            self.DownToGlobalCode.add_module(f"ConvLayerDownBy{2 ** (deep + i)}", layer)
        self.ToGlobalCode = nn.Sequential(Linear((widths[-1], *config.summary)[-1], config.style))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = self.FromRGB(images.contiguous(memory_format=torch.channels_last))
        x = self.DownToSpatialCode(x)
        structure = self.ToSpatialCode(x)
        style = self.ToGlobalCode(self.DownToGlobalCode(x).mean((2, 3)))
        return unit_length(structure.float()), unit_length(style.float())


class L2SAEDecoder(nn.Module):
    """Structure [N,8,r,r] and style [N,D] -> pictures [N,3,R,R]."""

    def __init__(self, config: L2SAEConfig) -> None:
        super().__init__()
        self.SpatialCodeModulation = Modulation(config.style, config.structure)
        before, side, style = config.structure, config.side, config.style
        self.blocks: list[str] = []
        for i, channels in enumerate(config.head):
            noise = side if config.noise else 0
            self._add(f"HeadResnetBlock{i}", Styling(before, channels, style, noise, up=False))
            before = channels
        for i, channels in enumerate(config.decoder):
            side *= 2
            noise = side if config.noise else 0
            self._add(f"UpsamplingResBlock{16 * 2**i}", Styling(before, channels, style, noise))
            before = channels
        self.ToRGB = ToRGB(before, style)

    def _add(self, name: str, block: nn.Module) -> None:
        self.add_module(name, block)
        self.blocks.append(name)

    def forward(
        self, structure: Tensor, style: Tensor, noise: str = "const", unit: bool = True
    ) -> Tensor:
        """unit: bring the structure to unit length, as it is except for slices of one."""
        style = unit_length(style)
        return self.ToRGB(self.features(structure, style, noise, unit), style)

    def features(
        self, structure: Tensor, style: Tensor, noise: str = "const", unit: bool = True
    ) -> Tensor:
        """What the picture is read from: [N,C,R,R]."""
        if noise not in NOISES:
            raise OptionError(f"there is no noise {noise!r}: {', '.join(NOISES)}")
        style = unit_length(style)
        x = self.SpatialCodeModulation(unit_length(structure) if unit else structure, style)
        x = x.contiguous(memory_format=torch.channels_last)
        for name in self.blocks:
            x = self.get_submodule(name)(x, style, noise)
        return x
