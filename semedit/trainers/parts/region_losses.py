"""The five regions of L2SAE as targets, and the loss l of its equation 2."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from semedit import losses
from semedit.generators.l2sae.l2sae import ROIS


def region_masks(labels: Tensor) -> Tensor:
    """Masks float32 [N,5,R,R] of ROIS, in their order."""
    return torch.cat([losses.region(labels, names) for names in ROIS.values()], 1)


def region_losses(logits: Tensor, masks: Tensor) -> Tensor:
    """l of equation 2, [N,5]: cross-entropy, and 1 - soft IoU, which counts small regions fully.

    A pixel inside counts sqrt(outside / inside) in the cross-entropy, with the shares of both in
    the batch: else eyes, a hundredth of a picture, are taken for nowhere before they are found.
    """
    share = masks.mean((0, 2, 3)).clamp(1e-3, 0.5)[:, None, None]
    weight = torch.where(masks > 0.5, ((1 - share) / share).sqrt(), 1.0)
    entropy = F.binary_cross_entropy_with_logits(logits, masks, reduction="none")
    entropy = (entropy * weight).sum((2, 3)) / weight.sum((2, 3))
    inside = logits.sigmoid()
    both = (inside * masks).sum((2, 3))
    either = (inside + masks).sum((2, 3)) - both
    return entropy + 1 - (both + 1) / (either + 1)


def region_counts(logits: Tensor, labels: Tensor) -> Tensor:
    """Pixels of both and of either, of regions found and true: float64 [5,2]; add them up over a
    set, then see `region_ious`."""
    found, true = logits > 0, region_masks(labels) > 0.5
    both, either = (found & true).sum((0, 2, 3)), (found | true).sum((0, 2, 3))
    return torch.stack([both, either], 1).double().cpu()


def region_ious(counts: Tensor) -> tuple[float, dict[str, float]]:
    """Mean IoU of the regions, and that of each; of one that is nowhere it is 0."""
    each = (counts[:, 0] / counts[:, 1].clamp(min=1)).tolist()
    return sum(each) / len(each), dict(zip(ROIS, each, strict=True))
