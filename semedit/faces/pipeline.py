"""From a photo to described crops: what `semedit align` does with one file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Literal

import numpy as np
import torch

from semedit import cameras, weights
from semedit.errors import NoFaceError, OptionError
from semedit.faces import Face, align, networks, numbered, parsing
from semedit.faces.attributes import named
from semedit.faces.detect import (
    FACE_ALIGNMENT,
    RETINAFACE,
    BuiltinDetector,
    Detection,
    Detector,
    FaceAlignmentDetector,
    RetinaFaceDetector,
    available_network,
    shaded,
)
from semedit.faces.landmarks import BuiltinLandmarks, FanLandmarks, view_of_box, view_of_points
from semedit.faces.pose import POSES, camera
from semedit.faces.search import reached
from semedit.media.labels import REGIONS
from semedit.media.photographs import Photo
from semedit.media.pixels import to_tensor

PROFILE_RAD = 0.9  # a head turned farther than this (52 degrees) is flagged
SHOWN = 0.6  # a face with less of its inner landmarks visible is flagged as occluded
INVENTED = 0.05  # a crop with more of it outside the photo is flagged as cut
DARK = 0.5  # eyes that lie under dark glasses as surely as that are flagged
DOUBT = 0.25  # the least score of a place that a photo without faces is said to hold
ENOUGH = 0.7  # a face with fewer px a side than this share of the crop's is flagged as small


TOGETHER = 8  # crops that go through the networks at once

Cut = tuple[np.ndarray, np.ndarray, np.ndarray]  # crop, quad, landmarks
Description = tuple[np.ndarray | None, np.ndarray, dict[str, float] | None]


@dataclass(frozen=True, eq=False)
class Described:
    """One face of a photo: its record, crop uint8 [R,R,3], and label map int64 [R,R] or None."""

    face: Face
    crop: np.ndarray
    labels: np.ndarray | None


BACKENDS: dict[str, tuple[str, ...]] = {
    "detect": ("builtin", "facexlib", "face-alignment"),
    "landmarks": ("builtin", "face-alignment"),
    "parse": ("builtin", "bisenet", "parsenet"),
    "pose": ("builtin", "facexlib"),
}
# What `auto` prefers, best first; a back-end counts when all its files are on disk and verified.
PREFERENCE: dict[str, tuple[tuple[str, Callable[[], bool]], ...]] = {
    "detect": (
        ("facexlib", lambda: any(weights.on_disk(name) for name in RETINAFACE.values())),
        ("face-alignment", lambda: any(available_network(name) for name in FACE_ALIGNMENT)),
    ),
    "landmarks": (("face-alignment", lambda: weights.on_disk("2dfan4")),),
    "parse": (
        ("bisenet", lambda: weights.on_disk("bisenet")),
        ("parsenet", lambda: weights.on_disk("parsenet")),
    ),
    "pose": (("facexlib", lambda: weights.on_disk("hopenet")),),
}


def choose(step: str, wanted: str = "auto") -> str:
    """The back-end of a step ("detect", "landmarks", "parse", "pose").

    Args:    wanted: a back-end's name, or "auto": the best one whose verified weights are on disk.
    Raises:  OptionError: no such back-end.
    """
    if wanted == "auto":
        return next((name for name, ready in PREFERENCE[step] if ready()), "builtin")
    if wanted == "facexlib" and step == "parse":
        return "bisenet" if weights.on_disk("bisenet") else "parsenet"
    if wanted not in BACKENDS[step]:
        raise OptionError(
            f"{step} has no back-end {wanted!r}", f"it has auto, {', '.join(BACKENDS[step])}"
        )
    return wanted


def detector(name: str, device: str = "cpu") -> Detector:
    """A detector by its back-end's name."""
    kinds: dict[str, Any] = {
        "builtin": BuiltinDetector,
        "facexlib": RetinaFaceDetector,
        "face-alignment": FaceAlignmentDetector,
    }
    return kinds[choose("detect", name)](device)


def parser(name: str = "auto", device: str = "cpu") -> parsing.Parser:
    """A parser by its back-end's name."""
    return parsing.PARSERS[choose("parse", name)](device)


def parser_weights(name: str = "auto") -> tuple[str, ...]:
    """Names of the weights that `parser` reads."""
    return parsing.PARSERS[choose("parse", name)].needs


def second_parser(*used: str, device: str = "cpu") -> parsing.Parser:
    """A parser whose opinion was not asked for before: the best on the disk besides those used;
    `builtin` where there is no other."""
    names = [name for name, ready in PREFERENCE["parse"] if name not in used and ready()]
    return parser((names or ["builtin"])[0], device)


