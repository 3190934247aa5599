"""Edited faces -> their photographs with the edits in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from semedit import latents, weights
from semedit.batch import Item, Result, Run
from semedit.batch.origins import place_of
from semedit.batch.workspace import STEPS, Workspace
from semedit.errors import InputError, LatentError, NothingMatchedError, OptionError
from semedit.faces import Face, photo_of
from semedit.faces.align import cut
from semedit.media import reading
from semedit.media.decoding import read_photo
from semedit.media.photographs import MAX_PIXELS, Photo
from semedit.media.pixels import to_tensor, to_uint8
from semedit.media.rewriting import rewrite, written_suffix
from semedit.renders.pasting import paste
from semedit.tasks import OnGenerator, planned, read_face, read_latent, used, used_by
from semedit.tasks.original import WEIGHTS, Original, with_detail

PHOTO, RECORD, CROP, EDIT, LATENT = "photo", "record", "crop", "edit", "latent"  # roles of files
INVERSION, DRAWN = "inversion", "drawn"  # the latent, and the picture that it draws
FIRST = "run `semedit edit` or `semedit attr` first"
LEAST = 5.0  # levels of 255 that count where a generator drew the whole face anew
LARGER = 1.1  # px of the photograph for each of the crop's, from which an edit is drawn again
LARGEST = 2048  # px a side that it is then drawn at, at most


@dataclass(frozen=True, eq=False)
class EditedFace:
    """A face and its edit.

    Attributes:
        face: its record.
        before, after: uint8 [R,R,3], the crop as it was and as it is to be.
        least: as `paste` takes it.
        finer: inversion and edit as latents, to draw the edit at the photograph's own size.
    """

    face: Face
    before: np.ndarray
    after: np.ndarray
    least: float
    finer: tuple[latents.Latent, latents.Latent] | None = None


@dataclass(frozen=True, eq=False)
class EditedPhoto:
    """A photograph, its edited faces, and the suffix of the file to be written."""

    photo: Photo
    faces: tuple[EditedFace, ...]
    suffix: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Paste(OnGenerator):
    """Put the edits of faces into the photographs that they were cut from.

    Attributes:
        start: the step that counts, as Workspace.source takes it; None: the newest. Faces without
            it stay as they are.
        names: names or globs of faces: all edited faces of their photographs count; empty: all.
        max_pixels: of a photograph.
    """

    generator_name: str = "heads-128"
    start: str | None = None
    names: Sequence[str] = ()
    max_pixels: int = MAX_PIXELS
    device: str = "cpu"
    mark: bool = True

    command = "paste"
    batch = 1
    item_bytes = 3_000_000

    def parameters(self) -> dict[str, Any]:
        return {"generator": self.generator_name, "start": self.start, "mark": self.mark}

    def weights(self) -> dict[str, str]:
        return used(WEIGHTS) | used_by(self.generator_name)

    def items(self, run: Run) -> list[Item]:
        space = run.workspace
        photos: dict[str, list[str]] = {}
        for name in space.faces():
            photos.setdefault(photo_of(name), []).append(name)
        chosen = sorted({photo_of(name) for name in space.faces(self.names)})
        plans = [partial(self._item, space, photo, photos[photo]) for photo in chosen]
        found = [planned(photo, plan) for photo, plan in zip(chosen, plans, strict=True)]
        if not self.names:
            found = [item for item in found if not isinstance(item.error, NothingMatchedError)]
        if not found:
            step = "was edited" if self.start is None else f"has a step {self.start!r}"
            raise NothingMatchedError(f"no face in {space.root} {step}", FIRST)
        return found

    def _item(self, space: Workspace, photo: str, faces: Sequence[str]) -> Item:
        """Raises: NothingMatchedError: no face of the photograph was edited, or there is none."""
        source = place_of(space, photo)
        if source is None:
            raise NothingMatchedError(f"{photo} was not cut from a photograph")
        inputs, edited = {PHOTO: source}, []
        for face in faces:
            if latent := self._edit(space, face):
                edited.append(face)
                inputs |= {f"{role} {face}": path for role, path in _files(space, face, latent)}
        if not edited:
            step = "was edited" if self.start is None else f"has a step {self.start!r}"
            raise NothingMatchedError(f"no face of {photo} {step}", FIRST)
        return Item(photo, inputs, data=(space, tuple(edited)))

    def _edit(self, space: Workspace, face: str) -> Path | None:
        """The latent of the edit that counts; None: there is none.

        Raises: InputError: the step is of another picture than the face is now.
        """
        try:
            latent = space.source(face, self.start, photo=True)
        except OptionError:  # this face has no such step
            return None
        return latent if latent.is_relative_to(space.root / "edits") else None

    def load(self, item: Item) -> EditedPhoto:
        path, (space, names) = item.inputs[PHOTO], item.data
        if not reading.there(path):
            raise InputError(
                f"{path} is not there", "bring it back, or start where `semedit align` was started"
            )
        photo = read_photo(path, self.max_pixels)
        suffix = written_suffix(path, self.max_pixels)
        faces, warnings = [], []
        for name in names:
            one, warning = self._face(space, own_files(item, name), photo)
            if one.face.source_sha256 != photo.sha256:
                raise InputError(
                    f"{path} was changed since it was aligned", "align, invert and edit it again"
                )
            faces.append(one)
            warnings += [] if warning is None else [f"{name} is enlarged: {warning}"]
        return EditedPhoto(photo, tuple(faces), suffix, tuple(warnings))

    def _face(
        self, space: Workspace, own: Mapping[str, Path], photo: Photo
    ) -> tuple[EditedFace, str | None]:
        """A face of a photograph, and why its edit cannot be drawn at the photograph's size."""
        face, after = read_face(own[RECORD]), read_photo(own[EDIT]).pixels
        size = len(after)
        crop = read_photo(own[CROP]).pixels
        if len(crop) != size:
            crop = cut(photo.pixels, face.quad, size)
        drawn = read_photo(own[DRAWN]).pixels if DRAWN in own else crop
        if drawn.shape == after.shape and _apart(after, drawn) < _apart(after, crop):
            return EditedFace(face, drawn, after, LEAST), None
        one = EditedFace(face, crop, after, 0.0)
        side = np.hypot(*(face.quad[3] - face.quad[0]))
        if side < LARGER * size or INVERSION not in own or _by_hand(space, own[EDIT]):
            return one, None
        try:
            both = [read_latent(own[role], self.generator) for role in (INVERSION, LATENT)]
        except LatentError as error:
            return one, error.message
        return replace(one, finer=(both[0], both[1])), None

    def work(self, items: list[Item], loaded: list[EditedPhoto]) -> list[Result]:
        return [self._result(*pair) for pair in zip(items, loaded, strict=True)]

    def _result(self, item: Item, one: EditedPhoto) -> Result:
        photo = one.photo.pixels
        total = photo.astype(np.int16)
        pasted = []
        for edited in one.faces:
            before, after = self._drawn(photo, edited)
            pasted.append(paste(photo, before, after, edited.face.quad, edited.least))
            total += pasted[-1].pixels.astype(np.int16) - photo  # of faces that overlap, the sum
        pixels = np.clip(total, 0, 255).astype(np.uint8)
        warnings = [*one.photo.warnings, *one.warnings]
        warnings += [
            f"the edit of {edited.face.name} changes nothing"
            for edited, found in zip(one.faces, pasted, strict=True)
            if not found.changed.any()
        ]
        figures = {
            "faces": len(pasted),
            "changed": round(float((pixels != photo).any(-1).mean()), 6),
            "scale": [round(found.scale, 3) for found in pasted],
            "new": [round(found.new, 3) for found in pasted],
            "grain": [round(found.grain, 2) for found in pasted],
        }
        write = partial(self._write, item, one, pixels, warnings)
        return Result(write, warnings, figures)

    def _drawn(self, photo: np.ndarray, one: EditedFace) -> tuple[np.ndarray, np.ndarray]:
        """The crop before and after its edit, at the photograph's own size where it can be drawn
        at that."""
        if one.finer is None:
            return one.before, one.after
        side = min(LARGEST, round(float(np.hypot(*(one.face.quad[3] - one.face.quad[0])))))
        before = cut(photo, one.face.quad, side)
        inversion, latent = (own.to(self.device) for own in one.finer)
        after = latents.picture(self.generator, latent)
        original = Original(to_tensor(before), inversion)
        image, _ = with_detail(self.generator, original, after, self.device)
        return before, to_uint8(image)[0]

    def _write(
        self, item: Item, one: EditedPhoto, pixels: np.ndarray, warnings: list[str]
    ) -> list[Path]:
        space: Workspace = item.data[0]
        path = space.path("pasted", item.name, one.suffix)
        source = item.inputs[PHOTO]
        warnings += rewrite(source, path, one.photo.pixels, pixels, self.mark, self.max_pixels)
        return [path]


