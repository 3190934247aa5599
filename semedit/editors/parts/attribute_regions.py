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
    "5_o_clock_shadow": (("mouth", "lips"), 14),
    "arched_eyebrows": (("brows",), 5),
    "attractive": (("face", "hair", "neck", "ears"), 3),
    "bags_under_eyes": (("eyes", "glasses"), 8),
    "bald": (("hair", "hat"), 5),
    "bangs": (("hair", "hat", "brows"), 8),
    "big_lips": (("lips", "mouth"), 5),
    "big_nose": (("nose",), 5),
    "black_hair": (("hair", "brows"), 3),
    "blond_hair": (("hair", "brows"), 3),
    "blurry": (
        ("background", "face", "ears", "hair", "hat", "earrings", "neck", "necklace", "cloth"),
        0,
    ),
    "brown_hair": (("hair", "brows"), 3),
    "bushy_eyebrows": (("brows",), 5),
    "chubby": (("face", "neck", "ears"), 8),
    "double_chin": (("neck", "mouth", "lips"), 8),
    "eyeglasses": (("glasses", "eyes", "brows"), 12),
    "goatee": (("mouth", "lips"), 14),
    "gray_hair": (("hair", "brows"), 3),
    "heavy_makeup": (("face",), 1),
    "high_cheekbones": (("face",), 1),
    "male": (("face", "hair", "neck", "ears"), 3),
    "mouth_slightly_open": (("mouth", "lips"), 7),
    "mustache": (("mouth", "lips"), 8),
    "narrow_eyes": (("eyes", "glasses"), 5),
    "no_beard": (("mouth", "lips"), 14),
    "oval_face": (("face", "ears", "hair"), 5),
    "pale_skin": (("face", "neck", "ears"), 1),
    "pointy_nose": (("nose",), 5),
    "receding_hairline": (("hair", "hat"), 8),
    "rosy_cheeks": (("skin", "nose"), 1),
    "sideburns": (("hair", "ears"), 8),
    "smiling": (("mouth", "lips"), 11),
    "straight_hair": (("hair",), 5),
    "wavy_hair": (("hair",), 5),
    "wearing_earrings": (("earrings", "ears"), 6),
    "wearing_hat": (("hat", "hair"), 8),
    "wearing_lipstick": (("lips", "mouth"), 3),
    "wearing_necklace": (("necklace", "neck"), 4),
    "wearing_necktie": (("cloth", "neck"), 5),
    "young": (("face", "hair", "neck", "ears"), 3),
}


# attribute -> components (faces.components) that it may change: M holds all others. Hair that
# falls otherwise shows or hides background, and so do earrings and hats.
ATTRIBUTE_COMPONENTS: dict[str, tuple[str, ...]] = {
    "5_o_clock_shadow": ("mouth", "skin"),
    "arched_eyebrows": ("eyebrows",),
    "attractive": ("skin", "hair"),
    "bags_under_eyes": ("eyes", "skin"),
    "bald": ("hair", "background"),
    "bangs": ("hair", "eyebrows", "skin"),
    "big_lips": ("mouth",),
    "big_nose": ("nose",),
    "black_hair": ("hair",),
    "blond_hair": ("hair",),
    "blurry": ("background", "mouth", "eyebrows", "eyes", "earrings", "hair", "nose", "skin"),
    "brown_hair": ("hair",),
    "bushy_eyebrows": ("eyebrows",),
    "chubby": ("skin", "background"),
    "double_chin": ("skin", "background"),
    "eyeglasses": ("eyes", "eyebrows"),
    "goatee": ("mouth", "skin"),
    "gray_hair": ("hair",),
    "heavy_makeup": ("skin", "eyes", "eyebrows", "mouth"),
    "high_cheekbones": ("skin", "mouth"),
    "male": ("skin", "hair", "eyebrows", "mouth", "background"),
    "mouth_slightly_open": ("mouth",),
    "mustache": ("mouth", "skin"),
    "narrow_eyes": ("eyes",),
    "no_beard": ("mouth", "skin"),
    "oval_face": ("skin", "hair", "background"),
    "pale_skin": ("skin", "nose", "background"),
    "pointy_nose": ("nose",),
    "receding_hairline": ("hair", "skin"),
    "rosy_cheeks": ("skin",),
    "sideburns": ("hair", "skin"),
    "smiling": ("mouth",),
    "straight_hair": ("hair", "background"),
    "wavy_hair": ("hair", "background"),
    "wearing_earrings": ("earrings", "hair", "background"),
    "wearing_hat": ("hair", "background"),
    "wearing_lipstick": ("mouth",),
    "wearing_necklace": ("background",),
    "wearing_necktie": ("background",),
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

    Args:   labels int64 [N,R,R]; attributes: names of labels.CELEBA.
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
