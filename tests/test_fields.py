"""Meshes, depth maps, interpolations and random_faces from drawn maps, on tiny generators."""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import TinyGenerator, pair, random_faces, small_ide3d
from torch import Tensor
from typer.testing import CliRunner

from semedit import cameras, latents, weights
from semedit.batch.workspace import Workspace
from semedit.cli.app import app
from semedit.editors import Drawing, Texture
from semedit.errors import InputError, OptionError, TraitError
from semedit.faces import Face
from semedit.latents.interpolation import between
from semedit.media.decoding import read_labels
from semedit.media.masks import write_labels
from semedit.media.photographs import write_image
from semedit.renders.meshes import UNIT, DensityField, depth_map, extract, write_depth, write_mesh


class Ball:
    """A field: dense within a ball about (0, 0.1, 0), and a small one aside."""

    half = 0.5

    def density(self, points: Tensor, progress: Any = None) -> Tensor:
        away = (points - torch.tensor([0.0, 0.1, 0.0])).norm(dim=-1)
        aside = (points - 0.45).norm(dim=-1)
        return (400 * torch.maximum(0.3 - away, 0.02 - aside) + 10).relu()

    def colour(self, points: Tensor) -> Tensor:
        return torch.sign(points)


def test_a_mesh_is_the_surface_seen_from_outside() -> None:
    mesh = extract(Ball(), 64)  # type: ignore[arg-type]
    middle = np.array([0, 0.1, 0])
    away = np.linalg.norm(mesh.vertices - middle, axis=1)
    assert np.abs(away - 0.3).max() < 0.01  # the small ball is left out
    outwards = (mesh.vertices - middle) / away[:, None]
    assert ((mesh.normals * outwards).sum(1) > 0.95).all()
    a, b, c = (mesh.vertices[mesh.triangles[:, i]] for i in range(3))
    faced = np.cross(b - a, c - a)
    assert ((faced * (a - middle)).sum(1) >= -1e-9).all()
    far = np.abs(mesh.vertices).min(1) > 0.05
    assert (mesh.colours[far] == np.where(mesh.vertices[far] > 0, 255, 0)).all()
    with pytest.raises(InputError, match="no surface"):
        extract(Ball(), 16, level=5000.0)  # type: ignore[arg-type]


def test_mesh_files_hold_the_mesh(tmp_path: Path) -> None:
    mesh = extract(Ball(), 24)  # type: ignore[arg-type]
    for suffix in (".ply", ".obj"):
        write_mesh(tmp_path / f"ball{suffix}", mesh)
    data = (tmp_path / "ball.ply").read_bytes()
    head, _, body = data.partition(b"end_header\n")
    counts = [int(n) for n in re.findall(rb"element \w+ (\d+)", head)]
    assert counts == [len(mesh.vertices), len(mesh.triangles)]
    assert len(body) == 27 * counts[0] + 13 * counts[1]
    assert np.frombuffer(body[:12], "<f4").tolist() == mesh.vertices[0].tolist()
    assert np.frombuffer(body[-12:], "<i4").tolist() == mesh.triangles[-1].tolist()
    lines = (tmp_path / "ball.obj").read_text().splitlines()
    vertex = [float(x) for x in lines[0].split()[1:]]
    assert vertex[:3] == pytest.approx(mesh.vertices[0].tolist(), abs=1e-5)
    first = mesh.triangles[0] + 1
    assert lines[2 * counts[0]] == "f " + " ".join(f"{i}//{i}" for i in first)
    with pytest.raises(OptionError):
        write_mesh(tmp_path / "ball.stl", mesh)


def test_depth_is_along_the_axis(tmp_path: Path) -> None:
    c = cameras.orbit(0.4, 0.0)
    depth, opacity = depth_map(Ball(), c, 33)  # type: ignore[arg-type]
    middle = torch.tensor([[[0.0, 0.1, 0.0]]])
    uv, far = cameras.project(middle, c)
    x, y = (uv[0, 0] * 33).int().tolist()
    assert float(depth[y, x]) == pytest.approx(float(far) - 0.3, abs=0.08)
    assert float(opacity[y, x]) > 0.99 and float(opacity[0, 0]) < 0.01
    write_depth(tmp_path / "depth.png", depth, opacity)
    stored = np.asarray(Image.open(tmp_path / "depth.png"))
    assert stored[0, 0] == 0
    assert stored[y, x] * UNIT == pytest.approx(float(depth[y, x]), abs=1e-4)


def test_a_mesh_needs_a_field() -> None:
    tiny = TinyGenerator()
    with pytest.raises(TraitError, match="no field"):
        DensityField(tiny, random_faces(tiny, 1))


@pytest.mark.parametrize("part", ["all", "shape", "texture"])
def test_between_two_faces(part: Any) -> None:
    generator, both, donor, region = pair(small_ide3d)
    first, second = both[0], Texture(region, composite=False)(generator, both[1], donor)
    shown = [
        latents.synthesize(generator, between(generator, first, second, share, part))
        for share in (0.0, 1.0)
    ]
    start, end = (latents.synthesize(generator, x) for x in (first, second))
    torch.testing.assert_close(shown[0].image, start.image, rtol=1e-4, atol=1e-4)
    if part == "all":
        torch.testing.assert_close(shown[1].image, end.image, rtol=1e-3, atol=1e-3)
        half = between(generator, first, second, 0.5, part)
        yaw = cameras.angles(torch.cat([first.c, half.c, second.c]))[:, 0]
        assert float(yaw[1]) == pytest.approx(float(yaw[0] + yaw[2]) / 2, abs=1e-5)
        assert set(half.codes["where"].unique().tolist()) == {0.0, 0.5}
        return
    same = torch.equal(shown[1].low.seg, start.low.seg)
    assert same == (part == "texture")
    assert not torch.equal(shown[1].image, start.image)
    assert ("style" in between(generator, first, second, 1.0, part).codes) == (part == "texture")


