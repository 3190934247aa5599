"""How one strand of hair grows: direction, gravity, what it must stay out of, waves.

`s` is hair.Style; points are model centimetres; the head is a radius field about CENTER.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from semedit.heads.noise import noise3
from semedit.heads.skin import smooth
from semedit.runtime.compiled import compiled

CENTER = np.array([0.0, 3.5, -0.5], np.float32)  # of the radius field
FIELD_W, FIELD_H = 144, 72
BUZZ, SHORT, SIDE, BOB, LONG, TIED, AFRO = range(7)


class HairPlan(NamedTuple):
    """What is fixed for a strand before it grows; lengths cm."""

    tail: bool  # of tied hair, behind the knot
    fringe: bool
    outer: float  # 0 inner layer .. 1 outer
    lift: float  # above the head
    length: float
    side: float  # -1 or 1: which way off the face
    clump: tuple[float, float, float]  # noise that neighbours share


@compiled(fastmath=True)
def field_radius(field, x, y, z):  # type: ignore[no-untyped-def]
    """Bilinear radius (cm) of the head in the direction of (x, y, z) relative to CENTER."""
    r = np.sqrt(x * x + y * y + z * z) + 1e-9
    u = (np.arctan2(x, z) / (2 * np.pi) + 0.5) * FIELD_W - 0.5
    v = (np.arcsin(min(max(y / r, -1.0), 1.0)) / np.pi + 0.5) * FIELD_H - 0.5
    j, i = int(np.floor(u)), int(np.floor(v))
    a, b = u - j, v - i
    i0, i1 = min(max(i, 0), FIELD_H - 1), min(max(i + 1, 0), FIELD_H - 1)
    j0, j1 = j % FIELD_W, (j + 1) % FIELD_W
    return (field[i0, j0] * (1 - a) + field[i0, j1] * a) * (1 - b) + (
        field[i1, j0] * (1 - a) + field[i1, j1] * a
    ) * b


@compiled(fastmath=True)
def _comb(s, q, d):  # type: ignore[no-untyped-def]
    """Direction the hair is combed to at neutral root q (not yet tangent) into d."""
    x, y, z = q[0], q[1], q[2]
    top = smooth(y, 8.0, 12.5)
    side = 1.0 if x > s.part else -1.0
    front = smooth(z, 1.0, 6.0)
    if s.cut >= 3:  # bob, long: away from the parting and down
        if z < -4:
            side = 1.0 if x > 0 else -1.0
        near = np.exp(-(((x - s.part) / 1.2) ** 2))
        back = 0.35 + 0.5 * front + 1.2 * max(-s.sweep - 0.2, 0.0)
        d[0] = side * (0.25 + 1.1 * top)
        d[1] = -0.9 * (1 - 0.9 * front) + 0.5 * near * top
        d[2] = -back * top + (0.1 if s.tuck == 0 else -0.5) * (1 - top) - 0.5 * front
        if s.fringe > 0 and front > 0.5 and abs(x) < 4.8 and y > 8.5:
            d[0], d[1], d[2] = 0.22 * x - 0.05 * s.part, -0.6, 1.0
    else:  # short: around the whorl, swept across on top
        wx, wy, wz = x - 0.8, y - 13.5, z + 4.5
        length = np.sqrt(wx * wx + wy * wy + wz * wz) + 1e-6
        d[0], d[1], d[2] = wx / length, wy / length, wz / length
        if s.cut == 2:
            d[0] += side * 1.3 * top
            d[2] += 0.3 * front * top
        if s.fringe == 0:
            d[2] -= (0.9 + 1.4 * max(-s.sweep, 0.0)) * top
            d[1] += 1.2 * front * top
        d[0] += 0.6 * s.sweep * top
        d[1] -= 0.5 * (1 - top)


@compiled(fastmath=True)
def _keep_out(field, lift, p):  # type: ignore[no-untyped-def]
    """Push a point out of the head, to `lift` cm above its surface."""
    dx, dy, dz = p[0], p[1] - CENTER[1], p[2] - CENTER[2]
    r = np.sqrt(dx * dx + dy * dy + dz * dz) + 1e-9
    wanted = field_radius(field, dx, dy, dz) + lift
    if r < wanted:
        k = wanted / r
        p[0], p[1], p[2] = dx * k, CENTER[1] + dy * k, CENTER[2] + dz * k


@compiled(fastmath=True)
def _crosses(points, i, n, curtain):  # type: ignore[no-untyped-def]
    """Whether a strand would hang across the face."""
    for k in range(n):
        y, z = points[i, k, 1], points[i, k, 2]
        if y < 9.3 and z > 4.0 and abs(points[i, k, 0]) < curtain - 1.3:
            return True
    return False


@compiled(fastmath=True)
def _under_hat(s, field, p):  # type: ignore[no-untyped-def]
    """Above the rim hair lies flat on the head; just below it comes out gradually."""
    above = p[1] - (s.hat_y + s.hat_slope * p[2])
    if above < -1.6:
        return
    dx, dy, dz = p[0], p[1] - CENTER[1], p[2] - CENTER[2]
    r = np.sqrt(dx * dx + dy * dy + dz * dz) + 1e-9
    k = (field_radius(field, dx, dy, dz) + 0.12 + 0.55 * max(-above, 0.0)) / r
    if k < 1:
        p[0], p[1], p[2] = dx * k, CENTER[1] + dy * k, CENTER[2] + dz * k


@compiled(fastmath=True)
def _plan(s, at, q, random, seed):  # type: ignore[no-untyped-def]
    """Plan of the strand that starts at `at` (neutral root q)."""
    x, y, z = at[0], at[1], at[2]
    clump = (
        noise3(x * 1.1, y * 1.1, z * 1.1, seed),
        noise3(x * 1.1, y * 1.1, z * 1.1, seed + 1),
        noise3(x * 0.5, y * 0.5, z * 0.5, seed + 2),
    )
    tail = q[2] < -50
    outer = 0.5 + 0.5 * np.sin(12.9 * random[0])
    high = smooth(y, -4.0, 14.0)
    lift = 0.08 + s.volume * (0.15 + 0.85 * high) * (0.35 + 0.65 * outer)
    if s.cut <= SHORT:
        lift = 0.05
    elif s.cut == SIDE:
        lift = 0.06 + 0.5 * s.volume * high * outer
    fringe = s.fringe > 0 and q[2] > 3.0 and q[1] > 8.3 and abs(q[0]) < 4.9 and not tail
    length = 3.0 + 11.0 * outer if tail else _length(s, y, q[1], outer)
    if fringe and s.cut >= BOB:
        length = min(length, 7.0)
    side = 1.0 if x > s.part * 0.5 else -1.0
    if abs(x) > 3.5:
        side = 1.0 if x > 0 else -1.0
    return HairPlan(tail, fringe, outer, lift, length, side, clump)


@compiled(fastmath=True)
def _length(s, y, height, outer):  # type: ignore[no-untyped-def]
    """Length of a strand from y; height: of its root on the neutral head."""
    if s.cut == BUZZ or s.cut == AFRO:
        return s.top * (0.85 + 0.15 * outer)
    if s.cut <= SIDE:
        upper = smooth(height, 5.5, 11.0)
        length = s.top * (s.sides * 0.6 + (1 - s.sides * 0.6) * upper) * (0.75 + 0.25 * outer)
        return max(length * (0.3 + 0.7 * smooth(height, -3.0, 4.0)), 0.4)
    if s.cut == TIED:
        return 16.0
    return max((y - s.level) * 1.12 + 1.5 + 6.0 * smooth(y, 9.0, 13.0), 1.5)


@compiled(fastmath=True)
def _unit(d):  # type: ignore[no-untyped-def]
    norm = np.sqrt(d[0] ** 2 + d[1] ** 2 + d[2] ** 2) + 1e-6
    for c in range(3):
        d[c] /= norm


@compiled(fastmath=True)
def _first(s, plan, at, normal, q, random, d):  # type: ignore[no-untyped-def]
    """Direction a strand leaves the head in, into d: combed, lifted, tousled."""
    if plan.tail or s.cut == AFRO:
        d[0], d[1], d[2] = normal[0], normal[1], normal[2]
    else:
        if s.cut == TIED:
            d[0], d[1], d[2] = -at[0], s.gather_y - at[1], s.gather_z - at[2]
        else:
            _comb(s, q, d)
        dot = d[0] * normal[0] + d[1] * normal[1] + d[2] * normal[2]
        for c in range(3):
            d[c] -= dot * normal[c]
    _unit(d)
    up = 0.9 if s.cut == BUZZ else (0.75 if s.cut == SHORT else (0.55 if s.cut == SIDE else 0.35))
    if s.cut == TIED:
        up = 0.15
    if plan.fringe:
        up = 0.5
    jitter = 0.06 + 0.15 * s.frizz
    for c in range(3):
        d[c] += up * normal[c] + jitter * random[c] + 0.35 * plan.clump[c]
    _unit(d)


@compiled(fastmath=True)
def _steer(s, plan, pull, p, d):  # type: ignore[no-untyped-def]
    """Bend direction d at p: gravity, or the way to the knot. False when the knot is reached."""
    if s.cut == TIED and not plan.tail:
        gx, gy, gz = -p[0], s.gather_y - p[1], s.gather_z - p[2]
        g = np.sqrt(gx * gx + gy * gy + gz * gz)
        if g < 0.9:
            return False
        d[0] = 0.5 * d[0] + 0.5 * gx / g
        d[1] = 0.5 * d[1] + 0.5 * gy / g
        d[2] = 0.5 * d[2] + 0.5 * gz / g
    elif plan.fringe:
        d[1] -= pull * 1.3
    elif s.cut == BOB or s.cut == LONG:  # over the forehead hair is carried to the side
        free = smooth(p[2], 3.0, 5.5) * (1 - smooth(abs(p[0]), 3.5, 6.0))
        d[1] -= pull * (1 - 0.95 * free)
        d[0] += 0.5 * pull * free * plan.side
        d[2] -= 0.5 * pull * free
    else:
        d[1] -= pull
    _unit(d)
    return True


@compiled(fastmath=True)
def _drape(s, plan, field, step, rise, p):  # type: ignore[no-untyped-def]
    """Long hair: keep the face free, go behind the ears if tucked, rest on the shoulders."""
    if p[1] < 10.0 and p[2] > 2.0:
        wide = s.curtain + 0.7 * plan.outer - 1.6 * smooth(p[1], 6.0, 10.0) + 0.3 * plan.clump[2]
        wide *= smooth(p[2], 1.5, 4.5)
        if abs(p[0]) < wide:
            p[0] += plan.side * min(wide - plan.side * p[0], 0.8 * step)
            p[2] -= 0.35 * step
            _keep_out(field, 0.06 + (plan.lift - 0.06) * rise * 0.6, p)
    if s.tuck == 1 and p[1] < 6.2 and p[1] > -6 and p[2] > -2.8:
        p[2] -= min(p[2] + 2.8, 1.2 * step)
    if p[1] < -8.5:
        floor = -9.0 - 0.5 * max(abs(p[0]) - 5.5, 0.0) - 0.12 * max(abs(p[2] + 1.5) - 3.0, 0.0) ** 2
        if p[1] < floor and abs(p[2] + 1.5) < 6.5:
            p[2] += 0.8 * step if p[2] > -1.5 else -0.8 * step
            p[0] += 0.25 * step * plan.side


@compiled(fastmath=True)
def _strand(s, plan, at, d, random, field, path):  # type: ignore[no-untyped-def]
    """Grow one strand along first direction d into path [K,3]. Returns its number of points."""
    last = len(path) - 1
    step = plan.length / last
    weight = 0.10 if s.cut <= SHORT else (0.14 if s.cut == SIDE else 0.30)
    pull = 0.0 if s.cut == AFRO else weight * min(step / 0.6, 1.6)
    ends = s.cut == BOB or s.cut == LONG
    p = np.array([at[0], at[1], at[2]], np.float64)
    for k in range(last + 1):
        path[k, 0], path[k, 1], path[k, 2] = p[0], p[1], p[2]
        if k == last or not _steer(s, plan, pull, p, d):
            return k + 1
        ox, oy, oz = p[0], p[1], p[2]
        for c in range(3):
            p[c] += d[c] * step
        rise = min(1.0, (k + 1) * step / 1.5)
        _keep_out(field, 0.06 + (plan.lift - 0.06) * rise if s.cut != AFRO else 0.05, p)
        if ends and not plan.fringe:
            _drape(s, plan, field, step, rise, p)
        _under_hat(s, field, p)
        ux, uy, uz = p[0] - ox, p[1] - oy, p[2] - oz
        norm = np.sqrt(ux * ux + uy * uy + uz * uz) + 1e-6
        d[0] = 0.55 * d[0] + 0.45 * ux / norm
        d[1] = 0.55 * d[1] + 0.45 * uy / norm
        d[2] = 0.55 * d[2] + 0.45 * uz / norm
        if ends and p[1] < s.level + 0.3 * random[2]:
            return k + 1
        if plan.fringe and p[1] < s.fringe + 0.35 * random[2] + 0.5 * plan.clump[0]:
            return k + 1
    return last + 1


@compiled(fastmath=True)
def grow(at, normal, q, random, field, s, seed, points, length, layer):  # type: ignore[no-untyped-def]
    """Grow every strand.

    at, normal, q float32 [S,3]: roots, normals, neutral roots (q.z < -50: a tail's); random
    [S,6] standard normal; field: hair.radius_field. Writes points [S,K,3], length, layer [S].
    """
    d = np.zeros(3)
    for i in range(len(at)):
        plan = _plan(s, at[i], q[i], random[i], seed)
        layer[i] = plan.outer
        _first(s, plan, at[i], normal[i], q[i], random[i], d)
        n = _strand(s, plan, at[i], d, random[i], field, points[i])
        if (
            (s.cut == BOB or s.cut == LONG)
            and not plan.fringe
            and _crosses(points, i, n, s.curtain)
        ):
            n = 0
        length[i] = n
        _wave(points, i, n, s, plan, random, field)


@compiled(fastmath=True)
def _wave(points, i, n, s, plan, random, field):  # type: ignore[no-untyped-def]
    """Bend a grown strand into waves or curls around its own line."""
    if s.amplitude < 0.01:
        return
    phase = 5.0 * plan.clump[0] + 0.22 * random[i, 4]
    wave = s.wave * (1 + 0.12 * plan.clump[1] + 0.03 * random[i, 5])
    step = plan.length / (points.shape[1] - 1)
    loose = 0.25 if s.cut == TIED and not plan.tail else 1.0
    last = np.zeros(3)
    ox, oy, oz = points[i, 0, 0], points[i, 0, 1], points[i, 0, 2]
    for k in range(1, n):
        x, y, z = points[i, k, 0], points[i, k, 1], points[i, k, 2]
        tx, ty, tz = x - ox, y - oy, z - oz
        t = np.sqrt(tx * tx + ty * ty + tz * tz) + 1e-6
        tx, ty, tz = tx / t, ty / t, tz / t
        nx, ny, nz = x, y - CENTER[1], z - CENTER[2]
        dot = nx * tx + ny * ty + nz * tz
        nx, ny, nz = nx - dot * tx, ny - dot * ty, nz - dot * tz
        t = np.sqrt(nx * nx + ny * ny + nz * nz) + 1e-6
        nx, ny, nz = nx / t, ny / t, nz / t
        bx, by, bz = ty * nz - tz * ny, tz * nx - tx * nz, tx * ny - ty * nx
        arc = k * step
        a = loose * s.amplitude * min(1.0, arc / 3.0 if s.cut != AFRO else arc)
        angle = 2 * np.pi * arc / wave + phase
        sb, sn = a * np.sin(angle), 0.6 * a * (np.cos(angle) * s.curl + 0.3)
        ox, oy, oz = x, y, z
        last[0] = x + sb * bx + sn * nx
        last[1] = y + sb * by + sn * ny
        last[2] = z + sb * bz + sn * nz
        _under_hat(s, field, last)
        points[i, k, 0], points[i, k, 1], points[i, k, 2] = last[0], last[1], last[2]
