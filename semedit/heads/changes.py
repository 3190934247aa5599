"""True edits of heads: what an editor is to do, done by the parameters.

KINDS names them; each draws how much at random, so that a head may change in one way or another:

    kind, other = changed(Head(seed), rng)          # another expression, glasses, hair, ...
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from semedit.errors import OptionError
from semedit.heads.parameters import COLORS, CUTS, Parameters
from semedit.heads.render import Head

Changes = dict[str, Any]  # parameter -> value
Change = Callable[[Parameters, np.random.Generator], Changes]


def _smile(p: Parameters, rng: np.random.Generator) -> Changes:
    if p.smile > 0.3:
        return {"smile": 0.0, "smile_teeth": 0.0}
    return {"smile": rng.uniform(0.5, 1.0), "smile_teeth": rng.uniform(0.4, 1.0)}


def _mouth(p: Parameters, rng: np.random.Generator) -> Changes:
    return {
        "jaw_open": 0.0 if p.jaw_open > 0.1 else rng.uniform(0.15, 0.55),
        "pucker": rng.choice([0.0, rng.uniform(0.3, 0.7)]),
        "lip_fullness": p.lip_fullness + rng.uniform(-0.5, 0.7),
    }


def _eyes(p: Parameters, rng: np.random.Generator) -> Changes:
    return {
        "eye_narrow": 0.0 if p.eye_narrow > 0.5 else rng.uniform(0.7, 1.0),
        "wide": rng.choice([0.0, rng.uniform(0.3, 0.8)]),
        "gaze_x": rng.uniform(-0.6, 0.6),
        "brow_raise": rng.uniform(-0.5, 0.9),
    }


def _glasses(p: Parameters, rng: np.random.Generator) -> Changes:
    if p.glasses:
        return {"glasses": False}
    return {"glasses": True, "glasses_rim": rng.choice(["wire", "thick", "half", "sun"])}


def _hair_length(p: Parameters, rng: np.random.Generator) -> Changes:
    now = ("long", "bob") if p.cut in ("long", "bob") else (p.cut,)
    cut = rng.choice([name for name in CUTS if name not in now])
    return {"bald": False, "cut": cut, "hair_length": rng.uniform(0.1, 0.9)}


def _hair_look(p: Parameters, rng: np.random.Generator) -> Changes:
    return {
        "bald": False,
        "hair_color": rng.choice([name for name in COLORS if name != p.hair_color]),
        "hair_fringe": rng.choice([0.0, rng.uniform(0.4, 1.0)]),
        "hair_curl": rng.choice([0.0, rng.uniform(0.5, 1.0)]),
    }


def _nose(p: Parameters, rng: np.random.Generator) -> Changes:
    big = rng.uniform(-0.6, 0.1) if p.nose_size > 0.5 else rng.uniform(0.75, 1.1)
    return {"nose_size": big, "nose_length": p.nose_length + rng.uniform(-0.4, 0.4)}


def _brows(p: Parameters, rng: np.random.Generator) -> Changes:
    return {
        "brow_thick": rng.uniform(0.0, 0.4) if p.brow_thick > 0.6 else rng.uniform(0.85, 1.1),
        "brow_arch": rng.uniform(-0.15, 0.2) if p.brow_arch > 0.5 else rng.uniform(0.8, 1.1),
    }


def _makeup(p: Parameters, rng: np.random.Generator) -> Changes:
    return {
        "lipstick": not p.lipstick,
        "lipstick_hue": rng.uniform(-0.06, 0.05),
        "eye_shadow": 0.0 if p.eye_shadow > 0.1 else rng.uniform(0.3, 1.0),
    }


def _beard(p: Parameters, rng: np.random.Generator) -> Changes:
    kinds = ("none", "stubble", "moustache", "goatee", "full")
    return {"beard": "none" if p.beard != "none" else rng.choice(kinds[1:])}


def _shape(p: Parameters, rng: np.random.Generator) -> Changes:
    return {
        "jaw_width": p.jaw_width + rng.uniform(-0.8, 0.8),
        "chin": p.chin + rng.uniform(-0.7, 0.7),
        "fat": p.fat + rng.uniform(-0.7, 0.7),
    }


def _hat(p: Parameters, rng: np.random.Generator) -> Changes:
    return {"hat": not p.hat, "hat_hue": rng.uniform(0, 1)}


# kind -> the change, and how often it comes up beside the others.
KINDS: dict[str, tuple[Change, float]] = {
    "smile": (_smile, 3),
    "mouth": (_mouth, 1.5),
    "eyes": (_eyes, 1),
    "glasses": (_glasses, 3),
    "hair_length": (_hair_length, 2.5),
    "hair_look": (_hair_look, 1),
    "nose": (_nose, 1.5),
    "brows": (_brows, 1),
    "makeup": (_makeup, 1),
    "beard": (_beard, 1),
    "shape": (_shape, 0.5),
    "hat": (_hat, 0.5),
}


def changed(head: Head, rng: np.random.Generator, kind: str | None = None) -> tuple[str, Head]:
    """A kind, and the head truly changed in that one thing; all else stays as it is.

    Args:   kind: of KINDS; None: one at random.
    Raises: OptionError: no such kind.
    """
    if kind is None:
        weights = np.array([weight for _, weight in KINDS.values()])
        kind = str(rng.choice(list(KINDS), p=weights / weights.sum()))
    if kind not in KINDS:
        raise OptionError(f"kinds of edits are {', '.join(KINDS)}")
    values = KINDS[kind][0](head.parameters, rng)
    return kind, head.edited(**{name: _plain(value) for name, value in values.items()})


def _plain(value: Any) -> Any:
    """A value as the table of parameters knows it: numpy's scalars are told apart from words."""
    if isinstance(value, bool | np.bool_):
        return bool(value)
    try:
        return float(value)
    except ValueError:
        return str(value)
