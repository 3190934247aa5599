"""Pictures without faces, for teaching what is none.

Natural surfaces and things that scikit-image carries (never its portraits and animals), drawings
of blobs and stripes, and above all what the LBP cascade wrongly takes for faces in them and in
the rendered heads: those are the proposals that the landmark network has to turn down.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from PIL import Image

from semedit.faces.align import cut
from semedit.faces.landmarks import view_of_box

MARGIN = 1.25  # a mined picture shows this much more than the network will look at
SCENE = 400  # px a side of what the cascade searches


@cache
def clutter(count: int, size: int, seed: int = 0) -> np.ndarray:
    """Random surfaces, things and drawings.

    Args:    count: how many; size: px a side; seed: of their own random numbers.
    Returns: uint8 [count,size,size,3].
    """
    random = np.random.default_rng(seed)
    plates = _plates()
    return np.stack([_scene(plates, size, random) for _ in range(count)])


def mined(pictures: list[np.ndarray], scenes: int, size: int, seed: int = 0) -> np.ndarray:
    """What the cascade takes for faces and is none.

    Args:
        pictures: uint8 [S,S,3] aligned crops of heads: hits about the crop's face do not count.
        scenes: how many scenes without heads to search besides.
        size: px a side of the results.

    Returns: uint8 [K,size,size,3], squares MARGIN times as large as the network's view.
    """
    import skimage.data
    from skimage.feature import Cascade

    cascade = Cascade(skimage.data.lbp_frontal_face_cascade_filename())
    random = np.random.default_rng(seed)
    plates = _plates()
    found = []
    for picture in pictures:
        small = np.asarray(Image.fromarray(picture).resize((200, 200), Image.Resampling.BOX))
        middle = np.array([100.0, 115.0])  # of the face in an aligned crop
        for box in _hits(cascade, small):
            apart = np.abs((box[:2] + box[2:]) / 2 - middle).max()
            if apart > 45 or box[2] - box[0] < 60:
                found.append(_square(small, box, size))
    for _ in range(scenes):
        scene = _scene(plates, SCENE, random)
        boxes = _hits(cascade, scene)
        chosen = random.permutation(len(boxes))[:25]
        found += [_square(scene, boxes[i], size) for i in chosen]
    return np.stack(found) if found else np.zeros((0, size, size, 3), np.uint8)


def _hits(cascade: object, picture: np.ndarray) -> list[np.ndarray]:
    """Boxes [4] px that the cascade proposes, even by a single hit."""
    grey = np.asarray(Image.fromarray(picture).convert("L"))
    rows = cascade.detect_multi_scale(  # type: ignore[attr-defined]
        img=grey,
        scale_factor=1.15,
        step_ratio=1,
        min_size=(24, 24),
        max_size=grey.shape,
        min_neighbor_number=1,
    )
    corner = [np.array([row["c"], row["r"]], float) for row in rows]
    return [
        np.concatenate([low, low + row["width"]]) for low, row in zip(corner, rows, strict=True)
    ]


def _square(picture: np.ndarray, box: np.ndarray, size: int) -> np.ndarray:
    view = view_of_box(box)
    return cut(picture, view.mean(0) + MARGIN * (view - view.mean(0)), size)


def _plates() -> list[np.ndarray]:
    """scikit-image's pictures that show neither people nor animals, uint8 [H,W,3]."""
    from skimage import data

    left, right, _ = data.stereo_motorcycle()
    grey = [data.brick, data.grass, data.gravel, data.moon, data.page, data.clock, data.text]
    return [
        left,
        right,
        data.rocket(),
        data.hubble_deep_field(),
        data.immunohistochemistry(),
        *(np.repeat(source()[..., None], 3, 2) for source in grey),
    ]


def _scene(plates: list[np.ndarray], size: int, random: np.random.Generator) -> np.ndarray:
    """A part of a plate, a drawing, or both mixed; any brightness. uint8 [size,size,3]."""
    kind = random.uniform()
    picture = _drawing(size, random) if kind > 0.6 else _part(plates, size, random)
    if 0.45 < kind < 0.6:
        picture = 0.5 * (picture + _drawing(size, random))
    if 0.3 < kind < 0.45:
        picture = 0.5 * (picture + _part(plates, size, random))
    picture = picture * random.uniform(0.7, 1.3, 3) * np.exp(random.normal(-0.2, 0.6))
    return np.clip(picture, 0, 255).astype(np.uint8)


def _part(plates: list[np.ndarray], size: int, random: np.random.Generator) -> np.ndarray:
    """A random square of a plate, turned by quarters, float [size,size,3] in [0,255]."""
    pixels = plates[random.integers(len(plates))]
    side = int(random.uniform(0.15, 1.0) * min(pixels.shape[:2]))
    y, x = (int(random.integers(0, n - side + 1)) for n in pixels.shape[:2])
    part = np.rot90(pixels[y : y + side, x : x + side], int(random.integers(4)))
    image = Image.fromarray(np.ascontiguousarray(part))
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR), float)


def _drawing(size: int, random: np.random.Generator) -> np.ndarray:
    """Smooth colours with blobs, bars and stripes, float [size,size,3] in [0,255]."""
    cells = int(random.integers(1, 7))
    field = random.uniform(0, 255, (cells, cells, 3)).astype(np.uint8)
    picture = np.asarray(Image.fromarray(field).resize((size, size), Image.Resampling.BICUBIC))
    picture = picture.astype(float)
    y, x = (np.mgrid[:size, :size] + 0.5) / size
    for _ in range(int(random.integers(0, 14))):
        angle, colour = random.uniform(0, np.pi), random.uniform(0, 255, 3)
        dx, dy = x - random.uniform(), y - random.uniform()
        a = (np.cos(angle) * dx + np.sin(angle) * dy) / random.uniform(0.02, 0.35)
        b = (np.cos(angle) * dy - np.sin(angle) * dx) / random.uniform(0.02, 0.35)
        if random.uniform() < 0.2:
            inside = (np.sin(9 * a) > 0) & (np.abs(b) < 1)
        else:
            inside = np.abs(a) ** 4 + np.abs(b) ** random.choice([2, 4]) < 1
        picture[inside] = colour + random.normal(0, 6, 3)
    return picture + random.normal(0, random.uniform(0, 12), picture.shape)
