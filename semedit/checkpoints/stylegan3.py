"""StyleGAN3 in checkpoints: `G_ema` of NVIDIA's pickles, or its state dict.

The names of its layers tell their sizes, and the shapes the rest. What is no tensor, like the
bound of activations, is read from the pickle; a bare state dict is taken to be as the published
ones are. Filters are made anew and must be those of the file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar, cast

import torch

from semedit.checkpoints import stylegan2
from semedit.checkpoints import stylegan2_keys as keys
from semedit.checkpoints.formats import Format, Part
from semedit.checkpoints.pickles import Record, Tensors, value_of
from semedit.checkpoints.reader import Checkpoint
from semedit.errors import WeightsError
from semedit.generators.stylegan3.stylegan3 import StyleGAN3Config

KIND = "stylegan3"
LAYER = re.compile(r"synthesis\.L(\d+)_(\d+)_(\d+)\.(.+)")
FILTERS = ("up_filter", "down_filter")
# Names of the synthesis network's settings -> ours.
NAMES = {
    "num_critical": "critical",
    "first_cutoff": "first_cutoff",
    "first_stopband": "first_stop",
    "last_stopband_rel": "last_stop",
    "margin_size": "margin",
}
# Settings that StyleGAN3 has and semedit draws in one way only.
ONLY = {"output_scale": 0.25, "filter_size": 6, "lrelu_upsampling": 2}

T = TypeVar("T")


def matches(checkpoint: Checkpoint) -> bool:
    """Mapping, Fourier input and layers under NVIDIA's names."""
    tensors = checkpoint.network(*stylegan2.NVIDIA_ENTRIES)[2]
    wanted = {"mapping.fc0.weight", "synthesis.input.freqs", "synthesis.input.affine.weight"}
    return wanted <= tensors.keys()


def parts(checkpoint: Checkpoint) -> list[Part]:
    """The generator.

    Raises: WeightsError: it lacks layers, or draws in a way that semedit does not.
    """
    name, entry, tensors = checkpoint.network(*stylegan2.NVIDIA_ENTRIES)
    config = sizes(tensors)
    if isinstance(entry, Record):
        config |= settings(entry)
        stylegan2.check_rate(entry)
    check(StyleGAN3Config(**config), tensors)
    ignored = tuple(key for key in tensors if key.endswith(FILTERS))
    beside = checkpoint.others(name) if name else ()
    complete = {stylegan2.W_AVG: stylegan2.mean_style}
    return [Part(KIND, config, renamed(tensors), ignored, beside, complete=complete)]


def renamed(tensors: Mapping[str, T]) -> dict[str, T]:
    """semedit's names: layers by their number alone; filters go, names it does not know stay."""
    kept = {key: value for key, value in tensors.items() if not key.endswith(FILTERS)}
    return keys.from_nvidia({LAYER.sub(r"synthesis.L\1.\4", key): v for key, v in kept.items()})


def sizes(tensors: Tensors) -> dict[str, Any]:
    """Fields of StyleGAN3Config that names and shapes tell.

    Raises: WeightsError: some tensor that tells them is missing.
    """
    shapes = {key: tuple(value.shape) for key, value in tensors.items()}
    weights = {int(m[1]): key for key in shapes if (m := LAYER.fullmatch(key)) and m[4] == "weight"}
    fc = re.compile(r"mapping\.fc\d+\.weight")
    try:
        drawn, last = weights[max(weights)], len(weights) - 1
        label = shapes.get("mapping.embed.weight")
        first = shapes["mapping.fc0.weight"][1]
        found = {
            "resolution": int(cast(re.Match[str], LAYER.fullmatch(drawn))[2]),
            "channels": tuple(shapes[weights[i]][0] for i in range(last)),
            "z_dim": first - (label[0] if label else 0),
            "w_dim": shapes["synthesis.input.affine.weight"][1],
            "c_dim": label[1] if label else 0,
            "mapping_layers": sum(bool(fc.fullmatch(key)) for key in shapes),
            "layers": last,
            "kernel": shapes[weights[0]][2],
            "radial": any(len(shapes[k]) == 2 for k in shapes if k.endswith(FILTERS)),
        }
    except (KeyError, IndexError, ValueError) as error:
        raise WeightsError(f"the StyleGAN3 in it lacks {error}") from error
    if shapes[drawn][0] != 3:
        raise WeightsError(f"it draws {shapes[drawn][0]} channels, not 3")
    return found


def settings(network: Record) -> dict[str, Any]:
    """Fields of StyleGAN3Config that the pickle tells beside the tensors.

    Raises: WeightsError: a setting that semedit does not have.
    """
    synthesis = network.module("synthesis")
    given = {**network.init, **(synthesis.init if synthesis else {})}
    for name, only in ONLY.items():
        if given.get(name, only) != only:
            raise WeightsError(f"it draws with {name}={given[name]}, which semedit does not")
    found = {ours: given[theirs] for theirs, ours in NAMES.items() if theirs in given}
    clamp = given.get("conv_clamp", 256)
    return found | {"clamp": None if clamp is None else float(clamp)}


def check(config: StyleGAN3Config, tensors: Tensors) -> None:
    """Raise WeightsError unless the layers' sizes and filters are the file's."""
    stages = config.shape
    for key in tensors:
        match = LAYER.fullmatch(key)
        if match is None:
            continue
        i, size = int(match[1]), int(match[2])
        if size != stages[i].size:
            raise WeightsError(
                f"its layer {i} is of {size} pixels, where semedit's is of {stages[i].size}",
                "import the pickle, which tells its settings",
            )
        if match[4] in FILTERS:
            own = config.filters(i)[FILTERS.index(match[4])]
            theirs = value_of(tensors[key]).float()
            if own.shape != theirs.shape or not torch.allclose(own, theirs, atol=1e-5):
                raise WeightsError(f"it filters otherwise than StyleGAN3 does ({key})")


FORMAT = Format(
    "NVIDIA's StyleGAN3",
    "G_ema of stylegan3's pickles, T or R, or its state dict",
    stylegan2.NVIDIA_LICENCE,
    matches,
    parts,
)
