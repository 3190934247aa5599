"""Latents -> edited latents: the steps of a face's chain of edits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from semedit import latents, weights
from semedit.batch import Item, Result, Run, next_step
from semedit.batch.workspace import Workspace
from semedit.directions.directions import direction_files
from semedit.editors import Editor
from semedit.errors import LatentError, NothingMatchedError
from semedit.faces.pipeline import parser_weights
from semedit.generators import Labelled, Output, traits_of, with_labels
from semedit.latents import Latent
from semedit.latents.interpolation import between
from semedit.media.decoding import read_labels, read_photo
from semedit.media.masks import fit_labels, write_labels
from semedit.media.photographs import write_image
from semedit.media.pixels import resize, to_tensor, to_uint8
from semedit.options import parameters_of
from semedit.tasks import (
    OnGenerator,
    check_finite,
    latent_bytes,
    named,
    planned_each,
    read_latent,
    used,
    used_by,
)
from semedit.tasks.donors import donor_file, read_donor, receivers
from semedit.tasks.drawn import difference, drawn_maps, read_drawn
from semedit.tasks.drift import Change, drift, drift_weights
from semedit.tasks.invert import PERCEPTUAL
from semedit.tasks.original import (
    WEIGHTS,
    Original,
    original_inputs,
    read_original,
    with_detail,
)

SHARES = (1.0, 0.75, 0.5, 0.25)  # of an edit's way that max_drift tries
Drawn = tuple[np.ndarray, np.ndarray]  # a picture uint8 [S,S,3] and its label map int64
FIGURES = ("probability", "error", "region")  # what editors tell that receipts keep


@dataclass(frozen=True, eq=False)
class Source:
    """What an edit starts from: latent of one face, its label map int64 [1,S,S], that map's height
    and width on the disk, the drawn one, its photograph [1,3,S,S] for methods that look at it,
    the face that regions come from, and what the edit's picture takes its detail from."""

    latent: Latent
    labels: Tensor
    size: tuple[int, ...]
    drawn: Tensor | None
    warnings: tuple[str, ...]
    photo: Tensor | None = None
    donor: Latent | None = None
    original: Original | None = None


