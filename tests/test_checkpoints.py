"""Checkpoints of other projects, built here in their form, and what must be refused."""

from __future__ import annotations

import argparse
import json
import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pickled import FILTER, EasyDict, module, nvidia_modules, tripwire  # noqa: F401
from published import rosinality_tensors
from tiny import small_stylegan2
from torch import Tensor
from typer.testing import CliRunner

from semedit import weights
from semedit.checkpoints import examine
from semedit.checkpoints import stylegan2_keys as keys
from semedit.cli.app import app
from semedit.errors import WeightsError
from semedit.generators import load_generator
from semedit.generators.stylegan2.e4e import E4E, E4EConfig
from semedit.generators.stylegan2.stylegan2 import StyleGAN2, StyleGAN2Config

C = torch.zeros(1, 25)


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's weights, of this test alone."""
    folder = tmp_path / "weights"
    monkeypatch.setenv("SEMEDIT_WEIGHTS", str(folder))
    return folder


def same_picture(name: str, generator: StyleGAN2) -> None:
    """Imported weights draw what the generator they came from draws."""
    found = load_generator(name)
    codes = {"ws": torch.randn(1, generator.num_ws, generator.config.w_dim)}
    with torch.no_grad():
        wanted = generator.synthesis(codes, C).image
        torch.testing.assert_close(found.synthesis(codes, C).image, wanted, rtol=1e-5, atol=1e-5)
        z = torch.randn(1, generator.z_dim)
        torch.testing.assert_close(found.mapping(z, C)["ws"], generator.mapping(z, C)["ws"])


# NVIDIA's pickles ---------------------------------------------------------------------------------


def nvidia_tensors(generator: StyleGAN2) -> dict[str, Tensor]:
    """Under NVIDIA's names, filters included."""
    found = {k: v.detach() for k, v in keys.to_nvidia(generator.state_dict()).items()}
    for key in [k for k in found if k.endswith(("conv0.weight", "conv1.weight"))]:
        found[key.removesuffix("weight") + "resample_filter"] = FILTER.clone()
    return found


def nvidia_pickle(generator: StyleGAN2, path: Path, **changed: Tensor) -> Path:
    """As stylegan2-ada-pytorch's training loop writes its snapshots."""
    network = module(
        "Generator",
        nvidia_tensors(generator) | changed,
        _init_args=(),
        _init_kwargs=EasyDict(z_dim=generator.z_dim, synthesis_kwargs=EasyDict(conv_clamp=256)),
        magnitude=np.float64(1.5),
    )
    contents = {
        "training_set_kwargs": EasyDict(path="dataset.zip", resolution=16),
        "G": module("Generator", {}),
        "D": module("Discriminator", {"b4.out.weight": torch.randn(1, 4)}),
        "G_ema": network,
        "augment_pipe": None,
    }
    path.write_bytes(pickle.dumps(contents, protocol=4))
    return path


def test_nvidias_pickles_are_read_and_nothing_in_them_runs(
    nvidia: list[str], tmp_path: Path
) -> None:
    generator = small_stylegan2()
    generator.mapping_network.w_avg.normal_()
    path = nvidia_pickle(generator, tmp_path / "ffhq.pkl")
    pickle.loads(path.read_bytes())  # the tripwire is live
    assert nvidia and not nvidia.clear()  # type: ignore[func-returns-value]
    plan = examine(path)
    assert plan.format.name == "NVIDIA's StyleGAN2" and not plan.coverages[0].complaints
    assert plan.parts[0].config["clamp"] == 256 and plan.parts[0].config["channels"] == [12, 10, 8]
    assert set(plan.parts[0].beside) == {"training_set_kwargs", "G", "D", "augment_pipe"}
    (written,) = plan.write()
    assert not nvidia
    facts = weights.metadata(written)
    assert facts["source_sha256"] == weights.file_sha256(path) and facts["kind"] == "stylegan2"
    same_picture("ffhq", generator)
    torch.testing.assert_close(
        load_generator("ffhq").mean_codes()["ws"], generator.mean_codes()["ws"]
    )


