"""Editors by name. Add one: write its file, add its line; it declares how users ask for it."""

from semedit.editors.canonical import Canonical
from semedit.editors.contract import Editor, Way
from semedit.editors.direction import Direction
from semedit.editors.drawing import Drawing
from semedit.editors.fast import Fast
from semedit.editors.mask import Mask
from semedit.editors.pernus import Pernus
from semedit.editors.place import Place
from semedit.editors.roi import Roi
from semedit.editors.swap import Swap
from semedit.editors.texture import Texture
from semedit.editors.transfer import Transfer

EDITORS: dict[str, type[Editor]] = {
    "direction": Direction,
    "mask": Mask,
    "canonical": Canonical,
    "fast": Fast,
    "pernus": Pernus,
    "swap": Swap,
    "transfer": Transfer,
    "texture": Texture,
    "drawing": Drawing,
    "roi": Roi,
    "place": Place,
}


def editors_of(way: Way) -> dict[str, type[Editor]]:
    """The editors that users ask for in one way, by name."""
    return {name: editor for name, editor in EDITORS.items() if editor.way == way}


__all__ = [
    "EDITORS",
    "Canonical",
    "Direction",
    "Drawing",
    "Editor",
    "Fast",
    "Mask",
    "Pernus",
    "Place",
    "Roi",
    "Swap",
    "Texture",
    "Transfer",
    "Way",
    "editors_of",
]
