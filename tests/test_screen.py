"""The pages in a real browser: a mouth is painted, a report is sorted. Skips without Chromium.

Screenshots are left in SEMEDIT_SCREENSHOTS, where that is set, to be looked at.
"""

import base64
import io
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from command_line import FAST_INVERT, semedit
from PIL import Image

from semedit.batch.workspace import Workspace
from semedit.media.labels import LABELS, PALETTE
from semedit.media.masks import read_labels
from semedit.tasks.demo import examples

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
pytest.importorskip("starlette", reason="needs semedit[web]")
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = [
    pytest.mark.localhost,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium"),
]
MOUTH = LABELS.index("mouth")
WAIT_MS = 120_000  # other work may share the machine
SCREENSHOTS = os.environ.get("SEMEDIT_SCREENSHOTS")  # before tests are cut off from settings
ASKED_S = 1.5  # at the photograph's size; 1.0 is asked at 128 pixels


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """An inverted face, one that is not inverted, and a file that is no picture."""
    folder = tmp_path_factory.mktemp("screen")
    (folder / "raw").mkdir()
    for name, path in zip(("face", "<script>alert(1)"), examples(), strict=False):
        shutil.copyfile(path, folder / "raw" / f"{name}.png")
    (folder / "raw" / "broken 😀 \"'.png").write_bytes(b"no picture")
    semedit("align", folder / "raw", "--work", folder / "work", code=3)
    semedit("invert", "face", *FAST_INVERT, "--work", folder / "work")
    return folder / "work"


@pytest.fixture(scope="module")
def server(work):
    """(address, process) of `semedit paint`."""
    command = [sys.executable, "-m", "semedit.cli", "paint", "--work", str(work), "--json"]
    with subprocess.Popen([*command, "--no-browser"], stdout=subprocess.PIPE) as process:
        yield json.loads(process.stdout.readline())["address"], process.pid
        process.send_signal(signal.SIGINT)
        process.wait(30)


@pytest.fixture
def page(browser):
    """A page whose faults fail the test."""
    page = browser.new_page(viewport={"width": 1440, "height": 1000})
    page.set_default_timeout(WAIT_MS)
    faults = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda said: faults.append(said.text) if said.type == "error" else None)
    page.on("dialog", lambda dialog: faults.append(f"dialog {dialog.message}"))
    yield page
    page.close()
    assert faults == []


@pytest.fixture
def painting(page, server):
    """The page of `paint` with the inverted face open."""
    page.goto(server[0])
    page.locator("#faces button").nth(1).wait_for()
    page.get_by_role("button", name="face", exact=True).click()
    page.wait_for_selector("#result[data-edits='0']")
    until(page, "document.title.startsWith('face')")
    return page


def keep(page, name):
    """A screenshot for who asks for some."""
    if SCREENSHOTS:
        page.screenshot(path=Path(SCREENSHOTS) / f"{name}.png")


def until(page, true):
    """Wait until something is so; the page's own policy forbids Playwright to look in it."""
    ends = time.monotonic() + WAIT_MS / 1000
    while not page.evaluate(true):
        assert time.monotonic() < ends, f"never: {true}"
        page.wait_for_timeout(50)


def spot(page, x, y, size=256):
    """Where a pixel of the map is on the page."""
    box = page.locator("#pointer").bounding_box()
    return box["x"] + x / size * box["width"], box["y"] + y / size * box["height"]


def stroke(page, *points):
    """Paint along some pixels of the map."""
    page.mouse.move(*spot(page, *points[0]))
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*spot(page, *point), steps=4)
    page.mouse.up()


def choose(page, label):
    page.locator("#labels").get_by_text(label, exact=True).click()


def edited(page, count=1):
    """Wait until the picture shows so many edits; returns it, uint8."""
    page.wait_for_selector(f"#result[data-edits='{count}']")
    until(page, "document.getElementById('busy').hidden")
    return pixels(page.locator("#result").get_attribute("src"))


def pixels(url):
    data = base64.b64decode(url.split(",", 1)[1])
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def on_the_map(page):
    """The label map as the page shows it: ids [S,S]."""
    url = page.evaluate("document.getElementById('map').toDataURL()")
    colours = pixels(url)
    return (colours[..., None, :] == np.array(PALETTE)).all(-1).argmax(-1)