def test_a_tensor_of_another_shape_is_an_error(nvidia: list[str], tmp_path: Path) -> None:
    wrong = {"synthesis.b8.conv0.bias": torch.zeros(7)}
    path = nvidia_pickle(small_stylegan2(), tmp_path / "x.pkl", **wrong)
    plan = examine(path)
    assert plan.coverages[0].mismatched == (("synthesis_network.b8.conv0.bias", (7,), (10,)),)
    with pytest.raises(WeightsError, match=r"1 of another shape .*\(7,\), not \(10,\)"):
        plan.write()


def test_unknown_and_missing_tensors_are_errors(tmp_path: Path) -> None:
    tensors = nvidia_tensors(small_stylegan2())
    tensors["synthesis.b8.skip.weight"] = torch.zeros(1)
    del tensors["synthesis.b16.torgb.bias"]
    torch.save(tensors, tmp_path / "x.pt")
    with pytest.raises(WeightsError, match=r"1 missing \(.*torgb.bias\); 1 unknown \(.*skip"):
        examine(tmp_path / "x.pt").write()


def test_another_filter_is_refused(tmp_path: Path) -> None:
    tensors = nvidia_tensors(small_stylegan2())
    tensors["synthesis.b8.conv0.resample_filter"] = torch.ones(4, 4) / 16
    torch.save(tensors, tmp_path / "x.pt")
    with pytest.raises(WeightsError, match="filters otherwise"):
        examine(tmp_path / "x.pt")


# rosinality, e4e, plain files --------------------------------------------------------------------


def test_rosinalitys_training_files_with_a_namespace(tmp_path: Path) -> None:
    generator = small_stylegan2()
    tensors = rosinality_tensors(generator)
    contents = {
        "g": tensors,
        "d": {"convs.0.weight": torch.zeros(3)},
        "g_ema": tensors,
        "g_optim": {"state": {}, "param_groups": [{"lr": 0.002}]},
        "args": argparse.Namespace(size=16, channel_multiplier=2),
        "ada_aug_p": 0.0,
    }
    for name, legacy in (("zip", False), ("legacy", True)):
        path = tmp_path / f"{name}.pt"
        torch.save(contents, path, _use_new_zipfile_serialization=not legacy)
        plan = examine(path)
        assert plan.format.name == "rosinality's StyleGAN2"
        plan.write()
        same_picture(name, generator)
        # The mean style was not in the file.
        found = load_generator(name)
        z = torch.randn(4000, 6, generator=torch.Generator().manual_seed(5))
        mean = found.mapping(z, C)["ws"][:, 0]
        away = (mean.mean(0) - found.mean_codes()["ws"][0, 0]) / mean.std(0)
        assert float(away.abs().max()) < 0.1


def test_rosinalitys_converted_files_keep_their_mean(tmp_path: Path) -> None:
    generator, mean = small_stylegan2(), torch.randn(12)
    torch.save({"g_ema": rosinality_tensors(generator), "latent_avg": mean}, tmp_path / "x.pt")
    examine(tmp_path / "x.pt").write("mine")
    torch.testing.assert_close(load_generator("mine").mean_codes()["ws"][0, 3], mean)


@pytest.mark.parametrize("names", [nvidia_tensors, rosinality_tensors])
def test_plain_state_dicts_and_safetensors(
    names: Callable[[StyleGAN2], dict[str, Tensor]], tmp_path: Path
) -> None:
    generator = small_stylegan2()
    tensors = {f"module.{k}": v for k, v in names(generator).items()}
    torch.save(tensors, tmp_path / "plain.pt")
    weights.write_tensors(tmp_path / "safe.safetensors", names(generator), {"format": "pt"})
    for name in ("plain.pt", "safe.safetensors"):
        examine(tmp_path / name).write()
        same_picture(Path(name).stem, generator)


@dataclass(frozen=True)
class Inverted:
    path: Path
    generator: StyleGAN2
    encoder: E4E


