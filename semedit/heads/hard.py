"""The hard look: what photographs do to faces. For training networks that must carry over.

Everything that moves pixels is a similarity that is folded into c, landmarks and labels exactly;
everything else changes colours only, or covers parts of the head (labels then follow annotators:
what is covered by a foreign object is background).
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image
from scipy import ndimage

from semedit.heads.scene import hsv


def clutter(size: int, rng: np.random.Generator) -> np.ndarray:
    """Linear RGB background float32 [size,size,3]: gradients, stripes, boxes, blobs, foliage."""
    v, u = np.mgrid[0:size, 0:size].astype(np.float32) / size - 0.5
    angle = rng.uniform(-np.pi, np.pi)
    mix = 1 / (1 + np.exp(-rng.uniform(1, 14) * (np.cos(angle) * u + np.sin(angle) * v)))
    image = _color(rng) + mix[..., None] * (_color(rng) - _color(rng))
    for _ in range(rng.integers(0, 5)):
        image = _cover(image, _texture(u, v, rng), _color(rng), rng.uniform(0.2, 1))
    for _ in range(rng.integers(0, 14)):
        image = _cover(image, _form(u, v, rng), _color(rng), rng.uniform(0.5, 1))
    if rng.random() < 0.6:
        image = ndimage.gaussian_filter(image, (*(2 * [size * rng.uniform(0, 0.03)]), 0))
    return np.clip(image, 0, 1.2).astype(np.float32)


def _color(rng: np.random.Generator) -> np.ndarray:
    return hsv(rng.random(), rng.uniform(0, 0.8) ** 1.3, rng.uniform(0.02, 1))


def _cover(image: np.ndarray, mask: np.ndarray, color: np.ndarray, amount: float) -> np.ndarray:
    return np.asarray(image + (amount * mask)[..., None] * (color - image))


def _texture(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Stripes, checks or foliage over the whole picture, 0..1."""
    kind = rng.integers(0, 3)
    if kind == 2:
        noise = rng.standard_normal(u.shape).astype(np.float32)
        noise = ndimage.gaussian_filter(noise, len(u) * rng.uniform(0.004, 0.04), mode="wrap")
        return np.asarray(noise > noise.std() * rng.uniform(-0.5, 1), np.float32)
    angle, pitch = rng.uniform(-np.pi, np.pi), rng.uniform(8, 90)
    wave = np.sin(pitch * (np.cos(angle) * u + np.sin(angle) * v)) > rng.uniform(-0.7, 0.7)
    if kind == 1:
        wave = wave ^ (np.sin(pitch * (np.cos(angle) * v - np.sin(angle) * u)) > 0)
    return np.asarray(wave, np.float32)


