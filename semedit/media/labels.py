"""Names, numbers and colours: labels, regions, attributes. CelebAMask-HQ order."""

from __future__ import annotations

SCHEME = "CelebAMask-HQ"  # recorded in the text chunk "label-scheme" of every label map


# CelebAMask-HQ order: the index is the id. `l_` is the person's left, the right of the picture.
LABELS = (
    "background",
    "skin",
    "nose",
    "eye_g",
    "l_eye",
    "r_eye",
    "l_brow",
    "r_brow",
    "l_ear",
    "r_ear",
    "mouth",
    "u_lip",
    "l_lip",
    "hair",
    "hat",
    "ear_r",
    "neck_l",
    "neck",
    "cloth",
)


# The colour of each id, sRGB; the scheme CelebAMask-HQ's own demo paints with.
PALETTE = (
    (0, 0, 0),
    (204, 0, 0),
    (76, 153, 0),
    (204, 204, 0),
    (51, 51, 255),
    (204, 0, 204),
    (0, 255, 255),
    (255, 204, 204),
    (102, 51, 0),
    (255, 0, 0),
    (102, 204, 0),
    (255, 255, 0),
    (0, 0, 153),
    (0, 0, 204),
    (255, 51, 153),
    (0, 204, 204),
    (0, 51, 0),
    (255, 153, 51),
    (0, 204, 0),
)


# Named regions of a face, as sets of label ids.
REGIONS: dict[str, tuple[int, ...]] = {
    "background": (0,),
    "skin": (1,),
    "nose": (2,),
    "glasses": (3,),
    "eyes": (4, 5),
    "brows": (6, 7),
    "ears": (8, 9),
    "mouth": (10,),
    "lips": (11, 12),
    "hair": (13,),
    "hat": (14,),
    "earrings": (15,),
    "necklace": (16,),
    "neck": (17,),
    "cloth": (18,),
    "face": (1, 2, 3, 4, 5, 6, 7, 10, 11, 12),
}


# The attributes of CelebA, which a classifier may know.
CELEBA = (
    "5_o_clock_shadow",
    "arched_eyebrows",
    "attractive",
    "bags_under_eyes",
    "bald",
    "bangs",
    "big_lips",
    "big_nose",
    "black_hair",
    "blond_hair",
    "blurry",
    "brown_hair",
    "bushy_eyebrows",
    "chubby",
    "double_chin",
    "eyeglasses",
    "goatee",
    "gray_hair",
    "heavy_makeup",
    "high_cheekbones",
    "male",
    "mouth_slightly_open",
    "mustache",
    "narrow_eyes",
    "no_beard",
    "oval_face",
    "pale_skin",
    "pointy_nose",
    "receding_hairline",
    "rosy_cheeks",
    "sideburns",
    "smiling",
    "straight_hair",
    "wavy_hair",
    "wearing_earrings",
    "wearing_hat",
    "wearing_lipstick",
    "wearing_necklace",
    "wearing_necktie",
    "young",
)


# Those that the built-in classifiers know; the order is that of their outputs.
ATTRIBUTES = (
    "arched_eyebrows",
    "bald",
    "big_nose",
    "black_hair",
    "blond_hair",
    "brown_hair",
    "bushy_eyebrows",
    "eyeglasses",
    "gray_hair",
    "mouth_slightly_open",
    "narrow_eyes",
    "no_beard",
    "smiling",
    "straight_hair",
    "wavy_hair",
    "wearing_earrings",
    "wearing_hat",
    "wearing_lipstick",
    "wearing_necklace",
    "young",
)


def attribute_flag(name: str, value: bool) -> str:
    """The option that asks for an attribute or against it: smiling -> --smiling, --no-smiling;
    no_beard -> --no-beard, --beard."""
    dashed = name.replace("_", "-")
    if value:
        return f"--{dashed}"
    return f"--{dashed.removeprefix('no-')}" if dashed.startswith("no-") else f"--no-{dashed}"
