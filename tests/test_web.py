"""What a page, a report and a sheet are made of, and who may ask the page for what."""

import http.client
import io
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from command_line import FAST_INVERT, semedit
from PIL import Image
from rich.console import Console

from semedit.batch.holdings import Event, Holding, holding, holdings, numbers
from semedit.batch.status import status
from semedit.batch.workspace import FORMAT, Workspace
from semedit.errors import InputError, MaskError, NothingMatchedError, OptionError, SemeditError
from semedit.faces import photo_of
from semedit.media.files import write_bytes
from semedit.media.labels import LABELS
from semedit.media.masks import read_labels, write_labels
from semedit.media.photographs import write_image
from semedit.renders import write_animation
from semedit.tasks.demo import examples
from semedit.tasks.sheet import sheet, write_sheet

pytest.importorskip("starlette", reason="needs semedit[web]")
MOUTH = LABELS.index("mouth")
ODD = ("<script>alert(1)", "\"quotes\" & 'more'", "folder/emoji 😀")


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Faces of odd names, one of them inverted, and photographs that failed."""
    folder = tmp_path_factory.mktemp("web")
    for name, path in zip(ODD, examples(), strict=True):
        target = folder / "raw" / f"{name}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    shutil.copyfile(examples()[0], folder / "raw" / "face.png")
    (folder / "raw" / "broken.png").write_bytes(b"no picture")
    Image.fromarray(np.zeros((200, 200, 3), np.uint8) + 90).save(folder / "raw" / "nobody.png")
    semedit("align", folder / "raw", "--work", folder / "work", code=3)
    semedit("invert", "face", *FAST_INVERT, "--work", folder / "work")
    return folder / "work"


@pytest.fixture
def own(work, tmp_path):
    """A copy of the workspace, to be written to."""
    return shutil.copytree(work, tmp_path / "work")


@pytest.fixture(scope="module")
def studio(work):
    from semedit.web.studio import Studio

    return Studio(Workspace(work))


def silent(done, total):
    pass


def painted(work, name="face"):
    """The face's own map with an open mouth, as the bytes of a PNG, and as labels."""
    labels = read_labels(Workspace(work).path("masks", name, ".png"))
    rows, columns = np.where(np.isin(labels, (11, 12)))
    labels[rows.min() : rows.max(), columns.min() : columns.max()] = MOUTH
    path = work.parent / "painted.png"
    write_labels(path, labels)
    return path.read_bytes(), labels


# Holdings ----------------------------------------------------------------------------------------


def test_holdings_tell_of_faces_and_of_photographs_without(work):
    found = {one.name: one for one in holdings(Workspace(work))}
    assert set(found) == {*ODD, "face", "broken", "nobody"}
    assert found["broken"].status == "failed" and "picture" in found["broken"].events[0].message
    assert found["nobody"].status == "skipped" and found["nobody"].photograph is not None
    assert found["face"].inversion is not None and found["face"].figures["invert: psnr_db"] > 5
    assert found[ODD[0]].crop is not None and found[ODD[0]].inversion is None


def test_holdings_are_chosen_by_name_status_and_glob(work):
    space = Workspace(work)
    assert [one.name for one in holdings(space, ["face"])] == ["face"]
    assert [one.name for one in holdings(space, select="failed,skipped")] == ["broken", "nobody"]
    assert [one.name for one in holdings(space, select="folder/*")] == [ODD[2]]
    with pytest.raises(NothingMatchedError):
        holdings(space, select="warned")


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        ({"psnr_db": 25.5, "perceptual": "faces"}, {"psnr_db": 25.5}),
        ({"probability": [[0.5], [0.7]]}, {"probability": 0.6}),
        ({"drift": {"identity": 0.9, "held": True}}, {"drift identity": 0.9}),
        ({"error": float("nan"), "none": [], "region": [0.25]}, {"region": 0.25}),
    ],
)
def test_numbers_among_figures(figures, expected):
    assert numbers(figures) == pytest.approx(expected)


def test_the_worst_event_is_a_faces_status():
    done, warned = Event("a", "x", "done"), Event("b", "x", "done", warnings=("odd",))
    failed = Event("c", "x", "error", message="no")
    assert Holding("x", events=(done,)).status == "done"
    assert Holding("x", events=(done, warned)).status == "warned"
    assert Holding("x", events=(failed, warned, done)).status == "failed"


