"""Where an encoder sees a face in a generator's code space."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def encode(generator: Any, images: Tensor, labels: Tensor, c: Tensor) -> dict[str, Tensor]:
    """Codes [N, ...] of images [N,3,R,R] with labels [N,R,R] and cameras c [N,25]."""
    return generator.encode(images, labels, c)
