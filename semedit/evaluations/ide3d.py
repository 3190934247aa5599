"""`semedit eval ide3d`: what Sun et al. 2022 (IDE-3D, arXiv:2205.15517) measure, on rendered heads.

inversion   figure 7: where hybrid inversion starts, and what becomes of views never seen
canonical   figure 4: an encoder that sees faces from the front, against free views
texture     section 4.3: regions with another texture
masks       edits by label map in one pass
identity    table 1: one face from two random cameras
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from semedit import cameras, losses, metrics
from semedit.editors import Canonical, Texture
from semedit.editors.canonical import canonical_encoder
from semedit.errors import MaskError, OptionError
from semedit.evaluations.attributes import Embedding
from semedit.evaluations.heads import HeadAtSize, at_resolution, mask_figures
from semedit.faces.identity import similarity
from semedit.generators.contract import Generator
from semedit.heads.truth import Truth
from semedit.inverters import Hybrid
from semedit.latents import Latent, synthesize
from semedit.media.pixels import resize

PARTS = ("inversion", "canonical", "texture", "masks", "identity")
YAWS_DEG = tuple(range(-60, 61, 15))  # of figure 4
REGIONS = ("hair", "lips", "skin,nose", "brows", "cloth")  # that get another texture, in turn
SETTINGS = ("free", "front", "canonical")  # of figure 4: what is encoded, by whom

Progress = Callable[[str, int, int], None]  # part, done, in all
Encode = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class IDE3DEvaluation:
    """What is evaluated.

    parts      some of PARTS
    encoders   name -> encoder that inversion starts from, beside the mean code
    inverter   that inversion; its steps are the same for all starts
    editor     edits by label map in one pass; its encoder is that of figure 4
    views      faces of figure 4 at each yaw
    pairs      of identity
    """

    parts: tuple[str, ...] = PARTS
    encoders: dict[str, nn.Module] = field(default_factory=dict)
    inverter: Hybrid = field(default_factory=Hybrid)
    editor: Canonical = field(default_factory=Canonical)
    views: int = 24
    pairs: int = 100
    seed: int = 0

    def __call__(
        self,
        truths: Sequence[Truth],
        generator: Generator,
        embed: Embedding | None = None,
        progress: Progress | None = None,
    ) -> dict[str, Any]:
        """Evaluate.

        Args:    truths: held-out heads. embed: needed by identity.
        Returns: figures; see `start_figures`, `canonical_figures`, `texture_figures`,
                 `heads.mask_figures` and `identity_figures`.
        Raises:  OptionError: an unknown part, or no heads.
        """
        unknown = [part for part in self.parts if part not in PARTS]
        if unknown or not truths:
            raise OptionError(
                f"there is no part {unknown[0]} to evaluate; parts: {', '.join(PARTS)}"
                if unknown
                else "there are no heads to evaluate"
            )
        tell = progress or (lambda part, done, total: None)
        device = generator.device
        heads = [at_resolution(truth, generator.resolution, device) for truth in truths]
        figures: dict[str, Any] = {}
        if "inversion" in self.parts:
            figures |= start_figures(generator, heads, self.encoders, self.inverter, tell)
        if "canonical" in self.parts:
            (name,) = self.editor.weights_of(generator.name)
            encoder = canonical_encoder(name, generator)
            figures |= canonical_figures(generator, heads, encoder, self.views, self.seed, tell)
        if {"texture", "masks"} & set(self.parts):
            latents = inverted(generator, heads, self.inverter, tell)
            if "texture" in self.parts:
                figures |= texture_figures(generator, heads, latents, tell)
            if "masks" in self.parts:
                figures |= self._masks(generator, heads, latents, tell)
        if "identity" in self.parts:
            assert embed is not None
            figures |= identity_figures(generator, embed, self.pairs, self.seed, tell)
        return figures

    def _masks(
        self,
        generator: Generator,
        heads: Sequence[HeadAtSize],
        latents: Sequence[Latent],
        tell: Progress,
    ) -> dict[str, float]:
        """The figures of edits by label map, and canonical_edit_seconds: wall clock of an edit,
        the median over the heads."""
        seconds: list[float] = []

        def edit(*args: Any) -> Latent:
            began = time.perf_counter()
            after = self.editor(*args)
            seconds.append(time.perf_counter() - began)
            return after

        found = mask_figures(generator, heads, latents, edit, 1, tell)
        renamed = {f"canonical_{k.removeprefix('mask_')}": v for k, v in found.items()}
        return renamed | {"canonical_edit_seconds": statistics.median(seconds)}


def inverted(
    generator: Generator,
    heads: Sequence[HeadAtSize],
    inverter: Hybrid,
    tell: Progress,
    batch: int = 4,
) -> list[Latent]:
    """One latent a head."""
    found: list[Latent] = []
    for first in range(0, len(heads), batch):
        part = heads[first : first + batch]
        latent = inverter(generator, *stacked(part))
        found.extend(latent[i] for i in range(len(latent)))
        tell("inversion", len(found), len(heads))
    return found


def stacked(heads: Sequence[HeadAtSize]) -> tuple[Tensor, Tensor, Tensor]:
    """images [N,3,R,R], labels [N,R,R] and c [N,25] of heads."""
    images, labels, c = (
        torch.cat([getattr(head, name) for head in heads]) for name in ("image", "labels", "c")
    )
    return images, labels, c


@contextmanager
def starting_from(generator: Any, encode: Encode) -> Iterator[None]:
    """Let inversions of a generator start where `encode` sees faces."""
    held = generator._encoder
    generator._encoder = (_Start(encode),)
    try:
        yield
    finally:
        generator._encoder = held


class _Start(nn.Module):
    def __init__(self, encode: Encode) -> None:
        super().__init__()
        self._encode = encode

    def forward(self, images: Tensor, labels: Tensor, c: Tensor) -> Tensor:
        return self._encode(images, labels, c)


# --- figure 7 --------------------------------------------------------------------------------


def start_figures(
    generator: Generator,
    heads: Sequence[HeadAtSize],
    encoders: dict[str, nn.Module],
    inverter: Hybrid,
    tell: Progress,
) -> dict[str, float]:
    """Where inversion starts, at equal steps.

    For every start NAME ("mean" is the mean code), mean over the heads:

    NAME_start_db        PSNR of the start itself in the view that is inverted
    NAME_start_side_db   the same in the heads' other views (heads.truth), against the true ones
    NAME_input_db        PSNR behind all of the inverter's steps, in the view that is inverted
    NAME_side_db         the same in the other views
    NAME_start_views_db, NAME_views_db   means over all views, the inverted one and the others
    """
    mean = generator.mean_codes()["ws"]
    starts: dict[str, Encode] = {
        "mean": lambda images, labels, c: mean.expand(len(images), -1, -1),
        **encoders,
    }
    images, labels, c = stacked(heads)
    figures: dict[str, float] = {}
    for name, encode in starts.items():
        with starting_from(generator, encode):
            with torch.no_grad():
                ws = generator.encode(images, labels, c)["ws"]
            begun = [_latent(generator, ws[i : i + 1], c[i : i + 1]) for i in range(len(heads))]
            found = inverted(generator, heads, inverter, tell)
        for stage, latents in (("start_", begun), ("", found)):
            own, side = _decibels(generator, heads, latents)
            key = "start_db" if stage else "input_db"
            sets = {key: own, f"{stage}side_db": side, f"{stage}views_db": own + side}
            figures |= {f"{name}_{k}": statistics.fmean(values) for k, values in sets.items()}
    return figures


def _latent(generator: Generator, ws: Tensor, c: Tensor) -> Latent:
    return Latent({"ws": ws}, c, generator.name, "", "encoder")


@torch.no_grad()
def _decibels(
    generator: Generator, heads: Sequence[HeadAtSize], latents: Sequence[Latent]
) -> tuple[list[float], list[float]]:
    """PSNR in the heads' own view and in their others."""
    own: list[float] = []
    side: list[float] = []
    for head, latent in zip(heads, latents, strict=True):
        own += metrics.psnr(synthesize(generator, latent).image, head.image).tolist()
        for c, image in head.views:
            side += metrics.psnr(synthesize(generator, latent, c).image, image).tolist()
    return own, side


