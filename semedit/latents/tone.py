"""Photographs of one tone, grey or sepia: what is drawn of their faces keeps to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
NODES = 17  # of a curve
SAME = 6 / 127.5  # how far pixels may be from the curve, those of SHARE of a picture at least
SHARE = 0.99
STRAIGHT = 1e-3  # how much the curve is to be straight, shares of a picture's pixels
MOST_NODES = 256


@dataclass(frozen=True, eq=False)
class Tone:
    """The one colour that each brightness has in the pictures of N faces.

        I' = (1 - share) I + share curve(y),  y = LUMA . I

    Attributes:
        curve: float32 [N,K,3] in [-1,1], colours at K brightnesses evenly spaced from black to
            white, straight lines between.
        share: float32 [N] in [0,1]; 0: such a face has all colours.
    """

    curve: Tensor
    share: Tensor

    def __len__(self) -> int:
        return len(self.share)

    def of(self, rows: slice) -> Tone | None:
        """Some of the faces; None where these have all colours."""
        return Tone(self.curve[rows], self.share[rows]) if self.share[rows].any() else None

    def to(self, device: torch.device | str) -> Tone:
        return Tone(self.curve.to(device), self.share.to(device))

    def __call__(self, image: Tensor) -> Tensor:
        """Pictures [N,3,...] in [-1,1] in their tones; of one face, any number of them."""
        colours = image.flatten(2).transpose(1, 2)  # [N,M,3]
        curve = self.curve.to(image).expand(len(image), -1, -1)
        share = self.share.to(image).expand(len(image))[:, None, None]
        low, part = _place(_luma(colours), curve.shape[1])
        ends = [curve.gather(1, (low + i)[..., None].expand(-1, -1, 3)) for i in (0, 1)]
        toned = torch.lerp(ends[0], ends[1], part[..., None])
        return torch.lerp(colours, toned, share).transpose(1, 2).reshape(image.shape)

    def between(self, way: float) -> Tone:
        """Of two faces: the tone that far, 0 to 1, on the way from the first to the second."""
        first, second = self.share.split(1)
        share = torch.lerp(first, second, way)
        weight = way * second / share.clamp(min=1e-6)  # of the second's curve
        return Tone(torch.lerp(self.curve[:1], self.curve[1:], weight[:, None, None]), share)


def tone_of(images: Tensor) -> Tone | None:
    """The tones of photographs [N,3,R,R] in [-1,1]; None where all of them have colours."""
    found = [_curve(image.flatten(1).T.double()) for image in images]
    if all(curve is None for curve in found):
        return None
    plain = torch.linspace(-1, 1, NODES)[:, None].expand(-1, 3)
    curves = torch.stack([plain if curve is None else curve.float().cpu() for curve in found])
    return Tone(curves, torch.tensor([float(curve is not None) for curve in found]))


def join(tones: Sequence[Tone | None], counts: Sequence[int]) -> Tone | None:
    """Tones of all faces along the batch axis; counts: faces of each."""
    if all(tone is None for tone in tones):
        return None
    like = next(tone for tone in tones if tone is not None)
    parts = [
        tone or Tone(like.curve[:1].expand(n, -1, -1), like.share.new_zeros(n))  # no matter which
        for tone, n in zip(tones, counts, strict=True)
    ]
    return Tone(torch.cat([p.curve for p in parts]), torch.cat([p.share for p in parts]))


def _curve(colours: Tensor) -> Tensor | None:
    """The curve [NODES,3] nearest to colours [M,3] by least squares; None if they are off it.

    Where a picture has no such brightness the curve goes straight on.
    """
    low, part = _place(_luma(colours), NODES)
    weights = torch.zeros(len(colours), NODES).to(colours)
    weights.scatter_(1, low[:, None], (1 - part)[:, None])
    weights.scatter_add_(1, low[:, None] + 1, part[:, None])
    bends = torch.eye(NODES).diff(dim=0).diff(dim=0).to(colours)
    normal = weights.T @ weights + STRAIGHT * len(colours) * bends.T @ bends
    even = 1e-6 * len(colours) * torch.eye(NODES).to(colours)  # of a picture of one brightness
    grey = torch.linspace(-1, 1, NODES).to(colours)[:, None].expand(-1, 3)
    curve = torch.linalg.solve(normal + even, weights.T @ colours + even @ grey).clamp(-1, 1)
    off = (colours - weights @ curve).abs().amax(1)
    return curve if float(off.quantile(SHARE)) <= SAME else None


def _luma(colours: Tensor) -> Tensor:
    """Brightness of colours [...,3], in [-1,1]."""
    return (colours @ torch.tensor(LUMA).to(colours)).clamp(-1, 1)


def _place(luma: Tensor, nodes: int) -> tuple[Tensor, Tensor]:
    """The node below a brightness, and how far it is on the way to the next, in [0,1]."""
    at = (luma + 1) / 2 * (nodes - 1)
    low = at.detach().floor().long().clamp(0, nodes - 2)
    return low, at - low
