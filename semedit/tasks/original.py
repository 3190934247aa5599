"""The photograph behind a face's edits: what they keep of it, at its own size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from semedit import detail, latents, weights
from semedit.batch.workspace import Workspace
from semedit.errors import LatentError
from semedit.faces.estimates import estimates
from semedit.generators import Output
from semedit.latents import Latent
from semedit.media.decoding import read_photo
from semedit.media.pixels import to_tensor, to_uint8
from semedit.tasks import read_latent

PHOTOGRAPH, INVERSION = "photograph", "inversion"  # roles of input files
WEIGHTS = detail.NAME


@dataclass(frozen=True, eq=False)
class Original:
    """photo float32 [1,3,S,S] in [-1,1], the aligned crop; inversion: its latent."""

    photo: Tensor
    inversion: Latent


def original_inputs(space: Workspace, name: str) -> dict[str, Path]:
    """The files of a face's photograph and inversion, role -> path; {} where there is none: faces
    that were drawn or imported have no photograph."""
    crop, latent = space.path("faces", name, ".png"), space.path("latents", name, ".safetensors")
    there = crop.is_file() and latent.is_file() and weights.on_disk(WEIGHTS)
    return {PHOTOGRAPH: crop, INVERSION: latent} if there else {}


def read_original(inputs: Mapping[str, Path], generator: Any) -> tuple[Original | None, str | None]:
    """The original of an item, and why there is none although its files are there: the face was
    inverted into another generator.

    Raises: InputError: the photograph cannot be read.
    """
    if PHOTOGRAPH not in inputs:
        return None, None
    try:
        inversion = read_latent(inputs[INVERSION], generator)
    except LatentError as error:
        return None, f"without the photograph's detail: {error.message}"
    return Original(to_tensor(read_photo(inputs[PHOTOGRAPH]).pixels), inversion), None


@torch.no_grad()
def with_detail(
    generator: Any, original: Original, after: Output, device: str
) -> tuple[np.ndarray, float]:
    """An edit as the generator draws it, one face in its own view, with the photograph's detail:
    uint8 [S,S,3] at the photograph's size, and the share of it that changed."""
    before = latents.picture(generator, original.inversion.to(device))
    labels, labels_after = (_labels(output) for output in (before, after))
    image, mask = detail.carry(
        detail.load(device),
        original.photo.to(device),
        before.image,
        after.image,
        labels,
        labels_after,
    )
    return to_uint8(image)[0], float(mask.mean())


def _labels(output: Output) -> Tensor:
    """int64 [1,R,R], by the generator, or where it draws none by the face network."""
    if output.seg is None:
        return estimates(output.image.clamp(-1, 1))[0]
    seg = torch.nn.functional.interpolate(
        output.seg, output.image.shape[-2:], mode="bilinear", align_corners=False
    )
    return seg.argmax(1)
