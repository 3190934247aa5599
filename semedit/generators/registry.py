"""Generators by name, and as weight files. Add one: write its file, add its line."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from semedit import weights
from semedit.errors import WeightsError
from semedit.generators.cnerf.cnerf import CNeRF
from semedit.generators.cnerf.config import CNeRFConfig
from semedit.generators.contract import Generator
from semedit.generators.l2sae.l2sae import L2SAE, L2SAEConfig
from semedit.generators.parts.encoder import load_encoder
from semedit.generators.stylegan2.stylegan2 import StyleGAN2, StyleGAN2Config
from semedit.generators.stylegan3.stylegan3 import StyleGAN3, StyleGAN3Config
from semedit.generators.surfaces.gram import GRAM, GRAMConfig
from semedit.generators.surfaces.manifolds import Manifolds, ManifoldsConfig
from semedit.generators.triplane.eg3d import EG3D, EG3DConfig
from semedit.generators.triplane.ide3d import IDE3D, IDE3DConfig
from semedit.generators.triplane.triplane import Triplane, TriplaneConfig

GENERATORS: dict[str, type[Generator]] = {
    "triplane": Triplane,
    "stylegan2": StyleGAN2,
    "stylegan3": StyleGAN3,
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
    "stylegan3": StyleGAN3Config,
    "l2sae": L2SAEConfig,
    "cnerf": CNeRFConfig,
    "eg3d": EG3DConfig,
    "ide3d": IDE3DConfig,
    "gram": GRAMConfig,
    "manifolds": ManifoldsConfig,
}


def build_generator(kind: str, config: dict[str, Any], name: str) -> Generator:
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
    try:
        encoder = path.with_name(named + ".safetensors")
    except ValueError as error:
        raise WeightsError(f"{name} names an encoder that cannot be: {named[:60]!r}") from error
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


def load_generator(name: str, device: str | torch.device = "cpu") -> Generator:
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
    generator = weights.built(
        lambda config: build_generator(kind, config, path.stem), metadata, name
    )
    weights.fill(generator, tensors, name)
    for encoder in encoders:
        generator.attach(partial(load_encoder, str(encoder), device))
    return generator.eval().requires_grad_(False).to(device)
