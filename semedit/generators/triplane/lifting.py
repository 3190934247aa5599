"""LiftNet: what the codes of a tri-plane generator miss, in one pass from the photograph.

    F = U(x, G(w, c), S, S_G);  Q = splat(F, p);  planes = P(w) + V(Q, P(w))

with x the photograph and S its label map, G(w, c) and S_G what the codes w draw; p the points of
the surface that the pixels show, where F is written into the planes; U and V are U-Nets, over the
picture and over the planes.

Source: Bhattarai et al. 2023 (TriPlaneNet), arXiv:2303.13497: offsets of the tri-planes, in one
pass, from the photograph and its difference to what the codes draw; Trevithick et al. 2023 (Live
3D Portrait), arXiv:2305.02310: learned on pictures of a renderer in other views than the input.
Departs: features are written where the drawn surface is instead of taken from the same place of
the picture, so that planes and pixels agree in every pose; small networks.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semedit import cameras, weights
from semedit.errors import LatentError, WeightsError
from semedit.generators.contract import Generator, Output
from semedit.generators.parts import volume
from semedit.generators.parts.layers import Refine
from semedit.generators.triplane.triplane import Planes, Triplane

KIND = "lift"
SURFACE = 0.3  # share of a ray that is stopped, from which its depth is a surface's
PLANES = 3  # of a face, over (W, H) = (x,y), (x,z), (z,y)


@dataclass(frozen=True)
class LiftConfig:
    """Sizes of a LiftNet; the defaults fit heads-128."""

    generator: str = "heads-128"  # whose planes it moves
    resolution: int = 128  # pixels a side of photograph and label map, R
    classes: int = 19  # of the label map
    shape: tuple[int, int] = (64, 16)  # cells a side and channels of the shape planes
    texture: tuple[int, int] = (128, 16)  # of the texture planes
    background: tuple[int, int] = (16, 16)  # of the layer behind the volume
    meaning: int = 6  # channels that say what a label means
    widths: tuple[int, ...] = (48, 64, 96, 128)  # of U at R/2, R/4, ... pixels
    written: int = 16  # channels that pixels write into the planes
    plane_widths: tuple[int, ...] = (64, 64, 96)  # of V at the shape planes' side, half of it, ...

    def fits(self, other: LiftConfig) -> bool:
        """Whether both move planes of the same sizes."""
        names = ("resolution", "classes", "shape", "texture", "background")
        return all(getattr(self, name) == getattr(other, name) for name in names)

    @classmethod
    def of(cls, generator: Triplane) -> LiftConfig:
        """The sizes that fit a generator."""
        sizes = generator.config
        side = sizes.plane_resolution
        return cls(
            generator=generator.name,
            resolution=generator.resolution,
            classes=sizes.classes,
            shape=(side, sizes.shape_channels),
            texture=(side * 2 ** len(sizes.doublings), sizes.texture_channels),
            background=(sizes.background, sizes.features),
        )


class UNet(nn.Module):
    """Features [N,widths[0],H,W] -> the same.

    mixes: x are the planes of faces, [N*3,C,H,W], and each level sees what `others` says.
    """

    def __init__(self, widths: tuple[int, ...], mixes: bool = False) -> None:
        super().__init__()
        self.fine = nn.ModuleList(Refine(width) for width in widths)
        self.down = nn.ModuleList(nn.Conv2d(a, b, 2, 2) for a, b in pairwise(widths))
        self.up = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in pairwise(widths))
        self.fuse = nn.ModuleList(Refine(width) for width in widths[:-1])
        self.mix = nn.ModuleList(nn.Conv2d(2 * w, w, 1) for w in widths) if mixes else None

    def forward(self, x: Tensor) -> Tensor:
        kept: list[Tensor] = []
        for level, fine in enumerate(self.fine):
            if level:
                x = self.down[level - 1](x)
            if self.mix is not None:
                x = x + self.mix[level](others(x))
            x = fine(x)
            kept.append(x)
        kept.pop()
        for up, fuse in zip(reversed(self.up), reversed(self.fuse), strict=True):
            x = fuse(kept.pop() + F.interpolate(up(x), scale_factor=2.0, mode="nearest"))
        return x


def others(x: Tensor) -> Tensor:
    """What the other two planes know of each cell's two coordinates: x [N*3,C,H,W] with planes
    over (W, H) = (x,y), (x,z), (z,y) -> [N*3,2C,H,W], means along the axis that is not shared."""
    xy, xz, zy = x.unflatten(0, (-1, PLANES)).unbind(1)
    height, width = x.shape[-2:]

    def row(values: Tensor) -> Tensor:
        """A value for each place along W, [N,C,W], the same in all rows."""
        return values[:, :, None].expand(-1, -1, height, -1)

    def column(values: Tensor) -> Tensor:
        """A value for each place along H, [N,C,H], the same in all columns."""
        return values[..., None].expand(-1, -1, -1, width)

    seen = (
        torch.cat([row(xz.mean(2)), column(zy.mean(3))], 1),
        torch.cat([row(xy.mean(2)), column(zy.mean(2))], 1),
        torch.cat([row(xz.mean(3)), column(xy.mean(3))], 1),
    )
    return torch.stack(seen, 1).flatten(0, 1)


class LiftNet(nn.Module):
    """See the module."""

    def __init__(self, config: LiftConfig) -> None:
        super().__init__()
        self.config = config
        side, shape = config.shape
        times = config.texture[0] // side
        widths, planes = config.widths, config.plane_widths
        self.meaning = nn.Embedding(2 * config.classes, config.meaning)
        pictures = 4 * 9 + 2 * config.meaning + 1
        self.first = nn.Conv2d(pictures, widths[0], 3, 1, 1)
        self.picture = UNet(widths)
        self.write = nn.Conv2d(widths[0], 4 * config.written, 1)
        self.behind = nn.Conv2d(widths[0], config.background[1], 3, 1, 1)
        # What pixels wrote and its weight, at the texture planes' side; both kinds of planes.
        cells = times**2 * (config.written + 7 + config.texture[1]) + shape
        self.place = nn.Parameter(torch.zeros(PLANES, planes[0], side, side))
        self.enter = nn.Conv2d(cells, planes[0], 1)
        self.plane = UNet(planes, mixes=True)
        self.shape = nn.Conv2d(planes[0], shape, 3, 1, 1)
        self.texture = nn.Conv2d(planes[0], times**2 * config.texture[1], 3, 1, 1)
        for last in (self.behind, self.shape, self.texture):  # nothing is moved at the start
            nn.init.normal_(last.weight, std=1e-4)
            nn.init.zeros_(last.bias)  # type: ignore[arg-type]

    def forward(
        self, images: Tensor, labels: Tensor, c: Tensor, planes: Planes, drawn: Output, box: float
    ) -> Planes:
        """What is added to the planes.

        Args:    images [N,3,R,R] in [-1,1], labels int64 [N,R,R], c [N,25]: the photographs.
                 planes, drawn: of the codes, seen by c. box: side of the cube that they cover.
        Returns: shape, texture [N,3,H,W,C]; background [N,F,B,B].
        """
        seen = self._seen(images, labels, drawn)
        written = self._written(seen, images, labels, c, drawn, box)
        shape, texture = (channels_first(planes[k]) for k in ("shape", "texture"))
        times = self.config.texture[0] // self.config.shape[0]
        fine = F.pixel_unshuffle(torch.cat([texture, channels_first(written)], 1), times)
        x = self.enter(torch.cat([shape, fine], 1)) + self.place.repeat(len(images), 1, 1, 1)
        x = F.silu(self.plane(x.contiguous(memory_format=torch.channels_last)))
        behind = self.behind(F.adaptive_avg_pool2d(seen, self.config.background[0]))
        return {
            "shape": channels_last(self.shape(x)),
            "texture": channels_last(F.pixel_shuffle(self.texture(x), times)),
            "background": behind.float(),
        }

    def _seen(self, images: Tensor, labels: Tensor, drawn: Output) -> Tensor:
        """U's features [N,K,R/2,R/2]."""
        assert drawn.seg is not None and drawn.opacity is not None
        size = self.config.resolution
        image = drawn.image.clamp(-1, 1)
        pictures = F.pixel_unshuffle(torch.cat([images, image, images - image], 1), 2)
        its = F.interpolate(drawn.seg, (size, size), mode="bilinear").argmax(1)
        ids = torch.stack([labels, its + self.config.classes], 1)[..., ::2, ::2]
        said = self.meaning(ids).permute(0, 1, 4, 2, 3).flatten(1, 2)
        opacity = F.interpolate(drawn.opacity, said.shape[-2:], mode="bilinear")
        x = self.first(torch.cat([pictures, said, opacity], 1))
        return F.silu(self.picture(x.contiguous(memory_format=torch.channels_last)))

    def _written(
        self,
        seen: Tensor,
        images: Tensor,
        labels: Tensor,
        c: Tensor,
        drawn: Output,
        box: float,
    ) -> Tensor:
        """What the head's pixels write into the planes, [N,3,H,W,written + 7], at the texture
        planes' side: features, photograph and what it lacks, and the weight on each cell."""
        size = self.config.resolution
        features = F.pixel_shuffle(self.write(seen), 2)
        values = torch.cat([features, images, images - drawn.image.clamp(-1, 1)], 1)
        points, solid = surface(drawn, c, size)
        shown = (solid | (labels.flatten(1) > 0)).flatten().nonzero()[:, 0]
        rows = values.permute(0, 2, 3, 1).reshape(-1, values.shape[1])[shown]
        places = points.reshape(-1, 3)[shown] * (2 / box)
        side = self.config.texture[0]
        return volume.splat(rows, places, shown // size**2, (len(images), side, side))


@torch.no_grad()
def surface(drawn: Output, c: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The points that the pixels of a view show, [N,size*size,3] in world units, and whether a
    surface is there; the others are where their ray is nearest to the middle of the head."""
    assert drawn.depth is not None and drawn.opacity is not None
    depth, opacity = (
        F.interpolate(x.float(), (size, size), mode="bilinear").flatten(1)
        for x in (drawn.depth, drawn.opacity)
    )
    origins, directions = cameras.rays(c, size)
    solid = opacity > SURFACE
    distance = torch.where(solid, depth, -(origins * directions).sum(-1))
    return origins + distance[..., None] * directions, solid


def channels_first(planes: Tensor) -> Tensor:
    """[N,3,H,W,C] -> [N*3,C,H,W]."""
    return planes.flatten(0, 1).permute(0, 3, 1, 2)


def channels_last(maps: Tensor) -> Tensor:
    """[N*3,C,H,W] -> [N,3,H,W,C], float32."""
    return maps.float().permute(0, 2, 3, 1).unflatten(0, (-1, PLANES)).contiguous()


def lifted(planes: Planes, added: Planes, generator: Triplane) -> Planes:
    """Planes with what is added to them."""
    return generator.settled({**planes, **{k: planes[k] + v for k, v in added.items()}})


def load_lift(name: str, generator: Generator) -> LiftNet:
    """The network of a weight file, in eval mode, on the generator's device.

    Raises: WeightsError: no such weights.  LatentError: they are another generator's.
    """
    path = weights.resolve(name)
    network = _load(str(path), str(generator.device))
    fits = isinstance(generator, Triplane) and (
        LiftConfig.of(generator).fits(network.config) and generator.name == network.config.generator
    )
    if not fits:
        raise LatentError(
            f"{path.name} lifts faces of {network.config.generator}, not of {generator.name}",
            hint=f"train one: semedit train lift -o generator={generator.name}",
        )
    return network


@lru_cache(maxsize=2)
def _load(path: str, device: str) -> LiftNet:
    tensors, metadata = weights.load(path)
    if metadata.get("kind") != KIND:
        raise WeightsError(f"{path} lifts no faces", hint=f"its kind is {metadata.get('kind')}")
    network = weights.built(lambda config: LiftNet(LiftConfig(**tuples(config))), metadata, path)
    weights.fill(network, tensors, path)
    return network.eval().requires_grad_(False).to(device)


def tuples(config: dict[str, Any]) -> dict[str, Any]:
    """Fields of a configuration as JSON gives them, lists as tuples."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}
