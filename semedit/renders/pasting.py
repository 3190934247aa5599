"""An edited crop back into its photograph: only the change goes there, at the photograph's size.

    y = P + w (up(E - C) + n (up(C) - P + g))

with P the photograph, C the crop before the edit and E after it, up what brings a crop's pixels
to the photograph's through the quad, w in [0,1] where something changed, n in [0,1] how much of
what is seen there is new, and g grain. Where the edit only moved tones, n is 0, and the
photograph's detail finer than the crop stays; where it drew something else, that detail is of
something that is gone, and grain as strong as the photograph's stands in its place.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage

from semedit.errors import ShapeError
from semedit.faces.align import matrix, to_photo

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # of red, green, blue: ITU-R BT.601
FEATHER = 0.02  # of the crop's side: over so much an edit fades out around what it changed
EDGE = 0.03  # the same towards the crop's own border
STEADY = 4.0  # levels of 255: structure weaker than that is none
ALIKE, OTHER = 0.8, 0.2  # likeness of structure from which nothing is new, to which all is
RING = 0.15  # of the crop's side: so far around the change grain is looked at
SEED = 0  # of the grain


@dataclass(frozen=True, eq=False)
class Pasted:
    """pixels uint8 [H,W,3]: the photograph with the edit in it; changed bool [H,W]: where they are
    no longer the photograph's; scale: its pixels for each of the crop's; new: mean of n over what
    changed, 0 to 1; grain: standard deviation of what was added there, levels of 255."""

    pixels: np.ndarray
    changed: np.ndarray
    scale: float
    new: float
    grain: float


def paste(
    photo: np.ndarray, before: np.ndarray, after: np.ndarray, quad: np.ndarray, least: float = 0.0
) -> Pasted:
    """Put what an edit changed into the photograph that the crop was cut from.

    Args:
        photo: uint8 [H,W,3], upright, sRGB.
        before, after: uint8 [R,R,3], the crop as it was and as it is to be.
        quad: float [4,2] px of the photograph, as `faces.align` gives it.
        least: levels of 255; smaller changes do not count, say those of a generator that drew the
            whole anew.

    Returns: Pasted; a grey photograph stays grey. Raises: ShapeError: the crops are no squares, or
        not alike.
    """
    size = after.shape[0]
    if after.shape != (size, size, 3) or before.shape != after.shape:
        raise ShapeError(
            f"expected square crops [R,R,3], got {list(before.shape)} and {list(after.shape)}"
        )
    scale = float(np.hypot(*(quad[3] - quad[0]))) / size
    before, after = before.astype(np.float32), after.astype(np.float32)
    if grey(photo):
        before, after = _as_grey(before), _as_grey(after)
    weight = changed_weight(before, after, least)
    box = _box(weight, quad, photo.shape[:2])
    if box is None:
        return Pasted(photo.copy(), np.zeros(photo.shape[:2], bool), scale, 0.0, 0.0)
    (left, top), (right, bottom) = box
    patch = photo[top:bottom, left:right].astype(np.float32)
    new = newness(before, after) * weight

    def up(layer: np.ndarray) -> np.ndarray:
        return _up(layer, quad, left, top, right, bottom)

    w, n = (np.clip(up(layer), 0, 1)[..., None] for layer in (weight, new))
    change = up((after - before) * weight[..., None])
    drawn = up(before) + change
    strength = _missing_grain(patch, drawn, w[..., 0], n[..., 0], round(RING * size * scale))
    grain = strength * _noise(patch.shape, scale, grey(photo))
    value = patch + change + n * (drawn - change - patch + grain)
    value = np.where(w > 0, np.clip(np.rint(value), 0, 255), patch).astype(np.uint8)
    pixels, changed = photo.copy(), np.zeros(photo.shape[:2], bool)
    pixels[top:bottom, left:right] = value
    changed[top:bottom, left:right] = (value != patch).any(-1)
    inside = w > 0
    return Pasted(pixels, changed, scale, float(n[inside].mean()), float(strength))


def grey(photo: np.ndarray) -> bool:
    """Whether no pixel of a photograph uint8 [H,W,3] has a colour."""
    return bool((photo == photo[..., :1]).all())


def _as_grey(crop: np.ndarray) -> np.ndarray:
    return np.repeat((crop @ LUMA)[..., None], 3, -1)


def changed_weight(before: np.ndarray, after: np.ndarray, least: float = 0.0) -> np.ndarray:
    """w float32 [R,R] in [0,1]: 1 where crops [R,R,3] differ by more than `least` levels, fading
    around it and towards the crop's border."""
    size = len(after)
    change = abs(after - before).max(-1)
    if least:
        change = ndimage.gaussian_filter(change, size / 128)
    differs = change > least
    if not differs.any():
        return np.zeros((size, size), np.float32)
    distance = ndimage.distance_transform_edt(~differs) / max(FEATHER * size, 1.0)
    steps = (np.arange(size) + 0.5) / size
    edge = _smooth(np.minimum(steps, 1 - steps) / EDGE)
    return (_smooth(1 - distance) * edge[:, None] * edge).astype(np.float32)


