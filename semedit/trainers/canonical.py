"""`semedit train canonical`: an encoder that only ever sees faces from the front.

    x_0, x_1 = G(w, c_0), G(w, c_1);  w' = E_can(x_0)
    L_i(G(w', c_0), x_0) + L_i(G(w', c_1), x_1) + codes |w' - w|^2 / std^2

with c_0 the canonical camera, c_1 a random one, and w codes of synthetic faces, half of them with
another one's texture. L_i compares pictures and label maps (trainers/triplane.py).

It starts from the generator's own encoder where there is one. Of that it keeps `kept` as they are,
the large layers that read coarse maps; only what it learns is stored, half of its size, and the
rest is read from the generator's own encoder again (editors/canonical.py).

Source: Sun et al. 2022 (IDE-3D), arXiv:2205.15517, section 3.2, the canonical editor.
Departs: that start; codes are compared, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from semedit import cameras, metrics
from semedit.datasets.posed import read_faces
from semedit.datasets.rendered import Pair, Views
from semedit.generators.parts.encoder import KIND, Encoder
from semedit.generators.triplane.triplane import Triplane
from semedit.inverters.codes import spread
from semedit.latents import fingerprint
from semedit.trainers.encoder import begin_as_own, editable_generator, new_encoder
from semedit.trainers.loop import write_weights
from semedit.trainers.parts.loss_terms import report, total
from semedit.trainers.parts.synthesis import FaceSampler, SyntheticViews
from semedit.trainers.triplane import PictureTask, PictureTrainer


@dataclass(frozen=True)
class CanonicalTrainer(PictureTrainer):
    """Hyper-parameters of a canonical encoder's training."""

    name: ClassVar[str] = "canonical"
    generator: str = "heads-128"  # weights of the generator
    fresh: bool = False  # start from random weights although the generator has an encoder
    kept: tuple[str, ...] = ("flat", "direct")  # layers of the towers that stay its own encoder's
    codes: float = 0.2  # weight of the codes' squared distance, in their standard deviations
    random_z: float = 0.25  # part of the faces with random z; the others' codes are encoded
    swapped: float = 0.5  # part of the faces with another one's texture

    def start(self, data: Path) -> CanonicalTask:
        """Read the data, whose pictures say which codes are likely, and the generator.

        Raises: OptionError: the generator is not of the kind that this encoder fits.
        """
        generator = editable_generator(self.generator)
        views = read_faces(data, generator.resolution)
        encoder = new_encoder(generator)
        if not self.fresh and begin_as_own(encoder, generator):
            for name, parameter in encoder.named_parameters():
                parameter.requires_grad_(name.split(".")[1] not in self.kept)
        return CanonicalTask(self, views, generator, encoder)


class CanonicalTask(PictureTask):
    """The canonical encoder, its optimiser and its losses; see loop.Task."""

    trainer: CanonicalTrainer

    def __init__(
        self, trainer: CanonicalTrainer, views: Views, generator: Triplane, encoder: Encoder
    ) -> None:
        super().__init__(trainer, views, generator, encoder, ("encoder",))
        c = views.c[: self.size].reshape(-1, 25)
        self.faces = FaceSampler.of(generator, c, trainer.random_z, trainer.swapped)
        self.scale = spread(generator, c[:1].to(self.device))["ws"]

    def batch(self, indices: Tensor) -> Pair:
        """One random view of each head, twice."""
        view = torch.randint(self.views.c.shape[1], indices.shape)
        return self._pair(indices, view, view)

    def step(self, batch: Pair, progress: float) -> dict[str, float]:
        """One update."""
        config = self.generator.config
        neural = config.neural // 2 if progress < self.trainer.coarse else config.neural
        true = self._faces(batch)
        found, _ = self._encode(true.images[:, 0], true.labels[:, 0], true.c[:, 0])
        terms = self._drawn(found, true.images, true.labels, true.c, neural)
        away = ((found - true.ws) / self.scale).square().mean()
        terms["codes"] = self.trainer.codes * away
        self._update(total(terms))
        return report(terms)

    def _faces(self, batch: Pair) -> SyntheticViews:
        """Synthetic faces, from the front and from somewhere."""
        n = len(batch.c)
        ws = self.faces.codes(batch.images[:, 0], batch.labels[:, 0], batch.c[:, 0])
        front = cameras.canonical().to(self.device).expand(n, -1)[:, None]
        return self.faces.show(ws, torch.cat([front, self.faces.cameras(n, 1)], 1))

    def evaluate(self, modules: dict[str, nn.Module]) -> dict[str, float]:
        """On synthetic faces with the codes of held-out heads: decibels from the front and from
        elsewhere, and the same of the generator's own encoder, which sees the same pictures."""
        encoders = {"": modules["encoder"], "own_encoder_": self.faces.encoder}
        sums: dict[str, list[float]] = {}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            for heads in torch.arange(self.size, len(self.views)).split(8):
                true = self._faces(self._pair(heads, heads * 0, heads * 0))
                for name, encoder in encoders.items():
                    if encoder is None:
                        continue
                    ws = encoder(true.images[:, 0], true.labels[:, 0], true.c[:, 0])
                    errors = metrics.psnr(self.faces.show(ws, true.c).images, true.images)
                    sums.setdefault(f"{name}front_db", []).extend(errors[:, 0].tolist())
                    sums.setdefault(f"{name}other_db", []).extend(errors[:, 1].tolist())
        return {name: round(sum(v) / len(v), 4) for name, v in sums.items()}

    def export(
        self,
        modules: dict[str, nn.Module],
        figures: dict[str, float],
        folder: Path,
        record: dict[str, Any],
    ) -> None:
        """Write what the encoder learned, and which one the rest is of."""
        kept = {name for name, p in self.encoder.named_parameters() if not p.requires_grad}
        tensors = modules["encoder"].state_dict()
        more = {"generator": self.generator.name}
        if kept:
            more["rest"] = fingerprint(cast(nn.Module, self.faces.encoder))
        write_weights(
            folder / f"canonical-{self.generator.name}.safetensors",
            {name: values for name, values in tensors.items() if name not in kept},
            record,
            figures,
            self.views.about,
            KIND,
            self.encoder.config,
            **more,
        )
