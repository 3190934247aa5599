"""Truths of heads made up for tests of figures, which no renderer has to draw."""

from __future__ import annotations

import numpy as np
from tiny import TinyGenerator

from semedit.heads.truth import Truth
from semedit.media.labels import ATTRIBUTES, REGIONS
from semedit.media.pixels import to_uint8


def heads(n: int = 3) -> list[Truth]:
    """Pictures that the tiny generator can draw, enlarged to 32 px, with made-up labels."""
    generator = TinyGenerator()
    codes, c = generator.sample(3 * n, seed=3)
    images = to_uint8(generator.synthesis(codes, c).image)
    images = images.repeat(2, 1).repeat(2, 2)
    labels = np.full((32, 32), REGIONS["skin"][0], np.uint8)
    labels[20:24, 10:22] = REGIONS["mouth"][0]
    hair = labels.copy()
    hair[:10] = REGIONS["hair"][0]
    rng = np.random.default_rng(0)
    return [
        Truth(
            seed=1_000_000 + i,
            image=images[i],
            labels=labels,
            landmarks=rng.uniform(4, 28, (68, 2)).astype(np.float32),
            c=c[i].numpy(),
            attributes=rng.random(len(ATTRIBUTES)) < 0.5,
            views=((c[n + i].numpy(), images[n + i]), (c[2 * n + i].numpy(), images[2 * n + i])),
            edits={"hair_length": (images[i], hair), "smile": (images[i], labels)},
        )
        for i in range(n)
    ]


def truths(n: int = 2) -> list[Truth]:
    """Flat hair above flat skin with everything else in it; the edit is less hair."""
    labels = np.ones((64, 64), np.uint8)
    labels[:20] = 13
    labels[30:34, 10:20], labels[36:44, 28:36], labels[50:54, 20:40] = 4, 2, 11
    less = labels.copy()
    less[10:20] = 1
    found = []
    for i in range(n):
        image = np.random.default_rng(i).integers(0, 255, (64, 64, 3), dtype=np.uint8)
        c = np.eye(5, dtype=np.float32).reshape(25)
        c[:16] = np.diag([1, -1, -1, 1]).reshape(16)
        c[11], c[16:] = 2.7, (4.2647, 0, 0.5, 0, 4.2647, 0.5, 0, 0, 1)
        found.append(
            Truth(1_000_000 + i, image, labels, np.zeros((68, 2)), c, np.zeros(20), (),
                  {"hair_length": (image, less)})
        )  # fmt: skip
    return found
