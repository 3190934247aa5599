"""weights.toml -> verified local file -> tensors.

Every weight file has a row in weights.toml. Files that semedit trained itself ship in
semedit/data; others live in the user's folder after `fetch` or `add`, and count only when their
sha256 is right. Pickles are read by `torch.load(weights_only=True)` alone, so code in them never
runs. No library that semedit uses downloads anything by itself: `place` puts the verified file
where the library looks.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import shutil
import tomllib
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

from semedit.errors import WeightsError
from semedit.images import atomic_path, write_bytes
from semedit.methods import suggestion

if TYPE_CHECKING:
    import torch

DATA = Path(__file__).parent / "data"
CHUNK = 1 << 20  # bytes
Progress = Callable[[str, int, int | None], None]  # file name, bytes so far, bytes in all


@dataclass(frozen=True)
class Row:
    """One table of weights.toml; the file's head says what the fields mean.

    Attributes:
        files: assets only: (path below url, bytes, sha256) of each source file.
    """

    name: str
    kind: Literal["builtin", "library", "asset", "checkpoint"]
    file: str
    use: str
    licence: str
    url: str = ""
    sha256: str = ""
    bytes: int | None = None
    looks: Literal["semedit", "torch-hub"] = "semedit"
    command: str = ""
    files: tuple[tuple[str, int, str], ...] = field(default=(), repr=False)

    @property
    def size(self) -> str:
        """Size to read, e.g. `1.8 MB`, or `?`."""
        total = self.bytes or sum(entry[1] for entry in self.files)
        return f"{total / 1e6:.1f} MB" if total else "?"


# The table --------------------------------------------------------------------------------------


@cache
def table() -> dict[str, Row]:
    """All rows of the weights.toml that came with this installation."""
    packaged = Path(__file__).parent / "weights.toml"  # in a wheel
    checkout = Path(__file__).parent.parent / "weights.toml"
    path = packaged if packaged.is_file() else checkout
    return read_table(path.read_text("utf-8"))


def read_table(text: str) -> dict[str, Row]:
    """Parse and check the text of a weights.toml.

    Raises:
        WeightsError: not TOML (a name given twice is not), an unknown or missing field, an
            unsafe path, an address that is not https, a digest that is none.
    """
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise WeightsError(f"weights.toml: {error}") from error
    rows = {name: _row(name, values) for name, values in tables.items()}
    taken: dict[str, str] = {}
    for row in rows.values():
        other = taken.setdefault(row.file.lower(), row.name)
        if other != row.name:
            raise WeightsError(f"weights.toml: {other} and {row.name} share the file {row.file}")
    return rows


def _row(name: str, values: Any) -> Row:
    if not isinstance(values, dict):
        raise WeightsError(f"weights.toml: {name} is not a table")
    _check_path(name, name)
    try:
        files = tuple((str(f), int(size), str(sha)) for f, size, sha in values.pop("files", ()))
        row = Row(name=name, files=files, **values)
    except (TypeError, ValueError) as error:
        raise WeightsError(f"weights.toml: [{name}]: {error}") from error
    for key, value in values.items():
        wanted = int if key == "bytes" else str
        if not isinstance(value, wanted) or isinstance(value, bool):
            raise WeightsError(f"weights.toml: [{name}]: {key} = {value!r} is no {wanted.__name__}")
    if row.kind not in ("builtin", "library", "asset", "checkpoint"):
        raise WeightsError(f"weights.toml: [{name}]: kind = {row.kind!r}")
    if row.looks not in ("semedit", "torch-hub"):
        raise WeightsError(f"weights.toml: [{name}]: looks = {row.looks!r}")
    if row.kind != "builtin" and not row.url.startswith("https://"):
        raise WeightsError(f"weights.toml: [{name}]: url must begin with https://")
    if row.kind == "library" and not row.sha256:
        raise WeightsError(f"weights.toml: [{name}]: a downloaded file needs its sha256")
    _check_path(name, row.file)
    for path, _, digest in row.files:
        _check_path(name, path, folders=True)
        _check_digest(name, digest, 64)
    if row.sha256:
        _check_digest(name, row.sha256, 8)
    return row


def _check_path(name: str, text: Any, folders: bool = False) -> None:
    pattern = r"[A-Za-z0-9_][A-Za-z0-9_.+-]*"
    if folders:
        pattern = rf"{pattern}(/{pattern})*"
    if not isinstance(text, str) or not re.fullmatch(pattern, text):
        raise WeightsError(f"weights.toml: [{name}]: {text!r} is not a safe file name")


def _check_digest(name: str, digest: str, least: int) -> None:
    if not re.fullmatch(rf"[0-9a-f]{{{least},64}}", digest):
        raise WeightsError(f"weights.toml: [{name}]: {digest!r} is not a sha256")


def row(name: str) -> Row:
    """The row of a name; WeightsError with the nearest names when there is none."""
    rows = table()
    if name not in rows:
        raise WeightsError(f"no weights are called {name!r}", suggestion(name, rows))
    return rows[name]


# Files ------------------------------------------------------------------------------------------


def folder() -> Path:
    """The user's folder of weights: SEMEDIT_WEIGHTS, else in the user's data folder."""
    named = os.environ.get("SEMEDIT_WEIGHTS")
    if named:
        return Path(named)
    from platformdirs import user_data_dir

    return Path(user_data_dir("semedit")) / "weights"


def resolve(name: str | Path) -> Path:
    """The verified local file of a name.

    Args:
        name: a row of weights.toml, a file added under its own name, or a path to a file.

    Raises:
        WeightsError: unknown, not on this disk, or the digest is wrong.
    """
    text = str(name)
    if "/" in text or os.sep in text or text.endswith(".safetensors"):
        if not Path(name).is_file():
            raise WeightsError(f"no weight file at {name}")
        return Path(name)
    own = folder() / f"{text}.safetensors"
    if text not in table() and own.is_file():
        return own
    entry = row(text)
    if entry.kind == "builtin" and (DATA / entry.file).is_file():
        return DATA / entry.file
    for place in (folder(), *_library_folders(entry)):
        if (place / entry.file).is_file():
            if entry.kind != "checkpoint":  # whose digest is the source's
                _verify(place / entry.file, entry.sha256, text)
            return place / entry.file
    raise WeightsError(f"the weights {text!r} are not on this disk", how_to_get(entry))


def how_to_get(entry: Row) -> str:
    """One phrase: which commands bring a row's file, and where it goes."""
    if entry.kind == "checkpoint":
        return f"get it from {entry.url}, then: semedit weights import FILE --name {entry.name}"
    if entry.kind == "builtin":
        made_by = entry.command or f"semedit train {entry.name}"
        return f"{made_by} makes them; the file goes to {DATA / entry.file}"
    return (
        f"run: semedit weights fetch {entry.name} ({entry.size} from {entry.url}); or without "
        f"network: semedit weights add {entry.name} FILE; the file goes to {folder() / entry.file}"
    )


