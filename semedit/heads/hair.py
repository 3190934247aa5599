"""Hair as strands: roots on the scalp, grown by rule around a field that keeps them off the head.

Lengths in model centimetres. Strands are polylines float32 [S,K,3], of which `length` int32 [S]
points are in use.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from semedit.heads import geometry, raster
from semedit.heads.growth import CENTER, FIELD_H, FIELD_W, grow
from semedit.heads.parameters import Parameters
from semedit.heads.shading import Paint
from semedit.heads.skin import scalp
from semedit.runtime.compiled import compiled

POINTS = 30  # per strand; twice as many where hair is long and curly


class HairStyle(NamedTuple):
    """What `grow` reads. Lengths cm; see `style`."""

    cut: int  # 0 buzz, 1 short, 2 side, 3 bob, 4 long, 5 tied, 6 afro
    top: float  # length on top (short cuts, afro)
    sides: float  # share of it at the sides
    level: float  # y where bob and long hair is cut
    part: float  # x of the parting
    fringe: float  # 0 none; y of its end otherwise
    sweep: float  # -1 combed back .. 1 brought forward
    volume: float  # cm that the upper layers stand off
    curl: float  # 0 straight .. 1 curly
    wave: float  # cm of one wave
    amplitude: float  # cm
    frizz: float
    tuck: int  # 1: behind the ears
    curtain: float  # |x| that the face is kept free to
    gather_y: float  # where tied hair meets
    gather_z: float
    hat_y: float  # above this plane hair lies under the hat; 99 without
    hat_slope: float


class Strands(NamedTuple):
    """points float32 [S,K,3] cm; length int32 [S] points in use; tint float32 [S,3] factor on the
    hair colour; layer float32 [S] 0 inner .. 1 outer."""

    points: np.ndarray
    length: np.ndarray
    tint: np.ndarray
    layer: np.ndarray


def radius_field(vertices: np.ndarray) -> np.ndarray:
    """Distance float32 [FIELD_H, FIELD_W] cm from CENTER to the head's surface by direction."""
    model = geometry.load()
    outer = model.triangles[model.triangles.max(1) < geometry.PARTS["head"][1]]
    outer = outer[model.neutral[outer][..., 1].min(1) > -9.0]  # seen from inside, no shoulders
    d = vertices[: geometry.PARTS["head"][1]] - CENTER
    r = np.linalg.norm(d, axis=1)
    u = (np.arctan2(d[:, 0], d[:, 2]) / (2 * np.pi) + 0.5) * FIELD_W
    v = (np.arcsin(np.clip(d[:, 1] / r, -1, 1)) / np.pi + 0.5) * FIELD_H
    depth = np.full((FIELD_H, FIELD_W), raster.FAR, np.float32)
    spans = np.ptp(u[outer], axis=1) < FIELD_W / 2
    points = np.stack([u, v, -r], 1).astype(np.float32)
    raster.draw_triangles(points, outer[spans], depth)
    for shift in (-FIELD_W, FIELD_W):  # triangles across the seam behind the head
        wrapped = points.copy()
        wrapped[:, 0] = (
            np.where(
                points[:, 0] * -np.sign(shift) > FIELD_W / 2 * -np.sign(shift),
                points[:, 0] + shift,
                points[:, 0],
            )
            if shift < 0
            else np.where(points[:, 0] < FIELD_W / 2, points[:, 0] + shift, points[:, 0])
        )
        raster.draw_triangles(wrapped, outer[~spans], depth)
    field = -depth
    for _ in range(6):  # poles and cracks take the mean of their neighbours
        hole = field < 0
        if not hole.any():
            break
        total, weight = np.zeros_like(field), np.zeros_like(field)
        for axis, step in ((0, 1), (0, -1), (1, 1), (1, -1)):
            near = np.roll(field, step, axis)
            total += np.where(near > 0, near, 0)
            weight += near > 0
        field = np.where(hole & (weight > 0), total / np.maximum(weight, 1), field)
    return np.where(field < 0, np.float32(9), field).astype(np.float32)


@functools.lru_cache(maxsize=1)
def _candidates() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points spread evenly over the scalp of the neutral head: triangles int32 [R,3],
    weights float32 [R,3], neutral coordinates float32 [R,3]."""
    model = geometry.load()
    q = model.neutral
    outer = model.triangles[model.triangles.max(1) < geometry.PARTS["head"][1]]
    middle = q[outer].mean(1)
    outer = outer[(middle[:, 1] > -7) & (middle[:, 2] < 9.5)]
    corners = q[outer]
    area = np.linalg.norm(
        np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1
    )
    rng = np.random.default_rng(5)
    chosen = outer[rng.choice(len(outer), 30000, p=area / area.sum())]
    w = rng.dirichlet((1, 1, 1), len(chosen)).astype(np.float32)
    return chosen, w, np.einsum("rcx,rc->rx", q[chosen], w).astype(np.float32)


@compiled(fastmath=True)
def _inside(q, paint, ear_free):  # type: ignore[no-untyped-def]
    out = np.empty(len(q), np.float32)
    for i in range(len(q)):
        out[i] = scalp(paint, q[i, 0], q[i, 1], q[i, 2]) if ear_free[i] else -9.0
    return out


def roots(
    paint: Paint,
    vertices: np.ndarray,
    normals: np.ndarray,
    ears: np.ndarray,
    count: int,
    margin: float = 0.0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Roots within the hairline: positions, normals and neutral coordinates float32 [S,3]."""
    triangles, w, q = _candidates()
    free = np.einsum("rc,rc->r", ears[triangles], w) < 0.3
    keep = np.flatnonzero(_inside(q, paint, free) > margin)[:count]
    at = np.einsum("rcx,rc->rx", vertices[triangles[keep]], w[keep])
    normal = np.einsum("rcx,rc->rx", normals[triangles[keep]], w[keep])
    return at.astype(np.float32), normal.astype(np.float32), q[keep]


