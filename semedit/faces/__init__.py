"""Faces: found in a photograph, cut out upright, described.

    detect -> landmarks -> align -> parsing, pose, attributes -> Face + crop + label map

`Face` is what stays on disk beside a crop: where it came from and how to put it back.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from semedit.errors import InputError
from semedit.media import reading, valid_json

VERSION = 1  # of the sidecar's layout
FLAGS = {
    "profile": "turned far aside",
    "occluded": "partly hidden",
    "small": "smaller than its crop needs",
    "cut": "partly outside the photograph",
    "sunglasses": "behind dark glasses",
}
_NUMBER = re.compile(r"@[1-9][0-9]*$")
_POINT = (float, float)
# What a record holds, as semedit.media.reading describes it.
RECORD = {
    "name": reading.path,
    "source": str,
    "source_sha256": str,
    "index": int,
    "size": int,
    "quad": (_POINT,) * 4,
    "landmarks": (_POINT,) * 68,
    "c": (float,) * 25,
    "attributes": reading.Maybe({str: float}),
    "backends": {str: str},
    "flags": [str],
    "turn_deg": reading.Maybe(float),  # records of 0.1.0 have neither
    "invented": reading.Maybe(float),
}


def numbered(photo: str, index: int) -> str:
    """Name of a photo's face: the photo's own for the largest (index 0), then photo@2, photo@3.

    No photo gets a name of that form (batch.inputs sees to it), so that the faces of one
    never overwrite those of another.
    """
    return photo if index == 0 else f"{photo}@{index + 1}"


def photo_of(face: str) -> str:
    """The photo's name in a face's: inverse of `numbered`."""
    return _NUMBER.sub("", face)


@dataclass(frozen=True, eq=False)
class Face:
    """One aligned face; the sidecar of a crop.

    Attributes:
        name: the face's own name in the workspace, "folder/photo", or "folder/photo@2" for the
            second of a photo; see `numbered`.
        source: path of the photo as it was given; source_sha256: of its bytes.
        index: 0 for the photo's first face (largest first).
        size: pixels a side of the crop.
        quad: float64 [4,2], corners of the crop in the upright photo (x, y px): top left, bottom
            left, bottom right, top right. A square: the crop is a similarity of the photo.
        landmarks: float32 [68,2], iBUG order, px of the crop (pixel centres at + 0.5).
        c: float32 [25], camera label of the crop; zeros when no pose was asked for.
        attributes: CelebA name -> probability in [0,1]; None when not classified.
        backends: step -> name of the back-end that did it.
        flags: what makes this face hard, names of FLAGS.
        turn_deg: how far the face is turned in the photo, clockwise, -180 to 180.
        invented: share of the crop outside the photo, where its borders go on; 0 to 1.
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
    turn_deg: float = 0.0
    invented: float = 0.0

    def to_json(self) -> str:
        """The sidecar's text."""
        record = asdict(self)
        for key in ("quad", "landmarks", "c"):
            record[key] = np.round(np.asarray(record[key], np.float64), 6).tolist()
        record |= {"turn_deg": round(self.turn_deg, 1), "invented": round(self.invented, 4)}
        return valid_json.dumps({"version": VERSION, **record}, indent=1, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Face:
        """Read a sidecar.

        Raises: InputError: not a sidecar of this version.
        """
        again = "run `semedit align --overwrite`"
        try:
            version = reading.parse(text, {"version": int})["version"]
        except ValueError as error:
            raise InputError(f"not a face record: {error}", again) from error
        if version != VERSION:  # first: a record of another layout may lack or add anything
            raise InputError(
                f"face record of layout {version}, this program reads {VERSION}", again
            )
        try:
            found = reading.parse(text, RECORD)
        except ValueError as error:
            raise InputError(f"damaged face record: {error}", again) from error
        record: dict[str, Any] = {k: found[k] for k in RECORD if found.get(k) is not None}
        shaped = {
            "quad": np.asarray(record["quad"], np.float64),
            "landmarks": np.asarray(record["landmarks"], np.float32),
            "c": np.asarray(record["c"], np.float32),
            "flags": tuple(record["flags"]),
        }
        return cls(**{**record, **shaped})
