"""Random changes of training pictures that photographs also go through.

Everything draws from torch's global generator, so that a step repeats exactly. Pictures are
float32 [N,3,H,W] in [0,1] here. Geometry is a similarity per picture, in sides of the picture:

    uv_in = centre + side * R(rotation) * (uv_out - 1/2)
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor


@dataclass(frozen=True)
class View:
    """Which square of each picture is seen: centre [N,2] and side [N] in sides of the picture,
    rotation [N] clockwise radians, mirror [N] bool (after the rest)."""

    centre: Tensor
    side: Tensor
    rotation: Tensor
    mirror: Tensor

    def matrices(self) -> Tensor:
        """[N,2,3]: uv_in = M[:, :, :2] @ uv_out + M[:, :, 2]."""
        sin, cos = self.rotation.sin() * self.side, self.rotation.cos() * self.side
        sign = torch.where(self.mirror, -1.0, 1.0)
        linear = torch.stack([cos * sign, -sin, sin * sign, cos], -1).view(-1, 2, 2)
        shift = self.centre - linear @ torch.full((2,), 0.5)
        return torch.cat([linear, shift[:, :, None]], 2)


def uniform(n: int, low: float, high: float) -> Tensor:
    """[n] in [low, high)."""
    return low + (high - low) * torch.rand(n)


def chance(n: int, probability: float) -> Tensor:
    """bool [n]."""
    return torch.rand(n) < probability


def grid(view: View, size: int) -> Tensor:
    """Sampling places [N,size,size,2] in [-1,1] for `F.grid_sample`."""
    m = view.matrices()
    theta = torch.cat([m[:, :, :2], 2 * m[:, :, 2:] + m[:, :, :2].sum(2, keepdim=True) - 1], 2)
    return F.affine_grid(theta, [len(m), 1, size, size], align_corners=False)


def see(images: Tensor, places: Tensor, mode: str = "bilinear") -> Tensor:
    """Pictures [N,C,H,W] sampled at places; what lies outside is reflected."""
    return F.grid_sample(images, places, mode, padding_mode="reflection", align_corners=False)


def move(points: Tensor, view: View) -> Tensor:
    """Points [N,P,2] of the pictures, in sides, where the view shows them."""
    m = view.matrices()
    local = points - m[:, None, :, 2]
    return local @ torch.linalg.inv(m[:, :, :2]).transpose(1, 2)


def light(images: Tensor, strength: float = 1.0) -> Tensor:
    """Gamma, contrast, colour cast, saturation, uneven light."""
    n = len(images)
    column = (n, 1, 1, 1)
    out = images.clamp(1e-3, 1) ** (strength * 0.35 * torch.randn(column)).exp()
    mean = out.mean((1, 2, 3), keepdim=True)
    out = mean + (out - mean) * (strength * 0.25 * torch.randn(column)).exp()
    out = out * (strength * 0.12 * torch.randn(n, 3, 1, 1)).exp()
    grey = out.mean(1, keepdim=True)
    keep = torch.where(chance(n, 0.12), torch.zeros(n), uniform(n, 0.3, 1.6)).view(column)
    out = grey + (out - grey) * keep
    field = F.interpolate(torch.randn(n, 1, 3, 3), images.shape[-2:], mode="bicubic")
    out = out * (strength * 0.2 * field).exp()
    return (out + strength * 0.05 * torch.randn(n, 3, 1, 1)).clamp(0, 1)


def blur(images: Tensor, most: float = 1.6) -> Tensor:
    """Gaussian blur of half the pictures, sigma up to `most` px."""
    n, _, h, w = images.shape
    sigma = torch.where(chance(n, 0.5), uniform(n, 0.3, most), torch.full((n,), 1e-2))
    taps = torch.arange(-3.0, 4.0)
    kernel = torch.exp(-0.5 * (taps / sigma[:, None]) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(3, 0)
    flat = images.reshape(1, 3 * n, h, w)
    flat = F.pad(flat, (3, 3, 3, 3), mode="replicate")
    flat = F.conv2d(flat, kernel[:, None, None, :], groups=3 * n)
    return F.conv2d(flat, kernel[:, None, :, None], groups=3 * n).view(n, 3, h, w)


def coarsen(images: Tensor, share: float = 0.25) -> Tensor:
    """A share of the pictures loses resolution, as a small face that was enlarged."""
    n, _, h, _ = images.shape
    chosen = chance(n, share).nonzero()[:, 0]
    if len(chosen) == 0:
        return images
    small = int(torch.randint(max(8, h // 4), max(9, int(h * 0.7)), (1,)))
    less = F.interpolate(images[chosen], (small, small), mode="area")
    out = images.clone()
    out[chosen] = F.interpolate(less, images.shape[-2:], mode="bilinear")
    return out


def grain(images: Tensor, most: float = 0.06) -> Tensor:
    """Sensor noise of a random strength per picture."""
    sigma = uniform(len(images), 0, 1) ** 2 * most
    return (images + sigma.view(-1, 1, 1, 1) * torch.randn_like(images)).clamp(0, 1)


def jpeg(images: Tensor, share: float = 0.25) -> Tensor:
    """A share of the pictures goes through JPEG of quality 20 to 90."""
    out = images
    chosen = chance(len(images), share).nonzero()[:, 0]
    qualities = torch.randint(20, 90, (len(images),)).tolist()
    if len(chosen):
        out = images.clone()
    for i in chosen.tolist():
        pixels = (images[i] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=qualities[i])
        decoded = np.asarray(Image.open(buffer))
        out[i] = torch.from_numpy(decoded.copy()).permute(2, 0, 1).float() / 255
    return out


def occlude(images: Tensor, share: float = 0.35) -> tuple[Tensor, Tensor]:
    """Cover a part of some pictures with a plain or textured blob.

    Returns: pictures; covered bool [N,H,W].
    """
    n, _, h, w = images.shape
    y = (torch.arange(h) + 0.5).view(1, h, 1) / h
    x = (torch.arange(w) + 0.5).view(1, 1, w) / w
    angle = uniform(n, 0, 3.15).view(n, 1, 1)
    dx = x - uniform(n, -0.1, 1.1).view(n, 1, 1)
    dy = y - uniform(n, -0.1, 1.1).view(n, 1, 1)
    a = (angle.cos() * dx + angle.sin() * dy) / uniform(n, 0.05, 0.3).view(n, 1, 1)
    b = (angle.cos() * dy - angle.sin() * dx) / uniform(n, 0.05, 0.5).view(n, 1, 1)
    power = torch.where(chance(n, 0.5), 2.0, 8.0).view(n, 1, 1)  # ellipse, or nearly a rectangle
    covered = (a.abs() ** power + b.abs() ** power < 1) & chance(n, share).view(n, 1, 1)
    colour = torch.rand(n, 3, 1, 1)
    texture = 0.3 * colour + 0.7 * images.roll(1, 0).roll((h // 3, w // 3), (2, 3))
    fill = torch.where(chance(n, 0.5).view(n, 1, 1, 1), colour.expand_as(images), texture)
    return torch.where(covered[:, None], fill, images), covered


def photograph(images: Tensor, strength: float = 1.0) -> Tensor:
    """Light, optics, sensor and file: everything between a face and a picture of it."""
    out = blur(light(images, strength), 0.4 + 1.2 * strength)
    return jpeg(grain(coarsen(out, 0.25 * strength), 0.06 * strength), 0.25 * strength)


def clutter(count: int, size: int, seed: int = 0) -> np.ndarray:
    """Pictures without faces: scikit-image's textures and objects, gradients, blobs, stripes.

    Args:    count: how many; size: px a side; seed: of their own random numbers.
    Returns: uint8 [count,size,size,3].
    """
    from skimage import data

    random = np.random.default_rng(seed)
    sources = [data.brick, data.grass, data.gravel, data.moon, data.page, data.clock, data.text]
    plates = [_coloured(source()) for source in sources]
    out = np.empty((count, size, size, 3), np.uint8)
    for i in range(count):
        plate = _plate(plates[i % len(plates)], size, random) if i % 3 == 0 else None
        drawn = _drawing(size, random)
        if plate is None:
            picture = drawn
        else:
            picture = plate * random.uniform(0.4, 1.6, 3) if i % 2 else 0.5 * (plate + drawn)
        out[i] = np.clip(picture, 0, 255)
    return out


def _coloured(pixels: np.ndarray) -> np.ndarray:
    """uint8 [H,W] or [H,W,3] -> [H,W,3]."""
    return pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, 2)


def _plate(pixels: np.ndarray, size: int, random: np.random.Generator) -> np.ndarray:
    """A random square of a picture, float [size,size,3] in [0,255]."""
    side = int(random.uniform(0.3, 1.0) * min(pixels.shape[:2]))
    y, x = (int(random.integers(0, n - side + 1)) for n in pixels.shape[:2])
    part = Image.fromarray(np.ascontiguousarray(pixels[y : y + side, x : x + side]))
    return np.asarray(part.resize((size, size), Image.Resampling.BILINEAR), float)


def _drawing(size: int, random: np.random.Generator) -> np.ndarray:
    """Smooth colours with blobs, bars and stripes, float [size,size,3] in [0,255]."""
    cells = int(random.integers(2, 7))
    field = random.uniform(0, 255, (cells, cells, 3)).astype(np.uint8)
    picture = np.asarray(Image.fromarray(field).resize((size, size), Image.Resampling.BICUBIC))
    picture = picture.astype(float)
    y, x = (np.mgrid[:size, :size] + 0.5) / size
    for _ in range(int(random.integers(0, 14))):
        angle, colour = random.uniform(0, np.pi), random.uniform(0, 255, 3)
        dx, dy = x - random.uniform(), y - random.uniform()
        a = (np.cos(angle) * dx + np.sin(angle) * dy) / random.uniform(0.02, 0.35)
        b = (np.cos(angle) * dy - np.sin(angle) * dx) / random.uniform(0.02, 0.35)
        if random.uniform() < 0.2:
            inside = (np.sin(9 * a) > 0) & (np.abs(b) < 1)
        else:
            inside = np.abs(a) ** 4 + np.abs(b) ** random.choice([2, 4]) < 1
        picture[inside] = colour + random.normal(0, 6, 3)
    return picture + random.normal(0, random.uniform(0, 12), picture.shape)
