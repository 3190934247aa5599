"""Whatever colours a picture's file says that its numbers mean -> sRGB.

By an ICC profile, PNG's cICP, sRGB, gAMA and cHRM chunks, or Exif's mark of Adobe RGB; of PNG's,
the first that is there in the order of its specification counts. A profile is judged by what it
does to colours, never by its name. What is grey stays grey.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageCms

Curve = Callable[[np.ndarray], np.ndarray]  # encoded [0,1] -> linear light, 1 is white

SRGB_PROFILE = ImageCms.createProfile("sRGB")
ALIKE = 1  # levels of 255 by which a profile may differ from sRGB and still be it
ROWS = 512  # converted together

# x and y of red, green, blue and white: ITU-T H.273, table 2; 0 is none of its codes.
D65, WHITE_C = (0.3127, 0.3290), (0.310, 0.316)
SRGB: tuple[tuple[float, float], ...] = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06), D65)
ADOBE: tuple[tuple[float, float], ...] = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06), D65)
_STUDIO = ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), D65)
_P3 = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
PRIMARIES: dict[int, tuple[tuple[float, float], ...]] = {
    1: SRGB,
    4: ((0.67, 0.33), (0.21, 0.71), (0.14, 0.08), WHITE_C),
    5: ((0.64, 0.33), (0.29, 0.60), (0.15, 0.06), D65),
    6: _STUDIO,
    7: _STUDIO,
    8: ((0.681, 0.319), (0.243, 0.692), (0.145, 0.049), WHITE_C),
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), D65),
    11: (*_P3, (0.314, 0.351)),
    12: (*_P3, D65),
    22: ((0.630, 0.340), (0.295, 0.605), (0.155, 0.077), D65),
}
# What malformed metadata raises inside Pillow; the picture itself may still be sound.
METADATA_ERRORS = (OSError, SyntaxError, ValueError, TypeError, LookupError, struct.error)


@dataclass(frozen=True)
class Space:
    """Colours by primaries (x, y of red, green, blue, white) and curve; narrow: 16 to 235."""

    primaries: tuple[tuple[float, float], ...]
    curve: Curve
    narrow: bool = False


def to_srgb(image: Image.Image, data: bytes, notes: list[str]) -> Image.Image:
    """A picture of mode L, RGB, CMYK or LAB -> RGB in sRGB.

    Args:
        data: the picture's file. notes: gets a sentence for what is malformed and ignored.
    """
    said = _said(image, data, notes)
    if isinstance(said, bytes):
        return _through_profile(image, said, notes)
    if said is None or image.mode not in ("L", "RGB"):
        return image.convert("RGB")
    return _converted(image.convert("RGB"), said)


def from_srgb(colours: np.ndarray, image: Image.Image, data: bytes) -> np.ndarray:
    """Colours of sRGB as the numbers that a picture of mode L or RGB has for them: the inverse of
    `to_srgb`, where it has one.

    Args:
        colours: uint8 [N,3]; of a picture of mode L grey ones. data: the picture's file.

    Returns:
        uint8 [N,3], or [N,1] of mode L.
    """
    said = _said(image, data, [])
    grey = image.mode == "L"
    if isinstance(said, bytes):
        return _back_through_profile(colours, image, said)
    if said is not None:
        colours = _back(colours, said)
    return colours[:, :1] if grey else colours


def _said(image: Image.Image, data: bytes, notes: list[str]) -> bytes | Space | None:
    """What a file says of its colours: a profile, or a space; None: nothing, or that it is sRGB."""
    profile: bytes | None = image.info.get("icc_profile") or None
    if data.startswith(b"\x89PNG"):
        space = _by_cicp(data, notes)
        return space or profile or _by_gamma(image, notes)
    if profile:
        return profile
    return Space(ADOBE, _power(563 / 256)) if _marked_adobe(image) else None


# ICC --------------------------------------------------------------------------------------------


def _through_profile(image: Image.Image, profile: bytes, notes: list[str]) -> Image.Image:
    """Colours through a profile; one that is broken, or of other colours, is noted and ignored."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        of = source.profile.xcolor_space.strip()
        if of != {"L": of if of == "RGB" else "GRAY", "LAB": "Lab"}.get(image.mode, image.mode):
            notes.append(f"a colour profile of {of} in a picture of {image.mode}, ignored")
            return image.convert("RGB")
        return _profiled(image, source, of)
    except (ImageCms.PyCMSError, *METADATA_ERRORS):
        notes.append("broken colour profile, ignored")
        return image.convert("RGB")


