"""`semedit train ide3d`: IDE-3D's generator against its dual-branch discriminator.

    generator      -log sigmoid D(G(z, c'), c)  +  density |d(x) - d(x + e)|
    discriminator  -log sigmoid D(x, s, c) - log(1 - sigmoid D(G(z, c'), c))
                   + gamma_image / 2 |grad_x D|^2 + gamma_labels / 2 |grad_s D|^2    every r1_every

D sees picture and label map, each beside its enlarged low-resolution version. c' conditions the
style: the camera that G is seen by, or with the chance `swapping` another one. The neural
resolution rises once. On rendered heads a run may begin with a plain regression on their
parameters z, which a CPU can afford; `preset=paper` is the published recipe.

A run may also begin with the weights of an earlier one, `start_from`, whose sizes and kind of rays
it then has: so heads-128 and its like, whose networks are the same, learn from an adversary, too.
An encoder that lies beside them stays as it is and goes on fitting: the regression draws some
faces from what it finds in their pictures.

Source: Sun et al. 2022 (IDE-3D), arXiv:2205.15517, equations 2 to 4 and supplement B.
Departs: the regression; the learning rate falls; the density of equation 3 is that before its
softplus, as in EG3D; its fine points are drawn from the density grid of the planes
(`density_everywhere`: from the whole box, as EG3D draws them).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semedit import losses, weights
from semedit.datasets.posed import Poses, read_faces, rebalanced
from semedit.datasets.rendered import View, Views
from semedit.errors import OptionError, WeightsError
from semedit.generators import Output, build_generator, load_generator
from semedit.generators.parts import volume
from semedit.generators.stylegan2.stylegan2 import widths
from semedit.generators.triplane.ide3d import IDE3D, IDE3DConfig
from semedit.generators.triplane.triplane import Triplane
from semedit.media.labels import LABELS
from semedit.trainers.loop import GeneratorTask
from semedit.trainers.parallel import Processes, device_of, sharing
from semedit.trainers.parts.discriminators import DualDiscriminator, Memory
from semedit.trainers.parts.held_out import held_out_figures
from semedit.trainers.parts.image_label_pairs import drawn_pair, true_pair
from semedit.trainers.parts.loss_terms import report, total
from semedit.trainers.parts.mean_style import set_mean_style
from semedit.trainers.parts.start_from import start_from_file, whole_training
from semedit.trainers.stylegan2 import lazy_adam
from semedit.trainers.triplane import class_weights, opacity_loss, small_parts

KIND = "ide3d"


@dataclass(frozen=True)
class IDE3DTrainer:
    """Hyper-parameters of IDE-3D's generator and discriminator."""

    name: ClassVar[str] = "ide3d"
    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {"batch_size": 32, "regression": 0.0, "anchor": 0.0}
    }
    preset: Literal["heads", "paper"] = "heads"  # 128 pixels, regression first; or the paper's
    output: str = "ide3d-heads-128"  # name of the weight file
    batch_size: int = 4  # pictures a step; the paper: 32
    lr: float = 2.5e-3  # Adam, generator
    critic_lr: float = 2e-3  # Adam, discriminator
    critic: tuple[int, ...] = ()  # at R, R/2, ..., 4 pixels, for pictures; (): the preset's
    critic_labels: tuple[int, ...] = ()  # for label maps; (): those for pictures
    joint: bool = False  # one verdict on both (the supplement's variant a)
    gamma_image: float = 2.0  # weight of R1 on pictures
    gamma_labels: float = 200.0  # weight of R1 on label maps
    r1_every: int = 16  # steps
    density: float = 0.25  # weight of the density regularisation
    density_step: float = 0.004  # distance of its points, standard deviation, share of the box
    density_points: int = 1000  # per face
    density_everywhere: bool = False  # points from the whole box, not where rays sample finely
    swapping: float = 0.5  # chance that the style is conditioned on another camera
    mixing: float = 0.9  # chance that a face takes its styles from two z
    blur: float = 0.02  # discriminator's blur at the start, standard deviation in picture sides
    blur_part: float = 0.02  # part of the run in which it fades
    first_stage: float = 0.8  # part of the run at half the neural resolution (not of heads-128)
    regression: float = 0.6  # part of the run without the adversary
    regression_lr: float = 5e-3  # Adam
    mapping_speed: float = 150.0  # factor on the mapping network's learning rate in the regression
    anchor: float = 1.0  # weight of the regression beside the adversary
    encoded: float = 0.5  # part of the regression's faces with codes of start_from's encoder
    label: float = 0.15  # weight of the regression's cross-entropy
    opacity: float = 0.1  # weight of the regression's opaque and empty rays
    small: float = 3.0  # weight of the pixels of eyes, brows, nose, mouth, glasses
    mirrored: float = 0.5  # chance that a picture without parameters is mirrored
    steep: float = 2.0  # how many times oftener faces at 45 degrees of yaw are shown, of the same
    held_out: int = 32  # heads kept for evaluation
    start_from: str = ""  # weight file to begin with, such as that of heads-128; "": random weights
    device: str = "auto"  # auto: a GPU where there is one; of torchrun, to each process its own

    def start(self, data: Path) -> IDE3DTask:
        """Read the data, make the networks.

        Raises: OptionError: a regression, but z is not what the heads' parameters are.
                WeightsError: no weights to begin with, or they are of another kind of generator.
        """
        encoder = None
        if self.start_from:
            generator, before, more = earlier(self.start_from, self.output)
            encoder = load_generator(self.start_from).encoder
            views = read_faces(data, generator.resolution)
        else:
            views = read_faces(data, config_of(self.preset, 1).resolution)
            config = config_of(self.preset, views.z.shape[1] or 128)
            generator, before, more = IDE3D(config, self.output), {}, {}
        if (self.regression > 0 or self.anchor > 0) and generator.z_dim != views.z.shape[1]:
            raise OptionError(
                f"{data} gives {views.z.shape[1]} parameters a face, z has {generator.z_dim} "
                "entries",
                hint="a regression needs rendered heads and preset=heads; else --preset paper, or "
                "-o regression=0 -o anchor=0",
            )
        return IDE3DTask(self, views, generator, encoder, before, more)


