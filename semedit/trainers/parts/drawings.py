"""What a generator draws of heads and of their edits: the softness that detail is to undo.

Kept in a data set's folder, head by head, since inverting takes seconds a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from semedit import losses
from semedit.datasets.edited import Edited
from semedit.datasets.stored import DAMAGED
from semedit.editors.parts.composites import keep_outside
from semedit.editors.parts.tuned import fade_tuning
from semedit.faces.estimates import estimates
from semedit.generators.contract import Generator
from semedit.inverters import Hybrid
from semedit.latents import Latent, fingerprint, picture
from semedit.media.files import alone_in, atomic_path
from semedit.media.pixels import resize, to_uint8

WAYS = 2  # how each edit is drawn; see drawings
GROWN, SOFT = 2.0, 1.0  # of the edited region, as in editors.mask.Mask, hundredths
CHANGE = 0.12  # of a pixel, in pictures of [-1,1], from which it is edited
NAMES = ("before", "labels", "after", "labels_after")


@dataclass(frozen=True, eq=False)
class Drawings:
    """Of N heads with E edits, drawn in WAYS ways, at the generator's R px:
    before uint8 [N,R,R,3], labels uint8 [N,R,R]; after uint8 [N,E,WAYS,R,R,3], labels_after."""

    before: np.ndarray
    labels: np.ndarray
    after: np.ndarray
    labels_after: np.ndarray

    def __len__(self) -> int:
        return len(self.before)


def drawings(data: Edited, generator: Generator, inverter: Hybrid, count: int) -> Drawings:
    """The first `count` heads, inverted with estimated cameras and labels, and their edits: by the
    codes that an encoder finds for the other label map, and for the truly edited picture; what
    did not change keeps the inversion's pixels, as editors do. Those that are kept are read."""
    count = min(count, len(data.images))
    folder = data.folder / "cache" / f"drawn-{fingerprint(generator)[:12]}"
    with alone_in(folder, wait=True):
        rows = [
            _kept(folder / f"{head:06d}.npz") or _made(folder, data, generator, inverter, head)
            for head in tqdm(range(count), desc="drawings", disable=None)
        ]
    return Drawings(*(np.stack([row[name] for row in rows]) for name in NAMES))


def _kept(path: Path) -> dict[str, np.ndarray] | None:
    try:
        with np.load(path) as file:
            return {name: file[name] for name in NAMES}
    except (OSError, *DAMAGED):
        return None


def _made(
    folder: Path, data: Edited, generator: Generator, inverter: Hybrid, head: int
) -> dict[str, np.ndarray]:
    pixels = torch.from_numpy(data.images[head].astype(np.float32)).permute(0, 3, 1, 2)
    images = resize(pixels / 127.5 - 1, generator.resolution).to(generator.device)
    row = draw(generator, images, inverter)
    with atomic_path(folder / f"{head:06d}.npz") as partial, partial.open("wb") as file:
        np.savez_compressed(file, **row)  # type: ignore[arg-type]
    return row


def draw(generator: Generator, images: Tensor, inverter: Any) -> dict[str, np.ndarray]:
    """One head's row of Drawings; images [1+E,3,R,R]: the head, and truly edited."""
    labels, c = estimates(images)
    latent = inverter(generator, images[:1], labels[:1], c[:1])
    with torch.no_grad():
        before = picture(generator, latent)
        shown, known = before.image.clamp(-1, 1), labels[:1]
        own = generator.encode(shown, known, c[:1]), generator.encode(images[:1], known, c[:1])
    after, labels_after = [], []
    for image, map_ in zip(images[1:, None], labels[1:, None], strict=True):
        r = _edited_region(images[:1], image, known, map_)
        with torch.no_grad():
            found = (
                generator.encode(shown, map_, c[:1]),
                generator.encode(image, map_, c[:1]),
            )
        free = fade_tuning(generator, latent, r)
        for encoded, other in zip(found, own, strict=True):
            codes = {k: latent.codes[k] + v - other[k] for k, v in encoded.items()}
            edited = keep_outside(
                replace(free, codes={**latent.codes, **codes}),
                shown,
                r,
                SOFT * generator.resolution / 100,
            )
            pixels, ids = _seen(generator, edited)
            after.append(pixels)
            labels_after.append(ids)
    ways = (len(images) - 1, WAYS)
    return {
        "before": to_uint8(shown)[0],
        "labels": _ids(before.seg),
        "after": _shaped(after, ways),
        "labels_after": _shaped(labels_after, ways),
    }


def _edited_region(image: Tensor, other: Tensor, labels: Tensor, labels_after: Tensor) -> Tensor:
    """Where a true edit changed the picture or its labels, widened: [1,1,R,R]."""
    moved = (other - image).abs().mean(1, keepdim=True) > CHANGE
    r = torch.maximum(moved.to(image), losses.drawn(labels, labels_after))
    return losses.dilate(r, round(GROWN * image.shape[-1] / 100))


@torch.no_grad()
def _seen(generator: Generator, latent: Latent) -> tuple[np.ndarray, np.ndarray]:
    output = picture(generator, latent)
    return to_uint8(output.image)[0], _ids(output.seg)


def _ids(seg: Tensor | None) -> np.ndarray:
    assert seg is not None  # as the trainer sees to
    return seg.argmax(1)[0].cpu().numpy().astype(np.uint8)


def _shaped(rows: Sequence[np.ndarray], ways: tuple[int, int]) -> np.ndarray:
    return np.stack(rows).reshape(*ways, *rows[0].shape)