def _profiled(image: Image.Image, source: Any, of: str) -> Image.Image:
    if of == "RGB" and _is_srgb(source):
        return image.convert("RGB")
    mode = {"RGB": "RGB", "GRAY": "L"}.get(of, image.mode)
    transform = ImageCms.buildTransform(source, SRGB_PROFILE, mode, "RGB")
    if of in ("RGB", "GRAY") and _grey(image):
        curve = _applied(_ramp(mode), transform).convert("L")
        return image.convert("L").point(list(curve.tobytes())).convert("RGB")
    return _applied(image, transform)


def _applied(picture: Image.Image, transform: Any) -> Image.Image:
    found = ImageCms.applyTransform(picture, transform)
    assert found is not None  # it is not done in place
    return found


def _is_srgb(source: Any) -> bool:
    """Whether a profile of RGB does to colours what sRGB does."""
    levels = np.stack(np.meshgrid(*[np.arange(0, 256, 15)] * 3), -1).reshape(-1, 1, 3)
    colours = levels.astype(np.uint8)
    transform = ImageCms.buildTransform(source, SRGB_PROFILE, "RGB", "RGB")
    after = np.asarray(_applied(Image.fromarray(colours), transform)).astype(int)
    return bool(abs(after - colours).max() <= ALIKE)


def _ramp(mode: str) -> Image.Image:
    """All greys, [1,256]."""
    return Image.fromarray(np.arange(256, dtype=np.uint8)[None]).convert(mode)


def _back_through_profile(colours: np.ndarray, image: Image.Image, profile: bytes) -> np.ndarray:
    """`from_srgb` by a profile, as `_through_profile` takes or ignores it."""
    grey = image.mode == "L"
    bare = colours[:, :1] if grey else colours
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        of = source.profile.xcolor_space.strip()
        if of not in (("RGB", "GRAY") if grey else ("RGB",)) or (of == "RGB" and _is_srgb(source)):
            return bare
        mode = "L" if of == "GRAY" else "RGB"
        if grey:
            transform = ImageCms.buildTransform(source, SRGB_PROFILE, mode, "RGB")
            curve = np.asarray(_applied(_ramp(mode), transform).convert("L"))[0].astype(float)
            levels = np.interp(bare, *_rising(curve, np.arange(256.0)))
            return np.rint(levels).astype(np.uint8)
        transform = ImageCms.buildTransform(SRGB_PROFILE, source, "RGB", "RGB")
        return np.asarray(_applied(Image.fromarray(colours[None]), transform))[0]
    except (ImageCms.PyCMSError, *METADATA_ERRORS):
        return bare


def _rising(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A curve as np.interp takes it: where x stands still, the middle of y."""
    steps, at = np.unique(np.maximum.accumulate(x), return_inverse=True)
    return steps, np.bincount(at, y) / np.bincount(at)


def _grey(image: Image.Image) -> bool:
    pixels = np.asarray(image)
    return pixels.ndim == 2 or bool((pixels == pixels[..., :1]).all())


# PNG and Exif -----------------------------------------------------------------------------------


def _by_cicp(data: bytes, notes: list[str]) -> Space | None:
    """By PNG's coding-independent code points; None: there are none, or they say nothing."""
    found = next((content for kind, content in chunks(data) if kind == b"cICP"), None)
    if found is None:
        return None
    if len(found) != 4 or found[0] not in PRIMARIES or found[1] not in CURVES:
        if found[:2] != b"\x02\x02":  # unspecified
            notes.append("a cICP chunk of no known colours, ignored")
        return None
    if found[1] in HDR:
        notes.append("a picture of high dynamic range: what is brighter than white is cut off")
    return Space(PRIMARIES[found[0]], CURVES[found[1]], narrow=found[3] == 0)


def _by_gamma(image: Image.Image, notes: list[str]) -> Space | None:
    """By PNG's sRGB, gAMA and cHRM chunks; None: it is sRGB, or does not say."""
    gamma, corners = image.info.get("gamma"), image.info.get("chromaticity")
    if "srgb" in image.info or (gamma is None and corners is None):
        return None
    curve: Curve = _srgb
    if gamma is not None and not 0.1 < gamma < 4:
        notes.append("a gAMA chunk that cannot be, ignored")
        gamma = None
    # 1 / 2.2 is what writers say of sRGB to readers that know no other chunk.
    if gamma is not None and abs(gamma - 1 / 2.2) > 0.01:
        curve = _power(1 / gamma)
    primaries = SRGB
    if corners is not None:
        white, *others = zip(corners[0::2], corners[1::2], strict=True)
        if _possible((*others, white)):
            primaries = (*others, white)
        else:
            notes.append("a cHRM chunk that cannot be, ignored")
    if curve is _srgb and np.allclose(primaries, SRGB, atol=2e-3):
        return None
    return Space(primaries, curve)


def chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and content of a PNG's chunks before its pixels."""
    at = 8
    while at + 8 <= len(data):
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if kind == b"IDAT":
            return
        yield kind, data[at + 8 : at + 8 + length]
        at += 12 + length


def _marked_adobe(image: Image.Image) -> bool:
    """Whether Exif's index of interoperability says so, R03: what cameras write for Adobe RGB."""
    try:
        return str(image.getexif().get_ifd(0xA005).get(1, "")).strip("\0 ") == "R03"
    except METADATA_ERRORS:
        return False


# Curves and primaries ---------------------------------------------------------------------------


def _srgb(x: np.ndarray) -> np.ndarray:
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)


