"""Light on strands: diffuse around the thread, two highlights along it, shade inside the hair.

Source: Kajiya & Kay 1989; the second, coloured highlight after Marschner et al. 2003.
"""

from __future__ import annotations

import numpy as np

from semedit.runtime.compiled import compiled


@compiled(fastmath=True)
def shade_strands(  # type: ignore[no-untyped-def]
    points,
    count,
    tint,
    layer,
    base,
    tips,
    gloss,
    center,
    eye,
    lights,
    shadow,
    soft,
    out,
):
    """Colour of every strand point.

    points float32 [S,K,3] head frame; tint [S,3] factors; layer [S] 0 inner .. 1 outer;
    base linear RGB [3]; tips: how much lighter the ends are; center [3] the normals point away
    from; soft: depth in which the key light dies out. Writes out float32 [S,K,3].
    """
    m = shadow.matrix
    size = shadow.depth.shape[0]
    for s in range(points.shape[0]):
        n = count[s]
        for k in range(n):
            a, b = max(k - 1, 0), min(k + 1, n - 1)
            x, y, z = points[s, k, 0], points[s, k, 1], points[s, k, 2]
            tx = points[s, b, 0] - points[s, a, 0]
            ty = points[s, b, 1] - points[s, a, 1]
            tz = points[s, b, 2] - points[s, a, 2]
            length = np.sqrt(tx * tx + ty * ty + tz * tz) + 1e-9
            tx, ty, tz = tx / length, ty / length, tz / length
            nx, ny, nz = x - center[0], y - center[1], z - center[2]
            dot = 0.6 * (nx * tx + ny * ty + nz * tz)
            nx, ny, nz = nx - dot * tx, ny - dot * ty, nz - dot * tz
            length = np.sqrt(nx * nx + ny * ny + nz * nz) + 1e-9
            nx, ny, nz = nx / length, ny / length, nz / length
            vx, vy, vz = eye[0] - x, eye[1] - y, eye[2] - z
            length = np.sqrt(vx * vx + vy * vy + vz * vz) + 1e-9
            vx, vy, vz = vx / length, vy / length, vz / length
            # how deep below the surface seen from the light
            u = m[0, 0] * x + m[0, 1] * y + m[0, 2] * z + m[0, 3]
            v = m[1, 0] * x + m[1, 1] * y + m[1, 2] * z + m[1, 3]
            d = m[2, 0] * x + m[2, 1] * y + m[2, 2] * z + m[2, 3]
            i, j = min(max(int(v), 0), size - 1), min(max(int(u), 0), size - 1)
            shade = np.exp(-max(d - shadow.depth[i, j] - 0.004, 0.0) / soft)
            key, back = lights.key, lights.rim
            along = tx * key[0] + ty * key[1] + tz * key[2]
            thread = np.sqrt(max(1 - along * along, 0.0))
            facing = nx * key[0] + ny * key[1] + nz * key[2]
            diffuse = (0.25 + 0.75 * max((facing + 0.3) / 1.3, 0.0)) * thread * shade
            hx, hy, hz = key[0] + vx, key[1] + vy, key[2] + vz
            length = np.sqrt(hx * hx + hy * hy + hz * hz) + 1e-9
            th = (tx * hx + ty * hy + tz * hz) / length
            one = max(1 - (th + 0.10) ** 2, 0.0) ** 45
            two = max(1 - (th - 0.16) ** 2, 0.0) ** 14
            light_side = shade * max(min((facing + 0.25) * 1.6, 1.0), 0.0)
            fill = max(
                0.35 + 0.65 * (nx * lights.fill[0] + ny * lights.fill[1] + nz * lights.fill[2]), 0.0
            )
            rim = max(nx * back[0] + ny * back[1] + nz * back[2], 0.0)
            rim *= 0.5 + 0.5 * (1 - abs(nx * vx + ny * vy + nz * vz))
            t = k / max(n - 1, 1)
            hidden = 0.45 + 0.55 * layer[s]
            hidden *= 0.65 + 0.35 * min(t * 4, 1.0)
            up = 0.5 + 0.5 * ny
            lighter = 1 + tips * (t - 0.35)
            for c in range(3):
                albedo = base[c] * tint[s, c] * lighter
                around = lights.ground[c] + up * (lights.sky[c] - lights.ground[c])
                around += nx * lights.side[c]
                total = albedo * (
                    lights.key_rgb[c] * diffuse
                    + lights.fill_rgb[c] * fill * hidden
                    + lights.rim_rgb[c] * rim * 1.2
                    + around * hidden * 0.9
                )
                total += gloss * lights.key_rgb[c] * light_side * (0.055 * one + 1.1 * albedo * two)
                out[s, k, c] = max(total, 0.0)
