"""`semedit eval semfaceedit`: tables 1 and 2 of SemFaceEdit's supplement, in small.

Variants of the generator are trained alike, equally long and with the same seed, and compared with
the data by FID and KID:

    table 1   what clubs share in the Appearance Module: nothing, all, all but colour layers
    table 2   sines of both modules: 4, 6, 8

Source: Verma and Raman 2025, arXiv:2506.22833, supplement, tables 1 and 2 (60,000 iterations of
the first stage on CelebAMask-HQ). The order that comes out in small need not be theirs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from semedit.evaluations.fid import FidEvaluation
from semedit.generators import load_generator
from semedit.trainers.loop import Schedule, train
from semedit.trainers.semfaceedit import SemFaceEditTrainer

Progress = Callable[[str, int, int], None]  # variant, done, in all
TABLES: dict[str, dict[str, dict[str, Any]]] = {
    "table 1: weights of the Appearance Module": {
        "none shared": {"sharing": "none", "depth": 8},
        "all shared": {"sharing": "all", "depth": 8},
        "proposed: all but colour layers": {"sharing": "proposed", "depth": 8},
    },
    "table 2: sines of both modules": {
        "4": {"sharing": "proposed", "depth": 4},
        "6": {"sharing": "proposed", "depth": 6},
        "8": {"sharing": "proposed", "depth": 8},
    },
}


@dataclass(frozen=True)
class Ablation:
    """How the variants are trained and compared.

    trainer   of all variants but for what they differ in; first stage only
    kimg      thousands of pictures that each sees
    """

    kimg: float = 8.0
    trainer: SemFaceEditTrainer = field(default_factory=SemFaceEditTrainer)
    evaluation: FidEvaluation = field(default_factory=FidEvaluation)
    seed: int = 0

    def __call__(
        self, data: Path, runs: Path, progress: Progress | None = None
    ) -> dict[str, dict[str, dict[str, Any]]]:
        """Train what is not trained yet, evaluate all.

        Args:    data: as the trainer takes it. runs: a folder for each variant's run, of data and
                 kimg.
        Returns: table -> row -> fid, kid, n, features, and the trainer's held-out figures.
        """
        tell = progress or (lambda name, done, total: None)
        done: dict[str, dict[str, Any]] = {}
        digest = hashlib.sha256(str(data.resolve()).encode()).hexdigest()[:8]
        runs = runs / f"{data.resolve().name}-{digest}-{self.kimg:g}kimg"
        total = len({_folder(c) for rows in TABLES.values() for c in rows.values()})
        for rows in TABLES.values():
            for change in rows.values():
                folder = _folder(change)
                if folder not in done:
                    tell(folder, len(done), total)
                    done[folder] = self._variant(data, runs / folder, change)
        tell("", total, total)
        return {
            title: {name: done[_folder(change)] for name, change in rows.items()}
            for title, rows in TABLES.items()
        }

    def _variant(self, data: Path, folder: Path, change: dict[str, Any]) -> dict[str, Any]:
        trainer: Any = replace(self.trainer, second=0.0, **change)
        schedule = Schedule(kimg=self.kimg, save_minutes=60.0)
        figures = train(trainer, data, folder, schedule, self.seed, quiet=True)
        generator = load_generator(str(folder / f"{trainer.output}.safetensors"))
        return {**figures, **self.evaluation(generator, data)}


def _folder(change: dict[str, Any]) -> str:
    return f"{change['sharing']}-{change['depth']}"
