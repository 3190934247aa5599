"""Editors by name. Add one: write its file, add its line."""

from semedit.editors.classifier import Classifier
from semedit.editors.direction import Direction
from semedit.editors.mask import Mask

EDITORS: dict[str, type] = {"direction": Direction, "mask": Mask, "classifier": Classifier}

__all__ = ["EDITORS", "Classifier", "Direction", "Mask"]
