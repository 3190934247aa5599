"""Editors by name. Add one: write its file, add its line."""

from semedit.editors.direction import Direction
from semedit.editors.fast import Fast
from semedit.editors.mask import Mask
from semedit.editors.pernus import Pernus
from semedit.editors.roi import Roi

EDITORS: dict[str, type] = {
    "direction": Direction,
    "mask": Mask,
    "fast": Fast,
    "pernus": Pernus,
}
PICTURE_EDITORS: dict[str, type] = {"roi": Roi}  # which need no inversion
ATTRIBUTE_EDITORS = ("fast", "pernus")  # those that `semedit attr` offers

__all__ = [
    "ATTRIBUTE_EDITORS",
    "EDITORS",
    "PICTURE_EDITORS",
    "Direction",
    "Fast",
    "Mask",
    "Pernus",
    "Roi",
]