def earlier(file: str, name: str) -> tuple[Triplane, dict[str, Any], dict[str, str]]:
    """The generator of a weight file, trainable; how it was trained; the encoder that it names.

    Raises: WeightsError: no such weights, or no generator with shape and texture styles.
    """
    path = weights.resolve(file)
    metadata = weights.metadata(path)
    if metadata.get("kind") not in (KIND, "triplane"):
        raise WeightsError(
            f"{file} is no generator that this trainer knows",
            hint="begin with one of `semedit train heads-128` or `semedit train ide3d`",
        )
    kind = metadata["kind"]
    made = weights.built(lambda config: build_generator(kind, config, name), metadata, name)
    generator = cast(Triplane, made)
    named = {key: metadata[key] for key in ("encoder",) if key in metadata}
    return generator, start_from_file(generator, path), named


def critic_of(preset: str, resolution: int) -> tuple[int, ...]:
    """Channels of a preset's discriminator at R, R/2, ..., 4 pixels; paper: StyleGAN2's."""
    base, most = (32768, 512) if preset == "paper" else (2048, 128)
    return widths(resolution, base, most)[::-1]


def config_of(preset: str, z_dim: int) -> IDE3DConfig:
    """Sizes of a preset; "heads" has as many entries of z as a head has parameters.

    Its neural resolution is that of the second stage.
    """
    if preset == "paper":
        return IDE3DConfig(neural=128)
    return IDE3DConfig(
        z_dim=z_dim,
        w_dim=256,
        mapping_layers=4,
        trunk=(128, 128, 128, 128, 64),
        maps=True,
        shape_channels=16,
        branches=(32,),
        branch_convs=1,
        texture_channels=16,
        features=16,
        neural=64,
        up=(32,),
        up_input=64,
        shift=True,
        samples=16,
        fine=16,
        near=0.0,
        far=0.0,
        density_scale=50.0,
        density_start=-3.0,
    )


