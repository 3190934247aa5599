"""Fitting directions from rendered heads and from a classifier's scores."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import TinyGenerator, small_stylegan2
from torch import Tensor

from semedit import cameras, weights
from semedit.directions import fitting, published
from semedit.directions.directions import directions_for, own_file
from semedit.errors import InputError, LatentError, OptionError, TraitError, WeightsError
from semedit.generators.stylegan2.stylegan2 import StyleGAN2, StyleGAN2Config
from semedit.heads.parameters import IDENTITIES, NAMES
from semedit.media.labels import ATTRIBUTES
from semedit.trainers import directions


class Reader:
    """An encoder whose code is the colour of the picture's two halves."""

    name = "reader"
    resolution = 16
    traits = frozenset({"encode"})

    def encode(self, images: Tensor, labels: Tensor, c: Tensor) -> dict[str, Tensor]:
        halves = images.unflatten(3, (2, 8)).mean((2, 4)).transpose(1, 2)  # [N,2,3]
        return {"ws": halves}

    def state_dict(self) -> dict[str, Tensor]:
        return {}


def folder(path: Path, n: int = 60) -> Path:
    """Heads whose left half is red when they smile; half of them do, whatever else they have. The
    more masculine, the bluer is the right half."""
    (path / "images").mkdir(parents=True)
    (path / "labels").mkdir()
    rng = np.random.default_rng(0)
    attributes = rng.random((n, len(ATTRIBUTES))) < 0.5
    z = rng.normal(size=(n, IDENTITIES + len(NAMES))).astype(np.float32)
    masculine = z[:, IDENTITIES + NAMES.index("masculine")]
    for i in range(n):
        pixels = rng.integers(100, 120, (16, 16, 3)).astype(np.uint8)
        pixels[:, :8, 0] += 100 * attributes[i, ATTRIBUTES.index("smiling")].astype(np.uint8)
        pixels[:, 8:, 2] += np.uint8(60 + 20 * np.clip(masculine[i], -3, 3))
        Image.fromarray(pixels).save(path / "images" / f"{i:06d}_0.png")
        Image.fromarray(np.zeros((16, 16), np.uint8)).save(path / "labels" / f"{i:06d}_0.png")
    c = cameras.orbit(0.0, 0.0).expand(n, 1, 25).numpy()
    np.savez(path / "arrays.npz", c=c, z=z, attributes=attributes)
    (path / "heads.json").write_text(json.dumps({"seed": 0}))
    return path


