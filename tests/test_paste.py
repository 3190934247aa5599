"""Edits back into their photographs: pixels, files, the command."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import FAST_EDIT, FAST_INVERT, semedit, statuses
from PIL import Image, ImageCms, JpegImagePlugin
from PIL.PngImagePlugin import PngInfo
from scipy import ndimage
from tiny import TinyGenerator

from semedit import latents, tasks
from semedit.batch.workspace import FORMAT, Workspace
from semedit.errors import InputError, ShapeError
from semedit.faces import Face, align
from semedit.latents import Latent
from semedit.media import colours
from semedit.media.photographs import read_photo
from semedit.media.pixels import to_tensor
from semedit.media.rewriting import rewrite, written_suffix
from semedit.renders import pasting
from semedit.renders.pasting import changed_weight, newness, paste
from semedit.tasks import paste as pasting_task
from semedit.tasks.demo import examples

MARK = b"compositeWithTrainedAlgorithmicMedia"


def scenery(height: int = 240, width: int = 320, grain: float = 3.0, seed: int = 0) -> np.ndarray:
    """A photograph uint8 [H,W,3]: soft blots and grain."""
    random = np.random.default_rng(seed)
    blots = ndimage.gaussian_filter(random.standard_normal((height, width, 3)), (9, 9, 0))
    pixels = 128 + 45 * blots / blots.std() + grain * random.standard_normal((height, width, 3))
    return np.clip(pixels, 0, 255).astype(np.uint8)


def blot(size: int, x: float, y: float, sigma: float, by: float) -> np.ndarray:
    """A soft spot [size,size,1] in the middle of a crop's pixel (x, y)."""
    v, u = np.mgrid[:size, :size] + 0.5
    spot = np.exp(-((u - x) ** 2 + (v - y) ** 2) / (2 * sigma**2))
    return np.rint(by * spot * (spot > 0.01))[..., None]


def brighter(crop: np.ndarray, spot: np.ndarray) -> np.ndarray:
    return np.clip(crop + spot, 0, 255).astype(np.uint8)


# Pixels ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("angle", [0.0, 0.4, -2.0])
@pytest.mark.parametrize(("side", "size"), [(160, 64), (120, 120), (90, 256)])
def test_an_edit_comes_back_where_it_was(angle: float, side: int, size: int) -> None:
    photo = np.full((240, 320, 3), 100, np.uint8)
    quad = align.square_quad(np.array([163.3, 121.8]), side, angle)
    crop = align.cut(photo, quad, size)
    x, y, sigma = 0.4 * size, 0.62 * size, 0.05 * size
    found = paste(photo, crop, brighter(crop, blot(size, x, y, sigma, 90)), quad)
    weight = found.pixels.astype(float).mean(-1) - 100
    v, u = np.mgrid[:240, :320] + 0.5
    place = np.array([(weight * u).sum(), (weight * v).sum()]) / weight.sum()
    assert np.abs(place - align.to_photo(np.array([x, y]), quad, size)).max() < 0.25
    assert found.scale == pytest.approx(side / size)
    extent = np.sqrt((weight * (u - place[0]) ** 2).sum() / weight.sum())
    assert extent == pytest.approx(sigma * side / size, rel=0.1)


def test_pixels_outside_are_the_photographs_to_the_bit_and_no_edit_changes_none() -> None:
    photo = scenery()
    quad = align.square_quad(np.array([160.0, 120.0]), 180, 0.3)
    crop = align.cut(photo, quad, 96)
    nothing = paste(photo, crop, crop, quad)
    assert (nothing.pixels == photo).all() and not nothing.changed.any()
    found = paste(photo, crop, brighter(crop, blot(96, 40, 50, 5, 60)), quad)
    assert found.changed.any() and (found.pixels[~found.changed] == photo[~found.changed]).all()
    y, x = np.nonzero(found.changed)
    places = align.to_crop(np.stack([x, y], -1) + 0.5, quad, 96)
    assert np.hypot(*(places - [40, 50]).T).max() < 25  # three deviations, and the feather
    assert found.pixels is not photo


def test_tones_may_change_without_the_photographs_detail() -> None:
    """The crop has a quarter of the photograph's pixels; an edit that only brightens keeps what
    it could not hold."""
    photo = scenery(grain=12)
    quad = align.square_quad(np.array([160.0, 120.0]), 200)
    crop = align.cut(photo, quad, 50)
    found = paste(photo, crop, brighter(crop, blot(50, 25, 25, 12, 30)), quad)
    fine = [
        p - ndimage.uniform_filter(p, (9, 9, 0)) for p in map(np.float64, (photo, found.pixels))
    ]
    middle = np.s_[100:140, 140:180]
    assert np.corrcoef(fine[0][middle].ravel(), fine[1][middle].ravel())[0, 1] > 0.97
    assert found.new < 0.05


