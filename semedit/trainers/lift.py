"""`semedit train lift`: what codes miss of a face, in one pass, for a generator that stays.

    P = P(E(x, S, c));  P' = P + T(x, S, c, P, G(P, c));  L = sum over views i of L_i(G(P', c_i))

with T the LiftNet (generators/triplane/lifting.py), x the head in one view, with a label map S and
a camera c off by as much as estimates are; the views are that one and another one, which T has not
seen. L_i compares pictures and label maps with the true ones (trainers/triplane.py). Cameras of
other views are carried along with the error of the first one's (cameras.carried): T is not to
guess how it errs.

Source: Bhattarai et al. 2023 (TriPlaneNet), arXiv:2303.13497; Trevithick et al. 2023 (Live 3D
Portrait), arXiv:2305.02310: other views of rendered heads teach what no photograph does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from semedit import cameras, metrics
from semedit.datasets.rendered import Pair, Views, read_views
from semedit.errors import OptionError
from semedit.faces.estimates import estimates
from semedit.generators.contract import Output
from semedit.generators.triplane.lifting import KIND, LiftConfig, LiftNet, lifted
from semedit.generators.triplane.triplane import Planes, Triplane
from semedit.latents import fingerprint
from semedit.trainers.encoder import editable_generator
from semedit.trainers.loop import write_weights
from semedit.trainers.parts.loss_terms import report, total
from semedit.trainers.parts.recolouring import recoloured
from semedit.trainers.parts.start_from import start_from_file, whole_training
from semedit.trainers.triplane import PictureTask, PictureTrainer, wobble

# How far the pose network is off in the six camera numbers (cameras.to_six) of rendered heads.
ERRORS = (0.018, 0.026, 0.008, 0.027, 0.005, 0.007)
TINT = 0.1  # spread of other colours between the channels, see recolouring.recoloured


@dataclass(frozen=True)
class LiftTrainer(PictureTrainer):
    """Hyper-parameters of a LiftNet's training."""

    name: ClassVar[str] = "lift"
    batch_size: int = 2  # heads a step, two views each
    lr: float = 1.5e-3  # Adam
    generator: str = "heads-128"  # whose planes it moves
    label: float = 0.1  # weight of the cross-entropy
    other: float = 1.0  # weight of the view that was not seen
    estimated: float = 0.2  # part of the steps with the face network's own label maps and cameras
    coarse: float = 0.2  # part of the run that renders at half the resolution
    recoloured: float = 0.75  # part of the heads whose regions get other colours, in all views
    start_from: str = ""  # a weight file of another run; "": random weights

    def start(self, data: Path) -> LiftTask:
        """Read the data and the generator.

        Raises: OptionError: the generator has no tri-planes or no encoder, or the data has one
                view of each head.
        """
        generator = editable_generator(self.generator)
        if generator.encoder is None:
            raise OptionError(f"{self.generator} has no encoder", "semedit train encoder")
        views = read_views(data, generator.resolution)
        if views.c.shape[1] < 2:
            raise OptionError(
                f"{data} has one view of each head", "semedit heads --views 3 renders three"
            )
        network = LiftNet(LiftConfig.of(generator))
        before = start_from_file(network, self.start_from) if self.start_from else {}
        return LiftTask(self, views, generator, network, before)


