"""The workspace: one folder in which every command finds what the one before it left.

    faces/ masks/ latents/ edits/ turntables/ sweeps/ meshes/   every file under its photograph's
                                                name
    pasted/                                     photographs with the edits of their faces in them
    interpolations/                             under the names of both faces
    drawn/                                      maps painted at the screen, numbered for each face
    receipts/COMMAND/                           what was done, with what, and what came of it

Inputs are found here as well: files, folders and globs, mirrored, never flattened.
"""

from __future__ import annotations

import fnmatch
import hashlib
import itertools
import json
import logging
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from semedit.batch.places import (
    STEP,
    STEPS,
    check_folder,
    check_receipt,
    folders_of,
    labelled,
    leftovers,
    own,
    unlabelled,
)
from semedit.errors import (
    InputError,
    LockedError,
    NothingMatchedError,
    OptionError,
    PlaceError,
    WeightsError,
    WorkspaceError,
)
from semedit.faces import photo_of
from semedit.media import reading
from semedit.media.files import TEMPORARY, check_file, is_temporary
from semedit.media.kinds import SUFFIXES
from semedit.options import suggestion

FORMAT = 1  # of receipts and folders; part of every fingerprint


Receipt = dict[str, Any]


LONGEST_RECEIPT = 240  # bytes of a name; file systems allow 255 with the suffix


LONGEST_FOLDER = 2000  # bytes of its folders; systems allow 4096 with the workspace's own path


PHOTO_SUFFIXES = frozenset(SUFFIXES)


# What every receipt has, as semedit.media.reading describes it.
RECEIPT = {
    "format": frozenset({FORMAT}),
    "status": frozenset({"done", "skipped", "error"}),
    "fingerprint": str,
    "inputs": {str: (reading.path, str)},
    "outputs": {reading.path: str},
    "warnings": [str],
    "figures": {str: reading.plain},
    "error": reading.Maybe({"code": str, "message": str, "hint": reading.Maybe(str)}),
    "batch": [(str, str)],
}


CROP = "crop_sha256"  # of the picture that was inverted, in a latent's meta
# What set_aside and keep_by_hand add to names.
ASIDE = re.compile(r"~(before-[1-9][0-9]*|by-hand(-[1-9][0-9]*)?)$", re.ASCII)


log = logging.getLogger(__name__)


_held: dict[Path, str] = {}  # folders that this process works in -> its shard of them


