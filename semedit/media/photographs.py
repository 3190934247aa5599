"""Photographs <-> upright sRGB pixels, uint8 [H,W,3].

Whatever a malformed file does to the decoder becomes one InputError here and nowhere else.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from semedit.errors import InputError, MaskError, ShapeError
from semedit.media import colours, provenance, reading
from semedit.media.colours import METADATA_ERRORS
from semedit.media.files import atomic_path
from semedit.media.kinds import FAMILIES, HEAD, NAMED, RAW, SUFFIXES, kind_of, readable

MAX_PIXELS = 64_000_000  # larger photographs are refused before they are decoded


FORMATS = tuple(kind for kind in NAMED if kind != "HEIF")  # HEIF: with the extra


BITS_PER_SAMPLE, PHOTOMETRIC, WHITE_IS_ZERO = 258, 262, 0  # tags of TIFF, and a value


@dataclass(frozen=True)
class Photo:
    """A decoded photograph.

    Attributes:
        pixels: uint8 [H,W,3], sRGB, upright.
        sha256: hex digest of the file's bytes, the same bytes that were decoded.
        warnings: what was odd but not wrong, one sentence each.
    """

    pixels: np.ndarray
    sha256: str
    warnings: tuple[str, ...] = ()


def read_photo(path: str | Path, max_pixels: int = MAX_PIXELS) -> Photo:
    """Decode a photograph: upright by EXIF, in sRGB, 8 bits, transparency on white, first frame.

    Raises:
        InputError: not a regular file, not a picture of a kind that is read, damaged, more than
            max_pixels, or without a defined 8-bit meaning (floating point).
    """
    path = Path(path)
    data = read_bytes(path)
    notes: list[str] = []
    with opened(path, data, max_pixels) as image:
        # MPO: a JPEG with a second view inside, as many phones write it
        kind = FAMILIES.get(str(image.format), image.format)
        if SUFFIXES.get(path.suffix.lower(), kind) != kind:
            article = "an" if str(image.format)[0] in "AEIOU" else "a"
            notes.append(f"{article} {image.format} file named {path.suffix}")
        if image.format != "MPO" and getattr(image, "is_animated", False):
            notes.append("several frames, the first is used")
        whole = _loaded(image, data, notes)
        pixels = np.array(_to_srgb(upright(_eight_bits(whole, path), notes), data, notes))
    return Photo(pixels, hashlib.sha256(data).hexdigest(), tuple(notes))


def _loaded(image: Image.Image, data: bytes, notes: list[str]) -> Image.Image:
    """A picture, decoded; of a JPEG the mark at its end may be missing, as messengers leave it out.

    Raises: OSError: it is damaged.
    """
    try:
        image.load()
    except OSError:
        ended = _ended(data) if image.format == "JPEG" else None
        if ended is None:
            raise
        notes.append("the mark at the file's end is missing, the picture is whole")
        return ended
    return image


def _ended(data: bytes) -> Image.Image | None:
    """A JPEG that lacks its end mark, decoded; None if it lacks more.

    Where it does, decoders go on with whatever follows: a picture is whole if that is no matter.
    """
    found, data = [], data.removesuffix(b"\xff")
    for noise in np.random.default_rng(0).integers(0, 255, (4, 64), np.uint8):  # no 255: a mark
        image = Image.open(io.BytesIO(data + noise.tobytes() + b"\xff\xd9"), formats=["JPEG"])
        image.load()
        found.append(image)
    first, *others = (np.asarray(image) for image in found)
    return found[0] if all(np.array_equal(first, other) for other in others) else None


def read_frames(path: str | Path, most: int, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Frames of an animation (GIF, WebP, MP4), evenly spread over it: uint8 [F,H,W,3], F <= most.

    Raises:
        InputError: it cannot be read, or a frame has more than max_pixels.
    """
    path = Path(path)
    data = read_bytes(path)
    if path.suffix.lower() == ".mp4":
        import imageio.v3 as iio

        try:
            every = iio.imread(data, plugin="pyav", extension=".mp4")
        except Exception as error:  # as decoders do on malformed files
            raise InputError(f"{path}: damaged film ({error})") from error
        return every[np.arange(min(most, len(every))) * len(every) // min(most, len(every))]
    with opened(path, data, max_pixels) as image:
        count = getattr(image, "n_frames", 1)
        frames = []
        for i in range(min(most, count)):
            image.seek(i * count // min(most, count))
            frames.append(np.asarray(image.convert("RGB")))
    return np.stack(frames)


def read_bytes(path: Path) -> bytes:
    """The whole of a regular file, which must not be empty."""
    data = reading.read(path, reading.MAX_BYTES)
    if not data:
        raise InputError(f"{path}: the file is empty")
    return data


@contextmanager
def opened(path: Path, data: bytes, max_pixels: int) -> Iterator[Image.Image]:
    """The one place a picture is opened: any failure while decoding becomes InputError."""
    too_large = f"{path}: more than {max_pixels / 1e6:g} million pixels"
    raise_it = "raise --max-pixels to read it"
    kind = _kind(path, data)
    with warnings.catch_warnings(), _pillow_limit(max_pixels):
        warnings.simplefilter("ignore")  # Pillow's remarks; what matters is noted by read_photo
        try:
            with Image.open(io.BytesIO(data), formats=[kind]) as image:
                if image.width * image.height > max_pixels:
                    raise InputError(f"{too_large} ({image.width} x {image.height})", raise_it)
                yield image
        except (InputError, MaskError):
            raise
        except Image.UnidentifiedImageError as error:
            raise _no_picture(path) from error
        except Image.DecompressionBombError as error:
            raise InputError(too_large, raise_it) from error
        except MemoryError as error:
            raise InputError(f"{path}: not enough memory to decode it") from error
        except Exception as error:  # decoders raise nearly anything on malformed files
            raise InputError(f"{path}: damaged picture ({error})") from error


def _kind(path: Path, data: bytes) -> str:
    """Pillow's name of a file's kind, which it is then able to read.

    Raises: InputError: it is no picture, or of a kind that is not read, or not here.
    """
    kind = kind_of(data[:HEAD], len(data), path.suffix)
    if kind is None:
        raise _no_picture(path)
    if kind == RAW:
        raise InputError(f"{path}: a camera's raw file is not read", "develop it to TIFF or JPEG")
    if not readable(kind):
        raise InputError(
            f"{path}: {kind} is not read by the Pillow that is installed",
            "pip install -U pillow, or convert the photograph to JPEG",
        )
    if kind == "HEIF":
        _learn_heic(path)
    return kind


def _no_picture(path: Path) -> InputError:
    return InputError(
        f"{path}: not a picture, or in a format that is not read",
        "JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF, HEIC, JPEG 2000, TGA and ICO are, and some more",
    )


def _learn_heic(path: Path) -> None:
    """Let Pillow read HEIC. Raises: InputError: the extra for it is not installed."""
    try:
        import pillow_heif
    except ImportError as error:
        raise InputError(
            f"{path}: HEIC is read only with the extra semedit[heic]",
            'pip install "semedit[heic]", or convert the photograph to JPEG',
        ) from error
    pillow_heif.register_heif_opener()


@contextmanager
def _pillow_limit(max_pixels: int) -> Iterator[None]:
    """Let Pillow refuse what we refuse; its own limit would overrule a larger max_pixels."""
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, max_pixels
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _eight_bits(image: Image.Image, path: Path) -> Image.Image:
    """Grey of 9 to 16 bits, of which Pillow makes little, as grey of 8; all else as it is.

    Raises: InputError: samples of 32 bits, integer or floating point.
    """
    deep = image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))
    if not deep:
        if image.mode in ("I", "F"):
            raise InputError(f"{path}: 32-bit samples have no defined range")
        return image
    tags: Any = getattr(image, "tag_v2", {})  # of TIFF
    white = (1 << tags.get(BITS_PER_SAMPLE, (16,))[0]) - 1
    samples = np.asarray(image).astype(np.uint32)
    grey = samples * 255 // white
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:
        grey = 255 - grey
    reduced = Image.fromarray(grey.astype(np.uint8))
    reduced.info = dict(image.info)
    clear = reduced.info.pop("transparency", None)
    if clear is not None:
        reduced.putalpha(Image.fromarray(np.where(samples == clear, 0, 255).astype(np.uint8)))
    return reduced


