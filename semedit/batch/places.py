"""Places in a workspace: which files are semedit's own, to be written, trusted and removed.

A workspace may come from anybody. A path that was read from a file counts only through `own`, and
nothing is written to a folder before `check_folder` has seen where it leads.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from semedit.errors import OptionError, PlaceError
from semedit.media.files import is_temporary

# The folders that a command writes to; of turntable-gif, those of turntable.
FOLDERS = {
    "align": ("faces", "masks"),
    "parse": ("faces", "masks"),
    "pose": ("faces", "masks"),
    "draw": ("faces", "masks", "latents"),
    "import": ("faces", "masks", "latents"),
    "invert": ("latents",),
    "edit": ("edits",),
    "attr": ("edits",),
    "paste": ("pasted",),
    "turntable": ("turntables",),
    "sweep": ("sweeps",),
    "mesh": ("meshes",),
    "interpolate": ("interpolations",),
}
EVERY = tuple(dict.fromkeys(folder for folders in FOLDERS.values() for folder in folders))
STEPS = ("edit", "attr")  # commands whose outputs are steps of a chain of edits
STEP = re.compile(r"([0-9]{2,9})-", re.ASCII)  # how names of steps begin, in their face's folder

# A label, as the user calls a result of another setting; behind a face's name, with @. Numbers
# are none: photo@2 is a face.
LABEL = re.compile(r"[^\W\d][\w+-]*")
LONGEST_LABEL = 80  # characters of what a step is called


def check_label(label: str | None) -> str:
    """A label as a user gives it; "" for None.

    Raises: OptionError: it could not be part of a file's name, or would be a number.
    """
    if label is None:
        return ""
    if not LABEL.fullmatch(label) or len(label) > LONGEST_LABEL or label in ("latents", "none"):
        raise OptionError(
            f"a result cannot be called {label[:LONGEST_LABEL]!r}",
            "take letters, numbers, - and _, a letter first, like --label strong",
        )
    return label


def labelled(face: str, label: str) -> str:
    """The name of what a face has under a label; "": without one."""
    return f"{face}@{label}" if label else face


def unlabelled(name: str) -> tuple[str, str]:
    """A face's name and the label behind it: inverse of `labelled`."""
    face, at, label = name.rpartition("@")
    return (face, label) if at and LABEL.fullmatch(label) else (name, "")


def folders_of(command: str) -> tuple[str, ...]:
    """Where a command writes to."""
    return FOLDERS.get(command.partition("-")[0], EVERY)


def own(root: Path, path: object, folders: Sequence[str], name: str) -> Path:
    """The file that a path means which was read from a file: one of the item `name`, in one of
    some folders of the workspace. Nothing else turns such paths into files.

    Args:
        path: relative to the workspace, "latents/NAME.png"; anything else is refused.

    Raises:
        PlaceError: it leads elsewhere, be it by a link, or to what is no regular file.
    """
    given = path if isinstance(path, str) else ""
    folder, _, file = given.partition("/")
    rest = file.removeprefix(name)
    plain = given == str(PurePosixPath(given)) and ".." not in given.split("/")
    if plain and folder in folders and file.startswith(name) and rest[:1] in tuple(".@-"):
        place, top = root / given, Path(os.path.realpath(root), folder)
        try:
            inside = Path(os.path.realpath(place)).is_relative_to(top)
            if "/" not in rest and inside and _regular_or_none(place):
                return place
        except (OSError, ValueError):  # too long, or not a path at all
            pass
    shown = ascii(path) if len(ascii(path)) <= 200 else f"{ascii(path)[:200]}..."
    raise PlaceError(f"{shown} is no file of {name} in {' or '.join(folders)}")


def _regular_or_none(path: Path) -> bool:
    """Whether a regular file is there, or nothing at all, not even a link."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        return not path.is_symlink()


def check_receipt(root: Path, command: str, name: str, receipt: Mapping[str, Any]) -> None:
    """Look at all paths of a receipt that are ever followed: outputs, and what a step was made
    from. (Where a photograph or a drawn map was is only compared with where one is.)

    Raises: PlaceError: one is not its item's own.
    """
    for path in receipt["outputs"]:
        own(root, path, folders_of(command), name)
    if command in STEPS and receipt["status"] == "done":
        named = receipt["inputs"].get("latent")
        whole = isinstance(named, list) and len(named) == 2
        _check_source(root, name, named[0] if whole else None)


def _check_source(root: Path, step: str, path: object) -> None:
    """Raise PlaceError unless it is the inversion or crop of the step's face, or an earlier step
    of it, so that no chain goes round in a circle."""
    face, _, last = step.rpartition("/")
    before = str(path).removeprefix("edits/").removesuffix(".safetensors")
    now, then = STEP.match(last), STEP.match(before.removeprefix(f"{face}/"))
    if before.startswith(f"{face}/") and now and then and int(then[1]) < int(now[1]):
        own(root, path, ("edits",), before)
    else:
        own(root, path, ("latents", "faces"), face)


def check_folder(root: Path, folder: Path) -> None:
    """Make sure that what is written to a folder stays in the one of `root` that it is below.

    Raises: PlaceError: it leads elsewhere by a link, or what is there is no folder.
    """
    top = folder.relative_to(root).parts[0]
    real = Path(os.path.realpath(folder))
    if not real.is_relative_to(Path(os.path.realpath(root), top)):
        raise PlaceError(
            f"{folder} leads out of {root / top}, to {real}",
            "nothing is written through such links; remove it",
        )
    nearest = next(one for one in (folder, *folder.parents) if os.path.lexists(one))
    if not os.path.isdir(nearest):  # noqa: PTH112  too long a path makes Path.is_dir raise
        raise PlaceError(f"{nearest} is in the way: it is no folder", "move it away")


def leftovers(root: Path) -> Iterator[Path]:
    """What killed runs left half-written: files that are called so, in folders that commands write
    to, but not in a workspace that lies within one, where another run may be at work."""
    walks = [next(os.walk(root), ("", [], []))]
    for top in (root / folder for folder in (*EVERY, "receipts", "recipes")):
        walks += [] if top.is_symlink() else _walk(top)
    for folder, _, files in walks:
        for path in (Path(folder, file) for file in files if is_temporary(file)):
            if stat.S_ISREG(path.lstat().st_mode):
                yield path


def _walk(top: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """os.walk, but not into folders that hold locks."""
    for folder, folders, files in os.walk(top):
        if any(file == ".lock" or file.startswith(".lock-") for file in files):
            folders.clear()
        else:
            yield folder, folders, files


def lasting(name: str) -> str:
    """A name whose files are not taken for leftovers."""
    return f"{name}_" if is_temporary(f"{name.rpartition('/')[2]}.png") else name
