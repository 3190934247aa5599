"""The workspace: one folder in which every command finds what the one before it left.

    faces/ masks/ latents/ edits/ turntables/ sweeps/ meshes/   every file under its photograph's
                                                name
    interpolations/                             under the names of both faces
    drawn/                                      maps painted at the screen, numbered for each face
    receipts/COMMAND/                           what was done, with what, and what came of it

Inputs are found here as well: files, folders and globs, mirrored, never flattened.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from semedit.errors import InputError, LockedError, NothingMatchedError, OptionError, WorkspaceError
from semedit.faces import photo_of
from semedit.media.files import TEMPORARY, write_bytes
from semedit.media.photographs import SUFFIXES
from semedit.options import suggestion
from semedit.weights import file_sha256

FORMAT = 1  # of receipts and folders; part of every fingerprint


STEPS = ("edit", "attr")  # commands whose outputs are steps of a chain of edits


LONGEST_RECEIPT = 240  # bytes of a name; file systems allow 255 with the suffix


LONGEST_FOLDER = 2000  # bytes of its folders; systems allow 4096 with the workspace's own path


PHOTO_SUFFIXES = frozenset(SUFFIXES) | {".heic", ".heif"}


# What every receipt has.
RECEIPT = {"fingerprint": str, "status": str, "inputs": dict, "outputs": dict, "figures": dict}


RECEIPT |= {"warnings": list, "batch": list}


_held: set[Path] = set()  # folders that this process works in


@dataclass(frozen=True)
class Workspace:
    """The one folder in which commands find what the one before them left."""

    root: Path

    def path(self, folder: str, name: str, suffix: str) -> Path:
        """The file of a face, e.g. path("masks", "a/b", ".png")."""
        return self.root / folder / f"{name}{suffix}"

    @contextmanager
    def locked(self, make: bool = False, shard: str = "1/1") -> Iterator[None]:
        """Hold the folder for this run alone; clear what a killed run left half-written.

        Shards of one run share the folder: each holds a lock of its own. A run within a run that
        holds the folder already goes on.

        Args:
            make: make it if it is not there yet.
            shard: "2/8" for the second of eight runs that work side by side; "1/1" is the whole.

        Raises:
            NothingMatchedError: it is not there.
            LockedError: another run holds it.
            WorkspaceError: it cannot be written.
        """
        place = self.root.resolve()
        if place in _held:
            yield
            return
        if not make and not self.root.is_dir():
            raise NothingMatchedError(f"no workspace at {self.root}", "run `semedit align` first")
        with ExitStack() as stack:
            try:
                self.root.mkdir(parents=True, exist_ok=True)
                self._hold(stack, shard)
                write_bytes(self.root / ".lock-probe", b"")  # locks may outlive write permission
                (self.root / ".lock-probe").unlink(missing_ok=True)  # shards do so at once
                if shard == "1/1":
                    for leftover in self.root.rglob(f"{TEMPORARY}*"):
                        leftover.unlink()
            except OSError as error:
                raise WorkspaceError(f"{self.root} cannot be written: {error.strerror}") from error
            _held.add(place)
            stack.callback(_held.discard, place)
            yield

    def _hold(self, stack: ExitStack, shard: str) -> None:
        """Take the lock of a whole run, or of a shard. Each looks for the other kind only when it
        has its own, so that of two that come at once at least one sees the other."""
        from filelock import FileLock, Timeout

        whole, part = self.root / ".lock", self.root / f".lock-{shard.replace('/', '-of-')}"
        try:
            if shard == "1/1":
                stack.enter_context(FileLock(whole, timeout=0))
                for other in self.root.glob(".lock-*-of-*"):
                    with FileLock(other, timeout=0):
                        continue
            else:
                stack.enter_context(FileLock(part, timeout=0))
                with FileLock(whole, timeout=5):  # other shards look, too
                    pass
        except Timeout as error:
            raise LockedError(f"another run is working in {self.root}") from error

    def faces(self, patterns: Sequence[str] = ()) -> list[str]:
        """Names of aligned faces, sorted; patterns are names or globs.

        Raises:
            NothingMatchedError: there is no face, or a pattern matches none.
        """
        folder = self.root / "faces"
        names = sorted(_name_of(p, folder) for p in folder.rglob("*.json"))
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

    def receipt(self, command: str, name: str) -> dict[str, Any] | None:
        """The receipt of an item, None if there is none or it is not readable as one."""
        try:
            found = json.loads(self.receipt_path(command, name).read_bytes())
        except (OSError, ValueError, RecursionError):
            return None
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            return None
        whole = all(isinstance(found.get(key), kind) for key, kind in RECEIPT.items())
        return found if whole else None

    def fate(self, path: str, sha256: str) -> Literal["kept", "replaced", "edited"]:
        """What became of an output: "replaced" by another command's, or "edited" by hand.

        Args:
            path: relative to the workspace; sha256: of the file as a command left it.
        """
        found = file_sha256(self.root / path)
        if found == sha256:
            return "kept"
        return "replaced" if found in self._written(path) else "edited"

    def _written(self, path: str) -> set[str]:
        """Digests of an output, path relative to the workspace, that any command left there."""
        _, _, file = path.partition("/")
        name = str(Path(file).with_suffix(""))
        found = set()
        for command in (self.root / "receipts").iterdir():
            for item in {name, photo_of(name)}:  # `align` has one receipt for all faces of a photo
                receipt = self.receipt(command.name, item)
                if receipt and path in receipt["outputs"]:
                    found.add(receipt["outputs"][path])
        return found

    def relative(self, path: Path) -> str:
        """A path as receipts show it: relative inside the workspace, else as it is."""
        return (
            path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path)
        )

    # Chains of edits

    def steps(self, face: str) -> list[str]:
        """Finished edit steps of a face, oldest first: "face/01-smiling", ..."""
        folder = self.root / "edits" / face
        names = sorted(f"{face}/{p.stem}" for p in folder.glob("[0-9][0-9]*-*.safetensors"))
        return sorted((n for n in names if self._made_from(n)), key=step_number)

    def source(self, face: str, chosen: str | None = None, photo: bool = False) -> Path:
        """The latent that an edit of a face starts from.

        Args:
            chosen: "latents" for the inversion itself, or a step's name or number ("01-smiling",
                "1"); None takes the newest: the last step, unless the face was inverted anew
                since.
            photo: where no step is, start from the aligned face instead of its inversion.

        Raises:
            InputError: the face has no latent.
            OptionError: it has no such step.
        """
        base = self.path("latents", face, ".safetensors")
        if photo:
            base = self.path("faces", face, ".png")
        elif not base.is_file():
            raise InputError(f"{face} has no latent", "run `semedit invert` first")
        steps = self.steps(face)
        if chosen == "latents":
            return base
        if chosen is not None:
            for step in steps:
                short = step.removeprefix(f"{face}/")
                if chosen in (short, short.split("-", 1)[1]) or (
                    chosen.isdigit() and int(chosen) == step_number(step)
                ):
                    return self.path("edits", step, ".safetensors")
            known = ["latents", *(step.removeprefix(f"{face}/") for step in steps)]
            raise OptionError(
                f"there is no step {chosen!r} to start from", suggestion(chosen, known)
            )
        latents = [self.path("edits", step, ".safetensors") for step in reversed(steps)]
        return next((path for path in latents if self.lineage(path) is not None), base)

    def parent(self, step: str) -> Path | None:
        """The latent that a finished step was made from; None if the step is not finished."""
        made = self._made_from(step)
        return made[0] if made else None

    def lineage(self, latent: Path) -> list[str] | None:
        """The steps that led to a latent, its own first: none, [], for an inversion.

        None when an ancestor is gone or was changed since: say, the face was inverted anew.
        """
        found = []
        while latent.is_relative_to(self.root / "edits"):
            found.append(_name_of(latent, self.root / "edits"))
            made = self._made_from(found[-1])
            if made is None or not made[0].is_file() or file_sha256(made[0]) != made[1]:
                return None
            latent = made[0]
        return found

    def _made_from(self, step: str) -> tuple[Path, str] | None:
        """The latent that a finished step was made from, and its digest then."""
        for command in STEPS:
            receipt = self.receipt(command, step)
            if receipt and receipt["status"] == "done":
                path, sha256 = receipt["inputs"]["latent"]
                return self.root / path, sha256
        return None


def step_number(step: str) -> int:
    return int(step.rsplit("/", 1)[-1].split("-", 1)[0])


def _name_of(path: Path, folder: Path) -> str:
    return path.relative_to(folder).with_suffix("").as_posix()


def _without_photo_suffix(name: str) -> str:
    base, dot, suffix = name.rpartition(".")
    return base if dot and f".{suffix.lower()}" in PHOTO_SUFFIXES else name
