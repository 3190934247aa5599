"""Nothing is guessed in silence: colours, label orders and recipes mean what they say, or are
refused with the reason."""

import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms
from safetensors.torch import save_file
from typer.testing import CliRunner

from semedit import latents
from semedit.batch.workspace import Workspace
from semedit.checkpoints.arrays import read_arrays
from semedit.cli.app import app
from semedit.directions import published
from semedit.errors import InputError, LatentError, MaskError, OptionError, SemeditError, ShapeError
from semedit.generators.stylegan2.stylegan2 import StyleGAN2, StyleGAN2Config
from semedit.inverters.codes import check_faces
from semedit.media import decoding
from semedit.media.labels import LABELS
from semedit.media.masks import parts_in, read_ids, read_labels, write_labels
from semedit.media.orders import ORDERS
from semedit.media.photographs import read_photo, write_image
from semedit.media.pixels import to_tensor, to_uint8
from semedit.media.toml import read_toml
from semedit.tasks import read_face, read_latent
from semedit.tasks.drawn import drawn_maps, every_map, read_drawn, read_map
from tests.tiny import TinyGenerator, small_stylegan2


@pytest.fixture(autouse=True)
def closed():
    yield
    decoding.close()


# Colours -----------------------------------------------------------------------------------------

# Colorants of profiles, adapted to D50: red, green, blue, as such profiles have them.
P3 = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))
SRGB = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410))
# sRGB's red in other spaces, and a grey, 128 of sRGB.
RED, RED_P3, RED_ADOBE = (255, 0, 0), (234, 51, 35), (219, 0, 0)
LINEAR_GREY = 55