@dataclass(frozen=True)
class Workspace:
    """The one folder in which commands find what the one before them left."""

    root: Path

    def path(self, folder: str, name: str, suffix: str) -> Path:
        """The file of a face, e.g. path("masks", "a/b", ".png")."""
        return self.root / folder / f"{name}{suffix}"

    @contextmanager
    def locked(self, make: bool = False, shard: str = "1/1") -> Iterator[None]:
        """Hold the folder for this run alone.

        Shards of one run share the folder: each holds a lock of its own; of others that are there
        at the same time a warning is logged. A run within a run that holds the folder already
        goes on.

        Args:
            make: make it if it is not there yet.
            shard: "2/8" for the second of eight runs that work side by side; "1/1" is the whole.

        Raises:
            NothingMatchedError: it is not there.
            LockedError: another run holds it.
            WorkspaceError: it cannot be written.
        """
        place = Path(os.path.realpath(self.root))  # resolve() raises where links go in circles
        if place in _held:
            yield
            return
        if not make and not self.root.is_dir():
            raise NothingMatchedError(f"no workspace at {self.root}", "run `semedit align` first")
        with ExitStack() as stack:
            try:
                self.root.mkdir(parents=True, exist_ok=True)
                self._hold(stack, shard)
                probe = self.root / f"{TEMPORARY}{secrets.token_hex(8)}"
                probe.touch(exist_ok=False)  # locks may outlive write permission
                probe.unlink()
            except OSError as error:
                raise WorkspaceError(f"{self.root} cannot be written: {error.strerror}") from error
            _held[place] = shard
            stack.callback(_held.pop, place, None)
            yield

    def _hold(self, stack: ExitStack, shard: str) -> None:
        """Take the lock of a whole run, or of a shard. Each looks for the other kind only when it
        has its own, so that of two that come at once at least one sees the other."""
        from filelock import Timeout

        whole, part = self.root / ".lock", self.root / f".lock-{shard.replace('/', '-of-')}"
        try:
            if shard == "1/1":
                stack.enter_context(_lock(whole, timeout=0))
                for other in self.root.glob(".lock-*-of-*"):
                    with _lock(other, timeout=0):
                        continue
            else:
                stack.enter_context(_lock(part, timeout=1))  # other shards look, too
                with _lock(whole, timeout=5):
                    pass
        except Timeout as error:
            raise LockedError(f"another run is working in {self.root}") from error
        if shard != "1/1":
            self._tell_of_unlike(shard)

    def _tell_of_unlike(self, shard: str) -> None:
        """Log a warning of each shard of another count that is at work, too."""
        from filelock import Timeout

        count = shard.partition("/")[2]
        for other in sorted(self.root.glob(".lock-*-of-*")):
            if other.name.endswith(f"-of-{count}"):
                continue
            try:
                with _lock(other, timeout=0):
                    pass
            except Timeout:
                theirs = other.name.removeprefix(".lock-").replace("-of-", "/")
                log.warning(
                    "shard %s runs beside shard %s of another division: photographs that are in "
                    "both may be worked on twice (give all runs the same number of shards)",
                    shard,
                    theirs,
                )

    def clear(self) -> None:
        """Delete what killed runs left half-written, if this process holds the whole workspace."""
        if _held.get(self.root.resolve()) == "1/1":
            for path in leftovers(self.root):
                with suppress(OSError):  # it is in nobody's way
                    path.unlink()

    # Places

    def obstacle(self, command: str, name: str) -> PlaceError | None:
        """What forbids to write the outputs or the receipt of an item: a link that leads out of the
        workspace, or something that is no folder, or no file."""
        receipt = self.receipt_path(command, name)
        places = [receipt, *(self.path(folder, name, "") for folder in folders_of(command))]
        try:
            for place in places:
                check_folder(self.root, place.parent)
            check_file(receipt)
        except PlaceError as error:
            return error
        return None

    def remove(self, command: str, name: str, old: Receipt, new: Iterable[str]) -> None:
        """Delete outputs of an item that are no longer made; what was changed by hand stays.

        Args:
            old: the receipt that names them; new: paths of the outputs it has now.
        """
        fresh = [self.root / path for path in new]
        for path in old["outputs"].keys() - set(new):
            with suppress(OSError, PlaceError):  # gone, or none of ours any more
                place = own(self.root, path, folders_of(command), name)
                same = any(place.samefile(one) for one in fresh if one.exists())  # by another case
                if not same and self.fate(path, old["outputs"][path]) != "edited":
                    place.unlink()

    def faces(self, patterns: Sequence[str] = ()) -> list[str]:
        """Names of aligned faces, sorted; patterns are names or globs.

        Raises:
            NothingMatchedError: there is no face, or a pattern matches none.
        """
        folder = self.root / "faces"
        records = (path for path in folder.rglob("*.json") if not is_temporary(path.name))
        names = sorted(_name_of(path, folder) for path in records)
        if not names:
            raise NothingMatchedError(f"no faces in {self.root}", "run `semedit align` first")
        if not patterns:
            return names
        chosen: set[str] = set()
        for pattern in patterns:
            given = pattern.removeprefix("./")
            bare = _without_photo_suffix(given)
            own = next((name for name in (given, bare) if name in names), None)
            found = [own] if own else fnmatch.filter(names, bare)
            if not found:
                raise NothingMatchedError(
                    f"no face matches {pattern!r}", suggestion(bare, names[:200])
                )
            chosen |= set(found)
        return [name for name in names if name in chosen]

    # Receipts

    def receipt_path(self, command: str, name: str) -> Path:
        """Where a receipt is; names too long for a file are cut, their digest tells them apart."""
        folder, _, last = name.rpartition("/")
        if len(os.fsencode(folder)) > LONGEST_FOLDER:
            digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
            folder = f"{folder[:50]}~{digest}"
        whole = os.fsencode(last)
        if len(whole) > LONGEST_RECEIPT:
            digest = hashlib.sha256(whole).hexdigest()[:16]
            last = f"{whole[:100].decode(errors='ignore')}~{digest}"
        return self.root / "receipts" / command / folder / f"{last}.json"

    def receipt(self, command: str, name: str) -> Receipt | None:
        """The receipt of an item, None if there is none or it is not readable as one.

        One that names files of other places does not count at all, of which a warning is logged.
        """
        path = self.receipt_path(command, name)
        if not os.path.lexists(path):
            return None
        try:
            found = reading.parse(reading.read(path), RECEIPT)
            if (found.get("error") is None) != (found["status"] == "done"):
                raise ValueError("its status and its error contradict each other")
            check_receipt(self.root, command, name, found)
        except (InputError, PlaceError, ValueError) as error:
            log.warning("%s is not valid, so it does not count: %s", path, error)
            return None
        return found

    def forget(self, command: str, face: str) -> None:
        """Delete the receipt of a face for which no step could be planned; now one was made."""
        receipt = self.receipt(command, face) if face else None
        if receipt is not None and receipt["status"] == "error":
            self.receipt_path(command, face).unlink(missing_ok=True)

    def fate(self, path: str, sha256: str) -> Literal["kept", "replaced", "edited"]:
        """What became of an output: "replaced" by another command's, or "edited" by hand.

        Args:
            path: relative to the workspace; sha256: of the file as a command left it.

        Raises:
            InputError: it cannot be read.
        """
        found = reading.digest(self.root / path)
        if found == sha256:
            return "kept"
        return "replaced" if found in self._written(path) else "edited"

    def _written(self, path: str) -> set[str]:
        """Digests of an output, path relative to the workspace, that any command left there."""
        _, _, file = path.partition("/")
        if not Path(file).name:
            return set()
        name = str(Path(file).with_suffix(""))
        found = set()
        for command in (self.root / "receipts").iterdir():
            for item in {name, photo_of(name)}:  # `align` has one receipt for all faces of a photo
                receipt = self.receipt(command.name, item)
                if receipt and path in receipt["outputs"]:
                    found.add(receipt["outputs"][path])
        return found

    def keep_by_hand(self, path: str) -> str:
        """Set a file aside that was made by hand, because a command is to make it anew.

        Args: path: relative to the workspace. Returns: where it is now, likewise.
        """
        place = self.root / path
        read = ".kept" if place.suffix == ".json" else ""  # or it would be a face's record
        for number in itertools.count(1):
            more = f"-{number}" if number > 1 else ""
            aside = place.with_name(f"{place.stem}~by-hand{more}{place.suffix}{read}")
            if not os.path.lexists(aside):
                break
        place.replace(aside)
        return self.relative(aside)

    def relative(self, path: Path) -> str:
        """A path as receipts show it: relative inside the workspace, else as it is."""
        return (
            path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path)
        )

    # Chains of edits

    def steps(self, face: str) -> list[str]:
        """Finished edit steps of a face, oldest first: "face/01-smiling", ..."""
        folder = self.root / "edits" / face
        stems = sorted(p.stem for p in folder.glob("*.safetensors") if STEP.match(p.stem))
        names = [f"{face}/{stem}" for stem in stems]
        return sorted((n for n in names if self._made_from(n)), key=step_number)

    def source(self, face: str, chosen: str | None = None, photo: bool = False) -> Path:
        """The latent that an edit of a face starts from.

        Args:
            chosen: "latents" for the inversion itself, "latents@LABEL" or LABEL for one with a
                label, or a step's name or number ("01-smiling", "1"); None takes the newest: the
                last step, unless the face was inverted anew since.
            photo: where no step is, start from the aligned face instead of its inversion.

        Raises:
            InputError: the face has no latent, or one of another picture than it is now.
            OptionError: it has no such step or inversion.
        """
        steps, labels = self.steps(face), self.inversions(face)
        if chosen is None:
            latents = (self.path("edits", step, ".safetensors") for step in reversed(steps))
            whole = (path for path in latents if self.lineage(path) is not None)
            newest = next((path for path in whole if self.same(face, path)), None)
            return newest or self._base(face, "", photo)
        for step in steps:
            short = step.removeprefix(f"{face}/")
            if chosen in (short, short.split("-", 1)[1]) or (
                chosen.isdecimal() and int(chosen) == step_number(step)
            ):
                found = self.path("edits", step, ".safetensors")
                if not self.same(face, found):
                    raise InputError(
                        f"the step {short} of {face} is of another picture than it is now",
                        f"run `semedit invert {face}` first",
                    )
                return found
        if chosen == "latents":
            return self._base(face, "", photo)
        for label in labels:
            if chosen in (label, labelled("latents", label)):
                return self._base(face, label, photo)
        known = [labelled("latents", label) for label in labels]
        known = [*known, *(step.removeprefix(f"{face}/") for step in steps)]
        raise OptionError(f"there is no step {chosen!r} to start from", suggestion(chosen, known))

    def _base(self, face: str, label: str, photo: bool) -> Path:
        """The inversion of a face, or its picture.

        Raises: InputError: there is none, or it is of another picture.
        """
        if photo and not label:
            return self.path("faces", face, ".png")
        base = self.path("latents", labelled(face, label), ".safetensors")
        if not reading.there(base):
            others = ", ".join(self.inversions(face))
            hint = f"say --from and one of {others}" if others else "run `semedit invert` first"
            raise InputError(f"{face} has no latent", hint)
        if self.stale(face, label):
            raise InputError(
                f"{labelled(face, label)} was inverted from another picture than it is now",
                f"run `semedit invert {face}{f' --label {label}' if label else ''}` first",
            )
        return base

    def inversions(self, face: str) -> list[str]:
        """The labels of a face's inversions, "" for the one without."""
        return self.labels("latents", face, (".safetensors",))

    def labels(self, folder: str, face: str, suffixes: Sequence[str]) -> list[str]:
        """The labels, sorted, of a face's files in a folder of the workspace; "" for no label."""
        own = self.path(folder, face, "")
        files = (path for path in _listed(own.parent) if path.suffix in suffixes)
        pairs = (unlabelled(path.stem) for path in files)
        found = {label for name, label in pairs if name == own.name}
        # A face of its own may be called like that.
        return sorted(
            label
            for label in found
            if not label or not self.path("faces", labelled(face, label), ".json").exists()
        )

    def _crop(self, face: str) -> str | None:
        """sha256 of a face's crop; None where there is none."""
        crop = self.path("faces", face, ".png")
        return reading.digest(crop) if reading.there(crop) else None

    def stale(self, face: str, label: str = "") -> bool:
        """Whether a face's crop is another than the one it was inverted from; False where nothing
        tells."""
        receipt, crop = self.receipt("invert", labelled(face, label)), self._crop(face)
        if receipt is None or "crop" not in receipt["inputs"] or crop is None:
            return False
        return bool(receipt["inputs"]["crop"][1] != crop)

    def same(self, face: str, step: Path) -> bool:
        """Whether a step's latent is of the picture that the face is now, as far as anything
        tells."""
        made, crop = self.made_of(step), self._crop(face)
        return not self.stale(face) if made is None else crop in (made, None)

    def made_of(self, latent: Path) -> str | None:
        """sha256 of the crop that a latent of the workspace was made of, as it tells itself, or as
        the receipts of the steps do that led to it; None where nothing tells."""
        told = crop_told(latent)
        seen: set[Path] = set()
        while told is None and latent.is_relative_to(self.root / "edits") and latent not in seen:
            seen.add(latent)
            made = self._made_from(_name_of(latent, self.root / "edits"))
            if made is None:
                return None
            latent, sha256 = made
            told = sha256 if latent.suffix == ".png" else crop_told(latent)
        return told

    def set_aside(self, face: str, steps: Sequence[str]) -> str | None:
        """Move some finished steps of a face and their receipts out of its chain of edits, say
        because it is another person now; nothing is deleted.

        Args: steps: as `steps` names them.
        Returns: the folder that they are in, relative to the workspace; None: there were none.
        """
        if not steps:
            return None
        number = 1
        while (self.root / "edits" / f"{face}~before-{number}").exists():
            number += 1
        aside = f"{face}~before-{number}"  # as ASIDE has it
        own = {step.rpartition("/")[2] for step in steps}
        receipts = [self.root / "receipts" / command for command in STEPS]
        for place in (self.root / "edits", *receipts):
            for path in _listed(place / face):
                if path.is_file() and path.name.partition(".")[0] in own:
                    (place / aside).mkdir(parents=True, exist_ok=True)
                    path.replace(place / aside / path.name)
        return f"edits/{aside}"

    def parent(self, step: str) -> Path | None:
        """The latent that a finished step was made from; None if the step is not finished."""
        made = self._made_from(step)
        return made[0] if made else None

    def lineage(self, latent: Path) -> list[str] | None:
        """The steps that led to a latent, its own first: none, [], for an inversion.

        None when an ancestor is gone or was changed since: say, the face was inverted anew.

        Raises:
            InputError: an ancestor cannot be read, or a step is said to be made of itself.
        """
        found = []
        while latent.is_relative_to(self.root / "edits"):
            step = _name_of(latent, self.root / "edits")
            if step in found:
                raise InputError(
                    f"the receipt of {step} says that it was made of itself",
                    "delete that step, or start with --from latents",
                )
            found.append(step)
            made = self._made_from(step)
            if made is None or not reading.there(made[0]) or reading.digest(made[0]) != made[1]:
                return None
            latent = made[0]
        return found

    def origin(self, latent: Path) -> Path:
        """The inversion that a latent was made from, by its steps: itself, if it is one. As far as
        receipts tell."""
        seen: set[Path] = set()
        while latent.is_relative_to(self.root / "edits") and latent not in seen:
            seen.add(latent)
            made = self._made_from(_name_of(latent, self.root / "edits"))
            if made is None:
                break
            latent = made[0]
        return latent

    def _made_from(self, step: str) -> tuple[Path, str] | None:
        """The latent that a finished step was made from, and its digest then."""
        for command in STEPS:
            receipt = self.receipt(command, step)
            if receipt and receipt["status"] == "done" and "latent" in receipt["inputs"]:
                path, sha256 = receipt["inputs"]["latent"]
                return self.root / path, sha256
        return None


