"""Files <-> pixels and label maps; atomic writes.

Pixels are uint8 sRGB, upright; image tensors are float32 [N,3,H,W] in [-1,1]. Whatever a
malformed file does to the decoder becomes one InputError here and nowhere else.
"""

from __future__ import annotations

import hashlib
import io
import os
import secrets
import stat
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageCms, ImageOps
from PIL.PngImagePlugin import PngInfo

from semedit import provenance
from semedit.errors import InputError, MaskError

if TYPE_CHECKING:
    import torch

MAX_PIXELS = 64_000_000  # larger photographs are refused before they are decoded
MAX_BYTES = 1 << 29  # larger files are refused before they are read
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM")
HEIC = (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftyphevc")  # how its files begin, at byte 4
SUFFIXES = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jpe": "JPEG",
    ".jfif": "JPEG",
    ".png": "PNG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
    ".gif": "GIF",
    ".ppm": "PPM",
    ".pgm": "PPM",
    ".pnm": "PPM",
}
SCHEME = "CelebAMask-HQ"  # recorded in the text chunk "label-scheme" of every label map
PAINT = f"paint with exactly the labels of {SCHEME}, without anti-aliasing"
COLOUR_KEY = np.array([1 << 16, 1 << 8, 1])  # takes a colour to one number
TEMPORARY = ".tmp-"  # prefix of files being written
BITS_PER_SAMPLE, PHOTOMETRIC, WHITE_IS_ZERO = 258, 262, 0  # tags of TIFF, and a value

# What malformed metadata raises inside Pillow; the picture itself may still be sound.
_METADATA_ERRORS = (OSError, SyntaxError, ValueError, TypeError, LookupError, struct.error)

# CelebAMask-HQ order: the index is the id. `l_` is the person's left, the right of the picture.
LABELS = (
    "background",
    "skin",
    "nose",
    "eye_g",
    "l_eye",
    "r_eye",
    "l_brow",
    "r_brow",
    "l_ear",
    "r_ear",
    "mouth",
    "u_lip",
    "l_lip",
    "hair",
    "hat",
    "ear_r",
    "neck_l",
    "neck",
    "cloth",
)

# The colour of each id, sRGB; the scheme CelebAMask-HQ's own demo paints with.
PALETTE = (
    (0, 0, 0),
    (204, 0, 0),
    (76, 153, 0),
    (204, 204, 0),
    (51, 51, 255),
    (204, 0, 204),
    (0, 255, 255),
    (255, 204, 204),
    (102, 51, 0),
    (255, 0, 0),
    (102, 204, 0),
    (255, 255, 0),
    (0, 0, 153),
    (0, 0, 204),
    (255, 51, 153),
    (0, 204, 204),
    (0, 51, 0),
    (255, 153, 51),
    (0, 204, 0),
)

# Named regions of a face, as sets of label ids.
REGIONS: dict[str, tuple[int, ...]] = {
    "background": (0,),
    "skin": (1,),
    "nose": (2,),
    "glasses": (3,),
    "eyes": (4, 5),
    "brows": (6, 7),
    "ears": (8, 9),
    "mouth": (10,),
    "lips": (11, 12),
    "hair": (13,),
    "hat": (14,),
    "earrings": (15,),
    "necklace": (16,),
    "neck": (17,),
    "cloth": (18,),
    "face": (1, 2, 3, 4, 5, 6, 7, 10, 11, 12),
}

# CelebA attributes that semedit's classifiers know; the order is that of their outputs.
ATTRIBUTES = (
    "arched_eyebrows",
    "bald",
    "big_nose",
    "black_hair",
    "blond_hair",
    "brown_hair",
    "bushy_eyebrows",
    "eyeglasses",
    "gray_hair",
    "mouth_slightly_open",
    "narrow_eyes",
    "no_beard",
    "smiling",
    "straight_hair",
    "wavy_hair",
    "wearing_earrings",
    "wearing_hat",
    "wearing_lipstick",
    "wearing_necklace",
    "young",
)


