"""Generators: the protocol they share, what they return, and which there are.

    codes = generator.mapping(z, c)          z [N,z_dim] standard normal -> dict of named tensors
    output = generator.synthesis(codes, c)   codes and camera -> Output

A generator that knows cameras (trait "camera") does its work in two halves, so that many views
cost little more than one: `planes(codes)` once per face, `render(planes, c)` per view, and
synthesis(codes, c) == render(planes(codes), c). No call changes what a later one returns.

Traits: "ws" (codes["ws"] is W+), "camera", "seg" (Output.seg), "noise" (`noises` names maps that
synthesis takes), "coarse" (synthesis can end at a lower resolution), "regions", "encode",
"slices" (of a code's channels, each of which answers for a region: `region_logits`), "texture"
(the first `num_shape` styles shape a face; `optional_codes` give regions the texture of others),
"field" (density and colour at points of the box: `field`, `sigma`).
To add a generator: write its file, add its line to GENERATORS.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from .. import weights
from ..errors import WeightsError


@dataclass(frozen=True)
class Output:
    """What a generator shows.

    Attributes:
        image: float32 [N,3,R,R], sRGB in [-1,1] (not clamped).
        seg: logits [N,19,R,R], or None.
        depth: distance along the rays [N,1,r,r] in world units, or None.
        opacity: share of each ray that the volume stops [N,1,r,r], in [0,1], or None.
        low: the picture before up-sampling, or None.
    """

    image: Tensor
    seg: Tensor | None = None
    depth: Tensor | None = None
    opacity: Tensor | None = None
    low: Output | None = None


class Generator(Protocol):
    """What every generator offers; those with the trait "camera" also `planes` and `render`."""

    traits: ClassVar[frozenset[str]]
    name: str
    resolution: int  # pixels a side
    z_dim: int

    def mapping(self, z: Tensor, c: Tensor, truncation_psi: float = 1.0) -> dict[str, Tensor]: ...

    def synthesis(self, codes: dict[str, Tensor], c: Tensor, noise: str = "const") -> Output: ...

    def mean_codes(self) -> dict[str, Tensor]: ...


from .cnerf import CNeRF, CNeRFConfig  # noqa: E402  (needs Output)
from .eg3d import EG3D, EG3DConfig  # noqa: E402  (needs Output)
from .encoder import load_encoder  # noqa: E402
from .gram import GRAM, GRAMConfig  # noqa: E402  (needs Output)
from .ide3d import IDE3D, IDE3DConfig  # noqa: E402  (needs Output)
from .l2sae import L2SAE, L2SAEConfig  # noqa: E402  (needs Output)
from .manifolds import Manifolds, ManifoldsConfig  # noqa: E402  (needs Output)
from .stylegan2 import StyleGAN2, StyleGAN2Config  # noqa: E402  (needs Output)
from .triplane import Triplane, TriplaneConfig  # noqa: E402  (needs Output)

GENERATORS: dict[str, type[nn.Module]] = {
    "triplane": Triplane,
    "stylegan2": StyleGAN2,
    "l2sae": L2SAE,
    "cnerf": CNeRF,
    "eg3d": EG3D,
    "ide3d": IDE3D,
    "gram": GRAM,
    "manifolds": Manifolds,
}
CONFIGS: dict[str, Callable[..., Any]] = {
    "triplane": TriplaneConfig,
    "stylegan2": StyleGAN2Config,
    "l2sae": L2SAEConfig,
    "cnerf": CNeRFConfig,
    "eg3d": EG3DConfig,
    "ide3d": IDE3DConfig,
    "gram": GRAMConfig,
    "manifolds": ManifoldsConfig,
}


def build_generator(kind: str, config: dict[str, Any], name: str) -> nn.Module:
    """A generator with random weights; config: fields of its configuration, as JSON gives them."""
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}
    return GENERATORS[kind](CONFIGS[kind](**values), name=name)


def files_of(name: str) -> list[Path]:
    """The files that `load_generator` reads: the generator's and, where it lies beside it, that
    of the encoder it names; where it names none, of the encoder NAME-encoder.

    Raises: WeightsError: no such weights.
    """
    path = weights.resolve(name)
    named = weights.metadata(path).get("encoder", f"{path.stem}-encoder")
    encoder = path.with_name(named + ".safetensors")
    return [path, encoder] if encoder.is_file() else [path]


def traits_of(name: str) -> frozenset[str]:
    """What the generator of a weight file offers, told from the file's head; "encode" where its
    encoder lies beside it. Of weights that are no generator's: nothing.

    Raises: WeightsError: no such weights.
    """
    path, *encoders = files_of(name)
    kind = weights.metadata(path).get("kind", "")
    traits = frozenset(getattr(GENERATORS.get(kind), "traits", ()))
    return traits | {"encode"} if encoders else traits


def load_generator(name: str, device: str | torch.device = "cpu") -> Any:
    """The generator of a weight file, in eval mode, its parameters not trainable.

    The encoder that the file names is attached when it lies beside the file.

    Args:   name: of a row of weights.toml, or a path.
    Raises: WeightsError: no such weights, or they are no generator's.
    """
    path, *encoders = files_of(name)
    tensors, metadata = weights.load(path)
    kind = metadata.get("kind", "")
    if kind not in GENERATORS:
        raise WeightsError(f"{name} is no generator", hint=f"its kind is {kind or 'not given'}")
    generator: Any = build_generator(kind, json.loads(metadata["config"]), path.stem)
    weights.fill(generator, tensors, name)
    for encoder in encoders:
        generator.attach(partial(load_encoder, str(encoder), device))
    return generator.eval().requires_grad_(False).to(device)
