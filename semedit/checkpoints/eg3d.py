"""EG3D in checkpoints: `G_ema` of its pickles, or its state dict.

What is no tensor is read from the pickle, too: plane axes, resolution of the volume rendering,
bounds and numbers of samples. A bare state dict is taken to be as the published ones are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor

from semedit import cameras
from semedit.checkpoints import stylegan2
from semedit.checkpoints import stylegan2_keys as keys
from semedit.checkpoints.formats import MEAN_SAMPLES, Format, Part
from semedit.checkpoints.pickles import LazyTensor, Record, Tensors, value_of
from semedit.checkpoints.reader import Checkpoint
from semedit.errors import WeightsError
from semedit.generators.stylegan2.stylegan2 import MAPPING_RATE
from semedit.generators.triplane.eg3d import PUBLISHED_AXES

KIND = "eg3d"
ENTRIES = ("G_ema",)
NAMES = {
    "backbone.mapping.": "mapping_network.",
    "backbone.synthesis.": "synthesis_network.",
    "decoder.net.0.": "decoder.first.",
    "decoder.net.2.": "decoder.last.",
}
# Settings that EG3D has and semedit draws in one way only.
ONLY = {"disparity_space_sampling": (False,), "clamp_mode": ("softplus",)}

T = TypeVar("T")


def matches(checkpoint: Checkpoint) -> bool:
    """A backbone, a decoder and a super-resolution under EG3D's names."""
    wanted = {"backbone.synthesis.b4.const", "decoder.net.0.weight", _NOISE.format(1)}
    return wanted <= checkpoint.network(*ENTRIES)[2].keys()


