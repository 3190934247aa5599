"""Brows, lashes, stubble and beards as strands attached to the face. Lengths in cm."""

from __future__ import annotations

import functools

import numpy as np

from semedit.heads import geometry, raster
from semedit.heads.geometry import MATERIAL
from semedit.heads.hair import Strands
from semedit.heads.parameters import Parameters
from semedit.heads.regions import brow_center, brow_taper
from semedit.heads.shading import Paint
from semedit.heads.skin import beard_mask
from semedit.runtime.compiled import compiled

GRID_CM = 0.04  # of the frontal map of the neutral face
LEFT, TOP, WIDE = -9.6, 13.0, 640  # its corner (x, y) cm and side px


@functools.lru_cache(maxsize=1)
def _front() -> raster.Buffers:
    """The neutral face seen straight from the front: triangle and weights at (x, y)."""
    model = geometry.load()
    q = model.neutral
    points = np.stack([(q[:, 0] - LEFT) / GRID_CM, (TOP - q[:, 1]) / GRID_CM, -q[:, 2]], 1)
    b = raster.buffers(WIDE)
    raster.draw_triangles(points.astype(np.float32), model.triangles, *b)
    return b


def locate(xy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where neutral frontal points [N,2] cm lie on the mesh: corners int [N,3], weights [N,3]."""
    b = _front()
    j = np.clip(((xy[:, 0] - LEFT) / GRID_CM).astype(int), 0, WIDE - 1)
    i = np.clip(((TOP - xy[:, 1]) / GRID_CM).astype(int), 0, WIDE - 1)
    w = b.bary[i, j]
    corners = geometry.load().triangles[np.maximum(b.triangle[i, j], 0)]
    return corners, np.concatenate([1 - w.sum(1, keepdims=True), w], 1)


def attach(values: np.ndarray, place: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Interpolates per-vertex values [V,3] at located points -> float32 [N,3]."""
    return np.einsum("ncx,nc->nx", values[place[0]], place[1]).astype(np.float32)


def _arc(
    root: np.ndarray, first: np.ndarray, last: np.ndarray, length: np.ndarray, points: int
) -> np.ndarray:
    """Strands [S,points,3] that leave along `first` and end along `last` (unit [S,3])."""
    t = np.linspace(0, 1, points, dtype=np.float32)[None, :, None]
    direction = first[:, None] * (1 - t) + last[:, None] * t
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True) + 1e-6
    step = (length / (points - 1))[:, None, None]
    path = np.cumsum(direction * step, 1) - direction[:, :1] * step
    return np.asarray(root[:, None] + path, np.float32)


def _unit(v: np.ndarray) -> np.ndarray:
    return np.asarray(v / (np.linalg.norm(v, axis=-1, keepdims=True) + 1e-9), np.float32)


def _strands(points: np.ndarray, rng: np.random.Generator, spread: float) -> Strands:
    n = len(points)
    tint = np.exp(spread * rng.standard_normal((n, 1))).astype(np.float32)
    return Strands(
        points,
        np.full(n, points.shape[1], np.int32),
        np.repeat(tint, 3, 1),
        rng.uniform(0.4, 1, n).astype(np.float32),
    )


def brows(p: Parameters, vertices: np.ndarray, normals: np.ndarray, seed: int) -> Strands:
    """Short hairs along each brow: upright inside, lying outward towards the temple."""
    rng = np.random.default_rng([seed, 2])
    n = int(300 + 440 * p.brow_thick)
    t = rng.uniform(-0.02, 0.98, n)
    centers = np.array([brow_center(v, p.brow_arch) for v in t])
    half = (0.35 + 0.25 * p.brow_thick) * np.array([brow_taper(v) for v in t])
    across = rng.triangular(-0.95, -0.1, 0.75, n)
    side = np.where(np.arange(n) % 2 == 0, 1.0, -1.0)
    place = locate(np.stack([side * (1.15 + 4.75 * t), centers + across * half], 1))
    root, normal = attach(vertices, place), attach(normals, place)
    lean = np.clip(t * 1.6 + 0.12, 0, 1)
    tilt = 0.45 - 0.9 * t - 0.5 * across
    first = np.stack([side * lean, 1.0 - 0.75 * lean + 0.4 * tilt, 0 * t], 1)
    first += 0.22 * rng.standard_normal((n, 3))
    first = _unit(first + 0.25 * normal)
    last = _unit(first - 0.35 * normal + np.stack([side * 0.5, -0.15 + 0 * t, 0 * t], 1))
    length = rng.uniform(0.35, 0.75, n) * (0.7 + 0.5 * p.brow_thick) * (1 - 0.3 * t)
    return _strands(_arc(root + 0.01 * normal, first, last, length, 5), rng, 0.2)


@functools.lru_cache(maxsize=1)
def _lid_edges() -> tuple[np.ndarray, np.ndarray]:
    """Neutral points [N,2] cm on the margin of the upper and of the lower left lid."""
    b = _front()
    material = np.where(b.triangle >= 0, geometry.load().material[np.maximum(b.triangle, 0)], -1)
    upper, lower = [], []
    for x in np.arange(1.75, 4.62, 0.06):
        rows = np.flatnonzero(material[:, int((x - LEFT) / GRID_CM)] == MATERIAL.left_eye)
        if len(rows) < 4:
            continue
        upper.append((x, TOP - (rows[0] - 1.0) * GRID_CM))
        lower.append((x, TOP - (rows[-1] + 2.0) * GRID_CM))
    return np.array(upper), np.array(lower)


