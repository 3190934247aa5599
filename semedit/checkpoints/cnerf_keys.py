"""Key names of CNeRF: semedit's and the published ones.

The published file has a network per region, semedit stacks them along a first axis. Parts that
the published code never evaluates (`UNUSED`) stay behind; the way back lacks them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

FILTERS = re.compile(r"\.(blur|upsample)\.kernel$")  # which the code makes itself
UNUSED = re.compile(
    r"renderer\.init_network\.(mask_linears|feature_linear|rgb_linear)\.(weight|bias)"
    r"|decoder\.(conv1|convs\.\d+)\.bias"
)
_SINE = re.compile(r"renderer\.network\.0\.(shape|texture)_linears\.(\d+)\.weight")
_READS = {"mask": "mask_linears", "sdf": "sdf_linear", "feature": "feature_linear"}
_READS["rgb"] = "rgb_linear"
_CONV = {
    "weight": "conv.weight",
    "affine.weight": "conv.modulation.weight",
    "affine.bias": "conv.modulation.bias",
}


def stacks(keys: Mapping[str, object]) -> Iterator[tuple[str, list[str]]]:
    """semedit's names and the published ones of what they hold, stacked: one per region, or one
    per region and layer for frequencies and phases (regions first)."""
    regions = len({k.split(".")[2] for k in keys if k.startswith("renderer.network.")})
    depth = {"shape": 0, "texture": 0}
    for key in keys:
        if match := _SINE.fullmatch(key):
            depth[match[1]] += 1
    layers = [f"{kind}_linears.{i}" for kind in ("shape", "texture") for i in range(depth[kind])]
    networks = [f"renderer.network.{k}" for k in range(regions)]
    for own, theirs in (("sines", networks), ("base", ["renderer.init_network"])):
        for i, layer in enumerate(layers):
            for part in ("weight", "bias"):
                yield f"local.{own}.linears.{i}.{part}", [f"{n}.{layer}.{part}" for n in theirs]
        for name in ("gamma", "beta"):
            for part in ("weight", "bias"):
                names = [f"{n}.{layer}.{name}.{part}" for n in theirs for layer in layers]
                yield f"local.{own}.{name}_{part}", names
    for part in ("weight", "bias"):
        for own, name in _READS.items():
            yield f"local.{own}.{part}", [f"{n}.{name}.{part}" for n in networks]
        yield f"local.base_sdf.{part}", [f"renderer.init_network.sdf_linear.{part}"]


def singles(keys: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """semedit's names and the published ones, where no stacking is needed."""
    yield "sigmoid_beta", "renderer.sigmoid_beta"
    for key in keys:
        if match := re.fullmatch(r"style\.(\d+)\.(weight|bias)", key):
            yield f"mapping_network.layers.{key.removeprefix('style.')}", key
        if match := re.fullmatch(r"decoder\.style\.(\d+)\.(weight|bias)", key):
            yield f"stage2.mapping.{int(match[1]) - 1}.{match[2]}", key
        if match := re.fullmatch(r"decoder\.noises\.noise_(\d+)", key):
            yield f"stage2.convs.{match[1]}.noise_const", key
        if match := re.fullmatch(r"decoder\.(conv1|convs\.(\d+))\.noise\.weight", key):
            yield from _layer(f"stage2.convs.{_index(match[2])}", f"decoder.{match[1]}", True)
        if match := re.fullmatch(r"decoder\.(to_(rgb|seg)(1|s\.(\d+)))\.bias", key):
            own = f"stage2.to{match[2]}.{_index(match[4])}"
            yield from _layer(own, f"decoder.{match[1]}", False)
    if "feature_transfer.0.weight" in keys:
        yield "stage2.transfer.weight", "feature_transfer.0.weight"
        yield "stage2.transfer.bias", "feature_transfer.1.bias"


def _index(number: str | None) -> int:
    return 0 if number is None else int(number) + 1


def _layer(own: str, theirs: str, noisy: bool) -> Iterator[tuple[str, str]]:
    for ours, name in _CONV.items():
        yield f"{own}.{ours}", f"{theirs}.{name}"
    yield f"{own}.bias", f"{theirs}.activate.bias" if noisy else f"{theirs}.bias"
    if noisy:
        yield f"{own}.noise_strength", f"{theirs}.noise.weight"


def from_published(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """semedit's names and shapes for the keys of `g_ema`; filters and what is never evaluated go,
    names that are not known stay."""
    found = {k: v for k, v in tensors.items() if not (FILTERS.search(k) or UNUSED.fullmatch(k))}
    for own, names in stacks(tensors):
        if all(name in found for name in names):
            whole = torch.stack([found.pop(name) for name in names])
            if re.search(r"(gamma|beta)_", own):
                count = 1 if ".base." in own else len({n.split(".")[2] for n in names})
                whole = whole.unflatten(0, (count, -1))
            found[own] = whole
    for own, name in singles(tensors):
        if name in found:
            found[own] = found.pop(name).reshape(_shape(own, tensors[name].shape))
    return found


def _shape(own: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a tensor of stage 2: without the axes of size 1 that theirs has in front."""
    if own.endswith("noise_strength"):
        return ()
    if own.endswith("noise_const"):
        return tuple(shape[2:])
    if re.fullmatch(r"stage2\.(convs|torgb|toseg)\.\d+\.weight", own):
        return tuple(shape[1:])
    if re.fullmatch(r"stage2\.(torgb|toseg)\.\d+\.bias", own):
        return (shape[1],)
    return tuple(shape)
