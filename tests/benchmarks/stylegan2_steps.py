"""One descent step of StyleGAN2's codes, in a process of its own; a line on stdin runs one more.

    python tests/benchmarks/stylegan2_steps.py textbook|semedit|coarse RESOLUTION

"textbook" is the formulation of the paper and of NVIDIA's default path: every sample has weights
of its own, scaled by its style and demodulated, in one grouped convolution; up-sampling inserts
zeros and pads before it filters; the allocator is left as it is. "semedit" is what `semedit` runs,
"coarse" the same up to 256 pixels. Each prints the CPU seconds (user and system) of a step and the
greatest resident size so far, as JSON.
"""

from __future__ import annotations

import json
import math
import resource
import sys
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from semedit.generators.parts.layers import ModulatedConv
from semedit.generators.stylegan2.stylegan2 import StyleGAN2, StyleGAN2Config, Synthesis
from semedit.runtime.allocator import keep_freed_memory

COARSE = 256


def generator(resolution: int, channels: tuple[int, ...] = ()) -> StyleGAN2:
    """Random weights, noise that is seen, nothing to train."""
    torch.manual_seed(0)
    found = StyleGAN2(StyleGAN2Config(resolution, channels)).eval().requires_grad_(False)
    for name, parameter in found.named_parameters():
        if name.endswith("noise_strength"):
            parameter.fill_(0.1)
    return found


# The textbook ------------------------------------------------------------------------------------


def filtered(x: Tensor, up: int, pad: tuple[int, int]) -> Tensor:
    """Zeros between the pixels, a border, then the FIR filter of each channel; gain up^2."""
    n, channels, high, wide = x.shape
    x = x.reshape(n, channels, high, 1, wide, 1)
    x = F.pad(x, [0, up - 1, 0, 0, 0, up - 1]).reshape(n, channels, high * up, wide * up)
    x = F.pad(x, [*pad, *pad])
    line = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    fir = (line[:, None] * line * 4).expand(channels, 1, 4, 4)
    return F.conv2d(x, fir, groups=channels)


def modulated(layer: ModulatedConv, x: Tensor, w: Tensor, noise: Tensor | None) -> Tensor:
    """A layer by weights of each sample's own."""
    n, inputs, high, wide = x.shape
    style = layer.affine(w)
    outputs, _, side, _ = layer.weight.shape
    if not layer.normal:
        style = style * layer.gain
    weight = layer.weight[None] * style[:, None, :, None, None]
    if layer.normal:
        size = (weight.square().sum([2, 3, 4]) + 1e-8).rsqrt()
        weight = weight * size[:, :, None, None, None]
    x = x.reshape(1, n * inputs, high, wide)
    if layer.up == 1:
        weight = weight.reshape(n * outputs, inputs, side, side)
        y = F.conv2d(x, weight, padding=side // 2, groups=n)
    else:
        weight = weight.transpose(1, 2).reshape(n * inputs, outputs, side, side)
        y = filtered(F.conv_transpose2d(x, weight, stride=2, groups=n), 1, (1, 1))
    y = y.reshape(n, outputs, *y.shape[2:])
    if noise is not None:
        y = y + noise
    y = y + layer.bias[:, None, None]
    return F.leaky_relu(y, 0.2) * math.sqrt(2) if layer.normal else y


def textbook(network: Synthesis, ws: Tensor) -> Tensor:
    """The picture of synthesis(ws), noise "const"."""
    image, used = None, 0
    x = network["b4"].const[None].repeat(len(ws), 1, 1, 1)
    for block in network.values():
        for name in block.noisy:
            layer = getattr(block, name)
            x = modulated(layer, x, ws[:, used], layer.noise_const * layer.noise_strength)
            used += 1
        drawn = modulated(block.torgb, x, ws[:, used], None)
        image = drawn if image is None else filtered(image, 2, (2, 1)) + drawn
    return image


# A step ------------------------------------------------------------------------------------------


def drawing(kind: str, network: StyleGAN2) -> Callable[[Tensor], Tensor]:
    """ws -> picture."""
    if kind == "textbook":
        return lambda ws: textbook(network.synthesis_network, ws)
    side = COARSE if kind == "coarse" else None
    return lambda ws: network.synthesis({"ws": ws}, ws[:, 0], resolution=side).image


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main(kind: str, resolution: int) -> None:
    torch.set_num_threads(1)
    if kind != "textbook":
        keep_freed_memory()
    network = generator(resolution)
    draw = drawing(kind, network)
    ws = torch.randn(1, network.num_ws, 512, generator=torch.Generator().manual_seed(1))
    ws.requires_grad_(True)
    adam = torch.optim.Adam([ws], 1e-3)
    with torch.no_grad():
        target = torch.zeros_like(draw(ws))
    for _ in sys.stdin:
        begun = cpu_seconds()
        loss = (draw(ws) - target).square().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        seconds = cpu_seconds() - begun
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(json.dumps({"seconds": seconds, "mebibytes": peak // 1024}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
