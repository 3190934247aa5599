"""Files of other people: checkpoints in wrappings, directions and codes in any usual container."""

import json
import math
import pickle
import sys
import types
from dataclasses import asdict

import numpy as np
import pytest
import torch
from published import to_rosinality
from safetensors.torch import save_file
from tiny import small_stylegan2
from torch import nn
from typer.testing import CliRunner

from semedit import latents, weights
from semedit.checkpoints import examine
from semedit.checkpoints import stylegan2_keys as keys
from semedit.checkpoints.arrays import read_arrays
from semedit.cli.app import app
from semedit.directions import published
from semedit.errors import InputError, LatentError, OptionError, SemeditError, WeightsError
from semedit.generators import load_generator
from semedit.generators.stylegan2.stylegan2 import StyleGAN2, StyleGAN2Config
from semedit.media import decoding
from semedit.tasks.codes import read_codes

C = torch.zeros(1, 25)
W = 12  # of small_stylegan2; it has 6 layers
ADVICE = ("allow_pickle", "weights_only", "pickle_module", "add_safe_globals")


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    """The user's weights, of this test alone."""
    monkeypatch.setenv("SEMEDIT_WEIGHTS", str(tmp_path / "weights"))
    yield tmp_path / "weights"
    decoding.close()


def semedit(*arguments, code=0):
    """Run a command; its output."""
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    assert not any(word in result.output for word in ADVICE)
    return result.output


def rosinality():
    return to_rosinality(small_stylegan2().state_dict())


def prefixed(prefix, tensors=None):
    return {prefix + key: value for key, value in (tensors or rosinality()).items()}


# Checkpoints in wrappings ------------------------------------------------------------------------


def averaged():
    """As torch's own averaging keeps it."""
    return {"n_averaged": torch.tensor(3), **prefixed("module.")}


WRAPPED = {
    "g only": lambda: {"g": rosinality()},
    "prefix": lambda: prefixed("g_ema."),
    "compiled": lambda: prefixed("_orig_mod."),
    "compiled, in g_ema": lambda: {"g_ema": prefixed("_orig_mod.")},
    "parallel and compiled": lambda: prefixed("module._orig_mod."),
    "averaged": averaged,
    "averaged, in g_ema": lambda: {"g_ema": averaged(), "iteration": 3},
    "Lightning": lambda: {
        "state_dict": {**prefixed("generator."), "discriminator.final.weight": torch.ones(2)},
        "epoch": 1,
        "hyper_parameters": {"lr": 0.1},
    },
    "Lightning, two of them": lambda: {
        "state_dict": {
            **prefixed("G.", {k: v + 1 for k, v in rosinality().items()}),
            **prefixed("G_ema."),
        }
    },
    "a box in a box": lambda: {"models": {"ema": rosinality()}, "args": {"size": 16}},
}


@pytest.mark.parametrize("name", WRAPPED)
def test_checkpoints_are_found_in_their_wrappings(tmp_path, name):
    torch.save(WRAPPED[name](), tmp_path / "x.pt")
    plan = examine(tmp_path / "x.pt")
    plan.write("small")
    found, wanted = load_generator("small"), small_stylegan2()
    codes = {"ws": torch.randn(1, wanted.num_ws, W)}
    with torch.no_grad():
        torch.testing.assert_close(
            found.synthesis(codes, C).image, wanted.synthesis(codes, C).image
        )
    assert plan.checkpoint.prefix is None or plan.parts[0].notes[0].startswith("read from")


def test_two_networks_of_equal_rank_are_not_guessed_between(tmp_path):
    torch.save({"first": rosinality(), "second": rosinality()}, tmp_path / "x.pt")
    with pytest.raises(WeightsError, match=r"first\.\* and .* second\.\*"):
        examine(tmp_path / "x.pt")


