"""`semedit train cnerf`: CNeRF on rendered heads, by regression, then adversarially.

z says what a head is: its parameters, all standard normal. So a run may begin with a plain
regression of random rays, which a CPU can afford, with the true label map for the regions' masks,
while the mapping network follows an encoder (guide.py); the adversaries then teach what a mean
picture lacks, and the regression holds them. `regression=0 anchor=0` leaves the published losses.

    regression  |image - x| + label CE(8 maps, regions of x) + mask |maps - one-hot|^2 + near
    field       eikonal (|grad d| - 1)^2 + surface exp(-100 |d|)
    generator   -log sigmoid D(G) -log sigmoid D_k(G_k) + CE(class of G_k, k) + view |angles|
                + anchor * regression + field
    critics     -log sigmoid D(x) - log(1 - sigmoid D(G)) + view |angles of G| + R1, the same of
                D_k for a random region k, + CE(class of x_k and G_k, k)

Stage 2 (`stage1=WEIGHTS`) keeps the volume and trains the up-sampling by the same terms.

Source: Ma et al. 2023, arXiv:2302.01579; weights as in its published code. Departs: the regression;
the critics see every n-th pixel of every n-th row, from a random one; R1 has steps of its own; a
region that is not there has no class; no path length regularisation in stage 2.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semedit import cameras, losses
from semedit.datasets.rendered import Pair, View, Views, read_views
from semedit.errors import OptionError
from semedit.generators import load_generator
from semedit.generators.cnerf.cnerf import LOGIT, CNeRF
from semedit.generators.cnerf.config import REGIONS, CNeRFConfig
from semedit.generators.cnerf.march import distances
from semedit.generators.parts.siren import FREQUENCY, PHASE
from semedit.media.labels import LABELS
from semedit.options import pick_method
from semedit.trainers.loop import GeneratorTask, Schedule
from semedit.trainers.parts.cnerf_critics import (
    Critic,
    class_loss,
    critic_loss,
    mix,
    region_crop,
    slopes,
    view_loss,
)
from semedit.trainers.parts.discriminators import Memory
from semedit.trainers.parts.guide import Guide, followed
from semedit.trainers.parts.held_out import held_out_figures
from semedit.trainers.parts.loss_terms import report, total
from semedit.trainers.parts.ray_sampling import grid_picture, grid_pixels, ray_density, thinned

KIND = "cnerf"
WIDTHS = (24, 48, 96, 128)  # channels of the guide at half, quarter, ... of the resolution
DEPTH = 0.4 / cameras.RADIUS  # what is seen of a head lies between 0.4 world units and -0.4


@dataclass(frozen=True)
class CNeRFTrainer:
    """Hyper-parameters of a CNeRF and its discriminators."""

    name: ClassVar[str] = "cnerf"
    schedule: ClassVar[Schedule] = Schedule(minutes=90.0, ema_steps=150.0, save_minutes=15.0)
    output: str = "heads-cnerf-64"  # name of the weight file
    stage1: str = ""  # weights of stage 1, to train stage 2 on; empty: train stage 1
    up: tuple[int, ...] = (64, 32)  # channels of stage 2 at 64, 128, ... pixels
    resolution: int = 64  # pixels a side of stage 1
    regions: tuple[str, ...] = tuple(REGIONS)  # local networks
    width: int = 64  # of the local networks
    w_dim: int = 128  # entries of a style
    frequency: float = FREQUENCY  # mean of the sines'
    phase: float = PHASE  # spread of their phases under styles, radians
    samples: int = 24  # per ray
    batch_size: int = 8  # heads a step
    rays: int = 128  # of each head in a regression step; more heads of fewer rays teach more
    critic_side: int = 32  # pixels a side that the critics see
    critic: tuple[int, ...] = (32, 64, 128, 192)  # their channels at critic_side, half, ... 4
    regression: float = 0.85  # part of the run without adversaries
    regression_lr: float = 2e-3  # Adam
    sine_speed: float = 0.05  # factor on it for weights inside the sines, which are small
    modulation_speed: float = 0.25  # and for what styles make of frequencies and phases
    lr: float = 2e-3  # Adam, generator beside the critics; sines and modulation as above
    critic_lr: float = 5e-3  # Adam, critics; a run's end, where they come, is at a tenth of rates
    mapped: float = 0.25  # part of the regression's heads that pass through the mapping network
    near: float = 0.2  # weight of the mapping network's distance from the guide
    label: float = 0.3  # weight of the regions' cross-entropy
    mask: float = 0.5  # weight of the maps' squared error
    small: float = 4.0  # how much denser rays are on eyes, brows, nose, mouth, glasses
    background: float = 0.3  # the same of the background
    eikonal: float = 0.1  # weight
    surface: float = 0.001  # weight
    anchor: float = 2.0  # weight of the regression beside the adversaries
    view: float = 15.0  # weight of the angles that the whole's critic reads
    semantic: float = 1.0  # weight of the region's critic
    r1_image: float = 10.0  # weight of R1 of pictures
    r1_maps: float = 1000.0  # weight of R1 of maps
    r1_every: int = 8  # steps
    mixing: float = 0.9  # chance that a head's regions come from two z
    held_out: int = 32  # heads kept for evaluation

    def start(self, data: Path) -> CNeRFTask:
        """Read the data, make the networks.

        Raises: OptionError: stage1 is no CNeRF of these heads; sizes or regions that do not fit.
        """
        for name in {"background", "face"} - set(self.regions):
            raise OptionError(f"regions lack {name}")
        for name in self.regions:
            pick_method(REGIONS, name, "region")
        generator = self._enlarged() if self.stage1 else None
        side = self.resolution if generator is None else generator.resolution
        if self.critic_side != 4 * 2 ** (len(self.critic) - 1) or side % self.critic_side:
            raise OptionError(
                f"{len(self.critic)} channels of critics do not fit {self.critic_side} pixels of "
                f"{side}",
                "they halve down to 4: -o critic=32,64,128,192 for -o critic_side=32",
            )
        if not 1 <= self.rays <= self.resolution**2:
            raise OptionError(f"a head has {self.resolution**2} rays, not {self.rays}")
        views = read_views(data, self.resolution if generator is None else generator.resolution)
        if generator is None:
            generator = CNeRF(self.config(views.z.shape[1]), self.output)
        if generator.z_dim != views.z.shape[1]:
            raise OptionError(f"{self.stage1} was trained on other heads")
        return CNeRFTask(self, views, generator)

    def config(self, parameters: int) -> CNeRFConfig:
        """Of stage 1, for heads of so many parameters."""
        return CNeRFConfig(
            regions=tuple(self.regions),
            neural=self.resolution,
            z_dim=parameters,
            w_dim=self.w_dim,
            layered=True,
            width=self.width,
            samples=self.samples,
            depth=DEPTH,
            focal=cameras.FOCAL,
            beta=0.02,
            shape_sdf=True,
            sphere=0.5,
            windows=True,
            skip_weight=2e-3,
            frequency=self.frequency,
            phase=self.phase,
        )

    def _enlarged(self) -> CNeRF:
        """stage1's generator with a new stage 2."""
        volume = load_generator(self.stage1)
        if not isinstance(volume, CNeRF) or volume.stage2 is not None:
            raise OptionError(f"{self.stage1} is no stage 1 of a CNeRF")
        found = CNeRF(replace(volume.config, up=tuple(self.up)), self.output)
        found.load_state_dict(volume.state_dict(), strict=False)
        return found


