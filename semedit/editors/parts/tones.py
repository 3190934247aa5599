"""Colours that edits are to keep."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

LEAST = 12  # pixels of a label that tell its colour
NEAR = 1 / 16  # side of the square whose mean colour counts, shares of the picture's


class Tones:
    """How far what is drawn anew is in colour from what the face has of the same label: new hair
    is to have the colour of the hair that is there, bared skin that of the skin.

        mean over pixels drawn anew of |mean of I' nearby - mean of I|^2, both of the pixel's label

    Labels of which the face has (almost) nothing count nothing: their colour is the generator's.

    Args: image [1,3,R,R]: the face before, I. own int64 [1,R,R]: its labels where they stay as they
          are; drawn int64 [1,R,R]: labels to be; where [1,1,R,R], 0 or 1: what is drawn anew.
    """

    def __init__(self, image: Tensor, own: Tensor, drawn: Tensor, where: Tensor) -> None:
        self._size = 2 * round(image.shape[-1] * NEAR / 2) + 1
        self._all = where.sum().clamp(min=1)
        new = torch.where(where[:, 0] > 0, drawn, -1)
        kept = torch.where(where[:, 0] > 0, -1, own)
        self._parts: list[tuple[Tensor, Tensor, Tensor]] = []
        for label in new[new >= 0].unique().tolist():
            place = (kept == label)[:, None].to(image)
            if place.sum() >= LEAST:
                colour = (image * place).sum((2, 3), True) / place.sum()
                mask = (new == label)[:, None].to(image)
                self._parts.append((mask, self._pooled(mask).clamp(min=1e-6), colour))

    def _pooled(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, self._size, stride=1, padding=self._size // 2)

    def __call__(self, image: Tensor) -> Tensor:
        """Of a picture [1,3,R,R]: [1]."""
        value = image.new_zeros(1)
        for mask, around, colour in self._parts:
            away = (self._pooled(image * mask) / around - colour).square().mean(1, True)
            value = value + (away * mask).sum() / self._all
        return value
