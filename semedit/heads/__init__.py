"""Rendered heads: image, label map, landmarks, camera, depth and attributes, exact by rule.

head = Head(seed)                                   # or Head(seed, z)
view = head.render(head.camera(yaw, pitch), size=256, look="plain")
older = head.edited(smile=0.9, glasses=True)        # the true edit
write_dataset(Path("heads"), n=1000, views=2)
"""

from semedit.heads.dataset import EVALUATION_SEED, view_angles, write_dataset
from semedit.heads.geometry import available
from semedit.heads.render import LOOKS, Head, RenderedView

__all__ = [
    "EVALUATION_SEED",
    "LOOKS",
    "Head",
    "RenderedView",
    "available",
    "view_angles",
    "write_dataset",
]
