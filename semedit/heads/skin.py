"""The skin: pigments, lines, lips, brows, shadow of beard and scalp, from neutral coordinates.

Colours are linear RGB; `paint` is shading.Paint. The pigment model is Beer-Lambert's: melanin and
blood absorb, each with its own colour.
"""

from __future__ import annotations

import numpy as np

from semedit.heads.noise import noise3, spots3
from semedit.heads.regions import PARTING_X, PARTING_Y, brow_offset, sample
from semedit.runtime.compiled import compiled


@compiled(fastmath=True)
def smooth(x, low, high):  # type: ignore[no-untyped-def]
    t = min(max((x - low) / (high - low), 0.0), 1.0)
    return t * t * (3 - 2 * t)


@compiled(fastmath=True)
def by_angle(table, x, z):  # type: ignore[no-untyped-def]
    """Value of a [181] table at the angle of neutral (x, z)."""
    phi = np.degrees(np.arctan2(abs(x), z))
    i = min(int(phi), 179)
    f = phi - i
    return table[i] * (1 - f) + table[i + 1] * f


@compiled(fastmath=True)
def at_angle(table, phi):  # type: ignore[no-untyped-def]
    """Value of a [181] table at an angle in degrees."""
    i = min(max(int(phi), 0), 179)
    return table[i] + (phi - i) * (table[i + 1] - table[i])


@compiled(fastmath=True)
def scalp(paint, x, y, z):  # type: ignore[no-untyped-def]
    """How far a neutral point lies inside the hairline, cm (rough at the top)."""
    mid = noise3(x * 1.6, y * 1.6, z * 1.6, paint.seed + 1)
    return y - by_angle(paint.hairline, x, z) + 0.25 * mid


@compiled(fastmath=True)
def parting(x):  # type: ignore[no-untyped-def]
    a = abs(x)
    for i in range(3):
        if a < PARTING_X[i + 1]:
            t = (a - PARTING_X[i]) / (PARTING_X[i + 1] - PARTING_X[i])
            return PARTING_Y[i] + t * (PARTING_Y[i + 1] - PARTING_Y[i])
    return PARTING_Y[3]


@compiled(fastmath=True)
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
    goatee = max(
        goatee,
        smooth(a, 2.5, 2.8)
        * (1 - smooth(a, 3.0, 3.6))
        * (1 - smooth(y, -2.6, -1.8))
        * smooth(y, -7.5, -6.5),
    )
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


@compiled(fastmath=True)
def _mix(out, color, share, factor):  # type: ignore[no-untyped-def]
    """Cover out[0:3] with a share of color * factor."""
    for c in range(3):
        out[c] += share * (color[c] * factor - out[c])


@compiled(fastmath=True)
def _pigments(paint, x, y, z, ear, low, mid, fine, front):  # type: ignore[no-untyped-def]
    """Melanin and blood at a neutral point; low, mid, fine: noise of three sizes."""
    a = abs(x)
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
            m += (
                0.35
                * paint.freckles
                * zone
                * spots3(x * 3.2, y * 3.2, z * 3.2, paint.seed + 5, 0.5)
            )
    if front > 0.2:
        m += 0.10 * paint.wrinkles * max(mid - 0.25, 0.0)
    for i in range(len(paint.moles)):
        d2 = (x - paint.moles[i, 0]) ** 2 + (y - paint.moles[i, 1]) ** 2
        if d2 < 0.05 and z > 0:
            m += 0.4 * (1 - smooth(np.sqrt(d2), 0.4 * paint.moles[i, 2], paint.moles[i, 2]))
    return m, h


@compiled(fastmath=True)
def _lines(paint, maps, x, y, low, mid, front):  # type: ignore[no-untyped-def]
    """Lines of age and folds of the smile: darkness, and bend of the normal along x and y."""
    if front <= 0.2:
        return 0.0, 0.0, 0.0
    wx, wy = x + 0.18 * low, y + 0.15 * mid
    d_old = sample(maps[2], wx, wy)
    d_fold = sample(maps[3], x, y)
    old = paint.wrinkles * np.exp(-((d_old / 0.15) ** 2)) * front * (0.55 + 0.45 * low)
    fold = paint.folds * np.exp(-((d_fold / 0.16) ** 2)) * front
    bend_x, bend_y = 0.0, 0.0
    if old > 0.02 or fold > 0.02:
        e = 0.05
        gx = (sample(maps[2], wx + e, wy) - d_old) / e * old + (
            sample(maps[3], x + e, y) - d_fold
        ) / e * fold
        gy = (sample(maps[2], wx, wy + e) - d_old) / e * old + (
            sample(maps[3], x, y + e) - d_fold
        ) / e * fold
        bend_x, bend_y = -0.55 * gx * (1 if x > 0 else -1), -0.55 * gy
    return 0.20 * old + 0.16 * fold, bend_x, bend_y