def test_networks_of_tensorflow_are_named(tmp_path, monkeypatch):
    module = types.ModuleType("dnnlib.tflib.network")

    class Network:
        def __init__(self):
            self.__dict__.update({"version": 4, "variables": [], "build_module_src": "import os"})

    Network.__module__, Network.__qualname__ = "dnnlib.tflib.network", "Network"
    module.Network = Network
    for name in ("dnnlib", "dnnlib.tflib"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "dnnlib.tflib.network", module)
    (tmp_path / "x.pkl").write_bytes(pickle.dumps((Network(), Network(), Network())))
    told = semedit("weights", "import", tmp_path / "x.pkl", code=1)
    assert "TensorFlow" in told and "legacy.py" in told and told.count("error: ") == 1
    (tmp_path / "x.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(60))
    assert "TensorFlow" in semedit("weights", "import", tmp_path / "x.h5", code=1)


def conditional():
    torch.manual_seed(0)
    config = StyleGAN2Config(16, (12, 10, 8), 6, W, c_dim=3, mapping_layers=2)
    generator = StyleGAN2(config, "classes")
    with torch.no_grad():
        generator.mapping_network.embed.bias.normal_()
        generator.mapping_network.w_avg.normal_()
    return generator


def test_a_class_is_chosen_at_import(tmp_path):
    generator = conditional()
    torch.save(keys.to_nvidia(generator.state_dict()), tmp_path / "x.pt")
    told = semedit("weights", "import", tmp_path / "x.pt", code=1)
    assert "3 classes" in told and "--class 0 to 2" in told and told.count("\n") == 1
    assert "none of them 3" in semedit("weights", "import", tmp_path / "x.pt", "--class", 3, code=1)
    told = semedit("weights", "import", tmp_path / "x.pt", "--name", "second", "--class", 1)
    assert "class 1 of 3" in told
    found, z = load_generator("second"), torch.randn(4, 6)
    label = torch.eye(3)[[1, 1, 1, 1]]
    with torch.no_grad():
        wanted = generator.mapping_network(z, label)
        torch.testing.assert_close(found.mapping_network(z, C.expand(4, -1)), wanted)
        assert not torch.allclose(wanted, generator.mapping_network(z, label.roll(1, 1)))
        z = torch.randn(20_000, 6)
        own = generator.mapping_network(z, torch.eye(3)[1].expand(len(z), -1)).mean(0)
    torch.testing.assert_close(found.mapping_network.w_avg, own, atol=0.02, rtol=0.02)


def test_without_classes_none_is_chosen(tmp_path):
    torch.save({"g_ema": rosinality()}, tmp_path / "x.pt")
    assert "--class" in semedit("weights", "import", tmp_path / "x.pt", "--class", 0, code=1)


# Directions --------------------------------------------------------------------------------------

ONE = torch.linspace(-1, 1, W)[None]
ALL = torch.linspace(-1, 1, 6 * W).reshape(1, 6, W)


def saved(folder, name, value):
    """A file of a kind that its name's suffix says."""
    path = folder / name
    match path.suffix:
        case ".pt":
            torch.save(value, path)
        case ".npy":
            np.save(path, value, allow_pickle=True)
        case ".npz":
            np.savez(path, **value)
        case ".pkl":
            path.write_bytes(pickle.dumps(value))
        case ".safetensors":
            save_file(value, path)
        case ".json":
            path.write_text(json.dumps(value))
        case _:
            path.write_text(value)
    return path


GOOD = {
    "plain.pt": ONE,
    "flat.pt": ONE[0],
    "half.pt": ONE.half(),
    "double.pt": ONE.double(),
    "parameter.pt": nn.Parameter(ONE.clone()),
    "dict.pt": {"direction": ONE, "layers": "all"},
    "nested.pt": {"state": {"direction": ONE}},
    "list.pt": [ONE],
    "numpy.pt": {"d": ONE.numpy()},
    "intercept.pt": {"boundary": ONE, "intercept": torch.zeros(1)},
    "a.npy": ONE.numpy(),
    "big.npy": ONE.numpy().astype(">f8"),
    "dict.npy": {"w": ONE.numpy()},
    "objects.npy": np.array([ONE.numpy(), None], object),
    "a.npz": {"boundary": ONE.numpy(), "bias": np.zeros(1)},
    "pickled.pkl": {"d": ONE.numpy()},
    "a.safetensors": {"smile": ONE},
    "list.json": ONE.tolist(),
    "dict.json": {"name": "smile", "direction": ONE[0].tolist()},
    "column.txt": "\n".join(map(str, ONE[0].tolist())),
    "row.csv": ",".join(map(str, ONE[0].tolist())),
    "comment.txt": "# smile\n" + " ".join(map(str, ONE[0].tolist())) + "\n",
}


@pytest.mark.parametrize("name", GOOD)
def test_what_holds_one_direction_is_read(tmp_path, name):
    found = published.import_directions(
        small_stylegan2(), saved(tmp_path, name, GOOD[name]), samples=20
    )
    (unit,) = found.units.values()
    torch.testing.assert_close(unit["ws"], ONE / ONE.norm(), atol=1e-3, rtol=1e-3)


def test_all_layers_may_lie_in_one_row(tmp_path):
    for name, value in {"a.pt": ALL, "flat.npy": ALL.reshape(1, -1).numpy()}.items():
        found = published.import_directions(
            small_stylegan2(), saved(tmp_path, name, value), samples=20
        )
        (unit,) = found.units.values()
        torch.testing.assert_close(unit["ws"], ALL[0] / ALL.norm())


def test_of_several_directions_one_is_chosen(tmp_path):
    both = saved(tmp_path, "both.pt", {"smile": ONE, "age": -ONE})
    with pytest.raises(InputError, match=r"several directions: age \(1, 12\), smile") as error:
        published.import_directions(small_stylegan2(), both, samples=20)
    assert "--key age" in error.value.hint
    found = published.import_directions(small_stylegan2(), both, "older", 20, key="age")
    torch.testing.assert_close(found.units["older"]["ws"], -ONE / ONE.norm())
    with pytest.raises(InputError, match="no key 'pose'") as error:
        published.import_directions(small_stylegan2(), both, samples=20, key="pose")
    assert "smile" in error.value.hint


class Trap:
    def __reduce__(self):
        return print, ("the code was run",)


BAD = {
    "other-width.pt": torch.ones(1, 9),
    "other-layers.pt": torch.ones(1, 5, W),
    "whole.npy": np.arange(W),
    "bytes.npy": np.ones(W, np.uint8),
    "words.json": {"name": "smile"},
    "text.txt": "not a direction",
    "trap.pt": {"d": Trap()},
    "trap.npy": np.array([Trap()], object),
    "trap.pkl": Trap(),
    "code.npz": {"w": ALL.numpy()},  # of a face, as projectors have it
    "nan.npy": np.full(W, np.nan),
}


@pytest.mark.parametrize("name", BAD)
def test_what_holds_none_is_told_in_one_sentence_of_our_own(tmp_path, capsys, name):
    path = saved(tmp_path, name, BAD[name])
    with pytest.raises(SemeditError) as error:
        published.import_directions(small_stylegan2(), path, samples=20)
    told = str(error.value)
    assert name in told and "\n" not in told and not any(word in told for word in ADVICE)
    assert "the code was run" not in capsys.readouterr().out


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".pt", ".safetensors", ".json"])
def test_damaged_arrays_are_one_error(tmp_path, suffix):
    bare, named = ONE.numpy(), {"d": ONE}
    kinds = {".npy": bare, ".npz": {"d": bare}, ".json": ONE.tolist()}
    value = kinds.get(suffix, named)
    path = saved(tmp_path, f"x{suffix}", value)
    whole = path.read_bytes()
    for length in range(0, len(whole), max(1, len(whole) // 7)):
        path.write_bytes(whole[:length])
        with pytest.raises(SemeditError) as error:
            read_arrays(path)
        assert "\n" not in str(error.value) and not any(w in str(error.value) for w in ADVICE)


def test_pickles_of_weights_give_no_advice(tmp_path):
    torch.save({"a": Trap()}, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match="not run") as error:
        weights.load_pickle(tmp_path / "x.pth")
    assert not any(word in str(error.value) for word in ADVICE)


# Codes -------------------------------------------------------------------------------------------


@pytest.fixture
def small(own_folder):
    """A StyleGAN2 among the user's weights."""
    own_folder.mkdir()
    generator = small_stylegan2()
    facts = {"kind": "stylegan2", "config": json.dumps(asdict(generator.config))}
    weights.save(own_folder / "small.safetensors", generator.state_dict(), facts, half=False)
    return load_generator("small")


def codes(n=1):
    return torch.randn(n, 6, W, generator=torch.Generator().manual_seed(n))


def test_codes_become_faces_that_every_command_takes(tmp_path, small, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ws = codes(2)
    saved(tmp_path, "latents.pt", ws)
    told = semedit("latents", "import", "latents.pt", "-w", "small", "--names", "anna,ben")
    assert "2" in told
    latent = latents.load("semedit-work/latents/ben.safetensors", small)
    torch.testing.assert_close(latent.codes["ws"], ws[1:])
    assert "up to date" in semedit("latents", "import", "latents.pt", "-w", "small", "--dry-run")
    for folder, suffix in (("faces", ".png"), ("faces", ".json"), ("masks", ".png")):
        assert (tmp_path / "semedit-work" / folder / f"anna{suffix}").is_file()
    torch.save(ONE, tmp_path / "smile.pt")
    semedit("directions", "import", "smile.pt", "-w", "small")
    edit = ("edit", "anna", "--direction", "smile", "--strength", 2, "-w", "small")
    semedit(*edit)
    edited = latents.load("semedit-work/edits/anna/01-smile+2.safetensors", small)
    assert not torch.allclose(edited.codes["ws"], ws[:1])

    semedit("latents", "export", "--format", "npz", "--out", "out", "--from", "latents")
    with np.load(tmp_path / "out" / "ben.npz") as held:
        np.testing.assert_allclose(held["w"], ws[1:].numpy())
    assert "there already" in semedit(
        "latents", "export", "--format", "npz", "--out", "out", code=1
    )
    semedit("latents", "export", "anna", "--out", "out")
    torch.testing.assert_close(
        torch.load(tmp_path / "out" / "anna.pt", weights_only=True), edited.codes["ws"]
    )
    semedit("latents", "import", "out/ben.npz", "-w", "small", "--work", "again")
    again = latents.load("again/latents/ben.safetensors", small)
    torch.testing.assert_close(again.codes["ws"], ws[1:])


def test_an_inversion_is_not_replaced_without_a_word(tmp_path, small, monkeypatch):
    monkeypatch.chdir(tmp_path)
    saved(tmp_path, "anna.pt", codes())
    semedit("latents", "import", "anna.pt", "-w", "small")
    for receipt in (tmp_path / "semedit-work" / "receipts" / "import").iterdir():
        receipt.unlink()  # as if `invert` had made it
    told = semedit("latents", "import", "anna.pt", "-w", "small", code=3)
    assert "has a latent already" in told and "--overwrite" in told


READ = {
    "one.pt": (codes(), ["one"]),
    "bare.npy": (codes()[0].numpy(), ["bare"]),
    "many.npy": (codes(3).numpy(), ["many-01", "many-02", "many-03"]),
    "projected.npz": ({"w": codes().numpy()}, ["projected"]),
    "one-style.pt": (codes()[:, 0], ["one-style"]),
    "mean-beside.pt": ({"latents": codes(2), "psnr": torch.ones(2)}, None),
    "of-names.npy": ({"a.jpg": codes()[0].numpy(), "b.png": codes(2)[0].numpy()}, ["a", "b"]),
}


@pytest.mark.parametrize("name", READ)
def test_codes_in_every_usual_file(tmp_path, name):
    value, names = READ[name]
    found = read_codes(saved(tmp_path, name, value), small_stylegan2())
    assert list(found) == (names or ["mean-beside-01", "mean-beside-02"])
    assert all(ws.shape == (1, 6, W) and ws.dtype == torch.float32 for ws in found.values())
    if name == "one-style.pt":
        torch.testing.assert_close(found["one-style"], codes()[:, :1].expand(-1, 6, -1))


def test_codes_that_do_not_fit_are_refused_with_both_shapes(tmp_path):
    generator = small_stylegan2()
    for shape in ((1, 18, 512), (1, 18, W), (2, 6, 9), (6, 3), (7,)):
        path = saved(tmp_path, "x.pt", torch.ones(shape))
        with pytest.raises(LatentError) as error:
            read_codes(path, generator)
        assert str(shape) in error.value.message and "(1, 6, 12)" in error.value.message
    with pytest.raises(InputError, match="uint8, not floating"):
        read_codes(saved(tmp_path, "x.npy", np.ones((1, 6, W), np.uint8)), generator)
    with pytest.raises(InputError, match="NaN"):
        read_codes(saved(tmp_path, "x.pt", codes() * math.nan), generator)
    with pytest.raises(OptionError, match="1 names for 3"):
        read_codes(saved(tmp_path, "x.pt", codes(3)), generator, ["a"])
    several = {"latents": codes(2), "latent_avg": codes()[0]}
    with pytest.raises(InputError, match="several arrays: latent_avg"):
        read_codes(saved(tmp_path, "x.pt", several), generator)
    assert len(read_codes(tmp_path / "x.pt", generator, key="latents")) == 2