class FacePipeline:
    """Detect, align, parse, pose and classify; every model is loaded once.

    Args:
        size: px a side of the crops.
        detect, landmarks, parse, pose: back-ends; "auto" takes the best that is on disk. parse
            and pose may be "none".
        faces: "largest" or "all" of a photo.
        min_face: smallest face kept, px of the photo across its 68 landmarks.
    """

    def __init__(
        self,
        size: int = 256,
        detect: str = "auto",
        landmarks: str = "auto",
        parse: str = "auto",
        pose: str = "auto",
        faces: Literal["largest", "all"] = "largest",
        min_face: int = 32,
        device: str = "cpu",
    ) -> None:
        if faces not in ("largest", "all"):
            raise OptionError(f"faces = {faces!r}", "it is largest or all")
        self.size, self.faces, self.min_face, self.device = size, faces, min_face, device
        self.detector = detector(detect, device)
        self.detector.min_face = min_face
        self.backends = {"detect": self.detector.name}
        self.fan = None
        if choose("landmarks", landmarks) == "face-alignment":
            self.fan = FanLandmarks(device)
        self.builtin = BuiltinLandmarks(device)
        self.backends["landmarks"] = "builtin" if self.fan is None else "face-alignment"
        self.parser = self._step("parse", parse, parsing.PARSERS)
        self.pose = self._step("pose", pose, POSES)

    def _step(self, step: str, wanted: str, kinds: Mapping[str, type]) -> Any:
        if wanted == "none":
            return None
        name = choose(step, wanted)
        self.backends[step] = name
        return kinds[name](self.device)

    def __call__(self, photo: Photo, source: str, name: str) -> list[Described]:
        """
        Args:    photo as read; source: its path as given; name: of its first face.
        Returns: its faces, the largest first; with faces="largest" just one.
        Raises:  NoFaceError: none is found, or all are smaller than min_face.
        """
        (found,) = self.several([photo], [source], [name])
        if isinstance(found, NoFaceError):
            raise found
        return found

    def several(
        self, photos: Sequence[Photo], sources: Sequence[str], names: Sequence[str]
    ) -> list[list[Described] | NoFaceError]:
        """The same for several photos, whose crops go through the networks together.

        Returns: for each photo its faces, or why there is none.
        """
        found = [self._chosen(p.pixels, s) for p, s in zip(photos, sources, strict=True)]
        cuts: list[list[Cut]] = [
            []
            if isinstance(faces, NoFaceError)
            else [align.align(photo.pixels, _landmarks(d), self.size) for d in faces]
            for photo, faces in zip(photos, found, strict=True)
        ]
        rows = iter(self._describe([crop for cut in cuts for crop, _, _ in cut]))
        out: list[list[Described] | NoFaceError] = []
        for photo, source, name, faces, cut in zip(
            photos, sources, names, found, cuts, strict=True
        ):
            if isinstance(faces, NoFaceError):
                out.append(faces)
            else:
                described = list(islice(rows, len(faces)))
                out.append(self._records(photo, source, name, faces, cut, described))
        return out

    def _chosen(self, pixels: np.ndarray, source: str) -> list[Detection] | NoFaceError:
        """The faces of a photo that are wanted, or why there is none."""
        found = self.find(pixels)
        if not found:
            return NoFaceError(f"no face found in {source}", self._doubt(pixels))
        big = [d for d in found if _across(d) >= self.min_face]
        if not big:
            return NoFaceError(
                f"the largest face in {source} is {_across(found[0]):.0f} px, "
                f"less than {self.min_face}",
                "lower --min-face",
            )
        return big if self.faces == "all" else big[:1]

    def _doubt(self, pixels: np.ndarray) -> str:
        """What to try on a photo without a face: where one might be, or which sizes to look for."""
        if not isinstance(self.detector, BuiltinDetector):
            return "try --detect builtin, or a smaller --min-face"
        smallest = reached(self.min_face)
        doubts = [d for d in self.detector.doubts(pixels) if d.score > DOUBT]
        if not doubts:
            return f"faces of {smallest:.0f} px and more were looked for (--min-face)"
        x, y = (doubts[0].box[:2] + doubts[0].box[2:]) / 2
        return (
            f"what is at x {x:.0f}, y {y:.0f} px might be one, partly hidden or turned aside: "
            "cut the photograph to it, or try --detect facexlib"
        )

    def _records(
        self,
        photo: Photo,
        source: str,
        name: str,
        found: list[Detection],
        cuts: list[Cut],
        described: list[Description],
    ) -> list[Described]:
        out = []
        for i, (detection, (crop, quad, points), (labels, c, attributes)) in enumerate(
            zip(found, cuts, described, strict=True)
        ):
            dark = detection.shaded
            if dark is None and labels is not None:
                dark = shaded(crop, np.isin(labels, REGIONS["glasses"]).astype(float), points)
            face = Face(
                name=numbered(name, i),
                source=source,
                source_sha256=photo.sha256,
                index=i,
                size=self.size,
                quad=quad,
                landmarks=points,
                c=c,
                attributes=attributes,
                backends=dict(self.backends),
                flags=flags(detection, quad, c, photo.pixels.shape[:2], self.size, dark),
                turn_deg=float(np.rad2deg(align.turn_rad(quad))),
                invented=1 - align.covered(quad, *photo.pixels.shape[:2]),
            )
            out.append(Described(face, crop, labels))
        return out

    def find(self, pixels: np.ndarray) -> list[Detection]:
        """Detections of a photo uint8 [H,W,3] with 68 landmarks each, largest first."""
        found = self.detector(pixels)
        if self.fan is not None:
            placed = self.fan(pixels, [d.box for d in found])
        elif all(d.landmarks is not None for d in found):
            return found
        else:
            placed = self.builtin(pixels, [_view(d) for d in found])
        return [
            replace(d, landmarks=placed.points[i], visible=placed.visible[i])
            for i, d in enumerate(found)
        ]

    def _describe(self, crops: list[np.ndarray]) -> list[Description]:
        """Label map, camera label and attributes of each crop, TOGETHER of them at a time."""
        if self.parser is None and self.pose is None:
            return [(None, np.zeros(25, np.float32), None)] * len(crops)
        return [
            row
            for first in range(0, len(crops), TOGETHER)
            for row in self._describe_batch(crops[first : first + TOGETHER])
        ]

    def _describe_batch(self, crops: list[np.ndarray]) -> list[Description]:
        images = to_tensor(np.stack(crops)).to(self.device)
        shared = self.parser is not None and self.parser.name == "builtin"
        # One network answers both questions; the camera needs no more views than one.
        own = networks.describe(images, networks.VIEWS if shared else (1.0,))
        seg = None
        if self.parser is not None:
            seg = parsing.enlarge(own.seg, self.size) if shared else self.parser(images)
        c = torch.zeros(len(crops), 25)
        if self.pose is not None:
            c = camera(own.six) if self.pose.name == "builtin" else self.pose(images)
        labels = [None] * len(crops) if seg is None else list(seg.argmax(1).cpu().numpy())
        return list(zip(labels, list(c.numpy()), named(networks.traits(images)), strict=True))


