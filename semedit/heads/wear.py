"""What people wear, as small meshes fitted to the head: clothes, glasses, hats, jewellery.

Every piece is a `Piece`: vertices float32 [V,3] model cm, triangles int32 [T,3], material int8 [T]
and object coordinates [V,3] that patterns are painted from.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from semedit.heads import geometry, raster
from semedit.heads.geometry import MATERIAL
from semedit.heads.growth import CENTER, FIELD_H, FIELD_W
from semedit.heads.hair import hat_line
from semedit.heads.parameters import Parameters

AXIS_Z = -1.5  # of the neck, cm
NECK_W, NECK_H, NECK_TOP, NECK_STEP = 96, 64, -6.0, 0.21


class Piece(NamedTuple):
    """A mesh with materials and object coordinates."""

    vertices: np.ndarray
    triangles: np.ndarray
    material: np.ndarray
    object: np.ndarray


def _piece(vertices: np.ndarray, triangles: np.ndarray, material: int) -> Piece:
    v = np.asarray(vertices, np.float32).reshape(-1, 3)
    return Piece(v, triangles.astype(np.int32), np.full(len(triangles), material, np.int8), v)


def join(pieces: list[Piece]) -> Piece:
    """One mesh of many."""
    starts = np.cumsum([0] + [len(p.vertices) for p in pieces[:-1]])
    return Piece(
        np.concatenate([p.vertices for p in pieces]),
        np.concatenate([p.triangles + s for p, s in zip(pieces, starts, strict=True)]).astype(
            np.int32
        ),
        np.concatenate([p.material for p in pieces]),
        np.concatenate([p.object for p in pieces]),
    )


def sheet(points: np.ndarray, material: int, wrap: bool = False) -> Piece:
    """Surface through a grid of points [A,B,3]; wrap closes the second direction."""
    a, b = points.shape[:2]
    i, j = np.meshgrid(np.arange(a - 1), np.arange(b if wrap else b - 1), indexing="ij")
    k = (j + 1) % b
    quads = [i * b + j, (i + 1) * b + j, (i + 1) * b + k, i * b + k]
    q = np.stack([c.ravel() for c in quads], 1)
    return _piece(points, np.concatenate([q[:, [0, 1, 2]], q[:, [0, 2, 3]]]), material)


def tube(
    path: np.ndarray,
    radius: float | np.ndarray,
    material: int,
    closed: bool = False,
    flat: float = 1.0,
    sides: int = 6,
) -> Piece:
    """Tube along a path [N,3]; flat < 1 thins it in z."""
    ahead = np.roll(path, -1, 0) - np.roll(path, 1, 0)
    if not closed:
        ahead[0], ahead[-1] = path[1] - path[0], path[-1] - path[-2]
    t = ahead / (np.linalg.norm(ahead, axis=1, keepdims=True) + 1e-9)
    helper = np.where(np.abs(t[:, 2:3]) > 0.9, [[0.0, 1.0, 0.0]], [[0.0, 0.0, 1.0]])
    u = np.cross(t, helper)
    u /= np.linalg.norm(u, axis=1, keepdims=True) + 1e-9
    v = np.cross(t, u)
    angle = np.arange(sides) * 2 * np.pi / sides
    r = np.broadcast_to(np.asarray(radius, np.float64), (len(path),))[:, None, None]
    ring = (
        u[:, None] * np.cos(angle)[None, :, None] + flat * v[:, None] * np.sin(angle)[None, :, None]
    )
    points = path[:, None] + r * ring
    if closed:
        points = np.concatenate([points, points[:1]])
    return sheet(points, material, wrap=True)


def ball(center: np.ndarray, radius: float, material: int, stretch: float = 1.0) -> Piece:
    """Sphere; stretch > 1 makes it taller."""
    theta, phi = np.meshgrid(
        np.linspace(0, np.pi, 8), np.linspace(0, 2 * np.pi, 10)[:-1], indexing="ij"
    )
    d = np.stack(
        [np.sin(theta) * np.cos(phi), stretch * np.cos(theta), np.sin(theta) * np.sin(phi)], -1
    )
    return sheet(np.asarray(center) + radius * d, material, wrap=True)


def near(vertices: np.ndarray, q: tuple[float, float, float]) -> np.ndarray:
    """Where the vertex nearest to neutral point q lies on this head."""
    outer = geometry.PARTS["head"][1]
    neutral = geometry.load().neutral[:outer]
    return np.asarray(vertices[np.argmin(((neutral - np.array(q)) ** 2).sum(1))], np.float64)


# ---------------------------------------------------------------- glasses

OUTLINES = {  # half width, half height (cm), exponent of the superellipse
    "rectangle": (2.65, 1.65, 4.0),
    "round": (2.35, 2.35, 2.0),
    "oval": (2.65, 1.85, 2.3),
    "aviator": (2.75, 2.35, 2.5),
    "cat": (2.7, 1.8, 2.6),
}


def _outline(p: Parameters, side: float) -> np.ndarray:
    """Rim of one lens [40,2] cm around its middle, x outward."""
    a, b, n = OUTLINES[p.glasses_shape]
    grow = (0.90 + 0.2 * p.glasses_size) * (1.10 if p.glasses_rim == "sun" else 1.0)
    t = np.arange(40) * 2 * np.pi / 40
    x = np.sign(np.cos(t)) * np.abs(np.cos(t)) ** (2 / n) * a
    y = np.sign(np.sin(t)) * np.abs(np.sin(t)) ** (2 / n) * b
    if p.glasses_shape == "aviator":
        y = np.where(y < 0, y * 1.1, y * 0.85)
        x = x * (1 - 0.12 * np.maximum(-y / b, 0)) + 0.15 * np.minimum(y / b, 0)
    if p.glasses_shape == "cat":
        y = y + 0.55 * np.maximum(x / a, 0) ** 2 * (y > -0.2 * b)
    return np.stack([side * x * grow, y * grow], 1)


def glasses(p: Parameters, vertices: np.ndarray) -> tuple[Piece, Piece]:
    """Frame and lenses, resting on the nose and the ears."""
    points = vertices[geometry.load().landmarks].astype(np.float64)
    eyes = {1.0: points[42:48].mean(0), -1.0: points[36:42].mean(0)}
    bridge = points[27:29].mean(0)
    front = max(points[[19, 24], 2].max(), bridge[2]) + 0.35
    radius = {"wire": 0.085, "thick": 0.21, "half": 0.11, "sun": 0.16}[p.glasses_rim]
    frame: list[Piece] = []
    lenses: list[Piece] = []
    rims = {}
    for side, eye in eyes.items():
        outline = _outline(p, side)
        middle = np.array([side * max(abs(eye[0]), 3.15) + side * 0.12, eye[1] - 0.15])
        x, y = middle[0] + outline[:, 0], middle[1] + outline[:, 1]
        z = front - 0.030 * x * x - 0.05 * (y - middle[1])
        rim = np.stack([x, y, z], 1)
        rims[side] = rim
        upper = outline[:, 1] > -0.15
        if p.glasses_rim == "half":
            frame.append(tube(rim[upper], radius, MATERIAL.frame))
        else:
            frame.append(tube(rim, radius, MATERIAL.frame, closed=True))
        hub = np.array([[middle[0], middle[1], front - 0.030 * middle[0] ** 2]])
        fan = np.stack([np.zeros(40, int), 1 + np.arange(40), 1 + (np.arange(40) + 1) % 40], 1)
        lenses.append(_piece(np.concatenate([hub, rim]), fan, MATERIAL.lens))
        ear = near(vertices, (side * 7.45, 4.9, 0.4))
        hinge = rim[np.argmax(rim[:, 0] * side)] + np.array([0, 0.35, 0])
        top = ear + np.array([0.35 * side, 0.45, 0.0])
        arm = [
            hinge,
            hinge + np.array([0.25 * side, 0.02, -0.6]),
            (hinge + top) / 2 + np.array([0.25 * side, 0.08, -0.1]),
            top,
            top + np.array([-0.2 * side, -0.4, -1.3]),
            top + np.array([-0.3 * side, -1.8, -2.1]),
        ]
        thick = max(radius * 0.9, 0.1)
        frame.append(tube(np.array(arm), thick, MATERIAL.frame))
    inner = [
        rims[s][np.argmin(np.abs(rims[s][:, 0]) + 0.3 * np.abs(rims[s][:, 1] - bridge[1] - 0.2))]
        for s in (-1.0, 1.0)
    ]
    arch = (inner[0] + inner[1]) / 2 + np.array([0, 0.22, 0.15])
    arch[2] = max(arch[2], bridge[2] + 0.2)
    frame.append(tube(np.array([inner[0], arch, inner[1]]), max(radius, 0.1), MATERIAL.frame))
    return join(frame), join(lenses)


# ---------------------------------------------------------------- hats


def _dome(field: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Smoothed radius of the head in unit directions [...,3]."""
    u = (np.arctan2(direction[..., 0], direction[..., 2]) / (2 * np.pi) + 0.5) * FIELD_W
    v = (np.arcsin(np.clip(direction[..., 1], -1, 1)) / np.pi + 0.5) * FIELD_H
    i = np.clip(v.astype(int), 0, FIELD_H - 1)
    return np.asarray(field[i, u.astype(int) % FIELD_W], np.float64)