def test_what_is_held_is_found_in_one_walk(tmp_path, monkeypatch):
    """10,000 faces: neither each receipt looks at each face, nor each face at each file."""
    space = Workspace(tmp_path)
    receipt = {"format": FORMAT, "status": "done", "fingerprint": "", "inputs": {}, "outputs": {},
               "warnings": [], "figures": {}, "error": None, "batch": []}  # fmt: skip
    names = [f"f{i}@{k}" if k > 1 else f"f{i}" for i in range(20) for k in (1, 2)]
    for name in names:
        write_bytes(space.path("faces", name, ".json"), b"{}")
        write_bytes(space.path("latents", name, ".safetensors"), b"")
    for i in range(20):
        told = receipt | {"name": f"f{i}", "warnings": [f"w{i}"]}
        write_bytes(space.receipt_path("align", f"f{i}"), json.dumps(told).encode())
    calls, walks = [], []
    monkeypatch.setattr("semedit.batch.holdings.photo_of", lambda n: calls.append(n) or photo_of(n))
    rglob = Path.rglob
    monkeypatch.setattr(Path, "rglob", lambda p, what: walks.append(what) or rglob(p, what))
    found = holdings(space)
    assert {one.name: one.events[0].warnings for one in found} == {
        name: (f"w{photo_of(name)[1:]}",) for name in names
    }
    assert len(calls) <= 3 * len(names)
    status(space)
    assert len(walks) <= 11


# Report ------------------------------------------------------------------------------------------


def test_a_report_needs_nothing_beside_it_and_escapes_names(own):
    semedit("report", "--work", own)
    text = (own / "report.html").read_text("utf-8")
    body = text[text.index("<body>") : text.rindex("<script>")]
    assert "<script" not in body and "&lt;script&gt;alert(1)" in body
    assert "&#34;quotes&#34; &amp; &#39;more&#39;" in body and "emoji 😀" in body
    assert not re.findall(r'(?:src|href)="(?!data:)[^"]', text)
    assert not re.findall(r"url\((?!data:)", text) and "@import" not in text
    assert len(text) < 200_000 * 6
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text).group(1)
    assert "default-src &#39;none&#39;" in policy or "default-src 'none'" in policy


def test_many_faces_make_pages_sorted_as_a_whole(own):
    lines = semedit("report", "--work", own, "--per-page", 2, "--sort", "attribute: smiling",
                    "--json")  # fmt: skip
    assert [path.rsplit("/", 1)[1] for path in lines[0]["files"]] == [
        "report.html",
        "report-2.html",
        "report-3.html",
    ]
    values = []
    for path in lines[0]["files"]:
        text = Path(path).read_text("utf-8")
        values += re.findall(r"attribute: smiling&#34;: ([\d.e-]+)", text)
        assert 'href="report-2.html"' in text
    assert len(values) == 4 and values == sorted(values, key=float, reverse=True)


def test_further_pages_of_an_earlier_report_go_and_nothing_else(own):
    semedit("report", "--work", own, "--per-page", 1)
    semedit("report", "face", "--work", own, "--output", own / "report-9.html")
    (own / "report-10.html").write_text("a page of mine")
    (own / "report-8.html").mkdir()
    assert (own / "report-6.html").is_file()
    semedit("report", "--work", own, "--per-page", 3)
    left = {path.name for path in own.glob("report*.html")}
    assert left == {"report.html", "report-2.html"} | {f"report-{i}.html" for i in (8, 9, 10)}


def test_reports_and_sheets_refuse_what_they_cannot_do(own):
    assert "there is" in semedit("report", "--work", own, "--sort", "beauty", code=2)
    assert ".html" in semedit("report", "--work", own, "--output", own / "a.pdf", code=2)
    assert "hairdo" in semedit("sheet", "--work", own, "--columns", "crop,hairdo", code=2)
    assert ".png" in semedit("sheet", "--work", own, "--output", own / "a.docx", code=2)
    assert "align" in semedit("report", "--work", own / "nowhere", code=4)


def test_a_damaged_picture_leaves_its_place_empty(own):
    (own / "faces" / "face.png").write_bytes(b"\x89PNG\r\n\x1a\n no")
    (own / "faces" / f"{ODD[0]}.json").write_text("{")
    semedit("report", "--work", own)
    text = (own / "report.html").read_text("utf-8")
    assert 'alt="inversion of face"' in text and 'alt="crop of face"' not in text
    assert semedit("sheet", "--work", own, "--json")[0]["faces"] == 4


