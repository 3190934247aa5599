"""SemFaceEdit's generator: semantics and density first, then the colours of each region.

    Geometry Module     FiLM-SIREN(x; w) -> density, N labels, descriptor, where rays meet surfaces
    masking             points are grouped by the club of labels that is likeliest there
    Appearance Module   FiLM-SIREN(descriptor; w_i) -> colour, of club i

Each club has a latent z_i of its own. The Appearance Module's sines are the same for all clubs,
its linear colour layers are each club's own (`sharing`). Points that hardly show get no colour.

codes["ws"] are the styles of geometry, [N, depth, w_dim]; codes["appearance"] those of colour,
[N, appearance_depth, clubs, w_dim]: the two W+ spaces.

Source: Verma and Raman 2025 (SemFaceEdit), arXiv:2506.22833; rendering as in Deng et al. 2022
(GRAM), arXiv:2112.08867. Where the paper is silent: clubs are those of CLUBS; labels are composited
as probabilities; layers are read as GRAM's are (`reads`). Departs: one z may stand for
geometry and all clubs (`apart`), which rendered heads need whose parameters z is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semedit.errors import OptionError, ShapeError
from semedit.generators.contract import Output
from semedit.generators.surfaces.films import (
    FREQUENCY,
    HIDDEN,
    Films,
    Styles,
    evaluate,
    remembered_bytes,
)
from semedit.generators.surfaces.intersections import Intersections, Lens, Meetings, Surfaces
from semedit.generators.surfaces.shells import MEMORY, OnSurfaces, Sparse, mean_distance, widened
from semedit.media.labels import LABELS, REGIONS

Planes = dict[str, Tensor]
Sharing = Literal["none", "proposed", "all"]

# Labels whose appearance is one: names of labels.REGIONS. Every label is in one club.
CLUBS: dict[str, tuple[str, ...]] = {
    "background": ("background",),
    "face": ("skin", "nose", "ears", "neck"),
    "eyes": ("eyes", "brows", "glasses"),
    "mouth": ("mouth", "lips"),
    "hair": ("hair", "hat"),
    "cloth": ("cloth", "necklace", "earrings"),
}
FLOOR = 1e-3  # added to probabilities before their logarithm


@dataclass(frozen=True)
class ManifoldsConfig:
    """Sizes; the defaults are the paper's, those of GRAM where it names none."""

    resolution: int = 256
    z_dim: int = 256  # entries of one latent
    apart: bool = True  # z holds a latent for geometry and one for each club; False: one for all
    w_dim: int = 256
    mapping_layers: int = 3
    width: int = 256
    depth: int = 8  # sines of the Geometry Module: 8, 6 or 4
    appearance_depth: int = 8  # sines of the Appearance Module
    reads: int = 0  # of the last sines of each module; 0: of all but the first, as GRAM has it
    sharing: Sharing = "proposed"  # what clubs share: "none", all but colour layers, "all"
    clubs: tuple[str, ...] = tuple(CLUBS)
    focal: float = 0.5 / math.tan(math.radians(6.0))  # of a nominal c, in sides of the picture
    delta: float = 0.04  # thickness of a surface
    frequency: float = FREQUENCY  # mean of gamma
    gain: float = 1.0  # factor on what is read of the sines
    density_start: float = 0.0  # of the density before its softplus
    skip_weight: float = 1e-3  # points that show less get no colour
    surfaces: Surfaces = field(default_factory=Surfaces)

    def __post_init__(self) -> None:
        object.__setattr__(self, "surfaces", Surfaces.of(self.surfaces))
        unknown = [name for name in self.clubs if name not in CLUBS]
        if unknown or self.sharing not in ("none", "proposed", "all"):
            raise OptionError(f"a SemFaceEdit has no {unknown[0] if unknown else self.sharing}")


