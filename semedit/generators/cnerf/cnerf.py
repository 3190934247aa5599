"""CNeRF: a head is the sum of regions, each a small radiance field with codes of its own.

    ws = mapping(z)                          a style per region and layer, 3 of shape, 2 of texture
    h = shape_k(point; ws_k);  m_k = mask(h, view);  h' = texture_k(h; ws_k);  d_k = sdf(h')
    f_k = feature(h', view);  c_k = rgb(f_k)
    d = base(point) + sum_k d_k;  sigma = sigmoid(-d / beta) / beta
    image = 2 sum_s w_s sigmoid(sum_k m_k c_k) - 1;   map_k = sum_s w_s m_k

with w_s the weights of volume rendering along a ray. Stage 2 draws the features at a higher
resolution (superresolution.py).

Camera: the published network looks from distance 1 with a focal length of 4.757 pictures; the
label c from distance 2.7 with 4.2647 at an aligned crop. Both crops are FFHQ's, so c's distances
are divided by 2.7 and its focal length is multiplied by 4.757 / 4.2647: a nominal c is the
network's own camera. Axes agree: x to the picture's right, y up, z out of the face.

Labels: a region's map counts for every label that it covers (REGIONS); left and right are told
apart by the side of the head on which a ray's samples of the region lie; small things that share
a region (glasses with the eyes, earrings with the ears) have a logit below its own.

Source: Ma et al. 2023, arXiv:2302.01579; regions as in its published training data, where the
mouth stands before the brows. Departs: nothing; the options that the published network lacks
(layered, shape_sdf, windows, sphere, another frequency and phase) are off by default, and are
there to train on a CPU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from semedit import cameras
from semedit.errors import OptionError, ShapeError
from semedit.generators.cnerf.config import CNeRFConfig
from semedit.generators.cnerf.march import Local, march
from semedit.generators.cnerf.rays import Rays
from semedit.generators.contract import Generator, Output
from semedit.generators.parts.layers import SLOPE
from semedit.generators.parts.superresolution import Superresolution
from semedit.generators.stylegan2.stylegan2 import Noise
from semedit.media.labels import LABELS
from semedit.media.labels import REGIONS as LABELS_OF
from semedit.options import pick_method

Planes = dict[str, Tensor]

LEFT, RIGHT = (4, 6, 8), (5, 7, 9)  # labels at x > 0 and x < 0
LOGIT = 8.0  # of a label whose region covers a pixel alone
SHARED = 4.0  # taken off the logit of a label that shares a region
RAYS = 512  # rays marched together
MEMORY = 3 << 29  # bytes kept for a backward pass; beyond it, values are computed anew


class CNeRF(Generator):
    """CNeRF: regions that are small radiance fields, each with codes of its own.

    codes["ws"] is [N, regions, 5, w_dim]: along axis 2 styles of shape, then of texture (`SHAPE`,
    `TEXTURE`); with stage 2, codes["up"] [N, layers, 512] are its styles.
    """

    traits: frozenset[str] = frozenset({"ws", "camera", "seg", "regions", "borrow"})
    tunable: ClassVar[tuple[str, ...]] = ("local.*",)
    view_limit_deg: tuple[float, float] = (35.0, 15.0)  # yaw, pitch to either side in training
    w_avg: Tensor
    up_avg: Tensor

    def __init__(self, config: CNeRFConfig, name: str = "cnerf") -> None:
        super().__init__()
        self.config, self.name = config, name
        self.z_dim, self.resolution = config.z_dim, config.resolution
        self.regions = config.regions
        self.mapping_network = RegionMappingNetwork(config)
        self.local = Local(config)
        self.sigmoid_beta = nn.Parameter(torch.full([1], config.beta))
        self.stage2: Superresolution | None = None
        self.register_buffer("w_avg", torch.zeros(self.mapping_network.shape))
        if config.up:
            sizes = (config.width, len(config.regions), config.neural, config.up, config.w_dim)
            self.stage2 = Superresolution(*sizes)
            self.register_buffer("up_avg", torch.zeros(512))
            self.traits = type(self).traits | {"noise"}

    @property
    def zoom(self) -> float:
        """How much longer the network's focal length is than that of the label c."""
        return self.config.focal / cameras.FOCAL

    # Codes ---------------------------------------------------------------------------------------

    @property
    def shape(self) -> slice:
        """Where the styles of shape stand on axis 2 of codes["ws"]."""
        return slice(0, self.config.shape_layers)

    @property
    def texture(self) -> slice:
        """Where the styles of texture stand on axis 2 of codes["ws"]."""
        return slice(self.config.shape_layers, self.config.layers)

    def mapping(self, z: Tensor, c: Tensor, truncation_psi: float = 1.0) -> dict[str, Tensor]:
        """z [N,z_dim] -> codes; c [N,25] has no influence.

        The published script truncates the regions' styles twice; here psi is applied once.
        """
        w = self.w_avg.lerp(self.mapping_network(z.float()), truncation_psi)
        codes = {"ws": self.spread(w)}
        if self.stage2 is not None:
            up = self.up_avg.lerp(self.stage2.styles(w.mean((1, 2))), truncation_psi)
            codes["up"] = up[:, None].expand(-1, self.stage2.num_ws, -1)
        return codes

    def spread(self, w: Tensor) -> Tensor:
        """Styles [N, 1 or regions, 1 or 2 (shape, texture), w_dim] -> ws [N,regions,layers,w]."""
        config = self.config
        kind = [0] * config.shape_layers + [w.shape[2] - 1] * config.texture_layers
        return w[:, :, kind].expand(-1, len(config.regions), -1, -1)

    def mean_codes(self) -> dict[str, Tensor]:
        """Codes of the mean style, one face."""
        codes = {"ws": self.spread(self.w_avg[None])}
        if self.stage2 is not None:
            codes["up"] = self.up_avg.expand(1, self.stage2.num_ws, -1)
        return codes

    def exchange(
        self,
        codes: Mapping[str, Tensor],
        donor: Mapping[str, Tensor],
        regions: Sequence[str],
        part: str = "both",
    ) -> dict[str, Tensor]:
        """Codes whose regions are the donor's.

        Args:   part: "shape", "texture" or "both" of each region.
        Raises: OptionError: no such region or part.
        """
        layers = {"shape": self.shape, "texture": self.texture, "both": slice(None)}
        for name, known in ((part, list(layers)), *((r, self.regions) for r in regions)):
            if name not in known:
                raise OptionError(f"{self.name} knows no {name}: {', '.join(known)}")
        chosen = [self.regions.index(name) for name in regions]
        ws, other = codes["ws"].clone(), donor["ws"].expand_as(codes["ws"])
        ws[:, chosen, layers[part]] = other[:, chosen, layers[part]]
        return {**codes, "ws": ws}

    def borrow(
        self,
        codes: Mapping[str, Tensor],
        donor: Mapping[str, Tensor],
        regions: Sequence[str],
        part: str = "both",
    ) -> dict[str, Tensor]:
        """As `exchange`, with regions by the names of labels.REGIONS."""
        return self.exchange(codes, donor, self.covering(regions), part)

    def covering(self, regions: Sequence[str]) -> tuple[str, ...]:
        """The regions here that draw labels of regions of labels.REGIONS.

        Raises: OptionError: no such region, or none here draws it.
        """
        found = {
            self.config.labels[label][0]
            for name in regions
            for label in pick_method(LABELS_OF, name, "region")
            if label in self.config.labels
        }
        if not found:
            raise OptionError(f"{self.name} draws no {' or '.join(regions)}")
        return tuple(self.regions[index] for index in sorted(found))

    @torch.no_grad()
    def centre(self, samples: int = 10_000) -> None:
        """Set the mean styles to those of random z."""
        numbers = torch.Generator().manual_seed(0)
        z = torch.randn(samples, self.z_dim, generator=numbers).to(self.w_avg.device)
        w = self.mapping_network(z)
        self.w_avg.copy_(w.mean(0))
        if self.stage2 is not None:
            self.up_avg.copy_(self.stage2.styles(w.mean((1, 2))).mean(0))

    # Pictures ------------------------------------------------------------------------------------

    def noises(self) -> dict[str, Tensor]:
        """The noise maps of stage 2 that "const" uses, by layer: [1,1,r,r]."""
        return {} if self.stage2 is None else self.stage2.noises()

    def synthesis(self, codes: Mapping[str, Tensor], c: Tensor, noise: Noise = "const") -> Output:
        """Codes and cameras c [N,25] -> Output; noise is that of stage 2.

        Raises: ShapeError: codes of another shape.
        """
        return self.render(self.planes(codes), c, noise)

    def planes(self, codes: Mapping[str, Tensor]) -> Planes:
        """What does not depend on the camera: frequencies and phases [N,regions,layers,width]."""
        ws, config = codes["ws"], self.config
        wanted = (len(config.regions), config.layers, config.w_dim)
        if tuple(ws.shape[1:]) != wanted:
            raise ShapeError(f"ws has the shape {tuple(ws.shape)}, not {(len(ws), *wanted)}")
        planes = self.local.modulation(ws)
        return planes if self.stage2 is None else planes | {"up": codes["up"]}

    def render(self, planes: Planes, c: Tensor, noise: Noise = "const") -> Output:
        """Views c [N*k,25] of N faces, the k views of a face next to each other."""
        found, side = self.volume(planes, c, features=self.stage2 is not None), self.config.neural

        def picture(x: Tensor) -> Tensor:
            return x.view(len(c), side, side, -1).permute(0, 3, 1, 2)

        maps, left = picture(found["maps"]), picture(found["left"])
        depth = cameras.RADIUS * picture(found["distance"])
        image = picture(found["colour"])
        low = Output(image, self.logits(maps, left), depth)
        if self.stage2 is None:
            return low
        ws = planes["up"].repeat_interleave(len(c) // len(planes["up"]), 0)
        image, maps = self.stage2(picture(found["features"]), maps, ws, noise)
        left = F.interpolate(left, image.shape[-2:], mode="bilinear")
        return Output(image.float(), self.logits(maps, left), depth, low=low)

    def volume(
        self,
        planes: Planes,
        c: Tensor,
        pixels: Tensor | None = None,
        jitter: bool = False,
        features: bool = False,
    ) -> dict[str, Tensor]:
        """Volume rendering.

        Args:
            pixels: int64 [V,M], the pixels to render, counted row by row; None: all.
            jitter: move the samples of each ray at random (training).
            features: return the features of stage 2, too.

        Returns: by name, [V,M,...]: colour 3, maps K, left K (share of a region at x > 0),
                 distance 1 and distances S (signed, to the surface) in distances of the camera,
                 features width.
        """
        views = len(c) // len(next(iter(planes.values())))
        rays = Rays.of(c, self.config, pixels, jitter)
        faces, room = [], MEMORY
        for face in range(len(c) // views):
            field = self.local.field({k: v[face] for k, v in planes.items()})
            own = rays.of_views(face * views, views)
            parts = []
            for part in own.split(RAYS):
                cost = self.local.bytes(len(part.t) * self.config.samples)
                room -= cost
                run: Any = march
                if features and torch.is_grad_enabled():
                    run = _again
                parts.append(run(self, field, part, room >= 0, features))
            whole = {k: torch.cat([p[k] for p in parts]) for k in parts[0]}
            faces.append({k: v.unflatten(0, (views, -1)) for k, v in whole.items()})
        return {k: torch.cat([f[k] for f in faces]) for k in faces[0]}

    def logits(self, maps: Tensor, left: Tensor) -> Tensor:
        """Logits [N,19,R,R] from region maps and their shares at x > 0, [N,K,R,R]."""
        labels = self.config.labels
        out = []
        for label in range(len(LABELS)):
            if label not in labels:
                out.append(torch.full_like(maps[:, 0], -LOGIT))
                continue
            index, shared = labels[label]
            value = maps[:, index]
            if label in LEFT:
                value = value * left[:, index]
            if label in RIGHT:
                value = value * (1 - left[:, index])
            out.append(LOGIT * value - SHARED * shared)
        return torch.stack(out, 1)


def _again(*arguments: Any) -> dict[str, Tensor]:
    """`march` that keeps nothing for its backward pass."""
    return cast(dict[str, Tensor], checkpoint(march, *arguments, use_reentrant=False))


class RegionMappingNetwork(nn.Module):
    """z [N,z_dim] -> w [N,1,1,w_dim], or [N,regions,2,w_dim] where every region has its own."""

    def __init__(self, config: CNeRFConfig) -> None:
        super().__init__()
        outer = (len(config.regions), 2) if config.layered else (1, 1)
        self.shape = (*outer, config.w_dim)
        self.layered = config.layered
        sizes = [config.z_dim] + [config.w_dim] * config.mapping_layers
        if config.layered:
            sizes[-1] *= outer[0] * outer[1]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        for layer in self.layers:
            nn.init.kaiming_normal_(cast(nn.Linear, layer).weight, SLOPE)

    def forward(self, z: Tensor) -> Tensor:
        last = len(self.layers) - 1
        for index, layer in enumerate(self.layers):
            z = layer(z)
            if index < last or not self.layered:
                z = F.leaky_relu(z, SLOPE)
        return z.unflatten(1, self.shape)
