"""Directions that others published, in the files of StyleGAN editors."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor

from semedit import weights
from semedit.checkpoints.arrays import pick, read_arrays
from semedit.directions.directions import Directions, normal
from semedit.directions.fitting import sample
from semedit.errors import InputError, LatentError, TraitError
from semedit.generators.contract import Generator
from semedit.latents import fingerprint

SAMPLES = 10_000  # mapped to measure the deviation along a direction

# InterFaceGAN names its files after the GAN and the space; these GANs have other spaces of the
# same width, so that a shape alone would let them pass.
FOREIGN = re.compile(r"(?P<gan>pggan|stylegan)_(?P<data>celebahq|ffhq)_\w+boundary", re.IGNORECASE)
# sha256 of InterFaceGAN's files, which other projects pass on under other names.
FOREIGN_SHA256 = {
    "f92c72c6621fd9630a2100168462a15a531bee410099847fdcdf844159eb7e30": "StyleGAN (2019) FFHQ",
    "ac826235cc7347eb1f57ba9e6e2904e52f34a6052a4db03dc693648a4f231cc5": "StyleGAN (2019) FFHQ",
    "077953b129bbb52605b3391d4824938c9ded35337f60d282478c72dcc3c5c28f": "StyleGAN (2019) FFHQ",
    "688585cf4d2bc3eead7bc18b4cf6e0985a0beb8a5ed46f25a08b2925d33efc1a": "StyleGAN (2019) FFHQ",
    "5a729c200c2c933806116cb77624ccedbd6fce21aa98fca8be49aeaa35caa1c7": "StyleGAN (2019) FFHQ",
}


def import_directions(
    generator: Generator,
    path: str | Path,
    name: str | None = None,
    samples: int = SAMPLES,
    key: str | None = None,
) -> Directions:
    """Directions of a published file, for a generator with W+ codes.

    Taken are arrays of shape (w_dim,), (1,w_dim), (num_ws,w_dim) or (1,num_ws,w_dim), of any
    length, also with all layers in one row, and the components of GANSpace files,
    {"comp", "std", ...}, as NAME-00, NAME-01, ...
    The deviation, unit of strength, is measured over samples of the generator.

    Args:   path: whatever arrays.read_arrays reads; name: of the direction; None: the file's.
            key: which array of the file; None: the only one that fits.
    Raises: InputError: no array of numbers, or several.  LatentError: of another space or width.
            TraitError: the generator has no W+.  WeightsError: damaged, or it needs code to load.
    """
    path = Path(path)
    mean = generator.mean_codes()
    if set(mean) != {"ws"} or mean["ws"].ndim != 3:
        raise TraitError(f"{generator.name} has no W+ codes, which published directions move")
    _refuse_foreign(path, generator)
    found = {
        k: _fitted(v, generator, path)
        for k, v in _read(path, name or path.stem, key, tuple(mean["ws"].shape))
    }
    ws = sample(generator, samples, batch=500)[0]["ws"]
    units = {key: normal({"ws": direction}) for key, direction in found.items()}
    figures = {
        key: {"deviation": float(_along(ws, unit["ws"]).std()), "samples": float(samples)}
        for key, unit in units.items()
    }
    return Directions(units, generator.name, fingerprint(generator), figures)


def _along(ws: Tensor, unit: Tensor) -> Tensor:
    """How far codes lie along a direction: [n]; either may have one row for all layers.

    Args: ws [n,1 or num_ws,w_dim]; unit [1 or num_ws,w_dim].
    """
    if len(unit) == 1:
        return ws.mean(1) @ unit[0]
    return ws[:, 0] @ unit.sum(0) if ws.shape[1] == 1 else ws.flatten(1) @ unit.flatten()


def _refuse_foreign(path: Path, generator: Generator) -> None:
    """Directions that are known to be of another generator's space."""
    if not path.is_file():
        raise InputError(f"{path} is not a file")
    known = FOREIGN_SHA256.get(weights.file_sha256(path))
    named = FOREIGN.search(path.stem)
    if known is None and named is None:
        return
    gan = {"pggan": "PGGAN", "stylegan": "StyleGAN (2019)"}
    whose = known or f"{gan[named['gan'].lower()]} {named['data'].upper()}"  # type: ignore[index]
    raise LatentError(
        f"{path.name} is InterFaceGAN's boundary of {whose}, another space than that of "
        f"{generator.name}",
        hint="fit one in its own: semedit directions fit ATTRIBUTE",
    )


def _read(
    path: Path, name: str, key: str | None, shape: tuple[int, ...]
) -> list[tuple[str, Tensor]]:
    """(name, array) of the directions of a file.

    Args: shape: [1,num_ws,w_dim] of the generator's codes.
    """
    arrays = read_arrays(path)
    for one, value in arrays.items():
        if not value.is_floating_point() and len(arrays) == 1:
            kind = str(value.dtype).removeprefix("torch.")
            place = f": {one}" if one else ""
            raise InputError(f"{path.name}{place} holds {kind}, not floating point numbers")
    arrays = {k: v for k, v in arrays.items() if v.is_floating_point()}
    if key is None and "comp" in arrays:
        parts = arrays["comp"].flatten(1)
        return [(f"{name}-{i:02d}", part[None]) for i, part in enumerate(parts)]
    if key is None and set(arrays) == {"w"} and arrays["w"].ndim == 3 and path.suffix == ".npz":
        raise InputError(
            f"{path.name} holds the code of a face, as projectors write it, not a direction",
            hint="semedit latents import takes it; --key w makes it a direction all the same",
        )
    fitting = {k: v for k, v in arrays.items() if _rows(v, shape) is not None}
    if key is None and len(fitting) == 1:  # beside an intercept, a bias, a mean
        arrays = fitting
    return [(name, pick(path, arrays, key, "directions")[1])]


def _rows(value: Tensor, shape: tuple[int, ...]) -> Tensor | None:
    """An array as a direction [1 or num_ws, w_dim]; None if it does not fit codes of a shape."""
    _, layers, width = shape
    if value.numel() not in (width, layers * width):
        return None
    own = tuple(size for size in value.shape if size != 1)
    if own not in ((width,), (layers, width), (layers * width,)):
        return None
    return value.reshape(-1, width)


def _fitted(value: Tensor, generator: Generator, path: Path) -> Tensor:
    """The direction as [1 or num_ws, w_dim].

    Raises: LatentError: it does not fit.
    """
    codes = tuple(generator.mean_codes()["ws"].shape)
    _, layers, width = codes
    direction = _rows(value, codes)
    if direction is None:
        raise LatentError(
            f"{path.name} has the shape {tuple(value.shape)}; directions of {generator.name} have "
            f"({width},), (1, {width}), ({layers}, {width}) or (1, {layers}, {width})",
            hint="it was made for a generator of another width or resolution",
        )
    direction = direction.float()
    if not bool(torch.isfinite(direction).all()) or not bool(direction.any()):
        raise InputError(f"{path.name} is zero, or holds NaN or infinity")
    return direction
