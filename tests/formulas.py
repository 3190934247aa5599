"""Terms of objectives written out in numpy, pixel by pixel: what tests hold semedit's against."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from semedit.media.labels import LABELS


def close(found: Tensor, expected: Tensor, rtol: float = 1e-4, atol: float = 1e-5) -> bool:
    """Equal but for rounding."""
    return found.shape == expected.shape and torch.allclose(found, expected, rtol, atol)


def masked_squares(image: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """mean |(image - target) mask|^2 over all pixels and channels: [N]."""
    away = (image - target).detach().double().numpy() * mask.double().numpy()
    return torch.tensor((away**2).mean((1, 2, 3))).float()


def pixel_distance(a: Tensor, b: Tensor) -> Tensor:
    """|a - b|^2 of tiny.Pixels: summed over its two layers and channels, mean over positions."""
    total = np.zeros(len(a))
    x, y = a.detach().double().numpy(), b.detach().double().numpy()
    layers = (2 * x, 2 * y), ((x[..., ::2, ::2] + 1) ** 2, (y[..., ::2, ::2] + 1) ** 2)
    for one, other in layers:
        total += ((one - other) ** 2).sum((1, 2, 3)) / (one.shape[2] * one.shape[3])
    return torch.tensor(total).float()


def _chances(seg: Tensor) -> np.ndarray:
    logits = seg.detach().double().numpy()
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


def label_squares(seg: Tensor, labels: Tensor, mask: Tensor | None = None) -> Tensor:
    """mean over pixels of sum over classes (p - onehot)^2; labels, mask at seg's size: [N]."""
    truth = np.eye(len(LABELS))[labels.numpy()].transpose(0, 3, 1, 2)
    error = ((_chances(seg) - truth) ** 2).sum(1)
    weight = 1.0 if mask is None else mask[:, 0].double().numpy()
    return torch.tensor((error * weight).mean((1, 2))).float()


def label_entropy(seg: Tensor, labels: Tensor, mask: Tensor | None = None) -> Tensor:
    """mean over pixels of -log p[label]: [N]."""
    p = np.take_along_axis(_chances(seg), labels[:, None].numpy(), 1)[:, 0]
    weight = 1.0 if mask is None else mask[:, 0].double().numpy()
    return torch.tensor((-np.log(p) * weight).mean((1, 2))).float()


def half(mask: Tensor) -> Tensor:
    """A mask [N,1,R,R] at half the size: means of blocks of 2 x 2."""
    n, _, high, wide = mask.shape
    return mask.view(n, 1, high // 2, 2, wide // 2, 2).mean((3, 5))


def tones(image: Tensor, before: Tensor, own: Tensor, drawn: Tensor, where: Tensor) -> float:
    """editors.tones: |mean of I' in a window - mean of I|^2, both of a label, mean over `where`."""
    size = image.shape[-1]
    reach = round(size / 16 / 2)
    now, was = image[0].detach().double().numpy(), before[0].double().numpy()
    new, old, kept = where[0, 0].numpy() > 0, own[0].numpy(), where[0, 0].numpy() == 0
    total = 0.0
    for y, x in np.argwhere(new):
        label = int(drawn[0, y, x])
        place = kept & (old == label)
        if place.sum() < 12:
            continue
        colour = was[:, place].mean(1)
        rows, columns = (slice(max(0, v - reach), v + reach + 1) for v in (y, x))
        same = (new & (drawn[0].numpy() == label))[rows, columns]
        nearby = now[:, rows, columns][:, same].mean(1)
        total += float(((nearby - colour) ** 2).mean())
    return total / max(1, int(new.sum()))