def hat(p: Parameters, field: np.ndarray) -> Piece:
    """Beanie, cap or wide-brimmed hat around the head's radius field (see hair.radius_field)."""
    level, slope = hat_line(p)
    soft = field.copy()
    for _ in range(3):
        padded = np.pad(soft, ((1, 1), (0, 0)), "edge")
        soft = (padded[:-2] + 2 * soft + padded[2:]) / 4
        soft = (np.roll(soft, 1, 1) + 2 * soft + np.roll(soft, -1, 1)) / 4
    phi = np.linspace(-np.pi, np.pi, 73)[:-1]
    flat = np.stack([np.sin(phi), np.zeros_like(phi), np.cos(phi)], 1)
    # elevation of the rim in each direction: where the head crosses the plane of the rim
    low = np.zeros(len(phi))
    for _ in range(12):
        d = flat * np.cos(low)[:, None] + np.array([0, 1, 0]) * np.sin(low)[:, None]
        r = _dome(soft, d) + 0.5
        at = CENTER + r[:, None] * d
        low += 0.6 * (level + slope * at[:, 2] - at[:, 1]) / r
    t = np.linspace(0, 1, 22)[:, None]
    angle = low[None] + t * (np.pi / 2 - low[None])
    d = flat[None] * np.cos(angle)[..., None] + np.array([0, 1, 0]) * np.sin(angle)[..., None]
    r = _dome(soft, d)
    kind = p.hat_kind
    if kind == "beanie":
        pad = 0.75 + 0.45 * np.exp(-((t / 0.16) ** 6)) + 0.9 * t**3
    elif kind == "cap":
        pad = 0.65 + 0.9 * t * (1 - t) * 3 * np.maximum(np.cos(phi), 0)[None] + 0.25 * t
    else:
        pad = 0.6 + 1.9 * t * (1.25 - t) * 2
    crown = CENTER + (r + pad)[..., None] * d
    pieces = [sheet(crown, MATERIAL.hat, wrap=True)]
    rim = crown[0]
    if kind == "cap":
        pieces.append(_brim(rim, phi, np.deg2rad(62), 6.3, 0.28))
    elif kind == "wide":
        pieces.append(_brim(rim, phi, np.pi, 5.2, 0.05))
    return join(pieces)


