"""Sizes of a CNeRF, and the regions it may have."""

from __future__ import annotations

import math
from dataclasses import dataclass

from semedit.generators.parts.siren import FREQUENCY, PHASE

# Labels that a region draws, and labels that share it unless a region of their own is there.
REGIONS: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "background": ((0,), ()),
    "face": ((1,), ()),
    "eye": ((4, 5), (3,)),
    "mouth": ((10, 11, 12), ()),
    "brow": ((6, 7), ()),
    "nose": ((2,), ()),
    "ear": ((8, 9), (15,)),
    "hair": ((13,), (14,)),
    "neck": ((17, 18), (16,)),
    "glasses": ((3,), ()),
    "hat": ((14,), ()),
}
PUBLISHED = ("background", "face", "eye", "mouth", "brow", "nose", "ear", "hair", "neck")
INNER, OUTER = 3, 2  # published layers of shape and of texture


@dataclass(frozen=True)
class CNeRFConfig:
    """Sizes of a CNeRF; the defaults are those published, without stage 2."""

    regions: tuple[str, ...] = PUBLISHED  # names of REGIONS
    neural: int = 64  # pixels a side of the volume rendering
    up: tuple[int, ...] = ()  # channels of stage 2 at neural, 2 neural, ... pixels; empty: none
    z_dim: int = 256  # entries of z
    w_dim: int = 256  # entries of a style
    mapping_layers: int = 3  # linear layers from z to w
    layered: bool = False  # z gives every region a style of shape and one of texture
    width: int = 128  # of the local networks, and features of a ray
    shape_layers: int = INNER  # sines before the mask
    texture_layers: int = OUTER  # sines behind them
    frequency: float = FREQUENCY  # mean of the sines'
    phase: float = PHASE  # spread of their phases under styles, radians
    samples: int = 24  # per ray; published pictures were drawn with 64
    depth: float = 0.12  # half the length of the rays' interval, in distances of the camera
    focal: float = 0.5 / math.tan(math.radians(6.0))  # of a nominal c, in sides of the picture
    static_views: bool = True  # views in the camera's frame; False: in the world's
    beta: float = 0.1  # softness of the surface at the start, in distances of the camera
    shape_sdf: bool = False  # distances behind the shape layers: a texture never moves a surface
    sphere: float | None = None  # radius of a fixed sphere in place of the base network, in depths
    windows: bool = False  # small regions only where they can be, background only at the far end,
    # drawn by where it is in the picture
    skip_weight: float = 1e-4  # what weighs less along a ray is left out

    @property
    def resolution(self) -> int:
        """Pixels a side of the picture."""
        return self.neural * 2 ** max(0, len(self.up) - 1)

    @property
    def layers(self) -> int:
        """Styles of a region."""
        return self.shape_layers + self.texture_layers

    @property
    def labels(self) -> dict[int, tuple[int, bool]]:
        """The region of each label that is drawn, and whether the label merely shares it."""
        found: dict[int, tuple[int, bool]] = {}
        for index, name in enumerate(self.regions):
            found |= {label: (index, True) for label in REGIONS[name][1] if label not in found}
        for index, name in enumerate(self.regions):
            found |= dict.fromkeys(REGIONS[name][0], (index, False))
        return found