class LiftTask(PictureTask):
    """The LiftNet, its optimiser and its losses; see loop.Task."""

    trainer: LiftTrainer

    def __init__(
        self,
        trainer: LiftTrainer,
        views: Views,
        generator: Triplane,
        network: LiftNet,
        before: dict[str, Any],
    ) -> None:
        encoder: Any = generator.encoder
        super().__init__(
            trainer, views, generator, encoder, ("lift",), before, more={"lift": network}
        )
        self.network = network

    def step(self, batch: Pair, progress: float) -> dict[str, float]:
        """One update."""
        trainer, config = self.trainer, self.generator.config
        neural = config.neural // 2 if progress < trainer.coarse else config.neural
        batch = self._recoloured(batch)
        images = batch.images[:, 0] + 0.02 * torch.randn_like(batch.images[:, 0])
        labels, c = self._estimates(images, batch)
        planes, _ = self.lift(self.network, images, labels, c)
        views = seen_as(batch.c, c)
        output = self.generator.render(
            planes, views.flatten(0, 1), neural, jitter=True, keep_empty=0.25
        )
        terms = {}
        for view, name in enumerate(("own", "other")):
            weight = trainer.other if view else 1.0
            part = _view(output, view)
            truth = batch.images[:, view], batch.labels[:, view]
            assert part.low is not None
            found = self._total(self._losses(part.image, part.seg, *truth))
            low = self._total(self._losses(part.low.image, part.low.seg, *truth))
            terms[name] = weight * (found + trainer.low * low)
        self._update(total(terms))
        return report(terms)

    def _recoloured(self, batch: Pair) -> Pair:
        """The heads, some with regions in other colours, the same in all views: colours are to be
        those of the photograph, not those of rendered heads."""
        chosen = torch.rand(len(batch.c), device=batch.c.device) < self.trainer.recoloured
        # One above the other, views get one colour a region.
        tall = batch.images.transpose(1, 2).flatten(2, 3), batch.labels.flatten(1, 2)
        other = recoloured(*tall, TINT).unflatten(2, batch.labels.shape[1:3]).transpose(1, 2)
        return replace(batch, images=torch.where(chosen.view(-1, 1, 1, 1, 1), other, batch.images))

    @torch.no_grad()
    def _estimates(self, images: Tensor, batch: Pair) -> tuple[Tensor, Tensor]:
        """Label maps and cameras of the first views: the face network's, or true ones made wrong,
        which costs less."""
        if torch.rand(()) < self.trainer.estimated:
            return estimates(images)
        six = cameras.to_six(batch.c[:, 0])
        off = torch.randn(six.shape, device=six.device) * six.new_tensor(ERRORS)
        return wobble(batch.labels[:, 0]), cameras.from_six(six + off)

    def lift(
        self, network: LiftNet, images: Tensor, labels: Tensor, c: Tensor
    ) -> tuple[Planes, Output]:
        """Lifted planes of images seen by c [N,25], and what the codes alone draw."""
        with torch.no_grad():
            planes = self.generator.planes({"ws": self.encoder(images, labels, c)})
            drawn = self.generator.render(planes, c)
        added = network(images, labels, c, planes, drawn, self.generator.config.box)
        return lifted(planes, added, self.generator), drawn

    def evaluate(self, modules: dict[str, nn.Module]) -> dict[str, float]:
        """On held-out heads, from estimated labels and cameras: decibels of the own view and of
        the other one, and of the codes alone in the own one; share of right labels."""
        network = cast(LiftNet, modules["lift"])
        sums: dict[str, list[float]] = {}
        for heads in torch.arange(self.size, len(self.views)).split(8):
            batch = self._pair(heads, heads * 0, heads * 0 + 1)
            labels, c = estimates(batch.images[:, 0])
            planes, drawn = self.lift(network, batch.images[:, 0], labels, c)
            output = self.generator.render(planes, seen_as(batch.c, c).flatten(0, 1))
            assert output.seg is not None
            errors = metrics.psnr(output.image.unflatten(0, (-1, 2)), batch.images)
            right = (output.seg.unflatten(0, (-1, 2)).argmax(2) == batch.labels).float()
            for name, values in (
                ("own_db", errors[:, 0]),
                ("other_db", errors[:, 1]),
                ("codes_db", metrics.psnr(drawn.image, batch.images[:, 0])),
                ("own_labels", right[:, 0].mean((1, 2))),
                ("other_labels", right[:, 1].mean((1, 2))),
            ):
                sums.setdefault(name, []).extend(values.tolist())
        return {name: round(sum(v) / len(v), 4) for name, v in sums.items()}

    def export(
        self,
        modules: dict[str, nn.Module],
        figures: dict[str, float],
        folder: Path,
        record: dict[str, Any],
    ) -> None:
        """Write the network."""
        write_weights(
            folder / f"lift-{self.generator.name}.safetensors",
            modules["lift"].state_dict(),
            whole_training(record, self.before),
            figures,
            self.views.about,
            config=self.network.config,
            kind=KIND,
            made_for=fingerprint(self.generator),
        )


def seen_as(c: Tensor, first: Tensor) -> Tensor:
    """Cameras [N,V,25] as they are where that of the first view is taken for `first` [N,25]."""
    views = c.shape[1]
    true, seen = (x[:, None].expand(-1, views, -1).flatten(0, 1) for x in (c[:, 0], first))
    return cameras.carried(c.flatten(0, 1), true, seen).unflatten(0, (-1, views))


def _view(output: Output, view: int) -> Output:
    """One of two views that lie next to each other."""
    low = None if output.low is None else _view(output.low, view)
    assert output.seg is not None
    return Output(output.image[view::2], output.seg[view::2], low=low)
