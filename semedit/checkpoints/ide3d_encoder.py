"""IDE-3D's hybrid encoder in checkpoints: key `E` of its pickles, or its state dict."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor

from semedit.checkpoints import stylegan2
from semedit.checkpoints import stylegan2_keys as keys
from semedit.checkpoints.formats import Format, Part
from semedit.checkpoints.pickles import LazyTensor, Record, Tensors, value_of
from semedit.checkpoints.reader import Checkpoint
from semedit.errors import WeightsError
from semedit.generators.triplane.ide3d_encoder import KIND, LAST

ENTRIES = ("E",)
PREFIX = "encoder."  # of all tensors, in files that keep more than the encoder's own
MEAN = ("latent_avg", "w_avg")
ANGLES = 2  # yaw and pitch
TOWERS = {"seg": "shape", "img": "texture"}

T = TypeVar("T")


def matches(checkpoint: Checkpoint) -> bool:
    """Two towers under IDE-3D's names."""
    wanted = {"convs_img.0.weight", "convs_seg.0.weight", "projector_seg.weight"}
    return wanted <= _bare(checkpoint.network(*ENTRIES)[2]).keys()


def parts(checkpoint: Checkpoint) -> list[Part]:
    """The encoder; its mean style is zero where the file has none."""
    name, entry, tensors = checkpoint.network(*ENTRIES)
    bare = _bare(tensors)
    found: dict[str, Any] = renamed(bare)
    for key in MEAN:
        found.pop(key, None)
    wanted = config(bare)
    count = wanted["num_shape"] + wanted["num_texture"]
    mean = _mean(checkpoint, entry, bare)
    if mean is None:
        found["mean"] = torch.zeros(count, wanted["w_dim"])
    else:
        rows = value_of(mean).float().reshape(-1, wanted["w_dim"])
        found["mean"] = rows.expand(count, -1) if len(rows) == 1 else rows
    beside = checkpoint.others(name, *MEAN) if name else ()
    return [Part(KIND, wanted, found, stylegan2._filters(bare), beside)]


def _bare(tensors: Tensors) -> Tensors:
    return {key.removeprefix(PREFIX): value for key, value in tensors.items()}


def _mean(checkpoint: Checkpoint, entry: Any, tensors: Tensors) -> Tensor | LazyTensor | None:
    """The mean style, wherever it is kept."""
    for key in MEAN:
        held = entry.state.get(key) if isinstance(entry, Record) else None
        for value in (tensors.get(key), held, checkpoint.entry(key)):
            if isinstance(value, Tensor | LazyTensor):
                return value
    return None


def renamed(tensors: Mapping[str, T]) -> dict[str, T]:
    """semedit's names; names that it does not know stay, filters go."""
    found = {}
    for key, value in tensors.items():
        if keys.FILTERS.search(key):
            continue
        if match := re.fullmatch(r"convs_(img|seg)\.(\d+)\.(.+)", key):
            tower, number = TOWERS[match[1]], int(match[2])
            inner = match[3].replace("skip.weight", "skip")
            key = f"{tower}.blocks.{number - 1}.{inner}" if number else f"{tower}.first.{inner}"
        elif match := re.fullmatch(r"projector_(img|seg)\.weight", key):
            key = f"{TOWERS[match[1]]}.out"
        found[key] = value
    return found


def config(tensors: Tensors) -> dict[str, Any]:
    """Fields of HybridEncoderConfig, from the shapes.

    Raises: WeightsError: some tensor that tells them is missing, or they end in something else.
    """
    shapes = {key: tuple(value.shape) for key, value in tensors.items()}
    blocks = len([k for k in shapes if re.fullmatch(r"convs_img\.\d+\.conv2\.weight", k)])
    try:
        channels = [shapes["convs_img.0.weight"][0]]
        channels += [shapes[f"convs_img.{i + 1}.conv2.weight"][0] for i in range(blocks)]
        outputs = [shapes[f"projector_{tower}.weight"][0] for tower in TOWERS]
        classes = shapes["convs_seg.0.weight"][1]
    except KeyError as error:
        raise WeightsError(f"the encoder in it lacks {error}") from error
    # Styles are as wide as the network is at its end.
    w_dim = channels[-1]
    angles = outputs[1] % w_dim
    if outputs[0] % w_dim or angles not in (0, ANGLES):
        raise WeightsError(f"its encoder ends in {outputs} numbers, not in styles of {w_dim}")
    return {
        "resolution": LAST * 2**blocks,
        "channels": channels,
        "num_shape": outputs[0] // w_dim,
        "num_texture": outputs[1] // w_dim,
        "w_dim": w_dim,
        "classes": classes,
        "angles": angles,
    }


FORMAT = Format(
    "IDE-3D's encoder",
    "E of its pickles, or its state dict: convs_img.*, convs_seg.*",
    "not in the file; see IDE-3D's repository: research use",
    matches,
    parts,
)