# Photographs ------------------------------------------------------------------------------------


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
        InputError: not a regular file, not a picture in one of FORMATS, damaged, more than
            max_pixels, or without a defined 8-bit meaning (floating point).
    """
    path = Path(path)
    data = _read_bytes(path)
    notes: list[str] = []
    with _opened(path, data, max_pixels) as image:
        # MPO: a JPEG with a second view inside, as many phones write it
        wanted = SUFFIXES.get(path.suffix.lower())
        if wanted and image.format not in (wanted, "MPO"):
            notes.append(f"a {image.format} file named {path.suffix}")
        if image.format != "MPO" and getattr(image, "is_animated", False):
            notes.append("several frames, the first is used")
        image.load()
        pixels = np.array(_to_srgb(_upright(_eight_bits(image, path), notes), notes))
    return Photo(pixels, hashlib.sha256(data).hexdigest(), tuple(notes))


def _read_bytes(path: Path) -> bytes:
    """The whole of a regular file; pipes and devices are never opened."""
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            path.read_bytes()  # says why not
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{path}: not a regular file")
        if status.st_size > MAX_BYTES:
            raise InputError(f"{path}: more than {MAX_BYTES >> 20} MiB", "no picture is so large")
        if status.st_size == 0:
            raise InputError(f"{path}: the file is empty")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error


@contextmanager
def _opened(path: Path, data: bytes, max_pixels: int) -> Iterator[Image.Image]:
    """The one place a picture is opened: any failure while decoding becomes InputError."""
    too_large = f"{path}: more than {max_pixels / 1e6:g} million pixels"
    raise_it = "raise --max-pixels to read it"
    formats = (*FORMATS, "HEIF") if data[4:12] in HEIC and _knows_heic(path) else FORMATS
    with warnings.catch_warnings(), _pillow_limit(max_pixels):
        warnings.simplefilter("ignore")  # Pillow's remarks; what matters is noted by read_photo
        try:
            with Image.open(io.BytesIO(data), formats=formats) as image:
                if image.width * image.height > max_pixels:
                    raise InputError(f"{too_large} ({image.width} x {image.height})", raise_it)
                yield image
        except (InputError, MaskError):
            raise
        except Image.UnidentifiedImageError as error:
            raise InputError(
                f"{path}: not a picture, or in a format that is not read",
                "JPEG, PNG, WebP, TIFF, BMP, GIF and PPM are",
            ) from error
        except Image.DecompressionBombError as error:
            raise InputError(too_large, raise_it) from error
        except MemoryError as error:
            raise InputError(f"{path}: not enough memory to decode it") from error
        except Exception as error:  # decoders raise nearly anything on malformed files
            raise InputError(f"{path}: damaged picture ({error})") from error


def _knows_heic(path: Path) -> bool:
    """Let Pillow read HEIC. Raises: InputError: the extra for it is not installed."""
    try:
        import pillow_heif
    except ImportError as error:
        raise InputError(
            f"{path}: HEIC is read only with the extra semedit[heic]",
            'pip install "semedit[heic]", or convert the photograph to JPEG',
        ) from error
    pillow_heif.register_heif_opener()
    return True


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


def _upright(image: Image.Image, notes: list[str]) -> Image.Image:
    """Turn a picture as its EXIF orientation says; broken EXIF is noted, what is left of it
    counts."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # by which Pillow tells of what it leaves out
            Image.Exif().load(image.info.get("exif", b""))
    except (Warning, *_METADATA_ERRORS):
        notes.append("broken EXIF data, ignored")
    try:
        return ImageOps.exif_transpose(image)
    except _METADATA_ERRORS:
        return image


def _to_srgb(image: Image.Image, notes: list[str]) -> Image.Image:
    """Any mode of 8 bits -> mode RGB in sRGB, transparency on white."""
    profile = image.info.get("icc_profile")
    alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
    if alpha is not None or image.mode == "P":
        image = image.convert("L" if image.mode in ("L", "LA") else "RGB")
    image = _apply_profile(image, profile, notes).convert("RGB")
    if alpha is None:
        return image
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=alpha)
    return white


def _apply_profile(image: Image.Image, profile: bytes | None, notes: list[str]) -> Image.Image:
    """Colours through the embedded ICC profile to sRGB; broken profiles are noted and ignored."""
    if not profile or image.mode not in ("RGB", "CMYK", "L"):
        return image
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "sRGB" in ImageCms.getProfileDescription(source):
            return image
        target = ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
    except (ImageCms.PyCMSError, *_METADATA_ERRORS):
        notes.append("broken colour profile, ignored")
        return image
    return image if converted is None else converted