def test_where_something_else_is_drawn_the_old_detail_goes_and_grain_stands_there() -> None:
    lines = scenery(grain=6).astype(float)
    lines[100:140:4, 140:180] -= 70  # finer than the crop
    photo = np.clip(lines, 0, 255).astype(np.uint8)
    quad = align.square_quad(np.array([160.0, 120.0]), 200)
    crop = align.cut(photo, quad, 50)
    other = crop.copy()
    other[18:32, 18:32] = np.clip(128 + 60 * np.sin(np.arange(14) * 1.3), 0, 255)[None, :, None]
    found = paste(photo, crop, other, quad)
    middle = found.pixels[105:135, 145:175].astype(float).mean(-1)
    rows = middle.mean(1)
    assert np.abs(rows - rows.mean()).max() < 12  # of the lines, 70 deep, nothing is left
    assert found.new > 0.3 and found.grain > 2.0
    smooth = paste(np.clip(ndimage.gaussian_filter(lines, (3, 3, 0)), 0, 255).astype(np.uint8),
                   crop, other, quad)  # fmt: skip
    assert smooth.grain < 1.0  # a photograph without grain gets none


def test_old_detail_goes_softly_towards_the_edge_of_the_change() -> None:
    photo = scenery(480, 640, grain=25)
    quad = align.square_quad(np.array([320.0, 240.0]), 400)
    crop = align.cut(photo, quad, 100)
    other = crop.copy()
    other[30:70, 30:70] = np.clip(128 + 90 * np.sin(np.arange(40) * 1.9), 0, 255)[None, :, None]
    found = paste(photo, crop, other, quad).pixels
    weight = ndimage.zoom(changed_weight(crop.astype(float), other.astype(float)), 4, order=1)
    apart = np.abs(found.astype(int) - photo).mean(-1)[40:440, 120:520]
    rim = (weight > 0) & (weight < 0.1)
    assert rim.sum() > 500 and apart[rim].mean() < 3 and apart[weight == 1].mean() > 20


def test_grain_is_what_the_drawn_lacks_and_finer_than_the_crop() -> None:
    photo = scenery(grain=10)
    quad = align.square_quad(np.array([160.0, 120.0]), 200)
    crop = align.cut(photo, quad, 200)
    other = crop.copy()
    other[60:140, 60:140] = scenery(80, 80, grain=10, seed=3)  # another place, as grainy
    assert paste(photo, crop, other, quad).grain < 4
    other[60:140, 60:140] = scenery(80, 80, grain=0, seed=3)
    of_luma = 10 * np.linalg.norm(pasting.LUMA)  # of noise that channels do not share
    assert paste(photo, crop, other, quad).grain == pytest.approx(of_luma, rel=0.15)
    noise = pasting._noise((160, 160, 3), 2.0, equal=False)
    assert noise.std() == pytest.approx(1, abs=1e-3)
    coarse = noise.reshape(20, 8, 20, 8, 3).mean((1, 3))
    assert coarse.std() < 0.06  # white noise has 0.125
    assert np.ptp(pasting._noise((9, 9, 3), 2.0, equal=True), -1).max() < 1e-6


def test_a_crop_finer_than_the_photograph_is_averaged() -> None:
    photo = np.full((120, 120, 3), 100, np.uint8)
    quad = align.square_quad(np.array([60.0, 60.0]), 64)
    crop = align.cut(photo, quad, 256)
    checks = np.indices((256, 256)).sum(0) % 2 * 2 - 1  # as much brighter as darker
    found = paste(photo, crop, (crop + 40 * checks[..., None]).astype(np.uint8), quad)
    assert np.abs(found.pixels[40:80, 40:80].astype(int) - 100).max() <= 2


def test_the_likeness_of_structure_is_that_of_ssim() -> None:
    random = np.random.default_rng(0)
    crop = ndimage.gaussian_filter(random.standard_normal((40, 40, 1)), (2, 2, 0)) * 200 + 128
    crop = np.repeat(crop, 3, -1).astype(np.float32)
    assert newness(crop, crop).max() == 0 and newness(crop, crop + 40).max() < 1e-6
    assert newness(crop, 256 - crop).mean() > 0.8  # the same places, the other way round
    c, e = crop[..., 0], ndimage.gaussian_filter(random.standard_normal((40, 40)), 2) * 150 + 90
    found = newness(crop, np.repeat(e[..., None], 3, -1).astype(np.float32))

    def mean(x: np.ndarray) -> float:  # in the window around (20, 17)
        kernel = np.zeros((40, 40))
        kernel[20, 17] = 1
        return float((ndimage.gaussian_filter(kernel, 1.5) * x).sum())

    covariance = mean(c * e) - mean(c) * mean(e)
    variances = mean(c * c) - mean(c) ** 2 + mean(e * e) - mean(e) ** 2
    share = np.clip((0.8 - (2 * covariance + 16) / (variances + 16)) / 0.6, 0, 1)
    assert found[20, 17] == pytest.approx(share**2 * (3 - 2 * share), abs=2e-3)


