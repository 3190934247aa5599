"""Faces: geometry of the crop, the record, the networks' contracts, the pipeline with stand-ins."""

from pathlib import Path

import numpy as np
import pytest
import torch
from made_faces import a_face, a_pipeline, photo, turned
from torch import nn

from semedit import cameras, weights
from semedit.errors import InputError, NoFaceError, OptionError, ShapeError, WeightsError
from semedit.faces import (
    Face,
    align,
    detect,
    landmarks,
    networks,
    numbered,
    parsing,
    photo_of,
    pipeline,
)
from semedit.faces.layers import Residual, convolution, folded
from semedit.media.labels import ATTRIBUTES, LABELS
from semedit.media.photographs import Photo

# The crop ---------------------------------------------------------------------------------------


def test_mirror_is_its_own_inverse_and_swaps_sides() -> None:
    assert (align.MIRROR[align.MIRROR] == np.arange(68)).all()
    points = a_face(x=0)
    np.testing.assert_allclose(points[align.MIRROR] * [-1, 1], points, atol=1e-9)


def test_quad_is_a_square_and_follows_the_face() -> None:
    quad = align.face_quad(a_face())
    sides = np.linalg.norm(np.roll(quad, -1, 0) - quad, axis=1)
    np.testing.assert_allclose(sides, sides[0])
    np.testing.assert_allclose(sides[0], 2 * max(2.0 * 40, 1.8 * 50))
    again = align.face_quad(turned(a_face(), 0.4))
    edge = again[3] - again[0]
    assert np.arctan2(edge[1], edge[0]) == pytest.approx(0.4)
    five = align.face_quad(align.five_points(a_face()))
    np.testing.assert_allclose(five, quad)


def test_points_go_there_and_back() -> None:
    quad = align.face_quad(turned(a_face(), -0.3))
    points = np.random.default_rng(0).uniform(0, 400, (10, 2))
    there = align.to_crop(points, quad, 128)
    np.testing.assert_allclose(align.to_photo(there, quad, 128), points)
    np.testing.assert_allclose(align.to_photo(np.zeros(2), quad, 128), quad[0])


def test_crop_shows_each_point_where_the_quad_says() -> None:
    picture = photo()
    points = turned(a_face(), 0.35)
    crop, quad, moved = align.align(picture, points, 160)
    assert crop.shape == (160, 160, 3)
    np.testing.assert_allclose(align.to_photo(moved, quad, 160), points, atol=1e-3)
    for u, v in ((40, 40), (80, 90), (120, 60)):
        x, y = align.to_photo(np.array([u + 0.5, v + 0.5]), quad, 160) - 0.5
        here = picture[round(y), round(x)].astype(int)
        assert np.abs(crop[v, u].astype(int) - here).max() <= 12


def test_crop_without_rotation_or_scale_is_exact() -> None:
    picture = photo()
    quad = align.square_quad(np.array([150.0, 140.0]), 100)
    crop = align.cut(picture, quad, 100)
    np.testing.assert_array_equal(crop, picture[90:190, 100:200])


def test_padding_keeps_the_inside_and_is_smooth_outside() -> None:
    picture = np.random.default_rng(0).integers(0, 255, (100, 100, 3), np.uint8)
    quad = align.square_quad(np.array([20.0, 50.0]), 100)
    crop = align.cut(picture, quad, 100)
    np.testing.assert_array_equal(crop[:, 30:], picture[:, :70])
    inside, outside = crop[:, 30:].astype(float), crop[:, :20].astype(float)
    assert np.abs(np.diff(outside, axis=0)).mean() < 0.3 * np.abs(np.diff(inside, axis=0)).mean()
    assert align.covered(quad, 100, 100) == pytest.approx(0.7, abs=0.02)
    assert align.cut(picture, quad - 1000, 16).shape == (16, 16, 3)  # wholly outside


def test_shrinking_does_not_alias() -> None:
    stripes = np.zeros((600, 600, 3), np.uint8)
    stripes[:, ::2] = 255
    crop = align.cut(stripes, align.square_quad(np.array([300.0, 300.0]), 500, 0.1), 64)
    assert crop.std() < 8


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(ShapeError):
        align.five_points(np.zeros((5, 2)))
    with pytest.raises(ShapeError):
        align.cut(np.zeros((10, 10, 4), np.uint8), align.square_quad(np.zeros(2), 5), 8)
    with pytest.raises(ShapeError):
        detect.check_photo(np.zeros((10, 10), np.uint8))


# The record -------------------------------------------------------------------------------------


