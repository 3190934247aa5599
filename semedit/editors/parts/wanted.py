"""What an attribute edit asks a classifier for."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from semedit.errors import OptionError
from semedit.media.labels import ATTRIBUTES
from semedit.options import suggestion


class WantedAttributes:
    """Asks a classifier for attributes: logits [N, len(wanted)], positive where as wanted.

    Args: classify: image [N,3,R,R] -> logits [N,A] in the order of ATTRIBUTES; wanted: attribute ->
          present or not.

    Raises: OptionError: nothing is wanted, or an attribute the classifier does not know.
    """

    def __init__(self, classify: Callable[[Tensor], Tensor], wanted: Mapping[str, bool]) -> None:
        unknown = [name for name in wanted if name not in ATTRIBUTES]
        if unknown or not wanted:
            raise OptionError(
                f"attributes {', '.join(unknown) or 'to change'} are not known",
                hint=suggestion(unknown[0] if unknown else "", ATTRIBUTES),
            )
        self.wanted = dict(wanted)
        self._classify = classify
        self._columns = [ATTRIBUTES.index(name) for name in self.wanted]
        self._signs = torch.tensor([1.0 if yes else -1.0 for yes in self.wanted.values()])

    def __call__(self, image: Tensor) -> Tensor:
        logits = self._classify(image)[:, self._columns]
        return logits * self._signs.to(logits)


def cross_entropy(logits: Tensor, smooth: float = 0.0) -> Tensor:
    """sum over attributes of -y log p - (1 - y) log(1 - p): [N].

    Args: logits [N,A] of a Question, so that y = 1 - smooth.
    """
    terms = (1 - smooth) * F.softplus(-logits) + smooth * F.softplus(logits)
    return terms.sum(1)
