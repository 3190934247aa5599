"""Key names of StyleGAN2: semedit's, NVIDIA's and rosinality's.

NVIDIA's differ from semedit's in two prefixes. rosinality's count layers instead of naming their
resolution, and keep leading axes of size 1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

from torch import Tensor

NVIDIA = {"mapping.": "mapping_network.", "synthesis.": "synthesis_network."}
# FIR filters, which the code makes itself.
FILTERS = re.compile(r"(^|\.)(resample_filter|blur\.kernel|upsample\.kernel)$")

# rosinality's name within a layer -> NVIDIA's, and the shape there (None: without a leading 1).
_PARTS: dict[str, tuple[str, tuple[int, ...] | None]] = {
    "conv.weight": ("weight", None),
    "conv.modulation.weight": ("affine.weight", ()),
    "conv.modulation.bias": ("affine.bias", ()),
    "activate.bias": ("bias", ()),
    "noise.weight": ("noise_strength", None),
    "bias": ("bias", (-1,)),
}


T = TypeVar("T")


def from_nvidia(tensors: Mapping[str, T]) -> dict[str, T]:
    """semedit's names for `mapping.*` and `synthesis.*`; other names stay, filters go."""
    return {_renamed(key, NVIDIA): v for key, v in tensors.items() if not FILTERS.search(key)}


def to_nvidia(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The way back, without filters."""
    back = {own: theirs for theirs, own in NVIDIA.items()}
    return {_renamed(key, back): v for key, v in tensors.items()}


def _renamed(key: str, prefixes: Mapping[str, str]) -> str:
    for old, new in prefixes.items():
        if key.startswith(old):
            return new + key.removeprefix(old)
    return key


def from_rosinality(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """semedit's names for the keys of `g_ema`; filters go, names it does not know stay."""
    found = {}
    for key, value in tensors.items():
        if FILTERS.search(key):
            continue
        name, shape = rosinality_name(key)
        found[_renamed(name, NVIDIA)] = _shaped(value, shape)
    return found


def _shaped(value: Tensor, shape: tuple[int, ...] | None) -> Tensor:
    if shape is None:
        return value[0]
    return value.reshape(shape) if shape else value


def rosinality_name(key: str) -> tuple[str, tuple[int, ...] | None]:
    """NVIDIA's name for a key of rosinality's, and the shape there: None drops the first axis,
    () leaves it."""
    if match := re.fullmatch(r"style\.(\d+)\.(weight|bias)", key):
        return f"mapping.fc{int(match[1]) - 1}.{match[2]}", ()
    if key == "input.input":
        return "synthesis.b4.const", None
    if match := re.fullmatch(r"noises\.noise_(\d+)", key):
        side = 2 ** ((int(match[1]) + 5) // 2)
        return f"synthesis.{_layer(int(match[1]))}.noise_const", (side, side)
    for pattern, place in _LAYERS.items():
        if (match := re.fullmatch(pattern, key)) and match[match.re.groups] in _PARTS:
            part, shape = _PARTS[match[match.re.groups]]
            number = int(match[1]) if match.re.groups == 2 else -1
            return f"synthesis.{place(number)}.{part}", shape
    return key, ()


def _layer(index: int) -> str:
    """The layer of the index-th noise map: b4.conv1, b8.conv0, b8.conv1, ..."""
    return f"b{2 ** ((index + 5) // 2)}.conv{(index + 1) % 2}"


_LAYERS = {
    r"conv1\.(.+)": lambda _: "b4.conv1",
    r"to_rgb1\.(.+)": lambda _: "b4.torgb",
    r"convs\.(\d+)\.(.+)": lambda i: _layer(i + 1),
    r"to_rgbs\.(\d+)\.(.+)": lambda i: f"b{2 ** (i + 3)}.torgb",
}
