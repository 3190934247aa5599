"""Pixels uint8 sRGB <-> image tensors float32 [N,3,H,W] in [-1,1]."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from semedit.errors import ShapeError

if TYPE_CHECKING:
    import torch


def to_tensor(pixels: np.ndarray) -> torch.Tensor:
    """uint8 [H,W,3] or [N,H,W,3] -> float32 [N,3,H,W] in [-1,1].

    Raises: ShapeError: other numbers than uint8, whose range is not known.
    """
    import torch

    if pixels.dtype != np.uint8:
        raise ShapeError(f"pixels are uint8, 0 to 255, not {pixels.dtype}")
    batch = pixels[None] if pixels.ndim == 3 else pixels
    tensor = torch.from_numpy(np.array(batch)).permute(0, 3, 1, 2)
    return tensor.float().div_(127.5).sub_(1)


def to_uint8(image: torch.Tensor) -> np.ndarray:
    """float [N,3,H,W] in [-1,1] (clipped) -> uint8 [N,H,W,3].

    Raises: ShapeError: whole numbers, which are pixels already.
    """
    if not image.is_floating_point():
        kind = str(image.dtype).removeprefix("torch.")
        raise ShapeError(f"images are floating point, -1 to 1, not {kind}")
    pixels = image.detach().float().clamp(-1, 1).add(1).mul(127.5).round()
    return pixels.byte().permute(0, 2, 3, 1).contiguous().cpu().numpy()


def resize(image: torch.Tensor, size: int | tuple[int, int]) -> torch.Tensor:
    """Bilinear, antialiased: float [N,C,H,W] -> [N,C,size,size] (or size = (height, width))."""
    from torch.nn.functional import interpolate

    shape = (size, size) if isinstance(size, int) else size
    if tuple(image.shape[-2:]) == tuple(shape):
        return image
    return interpolate(image, shape, mode="bilinear", align_corners=False, antialias=True)