def test_the_weight_fades_around_the_change_and_at_the_crops_border() -> None:
    before = np.zeros((100, 100, 3), np.float32)
    after = before.copy()
    after[40:60, 40:60, 1] = 3
    weight = changed_weight(before, after)
    assert (weight[40:60, 40:60] == 1).all() and 0 < weight[50, 60] < 1 and weight[50, 63] == 0
    edge = changed_weight(before, before + 9)
    assert edge[50, 50] == 1 and 0 < edge[50, 0] < 0.2 and edge[0, 0] < edge[50, 0] < edge[50, 1]
    assert not changed_weight(before, after, least=5).any()
    assert changed_weight(before, 9 * after, least=5)[50, 50] == 1


def test_grey_photographs_stay_grey() -> None:
    photo = np.repeat(scenery()[..., :1], 3, -1)
    quad = align.square_quad(np.array([160.0, 120.0]), 120)
    crop = align.cut(photo, quad, 64)
    red = crop.copy()
    red[20:40, 20:40] = [200, 60, 40]
    found = paste(photo, crop, red, quad).pixels
    assert (found == found[..., :1]).all() and (found != photo).any()
    coloured = photo.copy()
    coloured[0, 0] = [1, 2, 3]
    assert np.ptp(paste(coloured, crop, red, quad).pixels.astype(int), -1).max() > 100


def test_a_face_partly_outside_stays_in_the_photograph() -> None:
    photo = scenery(60, 60)
    for centre in ((5.0, 8.0), (58.0, 30.0)):
        quad = align.square_quad(np.array(centre), 40, 0.2)
        crop = align.cut(photo, quad, 64)
        found = paste(photo, crop, np.clip(crop.astype(int) + 40, 0, 255).astype(np.uint8), quad)
        assert found.pixels.shape == photo.shape and 0 < found.changed.mean() < 0.6
    far = align.square_quad(np.array([900.0, 900.0]), 40)
    nothing = paste(photo, np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 9, np.uint8), far)
    assert not nothing.changed.any() and (nothing.pixels == photo).all()


def test_wrong_shapes_are_refused() -> None:
    quad = align.square_quad(np.array([30.0, 30.0]), 20)
    for before, after in (((8, 8, 3), (8, 9, 3)), ((8, 8, 3), (9, 9, 3))):
        with pytest.raises(ShapeError):
            paste(scenery(), np.zeros(before, np.uint8), np.zeros(after, np.uint8), quad)


# Files -------------------------------------------------------------------------------------------


def an_exif(orientation: int = 1) -> Image.Exif:
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "Maker", orientation
    inner = {0x9003: "2019:05:06 07:08:09", 0xA002: 320, 0xA003: 240, 0xA005: {1: "R98"}}
    place = {1: "N", 2: (48.0, 8.0, 15.0), 3: "E", 4: (11.0, 34.0, 30.0)}
    for tag, values in ((0x8769, inner), (0x8825, place)):
        exif.get_ifd(tag).update(values)
        exif[tag] = exif.get_ifd(tag)
    return exif


