"""One picture of GRAM at 64 pixels, in a process of its own; a line on stdin draws one more.

    python tests/benchmarks/gram_steps.py textbook|semedit

"textbook" is the formulation of the paper: intersections at every picture, level by level; the
field at every one of them, hit or not, a linear layer, then gamma * x + beta, then a sine; the
allocator is left as it is. "semedit" is what `semedit` runs; its first picture finds the
intersections, those of the same view behind it do not. Each prints the CPU seconds (user and
system) of a picture and the greatest resident size so far, as JSON.
"""

from __future__ import annotations

import json
import resource
import sys

import torch
import torch.nn.functional as F
from torch import Tensor

from semedit import cameras
from semedit.generators.surfaces.gram import GRAM, GRAMConfig
from semedit.generators.surfaces.intersections import Intersections
from semedit.generators.surfaces.shells import OPAQUE, WIDER
from semedit.runtime.allocator import keep_freed_memory


def generator(config: GRAMConfig | None = None) -> GRAM:
    """Random weights of the published sizes at 64 pixels, nothing to train."""
    torch.manual_seed(0)
    return GRAM(config or GRAMConfig(resolution=64)).eval().requires_grad_(False)


# The textbook ------------------------------------------------------------------------------------


def meetings(one: Intersections, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Points [M,K,3], distances and hits [M,K,1] of one view's rays; the flat surface last."""
    sizes = one.surfaces
    origins, directions = (x[0] for x in one.lens.rays(c))
    t = torch.linspace(sizes.near, sizes.far, sizes.samples)
    x = origins[:, None] + t[:, None] * directions[:, None]
    s = one.values(x)[..., None]
    points, hits = [], []
    for level in torch.linspace(sizes.first, sizes.last, sizes.count - 1):
        inside = (s[:, 1:] <= level) & (level <= s[:, :-1])
        place = inside.int().argmax(1, keepdim=True)
        low, high = s.gather(1, place), s.gather(1, place + 1)
        part = (low - level) / torch.where((low - high).abs() > 0.05, low - high, 0.05)
        ends = [x.gather(1, (place + i).expand(-1, -1, 3)) for i in (0, 1)]
        points.append(ends[0] + part * (ends[1] - ends[0]))
        hits.append(inside.any(1, keepdim=True))
    back = origins + directions * ((sizes.back - origins[:, 2:]) / directions[:, 2:])
    points.append(back[:, None])
    hits.append(torch.ones_like(hits[0]))
    found = torch.cat(points, 1)
    return found, (found - origins[:, None]).norm(dim=-1, keepdim=True), torch.cat(hits, 1)


def textbook(gram: GRAM, ws: Tensor, c: Tensor) -> Tensor:
    """Colours [R*R,3] of one face, ws [1,depth+1,w_dim]."""
    config, styles = gram.config, gram.mapping_network
    x, distance, hits = meetings(gram.intersections, c)
    x = x * config.surfaces.scale
    sigma, rgb, h = torch.zeros(1), torch.zeros(1), x
    for layer in range(config.depth + 1):
        gamma = 15 * F.linear(ws[0, layer], styles.gamma_weight[layer], styles.gamma_bias[layer])
        beta = F.linear(ws[0, layer], styles.beta_weight[layer], styles.beta_bias[layer])
        h = F.linear(h, gram.films.weights[layer][0], gram.films.biases[layer][0])
        h = torch.sin((gamma + 30) * h + beta)
        if 0 < layer < config.depth:
            sigma = sigma + F.linear(h, gram.read_density[layer - 1].t())
        if layer not in (0, config.depth - 1):
            colour = gram.read_colour[min(layer, config.depth - 1) - 1]
            rgb = rgb + F.linear(h, colour.t())
    sigma = F.softplus(sigma + gram.read_bias[:1])
    rgb = torch.sigmoid(rgb + gram.read_bias[1:]) * (1 + 2 * WIDER) - WIDER
    thickness = torch.full_like(sigma, config.delta)
    thickness[:, -1] = OPAQUE
    order = distance.argsort(1)
    sigma, thickness, hits = (v.gather(1, order) for v in (sigma, thickness, hits))
    rgb = rgb.gather(1, order.expand(-1, -1, 3))
    thickness[:, -1] = OPAQUE
    alpha = (1 - torch.exp(-sigma * thickness)) * hits
    through = torch.cumprod(torch.cat([torch.ones_like(alpha[:, :1]), 1 - alpha + 1e-10], 1), 1)
    return 2 * (alpha * through[:, :-1] * rgb).sum(1) - 1


# A picture ---------------------------------------------------------------------------------------


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


@torch.no_grad()
def main(kind: str) -> None:
    torch.set_num_threads(1)
    if kind != "textbook":
        keep_freed_memory()
    gram, c = generator(), cameras.orbit(0.1, 0.05)
    ws = gram.mapping(torch.randn(1, 256, generator=torch.Generator().manual_seed(1)), c)["ws"]
    for _ in sys.stdin:
        begun = cpu_seconds()
        if kind == "textbook":
            textbook(gram, ws, c)
        else:
            gram.synthesis({"ws": ws}, c)
        seconds = cpu_seconds() - begun
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(json.dumps({"seconds": seconds, "mebibytes": peak // 1024}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