def parameters_in(receipt: Mapping[str, Any] | None) -> dict[str, Any]:
    """The parameters that a receipt tells of; none where it is none, or tells nothing."""
    found = receipt.get("parameters") if receipt else None
    return found if isinstance(found, dict) else {}


def crop_told(latent: Path) -> str | None:
    """sha256 of the crop that a latent was made of, as the latent itself tells; None where it does
    not, or is not there."""
    from semedit.weights import metadata

    try:
        meta = json.loads(metadata(latent).get("meta", "{}"))
    except (WeightsError, ValueError):
        return None
    found = meta.get(CROP) if isinstance(meta, dict) else None
    return found if isinstance(found, str) else None


def _listed(folder: Path) -> list[Path]:
    """What is in a folder, by name; nothing where it is none."""
    return sorted(folder.iterdir()) if os.path.isdir(folder) else []  # noqa: PTH112  as above


def _lock(path: Path, timeout: float) -> Any:
    """A lock, to be entered.

    Raises: WorkspaceError: the file is none of semedit's; a link would be followed elsewhere.
    """
    from filelock import FileLock

    if os.path.lexists(path) and (path.is_symlink() or not path.is_file()):
        raise WorkspaceError(
            f"{path} is a link or no regular file, so it cannot be a lock", "remove it"
        )
    return FileLock(path, timeout=timeout)


def step_number(step: str) -> int:
    return int(step.rsplit("/", 1)[-1].split("-", 1)[0])


def _name_of(path: Path, folder: Path) -> str:
    return path.relative_to(folder).with_suffix("").as_posix()


def _without_photo_suffix(name: str) -> str:
    base, dot, suffix = name.rpartition(".")
    return base if dot and f".{suffix.lower()}" in PHOTO_SUFFIXES else name
