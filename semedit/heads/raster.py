"""Z-buffer rasteriser: triangles, strands, and an orthographic shadow map, on one CPU core.

Screen points are float32 [V,3] = (x px, y px, depth); pixel centres lie at +0.5. Depth grows
away from the camera. Every function writes into buffers made by `buffers`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

FAR = np.float32(1e9)


class Buffers(NamedTuple):
    """depth float32 [H,W]; triangle int32 [H,W] (-1: none); bary float32 [H,W,2]."""

    depth: np.ndarray
    triangle: np.ndarray
    bary: np.ndarray


def buffers(size: int) -> Buffers:
    """Empty square buffers of `size` px."""
    return Buffers(
        np.full((size, size), FAR, np.float32),
        np.full((size, size), -1, np.int32),
        np.zeros((size, size, 2), np.float32),
    )


@njit(cache=True, fastmath=True)
def draw_triangles(points, triangles, depth, triangle, bary):  # type: ignore[no-untyped-def]
    """Nearest triangle per pixel.

    points float32 [V,3], triangles int32 [T,3]; writes depth, triangle index and the
    barycentric weights of corners 1 and 2 (affine in the picture: triangles are small).
    """
    height, width = depth.shape
    for t in range(triangles.shape[0]):
        i, j, k = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        x0, y0, z0 = points[i, 0], points[i, 1], points[i, 2]
        x1, y1, z1 = points[j, 0], points[j, 1], points[j, 2]
        x2, y2, z2 = points[k, 0], points[k, 1], points[k, 2]
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        if area == 0.0:
            continue
        xa = max(int(np.ceil(min(x0, x1, x2) - 0.5)), 0)
        xb = min(int(np.floor(max(x0, x1, x2) - 0.5)), width - 1)
        ya = max(int(np.ceil(min(y0, y1, y2) - 0.5)), 0)
        yb = min(int(np.floor(max(y0, y1, y2) - 0.5)), height - 1)
        if xa > xb or ya > yb:
            continue
        inverse = 1.0 / area
        for y in range(ya, yb + 1):
            py = y + 0.5
            for x in range(xa, xb + 1):
                px = x + 0.5
                b1 = ((px - x0) * (y2 - y0) - (x2 - x0) * (py - y0)) * inverse
                b2 = ((x1 - x0) * (py - y0) - (px - x0) * (y1 - y0)) * inverse
                b0 = 1.0 - b1 - b2
                if b0 < -1e-6 or b1 < -1e-6 or b2 < -1e-6:
                    continue
                z = b0 * z0 + b1 * z1 + b2 * z2
                if z < depth[y, x]:
                    depth[y, x] = z
                    triangle[y, x] = t
                    bary[y, x, 0] = b1
                    bary[y, x, 1] = b2


@njit(cache=True, fastmath=True)
def draw_depth(points, triangles, depth):  # type: ignore[no-untyped-def]
    """Depth only (shadow maps, ambient occlusion)."""
    height, width = depth.shape
    for t in range(triangles.shape[0]):
        i, j, k = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        x0, y0, z0 = points[i, 0], points[i, 1], points[i, 2]
        x1, y1, z1 = points[j, 0], points[j, 1], points[j, 2]
        x2, y2, z2 = points[k, 0], points[k, 1], points[k, 2]
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        if area == 0.0:
            continue
        xa = max(int(np.ceil(min(x0, x1, x2) - 0.5)), 0)
        xb = min(int(np.floor(max(x0, x1, x2) - 0.5)), width - 1)
        ya = max(int(np.ceil(min(y0, y1, y2) - 0.5)), 0)
        yb = min(int(np.floor(max(y0, y1, y2) - 0.5)), height - 1)
        inverse = 1.0 / area
        for y in range(ya, yb + 1):
            py = y + 0.5
            for x in range(xa, xb + 1):
                px = x + 0.5
                b1 = ((px - x0) * (y2 - y0) - (x2 - x0) * (py - y0)) * inverse
                b2 = ((x1 - x0) * (py - y0) - (px - x0) * (y1 - y0)) * inverse
                b0 = 1.0 - b1 - b2
                if b0 < 0.0 or b1 < 0.0 or b2 < 0.0:
                    continue
                z = b0 * z0 + b1 * z1 + b2 * z2
                if z < depth[y, x]:
                    depth[y, x] = z


@njit(cache=True, fastmath=True)
def vertex_normals(vertices, triangles):  # type: ignore[no-untyped-def]
    """Area-weighted unit normals float32 [V,3] of counter-clockwise triangles."""
    normals = np.zeros_like(vertices)
    for t in range(triangles.shape[0]):
        i, j, k = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        ax, ay, az = (vertices[j, 0] - vertices[i, 0], vertices[j, 1] - vertices[i, 1],
                      vertices[j, 2] - vertices[i, 2])
        bx, by, bz = (vertices[k, 0] - vertices[i, 0], vertices[k, 1] - vertices[i, 1],
                      vertices[k, 2] - vertices[i, 2])
        nx, ny, nz = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx
        for v in (i, j, k):
            normals[v, 0] += nx
            normals[v, 1] += ny
            normals[v, 2] += nz
    for v in range(normals.shape[0]):
        length = np.sqrt(normals[v, 0] ** 2 + normals[v, 1] ** 2 + normals[v, 2] ** 2) + 1e-12
        normals[v, 0] /= length
        normals[v, 1] /= length
        normals[v, 2] /= length
    return normals
