"""Checkpoints of other projects -> semedit's weight files. No code in them is ever run.

    plan = examine(path)      what the file is, and how its tensors fit
    plan.write(name)          the networks, in the user's folder; -w NAME uses them

To add a format: write it (see formats.Format), add its line to FORMATS.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

from semedit import weights
from semedit.checkpoints import (
    cnerf,
    e4e,
    eg3d,
    gram,
    ide3d,
    ide3d_encoder,
    l2sae,
    stylegan2,
    stylegan3,
)
from semedit.checkpoints.formats import Coverage, Format, Part, coverage, filled
from semedit.checkpoints.reader import Checkpoint, read
from semedit.errors import WeightsError
from semedit.version import __version__

FORMATS: tuple[Format, ...] = (
    stylegan2.NVIDIA,
    stylegan2.ROSINALITY,
    stylegan3.FORMAT,
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


def examine(path: str | Path, number: int | None = None) -> ImportPlan:
    """Read a checkpoint, know its format by its content, and compare it with its networks.

    A network may lie in containers, or under a prefix that all its names have; where several do,
    the one of averaged weights (EMA) counts.

    Args: number: of the class that a conditional StyleGAN is to draw.

    Raises:
        WeightsError: it cannot be read (see reader.read), or is of no known format; it is
            conditional and there is no such class, or none was given.
    """
    checkpoint, format_ = _recognised(read(Path(path)))
    try:
        found = format_.parts(checkpoint)
        if number is not None and not any(map(stylegan2.classes, found)):
            raise WeightsError("it does not draw classes", "leave --class out")
        parts = [stylegan2.of_class(part, number) for part in found]
    except WeightsError as error:
        raise WeightsError(f"{path}: {error.message}", error.hint) from error
    if checkpoint.prefix is not None:
        note = f"read from {checkpoint.prefix}*"
        parts = [replace(part, notes=(note, *part.notes)) for part in parts]
    return ImportPlan(checkpoint, format_, tuple(parts), tuple(coverage(part) for part in parts))


def _recognised(checkpoint: Checkpoint) -> tuple[Checkpoint, Format]:
    """A file as its format has it, and that format.

    Raises: WeightsError: there is none, or there are several.
    """
    path = checkpoint.path
    if "kind" in checkpoint.metadata:
        raise WeightsError(f"{path} is a file of semedit's own", f"semedit weights add NAME {path}")
    for views in ([checkpoint], *checkpoint.deeper()):
        fitting = [(view, one) for view in views for one in FORMATS if one.matches(view)]
        averaged = [(view, one) for view, one in fitting if "ema" in str(view.prefix).lower()]
        if averaged and len(fitting) > 1 and views[0].prefix is not None:
            fitting = averaged
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            told = " and ".join(f"{one.name}{_place(view)}" for view, one in fitting)
            raise WeightsError(f"{path} could be of {told}", "keep one network in the file")
    known = "; ".join(one.name for one in FORMATS)
    raise WeightsError(f"{path} holds no network that semedit knows", f"it knows {known}")


def _place(view: Checkpoint) -> str:
    return "" if view.prefix is None else f" in {view.prefix}*"
