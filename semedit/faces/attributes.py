"""CelebA attributes of aligned crops.

`Classifier`, or a trained `Branched`, is what editors steer by; `Judge` is another network, of
another shape and seed, that only ever looks at finished results.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from semedit import weights
from semedit.errors import OptionError
from semedit.faces import branched, networks
from semedit.faces.branched import Branched
from semedit.media.labels import ATTRIBUTES


class Classifier:
    """TraitNet; gradients reach the images."""

    name = "builtin"
    names = ATTRIBUTES

    def __init__(self, device: str = "cpu") -> None:
        self.device = device
        self.network = networks.load("traits", device)

    def __call__(self, images: Tensor) -> Tensor:
        """Images float32 [N,3,R,R] in [-1,1] -> logits [N,A] in the order of ATTRIBUTES."""
        return self.network(images.to(self.device)).attributes


class Judge:
    """JudgeNet: the second opinion that evaluations trust."""

    name = "judge"
    names = ATTRIBUTES

    def __init__(self, device: str = "cpu") -> None:
        self.device = device
        self.network = networks.load("judge", device)

    def __call__(self, images: Tensor) -> Tensor:
        """Images float32 [N,3,R,R] in [-1,1] -> logits [N,A] in the order of ATTRIBUTES."""
        return self.network(images.to(self.device))


def named(logits: Tensor) -> list[dict[str, float]]:
    """Logits [N,A] -> one {attribute: probability} per image."""
    rows = torch.sigmoid(logits.detach().float()).cpu().tolist()
    return [dict(zip(ATTRIBUTES, (round(v, 4) for v in row), strict=True)) for row in rows]


CLASSIFIERS: dict[str, type] = {"builtin": Classifier, "branched": Branched, "judge": Judge}
STEERING = ("builtin", "branched")  # what editors may be steered by: never the judge


def load_classifier(name: str = "auto", device: str = "cpu") -> Any:
    """What editors ask, by name: image [N,3,R,R] -> logits [N,A] in the order of its `names`.

    "auto" is `branched` where it was trained, else `builtin`.

    Raises: OptionError: no such classifier.  WeightsError: its weights are not there.
    """
    return CLASSIFIERS[_chosen(name)](device)


def classifier_weights(name: str = "auto") -> str:
    """The name of the weights that `load_classifier` reads.

    Raises: OptionError: no such classifier.
    """
    return {"builtin": "traits", "branched": branched.WEIGHTS}[_chosen(name)]


def known_attributes(name: str = "auto") -> tuple[str, ...]:
    """The attributes that a classifier knows, told from the head of its file.

    Raises: OptionError: no such classifier.  WeightsError: its weights are not there.
    """
    if _chosen(name) == "builtin":
        return ATTRIBUTES
    config = weights.metadata(weights.resolve(branched.WEIGHTS))["config"]
    return tuple(json.loads(config)["names"])


def require_known(wanted: Iterable[str], name: str = "auto") -> None:
    """Raise OptionError unless the classifier of that name knows all that is wanted."""
    refuse_unknown(wanted, known_attributes(name), _chosen(name))


def refuse_unknown(wanted: Iterable[str], known: Sequence[str], classifier: str) -> None:
    """Raise OptionError where something is wanted that a classifier does not know."""
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise OptionError(
            f"the classifier {classifier} does not know {', '.join(unknown)}",
            f"it knows {', '.join(known)}",
        )


def _chosen(name: str) -> str:
    if name == "auto":
        name = "branched" if weights.on_disk(branched.WEIGHTS) else "builtin"
    if name not in STEERING:
        raise OptionError(f"no classifier is called {name!r}", f"auto, {', '.join(STEERING)}")
    return name
