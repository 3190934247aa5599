"""Random changes of training pictures that photographs also go through.

Everything draws from torch's global generator, so that a step repeats exactly. Pictures are
float32 [N,3,H,W] in [0,1] here. Geometry is a similarity per picture, in sides of the picture:

    uv_in = centre + side * R(rotation) * (uv_out + bend(uv_out) - 1/2)

where the bend, a smooth random field, moves features about: no morphable model knows all faces.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from semedit.faces.networks import MIRROR_LABELS


@dataclass(frozen=True)
class CropView:
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


def bends(n: int, strength: float = 1.0) -> Tensor:
    """Smooth displacements [n,2,64,64] of places in a view, in its sides; coarse and fine ones."""
    field = torch.zeros(n, 2, 64, 64)
    for cells, amount in ((4, 0.025), (9, 0.012)):
        knots = strength * amount * torch.randn(n, 2, cells, cells).clamp(-2, 2)
        field = field + F.interpolate(knots, (64, 64), mode="bicubic", align_corners=True)
    return field


def grid(view: CropView, size: int, bend: Tensor | None = None) -> Tensor:
    """Sampling places [N,size,size,2] in [-1,1] for `F.grid_sample`; bend as of `bends`."""
    m = view.matrices()
    if bend is None:
        theta = torch.cat([m[:, :, :2], 2 * m[:, :, 2:] + m[:, :, :2].sum(2, keepdim=True) - 1], 2)
        return F.affine_grid(theta, [len(m), 1, size, size], align_corners=False)
    line = (torch.arange(size) + 0.5) / size
    places = torch.stack(torch.meshgrid(line, line, indexing="xy"), -1)
    places = places + sized(bend, size).permute(0, 2, 3, 1)
    seen = places.flatten(1, 2) @ m[:, :, :2].transpose(1, 2) + m[:, None, :, 2]
    return 2 * seen.view_as(places) - 1


def see(images: Tensor, places: Tensor, mode: str = "bilinear") -> Tensor:
    """Pictures [N,C,H,W] sampled at places; what lies outside is reflected."""
    return F.grid_sample(images, places, mode, padding_mode="reflection", align_corners=False)


def sized(images: Tensor, size: int) -> Tensor:
    """Pictures or scores [N,C,H,H] at [N,C,size,size]."""
    if images.shape[-1] == size:
        return images
    return F.interpolate(images, (size, size), mode="bilinear")


def move(points: Tensor, view: CropView, bend: Tensor | None = None) -> Tensor:
    """Points [N,P,2] of the pictures, in sides, where the view shows them."""
    m = view.matrices()
    straight = (points - m[:, None, :, 2]) @ torch.linalg.inv(m[:, :, :2]).transpose(1, 2)
    if bend is None:
        return straight
    found = straight
    for _ in range(8):  # the place that the bend moves here; the field is a contraction
        moved = F.grid_sample(
            bend, found[:, None] * 2 - 1, padding_mode="border", align_corners=False
        )
        found = straight - moved[:, :, 0].transpose(1, 2)
    return found


def light(images: Tensor, strength: float = 1.0) -> Tensor:
    """Gamma, contrast, colour cast, saturation, uneven light."""
    n = len(images)
    column = (n, 1, 1, 1)
    out = images.clamp(1e-3, 1) ** (strength * 0.28 * torch.randn(column)).exp()
    mean = out.mean((1, 2, 3), keepdim=True)
    out = mean + (out - mean) * (strength * 0.25 * torch.randn(column)).exp()
    out = out * (strength * 0.1 * torch.randn(n, 3, 1, 1)).exp()
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


def rescene(images: Tensor, labels: Tensor, scenes: Tensor, share: float = 0.5) -> Tensor:
    """Put other scenes behind a share of the heads, and weave them into a share of the clothes.

    Args: images [N,3,H,W]; labels int64 [N,H,W], CelebAMask-HQ; scenes [N,3,H,W].
    """
    n = len(images)
    column = (n, 1, 1, 1)
    behind = F.avg_pool2d((labels == 0)[:, None].float(), 3, 1, 1) * chance(n, share).view(column)
    worn = (labels == 18)[:, None].float() * (0.7 * chance(n, share)).view(column)
    other = scenes.roll(1, 0)
    return torch.lerp(torch.lerp(images, scenes, behind), other, worn)


def photograph(images: Tensor, strength: float = 1.0, clean: float = 0.25) -> Tensor:
    """Light, optics, sensor and file: everything between a face and a picture of it.

    Args: strength: of all of it; clean: share of the pictures that stay as they are.
    """
    out = blur(light(images, strength), 0.4 + 1.2 * strength)
    out = jpeg(grain(coarsen(out, 0.25 * strength), 0.06 * strength), 0.25 * strength)
    return torch.where(chance(len(images), clean).view(-1, 1, 1, 1), images, out)


def mirrored_labels(labels: Tensor, mirror: Tensor) -> Tensor:
    """Label ids int64 [N,H,W] with left and right exchanged where mirror, bool [N], says that the
    picture was mirrored; ids of no label stay."""
    table = torch.arange(256, device=labels.device)
    table[: len(MIRROR_LABELS)] = torch.tensor(MIRROR_LABELS)
    return torch.where(mirror.view(-1, 1, 1), table[labels], labels)
