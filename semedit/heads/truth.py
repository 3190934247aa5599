"""Heads with everything an evaluation asks for: other views and true edits; the shipped set.

A set is one `.npz`: per head its pictures as encoded WebP and PNG bytes, and plain arrays. The
shipped one is read without the geometry.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from semedit.errors import InputError, OptionError
from semedit.heads.dataset import EVALUATION_SEED, palette_image, view_angles
from semedit.heads.render import Head, RenderedView

SHIPPED = Path(__file__).parents[1] / "data" / "evalset.npz"
SIDE_DEG = 25.0  # yaw of the two other views
EDITS = ("hair_length", "smile", "glasses", "nose")
QUALITY = 93  # of the pictures as WebP: errors 15 dB below what is measured


@dataclass(frozen=True, eq=False)
class Truth:
    """One head.

    seed        its seed, at least EVALUATION_SEED
    image       uint8 [S,S,3]; labels uint8 [S,S]; landmarks float32 [68,2] px; c float32 [25]
    attributes  bool [A]
    views       (c, image) at yaw -SIDE_DEG and +SIDE_DEG, pitch and roll as in `image`: on average
                at least SIDE_DEG away from it, never farther from the front than training goes
    edits       kind of EDITS -> (image, labels) of the head truly changed, same camera
    """

    seed: int
    image: np.ndarray
    labels: np.ndarray
    landmarks: np.ndarray
    c: np.ndarray
    attributes: np.ndarray
    views: tuple[tuple[np.ndarray, np.ndarray], ...]
    edits: dict[str, tuple[np.ndarray, np.ndarray]]


def edited(head: Head, kind: str) -> Head:
    """The head truly changed in one thing: hair to the other length, smile or glasses put on or
    taken off, nose to the other size; everything else as it was.

    Raises: OptionError: another kind.
    """
    p = head.parameters
    if kind == "hair_length":
        long = p.cut in ("long", "bob")
        changes: dict[str, object] = {"cut": "short" if long else "long", "bald": False}
        return head.edited(**changes, hair_length=0.3 if long else 0.6)
    if kind == "smile":
        return head.edited(smile=0.0 if p.smile > 0.3 else 0.85)
    if kind == "glasses":
        return head.edited(glasses=not p.glasses)
    if kind == "nose":
        return head.edited(nose_size=-0.3 if p.nose_size > 0.5 else 1.0)
    raise OptionError(f"edits are {', '.join(EDITS)}")


def render_truth(
    seed: int, size: int = 256, alone: bool = False, side_deg: float = SIDE_DEG
) -> Truth:
    """Render one head of the evaluation; `alone` without other views and edits.

    Args:   side_deg: yaw of the other views.

    Raises: OptionError: a seed that training may use.
    """
    if seed < EVALUATION_SEED:
        raise OptionError(f"evaluation takes seeds from {EVALUATION_SEED} up")
    head = Head(seed)
    yaw, pitch, roll = view_angles(seed, 1)[0]
    c = head.camera(yaw, pitch, roll)
    view = head.render(c, size)
    sides = () if alone else (-1, 1)
    turned = [head.camera(side * np.deg2rad(side_deg), pitch, roll) for side in sides]
    kinds = () if alone else EDITS
    changed: dict[str, RenderedView] = {kind: edited(head, kind).render(c, size) for kind in kinds}
    return Truth(
        seed=seed,
        image=view.image,
        labels=view.labels,
        landmarks=view.landmarks,
        c=c,
        attributes=head.attributes,
        views=tuple((other, head.render(other, size).image) for other in turned),
        edits={kind: (v.image, v.labels) for kind, v in changed.items()},
    )


def render_truths(
    n: int,
    seed: int,
    size: int = 256,
    progress: Callable[[int, int], None] | None = None,
    alone: bool = False,
    side_deg: float = SIDE_DEG,
) -> list[Truth]:
    """Heads seed .. seed + n - 1; `alone` without other views and edits; see `render_truth`."""
    found = []
    for i in range(n):
        found.append(render_truth(seed + i, size, alone, side_deg))
        if progress is not None:
            progress(i + 1, n)
    return found


def write_truths(path: str | Path, truths: Sequence[Truth]) -> None:
    """Write a set as one file."""
    path = Path(path)
    arrays: dict[str, np.ndarray] = {"seeds": np.array([t.seed for t in truths])}
    for i, truth in enumerate(truths):
        arrays[f"{i}/image"] = _picture(truth.image)
        arrays[f"{i}/labels"] = _labels(truth.labels)
        arrays[f"{i}/landmarks"] = truth.landmarks
        arrays[f"{i}/c"] = np.stack([truth.c, *(c for c, _ in truth.views)])
        arrays[f"{i}/attributes"] = truth.attributes
        for k, (_, image) in enumerate(truth.views):
            arrays[f"{i}/view/{k}"] = _picture(image)
        for kind, (image, labels) in truth.edits.items():
            arrays[f"{i}/edit/{kind}/image"] = _picture(image)
            arrays[f"{i}/edit/{kind}/labels"] = _labels(labels)
    with path.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def first_seed(seed: int, least: int = EVALUATION_SEED) -> int:
    """Where fresh heads begin: at a seed that no training uses, which `seed` is or counts from."""
    return seed if seed >= EVALUATION_SEED else seed + least


def read_truths(path: str | Path = SHIPPED) -> list[Truth]:
    """Read a set.

    Raises: InputError: the file is not there or not a set.
    """
    path = Path(path)
    try:
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}
        return [_truth(arrays, i, int(seed)) for i, seed in enumerate(arrays["seeds"])]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path} is not an evaluation set: {error}") from error


def _truth(arrays: dict[str, np.ndarray], i: int, seed: int) -> Truth:
    c = arrays[f"{i}/c"]
    edits = {
        kind: (
            _decode(arrays[f"{i}/edit/{kind}/image"]),
            _decode(arrays[f"{i}/edit/{kind}/labels"]),
        )
        for kind in EDITS
        if f"{i}/edit/{kind}/image" in arrays
    }
    return Truth(
        seed=seed,
        image=_decode(arrays[f"{i}/image"]),
        labels=_decode(arrays[f"{i}/labels"]),
        landmarks=arrays[f"{i}/landmarks"],
        c=c[0],
        attributes=arrays[f"{i}/attributes"],
        views=tuple((c[k + 1], _decode(arrays[f"{i}/view/{k}"])) for k in range(len(c) - 1)),
        edits=edits,
    )


def _picture(image: np.ndarray) -> np.ndarray:
    return _encoded(Image.fromarray(image), "WEBP", quality=QUALITY, method=6)


def _labels(labels: np.ndarray) -> np.ndarray:
    return _encoded(palette_image(labels), "PNG", optimize=True)


def _encoded(image: Image.Image, kind: str, **options: object) -> np.ndarray:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return np.frombuffer(stream.getvalue(), np.uint8)


def _decode(data: np.ndarray) -> np.ndarray:
    """Pixels of a picture, ids of a palette image."""
    return np.array(Image.open(io.BytesIO(data.tobytes())))
