"""The aligned crop: an upright square about a face, cut by a similarity.

    e = mean eye centre, m = mean mouth corner, d = right eye - left eye, h = m - e
    x = unit(d - rot90(h)) * max(2.0 |d|, 1.8 |h|),  y = rot90(x),  centre = e + 0.1 h
    quad = [centre - x - y, centre - x + y, centre + x + y, centre + x - y]

Pixel (u, v) of a crop of side R shows the photo at quad[0] + u/R (quad[3] - quad[0])
+ v/R (quad[1] - quad[0]); pixel centres lie at + 0.5 in both.

Source: Karras et al. 2018, arXiv:1710.10196, appendix C (the crops of FFHQ).
Departs: borders go on instead of being mirrored; pixels inside the photo stay as they are.
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageFilter

from semedit.errors import ShapeError

# iBUG landmarks: who is who after mirroring the picture.
MIRROR = np.array(
    [*range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1)]
    + [45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40]
    + [54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65]
)
EYE_LEFT, EYE_RIGHT = slice(36, 42), slice(42, 48)  # left and right in the picture
MOUTH = slice(48, 68)  # twelve points around the lips, eight within
NOSE_TIP, MOUTH_LEFT, MOUTH_RIGHT = 30, 48, 54


def five_points(landmarks: np.ndarray) -> np.ndarray:
    """Eye centres, nose tip and mouth corners [5,2] of 68 landmarks [68,2], left one first."""
    if landmarks.shape != (68, 2):
        raise ShapeError(f"expected landmarks [68,2], got {list(landmarks.shape)}")
    eyes = [landmarks[EYE_LEFT].mean(0), landmarks[EYE_RIGHT].mean(0)]
    return np.stack([*eyes, landmarks[NOSE_TIP], landmarks[MOUTH_LEFT], landmarks[MOUTH_RIGHT]])


def face_quad(points: np.ndarray) -> np.ndarray:
    """Corners of the aligned crop.

    Args:    points: [68,2] landmarks or [5,2] eyes, nose, mouth corners; px of the photo.
    Returns: float64 [4,2]: top left, bottom left, bottom right, top right.
    """
    five = (five_points(points) if len(points) == 68 else points).astype(np.float64)
    eyes, mouth = (five[0] + five[1]) / 2, (five[3] + five[4]) / 2
    across, down = five[1] - five[0], mouth - eyes
    x = across - np.array([-down[1], down[0]])
    x *= max(2.0 * np.hypot(*across), 1.8 * np.hypot(*down)) / max(np.hypot(*x), 1e-9)
    y = np.array([-x[1], x[0]])
    centre = eyes + 0.1 * down
    return np.stack([centre - x - y, centre - x + y, centre + x + y, centre + x - y])


def square_quad(centre: np.ndarray, side: float, angle_rad: float = 0.0) -> np.ndarray:
    """Corners [4,2] of a square turned clockwise by the angle, in the order of `face_quad`."""
    x = np.array([math.cos(angle_rad), math.sin(angle_rad)]) * side / 2
    y = np.array([-x[1], x[0]])
    c = np.asarray(centre, np.float64)
    return np.stack([c - x - y, c - x + y, c + x + y, c + x - y])


def matrix(quad: np.ndarray, size: int) -> np.ndarray:
    """float64 [2,3] that takes px of the crop to px of the photo."""
    u, v = (quad[3] - quad[0]) / size, (quad[1] - quad[0]) / size
    return np.stack([u, v, quad[0]], 1)


def to_photo(points: np.ndarray, quad: np.ndarray, size: int) -> np.ndarray:
    """Points [...,2] of the crop in px of the photo."""
    m = matrix(quad, size)
    return points @ m[:, :2].T + m[:, 2]


def to_crop(points: np.ndarray, quad: np.ndarray, size: int) -> np.ndarray:
    """Points [...,2] of the photo in px of the crop."""
    m = matrix(quad, size)
    return (points - m[:, 2]) @ np.linalg.inv(m[:, :2]).T


def covered(quad: np.ndarray, height: int, width: int) -> float:
    """Share of the crop that lies inside the photo, 0 to 1: the area of what both have."""
    rest = [tuple(corner) for corner in np.asarray(quad, np.float64)]
    for axis, limit, sign in ((0, 0, 1), (0, width, -1), (1, 0, 1), (1, height, -1)):
        rest = _clipped(rest, axis, limit, sign)
    return _area(rest) / max(_area([tuple(corner) for corner in quad]), 1e-12)


Corner = tuple[float, ...]


def _clipped(polygon: list[Corner], axis: int, limit: float, sign: int) -> list[Corner]:
    """The part of a convex polygon where sign * (coordinate - limit) >= 0."""
    out: list[Corner] = []
    for here, there in zip(polygon, polygon[1:] + polygon[:1], strict=True):
        a, b = sign * (here[axis] - limit), sign * (there[axis] - limit)
        if a >= 0:
            out.append(here)
        if (a >= 0) != (b >= 0):
            out.append(tuple(p + a / (a - b) * (q - p) for p, q in zip(here, there, strict=True)))
    return out


def _area(polygon: list[Corner]) -> float:
    """Of a polygon, by its corners' cross products."""
    pairs = zip(polygon, polygon[1:] + polygon[:1], strict=True)
    return abs(sum(a[0] * b[1] - b[0] * a[1] for a, b in pairs)) / 2