# --- figure 4 --------------------------------------------------------------------------------


@torch.no_grad()
def canonical_figures(
    generator: Generator,
    heads: Sequence[HeadAtSize],
    encoder: nn.Module,
    count: int,
    seed: int,
    tell: Progress,
) -> dict[str, Any]:
    """How well codes are found from a view at each yaw, and from the front.

    Faces are the generator's, with codes of the held-out heads and another head's texture. Each is
    encoded, drawn from the codes that are found in a random view, and compared there:

    free        the generator's own encoder sees the face at the yaw
    front       it sees the face from the front
    canonical   the canonical encoder sees the face from the front

    figure4     yaw -> setting -> {"db": PSNR, "perceptual": distance, "labels": share of right
                labels}, means over `count` faces
    free_db, front_db, canonical_db   means over all yaws
    """
    numbers = torch.Generator().manual_seed(seed)
    perceptual = losses.perceptual("auto", heads[0].image.device)
    images, labels, c = stacked(heads)
    seen = generator.encode(images, labels, c)["ws"]
    table: dict[int, dict[str, dict[str, float]]] = {}
    for done, yaw in enumerate(YAWS_DEG):
        rows = [
            _three_ways(
                generator, encoder, _mixed(generator, seen, numbers), yaw, numbers, perceptual
            )
            for _ in range(count)
        ]
        means = {name: torch.stack([row[name] for row in rows]).mean(0) for name in SETTINGS}
        table[yaw] = {
            name: dict(zip(("db", "perceptual", "labels"), values.tolist(), strict=True))
            for name, values in means.items()
        }
        tell("canonical", done + 1, len(YAWS_DEG))
    whole = {f"{n}_db": sum(row[n]["db"] for row in table.values()) / len(table) for n in SETTINGS}
    return {"figure4": table, **whole}