# Sheet -------------------------------------------------------------------------------------------


def test_a_sheet_has_a_row_a_face_and_a_column_a_picture(tmp_path):
    space = Workspace(tmp_path)
    write_image(space.path("faces", "a", ".png"), np.full((64, 64, 3), (0, 200, 0), np.uint8))
    write_labels(space.path("masks", "a", ".png"), np.ones((64, 64), np.int64))
    frames = np.zeros((8, 32, 32, 3), np.uint8)
    frames[2], frames[6] = (250, 0, 250), (0, 250, 250)  # a quarter, and three, of the loop
    write_animation(space.path("turntables", "a", ".webp"), frames)
    found = sheet([holding(space, "a")], ("crop", "map", "right", "left"), cell=100)
    for colour in ((0, 200, 0), (204, 0, 0), (250, 0, 250), (0, 250, 250)):
        near = np.abs(found.astype(int) - colour).max(-1) < 12
        assert near.sum() > 0.9 * 100**2, colour
    assert found.shape[0] < 250


def test_a_sheet_is_a_picture_or_a_pdf_of_pages(own):
    faces = [one for one in holdings(Workspace(own)) if one.crop]
    assert write_sheet(own / "sheet.png", faces, ("crop", "map"), cell=64) == 1
    with Image.open(own / "sheet.png") as image:
        assert image.height > 4 * 64 and b"compositeWith" in (own / "sheet.png").read_bytes()
    assert write_sheet(own / "sheet.pdf", faces, ("crop",), cell=64, rows=3) == 2
    data = (own / "sheet.pdf").read_bytes()
    assert data.startswith(b"%PDF") and data.count(b"/Type /Page\n") == 2
    with pytest.raises(OptionError, match="too large"):
        write_sheet(own / "large.png", faces * 40, ("crop", "map"), cell=1024)


# In the terminal ---------------------------------------------------------------------------------


