"""The eight components of a face that attribute edits hold or free, and who finds them."""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from semedit import weights
from semedit.errors import OptionError
from semedit.faces import deeplab
from semedit.faces.deeplab import DeepLabSegmenter
from semedit.faces.parsing import BuiltinParser
from semedit.media.labels import LABELS, REGIONS

# component -> regions (labels.REGIONS) of it. The paper names these eight, grouped from
# CelebAMask-HQ's labels; what it did with hats, necks and clothes it does not say: they are no
# part of the face here. Ears are skin, glasses lie on the eyes.
COMPONENTS: dict[str, tuple[str, ...]] = {
    "background": ("background", "hat", "necklace", "neck", "cloth"),
    "mouth": ("mouth", "lips"),
    "eyebrows": ("brows",),
    "eyes": ("eyes", "glasses"),
    "earrings": ("earrings",),
    "hair": ("hair",),
    "nose": ("nose",),
    "skin": ("skin", "ears"),
}


class Segmenter(Protocol):
    """Takes aligned crops [N,3,R,R] in [-1,1], returns probabilities [N,8,R,R] of COMPONENTS."""

    name: str

    def __call__(self, images: Tensor) -> Tensor: ...


def component_ids() -> Tensor:
    """Component of each label id: int64 [19]."""
    found = torch.zeros(len(LABELS), dtype=torch.int64)
    for i, regions in enumerate(COMPONENTS.values()):
        for name in regions:
            found[list(REGIONS[name])] = i
    return found


def grouped(probability: Tensor) -> Tensor:
    """Probabilities of the 19 labels [N,19,R,R] -> of the components [N,8,R,R]."""
    matrix = F.one_hot(component_ids(), len(COMPONENTS)).to(probability)
    return torch.einsum("nkhw,kc->nchw", probability, matrix)


def of_labels(labels: Tensor) -> Tensor:
    """A label map int64 [N,R,R] as probabilities of 0 and 1: [N,8,R,R]."""
    return grouped(F.one_hot(labels, len(LABELS)).permute(0, 3, 1, 2).float())


class BuiltinSegmenter:
    """The built-in parser, its labels grouped."""

    name = "builtin"

    def __init__(self, device: str = "cpu") -> None:
        self._parser = BuiltinParser(device)

    def __call__(self, images: Tensor) -> Tensor:
        """Images [N,3,R,R] in [-1,1] -> probabilities [N,8,R,R]."""
        return grouped(self._parser(images).softmax(1))


SEGMENTERS: dict[str, type] = {"builtin": BuiltinSegmenter, "deeplab": DeepLabSegmenter}


def load_segmenter(name: str = "auto", device: str = "cpu") -> Segmenter:
    """A segmenter by name; "auto" is `deeplab` where it was trained, else `builtin`.

    Raises: OptionError: no such segmenter.  WeightsError: its weights are not there.
    """
    return SEGMENTERS[_chosen(name)](device)


def segmenter_weights(name: str = "auto") -> tuple[str, ...]:
    """Names of the weights that `load_segmenter` reads; none for "labels", the face's own map.

    Raises: OptionError: no such segmenter.
    """
    if name == "labels":
        return ()
    return ({"builtin": "faces", "deeplab": deeplab.WEIGHTS}[_chosen(name)],)


def _chosen(name: str) -> str:
    if name == "auto":
        name = "deeplab" if weights.on_disk(deeplab.WEIGHTS) else "builtin"
    if name not in SEGMENTERS:
        raise OptionError(f"no segmenter is called {name!r}", f"auto, {', '.join(SEGMENTERS)}")
    return name
