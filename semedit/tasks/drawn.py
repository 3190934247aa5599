"""Drawn label maps: which belong to which faces, and what they say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from semedit.batch.workspace import Workspace
from semedit.errors import MaskError, OptionError
from semedit.media.decoding import read_ids, read_labels, read_part
from semedit.media.labels import SCHEME
from semedit.media.masks import fit_labels, joined, parts_in
from semedit.media.orders import Ids, understood

MAP, PART = "mask", "mask."  # roles of input files: a whole map, or MASK.LABEL, one of its parts
SURE = 0.5  # a mask belongs to the face it differs from least, if that is less than half of others


def drawn_maps(space: Workspace, names: Sequence[str], given: Path) -> dict[str, dict[str, Path]]:
    """Face -> its drawn map: role -> file.

    Args:
        given: one map, or a folder of maps named like the faces, or of parts, NAME_LABEL.png.

    Raises:
        OptionError: which face a single map belongs to is not clear.
    """
    if not given.is_dir():
        return {_owner(space, names, given): {MAP: given}}
    found: dict[str, dict[str, Path]] = {}
    for name in names:
        whole = given / f"{name}.png"
        files = {MAP: whole} if whole.is_file() else _parts(given, name, alone=len(names) == 1)
        if files:
            found[name] = files
    return found


def _parts(folder: Path, name: str, alone: bool) -> dict[str, Path]:
    """The parts of a face: of its name, of the same number, or of the only name that there is for
    the only face."""
    place = (folder / name).parent
    found, last = parts_in(place), Path(name).name
    for prefix, parts in found.items():
        numbers = prefix.isdecimal() and last.isdecimal() and int(prefix) == int(last)
        if prefix == last or numbers or (alone and len(found) == 1):
            return {PART + label: path for label, path in parts.items()}
    return {}


def every_map(given: Path) -> dict[str, dict[str, Path]]:
    """Name -> map, role -> file, of one map or of all in a folder; files of two parts and more
    of one name are a map."""
    if not given.is_dir():
        return {given.stem: {MAP: given}}
    parts = {name: found for name, found in parts_in(given).items() if len(found) > 1}
    of_parts = {path for found in parts.values() for path in found.values()}
    whole = {path.stem: {MAP: path} for path in given.glob("*.png") if path not in of_parts}
    apart = {
        name: {PART + label: path for label, path in found.items()} for name, found in parts.items()
    }
    return dict(sorted({**apart, **whole}.items()))


def read_map(inputs: Mapping[str, Path]) -> np.ndarray:
    """A map that no face is there for, as CelebAMask-HQ ids int64 [H,W].

    Raises: InputError, MaskError: as `masks.read_labels` and `masks.read_part`.
    """
    parts = _parts_of(inputs)
    return read_labels(inputs[MAP]) if not parts else _joined(parts)


def _parts_of(inputs: Mapping[str, Path]) -> dict[str, Path]:
    return {role.removeprefix(PART): path for role, path in inputs.items() if PART in role}


def _joined(parts: Mapping[str, Path]) -> np.ndarray:
    return joined({label: read_part(path) for label, path in parts.items()})


def read_drawn(
    inputs: Mapping[str, Path], own: Sequence[np.ndarray]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """A drawn map as CelebAMask-HQ ids int64 [H,W] of the own maps' size, and warnings.

    Args:
        inputs: files of an item; own: maps that the drawing may have started from.

    Raises:
        InputError: a file cannot be read.
        MaskError: it is no label map, its labels are not clear, or its shape is another.
    """
    parts = _parts_of(inputs)
    path = next(iter(parts.values())).parent if parts else inputs[MAP]
    ids = Ids(_joined(parts), SCHEME) if parts else read_ids(path)
    values, warning = fit_labels(ids.values, *own[0].shape)
    warnings = [] if warning is None else [warning]
    refusal: MaskError | None = None
    for map_ in own:
        try:
            labels, order = understood(Ids(values, ids.order), fit_labels(map_, *own[0].shape)[0])
        except MaskError as error:
            refusal = refusal or MaskError(f"{path}: {error.message}", error.hint)
            continue
        return labels, (*warnings, *([] if order is None else [f"the mask is {order}"]))
    assert refusal is not None  # there is an own map
    raise refusal


def difference(drawn: np.ndarray, labels: np.ndarray) -> float:
    """Share of pixels in which two label maps differ; maps of unlike shape differ wholly."""
    try:
        fitted, _ = fit_labels(drawn, *labels.shape)
    except MaskError:
        return 1.0
    return float((fitted != labels).mean())


def _owner(space: Workspace, names: Sequence[str], mask: Path) -> str:
    """The face that a single mask belongs to: the only one, the one of its name, else the one
    whose own map it differs from least by far.

    Raises:
        OptionError: none is clearly meant.
    """
    if len(names) == 1:
        return names[0]
    if mask.stem in names:
        return mask.stem
    ids = read_ids(mask)
    own = {name: space.path("masks", name, ".png") for name in names}
    ranked = sorted(
        (_apart(ids, read_labels(path)), name) for name, path in own.items() if path.is_file()
    )
    if len(ranked) > 1 and ranked[0][0] < SURE * ranked[1][0]:
        return ranked[0][1]
    raise OptionError(
        f"which of {len(names)} faces {mask} belongs to is not clear",
        "name the face behind the command, or call the mask like it",
    )


def _apart(ids: Ids, own: np.ndarray) -> float:
    """Share of pixels in which a map differs from a face's, as far as it is understood by it."""
    try:
        values, _ = fit_labels(ids.values, *own.shape)
        return difference(understood(Ids(values, ids.order), own)[0], own)
    except MaskError:
        return 1.0
