"""Networks of modulated sines, many of one shape evaluated together.

    h_0 = point;  h_l = sin(gamma_l (W_l h_{l-1} + b_l) + beta_l)
    gamma_l = 15 (G_l w_l + g_l) + 30;  beta_l = 0.25 (B_l w_l + e_l)

Everything stands in stacks with the networks' axis K first, so that a layer of all networks is
one grouped matrix product. `evaluate` goes through the points in pieces that fit into the cache.

Source: Sitzmann et al. 2020 (SIREN), arXiv:2006.09661; Chan et al. 2021 (pi-GAN),
arXiv:2012.00926; the constants are those of Ma et al. 2023 (CNeRF), arXiv:2302.01579.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from semedit.runtime.late import compiled_late

PIECE = 1 << 20  # bytes of a layer's values that are evaluated together: they stay in the cache
SMALLEST = 1e-3  # a frequency below this, of 30 or so, gets no gradient (see _Evaluate)
FREQUENCY = 30.0  # mean of gamma, twice its spread
PHASE = 0.25  # spread of beta


class Linears(nn.Module):
    """K linear maps: weight [K,O,I], bias [K,O]."""

    def __init__(self, count: int, inputs: int, outputs: int, bound: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(count, outputs, inputs).uniform_(-bound, bound))
        limit = inputs**-0.5
        self.bias = nn.Parameter(torch.empty(count, outputs).uniform_(-limit, limit))


class Sines(nn.Module):
    """K networks of L layers of H modulated sines.

    Args: count: K. layers: L. width: H. w_dim: entries of a style. frequency: mean of gamma, twice
          its spread; weights behind the first layer are the larger, the lower it is. phase: spread
          of beta.
    """

    def __init__(
        self,
        count: int,
        layers: int,
        width: int,
        w_dim: int,
        frequency: float = FREQUENCY,
        phase: float = PHASE,
    ) -> None:
        super().__init__()
        self.frequency, self.phase = frequency, phase
        inner = math.sqrt(6.0 / width) / 25.0 * FREQUENCY / frequency
        self.linears = nn.ModuleList(
            Linears(count, width if layer else 3, width, inner if layer else 1.0 / 3.0)
            for layer in range(layers)
        )
        deviation = 0.25 * math.sqrt(2.0 / (1.0 + 0.2**2) / w_dim)
        size, limit = (count, layers, width), w_dim**-0.5
        self.gamma_weight, self.beta_weight = (
            nn.Parameter(deviation * torch.randn(*size, w_dim)) for _ in range(2)
        )
        self.gamma_bias, self.beta_bias = (
            nn.Parameter(torch.empty(size).uniform_(-limit, limit)) for _ in range(2)
        )

    def modulation(self, ws: Tensor) -> tuple[Tensor, Tensor]:
        """gamma and beta [N,K,L,H] of styles [N,K,L,w_dim]."""
        gamma = torch.einsum("nklw,klhw->nklh", ws, self.gamma_weight) + self.gamma_bias
        beta = torch.einsum("nklw,klhw->nklh", ws, self.beta_weight) + self.beta_bias
        return self.frequency * (1 + 0.5 * gamma), self.phase * beta

    def layers(self) -> list[tuple[Tensor, Tensor]]:
        """Weight [K,H,I] and bias [K,H] of each layer."""
        return [(linear.weight, linear.bias) for linear in self.linears]  # type: ignore[misc]


@dataclass(frozen=True)
class RegionField:
    """K networks under given styles, and what is read from them.

    Attributes:
        gamma, beta: [K,L,H].
        layers: weight [K,H,I] and bias [K,H] of each of the L layers.
        early: [K,A,H], read behind `depth` layers; late: [K,B,H], read behind the last.
    """

    gamma: Tensor
    beta: Tensor
    layers: Sequence[tuple[Tensor, Tensor]]
    early: Tensor
    late: Tensor
    depth: int

    def pick(self, networks: Sequence[int]) -> RegionField:
        """Some of these networks."""
        if len(networks) == len(self.gamma):
            return self
        chosen = torch.tensor(networks, device=self.gamma.device)

        def cut(x: Tensor) -> Tensor:
            return x.index_select(0, chosen)

        layers = [(cut(w), cut(b)) for w, b in self.layers]
        early, late = cut(self.early), cut(self.late)
        return RegionField(cut(self.gamma), cut(self.beta), layers, early, late, self.depth)

    def shape(self) -> RegionField:
        """The first `depth` layers alone."""
        layers, late = self.layers[: self.depth], self.late[:, :0]
        gamma, beta = self.gamma[:, : self.depth], self.beta[:, : self.depth]
        return RegionField(gamma, beta, layers, self.early, late, self.depth)


def plain(field: RegionField, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`evaluate` by ordinary operations, differentiable as often as one likes, in the points
    [P,3] or [K,P,3], too."""
    h = points.expand(len(field.gamma), *points.shape[-2:])
    early = h
    for layer, (weight, bias) in enumerate(field.layers):
        lin = torch.baddbmm(bias[:, None], h, weight.transpose(1, 2))
        h = torch.sin(field.gamma[:, layer, None] * lin + field.beta[:, layer, None])
        if layer == field.depth - 1:
            early = h @ field.early.transpose(1, 2)
    return early, h @ field.late.transpose(1, 2), h


