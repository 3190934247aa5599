"""What an aligned crop shows, told by the built-in face network alone: labels and camera."""

from __future__ import annotations

from torch import Tensor

from semedit.faces import networks
from semedit.faces.parsing import enlarge
from semedit.faces.pose import camera


def estimates(images: Tensor) -> tuple[Tensor, Tensor]:
    """Labels and cameras of aligned crops; the network runs once for both.

    Args:    images float32 [N,3,R,R] in [-1,1].
    Returns: labels int64 [N,R,R]; c float32 [N,25]; both on the images' device.
    """
    found = networks.describe(images)
    labels = enlarge(found.seg, images.shape[-1]).argmax(1)
    return labels.to(images.device), camera(found.six).to(images.device)
