"""Checkpoints of e4e and pSp: an encoder, and the StyleGAN2 it was trained for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from semedit.checkpoints.formats import Format, Part
from semedit.checkpoints.pickles import LazyTensor, Tensors, value_of
from semedit.checkpoints.reader import Checkpoint
from semedit.checkpoints.stylegan2 import rosinality_part
from semedit.errors import WeightsError
from semedit.generators.stylegan2 import e4e

KINDS = {"Encoder4Editing": True, "GradualStyleEncoder": False}  # whether styles are offsets


def matches(checkpoint: Checkpoint) -> bool:
    """`encoder.*` with a body of IR-SE, and `decoder.*`, in one state dict."""
    tensors = checkpoint.network("state_dict")[2]
    wanted = {"encoder.input_layer.0.weight", "encoder.styles.0.linear.weight"}
    return wanted | {"decoder.input.input"} <= tensors.keys()


def parts(checkpoint: Checkpoint) -> list[Part]:
    """The generator, and the encoder beside it.

    Raises: WeightsError: `opts` do not say which of the two encoders it is.
    """
    name, _, tensors = checkpoint.network("state_dict")
    settings = checkpoint.entry("opts")
    mean = checkpoint.entry("latent_avg")
    rest = tuple(k for k in tensors if not k.startswith(("encoder.", "decoder.")))
    beside = (*checkpoint.others(name, "latent_avg", "opts"), *rest)
    generator = rosinality_part(_under(tensors, "decoder."), mean, beside)
    return [generator, _encoder(_under(tensors, "encoder."), settings, mean, generator)]


def _under(tensors: Tensors, prefix: str) -> Tensors:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _encoder(tensors: Tensors, settings: Any, mean: Any, generator: Part) -> Part:
    settings = settings if isinstance(settings, Mapping) else {}
    kind = settings.get("encoder_type")
    if kind not in KINDS:
        raise WeightsError(
            f"its options name the encoder {kind!r}", f"semedit knows {' and '.join(KINDS)}"
        )
    count = len({key.split(".")[1] for key in tensors if key.startswith("styles.")})
    w_dim = int(generator.config["w_dim"])
    layers = 2 * len(generator.config["channels"])
    if count != layers:
        raise WeightsError(f"its encoder gives {count} styles, its generator takes {layers}")
    config = {"num_ws": count, "w_dim": w_dim, "deltas": KINDS[kind]}
    found: dict[str, Any] = dict(tensors)
    if isinstance(mean, Tensor | LazyTensor) and settings.get("start_from_latent_avg", True):
        found["mean"] = value_of(mean).float().reshape(-1, w_dim).expand(count, w_dim)
    else:
        found["mean"] = torch.zeros(count, w_dim)
    return Part(e4e.KIND, config, found, suffix="-encoder")


FORMAT = Format(
    "e4e or pSp",
    "encoder4editing's and pixel2style2pixel's files: encoder.*, decoder.*, latent_avg, opts",
    "not in the file; the code is MIT, the generator in it is converted from NVIDIA's, whose "
    "licence is non-commercial",
    matches,
    parts,
)
