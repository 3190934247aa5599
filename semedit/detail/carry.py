"""An edit at the photograph's own size: its pixels where nothing changed, its detail elsewhere."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from semedit.detail.network import DetailNet, drawn_with
from semedit.faces.estimates import estimates
from semedit.generators import Output
from semedit.generators.contract import Generator
from semedit.latents import Latent, picture
from semedit.losses import dilate, feather
from semedit.media.pixels import resize

SEEN = 0.06  # change of a pixel, in pictures of [-1,1], from which it counts
SLIGHT = 0.02  # the same where its label changed, too
GROWN, SOFT = 2.0, 1.0  # how far what changed is widened, and its edge blurred; hundredths


def changed_region(before: Tensor, after: Tensor, labels: Tensor, labels_after: Tensor) -> Tensor:
    """Where an edit changed what the generator draws: soft mask [N,1,S,S], 0 where it did not.

    Args: before, after [N,3,S,S] in [-1,1]; labels, labels_after int64 [N,S,S] of these.
    """
    size = before.shape[-1]
    change = feather((after - before).abs().mean(1, keepdim=True), size / 128)
    relabelled = (labels != labels_after)[:, None]
    counts = (change > SEEN) | (relabelled & (change > SLIGHT))
    grown = dilate(counts.to(before), max(1, round(GROWN * size / 100)))
    return feather(grown, SOFT * size / 100) * grown


@torch.no_grad()
def carry(
    network: DetailNet,
    photo: Tensor,
    before: Tensor,
    after: Tensor,
    labels: Tensor,
    labels_after: Tensor,
) -> tuple[Tensor, Tensor]:
    """The edited face at the photograph's size.

    Args:
        network: DetailNet. photo float32 [N,3,S,S] in [-1,1], the aligned crop, of any size.
        before, after float32 [N,3,R,R]: its inversion and the edit, as the generator draws them;
        labels, labels_after int64 [N,R,R] of these.

    Returns:
        the picture [N,3,S,S] in [-1,1], which is the photograph to the bit where nothing changed,
        and the soft mask [N,1,S,S] of what did.
    """
    size, seen = photo.shape[-1], network.size
    region = changed_region(before, after, labels, labels_after)
    carried = network(
        enlarge(photo, seen),
        enlarge(before, seen),
        enlarge(after, seen),
        F.interpolate(region, (seen, seen), mode="bilinear", align_corners=False),
        relabel(labels, seen),
        relabel(labels_after, seen),
    )
    mask = F.interpolate(region, (size, size), mode="bilinear", align_corners=False)
    drawn = drawn_with(carried, photo, enlarge(before, size), enlarge(after, size))
    return (photo + mask * (drawn - photo)).clamp(-1, 1), mask


@torch.no_grad()
def edited_photo(
    network: DetailNet,
    generator: Generator,
    photo: Tensor,
    inversion: Latent,
    after: Output,
    drawn: list[Output] | None = None,
) -> tuple[Tensor, Tensor]:
    """`carry` of what a generator drew.

    Args:    photo [N,3,S,S]; inversion: its latent; after: the edit, drawn in the same view.
             drawn: keeps what the inversion draws for later calls.
    Returns: as `carry`.
    """
    before = drawn[0] if drawn else picture(generator, inversion)
    if drawn is not None:
        drawn[:] = [before]
    return carry(network, photo, before.image, after.image, labels_of(before), labels_of(after))


def labels_of(output: Output) -> Tensor:
    """int64 [N,R,R] of a drawn face: by the generator, or where it draws none by a network."""
    if output.seg is None:
        return estimates(output.image.clamp(-1, 1))[0]
    return resize(output.seg, output.image.shape[-1]).argmax(1)


def enlarge(image: Tensor, size: int) -> Tensor:
    """[N,3,R,R] -> [N,3,size,size]: bicubic, without aliasing where it shrinks."""
    if image.shape[-1] == size:
        return image
    shrink = image.shape[-1] > size
    return F.interpolate(
        image, (size, size), mode="bicubic", align_corners=False, antialias=shrink
    ).clamp(-1, 1)


def relabel(labels: Tensor, size: int) -> Tensor:
    """int64 [N,R,R] -> [N,size,size], by the nearest."""
    if labels.shape[-1] == size:
        return labels
    return F.interpolate(labels[:, None].float(), (size, size), mode="nearest-exact")[:, 0].long()