def lashes(p: Parameters, vertices: np.ndarray, normals: np.ndarray, seed: int) -> list[Strands]:
    """Upper and lower lashes, and the dark line of their roots (wider with eye liner)."""
    rng = np.random.default_rng([seed, 4])
    groups = []
    feminine = 1 - p.masculine
    for edge, up, amount in ((_lid_edges()[0], 1.0, 1.0), (_lid_edges()[1], -0.6, 0.45)):
        for side in (1.0, -1.0):
            place = locate(edge * np.array([side, 1]))
            root, normal = attach(vertices, place), attach(normals, place)
            line = np.stack([root, root + 0.03 * normal], 0).astype(np.float32) + np.float32(
                0.02
            ) * np.array([0, 0, 1], np.float32)
            copies = 1 + int(2 * p.eye_liner) if up > 0 else 1
            for c in range(copies):
                groups.append(
                    _strands(line[:1] + np.array([0, 0.03 * up * c, 0.01], np.float32), rng, 0.0)
                )
            n = int((50 + 40 * p.lashes + 40 * feminine) * (1.0 if up > 0 else 0.5))
            at = rng.uniform(0, len(edge) - 1.01, n)
            i, f = at.astype(int), (at % 1)[:, None].astype(np.float32)
            start = root[i] * (1 - f) + root[i + 1] * f
            n0 = normal[i] * (1 - f) + normal[i + 1] * f
            out = (edge[i, 0] - 3.0)[:, None] * np.array([[0.45 * side, 0, 0]])
            first = _unit(
                0.9 * n0 + out + np.array([0, 0.15 * up, 0.3]) + 0.1 * rng.standard_normal((n, 3))
            )
            last = _unit(0.35 * n0 + out + np.array([0, 1.0 * up, 0.2]))
            length = rng.uniform(0.5, 0.8, n) * amount * (0.45 + 0.3 * p.lashes + 0.3 * feminine)
            groups.append(_strands(_arc(start, first, last, length, 5), rng, 0.1))
    return groups


@functools.lru_cache(maxsize=1)
def _cheeks() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points spread evenly over the lower face: corners, weights, neutral coordinates."""
    model = geometry.load()
    q = model.neutral
    outer = model.triangles[model.triangles.max(1) < geometry.PARTS["head"][1]]
    middle = q[outer].mean(1)
    outer = outer[(middle[:, 1] > -11) & (middle[:, 1] < 3) & (middle[:, 2] > -1)]
    corners = q[outer]
    area = np.linalg.norm(
        np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1
    )
    rng = np.random.default_rng(6)
    chosen = outer[rng.choice(len(outer), 16000, p=area / area.sum())]
    w = rng.dirichlet((1, 1, 1), len(chosen)).astype(np.float32)
    return chosen, w, np.einsum("rcx,rc->rx", q[chosen], w).astype(np.float32)


@compiled()
def _masks(kind, jaw, q):  # type: ignore[no-untyped-def]
    out = np.empty(len(q), np.float32)
    for i in range(len(q)):
        x, y, z = q[i, 0], q[i, 1], q[i, 2]
        out[i] = beard_mask(kind, jaw, np.degrees(np.arctan2(abs(x), z)), x, y, z)
    return out


def beard(
    p: Parameters, paint: Paint, vertices: np.ndarray, normals: np.ndarray, seed: int
) -> Strands | None:
    """Stubble, moustache, goatee or full beard; None without."""
    if paint.beard_kind == 0:
        return None
    rng = np.random.default_rng([seed, 5])
    corners, w, q = _cheeks()
    mask = _masks(paint.beard_kind, paint.jaw, q)
    keep = np.flatnonzero(rng.uniform(0.05, 1 / p.beard_density, len(q)) < mask)
    place = (corners[keep], w[keep])
    root, normal, q = attach(vertices, place), attach(normals, place), q[keep]
    n = len(keep)
    side = np.sign(q[:, 0])
    low = np.clip((-q[:, 1] - 3.0) / 4.0, 0, 1)
    full = {"stubble": 0.0, "moustache": 0.5, "goatee": 0.6, "full": 1.0}[p.beard]
    length = 0.14 + full * (0.25 + (0.4 + 2.6 * p.beard_length**1.5) * low) * rng.uniform(
        0.7, 1.1, n
    )
    lip = (q[:, 1] > -2.9) & (np.abs(q[:, 0]) < 3.2)
    length = np.where(lip, 0.14 + 0.55 * full * rng.uniform(0.7, 1.1, n), length)
    first = 0.9 * normal + np.stack([0.25 * side, -0.6 + 0 * low, 0 * low], 1)
    first += np.where(
        lip[:, None],
        np.stack([0.7 * side * np.minimum(np.abs(q[:, 0]), 1.5), 0 * low, 0 * low], 1),
        0,
    )
    first = _unit(first + 0.25 * rng.standard_normal((n, 3)))
    last = _unit(
        np.stack([0.15 * side + 0.8 * side * lip, -1.0 + 0 * low, 0.25 - 0.1 * low], 1)
        + 0.35 * rng.standard_normal((n, 3))
    )
    return _strands(_arc(root, first, last, length, 7), rng, 0.22)