def _files(space: Workspace, face: str, latent: Path) -> Iterator[tuple[str, Path]]:
    """Role -> file of an edited face."""
    yield RECORD, space.path("faces", face, ".json")
    yield CROP, space.path("faces", face, ".png")
    yield EDIT, latent.with_suffix(".png")
    yield LATENT, latent
    inversion = space.origin(latent)
    if not inversion.is_relative_to(space.root / "latents"):  # edited without one
        return
    if weights.on_disk(WEIGHTS):
        yield INVERSION, inversion
    if reading.there(inversion.with_suffix(".png")):
        yield DRAWN, inversion.with_suffix(".png")


def own_files(item: Item, face: str) -> dict[str, Path]:
    """Role -> file of one of an item's faces."""
    named = ((role.partition(" "), path) for role, path in item.inputs.items())
    return {role: path for (role, _, name), path in named if name == face}


def _apart(a: np.ndarray, b: np.ndarray) -> float:
    """Mean difference of two pictures uint8, levels of 255."""
    return float(abs(a.astype(np.int16) - b).mean())


def _by_hand(space: Workspace, picture: Path) -> bool:
    """Whether an edit's picture was changed since it was made: then that is what is pasted."""
    path = space.relative(picture)
    step = path.removeprefix("edits/").removesuffix(".png")
    made = [receipt for one in STEPS if (receipt := space.receipt(one, step))]
    return not any(one["outputs"].get(path) == reading.digest(picture) for one in made)
