"""What a generator cannot draw, from the photograph: edits at the crop's own size."""

from semedit.detail.carry import carry, changed_region, edited_photo
from semedit.detail.network import NAME, DetailNet, load

__all__ = ["NAME", "DetailNet", "carry", "changed_region", "edited_photo", "load"]