def turn_rad(quad: np.ndarray) -> float:
    """How far a crop's upright is turned in its photo, clockwise, -pi to pi."""
    right = quad[3] - quad[0]
    return float(np.arctan2(right[1], right[0]))


def align(
    photo: np.ndarray, landmarks: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cut the aligned crop of one face.

    Args:    photo uint8 [H,W,3], upright; landmarks [68,2] px of the photo; size: px a side.
    Returns: crop uint8 [size,size,3]; quad float64 [4,2]; landmarks float32 [68,2] px of the crop.
    """
    quad = face_quad(landmarks)
    moved = to_crop(landmarks.astype(np.float64), quad, size).astype(np.float32)
    return cut(photo, quad, size), quad, moved


def cut(photo: np.ndarray, quad: np.ndarray, size: int, pad: bool = True) -> np.ndarray:
    """The square `quad` of a photo, resampled without aliasing.

    Args:
        photo: uint8 [H,W,3].
        quad: [4,2] px of the photo, a square.
        size: px a side of the crop.
        pad: let the photo's borders go on, blurred, outside it; else black.

    Returns: uint8 [size,size,3].
    """
    if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3:
        raise ShapeError(f"expected a photo uint8 [H,W,3], got {photo.dtype} {list(photo.shape)}")
    region, origin, step = _region(photo, quad, size, pad)
    m = matrix((quad - origin) / step, size)
    image = Image.fromarray(region).transform(
        (size, size), Image.Transform.AFFINE, tuple(m.flatten()), Image.Resampling.BICUBIC
    )
    return np.asarray(image)


def _region(
    photo: np.ndarray, quad: np.ndarray, size: int, pad: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The quad's surroundings, shrunk to about the crop's scale and padded.

    Returns: pixels; origin [2] px of the photo; step [2] photo px per pixel returned.
    """
    height, width = photo.shape[:2]
    pixel = np.hypot(*(quad[3] - quad[0])) / size  # photo px per crop px
    margin = 3 * pixel + 2
    low = np.floor(quad.min(0) - margin).astype(int)
    high = np.ceil(quad.max(0) + margin).astype(int)
    inner_low = np.clip(low, 0, [width - 1, height - 1])
    inner_high = np.clip(high, inner_low + 1, [width, height])
    part = photo[inner_low[1] : inner_high[1], inner_low[0] : inner_high[0]]
    extent = inner_high - inner_low
    target = np.maximum(np.round(extent / max(pixel, 1.0)).astype(int), 1)
    if pixel > 1:
        part = np.asarray(
            Image.fromarray(part).resize((int(target[0]), int(target[1])), Image.Resampling.LANCZOS)
        )
    step = extent / target
    before = np.ceil(np.maximum(inner_low - low, 0) / step).astype(int)
    after = np.ceil(np.maximum(high - inner_high, 0) / step).astype(int)
    if pad and (before.any() or after.any()):
        part = _extended(part, before, after, size)
        return part, inner_low - before * step, step
    return np.ascontiguousarray(part), inner_low.astype(np.float64), step


def _extended(part: np.ndarray, before: np.ndarray, after: np.ndarray, size: int) -> np.ndarray:
    """Let a picture's borders go on outwards, the farther the more blurred and the greyer.

    Nothing is mirrored: that would show a second forehead, or eyes above the head.
    """
    widths = ((before[1], after[1]), (before[0], after[0]))
    out = Image.fromarray(np.pad(part, (*widths, (0, 0)), mode="edge"))
    beyond = [_beyond(*pair, n) for pair, n in zip(widths, part.shape[:2], strict=True)]
    distance = np.hypot(beyond[0][:, None], beyond[1][None]) / size
    for sigma, reach in ((0.02, 1 / 12), (0.08, 1 / 3)):  # blurred so much from so far outwards
        soft = out.filter(ImageFilter.GaussianBlur(sigma * size))
        out = Image.composite(soft, out, _opacity(distance / reach))
    middle = tuple(int(v) for v in np.median(part, axis=(0, 1)))
    out = Image.composite(Image.new("RGB", out.size, middle), out, _opacity(distance, 0.5))
    return np.asarray(out)


def _beyond(before: int, after: int, length: int) -> np.ndarray:
    """How far each pixel of a padded line lies outside of what was padded, px; 0 inside."""
    steps = np.arange(before + length + after, dtype=np.float32)
    return np.maximum(np.maximum(before - steps, steps - (before + length - 1)), 0)


def _opacity(share: np.ndarray, most: float = 1.0) -> Image.Image:
    """A mask for compositing; share [H,W], which `most` limits."""
    return Image.fromarray((np.minimum(share, most) * 255).astype(np.uint8))
