"""Trainer of the network that carries the photograph's detail into an edit, on rendered heads.

Heads truly edited tell what photographs never do: what the same picture looks like after the edit.

    pixel       |y - b| in the changed region             slope   |grad y - grad b| there
    sharpness   | |grad y| - |grad b| |, means over cells of CELL px: as many edges as the truth has
    adversary   -log D(y): crops that a discriminator cannot tell from true ones

with y = DetailNet's picture of a's edit, a and b the head before and after a true edit. What the
generator draws is imitated, blurred and a little off, or taken from true inversions and edits.

Every twentieth head is held out.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semedit import metrics
from semedit.datasets.augment import mirrored_labels
from semedit.datasets.edited import Edited, read_edited
from semedit.detail.carry import changed_region, enlarge, relabel
from semedit.detail.network import NAME, DetailNet, drawn_with
from semedit.generators import load_generator
from semedit.inverters import Hybrid
from semedit.losses import discriminator_loss, feather, generator_loss, r1
from semedit.trainers.loop import write_weights
from semedit.trainers.parts.drawings import WAYS, Drawings, drawings

CELL = 8  # px
R1_EVERY = 8  # steps between two gradient penalties, in the mean


@dataclass(frozen=True, eq=False)
class Pairs:
    """Of N edits: photo, before, after, truth float32 [N,3,S,S] in [-1,1]; region [N,1,S,S];
    labels, labels_after int64 [N,S,S]. before, after: photo and truth as a generator draws them."""

    photo: Tensor
    before: Tensor
    after: Tensor
    truth: Tensor
    region: Tensor
    labels: Tensor
    labels_after: Tensor

    def map(self, change: Any) -> Pairs:
        """The same with every tensor changed."""
        return Pairs(**{name: change(value) for name, value in vars(self).items()})


def slopes(image: Tensor) -> tuple[Tensor, Tensor]:
    """Differences to the next pixel, along rows [N,C,S,S-1] and columns [N,C,S-1,S]."""
    return image[..., 1:] - image[..., :-1], image[..., 1:, :] - image[..., :-1, :]


def pixel_loss(image: Tensor, truth: Tensor, region: Tensor) -> Tensor:
    """Mean over the region of |image - truth|."""
    return ((image - truth).abs() * region).sum() / (3 * region.sum()).clamp(min=1)


def slope_loss(image: Tensor, truth: Tensor, region: Tensor) -> Tensor:
    """Mean over the region of |grad image - grad truth|, both ways."""
    inside = region[..., 1:], region[..., 1:, :]
    pairs = zip(slopes(image), slopes(truth), inside, strict=True)
    return torch.stack([pixel_loss(a, b, m) for a, b, m in pairs]).sum()


def sharpness_loss(image: Tensor, truth: Tensor, region: Tensor) -> Tensor:
    """Mean over the region's cells of how far the mean |grad image| is from that of the truth."""
    total = image.new_zeros(())
    for a, b, m in zip(
        slopes(image), slopes(truth), (region[..., 1:], region[..., 1:, :]), strict=True
    ):
        inside = F.avg_pool2d(m, CELL, ceil_mode=True)
        pools = [F.avg_pool2d(x.abs().mean(1, True) * m, CELL, ceil_mode=True) for x in (a, b)]
        total = total + (pools[0] - pools[1]).abs().sum() / inside.sum().clamp(min=1)
    return total


class Critic(nn.Module):
    """Whether the changed region of a crop is of a photograph: logits [N,h,w], one for about
    16 x 16 px each, of picture and enlarged edit [N,3,S,S] and region [N,1,S,S]."""

    def __init__(self, widths: tuple[int, ...] = (40, 64, 96)) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.PixelUnshuffle(2), nn.Conv2d(4 * 7, widths[0], 3, 1, 1)]
        for before, after in pairwise(widths):
            layers += [nn.LeakyReLU(0.2), nn.Conv2d(before, after, 4, 2, 1)]
        self.body = nn.Sequential(*layers, nn.LeakyReLU(0.2), nn.Conv2d(widths[-1], 1, 3, 1, 1))

    def forward(self, image: Tensor, after: Tensor, region: Tensor) -> Tensor:
        return self.body(torch.cat([image, after, region], 1))[:, 0].float()