def profile(name, colorants, gamma):
    """A matrix profile of ICC version 2."""

    def fixed(*values):
        return struct.pack(f">{len(values)}i", *(round(v * 65536) for v in values))

    text = name.encode()
    description = b"desc" + bytes(4) + struct.pack(">I", len(text) + 1) + text + bytes(1 + 78)
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256))
    tags = {b"desc": description, b"cprt": b"text" + bytes(4) + b"none\0"}
    tags[b"wtpt"] = b"XYZ " + bytes(4) + fixed(0.9642, 1, 0.8249)
    for letter, colorant in zip(b"rgb", colorants, strict=True):
        tags[bytes([letter]) + b"XYZ"] = b"XYZ " + bytes(4) + fixed(*colorant)
        tags[bytes([letter]) + b"TRC"] = curve
    table, body, at = b"", b"", 128 + 4 + 12 * len(tags)
    for tag, data in tags.items():
        table += tag + struct.pack(">II", at + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    size = at + len(body)
    head = struct.pack(">I4sI4s4s4s", size, bytes(4), 0x02200000, b"mntr", b"RGB ", b"XYZ ")
    head += bytes(12) + b"acsp" + bytes(28) + fixed(0.9642, 1, 0.8249)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def flat(colour, mode="RGB"):
    return Image.new(mode, (8, 6), colour)


def with_chunks(path, image, *chunks):
    """A PNG with chunks behind its header, (kind, content)."""
    image.save(path)
    data = path.read_bytes()
    for kind, content in reversed(chunks):
        whole = kind + content
        packed = struct.pack(">I", len(content)) + whole + struct.pack(">I", zlib.crc32(whole))
        data = data[:33] + packed + data[33:]
    path.write_bytes(data)
    return path


def cicp(primaries, transfer, full=1):
    return b"cICP", bytes([primaries, transfer, 0, full])


def gama(value):
    return b"gAMA", struct.pack(">I", round(value * 100_000))


def chrm(*corners):
    return b"cHRM", struct.pack(">8I", *(round(v * 100_000) for v in corners))


P3_CORNERS = (0.3127, 0.329, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)


def shows(path, colour, *notes):
    photo = read_photo(path)
    assert np.abs(photo.pixels.astype(int) - colour).max() <= 2, photo.pixels[0, 0]
    assert len(photo.warnings) == len(notes)
    assert all(part in whole for part, whole in zip(notes, photo.warnings, strict=True))


@pytest.mark.parametrize("name", ["Display P3", "sRGB, as it says", ""])
def test_profiles_are_judged_by_their_colours(tmp_path, name):
    kinds = {"png": {}, "webp": {"lossless": True}, "tif": {}}
    for suffix, options in kinds.items():
        path = tmp_path / f"a.{suffix}"
        flat(RED_P3).save(path, icc_profile=profile(name, P3, 2.2), **options)
        shows(path, RED)
    flat(LINEAR_GREY, "L").convert("RGB").save(path, icc_profile=profile(name, SRGB, 1.0))
    shows(path, 128)
    flat((*RED_P3, 255), "RGBA").save(tmp_path / "a.png", icc_profile=profile(name, P3, 2.2))
    shows(tmp_path / "a.png", RED)
    palette = flat(RED_P3).quantize(2)
    palette.save(tmp_path / "a.png", icc_profile=profile(name, P3, 2.2))
    shows(tmp_path / "a.png", RED)


def test_what_is_srgb_is_left_alone(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (20, 20, 3), np.uint8)
    own = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(noise).save(tmp_path / "a.png", icc_profile=own)
    assert (read_photo(tmp_path / "a.png").pixels == noise).all()
    for chunk in (gama(0.45455), cicp(1, 13), (b"sRGB", b"\0"), cicp(2, 2)):
        path = with_chunks(tmp_path / "a.png", Image.fromarray(noise), chunk)
        assert np.abs(read_photo(path).pixels.astype(int) - noise).max() <= 1
        assert read_photo(path).warnings == ()


PNG = {
    "linear light": (LINEAR_GREY, [gama(1.0)], 128),
    "an old Macintosh": (round(255 * (128 / 255) ** (2.2 / 1.8)), [gama(1 / 1.8)], 128),
    "P3 by its corners": (RED_P3, [gama(0.45455), chrm(*P3_CORNERS)], RED),
    "P3 by code": (RED_P3, [cicp(12, 13)], RED),
    "linear by code": (LINEAR_GREY, [cicp(1, 8)], 128),
    "of video": (128, [cicp(1, 1)], 140),
    "a code counts more than gamma": (LINEAR_GREY, [cicp(1, 8), gama(0.45455)], 128),
    "sRGB counts more than gamma": (77, [(b"sRGB", b"\0"), gama(1.0)], 77),
    "narrow black": (16, [cicp(1, 13, 0)], 0),
    "narrow white": (235, [cicp(1, 13, 0)], 255),
}


@pytest.mark.parametrize("name", PNG)
def test_png_says_what_its_numbers_mean(tmp_path, name):
    colour, chunks, wanted = PNG[name]
    colour = colour if isinstance(colour, tuple) else (colour,) * 3
    shows(with_chunks(tmp_path / "a.png", flat(colour), *chunks), wanted)


@pytest.mark.parametrize("transfer, white", [(16, 148), (18, 191)])
def test_high_dynamic_range_is_told(tmp_path, transfer, white):
    path = with_chunks(tmp_path / "a.png", flat((white,) * 3), cicp(9, transfer))
    shows(path, 255, "high dynamic range")
    path = with_chunks(tmp_path / "a.png", flat((white // 2,) * 3), cicp(9, transfer))
    assert 40 < read_photo(path).pixels[0, 0, 0] < 180


def test_what_cannot_be_is_noted_and_ignored(tmp_path):
    grey = flat((77, 77, 77))
    shows(with_chunks(tmp_path / "a.png", grey, gama(0.0)), 77, "gAMA")
    line = chrm(0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3)
    shows(with_chunks(tmp_path / "a.png", grey, gama(0.45455), line), 77, "cHRM")
    shows(with_chunks(tmp_path / "a.png", grey, cicp(99, 13)), 77, "cICP")
    grey.save(tmp_path / "a.tif", icc_profile=profile("x", P3, 2.2)[:300])
    shows(tmp_path / "a.tif", 77, "profile")
    grey.convert("CMYK").save(tmp_path / "a.tif", icc_profile=profile("x", P3, 1.0))
    shows(tmp_path / "a.tif", 77, "profile of RGB in a picture of CMYK")


def test_exif_marks_adobe_rgb(tmp_path):
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA005] = {1: "R03"}
    flat(RED_ADOBE).save(tmp_path / "a.webp", exif=exif, lossless=True)
    shows(tmp_path / "a.webp", RED)
    exif.get_ifd(0x8769)[0xA005] = {1: "R98"}
    flat(RED_ADOBE).save(tmp_path / "a.webp", exif=exif, lossless=True)
    shows(tmp_path / "a.webp", RED_ADOBE)


def test_grey_stays_grey_and_a_tint_a_tint(tmp_path):
    ramp = np.tile(np.arange(256, dtype=np.uint8), (8, 1))
    grey = Image.fromarray(ramp)
    for image in (grey, grey.convert("RGB"), grey.convert("LA")):
        for options in ({}, {"icc_profile": profile("P3", P3, 1.8)}):
            image.save(tmp_path / "a.png", **options)
            found = read_photo(tmp_path / "a.png").pixels
            assert (found == found[..., :1]).all()
            assert (np.diff(found[0, :, 0].astype(int)) >= 0).all()
    sepia = np.stack([ramp, (ramp * 0.8).astype(np.uint8), (ramp * 0.6).astype(np.uint8)], -1)
    Image.fromarray(sepia).save(tmp_path / "a.png")
    assert (read_photo(tmp_path / "a.png").pixels == sepia).all()


# Recipes -----------------------------------------------------------------------------------------

STEP = '[[step]]\ncommand = "align"\n'


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder to work in, with one picture that shows nobody."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "raw").mkdir()
    flat((90, 90, 90)).save(tmp_path / "raw" / "nobody.png")
    return tmp_path


def plan(recipe, text, code):
    """Plan a recipe; what was said, in one line each."""
    recipe.write_bytes(text if isinstance(text, bytes) else text.encode())
    result = CliRunner().invoke(app, ["run", recipe.name, "--dry-run"])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.output


GOOD = 'inputs = ["raw"]\n' + STEP
READ = {
    "mark": b"\xef\xbb\xbf" + GOOD.encode(),
    "Windows lines": GOOD.replace("\n", "\r\n").encode(),
    "old lines": GOOD.replace("\n", "\r").encode(),
    "UTF-16": GOOD.encode("utf-16"),
    "UTF-16, big": b"\xfe\xff" + GOOD.encode("utf-16-be"),
    "UTF-32": GOOD.encode("utf-32"),
    "one input": 'inputs = "raw"\n' + STEP,
    "dashes": GOOD + 'min-face = 40\non-no-face = "fail"\n',
    "text for a number": GOOD + 'size = "256"\n',
    "single quotes": "inputs = ['./raw']\n" + STEP,
}


@pytest.mark.parametrize("name", READ)
def test_recipes_are_read_as_people_save_them(here, name):
    assert "would run" in plan(here / "r.toml", READ[name], 0)


REFUSED = {
    "new line": (f'work = "D:\\new\\temp"\n{GOOD}', "line 1", r"'D:\new\temp'"),
    "second of a list": (f'inputs = ["raw",\n  "C:\\temp"]\n{STEP}', "line 2", r"'C:\temp'"),
    "no escape at all": (f'inputs = ["C:\\Users\\me"]\n{STEP}', "line 1", r"'C:\Users\me'"),
    "end of the quotes": (f'inputs = ["C:\\"]\n{STEP}', "line 1", "single quotes"),
    "a drive": (f"inputs = ['C:\\Users\\me']\n{STEP}", "line 1", "path of Windows"),
    "folders": (f"inputs = ['raw']\nwork = 'my\\work'\n{STEP}", "line 2", "write my/work"),
    "home": (f'inputs = ["$HOME/photos"]\n{STEP}', "line 1", "write ~/photos"),
    "variable": (f'inputs = ["%USERPROFILE%/photos"]\n{STEP}', "line 1", "write ~/photos"),
    "curly": (f"inputs = [“raw”]\n{STEP}", "line 1", 'inputs = ["raw"]'),
    "yaml": ("inputs: raw\nsteps:\n  - align\n", "line 1", "YAML"),
    "bare text": (f"inputs = raw\n{STEP}", "line 1", "inputs = 'raw'"),
    "True": (f"{GOOD}overwrite = True\n", "line 4", "overwrite = true"),
    "yes": (f'{GOOD}overwrite = "yes"\n', "line 4", "true or false"),
    "Latin-1": (f'# f\xfcr\n{GOOD}'.encode("latin-1"), "line 1", "UTF-8"),
    "UTF-16 without a mark": (GOOD.encode("utf-16-le"), "r.toml", "UTF-8"),
    "half of UTF-16": (GOOD.encode("utf-16")[:-1], "r.toml", "UTF-8"),
    "steps": ('inputs = ["raw"]\n[[steps]]\ncommand = "align"\n', "line 2", "[[step]]"),
    "one step": ('inputs = ["raw"]\n[step]\ncommand = "align"\n', "line 2", "[[step]]"),
    "command": (GOOD + '[[step]]\ncommand = "atrr"\n', "line 5", "did you mean attr"),
    "comand": ('[[step]]\ncomand = "align"\n', "line 2", "command"),
    "option": (GOOD + "sizes = 3\n", "line 4", "did you mean size"),
    "option of a later step": (
        GOOD + 'size = 100\n[[step]]\ncommand = "attr"\nsize = 3\n', "line 7", "size"
    ),
    "shared option": (f"devise = 'cpu'\n{GOOD}", "line 1", "did you mean device"),
    "value": (GOOD + "\nsize = 'x'\n", "line 3", "size"),
    "nothing": ("", "r.toml", "[[step]]"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_recipes_that_say_something_else_are_refused_with_the_line(here, name):
    text, place, says = REFUSED[name]
    told = plan(here / "r.toml", text, 2)
    assert told.startswith("error: r.toml") and told.count("\n") == 1
    assert place in told and says in told
    assert not (here / "semedit-work").exists()


def test_settings_files_are_read_alike(here):
    (here / "semedit.toml").write_bytes(b'\xef\xbb\xbf[align]\r\nwork = "D:\\new"\r\n')
    with pytest.raises(InputError, match=r"semedit.toml: line 2: a backslash"):
        read_toml("semedit.toml")
    told = CliRunner().invoke(app, ["align", "raw"])
    assert told.exit_code == 2 and "line 2" in told.output and r"'D:\new'" in told.output


def test_a_plan_without_its_inputs_ends_with_4(here):
    assert "nowhere" in plan(here / "r.toml", 'inputs = ["nowhere"]\n' + STEP, 4)
    later = GOOD + '[[step]]\ncommand = "align"\ninputs = ["nowhere"]\n'
    assert "nowhere" in plan(here / "r.toml", later, 4)
    plan(here / "r.toml", '[[step]]\ncommand = "attr"\nsmiling = true\n', 4)


def test_the_other_name_of_a_switch(here):
    resolved = GOOD + '[[step]]\ncommand = "attr"\nno-smiling = true\n'
    assert "yet to make" in plan(here / "r.toml", resolved, 0)


# Label maps --------------------------------------------------------------------------------------


def face_map(size=64):
    """A face of many parts, drawn by rule."""
    y, x = np.mgrid[:size, :size] / size
    ids = np.zeros((size, size), np.int64)

    def put(label, top, bottom, left, right):
        ids[(y >= top) & (y < bottom) & (x >= left) & (x < right)] = LABELS.index(label)

    put("hair", 0.1, 0.6, 0.2, 0.8)
    put("cloth", 0.85, 1, 0.1, 0.9)
    put("neck", 0.7, 0.87, 0.4, 0.6)
    put("skin", 0.25, 0.75, 0.3, 0.7)
    put("l_ear", 0.4, 0.5, 0.7, 0.75)
    put("l_brow", 0.35, 0.38, 0.55, 0.65)
    put("r_brow", 0.35, 0.38, 0.35, 0.45)
    put("l_eye", 0.41, 0.45, 0.55, 0.65)
    put("r_eye", 0.41, 0.45, 0.35, 0.45)
    put("nose", 0.45, 0.57, 0.46, 0.54)
    put("u_lip", 0.61, 0.63, 0.42, 0.58)
    put("mouth", 0.63, 0.65, 0.42, 0.58)
    put("l_lip", 0.65, 0.68, 0.42, 0.58)
    return ids


OWN = face_map()
SHORN = np.where(np.isin(OWN, LABELS.index("hair")) & (np.mgrid[:64, :64][0] > 20), 0, OWN)


def in_order(ids, order):
    """A map in the numbers of another order: the last that stands for the label."""
    numbers = np.zeros(len(LABELS), np.uint8)
    for number, entry in enumerate(ORDERS[order]):
        for label in entry.split() if number else ():
            if order != "CIHP" or not label.startswith(("l_ear", "r_ear", "ear_r")):
                numbers[LABELS.index(label)] = number
    return numbers[ids]


def grey_file(path, numbers, **options):
    Image.fromarray(numbers.astype(np.uint8)).save(path, **options)
    return path


@pytest.mark.parametrize("drawn", [OWN, SHORN], ids=["own", "shorn"])
def test_numbers_of_bisenet_are_understood_by_the_face(tmp_path, drawn):
    path = grey_file(tmp_path / "a.png", in_order(drawn, "BiSeNet"))
    found, told = read_drawn({"mask": path}, (OWN,))
    assert (found == drawn).all() and "label order of BiSeNet" in told[0]
    large = np.kron(in_order(drawn, "BiSeNet"), np.ones((2, 2), np.uint8))
    found, told = read_drawn({"mask": grey_file(tmp_path / "b.png", large)}, (OWN,))
    assert (found == drawn).all() and "resized" in told[0] and "BiSeNet" in told[1]


def test_our_own_numbers_stay_our_own(tmp_path):
    found, told = read_drawn({"mask": grey_file(tmp_path / "a.png", SHORN)}, (OWN,))
    assert (found == SHORN).all() and told == ()
    write_labels(tmp_path / "b.png", SHORN)
    found, told = read_drawn({"mask": tmp_path / "b.png"}, (np.flipud(OWN),))
    assert (found == SHORN).all() and told == ()  # the file says what it is


def test_cihp_has_one_number_for_the_face_whose_parts_stay(tmp_path):
    path = grey_file(tmp_path / "a.png", in_order(SHORN, "CIHP"))
    found, told = read_drawn({"mask": path}, (OWN,))
    assert (found == SHORN).all() and "label order of CIHP" in told[0]
    assert set(np.unique(OWN)) - set(np.unique(found)) == set()  # eyes, nose and lips are there
    limbs = in_order(SHORN, "CIHP")
    limbs[-3:] = 14  # an arm, of which no face has a label
    with pytest.raises(MaskError, match="CIHP 0%"):
        read_drawn({"mask": grey_file(tmp_path / "a.png", limbs)}, (OWN,))


def test_palettes_of_other_tools_are_numbers(tmp_path):
    image = Image.fromarray(in_order(SHORN, "BiSeNet")).convert("P")
    image.putpalette(np.random.default_rng(0).integers(1, 250, 768).astype(np.uint8).tobytes())
    image.save(tmp_path / "a.png")
    found, told = read_drawn({"mask": tmp_path / "a.png"}, (OWN,))
    assert (found == SHORN).all() and "BiSeNet" in told[0]
    assert read_ids(tmp_path / "a.png").order is None


def test_maps_that_fit_no_order_are_refused(tmp_path):
    for numbers in (np.rot90(in_order(OWN, "BiSeNet"), 2),):
        with pytest.raises(MaskError, match="do not say which labels") as error:
            read_drawn({"mask": grey_file(tmp_path / "a.png", numbers)}, (OWN,))
        assert "BiSeNet" in error.value.message and "paint" in error.value.hint
    with pytest.raises(MaskError, match=r"no label: 200"):
        read_drawn({"mask": grey_file(tmp_path / "a.png", np.full((64, 64), 200))}, (OWN,))


def test_overlays_are_refused(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3))
    blended = (picture + 40 * OWN[..., None] % 200) // 2
    Image.fromarray(blended.astype(np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(MaskError, match="colours that are no label") as error:
        read_drawn({"mask": tmp_path / "a.png"}, (OWN,))
    assert "overlay" in error.value.hint
    picture = Image.fromarray(blended.astype(np.uint8))
    picture.save(tmp_path / "a.jpg")
    with pytest.raises(MaskError, match="must be a PNG"):
        read_drawn({"mask": tmp_path / "a.jpg"}, (OWN,))


def write_parts(folder, name, ids):
    folder.mkdir(exist_ok=True, parents=True)
    for number in np.unique(ids)[1:]:
        part = np.kron(255 * (ids == number), np.ones((2, 2))).astype(np.uint8)
        Image.fromarray(part).convert("RGB").save(folder / f"{name}_{LABELS[number]}.png")
    return folder


def workspace(tmp_path, *names):
    """Label maps of faces, and nothing else."""
    space = Workspace(tmp_path / "work")
    for name in names:
        write_labels(space.path("masks", name, ".png"), OWN)
    return space


@pytest.mark.parametrize(
    "prefix, name", [("a", "a"), ("00007", "7"), ("anything", "face"), ("b", "sub/b")]
)
def test_a_folder_of_parts_is_a_map(tmp_path, prefix, name):
    folder = tmp_path / "parts"
    write_parts(folder / name.rpartition("/")[0], prefix, SHORN)
    (files,) = drawn_maps(workspace(tmp_path, name), [name], folder).values()
    found, told = read_drawn(files, (OWN,))
    assert (found == SHORN).all() and told == ("mask resized from 128 x 128 to 64 x 64",)
    (drawn,) = every_map(folder / name.rpartition("/")[0]).values()
    assert (read_map(drawn)[::2, ::2] == SHORN).all()


def test_parts_belong_to_the_face_of_their_name(tmp_path):
    folder = write_parts(tmp_path / "parts", "a", SHORN)
    write_parts(folder, "b", OWN)
    write_labels(folder / "c.png", OWN)
    names = ["a", "b", "c", "d"]
    found = drawn_maps(workspace(tmp_path, *names), names, folder)
    assert sorted(found) == ["a", "b", "c"] and list(found["c"]) == ["mask"]
    assert (read_drawn(found["a"], (OWN,))[0] == SHORN).all()
    assert sorted(every_map(folder)) == ["a", "b", "c"]
    assert not drawn_maps(workspace(tmp_path, *names), ["d", "e"], folder)


def test_parts_that_are_none_are_refused(tmp_path):
    folder = write_parts(tmp_path / "parts", "a", OWN)
    ramp = np.tile(np.arange(128, dtype=np.uint8) * 2, (128, 1))
    Image.fromarray(ramp).save(folder / "a_hair.png")
    files = drawn_maps(workspace(tmp_path, "a"), ["a"], folder)["a"]
    with pytest.raises(MaskError, match=r"a_hair.png: .* black and white"):
        read_drawn(files, (OWN,))
    Image.new("L", (9, 9)).save(folder / "a_hair.png")
    with pytest.raises(MaskError, match=r"several sizes: .*9 x 9"):
        read_drawn(files, (OWN,))


def test_the_face_of_a_map_is_found_in_any_order(tmp_path):
    space = workspace(tmp_path, "upright", "turned")
    write_labels(space.path("masks", "turned", ".png"), np.rot90(OWN))
    path = grey_file(tmp_path / "x.png", in_order(SHORN, "BiSeNet"))
    assert list(drawn_maps(space, ["turned", "upright"], path)) == ["upright"]
    with pytest.raises(OptionError, match="not clear"):
        drawn_maps(space, ["turned"] * 2, path)


# Numbers of other kinds --------------------------------------------------------------------------


def test_other_numbers_are_one_error_of_our_own(tmp_path):
    generator = small_stylegan2()
    images, labels, c = torch.zeros(1, 3, 16, 16), torch.zeros(1, 16, 16).long(), torch.zeros(1, 25)
    check_faces(generator, images, labels, c)
    for given in (
        (images.double(), labels, c),
        (images.byte(), labels, c),
        (images, labels.float(), c),
        (images, labels, c.double()),
    ):
        with pytest.raises(ShapeError, match="takes images, labels, c as float32"):
            check_faces(generator, *given)
    for kind in (np.float64, np.float32, np.int64):
        with pytest.raises(ShapeError, match="uint8"):
            to_tensor(np.zeros((4, 4, 3), kind))
        with pytest.raises(ShapeError, match="uint8"):
            write_image(tmp_path / "a.png", np.zeros((4, 4, 3), kind))
    with pytest.raises(ShapeError, match="floating point"):
        to_uint8(torch.zeros(1, 3, 4, 4).byte())
    with pytest.raises(MaskError, match="whole numbers, not float64"):
        write_labels(tmp_path / "a.png", np.zeros((4, 4)))
    assert not list(tmp_path.iterdir())


def test_codes_of_other_numbers_are_one_error(tmp_path):
    generator = TinyGenerator().requires_grad_(False)
    codes, c = generator.sample(1)
    print_ = latents.fingerprint(generator)
    for kind in (torch.float64, torch.uint8, torch.float16):
        latent = latents.Latent({"ws": codes["ws"].to(kind)}, c, generator.name, print_, "x")
        with pytest.raises(LatentError, match=f"ws of the latent is {str(kind)[6:]}, not float32"):
            latents.picture(generator, latent)
    facts = {"kind": "latent", "generator": "tiny", "fingerprint": print_, "method": "x"}
    for kind, name in ((torch.float64, "F64"), (torch.uint8, "U8")):
        held = {"code.ws": codes["ws"].to(kind), "c": c}
        save_file(held, tmp_path / "x.safetensors", facts)
        with pytest.raises(LatentError, match=f"stored as {name}, not as F32"):
            latents.load(str(tmp_path / "x.safetensors"), generator)


def test_readers_take_paths_as_text(tmp_path):
    generator = TinyGenerator().requires_grad_(False)
    codes, c = generator.sample(1)
    latent = latents.Latent(codes, c, "tiny", latents.fingerprint(generator), "x")
    path = str(tmp_path / "x.safetensors")
    latent.save(path)
    torch.testing.assert_close(latents.load(path, generator).codes["ws"], codes["ws"])
    torch.testing.assert_close(read_latent(path, generator).codes["ws"], codes["ws"])
    picture, labels = str(tmp_path / "a.png"), str(tmp_path / "b.png")
    write_image(picture, np.zeros((4, 4, 3), np.uint8))
    write_labels(labels, OWN)
    assert not read_photo(picture).pixels.any() and (read_labels(labels) == OWN).all()
    assert not decoding.read_photo(picture).pixels.any()
    assert (decoding.read_ids(labels).values == OWN).all()
    np.save(tmp_path / "a.npy", np.ones(3))
    assert read_arrays(str(tmp_path / "a.npy"))[""].sum() == 3
    with pytest.raises(InputError, match=r"none\.json"):
        read_face(str(tmp_path / "none.json"))


# The cases that people met -----------------------------------------------------------------------


def test_the_cases_behave_as_their_list_says(shared, here):
    cases = shared / "cases"
    if not cases.is_dir():
        pytest.skip("no cases there")
    _colours(cases / "icc")
    _maps(cases / "label-maps")
    _directions(cases / "directions")
    _recipes(cases / "recipes", here)
    grey = read_photo(cases / "grey" / "grey.jpg").pixels
    assert (grey == grey[..., :1]).all()
    red, green, blue = read_photo(cases / "grey" / "sepia.jpg").pixels.mean((0, 1))
    assert red > green + 5 > blue + 10


def _colours(folder):
    wanted = read_photo(folder / "srgb.png").pixels.astype(int)
    for path in sorted(folder.iterdir()):
        photo = read_photo(path)
        found = photo.pixels.astype(int)
        if "grey" in path.name:
            luma = np.asarray(Image.fromarray(wanted.astype(np.uint8)).convert("L"), int)
            assert abs(found.mean() - luma.mean()) <= 4 and (found == found[..., :1]).all()
            continue
        assert np.abs((found - wanted).mean((0, 1))).max() <= 3, path
        assert photo.warnings == ()


def _maps(folder):
    for path in sorted(folder.glob("bisenet_*.png")):
        if "overlay" in path.name:
            with pytest.raises(MaskError, match="overlay"):
                read_ids(path)
            continue
        numbers = read_ids(path).values
        own = np.array([LABELS.index(name) for name in ORDERS["BiSeNet"]])[numbers]
        found, told = read_drawn({"mask": path}, (own,))
        assert (found == own).all() and "BiSeNet" in told[0]
        with pytest.raises(MaskError):
            read_drawn({"mask": path}, (np.rot90(own, 2),))
    short = folder / "bisenet_short_hair.png"  # the face that the others were made from
    own = np.array([LABELS.index(name) for name in ORDERS["BiSeNet"]])[read_ids(short).values]
    found, told = read_drawn({"mask": folder / "cihp.png"}, (own,))
    assert (found == own).mean() > 0.99 and "CIHP" in told[0]
    parts = {f"mask.{label}": path for label, path in parts_in(folder / "parts")["a"].items()}
    assert (read_drawn(parts, (own,))[0] == own).mean() > 0.99


def _directions(folder):
    torch.manual_seed(0)
    generator = StyleGAN2(StyleGAN2Config(128, (4,) * 6, 256, 256, mapping_layers=1), "g")
    refused = {"eighteen.pt", "ffhq_512wide.pt", "projected.npz", "several.pt"}
    for path in sorted(folder.iterdir()):
        try:
            found = published.import_directions(generator, path, samples=20)
        except SemeditError as error:
            assert path.name in refused and "\n" not in str(error)
            continue
        assert path.name not in refused and len(found.units) == 1
    found = published.import_directions(generator, folder / "several.pt", samples=20, key="age")
    assert list(found.units) == ["several"]


def _recipes(folder, here):
    codes = dict.fromkeys((path.name for path in folder.iterdir()), 2)
    read = ("bom_crlf", "dash", "invertlist", "sizestr", "strinputs", "sub", "utf16")
    codes |= {f"{name}.toml": 0 for name in read} | {"missing.toml": 4, "nosmile.toml": 4}
    for name, code in codes.items():
        told = plan(here / name, (folder / name).read_bytes(), code)
        assert code != 2 or (name in told and told.count("\n") == 1)
