"""Z-buffer rasteriser: triangles, strands, and an orthographic shadow map, on one CPU core.

Screen points are float32 [V,3] = (x px, y px, depth); pixel centres lie at +0.5. Depth grows
away from the camera. Every function writes into buffers made by `buffers`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from semedit.runtime.compiled import compiled

FAR = np.float32(1e9)
NO_LABEL, ONLY_OUTSIDE = 255, 254


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


@compiled(fastmath=True)
def draw_triangles(points, triangles, depth, triangle=None, bary=None):  # type: ignore[no-untyped-def]
    """Nearest triangle per pixel; without the last two, depth only (shadows, occlusion).

    points float32 [V,3], triangles int32 [T,3]; writes depth, triangle index and the
    barycentric weights of corners 1 and 2 (affine in the picture: triangles are small).
    """
    height, width = depth.shape
    least = 0.0 if triangle is None else -1e-6  # no seams in what is seen
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
                if b0 < least or b1 < least or b2 < least:
                    continue
                z = b0 * z0 + b1 * z1 + b2 * z2
                if z < depth[y, x]:
                    depth[y, x] = z
                    if triangle is not None:
                        triangle[y, x] = t
                        bary[y, x, 0] = b1
                        bary[y, x, 1] = b2


@compiled(fastmath=True)
def vertex_normals(vertices, triangles):  # type: ignore[no-untyped-def]
    """Area-weighted unit normals float32 [V,3] of counter-clockwise triangles."""
    normals = np.zeros_like(vertices)
    for t in range(triangles.shape[0]):
        i, j, k = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        ax, ay, az = (
            vertices[j, 0] - vertices[i, 0],
            vertices[j, 1] - vertices[i, 1],
            vertices[j, 2] - vertices[i, 2],
        )
        bx, by, bz = (
            vertices[k, 0] - vertices[i, 0],
            vertices[k, 1] - vertices[i, 1],
            vertices[k, 2] - vertices[i, 2],
        )
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


@compiled(fastmath=True)
def draw_strands(points, count, color, width, cover, value, bias, depth, rgb, label):  # type: ignore[no-untyped-def]
    """Polylines as thick lines with depth test.

    points float32 [S,K,3] (px, px, depth); count int32 [S]; color float32 [S,K,3] linear;
    width float32 [S] px at the root (thins out to a third at the tip); cover: opacity 0..1;
    value: label written where opaque enough, NO_LABEL, or ONLY_OUTSIDE (beards: skin where they
    hang over neck, clothes and background); bias: depth that a strand may lie
    behind the surface.
    """
    height, wide = depth.shape
    for s in range(points.shape[0]):
        n = count[s]
        for k in range(n - 1):
            x0, y0, z0 = points[s, k, 0], points[s, k, 1], points[s, k, 2]
            x1, y1, z1 = points[s, k + 1, 0], points[s, k + 1, 1], points[s, k + 1, 2]
            dx, dy = x1 - x0, y1 - y0
            steps = int(max(abs(dx), abs(dy))) + 1
            if steps > 4000:
                continue
            flat = abs(dx) > abs(dy)
            w = width[s] * (1 - 0.67 * (k / max(n - 1, 1)) ** 2)
            alpha = min(w, 1.0) * cover
            span = max(w, 1.0)
            for i in range(steps):
                t = i / steps
                x, y, z = x0 + t * dx, y0 + t * dy, z0 + t * (z1 - z0)
                c0 = color[s, k, 0] + t * (color[s, k + 1, 0] - color[s, k, 0])
                c1 = color[s, k, 1] + t * (color[s, k + 1, 1] - color[s, k, 1])
                c2 = color[s, k, 2] + t * (color[s, k + 1, 2] - color[s, k, 2])
                low = int(np.floor((y if flat else x) - 0.5 * span + 0.5))
                high = int(np.floor((y if flat else x) + 0.5 * span + 0.5))
                for j in range(low, max(high, low + 1)):
                    py, px = (j, int(x)) if flat else (int(y), j)
                    if px < 0 or py < 0 or px >= wide or py >= height or x < 0 or y < 0:
                        continue
                    if z - bias > depth[py, px]:
                        continue
                    rgb[py, px, 0] += alpha * (c0 - rgb[py, px, 0])
                    rgb[py, px, 1] += alpha * (c1 - rgb[py, px, 1])
                    rgb[py, px, 2] += alpha * (c2 - rgb[py, px, 2])
                    if alpha > 0.45:
                        depth[py, px] = min(z, depth[py, px])
                        if value == ONLY_OUTSIDE:
                            if label[py, px] == 0 or label[py, px] >= 17:
                                label[py, px] = 1
                        elif value != NO_LABEL:
                            label[py, px] = value


@compiled(fastmath=True)
def draw_strand_depth(points, count, depth):  # type: ignore[no-untyped-def]
    """Strands into a depth map, one pixel wide."""
    height, wide = depth.shape
    for s in range(points.shape[0]):
        for k in range(count[s] - 1):
            x0, y0, z0 = points[s, k, 0], points[s, k, 1], points[s, k, 2]
            dx, dy = points[s, k + 1, 0] - x0, points[s, k + 1, 1] - y0
            dz = points[s, k + 1, 2] - z0
            steps = int(max(abs(dx), abs(dy))) + 1
            for i in range(steps):
                t = i / steps
                px, py = int(x0 + t * dx), int(y0 + t * dy)
                if 0 <= px < wide and 0 <= py < height:
                    z = z0 + t * dz
                    if z < depth[py, px]:
                        depth[py, px] = z
