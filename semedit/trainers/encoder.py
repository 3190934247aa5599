"""`semedit train encoder`: an encoder for a generator that stays as it is.

    real faces       L_i(G(E(x), c), x)
    synthetic faces  L_i(G(E(x_i), c_i), x_i) for views i = 0..k of one code, and
                     codes    |E(x_i) - E(x_0)|^2 / std^2
                     features |phi(G(E(x_i), c_0)) - phi(x_0)|^2

L_i compares pictures and label maps (trainers/triplane.py). The last two terms are the multi-view
augmentation: k views more of each synthetic face, whose codes and whose deep features phi shall be
the same. `multi_view=0` leaves it out: one view, no such terms.

Source: Sun et al. 2022 (IDE-3D), arXiv:2205.15517, section 3.2.
Departs: rendered heads have true second views, which `second_view` compares, too; without them
(pictures of a folder, see datasets/posed.py) it does nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from semedit import cameras, losses, metrics
from semedit.datasets.posed import read_faces
from semedit.datasets.rendered import Pair, Views
from semedit.errors import OptionError
from semedit.generators import load_generator
from semedit.generators.parts.encoder import Encoder
from semedit.generators.triplane.triplane import Triplane
from semedit.inverters.codes import spread
from semedit.trainers.parts.loss_terms import report, total
from semedit.trainers.parts.synthesis import FaceSampler, SyntheticViews
from semedit.trainers.triplane import PictureTask, PictureTrainer, encoder_config


@dataclass(frozen=True)
class EncoderTrainer(PictureTrainer):
    """Hyper-parameters of an encoder's training."""

    name: ClassVar[str] = "encoder"
    batch_size: int = 4  # real faces a step, and as many synthetic ones
    generator: str = "heads-128"  # weights of the generator
    fresh: bool = False  # start from random weights although the generator has an encoder
    angles: bool = False  # predict yaw and pitch, too, and look at no camera
    synthetic: bool = True  # learn from synthetic faces beside the real ones
    multi_view: int = 1  # k, views more of each synthetic face; 0: no augmentation
    same_codes: float = 0.1  # weight of the codes' distance between views
    same_features: float = 0.2  # weight of the features' distance
    pose: float = 1.0  # weight of the squared error of yaw and pitch, radians
    random_z: float = 0.25  # part of the synthetic faces with random z; the others are encoded
    swapped: float = 0.5  # part of the synthetic faces with another one's texture
    second_view: bool = True  # compare rendered heads in their true second view, too

    def start(self, data: Path) -> EncoderTask:
        """Read the data and the generator.

        Raises: OptionError: the generator is not of the kind that this encoder fits, or there is
                nothing to learn from.
        """
        generator = editable_generator(self.generator)
        views = read_faces(data, generator.resolution)
        encoder = new_encoder(generator, 2 if self.angles else 0)
        if not self.fresh:
            begin_as_own(encoder, generator)
        return EncoderTask(self, views, generator, encoder)


def editable_generator(name: str) -> Triplane:
    """A generator with shape and texture styles, by the name of its weights.

    Raises: OptionError: it has none.
    """
    generator = load_generator(name)
    if not isinstance(generator, Triplane):
        raise OptionError(
            f"{name} is no generator with shape and texture styles",
            hint="name one of `semedit train heads-128` or `semedit train ide3d`",
        )
    return generator


def new_encoder(generator: Triplane, angles: int | None = None) -> Encoder:
    """Random weights, of the sizes of the generator's own encoder, where it has one; angles: how
    many it predicts, None: as many as that one."""
    own = generator.encoder
    config = own.config if isinstance(own, Encoder) else encoder_config(generator)
    return Encoder(config if angles is None else replace(config, angles=angles))


def begin_as_own(encoder: Encoder, generator: Triplane) -> bool:
    """Give an encoder the weights of the generator's own one, where there is one of its sizes."""
    own = generator.encoder
    if not isinstance(own, Encoder) or own.config != encoder.config:
        return False
    encoder.load_state_dict(own.state_dict())
    return True


