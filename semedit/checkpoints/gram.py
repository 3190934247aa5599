"""GRAM in checkpoints: `generator.pth`, a plain state dict, or the averaged weights in `ema.pth`.

The averages have no names: they are the parameters in their order, which is that of NAMES.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from semedit.checkpoints.formats import Format, Part
from semedit.checkpoints.pickles import Record, Tensors, value_of
from semedit.checkpoints.reader import Checkpoint
from semedit.errors import WeightsError

KIND = "gram"
SURFACES, FIELD = "representation.sample_network.", "representation.rf_network."


def _names() -> list[str]:
    """Published names in the order of the parameters.

    The numbers of layers are those of all published networks.
    """
    surfaces = [f"network.{2 * layer}" for layer in range(3)] + ["output_layer"]
    field = [f"network.{layer}.layer" for layer in range(8)] + ["color_layer.0.layer"]
    field += [f"output_{kind}.{layer}" for kind in ("sigma", "color") for layer in range(7)]
    field += [f"mapping_network.network.{2 * layer}" for layer in range(4)]
    stems = [SURFACES + name for name in surfaces] + [FIELD + name for name in field]
    return [f"{stem}.{kind}" for stem in stems for kind in ("weight", "bias")]


NAMES = tuple(_names())
VIEW = (0.0, 0.0, -1.0)  # the direction that all views are locked to
COLOUR = f"{FIELD}color_layer.0.layer.weight"


def matches(checkpoint: Checkpoint) -> bool:
    """The surfaces' network and the colour layer under the published names, or an average."""
    return COLOUR in _tensors(checkpoint)


def _tensors(checkpoint: Checkpoint) -> Tensors:
    """By published names."""
    averages = _averages(checkpoint.data)
    if averages is None:
        return checkpoint.network()[2]
    return dict(zip(NAMES, averages, strict=True)) if len(averages) == len(NAMES) else {}


def _averages(data: Any) -> list[Tensor] | None:
    """The parameters of a moving average, or None."""
    state = data.state if isinstance(data, Record) else data
    found = state.get("shadow_params") if isinstance(state, Mapping) else None
    return list(found) if isinstance(found, (list, tuple)) else None


def parts(checkpoint: Checkpoint) -> list[Part]:
    """The generator; its mean style, which no file holds, is computed."""
    tensors = {key: value_of(value) for key, value in _tensors(checkpoint).items()}
    beside = checkpoint.others("shadow_params") if _averages(checkpoint.data) else ()
    complete = {"w_avg": _w_avg}
    return [Part(KIND, config(tensors), renamed(tensors), (), beside, complete=complete)]


def config(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Fields of GRAMConfig, from published names and shapes.

    Raises: WeightsError: of a scene whose surfaces are others than those of faces.
    """
    width = tensors[f"{SURFACES}output_layer.weight"].shape[1]
    if width > 128:  # the published cars: 48 surfaces around the middle, another camera
        raise WeightsError("its surfaces are not those of faces or cats")
    depth = sum(key.startswith(f"{FIELD}network.") and key.endswith("weight") for key in tensors)
    mapping = f"{FIELD}mapping_network.network."
    hidden = sum(key.startswith(mapping) and key.endswith("weight") for key in tensors) - 1
    first = tensors[f"{mapping}0.weight"]
    layers = sum(key.startswith(f"{SURFACES}network.") for key in tensors) // 2
    return {
        "z_dim": first.shape[1],
        "w_dim": first.shape[0],
        "mapping_layers": hidden,
        "width": tensors[f"{FIELD}network.0.layer.weight"].shape[0],
        "depth": depth,
        "surfaces": {"width": width, "depth": layers},
    }


def renamed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """semedit's names; names that are unknown stay."""
    left = dict(tensors)
    sizes = config(tensors)
    depth, hidden = sizes["depth"], sizes["mapping_layers"]

    def take(stem: str) -> tuple[Tensor, Tensor]:
        try:
            return left.pop(f"{stem}.weight"), left.pop(f"{stem}.bias")
        except KeyError as error:
            raise WeightsError(f"it lacks {error.args[0]}") from error

    found: dict[str, Tensor] = {}
    for layer in range(sizes["surfaces"]["depth"]):
        found |= _pair(f"intersections.layers.{layer}", take(f"{SURFACES}network.{2 * layer}"))
    found |= _pair("intersections.out", take(f"{SURFACES}output_layer"))
    for layer in range(depth):
        weight, bias = take(f"{FIELD}network.{layer}.layer")
        found |= {f"films.weights.{layer}": weight[None], f"films.biases.{layer}": bias[None]}
    weight, bias = take(f"{FIELD}color_layer.0.layer")
    bias = bias + weight[:, :3] @ torch.tensor(VIEW)
    found |= {f"films.weights.{depth}": weight[None, :, 3:], f"films.biases.{depth}": bias[None]}
    found |= _reads(take, depth)
    for layer in range(hidden):
        stem = f"{FIELD}mapping_network.network.{2 * layer}"
        found |= _pair(f"mapping_network.layers.{layer}", take(stem))
    last = take(f"{FIELD}mapping_network.network.{2 * hidden}")
    for kind, tensor in zip(("weight", "bias"), last, strict=True):
        shape = (2, depth + 1, sizes["width"], *tensor.shape[1:])
        gamma, beta = tensor.reshape(shape)
        found |= {f"mapping_network.gamma_{kind}": gamma, f"mapping_network.beta_{kind}": beta}
    return found | left


def _pair(stem: str, tensors: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    return {f"{stem}.weight": tensors[0], f"{stem}.bias": tensors[1]}


def _reads(take: Any, depth: int) -> dict[str, Tensor]:
    """What is read of layers is summed, so their biases are one."""
    found, biases = {}, []
    for name, published in (("density", "sigma"), ("colour", "color")):
        pairs = [take(f"{FIELD}output_{published}.{layer}") for layer in range(depth - 1)]
        found[f"read_{name}"] = torch.stack([weight.t() for weight, _ in pairs])
        biases.append(torch.stack([bias for _, bias in pairs]).sum(0))
    return found | {"read_bias": torch.cat(biases)}


def _w_avg(network: Any) -> Tensor:
    network.centre()
    return network.w_avg.clone()


FORMAT = Format(
    "GRAM",
    "its generator.pth or ema.pth, of faces or cats",
    "not in the file; the published weights: Microsoft Research License, non-commercial",
    matches,
    parts,
)