def test_face_survives_its_sidecar() -> None:
    face = Face(
        name="ordner/ä",
        source="ordner/ä.jpg",
        source_sha256="0" * 64,
        index=1,
        size=256,
        quad=align.face_quad(a_face()),
        landmarks=a_face().astype(np.float32),
        c=cameras.orbit(0.3, 0.1)[0].numpy(),
        attributes={"smiling": 0.75},
        backends={"detect": "builtin"},
        flags=("profile",),
    )
    again = Face.from_json(face.to_json())
    for key in ("quad", "landmarks", "c"):
        np.testing.assert_allclose(getattr(again, key), getattr(face, key), atol=1e-5)
    assert (again.name, again.attributes, again.flags) == (
        "ordner/ä",
        {"smiling": 0.75},
        face.flags,
    )
    assert again.to_json() == face.to_json()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 1}', '{"version": 1, "name": "a"}'])
def test_damaged_sidecar_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        Face.from_json(text)


@pytest.mark.parametrize("text", ['{"version": 2}', '{"version": 0, "name": "a", "more": []}'])
def test_a_sidecar_of_another_layout_is_told_from_a_damaged_one(text: str) -> None:
    with pytest.raises(InputError, match=r"layout [02], this program reads 1") as caught:
        Face.from_json(text)
    assert "semedit align" in (caught.value.hint or "")


def test_names_of_a_photos_faces() -> None:
    assert [numbered("in/a", i) for i in range(3)] == ["in/a", "in/a@2", "in/a@3"]
    assert [photo_of(name) for name in ("in/a", "in/a@12", "a@x", "a@02", "a@2.jpg")] == [
        *("in/a", "in/a", "a@x", "a@02", "a@2.jpg")
    ]


# Networks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", networks.KINDS)
def test_networks_take_any_resolution_and_pass_gradients(name: str) -> None:
    torch.manual_seed(0)
    network = networks.build(name).eval()
    images = torch.rand(2, 3, 80, 80, requires_grad=True)
    out = network(images * 2 - 1)
    if name == "landmarks":
        assert out.points.shape == (2, 68, 2)
        assert out.visible.shape == (2, 68)
        assert out.face.shape == (2,)
        loss = out.points.sum() + out.face.sum()
    elif name == "faces":
        assert out.seg.shape == (2, len(LABELS), 256, 256)
        assert out.six.shape == (2, 6)
        assert [f.ndim for f in network.features(images)] == [4] * 4
        loss = out.seg.square().sum() + out.six.sum()
    elif name == "traits":
        assert out.attributes.shape == (2, len(ATTRIBUTES))
        assert out.seg is None
        loss = out.attributes.sum()
    elif name == "identity":
        assert out.shape == (2, 128)
        loss = out[:, 0].sum()
    else:
        assert out.shape == (2, len(ATTRIBUTES))
        loss = out.sum()
    loss.backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0
    with pytest.raises(ShapeError):
        network(torch.zeros(1, 3, 40, 50))


