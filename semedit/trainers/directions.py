"""Directions of attributes for a generator whose z is the parameter vector of rendered heads.

It can be told the truth: the same head with and without the attribute. (Any other generator is
asked: its samples are scored by the attribute classifier, see editors.direction.)
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from semedit import cameras
from semedit.editors.direction import Directions, flatten, measure, unflatten
from semedit.errors import OptionError
from semedit.heads import parameters
from semedit.images import ATTRIBUTES
from semedit.latents import fingerprint

# attribute -> the parameters of a head with it, and without it.
SIDES: dict[str, tuple[dict[str, object], dict[str, object]]] = {
    "arched_eyebrows": ({"brow_arch": 0.95}, {"brow_arch": 0.05}),
    "bald": ({"bald": True}, {"bald": False}),
    "big_nose": ({"nose_size": 0.95}, {"nose_size": -0.2}),
    "black_hair": ({"hair_color": "black"}, {}),
    "blond_hair": ({"hair_color": "blond"}, {}),
    "brown_hair": ({"hair_color": "brown"}, {}),
    "bushy_eyebrows": ({"brow_thick": 1.0}, {"brow_thick": 0.2}),
    "eyeglasses": ({"glasses": True}, {"glasses": False}),
    "gray_hair": ({"hair_color": "gray"}, {}),
    "mouth_slightly_open": ({"jaw_open": 0.35}, {"jaw_open": 0.01}),
    "narrow_eyes": ({"eye_narrow": 0.9}, {"eye_narrow": 0.05}),
    "no_beard": ({"beard": "none"}, {"beard": "full"}),
    "smiling": ({"smile": 0.75}, {"smile": 0.03}),
    "straight_hair": ({"hair_curl": 0.04}, {"hair_curl": 0.8}),
    "wavy_hair": ({"hair_curl": 0.8}, {"hair_curl": 0.04}),
    "wearing_earrings": ({"earrings": True}, {"earrings": False}),
    "wearing_hat": ({"hat": True}, {"hat": False}),
    "wearing_lipstick": ({"lipstick": True}, {"lipstick": False}),
    "wearing_necklace": ({"necklace": True}, {"necklace": False}),
    "young": ({"age": 0.15}, {"age": 0.85}),
}
OPEN_CM = 10.0  # parted lips per unit of jaw_open, near enough to tell open from shut


@torch.no_grad()
def from_heads(generator: Any, samples: int = 512, seed: int = 0) -> Directions:
    """Directions of a generator whose z is a head's parameter vector.

        direction_a = mean over heads of M(z with a) - M(z without a)

    with every other parameter held, which no set of photographs allows.

    Raises: OptionError: z has another length than heads have parameters.
    """
    if generator.z_dim != parameters.DIMENSIONS:
        raise OptionError(
            f"z of {generator.name} has {generator.z_dim} entries, heads {parameters.DIMENSIONS}."
        )
    z = np.stack([parameters.sample(seed + i) for i in range(samples)])
    c = cameras.orbit(0.0, 0.0)

    def codes(vectors: np.ndarray) -> dict[str, Tensor]:
        return generator.mapping(torch.from_numpy(vectors), c.expand(len(vectors), -1))

    own = codes(z)
    flat = flatten(own)
    truth = torch.tensor([list(_attributes(row).values()) for row in z]).float()
    moves, figures = {}, {}
    for i, name in enumerate(ATTRIBUTES):
        sides = [flatten(codes(_with(z, changes))) for changes in SIDES[name]]
        step = (sides[0] - sides[1]).mean(0)
        unit = step / step.norm()
        measured = measure((flat - flat.mean(0)) @ unit, truth[:, i])
        moves[name] = unflatten(unit * measured["deviation"], own)
        # how many deviations a whole change takes
        figures[name] = {**measured, "change": round(float(step.norm()) / measured["deviation"], 3)}
    return Directions(moves, generator.name, fingerprint(generator), figures)


def _with(z: np.ndarray, changes: dict[str, object]) -> np.ndarray:
    return np.stack([parameters.replace(row, **changes) for row in z]) if changes else z


def _attributes(z: np.ndarray) -> dict[str, bool]:
    p = parameters.decode(z)
    found = parameters.attributes(p, OPEN_CM * p.jaw_open)
    return {name: found[name] for name in ATTRIBUTES}