def mouth_of(work):
    """Middle of the mouth of the face, and half its width, px."""
    labels = read_labels(Workspace(work).path("masks", "face", ".png"))
    rows, columns = np.where(np.isin(labels, (MOUTH, 11, 12)))
    return columns.mean(), rows.mean(), (columns.max() - columns.min()) / 2


def processor_s(pid):
    """Seconds of processor time that a process took so far; None where the system does not say."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return None
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def crowding():
    """How many times longer work takes here now than on a quiet machine."""
    begun, used = time.perf_counter(), time.process_time()
    while time.process_time() - used < 0.3:
        sum(range(1000))
    return (time.perf_counter() - begun) / 0.3


def test_a_mouth_is_painted_followed_and_saved(painting, work):
    x, y, half = mouth_of(work)
    before = pixels(painting.locator("#result").get_attribute("src"))
    keep(painting, "paint-before")
    choose(painting, "mouth inside")
    stroke(painting, (x - half, y + 6), (x, y + 12), (x + half, y + 6))
    after = edited(painting)
    keep(painting, "paint-after")
    changed = np.abs(after - before).max(-1) > 12
    rows, columns = np.where(changed)
    assert changed.sum() > 20  # near the mouth
    assert abs(columns.mean() - x) < half and abs(rows.mean() - y) < 40
    drawn = on_the_map(painting)
    assert drawn[round(y + 12), round(x)] == MOUTH
    painting.locator("summary").click()
    painting.get_by_role("button", name="Save").click()
    painting.wait_for_selector("#saved:not([hidden])")
    keep(painting, "paint-saved")
    said = painting.locator("#saved").inner_text()
    assert said.startswith("Saved drawn/face/01.png, edits/face/01-canonical.png")
    assert (read_labels(work / "drawn/face/01.png") == drawn).all()
    receipt = Workspace(work).receipt("edit", "face/01-canonical")
    assert receipt["status"] == "done" and receipt["inputs"]["mask"][0] == "drawn/face/01.png"
    picture = np.asarray(Image.open(work / "edits/face/01-canonical.png")).astype(int)
    assert (picture == after).all()
    command = painting.locator("#commands pre").inner_text()
    lines = semedit(*shlex.split(command)[1:], "--json")
    assert (lines[0]["name"], lines[0]["status"]) == ("face/01-canonical", "uptodate")


def test_the_picture_follows_a_stroke_within_a_second(painting, server, work):
    x, y, half = mouth_of(work)
    choose(painting, "mouth inside")
    crowded, waited, used = crowding(), [], []
    for i in range(4):
        before = processor_s(server[1])
        painting.evaluate("delete document.getElementById('result').dataset.edits")
        stroke(painting, (x - half, y + 8 + 2 * i), (x + half, y + 8 + 2 * i))
        edited(painting)
        waited.append(int(painting.locator("#result").get_attribute("data-ms")) / 1000)
        if before is not None:
            used.append(processor_s(server[1]) - before)
    crowded = max(crowded, crowding())
    told = f"{waited} s, processor {used} s, crowded {crowded:.1f} times"
    print(told)
    assert min(waited) <= ASKED_S * max(1.0, crowded), told
    assert not used or min(used) <= 2 * ASKED_S, told  # of two processors


def test_strokes_are_undone_erased_filled_and_picked(painting, work):
    x, y, _ = mouth_of(work)
    own = on_the_map(painting)
    choose(painting, "hat")
    stroke(painting, (60, 40), (190, 40))
    edited(painting)
    painted = on_the_map(painting)
    assert (painted == LABELS.index("hat")).sum() > 12 * 120
    painting.keyboard.press("Control+z")
    edited(painting, 0)
    assert (on_the_map(painting) == own).all()
    painting.keyboard.press("Control+Shift+z")
    edited(painting)
    assert (on_the_map(painting) == painted).all()
    painting.get_by_role("button", name="Erase").click()
    painting.locator("#size").fill("64")
    stroke(painting, (50, 40), (200, 40))
    edited(painting, 0)
    assert (on_the_map(painting) == own).all()
    painting.get_by_role("button", name="Pick").click()
    painting.mouse.click(*spot(painting, x, y - 40))
    picked = painting.evaluate("document.querySelector('#labels :checked').value")
    assert int(picked) == own[int(y - 40), int(x)]
    painting.get_by_role("button", name="Fill").click()
    choose(painting, "hat")
    rows, columns = np.where(own == LABELS.index("hair"))
    middle = len(rows) // 2
    painting.mouse.click(*spot(painting, columns[middle] + 0.5, rows[middle] + 0.5))
    edited(painting)
    filled = on_the_map(painting)
    assert (filled[own == LABELS.index("hair")] == LABELS.index("hat")).mean() > 0.8
    assert (filled[own != LABELS.index("hair")] == own[own != LABELS.index("hair")]).all()


def test_the_keyboard_alone_paints(painting):
    own = on_the_map(painting)
    canvas = painting.locator("#pointer")
    for _ in range(60):
        painting.keyboard.press("Tab")
        if canvas.evaluate("node => node === document.activeElement"):
            break
    assert canvas.evaluate("node => node === document.activeElement")
    keep(painting, "paint-focus")
    painting.keyboard.press("]")
    for _ in range(8):
        painting.keyboard.press("Shift+ArrowDown")
    painting.keyboard.press("Enter")
    edited(painting)
    assert (on_the_map(painting) != own).sum() > 50


def test_fingers_paint_and_two_of_them_zoom(browser, server):
    context = browser.new_context(has_touch=True, viewport={"width": 390, "height": 844})
    page = context.new_page()
    page.set_default_timeout(WAIT_MS)
    page.goto(server[0])
    page.get_by_role("button", name="face", exact=True).tap()
    page.wait_for_selector("#result[data-edits='0']")
    until(page, "document.title.startsWith('face')")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.locator("#labels").scroll_into_view_if_needed()
    bar = page.locator("header").bounding_box()["height"]
    for seen, top in (("#beside", 0), ("#status", 0), ("#stage", bar), ("#labels", bar)):
        box = page.locator(seen).bounding_box()  # all in sight at once
        assert box["y"] >= top and box["y"] + box["height"] <= 845 and box["width"] > 90, seen
    keep(page, "paint-phone")
    own = on_the_map(page)
    page.touchscreen.tap(*spot(page, 128, 60))
    edited(page)
    assert (on_the_map(page) != own).sum() > 20
    touch = context.new_cdp_session(page)
    for kind, apart in (("touchStart", 40), ("touchMove", 60), ("touchMove", 120)):
        points = [
            {"x": spot(page, 128, 0)[0] + side * apart / 2, "y": spot(page, 0, 128)[1], "id": side}
            for side in (-1, 1)
        ]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    assert page.locator("#zoom-said").inner_text() != "100 %"
    context.close()


def test_sliders_views_and_textures_chain_with_undo(painting):
    before = pixels(painting.locator("#result").get_attribute("src"))
    painting.locator("#sliders").get_by_role("slider", name="young").fill("2")
    aged = edited(painting)
    assert np.abs(aged - before).mean() > 1
    painting.get_by_label("Number").fill("7")
    painting.get_by_role("button", name="Texture").click()
    edited(painting, 2)
    assert painting.locator("#chain li").all_inner_texts() == ["young +2", "hair texture 7"]
    command = painting.locator("#commands pre").text_content()
    assert "--direction young --strength 2 --from " in command
    assert "--texture-seed 7 --region hair" in command
    painting.locator("#yaw").fill("25")
    until(painting, "document.getElementById('status').textContent.includes('Edited')")
    keep(painting, "paint-turned")
    painting.keyboard.press("Control+z")
    edited(painting, 1)
    painting.locator("#yaw").fill("0")
    painting.keyboard.press("Control+z")
    edited(painting, 0)


def test_many_faces_are_found_by_their_names(browser, server):
    page = browser.new_page()
    page.set_default_timeout(WAIT_MS)

    def as_if_many(route):
        offers = route.fetch().json()
        offers["faces"] += [f"holiday/Ana {i}" for i in range(30)]
        route.fulfill(json=offers)

    page.route("**/faces", as_if_many)
    page.goto(server[0])
    page.locator("#faces button").nth(31).wait_for()
    page.get_by_label("Find a face by its name").fill("ana 2")
    shown = page.locator("#faces button:visible").all_inner_texts()
    assert shown == ["holiday/Ana 2", *(f"holiday/Ana {i}" for i in range(20, 30))]
    page.close()


def test_finish_tells_of_its_progress_and_is_cancelled(painting, work):
    x, y, half = mouth_of(work)
    choose(painting, "mouth inside")
    stroke(painting, (x - half, y + 10), (x + half, y + 10))
    edited(painting)
    painting.get_by_role("button", name="Finish").click()
    until(painting, "document.getElementById('progress').value > 0.1")
    keep(painting, "paint-finish")
    painting.get_by_role("button", name="Cancel").click()
    edited(painting, 1)
    assert painting.locator("#chain li").all_inner_texts() == ["drawing"]
    assert painting.get_by_role("button", name="Finish").is_enabled()


def test_a_face_without_inversion_is_inverted_from_the_page(painting, work):
    painting.get_by_role("button", name="<script>alert(1)").click()
    painting.wait_for_selector("#invert-first:not([hidden])")
    keep(painting, "paint-invert")
    assert painting.get_by_role("button", name="Finish").is_disabled()
    painting.get_by_role("button", name="Invert this face").click()
    painting.wait_for_selector("#invert-first", state="hidden")
    painting.wait_for_selector("#result[src]")
    assert Workspace(work).receipt("invert", "<script>alert(1)")["status"] == "done"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_pages_are_accessible(browser, server, work, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    semedit("report", "--work", work)
    report = (work / "report.html").as_uri()
    for name, address in (("paint", server[0]), ("report", report)):
        # axe is a script of the test's own
        context = browser.new_context(color_scheme=scheme, bypass_csp=True)
        page = context.new_page()
        page.set_default_timeout(WAIT_MS)
        page.goto(address)
        if name == "paint":
            until(page, "document.title.includes(' - ')")
        keep(page, f"{name}-{scheme}")
        found = axe.run(page)
        assert found.violations_count == 0, found.generate_report()
        context.close()


def test_the_report_is_sorted_filtered_and_slid(page, work):
    semedit("edit", "face", "--direction", "young", "--work", work)
    semedit("turntable", "face", "--frames", "8", "--work", work)
    semedit("report", "--work", work)
    page.goto((work / "report.html").as_uri())
    shown = page.locator("article:visible h2")
    assert set(shown.all_inner_texts()) == {"face", "<script>alert(1)", "broken 😀 \"'"}
    page.get_by_label("Sort by").select_option("attribute: smiling")
    smiles = page.evaluate(
        """[...document.querySelectorAll("article")]
            .map((one) => JSON.parse(one.dataset.figures)["attribute: smiling"] ?? null)"""
    )
    assert smiles[-1] is None and smiles[0] >= smiles[1]
    page.get_by_role("button", name="Descending").click()
    told = page.locator("article .value").all_text_contents()  # of who has none, nothing
    assert next(text for text in told if text).startswith("attribute: smiling")
    page.get_by_label("failed").uncheck()
    assert page.locator("article:visible").count() == 2
    page.get_by_label("Command").select_option("turntable")
    assert shown.all_inner_texts() == ["face"]
    slider = page.get_by_label("Before and after", exact=False).last
    slider.fill("90")
    pair = slider.locator("xpath=..")
    assert pair.evaluate("node => node.style.getPropertyValue('--cut')") == "90%"
    clip = pair.locator(".before").evaluate("node => getComputedStyle(node).clipPath")
    assert clip.startswith("inset(0px") and "10%" in clip  # the right tenth is after
    keep(page, "report-filtered")
    moving = page.locator(".turntable").get_attribute("src")
    page.get_by_role("button", name="Turntables play").click()
    assert page.locator(".turntable").get_attribute("src") != moving
    page.get_by_label("Find").fill("nobody of this name")
    assert page.get_by_text("No face is left by these filters.").is_visible()
