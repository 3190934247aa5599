"""Weight files downloaded over https or added by hand, and checked."""

from __future__ import annotations

import http.client
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from semedit.errors import WeightsError
from semedit.media.files import atomic_path
from semedit.weights.files import CHUNK, _verify, file_sha256, on_disk, refuse_impostors, resolve
from semedit.weights.rows import _check_path, folder, row, table
from semedit.weights.tensors import load, writing

Progress = Callable[[str, int, int | None], None]  # file name, bytes so far, bytes in all


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
    with writing(), atomic_path(target) as temporary:
        shutil.copyfile(file, temporary)
    return target


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
    if target.is_file() and file_sha256(target).startswith(sha256):
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
