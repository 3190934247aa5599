"""Finding faces in a photograph.

Back-ends: `builtin` (scikit-image's LBP cascade proposes, our LandmarkNet decides), `facexlib`
(RetinaFace, Deng et al. 2019, arXiv:1905.00641), `face-alignment` (S3FD or BlazeFace).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image, ImageDraw

from semedit import weights
from semedit.errors import ShapeError
from semedit.faces import networks
from semedit.faces.align import EYE_LEFT, EYE_RIGHT, MOUTH, align, to_photo
from semedit.faces.landmarks import BuiltinLandmarks, Landmarks, view_of_box, view_of_points
from semedit.media.labels import LABELS, REGIONS
from semedit.media.pixels import to_tensor
from semedit.runtime import torchvision_ops

DRIFT = 0.25  # inter-ocular distances between two looks at one face that cost a factor e


@dataclass(frozen=True, eq=False)
class Detection:
    """One face of a photo.

    Attributes:
        box: float64 [4] x0, y0, x1, y1 px: from brow to chin, more or less.
        score: how surely this is a face, in [0,1].
        points: [5,2] px, eyes, nose tip, mouth corners (left in the picture first), or None.
        landmarks: [68,2] px, or None; visible: [68] in [0,1], or None.
    """

    box: np.ndarray
    score: float
    points: np.ndarray | None = None
    landmarks: np.ndarray | None = None
    visible: np.ndarray | None = None

    @property
    def area(self) -> float:
        """Of the box, px^2."""
        return float(np.prod(np.maximum(self.box[2:] - self.box[:2], 0)))


class Detector(Protocol):
    """Takes a photo uint8 [H,W,3] (upright sRGB), returns its faces, largest first."""

    name: str

    def __call__(self, photo: np.ndarray) -> list[Detection]: ...


def check_photo(photo: np.ndarray) -> None:
    """Raises: ShapeError: not uint8 [H,W,3] (alpha and grey must be resolved while reading)."""
    if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3:
        raise ShapeError(f"expected a photo uint8 [H,W,3], got {photo.dtype} {list(photo.shape)}")


def shrink(photo: np.ndarray, longest: int, grow: float = 1.0) -> tuple[np.ndarray, float]:
    """The photo at no more than `longest` px, or enlarged up to `grow` times; and the scale."""
    height, width = photo.shape[:2]
    scale = min(grow, longest / max(height, width))
    if scale == 1:
        return photo, 1.0
    shape = (max(1, round(width * scale)), max(1, round(height * scale)))
    image = Image.fromarray(photo).resize(shape, Image.Resampling.LANCZOS)
    return np.asarray(image), shape[0] / width


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes [4]."""
    edge = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    inner = float(np.prod(np.maximum(edge, 0)))
    outer = float(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2])) - inner
    return inner / max(outer, 1e-9)


def distinct(found: list[Detection], most: float = 0.3) -> list[Detection]:
    """Keep the surest of detections that overlap by more than `most`; largest first."""
    kept: list[Detection] = []
    for one in sorted(found, key=lambda d: -d.score):
        if all(overlap(one.box, other.box) <= most for other in kept):
            kept.append(one)
    return sorted(kept, key=lambda d: -d.area)


def box_of(landmarks: np.ndarray) -> np.ndarray:
    """The upright box [4] around landmarks [68,2]."""
    return np.concatenate([landmarks.min(0), landmarks.max(0)]).astype(np.float64)