@compiled(fastmath=True)
def _lips(paint, x, lip, low, mid, out):  # type: ignore[no-untyped-def]
    """Paint the lips, natural or with lipstick; lip: signed distance to their outline."""
    cover = 1 - smooth(lip, -0.16, 0.12)
    line = 0.5 + 0.5 * np.sin(x * 16 + 2 * low + 1.5 * mid)
    k = 0.55 + 0.35 * paint.lip_red + 0.08 * line
    for c in range(3):
        tone = out[c] * np.exp(-k * (0.20 if c == 0 else (0.95 if c == 1 else 0.65)))
        if paint.lipstick > 0:
            tone += paint.lipstick * (paint.lipstick_rgb[c] * (1 - 0.12 * line) - tone)
        out[c] += cover * (tone - out[c])
    out[3] += cover * (0.9 + 0.6 * paint.lipstick)
    out[4] += 0.10 * cover * np.cos(x * 16)


@compiled(fastmath=True)
def _hairs(paint, x, y, z, ear, fine, mid, phi, lip, out):  # type: ignore[no-untyped-def]
    """Paint under brows, beard and hair. Returns how far inside brow and hairline the point is."""
    inside, depth = -1.0, -9.0
    if z > 4.5 and y > 4.0:
        inside = brow_offset(x, y, paint.brow_thick, paint.brow_arch)
        if inside > -0.3:
            _mix(out, paint.brow_rgb, smooth(inside, -0.3, 0.6) * paint.brow_cover, 1.0)
    if paint.beard_kind > 0 and lip > -0.05:
        grown = beard_mask(paint.beard_kind, paint.jaw, phi, x, y, z)
        if grown > 0.01:
            grown *= paint.beard_cover * (0.85 + 0.25 * fine)
            _mix(out, paint.beard_rgb, grown, 1.0)
    if paint.scalp_cover > 0 and ear < 0.5:
        depth = y - at_angle(paint.hairline, phi) + 0.25 * mid
        if depth > -0.4:
            cover = smooth(depth, -0.4, 0.7) * paint.scalp_cover
            _mix(out, paint.hair_rgb, cover, 1 + 0.35 * fine)
            out[3] *= 1 - 0.7 * cover
    return inside, depth


@compiled(fastmath=True)
def skin_color(paint, maps, x, y, z, ear, low, mid, phi, out):  # type: ignore[no-untyped-def]
    """Albedo of the skin at neutral (x, y, z) into out[0:3]; out[3] gloss, out[4:6] bend of the
    normal along x and y. Returns the label.

    ear: weight of the ear; low, mid: coarse and middle noise; phi: angle in degrees.
    """
    a, front = abs(x), smooth(z, 3.0, 5.0)
    fine = noise3(x * 6.0, y * 6.0, z * 6.0, paint.seed + 2)
    lip = sample(maps[0], x, y) if z > 8.0 else 9.0
    nose = sample(maps[1], x, y) if z > 7.5 else 9.0
    m, h = _pigments(paint, x, y, z, ear, low, mid, fine, front)
    dark, bend_x, bend_y = _lines(paint, maps, x, y, low, mid, front)
    out[0] = np.exp(-(0.38 + 0.02 * h + 2.15 * m + 0.02 * paint.yellow))
    out[1] = np.exp(-(0.50 + 0.42 * h + 2.60 * m + 0.04 * paint.yellow))
    out[2] = np.exp(-(0.66 + 0.50 * h + 2.95 * m + 0.22 * paint.yellow))
    out[3] = 0.55 + 0.45 * np.exp(-((a / 2.2) ** 2)) * (1 if nose < 0.3 or y > 6 else 0)
    out[4] = 0.10 * fine + 0.05 * mid + bend_x
    out[5] = 0.10 * (mid - fine) + bend_y
    label = 2 if nose < 0 else 1
    if lip < 0.15:
        _lips(paint, x, lip, low, mid, out)
        if lip < 0:
            label = 11 if y > parting(x) else 12
            dark = max(dark, 0.35 * np.exp(-(((y - parting(x)) / 0.10) ** 2)))
    if paint.shadow > 0.1 and front > 0.2 and y > 2.2 and y < 6.0 and a > 1.2:
        lid = np.exp(-(((a - 3.3) / 1.5) ** 2 + ((y - 4.4) / 0.62) ** 2))
        _mix(out, paint.shadow_rgb, lid * paint.shadow * 0.7, 1.0)
    brow, hair = _hairs(paint, x, y, z, ear, fine, mid, phi, lip, out)
    if brow > 0:
        label = 6 if x > 0 else 7
    if ear > 0.5:
        label = 8 if x > 0 else 9
    elif y < at_angle(paint.jaw, phi):
        label = 17
    if hair > 0.1 and paint.scalp_cover > 0.3:
        label = 13
    for c in range(3):
        out[c] *= 1 - dark
    out[3] *= paint.shine
    out[4] *= front
    out[5] *= front
    return label
