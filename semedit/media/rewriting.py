"""A photograph's file again with other pixels: its format, quality, colours, and what it tells.

Kept are the format (JPEG, PNG, WebP, TIFF; others become PNG), of JPEG the quantisation tables and
the subsampling, the colour profile or what PNG has in its place, transparency, the resolution in
dots per inch, and Exif less the place. Pixels are upright then, and Exif's orientation is 1. What
shows or describes the picture as it was is left out: thumbnails, XMP, IPTC, further frames.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, JpegImagePlugin
from PIL.PngImagePlugin import PngInfo

from semedit.errors import InputError
from semedit.media import colours, provenance
from semedit.media.colours import METADATA_ERRORS
from semedit.media.files import atomic_path
from semedit.media.kinds import FAMILIES, NAMED, SUFFIXES
from semedit.media.photographs import (
    BITS_PER_SAMPLE,
    MAX_PIXELS,
    opened,
    read_bytes,
    upright,
)

Options = dict[str, Any]  # of Pillow's save
COLOUR_CHUNKS = (b"cICP", b"gAMA", b"cHRM", b"sRGB")  # of PNG
LOSSLESS = {"tiff_lzw", "tiff_adobe_deflate", "packbits", "raw"}  # of TIFF's compressions
ORIENTATION, XMP, EXIF_IFD, INTEROP = 0x0112, 0x02BC, 0x8769, 0xA005  # tags
WIDTH, HEIGHT = 0xA002, 0xA003  # of EXIF_IFD
# Tags of the first directory that tell the place, show the picture, or say how a TIFF is stored.
LEFT_OUT = {
    *range(0x00FE, 0x0108), 0x0111, *range(0x0115, 0x011A), 0x011C, 0x013D, 0x0140, 0x0141, 0x0142,
    0x0143, 0x0144, 0x0145, 0x014A, 0x0152, 0x0153, 0x015B, 0x0201, 0x0202, *range(0x0211, 0x0215),
    XMP, 0x83BB, 0x8649, 0x8773, 0x8825, 0x935C, 0xC4A5,
}  # fmt: skip
MODES = {"1": "L", "La": "LA", "PA": "RGBA", "RGBa": "RGBA", "RGBX": "RGB"}
OWN_MODES = {"L", "LA", "RGB", "RGBA"}


def written_suffix(path: str | Path, max_pixels: int = MAX_PIXELS) -> str:
    """What the name of the file that `rewrite` makes ends with: the photograph's own suffix, if it
    says the format that is written.

    Raises: InputError: it cannot be written as it is: more than 8 bits a channel, colours of print.
    """
    path = Path(path)
    data = read_bytes(path)
    with opened(path, data, max_pixels) as image:
        _check(path, image, data)
        kind = _kind(image)
    return path.suffix if SUFFIXES.get(path.suffix.lower()) == kind else NAMED[kind][0]


def _check(path: Path, image: Image.Image, data: bytes) -> None:
    if _bits(image, data) > 8:
        raise InputError(
            f"{path}: more than 8 bits a channel are read, but not written",
            "convert it to 8 bits, and align that",
        )
    if MODES.get(image.mode, image.mode) not in {*OWN_MODES, "P"}:
        raise InputError(
            f"{path}: colours of {image.mode} are read, but not written",
            "convert it to RGB, and align that",
        )


def _bits(image: Image.Image, data: bytes) -> int:
    """Bits a channel, of formats that are written as they are."""
    if image.mode.startswith("I") or image.mode == "F":
        return 16
    if image.format == "PNG":
        return data[24]
    tags: Any = getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}
    return max(tags.get(BITS_PER_SAMPLE, (8,)))


def _kind(image: Image.Image) -> str:
    kind = FAMILIES.get(str(image.format), str(image.format))
    return kind if kind in WRITERS else "PNG"


def rewrite(
    source: str | Path,
    target: str | Path,
    before: np.ndarray,
    after: np.ndarray,
    mark: bool = True,
    max_pixels: int = MAX_PIXELS,
) -> list[str]:
    """Write a photograph again with other pixels; what did not change keeps the numbers that it
    has in the file.

    Args:
        before: uint8 [H,W,3], the photograph's pixels as `read_photo` gives them.
        after: uint8 [H,W,3], as they are to be.
        mark: as in `write_image`.

    Returns: what could not be kept, one sentence each.

    Raises: InputError: as `written_suffix`; it is no longer the photograph of `before`.
    """
    source, target = Path(source), Path(target)
    data = read_bytes(source)
    notes: list[str] = []
    with opened(source, data, max_pixels) as image:
        _check(source, image, data)
        kind = _kind(image)
        if kind != FAMILIES.get(str(image.format), image.format):
            notes.append(f"{image.format} is written as {kind}")
        options = {"icc_profile": image.info.get("icc_profile")} | WRITERS[kind](image, data)
        if "dpi" in image.info:
            options["dpi"] = tuple(map(float, image.info["dpi"]))
        exif = _exif(image, after.shape, notes)
        image.load()
        turned = _own_mode(upright(image, []))
        pixels = np.array(turned)
        if pixels.shape[:2] != before.shape[:2]:
            raise InputError(f"{source} is another picture than it was", "align it again")
        _change(pixels, turned, data, before, after)
    if mark:
        _mark(kind, options, exif)
    options["exif"] = exif
    with atomic_path(target) as temporary:
        _save(temporary, Image.fromarray(pixels), kind, options, notes)
        if mark:
            provenance.sign(temporary, target.suffix.lower())
    return notes


def _own_mode(image: Image.Image) -> Image.Image:
    """A picture in one of OWN_MODES, with its transparency as a channel."""
    clear = image.has_transparency_data
    mode = MODES.get(image.mode, image.mode)
    if mode == "P":
        mode = "RGB"
    if clear and mode in ("L", "RGB"):
        mode += "A"
    return image if image.mode == mode else image.convert(mode)


def _change(
    pixels: np.ndarray, image: Image.Image, data: bytes, before: np.ndarray, after: np.ndarray
) -> None:
    """Carry a change of sRGB [H,W,3] into a picture's own numbers, in place: as a difference, so
    that colours beyond sRGB stay where they are."""
    changed = (before != after).any(-1)
    bare = image.convert(image.mode.removesuffix("A")) if image.mode.endswith("A") else image
    bare.info = image.info
    was, now = (colours.from_srgb(one[changed], bare, data) for one in (before, after))
    change = now.astype(np.int16) - was
    if pixels.ndim == 2:
        pixels[changed] = np.clip(pixels[changed] + change[:, 0], 0, 255)
    else:
        own = pixels[changed]
        own[:, : change.shape[1]] = np.clip(own[:, : change.shape[1]] + change, 0, 255)
        pixels[changed] = own


def _exif(image: Image.Image, shape: tuple[int, ...], notes: list[str]) -> Image.Exif:
    """Exif of a photograph less the place, the picture itself and its orientation."""
    kept = Image.Exif()
    try:
        own = image.getexif()
        for tag, value in own.items():
            if tag not in LEFT_OUT and tag != EXIF_IFD:
                kept[tag] = value
        inner = dict(own.get_ifd(EXIF_IFD))
        if inner:
            sizes = {WIDTH: shape[1], HEIGHT: shape[0]}
            inner |= {tag: n for tag, n in sizes.items() if tag in inner}
            if INTEROP in inner:  # of which Adobe RGB is a mark
                inner[INTEROP] = dict(own.get_ifd(INTEROP))
            kept.get_ifd(EXIF_IFD).update(inner)  # where the writer of TIFF looks
            kept[EXIF_IFD] = kept.get_ifd(EXIF_IFD)
    except METADATA_ERRORS:
        notes.append("broken EXIF data, left out")
        kept = Image.Exif()
    kept[ORIENTATION] = 1
    return kept


def _mark(kind: str, options: Options, exif: Image.Exif) -> None:
    packet = provenance.packet()
    if kind == "PNG":
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", packet)
    elif kind == "TIFF":
        exif[XMP] = packet.encode()
    else:
        options["xmp"] = packet.encode()


def _save(path: Path, image: Image.Image, kind: str, options: Options, notes: list[str]) -> None:
    """Save a picture; what of Exif a format cannot take is left out."""
    try:
        image.save(path, kind, **options)
    except METADATA_ERRORS:
        bare = Image.Exif()
        bare[ORIENTATION] = 1
        if XMP in options["exif"]:
            bare[XMP] = options["exif"][XMP]
        image.save(path, kind, **{**options, "exif": bare})
        notes.append("EXIF data that cannot be written, left out")


# How each format keeps what it is; image: opened, not yet decoded.


def _jpeg(image: Image.Image, _data: bytes) -> Options:
    """The tables and the subsampling, turned as the picture is."""
    try:
        turned = image.getexif().get(ORIENTATION) in (5, 6, 7, 8)  # by 90 degrees
    except METADATA_ERRORS:
        turned = False
    sampling = JpegImagePlugin.get_sampling(image)
    kept: Options = {"subsampling": 0 if sampling < 0 or (sampling == 1 and turned) else sampling}
    kept |= {"optimize": True, "progressive": bool(image.info.get("progressive"))}
    tables: dict[int, list[int]] = getattr(image, "quantization", {})
    if not tables or max(max(table) for table in tables.values()) > 255:
        return kept | {"quality": 95}
    if turned:
        tables = {n: np.reshape(table, (8, 8)).T.flatten().tolist() for n, table in tables.items()}
    return kept | {"qtables": tables}


def _png(image: Image.Image, data: bytes) -> Options:
    info = PngInfo()
    if image.format == "PNG":
        for chunk, content in colours.chunks(data):
            if chunk in COLOUR_CHUNKS:
                info.add(chunk, content)
    return {"pnginfo": info}


def _webp(_image: Image.Image, data: bytes) -> Options:
    """The quality of a lossy file is told nowhere."""
    if _holds(data, b"VP8L"):
        return {"lossless": True, "exact": True}
    return {"quality": 95, "exact": True}


def _holds(data: bytes, wanted: bytes) -> bool:
    """Whether a RIFF file has a chunk of that name."""
    at = 12
    while at + 8 <= len(data):
        if data[at : at + 4] == wanted:
            return True
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        at += 8 + size + size % 2
    return False


def _tiff(image: Image.Image, _data: bytes) -> Options:
    compression = str(image.info.get("compression", "raw"))
    return {"compression": compression if compression in LOSSLESS else "tiff_adobe_deflate"}


WRITERS: dict[str, Callable[[Image.Image, bytes], Options]] = {
    "JPEG": _jpeg,
    "PNG": _png,
    "WEBP": _webp,
    "TIFF": _tiff,
}