def _mixed(generator: Generator, seen: Tensor, numbers: torch.Generator) -> Tensor:
    """Styles [1,num_ws,w_dim]: the shape of one of `seen` [M,num_ws,w_dim], another's texture."""
    shape, texture = torch.randint(len(seen), (2,), generator=numbers).tolist()
    cut = generator.num_shape
    return torch.cat([seen[shape : shape + 1, :cut], seen[texture : texture + 1, cut:]], 1)


def _three_ways(
    generator: Generator,
    encoder: nn.Module,
    ws: Tensor,
    yaw_deg: float,
    numbers: torch.Generator,
    perceptual: losses.Perceptual,
) -> dict[str, Tensor]:
    """Agreement [3] of one face with what each of SETTINGS finds, in a random view."""
    limit = math.radians(generator.view_limit_deg[0])
    away = (2 * torch.rand(1, generator=numbers) - 1) * limit
    yaws = torch.cat([torch.tensor([math.radians(yaw_deg), 0.0]), away])
    views = cameras.aligned(yaws).to(ws)
    shown = generator.render(generator.planes({"ws": ws}), views)
    images, labels = shown.image.clamp(-1, 1), _labels(shown.seg, generator.resolution)
    found = {}
    own = generator.encoder
    assert own is not None  # SETTINGS ask for it
    for name, network, view in zip(SETTINGS, (own, own, encoder), (0, 1, 1), strict=True):
        row = slice(view, view + 1)
        codes = network(images[row], labels[row], views[row])
        drawn = generator.render(generator.planes({"ws": codes}), views[2:])
        found[name] = _agreement(drawn, images[2:], labels[2:], perceptual)
    return found


def _labels(seg: Tensor | None, size: int) -> Tensor:
    assert seg is not None
    return resize(seg, size).argmax(1)


def _agreement(drawn: Any, image: Tensor, labels: Tensor, perceptual: losses.Perceptual) -> Tensor:
    """PSNR, perceptual distance and share of right labels [3] of one view."""
    features = perceptual.features
    distance = losses.distance(features(drawn.image), features(image))
    right = metrics.label_accuracy(_labels(drawn.seg, labels.shape[-1]), labels)
    return torch.cat([metrics.psnr(drawn.image, image), distance, right])