def test_only_textured_generators_interpolate_parts() -> None:
    tiny = TinyGenerator()
    both = random_faces(tiny, 2)
    assert between(tiny, both[0], both[1], 0.5, "all").codes["ws"].shape == (1, 3, 8)
    with pytest.raises(TraitError, match="apart"):
        between(tiny, both[0], both[1], 0.5, "shape")


def test_a_drawing_becomes_a_face_of_that_shape() -> None:
    generator, both, _, _ = pair(small_ide3d)
    wanted = latents.synthesize(generator, both[0]).seg.argmax(1)
    method = Drawing(steps=30, lr=0.3, yaw_deg=0.0)
    start, end = (
        Drawing(**{**vars(method), "steps": steps})(generator, wanted) for steps in (0, 30)
    )
    right = [
        float((latents.synthesize(generator, x).seg.argmax(1) == wanted).float().mean())
        for x in (start, end)
    ]
    assert right[1] > right[0]
    cut = generator.num_shape
    assert torch.equal(start.codes["ws"][:, cut:], end.codes["ws"][:, cut:])
    other = Drawing(steps=0, yaw_deg=0.0, seed=5)(generator, wanted)
    assert not torch.equal(start.codes["ws"][:, cut:], other.codes["ws"][:, cut:])
    assert float(cameras.angles(end.c)[0, 0]) == pytest.approx(0.0, abs=math.radians(10))


@pytest.fixture
def space(tmp_path: Path) -> Workspace:
    """Two inverted random_faces, their generator's file beside the workspace."""
    generator, both, _, _ = pair(small_ide3d)
    facts = {"kind": "ide3d", "config": json.dumps(asdict(generator.config))}
    weights.save(tmp_path / "small.safetensors", generator.state_dict(), facts, half=False)
    space = Workspace(tmp_path / "work")
    size = generator.resolution
    for i, name in enumerate(("a", "b")):
        write_image(space.path("faces", name, ".png"), np.zeros((size, size, 3), np.uint8))
        write_labels(space.path("masks", name, ".png"), np.zeros((size, size), np.uint8))
        square = np.zeros((4, 2))
        face = Face(name, name, "", 0, size, square, np.zeros((68, 2)), both[i].c[0].numpy())
        space.path("faces", name, ".json").write_text(face.to_json())
        both[i].save(space.path("latents", name, ".safetensors"))
    return space


def run(space: Workspace, *words: str) -> Any:
    file = str(space.root.parent / "small.safetensors")
    return CliRunner().invoke(app, [*words, "--work", str(space.root), "-w", file, "-j", "1"])


def test_commands(space: Workspace) -> None:
    assert run(space, "mesh", "a", "--resolution", "24", "--level", "1").exit_code == 0
    found = sorted(p.name for p in (space.root / "meshes").iterdir())
    assert found == ["a-depth-left.png", "a-depth-right.png", "a-depth.png", "a.ply"]
    result = run(space, "interpolate", "a", "b", "--frames", "4", "--texture-only")
    assert result.exit_code == 0, result.output
    with Image.open(space.path("interpolations", "a--b-texture", ".gif")) as image:
        assert image.n_frames == 4
    assert run(space, "interpolate", "a", "b", "--shape-only", "--texture-only").exit_code == 2
    assert run(space, "interpolate", "a", "*").exit_code == 2
    first = "interpolate", "a", "b", "--frames", "2", "--from"
    assert run(space, *first, "latents").exit_code == 0
    assert run(space, *first, "01-smiling").exit_code == 2
    again = run(space, "mesh", "a", "--resolution", "24", "--level", "1", "--json")
    assert '"uptodate": 1' in again.output


def test_texture_commands(space: Workspace) -> None:
    _, _, _, region = pair(small_ide3d)
    for words in (["--texture-from", "b"], ["--texture-seed", "7"]):
        result = run(space, "edit", *words, "--region", region, "a")
        assert result.exit_code == 0, result.output
    steps = space.steps("a")
    assert steps == [f"a/01-{region}-texture-from-b", f"a/02-{region}-texture-seed-7"]
    file = space.path("edits", steps[0], ".safetensors")
    assert run(space, "edit", "--texture-from", str(file), "--region", region, "b").exit_code == 0
    for words in (["--texture-seed", "1"], ["--texture-from", "c", "--region", region]):
        assert run(space, "edit", *words, "a").exit_code == 2


def test_a_face_is_drawn_from_a_map_alone(space: Workspace) -> None:
    labels = np.zeros((32, 32), np.uint8)
    labels[6:26, 6:26] = 1
    drawn = space.root.parent / "sketch.png"
    write_labels(drawn, labels)
    options = ("-o", "steps=2", "-o", "yaw_deg=10")
    result = run(space, "edit", "--mask", str(drawn), "--from", "none", *options)
    assert result.exit_code == 0, result.output
    assert "sketch" in space.faces()
    assert (read_labels(space.path("masks", "sketch", ".png")) == labels).all()
    assert run(space, "mesh", "sketch", "--resolution", "16", "--level", "1").exit_code == 0
    write_labels(space.root.parent / "a.png", labels)
    taken = run(space, "edit", "--mask", str(space.root.parent / "a.png"), "--from", "none")
    assert taken.exit_code != 0 and "another name" in taken.output