def verdict(logits: Tensor, region: Tensor) -> Tensor:
    """Where the critic's logits [N,h,w] count: the region's share of each [N,h,w]."""
    height, width = logits.shape[-2:]
    return F.adaptive_avg_pool2d(region, (height, width))[:, 0]


@dataclass(frozen=True)
class DetailTrainer:
    """Edits at the photograph's own size: its detail, moved with the edit."""

    name: ClassVar[str] = "detail"

    batch_size: int = 6  # crops
    crop: int = 128  # px a side of these, about what changed
    lr: float = 1.5e-3  # Adam
    generator: str = "heads-128"  # whose drawings it learns to sharpen
    drawn: int = 300  # heads that this generator inverts and edits; 0: none
    drawn_share: float = 0.5  # of the crops, from these
    steps: int = 12  # of codes, in inverting these
    tune_steps: int = 20  # of planes
    slope: float = 0.5  # weight of slopes
    sharpness: float = 1.0  # weight of sharpness
    adversary: float = 0.02  # weight of the adversary
    critic_from: float = 0.3  # part of the run at which the adversary begins
    critic_lr: float = 4e-4  # Adam
    r1: float = 1.0  # weight of the critic's gradient penalty

    def start(self, data: Path) -> DetailTask:
        """The task on a folder of `semedit heads --edits N`.

        Raises: InputError: no such folder.
        """
        network = DetailNet()
        edited = read_edited(data, network.size)
        drawn = None
        if self.drawn:
            generator = load_generator(self.generator, "cpu")
            inverter = Hybrid(steps=self.steps, tune_steps=self.tune_steps)
            drawn = drawings(edited, generator, inverter, self.drawn)
        return DetailTask(self, edited, network, drawn)