def terminal(*arguments, lines=40, columns=120):
    """What a command writes to a terminal of that size, in UTF-8."""
    pty = pytest.importorskip("pty", reason="needs a system with pseudo-terminals")
    termios, fcntl = pytest.importorskip("termios"), pytest.importorskip("fcntl")
    inner, outer = pty.openpty()
    fcntl.ioctl(outer, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor"}
    environment = {name: environment[name] for name in environment if name != "NO_COLOR"}
    command = [sys.executable, "-m", "semedit.cli", *map(str, arguments)]
    with subprocess.Popen(
        command, stdin=outer, stdout=outer, stderr=subprocess.STDOUT, env=environment
    ):
        os.close(outer)
        found = b""
        while True:
            try:
                data = os.read(inner, 1 << 16)
            except OSError:  # Linux, of a terminal that nobody holds open
                break
            if not data:
                break
            found += data
    os.close(inner)
    return found.decode(errors="replace")


def test_status_shows_pictures_in_a_terminal_that_answers_nothing(work):
    pytest.importorskip("textual_image", reason="needs semedit[web]")
    found = terminal("status", "--pictures", "face", "--work", work)
    assert "Traceback" not in found
    blocks = re.findall("(?:\x1b\\[[\\d;]*m)*[▀▄]", found)
    assert len(blocks) > 8 * 3 * 12  # lines, three pictures, each of some columns
    assert re.search(r"48;2;(20[0-9]|19[0-9]);\d;\dm", found)  # the skin of the label map
    assert "in a terminal" in terminal(
        "status", "--pictures", "--work", work, lines=0, columns=0
    )  # of an unknown size


def test_status_shows_sixels_where_the_terminal_knows_them(work, monkeypatch):
    renderable = pytest.importorskip("textual_image.renderable", reason="needs semedit[web]")
    monkeypatch.setattr(renderable, "Image", renderable.SixelImage)
    monkeypatch.setattr("semedit.cli.status._is_screen", lambda: True)
    screen = Console(file=io.StringIO(), force_terminal=True, width=100)
    monkeypatch.setattr("semedit.cli.status.stdout", screen)
    semedit("status", "--pictures", "face", "--work", work)
    found = screen.file.getvalue()
    assert found.count("\x1bP") == 1 and found.count("\x1b\\") == 1


def test_pictures_are_for_terminals_and_names_do_not_rule_them(work, tmp_path, monkeypatch):
    assert "in a terminal" in semedit("status", "--pictures", "--work", work, code=2)
    (summary,) = semedit("status", "--pictures", "--json", "--work", work, code=2)
    assert summary["interrupted"] and "in a terminal" in summary["ended_by"]["message"]
    monkeypatch.setattr("semedit.cli.status._is_screen", lambda: True)
    monkeypatch.setitem(sys.modules, "textual_image.renderable", None)
    assert "semedit[web]" in semedit("status", "--pictures", "--work", work, code=2)
    write_bytes(Workspace(tmp_path).path("faces", "a\x1b[2Jb", ".json"), b"{}")
    assert "\x1b[2J" not in semedit("status", "--work", tmp_path)


# Studio ------------------------------------------------------------------------------------------


def test_a_drawing_is_followed_and_saved_as_the_command_line_does(own):
    from semedit.web.studio import Studio

    studio = Studio(Workspace(own))
    data, labels = painted(own)
    chain = [
        {"kind": "mask", "map": studio.keep_map("face", data)},
        {"kind": "direction", "name": "young", "strength": 1.5},
    ]
    shown = studio.state("face", "latents", chain, silent)
    assert not (own / "edits").exists() and not (own / "drawn").exists()
    saved = studio.save("face", "latents", chain, silent)
    assert [one.name for one in saved] == ["face/01-canonical", "face/02-young+1.5"]
    assert (read_labels(own / "drawn/face/01.png") == labels).all()
    picture = np.asarray(Image.open(own / "edits/face/02-young+1.5.png"))
    assert np.abs(picture.astype(int) - shown.pixels).max() <= 2  # codes on the disk are rounded
    # The commands that are shown do the same, to the byte.
    commands = studio.commands("face", "latents", chain, saved)
    made = [own / f"edits/face/{name}.safetensors" for name in ("01-canonical", "02-young+1.5")]
    made += [own / f"receipts/edit/{one.name}.json" for one in saved]
    before = [path.read_bytes() for path in made]
    again = [line for c in commands for line in semedit(*_words(c), "--json")]
    assert [line["status"] for line in again if "name" in line] == ["uptodate"] * 2
    shutil.rmtree(own / "edits")
    shutil.rmtree(own / "receipts/edit")
    assert studio.commands("face", "latents", chain) != []
    for command in commands:
        semedit(*_words(command))
    assert [path.read_bytes() for path in made] == before
    # The first step was drawn on the photograph, so it is compared with that.
    (found,) = holdings(Workspace(own), ["face"])
    pictures = [step.before for step in found.edits]
    assert pictures == [own / "faces/face.png", own / "edits/face/01-canonical.png"]
    semedit(
        "edit", "face", "--direction", "young", "--from", "latents", "--no-detail", "--work", own
    )
    (found,) = holdings(Workspace(own), ["face"])
    assert found.edits[-1].before == own / "latents/face.png"


def _words(command):
    import shlex

    return shlex.split(command)[1:]


def test_the_same_drawing_is_saved_once(own):
    from semedit.web.studio import Studio

    studio = Studio(Workspace(own))
    chain = [{"kind": "mask", "map": studio.keep_map("face", painted(own)[0])}]
    first = studio.save("face", "latents", chain, silent)
    second = studio.save("face", "latents", chain, silent)
    assert (first[0].status, second[0].status) == ("done", "uptodate")
    assert len(list((own / "drawn/face").iterdir())) == 1


def test_views_turn_and_textures_and_attributes_change_the_face(studio):
    base = studio.state("face", "latents", [], silent)
    assert (studio.view(base, 0, 0) == base.pixels).all()
    turned = studio.view(base, 25, 0)
    assert turned.shape == (128, 128, 3)  # the generator's own
    assert np.abs(turned.astype(int) - base.pixels[::2, ::2]).mean() > 5
    chain = [{"kind": "texture", "region": "hair", "seed": 3}]
    hair = studio.state("face", "latents", chain, silent).pixels
    assert np.array_equal(base.pixels, studio.photograph("face"))  # nothing was edited
    assert np.abs(hair.astype(int) - base.pixels).max() > 5
    command = studio.commands("face", "latents", chain)
    assert "--texture-seed 3 --region hair --from latents" in command[0]
    assert (
        "attr --no-smiling"
        in studio.commands(
            "face", "latents", [{"kind": "attribute", "name": "smiling", "wanted": False}]
        )[0]
    )


@pytest.mark.parametrize(
    ("step", "error"),
    [
        ({"kind": "shell", "name": "x"}, OptionError),
        ({"kind": "direction", "name": "young", "strength": "much"}, OptionError),
        ({"kind": "direction", "name": "no such", "strength": 1}, OptionError),
        ({"kind": "attribute", "name": "rich", "wanted": True}, OptionError),
        ({"kind": "texture", "region": "hair", "donor": "/etc/passwd"}, OptionError),
        ({"kind": "transfer", "regions": "hair", "donor": "../../x"}, OptionError),
        ({"kind": "texture", "region": "hair", "donor": ODD[0]}, InputError),  # not inverted
        ({"kind": "mask", "map": "../../masks/face"}, InputError),
        ({}, OptionError),
    ],
)
def test_steps_that_cannot_be_are_refused(studio, step, error):
    with pytest.raises(error):
        studio.state("face", "latents", [step], silent)


def test_maps_must_be_maps_of_the_faces_size(studio, work, tmp_path):
    _, labels = painted(work)
    small, photo = tmp_path / "small.png", tmp_path / "photo.png"
    write_labels(small, labels[::2, ::2])
    write_image(photo, np.random.default_rng(0).integers(0, 255, (256, 256, 3), dtype=np.uint8))
    for wrong in (small, photo):
        with pytest.raises(MaskError):
            studio.keep_map("face", wrong.read_bytes())
    for suffix in ("BMP", "GIF"):  # of the right colours and size
        file = io.BytesIO()
        Image.open(io.BytesIO(painted(work)[0])).save(file, suffix)
        with pytest.raises(InputError, match="no PNG file"):
            studio.keep_map("face", file.getvalue())
    with pytest.raises(InputError, match="no PNG file"):
        studio.keep_map("face", b"<svg onload=alert(1)>")


def test_a_map_of_another_size_is_not_even_decoded(studio, work, monkeypatch):
    data = bytearray(painted(work)[0])
    data[16:24] = struct.pack(">II", 30_000, 30_000)
    monkeypatch.setattr("semedit.web.studio.read_labels", lambda path: pytest.fail("decoded"))
    monkeypatch.setattr(studio, "_own", lambda name: np.zeros((256, 256), np.int64))
    with pytest.raises(MaskError, match="30000 x 30000 pixels, the face 256 x 256"):
        studio.keep_map("face", bytes(data))


@pytest.mark.parametrize("folder", ["drawn", "drawn/face", "edits"])
def test_nothing_is_saved_through_a_link_that_leads_out(own, tmp_path, folder):
    from semedit.web.studio import Studio

    (tmp_path / "elsewhere").mkdir()
    (own / folder).parent.mkdir(exist_ok=True)
    (own / folder).symlink_to(tmp_path / "elsewhere")
    studio = Studio(Workspace(own))
    chain = [{"kind": "mask", "map": studio.keep_map("face", painted(own)[0])}]
    with pytest.raises(SemeditError, match="leads out of"):
        studio.save("face", "latents", chain, silent)
    assert not list((tmp_path / "elsewhere").iterdir())


# Server ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def address(work):
    """The page of `semedit paint` in a process of its own."""
    command = [sys.executable, "-m", "semedit.cli", "paint", "--work", str(work), "--json"]
    with subprocess.Popen([*command, "--no-browser"], stdout=subprocess.PIPE) as process:
        yield json.loads(process.stdout.readline())["address"]
        process.send_signal(signal.SIGINT)
        assert process.wait(30) in (0, 130, -signal.SIGINT)


def ask(address, path="", method="GET", body=None, token=True, **headers):
    """The status and the body of an answer."""
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    target = (parts.path if token else "/") + path
    connection.request(method, target, body, {"host": parts.netloc, **headers})
    answer = connection.getresponse()
    return answer.status, answer.read(), dict(answer.getheaders())


JSON = {"content_type": "application/json"}


@pytest.mark.localhost
def test_nothing_is_answered_without_the_token(address):
    assert ask(address)[0] == 200 and ask(address, "faces")[0] == 200
    parts = urlsplit(address)
    for path in ("", "faces", "paint.js", "x" * 32 + "/faces", parts.path[1:-1]):
        status, body, _ = ask(address, path, token=False)
        assert (status, body) == (403, b""), path


@pytest.mark.localhost
@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"host": "evil.example:80"},
        {"host": ""},
        {"host": "127.0.0.1"},
        {"host": "127.0.0.1:1"},
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:1"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site", "sec_fetch_mode": "cors"},
    ],
)
def test_another_host_or_origin_is_refused(address, headers):
    for method, path, body in (
        ("GET", "", None),
        ("GET", "faces", None),
        ("POST", "faces/0/edit", b"{}"),
        ("POST", "faces/0/save", b"{}"),
        ("OPTIONS", "faces/0/save", None),
    ):
        status, said, told = ask(address, path, method, body, **JSON, **headers)
        assert (status, said) == (403, b"")
        assert not [name for name in told if name.startswith("access-control")]


