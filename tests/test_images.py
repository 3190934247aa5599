"""Decoding whatever a folder holds, label maps, atomic writes."""

import io
import struct
import sys
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from semedit.errors import InputError, MaskError
from semedit.media.files import atomic_path, write_bytes
from semedit.media.labels import ATTRIBUTES, CELEBA, LABELS, PALETTE, REGIONS
from semedit.media.masks import colorize, fit_labels, read_labels, write_labels
from semedit.media.photographs import read_photo, write_image
from semedit.media.pixels import resize, to_tensor, to_uint8

RAMP = np.linspace(0, 255, 64).astype(np.uint8)
COLOURS = np.stack([np.tile(RAMP, (48, 1)), np.full((48, 64), 90), 255 - np.tile(RAMP, (48, 1))], 2)
COLOURS = COLOURS.astype(np.uint8)


def save(path, image, **options):
    image.save(path, **options)
    return path


# Photographs -------------------------------------------------------------------------------------


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_without_its_end_mark_is_whole_and_one_without_more_is_not(tmp_path, progressive):
    noise = np.random.default_rng(0).integers(0, 255, (40, 56, 3), dtype=np.uint8)
    path = tmp_path / "a.jpg"
    Image.fromarray(noise).save(path, quality=80, progressive=progressive)
    data, whole = path.read_bytes(), read_photo(path)
    for cut in (1, 2):
        path.write_bytes(data[:-cut])
        photo = read_photo(path)
        assert np.array_equal(photo.pixels, whole.pixels)
        assert len(photo.warnings) == 1 and "the picture is whole" in photo.warnings[0]
        assert photo.sha256 != whole.sha256
    for cut in (*range(3, 30), len(data) // 2, len(data) - 200):
        path.write_bytes(data[:-cut])
        with pytest.raises(InputError, match="damaged picture"):
            read_photo(path)


def test_png_is_read_exactly(tmp_path):
    path = save(tmp_path / "a.png", Image.fromarray(COLOURS))
    photo = read_photo(path)
    assert (photo.pixels == COLOURS).all() and photo.pixels.dtype == np.uint8
    assert photo.warnings == () and len(photo.sha256) == 64


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_gives_the_same_picture(tmp_path, orientation):
    undo = [None, None, 0, 3, 1, 5, 2, 6, 4][orientation]  # Image.Transpose that EXIF will revert
    image = Image.fromarray(COLOURS)
    if undo is not None:
        image = image.transpose(Image.Transpose(undo))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "a.png", image, exif=exif)
    assert (read_photo(path).pixels == COLOURS).all()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(
    "exif", [b"MM\0*\xff\xff\xff\xff", b"no TIFF", b"II*\0\x08\0\0\0\1\0\x12\1"]
)
def test_broken_exif_is_ignored_with_a_warning(tmp_path, kind, exif):
    image = Image.fromarray(COLOURS)
    photo = read_photo(
        save(tmp_path / "a", image, format=kind, exif=b"Exif\0\0" + exif, quality=95)
    )
    assert np.abs(photo.pixels.astype(int) - COLOURS).mean() < 6
    assert photo.warnings == ("broken EXIF data, ignored",)


def test_whole_exif_is_no_matter(tmp_path):
    exif = Image.Exif()
    exif[0x010F] = "a camera"
    exif.get_ifd(0x8825).update({1: "N", 2: (52.0, 31.0, 12.0)})
    for kind in ("JPEG", "PNG", "WEBP", "TIFF"):
        path = save(tmp_path / "a", Image.fromarray(COLOURS), format=kind, exif=exif)
        assert read_photo(path).warnings == ()


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "I;16"])
def test_modes_become_rgb(tmp_path, mode):
    grey = np.tile(RAMP, (48, 1))
    if mode == "I;16":
        image = Image.fromarray(grey.astype(np.uint16) * 257)
    else:
        image = Image.fromarray(COLOURS).convert(mode if mode not in ("1", "LA") else "L")
        image = image.convert(mode)
    path = save(tmp_path / ("a.tif" if mode == "CMYK" else "a.png"), image)
    pixels = read_photo(path).pixels
    assert pixels.shape == (48, 64, 3)
    if mode == "I;16":
        assert (pixels == grey[..., None]).all()