def test_rendered_heads_teach_where_an_attribute_lies(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    found = directions.from_heads(
        Reader(), folder(tmp_path), batch=16, progress=lambda *at: seen.append(at)
    )
    assert tuple(found.units) == (*ATTRIBUTES, *directions.CAUSES) and seen[-1] == (60, 60)
    move = found.move("smiling")["ws"]
    assert move.shape == (2, 3) and move[0, 0] > 0
    assert move[0, 0] / move.norm() > 0.97
    assert found.figures["smiling"]["accuracy"] > 0.95
    male = found.move("male")["ws"]
    assert male[1, 2] / male.norm() > 0.97


def test_no_encoder_or_no_heads(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        directions.from_heads(Reader(), tmp_path)
    blind = Reader()
    blind.traits = frozenset()
    with pytest.raises(TraitError):
        directions.from_heads(blind, tmp_path)


# --- boundaries ------------------------------------------------------------------------------


def red_and_blue(images: Tensor) -> Tensor:
    """Smiling is red, young is half red and half blue; the rest is nothing."""
    scores = torch.zeros(len(images), len(ATTRIBUTES))
    red, blue = images[:, 0].mean((1, 2)), images[:, 2].mean((1, 2))
    scores[:, ATTRIBUTES.index("smiling")] = red
    scores[:, ATTRIBUTES.index("young")] = red + blue
    return scores


def sampled(generator: Any, n: int = 300) -> tuple[dict[str, Tensor], Tensor]:
    codes, scores = fitting.sample(generator, n, classify=red_and_blue)
    return codes, scores - scores.mean(0)


@pytest.mark.parametrize("make", [TinyGenerator, small_stylegan2])
def test_a_boundary_of_what_the_classifier_sees(make: Callable[[], Any]) -> None:
    generator = make().requires_grad_(False)
    seen: list[tuple[int, int]] = []
    codes, scores = fitting.sample(
        generator, 50, classify=red_and_blue, progress=lambda *at: seen.append(at)
    )
    assert seen[-1] == (50, 50) and scores.shape == (50, len(ATTRIBUTES))
    codes, scores = sampled(generator)
    found = fitting.fit_boundaries(generator, codes, scores, ["smiling"])
    unit = found.units["smiling"]["ws"]
    # One style serves all layers: the direction is one of W.
    assert unit.shape == (1, codes["ws"].shape[-1])
    assert float(unit.norm()) == pytest.approx(1, abs=1e-5)
    figures = found.figures["smiling"]
    assert figures["deviation"] == pytest.approx(float((codes["ws"][:, 0] @ unit[0]).std()))
    assert figures["accuracy"] > 0.7
    z = torch.randn(8, generator.z_dim, generator=torch.Generator().manual_seed(3))
    c = cameras.orbit(0.0, 0.0).expand(8, -1)
    ws = generator.mapping(z, c)["ws"]
    red = [
        generator.synthesis({"ws": ws + s * found.move("smiling")["ws"]}, c).image[:, 0].mean()
        for s in (-2.0, 0.0, 2.0)
    ]
    assert red[0] < red[1] < red[2]


def test_conditions_are_projected_out() -> None:
    generator = TinyGenerator().requires_grad_(False)
    codes, scores = sampled(generator)
    plain = fitting.fit_boundaries(generator, codes, scores, ["young", "smiling"])
    apart = fitting.fit_boundaries(generator, codes, scores, ["young"], ["smiling"])
    other = plain.units["smiling"]["ws"].flatten()
    before = plain.units["young"]["ws"].flatten() @ other
    after = apart.units["young"]["ws"].flatten() @ other
    assert abs(float(before)) > 0.05 and abs(float(after)) < 1e-5
    with pytest.raises(OptionError, match="smilling"):
        fitting.fit_boundaries(generator, codes, scores, ["smilling"])
    with pytest.raises(OptionError, match="bald"):
        fitting.fit_boundaries(generator, codes, scores, ["bald"])  # never varies


# --- components ------------------------------------------------------------------------------


def test_components_are_those_of_the_covariance() -> None:
    generator = TinyGenerator().requires_grad_(False)
    codes, _ = fitting.sample(generator, 400)
    found = fitting.fit_components(generator, codes, 3)
    assert tuple(found.units) == ("pc00", "pc01", "pc02")
    x = codes["ws"][:, 0] - codes["ws"][:, 0].mean(0)
    values = torch.linalg.svdvals(x) / (len(x) - 1) ** 0.5
    units = torch.stack([found.units[name]["ws"][0] for name in found.units])
    assert torch.allclose(units @ units.T, torch.eye(3), atol=1e-5)
    for i, name in enumerate(found.units):
        assert found.figures[name]["deviation"] == pytest.approx(float(values[i]), rel=1e-3)
        assert float((x @ units[i]).std()) == pytest.approx(float(values[i]), rel=1e-3)
        assert units[i].abs().max() == units[i].max()
    with pytest.raises(OptionError, match="components"):
        fitting.fit_components(generator, codes, 9)


# --- published files -------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(8,), (1, 8), (3, 8), (1, 3, 8)])
@pytest.mark.parametrize("suffix", [".npy", ".pt"])
def test_published_shapes(shape: tuple[int, ...], suffix: str, tmp_path: Path) -> None:
    generator = TinyGenerator().requires_grad_(False)
    path = tmp_path / f"smile{suffix}"
    line = torch.randn(8, generator=torch.Generator().manual_seed(0))
    value = (7 * line).expand(shape).contiguous()
    if suffix == ".npy":
        np.save(path, value.double().numpy())
    else:
        torch.save(value, path)
    found = published.import_directions(generator, path, samples=500)
    assert tuple(found.units) == ("smile",)
    # Whatever shape and length it came in, strength 1 is the same move.
    codes, _ = fitting.sample(generator, 500, batch=500)
    unit = line / line.norm()
    expected = unit * (codes["ws"][:, 0] @ unit).std()
    move = found.move("smile")["ws"].expand(3, 8)
    assert torch.allclose(move, expected.expand(3, 8), rtol=1e-4, atol=1e-6)


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    generator = TinyGenerator().requires_grad_(False)

    def refused(error: type[Exception], match: str, name: str = "x.npy") -> None:
        with pytest.raises(error, match=match):
            published.import_directions(generator, tmp_path / name, samples=20)

    refused(InputError, "not a file")
    for shape in ((512,), (1, 512), (18, 8), (1, 18, 512), (3, 3, 8), ()):
        np.save(tmp_path / "x.npy", np.ones(shape))
        refused(LatentError, r"\(3, 8\)")
    np.save(tmp_path / "x.npy", np.full(8, np.nan))
    refused(InputError, "NaN")
    np.save(tmp_path / "x.npy", np.zeros(8))
    refused(InputError, "zero")
    np.save(tmp_path / "x.npy", np.ones(8, int))
    refused(InputError, "floating point")
    np.save(tmp_path / "x.npy", np.array([{}]), allow_pickle=True)
    refused(InputError, "not a NumPy array")
    (tmp_path / "x.pt").write_bytes(b"<!DOCTYPE html>")
    refused(WeightsError, "web page", "x.pt")
    torch.save([1, 2], tmp_path / "x.pt")
    refused(InputError, "list", "x.pt")
    np.save(tmp_path / "stylegan_ffhq_age_w_boundary.npy", np.ones(8))
    refused(LatentError, "another space", "stylegan_ffhq_age_w_boundary.npy")


def test_real_published_directions(shared: Path) -> None:
    """Those of e4e and PTI fit a StyleGAN2 of 1024 pixels; InterFaceGAN's own are StyleGAN's."""
    folder = shared / "real" / "directions"
    config = StyleGAN2Config(1024, (4, 4, 4, 4, 4, 4, 2, 2, 2), mapping_layers=1)
    generator = StyleGAN2(config, "ffhq").requires_grad_(False)
    for name in ("e4e_interfacegan_age", "e4e_interfacegan_smile", "pti_interfacegan_rotation"):
        found = published.import_directions(generator, folder / f"{name}.pt", samples=50)
        assert found.units[name]["ws"].shape == (1, 512)
    found = published.import_directions(generator, folder / "e4e_interfacegan_pose.pt", samples=50)
    assert found.units["e4e_interfacegan_pose"]["ws"].shape == (18, 512)
    found = published.import_directions(generator, folder / "e4e_ganspace_ffhq_pca.pt", samples=50)
    assert len(found.units) == 80 and found.figures["e4e_ganspace_ffhq_pca-07"]["deviation"] > 0
    for path in sorted(folder.glob("interfacegan_stylegan_*.npy")):
        with pytest.raises(LatentError, match="another space"):
            published.import_directions(generator, path, samples=50)
    small = small_stylegan2()
    with pytest.raises(LatentError, match=r"\(1, 12\)"):
        published.import_directions(small, folder / "e4e_interfacegan_age.pt", samples=50)


# --- files -----------------------------------------------------------------------------------


def test_the_users_directions_count_beside_those_that_ship(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights.rows, "DATA", tmp_path / "data")
    monkeypatch.setenv("SEMEDIT_WEIGHTS", str(tmp_path / "own"))
    generator = TinyGenerator().requires_grad_(False)
    with pytest.raises(WeightsError, match="no directions"):
        directions_for(generator)
    codes, _ = fitting.sample(generator, 40)
    found = fitting.fit_components(generator, codes, 2)
    facts = {"command": "test", "seed": "0", "data": "tiny", "licence": "MIT"}
    found.save(tmp_path / "data" / "directions-tiny.safetensors", **facts)
    assert tuple(directions_for(generator).units) == ("pc00", "pc01")
    renamed = replace(
        found,
        units={"pc01": found.units["pc00"], "new": found.units["pc01"]},
        figures={"pc01": found.figures["pc00"], "new": found.figures["pc01"]},
    )
    renamed.save(own_file("tiny"), **facts)
    both = directions_for(generator)
    assert tuple(both.units) == ("pc00", "pc01", "new")
    assert torch.equal(both.units["pc01"]["ws"], both.units["pc00"]["ws"])
    with pytest.raises(LatentError, match="not to tiny"):
        directions_for(TinyGenerator(seed=3))
