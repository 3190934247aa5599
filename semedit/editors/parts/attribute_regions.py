"""Which part of a face an attribute is about: where an edit may change it.

Two tables of the same: regions with a reach, for edits that keep pixels; and the paper's coarser
components, which its mask M is made of.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from semedit.errors import OptionError
from semedit.losses import dilate, region

# attribute -> region names (labels.REGIONS), and how far around them the attribute reaches, in
# hundredths of the picture's side. A smile moves the cheeks, glasses cast shadows, hair grows.
ATTRIBUTE_REGIONS: dict[str, tuple[tuple[str, ...], int]] = {
    "arched_eyebrows": (("brows",), 5),
    "bald": (("hair", "hat"), 5),
    "big_nose": (("nose",), 5),
    "black_hair": (("hair", "brows"), 3),
    "blond_hair": (("hair", "brows"), 3),
    "brown_hair": (("hair", "brows"), 3),
    "bushy_eyebrows": (("brows",), 5),
    "eyeglasses": (("glasses", "eyes", "brows"), 12),
    "gray_hair": (("hair", "brows"), 3),
    "mouth_slightly_open": (("mouth", "lips"), 7),
    "narrow_eyes": (("eyes", "glasses"), 5),
    "no_beard": (("mouth", "lips"), 14),
    "smiling": (("mouth", "lips"), 11),
    "straight_hair": (("hair",), 5),
    "wavy_hair": (("hair",), 5),
    "wearing_earrings": (("earrings", "ears"), 6),
    "wearing_hat": (("hat", "hair"), 8),
    "wearing_lipstick": (("lips", "mouth"), 3),
    "wearing_necklace": (("necklace", "neck"), 4),
    "young": (("face", "hair", "neck", "ears"), 3),
}


# attribute -> components (faces.components) that it may change: M holds all others. Hair that
# falls otherwise shows or hides background, and so do earrings and hats.
ATTRIBUTE_COMPONENTS: dict[str, tuple[str, ...]] = {
    "arched_eyebrows": ("eyebrows",),
    "bald": ("hair", "background"),
    "big_nose": ("nose",),
    "black_hair": ("hair",),
    "blond_hair": ("hair",),
    "brown_hair": ("hair",),
    "bushy_eyebrows": ("eyebrows",),
    "eyeglasses": ("eyes", "eyebrows"),
    "gray_hair": ("hair",),
    "mouth_slightly_open": ("mouth",),
    "narrow_eyes": ("eyes",),
    "no_beard": ("mouth", "skin"),
    "smiling": ("mouth",),
    "straight_hair": ("hair", "background"),
    "wavy_hair": ("hair", "background"),
    "wearing_earrings": ("earrings", "hair", "background"),
    "wearing_hat": ("hair", "background"),
    "wearing_lipstick": ("mouth",),
    "wearing_necklace": ("background",),
    "young": ("skin", "hair"),
}


def freed_components(attributes: Iterable[str]) -> tuple[str, ...]:
    """The components that some attributes may change, together.

    Raises: OptionError: an attribute without components.
    """
    found: dict[str, None] = {}
    for name in attributes:
        if name not in ATTRIBUTE_COMPONENTS:
            raise OptionError(f"{name} is not an attribute that semedit knows")
        found |= dict.fromkeys(ATTRIBUTE_COMPONENTS[name])
    return tuple(found)


def attribute_region(labels: Tensor, attributes: Iterable[str]) -> Tensor:
    """Where the attributes may change a face: mask float32 [N,1,R,R], hard-edged.

    Args:   labels int64 [N,R,R]; attributes: names of labels.ATTRIBUTES.
    Raises: OptionError: an attribute without a region.
    """
    size = labels.shape[-1]
    total = torch.zeros(len(labels), 1, size, size, device=labels.device)
    for name in attributes:
        if name not in ATTRIBUTE_REGIONS:
            raise OptionError(f"{name} is not an attribute that semedit knows")
        names, reach = ATTRIBUTE_REGIONS[name]
        total = torch.maximum(total, dilate(region(labels, names), round(reach * size / 100)))
    return total
