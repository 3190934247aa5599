"""Losses of inversion and editing over pictures and label maps, one value per face.

Every loss returns [N], so that faces optimised as one batch do not touch each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from semedit.generators import Output
from semedit.losses.features import NoPerceptual, Perceptual, distance


def image_loss(
    image: Tensor, target: Tensor, mask: Tensor | None = None, kind: str = "mse"
) -> Tensor:
    """mean |mask (image - target)|^2 (kind "mse") or its absolute value ("l1"): [N].

    Args: image, target [N,3,R,R]; mask [N,1,R,R]. The mean is over all pixels, masked or not.
    """
    difference = image - target if mask is None else (image - target) * mask
    error = {"mse": torch.square, "l1": torch.abs}[kind](difference)
    return error.flatten(1).mean(1)


def label_loss(
    seg: Tensor, labels: Tensor, mask: Tensor | None = None, kind: str = "mse"
) -> Tensor:
    """Distance of label logits to a label map: [N].

        kind "mse"  mean over pixels of sum over classes (softmax(seg) - onehot(labels))^2
        kind "ce"   mean over pixels of -log softmax(seg)[labels]

    Args: seg [N,K,h,w]; labels int64 [N,R,R], sampled at seg's size; mask [N,1,R,R].
    """
    size = seg.shape[-2:]
    if labels.shape[-2:] != size:
        labels = F.interpolate(labels[:, None].float(), size, mode="nearest")[:, 0].long()
    if kind == "ce":
        error = F.cross_entropy(seg, labels, reduction="none")
    else:
        onehot = F.one_hot(labels, seg.shape[1]).permute(0, 3, 1, 2)
        error = (seg.softmax(1) - onehot).square().sum(1)
    if mask is not None:
        error = error * F.interpolate(mask, size, mode="area")[:, 0]
    return error.flatten(1).mean(1)


def noise_loss(maps: Iterable[Tensor]) -> Tensor:
    """How far noise maps [N,1,r,r] are from white: squared correlation with themselves moved by a
    pixel, at every scale down to 8 pixels: [1].

    Source: Karras et al. 2020, arXiv:1912.04958, appendix D.
    """
    total = torch.zeros(1)
    for one in maps:
        scale = one
        while True:
            for axis in (2, 3):
                total = total + (scale * scale.roll(1, axis)).mean().square().to(total)
            if scale.shape[-1] <= 8:
                break
            scale = F.avg_pool2d(scale, 2)
    return total


@dataclass(frozen=True, eq=False)
class Target:
    """One thing a face shall agree with, and where.

    image float32 [N,3,R,R]; labels int64 [N,R,R]; masks float32 [N,1,R,R], None = everywhere.
    """

    image: Tensor
    labels: Tensor
    image_mask: Tensor | None = None
    label_mask: Tensor | None = None


class SemanticLoss:
    """Agreement of a rendered face with targets in labels, colour and perception.

        L = sum over targets t of
              label_weight      * L_s(S' m_t, S_t m_t)
            + image_weight      * |(I' - I_t) r_t|^2
            + perceptual_weight * L_vgg(I' r_t, I_t r_t)

    Equation 7 (inversion) is one target without masks. Equation 8 (edit by label map S_ed, region
    r) is one target with labels S_ed everywhere and the image on 1 - r. Equation 9 (transfer) is
    two targets: the source on 1 - r and the donor on r. See `inversion`, `transfer`.

    Source: Verma and Raman 2025 (SemFaceEdit), arXiv:2506.22833, supplement, equations 7-9.
    Departs: a generator may label at lower resolution than it draws; labels are sampled there.
    """

    def __init__(
        self,
        targets: Sequence[Target],
        perceptual: Perceptual,
        label_weight: float = 10.0,
        image_weight: float = 1.0,
        perceptual_weight: float = 1.0,
        label_kind: str = "mse",
    ) -> None:
        self.targets = tuple(targets)
        self.perceptual = perceptual if perceptual_weight > 0 else NoPerceptual()
        self.label_weight, self.image_weight = label_weight, image_weight
        self.perceptual_weight, self.label_kind = perceptual_weight, label_kind
        with torch.no_grad():  # the targets' features are the same at every step
            self._features = [self._embed(t.image, t.image_mask) for t in self.targets]

    @staticmethod
    def inversion(image: Tensor, labels: Tensor) -> list[Target]:
        """Equation 7."""
        return [Target(image, labels)]

    @staticmethod
    def transfer(
        source: tuple[Tensor, Tensor], donor: tuple[Tensor, Tensor], r: Tensor
    ) -> list[Target]:
        """Equation 9: (image, labels) of the source on 1 - r, of the donor on r."""
        return [Target(*source, 1 - r, 1 - r), Target(*donor, r, r)]

    def __call__(self, output: Output) -> Tensor:
        """Loss [N] of a generator's Output."""
        total = output.image.new_zeros(len(output.image))
        for target, features in zip(self.targets, self._features, strict=True):
            total = total + self.image_weight * image_loss(
                output.image, target.image, target.image_mask
            )
            if output.seg is not None and self.label_weight > 0:
                total = total + self.label_weight * label_loss(
                    output.seg, target.labels, target.label_mask, self.label_kind
                )
            found = self._embed(output.image, target.image_mask)
            total = total + self.perceptual_weight * distance(found, features).to(total)
        return total

    def _embed(self, image: Tensor, mask: Tensor | None) -> list[Tensor]:
        return self.perceptual.features(image if mask is None else image * mask)


Loss = Callable[[Output], Tensor]
