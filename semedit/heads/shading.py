"""Deferred shading: what every covered pixel looks like, in linear light, and its label.

One pass over the z-buffer. Paint comes from neutral coordinates (see `regions`), light from a key
light with a shadow map, a fill, a rim light and a hemisphere dimmed by ambient occlusion.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from semedit.heads.noise import noise3
from semedit.heads.skin import skin_color
from semedit.heads.surfaces import surface
from semedit.runtime.compiled import compiled


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


@compiled(fastmath=True)
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


@compiled(fastmath=True)
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


@compiled(fastmath=True, inline="always")
def _three(values, i, j, k, b0, b1, b2, out):  # type: ignore[no-untyped-def]
    """Per-vertex values [V,3] at barycentric weights into out[0:3]."""
    out[0] = b0 * values[i, 0] + b1 * values[j, 0] + b2 * values[k, 0]
    out[1] = b0 * values[i, 1] + b1 * values[j, 1] + b2 * values[k, 1]
    out[2] = b0 * values[i, 2] + b1 * values[j, 2] + b2 * values[k, 2]


@compiled(fastmath=True)
def shade(  # type: ignore[no-untyped-def]
    triangle,
    bary,
    triangles,
    material,
    position,
    normal,
    neutral,
    extra,
    eye,
    lights,
    shadow,
    paint,
    maps,
    rgb,
    label,
):
    """Colour and label of every covered pixel.

    triangle, bary: z-buffer; position, normal, neutral float32 [V,3] (head frame; unit; cm);
    extra float32 [V,5] as `surface_noise` returns it; eye float [3] camera position;
    rgb float32 [H,W,3] and label uint8 [H,W] are written.
    """
    height, width = triangle.shape
    out, e = np.zeros(6), np.zeros(5)
    p, n, q, light = np.zeros(3), np.zeros(3), np.zeros(3), np.zeros(3)
    for row in range(height):
        for col in range(width):
            t = triangle[row, col]
            if t < 0:
                continue
            i, j, k = triangles[t, 0], triangles[t, 1], triangles[t, 2]
            b1, b2 = bary[row, col, 0], bary[row, col, 1]
            b0 = 1 - b1 - b2
            _three(position, i, j, k, b0, b1, b2, p)
            _three(normal, i, j, k, b0, b1, b2, n)
            _three(neutral, i, j, k, b0, b1, b2, q)
            for c in range(5):
                e[c] = b0 * extra[i, c] + b1 * extra[j, c] + b2 * extra[k, c]
            what, ao = material[t], e[0]
            if what == 0:
                label[row, col] = skin_color(
                    paint, maps, q[0], q[1], q[2], e[1], e[2], e[3], e[4], out
                )
                gloss, power, wrap = 0.35 * out[3], 20.0, 1.0
                n[0] += out[4]
                n[1] += out[5]
            else:
                label[row, col], gloss, power, wrap, ao = surface(paint, what, p, q, ao, out)
            _light(p, n, eye, ao, gloss, power, wrap, lights, shadow, what, out, light)
            for c in range(3):
                rgb[row, col, c] = light[c]


@compiled(fastmath=True)
def _gleam(d, power, skin):  # type: ignore[no-untyped-def]
    """Highlight of a cosine d. Skin has a fixed broad one, without the cost of a power."""
    if not skin:
        return d**power
    d4 = d * d * d * d
    return d4 * d4 * d4 * d4 * d4


@compiled(fastmath=True)
def _halfway(light, n, v):  # type: ignore[no-untyped-def]
    """Cosine between the normal and the direction halfway between light and viewer."""
    x, y, z = light[0] + v[0], light[1] + v[1], light[2] + v[2]
    length = np.sqrt(x * x + y * y + z * z) + 1e-9
    return max((n[0] * x + n[1] * y + n[2] * z) / length, 0.0)


@compiled(fastmath=True)
def _light(p, n, eye, ao, gloss, power, wrap, lights, shadow, what, albedo, out):  # type: ignore[no-untyped-def]
    """Light one point: out[c] = albedo * (key + fill + rim + hemisphere) + highlights."""
    length = np.sqrt(n[0] ** 2 + n[1] ** 2 + n[2] ** 2) + 1e-9
    v = (eye[0] - p[0], eye[1] - p[1], eye[2] - p[2])
    far = np.sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2])
    v = (v[0] / far, v[1] / far, v[2] / far)
    facing = (n[0] * v[0] + n[1] * v[1] + n[2] * v[2]) / length
    sign = (1.0 if facing >= 0 else -1.0) / length
    m = (n[0] * sign, n[1] * sign, n[2] * sign)
    facing = abs(facing)
    key = m[0] * lights.key[0] + m[1] * lights.key[1] + m[2] * lights.key[2]
    fill = m[0] * lights.fill[0] + m[1] * lights.fill[1] + m[2] * lights.fill[2]
    rim = m[0] * lights.rim[0] + m[1] * lights.rim[1] + m[2] * lights.rim[2]
    skin, shade = what == 0, 1.0
    if key > -0.4:
        shade = lit(shadow, p[0] + 0.006 * m[0], p[1] + 0.006 * m[1], p[2] + 0.006 * m[2], 0.008)
    edge = (1 - facing) * (1 - facing)
    edge *= edge
    shine_key, shine_fill = 0.0, 0.0
    if gloss > 0:
        fresnel = 6 * (0.04 + 0.30 * edge if skin else 0.08)
        shine_key = _gleam(_halfway(lights.key, m, v), power, skin)
        if skin:
            shine_key = 0.6 * shine_key + 0.8 * shine_key**3
        shine_key *= fresnel
        shine_fill = _gleam(_halfway(lights.fill, m, v), power, skin) * fresnel
    up = 0.5 + 0.5 * m[1]
    for c in range(3):
        # Light scatters under the skin: red reaches further round the terminator.
        w = wrap * (0.28 if c == 0 else (0.14 if c == 1 else 0.08))
        red = 1.0 if skin and c == 0 else 0.0
        scatter = shade * (1 + 0.25 * red * (1 - shade))
        diffuse = max((key + w) / (1 + w), 0.0) * scatter * lights.key_rgb[c]
        diffuse += max((fill + w) / (1 + w), 0.0) * lights.fill_rgb[c] * ao
        diffuse += max(rim, 0.0) * lights.rim_rgb[c] * ao
        around = lights.ground[c] + up * (lights.sky[c] - lights.ground[c]) + m[0] * lights.side[c]
        diffuse += around * ao * (1 + 0.2 * red * (1 - ao))
        total = albedo[c] * diffuse
        total += gloss * (shine_key * shade * lights.key_rgb[c] + shine_fill * lights.fill_rgb[c])
        out[c] = total + (0.10 * edge * around * ao if skin else 0.0)
