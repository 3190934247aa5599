"""What an attribute edit asks a classifier for."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from semedit.errors import OptionError
from semedit.faces.attributes import refuse_unknown
from semedit.media.labels import ATTRIBUTES


class WantedAttributes:
    """Asks a classifier for attributes: logits [N, len(wanted)], positive where as wanted.

    Args: classify: image [N,3,R,R] -> logits [N,A] in the order of its `names`, without names of
          ATTRIBUTES; wanted: attribute -> present or not.

    Raises: OptionError: nothing is wanted, or an attribute the classifier does not know.
    """

    def __init__(self, classify: Callable[[Tensor], Tensor], wanted: Mapping[str, bool]) -> None:
        known = getattr(classify, "names", ATTRIBUTES)
        if not wanted:
            raise OptionError("no attribute is given", f"there is {', '.join(known)}")
        refuse_unknown(wanted, known, getattr(classify, "name", "given"))
        self.wanted = dict(wanted)
        self._classify = classify
        self._columns = [known.index(name) for name in self.wanted]
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