def style(p: Parameters) -> HairStyle:
    """The cut of a head's hair."""
    cut = ("buzz", "short", "side", "bob", "long", "tied", "afro").index(p.cut)
    t = p.hair_length
    top = (0.35 + 0.4 * t, 1.6 + 2.6 * t, 4.5 + 3.5 * t, 0, 0, 0, 2.2 + 4.3 * t)[cut]
    level = (0, 0, 0, -0.5 - 7.5 * t, -9.0 - 8.0 * t, 0, 0)[cut]
    curl = 0.0 if cut == 0 else (1.0 if cut == 6 else p.hair_curl)
    wave = 7.5 - 4.2 * curl if cut != 6 else 1.3
    amplitude = (0.02 + 0.85 * curl**1.2) * (0.45 if cut in (1, 2) else 1.0)
    fringe = 0.0
    if p.hair_fringe > 0 and cut in (1, 2, 3, 4):
        fringe = 9.0 - 2.6 * p.hair_fringe
    hat_y, hat_slope = hat_line(p)
    return HairStyle(
        cut=cut,
        top=top,
        sides=0.25 + 0.35 * p.hair_volume,
        level=level,
        part=3.4 * p.hair_part,
        fringe=fringe,
        sweep=p.hair_sweep,
        volume=(0.25 + 1.3 * p.hair_volume) * (0.6 if cut == 5 else 1.0) * (1 + 0.5 * curl),
        curl=curl,
        wave=wave,
        amplitude=amplitude if cut != 6 else 0.35,
        frizz=p.hair_frizz,
        tuck=int(p.tuck or p.earrings),
        curtain=5.6 + 1.0 * p.hair_volume,
        gather_y=4.0 + 7.5 * t,
        gather_z=-9.6,
        hat_y=hat_y,
        hat_slope=hat_slope,
    )


def hat_line(p: Parameters) -> tuple[float, float]:
    """Plane y = hat_y + slope * z (cm) of a hat's rim; y 99 without a hat."""
    if not p.hat:
        return 99.0, 0.0
    base = {"beanie": 8.0, "cap": 8.6, "wide": 8.3}[p.hat_kind]
    return base + 0.5 * p.hat_tilt, 0.20 if p.hat_kind != "beanie" else 0.28


def counts(p: Parameters) -> int:
    """Strands of a head of hair."""
    return {
        "buzz": 6000,
        "short": 7000,
        "side": 7000,
        "bob": 6500,
        "long": 6500,
        "tied": 5500,
        "afro": 7000,
    }[p.cut]


def grow_hair(
    p: Parameters,
    paint: Paint,
    vertices: np.ndarray,
    normals: np.ndarray,
    ears: np.ndarray,
    seed: int,
) -> Strands | None:
    """Strands of the head, or None when bald."""
    if p.bald:
        return None
    rng = np.random.default_rng([seed, 1])
    at, normal, q = roots(paint, vertices, normals, ears, counts(p))
    s = style(p)
    if s.cut == 5:
        at, normal, q = _tail_roots(at, normal, q, s, rng)
    random = rng.standard_normal((len(at), 6)).astype(np.float32)
    field = radius_field(vertices)
    fine = s.curl > 0.3 and s.cut in (3, 4, 5)
    points = np.zeros((len(at), POINTS * 2 if fine else POINTS, 3), np.float32)
    count = np.empty(len(at), np.int32)
    layer = np.empty(len(at), np.float32)
    grow(at, normal, q, random, field, s, seed % 9973, points, count, layer)
    shade = np.exp(
        0.16 * random[:, 3:4]
        + 0.12 * np.sin(2.1 * q[:, :1] + 1.7 * q[:, 1:2])
        + 0.10 * rng.standard_normal()
    )
    tint = np.repeat(shade, 3, 1)
    if p.hair_color == "gray":
        tint *= np.where(random[:, 4:5] > 0.3, 1.0, 0.55)
    tint[:, 2:] *= 1 + 0.06 * random[:, 5:6]
    return Strands(points, count, tint.astype(np.float32), layer)


def _tail_roots(
    at: np.ndarray, normal: np.ndarray, q: np.ndarray, s: HairStyle, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Adds the tail of tied hair: roots around the gathering point, marked by q.z < -50."""
    n = 1500
    offset = rng.normal(0, 0.55, (n, 3)).astype(np.float32)
    center = np.array([0, s.gather_y, s.gather_z], np.float32)
    tail = center + offset
    out = np.tile(np.array([[0, 0.3, -1]], np.float32), (n, 1)) + 0.5 * offset
    mark = np.full((n, 3), -99, np.float32)
    return (
        np.concatenate([at, tail]).astype(np.float32),
        np.concatenate([normal, out]).astype(np.float32),
        np.concatenate([q, mark]),
    )