def _power(exponent: float) -> Curve:
    return lambda x: x**exponent


def _bt709(x: np.ndarray) -> np.ndarray:
    return np.where(x < 0.081, x / 4.5, ((x + 0.099) / 1.099) ** (1 / 0.45))


def _smpte240(x: np.ndarray) -> np.ndarray:
    return np.where(x < 0.0913, x / 4, ((x + 0.1115) / 1.1115) ** (1 / 0.45))


def _pq(x: np.ndarray) -> np.ndarray:
    """SMPTE ST 2084; white is 203 of its 10,000 cd/m2, as in ITU-R BT.2408."""
    root = x ** (1 / 78.84375)
    inner = np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)
    return inner ** (1 / 0.1593017578125) * 10_000 / 203


def _hlg(x: np.ndarray) -> np.ndarray:
    """ARIB STD-B67; white is at 75 % of the signal, as in ITU-R BT.2408."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    white = (np.exp((0.75 - c) / a) + b) / 12
    return np.where(x <= 0.5, x**2 / 3, (np.exp((x - c) / a) + b) / 12) / white


CURVES: dict[int, Curve] = {
    **dict.fromkeys((1, 6, 14, 15), _bt709),
    4: _power(2.2),
    5: _power(2.8),
    7: _smpte240,
    8: lambda x: x,
    13: _srgb,
    16: _pq,
    17: lambda x: x**2.6 * 52.37 / 48,
    18: _hlg,
}
HDR = (16, 18)


def _possible(primaries: tuple[Any, ...]) -> bool:
    """Whether primaries span a space, with its white inside."""
    corners = np.array(primaries, float)
    if not (np.isfinite(corners).all() and (corners[:, 1] > 1e-3).all()):
        return False
    columns = np.vstack([corners[:3].T, 1 - corners[:3].sum(1)])
    if abs(np.linalg.det(columns)) < 1e-3:
        return False
    white = np.linalg.solve(columns, [*corners[3], 1 - corners[3].sum()])
    return bool((white > 0).all())


def _xyz(primaries: tuple[tuple[float, float], ...]) -> np.ndarray:
    """[3,3] that takes linear red, green and blue to XYZ, white adapted to that of sRGB
    (Bradford)."""
    corners = np.array(primaries, float)
    whole = np.column_stack([corners / corners[:, 1:], (1 - corners.sum(1)) / corners[:, 1]])
    columns, white = whole[:3].T, whole[3]
    scaled = columns * np.linalg.solve(columns, white)
    cones = np.array(
        [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
    )
    aim = np.array([D65[0] / D65[1], 1, (1 - sum(D65)) / D65[1]])
    adapted = np.linalg.solve(cones, np.diag((cones @ aim) / (cones @ white)) @ cones)
    return np.asarray(adapted @ scaled)


def _converted(image: Image.Image, space: Space) -> Image.Image:
    """Mode RGB in a space -> in sRGB."""
    linear = space.curve(_encoded(space)).astype(np.float32)
    change = np.linalg.solve(_xyz(SRGB), _xyz(space.primaries)).astype(np.float32)
    pixels = np.array(image)
    for top in range(0, len(pixels), ROWS):
        light = (linear[pixels[top : top + ROWS]] @ change.T).clip(0, 1)
        low, high = 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055
        pixels[top : top + ROWS] = np.rint(255 * np.where(light <= 0.0031308, low, high))
    return Image.fromarray(pixels)


def _back(colours: np.ndarray, space: Space) -> np.ndarray:
    """sRGB -> a space, uint8 [N,3]."""
    linear = space.curve(_encoded(space))
    change = np.linalg.solve(_xyz(space.primaries), _xyz(SRGB))
    light = _srgb(colours / 255) @ change.T
    steps, levels = _rising(linear, np.arange(256.0))
    return np.rint(np.interp(light, steps, levels)).astype(np.uint8)


def _encoded(space: Space) -> np.ndarray:
    """What the numbers 0 to 255 stand for, before the curve."""
    levels = np.arange(256.0)
    return ((levels - 16) / 219).clip(0, 1) if space.narrow else levels / 255
