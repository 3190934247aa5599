"""Parameters -> the head's vertices: identity, expression and morphs along smooth fields."""

from __future__ import annotations

import functools

import numpy as np

from semedit.heads import geometry, regions
from semedit.heads.parameters import Parameters


def _bump(
    q: np.ndarray, center: tuple[float, float, float], radius: tuple[float, float, float]
) -> np.ndarray:
    """Gaussian weight [V] about a centre, cm."""
    d = (q - np.array(center, np.float32)) / np.array(radius, np.float32)
    return np.asarray(np.exp(-(d * d).sum(1)), np.float32)


def _step(x: np.ndarray, low: float, high: float) -> np.ndarray:
    t = np.clip((x - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


@functools.lru_cache(maxsize=1)
def _fields() -> dict[str, np.ndarray]:
    """Displacement of every vertex [V,3] cm for one unit of each morph."""
    q = geometry.load().neutral
    a = q * np.array([1, 1, 1], np.float32)
    a[:, 0] = np.abs(a[:, 0])
    sign = np.sign(q[:, 0])
    zero = np.zeros(len(q), np.float32)
    soft = np.ones(len(q), np.float32)
    for part in ("gums", "teeth", "left_eye", "right_eye"):
        soft[slice(*geometry.PARTS[part])] = 0
    nose = _bump(a, (0, 0.3, 11.2), (1.9, 1.9, 2.2)) * soft
    tip = _bump(a, (0, -0.2, 12.4), (1.4, 1.3, 1.8)) * soft
    low = _step(-a[:, 1], -1.0, 4.0) * (1 - _step(-a[:, 1], 8.5, 12.0)) * soft
    jaw = low * _step(a[:, 0], 1.5, 6.0) * _step(a[:, 2], -3.0, 3.0)
    chin = _bump(a, (0, -6.8, 10.4), (2.4, 2.0, 3.0)) * soft
    cheek = _bump(a, (5.6, -2.2, 6.5), (2.4, 3.2, 3.2)) * soft
    throat = _bump(a, (0, -8.6, 6.0), (5.0, 1.8, 3.5)) * soft
    neck = (
        _step(-a[:, 1], 6.5, 9.5)
        * (1 - _step(-a[:, 1], 12.5, 16.0))
        * (1 - _step(a[:, 2], 4.5, 7.5))
        * soft
    )
    ridge = _bump(a, (2.2, 5.3, 9.8), (2.6, 0.9, 2.0)) * soft
    lips = (
        np.exp(-(((a[:, 1] + 3.4) / 1.0) ** 2) - (a[:, 0] / 2.2) ** 4).astype(np.float32)
        * _step(a[:, 2], 9.4, 10.6)
        * soft
    )
    line = np.interp(a[:, 0], regions.PARTING_X, regions.PARTING_Y).astype(np.float32)
    near = (
        np.exp(-(((a[:, 1] - line) / 0.75) ** 2)).astype(np.float32)
        * np.clip(1 - (a[:, 0] / 2.6) ** 2, 0, 1).astype(np.float32)
        * _step(a[:, 2], 8.0, 10.0)
        * soft
    )
    part = np.sign(q[:, 1] - line).astype(np.float32) * near * 0.5
    lid = (
        np.exp(-(((a[:, 0] - 3.2) / 1.5) ** 2 + ((a[:, 1] - 3.5) / 0.9) ** 2)).astype(np.float32)
        * _step(a[:, 2], 7.5, 8.6)
        * soft
    )

    def field(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        return np.stack([x, y, z], 1).astype(np.float32)

    return {
        "nose_size": field(
            q[:, 0] * 0.42 * nose, (q[:, 1] - 0.9) * 0.16 * nose, (q[:, 2] - 9.8) * 0.22 * nose
        ),
        "nose_length": field(zero, -0.55 * tip, 0.15 * tip),
        "jaw_width": field(sign * 0.55 * jaw, zero, zero),
        "chin": field(zero, -0.45 * chin, 0.35 * chin),
        "fat": field(
            sign * 0.5 * cheek + sign * 0.35 * jaw, -0.5 * throat, 0.15 * cheek + 0.5 * throat
        ),
        "lip_fullness": field(zero, (q[:, 1] + 3.4) * 0.30 * lips, 0.18 * lips),
        "neck_width": field(q[:, 0] * 0.13 * neck, zero, (q[:, 2] + 1.0) * 0.13 * neck),
        "ridge": field(zero, zero, 0.38 * ridge),
        "part": field(zero, part, zero),
        "eye_size": field(zero, (q[:, 1] - 3.5) * 0.28 * lid, zero),
    }


def expression(p: Parameters, lids: float = 0.0) -> dict[str, float]:
    """Blend-shape weights of a head's expression parameters; lids as `build` takes them."""
    teeth = p.smile * (0.15 + 0.85 * p.smile_teeth) if p.smile > 0.3 else 0.0
    squint = p.eye_narrow if p.eye_narrow > 0.5 else 0.0
    weights = {
        "mouthSmile": 0.95 * p.smile + 0.04,
        "mouthDimple": 0.15 * p.smile,
        "cheekSquint": 0.55 * p.smile + 0.4 * squint,
        "cheekRaiser": 0.35 * p.smile,
        "mouthUpperUp": 0.4 * teeth + 0.2 * p.sneer,
        "mouthLowerDown": 0.45 * teeth,
        "jawOpen": min(0.10 * teeth + p.jaw_open, 0.7),
        "eyeSquint": min(0.25 * p.smile + 0.8 * squint + (0.2 + 0.6 * p.smile) * lids, 1.0),
        "eyeBlink": min(max(0.40 * squint, p.blink) + 0.25 * lids, 1.0),
        "eyeWide": (0.2 + p.wide) * (1 - squint),
        "browInnerUp": max(p.brow_raise, 0) * 0.6 + p.brow_inner,
        "browOuterUp_L": max(p.brow_raise + p.brow_tilt, 0) * 0.6,
        "browOuterUp_R": max(p.brow_raise - p.brow_tilt, 0) * 0.6,
        "browDown": max(-p.brow_raise, 0) * 0.9 + 0.25 * squint,
        "mouthPucker": p.pucker,
        "mouthFunnel": 0.3 * p.pucker * (p.jaw_open > 0.1),
        "noseSneer": p.sneer,
        "mouthFrown": p.frown * (1 - p.smile),
        "mouthPress": p.press,
        "mouthStretch": p.stretch,
        "mouthLeft": max(p.mouth_side, 0),
        "mouthRight": max(-p.mouth_side, 0),
        "eyeLookUp": max(p.gaze_y, 0),
        "eyeLookDown": max(-p.gaze_y, 0),
        "eyeLookOut_L": max(p.gaze_x, 0),
        "eyeLookIn_R": max(p.gaze_x, 0),
        "eyeLookIn_L": max(-p.gaze_x, 0),
        "eyeLookOut_R": max(-p.gaze_x, 0),
    }
    return {name: float(value) for name, value in weights.items() if value}


def build(p: Parameters, lids: float = 0.0) -> np.ndarray:
    """Vertices float32 [V,3] of the posed head, model centimetres.

    Args: lids: 0 to 1, how far the lids close without the eyes counting as narrow: they hang, and
          rise from below where the mouth smiles.
    """
    vertices = geometry.load().shape(p.identity, expression(p, lids))
    m = 2 * p.masculine - 1
    weights = {
        "nose_size": p.nose_size,
        "nose_length": p.nose_length + 0.15 * m,
        "jaw_width": p.jaw_width + 0.7 * m,
        "chin": p.chin + 0.5 * m,
        "fat": p.fat,
        "lip_fullness": p.lip_fullness - 0.5 * m,
        "neck_width": p.neck_width * 0.6 + 0.8 * m,
        "ridge": 0.8 * m,
        "eye_size": 0.7 + p.eye_size - 0.35 * m,
    }
    fields = _fields()
    for name, weight in weights.items():
        vertices += np.float32(weight) * fields[name]
    _settle(p, vertices, lids)
    return vertices


MOUTH_CM = (0.08, 0.45)  # the lips of a closed mouth are at most, of an open one at least, so far
EYE_CM = (0.42, 0.66)  # as much are narrow eyes open at most, others at least
HANGING_CM = 0.50  # others at least, under lids that close as far as `build` lets them


def mouth_gap(vertices: np.ndarray) -> float:
    """How far the lips are parted in the middle, cm."""
    points = vertices[geometry.load().landmarks]
    return float(np.linalg.norm(points[62] - points[66]))


def eye_gap(vertices: np.ndarray) -> float:
    """How far the eyes are open, cm: mean of both."""
    points = vertices[geometry.load().landmarks]
    lids = points[[37, 38, 43, 44]] - points[[41, 40, 47, 46]]
    return float(np.linalg.norm(lids, axis=1).mean())


def is_open(p: Parameters) -> bool:
    """Whether the mouth is meant to be open."""
    return bool(p.jaw_open > 0.1 or (p.smile > 0.3 and p.smile_teeth > 0.3))


def _settle(p: Parameters, vertices: np.ndarray, lids: float) -> None:
    """Open or close mouth and eyes further where identity left an attribute in doubt."""
    fields, lines = _fields(), geometry.load().landmarks
    gap = mouth_gap(vertices)
    wanted = max(gap, MOUTH_CM[1]) if is_open(p) else min(gap, MOUTH_CM[0])
    vertices += np.float32(wanted - gap) * fields["part"]
    gap = eye_gap(vertices)
    if p.blink > 0.5:
        wanted = min(gap, 0.03)
    else:
        least = EYE_CM[1] + lids * (HANGING_CM - EYE_CM[1])
        wanted = min(gap, EYE_CM[0]) if p.eye_narrow > 0.5 else max(gap, least)
    rate = float(
        fields["eye_size"][lines[[37, 38]], 1].mean()
        - fields["eye_size"][lines[[41, 40]], 1].mean()
    )
    vertices += np.float32((wanted - gap) / rate) * fields["eye_size"]
