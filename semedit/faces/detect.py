"""Finding faces in a photograph.

Back-ends: `builtin` (our DetectorNet proposes, LandmarkNet and FaceNet decide), `facexlib`
(RetinaFace, Deng et al. 2019, arXiv:1905.00641), `face-alignment` (S3FD or BlazeFace).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image, ImageDraw

from semedit import weights
from semedit.errors import ShapeError
from semedit.faces import networks
from semedit.faces.align import EYE_LEFT, EYE_RIGHT, MOUTH, align, to_photo
from semedit.faces.landmarks import BuiltinLandmarks, Landmarks, view_of_points, view_of_size
from semedit.faces.search import Proposal, propose
from semedit.faces.singleshot import turn_of
from semedit.media.labels import LABELS, REGIONS
from semedit.media.pixels import to_tensor
from semedit.runtime import torchvision_ops

LIKELY = 0.05  # a first look's least score: it is often badly placed
SAME = 0.5  # two looks whose boxes overlap by more see one face
DRIFT = 0.25  # inter-ocular distances between two looks at one face that cost a factor e
SETTLING = (
    1.0,
    0.85,
)  # sides of the views in which eyes and mouth are looked for; more add nothing


@dataclass(frozen=True, eq=False)
class Detection:
    """One face of a photo.

    Attributes:
        box: float64 [4] x0, y0, x1, y1 px: from brow to chin, more or less.
        score: how surely this is a face, in [0,1].
        points: [5,2] px, eyes, nose tip, mouth corners (left in the picture first), or None.
        landmarks: [68,2] px, or None; visible: [68] in [0,1], or None.
        shaded: how surely dark glasses hide the eyes, in [0,1]; None: not looked at.
    """

    box: np.ndarray
    score: float
    points: np.ndarray | None = None
    landmarks: np.ndarray | None = None
    visible: np.ndarray | None = None
    shaded: float | None = None

    @property
    def area(self) -> float:
        """Of the box, px^2."""
        return float(np.prod(np.maximum(self.box[2:] - self.box[:2], 0)))


class Detector(Protocol):
    """Takes a photo uint8 [H,W,3] (upright sRGB), returns its faces, largest first.

    min_face: px across the landmarks; faces down to this size are looked for.
    """

    name: str
    min_face: int

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


SEEN = 16  # px across a face that other libraries' networks still find


def looks(photo: np.ndarray, longest: int, min_face: int) -> list[tuple[np.ndarray, float]]:
    """The photo at no more than `longest` px; where that makes faces of min_face px too small to
    be found, also as large as they need. Each with its scale."""
    small = shrink(photo, longest)
    needed = min(1.0, SEEN / max(min_face, 1))
    if small[1] >= needed:
        return [small]
    return [small, shrink(photo, round(needed * max(photo.shape[:2])))]


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


@dataclass(frozen=True)
class Looks:
    """Further looks at the `most` likeliest of proposals whose first look scores less than
    `below`: turned by quarters, and at other sizes, in those proposed."""

    below: float
    most: int
    ways: tuple[tuple[int, float], ...]


USUAL = Looks(0.14, 6, ((1, 1.0), (2, 1.0), (3, 1.0)))
# Where no face is found, more of less likely places, which are often not as large as proposed.
HARD = Looks(0.5, 10, tuple((k, s) for s in (1.0, 0.65, 1.6) for k in range(4))[1:])
HARDER, SURER = 0.7, 0.75  # of the least chance; the least score of a face there


class BuiltinDetector:
    """DetectorNet proposes faces of any size and turn, two networks judge each.

    LandmarkNet says how face-like a place is; FaceNet, which draws label maps, must find eyes,
    nose, mouth and cheeks where the landmarks are.
    """

    name = "builtin"

    def __init__(
        self,
        device: str = "cpu",
        threshold: float = 0.7,
        likely: float = 0.3,
        min_face: int = 32,
    ) -> None:
        """threshold: least score of a face; likely: least chance of a place that is judged."""
        self.network = networks.load("detector", device)
        self.landmarks = BuiltinLandmarks(device)
        self.size = networks.load("faces", device).size  # px a side of the crops it judges
        self.device, self.min_face = device, min_face
        self.threshold, self.likely = threshold, likely

    def __call__(self, photo: np.ndarray) -> list[Detection]:
        """Photo uint8 [H,W,3] -> detections with landmarks, largest first."""
        check_photo(photo)
        judged = self.judge(photo, self.propose(photo))
        if not any(self.sure(d) for d in judged):
            proposals = self.propose(photo, HARDER * self.likely)
            judged = self.judge(photo, proposals, looks=HARD)
            judged = [d for d in judged if d.score > SURER]  # so many looks see more by chance
        return [self._settled(photo, d) for d in distinct([d for d in judged if self.sure(d)])]

    def doubts(self, photo: np.ndarray) -> list[Detection]:
        """Likely places that the judges do not take for faces, the likeliest first."""
        judged = self.judge(photo, self.propose(photo), 0.2 * self.threshold)
        return sorted([d for d in judged if not self.sure(d)], key=lambda d: -d.score)

    def sure(self, detection: Detection) -> bool:
        """Whether its score is that of a face."""
        return detection.score > self.threshold

    def propose(self, photo: np.ndarray, likely: float | None = None) -> list[Proposal]:
        """Places that may be faces, the likeliest first; likely: least chance."""
        least = self.likely if likely is None else likely
        return propose(self.network, photo, self.min_face, least, self.device)

    def judge(
        self,
        photo: np.ndarray,
        proposals: Sequence[Proposal],
        least: float | None = None,
        looks: Looks = USUAL,
    ) -> list[Detection]:
        """A detection of each proposal that is steady by at least `least`, by default those of
        which one may be sure. looks: at what is no face as proposed.

        score = sqrt(steady * max(agreement, chance)),
        steady = sqrt(second look's * last look's) * exp(-(d / DRIFT)^2)

        with d the mean distance between the landmarks of those looks, in inter-ocular distances:
        a real face stays where it was seen, an imagined one moves with the view. FaceNet's
        agreement or the proposal's chance must speak for it, too: one does not know masks, the
        other does.
        """
        least = self.threshold**2 if least is None else least
        first, likely = self._first(photo, proposals, looks)
        second = self.landmarks(photo, [view_of_points(p) for p in first[likely]], passes=0)
        kept = unlike(second, _plausible(second, np.flatnonzero(second.score > 0.5 * least)))
        if not kept:
            return []
        last = self.landmarks(photo, [view_of_points(second.points[i]) for i in kept], passes=1)
        drift = np.linalg.norm(last.points - second.points[kept], axis=2).mean(1)
        eyes = last.points[:, EYE_RIGHT].mean(1) - last.points[:, EYE_LEFT].mean(1)
        drift = drift / np.maximum(np.linalg.norm(eyes, axis=1), 1)
        steady = np.sqrt(last.score * second.score[kept]) * np.exp(-((drift / DRIFT) ** 2))
        found = []
        for i in _plausible(last, np.flatnonzero(steady > least)):
            points = last.points[i]
            crop, _, placed = align(photo, points, self.size)
            chances = self._chances(crop, (1.0,))
            backed = max(agreement(chances, placed), proposals[likely[kept[i]]].chance)
            sure = float(np.sqrt(steady[i] * backed))
            dark = shaded(chances[list(REGIONS["glasses"])].sum(0), placed)
            found.append(Detection(box_of(points), sure, None, points, last.visible[i], dark))
        return found

    def _first(
        self, photo: np.ndarray, proposals: Sequence[Proposal], looks: Looks
    ) -> tuple[np.ndarray, np.ndarray]:
        """Where a first look sees the landmarks of each proposal [K,68,2], and which of them may
        be faces. What is none as proposed is looked at in other ways, too."""
        seen = self.landmarks.glance(photo, [_view(p) for p in proposals])
        points, score = seen.points.copy(), seen.score.copy()
        unsure = np.flatnonzero(score < looks.below)[: looks.most]
        views = [_view(proposals[i], *how) for i in unsure for how in looks.ways]
        again = self.landmarks.glance(photo, views)
        count = len(looks.ways)
        for row, i in enumerate(unsure):
            best = count * row + int(again.score[count * row : count * (row + 1)].argmax())
            if again.score[best] > score[i]:
                points[i], score[i] = again.points[best], again.score[best]
        found = Landmarks(points, seen.visible, score)
        return points, np.array(unlike(found, np.flatnonzero(score > LIKELY)), int)

    def _settled(self, photo: np.ndarray, found: Detection) -> Detection:
        """The detection with landmarks of eyes and mouth where FaceNet's labels are."""
        assert found.landmarks is not None
        crop, quad, placed = align(photo, found.landmarks, self.size)
        moved = settle(self._chances(crop, SETTLING), placed)
        points = to_photo(moved, quad, len(crop)).astype(np.float32)
        return replace(found, box=box_of(points), landmarks=points)

    def _chances(self, crop: np.ndarray, views: tuple[float, ...]) -> np.ndarray:
        """Of the labels in an aligned crop uint8 [S,S,3]: [19,S,S]."""
        seg = networks.describe(to_tensor(crop[None]).to(self.device), views).seg[0]
        return seg.softmax(0).cpu().numpy()