def _form(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A box, ellipse or bar somewhere, 0..1."""
    x, y, angle = rng.uniform(-0.6, 0.6), rng.uniform(-0.6, 0.6), rng.uniform(-np.pi, np.pi)
    a, b = rng.uniform(0.02, 0.35, 2)
    du = (np.cos(angle) * (u - x) + np.sin(angle) * (v - y)) / a
    dv = (np.cos(angle) * (v - y) - np.sin(angle) * (u - x)) / b
    kind = rng.integers(0, 3)
    far = (
        np.maximum(np.abs(du), np.abs(dv))
        if kind == 0
        else np.hypot(du, dv)
        if kind == 1
        else (np.abs(dv))
    )
    return np.asarray(far < 1, np.float32)


def occlude(rgb: np.ndarray, label: np.ndarray, skin: np.ndarray, rng: np.random.Generator) -> None:
    """Lay a hand's stand-in, a microphone, a bar or hair-like strands over linear rgb
    [S,S,3] and label [S,S], in place. skin: linear colour of a hand."""
    size = len(label)
    v, u = np.mgrid[0:size, 0:size].astype(np.float32) / size - 0.5
    kind = rng.choice(["hand", "rod", "box", "threads"], p=[0.4, 0.25, 0.2, 0.15])
    if kind == "hand":
        mask, shade = _hand(u, v, rng)
        color = skin * rng.uniform(0.5, 1.1)
    elif kind == "rod":
        mask, shade = _rod(u, v, rng)
        color = _color(rng) * 0.5
    elif kind == "box":
        mask, shade, color = _form(u, v * 1.0, rng) > 0.5, np.ones_like(u), _color(rng)
        mask &= np.hypot(u, v) > rng.uniform(0.1, 0.3)
    else:
        angle = rng.uniform(-0.5, 0.5) + np.pi / 2
        along = np.cos(angle) * u + np.sin(angle) * v + 0.04 * np.sin(v * 9)
        across = -np.sin(angle) * u + np.cos(angle) * v + 0.03 * np.sin(along * 12)
        mask = np.abs((across * 60 + rng.uniform(0, 1)) % 1 - 0.5) < 0.06
        mask &= np.abs(across - rng.uniform(-0.3, 0.3)) < rng.uniform(0.02, 0.12)
        rgb[mask] = _color(rng) * 0.3
        return
    rgb[mask] = (color * shade[..., None])[mask] * rgb.mean() * 2.5
    label[mask] = 0


def _hand(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A palm and fingers that come in from the lower edge."""
    x, y = rng.uniform(-0.35, 0.35), rng.uniform(0.15, 0.45)
    lean = rng.uniform(-0.6, 0.6)
    far = np.hypot((u - x) / 0.13, (v - y) / 0.16)
    for finger in range(4):
        angle = lean + (finger - 1.5) * 0.22
        fx, fy = x + np.sin(angle) * 0.14, y - np.cos(angle) * 0.14
        du = np.cos(angle) * (u - fx) + np.sin(angle) * (v - fy)
        dv = np.cos(angle) * (v - fy) - np.sin(angle) * (u - fx)
        far = np.minimum(far, np.hypot(du / 0.03, np.maximum(np.abs(dv) - 0.08, 0) / 0.03))
    arm = np.abs(u - x + lean * (v - y)) / 0.1
    far = np.where(v > y, np.minimum(far, arm), far)
    return far < 1, np.sqrt(np.clip(1.15 - far**2 * 0.7, 0.1, 1))


def _rod(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A microphone: a ball on a stick from below."""
    x, y = rng.uniform(-0.3, 0.3), rng.uniform(0.1, 0.4)
    lean = rng.uniform(-1, 1)
    ball = np.hypot(u - x, v - y) / rng.uniform(0.04, 0.09)
    stick = np.where(v > y, np.abs(u - x - lean * (v - y)) / 0.025, 9)
    far = np.minimum(ball, stick)
    return far < 1, np.sqrt(np.clip(1.1 - far**2, 0.05, 1))


def cast(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Colour casts and exposure of linear rgb."""
    gain = np.exp(rng.normal(0, 0.22, 3) * (rng.random() < 0.6))
    gain = gain * 2.0 ** rng.normal(0, 0.55)
    size = len(rgb)
    if rng.random() < 0.35:  # one side in shade, as under trees or by a window
        v, u = np.mgrid[0:size, 0:size].astype(np.float32) / size - 0.5
        angle = rng.uniform(-np.pi, np.pi)
        along = np.cos(angle) * u + np.sin(angle) * v - rng.uniform(-0.2, 0.2)
        shade = 1 / (1 + np.exp(-along * rng.uniform(4, 60)))
        rgb = rgb * (1 - rng.uniform(0.2, 0.75) * shade)[..., None]
    return np.asarray(rgb * gain, np.float32)


def spoil(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """sRGB float32 [S,S,3] in [0,1] -> blurred, noisy, compressed."""
    size = len(image)
    gray = image.mean(2, keepdims=True)
    roll = rng.random()
    if roll < 0.10:
        image = np.repeat(gray, 3, 2) * rng.uniform(0.85, 1, 3) ** (rng.random() < 0.3)
    elif roll < 0.35:
        image = gray + (image - gray) * rng.uniform(0.4, 1.4)
    image = np.clip(image, 0, 1) ** np.exp(rng.normal(0, 0.18))
    middle = rng.uniform(0.3, 0.6)
    image = middle + (image - middle) * np.exp(rng.normal(0, 0.18))
    if rng.random() < 0.4:
        small = max(int(size / np.exp(rng.uniform(0, 1.5))), 24)
        image = _resized(_resized(image, small, rng), size, rng)
    if rng.random() < 0.35:
        image = ndimage.gaussian_filter(image, (*(2 * [size / 256 * rng.uniform(0.3, 2.2)]), 0))
    if rng.random() < 0.12:
        image = _moved(image, rng.uniform(0, np.pi), int(size / 256 * rng.integers(3, 10)) + 1)
    if rng.random() < 0.6:
        noise = rng.normal(0, rng.uniform(0.003, 0.06), image.shape)
        image = image + noise * (0.4 + 0.6 * np.sqrt(np.clip(image, 0, 1)))
    if rng.random() < 0.4:
        with io.BytesIO() as file:
            Image.fromarray((np.clip(image, 0, 1) * 255).astype(np.uint8)).save(
                file, "JPEG", quality=int(rng.integers(18, 90))
            )
            image = np.asarray(Image.open(file), np.float32) / 255
    return np.clip(image, 0, 1).astype(np.float32)


def _resized(image: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    how = Image.Resampling(int(rng.choice([0, 2, 3, 5])))
    pixels = Image.fromarray((np.clip(image, 0, 1) * 255).astype(np.uint8))
    return np.asarray(pixels.resize((size, size), how), np.float32) / 255


def _moved(image: np.ndarray, angle: float, length: int) -> np.ndarray:
    """Motion blur along an angle."""
    total = np.zeros_like(image)
    for t in np.linspace(-0.5, 0.5, length):
        total += np.roll(
            image, (round(length * t * np.sin(angle)), round(length * t * np.cos(angle))), (0, 1)
        )
    return total / length