def evaluate(
    field: RegionField, points: Tensor, remember: bool = True, hidden: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Values of the networks at points.

    Args:    points [P,3], or of each network its own [K,P,3]; without gradient.
             remember: keep the layers' values for the backward pass; else it computes them anew.
             hidden: return the last layer, too.
    Returns: early [K,P,A], late [K,P,B], and the last layer [K,P,H] or [K,0,H].
    """
    flat = [t for layer in field.layers for t in layer]
    return _Evaluate.apply(
        points if points.ndim == 3 else points[None],
        field.depth, remember, hidden, field.gamma, field.beta, field.early, field.late,
        *flat,
    )  # fmt: skip


def remembered_bytes(field: RegionField, points: int) -> int:
    """Memory that `evaluate` holds for the backward pass of so many points."""
    count, layers, width = field.gamma.shape
    return 4 * count * (layers - 1) * width * points


class _Evaluate(torch.autograd.Function):
    """See `evaluate`. gamma is folded into the weights, A = gamma W, a = gamma b + beta, so that
    a layer is one product and one sine. Where the weights themselves need no gradient, that of
    gamma follows from pre = gamma lin + beta,

        dL/dgamma = sum dL/dpre * lin,   lin = (pre - beta) / gamma,

    without the product that a gradient of A takes. Points whose values move nothing (behind a
    surface, or outside every mask) are left out of the backward pass.
    """

    @staticmethod
    def forward(
        ctx: Any, points: Tensor, depth: int, remember: bool, hidden: bool, gamma: Tensor,
        beta: Tensor, early: Tensor, late: Tensor, *flat: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        folded = _fold(gamma, beta, flat)
        count, _, width = gamma.shape
        size = points.shape[1]
        reads = early.transpose(1, 2), late.transpose(1, 2)
        out_early = points.new_empty(count, size, early.shape[1])
        out_late = points.new_empty(count, size, late.shape[1])
        out_hidden = points.new_empty(count, size if hidden else 0, width)
        kept = remember and any(ctx.needs_input_grad)
        # One block each: many of a piece's size would leave holes that nothing else fits.
        ctx.kept = points.new_empty((len(folded) - 1) * count * size * width * kept)
        free = points.new_empty(2, count * min(_piece(gamma), size) * width)
        for begin, end in _pieces(gamma, points):
            h = points[:, begin:end].expand(count, -1, 3)
            own = _of_piece(ctx.kept, begin, end, len(folded) - 1, gamma)
            for layer, (a, offset) in enumerate(folded):
                rooms = [x[: count * (end - begin) * width].view(count, -1, width) for x in free]
                pre = own[layer - 1] if kept and layer else rooms[layer % 2]
                torch.baddbmm(offset, h, a, out=pre)
                h = sine(pre, rooms[layer % 2])
                if layer == depth - 1:
                    torch.bmm(h, reads[0], out=out_early[:, begin:end])
            torch.bmm(h, reads[1], out=out_late[:, begin:end])
            if hidden:
                out_hidden[:, begin:end] = h
        ctx.save_for_backward(points, gamma, beta, early, late, *flat)
        ctx.depth = depth
        return out_early, out_late, out_hidden

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        points, gamma, beta, early, late, *flat = ctx.saved_tensors
        sweep = _Sweep(ctx, points, gamma, beta, early, late, flat)
        large = [float(g.abs().max()) if g.numel() else 0.0 for g in gradients]
        for begin, end in _pieces(gamma, points):
            keep = list(_of_piece(ctx.kept, begin, end, gamma.shape[1] - 1, gamma))
            parts = [g[:, begin:end] for g in gradients]
            seen = torch.zeros(end - begin, dtype=torch.bool, device=points.device)
            for part, most in zip(parts, large, strict=True):
                if part.numel():
                    seen |= part.abs().amax((0, 2)) > 1e-7 * most
            sweep(points[:, begin:end], keep, parts, seen)
        ctx.kept = None
        return sweep.result()


class _Sweep:
    """The backward pass: adds up gradients piece by piece."""

    def __init__(
        self, ctx: Any, points: Tensor, gamma: Tensor, beta: Tensor, early: Tensor, late: Tensor,
        flat: Sequence[Tensor],
    ) -> None:  # fmt: skip
        self.depth, self.needs = ctx.depth, ctx.needs_input_grad
        self.gamma, self.beta, self.early, self.late, self.flat = gamma, beta, early, late, flat
        self.folded = _fold(gamma, beta, flat)
        self.weighty = any(self.needs[8:])
        count, layers, width = gamma.shape
        self.sums = points.new_zeros(layers, count, 2, width)  # of dpre and of dpre * pre
        self.products = [torch.zeros_like(w) for w in flat[::2]] if self.weighty else []
        self.d_early, self.d_late = torch.zeros_like(early), torch.zeros_like(late)

    def __call__(
        self, points: Tensor, keep: list[Tensor], parts: list[Tensor], seen: Tensor
    ) -> None:
        """One piece: points [1 or K,M,3], values that were kept, gradients of the three results."""
        share = float(seen.float().mean())
        if share == 0.0:
            return
        if share < 0.75:
            rows = seen.nonzero()[:, 0]
            points = points[:, rows]
            keep = [k[:, rows] for k in keep]
            parts = [p[:, rows] if p.shape[1] else p for p in parts]
        pres = self._values(points, keep)
        d_early, d_late, d_hidden = parts
        g = d_late @ self.late
        if d_hidden.shape[1]:
            g = g + d_hidden
        if self.needs[7]:
            self.d_late += d_late.transpose(1, 2) @ _sine(pres[-1])
        for layer in reversed(range(len(pres))):
            if layer == self.depth - 1:
                g = torch.baddbmm(g, d_early, self.early)
                if self.needs[6]:
                    self.d_early += d_early.transpose(1, 2) @ _sine(pres[layer])
            slope(g, pres[layer], self.sums[layer])
            if self.weighty:
                before = _sine(pres[layer - 1]) if layer else points.expand(len(g), -1, 3)
                self.products[layer].baddbmm_(g.transpose(1, 2), before)
            if layer:
                g = g @ self.folded[layer][0].transpose(1, 2)

    def _values(self, points: Tensor, keep: list[Tensor]) -> list[Tensor]:
        """What enters the sines of each layer; the first is cheap and never kept."""
        h = points.expand(len(self.gamma), -1, 3)
        first, offset = self.folded[0]
        pres = [torch.baddbmm(offset, h, first)]
        if keep:
            return pres + keep
        for a, offset in self.folded[1:]:
            h = _sine(pres[-1])
            pres.append(torch.baddbmm(offset, h, a))
        return pres

    def result(self) -> tuple[Tensor | None, ...]:
        """Gradients in the order of forward's arguments."""
        total, moved = self.sums.permute(2, 1, 0, 3).unbind(0)  # [K,L,H]
        d_flat: list[Tensor | None] = [None] * len(self.flat)
        if self.weighty:
            d_gamma = torch.empty_like(self.gamma)
            for layer, product in enumerate(self.products):
                weight, bias = self.flat[2 * layer], self.flat[2 * layer + 1]
                scale = self.gamma[:, layer]
                d_gamma[:, layer] = (product * weight).sum(2) + total[:, layer] * bias
                d_flat[2 * layer] = product * scale[:, :, None]
                d_flat[2 * layer + 1] = total[:, layer] * scale
        else:
            safe = torch.where(self.gamma.abs() < SMALLEST, torch.inf, self.gamma)
            d_gamma = (moved - self.beta * total) / safe
        return (None, None, None, None, d_gamma, total, self.d_early, self.d_late, *d_flat)


def _fold(gamma: Tensor, beta: Tensor, flat: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """A^T [K,I,H] and a [K,1,H] of each layer."""
    return [
        (
            (gamma[:, layer, :, None] * weight).transpose(1, 2).contiguous(),
            (gamma[:, layer] * bias + beta[:, layer])[:, None],
        )
        for layer, (weight, bias) in enumerate(zip(flat[::2], flat[1::2], strict=True))
    ]


def _of_piece(kept: Tensor, begin: int, end: int, layers: int, gamma: Tensor) -> Tensor:
    """What is kept of points begin to end: [layers,K,M,H], or empty."""
    count, _, width = gamma.shape
    if not len(kept):
        return kept
    each = layers * count * width
    return kept[begin * each : end * each].view(layers, count, end - begin, width)


def _piece(gamma: Tensor) -> int:
    """Points of a piece."""
    return max(32, PIECE // (4 * gamma.shape[0] * gamma.shape[2]) // 32 * 32)


def _pieces(gamma: Tensor, points: Tensor) -> Iterator[tuple[int, int]]:
    count, step = points.shape[1], _piece(gamma)
    return ((begin, min(begin + step, count)) for begin in range(0, count, step))


# Sines ------------------------------------------------------------------------------------------
# torch's own take most of a layer's time on a CPU. These reduce by half turns and evaluate
# polynomials of the remainder in [-pi/2, pi/2]; largest error 2e-7, and the rounding of x.

_TURN = np.float32(1.0 / math.pi)
_PI_HIGH = np.float32(3.140625)  # few bits: its multiples are exact
_PI_LOW = np.float32(math.pi - 3.140625)
_HALF, _ONE, _TWO = np.float32(0.5), np.float32(1), np.float32(2)
_S3, _S5, _S7, _S9 = (
    np.float32(v) for v in (-1.6666657e-1, 8.3330173e-3, -1.9806615e-4, 2.6000547e-6)
)
_C2, _C4, _C6, _C8 = (np.float32(v) for v in (-0.5, 4.1666641e-2, -1.3888404e-3, 2.4761886e-5))
_C10 = np.float32(-2.6077105e-7)
# Without reassociation, which would undo the reduction in two parts.
_FAST: Any = {"contract", "nsz", "arcp"}


def sine(x: Tensor, out: Tensor) -> Tensor:
    """sin(x) into `out`, which may be x."""
    if x.device.type != "cpu" or not x.is_contiguous():
        return torch.sin(x, out=out)
    _sine_loop(x.view(-1).numpy(), out.view(-1).numpy())
    return out


def _sine(x: Tensor) -> Tensor:
    return sine(x, torch.empty_like(x))


def slope(g: Tensor, pre: Tensor, sums: Tensor) -> None:
    """g <- g cos(pre), in place; sums over the points are added to `sums`.

    Args: g, pre [K,M,H]; sums [K,2,H]: of the new g and of g * pre.
    """
    if g.device.type == "cpu":
        _slope_loop(g.numpy(), pre.numpy(), sums.numpy())
        return
    g.mul_(pre.cos())
    sums[:, 0] += g.sum(1)
    sums[:, 1] += (g * pre).sum(1)


@compiled_late(fastmath=_FAST)
def _sine_loop(x: Any, out: Any) -> None:
    for i in range(len(x)):
        q = np.floor(x[i] * _TURN + _HALF)
        r = (x[i] - q * _PI_HIGH) - q * _PI_LOW
        sign = _ONE - _TWO * (q - _TWO * np.floor(q * _HALF))
        s = r * r
        out[i] = sign * (r + r * s * (_S3 + s * (_S5 + s * (_S7 + s * _S9))))


@compiled_late(fastmath=_FAST)
def _slope_loop(g: Any, pre: Any, sums: Any) -> None:
    for k in range(g.shape[0]):
        for m in range(g.shape[1]):
            for j in range(g.shape[2]):
                x = pre[k, m, j]
                q = np.floor(x * _TURN + _HALF)
                r = (x - q * _PI_HIGH) - q * _PI_LOW
                sign = _ONE - _TWO * (q - _TWO * np.floor(q * _HALF))
                s = r * r
                cosine = _ONE + s * (_C2 + s * (_C4 + s * (_C6 + s * (_C8 + s * _C10))))
                d = g[k, m, j] * sign * cosine
                g[k, m, j] = d
                sums[k, 0, j] += d
                sums[k, 1, j] += d * x
