"""Kinds of pictures that are read, and how the first bytes of a file tell them.

A name may say anything: phones, messengers and browsers write `photo.jpg_large`, a WebP called
.jpg, a picture without any suffix. What is not on this list is not opened at all: no EPS, PDF or
PSD, which are programs, pages and layers.
"""

from __future__ import annotations

import re
import struct
import warnings
from functools import lru_cache

HEAD = 4096  # bytes that are looked at
RAW = "raw"  # what a camera's sensor saw: no picture before it is developed

# Pillow's name of a kind -> what its files are called.
NAMED = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "BMP": (".bmp", ".dib"),
    "GIF": (".gif",),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "AVIF": (".avif", ".avifs"),
    "JPEG2000": (".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
    "TGA": (".tga", ".icb", ".vda", ".vst"),
    "ICO": (".ico",),
    "CUR": (".cur",),
    "ICNS": (".icns",),
    "PCX": (".pcx",),
    "SGI": (".sgi", ".rgb", ".rgba", ".bw"),
    "QOI": (".qoi",),
    "DDS": (".dds",),
    "SUN": (".ras",),
    "HEIF": (".heic", ".heif", ".hif"),
}
SUFFIXES = {suffix: kind for kind, suffixes in NAMED.items() for suffix in suffixes}
FAMILIES = {"MPO": "JPEG", "DIB": "BMP"}  # Pillow's name of a variant -> the kind it is one of
RAW_SUFFIXES = frozenset(
    [
        ".dng",
        ".nef",
        ".nrw",
        ".cr2",
        ".cr3",
        ".crw",
        ".arw",
        ".sr2",
        ".srf",
        ".orf",
        ".rw2",
        ".pef",
        ".srw",
        ".raf",
        ".3fr",
        ".iiq",
        ".erf",
        ".mef",
        ".mos",
        ".mrw",
        ".rwl",
        ".kdc",
        ".dcr",
    ]
)

_STARTS = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"\0\0\0\x0cjP  \r\n\x87\n": "JPEG2000",
    b"\xff\x4f\xff\x51": "JPEG2000",
    b"icns": "ICNS",
    b"qoif": "QOI",
    b"DDS \x7c\0\0\0": "DDS",
    b"\x59\xa6\x6a\x95": "SUN",
    b"FUJIFILMCCD-RAW": RAW,
    b"IIU\0": RAW,  # Panasonic
    b"IIRO": RAW,  # Olympus
    b"IIRS": RAW,
    b"MMOR": RAW,
}
_TIFF = (b"II*\0", b"MM\0*", b"MM*\0", b"II\0*", b"II+\0", b"MM\0+")
_DNG_VERSION = 0xC612  # a tag that makes a TIFF a raw file
_BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)  # bytes of what follows the size of the file
_DEPTHS = (1, 4, 8, 16, 24, 32)
_AVIF = {b"avif", b"avis"}
_HEIF = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}
_PPM = re.compile(rb"P[1-6]\s+(#[^\n]*\n\s*)*\d+\s+(#[^\n]*\n\s*)*\d+\s")
_FEATURES = {"AVIF": "avif", "JPEG2000": "jpg_2000", "WEBP": "webp"}  # as Pillow calls them


def kind_of(head: bytes, size: int, suffix: str = "") -> str | None:
    """What a file is: a key of NAMED, or RAW; DIB, a BMP without its file's header.

    Args:
        head: its first HEAD bytes.
        size: bytes of the whole file.
        suffix: of its name; asked only for what the bytes leave open, as with many raw files,
            which begin like a TIFF.

    Returns:
        None if it is none of these.
    """
    for start, kind in _STARTS.items():
        if head.startswith(start):
            return kind
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[4:8] == b"ftyp":
        return _of_brands(head)
    if head[:4] in _TIFF:
        return RAW if suffix.lower() in RAW_SUFFIXES or _raw(head) else "TIFF"
    if _PPM.match(head):
        return "PPM"
    return _of_header(head, size)


def _of_brands(head: bytes) -> str | None:
    """AVIF, HEIF, a raw file; not a film, which begins alike."""
    end = min(int.from_bytes(head[:4], "big"), len(head))
    brands = {head[i : i + 4] for i in (8, *range(16, end - 3, 4))}
    major = head[8:12]
    if major in _AVIF or (major in (b"mif1", b"msf1") and brands & _AVIF):
        return "AVIF"
    if major in _HEIF:
        return "HEIF"
    return RAW if major == b"crx " else None


def _raw(head: bytes) -> bool:
    """Whether a TIFF is a CR2 or a DNG by its first directory, where that is in the head."""
    if head[8:10] == b"CR":
        return True
    order = "<" if head[:2] == b"II" else ">"
    try:
        (first,) = struct.unpack_from(f"{order}I", head, 4)
        (count,) = struct.unpack_from(f"{order}H", head, first)
        tags = {struct.unpack_from(f"{order}H", head, first + 2 + 12 * i)[0] for i in range(count)}
    except struct.error:  # further back in the file
        return False
    return _DNG_VERSION in tags


def _of_header(head: bytes, size: int) -> str | None:
    """Kinds that have a short mark, or none: all their fields must make sense."""
    if len(head) < 18:
        return None
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return "BMP"
    (length, *_, planes, depth) = struct.unpack_from("<IiiHH", head)
    if length in _BMP_HEADERS[2:] and planes == 1 and depth in _DEPTHS:
        return "DIB"
    if head[:4] in (b"\0\0\1\0", b"\0\0\2\0") and head[4:6] != b"\0\0" and head[9] == 0:
        return "ICO" if head[2] == 1 else "CUR"
    if head[0] == 10 and head[1] in (0, 2, 3, 5) and head[2] < 2 and head[3] in (1, 2, 4, 8):
        return "PCX"
    if head[:2] == b"\x01\xda" and head[2] < 2 and head[3] in (1, 2) and head[5] in (1, 2, 3):
        return "SGI"
    return "TGA" if _targa(head, size) else None


def _targa(head: bytes, size: int) -> bool:
    """Whether it can be a TGA, which has no mark at its beginning."""
    skipped, mapped, kind, first, entries, entry = struct.unpack_from("<BBBHHB", head)
    width, height, depth, flags = struct.unpack_from("<HHBB", head, 12)
    if kind not in (1, 2, 3, 9, 10, 11) or not width or not height or flags & 0xC0:
        return False
    if mapped not in (0, 1) or (kind in (1, 9)) != bool(mapped):
        return False
    if (mapped == 0 and (first, entries, entry) != (0, 0, 0)) or depth not in _DEPTHS[2:]:
        return False
    pixels = width * height * depth // 8
    # A run of 128 pixels takes a byte and one pixel.
    least = pixels if kind < 9 else pixels // 128
    return size >= 18 + skipped + entries * (entry // 8) + least


@lru_cache
def readable(kind: str) -> bool:
    """Whether the Pillow that is installed was built with what the kind needs."""
    from PIL import features

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an older one does not know the feature's name
        return kind not in _FEATURES or bool(features.check(_FEATURES[kind]))