# --- regions with another texture ------------------------------------------------------------


@torch.no_grad()
def texture_figures(
    generator: Generator, heads: Sequence[HeadAtSize], latents: Sequence[Latent], tell: Progress
) -> dict[str, float]:
    """One region of each head gets the texture of the next head, REGIONS in turn.

    Nothing is kept by a composite, so all that changes counts.

    texture_inside_change    mean absolute change of pixels whose label, before the edit, is of the
                             region; a share of the range
    texture_outside_change   the same of all other pixels
    texture_colour           how far the region's mean colour is from that of the donor's region, a
                             share of what it was before, from the sums over the heads
    texture_label_miou       mean IoU of the label maps before and after, over the classes present
                             before, from one confusion matrix of all heads
    texture_label_accuracy   share of pixels that keep their label
    """
    inside, outside, right, ways = [], [], [], []
    counts = torch.zeros(19, 19, dtype=torch.long)
    for i, latent in enumerate(latents):
        method = Texture(REGIONS[i % len(REGIONS)], composite=False)
        donor = latents[(i + 1) % len(latents)]
        try:
            edited = method(generator, latent, donor)
        except MaskError:
            continue
        before, after = synthesize(generator, latent), synthesize(generator, edited)
        first, second = (_labels(x.seg, generator.resolution) for x in (before, after))
        region = torch.isin(first, torch.tensor(method.labels)).float()[:, None]
        inside.append(metrics.mean_change(after.image, before.image, region))
        outside.append(metrics.mean_change(after.image, before.image, 1 - region))
        right.append(metrics.label_accuracy(second, first))
        counts += metrics.confusion(second, first)
        given = synthesize(generator, donor)
        whose = torch.isin(_labels(given.seg, generator.resolution), torch.tensor(method.labels))
        if bool(whose.any()):
            wanted = _colour(given.image, whose.float()[:, None])
            ways.append(
                [float((_colour(x.image, region) - wanted).norm()) for x in (before, after)]
            )
        tell("texture", i + 1, len(latents))
    far = torch.tensor(ways).sum(0)
    return {
        "texture_inside_change": float(torch.cat(inside).mean()),
        "texture_outside_change": float(torch.cat(outside).mean()),
        "texture_colour": float(far[1] / far[0]) if ways else math.nan,
        "texture_label_miou": metrics.mean_iou(counts),
        "texture_label_accuracy": float(torch.cat(right).mean()),
    }


def _colour(image: Tensor, mask: Tensor) -> Tensor:
    """Mean colour [3] of image [1,3,R,R] where mask [1,1,R,R] is 1."""
    return (image * mask).sum((0, 2, 3)) / mask.sum()


# --- identity --------------------------------------------------------------------------------


@torch.no_grad()
def identity_figures(
    generator: Generator, embed: Embedding, pairs: int, seed: int, tell: Progress
) -> dict[str, Any]:
    """Mean cosine of a face's embeddings from two cameras drawn from within its limits.

    identity        of random z
    identity_by     whose embedding it is; what the same head and others reach says
                    `attributes.calibration`
    """
    numbers = torch.Generator().manual_seed(seed)
    device = generator.mean_codes()["ws"].device
    limit = torch.tensor(generator.view_limit_deg).deg2rad()
    found = []
    for i in range(pairs):
        z = torch.randn(1, generator.z_dim, generator=numbers).to(device)
        yaw, pitch = (2 * torch.rand(2, 2, generator=numbers) - 1) * limit[:, None]
        c = cameras.aligned(yaw, pitch).to(device)
        planes = generator.planes(generator.mapping(z, c[:1]))
        both = embed(generator.render(planes, c).image.clamp(-1, 1))
        found.append(similarity(both[:1], both[1:]))
        tell("identity", i + 1, pairs)
    return {"identity": float(torch.cat(found).mean()), "identity_by": embed.name}
