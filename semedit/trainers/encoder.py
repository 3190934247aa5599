"""`semedit train encoder`: an encoder for a generator that stays as it is.

The encoder sees one view of a rendered head; the generator shows its codes in both views, and
both are compared with the true ones, as in trainers/triplane.py, whose losses these are.

Source: Sun et al. 2022 (IDE-3D), arXiv:2205.15517, section 3.2: multi-view augmentation.
Departs: true second views in place of the generator's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from semedit.errors import OptionError
from semedit.generators import Triplane, load_generator
from semedit.trainers.rendered import read_views
from semedit.trainers.triplane import HeadsTask, HeadsTrainer, encoder_config

from ..generators.encoder import Encoder


@dataclass(frozen=True)
class EncoderTrainer(HeadsTrainer):
    """Hyper-parameters of an encoder's training; see HeadsTrainer for the losses."""

    name: ClassVar[str] = "encoder"
    generator: str = "heads-128"  # weights of the generator
    fresh: bool = False  # start from random weights although the generator has an encoder
    lr: float = 2e-3  # Adam
    mapped: float = 0.0  # no head needs the mapping network
    consistency: float = 0.0  # nor its codes
    coarse: float = 0.3  # part of the run that renders at half the resolution

    def start(self, data: Path, seed: int) -> HeadsTask:
        """Read the data and the generator.

        Raises: OptionError: the heads' parameters are not the generator's z.
        """
        generator = load_generator(self.generator)
        assert isinstance(generator, Triplane)
        views = read_views(data, generator.resolution)
        if views.z.shape[1] != generator.z_dim:
            raise OptionError(
                f"{data} has {views.z.shape[1]} parameters a head, "
                f"{self.generator} was made for {generator.z_dim}"
            )
        encoder = generator.encoder
        if self.fresh or not isinstance(encoder, Encoder):
            encoder = Encoder(encoder_config(generator))
        return HeadsTask(self, views, generator, encoder.requires_grad_(True), ("encoder",))
