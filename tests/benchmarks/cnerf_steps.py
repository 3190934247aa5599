"""One descent step of CNeRF's codes, in a process of its own; a line on stdin runs one more.

    python tests/benchmarks/cnerf_steps.py textbook|semedit

"textbook" is the formulation of the paper: every network one after the other, at every sample, a
linear layer, then gamma * x + beta, then a sine; features of every sample; the allocator is left
as it is. "semedit" is what `semedit` runs. Each prints the CPU seconds (user and system) of a step
and the greatest resident size so far, as JSON.
"""

from __future__ import annotations

import json
import resource
import sys

import torch
import torch.nn.functional as F
from torch import Tensor

from semedit import cameras
from semedit.generators.cnerf.cnerf import CNeRF
from semedit.generators.cnerf.config import CNeRFConfig
from semedit.generators.cnerf.march import WINDOWS, window
from semedit.generators.cnerf.rays import Rays
from semedit.generators.parts.siren import Sines
from semedit.runtime.allocator import keep_freed_memory


def generator(config: CNeRFConfig | None = None) -> CNeRF:
    """Random weights, nothing to train."""
    torch.manual_seed(0)
    return CNeRF(config or CNeRFConfig()).eval().requires_grad_(False)


# The textbook ------------------------------------------------------------------------------------


def network(sines: Sines, k: int, ws: Tensor, x: Tensor) -> list[Tensor]:
    """Values behind each layer [M,S,H] of the k-th network at x [M,S,3]; ws [L,w_dim]."""
    found = []
    for i, linear in enumerate(sines.linears):
        x = F.linear(x, linear.weight[k], linear.bias[k])
        gamma = F.linear(ws[i], sines.gamma_weight[k, i]) + sines.gamma_bias[k, i]
        beta = F.linear(ws[i], sines.beta_weight[k, i]) + sines.beta_bias[k, i]
        gamma, beta = sines.frequency * (1 + 0.5 * gamma), sines.phase * beta
        x = torch.sin(gamma * x + beta)
        found.append(x)
    return found


def textbook(cnerf: CNeRF, ws: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Colours [R*R,3] and region maps [R*R,K] of one face, ws [1,K,L,w_dim]."""
    config, local = cnerf.config, cnerf.local
    rays = Rays.of(c, config, None, False).of_views(0, 1)
    x = rays.points() / config.depth
    views = rays.views[:, None].expand_as(x)
    outputs = []
    for k in range(len(config.regions)):
        factor, place = windowed(config, k, rays, x)
        layers = network(local.sines, k, ws[0, k], place)
        inner, h = layers[config.shape_layers - 1], layers[-1]
        mask = F.linear(torch.cat([inner, views], -1), local.mask.weight[k], local.mask.bias[k])
        source = inner if config.shape_sdf else h
        sdf = F.linear(source, local.sdf.weight[k], local.sdf.bias[k])
        both = torch.cat([h, views], -1)
        feature = F.linear(both, local.feature.weight[k], local.feature.bias[k])
        rgb = F.linear(feature, local.rgb.weight[k], local.rgb.bias[k])
        outputs.append(torch.cat([rgb, factor * sdf, factor * mask], -1)[None])
    rgb, sdf, mask = torch.cat(outputs).split([3, 1, 1], -1)
    with torch.no_grad():
        if local.base is None:
            start = config.depth * (x.norm(dim=-1, keepdim=True) - config.sphere)
        else:
            h = network(local.base, 0, ws[0, 0], x)[-1]
            start = F.linear(h, local.base_sdf.weight[0], local.base_sdf.bias[0])
    beta = cnerf.sigmoid_beta
    sigma = torch.sigmoid(-(start + sdf.sum(0)) / beta) / beta
    alpha = 1 - torch.exp(-sigma[..., 0] * rays.lengths())
    through = torch.cumprod(torch.cat([torch.ones_like(alpha[:, :1]), 1 - alpha + 1e-10], 1), 1)
    weights = (alpha * through[:, :-1])[..., None]
    if config.windows:
        weights = torch.cat([weights[:, :-1], weights[:, -1:] + through[:, -1:, None]], 1)
    colour = -1 + 2 * (weights * torch.sigmoid((mask * rgb).sum(0))).sum(1)
    return colour, (weights * mask).sum(2)[..., 0].t()


def windowed(config: CNeRFConfig, k: int, rays: Rays, x: Tensor) -> tuple[Tensor, Tensor]:
    """How much of the k-th region there can be at each sample [M,S,1], and where its network is
    asked, x [M,S,3] or, behind the head, the picture."""
    factor = torch.ones_like(x[..., :1])
    if not config.windows:
        return factor, x
    if config.regions[k] != "background":
        found = window(config, rays.points().flatten(0, 1), torch.tensor([k]))
        assert found is not None
        factor = found.view_as(factor).clone()
        if config.regions[k] not in WINDOWS:
            factor[:, -1] = 0
        return factor, x
    factor[:, :-1] = 0
    place = x.clone()
    place[:, -1] = rays.screen
    return factor, place


# A step ------------------------------------------------------------------------------------------


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main(kind: str) -> None:
    torch.set_num_threads(1)
    if kind != "textbook":
        keep_freed_memory()
    cnerf, c = generator(), cameras.orbit(0.1, 0.05)
    ws = torch.randn(1, 9, 5, 256, generator=torch.Generator().manual_seed(1))
    ws.requires_grad_(True)
    adam = torch.optim.Adam([ws], 1e-3)
    for _ in sys.stdin:
        begun = cpu_seconds()
        if kind == "textbook":
            colour, maps = textbook(cnerf, ws, c)
        else:
            found = cnerf.volume(cnerf.planes({"ws": ws}), c)
            colour, maps = found["colour"], found["maps"]
        loss = colour.square().mean() + maps.square().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        seconds = cpu_seconds() - begun
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(json.dumps({"seconds": seconds, "mebibytes": peak // 1024}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
