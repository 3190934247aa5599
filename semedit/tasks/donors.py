"""Faces that edits take something from: of the workspace, or files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from semedit import latents
from semedit.batch.workspace import Workspace
from semedit.errors import InputError, OptionError, TraitError
from semedit.faces.estimates import estimates
from semedit.generators.contract import Generator
from semedit.latents import Latent
from semedit.media.decoding import read_photo
from semedit.media.pixels import resize, to_tensor
from semedit.options import suggestion
from semedit.tasks import read_latent


def donor_file(space: Workspace, given: str, photo: bool = False) -> Path:
    """The newest latent of a face of the workspace, or the file of that name: a latent, or a
    picture of an aligned face.

    Args:   photo: the newest picture of a face instead of its latent.
    Raises: OptionError: neither.  InputError: the face has no latent.
    """
    names = space.faces()
    if given in names:
        newest = space.source(given, photo=photo)
        return newest.with_suffix(".png") if photo else newest
    if Path(given).is_file():
        return Path(given)
    raise OptionError(
        f"{given} is neither a face of {space.root} nor a file",
        suggestion(given, names[:200]),
    )


def receivers(names: Sequence[str], donor: str) -> list[str]:
    """The faces that a donor gives to: not itself.

    Raises: OptionError: there is no other.
    """
    others = [name for name in names if name != donor]
    if not others:
        raise OptionError(f"there is no face other than {donor} to give regions to")
    return others


def read_aligned(path: str | Path) -> Tensor:
    """The picture [1,3,S,S] of an aligned face, in [-1,1].

    Raises: InputError: it is not square.
    """
    image = to_tensor(read_photo(path).pixels)
    height, width = image.shape[-2:]
    if height != width:
        raise InputError(
            f"{path} is {width} x {height} pixels, no aligned face", "run `semedit align` on it"
        )
    return image


@torch.no_grad()
def read_donor(path: str | Path, generator: Generator) -> Latent:
    """The latent of a file, or what the generator's encoder makes of a picture, whose label map
    and camera the built-in face networks estimate.

    Raises: LatentError: a latent of another generator.  InputError: a picture that is not square.
            TraitError: a picture, but the generator has no encoder.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        return read_latent(path, generator)
    if "encode" not in generator.traits:
        raise TraitError(
            f"{generator.name} has no encoder that could read {path}",
            hint="invert the face first, and give its name",
        )
    image = resize(read_aligned(path), generator.resolution)
    labels, c = estimates(image)
    codes = generator.encode(image, labels, c)
    return Latent(codes, c, generator.name, latents.fingerprint(generator), "encoder")
