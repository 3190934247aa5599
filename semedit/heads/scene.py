"""Light and background of a head, from its parameters."""

from __future__ import annotations

import colorsys

import numpy as np

from semedit.heads.parameters import Parameters
from semedit.heads.shading import Lights


def linear(rgb: tuple[float, ...] | np.ndarray) -> np.ndarray:
    """sRGB in [0,1] -> linear float64 [3]."""
    c = np.asarray(rgb, np.float64)
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def hsv(hue: float, saturation: float, value: float) -> np.ndarray:
    """Linear RGB of a colour given in sRGB HSV."""
    return linear(colorsys.hsv_to_rgb(hue % 1.0, saturation, value))


def temperature(warmth: float) -> np.ndarray:
    """Linear light colour [3]; warmth -1 bluish daylight, 0 neutral, 1 lamp light."""
    return np.array([1 + 0.16 * warmth, 1.0, 1 - 0.24 * warmth])


def _unit(x: float, y: float, z: float) -> np.ndarray:
    v = np.array([x, y, z])
    return v / np.linalg.norm(v)


def lights(p: Parameters) -> Lights:
    """Lights fixed to the head, so that every view of it is lit alike."""
    key = _unit(np.sin(p.key_side * 1.1), p.key_height, np.cos(p.key_side * 1.1) + 0.05)
    fill = _unit(-np.sin(p.key_side * 1.1) * 0.9 - 0.2, 0.15, 0.9)
    rim = _unit(-np.sign(p.key_side + 1e-3) * 0.8, 0.5, -0.6)
    warm, around = temperature(p.warmth), temperature(p.ambient_warmth)
    ambient = 0.50 * p.ambient
    side = 0.25 * ambient * p.ambient_side * around
    return Lights(
        key=key,
        key_rgb=1.0 * p.key_strength * warm,
        fill=fill,
        fill_rgb=0.26 * p.ambient * around,
        rim=rim,
        rim_rgb=0.6 * p.rim * warm,
        sky=1.25 * ambient * around,
        ground=0.55 * ambient * around * np.array([1.05, 0.98, 0.9]),
        side=side,
    )


def background(p: Parameters, size: int, seed: int) -> np.ndarray:
    """Linear RGB float32 [size,size,3], smooth and fixed to the picture (the same in all views)."""
    rng = np.random.default_rng([seed, 7])
    v, u = np.mgrid[0:size, 0:size].astype(np.float32) / size - 0.5 + 0.5 / size
    first = hsv(p.background_hue, p.background_saturation, p.background_value)
    second = hsv(p.background_hue2, p.background_saturation, p.background_value2)
    along = np.cos(p.background_angle) * u + np.sin(p.background_angle) * v
    mix = 1 / (1 + np.exp(-(3 + 6 * p.background_detail) * along))
    image = first + mix[..., None] * (second - first)
    if p.background == "gradient":
        image = image * (1.1 - 0.9 * (u * u + v * v))[..., None]
    count = {"gradient": 0, "blobs": 7, "room": 4}[p.background]
    for _ in range(count):
        x, y = rng.uniform(-0.6, 0.6, 2)
        color = hsv(
            p.background_hue + rng.normal(0, 0.15), rng.uniform(0, 0.5), rng.uniform(0.05, 0.95)
        )
        if p.background == "blobs":
            r = rng.uniform(0.08, 0.3)
            cover = 1 / (1 + np.exp((np.hypot(u - x, v - y) - r) * 40))
        else:  # soft upright bars: doors, windows, shelves
            half, top = rng.uniform(0.04, 0.2), rng.uniform(-0.6, 0.2)
            cover = 1 / (1 + np.exp((np.abs(u - x) - half) * 50)) / (1 + np.exp((top - v) * 30))
        image = image + (0.7 * cover)[..., None] * (color - image)
    return image.astype(np.float32)


def develop(rgb: np.ndarray, p: Parameters) -> np.ndarray:
    """Linear light -> sRGB float32 in [0,1]: exposure, contrast, soft shoulder, gamma."""
    # As cameras do, exposure follows the face: fair skin is held back, dark skin lifted.
    metered = 0.9 * (p.melanin**1.5 - 0.35)
    x = np.maximum(rgb, 0) * np.float32(2.0 ** (0.30 * p.exposure + 0.2 + metered))
    knee = np.float32(0.6)
    over = np.maximum(x - knee, 0)
    x = np.where(x > knee, knee + (1 - knee) * over / (over + (1 - knee)), x)
    x = np.where(x <= 0.0031308, 12.92 * x, 1.055 * np.power(np.maximum(x, 1e-6), 1 / 2.4) - 0.055)
    s = np.float32(0.18 + 0.14 * p.contrast)
    curved = x * x * (3 - 2 * x)
    return np.clip(x + s * (curved - x), 0, 1).astype(np.float32)