def test_deep_grey_of_pgm_files(tmp_path):
    grey = np.arange(48 * 64, dtype=np.uint16).reshape(48, 64) % 256 * 257
    (tmp_path / "a.pgm").write_bytes(b"P5 64 48 65535\n" + grey.astype(">u2").tobytes())
    pixels = read_photo(tmp_path / "a.pgm").pixels
    assert (pixels == (grey // 257)[..., None]).all()


def _grey_tiff(path, samples, *, bits=16, photometric=1):
    """Grey of 16 bits, or of 12 in 16 packed; Pillow writes neither photometric 0 nor 12 bits."""
    height, width = samples.shape
    if bits == 12:
        left, right = samples[:, 0::2].astype(int), samples[:, 1::2].astype(int)
        packed = np.stack([left >> 4, (left & 15) << 4 | right >> 8, right & 255], 2)
        data = packed.astype(np.uint8).tobytes()
    else:
        data = samples.astype("<u2").tobytes()
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 8 + 2 + 9 * 12 + 4}
    tags |= {277: 1, 278: height, 279: len(data)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    path.write_bytes(head + data)
    return path


def test_deep_grey_of_tiff_files(tmp_path):
    """White may be 4095, or black; 0 and white are so in every case."""
    grey = np.tile(RAMP, (48, 1)).astype(int)
    for samples, options in (
        (grey * 257, {}),
        (65535 - grey * 257, {"photometric": 0}),
        (grey * 4095 // 255, {"bits": 12}),
    ):
        pixels = read_photo(_grey_tiff(tmp_path / "a.tif", samples, **options)).pixels
        assert np.abs(pixels.astype(int) - grey[..., None]).max() <= 1
        assert pixels.min() == 0 and pixels.max() == 255


def test_the_limit_can_be_raised_beyond_pillows_own(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    path = save(tmp_path / "a.png", Image.new("RGB", (40, 30)))
    assert read_photo(path, max_pixels=1200).pixels.shape == (30, 40, 3)
    with pytest.raises(InputError, match="max-pixels"):
        read_photo(path, max_pixels=1199)
    assert Image.MAX_IMAGE_PIXELS == 100


def test_transparency_is_white(tmp_path):
    for mode, colour in (("RGBA", (10, 20, 30, 0)), ("LA", (7, 0))):
        path = save(tmp_path / "a.png", Image.new(mode, (4, 4), colour))
        assert (read_photo(path).pixels == 255).all()
    deep = Image.fromarray(np.full((4, 4), 700, np.uint16))
    path = save(tmp_path / "c.png", deep, transparency=700)
    assert (read_photo(path).pixels == 255).all()
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 200, 0, 0])
    path = save(tmp_path / "b.png", palette, transparency=1)
    assert (read_photo(path).pixels == 255).all()


def test_first_frame_and_a_warning(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime")]
    path = save(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:])
    photo = read_photo(path)
    assert tuple(photo.pixels[0, 0]) == (255, 0, 0) and "first" in photo.warnings[0]


def test_content_decides_not_the_name(tmp_path):
    path = save(tmp_path / "a.jpg", Image.fromarray(COLOURS), format="PNG")
    photo = read_photo(path)
    assert (photo.pixels == COLOURS).all() and "PNG file named .jpg" in photo.warnings[0]


def test_colour_profiles_are_applied(tmp_path):
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = srgb.replace(b"rXYZ", b"????").replace(b"bXYZ", b"rXYZ").replace(b"????", b"bXYZ")
    swapped = swapped.replace("sRGB".encode("utf-16-be"), "brGR".encode("utf-16-be"))
    path = save(tmp_path / "a.png", Image.fromarray(COLOURS), icc_profile=swapped)
    photo = read_photo(path)
    assert photo.warnings == ()
    assert np.abs(photo.pixels[..., ::-1].astype(int) - COLOURS).max() <= 2  # red and blue swap
    path = save(tmp_path / "b.png", Image.fromarray(COLOURS), icc_profile=srgb)
    assert (read_photo(path).pixels == COLOURS).all()
    path = save(tmp_path / "c.png", Image.fromarray(COLOURS), icc_profile=b"nonsense")
    photo = read_photo(path)
    assert (photo.pixels == COLOURS).all() and "profile" in photo.warnings[0]


def _profile(kind, tags):
    """An ICC profile.

    Args: kind: its class, its colours, and what they are led to: 4 letters each.
    """
    fixed = struct.Struct(">i")
    white = b"XYZ \0\0\0\0" + b"".join(fixed.pack(round(v * 65536)) for v in (0.9642, 1, 0.8249))
    told = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + bytes(79)
    tags = {b"desc": told, b"wtpt": white, **tags}
    table, body, start = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        table += name + struct.pack(">II", start + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    head = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()[:128])
    head[:4], head[8:12] = struct.pack(">I", start + len(body)), b"\2\x10\0\0"
    head[12:24] = kind
    return bytes(head) + table + body


def _grey_profile():
    """An ICC profile for grey in linear light."""
    curve = b"curv\0\0\0\0" + struct.pack(">IHH", 1, 256, 0)
    return _profile(b"mntrGRAYXYZ ", {b"kTRC": curve})


def test_grey_has_profiles_too_with_transparency_or_without(tmp_path):
    grey = np.tile(RAMP, (48, 1))
    light = grey / 255
    expected = 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    for mode in ("L", "LA"):
        image = Image.fromarray(grey).convert(mode)
        photo = read_photo(save(tmp_path / "a.png", image, icc_profile=_grey_profile()))
        assert photo.warnings == ()
        assert np.abs(photo.pixels - expected[..., None]).mean() < 1


def _ink_profile():
    """An ICC profile for CMYK in which cyan and black ink are grey alike, the others nothing."""
    inks = np.stack(np.meshgrid(*[[0, 1]] * 4, indexing="ij"), -1).reshape(16, 4)
    lightness = 255 * (1 - inks[:, 0]) * (1 - inks[:, 3])
    grid = np.stack([lightness, np.full(16, 128), np.full(16, 128)], 1).astype(np.uint8)
    ramp = bytes(range(256))
    table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0])
    table += struct.pack(">9i", *(65536 * (i % 4 == 0) for i in range(9)))
    table += ramp * 4 + grid.tobytes() + ramp * 3
    return _profile(b"prtrCMYKLab ", {b"A2B0": table})