def parts(checkpoint: Checkpoint) -> list[Part]:
    """The generator.

    Raises: WeightsError: it renders in a way that semedit does not.
    """
    name, entry, tensors = checkpoint.network(*ENTRIES)
    network = entry if isinstance(entry, Record) else Record("")
    settings = _settings(network)
    found = renamed(tensors)
    rate = float(settings.get("decoder_lr_mul", 1.0))
    if rate != 1.0:
        found |= {k: value_of(v) * rate for k, v in found.items() if k.startswith("decoder.")}
    wanted = {**sizes(tensors), **rendering(network, settings)}
    resolution, side = wanted["resolution"], int(tensors[_NOISE.format(0)].shape[0])
    upper = network.module("superresolution")
    told = upper.state.get("input_resolution") if upper else None
    wanted["up_input"] = told or (side // 2 if resolution >= 512 else side)
    beside = checkpoint.others(name) if name else ()
    ignored = stylegan2._filters(tensors)
    return [Part(KIND, wanted, found, ignored, beside, complete={stylegan2.W_AVG: mean_style})]


def renamed(tensors: Mapping[str, T]) -> dict[str, T]:
    """semedit's names; names that it does not know stay, filters go."""
    found = {}
    for key, value in tensors.items():
        if keys.FILTERS.search(key):
            continue
        for old, new in NAMES.items():
            if key.startswith(old):
                key = new + key.removeprefix(old)
        found[key] = value
    return found


_NOISE = "superresolution.block{}.conv1.noise_const"


def sizes(tensors: Tensors) -> dict[str, Any]:
    """Fields of EG3DConfig that the shapes tell.

    Raises: WeightsError: some tensor that tells them is missing.
    """
    shapes = {key: tuple(value.shape) for key, value in tensors.items()}
    block = re.compile(r"backbone\.synthesis\.b(\d+)\.conv1\.weight")
    levels = {int(m[1]): shapes[key][0] for key in shapes if (m := block.fullmatch(key))}
    fc = re.compile(r"backbone\.mapping\.fc\d+\.weight")
    try:
        drawn = shapes["backbone.synthesis.b4.torgb.weight"][0]
        embedded, label = shapes["backbone.mapping.embed.weight"]
        features = shapes["superresolution.block0.conv0.weight"][1]
        found = {
            "resolution": shapes[_NOISE.format(1)][0],
            "plane_resolution": max(levels),
            "plane_channels": drawn // 3,
            "channels": [levels[side] for side in sorted(levels)],
            "z_dim": shapes["backbone.mapping.fc0.weight"][1] - embedded,
            "w_dim": shapes["backbone.synthesis.b4.conv1.affine.weight"][1],
            "mapping_layers": sum(bool(fc.fullmatch(key)) for key in shapes),
            "decoder": shapes["decoder.net.0.weight"][0],
            "features": features,
            "up": [shapes[f"superresolution.block{i}.conv1.weight"][0] for i in (0, 1)],
        }
    except KeyError as error:
        raise WeightsError(f"the EG3D in it lacks {error}") from error
    if label != 25:
        raise WeightsError(f"its mapping network sees {label} numbers, not the 25 of a camera")
    return found


def _settings(network: Record) -> Mapping[str, Any]:
    """How it renders: what the network holds, which training may have changed, before what it
    was made with."""
    for found in (network.state.get("rendering_kwargs"), network.init.get("rendering_kwargs")):
        if isinstance(found, Mapping):
            return found
    return {}


def rendering(network: Record, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of EG3DConfig that the pickle tells beside the tensors.

    Raises: WeightsError: a setting that semedit does not have.
    """
    for name, allowed in ONLY.items():
        if settings.get(name, allowed[0]) not in allowed:
            raise WeightsError(f"it renders with {name}={settings[name]}, which semedit does not")
    found: dict[str, Any] = {"axes": axes(network)}
    if isinstance(side := network.state.get("neural_rendering_resolution"), int):
        found["neural"] = side
    names = {
        "samples": "depth_resolution",
        "fine": "depth_resolution_importance",
        "near": "ray_start",
        "far": "ray_end",
        "box": "box_warp",
        "white": "white_back",
        "antialias": "sr_antialias",
        "camera_scale": "c_scale",
    }
    found |= {ours: settings[theirs] for ours, theirs in names.items() if theirs in settings}
    if "auto" in (found.get("near"), found.get("far")):
        found |= {"near": 0.0, "far": 0.0}
    if settings.get("c_gen_conditioning_zero"):
        found["camera_scale"] = 0.0
    found["up_noise"] = settings.get("superresolution_noise_mode", "none") != "none"
    places = {"clamp": "backbone.synthesis.b4.conv1", "up_clamp": "superresolution.block0.conv1"}
    for ours, place in places.items():
        layer = network.module(place)
        value = layer.state.get("conv_clamp") if layer else None
        found[ours] = float(value) if isinstance(value, int | float) else None
    layer = network.module("backbone.mapping.fc0")
    rate = layer.state.get("bias_gain") if layer else None
    if isinstance(rate, int | float) and abs(rate - MAPPING_RATE) > 1e-9:
        raise WeightsError(f"its mapping network learns at {rate}, semedit's at {MAPPING_RATE}")
    return found


def axes(network: Record) -> list[list[int]]:
    """Coordinates along (W, H) of each plane, from `renderer.plane_axes` [3,3,3].

    A plane's matrix has its axes as rows; a point's places in it are the first two entries of
    the point times the inverse.

    Raises: WeightsError: planes that are not spanned by coordinate axes.
    """
    renderer = network.module("renderer")
    matrices = renderer.state.get("plane_axes") if renderer else None
    if not isinstance(matrices, Tensor | LazyTensor):
        return [list(pair) for pair in PUBLISHED_AXES]
    value = value_of(matrices).float()
    inverse = value.transpose(1, 2)  # of matrices of coordinate axes
    permutations = value.shape == (3, 3, 3) and torch.equal(
        value @ inverse, torch.eye(3).expand(3, 3, 3)
    )
    if not permutations or not bool(((value == 0) | (value == 1)).all()):
        raise WeightsError("its planes do not stand along the coordinate axes")
    return inverse.argmax(1)[:, :2].tolist()


def mean_style(network: Any) -> Tensor:
    """The mean w [w_dim] of random z under the frontal camera; the samples are always the same."""
    numbers = torch.Generator().manual_seed(0)
    z = torch.randn(MEAN_SAMPLES, network.z_dim, generator=numbers)
    c = cameras.orbit(0.0, 0.0) * network.config.camera_scale
    return network.mapping_network(z, c.expand(len(z), -1)).mean(0)


FORMAT = Format(
    "EG3D",
    "G_ema of its pickles, or its state dict",
    "not in the file; NVIDIA's own networks: NVIDIA Source Code License, non-commercial",
    matches,
    parts,
)