class Manifolds(OnSurfaces):
    """SemFaceEdit: labels and density on surfaces first, then the colours of each region."""

    traits: frozenset[str] = frozenset({"ws", "camera", "seg", "borrow"})
    tunable: ClassVar[tuple[str, ...]] = ("geometry.*", "appearance.*")
    w_avg: Tensor
    club_of: Tensor

    def __init__(self, config: ManifoldsConfig, name: str = "manifolds") -> None:
        super().__init__(Intersections(config.surfaces, Lens(config.resolution, config.focal)))
        self.config, self.name = config, name
        self.resolution, self.num_ws = config.resolution, config.depth
        self.clubs = config.clubs
        self.z_dim = config.z_dim * (1 + len(config.clubs) if config.apart else 1)
        sizes = config.z_dim, config.w_dim, config.mapping_layers
        self.mapping_geometry = Styles(*sizes, config.depth, config.width, config.frequency)
        self.mapping_appearance = Styles(
            *sizes, config.appearance_depth, config.width, config.frequency
        )
        self.geometry = Geometry(config)
        self.appearance = Appearance(config)
        self.register_buffer("w_avg", torch.zeros(2, config.w_dim))
        self.register_buffer("club_of", club_numbers(config.clubs), persistent=False)

    # Codes ---------------------------------------------------------------------------------------

    def mapping(self, z: Tensor, c: Tensor, truncation_psi: float = 1.0) -> dict[str, Tensor]:
        """z -> codes; c has no influence.

        Args:   z [N,config.z_dim]: one latent for geometry and all clubs, or
                [N,(1 + clubs) config.z_dim]: geometry's, then each club's.
        Raises: ShapeError: z of neither size.
        """
        return self.spread(*self.styles(z, truncation_psi))

    def styles(self, z: Tensor, truncation_psi: float = 1.0) -> tuple[Tensor, Tensor]:
        """w of geometry [N,w_dim] and w_i of the clubs [N,clubs,w_dim]; see `mapping`."""
        config, count = self.config, len(self.clubs)
        if z.shape[1] not in (config.z_dim, (1 + count) * config.z_dim):
            raise ShapeError(f"{self.name} takes z of {self.z_dim} entries, not {z.shape[1]}")
        parts = z.float().unflatten(1, (-1, config.z_dim))
        w = self.mapping_geometry.mapping_w(parts[:, 0])
        each = self.mapping_appearance.mapping_w(parts[:, -count:] if len(parts[0]) > 1 else parts)
        first, second = self.w_avg
        return first.lerp(w, truncation_psi), second.lerp(each, truncation_psi).expand(
            -1, count, -1
        )

    def spread(self, w: Tensor, each: Tensor) -> dict[str, Tensor]:
        """Codes of styles: every layer has the same."""
        return {
            "ws": w[:, None].expand(-1, self.num_ws, -1),
            "appearance": each[:, None].expand(-1, self.config.appearance_depth, -1, -1),
        }

    def mean_codes(self) -> dict[str, Tensor]:
        """Codes of the mean styles, one face."""
        w, each = self.w_avg
        return self.spread(w[None], each[None, None].expand(1, len(self.clubs), -1))

    @torch.no_grad()
    def centre(self, samples: int = 10_000) -> None:
        """Set the mean styles to those of random z."""
        numbers = torch.Generator().manual_seed(0)
        z = torch.randn(samples, self.config.z_dim, generator=numbers).to(self.w_avg.device)
        for row, network in enumerate((self.mapping_geometry, self.mapping_appearance)):
            self.w_avg[row] = network.mapping_w(z).mean(0)

    def borrow(
        self, codes: Mapping[str, Tensor], donor: Mapping[str, Tensor], regions: Sequence[str]
    ) -> dict[str, Tensor]:
        """Codes whose clubs have the donor's appearance where all of a club is among the regions
        (labels.REGIONS)."""
        whole = [i for i, club in enumerate(self.clubs) if set(CLUBS[club]) <= set(regions)]
        appearance = codes["appearance"].clone()
        appearance[:, :, whole] = donor["appearance"][:, :, whole].to(appearance)
        return {**codes, "appearance": appearance}

    # Pictures ------------------------------------------------------------------------------------

    def planes(self, codes: Mapping[str, Tensor]) -> Planes:
        """What does not depend on the camera: frequencies and phases, gamma and beta
        [N,depth,width] of geometry, appearance_gamma and appearance_beta [N,clubs,depth,width]
        (or [N,1,depth,width], where all clubs have one style).

        Raises: ShapeError: codes of another shape.
        """
        for name, mean in self.mean_codes().items():
            wanted = tuple(mean.shape[1:])
            one = (wanted[0], 1, wanted[-1])  # a style for all clubs
            if tuple(codes[name].shape[1:]) not in (wanted, one):
                raise ShapeError(
                    f"{name} has the shape {tuple(codes[name].shape)}, not "
                    f"{(len(codes[name]), *wanted)}"
                )
        gamma, beta = self.mapping_geometry.modulation(codes["ws"])
        each = self.mapping_appearance.modulation(codes["appearance"])
        of_clubs = (x.transpose(1, 2) for x in each)
        names = "gamma", "beta", "appearance_gamma", "appearance_beta"
        return dict(zip(names, (gamma, beta, *of_clubs), strict=True))

    def march(
        self, planes: Mapping[str, Tensor], meetings: Meetings, counts: list[int], remember: bool
    ) -> dict[str, Tensor]:
        """See OnSurfaces.march: colour, the probability of each label, distance."""
        config = self.config
        points = Sparse.of(meetings, counts)
        x = points.at(meetings.points) * config.surfaces.scale
        raw, descriptor = self.geometry(planes, x, points.counts, remember)
        weights = points.weights(F.softplus(raw[:, 0]), config.delta)
        labels = raw[:, 1:].softmax(1)
        seen = (points.at(weights.detach()) > config.skip_weight).nonzero()[:, 0]
        face = torch.arange(len(counts)).repeat_interleave(torch.tensor(points.counts))
        face, club = face.to(seen.device)[seen], self.club(labels[seen])
        order = (face * len(self.clubs) + club).argsort()
        seen, face, club = seen[order], face[order], club[order]
        shown = points.chosen(seen)
        colour = self.appearance(planes, descriptor[seen], face, club, remember)
        return {
            "colour": shown.summed(widened(colour), weights),
            "labels": points.summed(labels, weights),
            "distance": mean_distance(meetings, weights),
        }

    def club(self, labels: Tensor) -> Tensor:
        """Semantic volume masking: the likeliest club int64 [P] of label probabilities [P,19]."""
        clubbed = labels.new_zeros(len(labels), len(self.clubs))
        return clubbed.index_add(1, self.club_of, labels.detach()).argmax(1)

    def output(self, found: Mapping[str, Tensor]) -> Output:
        """See OnSurfaces.output."""
        seg = (found["labels"] + FLOOR).log()
        return Output(2 * found["colour"] - 1, seg, found["distance"])

    def cost(self, points: int) -> int:
        """See OnSurfaces.cost."""
        layers = self.config.depth + self.config.appearance_depth
        return remembered_bytes(layers, self.config.width, points)

    def volume(self, planes: Planes, c: Tensor, pixels: Tensor, learn: bool) -> dict[str, Tensor]:
        """What some rays of each of N faces see, marched together, to train.

        Args:    c [N,25]; pixels int64 [N,M], counted row by row. learn: the surfaces, too.
        Returns: as `march` has it, [N,M,...].
        """
        rays = self.intersections.lens.rays(c)
        chosen = [x.gather(1, pixels[:, :, None].expand(-1, -1, 3)).flatten(0, 1) for x in rays]
        with torch.set_grad_enabled(learn and torch.is_grad_enabled()):
            meetings = self.intersections.meet(*chosen)
        count = pixels.shape[1]
        remember = self.cost(meetings.valid.numel()) <= MEMORY
        found = self.march(planes, meetings, [count] * len(c), remember)
        return {k: v.unflatten(0, (-1, count)) for k, v in found.items()}


