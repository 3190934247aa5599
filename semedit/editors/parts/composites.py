"""Keeping the pixels around an edit."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from semedit.latents import Composite, Latent
from semedit.losses import feather


def keep_outside(after: Latent, image: Tensor, mask: Tensor, soft_px: float) -> Latent:
    """The edited latent with everything outside the mask kept as it was.

    Args: after: the edited latent. image float32 [N,3,R,R]: the picture before. mask [N,1,R,R]:
          where the edit shows. soft_px: blur of the blend, which lies inside the mask.
    """
    # Only inside, so that pixels outside the mask are kept to the last bit.
    soft = feather(mask, soft_px) * mask
    return replace(after, composite=Composite(image.detach(), soft))
