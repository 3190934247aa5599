"""Where things are on the neutral head, in model centimetres: lips, nose, brows, ears, hairline.

Paint and labels are evaluated from neutral coordinates q = (x, y, z), so they stick to the head
in every expression, identity and view. The face is symmetric: polygons are given for x >= 0.
Angles phi about the vertical axis: 0 in front, 90 degrees at the ear, 180 behind.
"""

from __future__ import annotations

import functools

import numpy as np

from semedit.heads import geometry
from semedit.runtime.compiled import compiled

STEP_CM = 0.05
LOW_X, LOW_Y, WIDE, HIGH = 0.0, -10.0, 170, 460  # the grid of the distance maps

LIPS = (
    (0.0, -2.52),
    (0.35, -2.42),
    (0.7, -2.40),
    (1.2, -2.56),
    (1.7, -2.82),
    (2.15, -3.16),
    (2.5, -3.5),
    (2.15, -3.86),
    (1.75, -4.12),
    (1.35, -4.28),
    (1.0, -4.38),
    (0.0, -4.48),
)
NOSE = (
    (0.0, 4.9),
    (0.75, 4.7),
    (0.95, 4.0),
    (0.85, 3.2),
    (1.0, 2.2),
    (1.35, 1.2),
    (1.85, 0.5),
    (2.05, -0.2),
    (1.95, -0.85),
    (1.45, -1.3),
    (0.7, -1.5),
    (0.0, -1.6),
)
# The parting of the lips: y at |x| = 0, 1, 2.2, 2.6.
PARTING_X = np.array([0.0, 1.0, 2.2, 2.6])
PARTING_Y = np.array([-3.34, -3.36, -3.50, -3.52])
# The hairline of a full head of hair: y over phi (degrees).
HAIR_PHI = np.array(
    [0, 15, 25, 33, 40, 47, 53, 58, 64, 70, 75, 79, 84, 95, 106, 113, 122, 135, 150, 180.0]
)
HAIR_Y = np.array(
    [
        11.6,
        11.5,
        11.3,
        10.6,
        9.3,
        7.9,
        6.9,
        5.9,
        4.6,
        2.6,
        1.2,
        2.2,
        5.3,
        6.2,
        5.0,
        0.5,
        -2.2,
        -4.4,
        -5.4,
        -5.8,
    ]
)
# Below this the head is neck: y over phi.
JAW_PHI = np.array([0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 180.0])
JAW_Y = np.array([-8.45, -8.3, -7.9, -7.4, -6.7, -6.1, -5.5, -4.9, -4.1, -3.0, -1.6, -1.2, -1.2])


# Lines of age (x >= 0): forehead, frown, crow's feet, under the eye, corner of the mouth.
WRINKLES = (
    ((0.0, 7.7), (1.6, 7.9), (3.2, 7.6), (4.2, 7.2)),
    ((0.0, 8.8), (1.8, 9.0), (3.6, 8.6)),
    ((0.0, 9.9), (1.6, 10.0), (3.0, 9.7)),
    ((0.55, 5.0), (0.65, 6.2)),
    ((5.1, 3.4), (6.3, 3.9)),
    ((5.1, 3.1), (6.4, 3.0)),
    ((5.0, 2.8), (6.1, 2.1)),
    ((1.8, 2.5), (2.8, 1.85), (4.2, 2.0), (5.0, 2.6)),
    ((2.9, -3.8), (3.2, -4.8), (3.1, -5.7)),
)
FOLDS = (((1.75, 0.35), (2.35, -0.7), (3.0, -2.0), (3.35, -3.3)),)


@functools.lru_cache(maxsize=1)
def maps() -> np.ndarray:
    """Distances float32 [4,HIGH,WIDE] cm: to the outlines of lips and nose (inside < 0), to the
    lines of age, to the folds of the smile."""
    lines = [np.array(line) for line in WRINKLES]
    folds = [np.array(line) for line in FOLDS]
    return np.stack(
        [_outline(np.array(LIPS)), _outline(np.array(NOSE)), _lines(lines), _lines(folds)]
    )