def newness(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """n float32 [R,R] in [0,1]: how little the structure of a crop [R,R,3] has to do with what it
    was, whatever its tones.

        likeness = (2 cov(C, E) + k) / (var(C) + var(E) + k)

    Source: Wang et al. 2004, the contrast and structure terms of SSIM, on luma.
    """
    c, e = before @ LUMA, after @ LUMA
    mean_c, mean_e, cc, ee, ce = (
        ndimage.gaussian_filter(x, 1.5) for x in (c, e, c * c, e * e, c * e)
    )
    k = STEADY**2
    covariance, variances = ce - mean_c * mean_e, cc - mean_c**2 + ee - mean_e**2
    likeness = (2 * covariance + k) / (variances + k)
    return _smooth((ALIKE - likeness) / (ALIKE - OTHER)).astype(np.float32)


def _smooth(x: np.ndarray) -> np.ndarray:
    """0 up to 0, 1 from 1, smooth between."""
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


def _box(
    weight: np.ndarray, quad: np.ndarray, shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray] | None:
    """First and last + 1 (x, y) of the photograph's pixels that a change may reach, with a rim to
    look at; None: there are none."""
    rows, columns = np.flatnonzero(weight.any(1)), np.flatnonzero(weight.any(0))
    if not len(rows):
        return None
    rim = 3 + RING * len(weight)
    (x0, x1), (y0, y1) = ((a[0] - rim, a[-1] + 1 + rim) for a in (columns, rows))
    corners = to_photo(np.array([[x0, y0], [x0, y1], [x1, y0], [x1, y1]]), quad, len(weight))
    limit = [shape[1], shape[0]]
    low = np.clip(np.floor(corners.min(0)).astype(int), 0, limit)
    high = np.clip(np.ceil(corners.max(0)).astype(int), 0, limit)
    return None if (high <= low).any() else (low, high)


def _up(
    layer: np.ndarray, quad: np.ndarray, left: int, top: int, right: int, bottom: int
) -> np.ndarray:
    """Pixels of a crop [R,R] or [R,R,C] as those of the photograph in a box see them: bicubic;
    averaged first where the photograph is the coarser one. 0 outside of the crop."""
    if layer.ndim == 3:
        planes = [
            _up(np.ascontiguousarray(one), quad, left, top, right, bottom)
            for one in np.moveaxis(layer, -1, 0)
        ]
        return np.stack(planes, -1)
    image = Image.fromarray(layer.astype(np.float32))
    fitting = max(1, round(float(np.hypot(*(quad[3] - quad[0])))))
    if fitting < len(layer):
        image = image.resize((fitting, fitting), Image.Resampling.BICUBIC)
    to_photo_ = np.vstack([matrix(quad, image.width), [0, 0, 1]])
    a, b, c, d, e, f = np.linalg.inv(to_photo_)[:2].flatten()
    data = (a, b, a * left + b * top + c, d, e, d * left + e * top + f)
    size = (right - left, bottom - top)
    return np.asarray(image.transform(size, Image.Transform.AFFINE, data, Image.Resampling.BICUBIC))


# Grain ------------------------------------------------------------------------------------------

_CURVED = (
    np.outer([1, -2, 1], [1, -2, 1]) / 6
)  # answers noise with its own deviation, slopes with 0


def _missing_grain(
    patch: np.ndarray, drawn: np.ndarray, w: np.ndarray, n: np.ndarray, reach: int
) -> float:
    """Standard deviation, in levels, of what lacks of the photograph's grain where all is new:
    that around the change, less what the drawn pixels have themselves."""
    near = ndimage.distance_transform_edt(w == 0) <= max(reach, 8)
    around, inside = near & (w == 0), n > 0.5
    if around.sum() < 256 or not inside.any():
        return 0.0
    return float(np.sqrt(max(0.0, _grain(patch, around) ** 2 - _grain(drawn, inside) ** 2)))


def _grain(pixels: np.ndarray, where: np.ndarray) -> float:
    """Standard deviation of the noise of some pixels, robust to what is drawn there.

    Source: Immerkaer 1996; the median in place of the mean.
    """
    answer = abs(ndimage.convolve(pixels @ LUMA, _CURVED, mode="nearest"))
    return float(np.median(answer[where])) / 0.6745


def _noise(shape: tuple[int, ...], scale: float, equal: bool) -> np.ndarray:
    """Noise [h,w,3] of deviation 1, finer than the crop could hold; the same in all channels of a
    grey photograph, and mostly so in others."""
    random = np.random.default_rng(SEED)
    common = random.standard_normal((*shape[:2], 1), np.float32)
    own = 0.0 if equal else 0.5 * random.standard_normal(shape, np.float32)
    noise = np.broadcast_to(common + own, shape)
    noise = noise - ndimage.gaussian_filter(noise, (scale, scale, 0))
    return np.asarray(noise / max(float(noise.std()), 1e-6))