def edited(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A change [80:120, 100:150] of a photograph, and where it is."""
    after = pixels.copy()
    after[80:120, 100:150] = 255 - after[80:120, 100:150] // 2
    where = np.zeros(pixels.shape[:2], bool)
    where[80:120, 100:150] = True
    return after, where


def save(path: Path, image: Image.Image, **options: Any) -> Path:
    image.save(path, **options)
    return path


def rewritten(path: Path, mark: bool = True) -> tuple[Path, np.ndarray, np.ndarray, np.ndarray]:
    """Rewrite with `edited`: the file, the pixels before, those asked for, those found."""
    photo = read_photo(path)
    after, _ = edited(photo.pixels)
    target = path.with_name(f"out{written_suffix(path)}")
    rewrite(path, target, photo.pixels, after, mark)
    return target, photo.pixels, after, read_photo(target).pixels


KINDS: list[tuple[str, dict[str, Any]]] = [
    (".png", {}),
    (".tif", {"compression": "tiff_lzw"}),
    (".tif", {}),
    (".webp", {"lossless": True}),
]


@pytest.mark.parametrize(("suffix", "options"), KINDS)
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_lossless_files_keep_every_other_pixel(
    suffix: str, options: dict[str, Any], mode: str, tmp_path: Path
) -> None:
    image = Image.fromarray(scenery()).convert("RGB" if mode == "RGBA" else mode)
    if mode == "RGBA":
        image.putalpha(Image.fromarray(np.tile(np.arange(320) % 256, (240, 1)).astype(np.uint8)))
    path = save(tmp_path / f"a{suffix}", image, **options)
    photo = read_photo(path).pixels
    after, where = edited(photo)
    if mode == "L":
        after = np.repeat(after[..., :1], 3, -1)
    target = tmp_path / f"b{suffix}"
    assert rewrite(path, target, photo, after) == []
    with Image.open(path) as a, Image.open(target) as b:
        native = [np.asarray(one) for one in (a, b)]
        assert b.format == a.format and (b.mode == a.mode or suffix == ".webp")
        assert (native[0][~where] == native[1][~where]).all()
        if mode == "RGBA":
            assert (native[0][..., 3] == native[1][..., 3]).all()
        if suffix == ".tif":
            assert a.info["compression"] == b.info["compression"]
    if mode != "RGBA":
        assert (read_photo(target).pixels == after).all()
    assert MARK in target.read_bytes()


@pytest.mark.parametrize("quality", [60, 93])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_jpegs_keep_their_tables_and_subsampling(
    quality: int, subsampling: int, tmp_path: Path
) -> None:
    image = Image.fromarray(scenery(grain=0))
    path = save(tmp_path / "a.jpeg", image, quality=quality, subsampling=subsampling)
    target, _, after, found = rewritten(path)
    with Image.open(path) as a, Image.open(target) as b:
        assert a.quantization == b.quantization  # type: ignore[attr-defined]
        assert JpegImagePlugin.get_sampling(a) == JpegImagePlugin.get_sampling(b) == subsampling
    far = np.ones((240, 320), bool)
    far[64:136, 80:168] = False  # a block around the change
    apart = np.abs(found.astype(int) - after)[far]
    assert apart.mean() < 0.5 and apart.max() <= 12  # rounded once more with the same tables
    assert target.suffix == ".jpeg"


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_exif_is_kept_less_the_place_and_the_profile_is(suffix: str, tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = an_exif(6)
    path = save(tmp_path / f"a{suffix}", Image.fromarray(scenery()), exif=exif,
                icc_profile=profile, dpi=(300, 300))  # fmt: skip
    with Image.open(path) as image:
        assert image.getexif().get_ifd(0x8825)
    target, _, after, found = rewritten(path)
    assert found.shape == after.shape == (320, 240, 3)  # upright
    with Image.open(target) as image:
        told = image.getexif()
        assert told[0x010F] == "Maker" and told[0x0112] == 1
        inner = told.get_ifd(0x8769)
        assert inner[0x9003] == "2019:05:06 07:08:09"
        assert (inner[0xA002], inner[0xA003]) == (240, 320)
        assert told.get_ifd(0xA005)[1] == "R98"
        assert 0x8825 not in told and not told.get_ifd(0x8825)
        assert image.info["icc_profile"] == profile
        if suffix != ".webp":
            assert image.info["dpi"] == pytest.approx((300, 300), abs=0.01)
    assert MARK in target.read_bytes()
    unmarked, *_ = rewritten(path, mark=False)
    assert MARK not in unmarked.read_bytes()


def test_thumbnails_and_other_xmp_show_the_old_picture_and_are_left_out(tmp_path: Path) -> None:
    exif, inner = an_exif(), io.BytesIO()
    Image.new("RGB", (16, 16), "red").save(inner, "JPEG")
    path = save(tmp_path / "a.jpg", Image.fromarray(scenery()), xmp=b"<x>GPSLatitude</x>",
                exif=exif.tobytes() + inner.getvalue(), comment=b"me")  # fmt: skip
    assert b"GPSLatitude" in path.read_bytes() and path.read_bytes().count(b"\xff\xd8") == 2
    target, *_ = rewritten(path)
    assert b"GPSLatitude" not in target.read_bytes()
    assert target.read_bytes().count(b"\xff\xd8") == 1


def test_turned_jpegs_are_rounded_by_the_same_tables_turned(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", Image.fromarray(scenery(grain=0)), quality=50, exif=an_exif(6))
    target, _, after, found = rewritten(path)
    with Image.open(path) as a, Image.open(target) as b:
        tables = [np.reshape(one.quantization[0], (8, 8)) for one in (a, b)]  # type: ignore[attr-defined]
    assert (tables[1] == tables[0].T).all() and (tables[0] != tables[0].T).any()
    far = np.ones(after.shape[:2], bool)
    far[64:136, 80:168] = False
    assert np.abs(found.astype(int) - after)[far].mean() < 0.6


def cicp(image: Image.Image, path: Path) -> Path:
    """A PNG in Display P3 by a cICP chunk."""
    info = PngInfo()
    info.add(b"cICP", bytes([12, 13, 0, 1]))
    image.save(path, pnginfo=info)
    return path


def test_colours_are_changed_in_the_files_own_space(tmp_path: Path) -> None:
    path = cicp(Image.fromarray(scenery()), tmp_path / "a.png")
    target, before, after, found = rewritten(path)
    where = (before != after).any(-1)
    with Image.open(path) as a, Image.open(target) as b:
        assert (np.asarray(a)[~where] == np.asarray(b)[~where]).all()
    assert b"cICP" in target.read_bytes()
    assert np.abs(found.astype(int) - after)[where].mean() < 2.5  # of colours that the space has


@pytest.mark.parametrize("space", ["adobe", "p3", "narrow"])
def test_from_srgb_is_the_inverse_of_to_srgb(space: str) -> None:
    levels = np.stack(np.meshgrid(*[np.arange(40, 220, 20)] * 3), -1).reshape(-1, 3)
    colour = levels.astype(np.uint8)
    image = Image.fromarray(colour[None])
    chunk = {"adobe": None, "p3": bytes([12, 13, 0, 1]), "narrow": bytes([1, 13, 0, 0])}[space]
    buffer = io.BytesIO()
    if chunk is None:
        exif = Image.Exif()
        exif[0x8769] = {0xA005: {1: "R03"}}
        image.save(buffer, "JPEG", exif=exif)
    else:
        info = PngInfo()
        info.add(b"cICP", chunk)
        image.save(buffer, "PNG", pnginfo=info)
    data = buffer.getvalue()
    with Image.open(io.BytesIO(data)) as opened:
        image.info = opened.info
        image.getexif().load(opened.info.get("exif", b""))
        through = np.asarray(colours.to_srgb(image, data, []))[0]
        back = colours.from_srgb(through, image, data).astype(int)
    inside = ((through > 0) & (through < 255)).all(-1)
    assert inside.mean() > 0.3 and (through.astype(int) - colour).any()
    assert np.abs(back - colour)[inside].max() <= 3


def test_what_cannot_be_written_as_it_is_is_refused(tmp_path: Path) -> None:
    print_ = save(tmp_path / "a.jpg", Image.fromarray(scenery()).convert("CMYK"))
    with pytest.raises(InputError, match="colours of CMYK are read, but not written"):
        written_suffix(print_)
    deep = Image.fromarray(scenery()[..., 0].astype(np.uint16) * 257)
    for suffix in (".png", ".tif"):
        with pytest.raises(InputError, match="more than 8 bits"):
            written_suffix(save(tmp_path / f"deep{suffix}", deep))


def test_other_formats_become_png(tmp_path: Path) -> None:
    for kind, suffix in (("BMP", ".bmp"), ("GIF", ".gif"), ("PNG", ".jpg_large")):
        path = save(tmp_path / f"a{suffix}", Image.fromarray(scenery()), format=kind)
        assert written_suffix(path) == ".png"
        photo = read_photo(path).pixels
        after, _ = edited(photo)
        notes = rewrite(path, tmp_path / "b.png", photo, after)
        assert notes == ([] if kind == "PNG" else [f"{kind} is written as PNG"])
        assert (read_photo(tmp_path / "b.png").pixels == after).all()


# The command -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Folder:
    """A workspace as align, invert and edit leave it, but quickly made."""

    space: Workspace
    raw: Path

    def photograph(
        self, name: str, pixels: np.ndarray, suffix: str = ".png", **options: Any
    ) -> Path:
        path = self.raw / f"{name}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, **options)
        self.receipt("align", name, {"photo": path})
        return path

    def face(self, photo: str, quad: np.ndarray, size: int = 64, index: int = 0) -> np.ndarray:
        """Cut a face; returns its crop."""
        path = Path(self.space.receipt("align", photo)["inputs"]["photo"][0])  # type: ignore[index]
        read = read_photo(path)
        name = photo if index == 0 else f"{photo}@{index + 1}"
        record = Face(
            name, str(path), read.sha256, index, size, quad, np.zeros((68, 2)), np.zeros(25)
        )
        place = self.space.path("faces", name, ".json")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(record.to_json())
        crop = align.cut(read.pixels, quad, size)
        Image.fromarray(crop).save(place.with_suffix(".png"))
        latent = self.space.path("latents", name, ".safetensors")
        latent.parent.mkdir(parents=True, exist_ok=True)
        latent.write_bytes(b"inverted")
        return crop

    def edit(
        self,
        face: str,
        step: str,
        pixels: np.ndarray,
        of: Path | None = None,
        latent_: Latent | None = None,
    ) -> Path:
        """A finished step, made from the inversion or another step's latent."""
        picture = self.space.path("edits", f"{face}/{step}", ".png")
        picture.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(picture)
        latent = picture.with_suffix(".safetensors")
        if latent_ is None:
            latent.write_bytes(step.encode())
        else:
            latent_.save(latent)
        source = of or self.space.path("latents", face, ".safetensors")
        self.receipt("attr", f"{face}/{step}", {"latent": source}, [picture, latent])
        return latent

    def receipt(
        self, command: str, name: str, inputs: dict[str, Path], outputs: Sequence[Path] = ()
    ) -> None:
        from semedit.media.reading import digest

        relative = self.space.relative
        path = self.space.receipt_path(command, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        told = {
            "format": FORMAT, "name": name, "status": "done", "fingerprint": "",
            "inputs": {k: [relative(p), digest(p)] for k, p in inputs.items()},
            "outputs": {relative(p): digest(p) for p in outputs},
            "warnings": [], "figures": {}, "error": None, "batch": [],
        }  # fmt: skip
        path.write_text(json.dumps(told))

    def paste(self, *arguments: Any, code: int = 0) -> Any:
        return semedit("paste", *arguments, "--work", self.space.root, "--json", code=code)

    def pasted(self, name: str) -> np.ndarray:
        return read_photo(self.space.root / "pasted" / name).pixels


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(Workspace(tmp_path / "work"), tmp_path / "raw")


QUAD = align.square_quad(np.array([110.0, 120.0]), 120, 0.2)
OTHER = align.square_quad(np.array([225.0, 110.0]), 100, -0.1)


def a_photograph_with_an_edit(folder: Folder, **options: Any) -> Path:
    path = folder.photograph("süb/a", scenery(), **options)
    crop = folder.face("süb/a", QUAD)
    folder.edit("süb/a", "01-smiling", brighter(crop, blot(64, 30, 40, 5, 60)))
    return path


def test_the_command_writes_the_photograph_with_its_edit(folder: Folder) -> None:
    path = a_photograph_with_an_edit(folder)
    before = path.read_bytes()
    (line, summary) = folder.paste()
    assert (line["name"], line["status"]) == ("süb/a", "done") and summary["done"] == 1
    assert line["outputs"] == ["pasted/süb/a.png"] and line["figures"]["faces"] == 1
    found, photo = folder.pasted("süb/a.png"), scenery()
    changed = (found != photo).any(-1)
    y, x = np.nonzero(changed)
    middle = align.to_photo(np.array([30.0, 40.0]), QUAD, 64)
    assert np.hypot(*(np.stack([x, y], -1) + 0.5 - middle).T).max() < 40
    assert (
        found[int(middle[1]), int(middle[0])].mean() > photo[int(middle[1]), int(middle[0])].mean()
    )
    assert line["figures"]["changed"] == pytest.approx(changed.mean(), abs=1e-6)
    assert path.read_bytes() == before
    assert statuses(folder.paste()) == {"süb/a": "uptodate"}


def test_the_newest_edit_counts_or_the_step_that_is_named(folder: Folder) -> None:
    folder.photograph("a", scenery())
    crop = folder.face("a", QUAD)
    first = folder.edit("a", "01-smiling", brighter(crop, blot(64, 20, 20, 4, 60)))
    folder.edit("a", "02-old", brighter(crop, blot(64, 45, 45, 4, 60)), first)
    folder.paste()
    (x, y), (x1, y1) = (
        align.to_photo(np.array([p, p]), QUAD, 64).astype(int) for p in (45.0, 20.0)
    )
    changed = (folder.pasted("a.png") != scenery()).any(-1)
    assert changed[y, x] and not changed[y1, x1]
    assert statuses(folder.paste("--from", "01-smiling")) == {"a": "done"}
    changed = (folder.pasted("a.png") != scenery()).any(-1)
    assert changed[y1, x1] and not changed[y, x]
    assert "has a step 'young'" in semedit("paste", "--from", "young", "--work", folder.space.root,
                                           code=4)  # fmt: skip


def test_faces_of_one_photograph_go_into_one_file(folder: Folder) -> None:
    folder.photograph("a", scenery())
    for index, (name, quad) in enumerate((("a", QUAD), ("a@2", OTHER))):
        crop = folder.face("a", quad, index=index)
        folder.edit(name, "01-smiling", brighter(crop, blot(64, 32, 32, 4, 60)))
    folder.face("a", align.square_quad(np.array([20.0, 20.0]), 30), index=2)  # was not edited
    (line, _) = folder.paste("a@2")  # a face names its photograph
    assert line["figures"]["faces"] == 2 and line["outputs"] == ["pasted/a.png"]
    changed = (folder.pasted("a.png") != scenery()).any(-1)
    for quad in (QUAD, OTHER):
        x, y = quad.mean(0).astype(int)
        assert changed[y, x]


def test_edits_of_faces_that_overlap_add_up(folder: Folder) -> None:
    flat = np.full((240, 320, 3), 100, np.uint8)
    folder.photograph("a", flat)
    near = align.square_quad(np.array([130.0, 120.0]), 120)
    for index, quad in enumerate((align.square_quad(np.array([110.0, 120.0]), 120), near)):
        crop = folder.face("a", quad, 120, index)
        where = 70.0 if index == 0 else 50.0
        name = "a" if index == 0 else "a@2"
        folder.edit(name, "01-x", brighter(crop, blot(120, where, 60, 6, 40)))
    folder.paste()
    assert folder.pasted("a.png")[120, 120].mean() == pytest.approx(180, abs=3)


def test_a_photograph_that_changed_or_went_is_refused(folder: Folder) -> None:
    path = a_photograph_with_an_edit(folder)
    Image.fromarray(scenery(seed=1)).save(path)
    (line, _) = folder.paste(code=3)
    assert "was changed since it was aligned" in line["error"]["message"]
    assert not (folder.space.root / "pasted").exists()
    path.unlink()
    (line, _) = folder.paste(code=3)
    assert "is not there" in line["error"]["message"]


def test_what_was_not_edited_is_left_out_or_an_error_by_name(folder: Folder) -> None:
    a_photograph_with_an_edit(folder)
    folder.photograph("b", scenery(seed=2))
    folder.face("b", QUAD)
    assert statuses(folder.paste()) == {"süb/a": "done"}
    (line, _) = folder.paste("b", code=3)
    assert line["error"]["message"] == "no face of b was edited"


def test_an_edit_of_another_inversion_is_none(folder: Folder) -> None:
    a_photograph_with_an_edit(folder)
    folder.space.path("latents", "süb/a", ".safetensors").write_bytes(b"inverted anew")
    assert "no face" in semedit("paste", "--work", folder.space.root, code=4)


def test_formats_and_what_the_file_tells_are_the_photographs(folder: Folder) -> None:
    a_photograph_with_an_edit(folder, suffix=".JPG", quality=90, exif=an_exif())
    folder.paste()
    path = folder.space.root / "pasted" / "süb" / "a.JPG"
    with Image.open(path) as image:
        assert image.format == "JPEG" and image.getexif()[0x010F] == "Maker"
        assert not image.getexif().get_ifd(0x8825)
    assert MARK in path.read_bytes()
    folder.paste("--no-mark")
    assert MARK not in path.read_bytes()


def test_colours_of_print_and_more_bits_are_errors_of_their_photograph(folder: Folder) -> None:
    a_photograph_with_an_edit(folder)
    path = folder.raw / "b.png"
    Image.fromarray(scenery()[..., 0].astype(np.uint16) * 257).save(path)
    folder.receipt("align", "b", {"photo": path})
    crop = folder.face("b", QUAD)
    folder.edit("b", "01-smiling", brighter(crop, blot(64, 30, 40, 5, 60)))
    lines = folder.paste(code=3)
    assert statuses(lines) == {"b": "error", "süb/a": "done"}
    assert "more than 8 bits" in lines[0]["error"]["message"]


def test_into_a_folder_and_never_over_an_original(folder: Folder, tmp_path: Path) -> None:
    path = a_photograph_with_an_edit(folder)
    out = tmp_path / "out"
    folder.paste("--into", out)
    assert (out / "süb" / "a.png").read_bytes() == (
        folder.space.root / "pasted" / "süb" / "a.png"
    ).read_bytes()
    shutil.rmtree(out)
    assert statuses(folder.paste("--into", out)) == {"süb/a": "uptodate"}  # copied again
    assert (out / "süb" / "a.png").is_file()
    original = path.read_bytes()
    for arguments in ((), ("--overwrite",)):
        folder.paste("--into", folder.raw, *arguments, code=3)
        assert path.read_bytes() == original
    (out / "süb" / "a.png").write_bytes(b"mine")
    folder.paste("--into", out, code=3)
    assert (out / "süb" / "a.png").read_bytes() == b"mine"
    folder.paste("--into", out, "--overwrite")
    crop = np.asarray(Image.open(folder.space.path("faces", "süb/a", ".png")))
    folder.edit("süb/a", "02-old", brighter(crop, blot(64, 20, 20, 5, 60)))
    folder.paste("--into", out)  # what it had put there itself it may replace
    assert (read_photo(out / "süb" / "a.png").pixels == folder.pasted("süb/a.png")).all()
    assert "folder of the workspace" in semedit(
        "paste", "--into", folder.space.root / "faces", "--work", folder.space.root, code=2
    )


def test_a_generators_own_picture_is_compared_with_its_inversion(folder: Folder) -> None:
    """Without the photograph's detail an edit is another picture everywhere; what counts is what
    the edit changed in what the generator draws."""
    folder.photograph("a", scenery())
    folder.face("a", QUAD, 64)
    drawn = np.full((32, 32, 3), 120, np.uint8)
    Image.fromarray(drawn).save(folder.space.path("latents", "a", ".png"))
    noise = np.random.default_rng(0).integers(-2, 3, drawn.shape)
    after = np.clip(drawn + blot(32, 16, 16, 3, 60) + noise, 0, 255).astype(np.uint8)
    folder.edit("a", "01-smiling", after)
    folder.paste()
    changed = (folder.pasted("a.png") != scenery()).any(-1)
    assert changed[120, 110] and changed.mean() < 0.06  # of what all of the crop is 0.19


def test_an_edit_is_drawn_again_at_the_photographs_own_size(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = TinyGenerator()
    monkeypatch.setattr(tasks, "load_generator", lambda name, device: generator)
    monkeypatch.setattr(pasting_task.weights, "on_disk", lambda name: True)
    monkeypatch.setattr(pasting_task, "used", lambda *names: {})
    seen: list[tuple[int, ...]] = []

    def drawn(_generator: Any, original: Any, _after: Any, _device: str) -> np.ndarray:
        seen.append(tuple(original.photo.shape))
        crop = np.rint((original.photo[0].permute(1, 2, 0).numpy() + 1) * 127.5)
        found = brighter(crop, blot(len(crop), len(crop) / 2, len(crop) / 2, 6, 60))
        return to_tensor(found), None

    monkeypatch.setattr(pasting_task, "with_detail", drawn)
    folder.photograph("a", scenery())
    crop = folder.face("a", QUAD, 48)
    codes, c = generator.sample(1)
    latent = Latent(codes, c, "tiny", latents.fingerprint(generator), "hybrid")
    latent.save(folder.space.path("latents", "a", ".safetensors"))
    drawing = brighter(crop, blot(48, 10, 10, 4, 60))
    step = folder.edit("a", "01-smiling", drawing, latent_=latent)
    (line, _) = folder.paste()
    assert seen == [(1, 3, 120, 120)] and line["figures"]["scale"] == [1.0]
    x, y = QUAD.mean(0).astype(int)
    assert (folder.pasted("a.png") != scenery()).any(-1)[y, x]
    Image.fromarray(brighter(crop, blot(48, 12, 12, 4, 60))).save(step.with_suffix(".png"))
    (line, _) = folder.paste()  # drawn over by hand: that is what counts
    assert len(seen) == 1 and line["figures"]["scale"] == [2.5]


def test_an_edit_of_another_generator_is_enlarged_which_is_told(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "load_generator", lambda name, device: TinyGenerator())
    monkeypatch.setattr(pasting_task.weights, "on_disk", lambda name: True)
    monkeypatch.setattr(pasting_task, "used", lambda *names: {})
    a_photograph_with_an_edit(folder)  # whose latents are none
    (line, _) = folder.paste()
    assert line["status"] == "done" and "süb/a is enlarged" in line["warnings"][0]


def test_status_and_sheet_know_what_is_pasted(folder: Folder) -> None:
    a_photograph_with_an_edit(folder)

    def told() -> str:
        line = semedit("status", "--work", folder.space.root, "--json")[0]
        return str(line["pasted"])

    assert told() == "none"
    folder.paste()
    assert told() == "there"
    crop = np.asarray(Image.open(folder.space.path("faces", "süb/a", ".png")))
    folder.edit("süb/a", "02-old", brighter(crop, blot(64, 20, 20, 5, 60)))
    assert told() == "stale"
    sheet = ("sheet", "--work", folder.space.root, "--columns", "photograph,pasted,edit")
    semedit(*sheet, "--output", folder.raw / "sheet.png")
    cells = np.split(read_photo(folder.raw / "sheet.png").pixels, 3, 1)
    assert cells[1].std() > 5  # it is not left empty


def test_edits_chain_it_and_recipes_know_it(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    shutil.copyfile(examples()[0], raw / "a.png")
    work = ("--work", tmp_path / "work", "--json")
    semedit("align", raw, *work)
    semedit("invert", *FAST_INVERT, *work)
    lines = semedit("attr", "--smiling", "--into-photo", *FAST_EDIT, *work)
    assert [line["command"] for line in lines] == ["attr", "attr", "paste", "paste"]
    path = tmp_path / "work" / "pasted" / "a.png"
    photo, found = (read_photo(one).pixels for one in (raw / "a.png", path))
    assert photo.shape == found.shape
    strip = ("edit", "--direction", "smiling", "--strength", "-1:1:3", "--into-photo")
    assert "needs a step" in semedit(*strip, "--work", tmp_path / "work", code=2)
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        f'work = "{tmp_path / "work"}"\n[[step]]\ncommand = "attr"\nsmiling = true\n'
        'into_photo = true\n[[step]]\ncommand = "paste"\nfrom = "01-smiling"\n'
    )
    assert "2 of 2, paste" in semedit("run", recipe, "--dry-run")
