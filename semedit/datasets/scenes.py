"""Scenes of heads set into clutter, with the points of every face: what a detector learns from.

A head is cut out of its rendered picture by its label map, dressed (masks, dark glasses, hands),
made smaller, turned, mirrored and pasted. Heads seen from behind, bodies without a head, hands
and heads far too large are no faces. All sizes are px of the scene.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from semedit.faces.align import MIRROR, five_points
from semedit.faces.singleshot import LARGEST, SMALLEST, size_of
from semedit.media.labels import LABELS

CLOTH, NECK, HAIR = (LABELS.index(name) for name in ("cloth", "neck", "hair"))
LEAST, MOST = 0.7 * SMALLEST, 1.5 * LARGEST  # sizes of the faces in scenes
SHOWN = 0.4  # a face with fewer of its landmarks in sight does not count, either way
SKIN = np.array([(255, 224, 196), (233, 190, 160), (198, 140, 105), (141, 90, 60), (80, 50, 36)])
Colour = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Scene:
    """pixels uint8 [R,R,3]; points float32 [K,5,2] px; size [K] px; counts bool [K]: False where
    neither a find nor a miss is a mistake (hidden, or of a size that is not asked for)."""

    pixels: np.ndarray
    points: np.ndarray
    size: np.ndarray
    counts: np.ndarray


@dataclass(frozen=True, eq=False)
class CutOut:
    """A head on nothing: RGBa picture, and landmarks [68,2] px of it; whether its face shows."""

    picture: Image.Image
    landmarks: np.ndarray
    face: bool = True


@dataclass(eq=False)
class Pasted:
    """A head in a scene: landmarks [68,2] px there, and which of them are in sight."""

    landmarks: np.ndarray
    shown: np.ndarray
    face: bool


def compose(background: np.ndarray, heads: Sequence[CutOut], random: np.random.Generator) -> Scene:
    """Paste heads of random sizes and turns, far ones first; then what stands before them.

    Args: background uint8 [R,R,3].
    """
    side = len(background)
    image = Image.fromarray(background)
    pasted: list[Pasted] = []
    if random.uniform() < 0.3:
        _hand(image, random.uniform(0, side, 2), random.uniform(10, 60), random)
    sizes = np.sort([_size(random) for _ in heads])
    for size, head in zip(sizes, heads, strict=True):
        pasted.append(_paste(image, head, size, pasted, random))
    if random.uniform() < 0.15:
        _pole(image, pasted, random)
    pixels = np.asarray(image)
    if random.uniform() < 0.35:
        pixels = _framed(pixels, pasted, random)
    faces = [one for one in pasted if one.face]
    size = np.array([size_of(one.landmarks) for one in faces])
    shown = np.array([one.shown.mean() for one in faces])
    inside = (size >= LEAST) & (size <= MOST) & (shown >= SHOWN)
    far = (size > 2.5 * LARGEST) & (shown > 0)  # seen so near, it is no face
    kept = (inside | ~far) & (shown > 0)
    points = np.array([five_points(one.landmarks) for one in faces], np.float32)
    return Scene(pixels, points.reshape(-1, 5, 2)[kept], size[kept], inside[kept])


def _size(random: np.random.Generator) -> float:
    """Small ones as often as large ones, on a scale of octaves; now and then far too large."""
    if random.uniform() < 0.03:
        return float(random.uniform(2.5, 7.0) * LARGEST)
    return float(LEAST * (MOST / LEAST) ** random.uniform())


# Heads ------------------------------------------------------------------------------------------


def cut_out(
    picture: np.ndarray, labels: np.ndarray, landmarks: np.ndarray, random: np.random.Generator
) -> CutOut:
    """A head off its background, often dressed, sometimes from behind or without its head.

    Args: picture uint8 [S,S,3]; labels uint8 [S,S]; landmarks [68,2] px.
    """
    kind = random.uniform()
    face = kind > 0.14
    if kind < 0.10:
        picture = _behind(picture, labels, random)
    keep = labels != 0
    if 0.10 <= kind < 0.14:
        keep = np.isin(labels, (CLOTH, NECK))
    elif random.uniform() < 0.25:
        keep &= labels != CLOTH
    margin = len(labels) // 2
    image = Image.fromarray(np.pad(picture, ((margin, margin), (margin, margin), (0, 0)), "edge"))
    moved = landmarks + margin
    if face:
        _dress(image, moved, random)
    image.putalpha(Image.fromarray(_outline(keep, labels, margin, random)))
    return CutOut(image.convert("RGBa"), moved, face)  # so that shrinking need not convert


def _outline(
    keep: np.ndarray, labels: np.ndarray, margin: int, random: np.random.Generator
) -> np.ndarray:
    """Opacity uint8 of a picture with a margin: what the frame cut goes on, rounded.

    Clothes go on into shoulders and a chest, hair ends on an ellipse about the head.
    """
    side = len(labels)  # of the half-size map: a picture with its margin is twice as large
    alpha = np.pad(keep[::2, ::2], margin // 2, "edge")
    cloth = np.pad(np.isin(labels[::2, ::2], (CLOTH, NECK)), margin // 2, "edge")
    line = ((np.arange(side) + 0.5) * 2 / side - 1).astype(np.float32)  # 0: the middle; 0.5: edges
    x, y = line[None], line[:, None]
    a, b = random.uniform(0.5, 0.62, 2)
    head = (x / a) ** 2 + ((y + 0.02) / b) ** 2 < 1
    body = np.abs(x) < random.uniform(0.45, 0.6) + random.uniform(0.1, 0.6) * (y - 0.3)
    body &= y < random.uniform(0.5, 1.0)
    opaque = alpha & np.where(cloth, body | head, head)
    image = Image.fromarray(opaque * np.uint8(255))
    return np.asarray(image.resize((2 * side, 2 * side), Image.Resampling.BILINEAR))


def _behind(picture: np.ndarray, labels: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A head from behind: hair, or bare skin, over where the face was."""
    face = (labels != 0) & ~np.isin(labels, (CLOTH, NECK, HAIR))
    source = labels == HAIR if (labels == HAIR).sum() > 0.02 * labels.size else labels == 1
    if not source.any():
        return picture
    y, x = np.nonzero(source)
    out = picture.copy()
    rows, columns = np.nonzero(face)
    # A run of the hair's own pixels under each other keeps its strands together.
    chosen = (random.integers(len(y)) + rows * 3 + columns // 4) % len(y)
    out[rows, columns] = picture[y[chosen], x[chosen]]
    return out


def _dress(image: Image.Image, points: np.ndarray, random: np.random.Generator) -> None:
    """Draw a mask, dark glasses, a hand or a thing over a face, or nothing."""
    kind = random.uniform()
    draw = ImageDraw.Draw(image)
    apart = np.hypot(*(points[42:48].mean(0) - points[36:42].mean(0)))
    if kind < 0.10:
        _mask(draw, points, random)
    elif kind < 0.18:
        _shades(draw, points, apart, random)
    elif kind < 0.25:
        place = points[random.integers(68)] + random.normal(0, 0.3 * apart, 2)
        _hand(image, place, random.uniform(0.5, 1.4) * apart, random)
    elif kind < 0.32:
        x, y = points[random.integers(68)] + random.normal(0, 0.3 * apart, 2)
        a, b = random.uniform(0.2, 0.9, 2) * apart
        shape = draw.ellipse if random.uniform() < 0.5 else draw.rectangle
        shape((x - a, y - b, x + a, y + b), fill=_colour(random))


def _mask(draw: ImageDraw.ImageDraw, points: np.ndarray, random: np.random.Generator) -> None:
    """Over mouth and nose, with the folds of a surgical one."""
    common: list[Colour] = [(150, 195, 220), (235, 238, 240), (25, 25, 28), (170, 205, 190)]
    choice = int(random.integers(6))
    fill = common[choice] if choice < 4 else _colour(random)
    top = points[27:31][int(random.integers(1, 3))]
    outline = [*points[1:16], top]
    draw.polygon([(float(x), float(y)) for x, y in outline], fill=fill)
    fold = tuple(int(0.85 * v) for v in fill)
    for k in range(int(random.integers(0, 4))):
        left, right = points[3 + k], points[13 - k]
        draw.line([tuple(left), tuple(right)], fill=fold, width=1)


def _shades(
    draw: ImageDraw.ImageDraw, points: np.ndarray, apart: float, random: np.random.Generator
) -> None:
    """Dark glasses."""
    level = int(random.uniform(0, 60))
    fill = (level, level, int(level * random.uniform(0.6, 1.6)))
    a, b = random.uniform(0.3, 0.46) * apart, random.uniform(0.2, 0.38) * apart
    eyes = [points[36:42].mean(0), points[42:48].mean(0)]
    shape = draw.ellipse if random.uniform() < 0.5 else draw.rectangle
    for x, y in eyes:
        shape((x - a, y - b, x + a, y + b), fill=fill)
    draw.line([tuple(p) for p in eyes], fill=fill, width=max(1, int(0.05 * apart)))


def _hand(image: Image.Image, place: np.ndarray, size: float, random: np.random.Generator) -> None:
    """A palm with fingers, of any skin; size: px from its middle to the finger tips."""
    draw = ImageDraw.Draw(image)
    shade = SKIN[random.integers(len(SKIN))] * random.uniform(0.5, 1.1)
    fill = tuple(int(v) for v in np.clip(shade + random.normal(0, 10, 3), 0, 255))
    x, y = place
    r = 0.45 * size
    draw.ellipse((x - r, y - 1.15 * r, x + r, y + 1.15 * r), fill=fill)
    turn = random.uniform(0, 2 * np.pi)
    for k in range(5):
        angle = turn + 0.3 * k + random.normal(0, 0.05)
        long = size * random.uniform(0.8, 1.1)
        tip = (x + long * np.cos(angle), y + long * np.sin(angle))
        draw.line([(x, y), tip], fill=fill, width=max(1, int(0.2 * size)))
    arm = turn + 0.6 + np.pi
    end = (x + 3 * size * np.cos(arm), y + 3 * size * np.sin(arm))
    draw.line([(x, y), end], fill=fill, width=max(1, int(0.5 * size)))


def _colour(random: np.random.Generator) -> Colour:
    r, g, b = (int(v) for v in random.integers(0, 256, 3))
    return r, g, b


# Scenes -----------------------------------------------------------------------------------------


def _paste(
    image: Image.Image,
    head: CutOut,
    size: float,
    others: Sequence[Pasted],
    random: np.random.Generator,
) -> Pasted:
    """Paste a head of a size somewhere, upright or at any turn; it hides those behind it."""
    scale = size / size_of(head.landmarks)
    turn = random.normal(0, 0.2) if random.uniform() < 0.55 else random.uniform(-np.pi, np.pi)
    mirror = random.uniform() < 0.5
    linear = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    if mirror:
        linear = linear @ np.diag([-1.0, 1.0])
    shift = random.uniform(-0.05, 1.05, 2) * image.width - linear @ head.landmarks.mean(0)
    landmarks = head.landmarks @ linear.T + shift
    if mirror:
        landmarks = landmarks[MIRROR]
    alpha = _warp(image, head.picture, linear, shift)
    for one in others:
        one.shown &= ~hidden_landmarks(alpha, one.landmarks)
    return Pasted(landmarks, within(landmarks, 0, 0, image.width, image.height), head.face)


def _warp(
    image: Image.Image, picture: Image.Image, linear: np.ndarray, shift: np.ndarray
) -> np.ndarray:
    """Paste picture, moved by p -> linear p + shift, into image; its opacity there [R,R]."""
    corners = np.array([[0, 0], [0, 1], [1, 1], [1, 0]]) * picture.size
    moved = corners @ linear.T + shift
    low = np.clip(np.floor(moved.min(0)).astype(int), 0, image.size)
    high = np.clip(np.ceil(moved.max(0)).astype(int), 0, image.size)
    alpha = np.zeros((image.height, image.width), np.uint8)
    if (high <= low).any():
        return alpha
    factor = max(1, int(0.75 / np.sqrt(abs(np.linalg.det(linear)))))
    small = picture.reduce(factor) if factor > 1 else picture
    inverse = np.linalg.inv(linear)
    start = inverse @ (low - shift)
    rows = np.column_stack([inverse, start]) / factor
    shape = (int(high[0] - low[0]), int(high[1] - low[1]))
    patch = small.transform(
        shape, Image.Transform.AFFINE, tuple(rows.ravel()), Image.Resampling.BILINEAR
    ).convert("RGBA")
    image.paste(patch, (int(low[0]), int(low[1])), patch)
    alpha[low[1] : high[1], low[0] : high[0]] = np.asarray(patch.getchannel("A"))
    return alpha


def hidden_landmarks(alpha: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Whether an opacity uint8 [R,R] hides points [P,2] px: bool [P]; outside nothing is hidden."""
    x, y = np.floor(points).astype(int).T
    inside = (x >= 0) & (y >= 0) & (x < alpha.shape[1]) & (y < alpha.shape[0])
    limits = alpha.shape[1] - 1, alpha.shape[0] - 1
    here: np.ndarray = alpha[y.clip(0, limits[1]), x.clip(0, limits[0])] > 127
    return here & inside


def within(points: np.ndarray, left: int, top: int, right: int, bottom: int) -> np.ndarray:
    """Whether points [P,2] lie in a rectangle: bool [P]."""
    x, y = points.T
    return (x >= left) & (x < right) & (y >= top) & (y < bottom)


def _pole(image: Image.Image, pasted: Sequence[Pasted], random: np.random.Generator) -> None:
    """A bar in front of everything, from top to bottom."""
    side = image.width
    mask = Image.new("L", image.size)
    x, lean = random.uniform(0, side), random.normal(0, 0.1) * side
    half = random.uniform(1, 0.06 * side)
    corners = [(x - half, 0), (x + half, 0), (x + lean + half, side), (x + lean - half, side)]
    ImageDraw.Draw(mask).polygon(corners, fill=255)
    image.paste(_colour(random), (0, 0), mask)
    for one in pasted:
        one.shown &= ~hidden_landmarks(np.asarray(mask), one.landmarks)


def _framed(
    pixels: np.ndarray, pasted: Sequence[Pasted], random: np.random.Generator
) -> np.ndarray:
    """The scene as a photograph cut from its middle, whose border goes on outwards."""
    side = len(pixels)
    cuts = np.where(random.uniform(size=4) < 0.6, random.uniform(0.03, 0.3, 4), 0) * side
    left, top, right, bottom = cuts.astype(int)
    inner = pixels[top : side - bottom, left : side - right]
    for one in pasted:
        one.shown &= within(one.landmarks, left, top, side - right, side - bottom)
    return np.pad(inner, ((top, bottom), (left, right), (0, 0)), "edge")
