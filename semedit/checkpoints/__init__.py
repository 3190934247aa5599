"""Checkpoints of other projects -> semedit's weight files. No code in them is ever run.

    plan = examine(path)      what the file is, and how its tensors fit
    plan.write(name)          the networks, in the user's folder; -w NAME uses them

To add a format: write it (see formats.Format), add its line to FORMATS.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from semedit import weights
from semedit.checkpoints import cnerf, e4e, eg3d, gram, ide3d, ide3d_encoder, l2sae, stylegan2
from semedit.checkpoints.formats import Coverage, Format, Part, coverage, filled
from semedit.checkpoints.reader import Checkpoint, read
from semedit.errors import WeightsError
from semedit.version import __version__

FORMATS: tuple[Format, ...] = (
    stylegan2.NVIDIA,
    stylegan2.ROSINALITY,
    e4e.FORMAT,
    l2sae.FORMAT,
    cnerf.FORMAT,
    eg3d.FORMAT,
    gram.FORMAT,
    ide3d_encoder.FORMAT,
    ide3d.FORMAT,
)

__all__ = ["FORMATS", "Coverage", "Format", "Part", "ImportPlan", "examine"]


@dataclass(frozen=True)
class ImportPlan:
    """A checkpoint that was understood, and how well its parts fit."""

    checkpoint: Checkpoint
    format: Format
    parts: tuple[Part, ...]
    coverages: tuple[Coverage, ...]

    @property
    def default_name(self) -> str:
        """The file's name, with what a name of weights may not have left out."""
        stem = re.sub(r"[^A-Za-z0-9_.+-]+", "-", self.checkpoint.path.stem).strip("-.+")
        return stem or "imported"

    def licence(self, name: str | None = None) -> str:
        """Of weights.toml where the name has a row, else what is known of the format."""
        entry = weights.table().get(name or self.default_name)
        return entry.licence if entry else self.format.licence

    def check(self) -> None:
        """Raise WeightsError unless every tensor fits and none is missing."""
        for part, found in zip(self.parts, self.coverages, strict=True):
            if found.complaints:
                raise WeightsError(
                    f"{self.checkpoint.path}: the tensors do not fit {part.kind}: "
                    + "; ".join(found.complaints),
                    "it is of another network than its names say, or damaged",
                )

    def write(self, name: str | None = None) -> list[Path]:
        """Convert to safetensors in the user's folder; the main network's file comes first.

        Raises: WeightsError: a misfit, values that are not finite, or a name that is taken.
        """
        self.check()
        name = name or self.default_name
        source = weights.file_sha256(self.checkpoint.path)
        targets = [weights.place_for(name + part.suffix, source) for part in self.parts]
        others = [part.suffix for part in self.parts if part.suffix]
        for part, target in zip(self.parts, targets, strict=True):
            facts = {
                "kind": part.kind,
                "config": json.dumps(part.config),
                "format": self.format.name,
                "source": self.checkpoint.path.name,
                "source_sha256": source,
                "licence": self.licence(name),
                "command": "semedit weights import",
                "version": __version__,
            }
            if others and not part.suffix:
                facts["encoder"] = name + others[0]
            with weights.writing():
                weights.save(target, filled(part), facts, half=False)
        return targets


def examine(path: str | Path) -> ImportPlan:
    """Read a checkpoint, know its format by its content, and compare it with its networks.

    Raises: WeightsError: it cannot be read (see reader.read), or is of no known format.
    """
    checkpoint = read(Path(path))
    if "kind" in checkpoint.metadata:
        raise WeightsError(f"{path} is a file of semedit's own", f"semedit weights add NAME {path}")
    fitting = [one for one in FORMATS if one.matches(checkpoint)]
    if not fitting:
        known = "; ".join(one.name for one in FORMATS)
        raise WeightsError(f"{path} holds no network that semedit knows", f"it knows {known}")
    if len(fitting) > 1:
        told = " and ".join(one.name for one in fitting)
        raise WeightsError(f"{path} could be of {told}", "keep one network in the file")
    try:
        parts = tuple(fitting[0].parts(checkpoint))
    except WeightsError as error:
        raise WeightsError(f"{path}: {error.message}", error.hint) from error
    return ImportPlan(checkpoint, fitting[0], parts, tuple(coverage(part) for part in parts))
