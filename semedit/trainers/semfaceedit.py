"""`semedit train semfaceedit`: SemFaceEdit in two stages, on rendered heads or posed pictures.

    stage 1   L(D_s, D_c, G_a, G_g) = E f(D_s(G_g(z, p))) + E f(D_c(G_a(z_i, p)))       (1)
                + E f(-D_c(I)) + lambda_im |grad D_c(I)|^2
                + E f(-D_s(S)) + lambda_s |grad D_s(S)|^2
              L_p = E |D_c^p(G_a(z_i, p)) - p|^2 + E |D_c^p(I) - p_I|^2                 (2)
              L_latent = E |D_s^l(G_g(z, p)) - z|^2                                     (3)
              L + lambda_p L_p + lambda_l L_latent                                      (4)
    stage 2   L(D_c, G_a) + lambda_p L_p, the Geometry Module frozen                    (5)
              L(D_c, G_a) = E f(D_c(G_a(z_i, p))) + E f(-D_c(I)) + lambda_im |grad D_c(I)|^2   (6)

with f(x) = log(1 + exp x). Discriminators descend these; the generator descends the non-saturating
E f(-D(G)) in place of E f(D(G)), and the terms of L_p and L_latent that see its pictures.

Two slips of the supplement are put right. Equations 1 and 6 feed D_s with the Appearance Module's
picture, where D_c is meant. Equations 2 and 3 have f around differences of angles and latents, of
which nothing but the squared distance can be meant; it is a mean over entries, as in the code of
pi-GAN, from which the discriminators come.

On rendered heads, z says what a head is: its parameters, all standard normal. So stage 1 may begin
with a plain regression of random rays, which a CPU can afford, and keep it as an anchor beside the
adversaries; the mapping networks follow an encoder meanwhile (guide.py).
`preset=paper` is the published networks, losses and stages; `critic_side=0
critic=32,64,96,128,128,128,128` shows their discriminators all of 256 pixels.

Source: Verma and Raman 2025, arXiv:2506.22833, supplement, section 1. Departs: the regression; the
discriminators, residual ones as StyleGAN2's with the branches of pi-GAN's, see every n-th pixel of
every n-th row, from a random one; rates of Adam are such as a CPU's small batches take.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semedit import cameras, losses
from semedit.datasets.posed import read_faces
from semedit.datasets.rendered import View, Views
from semedit.errors import OptionError
from semedit.generators.surfaces.intersections import Surfaces
from semedit.generators.surfaces.manifolds import Manifolds, ManifoldsConfig, Sharing
from semedit.media.labels import LABELS
from semedit.trainers.loop import GeneratorTask
from semedit.trainers.parts.discriminators import BranchedDiscriminator, Memory
from semedit.trainers.parts.guide import Guide, followed
from semedit.trainers.parts.held_out import held_out_figures
from semedit.trainers.parts.loss_terms import report, total
from semedit.trainers.parts.ray_sampling import grid_picture, grid_pixels, ray_density, thinned
from semedit.trainers.parts.start_from import start_from_file, whole_training
from semedit.trainers.triplane import class_weights

KIND = "manifolds"
WIDTHS = (24, 48, 96, 128)  # channels of the guide at half, quarter, ... of the resolution
GEOMETRY = ("geometry", "mapping_geometry", "intersections")  # frozen in stage 2


@dataclass(frozen=True)
class SemFaceEditTrainer:
    """Hyper-parameters of SemFaceEdit and its discriminators."""

    name: ClassVar[str] = "semfaceedit"
    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {"paper": {"regression": 0.0, "anchor": 0.0}}
    preset: Literal["heads", "paper"] = "heads"  # 64 pixels, regression first; or the paper's
    output: str = "heads-manifolds-64"  # name of the weight file
    depth: int = 0  # sines of each module: 4, 6 or 8; 0: the preset's, heads 4, paper 8
    sharing: Sharing = "proposed"  # what clubs share: none, proposed (all but colours), all
    width: int = 0  # of the sines; 0: the preset's
    count: int = 0  # of surfaces; 0: the preset's
    batch_size: int = 24  # pictures a step
    lr: float = 5e-4  # Adam, generator; GRAM: 2e-5
    critic_lr: float = 5e-4  # Adam, discriminators; GRAM: 2e-4
    critic_side: int = 32  # pixels a side that the discriminators see; 0: all
    critic: tuple[int, ...] = (32, 64, 96, 128)  # their channels at that size, half, ... 4 pixels
    lambda_im: float = 5.0  # R1 of D_c, stage 1
    lambda_s: float = 1.0  # R1 of D_s
    lambda_p: float = 10.0  # pose, both stages
    lambda_l: float = 1.0  # latent
    second_im: float = 1.0  # R1 of D_c, stage 2
    second: float = 0.1  # part of the run, its end, that is stage 2
    fakes: int = 8  # faces that the discriminators see a step
    apart: float = 0.5  # chance that clubs get latents of their own where one z can stand for all
    regression: float = 0.7  # part of the run without adversaries
    regression_lr: float = 2e-3  # Adam
    mapping_speed: float = 0.5  # factor on the mapping networks' learning rate in the regression
    mapped: float = 0.25  # part of the regression's faces that pass through the mapping networks
    near: float = 0.2  # weight of the mapping networks' distance from the guide
    sine_speed: float = 0.5  # the same of the sines
    anchor: float = 2.0  # weight of the regression beside the adversaries
    rays: int = 64  # of each head in a regression step
    label: float = 0.15  # weight of the regression's cross-entropy
    small: float = 4.0  # how much denser rays are on eyes, brows, nose, mouth, glasses
    background: float = 0.4  # the same of the background
    surfaces: bool = True  # the surfaces learn, too
    held_out: int = 32  # heads kept for evaluation
    start_from: str = ""  # generator's weight file; "": random weights

    def start(self, data: Path) -> SemFaceEditTask:
        """Read the data, make the networks.

        Raises: OptionError: discriminators of another size; a regression, but z is not what the
                heads' parameters are.
        """
        resolution = self.config(1).resolution
        side = self.critic_side or resolution
        if side != 4 * 2 ** (len(self.critic) - 1) or resolution % side:
            raise OptionError(
                f"{len(self.critic)} channels of discriminators do not fit {side} pixels",
                hint="they halve down to 4: -o critic=32,64,96,128 for -o critic_side=32",
            )
        views = read_faces(data, resolution)
        config = self.config(views.z.shape[1] or 256)
        if (self.regression > 0 or self.anchor > 0) and config.z_dim != views.z.shape[1]:
            raise OptionError(
                f"{data} gives {views.z.shape[1]} parameters a face, z has {config.z_dim} entries",
                hint="a regression needs rendered heads and preset=heads; else -o regression=0 "
                "-o anchor=0",
            )
        generator = Manifolds(config, self.output)
        before = start_from_file(generator, self.start_from) if self.start_from else {}
        return SemFaceEditTask(self, views, generator, before)

    def config(self, parameters: int) -> ManifoldsConfig:
        """Of the preset, for heads of so many parameters."""
        depth = self.depth or (8 if self.preset == "paper" else 4)
        common = ManifoldsConfig(depth=depth, appearance_depth=depth, sharing=self.sharing)
        if self.preset == "paper":
            surfaces = Surfaces(count=self.count or 24)
            return replace(common, width=self.width or 256, surfaces=surfaces)
        return replace(
            common,
            resolution=64,
            z_dim=parameters,
            apart=False,
            w_dim=128,
            width=self.width or 64,
            focal=cameras.FOCAL,
            delta=1.0,
            frequency=4.0,
            gain=5.0,
            density_start=-2.0,
            surfaces=Surfaces(
                count=self.count or 18,
                first=36.0,
                last=15.0,
                width=32,
                depth=2,
                centre=(0.0, 0.0, -2.5),
                near=0.83,
                far=1.18,
                samples=36,
                back=-0.15,
                sphere=True,
            ),
        )


@dataclass(frozen=True)
class SemFaceEditBatch:
    """One view of B heads: images [B,3,R,R], labels int64 [B,R,R], how dense rays are on each
    pixel [B,R*R], c [B,25], z [B,P]; and the view that the guide sees, often another."""

    images: Tensor
    labels: Tensor
    density: Tensor
    c: Tensor
    z: Tensor
    seen: Tensor
    seen_labels: Tensor

    def first(self, count: int) -> SemFaceEditBatch:
        """Of fewer heads."""
        return SemFaceEditBatch(*(getattr(self, f.name)[:count] for f in fields(self)))


@dataclass(frozen=True)
class Fake:
    """Random faces as the discriminators see them: images [N,3,S,S], label probabilities
    [N,19,S,S]; their angles [N,2], yaw and pitch in radians, and geometry's latents [N,P]."""

    images: Tensor
    labels: Tensor
    angles: Tensor
    z: Tensor