@pytest.mark.localhost
def test_only_this_machine_reaches_the_page(address):
    """The kernel's list of listening sockets has the port at 127.0.0.1, and nowhere else."""
    lists = [Path("/proc/net/tcp"), Path("/proc/net/tcp6")]
    if not lists[0].is_file():
        pytest.skip("needs Linux")
    rows = [row.split() for one in lists if one.is_file() for row in one.open()]
    port, listens = f":{urlsplit(address).port:04X}", "0A"
    found = [row[1] for row in rows if row[1].endswith(port) and row[3] == listens]
    assert found == [f"0100007F{port}"]
    assert len(urlsplit(address).path.strip("/")) >= 32  # 24 random bytes


@pytest.mark.localhost
@pytest.mark.parametrize(
    "path",
    [
        "../../etc/passwd",
        "..%2f..%2fetc%2fpasswd",
        "%2e%2e/%2e%2e/etc/passwd",
        "/etc/passwd",
        "paint.html",
        "studio.py",
        "faces/0/../../receipts",
        "faces/99",
        "faces/-1",
        "faces/face/photograph.png",
        "faces/0/photograph.png/../../x",
    ],
)
def test_no_path_leads_out(address, path):
    status, body, _ = ask(address, path)
    assert status in (403, 404) and b"root:" not in body


