"""Parameters -> the colours and numbers that the painters read."""

from __future__ import annotations

import numpy as np

from semedit.heads import geometry, regions
from semedit.heads.parameters import Parameters
from semedit.heads.scene import hsv, linear
from semedit.heads.shading import Paint


def _table(phi: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.interp(np.arange(181), phi, y)


def _hairline(p: Parameters) -> np.ndarray:
    """y of the hairline per degree: height, and corners that recede with age."""
    phi = np.arange(181)
    y = _table(regions.HAIR_PHI, regions.HAIR_Y)
    corner = np.exp(-(((phi - 27) / 11.0) ** 2))
    back = p.masculine * (0.4 + 0.6 * (p.age > 0.5)) * p.recession
    front = 1 - np.clip((phi - 30) / 25.0, 0, 1)
    return y + 0.45 * p.hairline * front + 1.5 * back * corner + 0.5 * back * front


HAIR_RGB = {
    "black": (0.055, 0.045, 0.04),
    "brown": (0.24, 0.145, 0.085),
    "blond": (0.70, 0.57, 0.39),
    "gray": (0.60, 0.59, 0.57),
    "red": (0.44, 0.22, 0.12),
}
IRIS_RGB = {
    "dark": (0.16, 0.09, 0.06),
    "brown": (0.36, 0.21, 0.11),
    "hazel": (0.45, 0.34, 0.17),
    "green": (0.36, 0.43, 0.27),
    "blue": (0.33, 0.48, 0.64),
    "gray": (0.47, 0.53, 0.56),
}
BEARDS = ("none", "stubble", "moustache", "goatee", "full")


def hair_rgb(p: Parameters) -> np.ndarray:
    """Linear colour of the hair, with its shade and tone."""
    color = linear_shade(HAIR_RGB[p.hair_color], p.hair_shade)
    return color * np.array([1 + 0.12 * p.hair_tone, 1.0, 1 - 0.18 * p.hair_tone])


def linear_shade(rgb: tuple[float, ...], shade: float) -> np.ndarray:
    return linear(rgb) * 2.0 ** (0.8 * shade)


def _moles(seed: int, share: float) -> np.ndarray:
    """Up to six moles [M,3]: neutral x, y and radius, cm."""
    rng = np.random.default_rng([seed, 8])
    spots = np.stack(
        [rng.uniform(-6, 6, 6), rng.uniform(-6.5, 9, 6), rng.uniform(0.07, 0.17, 6)], 1
    )
    return spots[: int(7 * share**2)]


def paint(p: Parameters, seed: int, landmarks: np.ndarray) -> Paint:
    """What the painters of skin, eyes and clothes read; landmarks [68,3], head frame."""
    q = geometry.load().neutral
    eyes = np.stack([q[slice(*geometry.PARTS[side])].mean(0) for side in ("left_eye", "right_eye")])
    points = landmarks
    hair = hair_rgb(p)
    brow = (
        hair * (0.45 + 0.35 * (1 - p.brow_dark))
        if p.hair_color in ("blond", "gray")
        else (hair * (0.8 + 0.4 * (1 - p.brow_dark)))
    )
    covers = {"buzz": 0.8}
    return Paint(
        seed=seed % 1_000_003,
        melanin=float(p.melanin) ** 1.5,
        redness=p.redness,
        yellow=p.yellow,
        blush=p.blush * (0.3 + 0.7 * (1 - p.masculine)),
        freckles=p.freckles,
        moles=_moles(seed, p.moles),
        mottle=p.mottle,
        shine=p.shine,
        under_eye=p.under_eye * (0.5 + 0.8 * (p.age > 0.5)),
        wrinkles=p.wrinkles if p.age > 0.5 else 0.08 * p.age,
        folds=min(0.25 * (p.age > 0.5) + 0.12 + 0.5 * p.smile, 1.0),
        lip_red=p.lip_red,
        lipstick=(0.45 + 0.45 * p.lipstick_depth) if p.lipstick else 0.0,
        lipstick_rgb=hsv(p.lipstick_hue, 0.75, 0.85 - 0.45 * p.lipstick_depth),
        shadow=p.eye_shadow,
        shadow_rgb=hsv(p.eye_shadow_hue, 0.35, 0.4),
        brow_thick=p.brow_thick,
        brow_arch=p.brow_arch,
        brow_cover=0.55 + 0.25 * p.brow_dark,
        brow_rgb=brow,
        scalp_cover=0.0 if p.bald else covers.get(p.cut, 0.93),
        hair_rgb=hair,
        hairline=_hairline(p),
        jaw=_table(regions.JAW_PHI, regions.JAW_Y),
        beard_cover=(0.35 if p.beard == "stubble" else 0.55) * p.beard_density,
        beard_kind=BEARDS.index(p.beard),
        beard_rgb=hair * 0.8,
        iris_rgb=linear_shade(IRIS_RGB[p.iris], 0.5 * p.iris_shade),
        pupil=p.pupil,
        sclera=p.sclera,
        eyes=eyes.astype(np.float64),
        lids=np.array([points[[43, 44], 1].mean(), points[[37, 38], 1].mean()]),
        mouth_front=float(points[[62, 66], 2].mean()),
        cloth_rgb=hsv(p.cloth_hue, p.cloth_saturation, p.cloth_value),
        cloth_rgb2=hsv(p.cloth_second, p.cloth_saturation, 1 - p.cloth_value),
        cloth_pattern=("plain", "stripes", "checks").index(p.cloth_pattern),
        hat_rgb=hsv(p.hat_hue, p.hat_saturation, p.hat_value),
        hat_kind=("beanie", "cap", "wide").index(p.hat_kind),
        frame_rgb=hsv(p.glasses_hue, 0.4, 0.1 + 0.4 * p.glasses_value**2),
        earring_rgb=hsv(0.09 + 0.1 * p.earring_hue, 0.4, 0.8),
        necklace_rgb=hsv(0.09 + 0.1 * p.necklace_hue, 0.4, 0.8),
    )