# Tensors ----------------------------------------------------------------------------------------


def to_tensor(pixels: np.ndarray) -> torch.Tensor:
    """uint8 [H,W,3] or [N,H,W,3] -> float32 [N,3,H,W] in [-1,1]."""
    import torch

    batch = pixels[None] if pixels.ndim == 3 else pixels
    tensor = torch.from_numpy(np.array(batch)).permute(0, 3, 1, 2)
    return tensor.float().div_(127.5).sub_(1)


def to_uint8(image: torch.Tensor) -> np.ndarray:
    """float [N,3,H,W] in [-1,1] (clipped) -> uint8 [N,H,W,3]."""
    pixels = image.detach().float().clamp(-1, 1).add(1).mul(127.5).round()
    return pixels.byte().permute(0, 2, 3, 1).contiguous().cpu().numpy()


def resize(image: torch.Tensor, size: int | tuple[int, int]) -> torch.Tensor:
    """Bilinear, antialiased: float [N,C,H,W] -> [N,C,size,size] (or size = (height, width))."""
    from torch.nn.functional import interpolate

    shape = (size, size) if isinstance(size, int) else size
    if tuple(image.shape[-2:]) == tuple(shape):
        return image
    return interpolate(image, shape, mode="bilinear", align_corners=False, antialias=True)


# Writing ----------------------------------------------------------------------------------------


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path`, moved over it when the block ends well, else removed.

    The bytes are on the disk before the name changes, so a reader sees the old file or the whole
    new one, after a crash too.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f"{TEMPORARY}{secrets.token_hex(8)}{path.suffix}"
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_image(path: str | Path, pixels: np.ndarray, mark: bool = True) -> None:
    """Write uint8 [H,W,3] atomically as PNG, JPEG or WebP, by the name's suffix.

    Nothing else is recorded: no EXIF, so neither a place nor an orientation.

    Args:
        mark: record in XMP that a trained model made or changed the picture, and sign it if the
            user named a certificate.
    """
    path = Path(path)
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


# Label maps -------------------------------------------------------------------------------------


def colorize(labels: np.ndarray | torch.Tensor) -> np.ndarray:
    """int [...,H,W] -> uint8 [...,H,W,3] in the colours of PALETTE."""
    return np.array(PALETTE, np.uint8)[np.asarray(labels)]


def write_labels(path: str | Path, labels: np.ndarray | torch.Tensor) -> None:
    """Write int [H,W] atomically as a palette PNG that names its scheme.

    Raises:
        MaskError: an id outside 0..18.
    """
    ids = np.asarray(labels)
    _check_ids(Path(path), ids)
    image = Image.fromarray(ids.astype(np.uint8)).convert("P")
    image.putpalette(np.array(PALETTE, np.uint8).tobytes())
    info = PngInfo()
    info.add_text("label-scheme", SCHEME)
    with atomic_path(path) as temporary:
        image.save(temporary, "PNG", pnginfo=info)


def read_labels(path: str | Path) -> np.ndarray:
    """Read a label map: int64 [H,W], CelebAMask-HQ ids.

    Accepted are PNG files with a palette or full colour, in exactly the colours of PALETTE, and
    grey ones whose values are the ids. Colours decide, not palette positions, because paint
    programs sort palettes anew.

    Raises:
        InputError: not a readable picture.
        MaskError: lossy file, foreign colours or ids (listed), or another label scheme.
    """
    path = Path(path)
    with _opened(path, _read_bytes(path), MAX_PIXELS) as image:
        image.load()
        if image.format != "PNG":
            raise MaskError(
                f"{path}: a label map must be a PNG, this is {image.format}"
                f"{_foreign(_exact_pixels(image.convert('RGB'), path))}",
                "other formats change colours; save it as PNG without anti-aliasing",
            )
        scheme = image.info.get("label-scheme", SCHEME)
        if scheme != SCHEME:
            raise MaskError(f"{path}: label scheme {scheme!r}, not {SCHEME}")
        pixels = _exact_pixels(image, path)
    if pixels.ndim == 3 and (pixels == pixels[..., :1]).all() and pixels.any():
        pixels = pixels[..., 0]  # ids painted as grey in full colour
    if pixels.ndim == 3:
        return _ids_of_colours(path, pixels)
    _check_ids(path, pixels)
    ids = pixels.astype(np.int64)
    if "label-scheme" not in image.info:
        _refuse_other_order(path, ids)
    return ids


def fit_labels(labels: np.ndarray, height: int, width: int) -> tuple[np.ndarray, str | None]:
    """Bring a label map to a face's size by nearest neighbour.

    Returns:
        int64 [height,width], and a warning if the size had to change.

    Raises:
        MaskError: another aspect ratio.
    """
    rows, columns = labels.shape
    if (rows, columns) == (height, width):
        return labels, None
    if abs(columns / rows - width / height) > 0.01 * width / height:
        raise MaskError(f"the mask is {columns} x {rows}, the face {width} x {height}")
    y = ((np.arange(height) + 0.5) * rows / height).astype(int)
    x = ((np.arange(width) + 0.5) * columns / width).astype(int)
    return labels[y[:, None], x], f"mask resized from {columns} x {rows} to {width} x {height}"


def _exact_pixels(image: Image.Image, path: Path) -> np.ndarray:
    """Grey values [H,W] or colours uint8 [H,W,3] of a label map, nothing blended or scaled."""
    if image.mode == "1":
        raise MaskError(f"{path}: a black-and-white mask does not say which labels it means")
    if image.mode == "L" or image.mode.startswith("I"):
        return np.asarray(image)
    rgba = np.asarray(image.convert("RGBA"))
    if (rgba[..., 3] != 255).any():
        raise MaskError(f"{path}: a label map must not be transparent")
    return rgba[..., :3]


def _ids_of_colours(path: Path, pixels: np.ndarray) -> np.ndarray:
    """uint8 [H,W,3] -> int64 [H,W]; foreign colours are refused and listed."""
    ids = _nearest_ids(pixels)
    if (ids < 0).any():
        raise MaskError(f"{path}: colours that are no label{_foreign(pixels)}", PAINT)
    return ids


def _nearest_ids(pixels: np.ndarray) -> np.ndarray:
    """uint8 [H,W,3] -> int64 [H,W] of the labels with these colours, -1 where there is none."""
    keys = pixels.astype(np.int64) @ COLOUR_KEY
    known = np.array(PALETTE) @ COLOUR_KEY
    order = known.argsort()
    place = order[np.searchsorted(known, keys, sorter=order).clip(max=len(known) - 1)]
    return np.where(known[place] == keys, place, -1).astype(np.int64)


def _foreign(pixels: np.ndarray) -> str:
    """The colours of uint8 [H,W,3] that are no label's: `: #010203 (5 px), ...`, or nothing."""
    foreign = pixels[_nearest_ids(pixels) < 0]
    colours, counts = np.unique(foreign.astype(np.int64) @ COLOUR_KEY, return_counts=True)
    listed = _listed([f"#{colour:06x}" for colour in colours], counts)
    return f": {listed}" if listed else ""


