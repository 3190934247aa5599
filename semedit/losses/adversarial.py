"""Losses of generators against discriminators."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


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
