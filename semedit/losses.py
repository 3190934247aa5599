"""Losses of inversion and editing, one value per face; regions and how they are weighed.

Every loss returns [N], so that faces optimised as one batch do not touch each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semedit import torchvision_ops, weights
from semedit.errors import OptionError
from semedit.faces import networks
from semedit.generators import Output
from semedit.images import LABELS, REGIONS

# --- regions ---------------------------------------------------------------------------------


def region(labels: Tensor, names: Sequence[str]) -> Tensor:
    """Where the labels are one of the named regions (images.REGIONS): mask [N,1,R,R].

    Raises: OptionError: an unknown region.
    """
    ids: list[int] = []
    for name in names:
        if name not in REGIONS:
            raise OptionError(f"There is no region {name}; regions: {', '.join(REGIONS)}.")
        ids.extend(REGIONS[name])
    chosen = torch.zeros(len(LABELS), device=labels.device)
    chosen[ids] = 1
    return chosen[labels][:, None]


def changed(labels: Tensor, other: Tensor) -> Tensor:
    """Where two label maps [N,R,R] differ: mask [N,1,R,R]."""
    return (labels != other).float()[:, None]


def drawn(labels: Tensor, edited: Tensor) -> Tensor:
    """Where a label map was drawn on: mask [N,1,R,R] of what changed, without lone pixels.

    A pixel counts with at least three changed ones among its eight neighbours; thin strands whose
    labels flicker between two renderings or parsings are no drawing.
    """
    mask = changed(labels, edited)
    around = F.avg_pool2d(mask, 3, stride=1, padding=1) * 9
    return mask * (around >= 4).float()


def dilate(mask: Tensor, px: int) -> Tensor:
    """Grow a mask [N,1,R,R] by px pixels in every direction (a square)."""
    if px <= 0:
        return mask
    # One axis after the other: at 1024 pixels a square of a tenth has 40,000 of them.
    rows = F.max_pool2d(mask, (1, 2 * px + 1), stride=1, padding=(0, px))
    return F.max_pool2d(rows, (2 * px + 1, 1), stride=1, padding=(px, 0))


def feather(mask: Tensor, px: float, reach: int | None = None) -> Tensor:
    """Blur a mask [N,1,R,R] by a Gaussian of standard deviation px, cut off `reach` pixels from
    its middle (None: three deviations)."""
    if px <= 0:
        return mask
    reach = max(1, round(3 * px)) if reach is None else reach
    steps = torch.arange(-reach, reach + 1, dtype=mask.dtype, device=mask.device)
    line = torch.exp(-0.5 * (steps / px) ** 2)
    line = line / line.sum()
    wide = F.pad(mask, (reach,) * 4, mode="replicate")
    wide = F.conv2d(wide, line.view(1, 1, 1, -1))
    return F.conv2d(wide, line.view(1, 1, -1, 1)).clamp(0, 1)


# --- image and label terms -------------------------------------------------------------------


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


# --- perceptual distance ---------------------------------------------------------------------


class Perceptual(Protocol):
    """A perceptual distance: embeddings whose squared differences add up to it."""

    name: str  # what a latent records: "lpips-alex", "faces"

    def features(self, image: Tensor) -> list[Tensor]:
        """Image [N,3,R,R] in [-1,1] -> maps [N,C_l,H_l,W_l]."""
        ...


def distance(features: Sequence[Tensor], target: Sequence[Tensor]) -> Tensor:
    """sum over layers l of mean over positions |features_l - target_l|^2: [N]; no layers: 0."""
    if not features:
        return torch.zeros(1)
    terms = [
        (a - b).square().sum(1).flatten(1).mean(1) for a, b in zip(features, target, strict=True)
    ]
    return torch.stack(terms).sum(0)


def _unit(maps: Tensor) -> Tensor:
    """Unit length along channels, as LPIPS has it."""
    return maps / (maps.square().sum(1, keepdim=True) + 1e-10).sqrt()


LPIPS_SIDE = 256  # pixels it sees at most, as in StyleGAN2's projector and PTI


class Lpips:
    """LPIPS on AlexNet; the backbone's weights come from a verified file, never from the network.

    Source: Zhang et al. 2018, arXiv:1801.03924; the package `lpips` holds its linear layers.
    """

    name = "lpips-alex"
    weights = "alexnet"  # the row of weights.toml

    def __init__(self, device: torch.device | str = "cpu") -> None:
        torchvision_ops.ensure()
        import lpips

        backbone = weights.load_pickle(weights.resolve(self.weights))
        # pnet_rand: the package must not ask torchvision for weights, which would download them.
        network = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
        state = {
            key: backbone["features." + key.split(".", 1)[1]]  # slice2.3.bias is features.3.bias
            for key in network.net.state_dict()
        }
        network.net.load_state_dict(state)
        self._network = network.to(device).eval().requires_grad_(False)

    def features(self, image: Tensor) -> list[Tensor]:
        network = self._network
        if image.shape[-1] > LPIPS_SIDE:
            image = F.interpolate(image, (LPIPS_SIDE, LPIPS_SIDE), mode="area")
        maps = network.net(network.scaling_layer(image))
        # The linear layer weighs squared differences; its root weighs the embedding.
        roots = [lin.model[-1].weight.clamp(min=0).sqrt() for lin in network.lins]
        return [_unit(m) * r for m, r in zip(maps, roots, strict=True)]


class NetworkFeatures:
    """Unit-length features of a network as a perceptual distance.

    Source: Johnson et al. 2016, arXiv:1603.08155, with LPIPS' normalisation.

    Args: network: has `features(image [N,3,R,R]) -> maps`; name: what latents record.
    """

    def __init__(self, network: nn.Module, name: str) -> None:
        self._network = network.eval().requires_grad_(False)
        self.name = name

    def features(self, image: Tensor) -> list[Tensor]:
        return [_unit(m) for m in self._network.features(image)]  # type: ignore[operator]


class NoPerceptual:
    """No perceptual distance: pixels and labels alone."""

    name = "none"

    def features(self, image: Tensor) -> list[Tensor]:
        return []


def perceptual(name: str = "auto", device: torch.device | str = "cpu") -> Perceptual:
    """The perceptual distance by name.

    Args:   name: "lpips", "faces" (the built-in face network), or "auto": lpips when its backbone
            is on the disk, else faces; "none": always 0.
    Raises: WeightsError: the weights asked for are not there.
    """
    if name not in ("auto", "lpips", "faces", "none"):
        raise OptionError(f"There is no perceptual distance {name}: auto, lpips, faces or none.")
    if name == "none":
        return NoPerceptual()
    if name == "lpips" or (name == "auto" and weights.on_disk(Lpips.weights)):
        return Lpips(device)
    return NetworkFeatures(networks.load("faces", str(device)), "faces")


# --- SemFaceEdit equations 7, 8 and 9 --------------------------------------------------------


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
    two targets: the source on 1 - r and the donor on r. See `inversion`, `mask_edit`, `transfer`.

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
    def mask_edit(image: Tensor, edited: Tensor, r: Tensor) -> list[Target]:
        """Equation 8: `edited` labels [N,R,R] everywhere, the image outside r [N,1,R,R]."""
        return [Target(image, edited, image_mask=1 - r)]

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


# --- adversarial -----------------------------------------------------------------------------


def generator_loss(fake: Tensor) -> Tensor:
    """-log sigmoid(D(G(z))): the non-saturating loss of the generator, [N].

    Args:   fake: logits [N] of the discriminator.
    Source: Goodfellow et al. 2014, arXiv:1406.2661.
    """
    return F.softplus(-fake)


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """-log sigmoid(D(x)) - log(1 - sigmoid(D(G(z)))): [N]; real, fake: logits [N]."""
    return F.softplus(-real) + F.softplus(fake)


def r1(logits: Tensor, inputs: Tensor) -> Tensor:
    """|d D(x) / d x|^2, the gradient penalty at real pictures: [N]; differentiable.

    Args:   logits [N] of inputs [N,...], which require gradients.
    Source: Mescheder et al. 2018, arXiv:1801.04406; its weight gamma / 2 is the caller's.
    """
    (slope,) = torch.autograd.grad(logits.sum(), inputs, create_graph=True)
    return slope.square().flatten(1).sum(1)


def path_lengths(images: Tensor, ws: Tensor) -> Tensor:
    """|J_w^T y| for random pictures y: how far the picture moves with w, [N]; differentiable.

    Args:   images [N,3,R,R] drawn from ws [N,num_ws,w_dim].
    Source: Karras et al. 2020, arXiv:1912.04958, section 3.2.
    """
    y = torch.randn_like(images) / (images.shape[-2] * images.shape[-1]) ** 0.5
    (slope,) = torch.autograd.grad((images * y).sum(), ws, create_graph=True)
    return slope.square().sum(2).mean(1).sqrt()
