"""`semedit train deeplab`: DeepLabv3 on the eight face components of CelebAMask-HQ.

CelebAMask-HQ as it is published:

    CelebA-HQ-img/0.jpg ... 29999.jpg                  1024 x 1024 pixels
    CelebAMask-HQ-mask-anno/0/00000_skin.png ...       512 x 512, white where the part is;
                                                       2000 pictures to a folder of masks

A part that a face has not has no file.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from semedit.errors import InputError
from semedit.faces.components import component_ids
from semedit.media.labels import LABELS

IMAGES, MASKS = "CelebA-HQ-img", "CelebAMask-HQ-mask-anno"


PER_FOLDER = 2000  # pictures whose masks share a folder


def read_folder(data: str | Path) -> list[int]:
    """Numbers of the pictures that a CelebAMask-HQ folder holds masks for.

    Raises: InputError: there are none.
    """
    data = Path(data)
    found = sorted(
        int(path.stem)
        for path in (data / IMAGES).glob("*.jpg")
        if path.stem.isdecimal() and mask_path(data, int(path.stem), "skin").is_file()
    )
    if not found:
        raise InputError(
            f"{data} holds no pictures with masks: {IMAGES}/0.jpg, {MASKS}/0/00000_skin.png",
            "give --data the folder CelebAMask-HQ",
        )
    return found


def mask_path(data: str | Path, number: int, part: str) -> Path:
    """The file of one part of one picture."""
    return Path(data) / MASKS / str(number // PER_FOLDER) / f"{number:05d}_{part}.png"


def read_components(data: str | Path, number: int, size: int) -> np.ndarray:
    """uint8 [size,size]: index into COMPONENTS.

    Raises: InputError: a mask cannot be read.
    """
    return component_ids().numpy().astype(np.uint8)[read_label_map(data, number, size)]


def read_label_map(data: str | Path, number: int, size: int) -> np.ndarray:
    """uint8 [size,size]: index into LABELS; later parts lie over earlier ones.

    Raises: InputError: a mask cannot be read.
    """
    found = np.zeros((size, size), np.uint8)
    for label, part in enumerate(LABELS):
        path = mask_path(data, number, part)
        if label == 0 or not path.is_file():
            continue
        try:
            with Image.open(path) as image:
                mask = image.convert("L").resize((size, size), Image.Resampling.NEAREST)
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: {error}") from None
        found[np.asarray(mask) >= 128] = label
    return found
