"""IDE-3D's generator: faces and their label maps from two sets of styles, shape and texture.

    ws = mapping(z, c), 18 styles;  semantic layers(ws[:8]) -> 64 x 64 x 64 features, shape planes
    three branches(features, ws[8:13]) -> three texture planes, 256 x 256 x 32
    (density, labels) = Phi_s(shape planes at x);  32 features = Phi_t(texture planes at x)
    coarse and importance samples along each ray, composited; two blocks of StyleGAN2 with
    ws[13:] add residuals to picture and label map, both up-sampled

The networks are the tri-plane generator's (triplane_layers.py), of which heads-128 is a small
configuration; here are the paper's sizes and its rays.

Source: Sun et al. 2022 (IDE-3D), arXiv:2205.15517, section 3.1 and supplement B; rays and their
samples as in Chan et al. 2022 (EG3D), arXiv:2112.07945.
Departs: no noise inputs. What the paper leaves open: the shape planes have 64 pixels and 32
channels, the last semantic resolution one convolution, so that eight styles end there; the three
branches share their styles; the features are resized to 128 pixels before they are up-sampled.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from semedit import cameras
from semedit.generators.parts import volume
from semedit.generators.triplane.eg3d import MIDDLE, bounds, concentrated, shares, spaced, weigh
from semedit.generators.triplane.layers import TriplaneConfig
from semedit.generators.triplane.triplane import Planes, Triplane

SKIP = 1e-6  # weight of samples whose colour is left out


@dataclass(frozen=True)
class IDE3DConfig(TriplaneConfig):
    """Sizes of a tri-plane generator with rays of its own samples; the defaults are the paper's
    at 512 pixels."""

    z_dim: int = 512
    w_dim: int = 512
    c_dim: int = 25
    mapping_layers: int = 8
    layered: bool = False
    trunk: tuple[int, ...] = (512, 512, 512, 512, 64)
    maps: bool = False
    last: int = 1
    shape_channels: int = 32
    branches: tuple[int, ...] = (64, 32)
    branch_convs: int = 2
    texture_channels: int = 32
    features: int = 32
    decoder: int = 64
    neural: int = 64
    up: tuple[int, ...] = (256, 128)
    up_input: int = 128
    drawing: bool = True
    background: int = 0
    shift: bool = False
    samples: int = 48  # per ray, evenly
    fine: int = 48  # per ray, where the first are dense
    near: float = 2.25  # along the rays, world units; near = far = 0: where they meet the box
    far: float = 3.3
    density_scale: float = 1.0
    density_start: float = 0.0


class IDE3D(Triplane):
    """IDE-3D: faces and their label maps from styles of shape and of texture."""

    config: IDE3DConfig

    def __init__(self, config: IDE3DConfig, name: str = "ide3d") -> None:
        super().__init__(config, name)

    def _march(
        self, planes: Planes, c: Tensor, side: int, jitter: bool, keep_empty: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Features [V,F,side,side], seg [V,K,side,side], depth and opacity [V,1,side,side].

        Every ray is rendered, so keep_empty has no meaning here.
        """
        config, through = self.config, self.background_seg
        origins, directions = (r.flatten(0, 1) for r in cameras.rays(c, side))
        rays = len(origins)
        views = len(c) // len(planes["shape"])
        face = torch.arange(rays, device=c.device) // (views * side * side)

        def sampled(t: Tensor) -> tuple[Tensor, Tensor]:
            """Places [M*K,3] of samples [M,K], in the box's units, and their faces [M*K]."""
            points = origins[:, None] + t[..., None] * directions[:, None]
            points = points.reshape(-1, 3) * (2 / config.box)
            return points, face.repeat_interleave(t.shape[1])

        def decoded(t: Tensor) -> Tensor:
            """Density before its softplus and label logits [M,K,1+classes]."""
            found = self.shape_decoder(volume.lookup(planes["shape"], *sampled(t)))
            return found.float().unflatten(0, t.shape)

        near, far = bounds(config, origins, directions)
        place = torch.rand(rays, config.samples, device=c.device) if jitter else MIDDLE
        t = spaced(near, far, config.samples, place)
        values = decoded(t)
        if config.fine:
            with torch.no_grad():
                drawn = torch.rand(rays, config.fine, device=c.device) if jitter else None
                weights, _ = weigh(t, values[..., 0], config.density_scale)
                more = concentrated(t, weights, config.fine, drawn)
            t, values = torch.cat([t, more], 1), torch.cat([values, decoded(more)], 1)
        sorted_t, order = t.sort(1)
        raw = values[..., 0].gather(1, order)
        weights, distance = weigh(sorted_t, raw, config.density_scale)
        total = weights.sum(1, keepdim=True)
        each = shares(weights, order)
        seg = torch.einsum("mk,mkc->mc", each, values[..., 1:]) + (1 - total) * through
        colour = self._colour(planes, *sampled(t), each, values[..., 1:].flatten(0, 1), SKIP)
        distance = distance + (1 - total) * far[:, None]

        def picture(x: Tensor) -> Tensor:
            return x.view(len(c), side, side, -1).permute(0, 3, 1, 2)

        behind = F.interpolate(planes["background"], (side, side), mode="bilinear")
        behind = behind.repeat_interleave(len(c) // len(behind), 0)
        opacity = picture(total)
        features = picture(colour) + (1 - opacity) * behind
        return features, picture(seg), picture(distance), opacity
