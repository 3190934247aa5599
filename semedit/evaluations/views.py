"""`semedit eval views`: whether random faces hold together as the camera moves, how much they
differ from each other, and whether a region can be exchanged without the others.

What slides 18 to 20 of Ma et al. 2023 (CNeRF, arXiv:2302.01579) show, as figures and as a grid.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from semedit import cameras, losses, metrics
from semedit.editors import Swap
from semedit.editors.transfer import whole_regions
from semedit.errors import OptionError
from semedit.generators import Output
from semedit.generators.contract import Generator
from semedit.inverters.codes import known_traits
from semedit.latents import Latent, fingerprint, picture
from semedit.media.masks import colorize
from semedit.media.pixels import resize, to_uint8
from semedit.options import check_traits
from semedit.renders import contact_sheet

PARTS = ("consistency", "diversity", "swaps")
YAWS_DEG = (-30.0, -15.0, 15.0, 30.0)  # from where a face is seen besides the front
NEAR = 0.04  # world units that two views' surfaces may differ and still be the same point
SWAPPED = ("hair", "mouth", "eyes", "nose", "brows")  # regions that are exchanged, in turn
GROW = 3  # hundredths of the side that a region is widened by before "outside" begins
LEAST = 8  # pixels of a donor's region whose overlap is worth taking
SHOWN = 6  # faces, and swaps, of the grid

Progress = Callable[[str, int, int], None]  # part, done, in all
Figures = dict[str, float]


@dataclass(frozen=True)
class ViewsEvaluation:
    """What is evaluated on random faces.

    parts    some of PARTS
    faces    for views and diversity
    pairs    of faces, for exchanged regions
    """

    requires: ClassVar[frozenset[str]] = frozenset({"camera", "seg"})
    parts: tuple[str, ...] = PARTS
    faces: int = 16
    pairs: int = 50
    seed: int = 0
    rows: list[tuple[str, list[np.ndarray]]] = field(default_factory=list, compare=False)

    @torch.no_grad()
    def __call__(self, generator: Generator, progress: Progress | None = None) -> dict[str, Any]:
        """Evaluate; pictures for `grid` are kept in `rows`.

        Returns: figures; see `reprojection`, `diversity` and `swaps`.
        Raises:  OptionError: an unknown part, or too few faces.  TraitError: no camera.
        """
        unknown = [part for part in self.parts if part not in PARTS]
        if unknown or self.faces < 2 or self.pairs < 1:
            raise OptionError(
                f"there is no part {unknown[0]} to evaluate; parts: {', '.join(PARTS)}"
                if unknown
                else "views and swaps are measured on two faces or more"
            )
        check_traits("eval views", self, generator, known_traits())
        tell = progress or (lambda part, done, total: None)
        self.rows.clear()
        figures: dict[str, Any] = {}
        codes = random_codes(generator, self.faces, self.seed)
        if {"consistency", "diversity"} & set(self.parts):
            figures |= self._views(generator, codes, tell)
        if "swaps" in self.parts and "regions" in generator.traits:
            figures |= self._swaps(generator, tell)
        return {k: round(v, 4) if isinstance(v, float) else v for k, v in figures.items()}

    def _views(
        self, generator: Generator, codes: Sequence[dict[str, Tensor]], tell: Progress
    ) -> Figures:
        """Mean reprojection errors by angle, and how much the fronts differ."""
        found: dict[float, list[tuple[float, float]]] = {}
        fronts = []
        for i, face in enumerate(codes):
            front = seen_from(generator, face, 0.0)
            fronts.append(front.image)
            if "consistency" in self.parts:
                turned = {yaw: seen_from(generator, face, yaw) for yaw in YAWS_DEG}
                for yaw, view in turned.items():
                    told = reprojection(generator, front, view, yaw)
                    found.setdefault(abs(yaw), []).append(told)
                if i < SHOWN:
                    views = {**turned, 0.0: front}
                    row = [to_uint8(views[yaw].image)[0] for yaw in sorted(views)]
                    self.rows.append((f"face {i}", [*row, _map(front)]))
            tell("views", i + 1, len(codes))
        figures = {}
        for angle, values in sorted(found.items()):
            error, share = torch.tensor(values).nanmean(0).tolist()
            figures[f"reprojection_{angle:.0f}"] = error
            figures[f"reprojection_{angle:.0f}_seen"] = share
        return figures | (diversity(fronts) if "diversity" in self.parts else {})

    def _swaps(self, generator: Generator, tell: Progress) -> Figures:
        """Regions exchanged between faces, the regions in turn.

        swap_outside  mean change of the pixels that are outside the region before and after, as
                      a share of the range; swap_outside_NAME of one region
        swap_inside   the same of those inside
        swap_labels   share of the pixels outside whose label stayed
        swap_taken    IoU of the region afterwards with the donor's, where the donor has it;
                      swap_taken_NAME of one region

        Raises: OptionError: none of SWAPPED is a region here.
        """
        names = [name for name in SWAPPED if draws_region(generator, name)]
        if not names:
            raise OptionError(f"{generator.name} draws none of {', '.join(SWAPPED)}")
        changes: dict[str, list[tuple[float, float, float]]] = {}
        taken: dict[str, list[float]] = {}
        for i in range(self.pairs):
            pair = random_codes(generator, 2, self.seed + 1_000 + i)
            name = names[i % len(names)]
            before, donor, after = exchanged(generator, pair, name)
            changes.setdefault(name, []).append(change(before, after, name))
            wanted, found = (region_of(view, name) for view in (donor, after))
            if wanted.sum() >= LEAST:
                taken.setdefault(name, []).append(float(metrics.region_iou(found, wanted)))
            if i < SHOWN:
                views = before, donor, after
                row = [to_uint8(view.image)[0] for view in views]
                self.rows.append((name, [*row, *(_map(view) for view in views)]))
            tell("swaps", i + 1, self.pairs)
        every = [value for values in changes.values() for value in values]
        outside, inside, labels = torch.tensor(every).mean(0).tolist()
        figures = {"swap_outside": outside, "swap_inside": inside, "swap_labels": labels}
        for name, values in changes.items():
            figures[f"swap_outside_{name}"] = float(torch.tensor(values)[:, 0].mean())
        means = {name: sum(values) / len(values) for name, values in taken.items()}
        if means:
            figures["swap_taken"] = sum(means.values()) / len(means)
        return figures | {f"swap_taken_{name}": value for name, value in means.items()}

    def grid(self) -> np.ndarray:
        """The pictures of the last call, uint8 [H,W,3]: faces seen from the left to the right, and
        the label map of the front; face, donor and face with a region of the donor, and theirs."""
        if not self.rows:
            raise OptionError("nothing was drawn", "include the part consistency or swaps")
        return contact_sheet(
            [row for _, row in self.rows], row_captions=[name for name, _ in self.rows], cell=128
        )


def random_codes(generator: Generator, count: int, seed: int) -> list[dict[str, Tensor]]:
    """Codes of random faces, one at a time."""
    device = generator.device
    numbers = torch.Generator().manual_seed(seed)
    z = torch.randn(count, generator.z_dim, generator=numbers).to(device)
    c = cameras.canonical().to(device)
    return [generator.mapping(one[None], c) for one in z]


def seen_from(generator: Generator, codes: dict[str, Tensor], yaw_deg: float) -> Output:
    """One face, seen from the side."""
    device = next(iter(codes.values())).device
    output: Output = generator.synthesis(codes, _camera(yaw_deg).to(device))
    return output


def _camera(yaw_deg: float) -> Tensor:
    return cameras.aligned(math.radians(yaw_deg))


def reprojection(
    generator: Generator, front: Output, view: Output, yaw_deg: float
) -> tuple[float, float]:
    """How far a view differs from the front where both show the same point.

    Each pixel of the front is put where its depth says it is, and looked up in the other view;
    it counts where the surface of that view is there, too, and it is not background.

    Returns: mean absolute difference as a share of the range; share of the front's pixels of the
             head that count.
    """
    assert front.depth is not None and view.depth is not None and front.seg is not None
    side = front.depth.shape[-1]
    zoom = getattr(generator, "zoom", 1.0)
    c, other = (cameras.zoomed(_camera(yaw).to(front.depth), zoom) for yaw in (0.0, yaw_deg))
    origins, directions = cameras.rays(c, side)
    points = origins + directions * front.depth.flatten(1)[..., None]
    uv, _ = cameras.project(points, other)
    eye = cameras.split(other)[0][:, None, :3, 3]
    distance = (points - eye).norm(dim=-1)
    places = (2 * uv - 1)[:, :, None]  # [1,P,1,2]
    image, was = (resize(x.image.clamp(-1, 1), side) for x in (view, front))
    there = F.grid_sample(view.depth, places, padding_mode="border", align_corners=False)
    colour = F.grid_sample(image, places, padding_mode="border", align_corners=False)[..., 0]
    head = resize(front.seg, side).argmax(1).flatten(1) > 0
    inside = ((uv > 0) & (uv < 1)).all(-1)
    same = head & inside & ((there[:, 0, :, 0] - distance).abs() < NEAR)
    if not bool(same.any()):
        return math.nan, 0.0
    error = (colour - was.flatten(2)).abs().mean(1) / 2
    return float(error[same].mean()), float(same.sum() / head.sum())


def diversity(images: Sequence[Tensor]) -> dict[str, Any]:
    """diversity: mean perceptual distance of all pairs; diversity_by: the network it is of."""
    perceptual = losses.perceptual("auto", images[0].device)
    features = [perceptual.features(image.clamp(-1, 1)) for image in images]
    found = [float(losses.distance(a, b)) for a, b in combinations(features, 2)]
    return {"diversity": sum(found) / len(found), "diversity_by": perceptual.name}


def draws_region(generator: Generator, region: str) -> bool:
    """Whether a generator whose codes have regions draws this one."""
    try:
        return bool(generator.covering([region]))
    except OptionError:
        return False


def exchanged(
    generator: Generator, pair: Sequence[dict[str, Tensor]], region: str
) -> tuple[Output, Output, Output]:
    """A face, its donor, and the face with a region of the donor, from the front."""
    c = _camera(0.0).to(next(iter(pair[0].values())))
    mark = fingerprint(generator)
    face, donor = (Latent(codes, c, generator.name, mark, "random") for codes in pair)
    before = picture(generator, face)
    assert before.seg is not None  # see ViewsEvaluation.requires
    labels = resize(before.seg, generator.resolution).argmax(1)
    after = Swap(regions=(region,))(generator, face, donor, labels)
    return before, picture(generator, donor), picture(generator, after)


def region_of(view: Output, region: str) -> Tensor:
    """Where a view shows a region and what belongs to it: float32 [1,1,R,R], 0 or 1."""
    return losses.region(_labels(view), whole_regions([region]))


def _labels(view: Output) -> Tensor:
    """int64 [1,R,R]."""
    assert view.seg is not None  # see ViewsEvaluation.requires
    return resize(view.seg, view.image.shape[-1]).argmax(1)


def _map(view: Output) -> np.ndarray:
    """The label map in colours, uint8 [R,R,3]."""
    return colorize(_labels(view)[0].cpu().numpy())


def change(before: Output, after: Output, region: str) -> tuple[float, float, float]:
    """Change outside and inside a region, and the share of labels outside that stayed."""
    side = before.image.shape[-1]
    labels = [_labels(view) for view in (before, after)]
    mask = torch.maximum(*(region_of(view, region) for view in (before, after)))
    near = losses.dilate(mask, math.ceil(GROW * side / 100))
    outside = 1 - near
    stayed = (labels[0] == labels[1])[:, None][outside > 0].float()
    return (
        float(metrics.mean_change(after.image, before.image, outside)),
        float(metrics.mean_change(after.image, before.image, near)),
        float(stayed.mean()) if len(stayed) else 1.0,
    )
