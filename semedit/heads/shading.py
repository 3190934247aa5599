"""Deferred shading: what every covered pixel looks like, in linear light, and its label.

One pass over the z-buffer. Paint comes from neutral coordinates (see `regions`), light from a key
light with a shadow map, a fill, a rim light and a hemisphere dimmed by ambient occlusion.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from semedit.heads.noise import noise3, spots3
from semedit.heads.regions import PARTING_X, PARTING_Y, brow_offset, sample


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
def smooth(x, low, high):  # type: ignore[no-untyped-def]
    t = min(max((x - low) / (high - low), 0.0), 1.0)
    return t * t * (3 - 2 * t)


@njit(cache=True, fastmath=True)
def by_angle(table, x, z):  # type: ignore[no-untyped-def]
    """Value of a [181] table at the angle of neutral (x, z)."""
    phi = np.degrees(np.arctan2(abs(x), z))
    i = min(int(phi), 179)
    f = phi - i
    return table[i] * (1 - f) + table[i + 1] * f


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
def parting(x):  # type: ignore[no-untyped-def]
    a = abs(x)
    for i in range(3):
        if a < PARTING_X[i + 1]:
            t = (a - PARTING_X[i]) / (PARTING_X[i + 1] - PARTING_X[i])
            return PARTING_Y[i] + t * (PARTING_Y[i + 1] - PARTING_Y[i])
    return PARTING_Y[3]


@njit(cache=True, fastmath=True)
def at_angle(table, phi):  # type: ignore[no-untyped-def]
    """Value of a [181] table at an angle in degrees."""
    i = min(max(int(phi), 0), 179)
    return table[i] + (phi - i) * (table[i + 1] - table[i])


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
def scalp(paint, x, y, z):  # type: ignore[no-untyped-def]
    """How far a neutral point lies inside the hairline, cm (rough at the top)."""
    mid = noise3(x * 1.6, y * 1.6, z * 1.6, paint.seed + 1)
    return y - by_angle(paint.hairline, x, z) + 0.25 * mid


@njit(cache=True, fastmath=True)
def beard_mask(kind, jaw, phi, x, y, z):  # type: ignore[no-untyped-def]
    """0..1: where a beard grows on the neutral head. kind as in Paint.beard_kind."""
    if kind == 0 or z < -0.8 or y > 2.5:
        return 0.0
    a = abs(x)
    if a < 1.3 and y > -3.3 and y > -2.2 and y > -1.6:
        return 0.0
    lip = y > -2.5 and a < 2.9
    moustache = smooth(y, -2.75, -2.35) * (1 - smooth(y, -1.75 - 0.12 * a, -1.4 - 0.12 * a))
    moustache *= 1 - smooth(a, 2.5, 3.3)
    below = at_angle(jaw, phi)
    chin = smooth(y, below - 2.2, below - 0.6) * (1 - smooth(y, -5.4, -4.7))
    goatee = chin * (1 - smooth(a, 2.2, 3.0))
    goatee = max(goatee, smooth(a, 2.5, 2.8) * (1 - smooth(a, 3.0, 3.6)) * (
        1 - smooth(y, -2.6, -1.8)) * smooth(y, -7.5, -6.5))
    edge = -2.2 + 4.6 * smooth(a, 3.2, 7.3)  # the cheek line rises towards the ear
    cheeks = (1 - smooth(y, edge - 1.5, edge + 0.7)) * smooth(y, below - 2.8, below - 0.2)
    cheeks *= smooth(a, 2.4, 3.2) if y > -4.6 else 1.0
    cheeks *= smooth(z, -0.8, 1.0)
    if y > 1.0:
        cheeks *= (1 - smooth(z, 2.6, 4.2)) * (1 - smooth(y, 1.2, 2.5))
    full = max(moustache, cheeks)
    if a < 1.6 and y > -5.2 and y < -4.4:
        full = max(full, 0.8 * (1 - smooth(a, 0.5, 0.9)))
    if kind == 2:
        return moustache
    if kind == 3:
        return max(moustache, goatee)
    if lip:
        return max(moustache, full)
    return full


@njit(cache=True, fastmath=True)
def skin_color(paint, maps, x, y, z, ear, low, mid, phi, out):  # type: ignore[no-untyped-def]
    """Albedo of the skin at neutral (x, y, z) into out[0:3]; out[3] gloss, out[4:6] bend of the
    normal along x and y. Returns the label."""
    seed = paint.seed
    a = abs(x)
    front = smooth(z, 3.0, 5.0)
    fine = noise3(x * 6.0, y * 6.0, z * 6.0, seed + 2)
    lip = sample(maps[0], x, y) if z > 8.0 else 9.0
    nose = sample(maps[1], x, y) if z > 7.5 else 9.0
    # pigments
    m = paint.melanin * (1 + 0.05 * paint.mottle * (low + 0.6 * mid))
    h = 0.55 + 0.35 * paint.redness + paint.mottle * (0.16 * low + 0.10 * mid + 0.10 * fine)
    cheek = np.exp(-(((a - 4.3) / 2.0) ** 2 + ((y + 0.2) / 1.9) ** 2)) * front
    h += (0.25 + 0.7 * paint.blush) * cheek
    h += 0.5 * np.exp(-((a / 1.5) ** 2 + ((y + 0.2) / 1.2) ** 2)) * front  # tip of the nose
    h += 0.45 * ear
    if front > 0:
        socket = np.exp(-(((a - 3.1) / 1.7) ** 2 + ((y - 2.35) / 0.65) ** 2)) * front
        m += socket * 0.13 * paint.under_eye
        h += socket * 0.45 * paint.under_eye
        lid = np.exp(-(((a - 3.2) / 1.5) ** 2 + ((y - 4.15) / 0.5) ** 2)) * front
        m += 0.06 * lid
        h += 0.3 * lid
        if paint.freckles > 0.1:
            zone = np.exp(-((a / 5.0) ** 2 + ((y - 1.2) / 2.6) ** 2)) * front
            m += 0.35 * paint.freckles * zone * spots3(x * 3.2, y * 3.2, z * 3.2, seed + 5, 0.5)
    for i in range(len(paint.moles)):
        d2 = (x - paint.moles[i, 0]) ** 2 + (y - paint.moles[i, 1]) ** 2
        if d2 < 0.05 and z > 0:
            m += 0.4 * (1 - smooth(np.sqrt(d2), 0.4 * paint.moles[i, 2], paint.moles[i, 2]))
    gloss = 0.55 + 0.45 * np.exp(-((a / 2.2) ** 2)) * (1 if nose < 0.3 or y > 6 else 0)
    bend_x, bend_y = 0.10 * fine + 0.05 * mid, 0.10 * (mid - fine)
    label = 1
    dark = 0.0
    # lines of age and of the smile
    if front > 0.2:
        lines = paint.wrinkles
        wx, wy = x + 0.18 * low, y + 0.15 * mid
        d_old = sample(maps[2], wx, wy)
        d_fold = sample(maps[3], x, y)
        old = lines * np.exp(-((d_old / 0.15) ** 2)) * front * (0.55 + 0.45 * low)
        fold = paint.folds * np.exp(-((d_fold / 0.16) ** 2)) * front
        dark = 0.20 * old + 0.16 * fold
        if old > 0.02 or fold > 0.02:
            e = 0.05
            gx = (sample(maps[2], wx + e, wy) - d_old) / e * old + (
                sample(maps[3], x + e, y) - d_fold) / e * fold
            gy = (sample(maps[2], wx, wy + e) - d_old) / e * old + (
                sample(maps[3], x, y + e) - d_fold) / e * fold
            bend_x -= 0.55 * gx * (1 if x > 0 else -1)
            bend_y -= 0.55 * gy
        m += 0.10 * lines * max(mid - 0.25, 0.0)
    r = np.exp(-(0.38 + 0.02 * h + 2.15 * m + 0.02 * paint.yellow))
    g = np.exp(-(0.50 + 0.42 * h + 2.60 * m + 0.04 * paint.yellow))
    b = np.exp(-(0.66 + 0.50 * h + 2.95 * m + 0.22 * paint.yellow))
    if nose < 0:
        label = 2
    # lips
    if lip < 0.15:
        cover = 1 - smooth(lip, -0.16, 0.12)
        line = 0.5 + 0.5 * np.sin(x * 16 + 2 * low + 1.5 * mid)
        k = 0.55 + 0.35 * paint.lip_red + 0.08 * line
        lr, lg, lb = r * np.exp(-0.20 * k), g * np.exp(-0.95 * k), b * np.exp(-0.65 * k)
        if paint.lipstick > 0:
            c = paint.lipstick
            tone = 1 - 0.12 * line
            lr = lr * (1 - c) + c * paint.lipstick_rgb[0] * tone
            lg = lg * (1 - c) + c * paint.lipstick_rgb[1] * tone
            lb = lb * (1 - c) + c * paint.lipstick_rgb[2] * tone
        r, g, b = r + cover * (lr - r), g + cover * (lg - g), b + cover * (lb - b)
        gloss += cover * (0.9 + 0.6 * paint.lipstick)
        bend_x += 0.10 * cover * np.cos(x * 16)
        if lip < 0:
            label = 11 if y > parting(x) else 12
            dark = max(dark, 0.35 * np.exp(-(((y - parting(x)) / 0.10) ** 2)))
    # eye shadow
    if paint.shadow > 0.1 and front > 0.2 and y > 2.2 and y < 6.0 and a > 1.2:
        s = np.exp(-(((a - 3.3) / 1.5) ** 2 + ((y - 4.4) / 0.62) ** 2)) * paint.shadow * 0.7
        r += s * (paint.shadow_rgb[0] - r)
        g += s * (paint.shadow_rgb[1] - g)
        b += s * (paint.shadow_rgb[2] - b)
    # brows
    if z > 4.5 and y > 4.0:
        inside = brow_offset(x, y, paint.brow_thick, paint.brow_arch)
        if inside > 0:
            label = 6 if x > 0 else 7
        if inside > -0.3:
            s = smooth(inside, -0.3, 0.6) * paint.brow_cover
            r += s * (paint.brow_rgb[0] - r)
            g += s * (paint.brow_rgb[1] - g)
            b += s * (paint.brow_rgb[2] - b)
    if paint.beard_kind > 0:
        s = beard_mask(paint.beard_kind, paint.jaw, phi, x, y, z)
        if s > 0.01 and lip > -0.05:
            s *= paint.beard_cover * (0.85 + 0.25 * fine)
            r += s * (paint.beard_rgb[0] - r)
            g += s * (paint.beard_rgb[1] - g)
            b += s * (paint.beard_rgb[2] - b)
    if ear > 0.5:
        label = 8 if x > 0 else 9
    elif y < at_angle(paint.jaw, phi):
        label = 17
    if paint.scalp_cover > 0 and ear < 0.5:
        depth = y - at_angle(paint.hairline, phi) + 0.25 * mid
        if depth > -0.4:
            s = smooth(depth, -0.4, 0.7) * paint.scalp_cover
            streak = 1 + 0.35 * fine
            r += s * (paint.hair_rgb[0] * streak - r)
            g += s * (paint.hair_rgb[1] * streak - g)
            b += s * (paint.hair_rgb[2] * streak - b)
            gloss *= 1 - 0.7 * s
            if depth > 0.1 and paint.scalp_cover > 0.3:
                label = 13
    k = 1 - dark
    out[0], out[1], out[2], out[3] = r * k, g * k, b * k, gloss * paint.shine
    out[4], out[5] = bend_x * front, bend_y * front
    return label


@njit(cache=True, fastmath=True)
def eye_color(paint, side, x, y, z, out):  # type: ignore[no-untyped-def]
    """Albedo of an eyeball at neutral (x, y, z): pupil, iris, limbal ring, sclera."""
    dx, dy, dz = x - paint.eyes[side, 0], y - paint.eyes[side, 1], z - paint.eyes[side, 2]
    radius = np.sqrt(dx * dx + dy * dy) / 0.70 if dz > 0 else 9.0
    angle = np.arctan2(dy, dx)
    vein = noise3(x * 3, y * 6, z * 3, paint.seed + 21)
    white = 0.62 - 0.10 * paint.sclera
    red = 0.06 * smooth(radius, 1.3, 2.2) * (1 + vein)
    sr, sg, sb = white, white * (0.93 - red), white * (0.90 - 0.06 * paint.sclera - red)
    fibre = 0.8 + 0.35 * noise3(angle * 7, radius * 1.5, 3.7, paint.seed + 22)
    inner = 1.35 - 0.7 * radius
    ir, ig, ib = (paint.iris_rgb[0] * fibre * (0.5 + 0.6 * inner),
                  paint.iris_rgb[1] * fibre * (0.55 + 0.45 * inner),
                  paint.iris_rgb[2] * fibre * (0.65 + 0.35 * inner))
    ring = 1 - 0.75 * smooth(radius, 0.72, 0.98)
    pupil = smooth(radius, paint.pupil - 0.05, paint.pupil + 0.06)
    iris = 1 - smooth(radius, 0.93, 1.08)
    out[0] = sr + iris * (ir * ring * pupil - sr)
    out[1] = sg + iris * (ig * ring * pupil - sg)
    out[2] = sb + iris * (ib * ring * pupil - sb)


@njit(cache=True, fastmath=True)
def cloth_color(paint, x, y, z, out):  # type: ignore[no-untyped-def]
    """Albedo of clothes at object coordinates, cm."""
    weave = 1 + 0.06 * noise3(x * 5, y * 5, z * 5, paint.seed + 31)
    fold = 1 + 0.10 * noise3(x * 0.5, y * 0.25, z * 0.5, paint.seed + 32)
    second = 0.0
    if paint.cloth_pattern == 1:
        second = 1.0 if np.sin(y * 4.0) > 0.3 else 0.0
    elif paint.cloth_pattern == 2:
        second = 0.5 * (np.sin(x * 3.0) > 0.2) + 0.5 * (np.sin(y * 3.0) > 0.2)
    for i in range(3):
        c = paint.cloth_rgb[i] + second * (paint.cloth_rgb2[i] - paint.cloth_rgb[i])
        out[i] = c * weave * fold


@njit(cache=True, fastmath=True)
def hat_color(paint, x, y, z, out):  # type: ignore[no-untyped-def]
    if paint.hat_kind == 0:  # ribs of a knitted cap
        phi = np.arctan2(x, z)
        k = 0.80 + 0.25 * np.sin(phi * 46) + 0.08 * np.sin(y * 14)
    else:
        k = 0.96 + 0.07 * noise3(x * 6, y * 6, z * 6, paint.seed + 41)
    for i in range(3):
        out[i] = paint.hat_rgb[i] * k


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
