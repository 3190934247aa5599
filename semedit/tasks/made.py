"""Faces that a generator made, as files like those of an aligned and inverted photograph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from semedit.batch.workspace import Workspace
from semedit.faces import Face
from semedit.faces.align import square_quad
from semedit.faces.landmarks import VIEW_DOWN, VIEW_SIDE, BuiltinLandmarks
from semedit.latents import Latent
from semedit.media.files import write_bytes
from semedit.media.masks import write_labels
from semedit.media.photographs import write_image
from semedit.media.pixels import resize, to_uint8
from semedit.weights import file_sha256

MADE = ("landmarks", "faces")  # weights that describe a face that is made


@dataclass(frozen=True, eq=False)
class MadeFace:
    """A face without a photograph.

    Attributes:
        latent: of this face alone. image: float32 [1,3,R,R] in [-1,1], its picture.
        labels: int64 [S,S]; the crop is brought to that size.
        source: the file that it was made from. backends: for its record.
    """

    latent: Latent
    image: Tensor
    labels: np.ndarray
    source: Path
    backends: Mapping[str, str]

    def write(self, space: Workspace, name: str, device: str, mark: bool) -> list[Path]:
        """Write crop, record, label map, picture, and last the latent; returns their paths.

        Args: device: finds landmarks. mark: say in pictures that they are a model's.
        """
        pixels = to_uint8(resize(self.image, len(self.labels)))[0]
        places = [("faces", ".png"), ("faces", ".json"), ("masks", ".png")]
        places += [("latents", ".png"), ("latents", ".safetensors")]
        crop, record, map_, preview, path = (space.path(a, name, b) for a, b in places)
        write_image(crop, pixels, mark=mark)
        write_image(preview, to_uint8(self.image)[0], mark=mark)
        write_labels(map_, self.labels)
        write_bytes(record, self._record(name, pixels, device).to_json().encode())
        self.latent.save(path)
        return [crop, record, map_, preview, path]

    def _record(self, name: str, pixels: np.ndarray, device: str) -> Face:
        side = len(pixels)
        middle = side * np.array([0.5, 0.5 + VIEW_DOWN])
        found = BuiltinLandmarks(device)(pixels, [square_quad(middle, VIEW_SIDE * side)])
        return Face(
            name=name,
            source=str(self.source),
            source_sha256=file_sha256(self.source),
            index=0,
            size=side,
            quad=np.array([[0, 0], [0, side], [side, side], [side, 0]], np.float64),
            landmarks=found.points[0],
            c=self.latent.c[0].cpu().numpy(),
            backends={"landmarks": "builtin", **self.backends},
        )