class BuiltinDetector:
    """An LBP cascade proposes boxes at many places, two networks judge each.

    LandmarkNet says how face-like a place is; FaceNet, which draws label maps, must find eyes,
    nose, mouth and cheeks where the landmarks are. Upright proposals first; only where they hold
    no face, the photo is also searched turned by `turns` degrees.
    """

    name = "builtin"

    def __init__(
        self,
        device: str = "cpu",
        threshold: float = 0.7,
        longest: int = 640,
        turns: tuple[float, ...] = (-30.0, 30.0),
    ) -> None:
        import skimage.data
        from skimage.feature import Cascade

        self.cascade = Cascade(skimage.data.lbp_frontal_face_cascade_filename())
        self.landmarks = BuiltinLandmarks(device)
        self.size = networks.load("faces", device).size  # px a side of the crops it judges
        self.device = device
        self.threshold, self.longest, self.turns = threshold, longest, turns

    def __call__(self, photo: np.ndarray) -> list[Detection]:
        """Photo uint8 [H,W,3] -> detections with landmarks, largest first."""
        check_photo(photo)
        found = self._judge(photo, self._propose(photo, 0.0))
        if not found:
            views = [view for turn in self.turns for view in self._propose(photo, turn)]
            found = self._judge(photo, views)
        return found

    def _propose(self, photo: np.ndarray, turn_deg: float) -> list[np.ndarray]:
        """Squares [4,2] px of the photo about what the cascade takes for faces."""
        small, scale = shrink(photo, self.longest, grow=2.0)
        grey = Image.fromarray(small).convert("L")
        width, height = grey.size
        if turn_deg:
            grey = grey.rotate(turn_deg, Image.Resampling.BILINEAR, expand=True)
        pixels = np.asarray(grey)
        found = self.cascade.detect_multi_scale(
            img=pixels,
            scale_factor=1.1,
            step_ratio=1,
            min_size=(24, 24),
            max_size=pixels.shape,
            min_neighbor_number=1,
        )
        # PIL turns counter-clockwise about the centre; undo that, face squares turn clockwise.
        angle = np.deg2rad(turn_deg)
        back = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        middle = np.array(grey.size) / 2
        views = []
        for hit in found:
            low = np.array([hit["c"], hit["r"]], float)
            square = view_of_box(np.concatenate([low, low + hit["width"]]))
            turned = (square - middle) @ back.T + np.array([width, height]) / 2
            views.append(turned / scale)
        return views

    def _judge(self, photo: np.ndarray, views: list[np.ndarray]) -> list[Detection]:
        """Detections among proposals: a quick look at all, a thorough one at the likely ones.

        score = sqrt(first look's * last look's) * exp(-(d / DRIFT)^2)

        with d the mean distance between the landmarks of both looks, in inter-ocular distances:
        a real face stays where it was first seen, an imagined one moves with the view.
        """
        first = self.landmarks(photo, views, passes=0)
        likely = np.flatnonzero(first.score > 0.2 * self.threshold)
        start = _plausible(first, likely[np.argsort(-first.score[likely])][:40])
        if not start:
            return []
        last = self.landmarks(photo, [view_of_points(first.points[i]) for i in start], passes=1)
        drift = np.linalg.norm(last.points - first.points[start], axis=2).mean(1)
        eyes = last.points[:, EYE_RIGHT].mean(1) - last.points[:, EYE_LEFT].mean(1)
        drift = drift / np.maximum(np.linalg.norm(eyes, axis=1), 1)
        score = np.sqrt(last.score * first.score[start]) * np.exp(-((drift / DRIFT) ** 2))
        found = []
        for i in _plausible(last, np.flatnonzero(score > 0.2 * self.threshold)):
            points = last.points[i]
            crop, _, placed = align(photo, points, self.size)
            agreed = agreement(self._chances(crop, (1.0,)), placed)
            sure = float(np.sqrt(score[i] * agreed))
            if sure > self.threshold:
                found.append(
                    Detection(box_of(points), sure, landmarks=points, visible=last.visible[i])
                )
        return [self._settled(photo, one) for one in distinct(found)]

    def _settled(self, photo: np.ndarray, found: Detection) -> Detection:
        """The detection with landmarks of eyes and mouth where FaceNet's labels are."""
        assert found.landmarks is not None
        crop, quad, placed = align(photo, found.landmarks, self.size)
        moved = settle(self._chances(crop, networks.VIEWS), placed)
        points = to_photo(moved, quad, len(crop)).astype(np.float32)
        return replace(found, box=box_of(points), landmarks=points)

    def _chances(self, crop: np.ndarray, views: tuple[float, ...]) -> np.ndarray:
        """Of the labels in an aligned crop uint8 [S,S,3]: [19,S,S]."""
        seg = networks.describe(to_tensor(crop[None]).to(self.device), views).seg[0]
        return seg.softmax(0).cpu().numpy()