class IDE3DTask(GeneratorTask):
    """The networks, their optimisers and their losses; see loop.Task."""

    def __init__(
        self,
        trainer: IDE3DTrainer,
        views: Views,
        generator: Triplane,
        encoder: nn.Module | None = None,
        before: dict[str, Any] | None = None,
        more: dict[str, str] | None = None,
    ) -> None:
        self.trainer, self.views = trainer, views
        self.before, self.more = before or {}, more or {}
        self.device = device_of(trainer.device)
        self.encoder = None if encoder is None else encoder.to(self.device)
        self.generator = generator.to(self.device)
        channels = tuple(trainer.critic) or critic_of(trainer.preset, generator.resolution)
        self.discriminator = DualDiscriminator(
            generator.resolution,
            channels,
            tuple(trainer.critic_labels) or channels,
            len(LABELS),
            joint=trainer.joint,
        ).to(self.device)
        self.memory = Memory()
        self.modules: dict[str, nn.Module] = {
            "generator": generator,
            "discriminator": self.discriminator,
            "memory": self.memory,
        }
        self.averaged = ("generator",)
        kept = len(views) - min(trainer.held_out, len(views) // 4)
        self.held = torch.arange(kept, len(views))
        self.faces = rebalanced(views.c[:kept], trainer.steep)
        self.size = len(self.faces)
        self.class_weights = class_weights(views.labels[:kept]).to(self.device)
        self.poses = Poses.of(views.c[:kept].reshape(-1, 25))
        self.optimisers = self._optimisers()
        self.share(Processes())

    @property
    def kind(self) -> str:  # type: ignore[override]
        """Of the weight file."""
        return KIND if isinstance(self.generator, IDE3D) else "triplane"

    def share(self, processes: Processes) -> None:
        """Train together with other processes."""
        self._by_generator = sharing(processes, self.generator)
        self._by_critic = sharing(processes, self.discriminator)

    def _optimisers(self) -> dict[str, torch.optim.Optimizer]:
        trainer, mapping = self.trainer, self.generator.mapping_network
        own = {id(p) for p in mapping.parameters()}
        rest = [p for p in self.generator.parameters() if id(p) not in own]
        quick = trainer.regression_lr * trainer.mapping_speed
        groups: list[dict[str, Any]] = [
            {"params": rest},
            {"params": list(mapping.parameters()), "lr": quick},
        ]
        both, critic = [*mapping.parameters(), *rest], list(self.discriminator.parameters())
        return {
            "regression": torch.optim.Adam(groups, trainer.regression_lr, betas=(0.9, 0.98)),
            "generator": torch.optim.Adam(both, trainer.lr, betas=(0.0, 0.99), eps=1e-8),
            "discriminator": lazy_adam(critic, trainer.critic_lr, trainer.r1_every),
        }

    def batch(self, indices: Tensor) -> View:
        """One random view of each head; pictures without parameters are mirrored at random."""
        heads = self.faces[indices]
        batch = self._view(heads, torch.randint(self.views.c.shape[1], indices.shape))
        if self.views.z.shape[1]:
            return batch
        return batch.mirrored(torch.rand(len(heads)).to(self.device) < self.trainer.mirrored)

    def _view(self, heads: Tensor, view: Tensor) -> View:
        return self.views.one(heads, view).to(self.device)

    def step(self, batch: View, progress: float) -> dict[str, float]:
        """One update: of the generator by regression, or of both networks."""
        trainer = self.trainer
        config = self.generator.config
        # Fewer features would be a smaller picture where they are not resized.
        first = progress < trainer.first_stage and config.up_input > 0
        neural = config.neural // (2 if first else 1)
        if progress < trainer.regression:
            terms = self._by_generator(lambda: self._regress(batch, neural))
            return self._descend("regression", terms)
        begun = (progress - trainer.regression) / max(1e-9, 1 - trainer.regression)
        sigma = trainer.blur * max(0.0, 1 - begun / max(1e-9, trainer.blur_part))
        values = self._criticise(batch, neural, sigma) | self._please(batch, neural, sigma)
        self.memory.steps += 1
        return values

    def _descend(self, name: str, terms: dict[str, Tensor]) -> dict[str, float]:
        """One step of an optimiser down a sum of terms."""
        self._update(name, total(terms))
        return report(terms)

    def _regress(self, batch: View, neural: int) -> dict[str, Tensor]:
        """Terms of the regression on the parameters, and the pictures, of rendered heads."""
        trainer = self.trainer
        ws = self.generator.mapping(batch.z, self._conditions(batch.c))["ws"]
        count = round(trainer.encoded * len(ws))
        if self.encoder is not None and count:
            found = self.encoder(*(x[:count] for x in (batch.images, batch.labels, batch.c)))
            ws = torch.cat([found, ws[count:]])
        planes = self.generator.planes({"ws": ws})
        output = self.generator.render(planes, batch.c, neural, jitter=True)
        low = output.low
        assert low is not None and low.seg is not None and output.seg is not None
        pixel = small_parts(trainer.small).to(self.device)[batch.labels][:, None]
        truth = F.interpolate(batch.images, (neural, neural), mode="area")
        ids = F.interpolate(batch.labels[:, None].float(), (neural, neural))[:, 0].long()
        labels = F.cross_entropy(output.seg, batch.labels, self.class_weights)
        labels = labels + F.cross_entropy(low.seg, ids, self.class_weights) / 2
        return {
            "image": ((output.image - batch.images).abs() * pixel).mean(),
            "low": (low.image - truth).abs().mean() / 2,
            "label": trainer.label * labels,
            "opacity": trainer.opacity * opacity_loss(output.opacity, batch.labels),
        }

    def _conditions(self, c: Tensor) -> Tensor:
        """Cameras [N,25] that styles are conditioned on: their own, or another one."""
        swapped = torch.rand(len(c), 1) < self.trainer.swapping
        return torch.where(swapped.to(c.device), self.poses.sample(len(c)).to(c), c)

    def _fake(self, c: Tensor, neural: int) -> tuple[Output, dict[str, Tensor]]:
        """Faces of random z, some with two styles, seen by cameras c; and their planes."""
        n, count = len(c), self.generator.num_ws
        z = torch.randn(2 * n, self.generator.z_dim).to(c)
        conditions = self._conditions(c)
        first, second = self.generator.mapping(z, conditions.repeat(2, 1))["ws"].chunk(2)
        cut = torch.where(torch.rand(n) < self.trainer.mixing, torch.randint(1, count, (n,)), count)
        early = torch.arange(count)[None, :, None] < cut[:, None, None]
        ws = torch.where(early.to(c.device), first, second)
        planes = self.generator.planes({"ws": ws})
        return self.generator.render(planes, c, neural, jitter=True), planes

    def _criticise(self, batch: View, neural: int, sigma: float) -> dict[str, float]:
        """Update the discriminator."""
        trainer = self.trainer
        with torch.no_grad():
            fake = drawn_pair(self._fake(batch.c, neural)[0], sigma)
        real = true_pair(batch, neural, sigma)

        def judged() -> tuple[Tensor, Tensor, Tensor]:
            real_, fake_ = (self.discriminator(*pair, batch.c) for pair in (real, fake))
            return losses.discriminator_loss(real_, fake_).sum(1).mean(), real_, fake_

        loss, *logits = self._by_critic(judged)
        self._update("discriminator", loss)
        values = {"critic": loss, "real": logits[0].mean(), "fake": logits[1].mean()}
        if int(self.memory.steps) % trainer.r1_every == 0:
            sizes = self._by_critic(lambda: self._slopes(real, batch.c))
            weighed = trainer.gamma_image * sizes[0] + trainer.gamma_labels * sizes[1]
            self._update("discriminator", weighed / 2 * trainer.r1_every)
            values |= {"r1_image": sizes[0], "r1_labels": sizes[1]}
        return report(values)

    def _slopes(self, real: tuple[Tensor, Tensor], c: Tensor) -> list[Tensor]:
        """Mean squared slope of the verdicts on real pictures, and on their label maps."""
        images, maps = (x.detach().requires_grad_(True) for x in real)
        verdicts = self.discriminator(images, maps, c).sum()
        slopes = torch.autograd.grad(verdicts, (images, maps), create_graph=True)
        return [slope.square().flatten(1).sum(1).mean() for slope in slopes]

    def _please(self, batch: View, neural: int, sigma: float) -> dict[str, float]:
        """Update the generator."""
        terms = self._by_generator(lambda: self._pleasing(batch, neural, sigma))
        return self._descend("generator", terms)

    def _pleasing(self, batch: View, neural: int, sigma: float) -> dict[str, Tensor]:
        """Terms of the generator beside the adversary."""
        trainer = self.trainer
        output, planes = self._fake(batch.c, neural)
        self.discriminator.requires_grad_(False)  # its gradients are not wanted here
        logits = self.discriminator(*drawn_pair(output, sigma), batch.c)
        self.discriminator.requires_grad_(True)
        terms = {"generator": losses.generator_loss(logits).sum(1).mean()}
        if trainer.density > 0:
            terms["density"] = trainer.density * self._rough(planes)
        if trainer.anchor > 0:
            near = self._regress(batch, neural)
            terms |= {name: trainer.anchor * value for name, value in near.items()}
        return terms

    def _rough(self, planes: dict[str, Tensor]) -> Tensor:
        """Equation 3: mean difference of density, before its softplus, between close points."""
        trainer, shape = self.trainer, planes["shape"]
        n, count = len(shape), trainer.density_points
        if trainer.density_everywhere:
            points = torch.rand(n * count, 3) * 2 - 1
        else:
            points = volume.fine_points(planes["density"].cpu(), count).flatten(0, 1)
        near = points + 2 * trainer.density_step * torch.randn_like(points)
        points, near = points.to(self.device), near.to(self.device)
        face = torch.arange(n, device=self.device).repeat_interleave(trainer.density_points)
        here, there = (self.generator.raw_density(shape, x, face) for x in (points, near))
        return (here - there).abs().mean()

    def centre(self, generator: Triplane, samples: int = 4096) -> None:
        """Set w_avg to the mean style of random z under random cameras; always the same ones."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            c = self.poses.sample(samples).to(generator.w_avg)
        style = generator.mapping_network
        set_mean_style(generator.w_avg, lambda z: style(z, c), generator.z_dim, samples)

    def evaluate(self, modules: dict[str, nn.Module]) -> dict[str, float]:
        """On held-out heads; see `mapped_figures`."""
        generator = cast(Triplane, modules["generator"])
        self.centre(generator)
        guided = None if self.encoder is None else self._encoded
        return held_out_figures(generator, self.views, self.held, guided)

    def _encoded(self, seen: View) -> dict[str, Tensor]:
        """Codes that the encoder finds in views of heads."""
        assert self.encoder is not None
        return {"ws": self.encoder(seen.images, seen.labels, seen.c)}

    def export(
        self,
        modules: dict[str, nn.Module],
        figures: dict[str, float],
        folder: Path,
        record: dict[str, Any],
    ) -> None:
        """Write the generator; its record tells of the run that it began with."""
        super().export(modules, figures, folder, whole_training(record, self.before))
