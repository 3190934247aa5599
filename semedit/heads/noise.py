"""Smooth value noise in three dimensions, for paint that sticks to the head."""

from __future__ import annotations

import numpy as np

from semedit.runtime.compiled import compiled


@compiled(fastmath=True, inline="always")
def _lattice(x, y, z, seed):  # type: ignore[no-untyped-def]
    h = (x * 374761393 + y * 668265263 + z * 2147483647 + seed * 1274126177) & 0xFFFFFFFF
    h = ((h ^ (h >> 13)) * 1274126177) & 0xFFFFFFFF
    return ((h ^ (h >> 16)) & 0xFFFF) / 65535.0


@compiled(fastmath=True)
def noise3(x, y, z, seed):  # type: ignore[no-untyped-def]
    """Value noise in [-1,1] with lattice spacing 1."""
    xi, yi, zi = int(np.floor(x)), int(np.floor(y)), int(np.floor(z))
    fx, fy, fz = x - xi, y - yi, z - zi
    fx = fx * fx * (3 - 2 * fx)
    fy = fy * fy * (3 - 2 * fy)
    fz = fz * fz * (3 - 2 * fz)
    total = 0.0
    for dz in range(2):
        wz = fz if dz else 1 - fz
        for dy in range(2):
            wy = fy if dy else 1 - fy
            a = _lattice(xi, yi + dy, zi + dz, seed)
            b = _lattice(xi + 1, yi + dy, zi + dz, seed)
            total += wz * wy * (a + (b - a) * fx)
    return 2 * total - 1


@compiled(fastmath=True)
def spots3(x, y, z, seed, share):  # type: ignore[no-untyped-def]
    """Round spots: 1 at the centre of a spot, 0 outside; a share of unit cells holds one."""
    best = 0.0
    xi, yi, zi = int(np.floor(x)), int(np.floor(y)), int(np.floor(z))
    for dz in range(-1, 2):
        for dy in range(-1, 2):
            for dx in range(-1, 2):
                cx, cy, cz = xi + dx, yi + dy, zi + dz
                if _lattice(cx, cy, cz, seed) > share:
                    continue
                px = cx + _lattice(cx, cy, cz, seed + 1)
                py = cy + _lattice(cx, cy, cz, seed + 2)
                pz = cz + _lattice(cx, cy, cz, seed + 3)
                radius = 0.18 + 0.3 * _lattice(cx, cy, cz, seed + 4)
                d2 = ((x - px) ** 2 + (y - py) ** 2 + (z - pz) ** 2) / (radius * radius)
                if d2 < 1:
                    best = max(best, 1 - d2)
    return best