def _brim(rim: np.ndarray, phi: np.ndarray, half: float, width: float, drop: float) -> Piece:
    """Brim outward from the rim within |phi| <= half; drop bends it down at the sides."""
    inside = np.abs(phi) <= half
    base, angle = rim[inside], phi[inside]
    whole = half >= np.pi
    edge = np.ones_like(angle) if whole else np.sqrt(np.maximum(1 - (angle / half) ** 2, 0))
    out = np.stack([np.sin(angle), np.zeros_like(angle), np.cos(angle)], 1)
    if not whole:
        out = np.stack([0.35 * np.sin(angle), np.zeros_like(angle), np.ones_like(angle)], 1)
    t = np.linspace(0, 1, 7)[:, None, None]
    grid = base[None] + t * width * edge[None, :, None] * out[None]
    lift = -0.16 * width * t[..., 0] - drop * np.abs(base[None, :, 0]) * t[..., 0] ** 0.5
    if whole:
        lift = -0.10 * width * t[..., 0] + 0.06 * width * np.abs(np.sin(angle))[None] * t[..., 0]
    grid[..., 1] += lift
    under = grid.copy()
    under[..., 1] -= 0.18
    return join([sheet(grid, MATERIAL.brim, wrap=whole), sheet(under, MATERIAL.brim, wrap=whole)])


