"""FiLM-SIRENs whose outputs are read from every layer, for groups of points under their own styles.

    h_0 = x;  h_l = sin(gamma_l (W_l h_{l-1} + b_l) + beta_l);  y = sum_l R_l h_l

gamma is folded into the weights, so that a layer is one product and one sine. Points come in rows
sorted by group (a face, or a region of one); a group has weights of its own, or rather gamma of
its own folded into weights that all share. Groups are gone through in pieces that fit into the
cache.

Source: Sitzmann et al. 2020 (SIREN), arXiv:2006.09661; Chan et al. 2021 (pi-GAN),
arXiv:2012.00926; reading from every layer is Deng et al. 2022 (GRAM), arXiv:2112.08867.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from semedit.generators.parts.layers import SLOPE
from semedit.generators.parts.siren import PIECE, sine, slope

FREQUENCY = 30.0  # mean of gamma; its spread is half of it
HIDDEN = 25.0  # what the published initialisation divides the hidden weights by

Layer = tuple[Tensor, Tensor]  # weights [G,I,H] and offsets [G,H], folded


class Films(nn.Module):
    """D layers of H modulated sines in `sets` versions.

    Args: sets: K, networks of one shape. inputs: entries of a point. width: H. first_bound: of
          the first layer's initial weights.
    """

    def __init__(self, sets: int, depth: int, inputs: int, width: int, first_bound: float) -> None:
        super().__init__()
        bound = math.sqrt(6.0 / width) / HIDDEN
        sizes = [(inputs, first_bound)] + [(width, bound)] * (depth - 1)
        self.weights = nn.ParameterList(
            torch.empty(sets, width, size).uniform_(-limit, limit) for size, limit in sizes
        )
        self.biases = nn.ParameterList(
            torch.empty(sets, width).uniform_(-(size**-0.5), size**-0.5) for size, _ in sizes
        )

    def folded(self, gamma: Tensor, beta: Tensor, chosen: Tensor | None = None) -> list[Layer]:
        """Layers of G groups under gamma and beta [G,D,H]; chosen int64 [G]: the version of each,
        None where there is one version."""
        found = []
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            if chosen is not None:
                weight, bias = weight[chosen], bias[chosen]
            scale = gamma[:, layer]
            matrix = (scale[:, :, None] * weight).transpose(1, 2).contiguous()
            found.append((matrix, scale * bias + beta[:, layer]))
        return found


class Styles(nn.Module):
    """z [...,z_dim] -> w [...,w_dim], and styles of D layers -> gamma and beta.

    The published mapping network ends with one linear layer from the last w to all frequencies and
    phases; here its rows are sorted by layer, so that each may have a style of its own (W+).
    """

    def __init__(
        self,
        z_dim: int,
        w_dim: int,
        hidden: int,
        depth: int,
        width: int,
        frequency: float = FREQUENCY,
    ) -> None:
        super().__init__()
        self.frequency = frequency
        sizes = [z_dim] + [w_dim] * hidden
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        for layer in self.layers:
            nn.init.kaiming_normal_(layer.weight, SLOPE)  # type: ignore[arg-type]
        deviation = 0.25 * math.sqrt(2.0 / (1.0 + SLOPE**2) / w_dim)
        shape = (depth, width, w_dim)
        self.gamma_weight = nn.Parameter(deviation * torch.randn(shape))
        self.beta_weight = nn.Parameter(deviation * torch.randn(shape))
        limit = w_dim**-0.5
        self.gamma_bias = nn.Parameter(torch.empty(depth, width).uniform_(-limit, limit))
        self.beta_bias = nn.Parameter(torch.empty(depth, width).uniform_(-limit, limit))

    def mapping_w(self, z: Tensor) -> Tensor:
        """w of z."""
        for layer in self.layers:
            z = nn.functional.leaky_relu(layer(z), SLOPE)
        return z

    def modulation(self, ws: Tensor) -> tuple[Tensor, Tensor]:
        """gamma and beta [N,D,...,H] of styles [N,D,...,w_dim]."""
        gamma = torch.einsum("nd...w,dhw->nd...h", ws, self.gamma_weight)
        beta = torch.einsum("nd...w,dhw->nd...h", ws, self.beta_weight)
        shape = (len(self.gamma_bias), *[1] * (ws.ndim - 3), -1)
        gamma = gamma + self.gamma_bias.view(shape)
        return self.frequency * (1 + 0.5 * gamma), beta + self.beta_bias.view(shape)


def evaluate(
    layers: Sequence[Layer],
    reads: Tensor,
    x: Tensor,
    counts: Sequence[int],
    remember: bool = True,
    hidden: bool = False,
) -> tuple[Tensor, Tensor]:
    """Values of the networks at points.

    Args:    layers: folded, of G groups. reads [T,G,H,B], or [T,1,H,B] for all groups: R of the
             last T layers. x [P,I], sorted by group; counts: points of each group. remember: keep
             the layers' values for the backward pass; else it computes them anew. hidden: return
             the last layer, too.
    Returns: y [P,B], and the last layer [P,H] or [0,H].
    """
    reads = reads.expand(-1, len(counts), -1, -1)
    flat = [tensor for layer in layers for tensor in layer]
    return _Evaluate.apply(tuple(counts), remember, hidden, x, reads, *flat)


def remembered_bytes(depth: int, width: int, points: int) -> int:
    """Memory that `evaluate` keeps for the backward pass of so many points."""
    return 4 * depth * width * points


class _Evaluate(torch.autograd.Function):
    """See `evaluate`."""

    @staticmethod
    def forward(
        ctx: Any, counts: tuple[int, ...], remember: bool, hidden: bool, x: Tensor, reads: Tensor,
        *flat: Tensor,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        depth, width = len(flat) // 2, flat[0].shape[2]
        y, first = x.new_zeros(len(x), reads.shape[3]), depth - len(reads)
        last = x.new_empty(len(x) if hidden else 0, width)
        kept = remember and any(ctx.needs_input_grad)
        ctx.kept = x.new_empty(depth, len(x) if kept else 0, width)
        for group, begin, end in _pieces(counts, width):
            h = x[begin:end]
            for layer in range(depth):
                pre = torch.addmm(flat[2 * layer + 1][group], h, flat[2 * layer][group])
                if kept:
                    ctx.kept[layer, begin:end] = pre
                h = sine(pre, pre)
                if layer >= first:
                    y[begin:end].addmm_(h, reads[layer - first, group])
            if hidden:
                last[begin:end] = h
        ctx.save_for_backward(x, reads, *flat)
        ctx.counts = counts
        return y, last

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, reads, *flat = ctx.saved_tensors
        sweep = _Sweep(ctx, x, reads, flat)
        for group, begin, end in _pieces(ctx.counts, flat[0].shape[2]):
            sweep(group, begin, end, gradients)
        ctx.kept = None
        return sweep.result()


class _Sweep:
    """The backward pass: adds up gradients piece by piece."""

    def __init__(self, ctx: Any, x: Tensor, reads: Tensor, flat: Sequence[Tensor]) -> None:
        self.x, self.reads, self.flat, self.kept = x, reads, flat, ctx.kept
        needs = ctx.needs_input_grad
        self.d_x = torch.zeros_like(x) if needs[3] else None
        self.d_reads = torch.zeros_like(reads) if needs[4] else None
        self.d_flat = [torch.zeros_like(tensor) for tensor in flat] if any(needs[5:]) else None
        self.spare = x.new_zeros(1, 2, flat[0].shape[2])

    def __call__(self, group: int, begin: int, end: int, gradients: Sequence[Tensor]) -> None:
        d_y, d_last = gradients[0][begin:end], gradients[1]
        x, flat, reads = self.x[begin:end], self.flat, self.reads
        pres = self._values(group, begin, end)
        depth = len(pres)
        first = depth - len(reads)
        g = d_last[begin:end].clone() if len(d_last) else x.new_zeros(pres[0].shape)
        h: Tensor | None = None  # of the layer at hand, where it is known already
        for layer in reversed(range(depth)):
            if layer >= first:
                g.addmm_(d_y, reads[layer - first, group].t())
                if self.d_reads is not None:
                    h = _sine(pres[layer]) if h is None else h
                    self.d_reads[layer - first, group].addmm_(h.t(), d_y)
            self.spare.zero_()
            slope(g[None], pres[layer][None], self.spare)
            h = None
            if self.d_flat is not None:
                before = h = x if layer == 0 else _sine(pres[layer - 1])
                self.d_flat[2 * layer][group].addmm_(before.t(), g)
                self.d_flat[2 * layer + 1][group] += self.spare[0, 0]
            if layer or self.d_x is not None:
                g = g @ flat[2 * layer][group].t()
        if self.d_x is not None:
            self.d_x[begin:end] = g

    def _values(self, group: int, begin: int, end: int) -> list[Tensor]:
        """What enters the sines of each layer."""
        if self.kept.shape[1]:
            return [layer[begin:end].contiguous() for layer in self.kept]
        h, pres = self.x[begin:end], []
        for matrix, offset in zip(self.flat[::2], self.flat[1::2], strict=True):
            pres.append(torch.addmm(offset[group], h, matrix[group]))
            h = _sine(pres[-1])
        return pres

    def result(self) -> tuple[Tensor | None, ...]:
        """Gradients in the order of forward's arguments."""
        flat: list[Tensor | None] = [None] * len(self.flat)
        if self.d_flat is not None:
            flat = list(self.d_flat)
        return (None, None, None, self.d_x, self.d_reads, *flat)


def _sine(pre: Tensor) -> Tensor:
    return sine(pre, torch.empty_like(pre))


def _pieces(counts: Sequence[int], width: int) -> Iterator[tuple[int, int, int]]:
    """Group, first and last row of what is evaluated together."""
    step, first = max(32, PIECE // (4 * width)), 0
    for group, count in enumerate(counts):
        for begin in range(first, first + count, step):
            yield group, begin, min(begin + step, first + count)
        first += count