def upright(image: Image.Image, notes: list[str]) -> Image.Image:
    """Turn a picture as its EXIF orientation says; broken EXIF is noted, what is left of it
    counts."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # by which Pillow tells of what it leaves out
            Image.Exif().load(image.info.get("exif", b""))
    except (Warning, *METADATA_ERRORS):
        notes.append("broken EXIF data, ignored")
    try:
        return ImageOps.exif_transpose(image)
    except METADATA_ERRORS:
        return image


def _to_srgb(image: Image.Image, data: bytes, notes: list[str]) -> Image.Image:
    """Any mode of 8 bits -> mode RGB in sRGB, transparency on white."""
    alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
    if image.mode not in ("L", "RGB", "CMYK", "LAB"):
        image = image.convert("L" if image.mode in ("1", "LA", "La") else "RGB")
    image = colours.to_srgb(image, data, notes)
    if alpha is None:
        return image
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=alpha)
    return white


def write_image(path: str | Path, pixels: np.ndarray, mark: bool = True) -> None:
    """Write uint8 [H,W,3] atomically as PNG, JPEG or WebP, by the name's suffix.

    Nothing else is recorded: no EXIF, so neither a place nor an orientation.

    Args:
        mark: record in XMP that a trained model made or changed the picture, and sign it if the
            user named a certificate.
    """
    path = Path(path)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ShapeError(
            f"{path}: a picture is uint8 [H,W,3], not {pixels.dtype} {tuple(pixels.shape)}"
        )
    kind = SUFFIXES.get(path.suffix.lower())
    options: dict[str, Any]
    if kind == "PNG":
        info = PngInfo()
        if mark:  # Pillow drops xmp= for PNG without a word
            info.add_itxt("XML:com.adobe.xmp", provenance.packet())
        options = {"pnginfo": info}
    elif kind in ("JPEG", "WEBP"):
        options = {"quality": 95} | ({"xmp": provenance.packet().encode()} if mark else {})
        if kind == "JPEG":
            options["subsampling"] = 0
    else:
        raise InputError(f"{path}: pictures are written as .png, .jpg or .webp")
    with atomic_path(path) as temporary:
        Image.fromarray(np.ascontiguousarray(pixels)).save(temporary, kind, **options)
        if mark:
            provenance.sign(temporary, path.suffix.lower())