class DetailTask:
    """DetailNet and its critic; see loop.TrainingTask."""

    def __init__(
        self, trainer: DetailTrainer, data: Edited, network: DetailNet, drawn: Drawings | None
    ) -> None:
        self.trainer, self.data, self.network, self.drawn = trainer, data, network, drawn
        self.critic = Critic()
        self.modules: dict[str, nn.Module] = {"network": network, "critic": self.critic}
        self.averaged = ("network",)
        self.optimisers: dict[str, torch.optim.Optimizer] = {
            "network": torch.optim.Adam(network.parameters(), trainer.lr, (0.9, 0.99)),
            "critic": torch.optim.Adam(self.critic.parameters(), trainer.critic_lr, (0.5, 0.99)),
        }
        self.size = len(data.train)
        held = 0 if drawn is None else len(drawn)
        self._drawn_heads = data.train[data.train < held]

    def batch(self, indices: Tensor) -> Pairs:
        """Crops about what changed: of imitated drawings of these heads, or of true ones."""
        rows = []
        for head in self.data.train[indices.numpy()]:
            use = len(self._drawn_heads) and float(torch.rand(())) < self.trainer.drawn_share
            if use:
                pick = int(torch.randint(len(self._drawn_heads), ()))
                pair = self.true_pair(int(self._drawn_heads[pick]), *_random_edit(self.data))
            else:
                pair = self.imitated_pair(int(head))
            rows.append(_cropped(_mirrored(pair), self.trainer.crop))
        return Pairs(*(torch.cat([getattr(r, name) for r in rows]) for name in vars(rows[0])))

    def imitated_pair(self, head: int) -> Pairs:
        """Two of the head's states, one the photograph; both softened alike, each a little off."""
        states = torch.randperm(self.data.images.shape[1])[:2].tolist()
        photo, truth = self._pictures(head, states).split(1)
        before, after = softened(torch.cat([photo, truth])).split(1)
        labels = torch.from_numpy(self.data.labels[head, states].astype(np.int64))
        return _pair(photo, before, after, truth, labels[:1], labels[1:])

    def true_pair(self, head: int, edit: int, way: int) -> Pairs:
        """The head's inversion, and an edit of it, as the generator drew them."""
        assert self.drawn is not None
        size = self.network.size
        photo, truth = self._pictures(head, [0, 1 + edit]).split(1)
        before, after = (
            enlarge(torch.from_numpy(p[None].astype(np.float32)).permute(0, 3, 1, 2) / 127.5 - 1, n)
            for p, n in (
                (self.drawn.before[head], size),
                (self.drawn.after[head, edit, way], size),
            )
        )
        ids = (self.drawn.labels[head], self.drawn.labels_after[head, edit, way])
        labels, other = (relabel(torch.from_numpy(x[None].astype(np.int64)), size) for x in ids)
        return _pair(photo, before, after, truth, labels, other)

    def _pictures(self, head: int, states: list[int]) -> Tensor:
        pixels = torch.from_numpy(self.data.images[head, states].astype(np.float32))
        return pixels.permute(0, 3, 1, 2) / 127.5 - 1

    def draw(self, network: nn.Module, pairs: Pairs) -> Tensor:
        """The network's pictures [N,3,S,S]: the photograph outside the region."""
        carried = cast(DetailNet, network)(
            pairs.photo,
            pairs.before,
            pairs.after,
            pairs.region,
            pairs.labels,
            pairs.labels_after,
        )
        drawn = drawn_with(carried, pairs.photo, pairs.before, pairs.after)
        return pairs.photo + pairs.region * (drawn - pairs.photo)

    def step(self, batch: Pairs, progress: float) -> dict[str, float]:
        """One update of the network, and of the critic once it has begun."""
        trainer = self.trainer
        image = self.draw(self.network, batch)
        told = {
            "pixel": pixel_loss(image, batch.truth, batch.region),
            "slope": slope_loss(image, batch.truth, batch.region),
            "sharpness": sharpness_loss(image, batch.truth, batch.region),
        }
        loss = told["pixel"] + trainer.slope * told["slope"] + trainer.sharpness * told["sharpness"]
        begun = trainer.adversary > 0 and progress >= trainer.critic_from
        if begun:
            told["critic"] = self._teach(batch, image.detach())
            told["adversary"] = self._fooled(batch, image)
            loss = loss + trainer.adversary * told["adversary"]
        optimiser = self.optimisers["network"]
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        optimiser.step()
        return {name: float(value.detach()) for name, value in told.items()}

    def _fooled(self, batch: Pairs, image: Tensor) -> Tensor:
        self.critic.requires_grad_(False)
        logits = self.critic(image, batch.after, batch.region)
        self.critic.requires_grad_(True)
        counts = verdict(logits, batch.region)
        return (generator_loss(logits) * counts).sum() / counts.sum().clamp(min=1)

    def _teach(self, batch: Pairs, image: Tensor) -> Tensor:
        """One update of the critic: true crops, which are the photograph outside the region, too,
        against drawn ones."""
        real = batch.photo + batch.region * (batch.truth - batch.photo)
        penalised = float(torch.rand(())) < 1 / R1_EVERY
        real.requires_grad_(penalised)
        logits = self.critic(real, batch.after, batch.region)
        counts = verdict(logits, batch.region)
        apart = discriminator_loss(logits, self.critic(image, batch.after, batch.region))
        loss = (apart * counts).sum() / counts.sum().clamp(min=1)
        told = loss.detach()
        if penalised:
            # A crop may hold nothing that changed: it has no verdict, and no gradient.
            each = counts.flatten(1).sum(1).clamp(min=1e-6)
            slope = r1((logits * counts).flatten(1).sum(1) / each, real).mean()
            loss = loss + 0.5 * self.trainer.r1 * R1_EVERY * slope
        optimiser = self.optimisers["critic"]
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        return told

    def evaluate(self, modules: dict[str, nn.Module]) -> dict[str, float]:
        """Held-out heads in the changed region, whole pictures: PSNR to the true edit of the
        network, of the enlarged edit and of the photograph plus the difference of the drawings;
        mean gradients over the true ones'. Of true drawings where there are any (`drawn_`)."""
        figures: dict[str, float] = {}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            imitated = [self.imitated_pair(int(head)) for head in self.data.held[:40]]
            figures |= self._figures(modules["network"], imitated, "")
            if self.drawn is not None:
                true = [
                    self.true_pair(int(head), edit, way)
                    for head in self.data.held[self.data.held < len(self.drawn)]
                    for edit in range(self.data.kinds.shape[1])
                    for way in range(WAYS)
                ]
                figures |= self._figures(modules["network"], true, "drawn_")
        return figures

    def _figures(self, network: nn.Module, pairs: list[Pairs], prefix: str) -> dict[str, float]:
        rows: list[list[float]] = []
        for pair in pairs:
            if float(pair.region.sum()) < 50:
                continue
            plain = pair.photo + pair.after - pair.before
            row = []
            for image in (self.draw(network, pair), pair.after, plain):
                row += [float(metrics.psnr_within(image, pair.truth, pair.region))]
                row += [float(metrics.sharpness(image, pair.truth, pair.region))]
            rows.append(row)
        if not rows:
            return {}
        means = np.mean(rows, 0)
        names = ("detail", "enlarged", "difference")
        kinds = ("db", "gradient")
        keys = [f"{prefix}{name}_{kind}" for name in names for kind in kinds]
        return {key: float(value) for key, value in zip(keys, means, strict=True)}

    def export(
        self,
        modules: dict[str, nn.Module],
        figures: dict[str, float],
        folder: Path,
        record: dict[str, Any],
    ) -> None:
        """Write the network."""
        network = cast(DetailNet, modules["network"])
        write_weights(
            folder / f"{NAME}.safetensors",
            network.state_dict(),
            record,
            figures,
            self.data.about,
            NAME,
            network.config,
        )