def flags(
    detection: Detection,
    quad: np.ndarray,
    c: np.ndarray,
    shape: tuple[int, ...],
    size: int,
    dark: float | None = None,
) -> tuple[str, ...]:
    """What makes a face hard to work on, as Face.flags has it.

    Args: quad [4,2] px of the photo; c [25], zeros when not known; shape: height and width of the
          photo, px; size: px a side of the crop; dark: `detect.shaded` of the crop, where known.
    """
    found = []
    if c.any() and abs(float(cameras.angles(torch.from_numpy(c)[None])[0, 0])) > PROFILE_RAD:
        found.append("profile")
    if detection.visible is not None and float(detection.visible[17:].mean()) < SHOWN:
        found.append("occluded")
    if np.hypot(*(quad[3] - quad[0])) < ENOUGH * size:
        found.append("small")
    if 1 - align.covered(quad, *shape[:2]) > INVENTED:
        found.append("cut")
    if dark is not None and dark > DARK:
        found.append("sunglasses")
    return tuple(found)


def _landmarks(detection: Detection) -> np.ndarray:
    if detection.landmarks is None:
        raise ValueError("landmarks were not placed")
    return detection.landmarks


def _across(detection: Detection) -> float:
    """Size of a face, px of the photo: the longer side of its landmarks' box."""
    return float(np.ptp(_landmarks(detection), axis=0).max())


def _view(detection: Detection) -> np.ndarray:
    """The landmark network's square about a detection of another back-end."""
    if detection.points is not None:
        return view_of_points(detection.points)
    x0, y0, x1, y1 = detection.box
    side = 0.9 * max(x1 - x0, y1 - y0)
    middle = np.array([(x0 + x1) / 2, (y0 + y1) / 2 - 0.05 * side])
    return view_of_box(np.concatenate([middle - side / 2, middle + side / 2]))