class SemFaceEditTask(GeneratorTask):
    """The networks, their optimisers and their losses; see loop.Task."""

    kind = KIND
    generator: Manifolds

    def __init__(
        self,
        trainer: SemFaceEditTrainer,
        views: Views,
        generator: Manifolds,
        before: dict[str, Any] | None = None,
    ) -> None:
        self.trainer, self.views, self.generator = trainer, views, generator
        self.before = before or {}  # training of the file that it starts from
        self.side = trainer.critic_side or generator.resolution
        channels, latent = tuple(trainer.critic), generator.config.z_dim
        self.of_labels = BranchedDiscriminator(self.side, channels, len(LABELS), latent)
        self.of_images = BranchedDiscriminator(self.side, channels, 3, 2)
        self.memory = Memory()
        self.guide: Guide | None = None
        if trainer.regression > 0:
            self.guide = Guide(generator.resolution, generator.config.w_dim, WIDTHS, count=2)
        guide = {} if self.guide is None else {"guide": self.guide}
        self.modules: dict[str, nn.Module] = {
            "generator": generator,
            **guide,
            "of_labels": self.of_labels,
            "of_images": self.of_images,
            "memory": self.memory,
        }
        self.averaged = ("generator", *guide)
        self.size = len(views) - min(trainer.held_out, len(views) // 4)
        self.class_weights = class_weights(views.labels[: self.size])
        self.density = ray_density(trainer.small, trainer.background)
        self.optimisers = self._optimisers()

    def _optimisers(self) -> dict[str, torch.optim.Optimizer]:
        trainer, generator = self.trainer, self.generator
        generator.intersections.requires_grad_(trainer.surfaces)
        own = [(n, p) for n, p in generator.named_parameters() if p.requires_grad]
        sines = [p for n, p in own if ".films." in n]
        mapping = [p for n, p in own if n.startswith("mapping")]
        rest = [p for n, p in own if not n.startswith("mapping") and ".films." not in n]
        late = [p for n, p in own if not n.startswith(GEOMETRY)]
        lr = trainer.regression_lr
        groups: list[dict[str, Any]] = [
            {"params": rest},
            {"params": mapping, "lr": lr * trainer.mapping_speed},
            {"params": sines, "lr": lr * trainer.sine_speed},
        ]
        if self.guide is not None:
            groups.append({"params": list(self.guide.parameters())})
        found: dict[str, torch.optim.Optimizer] = {
            "regression": torch.optim.Adam(groups, lr, betas=(0.9, 0.98)),
            "generator": torch.optim.Adam([p for _, p in own], trainer.lr, betas=(0.0, 0.9)),
            "appearance": torch.optim.Adam(late, trainer.lr, betas=(0.0, 0.9)),
        }
        for name, critic in (("labels", self.of_labels), ("images", self.of_images)):
            own_rate = {"lr": trainer.critic_lr, "betas": (0.0, 0.9)}
            found[name] = torch.optim.Adam(critic.parameters(), **own_rate)  # type: ignore[arg-type]
        return found

    def batch(self, indices: Tensor) -> SemFaceEditBatch:
        """One random view of each head, and another."""
        pair = self.views.any_pair(indices)
        (images, seen), (labels, seen_labels) = pair.images.unbind(1), pair.labels.unbind(1)
        density = self.density[labels].flatten(1)
        return SemFaceEditBatch(images, labels, density, pair.c[:, 0], pair.z, seen, seen_labels)

    def step(self, batch: SemFaceEditBatch, progress: float) -> dict[str, float]:
        """One update: of the generator by regression, or of all networks of the stage."""
        trainer = self.trainer
        if progress < min(trainer.regression, 1 - trainer.second):
            terms = self._regress(batch)
            self._update("regression", total(terms))
            return report(terms)
        second = progress >= 1 - trainer.second
        for name in GEOMETRY[:2]:
            getattr(self.generator, name).requires_grad_(not second)
        self.generator.intersections.requires_grad_(trainer.surfaces and not second)
        found = self._criticise(batch, second) | self._please(batch, second)
        self.memory.steps += 1
        return report(found)

    # Regression ----------------------------------------------------------------------------------

    def _regress(self, batch: SemFaceEditBatch) -> dict[str, Tensor]:
        """Colours and labels of random rays, those of heads given by their parameters."""
        trainer, generator = self.trainer, self.generator
        pixels = torch.multinomial(batch.density, min(trainer.rays, batch.density.shape[1]))
        w, each = generator.styles(batch.z)  # clubs have one style, which is quicker to evaluate
        mapped = torch.stack([w, each[:, 0]], 1)
        styles, near = followed(mapped, self.guide, batch.seen, batch.seen_labels, trainer.mapped)
        codes = generator.spread(styles[:, 0], styles[:, 1:])
        found = generator.volume(generator.planes(codes), batch.c, pixels, trainer.surfaces)
        images = batch.images.flatten(2).gather(2, pixels[:, None].expand(-1, 3, -1))
        labels = batch.labels.flatten(1).gather(1, pixels)
        seg = generator.output({k: v.transpose(1, 2) for k, v in found.items()}).seg
        assert seg is not None
        colour = 2 * found["colour"].transpose(1, 2) - 1
        return {
            "image": (colour - images).abs().mean(),
            "label": trainer.label * F.cross_entropy(seg, labels, self.class_weights),
            "near": trainer.near * near,
        }

    # Adversaries ---------------------------------------------------------------------------------

    def _few(self, batch: SemFaceEditBatch) -> int:
        return min(self.trainer.fakes, len(batch.z))

    def _fake(self, n: int) -> Fake:
        """Random faces seen by random cameras of the data."""
        generator, given = self.generator, self.views.c
        c = given[torch.randint(self.size, (n,)), torch.randint(given.shape[1], (n,))]
        latent, count = generator.config.z_dim, len(generator.clubs)
        z = torch.randn(n, 1 + count, latent)
        if not generator.config.apart:
            own = torch.rand(n, 1, 1) < self.trainer.apart
            z = torch.where(own, z, z[:, :1])
        planes = generator.planes(generator.mapping(z.flatten(1), c))
        pixels = grid_pixels(n, generator.resolution, self.side)
        found = generator.volume(planes, c, pixels, self.trainer.surfaces)
        images, labels = (grid_picture(found[k]) for k in ("colour", "labels"))
        return Fake(2 * images - 1, labels, cameras.angles(c)[:, :2], z[:, 0])

    def _criticise(self, batch: SemFaceEditBatch, second: bool) -> dict[str, Tensor]:
        """Update the discriminators."""
        trainer = self.trainer
        with torch.no_grad():
            fake = self._fake(self._few(batch))
        batch = batch.first(len(fake.z))
        images = thinned(batch.images, self.side)
        weight = trainer.second_im if second else trainer.lambda_im
        terms = critic_terms(self.of_images, images, fake.images, weight)
        seen = self.of_images.judge(images)[1], self.of_images.judge(fake.images)[1]
        angles = cameras.angles(batch.c)[:, :2], fake.angles
        wrong = [_apart(a, b) for a, b in zip(seen, angles, strict=True)]
        terms["pose"] = trainer.lambda_p * (wrong[0] + wrong[1])
        self._update("images", total(terms))
        found = {f"critic_{name}": value for name, value in terms.items()}
        if second:
            return found
        one_hot = F.one_hot(batch.labels, len(LABELS)).movedim(3, 1).float()
        terms = critic_terms(
            self.of_labels, thinned(one_hot, self.side), fake.labels, trainer.lambda_s
        )
        terms["latent"] = trainer.lambda_l * _apart(self.of_labels.judge(fake.labels)[1], fake.z)
        self._update("labels", total(terms))
        return found | {f"labels_{name}": value for name, value in terms.items()}

    def _please(self, batch: SemFaceEditBatch, second: bool) -> dict[str, Tensor]:
        """Update the generator; in stage 2, what makes colours alone."""
        trainer = self.trainer
        fake = self._fake(self._few(batch))
        logits, angles = self.of_images.judge(fake.images)
        terms = {
            "generator": losses.generator_loss(logits).mean(),
            "pose": trainer.lambda_p * _apart(angles, fake.angles),
        }
        if not second:
            logits, z = self.of_labels.judge(fake.labels)
            terms["labels"] = losses.generator_loss(logits).mean()
            terms["latent"] = trainer.lambda_l * _apart(z, fake.z)
        if trainer.anchor > 0:
            near = self._regress(batch)
            terms |= {name: trainer.anchor * value for name, value in near.items()}
        self._update("appearance" if second else "generator", total(terms))
        return terms

    # Results -------------------------------------------------------------------------------------

    def export(
        self,
        modules: dict[str, nn.Module],
        figures: dict[str, float],
        folder: Path,
        record: dict[str, Any],
    ) -> None:
        """Write the generator."""
        super().export(modules, figures, folder, whole_training(record, self.before))

    def evaluate(self, modules: dict[str, nn.Module]) -> dict[str, float]:
        """On held-out heads; see `mapped_figures`."""
        generator = cast(Manifolds, modules["generator"])
        generator.centre()

        def guided(seen: View) -> dict[str, Tensor]:
            w, each = modules["guide"](seen.images, seen.labels).unbind(1)
            return generator.spread(w, each[:, None].expand(-1, len(generator.clubs), -1))

        heads = torch.arange(self.size, len(self.views))
        return held_out_figures(
            generator, self.views, heads, guided if "guide" in modules else None
        )


def critic_terms(
    critic: BranchedDiscriminator, real: Tensor, fake: Tensor, penalty: float
) -> dict[str, Tensor]:
    """E f(D(fake)) + E f(-D(real)), and penalty |grad D(real)|^2."""
    real = real.detach().requires_grad_(True)
    logits = critic(real)
    loss = losses.discriminator_loss(logits, critic(fake.detach())).mean()
    return {"loss": loss, "r1": penalty * losses.r1(logits, real).mean()}


def _apart(found: Tensor, true: Tensor) -> Tensor:
    """Squared distance, a mean over entries."""
    return (found - true).square().mean()