def softened(images: Tensor) -> Tensor:
    """Pictures as generators draw them, alike soft: half the size, blurred, a little off in tone
    and place, each apart: [N,3,S,S] -> the same."""
    size = images.shape[-1]
    blur = float(torch.empty(()).uniform_(0.3, 1.4))
    small = feather_signed(F.avg_pool2d(images, 2), blur)
    n, side = len(small), small.shape[-1]

    def waves(channels: int, cells: int, amount: float) -> Tensor:
        noise = torch.randn(n, channels, cells, cells) * amount * torch.rand(n, 1, 1, 1)
        return F.interpolate(noise, (side, side), mode="bicubic", align_corners=False)

    identity = torch.eye(2, 3).expand(n, 2, 3)
    places = F.affine_grid(identity, [n, 3, side, side], align_corners=False)
    places = places + waves(2, 8, 2 * 1.2 / side).permute(0, 2, 3, 1)
    small = F.grid_sample(small, places, padding_mode="border", align_corners=False)
    small = small + waves(3, 4, 0.05) + waves(3, 24, 0.03)
    return enlarge(small.clamp(-1, 1), size)


def feather_signed(images: Tensor, px: float) -> Tensor:
    """Pictures [N,C,S,S] in [-1,1], blurred by a Gaussian of px."""
    flat = images.flatten(0, 1)[:, None]
    return (2 * feather((flat + 1) / 2, px) - 1).view_as(images)


def _random_edit(data: Edited) -> tuple[int, int]:
    return int(torch.randint(data.kinds.shape[1], ())), int(torch.randint(WAYS, ()))


def _pair(
    photo: Tensor, before: Tensor, after: Tensor, truth: Tensor, labels: Tensor, other: Tensor
) -> Pairs:
    region = changed_region(before, after, labels, other)
    return Pairs(photo, before, after, truth, region, labels, other)


def _mirrored(pair: Pairs) -> Pairs:
    """Half of the time, the pictures mirrored and their labels with them."""
    if float(torch.rand(())) < 0.5:
        return pair

    def flip(value: Tensor) -> Tensor:
        if value.is_floating_point():
            return value.flip(-1)
        return mirrored_labels(value.flip(-1), torch.ones(len(value), dtype=torch.bool))

    return pair.map(flip)


def _cropped(pair: Pairs, size: int) -> Pairs:
    """A square of the pair about a pixel that changed."""
    places = (pair.region[0, 0] > 0.5).nonzero()
    side = pair.region.shape[-1]
    if len(places):
        middle = places[int(torch.randint(len(places), ()))]
    else:
        middle = torch.tensor([side // 2, side // 2])
    shift = torch.randint(-size // 4, size // 4 + 1, (2,))
    top, left = ((middle + shift - size // 2).clamp(0, side - size) // 2 * 2).tolist()
    return pair.map(lambda value: value[..., top : top + size, left : left + size])
