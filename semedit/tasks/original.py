"""The photograph behind a face's edits: what they keep of it, at its own size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from semedit import detail, weights
from semedit.batch.workspace import Workspace
from semedit.errors import LatentError
from semedit.generators import Output
from semedit.latents import Latent
from semedit.media.decoding import read_photo
from semedit.media.pixels import to_tensor
from semedit.tasks import read_latent

PHOTOGRAPH, INVERSION = "photograph", "inversion"  # roles of input files
WEIGHTS = detail.NAME


@dataclass(frozen=True, eq=False)
class Original:
    """photo float32 [1,3,S,S] in [-1,1], the aligned crop; inversion: its latent."""

    photo: Tensor
    inversion: Latent
    drawn: list[Output] = field(default_factory=list)  # the inversion's picture, once it was drawn


def original_inputs(space: Workspace, name: str, start: str | None = None) -> dict[str, Path]:
    """The files of a face's photograph and of the inversion that its edits come from, role -> path;
    {} where there is none: faces that were drawn or imported have no photograph.

    Args: start: where an edit starts from, as Workspace.source takes it.
    """
    crop, latent = space.path("faces", name, ".png"), space.origin(space.source(name, start))
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


def with_detail(
    generator: Any, original: Original, after: Output, device: str
) -> tuple[Tensor, Tensor]:
    """An edit as the generator draws it, one face in its own view, with the photograph's detail:
    float32 [1,3,S,S] at the photograph's size, and the soft mask [1,1,S,S] of what changed."""
    photo, inversion = original.photo.to(device), original.inversion.to(device)
    network = detail.load(device)
    return detail.edited_photo(network, generator, photo, inversion, after, original.drawn)
