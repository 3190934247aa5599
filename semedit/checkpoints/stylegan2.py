"""StyleGAN2 in checkpoints: NVIDIA's pickles, rosinality's files, plain state dicts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from semedit.checkpoints import stylegan2_keys as keys
from semedit.checkpoints.formats import MEAN_SAMPLES, Format, Part
from semedit.checkpoints.pickles import LazyTensor, Record, Tensors, value_of
from semedit.checkpoints.reader import Checkpoint
from semedit.errors import WeightsError
from semedit.generators.parts.layers import normalize
from semedit.generators.stylegan2.stylegan2 import MAPPING_RATE

CLASSED = ("stylegan2", "stylegan3")  # kinds whose mapping network may see a class
W_AVG = "mapping_network.w_avg"
NVIDIA_LICENCE = (
    "not in the file; NVIDIA's own networks: NVIDIA Source Code License, non-commercial"
)
NVIDIA_ENTRIES = ("G_ema",)
ROSINALITY_ENTRIES = ("g_ema", "state_dict", "params_ema", "params")


def is_nvidia(checkpoint: Checkpoint) -> bool:
    """Mapping and synthesis under NVIDIA's names, in G_ema or as the whole file."""
    tensors = checkpoint.network(*NVIDIA_ENTRIES)[2]
    return {"mapping.fc0.weight", "synthesis.b4.const"} <= tensors.keys()


def nvidia(checkpoint: Checkpoint) -> list[Part]:
    """The generator of an NVIDIA pickle or state dict."""
    name, entry, tensors = checkpoint.network(*NVIDIA_ENTRIES)
    found = keys.from_nvidia(tensors)
    ignored = _filters(tensors)
    clamp = None
    if isinstance(entry, Record):
        clamp = _clamp(entry)
        check_rate(entry)
    part = _part(found, clamp, ignored, checkpoint.others(name) if name else ())
    return [part]


def is_rosinality(checkpoint: Checkpoint) -> bool:
    """A generator under rosinality's names, and no encoder beside it."""
    tensors = checkpoint.network(*ROSINALITY_ENTRIES)[2]
    return {"style.1.weight", "input.input", "conv1.conv.weight"} <= tensors.keys()


def rosinality(checkpoint: Checkpoint) -> list[Part]:
    """The generator of rosinality's training or converted file."""
    name, _, tensors = checkpoint.network(*ROSINALITY_ENTRIES)
    mean = checkpoint.entry("latent_avg")
    beside = checkpoint.others(name, "latent_avg") if name else ()
    return [rosinality_part(tensors, mean, beside)]


def rosinality_part(tensors: Tensors, mean: Any, beside: tuple[str, ...]) -> Part:
    """A generator from rosinality's tensors and `latent_avg`, [w_dim] or one row a layer."""
    found = keys.from_rosinality({key: value_of(value) for key, value in tensors.items()})
    if isinstance(mean, Tensor | LazyTensor):
        value = value_of(mean)
        # Its rows, where it has several, are the same mean again.
        found[W_AVG] = value.float().reshape(-1, value.shape[-1]).mean(0)
    return _part(found, None, _filters(tensors), beside)


def _part(
    tensors: Mapping[str, Any],
    clamp: float | None,
    ignored: tuple[str, ...],
    beside: tuple[str, ...],
) -> Part:
    config = infer(tensors, clamp)
    return Part("stylegan2", config, tensors, ignored, beside, complete={W_AVG: mean_style})


def infer(tensors: Mapping[str, Any], clamp: float | None = None) -> dict[str, Any]:
    """Configuration from the shapes of tensors under semedit's names.

    Raises: WeightsError: there is no StyleGAN2 in them, or it draws no RGB.
    """
    shapes = {key: tuple(value.shape) for key, value in tensors.items()}
    blocks = "synthesis_network.b{}.{}"
    found = {m[1] for k in shapes if (m := re.match(r"synthesis_network\.b(\d+)\.conv1\.", k))}
    sides = sorted(int(side) for side in found)
    depth = sum(bool(re.fullmatch(r"mapping_network\.fc\d+\.weight", key)) for key in shapes)
    try:
        channels = [shapes[blocks.format(side, "conv1.weight")][0] for side in sides]
        w_dim = shapes["synthesis_network.b4.conv1.affine.weight"][1]
        drawn = shapes["synthesis_network.b4.torgb.weight"][0]
        first = shapes["mapping_network.fc0.weight"][1]
    except (KeyError, IndexError) as error:
        raise WeightsError(f"the StyleGAN2 in it lacks {error}") from error
    label = shapes.get("mapping_network.embed.weight")
    if drawn != 3:
        raise WeightsError(f"it draws {drawn} channels, not 3")
    if sides != [4 * 2**level for level in range(len(sides))] or sides[-1] > 1024:
        raise WeightsError(f"its blocks are of {sides} pixels")
    return {
        "resolution": sides[-1],
        "channels": channels,
        "z_dim": first - (label[0] if label else 0),
        "w_dim": w_dim,
        "c_dim": label[1] if label else 0,
        "mapping_layers": depth,
        "clamp": clamp,
    }