@pytest.mark.localhost
def test_answers_forbid_what_the_page_does_not_need(address):
    _, _, headers = ask(address)
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"
    for name in ("", "paint.js", "map.js", "look.css", "paint.css"):
        text = ask(address, name)[1].decode()
        assert not re.search(r"https?://(?!www\.w3\.org)", text), name  # works offline


@pytest.mark.localhost
def test_uploads_are_maps_of_a_size(address, work):
    names = json.loads(ask(address, "faces")[1])["faces"]
    to = f"faces/{names.index('face')}/maps"
    data, _ = painted(work)
    assert ask(address, to, "POST", data)[0] == 200
    for wrong in (b"", b"text", b"<script>", data[:100]):
        status, body, _ = ask(address, to, "POST", wrong)
        assert status == 422 and b"the map that was sent" in body
    assert ask(address, to, "POST", b"0" * (9 << 20))[0] == 413
    assert ask(address, to, "POST", iter([b"0" * (1 << 20)] * 9))[0] == 413  # of untold length
    assert ask(address, "faces/0/edit", "POST", iter([b"0" * (1 << 20)] * 9), **JSON)[0] == 413
    assert ask(address, to, "GET")[0] == 405


@pytest.mark.localhost
@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"no json", 400),
        (b"[]", 400),
        (b'{"chain": 5}', 400),
        (b'{"chain": [5]}', 400),
        (b'{"start": 5}', 400),
        (b'{"yaw_deg": "x"}', 400),
    ],
)
def test_questions_that_are_none_are_refused(address, body, status):
    assert ask(address, "faces/0/edit", "POST", body, **JSON)[0] == status
    assert ask(address, "faces/0/edit", "POST", body, content_type="text/plain")[0] == 415


@pytest.mark.localhost
def test_what_fails_is_told_in_one_sentence(address):
    names = json.loads(ask(address, "faces")[1])["faces"]
    for index, question, said in (
        (names.index(ODD[0]), {}, "has no latent"),
        (names.index("face"), {"start": "../../x"}, "no step"),
        (names.index("face"), {"chain": [{"kind": "x"}]}, "no such kind"),
    ):
        body = json.dumps(question).encode()
        status, answer, _ = ask(address, f"faces/{index}/edit", "POST", body, **JSON)
        lines = [json.loads(line) for line in answer.splitlines()]
        assert status == 200 and said in lines[-1]["error"]["message"]


def test_without_the_extra_the_command_says_so(work, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.setitem(sys.modules, "semedit.web.server", None)
    assert "semedit[web]" in semedit("paint", "--work", work, "--no-browser", code=2)
