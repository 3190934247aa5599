"""Files that a folder of photographs may hold besides photographs, made by rule.

`write(folder)` makes them all and returns what `semedit align` shall make of each: name of the
item -> (status, words of its message or warning). None of them shows a face.
"""

from __future__ import annotations

import io
import os
import struct
import unicodedata
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

Expected = dict[str, tuple[str, str]]
RAMP = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (48, 1))
GREY = Image.fromarray(RAMP)
PICTURE = Image.merge("RGB", [GREY, GREY.rotate(180), GREY])


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(width: int, height: int) -> bytes:
    """A whole PNG of one colour: 14000 x 14000 in about 24 kB."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((width // 8 + 2) * height), 9)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


def text_bomb() -> bytes:
    info = PngInfo()
    info.add_text("comment", "x" * (80 << 20), zip=True)
    return encoded(PICTURE, "PNG", pnginfo=info)


def huge_jpeg() -> bytes:
    """A JPEG whose header says 20000 x 20000."""
    data = encoded(PICTURE, "JPEG")
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", 20000, 20000) + data[at + 4 :]


def noise(kind: str) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    return encoded(Image.fromarray(pixels), kind)


def undecodable() -> dict[str, tuple[bytes, str]]:
    """File -> content and words of the error."""
    unknown = "not a picture"
    deep = Image.fromarray(np.full((8, 8), np.nan, np.float32))
    return {
        "truncated-jpeg.jpg": (noise("JPEG")[:-900], "damaged"),
        "truncated-png.png": (noise("PNG")[:-900], "damaged"),
        "cut-in-header.png": (noise("PNG")[:20], "a.png|damaged|not a picture"),
        "empty.jpg": (b"", "empty"),
        "text.jpg": (b"hello, I am a text", unknown),
        "html.jpg": (b"<!DOCTYPE html><html><body>quota exceeded</body></html>", unknown),
        "eps.png": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", unknown),
        "psd.png": (b"8BPS\0\1" + bytes(60), unknown),
        "pdf.png": (b"%PDF-1.7\n1 0 obj\n", unknown),
        "bomb.png": (bomb(14000, 14000), "--max-pixels|million pixels"),
        "bomb-that-pillow-only-warns-of.png": (bomb(12000, 9000), "million pixels"),
        "huge.jpg": (huge_jpeg(), "max-pixels"),
        "text-bomb.png": (text_bomb(), "damaged"),
        "nan.tif": (encoded(deep, "TIFF"), "32-bit"),
        "float.tif": (encoded(Image.new("F", (8, 8), 0.5), "TIFF"), "32-bit"),
        "wrong-chunk.png": (b"\x89PNG\r\n\x1a\n" + chunk(b"IDAT", b"x" * 30), "damaged|not a"),
        "wrong-offsets.tif": (b"II*\0" + b"\xff" * 60, "damaged|not a picture"),
        "bad-palette.gif": (encoded(PICTURE, "GIF")[:40], "damaged|not a picture"),
        "bad-webp.webp": (b"RIFF\xff\xff\xff\xffWEBPVP8 " + b"\xff" * 40, "damaged|not a picture"),
        "bad-bmp.bmp": (b"BM" + b"\xff" * 60, "damaged|not a picture|pixels"),
        "[/].png": (b"a name that is markup", unknown),
        "esc\x1b[31m\x1b]0;title\x07.png": (b"a name that rules terminals", unknown),
        "bad-ppm.ppm": (b"P6\n-4 9999999999 255\n", "damaged|not a picture|pixels"),
    }


def odd() -> dict[str, tuple[bytes, str]]:
    """File -> content and words of the warning, none where nothing is to be said."""
    exif = b"Exif\0\0MM\0*\0\0\0\x08" + b"\xff" * 30
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    frames = [Image.new("RGB", (48, 40), colour) for colour in ("red", "lime", "blue")]
    deep = Image.fromarray(RAMP.astype(np.uint16) * 257)
    layered: dict[str, object] = {"save_all": True, "append_images": frames[1:]}
    return {
        "png-named.jpg": (encoded(PICTURE, "PNG"), "PNG file named .jpg"),
        "broken-exif.jpg": (encoded(PICTURE, "JPEG", exif=exif), "EXIF"),
        "broken-profile.png": (encoded(PICTURE, "PNG", icc_profile=b"nonsense"), "profile"),
        "profile.jpg": (encoded(PICTURE, "JPEG", icc_profile=profile), ""),
        "cmyk.jpg": (encoded(PICTURE.convert("CMYK"), "JPEG"), ""),
        "deep.png": (encoded(deep, "PNG"), ""),
        "palette.png": (encoded(PICTURE.convert("P"), "PNG"), ""),
        "grey-alpha.png": (encoded(GREY.convert("LA"), "PNG"), ""),
        "alpha.png": (encoded(PICTURE.convert("RGBA"), "PNG"), ""),
        "bilevel.png": (encoded(GREY.convert("1"), "PNG"), ""),
        "grey.jpg": (encoded(GREY, "JPEG"), ""),
        "of-windows.JFIF": (encoded(GREY, "JPEG"), ""),
        "animated.gif": (encoded(frames[0], "GIF", **layered), "first"),
        "pages.tif": (encoded(frames[0], "TIFF", **layered), "first"),
        "one-by-n.png": (encoded(Image.new("RGB", (1, 300)), "PNG"), ""),
        "n-by-one.png": (encoded(Image.new("RGB", (300, 1)), "PNG"), ""),
        "one-pixel.png": (encoded(Image.new("RGB", (1, 1)), "PNG"), ""),
        "two words.png": (encoded(PICTURE, "PNG"), ""),
        "-dash.png": (encoded(PICTURE, "PNG"), ""),
        "日本 ü.png": (encoded(PICTURE, "PNG"), ""),
        "[glob]*?.png": (encoded(PICTURE, "PNG"), ""),
        "new\nline.png": (encoded(PICTURE, "PNG"), ""),
        "sub/deep.png": (encoded(PICTURE, "PNG"), ""),
    }


def write(folder: Path) -> Expected:
    """Make all files; what is expected of each."""
    expected: Expected = {}
    for files, status in ((undecodable(), "error"), (odd(), "skipped")):
        for name, (content, words) in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            expected[str(Path(name).with_suffix(""))] = (status, words)
    return expected | _names(folder, encoded(PICTURE, "PNG"))


def _names(folder: Path, content: bytes) -> Expected:
    """Names that collide or that a file system makes hard; pipes, devices, loops of links; files
    without end."""
    expected: Expected = {}

    def add(name: str, key: str, status: str, words: str = "") -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        expected[key] = (status, words)

    add("stem.png", "stem.png", "error", "same name")  # sorted behind stem.jpg
    add("stem.jpg", "stem", "skipped", "PNG file")
    add("Case.png", "Case", "skipped")
    add("case.png", "case.png", "error", "same name")
    composed, apart = (unicodedata.normalize(form, "é-twin") for form in ("NFC", "NFD"))
    add(f"{apart}.png", apart, "skipped")
    add(f"{composed}.png", f"{composed}.png", "error", "same name")
    add("x" * 246 + ".png", "x" * 246, "error", "no room")
    latin = os.fsdecode(b"latin-\xe9")
    (folder / os.fsdecode(b"latin-\xe9.png")).write_bytes(content)
    expected[latin] = ("error", "UTF-8")
    os.mkfifo(folder / "pipe.jpg")
    expected["pipe"] = ("error", "regular")
    (folder / "zero.jpg").symlink_to("/dev/zero")
    expected["zero"] = ("error", "regular")
    (folder / "kernel.jpg").symlink_to("/proc/kmsg")  # a regular file; reading waits for news
    expected["kernel"] = ("error", "empty|cannot be read")
    with (folder / "sparse.jpg").open("wb") as sparse:
        sparse.truncate(1 << 42)
    expected["sparse"] = ("error", "MiB")
    (folder / "dangling.jpg").symlink_to(folder / "nowhere.jpg")
    expected["dangling"] = ("error", "cannot be read")
    (folder / "loop.jpg").symlink_to(folder / "loop.jpg")
    expected["loop"] = ("error", "cannot be read")
    (folder / "sub" / "around").symlink_to(folder)  # not followed
    (folder / "folder.jpg").mkdir()  # no file
    for suffix in ("png", "json"):  # where the crop and the receipt of pipe.jpg would be
        add(f"pipe.{suffix}/inside.png", f"pipe.{suffix}_/inside", "skipped")
    latin = os.fsdecode(b"latin-\xe9/inside")
    add(f"{latin}.png", latin, "error", "UTF-8")
    return expected | _deep(folder, content)


def _deep(folder: Path, content: bytes) -> Expected:
    """A photograph whose path is nearly too long, and a folder whose path is too long."""
    inside, part, here = "deep", "d" * 200, Path.cwd()
    os.chdir(folder)
    try:
        Path(inside).mkdir()
        os.chdir(inside)
        while len(str(folder / inside / part / "a.png")) < 4096:
            Path(part).mkdir()
            os.chdir(part)
            inside = f"{inside}/{part}"
        Path("a.png").write_bytes(content)
        Path(part, part).mkdir(parents=True)
    finally:
        os.chdir(here)
    closed = f"{inside}/{part}"
    return {f"{inside}/a": ("skipped", ""), closed: ("error", "cannot be read: File name too long")}