# ---------------------------------------------------------------- neck: necklace, clothes


def neck_field(vertices: np.ndarray) -> np.ndarray:
    """Radius float64 [NECK_H, NECK_W] cm of neck and shoulders about the vertical axis; rows go
    down from NECK_TOP by NECK_STEP. Beyond the bust's edge it grows on."""
    model = geometry.load()
    outer = model.triangles[model.triangles.max(1) < geometry.PARTS["head"][1]]
    outer = outer[vertices[outer][..., 1].min(1) < NECK_TOP + 1]
    x, z = vertices[:, 0], vertices[:, 2] - AXIS_Z
    u = (np.arctan2(x, z) / (2 * np.pi) + 0.5) * NECK_W
    points = np.stack([u, (NECK_TOP - vertices[:, 1]) / NECK_STEP, -np.hypot(x, z)], 1).astype(
        np.float32
    )
    side = max(NECK_W, NECK_H)
    depth = np.full((side, side), raster.FAR, np.float32)
    seam = np.ptp(u[outer], axis=1) > NECK_W / 2
    raster.draw_triangles(points, outer[~seam], depth)
    for shift in (0.0, float(NECK_W)):
        wrapped = points.copy()
        far = points[:, 0] > NECK_W / 2
        wrapped[:, 0] += np.where(far, shift - NECK_W, shift)
        raster.draw_triangles(wrapped, outer[seam], depth)
    field = np.where(depth < 1e8, -depth, 0.0)[:NECK_H, :NECK_W].astype(np.float64)
    for row in range(1, NECK_H):
        hole = field[row] <= 0
        field[row] = np.where(hole, field[row - 1] + 0.9 * NECK_STEP, field[row])
        field[row] = np.maximum(field[row], field[row - 1] - 0.02)
    return field


def widened(field: np.ndarray) -> np.ndarray:
    """A neck field a little wider than the bust, so that no skin pokes through clothes."""
    for turn in (1, -1, 2, -2):
        field = np.maximum(field, np.roll(field, turn, 1) - 0.15 * abs(turn))
    field[1:] = np.maximum(field[1:], field[:-1])
    return field


def _on_neck(
    field: np.ndarray, phi: np.ndarray, y: np.ndarray, off: float | np.ndarray
) -> np.ndarray:
    """Points [...,3] at angle and height, `off` cm outside the neck."""
    row = np.clip((NECK_TOP - y) / NECK_STEP - 0.5, 0, NECK_H - 1.001)
    col = (phi / (2 * np.pi) + 0.5) * NECK_W - 0.5
    i, j = np.floor(row).astype(int), np.floor(col).astype(int)
    a, b = row - i, col - j
    j0, j1 = j % NECK_W, (j + 1) % NECK_W
    r = (
        (field[i, j0] * (1 - b) + field[i, j1] * b) * (1 - a)
        + (field[i + 1, j0] * (1 - b) + field[i + 1, j1] * b) * a
    ) + off
    return np.stack([r * np.sin(phi), y, AXIS_Z + r * np.cos(phi)], -1)


NECKLINES = {  # height of the neckline in front, at the side, behind (cm)
    "round": (-10.7, -9.9, -8.2),
    "vee": (-13.5, -9.8, -8.2),
    "shirt": (-10.6, -9.6, -8.0),
    "high": (-9.0, -8.7, -7.8),
    "scoop": (-13.2, -11.2, -9.2),
}


def garment(p: Parameters) -> str:
    """The kind of clothes: a necklace is worn over none that would hide it."""
    return "scoop" if p.necklace and p.cloth in ("high", "shirt", "round") else str(p.cloth)


def neckline(p: Parameters, phi: np.ndarray) -> np.ndarray:
    """Height (cm) of the neckline at angles phi."""
    kind = garment(p)
    front, side, back = NECKLINES[kind]
    a = np.abs(phi)
    if kind == "vee":
        t = np.clip(a / np.deg2rad(75), 0, 1)
        ahead = front + (side - front) * t**0.8
    else:
        t = np.clip(a / (np.pi / 2), 0, 1)
        ahead = front + (side - front) * (1 - np.cos(np.pi * t)) / 2
    t = np.clip(a / (np.pi / 2) - 1, 0, 1)
    return np.asarray(np.where(a < np.pi / 2, ahead, side + (back - side) * t))


