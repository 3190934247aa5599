"""Synthetic faces: what a generator that stays as it is shows of codes drawn at random."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semedit import cameras
from semedit.datasets.posed import Poses
from semedit.generators.contract import Generator


@dataclass(frozen=True)
class SyntheticViews:
    """V views of B synthetic faces.

    ws [B,num_ws,w_dim]; images [B,V,3,R,R] in [-1,1]; labels int64 [B,V,R,R]; c [B,V,25].
    """

    ws: Tensor
    images: Tensor
    labels: Tensor
    c: Tensor


@dataclass(frozen=True)
class FaceSampler:
    """Draws synthetic faces.

    Codes come from pictures, through an encoder, or from random z; some faces get the texture of
    another one, so that neither tells the other.

    Attributes:
        generator: with the trait "texture". encoder: of it, None where it has none.
        poses: cameras are drawn from. mapped: chance of codes from random z, where there is an
            encoder. swapped: chance of another face's texture.
    """

    generator: Generator
    encoder: nn.Module | None
    poses: Poses
    mapped: float = 0.25
    swapped: float = 0.5

    @classmethod
    def of(cls, generator: Generator, c: Tensor, mapped: float, swapped: float) -> FaceSampler:
        """With a copy of the generator's own encoder; c [M,25]: the cameras of the data."""
        encoder = copy.deepcopy(generator.encoder)
        if encoder is not None:
            encoder.eval().requires_grad_(False).to(generator.w_avg.device)
        return cls(generator, encoder, Poses.of(c), mapped, swapped)

    @torch.no_grad()
    def codes(self, images: Tensor, labels: Tensor, c: Tensor) -> Tensor:
        """ws [B,num_ws,w_dim]; images [B,3,R,R], labels [B,R,R], c [B,25]: of pictures."""
        n = len(images)
        z = torch.randn(n, self.generator.z_dim).to(c)
        ws = self.generator.mapping(z, c)["ws"].clone()

        def chosen(share: float) -> Tensor:
            return (torch.rand(n, 1, 1) < share).to(c.device)

        if self.encoder is not None:
            seen = self.encoder(images, labels, c)
            ws = torch.where(chosen(self.mapped), ws, seen)
        other = torch.where(chosen(self.swapped), ws.roll(1, 0), ws)
        cut = self.generator.num_shape
        return torch.cat([ws[:, :cut], other[:, cut:]], 1)

    @torch.no_grad()
    def show(self, ws: Tensor, c: Tensor) -> SyntheticViews:
        """Codes [B,num_ws,w_dim] as cameras c [B,V,25] see them."""
        output = self.generator.render(self.generator.planes({"ws": ws}), c.flatten(0, 1))
        views = c.shape[:2]
        assert output.seg is not None
        labels = output.seg.argmax(1)
        if labels.shape[-1] != output.image.shape[-1]:
            labels = F.interpolate(output.seg, output.image.shape[-2:]).argmax(1)
        images = output.image.clamp(-1, 1).unflatten(0, views)
        return SyntheticViews(ws, images, labels.unflatten(0, views), c)

    def cameras(self, n: int, views: int) -> Tensor:
        """Random cameras [n,views,25], within the angles the generator knows."""
        six = cameras.to_six(self.poses.sample(n * views))
        limit = torch.tensor(self.generator.view_limit_deg).deg2rad()
        six[:, :2] = torch.maximum(torch.minimum(six[:, :2], limit), -limit)
        c = cameras.from_six(six).to(self.generator.w_avg.device)
        return c.unflatten(0, (n, views))