class Geometry(nn.Module):
    """The Geometry Module: points [P,3] -> density before its softplus and label logits [P,1+19],
    and descriptors [P,width]."""

    def __init__(self, config: ManifoldsConfig) -> None:
        super().__init__()
        self.films = Films(1, config.depth, 3, config.width, 1.0 / 3.0)
        bound = math.sqrt(6.0 / config.width) / HIDDEN
        shape = (config.reads or config.depth - 1, 1, config.width, 1 + len(LABELS))
        self.read = nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(1 + len(LABELS)))
        self.gain = config.gain
        with torch.no_grad():
            self.bias[0] = config.density_start

    def forward(
        self, planes: Mapping[str, Tensor], x: Tensor, counts: list[int], remember: bool
    ) -> tuple[Tensor, Tensor]:
        layers = self.films.folded(planes["gamma"], planes["beta"])
        read, descriptor = evaluate(layers, self.gain * self.read, x, counts, remember, True)
        return read + self.bias, descriptor


class Appearance(nn.Module):
    """The Appearance Module: descriptors [P,width], sorted by face and club -> colours before
    their sigmoid [P,3]."""

    def __init__(self, config: ManifoldsConfig) -> None:
        super().__init__()
        count, depth, width = len(config.clubs), config.appearance_depth, config.width
        bound = math.sqrt(6.0 / width) / HIDDEN
        self.films = Films(count if config.sharing == "none" else 1, depth, width, width, bound)
        sets = 1 if config.sharing == "all" else count
        shape = (config.reads or depth - 1, sets, width, 3)
        self.read = nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(sets, 3))
        self.gain = config.gain

    def forward(
        self, planes: Mapping[str, Tensor], x: Tensor, face: Tensor, club: Tensor, remember: bool
    ) -> Tensor:
        """face, club int64 [P], of points sorted by both.

        Where all clubs of a face have one style, their points need not be told apart before the
        last layer: groups are few and large.
        """
        gamma, beta = (planes[f"appearance_{k}"] for k in ("gamma", "beta"))
        own, sets = len(self.films.weights[0]) > 1, self.read.shape[1]
        if own and gamma.shape[1] == 1:
            gamma, beta = (v.expand(-1, sets, -1, -1) for v in (gamma, beta))
        faces, styles = gamma.shape[:2]
        chosen = torch.arange(styles, device=x.device).repeat(faces) if own else None
        layers = self.films.folded(gamma.flatten(0, 1), beta.flatten(0, 1), chosen)
        group = face * styles + club if styles > 1 else face
        counts = group.bincount(minlength=faces * styles).tolist()
        if styles > 1 and sets > 1:
            read = self.read.repeat(1, faces, 1, 1)
            return self._read(layers, read, x, counts, remember) + self.bias[club]
        read = self.read.transpose(1, 2).flatten(2)[:, None]  # of all sets at once
        found = self._read(layers, read, x, counts, remember).unflatten(1, (sets, 3)) + self.bias
        return found[torch.arange(len(x)), club] if sets > 1 else found[:, 0]

    def _read(
        self, layers: Any, read: Tensor, x: Tensor, counts: list[int], remember: bool
    ) -> Tensor:
        return evaluate(layers, self.gain * read, x, counts, remember)[0]


def club_numbers(clubs: Sequence[str]) -> Tensor:
    """The club int64 [19] of each label; labels of no club go to the first."""
    found = torch.zeros(len(LABELS), dtype=torch.int64)
    for number, name in enumerate(clubs):
        found[[label for region in CLUBS[name] for label in REGIONS[region]]] = number
    return found