def clothes(p: Parameters, field: np.ndarray) -> Piece:
    """A garment over the shoulders, with a rib, a roll or a collar."""
    phi = np.linspace(-np.pi, np.pi, 97)[:-1]
    top = neckline(p, phi)
    t = np.linspace(0, 1, 26)[:, None]
    y = top[None] + t**1.5 * (-19.2 - top[None])
    off = 0.12 + 0.65 * np.clip(t * 3, 0, 1)
    pieces = [
        sheet(_on_neck(field, np.broadcast_to(phi, y.shape), y, off), MATERIAL.cloth, wrap=True)
    ]
    rib = {"round": 0.30, "vee": 0.22, "scoop": 0.15, "high": 0.55, "shirt": 0.2}[garment(p)]
    path = _on_neck(field, phi, top, 0.10)
    pieces.append(tube(path, rib, MATERIAL.cloth, closed=True, sides=8))
    if garment(p) == "high":
        path = _on_neck(field, phi, top - 0.9, 0.25)
        pieces.append(tube(path, 0.6, MATERIAL.cloth, closed=True, sides=8))
    if garment(p) == "shirt":
        pieces.append(_collar(field))
    return join(pieces)


def _collar(field: np.ndarray) -> Piece:
    """A turned-down collar, open in front."""
    phi = np.linspace(np.deg2rad(9), 2 * np.pi - np.deg2rad(9), 70)
    around = (phi + np.pi) % (2 * np.pi) - np.pi
    front = np.cos(phi / 2) ** 2  # 1 in front, 0 behind
    front = np.maximum(front, np.cos((2 * np.pi - phi) / 2) ** 2)
    stand = -8.3 - 2.3 * front**1.5
    fall = 2.6 + 1.6 * front**6
    t = np.linspace(0, 1, 5)[:, None]
    y = stand[None] - t * fall[None]
    off = 0.30 + 1.1 * t
    return sheet(_on_neck(field, np.broadcast_to(around, y.shape), y, off), MATERIAL.cloth)


def necklace(p: Parameters, field: np.ndarray) -> Piece:
    """Chain, beads or a pendant around the neck."""
    n = 72
    phi = np.linspace(-np.pi, np.pi, n + 1)[:-1]
    front = np.cos(phi / 2) ** 2
    y = -8.4 - (0.9 + 0.9 * p.necklace_drop) * front**1.2
    kind = p.necklace_kind
    path = _on_neck(field, phi, y, 0.15)
    if kind == "beads":
        size = 0.24 + 0.18 * p.necklace_drop
        return join([ball(c, size, MATERIAL.necklace) for c in path[::2]])
    links = 0.10 + 0.05 * (np.arange(n) % 2)
    pieces = [tube(path, links, MATERIAL.necklace, closed=True)]
    if kind == "pendant":
        pieces.append(ball(path[n // 2] + np.array([0, -0.45, 0.15]), 0.42, MATERIAL.necklace, 1.3))
    return join(pieces)


# ---------------------------------------------------------------- earrings


def earrings(p: Parameters, vertices: np.ndarray) -> Piece:
    """A stud, hoop or drop at each lobe."""
    pieces = []
    for side in (1.0, -1.0):
        lobe = near(vertices, (side * 8.0, -0.6, 0.6)) + np.array([0.12 * side, 0.05, 0.1])
        if p.earring_kind == "stud":
            pieces.append(ball(lobe, 0.26 + 0.16 * p.earring_size, MATERIAL.metal))
        elif p.earring_kind == "hoop":
            r = 0.75 + 1.1 * p.earring_size
            t = np.linspace(0, 2 * np.pi, 33)[:-1]
            ring = lobe + np.stack(
                [0.25 * r * np.sin(t) * side, -r + r * np.cos(t), 0.9 * r * np.sin(t)], 1
            )
            pieces.append(tube(ring, 0.13, MATERIAL.metal, closed=True))
        else:
            hang = 0.6 + 1.6 * p.earring_size
            end = lobe + np.array([0.15 * side, -hang, 0.1])
            pieces.append(ball(lobe, 0.18, MATERIAL.metal))
            pieces.append(tube(np.linspace(lobe, end, 4), 0.07, MATERIAL.metal))
            pieces.append(ball(end, 0.30 + 0.15 * p.earring_size, MATERIAL.metal, 1.5))
    return join(pieces)
