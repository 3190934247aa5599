"""Editors by name. Add one: write its file, add its line."""

from semedit.editors.canonical import Canonical
from semedit.editors.direction import Direction
from semedit.editors.drawing import Drawing
from semedit.editors.fast import Fast
from semedit.editors.mask import Mask
from semedit.editors.pernus import Pernus
from semedit.editors.roi import Roi
from semedit.editors.swap import Swap
from semedit.editors.texture import Texture
from semedit.editors.transfer import Transfer

EDITORS: dict[str, type] = {
    "direction": Direction,
    "mask": Mask,
    "fast": Fast,
    "pernus": Pernus,
    "transfer": Transfer,
    "swap": Swap,
}
# Which need a field of labels and colours, and take more than a latent.
FIELD_EDITORS: dict[str, type] = {
    "canonical": Canonical,
    "texture": Texture,
    "drawing": Drawing,
}
PICTURE_EDITORS: dict[str, type] = {"roi": Roi}  # which need no inversion
ATTRIBUTE_EDITORS = ("fast", "pernus")  # those that `semedit attr` offers
# Those that `semedit edit --transfer-from` offers: the first that suits the generator is taken.
# They are called with generator, latents, the donor's latent and the faces' own label maps.
TRANSFER_EDITORS = ("swap", "transfer")

__all__ = [
    "ATTRIBUTE_EDITORS",
    "EDITORS",
    "FIELD_EDITORS",
    "PICTURE_EDITORS",
    "TRANSFER_EDITORS",
    "Canonical",
    "Direction",
    "Drawing",
    "Fast",
    "Mask",
    "Pernus",
    "Roi",
    "Swap",
    "Texture",
    "Transfer",
]
