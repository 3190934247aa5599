"""Hair as strands: roots on the scalp, grown by rule around a field that keeps them off the head.

Lengths in model centimetres. Strands are polylines float32 [S,K,3], of which `length` int32 [S]
points are in use.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
from numba import njit

from semedit.heads import geometry, raster
from semedit.heads.noise import noise3
from semedit.heads.parameters import Parameters
from semedit.heads.shading import Paint
from semedit.heads.skin import scalp, smooth

CENTER = np.array([0.0, 3.5, -0.5], np.float32)  # of the radius field
FIELD_W, FIELD_H = 144, 72
POINTS = 30  # per strand; twice as many where hair is long and curly


class Style(NamedTuple):
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
    raster.draw_depth(points, outer[spans], depth)
    for shift in (-FIELD_W, FIELD_W):  # triangles across the seam behind the head
        wrapped = points.copy()
        wrapped[:, 0] = np.where(points[:, 0] * -np.sign(shift) > FIELD_W / 2 * -np.sign(shift),
                                 points[:, 0] + shift, points[:, 0]) if shift < 0 else np.where(
            points[:, 0] < FIELD_W / 2, points[:, 0] + shift, points[:, 0])
        raster.draw_depth(wrapped, outer[~spans], depth)
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
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]),
                          axis=1)
    rng = np.random.default_rng(5)
    chosen = outer[rng.choice(len(outer), 30000, p=area / area.sum())]
    w = rng.dirichlet((1, 1, 1), len(chosen)).astype(np.float32)
    return chosen, w, np.einsum("rcx,rc->rx", q[chosen], w).astype(np.float32)


@njit(cache=True, fastmath=True)
def _inside(q, paint, ear_free):  # type: ignore[no-untyped-def]
    out = np.empty(len(q), np.float32)
    for i in range(len(q)):
        out[i] = scalp(paint, q[i, 0], q[i, 1], q[i, 2]) if ear_free[i] else -9.0
    return out


def roots(paint: Paint, vertices: np.ndarray, normals: np.ndarray, ears: np.ndarray, count: int,
          margin: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Roots within the hairline: positions, normals and neutral coordinates float32 [S,3]."""
    triangles, w, q = _candidates()
    free = np.einsum("rc,rc->r", ears[triangles], w) < 0.3
    keep = np.flatnonzero(_inside(q, paint, free) > margin)[:count]
    at = np.einsum("rcx,rc->rx", vertices[triangles[keep]], w[keep])
    normal = np.einsum("rcx,rc->rx", normals[triangles[keep]], w[keep])
    return at.astype(np.float32), normal.astype(np.float32), q[keep]


def style(p: Parameters) -> Style:
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
    return Style(
        cut=cut, top=top, sides=0.25 + 0.35 * p.hair_volume, level=level, part=3.4 * p.hair_part,
        fringe=fringe, sweep=p.hair_sweep, volume=(0.25 + 1.3 * p.hair_volume) * (
            0.6 if cut == 5 else 1.0) * (1 + 0.5 * curl),
        curl=curl, wave=wave, amplitude=amplitude if cut != 6 else 0.35, frizz=p.hair_frizz,
        tuck=int(p.tuck or p.earrings), curtain=5.6 + 1.0 * p.hair_volume,
        gather_y=4.0 + 7.5 * t, gather_z=-9.6, hat_y=hat_y, hat_slope=hat_slope,
    )


def hat_line(p: Parameters) -> tuple[float, float]:
    """Plane y = hat_y + slope * z (cm) of a hat's rim; y 99 without a hat."""
    if not p.hat:
        return 99.0, 0.0
    base = {"beanie": 8.0, "cap": 8.6, "wide": 8.3}[p.hat_kind]
    return base + 0.5 * p.hat_tilt, 0.20 if p.hat_kind != "beanie" else 0.28


def counts(p: Parameters) -> int:
    """Strands of a head of hair."""
    return {"buzz": 6000, "short": 7000, "side": 7000, "bob": 6500, "long": 6500, "tied": 5500,
            "afro": 7000}[p.cut]