@dataclass(frozen=True)
class CNeRFBatch:
    """One view of B heads: images [B,3,R,R], region numbers [B,R,R], how dense rays are on each
    pixel [B,R*R], c [B,25], z [B,P]; and the view that the guide sees, often another."""

    images: Tensor
    regions: Tensor
    density: Tensor
    c: Tensor
    z: Tensor
    seen: Tensor
    seen_labels: Tensor

    def first(self, count: int) -> CNeRFBatch:
        """Of fewer heads."""
        return CNeRFBatch(*(getattr(self, name)[:count] for name in self.__dataclass_fields__))


class CNeRFTask(GeneratorTask):
    """The networks, their optimisers and their losses; see loop.Task."""

    kind = KIND
    generator: CNeRF

    def __init__(self, trainer: CNeRFTrainer, views: Views, generator: CNeRF) -> None:
        self.trainer, self.views, self.generator = trainer, views, generator
        self.count = len(generator.regions)
        channels = tuple(trainer.critic)
        self.whole, self.part = Critic(channels, self.count, 3), Critic(channels, 1, 1 + self.count)
        self.memory = Memory()
        styles = self.count * 2  # of shape and of texture
        self.guide: Guide | None = None
        if trainer.regression > 0 and generator.stage2 is None:
            self.guide = Guide(generator.config.neural, generator.config.w_dim, WIDTHS, styles)
        guide = {} if self.guide is None else {"guide": self.guide}
        self.modules: dict[str, nn.Module] = {
            "generator": generator,
            **guide,
            "whole": self.whole,
            "part": self.part,
            "memory": self.memory,
        }
        self.averaged = ("generator", *guide)
        self.size = len(views) - min(trainer.held_out, len(views) // 4)
        self.numbers = region_numbers(generator.config)
        self.density = ray_density(trainer.small, trainer.background)
        self.optimisers = self._optimisers()

    def _optimisers(self) -> dict[str, torch.optim.Optimizer]:
        trainer, generator = self.trainer, self.generator
        trained = generator if generator.stage2 is None else generator.stage2
        generator.requires_grad_(False)
        trained.requires_grad_(True)
        critics = [*self.whole.parameters(), *self.part.parameters()]
        lr = trainer.regression_lr
        groups: dict[str, list[nn.Parameter]] = {}
        for name, parameter in trained.named_parameters():
            groups.setdefault(part_of(name), []).append(parameter)
        speeds = {"sines": trainer.sine_speed, "modulation": trainer.modulation_speed}

        def paced(lr: float) -> list[dict[str, Any]]:
            return [{"params": p, "lr": lr * speeds.get(k, 1.0)} for k, p in groups.items()]

        first = paced(lr)
        if self.guide is not None:
            first.append({"params": list(self.guide.parameters()), "lr": lr})
        return {
            "regression": torch.optim.Adam(first, lr, betas=(0.9, 0.98)),
            "generator": torch.optim.Adam(paced(trainer.lr), trainer.lr, betas=(0.0, 0.99)),
            "critics": torch.optim.Adam(critics, trainer.critic_lr, betas=(0.0, 0.99)),
        }

    def batch(self, indices: Tensor) -> CNeRFBatch:
        """One random view of each head, and another."""
        return self._batch(self.views.any_pair(indices))

    def _batch(self, pair: Pair) -> CNeRFBatch:
        (images, seen), (labels, seen_labels) = pair.images.unbind(1), pair.labels.unbind(1)
        density, regions = self.density[labels].flatten(1), self.numbers[labels]
        return CNeRFBatch(images, regions, density, pair.c[:, 0], pair.z, seen, seen_labels)

    def step(self, batch: CNeRFBatch, progress: float) -> dict[str, float]:
        """One update: of the generator by regression, or of all networks."""
        if progress < self.trainer.regression:
            terms = self._regress(batch)
            self._update("regression", total(terms))
            return report(terms)
        found = self._criticise(batch) | self._please(batch)
        self.memory.steps += 1
        return found

    def _regress(self, batch: CNeRFBatch) -> dict[str, Tensor]:
        """Terms of the regression and of the field, weighted."""
        trainer = self.trainer
        if self.generator.stage2 is not None:
            codes = self.generator.mapping(batch.z, batch.c)
            image, maps = (x.flatten(2) for x in self._enlarge(codes, batch.c))
            return self._likeness(image, maps, batch.images, batch.regions, batch.density)
        mapped = self.generator.mapping_network(batch.z)
        w, near = followed(mapped, self.guide, batch.seen, batch.seen_labels, trainer.mapped)
        codes = {"ws": self.generator.spread(w)}
        pixels = torch.multinomial(batch.density, trainer.rays)
        planes = self.generator.planes(codes)
        found = self.generator.volume(planes, batch.c, pixels, jitter=True)
        images = batch.images.flatten(2).gather(2, pixels[:, None].expand(-1, 3, -1))
        regions = batch.regions.flatten(1).gather(1, pixels)
        colour, maps = found["colour"].transpose(1, 2), found["maps"].transpose(1, 2)
        terms = self._likeness(colour, maps, images, regions) | self._field(planes, found)
        return {**terms, "near": trainer.near * near}

    def _likeness(
        self,
        image: Tensor,
        maps: Tensor,
        images: Tensor,
        regions: Tensor,
        density: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Of pixels [B,3,M] and maps [B,K,M] with the true ones; density [B,M]: their weights."""
        trainer, images, regions = self.trainer, images.flatten(2), regions.flatten(1)
        weight = torch.ones(regions.shape) if density is None else density
        weight = weight / weight.mean()
        true = F.one_hot(regions, self.count).movedim(2, 1).float()
        entropy = F.cross_entropy(LOGIT * maps, regions, reduction="none")
        return {
            "image": ((image - images).abs().mean(1) * weight).mean(),
            "label": trainer.label * (entropy * weight).mean(),
            "mask": trainer.mask * ((maps - true).square().sum(1) * weight).mean(),
        }

    def _field(self, planes: dict[str, Tensor], found: dict[str, Tensor]) -> dict[str, Tensor]:
        """Eikonal term at random points, and as few surfaces as can be."""
        trainer, generator = self.trainer, self.generator
        places = (2 * torch.rand(len(found["maps"]), 64, 3) - 1) * generator.config.depth
        terms = []
        for n, points in enumerate(places.unbind(0)):
            face = generator.local.field({k: v[n] for k, v in planes.items()})
            points = points.requires_grad_(True)
            d = distances(generator, face, points)
            (slope,) = torch.autograd.grad(d.sum(), points, create_graph=True)
            terms.append((slope.norm(dim=-1) - 1).square().mean())
        return {
            "eikonal": trainer.eikonal * torch.stack(terms).mean(),
            "surface": trainer.surface * (-100 * found["distances"].abs()).exp().mean(),
        }

    def _enlarge(self, codes: dict[str, Tensor], c: Tensor) -> tuple[Tensor, Tensor]:
        """Stage 2: pictures [N,3,R,R] and maps [N,K,R,R]; its gradient ends at the volume."""
        generator = self.generator
        assert generator.stage2 is not None
        with torch.no_grad():
            found = generator.volume(generator.planes(codes), c, jitter=True, features=True)
        features, maps = (grid_picture(found[k]) for k in ("features", "maps"))
        image, maps = generator.stage2(features, maps, codes["up"], "random")
        return image, maps

    def _criticise(self, batch: CNeRFBatch) -> dict[str, float]:
        """Update the critics."""
        trainer, n = self.trainer, max(1, len(batch.z) // 2)
        batch = batch.first(n)
        with torch.no_grad():
            image, maps, angles = self._fake(n)
        real = self._thinned(batch.images, self._one_hot(batch.regions))
        region = self._regions(batch.regions)
        parts = region_crop(*real, region), region_crop(image, maps, region)
        classes = [class_loss(self.part(*part)[:, 1:], region, part[1]) for part in parts]
        terms = {
            "critic": critic_loss(self.whole, real, (image, maps)),
            "angles": trainer.view * view_loss(self.whole(image, maps)[:, 1:], angles),
            "region": trainer.semantic * critic_loss(self.part, *parts),
            "class": trainer.semantic * (classes[0] + classes[1]),
        }
        if int(self.memory.steps) % trainer.r1_every == 0:
            terms["r1"] = self._r1(self.whole, *real) + trainer.semantic * self._r1(
                self.part, *parts[0]
            )
        self._update("critics", total(terms))
        return report(terms)

    def _regions(self, regions: Tensor) -> Tensor:
        """One random region of each head's true map [B,R,R], of those that it shows: int64 [B]."""
        there = [(regions == k).flatten(1).any(1) for k in range(self.count)]
        return torch.multinomial(torch.stack(there, 1).float(), 1)[:, 0]

    def _r1(self, critic: Critic, image: Tensor, maps: Tensor) -> Tensor:
        trainer = self.trainer
        of_image, of_maps = slopes(critic, image, maps)
        penalty = trainer.r1_image * of_image + trainer.r1_maps * of_maps
        return penalty * (trainer.r1_every / 2)

    def _please(self, batch: CNeRFBatch) -> dict[str, float]:
        """Update the generator."""
        trainer, n = self.trainer, max(1, len(batch.z) // 2)
        self.whole.requires_grad_(False), self.part.requires_grad_(False)
        image, maps, angles = self._fake(n)
        region = self._regions(batch.regions[:n])
        cut = region_crop(image, maps, region)
        whole, part = self.whole(image, maps), self.part(*cut)
        terms = {
            "generator": losses.generator_loss(whole[:, 0]).mean(),
            "view": trainer.view * view_loss(whole[:, 1:], angles),
            "local": trainer.semantic * losses.generator_loss(part[:, 0]).mean(),
            "kind": trainer.semantic * class_loss(part[:, 1:], region, cut[1]),
        }
        if trainer.anchor > 0:
            near = self._regress(batch.first(n))
            terms |= {name: trainer.anchor * value for name, value in near.items()}
        self._update("generator", total(terms))
        self.whole.requires_grad_(True), self.part.requires_grad_(True)
        return report(terms)

    def _fake(self, n: int) -> tuple[Tensor, Tensor, Tensor]:
        """Pictures and maps of random heads as the critics see them, and yaw and pitch [n,2]."""
        generator, given, side = self.generator, self.views.c, self.trainer.critic_side
        c = given[torch.randint(self.size, (n,)), torch.randint(given.shape[1], (n,))]
        codes = generator.mapping(torch.randn(2 * n, generator.z_dim), c)
        mixed = mix(codes["ws"], generator.config.shape_layers, self.trainer.mixing)
        angles = cameras.angles(c)[:, :2]
        if generator.stage2 is not None:
            up = codes["up"][:n]
            image, maps = self._enlarge({"ws": mixed, "up": up}, c)
            return *self._thinned(image, maps), angles
        planes = generator.planes({"ws": mixed})
        pixels = grid_pixels(n, generator.config.neural, side)
        found = generator.volume(planes, c, pixels, jitter=True)
        return grid_picture(found["colour"]), grid_picture(found["maps"]), angles

    def _thinned(self, image: Tensor, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures and maps at the critics' size, both from the same pixels."""
        both = thinned(torch.cat([image, maps], 1), self.trainer.critic_side)
        return both[:, :3], both[:, 3:]

    def _one_hot(self, regions: Tensor) -> Tensor:
        return F.one_hot(regions, self.count).movedim(3, 1).float()

    def evaluate(self, modules: dict[str, nn.Module]) -> dict[str, float]:
        """On held-out heads; see `mapped_figures`."""
        generator = cast(CNeRF, modules["generator"])
        generator.centre()

        def guided(seen: View) -> dict[str, Tensor]:
            w = modules["guide"](seen.images, seen.labels)
            return {"ws": generator.spread(w.unflatten(1, (self.count, 2)))}

        heads = torch.arange(self.size, len(self.views))
        return held_out_figures(
            generator, self.views, heads, guided if "guide" in modules else None
        )


def part_of(parameter: str) -> str:
    """What learns at one pace: "sines", weights inside them; "modulation", what moves all points
    at once: frequencies, phases, and how soft the surface is; "rest"."""
    if ".linears." in parameter:
        return "sines"
    if any(name in parameter for name in ("gamma_", "beta_", "sigmoid_beta")):
        return "modulation"
    return "rest"


def region_numbers(config: CNeRFConfig) -> Tensor:
    """The region of each label, int64 [19]; labels of no region go to the face."""
    face = config.regions.index("face")
    return torch.tensor([config.labels.get(i, (face, False))[0] for i in range(len(LABELS))])
