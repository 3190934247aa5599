"""CNeRF in checkpoints: `g_ema` of its files, stage 1 (the volume renderer) or the whole."""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor

from semedit.checkpoints import cnerf_keys as keys
from semedit.checkpoints.formats import Format, Part
from semedit.checkpoints.pickles import Tensors, value_of
from semedit.checkpoints.reader import Checkpoint
from semedit.errors import WeightsError
from semedit.generators.cnerf.config import PUBLISHED

KIND = "cnerf"
ENTRIES = ("g_ema", "g")


def matches(checkpoint: Checkpoint) -> bool:
    """Local networks and the base network under the published names."""
    wanted = {"style.0.weight", "renderer.sigmoid_beta", "renderer.init_network.sdf_linear.weight"}
    return wanted <= checkpoint.network(*ENTRIES)[2].keys()


def parts(checkpoint: Checkpoint) -> list[Part]:
    """The generator; its mean styles, which no file holds, are computed."""
    name, _, tensors = checkpoint.network(*ENTRIES)
    found = keys.from_published({key: value_of(value) for key, value in tensors.items()})
    ignored = tuple(k for k in tensors if keys.FILTERS.search(k) or keys.UNUSED.fullmatch(k))
    wanted = config(tensors)
    complete = {"w_avg": _w_avg} | ({"up_avg": _up_avg} if wanted["up"] else {})
    beside = checkpoint.others(name) if name else ()
    return [Part(KIND, wanted, found, ignored, beside, complete=complete)]


def config(tensors: Tensors) -> dict[str, Any]:
    """Fields of CNeRFConfig, from published names and shapes.

    Raises: WeightsError: other regions than the nine published ones.
    """
    shapes = {key: tuple(value.shape) for key, value in tensors.items()}
    count = len({k.split(".")[2] for k in shapes if k.startswith("renderer.network.")})
    if count != len(PUBLISHED):
        raise WeightsError(f"its field has {count} regions, not {len(PUBLISHED)}")
    width = shapes["renderer.network.0.shape_linears.0.weight"][0]
    layer = re.compile(r"renderer\.network\.0\.(shape|texture)_linears\.\d+\.weight")
    kinds = [m[1] for key in shapes if (m := layer.fullmatch(key))]
    noises = sum(key.startswith("decoder.noises.") for key in shapes)
    up = []
    for index in range((noises + 1) // 2):
        torgb = "decoder.to_rgb1" if index == 0 else f"decoder.to_rgbs.{index - 1}"
        up.append(shapes[f"{torgb}.conv.weight"][2])
    return {
        "neural": shapes["decoder.noises.noise_0"][-1] if noises else 64,
        "up": up,
        "z_dim": shapes["style.0.weight"][1],
        "w_dim": shapes["style.0.weight"][0],
        "mapping_layers": sum(bool(re.fullmatch(r"style\.\d+\.weight", k)) for k in shapes),
        "width": width,
        "shape_layers": kinds.count("shape"),
        "texture_layers": kinds.count("texture"),
    }


def _w_avg(network: Any) -> Tensor:
    network.centre()
    return network.w_avg.clone()


def _up_avg(network: Any) -> Tensor:
    network.centre()
    return network.up_avg.clone()


FORMAT = Format(
    "CNeRF",
    "g_ema of its files, with or without stage 2",
    "not in the file; the published code and network: CC BY-NC-SA 4.0",
    matches,
    parts,
)
