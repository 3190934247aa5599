"""Label maps <-> palette PNG files.

A map in another order or other colours is refused with a list of what was found.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from semedit.errors import MaskError
from semedit.media.files import atomic_path
from semedit.media.labels import LABELS, PALETTE, SCHEME
from semedit.media.orders import ORDERS, Ids
from semedit.media.photographs import MAX_PIXELS, opened, read_bytes

if TYPE_CHECKING:
    import torch


PAINT = f"paint with exactly the labels of {SCHEME}, without anti-aliasing"


SEAM = 0.02  # share of a part's pixels that JPEG and resizing may have left grey
MANY = 1000  # colours: more than any label map has, with anti-aliasing, too


_PART = re.compile(rf"(.+)_({'|'.join(LABELS[1:])})")


COLOUR_KEY = np.array([1 << 16, 1 << 8, 1])  # takes a colour to one number


def colorize(labels: np.ndarray | torch.Tensor) -> np.ndarray:
    """int [...,H,W] -> uint8 [...,H,W,3] in the colours of PALETTE."""
    return np.array(PALETTE, np.uint8)[np.asarray(labels)]


def write_labels(path: str | Path, labels: np.ndarray | torch.Tensor) -> None:
    """Write int [H,W] atomically as a palette PNG that names its scheme.

    Raises:
        MaskError: an id outside 0..18.
    """
    ids = np.asarray(labels)
    _check_ids(Path(path), ids)
    image = Image.fromarray(ids.astype(np.uint8)).convert("P")
    image.putpalette(np.array(PALETTE, np.uint8).tobytes())
    info = PngInfo()
    info.add_text("label-scheme", SCHEME)
    with atomic_path(path) as temporary:
        image.save(temporary, "PNG", pnginfo=info)


def read_labels(path: str | Path) -> np.ndarray:
    """Read a label map: int64 [H,W], CelebAMask-HQ ids.

    Accepted are PNG files with a palette or full colour, in exactly the colours of PALETTE, and
    grey ones whose values are the ids. Colours decide, not palette positions, because paint
    programs sort palettes anew.

    Raises:
        InputError: not a readable picture.
        MaskError: lossy file, foreign colours or ids (listed), or another label scheme.
    """
    path = Path(path)
    ids = read_ids(path)
    if ids.order not in (None, SCHEME):
        raise MaskError(f"{path}: label scheme {ids.order!r}, not {SCHEME}")
    _check_ids(path, ids.values)
    if ids.order is None:
        _refuse_other_order(path, ids.values)
    return ids.values


def read_ids(path: str | Path) -> Ids:
    """Read a label map whose numbers may be in any order; see `orders.understood`.

    The order is known where the file names it, or has the colours of PALETTE. Of a palette in
    other colours, such as other tools write, the positions are the numbers.

    Raises:
        InputError: not a readable picture.
        MaskError: lossy file, foreign colours (listed), or an unknown label scheme.
    """
    path = Path(path)
    with opened(path, read_bytes(path), MAX_PIXELS) as image:
        image.load()
        if image.format != "PNG":
            raise MaskError(
                f"{path}: a label map must be a PNG, this is {image.format}"
                f"{_foreign(_exact_pixels(image.convert('RGB'), path))}",
                "other formats change colours; save it as PNG without anti-aliasing",
            )
        order = image.info.get("label-scheme")
        if order is not None and order not in ORDERS:
            raise MaskError(f"{path}: label scheme {order!r}, not {SCHEME}")
        pixels = _exact_pixels(image, path)
        places = np.asarray(image) if image.mode == "P" else None
    if pixels.ndim == 3 and (pixels == pixels[..., :1]).all() and pixels.any():
        pixels = pixels[..., 0]  # ids painted as grey in full colour
    most = max(map(len, ORDERS.values()))
    if pixels.ndim == 2:
        if pixels.max() >= most:
            _check_ids(path, pixels)
        return Ids(pixels.astype(np.int64), order)
    if places is not None and places.max() < most and (_nearest_ids(pixels) < 0).any():
        return Ids(places.astype(np.int64), order)
    return Ids(_ids_of_colours(path, pixels), SCHEME)


def read_part(path: str | Path) -> np.ndarray:
    """Where one part of a face is, as CelebAMask-HQ keeps it: white in a picture of its own.

    Returns: uint8 [H,W], 0 or 1.

    Raises:
        InputError: not a readable picture.
        MaskError: it is not black and white.
    """
    path = Path(path)
    with opened(path, read_bytes(path), MAX_PIXELS) as image:
        grey = np.asarray(image.convert("L"))
    if ((grey > 64) & (grey < 192)).mean() > SEAM:
        raise MaskError(f"{path}: the mask of a part is black and white")
    return (grey >= 128).astype(np.uint8)


def joined(parts: Mapping[str, np.ndarray]) -> np.ndarray:
    """Label map int64 [H,W] of parts, label -> [H,W]; later ones of LABELS lie over earlier ones.

    Raises: MaskError: they are of several sizes.
    """
    shapes = sorted({part.shape for part in parts.values()})
    if len(shapes) > 1:
        raise MaskError(f"parts of several sizes: {', '.join(f'{w} x {h}' for h, w in shapes)}")
    found = np.zeros(shapes[0], np.int64)
    for label in sorted(parts, key=LABELS.index):
        found[parts[label] > 0] = LABELS.index(label)
    return found


def parts_in(folder: Path) -> dict[str, dict[str, Path]]:
    """CelebAMask-HQ's files of a folder, NAME_LABEL.png: name -> label -> file."""
    found: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.glob("*.png")):
        fitting = _PART.fullmatch(path.stem)
        if fitting:
            found.setdefault(fitting[1], {})[fitting[2]] = path
    return found