def test_a_part_of_the_labels_is_that_of_the_whole() -> None:
    torch.manual_seed(0)
    network = networks.build("faces").eval()
    images = torch.rand(1, 3, 256, 256) * 2 - 1
    whole, part = network(images), network(images, part=(1, 0))
    torch.testing.assert_close(part.seg, whole.seg[:, :, 1::2, 0::2], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(part.six, whole.six)
    traits = networks.build("traits", {"tower": [8, 8]}).eval()
    whole, part = traits(images), traits(images, part=(1, 0))
    torch.testing.assert_close(part.attributes, whole.attributes)
    assert part.seg.shape == (1, len(LABELS), 64, 64)


def test_network_survives_its_weight_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = networks.build("judge", {"widths": [4, 8], "hidden": 8}).eval()
    metadata = {"kind": "judge", "config": '{"widths": [4, 8], "hidden": 8}'}
    weights.save(tmp_path / "judge.safetensors", networks.tensors(network), metadata)
    monkeypatch.setattr(weights.rows, "DATA", tmp_path)
    networks.load.cache_clear()
    images = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(
        networks.load("judge")(images), network(images), atol=2e-3, rtol=1e-2
    )
    bare = {"kind": "judge", "config": "{}"}
    weights.save(tmp_path / "judge.safetensors", networks.tensors(network), bare)
    networks.load.cache_clear()
    with pytest.raises((WeightsError, RuntimeError)):
        networks.load("judge")
    networks.load.cache_clear()


def test_mirrored_labels_and_bisenet_order_name_the_same_parts() -> None:
    swapped = [LABELS[i] for i in networks.MIRROR_LABELS]
    for name, other in zip(LABELS, swapped, strict=True):
        sides = {"l_eye", "r_eye", "l_brow", "r_brow", "l_ear", "r_ear"}
        assert (name != other) == (name in sides)
    bisenet = "background skin l_brow r_brow l_eye r_eye eye_g l_ear r_ear ear_r nose mouth"
    bisenet += " u_lip l_lip neck neck_l cloth hair hat"
    assert [bisenet.split()[i] for i in parsing.BISENET_ORDER] == list(LABELS)


# Detection --------------------------------------------------------------------------------------


def test_distinct_keeps_the_surest_and_sorts_by_size() -> None:
    small = detect.Detection(np.array([0.0, 0, 10, 10]), 0.9)
    same = detect.Detection(np.array([1.0, 0, 11, 10]), 0.95)
    large = detect.Detection(np.array([50.0, 50, 90, 90]), 0.6)
    assert detect.distinct([small, same, large]) == [large, same]
    assert detect.overlap(small.box, large.box) == 0


def test_views_of_boxes_and_points_agree() -> None:
    """A frontal face's cascade box and its points lead to about the same view."""
    points = a_face(scale=100)
    a = landmarks.view_of_points(points)
    middle = points[[*range(36, 48), 48, 54]].mean(0)
    assert 0.7 < np.hypot(*(a[3] - a[0])) / 200 < 1.0
    b = landmarks.view_of_box(np.array([150, 130, 250, 230.0]), 0.5)
    edge = b[3] - b[0]
    assert np.arctan2(edge[1], edge[0]) == pytest.approx(0.5)
    assert np.hypot(*(b.mean(0) - [200, 180])) == pytest.approx(14)
    assert a.mean(0)[1] > middle[1] - 20


def test_peaks_move_a_quarter_pixel() -> None:
    heat = np.zeros((68, 64, 64), np.float32)
    heat[:, 10, 20] = 1.0
    heat[:, 10, 21] = 0.5
    points, peak = landmarks._peaks(heat)
    np.testing.assert_allclose(points[0], [20.75, 10.5])
    assert peak[0] == 1


# The pipeline -----------------------------------------------------------------------------------


def test_pipeline_makes_records(monkeypatch: pytest.MonkeyPatch) -> None:
    faces = [a_face(), a_face(330, 300, 60)]
    run = a_pipeline(monkeypatch, faces, faces="all")
    given = Photo(photo(), "ab" * 32, ())
    made = run(given, "in/a.png", "in/a")
    assert [d.face.name for d in made] == ["in/a", "in/a@2"]
    for described in made:
        assert described.crop.shape == (64, 64, 3)
        assert described.labels is not None
        assert described.labels.shape == (64, 64)
        assert described.face.c.shape == (25,)
        assert described.face.attributes is not None
        assert set(described.face.attributes) == set(ATTRIBUTES)
        assert described.face.backends["parse"] == "builtin"
        again = Face.from_json(described.face.to_json())
        points = align.to_photo(again.landmarks, again.quad, 64)
        np.testing.assert_allclose(points, faces[described.face.index], atol=0.1)


def test_pipeline_without_parse_and_pose(monkeypatch: pytest.MonkeyPatch) -> None:
    run = a_pipeline(monkeypatch, [a_face()], parse="none", pose="none")
    (made,) = run(Photo(photo(), "", ()), "a.png", "a")
    assert made.labels is None
    assert not made.face.c.any()
    assert made.face.attributes is None


def test_pipeline_says_why_there_is_no_face(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NoFaceError):
        a_pipeline(monkeypatch, [])(Photo(photo(), "", ()), "a.png", "a")
    with pytest.raises(NoFaceError, match="px"):
        a_pipeline(monkeypatch, [a_face()], min_face=500)(Photo(photo(), "", ()), "a.png", "a")
    with pytest.raises(OptionError):
        a_pipeline(monkeypatch, [], faces="some")


def test_cut_and_profile_faces_are_flagged() -> None:
    seen = detect.Detection(np.zeros(4), 1.0, visible=np.ones(68))
    inside = align.face_quad(a_face())
    ahead, aside = (cameras.orbit(yaw, 0.0)[0].numpy() for yaw in (0.1, 1.2))
    assert pipeline.flags(seen, inside, ahead, (400, 420), 64) == ()
    assert pipeline.flags(seen, inside - 150, aside, (400, 420), 64) == ("profile", "cut")
    hidden = detect.Detection(np.zeros(4), 1.0, visible=np.zeros(68))
    assert pipeline.flags(hidden, inside, ahead, (400, 420), 64) == ("occluded",)


def test_faces_that_the_crop_enlarges_are_flagged() -> None:
    seen = detect.Detection(np.zeros(4), 1.0, visible=np.ones(68))
    quad, ahead = align.face_quad(a_face()), cameras.orbit(0.0, 0.0)[0].numpy()
    side = float(np.hypot(*(quad[3] - quad[0])))
    assert pipeline.flags(seen, quad, ahead, (400, 420), int(1.4 * side)) == ()
    assert pipeline.flags(seen, quad, ahead, (400, 420), int(1.5 * side)) == ("small",)


def test_auto_falls_back_to_builtin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SEMEDIT_WEIGHTS", str(tmp_path))
    for step in pipeline.BACKENDS:
        assert pipeline.choose(step) == "builtin"
    with pytest.raises(OptionError, match="builtin"):
        pipeline.choose("detect", "dlib")
    with pytest.raises(WeightsError, match="retinaface"):
        detect.RetinaFaceDetector(network="mobile0.25")


def test_labels_agree_with_landmarks_only_where_they_fit() -> None:
    points = align.to_crop(a_face(), align.face_quad(a_face()), 128)
    labels = np.ones((128, 128), int)
    for part, label in ((points[36:42], 5), (points[42:48], 4), (points[30:34], 2)):
        low, high = part.min(0).astype(int) - 1, part.max(0).astype(int) + 2
        labels[low[1] : high[1], low[0] : high[0]] = label
    low, high = points[48:].min(0).astype(int), points[48:].max(0).astype(int)
    labels[low[1] : high[1], low[0] : high[0]] = 11
    chances = np.eye(19)[labels].transpose(2, 0, 1)
    assert detect.agreement(chances, points) == pytest.approx(1.0)
    assert detect.agreement(chances, points + 30) < 0.6
    assert detect.agreement(chances, points + 500) == 0


def test_eyes_and_mouth_settle_where_the_label_map_shows_them() -> None:
    turn = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    circle = np.stack([np.cos(turn), np.sin(turn)], 1)
    points = np.zeros((68, 2))
    points[36:42], points[42:48] = (80.5, 100.5) + 8 * circle[::2], (160.5, 100.5) + 8 * circle[::2]
    points[48:60], points[60:] = (120.5, 170.5) + 20 * circle, (120.5, 170.5)
    chances = np.zeros((19, 256, 256), np.float32)
    chances[LABELS.index("r_eye"), 88:97, 70:95] = 0.9  # the subject's right is the left here
    chances[LABELS.index("l_eye"), 40:48, 150:174] = 0.9  # too far away to be believed
    chances[LABELS.index("u_lip"), 170:175, 100:141] = 0.9
    chances[LABELS.index("l_lip"), 175:180, 100:141] = 0.9
    moved = detect.settle(chances, points)
    np.testing.assert_allclose((moved - points)[36:42], np.tile([2.0, -8.0], (6, 1)), atol=0.3)
    np.testing.assert_array_equal(moved[42:48], points[42:48])
    np.testing.assert_allclose((moved - points)[48:], np.tile([0.0, 4.5], (20, 1)), atol=0.3)
    chances[:] = 0  # dark glasses, a scarf
    np.testing.assert_array_equal(detect.settle(chances, points), points)


class Bright(torch.nn.Module):
    """Labels what is bright as skin, pixel by pixel."""

    size = 64

    def forward(self, images: torch.Tensor) -> networks.FaceOutput:
        seg = torch.full((len(images), 19, 64, 64), -20.0)
        seg[:, 0], seg[:, 1] = 0.0, 8 * images[:, 0]
        return networks.FaceOutput(seg, images.mean((2, 3)).repeat(1, 2))


def test_views_of_all_sizes_lie_on_one_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "load", lambda name, device: Bright())
    image = torch.full((1, 3, 64, 64), -0.5)
    image[:, :, 10:30, 20:58] = 0.5
    once = networks.describe(image, (1.0,))
    several = networks.describe(image)
    apart = once.seg.argmax(1) != several.seg.argmax(1)
    inner = torch.zeros(64, 64, dtype=torch.bool)
    inner[12:28, 22:56] = True
    outer = torch.ones(64, 64, dtype=torch.bool)
    outer[8:32, 18:60] = False
    assert not apart[0, inner | outer].any()
    torch.testing.assert_close(several.six, networks.six(image))
    assert not torch.equal(once.seg, several.seg)


def test_a_folded_network_is_the_same_function() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(convolution(3, 4), Residual(4), nn.Conv2d(4, 2, 1))
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
            part.weight.data.uniform_(0.5, 2)
            part.bias.data.normal_()
    network.eval()
    x = torch.randn(2, 3, 8, 8)
    before = network(x)
    after = folded(network)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in after.modules())
    assert torch.allclose(after(x), before, atol=1e-5)