def e4e_file(path: Path, kind: str = "Encoder4Editing") -> Inverted:
    """e4e's form: a generator of 16 pixels, and the encoder, whose body has one size only."""
    torch.manual_seed(0)
    generator = StyleGAN2(StyleGAN2Config(16, (12, 10, 8), 6, 12, mapping_layers=2))
    encoder = E4E(E4EConfig(6, 12, kind == "Encoder4Editing")).eval()
    mean = torch.randn(12)
    encoder.mean.copy_(mean.expand(6, 12))
    tensors = {f"decoder.{k}": v for k, v in rosinality_tensors(generator).items()}
    tensors |= {f"encoder.{k}": v for k, v in encoder.state_dict().items() if k != "mean"}
    options = {"encoder_type": kind, "start_from_latent_avg": True, "output_size": 16}
    contents = {"state_dict": tensors, "latent_avg": mean.repeat(6, 1), "opts": options}
    torch.save(contents, path)
    return Inverted(path, generator, encoder)


@torch.no_grad()
def test_e4e_brings_its_generator_and_starts_its_inversion(tmp_path: Path) -> None:
    made = e4e_file(tmp_path / "e4e.pt")
    plan = examine(made.path)
    assert [part.kind for part in plan.parts] == ["stylegan2", "e4e"]
    files = plan.write("both")
    assert [path.stem for path in files] == ["both", "both-encoder"]
    same_picture("both", made.generator)
    found = load_generator("both")
    assert "encode" in found.traits
    image, labels = torch.rand(1, 3, 16, 16), torch.zeros(1, 16, 16, dtype=torch.int64)
    wanted = made.encoder(image, labels, C)
    torch.testing.assert_close(found.encode(image, labels, C)["ws"], wanted)
    torch.testing.assert_close(found.mean_codes()["ws"][0], made.encoder.mean)


@torch.no_grad()
def test_psps_styles_stand_alone_and_others_are_refused(tmp_path: Path) -> None:
    made = e4e_file(tmp_path / "psp.pt", "GradualStyleEncoder")
    plan = examine(made.path)
    assert plan.parts[1].config["deltas"] is False
    image = torch.rand(1, 3, 256, 256)
    network: Any = plan.parts[1].build().eval()
    network.load_state_dict(made.encoder.state_dict())
    torch.testing.assert_close(network.offsets(image), made.encoder.offsets(image))
    deltas = E4E(E4EConfig(6, 12)).eval()
    deltas.load_state_dict(made.encoder.state_dict())
    moved = deltas.offsets(image) - made.encoder.offsets(image)
    assert float(moved[:, 0].abs().max()) == 0 and float(moved[:, 1].abs().max()) > 0
    contents = torch.load(made.path)
    contents["opts"]["encoder_type"] = "BackboneEncoderUsingLastLayerIntoW"
    torch.save(contents, made.path)
    with pytest.raises(WeightsError, match="BackboneEncoder"):
        examine(made.path)


# What is refused ---------------------------------------------------------------------------------


class Planted:
    """A pickle that runs a command when it is loaded."""

    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call[0], self.call[1:]


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize(
    ("call", "told"),
    [
        ((os.system, "exit 7"), "system"),
        ((eval, "1 + 1"), "eval"),
        ((getattr, dict, "get"), "getattr"),
    ],
)
def test_code_is_never_run(call: tuple[Any, ...], told: str, protocol: int, tmp_path: Path) -> None:
    plain = tmp_path / "x.pkl"
    plain.write_bytes(pickle.dumps({"G_ema": Planted(*call)}, protocol=protocol))
    torch.save({"g_ema": Planted(*call)}, tmp_path / "x.pt")
    torch.save({"g_ema": Planted(*call)}, tmp_path / "y.pt", _use_new_zipfile_serialization=False)
    for name in ("x.pkl", "x.pt", "y.pt"):
        with pytest.raises(WeightsError, match=rf"{told}, which is code"):
            examine(tmp_path / name)


