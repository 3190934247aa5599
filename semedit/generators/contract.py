"""Generators: the protocol they share, what they return, and which there are.

    codes = generator.mapping(z, c)          z [N,z_dim] standard normal -> dict of named tensors
    output = generator.synthesis(codes, c)   codes and camera -> Output

A generator that knows cameras (trait "camera") does its work in two halves, so that many views
cost little more than one: `planes(codes)` once per face, `render(planes, c)` per view, and
synthesis(codes, c) == render(planes(codes), c). No call changes what a later one returns.

Traits: "ws" (codes["ws"] is W+), "camera", "seg" (Output.seg), "noise" (`noises` names maps that
synthesis takes), "coarse" (synthesis can end at a lower resolution), "regions", "encode",
"slices" (of a code's channels, each of which answers for a region: `region_logits`), "texture"
(the first `num_shape` styles shape a face; `optional_codes` give regions the texture of others),
"field" (density and colour at points of the box: `field`, `sigma`), "borrow" (codes take a donor's
regions: `borrow`), "shift" (the code "place" shifts and turns a face within its picture).
To add a generator: write its file, add its line to GENERATORS.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from semedit.errors import TraitError


@dataclass(frozen=True)
class Output:
    """What a generator shows.

    Attributes:
        image: float32 [N,3,R,R], sRGB in [-1,1] (not clamped).
        seg: logits [N,19,S,S], or None; S is R where not told otherwise.
        depth: distance along the rays [N,1,r,r] in world units, or None.
        opacity: share of each ray that the volume stops [N,1,r,r], in [0,1], or None.
        low: the picture before up-sampling, or None.
    """

    image: Tensor
    seg: Tensor | None = None
    depth: Tensor | None = None
    opacity: Tensor | None = None
    low: Output | None = None


class Generator(nn.Module):
    """What every generator offers, and what its traits add.

    A method that belongs to a trait raises TraitError in a generator without it. Cameras c [N,25].

    Attributes:
        traits: what it offers besides mapping and synthesis, by the names above.
        name: of its weights. resolution: pixels a side. z_dim: entries of z.
        num_ws, w_avg: "ws": styles of W+, and the mean style [w_dim] (or one a layer).
        regions: "regions": names along the axis of its codes.
        num_shape: "texture": how many of the first styles shape a face.
        config: its sizes.
        view_limit_deg: "camera": yaw and pitch to either side that training saw, degrees.
        all_round: "camera": whether it may be seen from beside and behind.
    """

    traits: frozenset[str] = frozenset()
    name: str
    resolution: int
    z_dim: int
    num_ws: int
    num_shape: int
    regions: tuple[str, ...]
    w_avg: Any
    config: Any
    view_limit_deg: tuple[float, float] = (180.0, 90.0)
    all_round: ClassVar[bool] = True

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next(iter(self.mean_codes().values())).device

    def mapping(self, z: Tensor, c: Tensor, truncation_psi: float = 1.0) -> dict[str, Tensor]:
        """z [N,z_dim] -> codes."""
        raise NotImplementedError

    def synthesis(self, *args: Any, **kwargs: Any) -> Output:
        """(codes, c, noise="const") -> Output."""
        raise NotImplementedError

    def mean_codes(self) -> dict[str, Tensor]:
        """Codes [1, ...] of the mean face."""
        raise NotImplementedError

    def optional_codes(self) -> dict[str, Tensor]:
        """Codes that a latent may have besides, [1, ...], with any number of layers on axis 1."""
        return {}

    def planes(self, *args: Any, **kwargs: Any) -> Any:
        """Trait "camera": what is computed once per face, from its codes."""
        raise self._lacks("camera")

    def render(self, *args: Any, **kwargs: Any) -> Output:
        """Trait "camera": (planes, c) -> Output; c [N*k,25]: k views of each face."""
        raise self._lacks("camera")

    def settled(self, planes: Any) -> Any:
        """Trait "camera": planes that were changed, with what follows from them made again."""
        return planes

    def encode(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Trait "encode": (images [N,3,R,R], labels [N,R,R], c) -> codes."""
        raise self._lacks("encode")

    def attach(self, encoder: nn.Module | Callable[[], nn.Module]) -> Self:
        """Let `encode` use an encoder, or one that a function reads when it is first needed."""
        raise self._lacks("encode")

    @property
    def encoder(self) -> nn.Module | None:
        """What `encode` uses, where that is a network of its own."""
        return None

    def viewed(self, images: Tensor, labels: Tensor, c: Tensor) -> Tensor:
        """Trait "encode": cameras c [N,25] with yaw and pitch as the encoder sees them."""
        raise self._lacks("encode")

    def noises(self) -> dict[str, Tensor]:
        """Trait "noise": layer -> its own noise map [1,1,H,W]."""
        raise self._lacks("noise")

    def field(self, *args: Any, **kwargs: Any) -> Any:
        """Trait "field": (planes, points [M,3], face [M]) -> density and colour."""
        raise self._lacks("field")

    def borrow(self, *args: Any, **kwargs: Any) -> Any:
        """Trait "borrow": codes with those of the donor's regions."""
        raise self._lacks("borrow")

    def covering(self, regions: Sequence[str]) -> tuple[str, ...]:
        """Trait "regions": the generator's own regions that cover some of labels.REGIONS."""
        raise self._lacks("regions")

    def style(self, codes: dict[str, Tensor]) -> Tensor:
        """Trait "texture": the styles [N,k,w_dim] of colour."""
        raise self._lacks("texture")

    def region_logits(self, *args: Any, **kwargs: Any) -> Tensor:
        """Trait "slices": (images, names) -> logits [N,K,R,R] of regions."""
        raise self._lacks("slices")

    def channels(self, region: str) -> Tensor:
        """Trait "slices": indices of the structure's channels that answer for a region."""
        raise self._lacks("slices")

    def _lacks(self, trait: str) -> TraitError:
        return TraitError(f"{self.name} has no trait {trait!r}", "semedit methods lists traits")