def _outline(half: np.ndarray) -> np.ndarray:
    mirrored = half[::-1] * np.array([-1.0, 1.0])
    return np.asarray(_polygon_distance(np.concatenate([half, mirrored])))


def _lines(lines: list[np.ndarray]) -> np.ndarray:
    """Distance to the nearest of open polylines: a polygon there and back encloses nothing."""
    there_and_back = [np.concatenate([line, line[-2:0:-1]]) for line in lines]
    return np.asarray(np.min([np.abs(_polygon_distance(line)) for line in there_and_back], 0))


@compiled()
def _polygon_distance(polygon):  # type: ignore[no-untyped-def]
    out = np.empty((HIGH, WIDE), np.float32)
    n = polygon.shape[0]
    for i in range(HIGH):
        for j in range(WIDE):
            x, y = LOW_X + j * STEP_CM, LOW_Y + i * STEP_CM
            best, inside = 1e9, False
            for k in range(n):
                ax, ay = polygon[k]
                bx, by = polygon[(k + 1) % n]
                dx, dy = bx - ax, by - ay
                t = ((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy + 1e-12)
                t = min(max(t, 0.0), 1.0)
                best = min(best, (ax + t * dx - x) ** 2 + (ay + t * dy - y) ** 2)
                if (ay > y) != (by > y) and x < dx * (y - ay) / (by - ay) + ax:
                    inside = not inside
            out[i, j] = -np.sqrt(best) if inside else np.sqrt(best)
    return out


@compiled(fastmath=True)
def sample(field, x, y):  # type: ignore[no-untyped-def]
    """Bilinear value of a distance map at neutral (x, y) cm."""
    u = (abs(x) - LOW_X) / STEP_CM
    v = (y - LOW_Y) / STEP_CM
    u = min(max(u, 0.0), WIDE - 1.001)
    v = min(max(v, 0.0), HIGH - 1.001)
    i, j = int(v), int(u)
    a, b = v - i, u - j
    top = field[i, j] * (1 - b) + field[i, j + 1] * b
    low = field[i + 1, j] * (1 - b) + field[i + 1, j + 1] * b
    return top * (1 - a) + low * a


@compiled(fastmath=True)
def brow_offset(x, y, thick, arch):  # type: ignore[no-untyped-def]
    """How far inside the brow a neutral point is: 1 on the centre line, 0 at the edge, < 0 out.

    thick, arch: parameters brow_thick and brow_arch.
    """
    t = (abs(x) - 1.15) / 4.75
    if t < -0.06 or t > 1.04:
        return -1.0
    half = (0.35 + 0.25 * thick) * brow_taper(t)
    return 1 - abs(y - brow_center(t, arch)) / half


@compiled(fastmath=True)
def brow_taper(t):  # type: ignore[no-untyped-def]
    s = min(max(t, 0.0), 1.0)
    return 0.28 + 0.72 * min(1.0, (s + 0.05) * 6) * (1 - s**2.2)


@compiled(fastmath=True)
def brow_center(t, arch):  # type: ignore[no-untyped-def]
    """y of the brow's centre line; t = 0 at the inner end, 1 at the outer."""
    s = min(max(t, 0.0), 1.0)
    plain = 5.50 + 0.95 * s - 0.35 * s * s - 1.15 * max(s - 0.62, 0.0) ** 1.2
    lifted = np.exp(-(((s - 0.66) / 0.24) ** 2))
    return plain + arch * (0.50 * lifted - 0.22 * np.exp(-((s / 0.3) ** 2)) - 0.05)


@functools.lru_cache(maxsize=1)
def ears() -> np.ndarray:
    """Weight float32 [V] of the ears: > 0.5 belongs to an ear."""
    q = geometry.load().neutral
    side = np.abs(q[:, 0])
    inside = (q[:, 2] > -3.6) & (q[:, 2] < 1.7) & (q[:, 1] > -2.0) & (q[:, 1] < 6.3)
    ear = inside & (side > 7.25 + 0.10 * np.maximum(q[:, 2], 0))
    ear[geometry.PARTS["head"][1] :] = False
    return ear.astype(np.float32)