def test_inks_have_profiles(tmp_path):
    """Without one cyan would be cyan; see test_modes_become_rgb."""
    inks = np.zeros((8, 256, 4), np.uint8)
    inks[..., 0] = np.arange(256)
    inks[..., 1] = 200
    for kind in ("TIFF", "JPEG"):
        options = {"icc_profile": _ink_profile(), "format": kind}
        path = save(tmp_path / "a", Image.fromarray(inks, "CMYK"), **options)
        photo = read_photo(path)
        assert photo.warnings == ()
        row = photo.pixels[4].astype(int)
        assert np.ptp(row, axis=1).max() <= 3  # grey
        assert row[0].min() > 250 and row[-1].max() < 5 and (np.diff(row[::8, 0]) < 0).all()


def _png_of_size(width, height):
    """A tiny PNG that says it is huge."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def _text_bomb():
    info = PngInfo()
    info.add_text("comment", "x" * (80 << 20), zip=True)
    file = io.BytesIO()
    Image.new("RGB", (4, 4)).save(file, "PNG", pnginfo=info)
    return file.getvalue()


def _jpeg():
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    Image.fromarray(noise).save(file, "JPEG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.jpg", b"", "empty"),
        ("a.jpg", b"hello, I am a text", "not a picture"),
        ("a.jpg", b"<html><body>quota</body></html>", "not a picture"),
        ("a.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture"),
        ("a.png", b"8BPS\0\1" + bytes(60), "not a picture"),
        ("a.png", b"%PDF-1.7\n", "not a picture"),
        ("a.heic", b"\0\0\0\x18ftypheic" + bytes(60), "a.heic"),
        ("a.png", _png_of_size(14000, 14000), "--max-pixels"),
        ("a.png", _png_of_size(12000, 9000), "--max-pixels"),
        ("a.jpg", _jpeg()[:-900], "damaged"),
        ("a.png", b"\x89PNG\r\n\x1a\n" + bytes(50), "a.png"),
    ],
)
def test_bad_files_are_one_clear_error(tmp_path, name, content, says):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=says):
        read_photo(path)


def test_heic_is_read_with_its_extra_alone(tmp_path, monkeypatch):
    heif = pytest.importorskip("pillow_heif", reason="needs the extra semedit[heic]")
    heif.register_heif_opener()
    path = save(tmp_path / "a.heic", Image.fromarray(COLOURS), format="HEIF", quality=100)
    assert np.abs(read_photo(path).pixels.astype(int) - COLOURS).mean() < 6
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(InputError, match=r"semedit\[heic\]"):
        read_photo(path)


def test_text_bombs_are_refused(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(_text_bomb())
    with pytest.raises(InputError, match="damaged"):
        read_photo(path)


def test_floating_point_has_no_range(tmp_path):
    path = save(tmp_path / "a.tif", Image.fromarray(np.full((4, 4), np.nan, np.float32)))
    with pytest.raises(InputError, match="32-bit"):
        read_photo(path)


def test_no_file_folder_or_pipe(tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "kernel.jpg").symlink_to("/proc/kmsg")  # says that it has 0 bytes
    with (tmp_path / "sparse.jpg").open("wb") as sparse:
        sparse.truncate(1 << 42)
    for name in ("none.jpg", "pipe.jpg", ".", "kernel.jpg", "sparse.jpg"):
        with pytest.raises(InputError):
            read_photo(tmp_path / name)


def test_real_photographs(shared):
    folder = shared / "real" / "images"
    base = read_photo(folder / "pillow_hopper.jpg").pixels.astype(float)
    for name in ("orientation_3.jpg", "orientation_6.jpg", "orientation_8.jpg"):
        pixels = read_photo(folder / f"pillow_hopper_{name}").pixels
        assert np.abs(pixels - base).mean() < 6


# Tensors -----------------------------------------------------------------------------------------


def test_tensors_round_trip():
    tensor = to_tensor(COLOURS)
    assert tensor.shape == (1, 3, 48, 64) and tensor.dtype == torch.float32
    assert tensor.min() >= -1 and tensor.max() <= 1
    assert (to_uint8(tensor)[0] == COLOURS).all()
    assert to_tensor(np.stack([COLOURS] * 2)).shape == (2, 3, 48, 64)
    small = resize(tensor, 16)
    assert small.shape == (1, 3, 16, 16)
    torch.testing.assert_close(small.mean(), tensor.mean(), atol=1e-3, rtol=0)
    assert resize(tensor, (48, 64)) is tensor


# Writing -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_edited_pictures_say_so(tmp_path, suffix):
    path = tmp_path / "new" / f"a{suffix}"
    write_image(path, COLOURS)
    assert b"compositeWithTrainedAlgorithmicMedia" in path.read_bytes()
    with Image.open(path) as image:
        assert "DigitalSourceType" in str(
            image.info.get("xmp", image.info.get("XML:com.adobe.xmp"))
        )
    assert np.abs(read_photo(path).pixels.astype(int) - COLOURS).mean() < 6
    write_image(path, COLOURS, mark=False)
    assert b"DigitalSourceType" not in path.read_bytes()
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    with pytest.raises(InputError, match=r"\.png"):
        write_image(tmp_path / "a.bmp", COLOURS)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    write_bytes(path, b"old")
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError
    assert path.read_bytes() == b"old" and [p.name for p in tmp_path.iterdir()] == ["a.txt"]


# Label maps --------------------------------------------------------------------------------------

MAP = np.arange(19 * 4).reshape(4, 19) % 19


def test_tables_agree():
    assert len(LABELS) == len(PALETTE) == len(set(PALETTE)) == 19
    named = {i for ids in REGIONS.values() for i in ids}
    assert named == set(range(19))
    assert list(ATTRIBUTES) == sorted(ATTRIBUTES) and set(ATTRIBUTES) <= set(CELEBA)
    assert list(CELEBA) == sorted(set(CELEBA)) and len(CELEBA) == 40


def test_label_maps_round_trip(tmp_path):
    path = tmp_path / "a.png"
    write_labels(path, torch.from_numpy(MAP))
    read = read_labels(path)
    assert read.dtype == np.int64 and (read == MAP).all()
    with Image.open(path) as image:
        assert image.mode == "P" and image.info["label-scheme"] == "CelebAMask-HQ"
        assert (np.asarray(image.convert("RGB")) == colorize(MAP)).all()


def test_painted_maps_are_accepted(tmp_path):
    colours = Image.fromarray(colorize(MAP))
    for image in (
        colours,
        colours.convert("RGBA"),
        colours.convert("P", palette=Image.Palette.ADAPTIVE),
        Image.fromarray(MAP.astype(np.uint8)),
        Image.fromarray(np.repeat(MAP.astype(np.uint8)[..., None], 3, 2)),
    ):
        path = save(tmp_path / "a.png", image)
        assert (read_labels(path) == MAP).all()


def test_foreign_colours_and_ids_are_listed(tmp_path):
    colours = colorize(MAP)
    colours[0, 0] = (1, 2, 3)
    with pytest.raises(MaskError, match=r"#010203 \(1 px\)"):
        read_labels(save(tmp_path / "a.png", Image.fromarray(colours)))
    ids = MAP.astype(np.uint8)
    ids[0, :2] = (19, 255)
    with pytest.raises(MaskError, match=r"19 \(1 px\), 255 \(1 px\)"):
        read_labels(save(tmp_path / "a.png", Image.fromarray(ids)))
    with pytest.raises(MaskError, match="19"):
        write_labels(tmp_path / "b.png", ids)


def test_lossy_blended_or_two_valued_maps_are_refused(tmp_path):
    colours = Image.fromarray(colorize(MAP))
    with pytest.raises(MaskError, match=r"must be a PNG, this is JPEG: #[0-9a-f]{6} \("):
        read_labels(save(tmp_path / "a.jpg", colours))
    with pytest.raises(MaskError, match=r"and \d+ more"):
        read_labels(save(tmp_path / "a.png", colours.resize((50, 30), Image.BILINEAR)))
    with pytest.raises(MaskError, match="black-and-white"):
        read_labels(save(tmp_path / "a.png", colours.convert("1")))
    clear = colours.convert("RGBA")
    clear.putalpha(100)
    with pytest.raises(MaskError, match="transparent"):
        read_labels(save(tmp_path / "a.png", clear))


def test_other_label_orders_are_refused(tmp_path):
    bisenet = np.zeros((20, 20), np.uint8)
    bisenet[:8] = 17  # BiSeNet's hair; here it would be a neck above the skin
    bisenet[8:16] = 1
    with pytest.raises(MaskError, match="ambiguous"):
        read_labels(save(tmp_path / "a.png", Image.fromarray(bisenet)))
    info = PngInfo()
    info.add_text("label-scheme", "BiSeNet")
    with pytest.raises(MaskError, match="BiSeNet"):
        read_labels(save(tmp_path / "a.png", Image.fromarray(bisenet), pnginfo=info))


def test_maps_of_another_size():
    fitted, warning = fit_labels(MAP, 4, 19)
    assert fitted is MAP and warning is None
    fitted, warning = fit_labels(MAP, 8, 38)
    assert fitted.shape == (8, 38) and (fitted[::2, ::2] == MAP).all() and "resized" in warning
    with pytest.raises(MaskError, match="19 x 4"):
        fit_labels(MAP, 19, 19)