def test_damaged_files_are_refused(nvidia: list[str], tmp_path: Path) -> None:
    whole = nvidia_pickle(small_stylegan2(), tmp_path / "whole.pkl").read_bytes()
    torch.save(nvidia_tensors(small_stylegan2()), tmp_path / "whole.pt")
    zipped = (tmp_path / "whole.pt").read_bytes()
    weights.save(tmp_path / "whole.safetensors", {"a": torch.zeros(300)}, {})
    safe = (tmp_path / "whole.safetensors").read_bytes()
    for name, data in {
        "cut.pkl": whole[: len(whole) // 2],
        "cut.pt": zipped[: len(zipped) // 2],
        "cut.safetensors": safe[: len(safe) // 2],
        "flipped.pkl": whole[:100] + b"\xff\xff" + whole[102:],
    }.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(WeightsError, match=r"damaged|cut short|whole"):
            examine(tmp_path / name)
    assert not nvidia
    for name, data in {"empty": b"", "noise": b"\x00\x01\x02" * 50}.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(WeightsError, match="neither"):
            examine(tmp_path / name)
    with pytest.raises(WeightsError, match="no file"):
        examine(tmp_path / "none.pt")


def test_what_is_no_known_network_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "model": {"layer.weight": torch.zeros(2)}}, tmp_path / "x.pt")
    with pytest.raises(WeightsError, match="no network that semedit knows"):
        examine(tmp_path / "x.pt")
    weights.save(tmp_path / "own.safetensors", {"a": torch.zeros(2)}, {"kind": "stylegan2"})
    with pytest.raises(WeightsError, match="of semedit's own"):
        examine(tmp_path / "own.safetensors")


def test_names_that_are_taken_are_refused(tmp_path: Path) -> None:
    torch.save(nvidia_tensors(small_stylegan2()), tmp_path / "one.pt")
    changed = small_stylegan2()
    changed.mapping_network.w_avg.add_(1)
    torch.save(nvidia_tensors(changed), tmp_path / "two.pt")
    one, two = examine(tmp_path / "one.pt"), examine(tmp_path / "two.pt")
    one.write("mine")
    one.write("mine")  # the same again
    for name, told in (("mine", "there already"), ("faces", "builtin"), ("a/b", "safe")):
        with pytest.raises(WeightsError, match=told):
            two.write(name)
    (known,) = two.write("stylegan2-ffhq-256")
    assert weights.resolve("stylegan2-ffhq-256") == known
    assert "non-commercial" in weights.metadata(known)["licence"]
    with pytest.raises(WeightsError, match="not on this disk") as caught:
        weights.resolve("e4e-ffhq")
    assert "weights import FILE --name e4e-ffhq" in str(caught.value)


def test_what_was_imported_is_listed(tmp_path: Path) -> None:
    torch.save(nvidia_tensors(small_stylegan2()), tmp_path / "face.pt")
    listed = CliRunner().invoke(app, ["weights", "import", str(tmp_path / "face.pt"), "--json"])
    assert json.loads(listed.stdout)["name"] == "face"
    shown = CliRunner().invoke(app, ["weights", "list", "--json"]).stdout.splitlines()
    (row,) = [line for line in map(json.loads, shown) if line["kind"] == "imported"]
    assert row["name"] == "face" and "NVIDIA" in row["licence"] and "face.pt" in row["use"]
    table = CliRunner().invoke(app, ["weights", "import", str(tmp_path / "face.pt")])
    assert "not needed" in table.stdout and "licence: not in the file" in table.stdout
    wrong = CliRunner().invoke(app, ["weights", "import", str(tmp_path)])
    assert wrong.exit_code == 1


def test_values_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    tensors = nvidia_tensors(small_stylegan2())
    tensors["mapping.w_avg"] = torch.full([12], float("nan"))
    torch.save(tensors, tmp_path / "x.pt")
    with pytest.raises(WeightsError, match="not finite"):
        examine(tmp_path / "x.pt").write()


def test_real_files_that_are_no_networks_of_ours(shared: Path) -> None:
    folder = shared / "real" / "weights"
    for name, told in {
        "NEGATIVE_html_page_named_yunet_2023mar.onnx": "web page",
        "NEGATIVE_lfs_pointer_yunet_2023mar.onnx": "LFS pointer",
        "NEGATIVE_weights_only_numpy_scalar_fsanet1x1.chkpt": "no network that semedit knows",
        "blazeface.pth": "no network that semedit knows",
        "detection_mobilenet0.25_Final.pth": "no network that semedit knows",
        "fsanet-1x1-iter-688590.onnx": "neither",
        "anchors.npy": "neither",
    }.items():
        with pytest.raises(WeightsError, match=told):
            examine(folder / name)
