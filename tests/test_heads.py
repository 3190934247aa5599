"""Rendered heads. What needs the scanned geometry runs where it is in place and skips elsewhere."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from semedit import cameras
from semedit.errors import InputError, OptionError, WeightsError
from semedit.heads import (
    EVALUATION_SEED,
    Head,
    available,
    geometry,
    parameters,
    raster,
    regions,
    truth,
    view_angles,
    write_dataset,
)
from semedit.heads.parameters import TABLE, Choice, Either, Normal, Switch, Uniform
from semedit.media.labels import ATTRIBUTES, LABELS, PALETTE

SIZE = 64
ID = {name: i for i, name in enumerate(LABELS)}


@pytest.fixture(scope="module")
def model() -> geometry.Model:
    """The geometry, from its asset or from the shared folder beside the checkout."""
    beside = Path(__file__).resolve().parents[2] / "shared"
    file = Path(os.environ.get("SEMEDIT_SHARED", beside)) / "ict" / "ict_facekit_light.npz"
    if not available() and file.is_file():
        os.environ["SEMEDIT_ICT"] = str(file)
    if not available():
        pytest.skip("the head geometry ict-facekit is not in place")
    return geometry.load()


def front(head: Head, size: int = SIZE, yaw: float = 0.0) -> np.ndarray:
    return head.render(head.camera(yaw, 0.0), size).labels


# ---------------------------------------------------------------- without geometry


def test_a_variable_that_names_no_file_is_told(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("SEMEDIT_ICT", str(tmp_path / "moved.npz"))
    geometry.load.cache_clear()
    with pytest.raises(WeightsError, match=r"SEMEDIT_ICT says .*moved\.npz") as caught:
        geometry.load()
    assert "unset it" in (caught.value.hint or "")
    with pytest.raises(WeightsError, match="SEMEDIT_ICT"):
        available()
    (tmp_path / "moved.npz").write_bytes(b"PK something else")
    with pytest.raises(WeightsError, match="not the head geometry"):
        geometry.load()


def test_every_parameter_can_be_set_alone() -> None:
    z = parameters.sample(3)
    for name, rule in TABLE.items():
        if isinstance(rule, Choice):
            value: object = rule.names[-1]
        elif isinstance(rule, Switch):
            value = True
        elif isinstance(rule, Either):
            value = (rule.high[0] + rule.high[1]) / 2
        elif isinstance(rule, Uniform):
            value = 0.7 * rule.low + 0.3 * rule.high
        else:
            value = rule.mean + 0.5 * rule.sd
        changed = parameters.replace(z, **{name: value})
        assert (changed != z).sum() <= 1, name
        found = getattr(parameters.decode(changed), name)
        exact = isinstance(value, (str, bool))
        assert found == (value if exact else pytest.approx(value, abs=1e-3)), name


def test_rules_are_monotone_and_bounded() -> None:
    for name, rule in TABLE.items():
        if not isinstance(rule, (Normal, Uniform, Either)):
            continue
        masculine = {"masculine": 0.5, "age": 0.2, "melanin": 0.5}
        values = [rule.value(z, masculine) for z in np.linspace(-6, 6, 41)]
        assert values == sorted(values), name
        assert all(isinstance(v, float) for v in values), name


def test_unknown_parameters_and_choices_are_refused() -> None:
    z = parameters.sample(0)
    with pytest.raises(OptionError, match="tail"):
        parameters.replace(z, tail=1)
    with pytest.raises(OptionError, match="buzz"):
        parameters.replace(z, cut="mullet")
    with pytest.raises(OptionError):
        parameters.decode(z[:-1])


def test_no_attribute_is_rare_and_none_contradict() -> None:
    rows = []
    for seed in range(1500):
        p = parameters.decode(parameters.sample(seed))
        rows.append(parameters.attributes(p, p.jaw_open > 0.1))
    assert all(tuple(sorted(row)) == tuple(sorted(ATTRIBUTES)) for row in rows)
    share = {name: np.mean([row[name] for row in rows]) for name in ATTRIBUTES}
    assert all(0.05 < value < 0.95 for value in share.values()), share
    for row in rows:
        colors = sum(row[f"{c}_hair"] for c in ("black", "blond", "brown", "gray"))
        assert colors <= 1 and not (row["bald"] and colors)
        assert not (row["straight_hair"] and row["wavy_hair"])


def test_triangles_match_a_loop_over_pixels() -> None:
    rng = np.random.default_rng(1)
    points = rng.uniform(0, 12, (9, 3)).astype(np.float32)
    triangles = np.arange(9, dtype=np.int32).reshape(3, 3)
    b = raster.buffers(12)
    raster.draw_triangles(points, triangles, *b)
    for row in range(12):
        for col in range(12):
            best, winner = np.inf, -1
            for t, corners in enumerate(points[triangles].astype(np.float64)):
                m = np.vstack([corners[:, :2].T, np.ones(3)])
                w = np.linalg.solve(m, [col + 0.5, row + 0.5, 1])
                if (w >= -1e-6).all() and w @ corners[:, 2] < best:
                    best, winner = w @ corners[:, 2], t
                    weights = w
            assert b.triangle[row, col] == winner
            if winner >= 0:
                assert b.depth[row, col] == pytest.approx(best, rel=1e-4)
                assert b.bary[row, col] == pytest.approx(weights[1:], abs=1e-4)


def test_strands_hide_behind_what_is_nearer() -> None:
    depth = np.full((16, 16), raster.FAR, np.float32)
    depth[:, 8:] = 1.0
    rgb, label = np.zeros((16, 16, 3), np.float32), np.zeros((16, 16), np.uint8)
    points = np.array([[[0, 8.5, 2], [16, 8.5, 2]]], np.float32)
    raster.draw_strands(
        points,
        np.array([2], np.int32),
        np.ones((1, 2, 3), np.float32),
        np.array([1.0], np.float32),
        1.0,
        13,
        0.0,
        depth,
        rgb,
        label,
    )
    assert (label[8, :7] == 13).all() and not label[:, 8:].any() and not rgb[:, 8:].any()


def test_outlines_are_signed_distances() -> None:
    lips = regions.maps()[0]
    assert regions.sample(lips, 0.0, -3.4) < -0.8 < 0.5 < regions.sample(lips, 0.0, -6.0)
    assert regions.sample(lips, 1.0, -3.4) == regions.sample(lips, -1.0, -3.4)


def test_converts_the_original_files(tmp_path: Path) -> None:
    faces = "usemtl M_Face\nf 1/1 2/2 3/3 4/4\n"

    def mesh(shift: float) -> str:
        corners = [(0, 0), (1, 0), (1, 1), (0, 1)]
        rows = [f"v {x} {y} {shift}\nvt {x} {y}" for x, y in corners]
        return "\n".join(rows) + "\n" + faces

    folder = tmp_path / "FaceXModel"
    folder.mkdir()
    (folder / "generic_neutral_mesh.obj").write_text(mesh(0))
    for i in range(100):
        (folder / f"identity{i:03d}.obj").write_text(mesh(i))
    (folder / "jawOpen.obj").write_text(mesh(-1))
    indices = {"idx_to_landmark_verts": [0, 3]}
    (folder / "vertex_indices.json").write_text(json.dumps(indices))
    geometry.convert(tmp_path, tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz") as file:
        assert file["triangles"].tolist() == [[0, 1, 2], [0, 2, 3]]
        assert (file["identity"][7, :, 2] == 7).all() and file["identity"].dtype == np.float16
        assert file["expression_names"].tolist() == ["jawOpen"]
        assert (file["expression"][0, :, 2] == -1).all()
    (folder / "identity099.obj").unlink()
    with pytest.raises(WeightsError, match="identity099"):
        geometry.convert(tmp_path, tmp_path / "out.npz")


def test_the_shipped_set_is_readable_and_reserved() -> None:
    truths = truth.read_truths()
    assert len(truths) == 24 and len({t.seed for t in truths}) == 24
    for t in truths:
        assert t.seed >= EVALUATION_SEED and t.image.shape == (256, 256, 3)
        assert set(np.unique(t.labels)) <= set(range(19)) and len(t.views) == 2
        assert set(t.edits) == set(truth.EDITS)
        for _, labels in t.edits.values():
            assert labels.shape == t.labels.shape
    assert truth.SHIPPED.stat().st_size < 4e6


# ---------------------------------------------------------------- with geometry


def test_a_seed_and_a_camera_make_one_picture(model: geometry.Model) -> None:
    for look in ("plain", "hard"):
        first, second = Head(7), Head(7)
        c = first.camera(0.3, -0.1)
        a, b = first.render(c, SIZE, look), second.render(c, SIZE, look)
        assert np.array_equal(a.image, b.image) and np.array_equal(a.labels, b.labels)
    with pytest.raises(OptionError):
        Head(7).render(Head(7).camera(0, 0), SIZE, "soft")


def test_landmarks_are_what_c_projects(model: geometry.Model) -> None:
    for seed, look in ((1, "plain"), (2, "hard")):
        head = Head(seed)
        view = head.render(head.camera(0.4, 0.1, 0.05), SIZE, look)
        points = torch.from_numpy(head.landmarks)[None]
        uv, depth = cameras.project(points, torch.from_numpy(view.c)[None])
        assert np.abs(uv[0].numpy() * SIZE - view.landmarks).max() < 1e-2
        assert (depth > 2).all()


def test_the_crop_is_the_aligned_one(model: geometry.Model) -> None:
    head = Head(4)
    for yaw in (0.0, 0.6):
        lm = head.render(head.camera(yaw, 0.1, 0.2), SIZE).landmarks / SIZE
        eyes, mouth = (lm[36:42].mean(0) + lm[42:48].mean(0)) / 2, (lm[48] + lm[54]) / 2
        across, down = lm[42:48].mean(0) - lm[36:42].mean(0), mouth - eyes
        x = across - np.array([-down[1], down[0]])
        assert x[1] == pytest.approx(0, abs=2e-3) and x[0] > 0
        side = 2 * max(np.hypot(*across) * 2, np.hypot(*down) * 1.8)
        assert side == pytest.approx(1, abs=5e-3)
        assert eyes + 0.1 * down == pytest.approx([0.5, 0.5], abs=3e-3)


def test_labels_agree_with_landmarks(model: geometry.Model) -> None:
    head = Head(5).edited(
        glasses=False,
        hat=False,
        eye_narrow=0.02,
        blink=0.0,
        hair_fringe=0.0,
        smile=0.9,
        smile_teeth=0.9,
        cut="short",
        bald=False,
        wide=0.5,
    )
    view = head.render(head.camera(0.0, 0.0), 128)

    def at(x: float, y: float) -> int:
        return int(view.labels[int(y), int(x)])

    lm = view.landmarks
    assert at(*lm[36:42].mean(0)) == ID["r_eye"] and at(*lm[42:48].mean(0)) == ID["l_eye"]
    assert at(*lm[30]) == ID["nose"] and at(*((lm[62] + lm[66]) / 2)) == ID["mouth"]
    assert at(*lm[[50, 52, 61, 63]].mean(0)) == ID["u_lip"]
    assert at(*lm[[56, 58, 65, 67]].mean(0)) == ID["l_lip"]
    brow = np.argwhere(view.labels == ID["l_brow"]).mean(0)[::-1]
    assert np.linalg.norm(brow - lm[22:27].mean(0)) < 6
    assert brow[0] > 64 > np.argwhere(view.labels == ID["r_brow"]).mean(0)[1]
    assert view.visible[17:].all() and (view.labels == ID["hair"]).mean() > 0.02
    depth = view.depth[view.depth > 0]
    assert 2.2 < depth.min() < depth.max() < 3.2 and len(depth) > 4000


def test_yaw_turns_to_the_right_and_hides_the_far_side(model: geometry.Model) -> None:
    head = Head(6).edited(hat=False, glasses=False, cut="short")
    view = head.render(head.camera(0.9, 0.0), SIZE)
    nose, eyes = view.landmarks[30], view.landmarks[36:48].mean(0)
    assert nose[0] > eyes[0] + 3
    assert view.visible[:8].sum() > view.visible[9:17].sum()


def test_an_edit_changes_what_it_should(model: geometry.Model) -> None:
    head = Head(8).edited(glasses=False, hat=False, smile=0.02)
    c = head.camera(0.2, 0.0)
    before = head.render(c, SIZE)
    worn = head.edited(glasses=True, glasses_rim="thick").render(c, SIZE)
    assert (worn.labels == ID["eye_g"]).any() and not (before.labels == ID["eye_g"]).any()
    assert np.array_equal(worn.landmarks, before.landmarks)
    low = slice(int(before.landmarks[33, 1]) + 8, None)  # below the glasses and their shadow
    assert np.abs(worn.image[low].astype(int) - before.image[low]).mean() < 1
    smiling = head.edited(smile=0.9)
    assert (
        smiling.attributes[ATTRIBUTES.index("smiling")]
        and not head.attributes[ATTRIBUTES.index("smiling")]
    )
    wide = smiling.render(c, SIZE).landmarks
    assert np.ptp(wide[48:60, 0]) > np.ptp(before.landmarks[48:60, 0]) + 1
    assert np.abs(wide[27] - before.landmarks[27]).max() < 0.2
    tall = head.edited(bald=False, cut="long", hair_length=0.7).render(c, SIZE).labels
    short = head.edited(bald=False, cut="buzz").render(c, SIZE).labels
    assert (tall == ID["hair"]).sum() > 1.5 * (short == ID["hair"]).sum()
    assert not (head.edited(bald=True).render(c, SIZE).labels == ID["hair"]).any()


@pytest.mark.parametrize(
    ("changes", "label"),
    [
        ({"hat": True, "hat_kind": "beanie"}, "hat"),
        ({"hat": True, "hat_kind": "wide"}, "hat"),
        ({"earrings": True, "earring_kind": "hoop", "cut": "short"}, "ear_r"),
        ({"necklace": True, "necklace_kind": "beads"}, "neck_l"),
        ({"cloth": "high"}, "cloth"),
    ],
)
def test_what_is_worn_is_labelled(
    model: geometry.Model, changes: dict[str, object], label: str
) -> None:
    worn = front(Head(9).edited(**changes), 128)
    assert (worn == ID[label]).sum() > 8


def test_doubtful_mouths_and_eyes_do_not_occur(model: geometry.Model) -> None:
    from semedit.heads import shape

    for seed in range(40):
        head = Head(seed)
        gap = shape.mouth_gap(head.vertices)
        assert (gap > 0.38) if shape.is_open(head.parameters) else (gap < 0.3)
        eyes = shape.eye_gap(head.vertices)
        narrow = head.attributes[ATTRIBUTES.index("narrow_eyes")]
        assert (eyes < 0.5) if narrow else (eyes > 0.5)


def test_a_folder_of_heads_resumes_and_refuses(model: geometry.Model, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    whole = tmp_path / "whole"
    write_dataset(
        whole,
        2,
        size=32,
        seed=20,
        views=2,
        depth=True,
        progress=lambda done, n: seen.append((done, n)),
    )
    assert seen == [(1, 2), (2, 2)]
    resumed = tmp_path / "resumed"
    write_dataset(resumed, 1, size=32, seed=20, views=2, depth=True)
    first = (resumed / "images" / "000000_0.png").stat().st_mtime_ns
    write_dataset(resumed, 2, size=32, seed=20, views=2, depth=True)
    assert (resumed / "images" / "000000_0.png").stat().st_mtime_ns == first
    for path in sorted(whole.rglob("*.png")):
        assert path.read_bytes() == (resumed / path.relative_to(whole)).read_bytes()
    with np.load(whole / "arrays.npz") as a, np.load(resumed / "arrays.npz") as b:
        assert all(np.array_equal(a[name], b[name]) for name in a.files)
        assert a["landmarks"].shape == (2, 2, 68, 2) and a["c"].shape == (2, 2, 25)
        assert np.array_equal(a["z"][1], parameters.sample(21))
    labels = Image.open(whole / "labels" / "000001_1.png")
    assert labels.mode == "P" and labels.getpalette()[: 19 * 3] == list(np.ravel(PALETTE))
    rows = json.loads((whole / "dataset.json").read_text())["labels"]
    assert len(rows) == 4 and rows[0][0] == "000000_0.png" and len(rows[0][1]) == 25
    lines = (whole / "list_attr_celeba.txt").read_text().splitlines()
    assert len(lines) == 4 and "Mouth_Slightly_Open" in lines[1].split()
    with pytest.raises(InputError):
        write_dataset(whole, 2, size=48, seed=20, views=2)
    with pytest.raises(OptionError):
        write_dataset(tmp_path / "mixed", 2, size=32, seed=EVALUATION_SEED - 1)


def test_views_stay_near_each_other_and_in_bounds() -> None:
    for seed in range(50):
        angles = np.rad2deg(view_angles(seed, 3))
        assert np.abs(angles).max() <= 45.01 and np.abs(angles[1:, 0] - angles[0, 0]).max() <= 35.01