def grow_hair(p: Parameters, paint: Paint, vertices: np.ndarray, normals: np.ndarray,
              ears: np.ndarray, seed: int) -> Strands | None:
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
    _grow(at, normal, q, random, field, s, paint.hairline, seed % 9973, points, count, layer)
    shade = np.exp(0.16 * random[:, 3:4] + 0.12 * np.sin(2.1 * q[:, :1] + 1.7 * q[:, 1:2])
                   + 0.10 * rng.standard_normal())
    tint = np.repeat(shade, 3, 1)
    if p.hair_color == "gray":
        tint *= np.where(random[:, 4:5] > 0.3, 1.0, 0.55)
    tint[:, 2:] *= 1 + 0.06 * random[:, 5:6]
    return Strands(points, count, tint.astype(np.float32), layer)


def _tail_roots(at: np.ndarray, normal: np.ndarray, q: np.ndarray, s: Style,
                rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Adds the tail of tied hair: roots around the gathering point, marked by q.z < -50."""
    n = 1500
    offset = rng.normal(0, 0.55, (n, 3)).astype(np.float32)
    center = np.array([0, s.gather_y, s.gather_z], np.float32)
    tail = center + offset
    out = np.tile(np.array([[0, 0.3, -1]], np.float32), (n, 1)) + 0.5 * offset
    mark = np.full((n, 3), -99, np.float32)
    return (np.concatenate([at, tail]).astype(np.float32),
            np.concatenate([normal, out]).astype(np.float32), np.concatenate([q, mark]))


@njit(cache=True, fastmath=True)
def field_radius(field, x, y, z):  # type: ignore[no-untyped-def]
    """Bilinear radius (cm) of the head in the direction of (x, y, z) relative to CENTER."""
    r = np.sqrt(x * x + y * y + z * z) + 1e-9
    u = (np.arctan2(x, z) / (2 * np.pi) + 0.5) * FIELD_W - 0.5
    v = (np.arcsin(min(max(y / r, -1.0), 1.0)) / np.pi + 0.5) * FIELD_H - 0.5
    j, i = int(np.floor(u)), int(np.floor(v))
    a, b = u - j, v - i
    i0, i1 = min(max(i, 0), FIELD_H - 1), min(max(i + 1, 0), FIELD_H - 1)
    j0, j1 = j % FIELD_W, (j + 1) % FIELD_W
    return ((field[i0, j0] * (1 - a) + field[i0, j1] * a) * (1 - b)
            + (field[i1, j0] * (1 - a) + field[i1, j1] * a) * b)


@njit(cache=True, fastmath=True)
def _comb(s, q, d):  # type: ignore[no-untyped-def]
    """Direction the hair is combed to at neutral root q (not yet tangent) into d."""
    x, y, z = q[0], q[1], q[2]
    top = smooth(y, 8.0, 12.5)
    side = 1.0 if x > s.part else -1.0
    front = smooth(z, 1.0, 6.0)
    if s.cut >= 3:  # bob, long: away from the parting and down
        if z < -4:
            side = 1.0 if x > 0 else -1.0
        near = np.exp(-(((x - s.part) / 1.2) ** 2))
        back = 0.35 + 0.5 * front + 1.2 * max(-s.sweep - 0.2, 0.0)
        d[0] = side * (0.25 + 1.1 * top)
        d[1] = -0.9 * (1 - 0.9 * front) + 0.5 * near * top
        d[2] = -back * top + (0.1 if s.tuck == 0 else -0.5) * (1 - top) - 0.5 * front
        if s.fringe > 0 and front > 0.5 and abs(x) < 4.8 and y > 8.5:
            d[0], d[1], d[2] = 0.22 * x - 0.05 * s.part, -0.6, 1.0
    else:  # short: around the whorl, swept across on top
        wx, wy, wz = x - 0.8, y - 13.5, z + 4.5
        length = np.sqrt(wx * wx + wy * wy + wz * wz) + 1e-6
        d[0], d[1], d[2] = wx / length, wy / length, wz / length
        if s.cut == 2:
            d[0] += side * 1.3 * top
            d[2] += 0.3 * front * top
        if s.fringe == 0:
            d[2] -= (0.9 + 1.4 * max(-s.sweep, 0.0)) * top
            d[1] += 1.2 * front * top
        d[0] += 0.6 * s.sweep * top
        d[1] -= 0.5 * (1 - top)


@njit(cache=True, fastmath=True)
def _keep_out(s, field, lift, p):  # type: ignore[no-untyped-def]
    """Push a point out of head, face and shoulders. Returns whether it touched."""
    touched = False
    dx, dy, dz = p[0], p[1] - CENTER[1], p[2] - CENTER[2]
    r = np.sqrt(dx * dx + dy * dy + dz * dz) + 1e-9
    wanted = field_radius(field, dx, dy, dz) + lift
    if r < wanted:
        k = wanted / r
        p[0], p[1], p[2] = dx * k, CENTER[1] + dy * k, CENTER[2] + dz * k
        touched = True
    return touched


@njit(cache=True, fastmath=True)
def _crosses(points, i, n, curtain):  # type: ignore[no-untyped-def]
    """Whether a strand would hang across the face."""
    for k in range(n):
        y, z = points[i, k, 1], points[i, k, 2]
        if y < 9.3 and z > 4.0 and abs(points[i, k, 0]) < curtain - 1.3:
            return True
    return False


@njit(cache=True, fastmath=True)
def _under_hat(s, field, p):  # type: ignore[no-untyped-def]
    """Above the rim hair lies flat on the head; just below it comes out gradually."""
    above = p[1] - (s.hat_y + s.hat_slope * p[2])
    if above < -1.6:
        return
    dx, dy, dz = p[0], p[1] - CENTER[1], p[2] - CENTER[2]
    r = np.sqrt(dx * dx + dy * dy + dz * dz) + 1e-9
    k = (field_radius(field, dx, dy, dz) + 0.12 + 0.55 * max(-above, 0.0)) / r
    if k < 1:
        p[0], p[1], p[2] = dx * k, CENTER[1] + dy * k, CENTER[2] + dz * k


@njit(cache=True, fastmath=True)
def _grow(at, normal, q, random, field, s, hairline, seed, points, count, layer):  # type: ignore[no-untyped-def]
    """Grow every strand; see `grow_hair`."""
    d, p = np.zeros(3), np.zeros(3)
    ux, uy, uz = 0.0, 0.0, 0.0
    for i in range(len(at)):
        tail = q[i, 2] < -50
        rx, ry, rz = at[i, 0], at[i, 1], at[i, 2]
        high = smooth(ry, -4.0, 14.0)
        clump = noise3(rx * 1.1, ry * 1.1, rz * 1.1, seed)
        clump2 = noise3(rx * 1.1, ry * 1.1, rz * 1.1, seed + 1)
        clump3 = noise3(rx * 0.5, ry * 0.5, rz * 0.5, seed + 2)
        u = 0.5 + 0.5 * np.sin(12.9 * random[i, 0])
        lift = 0.08 + s.volume * (0.15 + 0.85 * high) * (0.35 + 0.65 * u)
        if s.cut <= 1:
            lift = 0.05
        elif s.cut == 2:
            lift = 0.06 + 0.5 * s.volume * high * u
        layer[i] = u
        loose = 1.0 if s.cut != 5 or tail else 0.25
        fringe = (s.fringe > 0 and q[i, 2] > 3.0 and q[i, 1] > 8.3 and abs(q[i, 0]) < 4.9
                  and not tail)
        # length
        if s.cut == 0 or s.cut == 6:
            length = s.top * (0.85 + 0.15 * u)
        elif s.cut <= 2:
            upper = smooth(q[i, 1], 5.5, 11.0)
            length = s.top * (s.sides * 0.6 + (1 - s.sides * 0.6) * upper) * (0.75 + 0.25 * u)
            length = max(length * (0.3 + 0.7 * smooth(q[i, 1], -3.0, 4.0)), 0.4)
        elif s.cut == 5:
            length = 16.0
        else:
            length = max((ry - s.level) * 1.12 + 1.5 + 6.0 * smooth(ry, 9.0, 13.0), 1.5)
        if fringe and s.cut >= 3:
            length = min(length, 7.0)
        if tail:
            length = 3.0 + 11.0 * u
        step = length / (points.shape[1] - 1)
        # first direction
        if tail or s.cut == 6:
            d[0], d[1], d[2] = normal[i, 0], normal[i, 1], normal[i, 2]
        elif s.cut == 5:
            d[0], d[1], d[2] = -rx, s.gather_y - ry, s.gather_z - rz
        else:
            _comb(s, q[i], d)
        dot = d[0] * normal[i, 0] + d[1] * normal[i, 1] + d[2] * normal[i, 2]
        if not tail and s.cut != 6:
            for c in range(3):
                d[c] -= dot * normal[i, c]
        norm = np.sqrt(d[0] ** 2 + d[1] ** 2 + d[2] ** 2) + 1e-6
        up = 0.9 if s.cut == 0 else (0.75 if s.cut == 1 else (0.55 if s.cut == 2 else 0.35))
        if s.cut == 5:
            up = 0.15
        if fringe:
            up = 0.5
        jitter = 0.10 + 0.25 * s.frizz
        for c in range(3):
            cl = clump if c == 0 else (clump2 if c == 1 else clump3)
            d[c] = d[c] / norm + up * normal[i, c] + jitter * 0.6 * random[i, c] + 0.35 * cl
        norm = np.sqrt(d[0] ** 2 + d[1] ** 2 + d[2] ** 2) + 1e-6
        for c in range(3):
            d[c] /= norm
            p[c] = at[i, c]
        weight = 0.10 if s.cut <= 1 else (0.14 if s.cut == 2 else 0.30)
        if s.cut == 6:
            weight = 0.0
        pull = weight * min(step / 0.6, 1.6)
        n = 0
        side = 1.0 if at[i, 0] > s.part * 0.5 else -1.0
        if abs(rx) > 3.5:
            side = 1.0 if rx > 0 else -1.0
        for k in range(points.shape[1]):
            points[i, k, 0], points[i, k, 1], points[i, k, 2] = p[0], p[1], p[2]
            n = k + 1
            if k == points.shape[1] - 1:
                break
            ox, oy, oz = p[0], p[1], p[2]
            if s.cut == 5 and not tail:
                gx, gy, gz = -p[0], s.gather_y - p[1], s.gather_z - p[2]
                g = np.sqrt(gx * gx + gy * gy + gz * gz)
                if g < 0.9:
                    break
                for c in range(3):
                    t = gx if c == 0 else (gy if c == 1 else gz)
                    d[c] = 0.5 * d[c] + 0.5 * t / g
            elif fringe:
                d[1] -= pull * 1.3
            elif s.cut == 3 or s.cut == 4:  # over the forehead hair is carried to the side
                free = smooth(p[2], 3.0, 5.5) * (1 - smooth(abs(p[0]), 3.5, 6.0))
                d[1] -= pull * (1 - 0.95 * free)
                d[0] += 0.5 * pull * free * side
                d[2] -= 0.5 * pull * free
            else:
                d[1] -= pull
            norm = np.sqrt(d[0] ** 2 + d[1] ** 2 + d[2] ** 2) + 1e-6
            for c in range(3):
                d[c] /= norm
                p[c] += d[c] * step
            rise = min(1.0, (k + 1) * step / 1.5)
            _keep_out(s, field, (0.06 + (lift - 0.06) * rise) if s.cut != 6 else 0.05, p)
            if s.cut >= 3 and s.cut <= 4 and not fringe:
                if p[1] < 10.0 and p[2] > 2.0:  # the face stays free
                    wide = s.curtain + 0.7 * u - 1.6 * smooth(p[1], 6.0, 10.0) + 0.3 * clump3
                    wide *= smooth(p[2], 1.5, 4.5)
                    if abs(p[0]) < wide:
                        p[0] += side * min(wide - side * p[0], 0.8 * step)
                        p[2] -= 0.35 * step
                        _keep_out(s, field, 0.06 + (lift - 0.06) * rise * 0.6, p)
                if s.tuck == 1 and p[1] < 6.2 and p[1] > -6 and p[2] > -2.8:
                    p[2] -= min(p[2] + 2.8, 1.2 * step)
                if p[1] < -8.5:  # shoulders carry it
                    floor = -9.0 - 0.5 * max(abs(p[0]) - 5.5, 0.0) - 0.12 * max(
                        abs(p[2] + 1.5) - 3.0, 0.0) ** 2
                    if p[1] < floor and abs(p[2] + 1.5) < 6.5:
                        p[2] += 0.8 * step if p[2] > -1.5 else -0.8 * step
                        p[0] += 0.25 * step * side
            _under_hat(s, field, p)
            ux, uy, uz = p[0] - ox, p[1] - oy, p[2] - oz
            norm = np.sqrt(ux * ux + uy * uy + uz * uz) + 1e-6
            keep = 0.55
            d[0] = keep * d[0] + (1 - keep) * ux / norm
            d[1] = keep * d[1] + (1 - keep) * uy / norm
            d[2] = keep * d[2] + (1 - keep) * uz / norm
            if (s.cut == 3 or s.cut == 4) and p[1] < s.level + 0.6 * random[i, 2] * 0.5:
                break
            if fringe and p[1] < s.fringe + 0.35 * random[i, 2] + 0.5 * clump:
                break
        if (s.cut == 3 or s.cut == 4) and not fringe and _crosses(points, i, n, s.curtain):
            n = 0
        count[i] = n
        _wave(points, i, n, step, s, loose, clump, clump2, random, field)


@njit(cache=True, fastmath=True)
def _wave(points, i, n, step, s, loose, clump, clump2, random, field):  # type: ignore[no-untyped-def]
    """Bend a grown strand into waves or curls around its own line."""
    if s.amplitude < 0.01:
        return
    phase = 5.0 * clump + 0.22 * random[i, 4]
    wave = s.wave * (1 + 0.12 * clump2 + 0.03 * random[i, 5])
    last = np.zeros(3)
    ox, oy, oz = points[i, 0, 0], points[i, 0, 1], points[i, 0, 2]
    for k in range(1, n):
        x, y, z = points[i, k, 0], points[i, k, 1], points[i, k, 2]
        tx, ty, tz = x - ox, y - oy, z - oz
        t = np.sqrt(tx * tx + ty * ty + tz * tz) + 1e-6
        tx, ty, tz = tx / t, ty / t, tz / t
        nx, ny, nz = x, y - CENTER[1], z - CENTER[2]
        dot = nx * tx + ny * ty + nz * tz
        nx, ny, nz = nx - dot * tx, ny - dot * ty, nz - dot * tz
        t = np.sqrt(nx * nx + ny * ny + nz * nz) + 1e-6
        nx, ny, nz = nx / t, ny / t, nz / t
        bx, by, bz = ty * nz - tz * ny, tz * nx - tx * nz, tx * ny - ty * nx
        arc = k * step
        a = loose * s.amplitude * min(1.0, arc / 3.0 if s.cut != 6 else arc)
        angle = 2 * np.pi * arc / wave + phase
        sb, sn = a * np.sin(angle), 0.6 * a * (np.cos(angle) * s.curl + 0.3)
        ox, oy, oz = x, y, z
        last[0] = x + sb * bx + sn * nx
        last[1] = y + sb * by + sn * ny
        last[2] = z + sb * bz + sn * nz
        _under_hat(s, field, last)
        points[i, k, 0], points[i, k, 1], points[i, k, 2] = last[0], last[1], last[2]
