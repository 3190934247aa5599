"""The parameters of a head: one vector z ~ N(0, I), and one rule per entry.

Every parameter is a deterministic function of its entry of z (and sometimes of parameters above
it in the table), so sampling z makes plausible heads, and changing one entry makes the true edit.

    normal  = mean + sd z, clipped        uniform = low + (high - low) Phi(z)
    switch  = Phi(z) > 1 - p              choice  = bin of Phi(z)
    either  = two ranges with a gap: attributes get no ambiguous middle
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.special import ndtr, ndtri

from semedit.errors import OptionError
from semedit.heads.geometry import IDENTITIES

Values = Mapping[str, Any]
Share = float | Callable[[Values], float]
EDGE = 1e-4  # Phi is kept this far from 0 and 1


def _share(p: Share, values: Values) -> float:
    return float(min(max(p(values) if callable(p) else p, 0.0), 1.0))


@dataclass(frozen=True)
class Normal:
    """mean + sd z, clipped to [low, high]."""

    mean: float
    sd: float
    low: float = -math.inf
    high: float = math.inf

    def value(self, z: float, values: Values) -> float:
        return float(min(max(self.mean + self.sd * z, self.low), self.high))

    def entry(self, value: float, values: Values) -> float:
        return (value - self.mean) / self.sd


@dataclass(frozen=True)
class Uniform:
    """low + (high - low) Phi(z)."""

    low: float = 0.0
    high: float = 1.0

    def value(self, z: float, values: Values) -> float:
        return self.low + (self.high - self.low) * float(ndtr(z))

    def entry(self, value: float, values: Values) -> float:
        return _inverse((value - self.low) / (self.high - self.low))


@dataclass(frozen=True)
class Switch:
    """True for a share p of heads."""

    p: Share

    def value(self, z: float, values: Values) -> bool:
        return bool(ndtr(z) > 1 - _share(self.p, values))

    def entry(self, value: bool, values: Values) -> float:
        p = _share(self.p, values)
        return _inverse(1 - p / 2 if value else (1 - p) / 2)


@dataclass(frozen=True)
class Either:
    """Uniform in `low` for a share 1 - p of heads, else uniform in `high`."""

    p: Share
    low: tuple[float, float]
    high: tuple[float, float]

    def value(self, z: float, values: Values) -> float:
        u, p = float(ndtr(z)), _share(self.p, values)
        (a, b), t = (
            (self.low, u / max(1 - p, EDGE))
            if u < 1 - p
            else (self.high, (u - 1 + p) / max(p, EDGE))
        )
        return float(a + (b - a) * t)

    def entry(self, value: float, values: Values) -> float:
        p = _share(self.p, values)
        if value >= self.high[0]:
            t = (value - self.high[0]) / max(self.high[1] - self.high[0], EDGE)
            return _inverse(1 - p + p * min(t, 1.0))
        t = (value - self.low[0]) / max(self.low[1] - self.low[0], EDGE)
        return _inverse((1 - p) * min(max(t, 0.0), 1.0 - EDGE))


@dataclass(frozen=True)
class Choice:
    """One of `names`; weights may depend on parameters above."""

    names: tuple[str, ...]
    weights: tuple[float, ...] | Callable[[Values], tuple[float, ...]]

    def _ends(self, values: Values) -> np.ndarray:
        weights = self.weights(values) if callable(self.weights) else self.weights
        total = np.cumsum(np.maximum(weights, 1e-6))
        return np.asarray(total / total[-1])

    def value(self, z: float, values: Values) -> str:
        index = int(np.searchsorted(self._ends(values), ndtr(z)))
        return self.names[min(index, len(self.names) - 1)]

    def entry(self, value: str, values: Values) -> float:
        ends = np.concatenate([[0.0], self._ends(values)])
        index = self.names.index(value)
        return _inverse(float(ends[index] + ends[index + 1]) / 2)


def _inverse(u: float) -> float:
    return float(ndtri(min(max(u, EDGE), 1 - EDGE)))


Rule = Normal | Uniform | Switch | Either | Choice


def _he(low: float, high: float) -> Callable[[Values], float]:
    """A share that goes from `low` for feminine heads to `high` for masculine ones."""
    return lambda v: low + (high - low) * v["masculine"]


def _cuts(v: Values) -> tuple[float, ...]:
    m = v["masculine"]
    he = np.array([0.17, 0.30, 0.27, 0.06, 0.06, 0.04, 0.10])
    she = np.array([0.01, 0.07, 0.08, 0.24, 0.36, 0.16, 0.08])
    return tuple(he * m + she * (1 - m))


def _colors(v: Values) -> tuple[float, ...]:
    gray = 0.06 if v["age"] < 0.5 else 0.45
    fair = 1.0 - 0.75 * v["melanin"]
    return (0.30 + 0.25 * v["melanin"], 0.30, 0.28 * fair, gray, 0.08 * fair)


def _beards(v: Values) -> tuple[float, ...]:
    m = v["masculine"] ** 2
    return (1 - 0.62 * m, 0.20 * m, 0.09 * m, 0.10 * m, 0.23 * m)


CUTS = ("buzz", "short", "side", "bob", "long", "tied", "afro")
COLORS = ("black", "brown", "blond", "gray", "red")

# name -> rule, in the order of the entries of z (after the identity components).
TABLE: dict[str, Rule] = {
    "masculine": Either(0.5, (0.0, 0.15), (0.85, 1.0)),
    "age": Either(0.35, (0.0, 0.35), (0.65, 1.0)),
    # shape
    "nose_size": Either(0.3, (-0.7, 0.15), (0.75, 1.1)),
    "nose_length": Normal(0, 0.35, -0.9, 0.9),
    "jaw_width": Normal(0, 0.5, -1.3, 1.3),
    "chin": Normal(0, 0.5, -1.2, 1.2),
    "fat": Normal(0.1, 0.5, -1, 1.4),
    "lip_fullness": Normal(0, 0.5, -1, 1.3),
    "neck_width": Normal(0, 0.5, -1, 1),
    "eye_size": Normal(0, 0.4, -0.8, 1),
    # expression
    "smile": Either(0.5, (0.0, 0.06), (0.45, 1.0)),
    "smile_teeth": Either(0.72, (0.0, 0.1), (0.4, 1.0)),
    "jaw_open": Either(0.3, (0.0, 0.02), (0.15, 0.55)),
    "brow_raise": Normal(0.05, 0.35, -0.6, 1.0),
    "brow_inner": Normal(0, 0.25, 0.0, 0.8),
    "brow_tilt": Normal(0, 0.15, -0.4, 0.4),
    "eye_narrow": Either(0.22, (0.0, 0.1), (0.7, 1.0)),
    "blink": Either(0.03, (0.0, 0.05), (0.85, 1.0)),
    "wide": Either(0.1, (0.0, 0.1), (0.3, 0.8)),
    "pucker": Either(0.06, (0.0, 0.05), (0.3, 0.7)),
    "sneer": Either(0.06, (0.0, 0.05), (0.3, 0.8)),
    "frown": Either(0.08, (0.0, 0.05), (0.3, 0.8)),
    "press": Either(0.05, (0.0, 0.05), (0.3, 0.7)),
    "stretch": Either(0.05, (0.0, 0.05), (0.2, 0.6)),
    "mouth_side": Normal(0, 0.12, -0.4, 0.4),
    "gaze_x": Normal(0, 0.3, -0.8, 0.8),
    "gaze_y": Normal(0, 0.2, -0.6, 0.6),
    # skin
    "melanin": Uniform(0.0, 1.0),
    "redness": Normal(0, 0.5, -1.2, 1.2),
    "yellow": Normal(0, 0.5, -1.2, 1.2),
    "blush": Uniform(0.0, 1.0),
    "freckles": Either(0.15, (0.0, 0.03), (0.3, 1.0)),
    "moles": Uniform(0.0, 1.0),
    "mottle": Uniform(0.2, 1.0),
    "shine": Uniform(0.2, 1.0),
    "under_eye": Uniform(0.0, 1.0),
    "wrinkles": Uniform(0.5, 1.0),
    "lip_red": Normal(0, 0.5, -1, 1),
    "lipstick": Switch(_he(0.62, 0.0)),
    "lipstick_hue": Uniform(-0.06, 0.05),
    "lipstick_depth": Uniform(0.0, 1.0),
    "eye_shadow": Either(_he(0.4, 0.0), (0.0, 0.02), (0.3, 1.0)),
    "eye_shadow_hue": Uniform(0.0, 1.0),
    "eye_liner": Either(_he(0.5, 0.0), (0.0, 0.05), (0.5, 1.0)),
    # eyes
    "iris": Choice(
        ("dark", "brown", "hazel", "green", "blue", "gray"),
        lambda v: (
            0.2 + 0.6 * v["melanin"],
            0.25 + 0.2 * v["melanin"],
            0.14,
            0.1,
            0.24 * (1 - v["melanin"]),
            0.08 * (1 - v["melanin"]),
        ),
    ),
    "iris_shade": Normal(0, 0.5, -1, 1),
    "pupil": Uniform(0.3, 0.5),
    "sclera": Uniform(0.0, 1.0),
    "lashes": Uniform(0.0, 1.0),
    # brows
    "brow_arch": Either(0.35, (-0.15, 0.2), (0.8, 1.1)),
    "brow_thick": Either(_he(0.14, 0.36), (0.0, 0.4), (0.85, 1.1)),
    "brow_dark": Uniform(0.0, 1.0),
    # hair
    "bald": Switch(_he(0.01, 0.15)),
    "cut": Choice(CUTS, _cuts),
    "hair_length": Uniform(0.0, 1.0),
    "hair_curl": Either(0.5, (0.0, 0.08), (0.5, 1.0)),
    "hair_volume": Uniform(0.0, 1.0),
    "hair_part": Uniform(-1.0, 1.0),
    "hair_fringe": Either(_he(0.4, 0.25), (0.0, 0.0), (0.4, 1.0)),
    "hair_sweep": Normal(0, 0.5, -1, 1),
    "hair_frizz": Uniform(0.0, 1.0),
    "hairline": Normal(0, 0.5, -1, 1),
    "recession": Uniform(0.0, 1.0),
    "tuck": Switch(0.35),
    "hair_color": Choice(COLORS, _colors),
    "hair_shade": Normal(0, 0.45, -1, 1),
    "hair_tone": Normal(0, 0.5, -1, 1),
    "hair_tips": Uniform(-0.4, 1.0),
    "hair_gloss": Uniform(0.2, 1.0),
    # beard
    "beard": Choice(("none", "stubble", "moustache", "goatee", "full"), _beards),
    "beard_length": Uniform(0.0, 1.0),
    "beard_density": Uniform(0.6, 1.0),
    "beard_tone": Normal(0, 0.4, -1, 1),
    # worn
    "glasses": Switch(0.25),
    "glasses_rim": Choice(("wire", "thick", "half", "sun"), (0.3, 0.37, 0.1, 0.23)),
    "glasses_shape": Choice(
        ("rectangle", "round", "oval", "aviator", "cat"), (0.34, 0.2, 0.2, 0.14, 0.12)
    ),
    "glasses_size": Uniform(0.0, 1.0),
    "glasses_hue": Uniform(0.0, 1.0),
    "glasses_value": Uniform(0.0, 1.0),
    "lens_tint": Uniform(0.0, 1.0),
    "hat": Switch(0.12),
    "hat_kind": Choice(("beanie", "cap", "wide"), (0.4, 0.35, 0.25)),
    "hat_tilt": Normal(0, 0.5, -1, 1),
    "hat_hue": Uniform(0.0, 1.0),
    "hat_saturation": Uniform(0.0, 0.9),
    "hat_value": Uniform(0.1, 0.95),
    "earrings": Switch(_he(0.45, 0.06)),
    "earring_kind": Choice(("stud", "hoop", "drop"), (0.34, 0.33, 0.33)),
    "earring_size": Uniform(0.0, 1.0),
    "earring_hue": Uniform(0.0, 1.0),
    "necklace": Switch(_he(0.33, 0.08)),
    "necklace_kind": Choice(("chain", "beads", "pendant"), (0.4, 0.35, 0.25)),
    "necklace_drop": Uniform(0.0, 1.0),
    "necklace_hue": Uniform(0.0, 1.0),
    "cloth": Choice(("round", "vee", "shirt", "high", "scoop"), (0.35, 0.2, 0.25, 0.1, 0.1)),
    "cloth_hue": Uniform(0.0, 1.0),
    "cloth_saturation": Uniform(0.0, 0.85),
    "cloth_value": Uniform(0.05, 0.95),
    "cloth_pattern": Choice(("plain", "stripes", "checks"), (0.7, 0.18, 0.12)),
    "cloth_second": Uniform(0.0, 1.0),
    # light
    "key_side": Normal(0, 0.6, -1.3, 1.3),
    "key_height": Uniform(0.15, 1.0),
    "key_strength": Uniform(0.6, 1.4),
    "ambient": Uniform(0.35, 1.0),
    "ambient_side": Normal(0, 0.5, -1, 1),
    "warmth": Normal(0, 0.5, -1.2, 1.2),
    "ambient_warmth": Normal(0, 0.5, -1.2, 1.2),
    "rim": Either(0.3, (0.0, 0.05), (0.3, 1.0)),
    "exposure": Normal(0, 0.5, -1, 1),
    "contrast": Normal(0, 0.5, -1, 1),
    # background
    "background": Choice(("gradient", "blobs", "room"), (0.4, 0.35, 0.25)),
    "background_hue": Uniform(0.0, 1.0),
    "background_saturation": Uniform(0.0, 0.45),
    "background_value": Uniform(0.05, 0.95),
    "background_hue2": Uniform(0.0, 1.0),
    "background_value2": Uniform(0.05, 0.95),
    "background_angle": Uniform(-math.pi, math.pi),
    "background_detail": Uniform(0.0, 1.0),
}
NAMES = tuple(TABLE)
DIMENSIONS = IDENTITIES + len(TABLE)
IDENTITY_SCALE = 0.7  # of the components' own spread: fewer caricatures


@dataclass(frozen=True)
class Parameters:
    """Decoded parameters: `identity` float32 [IDENTITIES], every name of TABLE as attribute."""

    z: np.ndarray
    identity: np.ndarray
    values: dict[str, Any] = field(repr=False)

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["values"][name]
        except KeyError:
            raise AttributeError(name) from None


def sample(seed: int) -> np.ndarray:
    """z float32 [DIMENSIONS] of a seed."""
    return np.random.default_rng(seed).standard_normal(DIMENSIONS).astype(np.float32)


def decode(z: np.ndarray) -> Parameters:
    """Args: z float32 [DIMENSIONS].  Raises: OptionError: wrong length."""
    if z.shape != (DIMENSIONS,):
        raise OptionError(f"z has {z.shape} entries, expected ({DIMENSIONS},)")
    values: dict[str, Any] = {}
    for entry, (name, rule) in zip(z[IDENTITIES:], TABLE.items(), strict=True):
        values[name] = rule.value(float(entry), values)
    return Parameters(z, np.clip(z[:IDENTITIES], -2.5, 2.5) * IDENTITY_SCALE, values)


def replace(z: np.ndarray, **changes: Any) -> np.ndarray:
    """z with parameters set by value; every other entry stays as it is.

    Raises: OptionError: unknown name, or a choice that is not offered.
    """
    changed = z.copy()
    for name, value in changes.items():
        if name not in TABLE:
            raise OptionError(f"heads have no parameter {name!r}")
        rule = TABLE[name]
        if isinstance(rule, Choice) and value not in rule.names:
            raise OptionError(f"{name} is one of {', '.join(rule.names)}")
        values = decode(changed).values
        changed[IDENTITIES + NAMES.index(name)] = rule.entry(value, values)
    return changed


def attributes(p: Parameters, mouth_open: bool) -> dict[str, bool]:
    """CelebA attributes that follow from the parameters (see semedit.media.photographs.ATTRIBUTES).

    Args: mouth_open: see shape.is_open.
    """
    hair = not p.bald
    textured = hair and p.cut != "buzz"
    return {
        "arched_eyebrows": p.brow_arch > 0.5,
        "bald": bool(p.bald),
        "big_nose": p.nose_size > 0.5,
        **{f"{c}_hair": hair and p.hair_color == c for c in ("black", "blond", "brown", "gray")},
        "bushy_eyebrows": p.brow_thick > 0.6,
        "eyeglasses": bool(p.glasses),
        "mouth_slightly_open": mouth_open,
        "narrow_eyes": p.eye_narrow > 0.5 or p.blink > 0.5,
        "no_beard": p.beard == "none",
        "smiling": p.smile > 0.3,
        "straight_hair": textured and p.cut != "afro" and p.hair_curl < 0.3,
        "wavy_hair": textured and (p.cut == "afro" or p.hair_curl > 0.3),
        "wearing_earrings": bool(p.earrings),
        "wearing_hat": bool(p.hat),
        "wearing_lipstick": bool(p.lipstick),
        "wearing_necklace": bool(p.necklace),
        "young": p.age < 0.5,
    }