class EncoderTask(PictureTask):
    """The encoder, its optimiser and its losses; see loop.Task."""

    trainer: EncoderTrainer

    def __init__(
        self, trainer: EncoderTrainer, views: Views, generator: Triplane, encoder: Encoder
    ) -> None:
        super().__init__(trainer, views, generator, encoder, ("encoder",))
        c = views.c[: self.size].reshape(-1, 25)
        self.faces = FaceSampler.of(generator, c, trainer.random_z, trainer.swapped)
        self.scale = spread(generator, c[:1].to(self.device))["ws"]
        wanted = trainer.synthetic and trainer.multi_view and trainer.same_features
        self.perceptual = losses.perceptual("faces" if wanted else "none", self.device)

    def batch(self, indices: Tensor) -> Pair:
        """Two views of each head, in random order; the same one twice where there is just one."""
        if self.views.c.shape[1] > 1:
            return super().batch(indices)
        zero = torch.zeros_like(indices)
        return self._pair(indices, zero, zero)

    def step(self, batch: Pair, progress: float) -> dict[str, float]:
        """One update."""
        trainer, config = self.trainer, self.generator.config
        neural = config.neural // 2 if progress < trainer.coarse else config.neural
        terms = self._real(batch, neural)
        if trainer.synthetic:
            terms |= {f"synthetic_{k}": v for k, v in self._synthetic(batch, neural).items()}
        self._update(total(terms))
        return report(terms)

    def _real(self, batch: Pair, neural: int) -> dict[str, Tensor]:
        """Weighted terms of the data's faces."""
        views = 2 if self.trainer.second_view and self.views.c.shape[1] > 1 else 1
        ws, angles = self._encode(batch.images[:, 0], batch.labels[:, 0], batch.c[:, 0])
        images, labels, c = (x[:, :views] for x in (batch.images, batch.labels, batch.c))
        terms = self._drawn(ws, images, labels, c, neural)
        return terms | self._posed(angles, batch.c[:, 0])

    def _synthetic(self, batch: Pair, neural: int) -> dict[str, Tensor]:
        """Weighted terms of synthetic faces, and of their agreement between views."""
        trainer, n, views = self.trainer, len(batch.c), 1 + self.trainer.multi_view
        ws = self.faces.codes(batch.images[:, 0], batch.labels[:, 0], batch.c[:, 0])
        true = self.faces.show(ws, self.faces.cameras(n, views))
        images, labels, c = (x.flatten(0, 1) for x in (true.images, true.labels, true.c))
        found, angles = self._encode(images, labels, c)
        terms = self._drawn(found, images[:, None], labels[:, None], c[:, None], neural)
        terms |= self._posed(angles, c)
        if views > 1:
            codes = found.unflatten(0, (n, views))
            away = ((codes[:, 1:] - codes[:, :1]) / self.scale[:, None]).square().mean()
            terms["same_codes"] = trainer.same_codes * away
            if trainer.same_features > 0:
                terms["same_features"] = trainer.same_features * self._features(codes, true)
        return terms

    def _features(self, codes: Tensor, true: SyntheticViews) -> Tensor:
        """How far the first view, drawn with the codes [B,V,num_ws,w_dim] of the others, is from
        itself in deep features."""
        others = codes[:, 1:].flatten(0, 1)
        first = true.c[:, :1].expand(-1, codes.shape[1] - 1, -1).flatten(0, 1)
        with self._half():
            drawn = self.generator.render(self.generator.planes({"ws": others}), first)
        with torch.no_grad():
            target = self.perceptual.features(true.images[:, 0])[-1:]
        repeated = [x.repeat_interleave(codes.shape[1] - 1, 0) for x in target]
        found = self.perceptual.features(drawn.image.float())[-1:]
        return losses.distance(found, repeated).mean()

    def _posed(self, angles: Tensor, c: Tensor) -> dict[str, Tensor]:
        """The error of predicted yaw and pitch [N,2], where they are predicted."""
        if angles.shape[1] == 0:
            return {}
        return {"pose": self.trainer.pose * (angles - cameras.angles(c)[:, :2]).square().mean()}

    def evaluate(self, modules: dict[str, nn.Module]) -> dict[str, float]:
        """On held-out faces: decibels and share of right labels in the encoder's own view, and
        decibels in the true other one where there is one."""
        encoder: Any = modules["encoder"]
        views = min(2, self.views.c.shape[1])
        sums: dict[str, list[float]] = {}
        for heads in torch.arange(self.size, len(self.views)).split(8):
            batch = self._pair(heads, heads * 0, heads * 0 + views - 1)
            ws, angles = encoder.look(batch.images[:, 0], batch.labels[:, 0], batch.c[:, 0])
            c = batch.c[:, :views].flatten(0, 1)
            output = self.generator.render(self.generator.planes({"ws": ws}), c)
            assert output.seg is not None
            errors = metrics.psnr(output.image.unflatten(0, (-1, views)), batch.images[:, :views])
            right = output.seg.unflatten(0, (-1, views)).argmax(2) == batch.labels[:, :views]
            found = {"own_db": errors[:, 0], "own_labels": right[:, 0].float().mean((1, 2))}
            if views > 1:
                found["other_db"] = errors[:, 1]
            if angles.shape[1]:
                away = (angles - cameras.angles(batch.c[:, 0])[:, :2]).abs().rad2deg()
                found["pose_mae_deg"] = away.mean(1)
            for name, values in found.items():
                sums.setdefault(name, []).extend(values.tolist())
        return {name: round(sum(v) / len(v), 4) for name, v in sums.items()}
