"""Eyes, clothes, hats and the inside of the mouth: albedo from neutral or object coordinates."""

from __future__ import annotations

import numpy as np

from semedit.heads.noise import noise3
from semedit.heads.skin import smooth
from semedit.runtime.compiled import compiled


@compiled(fastmath=True)
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
    ir, ig, ib = (
        paint.iris_rgb[0] * fibre * (0.5 + 0.6 * inner),
        paint.iris_rgb[1] * fibre * (0.55 + 0.45 * inner),
        paint.iris_rgb[2] * fibre * (0.65 + 0.35 * inner),
    )
    ring = 1 - 0.75 * smooth(radius, 0.72, 0.98)
    pupil = smooth(radius, paint.pupil - 0.05, paint.pupil + 0.06)
    iris = 1 - smooth(radius, 0.93, 1.08)
    out[0] = sr + iris * (ir * ring * pupil - sr)
    out[1] = sg + iris * (ig * ring * pupil - sg)
    out[2] = sb + iris * (ib * ring * pupil - sb)


@compiled(fastmath=True)
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


@compiled(fastmath=True)
def hat_color(paint, x, y, z, out):  # type: ignore[no-untyped-def]
    if paint.hat_kind == 0:  # ribs of a knitted cap
        phi = np.arctan2(x, z)
        k = 0.80 + 0.25 * np.sin(phi * 46) + 0.08 * np.sin(y * 14)
    else:
        k = 0.96 + 0.07 * noise3(x * 6, y * 6, z * 6, paint.seed + 41)
    for i in range(3):
        out[i] = paint.hat_rgb[i] * k


@compiled(fastmath=True)
def surface(paint, what, p, q, ao, out):  # type: ignore[no-untyped-def]
    """Albedo of everything but skin into out[0:3].

    what: geometry.MATERIAL; p, q: head frame and object coordinates; ao: ambient occlusion.
    Returns label, gloss, exponent of the highlight, wrap of the light, ambient occlusion.
    """
    if what <= 3:
        return _mouth(paint, what, p, q, ao, out)
    if what <= 5:
        side = what - 4
        eye_color(paint, side, q[0], q[1], q[2], out)
        shade = 0.45 + 0.55 * smooth(paint.lids[side] - p[1], -0.004, 0.010)
        for c in range(3):
            out[c] *= shade
        return 4 + side, 2.0, 250.0, 0.0, 0.75
    if what == 6:
        cloth_color(paint, q[0], q[1], q[2], out)
        return 18, 0.0, 20.0, 0.3, ao
    if what == 7 or what == 12:
        hat_color(paint, q[0], q[1], q[2], out)
        return 14, 0.0, 20.0, 0.3, ao
    if what == 8:
        out[:3] = paint.frame_rgb
        return 3, 0.8, 40.0, 0.0, ao
    if what == 9:
        out[:3] = paint.earring_rgb
        return 15, 2.5, 30.0, 0.0, ao
    out[:3] = paint.necklace_rgb
    return 16, 2.0, 30.0, 0.0, ao


@compiled(fastmath=True)
def _mouth(paint, what, p, q, ao, out):  # type: ignore[no-untyped-def]
    """Inside of the mouth (1), gums and tongue (2), teeth (3): darker with depth."""
    behind = paint.mouth_front - p[2]
    if what == 3:
        bright = 1 - 0.85 * smooth(behind, 0.02, 0.09)
        enamel = bright * (0.93 + 0.07 * noise3(q[0] * 2.5, 1.0, 5.0, 7))
        out[0], out[1], out[2] = 0.68 * enamel, 0.62 * enamel, 0.51 * enamel
        return 10, 0.5 * bright, 60.0, 0.0, max(ao, 0.75) * bright
    deep = smooth(behind, 0.01, 0.055 if what == 1 else 0.11)
    flesh = 0.55 * (1 - 0.9 * deep) * (1.0 if what == 2 else 0.6)
    out[0], out[1], out[2] = 0.50 * flesh, 0.17 * flesh, 0.16 * flesh
    return 10, 0.25 * (1 - deep), 30.0, 0.0, ao * (1 - 0.8 * deep)
