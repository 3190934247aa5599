"""Figures: how near a picture, a label map, a pose or a decision is to the truth.

Each takes tensors of N faces and returns one value per face unless it says otherwise.
"""

from __future__ import annotations

import torch
from torch import Tensor

from semedit.media.labels import LABELS


def psnr(image: Tensor, target: Tensor) -> Tensor:
    """Peak signal to noise ratio [...] in dB, at most 100.

        psnr = 10 log10(range^2 / mean squared error), range = 2

    Args: image, target [...,3,R,R] in [-1,1]; the image is clamped, as it is when written.
    """
    error = (image.clamp(-1, 1) - target).square().mean((-3, -2, -1))
    return (10 * torch.log10(4 / error.clamp(min=1e-12))).clamp(max=100)


def psnr_within(image: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """`psnr` [N] over the pixels of a soft mask [N,1,R,R]; of an empty one 100."""
    squares = (image.clamp(-1, 1) - target).square().mean(1, keepdim=True) * mask
    error = squares.flatten(1).sum(1) / mask.flatten(1).sum(1).clamp(min=1e-6)
    return (10 * torch.log10(4 / error.clamp(min=1e-12))).clamp(max=100)


def sharpness(image: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean |gradient| of a picture over that of the target, in a soft mask [N,1,R,R]: [N]; 1: as
    sharp, less: blurred, more: grainy."""

    def slopes(picture: Tensor) -> Tensor:
        right, below = picture.diff(dim=-1).abs().mean(1), picture.diff(dim=-2).abs().mean(1)
        sides = right * mask[:, 0, :, 1:], below * mask[:, 0, 1:]
        return sum((side.flatten(1).sum(1) for side in sides), torch.zeros(len(picture)))

    return slopes(image.clamp(-1, 1)) / slopes(target).clamp(min=1e-6)


def mean_change(image: Tensor, other: Tensor, mask: Tensor) -> Tensor:
    """Mean absolute difference [N] where mask [N,1,R,R] is set, as a fraction of the range.

    An empty mask changes nothing: 0.
    """
    difference = (image.clamp(-1, 1) - other.clamp(-1, 1)).abs().mean(1, keepdim=True) / 2
    return (difference * mask).flatten(1).sum(1) / mask.flatten(1).sum(1).clamp(min=1)


def label_accuracy(labels: Tensor, target: Tensor) -> Tensor:
    """Fraction of pixels with the right label [N]; label maps int64 [N,R,R]."""
    return (labels == target).flatten(1).float().mean(1)


def confusion(labels: Tensor, target: Tensor, classes: int = len(LABELS)) -> Tensor:
    """Counts int64 [classes, classes]: rows the truth, columns what was found, over all faces."""
    index = target.flatten() * classes + labels.flatten()
    return torch.bincount(index, minlength=classes**2).reshape(classes, classes)


def mean_iou(counts: Tensor, classes: list[int] | None = None) -> float:
    """Mean intersection over union of one confusion matrix over a whole set.

    Averaged over the classes that occur in the set's truth, or those of the named ones that do. A
    class that is only found, never true, has no IoU of its own; its pixels are misses elsewhere.
    """
    hits = counts.diag().double()
    union = counts.sum(0) + counts.sum(1) - counts.diag()
    present = counts.sum(1) > 0
    if classes is not None:
        named = torch.zeros_like(present)
        named[classes] = True
        present &= named
    return float((hits[present] / union[present]).mean())


def region_iou(mask: Tensor, target: Tensor) -> Tensor:
    """Intersection over union [N] of two masks [N,1,R,R]; 1 where both are empty."""
    a, b = mask.flatten(1) > 0.5, target.flatten(1) > 0.5
    both, either = (a & b).sum(1), (a | b).sum(1)
    return torch.where(
        either > 0, both / either.clamp(min=1), torch.ones_like(either, dtype=torch.float)
    )


def balanced_accuracy(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean of the true positive and true negative rate of each attribute: [A].

    NaN for an attribute of which the set holds only one side: such a set says nothing about it.

    Args: predicted, target: bool [N,A].
    """
    yes, no = target, ~target
    positive = (predicted & yes).sum(0) / yes.sum(0)
    negative = (~predicted & no).sum(0) / no.sum(0)
    return (positive + negative) / 2


def pose_error(angles: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error [N] in degrees over yaw, pitch and roll; angles [N,3] in radians."""
    difference = angles - target
    wrapped = torch.atan2(difference.sin(), difference.cos())
    return wrapped.abs().rad2deg().mean(1)


def landmark_error(landmarks: Tensor, target: Tensor) -> Tensor:
    """Mean distance [N] of the 68 landmarks in units of the true inter-ocular distance.

    That distance is the one between the outer eye corners (36 and 45) in the same picture, as the
    300-W challenge has it.

    Args: landmarks, target [N,68,2] in one pixel unit.
    """
    error = (landmarks - target).norm(dim=-1).mean(1)
    return error / (target[:, 45] - target[:, 36]).norm(dim=-1)


def frechet(features: Tensor, other: Tensor) -> float:
    """Fréchet distance between the Gaussians that two sets of features [N,D], [M,D] suggest.

        |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))

    Which features they are decides about the figure: FID is that of the Inception network's. Sets
    smaller than D make it large for any two sets; compare only sets of equal size.

    Source: Heusel et al. 2017, arXiv:1706.08500.
    """
    a, b = features.double(), other.double()
    mean = (a.mean(0) - b.mean(0)).square().sum()
    a = (a - a.mean(0)) / max(1, len(a) - 1) ** 0.5
    b = (b - b.mean(0)) / max(1, len(b) - 1) ** 0.5
    # The eigenvalues of C1 C2 are the squared singular values of a b^T, and a = Q R with R small.
    a, b = (torch.linalg.qr(rows, mode="r").R for rows in (a, b))
    mixed = torch.linalg.svdvals(a @ b.T).sum()
    return float(mean + a.square().sum() + b.square().sum() - 2 * mixed)


def kernel_distance(
    features: Tensor, other: Tensor, subsets: int = 100, size: int = 1000, seed: int = 0
) -> float:
    """Squared maximum mean discrepancy of two sets of features [N,D], [M,D], unbiased.

        k(x, y) = (x . y / D + 1)^3;  mean over random subsets of `size` of each set

    With the Inception network's features it is the KID. It may come out below 0 for like sets.

    Source: Binkowski et al. 2018, arXiv:1801.01401.
    """
    numbers = torch.Generator().manual_seed(seed)
    a, b = features.double().cpu(), other.double().cpu()
    size = min(size, len(a), len(b))
    found = []
    for _ in range(subsets if size < max(len(a), len(b)) else 1):
        x, y = (rows[torch.randperm(len(rows), generator=numbers)[:size]] for rows in (a, b))
        own = [(v @ v.T / v.shape[1] + 1) ** 3 for v in (x, y)]
        within = sum((k.sum() - k.diag().sum()) / (size * (size - 1)) for k in own)
        between = ((x @ y.T / x.shape[1] + 1) ** 3).mean()
        found.append(within - 2 * between)
    return float(torch.stack(found).mean())
