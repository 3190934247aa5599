"""Where in a photograph faces may be: DetectorNet over a pyramid of it, in tiles.

The photograph is looked at so small that its smallest wanted face is as large as the network's
smallest, then four times smaller again and again, until its largest possible face fits as well.
Around it its border goes on, so that faces which the frame cuts have a surrounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from semedit.faces.singleshot import LARGEST, MULTIPLE, SMALLEST, STRIDE, peaks

LANDMARKS_PER_SIZE = 1.25  # the longer side of a face's landmarks, at most, in its size
MAGNIFIED = 2.0  # photographs are enlarged no more than this
BORDER = 32  # px of a level that its border goes on
TILE, SHARED = 1536, 192  # px a side of the largest tile; px that neighbours both show
FITS = (0.75, 1.5)  # sizes that a level may report, in SMALLEST and LARGEST


@dataclass(frozen=True, eq=False)
class Proposal:
    """A place that may be a face: points [5,2] and size (`singleshot.size_of`) px of the photo,
    chance in [0,1]."""

    points: np.ndarray
    size: float
    chance: float


def scales(height: int, width: int, min_face: float) -> list[float]:
    """Levels of the pyramid, px of each per px of the photo, largest first.

    Args: min_face: px across the landmarks of the smallest face that is wanted.
    """
    scale = min(MAGNIFIED, LANDMARKS_PER_SIZE * SMALLEST / max(min_face, 1e-6))
    out = [scale]
    while LARGEST / out[-1] < max(height, width):
        out.append(out[-1] * SMALLEST / LARGEST)
    return out


def reached(min_face: float) -> float:
    """px across the landmarks of the smallest face that is looked for, where min_face is wanted."""
    return max(min_face, LANDMARKS_PER_SIZE * SMALLEST / MAGNIFIED)


@dataclass(frozen=True)
class Tile:
    """A stretch [start, end) px along a side, and the part of it whose finds count; the parts of
    all tiles of a side lie end to end."""

    start: int
    end: int
    first: int
    last: int


def tiles(length: int) -> list[Tile]:
    """The tiles along a side of so many px.

    Neighbours share at least SHARED px, and begin on multiples of MULTIPLE, so that a face in
    both falls into the same cell of each.
    """
    count = max(1, -(-(length - SHARED) // (TILE - SHARED - MULTIPLE)))
    starts = np.ceil(np.linspace(0, max(0, length - TILE), count) / MULTIPLE).astype(int) * MULTIPLE
    ends = np.minimum(starts + TILE, length)
    between = (starts[1:] + ends[:-1]) // 2
    rows = zip(starts, ends, [0, *between], [*between, length], strict=True)
    return [Tile(*map(int, row)) for row in rows]


def propose(
    network: Any, photo: np.ndarray, min_face: float, threshold: float, device: str = "cpu"
) -> list[Proposal]:
    """Places that may be faces, the likeliest first.

    Args: network: a DetectorNet; photo uint8 [H,W,3]; threshold: least chance, in [0,1].
    """
    height, width = photo.shape[:2]
    level = Image.fromarray(photo)
    found: list[Proposal] = []
    for scale in scales(height, width, min_face):
        shape = (max(1, round(width * scale)), max(1, round(height * scale)))
        level = level.resize(shape, Image.Resampling.BILINEAR)  # each from the one before
        found += _look(network, np.asarray(level), threshold, width / shape[0], device)
    return apart(found)


def _look(
    network: Any, pixels: np.ndarray, threshold: float, step: float, device: str
) -> Iterator[Proposal]:
    """Finds of one level; step: px of the photo per px."""
    pixels = np.pad(pixels, ((BORDER, BORDER), (BORDER, BORDER), (0, 0)), "edge")
    for down in tiles(pixels.shape[0]):
        for across in tiles(pixels.shape[1]):
            tile = pixels[down.start : down.end, across.start : across.end]
            images = torch.from_numpy(tile).to(device).permute(2, 0, 1)[None].float() / 127.5 - 1
            with torch.inference_mode():
                out = network(images.contiguous(memory_format=torch.channels_last))
            hits = peaks(out.heat[0], threshold)
            y, x = hits[:, 0], hits[:, 1]
            points = out.points[0][..., y, x].permute(2, 0, 1).cpu().numpy().astype(np.float64)
            corner = np.array([across.start, down.start])
            middles = ((hits.flip(1).cpu().numpy() + 0.5) * STRIDE + corner).tolist()
            chances, sizes = out.heat[0, y, x].sigmoid().tolist(), out.size[0, y, x].tolist()
            for five, place, size, chance in zip(points, middles, sizes, chances, strict=True):
                own = across.first <= place[0] < across.last and down.first <= place[1] < down.last
                if own and FITS[0] * SMALLEST <= size <= FITS[1] * LARGEST:
                    yield Proposal((five + corner - BORDER) * step, size * step, chance)


def apart(found: list[Proposal], near: float = 0.6) -> list[Proposal]:
    """Keep the likeliest of proposals nearer to each other than `near` sizes of the smaller and
    alike in size; likeliest first."""
    kept: list[Proposal] = []
    for one in sorted(found, key=lambda proposal: -proposal.chance):
        if not any(_same(one, other, near) for other in kept):
            kept.append(one)
    return kept


def _same(one: Proposal, other: Proposal, near: float) -> bool:
    between = np.hypot(*(one.points.mean(0) - other.points.mean(0)))
    alike = 0.5 < one.size / other.size < 2
    return bool(alike and between < near * min(one.size, other.size))