def agreement(chances: np.ndarray, points: np.ndarray) -> float:
    """Mean chance of the right label at eyes, nose, mouth and both cheeks.

    Args:    chances: [19,S,S], of the labels of an aligned crop; points: [68,2] px of the crop.
    Returns: 0 to 1; places outside the crop count 0.
    """
    places = {
        "left eye": (points[36:42].mean(0), REGIONS["eyes"] + REGIONS["glasses"]),
        "right eye": (points[42:48].mean(0), REGIONS["eyes"] + REGIONS["glasses"]),
        "nose": (points[[30, 33]].mean(0), REGIONS["nose"]),
        "mouth": (points[48:].mean(0), REGIONS["lips"] + REGIONS["mouth"]),
        "left cheek": (points[[3, 31, 48]].mean(0), REGIONS["skin"]),
        "right cheek": (points[[13, 35, 54]].mean(0), REGIONS["skin"]),
    }
    size = chances.shape[-1]
    total = 0.0
    for place, labels in places.values():
        x, y = (int(v) for v in np.floor(place))
        if 1 <= x < size - 1 and 1 <= y < size - 1:
            here = chances[list(labels), y - 1 : y + 2, x - 1 : x + 2].sum(0)
            total += float(here.max())
    return total / len(places)


# Landmarks, and the labels whose middle is theirs; left in the picture is the subject's right.
PARTS = (
    (EYE_LEFT, ("r_eye",)),
    (EYE_RIGHT, ("l_eye",)),
    (MOUTH, ("mouth", "u_lip", "l_lip")),
)


def settle(chances: np.ndarray, points: np.ndarray, most: float = 0.2) -> np.ndarray:
    """Landmarks with those of each eye and of the mouth moved to where the label map shows it.

    A label map is drawn at a higher resolution than landmarks are found at, and knows little of
    where eyes use to be. Parts that it does not show (eyes behind dark glasses, in profile), or
    shows more than `most` inter-ocular distances away, stay.

    Args:    chances: [19,S,S], of the labels of an aligned crop; points: [68,2] px of the crop.
    Returns: points [68,2].
    """
    moved, size = points.copy(), chances.shape[-1]
    apart = np.hypot(*(points[EYE_RIGHT].mean(0) - points[EYE_LEFT].mean(0)))
    for part, names in PARTS:
        mass = chances[[LABELS.index(name) for name in names]].sum(0)
        mass = mass * (mass > 0.3)
        if mass.sum() < 3e-4 * size**2:
            continue
        shift = _middle(mass) - _middle(_outline(points[part], size))
        if np.hypot(*shift) <= most * apart:
            moved[part] += shift
    return moved


def _middle(mass: np.ndarray) -> np.ndarray:
    """Centre of mass [S,S], px: [2]."""
    row, column = np.mgrid[: mass.shape[0], : mass.shape[1]] + 0.5
    return np.array([(mass * column).sum(), (mass * row).sum()]) / max(mass.sum(), 1e-9)


def _outline(points: np.ndarray, size: int) -> np.ndarray:
    """The inside of the outline of an eye or a mouth (its first twelve points): [size,size]."""
    canvas = Image.new("1", (size, size))
    corners = [(float(x), float(y)) for x, y in points[:12]]
    ImageDraw.Draw(canvas).polygon(corners, fill=1, outline=1)
    return np.asarray(canvas).astype(float)


