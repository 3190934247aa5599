"""GRAM: radiance on a set of surfaces.

    w = mapping(z);  (colour, density) = FiLM-SIREN(x; w) where rays meet the surfaces
    alpha = 1 - exp(-density delta), composited front to back; the flat surface behind is opaque

Views are locked: the colour does not depend on the ray's direction, as the published pictures of
faces are drawn. A label c looks from distance 2.7 with 4.2647 focal lengths at an aligned crop,
the published network from distance 1 with a field of view of 12 degrees at the same crop.

Source: Deng et al. 2022, arXiv:2112.08867. Departs: nothing; the mean style is that of fixed z.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semedit.errors import ShapeError
from semedit.generators.contract import Output
from semedit.generators.surfaces.films import Films, Styles, evaluate, remembered_bytes
from semedit.generators.surfaces.intersections import Intersections, Lens, Meetings, Surfaces
from semedit.generators.surfaces.shells import OnSurfaces, Sparse, mean_distance, widened

MEAN_SAMPLES = 10_000
READ = 25.0  # as films.HIDDEN, of the layers that are read


@dataclass(frozen=True)
class GRAMConfig:
    """Sizes of a GRAM; the defaults are those published for FFHQ."""

    resolution: int = 256
    z_dim: int = 256
    w_dim: int = 256
    mapping_layers: int = 3
    width: int = 256
    depth: int = 8  # sines before the colour layer
    fov_deg: float = 12.0
    delta: float = 0.04  # thickness of a surface
    surfaces: Surfaces = field(default_factory=Surfaces)

    def __post_init__(self) -> None:
        object.__setattr__(self, "surfaces", Surfaces.of(self.surfaces))


class GRAM(OnSurfaces):
    """GRAM: radiance on a set of surfaces.

    codes["ws"] is [N, depth + 1, w_dim]: a style for each layer, the last one the colour layer's.
    `planes` are frequencies and phases, [N, depth + 1, width].
    """

    traits: frozenset[str] = frozenset({"ws", "camera"})
    tunable: ClassVar[tuple[str, ...]] = ("films.*", "read_*")
    w_avg: Tensor

    def __init__(self, config: GRAMConfig, name: str = "gram") -> None:
        super().__init__(
            Intersections(config.surfaces, Lens.published(config.resolution, config.fov_deg))
        )
        self.config, self.name = config, name
        self.z_dim, self.resolution = config.z_dim, config.resolution
        width, self.num_ws = config.width, config.depth + 1
        sizes = config.z_dim, config.w_dim, config.mapping_layers, self.num_ws, width
        self.mapping_network = Styles(*sizes)
        self.films = Films(1, self.num_ws, 3, width, 1.0 / 3.0)
        bound = (6.0 / width) ** 0.5 / READ
        reads = (config.depth - 1, width)
        self.read_density = nn.Parameter(torch.empty(*reads, 1).uniform_(-bound, bound))
        self.read_colour = nn.Parameter(torch.empty(*reads, 3).uniform_(-bound, bound))
        self.read_bias = nn.Parameter(torch.zeros(4))  # density, then colour
        self.register_buffer("w_avg", torch.zeros(config.w_dim))

    def mapping(self, z: Tensor, c: Tensor, truncation_psi: float = 1.0) -> dict[str, Tensor]:
        """z [N,z_dim] -> {"ws": [N,num_ws,w_dim]}; c has no influence."""
        w = self.w_avg.lerp(self.mapping_network.mapping_w(z.float()), truncation_psi)
        return {"ws": w[:, None].expand(-1, self.num_ws, -1)}

    def mean_codes(self) -> dict[str, Tensor]:
        """Codes of the mean style, one face."""
        return {"ws": self.w_avg[None, None].expand(1, self.num_ws, -1)}

    @torch.no_grad()
    def centre(self, samples: int = MEAN_SAMPLES) -> None:
        """Set the mean style to that of random z."""
        numbers = torch.Generator().manual_seed(0)
        z = torch.randn(samples, self.z_dim, generator=numbers).to(self.w_avg.device)
        self.w_avg.copy_(self.mapping_network.mapping_w(z).mean(0))

    def planes(self, codes: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What does not depend on the camera.

        Raises: ShapeError: ws of another shape.
        """
        ws, wanted = codes["ws"], (self.num_ws, self.config.w_dim)
        if tuple(ws.shape[1:]) != wanted:
            raise ShapeError(f"ws has the shape {tuple(ws.shape)}, not {(len(ws), *wanted)}")
        gamma, beta = self.mapping_network.modulation(ws)
        return {"gamma": gamma, "beta": beta}

    def march(
        self, planes: Mapping[str, Tensor], meetings: Meetings, counts: list[int], remember: bool
    ) -> dict[str, Tensor]:
        """See OnSurfaces.march: colour and distance."""
        points = Sparse.of(meetings, counts)
        layers = self.films.folded(planes["gamma"], planes["beta"])
        x = points.at(meetings.points) * self.config.surfaces.scale
        read, _ = evaluate(layers, self._reads(), x, points.counts, remember)
        read = read + self.read_bias
        weights = points.weights(F.softplus(read[:, 0]), self.config.delta)
        colour = points.summed(widened(read[:, 1:]), weights)
        return {"colour": colour, "distance": mean_distance(meetings, weights)}

    def _reads(self) -> Tensor:
        """[depth, 1, width, 4]: the last colour is read behind the colour layer."""
        none = self.read_colour.new_zeros(1, self.config.width, 1)
        density = torch.cat([self.read_density, none])
        gap = torch.zeros_like(self.read_colour[:1])
        colour = torch.cat([self.read_colour[:-1], gap, self.read_colour[-1:]])
        return torch.cat([density, colour], 2)[:, None]

    def output(self, found: Mapping[str, Tensor]) -> Output:
        """See OnSurfaces.output."""
        return Output(2 * found["colour"] - 1, depth=found["distance"])

    def cost(self, points: int) -> int:
        """See OnSurfaces.cost."""
        return remembered_bytes(self.num_ws, self.config.width, points)
