"""`semedit train l2sae`: both networks of L2SAE, on any pictures with label maps.

    SMPN   sum over the five regions of 0.2 l(logit_i, mask_i)                        equation 2
           l = cross-entropy + 1 - soft IoU

    SMN    first by regression: a picture x and its twin x' in other colours (twins.py) swap,
               |G(S(x'), T(x)) - x|  +  edge |grad|  +  uniform log mean exp(-2 |T(x) - T(y)|^2)
               +  label CE(H(x), labels),
               S, T = structure, style of E; x, y any two of a batch; H, which is not kept, reads
               labels from what G reads the picture from, so that shapes are found soon
           then with adversaries, as the Swapping Autoencoder: steps of the discriminators
               -log D(x) - 0.5 log(1 - D(rec)) - 0.5 log(1 - D(mix)),   rec = G(S(x'), T(x))
               -log P(x, x) - log(1 - P(x, mix)),                       mix = G(S(another), T(x))
           and of encoder and decoder take turns
               anchor * regression - gan (0.5 log D(rec) + log D(mix)) - patch log P(x, mix)

Source: Tomar and Rajagopalan 2023 (L2SAE), arXiv:2312.15037, equation 2; Park et al. 2020
(Swapping Autoencoder), arXiv:2007.00653; Wang and Isola 2020, arXiv:2005.10242 (uniformity).
Departs: the regression on twins, which a CPU can afford, before the adversaries, which alone make
style and structure part there; l is not the adversarial loss of the autoencoder: regions have one
right answer. At 128 pixels the structure has 1/8 of their number a side, not 1/16, and so as many
cells as the published networks have at 256: eyes are lost in fewer. Styles are short and spread
over their sphere: noise of N(0,1) on a vector of unit length is a direction of its own, which the
decoder shall know.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semedit import losses, metrics
from semedit.datasets.augment import mirrored_labels
from semedit.datasets.labelled import Labelled, read_labelled
from semedit.errors import OptionError
from semedit.generators import load_generator
from semedit.generators.l2sae.l2sae import L2SAE, ROIS, L2SAEConfig
from semedit.media.labels import LABELS
from semedit.trainers.loop import Schedule, write_weights
from semedit.trainers.parallel import device_of
from semedit.trainers.parts.discriminators import Discriminator, Memory
from semedit.trainers.parts.loss_terms import report, total
from semedit.trainers.parts.patches import PatchDiscriminator, random_crops
from semedit.trainers.parts.recolouring import recoloured
from semedit.trainers.parts.region_losses import (
    region_counts,
    region_ious,
    region_losses,
    region_masks,
)
from semedit.trainers.stylegan2 import lazy_adam
from semedit.trainers.triplane import class_weights, differences, small_parts

KIND = "l2sae"
PRIOR = 512  # pictures that the prior of codes is fitted to
HELD = 64  # pictures that figures are taken on, at most; `semedit eval styles` takes more
SHARE = 1 / len(ROIS)  # weight of a region in equation 2


@dataclass(frozen=True)
class L2SAETrainer:
    """Hyper-parameters of an L2SAE, its discriminators and its losses."""

    name: ClassVar[str] = "l2sae"
    schedule: ClassVar[Schedule] = Schedule(minutes=105.0, ema_steps=150.0, save_minutes=10.0)
    output: str = "heads-l2sae-128"  # name of the weight file
    base: str = ""  # weights to start from, by name or path; empty: random ones
    part: Literal["both", "smn", "smpn"] = "both"  # what learns; the other stays as it is
    resolution: int = 128  # pixels a side; this and the widths below count without a base
    slicing: Literal["first", "second"] = "first"  # which channels answer for which region
    style: int = 24  # entries of the style
    encoder: tuple[int, ...] = (16, 32, 64, 128)  # channels at R, R/2, ..., R/8
    summary: tuple[int, ...] = (192, 256)  # channels from there to the style
    head: tuple[int, ...] = (128, 160)  # channels of the decoder at R/8
    decoder: tuple[int, ...] = (128, 64, 32)  # channels of the decoder at R/4, ..., R
    map_encoder: tuple[int, ...] = (16, 32, 64, 128)  # widths of the SMPN's encoder
    map_head: tuple[int, ...] = (64, 64)  # and of its decoder at R/8
    map_decoder: tuple[int, ...] = (48, 32, 16)  # and at R/4, ..., R
    noise: bool = False  # whether the decoder's layers have noise maps
    rank: int = 64  # directions of the prior of codes
    critic: tuple[int, ...] = (16, 32, 64, 128, 160, 160)  # of the discriminator at R, ..., 4
    patch_size: int = 16  # pixels a side of crops
    patch_critic: tuple[int, ...] = (32, 64, 96)  # of their discriminator at that, ..., 4
    crops: int = 8  # of each picture
    batch_size: int = 4  # pictures a step, even; on a CPU more steps teach more than larger ones
    lr: float = 4e-3  # Adam, of the SMN by regression
    maps_lr: float = 6e-3  # Adam, of the SMPN
    maps_every: int = 2  # steps of the SMN to one of the SMPN
    gan_lr: float = 1e-3  # Adam, beside and of the adversaries
    regression: float = 0.85  # part of the run without adversaries
    twin: float = 1.0  # how far twins are from their pictures; 0: no twins, plain reconstruction
    tint: float = (
        0.06  # how far a twin's colours are from those of another light; see recolouring.py
    )
    edge: float = 0.5  # weight of the differences between neighbouring pixels
    small: float = 4.0  # weight of the pixels of eyes, brows, nose, mouth, glasses
    label: float = 1.0  # weight of the labels that are read beside the picture
    uniform: float = 0.04  # weight of styles that lie apart, as those that noise makes do
    anchor: float = 4.0  # weight of the regression beside the adversaries
    gan: float = 0.25  # weight of the discriminator of pictures; published: 1, anchor as well
    patch: float = 0.25  # weight of the discriminator of patches
    gamma: float = 10.0  # weight of R1 of the one
    patch_gamma: float = 1.0  # and of the other
    r1_every: int = 16  # steps of the discriminators
    device: str = "auto"  # to train on; auto: a GPU where there is one

    def start(self, data: Path) -> L2SAETask:
        """Read the data, make the networks or read those to start from.

        Raises: OptionError: a base of another kind; an odd batch; sizes that do not fit.
        """
        if self.batch_size % 2 or self.batch_size < 2:
            raise OptionError("batch_size must be even: pictures swap in pairs")
        if self.patch_size != 4 * 2 ** (len(self.patch_critic) - 1) or self.crops < 1:
            raise OptionError(
                f"{len(self.patch_critic)} channels do not fit crops of {self.patch_size} pixels",
                "they halve down to 4: -o patch_critic=32,64,96 for -o patch_size=16",
            )
        network = L2SAE(self.config(), self.output)
        if self.base:
            network = started(self.base, network.config, self.output)
        return L2SAETask(self, read_labelled(data, network.resolution), network)

    def config(self) -> L2SAEConfig:
        """Of networks that start without a base."""
        return L2SAEConfig(
            resolution=self.resolution,
            style=self.style,
            encoder=self.encoder,
            summary=self.summary,
            head=self.head,
            decoder=self.decoder,
            noise=self.noise,
            slicing=self.slicing,
            map_encoder=self.map_encoder,
            map_summary=self.summary,
            map_head=self.map_head,
            map_decoder=self.map_decoder,
            rank=self.rank,
        )


def started(base: str, wanted: L2SAEConfig, name: str) -> L2SAE:
    """The network of a weight file; one without SMPN gets one that starts as a copy of the SMN,
    as the paper's does, in the slicing of `wanted`.

    Raises: OptionError: weights of another kind.
    """
    found = load_generator(base)
    if not isinstance(found, L2SAE):
        raise OptionError(f"{base} is no L2SAE", "semedit weights import reads published ones")
    config = replace(found.config, rank=found.config.rank or wanted.rank)
    if not config.slicing:
        config = replace(config, slicing=wanted.slicing)
    network = L2SAE(config, name)
    held = {k: v for k, v in found.state_dict().items() if not k.startswith("prior.")}
    if found.SMPN is None:
        held |= {f"SMPN.{k}": v for k, v in held.items()}
    network.load_state_dict(held, strict=False)
    return network


@dataclass(frozen=True)
class L2SAEBatch:
    """Pictures x and their twins [B,3,R,R], labels [B,R,R]."""

    images: Tensor
    twins: Tensor
    labels: Tensor


class L2SAETask:
    """The networks, their optimisers and their losses; see loop.Task."""

    def __init__(self, trainer: L2SAETrainer, data: Labelled, network: L2SAE) -> None:
        self.trainer, self.data = trainer, data
        self.device = device_of(trainer.device)
        self.network, side = network.to(self.device), network.resolution
        self.critic = Discriminator(side, _fitting(trainer.critic, side)).to(self.device)
        self.patches = PatchDiscriminator(trainer.patch_size, trainer.patch_critic).to(self.device)
        self.weights = small_parts(trainer.small).to(self.device)
        self.classes = class_weights(data.parts[0][1]).to(self.device)
        self.memory = Memory()
        last = network.config.decoder[-1]
        self.reader = nn.Conv2d(last, len(LABELS), 1).to(self.device)  # H
        self.modules: dict[str, nn.Module] = {
            "network": network,
            "critic": self.critic,
            "patches": self.patches,
            "reader": self.reader,
            "memory": self.memory,
        }
        self.averaged = ("network",)
        self.size = len(data.train)
        self.optimisers = self._optimisers()

    def _optimisers(self) -> dict[str, torch.optim.Optimizer]:
        trainer, network = self.trainer, self.network
        own = [*network.E.parameters(), *network.G.parameters(), *self.reader.parameters()]
        critics = [*self.critic.parameters(), *self.patches.parameters()]
        maps = list(cast(nn.Module, network.SMPN).parameters())
        betas = (0.9, 0.98)
        return {
            "regression": torch.optim.Adam(own, trainer.lr, betas, foreach=True),
            "maps": torch.optim.Adam(maps, trainer.maps_lr, betas, foreach=True),
            "swaps": torch.optim.Adam(own, trainer.gan_lr, (0.0, 0.99), foreach=True),
            "critics": lazy_adam(critics, trainer.gan_lr, trainer.r1_every),
        }

    def batch(self, indices: Tensor) -> L2SAEBatch:
        """Pictures, half of them mirrored, and their twins."""
        images, labels = self.data.read(self.data.train[indices.numpy()])
        mirrored = torch.rand(len(images), 1, 1, 1) < 0.5
        images = torch.where(mirrored, images.flip(-1), images)
        labels = torch.where(mirrored[:, 0], labels.flip(-1), labels)
        labels = mirrored_labels(labels, mirrored)
        others = recoloured(images, labels, self.trainer.tint, self.trainer.twin)
        return L2SAEBatch(*(part.to(self.device) for part in (images, others, labels)))

    def _mixed_precision(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16)

    def step(self, batch: L2SAEBatch, progress: float) -> dict[str, float]:
        """One update of what learns."""
        trainer, steps = self.trainer, int(self.memory.steps)
        values: dict[str, float] = {}
        if trainer.part == "smpn" or (trainer.part == "both" and steps % trainer.maps_every == 0):
            values |= self._map(batch)
        if trainer.part != "smpn":
            if progress < trainer.regression:
                values |= self._regress(batch)
            else:
                values |= self._criticise(batch) if steps % 2 == 0 else self._please(batch)
        self.memory.steps += 1
        return values

    # The SMPN.

    def _map(self, batch: L2SAEBatch) -> dict[str, float]:
        """Update the SMPN on pictures or their twins."""
        chosen = (torch.rand(len(batch.images), 1, 1, 1) < 0.5).to(self.device)
        with self._mixed_precision():
            logits = self.network.region_logits(torch.where(chosen, batch.images, batch.twins))
        each = region_losses(logits, region_masks(batch.labels))
        self._update("maps", SHARE * each.sum(1).mean())
        return {"regions": float(each.detach().mean())}

    # The SMN.

    def _regress(self, batch: L2SAEBatch) -> dict[str, float]:
        terms = self._swapped(batch)[1]
        self._update("regression", total(terms))
        return report(terms)

    def _swapped(self, batch: L2SAEBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Half of the pictures, half of the twins, each from the other's structure and its own
        style, the pictures first; and the terms of their regression."""
        half = len(batch.images) // 2
        with self._mixed_precision():
            structure, style = self.network.E(torch.cat([batch.images, batch.twins]))
            of, at = structure.chunk(2), style.chunk(2)
            shapes = torch.cat([of[1][:half], of[0][half:]])
            styles = torch.cat([at[0][:half], at[1][half:]])
            features = self.network.G.features(shapes, styles, "random")
            image, read = self.network.G.ToRGB(features, styles), self.reader(features)
        true = torch.cat([batch.images[:half], batch.twins[half:]])
        weight = self.weights[batch.labels][:, None]
        across, down = differences(image.float() - true)
        return image.float(), {
            "image": ((image.float() - true).abs() * weight).mean(),
            "edge": self.trainer.edge * (across.abs().mean() + down.abs().mean()),
            "label": self.trainer.label * F.cross_entropy(read.float(), batch.labels, self.classes),
            "uniform": self.trainer.uniform * uniformity(style),
        }

    def _mixed(self, images: Tensor) -> Tensor:
        """Pictures with their own style and their neighbour's structure."""
        with self._mixed_precision():
            structure, style = self.network.E(images)
            pairs = structure.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)
            return self.network.G(pairs, style, "random").float()

    def _criticise(self, batch: L2SAEBatch) -> dict[str, float]:
        """Update the discriminators."""
        trainer, images = self.trainer, batch.images
        half = len(images) // 2
        with torch.no_grad():
            rec, mix = self._swapped(batch)[0][:half], self._mixed(images)
        crops = [self._crops(one) for one in (images, images, mix)]
        with self._mixed_precision():
            real, made, mixed = (self.critic(one) for one in (images, rec, mix))
            alike, unlike = self.patches(crops[0], crops[1]), self.patches(crops[0], crops[2])
        loss = F.softplus(-real).mean()
        loss = loss + 0.5 * F.softplus(made).mean() + 0.5 * F.softplus(mixed).mean()
        patch = losses.discriminator_loss(alike, unlike).mean()
        self._update("critics", loss + patch)
        if int(self.memory.steps) // 2 % trainer.r1_every == 0:
            self._regularise(images)
        return {"critic": float(loss.detach()), "patches": float(patch.detach())}

    def _regularise(self, images: Tensor) -> None:
        """R1 of both discriminators, a step of its own."""
        trainer = self.trainer
        real = images.detach().requires_grad_(True)
        crops = [self._crops(images).requires_grad_(True) for _ in range(2)]
        one = losses.r1(self.critic(real), real).mean()
        logits = self.patches(*crops)
        two = sum(losses.r1(logits, crop).mean() for crop in crops) / 2
        penalty = trainer.gamma / 2 * one + trainer.patch_gamma / 2 * two
        self._update("critics", penalty * trainer.r1_every)

    def _please(self, batch: L2SAEBatch) -> dict[str, float]:
        """Update encoder and decoder."""
        trainer, half = self.trainer, len(batch.images) // 2
        image, terms = self._swapped(batch)
        mix = self._mixed(batch.images)
        with self._mixed_precision():
            made, mixed = self.critic(image[:half]), self.critic(mix)
            alike = self.patches(self._crops(batch.images), self._crops(mix))
        terms = {name: trainer.anchor * value for name, value in terms.items()}
        terms["rec"] = 0.5 * trainer.gan * losses.generator_loss(made).mean()
        terms["mix"] = trainer.gan * losses.generator_loss(mixed).mean()
        terms["patch"] = trainer.patch * losses.generator_loss(alike).mean()
        self._update("swaps", total(terms))
        return report(terms)

    def _crops(self, images: Tensor) -> Tensor:
        return random_crops(images, self.trainer.crops, self.trainer.patch_size)

    def _update(self, name: str, loss: Tensor) -> None:
        optimiser = self.optimisers[name]
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

    # Figures and files.

    def evaluate(self, modules: dict[str, nn.Module]) -> dict[str, float]:
        """On held-out pictures: rec_db of pictures from their own codes, swap_db with the
        structure of a twin, region_miou from one count over all; and fits the prior."""
        network = cast(L2SAE, modules["network"])
        rec, swapped, counts = [], [], []
        held = self.data.held[:HELD]
        for part in np.array_split(held, -(-len(held) // 16)):
            images, labels, others = self._held(part)
            with self._mixed_precision():
                own, other = network.encode(images), network.encode(others)
                mixed = {"structure": other["structure"], "style": own["style"]}
                drawn = [network.synthesis(codes).image for codes in (own, mixed)]
                counts.append(region_counts(network.region_logits(images), labels))
            rec.append(metrics.psnr(drawn[0], images))
            swapped.append(metrics.psnr(drawn[1], images))
        self._fit(network)
        mean, each = region_ious(torch.stack(counts).sum(0))
        return {
            "rec_db": round(float(torch.cat(rec).mean()), 4),
            "swap_db": round(float(torch.cat(swapped).mean()), 4),
            "region_miou": round(mean, 4),
        } | {f"iou_{name}": round(value, 4) for name, value in each.items()}

    def _held(self, rows: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """Pictures, labels, twins; the same twins at every evaluation."""
        images, labels = self.data.read(rows)
        with torch.random.fork_rng([]):
            torch.manual_seed(int(rows[0]))
            others = recoloured(images, labels, self.trainer.tint, self.trainer.twin)
        return images.to(self.device), labels.to(self.device), others.to(self.device)

    def _fit(self, network: L2SAE) -> None:
        """The prior, to codes of training pictures from all over the set."""
        chosen = self.data.train[:: max(1, len(self.data.train) // PRIOR)][:PRIOR]
        rows = []
        for part in np.array_split(chosen, -(-len(chosen) // 16)):
            with self._mixed_precision():
                codes = network.encode(self.data.read(part)[0].to(self.device))
            rows.append(torch.cat([codes["structure"].flatten(1), codes["style"]], 1))
        network.prior.fit(torch.cat(rows))

    def export(
        self,
        modules: dict[str, nn.Module],
        figures: dict[str, float],
        folder: Path,
        record: dict[str, Any],
    ) -> None:
        """Write the network."""
        base = self.trainer.base
        write_weights(
            folder / f"{self.network.name}.safetensors",
            modules["network"].state_dict(),
            record,
            figures,
            self.data.about,
            KIND,
            self.network.config,
            licence=self.data.licence + (f", and that of {base}" if base else ""),
        )


def uniformity(styles: Tensor) -> Tensor:
    """log mean exp(-2 |a - b|^2) over pairs of styles [N,D] of unit length: how near they lie."""
    return F.pdist(styles.float()).square().mul(-2).exp().mean().clamp(min=1e-12).log()


def _fitting(widths: tuple[int, ...], resolution: int) -> tuple[int, ...]:
    """Widths of a discriminator at `resolution`, ..., 4 pixels, the last ones as given.

    Raises: OptionError: no power of two.
    """
    if resolution & (resolution - 1):
        raise OptionError(f"the discriminator halves down to 4 pixels: {resolution} does not")
    levels = resolution.bit_length() - 2
    return (widths[0],) * (levels - len(widths)) + tuple(widths[-levels:])