def fit_labels(labels: np.ndarray, height: int, width: int) -> tuple[np.ndarray, str | None]:
    """Bring a label map to a face's size by nearest neighbour.

    Returns:
        int64 [height,width], and a warning if the size had to change.

    Raises:
        MaskError: another aspect ratio.
    """
    rows, columns = labels.shape
    if (rows, columns) == (height, width):
        return labels, None
    if abs(columns / rows - width / height) > 0.01 * width / height:
        raise MaskError(f"the mask is {columns} x {rows}, the face {width} x {height}")
    y = ((np.arange(height) + 0.5) * rows / height).astype(int)
    x = ((np.arange(width) + 0.5) * columns / width).astype(int)
    return labels[y[:, None], x], f"mask resized from {columns} x {rows} to {width} x {height}"


def _exact_pixels(image: Image.Image, path: Path) -> np.ndarray:
    """Grey values [H,W] or colours uint8 [H,W,3] of a label map, nothing blended or scaled."""
    if image.mode == "1":
        raise MaskError(f"{path}: a black-and-white mask does not say which labels it means")
    if image.mode == "L" or image.mode.startswith("I"):
        return np.asarray(image)
    rgba = np.asarray(image.convert("RGBA"))
    if (rgba[..., 3] != 255).any():
        raise MaskError(f"{path}: a label map must not be transparent")
    return rgba[..., :3]


def _ids_of_colours(path: Path, pixels: np.ndarray) -> np.ndarray:
    """uint8 [H,W,3] -> int64 [H,W]; foreign colours are refused and listed."""
    ids = _nearest_ids(pixels)
    if (ids < 0).any():
        blended = len(np.unique(pixels.astype(np.int64) @ COLOUR_KEY)) > MANY
        hint = "give the label map itself, not its overlay on a picture" if blended else PAINT
        raise MaskError(f"{path}: colours that are no label{_foreign(pixels)}", hint)
    return ids


def _nearest_ids(pixels: np.ndarray) -> np.ndarray:
    """uint8 [H,W,3] -> int64 [H,W] of the labels with these colours, -1 where there is none."""
    keys = pixels.astype(np.int64) @ COLOUR_KEY
    known = np.array(PALETTE) @ COLOUR_KEY
    order = known.argsort()
    place = order[np.searchsorted(known, keys, sorter=order).clip(max=len(known) - 1)]
    return np.where(known[place] == keys, place, -1).astype(np.int64)


def _foreign(pixels: np.ndarray) -> str:
    """The colours of uint8 [H,W,3] that are no label's: `: #010203 (5 px), ...`, or nothing."""
    foreign = pixels[_nearest_ids(pixels) < 0]
    colours, counts = np.unique(foreign.astype(np.int64) @ COLOUR_KEY, return_counts=True)
    listed = _listed([f"#{colour:06x}" for colour in colours], counts)
    return f": {listed}" if listed else ""


def _check_ids(path: Path, ids: np.ndarray) -> None:
    """Raise MaskError unless all ids are whole numbers in 0..18."""
    if ids.dtype.kind not in "iub":
        raise MaskError(f"{path}: labels are whole numbers, not {ids.dtype}", PAINT)
    foreign = (ids < 0) | (ids >= len(LABELS))
    if foreign.any():
        values, counts = np.unique(ids[foreign], return_counts=True)
        listed = _listed([str(value) for value in values], counts)
        raise MaskError(f"{path}: ids that are no label: {listed}", PAINT)


def _listed(names: list[str], counts: np.ndarray) -> str:
    """What there is most of, at most eight."""
    most = np.argsort(-counts, kind="stable")[:8]
    listed = ", ".join(f"{names[i]} ({counts[i]} px)" for i in most)
    return f"{listed} and {len(names) - 8} more" if len(names) > 8 else listed


def _refuse_other_order(path: Path, ids: np.ndarray) -> None:
    """Grey ids without a scheme are ambiguous when they make more sense in BiSeNet's order.

    There 17 is hair and 14 the neck; here 13 is hair and 17 the neck, which lies below the skin.
    """
    rows = np.arange(ids.shape[0])[:, None] * np.ones_like(ids)
    neck, skin = ids == LABELS.index("neck"), ids == LABELS.index("skin")
    if neck.any() and skin.any() and rows[neck].mean() < rows[skin].mean():
        raise MaskError(
            f"{path}: ambiguous ids: 17 lies above the skin, so this may be BiSeNet's label order",
            f"paint it in the colours of {SCHEME} instead",
        )