def _check_ids(path: Path, ids: np.ndarray) -> None:
    """Raise MaskError unless all ids are in 0..18."""
    foreign = (ids < 0) | (ids >= len(LABELS))
    if foreign.any():
        values, counts = np.unique(ids[foreign], return_counts=True)
        listed = _listed([str(value) for value in values], counts)
        raise MaskError(f"{path}: ids that are no label: {listed}", PAINT)


def _listed(names: list[str], counts: np.ndarray) -> str:
    """What there is most of, at most eight."""
    most = np.argsort(-counts, kind="stable")[:8]
    listed = ", ".join(f"{names[i]} ({counts[i]} px)" for i in most)
    return f"{listed} and {len(names) - 8} more" if len(names) > 8 else listed


def _refuse_other_order(path: Path, ids: np.ndarray) -> None:
    """Grey ids without a scheme are ambiguous when they make more sense in BiSeNet's order.

    There 17 is hair and 14 the neck; here 13 is hair and 17 the neck, which lies below the skin.
    """
    rows = np.arange(ids.shape[0])[:, None] * np.ones_like(ids)
    neck, skin = ids == LABELS.index("neck"), ids == LABELS.index("skin")
    if neck.any() and skin.any() and rows[neck].mean() < rows[skin].mean():
        raise MaskError(
            f"{path}: ambiguous ids: 17 lies above the skin, so this may be BiSeNet's label order",
            f"paint it in the colours of {SCHEME} instead",
        )
