"""Editors by name. Add one: write its file, add its line."""

from semedit.editors.direction import Direction
from semedit.editors.fast import Fast
from semedit.editors.mask import Mask
from semedit.editors.pernus import Pernus
from semedit.editors.roi import Roi
from semedit.editors.transfer import Transfer

EDITORS: dict[str, type] = {
    "direction": Direction,
    "mask": Mask,
    "fast": Fast,
    "pernus": Pernus,
    "transfer": Transfer,
}
PICTURE_EDITORS: dict[str, type] = {"roi": Roi}  # which need no inversion
ATTRIBUTE_EDITORS = ("fast", "pernus")  # those that `semedit attr` offers
# Those that `semedit edit --transfer-from` offers: the first that suits the generator is taken.
# They are called with generator, latents, the donor's latent and the faces' own label maps.
TRANSFER_EDITORS = ("transfer",)

__all__ = [
    "ATTRIBUTE_EDITORS",
    "EDITORS",
    "PICTURE_EDITORS",
    "TRANSFER_EDITORS",
    "Direction",
    "Fast",
    "Mask",
    "Pernus",
    "Roi",
    "Transfer",
]
