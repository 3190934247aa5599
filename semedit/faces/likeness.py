"""How alike two faces are, by the best network at hand."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from semedit import weights
from semedit.faces import networks
from semedit.faces.identity import ArcFace


class Recogniser(Protocol):
    """Aligned crops float32 [N,3,R,R] in [-1,1] -> unit embeddings [N,D]; differentiable."""

    name: str

    def __call__(self, images: Tensor) -> Tensor: ...


class BuiltinRecogniser:
    """The shipped IdentityNet, on pictures and their mirror images."""

    name = "builtin"
    needs = ("identity",)

    def __init__(self, device: str = "cpu") -> None:
        self.network = networks.load("identity", device)

    def __call__(self, images: Tensor) -> Tensor:
        """See Recogniser."""
        both: Tensor = self.network(images) + self.network(images.flip(-1))
        return both / both.norm(dim=1, keepdim=True)


def recogniser_weights() -> tuple[str, ...]:
    """The weights that `recogniser` reads: facexlib's ArcFace where it is on the disk."""
    return ArcFace.needs if weights.on_disk(ArcFace.needs[0]) else BuiltinRecogniser.needs


def recogniser(device: str = "cpu") -> Recogniser:
    """facexlib's ArcFace where it is on the disk, else the built-in network."""
    if recogniser_weights() == ArcFace.needs:
        return ArcFace(device)
    return BuiltinRecogniser(device)
