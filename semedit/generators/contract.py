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
"field" (density and colour at points of the box: `field`, `sigma`).
To add a generator: write its file, add its line to GENERATORS.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

from torch import Tensor


@dataclass(frozen=True)
class Output:
    """What a generator shows.

    Attributes:
        image: float32 [N,3,R,R], sRGB in [-1,1] (not clamped).
        seg: logits [N,19,R,R], or None.
        depth: distance along the rays [N,1,r,r] in world units, or None.
        opacity: share of each ray that the volume stops [N,1,r,r], in [0,1], or None.
        low: the picture before up-sampling, or None.
    """

    image: Tensor
    seg: Tensor | None = None
    depth: Tensor | None = None
    opacity: Tensor | None = None
    low: Output | None = None


class Generator(Protocol):
    """What every generator offers; those with the trait "camera" also `planes` and `render`."""

    traits: ClassVar[frozenset[str]]
    name: str
    resolution: int  # pixels a side
    z_dim: int

    def mapping(self, z: Tensor, c: Tensor, truncation_psi: float = 1.0) -> dict[str, Tensor]: ...

    def synthesis(self, codes: dict[str, Tensor], c: Tensor, noise: str = "const") -> Output: ...

    def mean_codes(self) -> dict[str, Tensor]: ...
