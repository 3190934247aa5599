"""A workspace as HTML that needs nothing beside it: pictures are in the page."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from PIL import Image

from semedit.batch.holdings import STATUSES, Edited, Holding
from semedit.errors import OptionError, SemeditError
from semedit.media import decoding
from semedit.media.decoding import read_labels, read_photo
from semedit.media.files import write_bytes
from semedit.media.masks import colorize
from semedit.media.photographs import read_frames
from semedit.options import suggestion
from semedit.version import __version__

PAGE = Path(__file__).parent / "page"
FRAMES = 24  # of a turntable, at most
FPS = 12
QUALITY = 82
THREADS = 4  # at most, that read and write pictures
HEAD = 4096  # bytes of a page that tell which report it is of


@dataclass(frozen=True)
class Shown:
    """A picture in the page: what it is, and its data URL; None: it is not there."""

    caption: str
    url: str | None


def write_report(
    path: Path, faces: Sequence[Holding], title: str, per_page: int, side: int, sort: str = ""
) -> list[Path]:
    """Write a report, REPORT.html and, for many faces, REPORT-2.html and so on.

    Pages of an earlier report of this name that had more of them are deleted.

    Args:   per_page: faces of a page. side: pixels of its pictures. sort: a figure, largest first
            (with "-" before it: smallest); "": by name.
    Raises: OptionError: no face has such a figure, or the file is not called .html.
    """
    if path.suffix.lower() not in (".html", ".htm"):
        raise OptionError(f"a report is written as .html, not {path.suffix or path}")
    faces = _sorted(faces, sort)
    parts = [faces[first : first + per_page] for first in range(0, len(faces), per_page)]
    paths = [_numbered(path, i) for i in range(len(parts))]
    template = _template()
    told = {
        "title": title,
        "version": __version__,
        "counts": Counter(face.status for face in faces),
        "total": len(faces),
        "links": [_link(one) for one in paths],
    }
    for i, (part, one) in enumerate(zip(parts, paths, strict=True)):
        text = template.render(**told, **_page(part, side), number=i, first=i * per_page + 1)
        write_bytes(one, text.encode("utf-8", "replace"))
    _delete_further(path, len(paths))
    return paths


def _delete_further(path: Path, count: int) -> None:
    """Delete further pages of a report, no other file of such a name: each names the first."""
    number = re.compile(rf"{re.escape(path.stem)}-([1-9]\d*){re.escape(path.suffix)}")
    ours = f'<meta name="first-page" content="{_link(path)}">'.encode()
    for one in list(path.parent.iterdir()):
        found = number.fullmatch(one.name)
        if found and int(found[1]) > count and one.is_file() and ours in _head(one):
            one.unlink()


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(HEAD)


def _link(path: Path) -> str:
    """A page as one beside it links to it."""
    return quote(os.fsencode(path.name))


def _numbered(path: Path, index: int) -> Path:
    return path if index == 0 else path.with_stem(f"{path.stem}-{index + 1}")


def _sorted(faces: Sequence[Holding], sort: str) -> list[Holding]:
    """Faces by a figure; those without it last."""
    if not sort:
        return list(faces)
    name, sign = sort.removeprefix("-"), -1 if sort.startswith("-") else 1
    known = sorted({key for face in faces for key in _figures(face)})
    if name not in known:
        raise OptionError(f"no face has a figure {name!r}", suggestion(name, known))
    have = [face for face in faces if name in _figures(face)]
    have.sort(key=lambda face: -sign * _figures(face)[name])
    return have + [face for face in faces if name not in _figures(face)]


def _figures(face: Holding) -> dict[str, float]:
    """All figures of a face by which it may be sorted."""
    return face.figures | {f"attribute: {name}": p for name, p in face.attributes.items()}


def _page(faces: Sequence[Holding], side: int) -> dict[str, Any]:
    """What the template takes besides."""
    figures = sorted({name for face in faces for name in _figures(face)})
    style, script = ((PAGE / name).read_text("utf-8") for name in ("report.css", "report.js"))
    style = f"{(PAGE / 'look.css').read_text('utf-8')}\n{style}"
    return {
        "faces": _shown(faces, side),
        "figures": figures,
        "commands": sorted({command for face in faces for command in face.commands}),
        "statuses": [status for status in STATUSES if any(f.status == status for f in faces)],
        "style": style,
        "script": script,
        # Only this very script and style may run: names cannot bring their own.
        "hashes": {"style": _hash(style), "script": _hash(script)},
    }


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _template() -> Any:
    """Raises: OptionError: the extra is not installed."""
    try:
        from jinja2 import Environment, FileSystemLoader
    except ImportError as error:
        raise OptionError("jinja2 is not installed", 'pip install "semedit[web]"') from error
    return Environment(
        loader=FileSystemLoader(PAGE), autoescape=True, trim_blocks=True, lstrip_blocks=True
    ).get_template("report.html")


def _shown(faces: Sequence[Holding], side: int) -> Iterator[dict[str, Any]]:
    with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
        yield from pool.map(partial(_one, side=side), faces)


def _one(face: Holding, side: int) -> dict[str, Any]:
    """A face as the template takes it."""
    pictures = [
        Shown("photograph", _photo(face.photograph, side)),
        Shown("crop", _photo(face.crop, side)),
        Shown("map", _map(face.map, side)),
        Shown("inversion", _photo(face.inversion, side)),
        Shown("pasted", _photo(face.pasted, side)),
    ]
    named = {n: path for n, path in face.labelled.items() if n.startswith("inversion")}
    pictures += [Shown(name, _photo(path, side)) for name, path in named.items()]
    return {
        "face": face,
        "figures": _figures(face),
        "pictures": [one for one in pictures if one.url is not None],
        "edits": [_edit(edit, side) for edit in face.edits],
        "turntable": _turntable(face.turntable, side),
        "troubles": [event for event in face.events if event.message],
        "warnings": [(event, text) for event in face.events for text in event.warnings],
    }


def _edit(edit: Edited, side: int) -> dict[str, Any]:
    return {
        "label": edit.label,
        "after": _photo(edit.picture, side),
        "before": _photo(edit.before, side),
        "figures": edit.event.figures,
    }


def _photo(path: Path | None, side: int) -> str | None:
    if path is None:
        return None
    try:
        return _url([_small(read_photo(path).pixels, side)])
    except SemeditError:  # of a file that was damaged since; its place stays empty
        return None


def _map(path: Path | None, side: int) -> str | None:
    if path is None:
        return None
    try:
        return _url([_small(colorize(read_labels(path)), side)])
    except SemeditError:
        return None


def _turntable(path: Path | None, side: int) -> dict[str, str] | None:
    """A turntable that plays, and its first frame for who wants no motion, or paper."""
    if path is None:
        return None
    try:
        frames: np.ndarray = decoding.call(read_frames, path, most=FRAMES)
    except SemeditError:
        return None
    small = [_small(frame, side) for frame in frames]
    return {"moving": _url(small), "still": _url(small[:1])}


def _small(pixels: np.ndarray, side: int) -> Image.Image:
    image = Image.fromarray(pixels)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return image


def _url(images: Sequence[Image.Image]) -> str:
    buffer = io.BytesIO()
    more: dict[str, Any] = {"quality": QUALITY, "method": 2}
    if len(images) > 1:
        more |= {"save_all": True, "append_images": images[1:], "loop": 0}
        more |= {"duration": round(1000 / FPS)}
    images[0].save(buffer, "WEBP", **more)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
