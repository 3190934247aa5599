"""Faces: found in a photograph, cut out upright, described.

    detect -> landmarks -> align -> parsing, pose, attributes -> Face + crop + label map

`Face` is what stays on disk beside a crop: where it came from and how to put it back.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from semedit.errors import InputError

VERSION = 1  # of the sidecar's layout


@dataclass(frozen=True, eq=False)
class Face:
    """One aligned face; the sidecar of a crop.

    Attributes:
        name: the face's own name in the workspace, "folder/photo" or "folder/photo.2".
        source: path of the photo as it was given; source_sha256: of its bytes.
        index: 0 for the photo's first face (largest first).
        size: pixels a side of the crop.
        quad: float64 [4,2], corners of the crop in the upright photo (x, y px): top left, bottom
            left, bottom right, top right. A square: the crop is a similarity of the photo.
        landmarks: float32 [68,2], iBUG order, px of the crop (pixel centres at + 0.5).
        c: float32 [25], camera label of the crop; zeros when no pose was asked for.
        attributes: CelebA name -> probability in [0,1]; None when not classified.
        backends: step -> name of the back-end that did it.
        flags: what makes this face hard: "profile", "occluded", "small", "cut".
    """

    name: str
    source: str
    source_sha256: str
    index: int
    size: int
    quad: np.ndarray
    landmarks: np.ndarray
    c: np.ndarray
    attributes: dict[str, float] | None = None
    backends: dict[str, str] = field(default_factory=dict)
    flags: tuple[str, ...] = ()

    def to_json(self) -> str:
        """The sidecar's text."""
        record = asdict(self)
        for key in ("quad", "landmarks", "c"):
            record[key] = np.round(np.asarray(record[key], np.float64), 6).tolist()
        return json.dumps({"version": VERSION, **record}, indent=1, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Face:
        """Read a sidecar.

        Raises: InputError: not a sidecar of this version.
        """
        try:
            record: dict[str, Any] = json.loads(text)
            version = record.pop("version")
            face = cls(**record)
            shaped = {
                "quad": np.asarray(face.quad, np.float64).reshape(4, 2),
                "landmarks": np.asarray(face.landmarks, np.float32).reshape(68, 2),
                "c": np.asarray(face.c, np.float32).reshape(25),
                "flags": tuple(face.flags),
            }
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(f"not a face record: {error}") from error
        if version != VERSION:
            raise InputError(
                f"face record of layout {version}, this program reads {VERSION}",
                "run `semedit align` again",
            )
        return cls(**{**record, **shaped})