@dataclass(frozen=True)
class Edit(OnGenerator):
    """Edit faces by a label map, along a direction, by attributes, or by regions of another face.

    Attributes:
        command: "edit" or "attr"; its receipts go under that name.
        name: the editor's name; method: the editor with its options.
        label: what the step is called. named: whether it is the user who calls it so.
        mask: an edited label map, or a folder of them named like the faces, or of their parts.
        wanted: attribute -> whether the face shall have it.
        donor: face whose regions the others get: of the workspace, where its newest latent
            counts, or a file; see donors.donor_file.
        start: where to start from, as Workspace.source takes it; None: the newest.
        names: names or globs of faces; empty means all (with a folder of masks: all in it).
        detail: whether pictures have the photograph's size and its detail, see semedit.detail;
            else they are the generator's own.
        max_drift: largest 1 - identity, see drift.drift; an edit that drifts farther is done by a
            part of its way. None: it is only told.
    """

    command: Literal["edit", "attr"]
    name: str
    method: Editor
    label: str
    generator_name: str = "heads-128"
    mask: Path | None = None
    wanted: Mapping[str, bool] = field(default_factory=dict)
    donor: str | None = None
    start: str | None = None
    names: Sequence[str] = ()
    batch: int = 4
    device: str = "cpu"
    mark: bool = True
    detail: bool = True
    max_drift: float | None = None
    named: bool = False
    progress: Callable[[int, int], None] | None = field(default=None, compare=False)

    @property
    def item_bytes(self) -> int:
        return latent_bytes(self.generator_name) + 4 * 256**2

    def parameters(self) -> dict[str, Any]:
        return {
            "generator": self.generator_name,
            "method": self.name,
            "options": parameters_of(self.method),
            "wanted": dict(self.wanted),
            "mark": self.mark,
            "detail": self.detail,
            "max_drift": self.max_drift,
            **named(self.label if self.named else ""),
        }

    def weights(self) -> dict[str, str]:
        own = self.method.weights_of(weights.resolve(self.generator_name).stem)
        more = (*((WEIGHTS,) if self.detail else ()), *own)
        more += drift_weights() if self.max_drift is not None else ()
        read = used_by(self.generator_name) | used(*PERCEPTUAL, *more)
        if "seg" not in traits_of(self.generator_name):
            read |= used(*parser_weights(self._parser))
        return read | directions_read(self.generator_name, self.method)

    @property
    def _parser(self) -> str:
        """What reads label maps off the pictures of a generator that draws none."""
        return getattr(self.method, "parser", "auto")

    @cached_property
    def labelled(self) -> Any:
        """The generator, with label maps."""
        return with_labels(self.generator, self._parser)

    def items(self, run: Run) -> list[Item]:
        space = run.workspace
        names = space.faces(self.names)
        if self.donor is not None:
            donor_file(space, self.donor)  # there is one
            names = receivers(names, self.donor)
        masks = None if self.mask is None else drawn_maps(space, names, self.mask)
        if masks is not None and not masks:
            raise NothingMatchedError(f"no face has a mask in {self.mask}")
        chosen = names if masks is None else masks
        return planned_each(chosen, lambda name: self._item(run, name, masks))

    def _item(self, run: Run, name: str, masks: Mapping[str, Mapping[str, Path]] | None) -> Item:
        inputs = {"labels": run.workspace.path("masks", name, ".png")}
        if masks is not None:
            inputs |= masks[name]
        if self.donor is not None:
            inputs["donor"] = donor_file(run.workspace, self.donor)
        if "image" in self.method.looks_at:
            inputs["crop"] = run.workspace.path("faces", name, ".png")
        inputs |= original_inputs(run.workspace, name, self.start)
        item = Item(name, inputs, data=run.workspace)
        return next_step(run, name, self.label, item, self.start, beside=_map_beside)

    def load(self, item: Item) -> Source:
        original, warning = read_original(item.inputs, self.generator)
        source = replace(self._loaded(item), original=original)
        return source if warning is None else replace(source, warnings=(*source.warnings, warning))

    def _loaded(self, item: Item) -> Source:
        latent = read_latent(item.inputs["latent"], self.generator)
        own = read_labels(item.inputs["labels"])
        now = read_labels(item.inputs["now"]) if "now" in item.inputs else own
        if "donor" in item.inputs:
            donor = read_donor(item.inputs["donor"], self.generator)
            return self.source(latent, own, now, donor=donor)
        if self.mask is not None:
            mask = item.inputs.get("mask")
            if mask is not None and mask.samefile(item.inputs["labels"]):
                own = now = self._seen(latent, own.shape)  # drawn over the map itself
            drawn, told = read_drawn(item.inputs, (own, now))
            return replace(self.source(latent, own, now, drawn), warnings=told)
        return self.source(latent, own, now, photo=self._photo(item))

    @torch.no_grad()
    def _seen(self, latent: Latent, size: tuple[int, ...]) -> np.ndarray:
        """The label map of the face as the generator draws it, at the size of its own."""
        return self.shown(latent.to(self.device), size)[1]

    def source(
        self,
        latent: Latent,
        own: np.ndarray,
        now: np.ndarray,
        drawn: np.ndarray | None = None,
        photo: Tensor | None = None,
        donor: Latent | None = None,
    ) -> Source:
        """What an edit starts from, at the generator's size.

        Args:   own, now: label maps int64 [S,S] of the photograph and of the latent; drawn: what
                was drawn over one of them, or None.
        Raises: MaskError: the drawing has another shape.
        """
        size = self.generator.resolution
        if drawn is None:
            return Source(latent, _fitted(now, size), own.shape, None, (), photo, donor)
        drawn, warning = fit_labels(drawn, *own.shape)
        # The map that the drawing started from: the one it differs from less.
        base = min((own, now), key=lambda labels: difference(drawn, labels))
        warnings = () if warning is None else (warning,)
        return Source(latent, _fitted(base, size), own.shape, _fitted(drawn, size), warnings)

    def _photo(self, item: Item) -> Tensor | None:
        """The photograph, for an editor that keeps to it."""
        if "crop" not in item.inputs or _edited(item):
            return None
        pixels = read_photo(item.inputs["crop"]).pixels
        return resize(to_tensor(pixels), self.generator.resolution)

    @torch.no_grad()
    def _kept(self, items: list[Item], loaded: list[Source]) -> dict[str, Tensor]:
        """Faces as they are to be kept, by an editor that keeps to photographs: these, or what
        edits have made of them."""
        if "crop" not in items[0].inputs:
            return {}
        found = [
            latents.picture(self.generator, one.latent.to(self.device)).image
            if one.photo is None
            else one.photo.to(self.device)
            for one in loaded
        ]
        return {"image": torch.cat(found)}

    def work(self, items: list[Item], loaded: list[Source]) -> list[Result]:
        edited = self.edited(loaded, **self._kept(items, loaded))
        return [
            self._result(item, one, *after)
            for item, one, after in zip(items, loaded, edited, strict=True)
        ]

    def edited(self, loaded: list[Source], **given: Tensor) -> list[tuple[Latent, dict[str, Any]]]:
        """The edited latents of some faces, one by one, and what the editor tells of each.

        Args: given: what the editor takes besides, by name.
        """
        # What is told of a face stays its own: faces of unlike histories share a batch.
        latent = latents.stack([replace(one.latent, meta={}) for one in loaded]).to(self.device)
        labels = torch.cat([one.labels for one in loaded]).to(self.device)
        drawn = [one.drawn for one in loaded if one.drawn is not None]
        donor = loaded[0].donor  # the same for all
        known: dict[str, Any] = {
            "labels": labels,
            "edited": torch.cat(drawn).to(self.device) if drawn else None,
            "wanted": dict(self.wanted),
            "donor": None if donor is None else donor.to(self.device),
            **given,
        }
        taken = {name: known[name] for name in self.method.looks_at}
        edited = self.method(self.generator, latent, **taken, progress=self.progress)
        results = []
        for i, one in enumerate(loaded):
            own = edited[i].meta
            after = replace(
                edited[i],
                method=f"{one.latent.method}+{self.name}",
                meta={**_unmarked(one.latent.meta), **own},
            )
            told = {key: own[key] for key in FIGURES if key in own}
            if isinstance(self.labelled, Labelled):
                told["parser"] = self.labelled.parser.name
            results.append((after, told))
        return results

    @torch.no_grad()
    def shown(
        self, latent: Latent, size: tuple[int, ...], original: Original | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The picture uint8 of a latent in its own camera, [S,S,3] with the detail of an original
        or [R,R,3] without, and its label map int64 of some height and width."""
        output = latents.picture(self.labelled, latent)
        labels = _labels_at(output, size)
        if original is None or not self.detail:
            return to_uint8(output.image)[0], labels
        return to_uint8(with_detail(self.labelled, original, output, self.device)[0])[0], labels

    @torch.no_grad()
    def drawn(self, one: Source, latent: Latent) -> tuple[Drawn, dict[str, Any], tuple[str, ...]]:
        """What an edit comes to beside its photograph: as `shown`, figures, warnings."""
        output = latents.picture(self.labelled, latent)
        labels = _labels_at(output, one.size)
        if one.original is None:
            return (to_uint8(output.image)[0], labels), {}, ()
        photo = one.original.photo.to(self.device)
        image, mask = with_detail(self.labelled, one.original, output, self.device)
        if not self.detail:
            image = output.image.clamp(-1, 1)
            photo, mask = (resize(x, image.shape[-1]) for x in (photo, mask))
        change = Change(photo, image, mask, self.wanted, one.labels, one.drawn)
        return (to_uint8(image)[0], labels), *drift(change, self.max_drift)

    def _result(self, item: Item, one: Source, latent: Latent, told: dict[str, Any]) -> Result:
        try:
            warning = check_finite(latent, f"the edit of {item.name}")
        except LatentError as error:
            return Result(error=error)
        latent, picture, figures, doubts = self._held(one, latent)
        write = partial(self._write, item, latent, *picture)
        warnings = (*one.warnings, *doubts, *(() if warning is None else (warning,)))
        return Result(write, warnings, {**told, **figures})

    def _held(
        self, one: Source, latent: Latent
    ) -> tuple[Latent, Drawn, dict[str, Any], tuple[str, ...]]:
        """An edit, done by the largest of SHARES of its way at which it drifts no farther than
        asked, or the smallest; what it comes to."""
        shares = SHARES if self.max_drift is not None and one.original is not None else (1.0,)
        for share in shares:
            found = latent if share == 1 else part_way(self.generator, one.latent, latent, share)
            picture, figures, doubts = self.drawn(one, found)
            if len(shares) == 1:
                return found, picture, figures, doubts
            figures["share"] = share
            if 1 - figures["identity"] <= (self.max_drift or 0):
                break
        return found, picture, figures, doubts

    def _write(
        self, item: Item, latent: Latent, pixels: np.ndarray, labels: np.ndarray
    ) -> list[Path]:
        """Picture, label map, and last the latent, which makes it a step."""
        space: Workspace = item.data
        picture, map_, path = (
            space.path("edits", item.name, suffix)
            for suffix in (".png", ".labels.png", ".safetensors")
        )
        write_image(picture, pixels, mark=self.mark)
        write_labels(map_, labels)
        latent.save(path)
        return [picture, map_, path]


def part_way(generator: Any, before: Latent, after: Latent, share: float) -> Latent:
    """An edit, one face, done by a share of its way; what is kept around it stays."""
    found = between(generator, before.to(after.c.device), after, share, "all")
    return replace(after, codes=found.codes, tuned=found.tuned, meta={**after.meta, "share": share})


def _labels_at(output: Output, size: tuple[int, ...]) -> np.ndarray:
    """int64 of some height and width."""
    assert output.seg is not None  # as `labelled` has it
    found: np.ndarray = interpolate(output.seg, size, mode="bilinear").argmax(1)[0].cpu().numpy()
    return found


def _map_beside(latent: Path) -> dict[str, Path]:
    """The label map of a step."""
    path = latent.with_suffix(".labels.png")
    return {"now": path} if path.is_file() else {}


def _edited(item: Item) -> bool:
    """Whether the latent is a step, not an inversion."""
    return item.inputs["latent"].is_relative_to(item.data.root / "edits")


def _unmarked(meta: Mapping[str, Any]) -> dict[str, Any]:
    """What is told of a face without what was true of an earlier step alone."""
    return {key: value for key, value in meta.items() if key != "diverged"}


def directions_read(generator_name: str, method: Any) -> dict[str, str]:
    """name -> sha256 of the files of directions that a method may read.

    Raises: WeightsError: the method names a file that is not there.
    """
    named = getattr(method, "directions", "")
    if named:
        found = [weights.resolve(Path(named).absolute() if Path(named).suffix else named)]
    else:
        found = direction_files(weights.resolve(generator_name).stem)
    return {f"directions-{i}": weights.file_sha256(path) for i, path in enumerate(found)}


def _fitted(labels: np.ndarray, size: int) -> Tensor:
    return torch.from_numpy(fit_labels(labels, size, size)[0])[None]
