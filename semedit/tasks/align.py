"""Photographs -> aligned faces, label maps, cameras; the last two also anew on their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from semedit.batch import Item, Result, Run
from semedit.batch.inputs import Found, photographs
from semedit.batch.workspace import Workspace
from semedit.errors import InputError, NoFaceError, WorkspaceError
from semedit.faces import FLAGS, Face
from semedit.faces.parsing import PARSERS
from semedit.faces.pipeline import FACE_ALIGNMENT, RETINAFACE, Described, FacePipeline, choose
from semedit.faces.pose import POSES
from semedit.media.decoding import read_photo
from semedit.media.files import write_bytes
from semedit.media.masks import write_labels
from semedit.media.photographs import MAX_PIXELS, Photo, write_image
from semedit.media.pixels import to_tensor
from semedit.tasks import read_face, used

BUILTIN = ("detector", "landmarks", "faces", "traits")
LONGEST_NAME = 240  # bytes; file systems allow 255, suffixes like .safetensors included


@dataclass(frozen=True)
class Align:
    """Find faces in photographs, cut them out upright, and describe them.

    Attributes:
        inputs: files, folders, globs.
        detect, landmarks, parse, pose: back-ends; parse and pose may be "none".
        faces: "largest" or "all" of a photograph.
        min_face: px across the landmarks; smaller faces do not count.
        on_no_face: whether a photograph without a face is skipped or an error.
        left_out: the files of the folders that are no photographs, once `items` has looked.
    """

    inputs: Sequence[str | Path]
    size: int = 256
    detect: str = "auto"
    landmarks: str = "auto"
    parse: str = "auto"
    pose: str = "auto"
    faces: Literal["largest", "all"] = "largest"
    min_face: int = 32
    max_pixels: int = MAX_PIXELS
    on_no_face: Literal["skip", "fail"] = "skip"
    device: str = "cpu"
    left_out: list[Path] = field(default_factory=list, compare=False)

    command = "align"
    batch = 4  # photographs: few, because large ones are large

    @property
    def item_bytes(self) -> int:
        return 2 * self.size**2 + 8000  # a PNG of photographic content, label map, record

    @cached_property
    def backends(self) -> dict[str, str]:
        """step -> the back-end that does it here."""
        wanted = {s: getattr(self, s) for s in ("detect", "landmarks", "parse", "pose")}
        return {s: n if n == "none" else choose(s, n) for s, n in wanted.items()}

    @cached_property
    def pipeline(self) -> FacePipeline:
        return FacePipeline(
            size=self.size,
            detect=self.backends["detect"],
            landmarks=self.backends["landmarks"],
            parse=self.backends["parse"],
            pose=self.backends["pose"],
            faces=self.faces,
            min_face=self.min_face,
            device=self.device,
        )

    def parameters(self) -> dict[str, Any]:
        return {
            "size": self.size,
            "backends": self.backends,
            "faces": self.faces,
            "min_face": self.min_face,
            "max_pixels": self.max_pixels,
            "on_no_face": self.on_no_face,
        }

    def weights(self) -> dict[str, str]:
        return used(*BUILTIN, *_library_weights(self.backends))

    def items(self, run: Run) -> list[Item]:
        self.left_out.clear()
        found = photographs(self.inputs, run.workspace, self.left_out)
        found.sort(key=lambda one: one.twin is None)  # what collides is told before work starts
        return [_item(run.workspace, one) for one in found]

    def load(self, item: Item) -> Photo:
        _check_name(item.name)
        return read_photo(item.inputs["photo"], self.max_pixels)

    def work(self, items: list[Item], loaded: list[Photo]) -> list[Result]:
        sources = [str(item.inputs["photo"]) for item in items]
        found = self.pipeline.several(loaded, sources, [item.name for item in items])
        return [self._result(*one) for one in zip(items, loaded, found, strict=True)]

    def _result(self, item: Item, photo: Photo, found: list[Described] | NoFaceError) -> Result:
        if isinstance(found, NoFaceError):
            failed = self.on_no_face == "fail"
            error = InputError(found.message, found.hint) if failed else found
            return Result((), photo.warnings, error=error)
        flagged = [_warning(one.face, flag) for one in found for flag in one.face.flags]
        warnings = [*photo.warnings, *flagged]
        return Result(partial(_write, item.data, found), warnings, {"faces": len(found)})


def _warning(face: Face, flag: str) -> str:
    """What is told of a flagged face."""
    text = f"{face.name if face.index else 'the face'} is {FLAGS[flag]}"
    return f"{text}: {face.invented:.0%} of its crop is invented" if flag == "cut" else text


def _write(space: Workspace, faces: Sequence[Described]) -> list[Path]:
    """Crop, label map, and last the sidecar, by which a face is known."""
    outputs = []
    for one in faces:
        name = one.face.name
        crop, mask = space.path("faces", name, ".png"), space.path("masks", name, ".png")
        write_image(crop, one.crop, mark=False)
        outputs.append(crop)
        if one.labels is not None:
            write_labels(mask, one.labels)
            outputs.append(mask)
        outputs.append(_write_face(space, one.face))
    return outputs


def _write_face(space: Workspace, face: Face) -> Path:
    path = space.path("faces", face.name, ".json")
    # What is no Unicode in the path of a photograph: a surrogate, which is \\udcxx in JSON, too.
    write_bytes(path, (face.to_json() + "\n").encode(errors="backslashreplace"))
    return path


def _item(space: Workspace, one: Found) -> Item:
    """A photograph, or the error that its face's name is another photograph's already."""
    name, error = one.name, None
    receipt = space.receipt("align", name)
    photo = receipt["inputs"].get("photo") if receipt else None
    before = Path(photo[0]) if photo else one.path
    if one.twin is None and _another(before, one.path):
        name, one = name + one.path.suffix, replace(one, twin=before)
    if one.twin:
        error = WorkspaceError(
            f"{one.path}: would get the same name as another ({one.twin})",
            "rename one, or use another --work folder",
        )
    return Item(name, {"photo": one.path}, data=space, error=error)


def _another(before: Path, path: Path) -> bool:
    """Whether a photograph that had the name before is still there, and is not this one."""
    try:
        return before.exists() and not before.samefile(path)
    except OSError:  # a link that leads nowhere, or too long a path
        return before != path


def _check_name(name: str) -> None:
    """Names that later files of the face could not have."""
    try:
        size = len(name.encode().rpartition(b"/")[2])
    except UnicodeEncodeError as error:
        raise InputError("the name is not UTF-8", "rename the file") from error
    if size > LONGEST_NAME:
        raise InputError(f"a name of {size} bytes leaves no room for suffixes", "rename the file")


def _library_weights(backends: dict[str, str]) -> list[str]:
    names: list[str] = []
    if backends["detect"] == "facexlib":
        names += RETINAFACE.values()
    if backends["detect"] == "face-alignment":
        names += [name for files in FACE_ALIGNMENT.values() for name in files]
    if backends["landmarks"] == "face-alignment":
        names.append("2dfan4")
    for kind in (PARSERS.get(backends["parse"]), POSES.get(backends["pose"])):
        names += getattr(kind, "needs", ())
    return names


@dataclass(frozen=True)
class Describe:
    """Parse aligned faces anew, or estimate their cameras anew, with another back-end.

    Attributes:
        command: "parse" or "pose".
        names: names or globs of faces; empty means all.
    """

    command: Literal["parse", "pose"]
    names: Sequence[str] = ()
    backend: str = "auto"
    batch: int = 8
    device: str = "cpu"

    item_bytes = 8000

    @cached_property
    def chosen(self) -> str:
        return choose(self.command, self.backend)

    @cached_property
    def network(self) -> Any:
        kinds = PARSERS if self.command == "parse" else POSES
        return kinds[self.chosen](self.device)

    def parameters(self) -> dict[str, Any]:
        return {"backend": self.chosen}

    def weights(self) -> dict[str, str]:
        kinds = PARSERS if self.command == "parse" else POSES
        return used("faces", *getattr(kinds[self.chosen], "needs", ()))

    def items(self, run: Run) -> list[Item]:
        space = run.workspace
        return [
            Item(name, {"crop": space.path("faces", name, ".png")}, data=space, refines=True)
            for name in space.faces(self.names)
        ]

    def load(self, item: Item) -> Tensor:
        return to_tensor(read_photo(item.inputs["crop"]).pixels)

    def work(self, items: list[Item], loaded: list[Tensor]) -> list[Result]:
        alike = len({one.shape for one in loaded}) == 1  # else crops of several sizes
        batches = [torch.cat(loaded)] if alike else loaded
        answers = [a for batch in batches for a in self.network(batch.to(self.device)).cpu()]
        return [Result(partial(self._write, *one)) for one in zip(items, answers, strict=True)]

    def _write(self, item: Item, answer: Tensor) -> list[Path]:
        space: Workspace = item.data
        if self.command == "parse":
            path = space.path("masks", item.name, ".png")
            write_labels(path, answer.argmax(0))
            return [path]
        face = read_face(space.path("faces", item.name, ".json"))
        backends = {**face.backends, "pose": self.chosen}
        # Its own name, whatever the record says: that decides where it is written.
        face = replace(face, name=item.name, c=answer.numpy(), backends=backends)
        return [_write_face(space, face)]