def on_disk(name: str) -> bool:
    """Whether `resolve` finds a verified file."""
    try:
        resolve(name)
    except WeightsError:
        return False
    return True


def fingerprint(path: Path) -> str:
    """sha256 of a file, hex; remembered while size and time of change stay."""
    status = path.stat()
    return _digest(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=256)
def _digest(path: Path, _size: int, _changed_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _verify(path: Path, sha256: str, name: str) -> None:
    found = fingerprint(path)
    if not found.startswith(sha256):
        raise WeightsError(
            f"{name}: {path} has sha256 {found[:16]}..., not {sha256[:16]}...",
            "delete it and fetch it again",
        )


def add(name: str, file: str | Path) -> Path:
    """Copy a local file into the user's folder after checking it.

    Args:
        name: a row of weights.toml with a digest, or a new name for a safetensors file.

    Returns:
        Where the file is now.
    """
    file = Path(file)
    if not file.is_file():
        raise WeightsError(f"no file at {file}")
    refuse_impostors(file, name)
    if name in table():
        entry = row(name)
        if not entry.sha256:
            raise WeightsError(f"{name} is {entry.kind} and has no digest to check {file} by")
        _verify(file, entry.sha256, name)
        target = folder() / entry.file
    else:
        _check_path(name, name)
        load(file)
        target = folder() / f"{name}.safetensors"
    with atomic_path(target) as temporary:
        shutil.copyfile(file, temporary)
    return target


def place_for(name: str, source_sha256: str) -> Path:
    """Where a converted checkpoint goes: the user's folder.

    Args:
        name: new, or of a row of kind "checkpoint".
        source_sha256: of the checkpoint; converting the same one again is no clash.

    Raises:
        WeightsError: no safe name, or it means something else already.
    """
    _check_path(name, name)
    entry = table().get(name)
    if entry is not None and entry.kind != "checkpoint":
        raise WeightsError(f"{name} is the name of a {entry.kind} file", "give another --name")
    if entry is not None and not source_sha256.startswith(entry.sha256):
        raise WeightsError(f"{name} has sha256 {entry.sha256[:16]}..., not {source_sha256[:16]}...")
    target = folder() / (entry.file if entry else f"{name}.safetensors")
    if target.is_file() and metadata(target).get("source_sha256") != source_sha256:
        raise WeightsError(f"{target} is there already, from another file", "give another --name")
    return target


def imported() -> dict[str, dict[str, str]]:
    """name -> metadata of converted checkpoints that have no row of their own."""
    taken = {row.file for row in table().values()}
    found = {}
    for path in sorted(folder().glob("*.safetensors")):
        try:
            facts = metadata(path)
        except WeightsError:
            continue  # damaged: whoever asks for it is told
        if path.name not in taken and "source_sha256" in facts:
            found[path.stem] = facts
    return found


def place(name: str) -> Path:
    """Put a library's verified file where that library looks, so that it need not download.

    facexlib is told the folder (`model_rootpath=str(weights.folder())`); lpips' and
    face-alignment's files go to torch.hub's checkpoints folder.
    """
    entry, source = row(name), resolve(name)
    where = (_library_folders(entry) or [folder()])[0]
    target = where / entry.file
    if target != source:
        with atomic_path(target) as temporary:
            shutil.copyfile(source, temporary)
    return target


def _library_folders(entry: Row) -> list[Path]:
    if entry.looks != "torch-hub":
        return []
    import torch

    return [Path(torch.hub.get_dir()) / "checkpoints"]


# Downloads --------------------------------------------------------------------------------------


def fetch(name: str, progress: Progress | None = None) -> Path:
    """Download what a row names and check it; what is there already stays.

    Returns:
        The file; for an asset, the folder that now holds its source files.
    """
    entry = row(name)
    if entry.kind in ("builtin", "checkpoint"):  # checkpoints: their publishers want to be asked
        return resolve(name)
    if entry.files:
        sources = folder() / f"{name}-sources"
        for path, size, sha256 in entry.files:
            download(entry.url + path, sources / PurePosixPath(path), sha256, size, progress)
        return sources
    if on_disk(name):
        return resolve(name)
    return download(entry.url, folder() / entry.file, entry.sha256, entry.bytes, progress)


def download(
    url: str, target: Path, sha256: str, size: int | None = None, progress: Progress | None = None
) -> Path:
    """Fetch one file, resuming an earlier attempt; nothing wrong ever gets the final name.

    Args:
        sha256: of the whole file, or its first digits.
        size: bytes, where known.

    Raises:
        WeightsError: no connection, cut short, a web page or LFS pointer, wrong digest.
    """
    if target.is_file() and fingerprint(target).startswith(sha256):
        return target
    part = target.with_name(target.name + ".part")
    told = f"{url} ({f'{size / 1e6:.1f} MB' if size else 'size unknown'}), to be put at {target}"
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        total = _stream(url, part, progress)
    except (OSError, http.client.HTTPException) as error:  # URLError is an OSError
        raise WeightsError(
            f"cannot fetch {told}: {error}",
            "fetch it elsewhere and run: semedit weights add NAME FILE",
        ) from error
    got = part.stat().st_size
    wanted = total or size  # what the server meant to send: a page in place of the file is whole
    if wanted is not None and got < wanted:
        raise WeightsError(f"cut short after {got} of {wanted} bytes: {told}", "run it again")
    try:
        refuse_impostors(part, target.name)
        _verify(part, sha256, target.name)
    except WeightsError as error:
        part.unlink()
        raise WeightsError(
            f"{error.message}; nothing was kept of {told}",
            "fetch it elsewhere and run: semedit weights add NAME FILE",
        ) from error
    part.replace(target)
    return target


class _StayHttps(urllib.request.HTTPRedirectHandler):
    """Follow redirects, but never from https to anything else."""

    def redirect_request(
        self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: str
    ) -> Any:
        if req.full_url.startswith("https:") and not newurl.startswith("https:"):
            raise urllib.error.URLError(f"redirected to {newurl}, which is not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _stream(url: str, part: Path, progress: Progress | None) -> int | None:
    """Append what is missing to `part`; returns the whole file's size where the server says it."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    opener = urllib.request.build_opener(_StayHttps)
    try:
        response = opener.open(request, timeout=60)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # nothing left to send: the digest decides
            raise
        return have
    with response, part.open("ab" if response.status == 206 else "wb") as file:
        done = file.tell()
        length = response.headers.get("Content-Length")
        total = done + int(length) if length else None
        while chunk := response.read(CHUNK):
            file.write(chunk)
            done += len(chunk)
            if progress:
                progress(part.name.removesuffix(".part"), done, total)
    return total


def refuse_impostors(path: Path, name: str) -> None:
    """Web pages and Git LFS pointers that were saved under a weight file's name."""
    with path.open("rb") as file:
        start = file.read(512).lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html", b"<?xml")):
        raise WeightsError(f"{name}: {path.name} is a web page, not weights")
    if start.startswith(b"version https://git-lfs"):
        raise WeightsError(f"{name}: {path.name} is a Git LFS pointer, not the weights themselves")


# Tensors ----------------------------------------------------------------------------------------


def load(name: str | Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors (floating ones as float32) and metadata of a safetensors file, by name or path.

    Raises:
        WeightsError: not there, or not a whole safetensors file.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    path = resolve(name) if isinstance(name, str) else name
    try:
        with safe_open(str(path), "pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is not a whole safetensors file: {error}") from error
    return {
        k: v.to(torch.float32) if v.is_floating_point() else v for k, v in tensors.items()
    }, metadata


def metadata(path: str | Path) -> dict[str, str]:
    """What a safetensors file says about itself, without reading its tensors.

    Raises:
        WeightsError: not there, or not a safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), "pt") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is not a whole safetensors file: {error}") from error


def fill(network: torch.nn.Module, tensors: dict[str, torch.Tensor], name: str | Path) -> None:
    """Give a network the tensors of a weight file.

    Counters of batch normalisation may be missing; they play no part in inference.

    Raises:
        WeightsError: tensors are missing, unknown or of another shape.
    """
    own = network.state_dict()
    counters = {k for k in own if k.endswith("num_batches_tracked")}
    wrong = {
        "missing": sorted(own.keys() - tensors.keys() - counters),
        "unknown": sorted(tensors.keys() - own.keys()),
        "of another shape": [
            k for k in own.keys() & tensors.keys() if own[k].shape != tensors[k].shape
        ],
    }
    told = [f"{len(keys)} {how} ({keys[0]})" for how, keys in wrong.items() if keys]
    if told:
        raise WeightsError(
            f"the tensors of {name} do not fit their network: {', '.join(told)}",
            "the file was made by another version of semedit; make or fetch it anew",
        )
    network.load_state_dict(tensors, strict=False)


def save(
    path: str | Path,
    tensors: Mapping[str, torch.Tensor],
    metadata: Mapping[str, str],
    half: bool = True,
) -> None:
    """Write a safetensors file atomically, floating tensors as float16 (or float32).

    Raises:
        WeightsError: a value is not finite, or not in the range of float16.
    """
    import torch

    kind = torch.float16 if half else torch.float32
    ready = {k: v.to(kind) if v.is_floating_point() else v for k, v in tensors.items()}
    for key, value in ready.items():
        if not torch.isfinite(value).all():
            raise WeightsError(f"{path}: {key} holds values that are not finite numbers")
    write_tensors(path, ready, metadata)


def write_tensors(
    path: str | Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]
) -> None:
    """Write a safetensors file atomically, as it is; the same content gives the same bytes."""
    from safetensors.torch import save as serialise

    data = serialise({k: v.detach().cpu().contiguous() for k, v in tensors.items()})
    # safetensors writes its metadata in random order; the header is made anew, sorted.
    length = int.from_bytes(data[:8], "little")
    header = {"__metadata__": dict(sorted(metadata.items()))} | json.loads(data[8 : 8 + length])
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    write_bytes(path, len(text).to_bytes(8, "little") + text + data[8 + length :])


def load_pickle(path: str | Path) -> Any:
    """Read a PyTorch checkpoint that holds only tensors and plain containers.

    Raises:
        WeightsError: damaged, or it would have to run code, which is never done.
    """
    import torch

    refuse_impostors(Path(path), "checkpoint")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a malformed pickle makes its reader raise nearly anything
        reason = str(error).split("\n")[0]
        raise WeightsError(
            f"{path} is damaged or needs code to load, which is not run: {reason}"
        ) from error