def classes(part: Part) -> int:
    """How many classes of pictures a part draws; 0: it is no conditional StyleGAN."""
    return int(part.config.get("c_dim", 0)) if part.kind in CLASSED else 0


def of_class(part: Part, number: int | None) -> Part:
    """A conditional StyleGAN that draws one of its classes, and so is none; other parts as they
    are.

        fc0(z, e) = W_z z / sqrt(|z| + |e|) + (b + W_e e / sqrt(|z| + |e|))

    With the class's embedding e fixed, its share is a bias. The mean style is the class's own.

    Raises: WeightsError: no class was given, or there is no such class.
    """
    count = classes(part)
    if not count:
        return part
    if number is None or not 0 <= number < count:
        said = "" if number is None else f", none of them {number}"
        raise WeightsError(
            f"it draws {count} classes of pictures{said}", f"choose one: --class 0 to {count - 1}"
        )
    held = dict(part.tensors)
    names = [f"mapping_network.{key}" for key in ("embed.weight", "embed.bias")]
    weight, bias = (value_of(held.pop(name)).float() for name in names)
    first, shift = "mapping_network.fc0.weight", "mapping_network.fc0.bias"
    matrix, z_dim = value_of(held[first]).float(), part.config["z_dim"]
    e = normalize((weight[:, number] / count**0.5 + bias)[None])[0]
    inputs = matrix.shape[1]
    held[first] = matrix[:, :z_dim] * (z_dim / inputs) ** 0.5
    moved = value_of(held[shift]).float() + matrix[:, z_dim:] @ e / inputs**0.5
    held[shift] = moved
    held.pop(W_AVG, None)
    return replace(
        part,
        config={**part.config, "c_dim": 0},
        tensors=held,
        notes=(*part.notes, f"class {number} of {count}"),
    )


def _filters(tensors: Tensors) -> tuple[str, ...]:
    """Names of the FIR filters, which must be the usual one.

    Raises: WeightsError: one is not.
    """
    line = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    usual = line[:, None] * line
    names = tuple(key for key in tensors if keys.FILTERS.search(key))
    for name in names:
        found = value_of(tensors[name]).float()
        if found.shape != (4, 4) or not torch.allclose(found / found.sum(), usual, atol=1e-5):
            raise WeightsError(f"it filters otherwise than StyleGAN2 does ({name})")
    return names


def _clamp(network: Record) -> float | None:
    layer = network.module("synthesis.b4.conv1")
    value = layer.state.get("conv_clamp") if layer else None
    return float(value) if isinstance(value, int | float) else None


def check_rate(network: Record) -> None:
    layer = network.module("mapping.fc0")
    rate = layer.state.get("bias_gain") if layer else None
    if isinstance(rate, int | float) and abs(rate - MAPPING_RATE) > 1e-9:
        raise WeightsError(f"its mapping network learns at {rate}, semedit's at {MAPPING_RATE}")


def mean_style(network: Any) -> Tensor:
    """The mean w [w_dim] of random z; the samples are always the same."""
    numbers = torch.Generator().manual_seed(0)
    z = torch.randn(MEAN_SAMPLES, network.z_dim, generator=numbers)
    c = torch.zeros(len(z), max(1, network.config.c_dim))
    return network.mapping_network(z, c).mean(0)


NVIDIA = Format(
    "NVIDIA's StyleGAN2",
    "G_ema of stylegan2-ada-pytorch's and stylegan3's pickles, or its state dict",
    NVIDIA_LICENCE,
    is_nvidia,
    nvidia,
)
ROSINALITY = Format(
    "rosinality's StyleGAN2",
    "g_ema of stylegan2-pytorch's files, trained or converted",
    "not in the file; the code is MIT, networks converted from NVIDIA's keep NVIDIA's licence",
    is_rosinality,
    rosinality,
)