def _view(proposal: Proposal, quarters: int = 0, grown: float = 1.0) -> np.ndarray:
    """LandmarkNet's square [4,2] about a proposal, turned further by so many quarters."""
    turn = turn_of(proposal.points) + quarters * np.pi / 2
    return view_of_size(proposal.points.mean(0), grown * proposal.size, turn)


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


def shaded(glasses: np.ndarray, points: np.ndarray) -> float:
    """How much of the less hidden eye lies under glasses that show no eye, 0 to 1.

    Args:    glasses: [S,S] in [0,1], chance of the label; points: [68,2] px of the same crop.
    """
    eyes = [_outline(points[part], len(glasses)) for part in (EYE_LEFT, EYE_RIGHT)]
    return min(float((glasses * eye).sum() / max(eye.sum(), 1)) for eye in eyes)


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


def unlike(found: Landmarks, indices: Sequence[int] | np.ndarray) -> list[int]:
    """Those that see a face which none that is surer sees, too; the surest first."""
    kept: list[int] = []
    boxes = {int(i): box_of(found.points[i]) for i in indices}
    for i in sorted(boxes, key=lambda i: -found.score[i]):
        if all(overlap(boxes[i], boxes[k]) <= SAME for k in kept):
            kept.append(i)
    return kept


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
        self.threshold, self.longest, self.min_face = threshold, longest, 32

    def __call__(self, photo: np.ndarray) -> list[Detection]:
        """Photo uint8 [H,W,3] -> detections with five points, largest first."""
        check_photo(photo)
        found = []
        for seen, scale in looks(photo, self.longest, self.min_face):
            bgr = np.ascontiguousarray(seen[:, :, ::-1])
            with torch.inference_mode():
                rows = self.model.detect_faces(bgr, self.threshold)
            found += [
                Detection(row[:4] / scale, float(row[4]), row[5:].reshape(5, 2) / scale)
                for row in np.asarray(rows, np.float64)
            ]
        return distinct(found)


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
        self.network, self.longest, self.min_face = network, longest, 32

    def __call__(self, photo: np.ndarray) -> list[Detection]:
        """Photo uint8 [H,W,3] -> detections, largest first."""
        check_photo(photo)
        found = []
        for seen, scale in looks(photo, self.longest, self.min_face):
            with torch.inference_mode():
                rows = self.model.detect_from_image(seen.copy())
            kept = [np.asarray(row, np.float64) for row in rows if len(row)]
            found += [Detection(row[:4] / scale, float(row[4])) for row in kept]
        return distinct(found)


FACE_ALIGNMENT = {
    "sfd": ("s3fd",),
    "blazeface": ("blazeface", "blazeface-anchors"),
    "blazeface-back": ("blazeface-back", "blazeface-back-anchors"),
}


def available_network(network: str) -> bool:
    """Whether all files of one of face-alignment's detectors are on disk."""
    return all(weights.on_disk(name) for name in FACE_ALIGNMENT[network])