def _plausible(found: Landmarks, indices: np.ndarray) -> list[int]:
    """Those whose points span a face's proportions (a collapsed shape is no face)."""
    kept = []
    for i in indices:
        extent = np.ptp(found.points[i], axis=0)
        if extent.min() > 8 and 0.4 < extent[0] / extent[1] < 2.2:
            kept.append(int(i))
    return kept


class RetinaFaceDetector:
    """facexlib's RetinaFace. Its five points are the yardstick of our own landmarks."""

    name = "facexlib"

    def __init__(
        self,
        device: str = "cpu",
        network: str = "auto",
        threshold: float = 0.8,
        longest: int = 1024,
    ) -> None:
        """network: "resnet50", "mobile0.25", or the better one whose weights are on disk."""
        torchvision_ops.ensure()
        from facexlib.detection.retinaface import RetinaFace

        if network == "auto":
            network = "resnet50" if weights.on_disk(RETINAFACE["resnet50"]) else "mobile0.25"
        model: Any = RetinaFace(network, device=device)
        state = weights.load_pickle(weights.resolve(RETINAFACE[network]))
        model.load_state_dict({k.removeprefix("module."): v for k, v in state.items()})
        self.model = model.eval().requires_grad_(False).to(device)
        self.threshold, self.longest = threshold, longest

    def __call__(self, photo: np.ndarray) -> list[Detection]:
        """Photo uint8 [H,W,3] -> detections with five points, largest first."""
        check_photo(photo)
        small, scale = shrink(photo, self.longest)
        with torch.inference_mode():
            rows = self.model.detect_faces(np.ascontiguousarray(small[:, :, ::-1]), self.threshold)
        return distinct(
            [
                Detection(row[:4] / scale, float(row[4]), row[5:].reshape(5, 2) / scale)
                for row in np.asarray(rows, np.float64)
            ]
        )


RETINAFACE = {"resnet50": "retinaface-resnet50", "mobile0.25": "retinaface-mobilenet"}


class FaceAlignmentDetector:
    """face-alignment's detectors: S3FD where its weights are, else BlazeFace."""

    name = "face-alignment"

    def __init__(
        self,
        device: str = "cpu",
        network: str = "auto",
        threshold: float = 0.76,
        longest: int = 1024,
    ) -> None:
        """network: "sfd", "blazeface", "blazeface-back", or the best whose weights are on disk.

        BlazeFace takes cats and coffee cups for faces up to a score of 0.75.
        """
        torchvision_ops.ensure()
        if network == "auto":
            network = next((n for n in FACE_ALIGNMENT if available_network(n)), "sfd")
        files = [str(weights.resolve(name)) for name in FACE_ALIGNMENT[network]]
        if network == "sfd":
            from face_alignment.detection.sfd import FaceDetector as Sfd

            self.model: Any = Sfd(device, path_to_detector=files[0], filter_threshold=threshold)
        else:
            from face_alignment.detection.blazeface import FaceDetector as Blaze

            self.model = Blaze(
                device,
                back_model=network == "blazeface-back",
                path_to_detector=files[0],
                path_to_anchor=files[1],
                min_score_thresh=threshold,
            )
        self.network, self.longest = network, longest

    def __call__(self, photo: np.ndarray) -> list[Detection]:
        """Photo uint8 [H,W,3] -> detections, largest first."""
        check_photo(photo)
        small, scale = shrink(photo, self.longest)
        with torch.inference_mode():
            rows = self.model.detect_from_image(small.copy())
        found = [np.asarray(row, np.float64) for row in rows if len(row)]
        return distinct([Detection(row[:4] / scale, float(row[4])) for row in found])


FACE_ALIGNMENT = {
    "sfd": ("s3fd",),
    "blazeface": ("blazeface", "blazeface-anchors"),
    "blazeface-back": ("blazeface-back", "blazeface-back-anchors"),
}


def available_network(network: str) -> bool:
    """Whether all files of one of face-alignment's detectors are on disk."""
    return all(weights.on_disk(name) for name in FACE_ALIGNMENT[network])
