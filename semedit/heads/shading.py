"""Deferred shading: what every covered pixel looks like, in linear light, and its label.

One pass over the z-buffer. Paint comes from neutral coordinates (see `regions`), light from a key
light with a shadow map, a fill, a rim light and a hemisphere dimmed by ambient occlusion.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from semedit.heads.noise import noise3
from semedit.heads.skin import skin_color, smooth
from semedit.heads.surfaces import cloth_color, eye_color, hat_color


class Lights(NamedTuple):
    """Directions (unit, towards the light) and linear colours float64 [3], head frame."""

    key: np.ndarray
    key_rgb: np.ndarray
    fill: np.ndarray
    fill_rgb: np.ndarray
    rim: np.ndarray
    rim_rgb: np.ndarray
    sky: np.ndarray  # from above
    ground: np.ndarray  # from below
    side: np.ndarray  # added from the picture's right, taken from the left


class Shadow(NamedTuple):
    """Orthographic depth map from the key light; matrix [3,4] head frame -> (x px, y px, depth)."""

    depth: np.ndarray
    matrix: np.ndarray


class Paint(NamedTuple):
    """Numbers the skin and eye painters read; colours are linear RGB [3]."""

    seed: int
    melanin: float
    redness: float
    yellow: float
    blush: float
    freckles: float
    moles: np.ndarray  # [M,3] neutral x, y and radius, cm
    mottle: float
    shine: float
    under_eye: float
    wrinkles: float  # 0 when young
    folds: float  # nasolabial, grows with the smile
    lip_red: float
    lipstick: float
    lipstick_rgb: np.ndarray
    shadow: float  # eye shadow
    shadow_rgb: np.ndarray
    liner: float
    brow_thick: float
    brow_arch: float
    brow_cover: float
    brow_rgb: np.ndarray
    scalp_cover: float  # how much of the scalp's colour is hair
    hair_rgb: np.ndarray
    hairline: np.ndarray  # [181] y of the hairline per degree
    jaw: np.ndarray  # [181] y of the jaw line per degree
    beard_cover: float
    beard_kind: int  # 0 none, 1 stubble, 2 moustache, 3 goatee, 4 full
    beard_rgb: np.ndarray
    iris_rgb: np.ndarray
    pupil: float  # share of the iris radius
    sclera: float
    eyes: np.ndarray  # [2,3] neutral centres of left, right eyeball, cm
    lids: np.ndarray  # [2] head-frame height of the upper lids
    mouth_front: float  # head-frame z of the lips, to darken the mouth's depth
    cloth_rgb: np.ndarray
    cloth_rgb2: np.ndarray
    cloth_pattern: int
    hat_rgb: np.ndarray
    hat_kind: int
    frame_rgb: np.ndarray
    earring_rgb: np.ndarray
    necklace_rgb: np.ndarray
    skin_strength: float  # 1 plain


@njit(cache=True, fastmath=True)
def surface_noise(q, seed, ao, ear):  # type: ignore[no-untyped-def]
    """Per-vertex values float32 [V,5] that are smooth enough to interpolate: ambient occlusion,
    ear weight, coarse and middle noise, angle about the vertical axis in degrees."""
    out = np.empty((len(q), 5), np.float32)
    for i in range(len(q)):
        x, y, z = q[i, 0], q[i, 1], q[i, 2]
        out[i, 0], out[i, 1] = ao[i], ear[i]
        out[i, 2] = noise3(x * 0.45, y * 0.45, z * 0.45, seed)
        out[i, 3] = noise3(x * 1.6, y * 1.6, z * 1.6, seed + 1)
        out[i, 4] = np.degrees(np.arctan2(abs(x), z))
    return out


@njit(cache=True, fastmath=True)
def lit(shadow, x, y, z, bias):  # type: ignore[no-untyped-def]
    """Share of the key light that reaches a point: 3 x 3 samples of the shadow map."""
    m = shadow.matrix
    u = m[0, 0] * x + m[0, 1] * y + m[0, 2] * z + m[0, 3]
    v = m[1, 0] * x + m[1, 1] * y + m[1, 2] * z + m[1, 3]
    d = m[2, 0] * x + m[2, 1] * y + m[2, 2] * z + m[2, 3] - bias
    size = shadow.depth.shape[0]
    i, j = int(v), int(u)
    if i < 1 or j < 1 or i > size - 2 or j > size - 2:
        return 1.0
    total = 0.0
    for a in range(i - 1, i + 2):
        for b in range(j - 1, j + 2):
            total += min(max((d - shadow.depth[a, b]) / bias, 0.0), 1.0)
    return 1 - total / 9


@njit(cache=True, fastmath=True)
def shade(triangle, bary, triangles, material, position, normal, neutral, extra, eye,  # type: ignore[no-untyped-def]
          lights, shadow, paint, maps, rgb, label):
    """Colour and label of every covered pixel.

    triangle, bary: z-buffer; position, normal, neutral float32 [V,3] (head frame; unit; cm);
    extra float32 [V,5] as `surface_noise` returns it; eye float [3] camera position;
    rgb float32 [H,W,3] and label uint8 [H,W] are written.
    """
    height, width = triangle.shape
    out = np.zeros(6)
    p, n, q = np.zeros(3), np.zeros(3), np.zeros(3)
    light = np.zeros(3)
    for row in range(height):
        for col in range(width):
            t = triangle[row, col]
            if t < 0:
                continue
            b1, b2 = bary[row, col, 0], bary[row, col, 1]
            b0 = 1 - b1 - b2
            i, j, k = triangles[t, 0], triangles[t, 1], triangles[t, 2]
            for c in range(3):
                p[c] = b0 * position[i, c] + b1 * position[j, c] + b2 * position[k, c]
                n[c] = b0 * normal[i, c] + b1 * normal[j, c] + b2 * normal[k, c]
                q[c] = b0 * neutral[i, c] + b1 * neutral[j, c] + b2 * neutral[k, c]
            ao = b0 * extra[i, 0] + b1 * extra[j, 0] + b2 * extra[k, 0]
            ear = b0 * extra[i, 1] + b1 * extra[j, 1] + b2 * extra[k, 1]
            low = b0 * extra[i, 2] + b1 * extra[j, 2] + b2 * extra[k, 2]
            mid = b0 * extra[i, 3] + b1 * extra[j, 3] + b2 * extra[k, 3]
            phi = b0 * extra[i, 4] + b1 * extra[j, 4] + b2 * extra[k, 4]
            what = material[t]
            gloss, power, wrap = 0.0, 20.0, 0.0
            out[4] = 0.0
            out[5] = 0.0
            if what == 0:
                label[row, col] = skin_color(paint, maps, q[0], q[1], q[2], ear, low, mid,
                                              phi, out)
                gloss, wrap = 0.35 * out[3], 1.0
                n[0] += out[4]
                n[1] += out[5]
            elif what <= 2:
                deep = smooth(paint.mouth_front - p[2], 0.01, 0.055 if what == 1 else 0.11)
                s = 0.55 * (1 - 0.9 * deep) * (1.0 if what == 2 else 0.6)
                out[0], out[1], out[2] = 0.50 * s, 0.17 * s, 0.16 * s
                label[row, col] = 10
                gloss, power, ao = 0.25 * (1 - deep), 30.0, ao * (1 - 0.8 * deep)
            elif what == 3:
                deep = smooth(paint.mouth_front - p[2], 0.02, 0.09)
                s = 1 - 0.85 * deep
                gap = 0.93 + 0.07 * noise3(q[0] * 2.5, 1.0, 5.0, 7)
                out[0], out[1], out[2] = 0.68 * s * gap, 0.62 * s * gap, 0.51 * s * gap
                label[row, col] = 10
                gloss, power, ao = 0.5 * s, 60.0, max(ao, 0.75) * s
            elif what <= 5:
                side = what - 4
                eye_color(paint, side, q[0], q[1], q[2], out)
                lid = smooth(paint.lids[side] - p[1], -0.004, 0.010)
                s = 0.45 + 0.55 * lid
                out[0], out[1], out[2] = out[0] * s, out[1] * s, out[2] * s
                label[row, col] = 4 + side
                gloss, power, ao = 2.0, 250.0, 0.75
            elif what == 6:
                cloth_color(paint, q[0], q[1], q[2], out)
                label[row, col] = 18
                wrap = 0.3
            elif what == 7 or what == 12:
                hat_color(paint, q[0], q[1], q[2], out)
                label[row, col] = 14
                wrap = 0.3
            elif what == 8:
                for c in range(3):
                    out[c] = paint.frame_rgb[c]
                label[row, col] = 3
                gloss, power = 0.8, 40.0
            elif what == 9:
                for c in range(3):
                    out[c] = paint.earring_rgb[c]
                label[row, col] = 15
                gloss, power = 2.5, 30.0
            else:
                for c in range(3):
                    out[c] = paint.necklace_rgb[c]
                label[row, col] = 16
                gloss, power = 2.0, 30.0
            _light(p, n, eye, ao, gloss, power, wrap, lights, shadow, what, out, light)
            for c in range(3):
                rgb[row, col, c] = light[c]


@njit(cache=True, fastmath=True)
def _light(p, n, eye, ao, gloss, power, wrap, lights, shadow, what, albedo, out):  # type: ignore[no-untyped-def]
    """Light one point: out[c] = albedo * (key + fill + rim + hemisphere) + highlights."""
    length = np.sqrt(n[0] ** 2 + n[1] ** 2 + n[2] ** 2) + 1e-9
    nx, ny, nz = n[0] / length, n[1] / length, n[2] / length
    vx, vy, vz = eye[0] - p[0], eye[1] - p[1], eye[2] - p[2]
    length = np.sqrt(vx * vx + vy * vy + vz * vz)
    vx, vy, vz = vx / length, vy / length, vz / length
    facing = nx * vx + ny * vy + nz * vz
    if facing < 0:
        nx, ny, nz, facing = -nx, -ny, -nz, -facing
    key = nx * lights.key[0] + ny * lights.key[1] + nz * lights.key[2]
    fill = nx * lights.fill[0] + ny * lights.fill[1] + nz * lights.fill[2]
    rim = nx * lights.rim[0] + ny * lights.rim[1] + nz * lights.rim[2]
    shade = 1.0
    if key > -0.4:
        shade = lit(shadow, p[0] + 0.006 * nx, p[1] + 0.006 * ny, p[2] + 0.006 * nz, 0.008)
    edge = (1 - facing) * (1 - facing)
    edge *= edge
    shine_key, shine_fill = 0.0, 0.0
    if gloss > 0:
        hx, hy, hz = lights.key[0] + vx, lights.key[1] + vy, lights.key[2] + vz
        length = np.sqrt(hx * hx + hy * hy + hz * hz) + 1e-9
        d = max((nx * hx + ny * hy + nz * hz) / length, 0.0)
        fresnel = 0.04 + 0.30 * edge if what == 0 else 0.08
        if what == 0:
            d4 = d * d * d * d
            d20 = d4 * d4 * d4 * d4 * d4
            shine_key = (0.6 * d20 + 0.8 * d20 * d20 * d20) * fresnel * 6
        else:
            shine_key = d**power * fresnel * 6
        hx, hy, hz = lights.fill[0] + vx, lights.fill[1] + vy, lights.fill[2] + vz
        length = np.sqrt(hx * hx + hy * hy + hz * hz) + 1e-9
        d = max((nx * hx + ny * hy + nz * hz) / length, 0.0)
        if what == 0:
            d4 = d * d * d * d
            shine_fill = d4 * d4 * d4 * d4 * d4 * fresnel * 6
        else:
            shine_fill = d**power * fresnel * 6
    up = 0.5 + 0.5 * ny
    for c in range(3):
        # Light scatters under the skin: red reaches further round the terminator.
        w = wrap * (0.28 if c == 0 else (0.14 if c == 1 else 0.08))
        scatter = shade * (1 + 0.25 * (1 - shade)) if what == 0 and c == 0 else shade
        diffuse = max((key + w) / (1 + w), 0.0) * scatter * lights.key_rgb[c]
        diffuse += max((fill + w) / (1 + w), 0.0) * lights.fill_rgb[c] * ao
        diffuse += max(rim, 0.0) * lights.rim_rgb[c] * ao
        around = lights.ground[c] + up * (lights.sky[c] - lights.ground[c]) + nx * lights.side[c]
        tint = ao * (1 + 0.2 * (1 - ao)) if what == 0 and c == 0 else ao
        diffuse += around * tint
        total = albedo[c] * diffuse
        total += gloss * (shine_key * shade * lights.key_rgb[c] + shine_fill * lights.fill_rgb[c])
        if what == 0:
            total += 0.10 * edge * around * ao
        out[c] = total
