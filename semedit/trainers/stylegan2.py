"""`semedit train stylegan2`: StyleGAN2 on rendered heads, by regression, then adversarially.

z says what a head is: its parameters and the angles it is seen from, all standard normal. So a
run may begin with a regression, which a CPU can afford, and the adversary only has to teach what a
mean picture lacks. While it lasts, the mapping network M follows an encoder E (guide.py).
`regression=0 anchor=0` is the published recipe.

    regression    |S(w) - x|  +  edge |grad S(w) - grad x|  +  near |M(z*) - E(x)|^2,
                  w = E(x), for a share `mapped` of the pictures M(z*); z* the parameters of x
    generator     -log sigmoid D(G(z))  +  anchor * regression
                  + path (|J_w^T y| - a)^2                          every path_every-th step
    discriminator -log sigmoid D(x) - log(1 - sigmoid D(G(z)))
                  + gamma / 2 |grad D(x)|^2                         every r1_every-th step

Source: Karras et al. 2020, arXiv:1912.04958; augmentation by arXiv:2006.06676.
Departs: the regression; the mapping network learns faster while that lasts.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semedit import cameras, losses, metrics
from semedit.datasets.rendered import View, Views, read_views
from semedit.generators.stylegan2.stylegan2 import StyleGAN2, StyleGAN2Config
from semedit.trainers.loop import GeneratorTask, Schedule
from semedit.trainers.parts.discriminators import Augment, Discriminator, Memory
from semedit.trainers.parts.guide import Guide, followed
from semedit.trainers.parts.loss_terms import report, total
from semedit.trainers.parts.mean_style import set_mean_style
from semedit.trainers.triplane import differences, small_parts

KIND = "stylegan2"
WIDTHS = (32, 64, 96, 128, 160, 192, 192)  # channels of the encoder at half, quarter, ... of R
ANGLES_DEG = (18.0, 7.0, 3.0)  # spread of yaw, pitch and roll in the data: one unit of z each


@dataclass(frozen=True)
class StyleGAN2Trainer:
    """Hyper-parameters of a StyleGAN2 and its discriminator."""

    name: ClassVar[str] = "stylegan2"
    schedule: ClassVar[Schedule] = Schedule(minutes=60.0, ema_steps=200.0, save_minutes=10.0)
    output: str = "heads-2d-128"  # name of the weight file
    resolution: int = 128  # pixels a side
    channels: tuple[int, ...] = (192, 192, 192, 128, 64, 32)  # at 4, 8, ... pixels
    critic: tuple[int, ...] = (24, 48, 96, 160, 192, 192)  # of the discriminator at R, R/2, ... 4
    w_dim: int = 256  # entries of a style
    mapping_layers: int = 4  # linear layers from z to w
    batch_size: int = 8  # pictures a step
    lr: float = 1e-3  # Adam, generator and discriminator
    gamma: float = 0.5  # weight of R1
    r1_every: int = 16  # steps
    path: float = 2.0  # weight of the path length regularisation
    path_every: int = 8  # steps
    mixing: float = 0.9  # chance that a picture takes its styles from two z
    ada: float = 0.0  # target of the mean sign of D at real pictures; 0: no augmentation
    regression: float = 0.8  # part of the run without the adversary
    regression_lr: float = 5e-3  # Adam
    coarse: int = 2  # how often the regression's first pictures are halved
    mapping_speed: float = 150.0  # factor on the mapping network's learning rate in the regression
    mapped: float = 0.25  # part of the regression's pictures that pass through the mapping network
    near: float = 1.0  # weight of the mapping network's distance from the encoder
    anchor: float = 4.0  # weight of the regression beside the adversary
    edge: float = 0.5  # weight of the differences between neighbouring pixels
    small: float = 3.0  # weight of the pixels of eyes, brows, nose, mouth, glasses
    held_out: int = 64  # heads kept for evaluation

    def start(self, data: Path) -> StyleGAN2Task:
        """Read the data, make the networks."""
        views = read_views(data, self.resolution)
        config = StyleGAN2Config(
            resolution=self.resolution,
            channels=tuple(self.channels),
            z_dim=views.z.shape[1] + len(ANGLES_DEG),
            w_dim=self.w_dim,
            mapping_layers=self.mapping_layers,
        )
        return StyleGAN2Task(self, views, StyleGAN2(config, self.output))


class PathMemory(Memory):
    """And the mean path length."""

    path: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("path", torch.zeros([]))


@dataclass(frozen=True)
class StyleGAN2Batch:
    """Pictures of heads: images [B,3,R,R], labels [B,R,R], z [B,z_dim]."""

    images: Tensor
    labels: Tensor
    z: Tensor


class StyleGAN2Task(GeneratorTask):
    """The networks, their optimisers and their losses; see loop.Task."""

    kind = KIND
    generator: StyleGAN2

    def __init__(self, trainer: StyleGAN2Trainer, views: Views, generator: StyleGAN2) -> None:
        self.trainer, self.views, self.generator = trainer, views, generator
        self.discriminator = Discriminator(trainer.resolution, tuple(trainer.critic))
        self.encoder = Guide(trainer.resolution, trainer.w_dim, WIDTHS)
        networks: tuple[Any, ...] = (generator, self.discriminator, self.encoder)
        for network in networks:
            network.to(memory_format=torch.channels_last)  # a seventh faster on a CPU
        self.augment, self.memory = Augment(trainer.ada), PathMemory()
        self.modules: dict[str, nn.Module] = {
            "generator": generator,
            "encoder": self.encoder,
            "discriminator": self.discriminator,
            "augment": self.augment,
            "memory": self.memory,
        }
        self.averaged = ("generator", "encoder")
        self.size = len(views) - min(trainer.held_out, len(views) // 4)
        self.optimisers = self._optimisers()

    def _optimisers(self) -> dict[str, torch.optim.Optimizer]:
        trainer, mapping = self.trainer, self.generator.mapping_network
        rest = list(self.generator.synthesis_network.parameters())
        quick = trainer.regression_lr * trainer.mapping_speed
        groups: list[dict[str, Any]] = [
            {"params": rest},
            {"params": list(mapping.parameters()), "lr": quick},
            {"params": list(self.encoder.parameters())},
        ]
        return {
            "regression": torch.optim.Adam(groups, trainer.regression_lr, betas=(0.9, 0.98)),
            "generator": lazy_adam([*mapping.parameters(), *rest], trainer.lr, trainer.path_every),
            "discriminator": lazy_adam(
                list(self.discriminator.parameters()), trainer.lr, trainer.r1_every
            ),
        }

    def batch(self, indices: Tensor) -> StyleGAN2Batch:
        """One random view of each head."""
        return self._batch(self.views.any(indices))

    def _batch(self, view: View) -> StyleGAN2Batch:
        z = torch.cat([view.z, standard_angles(view.c)], 1)
        return StyleGAN2Batch(view.images, view.labels, z)

    def step(self, batch: StyleGAN2Batch, progress: float) -> dict[str, float]:
        """One update: of the generator by regression, or of both networks."""
        if progress < self.trainer.regression:
            terms = self._regress(batch, self._halvings(progress))
            self._update("regression", total(terms))
            return report(terms)
        values = self._criticise(batch) | self._please(batch)
        self.memory.steps += 1
        return values

    def _halvings(self, progress: float) -> int:
        """How often the regression's pictures are halved: `coarse` times at first, then once less
        in each equal part of the regression."""
        parts = self.trainer.coarse + 1
        done = int(parts * progress / self.trainer.regression)
        return max(0, self.trainer.coarse - done)

    def _regress(self, batch: StyleGAN2Batch, halvings: int = 0) -> dict[str, Tensor]:
        """Terms of the regression, at the trainer's resolution / 2^halvings."""
        factor = 2**halvings
        mapped = self._styles(batch.z)["ws"][:, :1]
        with torch.autocast("cpu", torch.bfloat16):
            guide = self.encoder if self.trainer.regression > 0 else None
            styles, near = followed(mapped, guide, batch.images, batch.labels, self.trainer.mapped)
            ws = self._spread(styles)
            side = self.generator.resolution // factor
            image = self.generator.synthesis({"ws": ws}, batch.z, resolution=side).image.float()
        away = image - F.avg_pool2d(batch.images, factor)
        labels = batch.labels[:, factor // 2 :: factor, factor // 2 :: factor]
        weight = small_parts(self.trainer.small)[labels][:, None]
        across, down = differences(away)
        edge = across.abs().mean() + down.abs().mean()
        return {
            "image": (away.abs() * weight).mean(),
            "edge": self.trainer.edge * edge,
            "near": self.trainer.near * near,
        }

    def _spread(self, styles: Tensor) -> Tensor:
        """One style of each picture [B,1,w_dim] for every layer: [B,num_ws,w_dim]."""
        return styles.expand(-1, self.generator.num_ws, -1)

    def _styles(self, z: Tensor) -> dict[str, Tensor]:
        return self.generator.mapping(z, z)

    def _criticise(self, batch: StyleGAN2Batch) -> dict[str, float]:
        """Update the discriminator."""
        trainer, memory = self.trainer, self.memory
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            fake = self._fake(len(batch.z))[0]
        with torch.autocast("cpu", torch.bfloat16):
            logits = [self.discriminator(self.augment(x)) for x in (batch.images, fake)]
        loss = losses.discriminator_loss(*logits).mean()
        values = {"critic": loss, "real": logits[0].mean(), "fake": logits[1].mean()}
        self._update("discriminator", loss)
        self.augment.follow(logits[0].detach())
        if int(memory.steps) % trainer.r1_every == 0:
            images = self.augment(batch.images).detach().requires_grad_(True)
            penalty = losses.r1(self.discriminator(images), images).mean()
            self._update("discriminator", penalty * (trainer.gamma / 2 * trainer.r1_every))
            values["r1"] = penalty
        return report(values) | {"p": float(self.augment.p)}

    def _please(self, batch: StyleGAN2Batch) -> dict[str, float]:
        """Update the generator."""
        trainer = self.trainer
        with torch.autocast("cpu", torch.bfloat16):
            fake, _ = self._fake(len(batch.z))
            logits = self.discriminator(self.augment(fake))
        terms = {"generator": losses.generator_loss(logits).mean()}
        if trainer.anchor > 0:
            half = len(batch.z) // 2
            near = self._regress(
                StyleGAN2Batch(batch.images[:half], batch.labels[:half], batch.z[:half])
            )
            terms |= {name: trainer.anchor * value for name, value in near.items()}
        self._update("generator", total(terms))
        if trainer.path > 0 and int(self.memory.steps) % trainer.path_every == 0:
            terms["path"] = self._straighten(max(1, len(batch.z) // 2))
        return report(terms)

    def _straighten(self, n: int) -> Tensor:
        """Update the generator by the path length regularisation."""
        trainer, memory = self.trainer, self.memory
        images, ws = self._fake(n)
        lengths = losses.path_lengths(images, ws)
        memory.path.lerp_(lengths.detach().mean(), 0.01)
        penalty = (lengths - memory.path).square().mean()
        self._update("generator", penalty * (trainer.path * trainer.path_every))
        return penalty

    def _fake(self, n: int) -> tuple[Tensor, Tensor]:
        """Pictures of random z, some with two styles; and their ws."""
        z = torch.randn(2 * n, self.generator.z_dim)
        first, second = self._styles(z)["ws"].float().chunk(2)
        count = self.generator.num_ws
        cut = torch.where(torch.rand(n) < self.trainer.mixing, torch.randint(1, count, (n,)), count)
        ws = torch.where(torch.arange(count)[None, :, None] < cut[:, None, None], first, second)
        return self.generator.synthesis({"ws": ws}, z[:n], noise="random").image, ws

    def evaluate(self, modules: dict[str, nn.Module]) -> dict[str, float]:
        """Decibels of held-out heads: mapped_db, drawn from their parameters; encoded_db, from
        the style that the encoder finds."""
        generator = cast(StyleGAN2, modules["generator"])
        mapping = generator.mapping_network
        set_mean_style(mapping.w_avg, lambda z: mapping(z, z), generator.z_dim, 10_000)
        found: dict[str, list[Tensor]] = {"mapped_db": [], "encoded_db": []}
        for heads in torch.arange(self.size, len(self.views)).split(16):
            batch = self._batch(self.views.one(heads, torch.zeros_like(heads)))
            mapped = generator.mapping(batch.z, batch.z)["ws"]
            encoded = self._spread(modules["encoder"](batch.images, batch.labels))
            for name, ws in zip(found, (mapped, encoded), strict=True):
                image = generator.synthesis({"ws": ws}, batch.z).image
                found[name].append(metrics.psnr(image, batch.images))
        return {name: round(float(torch.cat(values).mean()), 4) for name, values in found.items()}


def standard_angles(c: Tensor) -> Tensor:
    """Yaw, pitch and roll of cameras c [...,25] in units of their spread: [...,3]."""
    six = cameras.to_six(c.reshape(-1, 25))
    angles = six[:, :3].rad2deg() / torch.tensor(ANGLES_DEG)
    return angles.view(*c.shape[:-1], 3)


def lazy_adam(parameters: list[nn.Parameter], lr: float, every: int) -> torch.optim.Adam:
    """Adam for a loss whose regularisation has a step of its own every so many steps.

    Source: Karras et al. 2020, arXiv:1912.04958, appendix B: lr and betas to the power of c.
    """
    c = every / (every + 1)
    return torch.optim.Adam(parameters, lr * c, betas=(0.0, 0.99**c), eps=1e-8)
