"""Search for faces: pyramid, tiles, borders; scenes to learn from; what the record says."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from made_faces import Fixed, a_face, a_pipeline, turned

from semedit.datasets import scenes
from semedit.errors import NoFaceError
from semedit.faces import FLAGS, Face, align, detect, networks, pipeline, search, singleshot
from semedit.faces.singleshot import LARGEST, SMALLEST, STRIDE, DetectorNet, DetectorOutput
from semedit.media.photographs import Photo
from semedit.tasks import align as task
from semedit.trainers import detector as trainer

# The search -------------------------------------------------------------------------------------


class Spots(torch.nn.Module):
    """Takes every white spot for the middle of a face of 20 px, upright."""

    def forward(self, images: torch.Tensor) -> DetectorOutput:
        light = torch.nn.functional.avg_pool2d(images.mean(1, keepdim=True), STRIDE)[:, 0]
        size = torch.full_like(light, 20.0)
        points = torch.tensor([(-0.4, -0.4), (0.4, -0.4), (0.0, 0.0), (-0.3, 0.4), (0.3, 0.4)])
        grid = singleshot.middles(*light.shape[1:])
        places = grid + 20.0 * points[None, :, :, None, None]
        return DetectorOutput(20 * (light + 0.9), size, places)


def spotted(height: int, width: int, places: list[tuple[int, int]], side: int = 9) -> np.ndarray:
    picture = np.zeros((height, width, 3), np.uint8)
    for x, y in places:
        picture[y - side // 2 : y + side // 2 + 1, x - side // 2 : x + side // 2 + 1] = 255
    return picture


@pytest.mark.parametrize("min_face", [20, 32, 50])
def test_a_face_is_recovered_to_a_cell(min_face: int) -> None:
    places = [(60, 40), (333, 222), (190, 10), (391, 150)]
    picture = spotted(300, 400, places)
    found = search.propose(Spots(), picture, min_face, 0.5)
    scale = search.scales(300, 400, min_face)[0]
    for place in places:
        apart = [np.hypot(*(one.points[2] - place)) for one in found]
        assert min(apart) <= STRIDE / scale, place
        one = found[int(np.argmin(apart))]
        assert one.size == pytest.approx(20 / scale, rel=0.02)


def test_faces_on_both_sides_of_every_tile_are_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "TILE", 320)
    places = [(x, 200) for x in range(40, 2000, 110)]
    picture = spotted(400, 2000, places)
    found = search.propose(Spots(), picture, 20, 0.5)
    scale = search.scales(400, 2000, 20)[0]
    own = [one for one in found if one.size < 25 / scale]  # of the level that is large enough
    near = [sum(np.hypot(*(one.points[2] - p)) < 16 for one in own) for p in places]
    assert near == [1] * len(places)


@pytest.mark.parametrize("length", [1, 500, 1536, 1537, 3000, 8750, 40000])
def test_tiles_show_every_stretch_whole(length: int) -> None:
    found = search.tiles(length)
    assert found[0].first == found[0].start == 0
    assert found[-1].last == found[-1].end == length
    assert all(a.last == b.first for a, b in pairwise(found))
    assert max(tile.end - tile.start for tile in found) <= search.TILE
    for tile, other in pairwise(found):
        assert tile.end - other.start >= search.SHARED
        assert min(tile.end - tile.last, other.first - other.start) >= search.SHARED // 2


@pytest.mark.parametrize("shape", [(128, 128), (1024, 1024), (900, 14000), (3024, 4032)])
@pytest.mark.parametrize("min_face", [8, 16, 32, 64, 200])
def test_the_pyramid_reaches_every_size(shape: tuple[int, int], min_face: int) -> None:
    levels = search.scales(*shape, min_face)
    smallest = search.reached(min_face) / search.LANDMARKS_PER_SIZE
    assert smallest <= max(min_face, 10)
    for size in np.geomspace(min(smallest, max(shape)), max(shape), 60):
        if size < smallest:
            continue
        seen = [size * scale for scale in levels]
        assert any(0.99 * SMALLEST <= one <= 1.01 * LARGEST for one in seen), size


def test_what_is_too_small_to_be_searched_is_said() -> None:
    assert search.reached(32) == 32
    assert search.reached(2) == search.LANDMARKS_PER_SIZE * SMALLEST / search.MAGNIFIED


def test_other_libraries_look_again_where_faces_would_be_too_small() -> None:
    picture = np.zeros((3000, 4000, 3), np.uint8)
    small, large = detect.looks(picture, 1024, 32)
    assert max(small[0].shape) == 1024
    assert large[1] * 32 >= detect.SEEN - 0.1
    assert len(detect.looks(picture[:800, :800], 1024, 32)) == 1


def test_sizes_and_turns_of_points() -> None:
    five = align.five_points(a_face(scale=100))
    quad = align.face_quad(five)
    assert singleshot.size_of(five) == pytest.approx(np.hypot(*(quad[3] - quad[0])) / 2)
    for angle in (0.0, 1.2, -2.9, 3.1):
        moved = turned(a_face(), angle)
        assert align.turn_rad(align.face_quad(moved)) == pytest.approx(angle)
        assert singleshot.turn_of(align.five_points(moved)) == pytest.approx(angle, abs=0.02)


def test_pictures_of_any_shape_go_in() -> None:
    network = DetectorNet(widths=(4, 4, 4, 4, 4)).eval().requires_grad_(False)
    out = network(torch.zeros(2, 3, 90, 161))
    assert out.heat.shape == (2, 12, 21)
    assert out.points.shape == (2, 5, 2, 12, 21)
    assert float(out.heat.sigmoid().max()) < 0.1  # untrained, it sees nothing


# What it learns from ----------------------------------------------------------------------------


def a_scene(places: list[tuple[float, float, float]], counts: bool = True) -> scenes.Scene:
    """A black scene of 128 px with upright faces of (x, y, size)."""
    shape = align.five_points(a_face(x=0, y=0, scale=100))
    shape = shape / singleshot.size_of(shape)
    shape -= shape.mean(0)
    points = [np.array([x, y]) + size * shape for x, y, size in places]
    return scenes.Scene(
        np.zeros((128, 128, 3), np.uint8),
        np.array(points, np.float32).reshape(-1, 5, 2),
        np.array([size for _, _, size in places]),
        np.full(len(places), counts),
    )


def test_targets_say_where_faces_are() -> None:
    scene = a_scene([(43.0, 61.0, 40.0), (100.0, 20.0, 18.0)])
    truth = trainer.targets([scene])
    out = DetectorOutput(torch.logit(truth.heat, 1e-4), truth.log_size.exp(), truth.points)
    rows = singleshot.peaks(out.heat[0], 0.9)
    assert rows.tolist() == [[2, 12], [7, 5]]
    assert out.size[0, 7, 5] == pytest.approx(40, rel=1e-5)
    np.testing.assert_allclose(out.points[0][..., 7, 5], scene.points[0], atol=1e-4)
    assert float(trainer.heat_loss(out.heat, truth)) < 0.2
    assert float(trainer.heat_loss(-out.heat, truth)) > 5
    size, points = trainer.place_loss(out, truth)
    assert float(size) < 1e-5
    assert float(points) < 1e-6


def test_faces_that_do_not_count_are_neither_found_nor_missed() -> None:
    nothing = torch.full((1, 16, 16), -8.0)
    hidden = trainer.targets([a_scene([(64.0, 64.0, 30.0)], counts=False)])
    seen = trainer.targets([a_scene([(64.0, 64.0, 30.0)])])
    said = nothing.clone()
    said[0, 8, 8] = 8
    assert float(trainer.heat_loss(nothing, seen)) > 5
    assert float(trainer.heat_loss(nothing, hidden)) < 0.01
    assert float(trainer.heat_loss(said, hidden)) < 0.01
    assert float(trainer.heat_loss(said, trainer.targets([a_scene([])]))) > 5


def a_head(random: np.random.Generator) -> scenes.CutOut:
    """A grey disc with a red spot at each of its five points, cut out of green."""
    points = a_face(x=80, y=75, scale=80)
    y, x = np.mgrid[:160, :160]
    labels = (np.hypot(x - 80, y - 80) < 60).astype(np.uint8)
    picture = np.where(labels[..., None] > 0, 120, 0) + np.array([0, 0, 0])
    picture[labels == 0] = (0, 255, 0)
    for px, py in align.five_points(points).astype(int):
        picture[py - 3 : py + 4, px - 3 : px + 4] = (255, 0, 0)
    return scenes.cut_out(picture.astype(np.uint8), labels, points, random)


def test_points_of_scenes_lie_on_the_features() -> None:
    seen = wrong = green = grey = 0
    for seed in range(120):
        random = np.random.default_rng(seed)
        head = a_head(random)
        scene = scenes.compose(np.zeros((256, 256, 3), np.uint8), [head], random)
        pixels = scene.pixels.astype(int)
        green += int(((pixels == (0, 255, 0)).all(2)).sum())
        grey += int(((pixels == (120, 120, 120)).all(2)).sum())
        if not head.face:
            assert len(scene.points) == 0
        for five, size, counts in zip(scene.points, scene.size, scene.counts, strict=True):
            if not counts or size < 30:
                continue
            assert scenes.LEAST <= size <= scenes.MOST
            for x, y in five:
                if 2 <= x < 254 and 2 <= y < 254:
                    seen += 1
                    r, g, _ = pixels[int(y), int(x)]
                    wrong += int(r < g + 40)
    assert seen > 100
    assert wrong < 0.25 * seen  # behind a mask, a hand, a pole
    assert green < 0.02 * grey  # what was behind the head does not come along


def test_a_head_before_another_hides_it() -> None:
    alpha = np.zeros((50, 50), np.uint8)
    alpha[:, 20:30] = 255
    points = np.array([[5.0, 5], [25, 40], [29.9, 0], [30, 0], [-4, 10], [25, 70]])
    hidden = scenes.hidden_landmarks(alpha, points).tolist()
    assert hidden == [
        False,
        True,
        True,
        False,
        False,
        False,
    ]


def test_scenes_repeat() -> None:
    made = []
    for _ in range(2):
        random = np.random.default_rng(5)
        heads = [a_head(random) for _ in range(4)]
        made.append(scenes.compose(np.zeros((128, 128, 3), np.uint8), heads, random))
    np.testing.assert_array_equal(made[0].pixels, made[1].pixels)
    np.testing.assert_array_equal(made[0].points, made[1].points)


# The border -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shift", "angle", "share"),
    [((0, 0), 0.0, 0.0), ((50, 0), 0.0, 0.25), ((100, -100), 0.0, 0.75), ((300, 0), 0.0, 1.0)],
)
def test_the_invented_share_is_exact(shift: tuple[int, int], angle: float, share: float) -> None:
    quad = align.square_quad(np.array([100.0, 100.0]) + shift, 200, angle)
    assert 1 - align.covered(quad, 200, 200) == pytest.approx(share, abs=1e-12)


def test_the_invented_share_of_a_turned_crop() -> None:
    quad = align.square_quad(np.array([100.0, 100.0]), 200, np.pi / 4)
    # Each corner stands out by (sqrt 2 - 1) * 100 px: a triangle of that height, at 45 degrees.
    outside = 4 * ((np.sqrt(2) - 1) * 100) ** 2
    assert 1 - align.covered(quad, 200, 200) == pytest.approx(outside / 200**2, abs=1e-12)


def test_nothing_is_mirrored_at_the_border() -> None:
    picture = np.full((100, 100, 3), 90, np.uint8)
    picture[8:16, 30:70] = 250  # a bright bar just below the upper border
    crop = align.cut(picture, align.square_quad(np.array([50.0, 20.0]), 100), 100)
    above = crop[:28, 30:70].astype(int)  # 30 rows lie above the photo
    assert np.abs(above - 90).max() <= 2
    assert crop[40, 50].tolist() == [250, 250, 250]


def test_the_record_tells_turn_and_invented_share(monkeypatch: pytest.MonkeyPatch) -> None:
    face = turned(a_face(), np.deg2rad(75))
    quad = align.face_quad(face)
    shift = np.array([0.0, -quad.mean(0)[1]])  # its middle on the upper border
    run = a_pipeline(monkeypatch, [face + shift], parse="none", pose="none", min_face=8)
    (made,) = run(Photo(np.zeros((600, 600, 3), np.uint8), "", ()), "a.png", "a")
    again = Face.from_json(made.face.to_json())
    assert again.turn_deg == pytest.approx(75, abs=0.5)
    assert again.invented == pytest.approx(0.5, abs=1e-3)
    assert "cut" in again.flags
    assert "50%" in task._warning(again, "cut")
    assert task._warning(again, "profile").endswith(FLAGS["profile"])


def test_records_without_turn_and_share_are_still_read() -> None:
    face = Face("a", "a.png", "", 0, 64, np.eye(4, 2), np.zeros((68, 2)), np.zeros(25))
    text = face.to_json()
    for line in (' "turn_deg": 0.0', ' "invented": 0.0'):
        assert line in text
        text = text.replace(f",\n{line}", "")
    assert Face.from_json(text).invented == 0


# What hides a face ------------------------------------------------------------------------------


def test_dark_glasses_hide_both_eyes() -> None:
    points = align.to_crop(a_face(), align.face_quad(a_face()), 128)
    glasses = np.zeros((128, 128))
    crop = np.full((128, 128, 3), 150, np.uint8)
    low, high = points[36:48].min(0).astype(int) - 2, points[36:48].max(0).astype(int) + 3
    place = slice(low[1], high[1]), slice(low[0], high[0])
    dark = crop.copy()
    dark[place] = 30
    assert detect.shaded(dark, glasses, points) == 0  # dark eyes without glasses
    glasses[place] = 1
    assert detect.shaded(dark, glasses, points) == pytest.approx(1)
    assert detect.shaded(crop, glasses, points) == 0  # clear glasses over closed eyes
    assert detect.shaded(dark // 4, glasses, points) == pytest.approx(1)  # in the dark
    glasses[:, :64] = 0  # one eye shows
    assert detect.shaded(dark, glasses, points) < 0.1


def test_dark_glasses_are_flagged_by_either_detector(monkeypatch: pytest.MonkeyPatch) -> None:
    one = detect.Detection(np.zeros(4), 1.0)
    rest = align.face_quad(a_face()), np.zeros(25), (400, 420), 64
    assert pipeline.flags(one, *rest, 0.9) == ("sunglasses",)
    assert pipeline.flags(one, *rest, 0.1) == ()
    assert pipeline.flags(one, *rest) == ()
    run = a_pipeline(monkeypatch, [a_face()], pose="none")
    monkeypatch.setattr(pipeline, "shaded", lambda crop, glasses, points: 0.8)
    (made,) = run(Photo(np.zeros((400, 400, 3), np.uint8), "", ()), "a.png", "a")
    assert "sunglasses" in made.face.flags
    run.parser = None  # nobody looked
    (made,) = run(Photo(np.zeros((400, 400, 3), np.uint8), "", ()), "a.png", "a")
    assert "sunglasses" not in made.face.flags


class Doubtful(Fixed):
    """Finds nothing, but has doubts about one place."""

    def doubts(self, _: np.ndarray) -> list[detect.Detection]:
        return [detect.Detection(np.array([100.0, 50, 140, 90]), 0.4)]


def test_a_photo_without_a_face_comes_with_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    run = a_pipeline(monkeypatch, [])
    photo = Photo(np.zeros((300, 300, 3), np.uint8), "", ())
    for kind, words in ((Fixed, "--detect"), (Doubtful, "x 120, y 70")):
        run.detector = kind([])
        monkeypatch.setattr(pipeline, "BuiltinDetector", Doubtful)
        with pytest.raises(NoFaceError) as caught:
            run(photo, "a.png", "a")
        assert words in str(caught.value.hint)


def test_the_smallest_face_is_told_to_the_detector(monkeypatch: pytest.MonkeyPatch) -> None:
    run = a_pipeline(monkeypatch, [], min_face=77)
    assert run.detector.min_face == 77


# The whole --------------------------------------------------------------------------------------


def test_the_builtin_detector_judges_every_proposal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Faces that the judges doubt are told apart from those that they are sure of."""
    torch.manual_seed(0)
    made = {name: networks.build(name).eval() for name in ("landmarks", "faces")}
    made["detector"] = Spots()
    monkeypatch.setattr(networks, "load", lambda name, device="cpu": made[name])
    picture = spotted(300, 300, [(150, 150)])
    sure = detect.BuiltinDetector(threshold=0.0)
    never = detect.BuiltinDetector(threshold=1.0)
    never.landmarks = sure.landmarks
    assert never(picture) == []
    assert len(sure.propose(picture)) >= 1
    judged = sure.judge(picture, sure.propose(picture))
    assert len(judged) <= len(sure.judge(picture, sure.propose(picture), -1.0))
    assert all(0 <= one.score <= 1 for one in judged)
    assert len(sure(picture)) == len(detect.distinct([d for d in judged if d.score > 0]))
