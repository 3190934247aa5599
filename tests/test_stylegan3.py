"""StyleGAN3: filters against their definitions, shifts and turns of pictures, files of NVIDIA's."""

from __future__ import annotations

import math
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pickled import EasyDict, module, nvidia_modules  # noqa: F401
from scipy import signal, special
from tiny import small_stylegan2, small_stylegan3
from torch import Tensor

from semedit import latents
from semedit.checkpoints import examine
from semedit.editors import Place
from semedit.errors import OptionError, TraitError, WeightsError
from semedit.generators import load_generator
from semedit.generators.stylegan3.filters import down, lowpass, up
from semedit.generators.stylegan3.stylegan3 import StyleGAN3, StyleGAN3Config
from semedit.latents import Latent
from semedit.tasks import steps

C = torch.zeros(1, 25)


def one(generator: StyleGAN3, **place: float) -> Latent:
    """A face of a generator, placed."""
    numbers = torch.Generator().manual_seed(2)
    codes = generator.mapping(torch.randn(1, generator.z_dim, generator=numbers), C)
    latent = Latent(codes, C, "small", latents.fingerprint(generator), "optimize")
    return Place(**place)(generator, latent)


@torch.no_grad()
def shown(generator: StyleGAN3, **place: float) -> Tensor:
    """Its picture [3,R,R]."""
    return generator.synthesis(one(generator, **place).codes, C).image[0]


# Filters -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [0.3, 4.0, 9.0])
def test_a_line_of_a_filter_is_a_windowed_sinc(width: float) -> None:
    wanted = signal.firwin(24, 3.0, width=width, fs=32.0)
    np.testing.assert_allclose(lowpass(24, 3.0, width, 32.0), wanted, atol=1e-6)


def test_a_radial_filter_is_a_windowed_jinc() -> None:
    x = (np.arange(12) - 5.5) / 32.0
    r = np.hypot(x[:, None], x)
    beta = signal.kaiser_beta(signal.kaiser_atten(12, 4.0 / 16.0))
    wanted = special.j1(2 * np.pi * 3.0 * r) / r * np.outer(*[np.kaiser(12, beta)] * 2)
    found = lowpass(12, 3.0, 4.0, 32.0, radial=True)
    np.testing.assert_allclose(found, wanted / wanted.sum(), atol=1e-6)


@pytest.mark.parametrize(("factor", "before", "size"), [(2, 7, 13), (4, 3, 11), (2, -2, 9)])
def test_more_samples_are_zeros_between_and_the_filter(factor: int, before: int, size: int) -> None:
    numbers = torch.Generator().manual_seed(0)
    x, kernel = torch.randn(5, 5, generator=numbers), torch.randn(6, generator=numbers)
    spread = torch.zeros(60, 60)
    at = 20 + before + factor * torch.arange(5)
    spread[at[:, None], at] = x
    square = kernel[:, None] * kernel
    wanted = torch.zeros(size, size)
    for row in range(size):
        for column in range(size):
            seen = spread[20 + row : 26 + row, 20 + column : 26 + column]
            wanted[row, column] = (seen * square.flip(0, 1)).sum() * factor**2
    found = up(x.expand(1, 2, 5, 5), kernel, factor, before, size)
    torch.testing.assert_close(found, wanted.expand(1, 2, size, size))


def test_fewer_samples_are_those_of_the_filtered_ones() -> None:
    numbers = torch.Generator().manual_seed(0)
    x, kernel = torch.randn(1, 2, 11, 11, generator=numbers), torch.tensor([0.1, 0.4, 0.4, 0.1])
    square = kernel[:, None] * kernel
    wanted = torch.zeros(1, 2, 4, 4)
    for row in range(4):
        for column in range(4):
            seen = x[:, :, 2 * row : 2 * row + 4, 2 * column : 2 * column + 4]
            wanted[:, :, row, column] = (seen * square).sum((2, 3))
    torch.testing.assert_close(down(x, kernel, 2), wanted)
    torch.testing.assert_close(down(x, square, 2), wanted)


# Sizes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("resolution", "sizes"),
    [
        (256, (36, 36, 36, 52, 52, 84, 84, 148, 148, 148, 276, 276, 276, 256, 256)),
        (1024, (36, 36, 52, 52, 84, 148, 148, 276, 276, 532, 1044, 1044, 1044, 1024, 1024)),
    ],
)
def test_sizes_are_the_published_ones(resolution: int, sizes: tuple[int, ...]) -> None:
    stages = StyleGAN3Config(resolution).shape
    assert tuple(stage.size for stage in stages) == sizes
    channels = [stage.channels for stage in stages]
    assert channels[:5] == [512] * 5 and channels[-1] == 3
    if resolution == 1024:
        assert channels == [512] * 7 + [323, 203, 128, 81, 51, 32, 32, 3]


def test_channels_are_as_many_as_layers() -> None:
    with pytest.raises(OptionError, match="2 numbers of channels are given for 14"):
        _ = StyleGAN3Config(channels=(4, 4)).shape


# Shifts and turns --------------------------------------------------------------------------------


def test_a_quarter_turn_turns_every_pixel_of_r() -> None:
    generator = small_stylegan3("r")
    turned = shown(generator, turn_deg=90.0)
    torch.testing.assert_close(turned, shown(generator).rot90(1, (1, 2)), atol=1e-4, rtol=1e-3)
    assert not torch.allclose(turned, shown(generator), atol=1e-2)
    # T's convolutions have a direction of their own.
    t = small_stylegan3("t")
    assert not torch.allclose(shown(t, turn_deg=90.0), shown(t).rot90(1, (1, 2)), atol=1e-2)


@pytest.mark.parametrize("kind", ["t", "r"])
@pytest.mark.parametrize(("right", "down"), [(2, 0), (0, 3), (-1, 2)])
def test_a_shift_moves_the_details_along(kind: str, right: int, down: int) -> None:
    generator = small_stylegan3(kind)
    before = shown(generator)
    after = shown(generator, right=right / 16, down=down / 16)
    rolled = before.roll((down, right), (1, 2))[:, 3:-3, 3:-3]
    inner, still = after[:, 3:-3, 3:-3], before[:, 3:-3, 3:-3]
    assert (inner - rolled).square().mean() < 0.05 * (inner - still).square().mean()


def test_moves_add_up_and_none_is_none() -> None:
    generator = small_stylegan3()
    once = Place(right=0.1, turn_deg=10.0)(generator, one(generator))
    twice = Place(right=0.1, down=0.2, turn_deg=-4.0)(generator, once)
    wanted = torch.tensor([[[0.2, 0.2, math.radians(6.0)]]])
    torch.testing.assert_close(twice.codes["place"], wanted)
    latents.check(twice, generator)
    assert twice.method.endswith("place+place+place")
    still = generator.synthesis({"ws": one(generator).codes["ws"]}, C).image[0]
    assert torch.equal(shown(generator), still)
    # Faces with and without a place make one batch.
    both = latents.stack([twice, replace(twice, codes={"ws": twice.codes["ws"]})])
    torch.testing.assert_close(generator.synthesis(both.codes, C).image[1], still)


def test_steps_say_what_they_do() -> None:
    step = steps.placed((0.1, -0.05), 20.0, ["down=0.2"])
    assert step.words == ("--shift", "0.1,-0.05", "--rotate", "20", "-o", "down=0.2")
    assert step.task().method == Place(0.1, 0.2, 20.0)
    assert steps.placed(None, 5.0).task().method == Place(turn_deg=5.0)
    with pytest.raises(OptionError, match="a shift has two numbers"):
        steps.placed((0.1,), None)


def test_others_cannot_shift() -> None:
    generator = small_stylegan2()
    latent = Latent(generator.mean_codes(), C, "small", "", "optimize")
    with pytest.raises(TraitError, match="place needs shift, which small lacks"):
        Place(right=0.1)(generator, latent)


def test_waves_that_a_turn_makes_too_short_fade() -> None:
    generator = small_stylegan3()
    fourier = generator.synthesis_network.input
    w = torch.zeros(1, 12)
    fourier.transform.copy_(torch.eye(3))
    whole = fourier(w)
    fourier.transform[:2, :2] *= 100.0  # every wave is shorter than two samples
    assert not fourier(w).any() and bool(whole.any())


def test_the_style_shifts_and_turns_as_the_place_does() -> None:
    """t = (cos a, -sin a, x, y) of the affine layer, of any length, draws what a place draws."""
    fourier = small_stylegan3().synthesis_network.input
    a, x, y = 0.4, 0.05, -0.1
    with torch.no_grad():
        fourier.affine.weight.zero_()
        fourier.affine.bias.copy_(torch.tensor([1.0, 0.0, 0.0, 0.0]))
        w = torch.zeros(1, 12)
        wanted = fourier(w, torch.tensor([[0.0, 0.0, a]]))
        shifted = fourier(w, torch.tensor([[x, y, 0.0]]))
        fourier.affine.bias.copy_(3.0 * torch.tensor([math.cos(a), math.sin(a), 0.0, 0.0]))
        torch.testing.assert_close(fourier(w), wanted)
        fourier.affine.bias.copy_(2.0 * torch.tensor([1.0, 0.0, x, y]))
        torch.testing.assert_close(fourier(w), shifted)


# Layers ------------------------------------------------------------------------------------------


def test_styles_scale_weights_that_are_brought_to_length_one() -> None:
    """The last layer but one, against weights of its own for each face, in one sample."""
    generator = small_stylegan3("r")
    layer = generator.synthesis_network.get_submodule("L1")
    layer.magnitude_ema.fill_(4.0)
    layer.bias.data.normal_()
    numbers = torch.Generator().manual_seed(3)
    x = torch.randn(2, 8, *[layer.weight.shape[-1]] * 2, generator=numbers).expand(2, 8, 16, 16)
    w = torch.randn(2, 12, generator=numbers)
    style = layer.affine(w)
    weight = layer.weight[None, :, :, 0, 0] * style[:, None]
    weight = weight / weight.norm(dim=2, keepdim=True)
    y = torch.einsum("noi,nihw->nohw", weight, x / 2.0) + layer.bias[:, None, None]
    # Where all samples are alike, filters change nothing: only the leaky ReLU is left.
    wanted = torch.where(y > 0, y, 0.2 * y) * math.sqrt(2)
    found = layer(x, w)
    middle = found.shape[-1] // 2
    torch.testing.assert_close(found[..., middle, middle], wanted[..., 8, 8], rtol=2e-2, atol=2e-2)


def test_activations_are_bounded_behind_the_gain() -> None:
    generator = small_stylegan3()
    layer = generator.synthesis_network.get_submodule("L1")
    x, w = torch.randn(1, 8, 16, 16), torch.randn(1, 12)
    layer.bias.data.fill_(1e6)
    with torch.no_grad():
        bounded = layer(x, w)
        layer.clamp = math.inf
        free = layer(x, w)
    middle = free.shape[-1] // 2
    assert float(bounded[..., middle, middle].max()) == pytest.approx(256.0, rel=0.02)
    assert float(free[..., middle, middle].max()) == pytest.approx(1e6 * math.sqrt(2), rel=0.02)


# Files -------------------------------------------------------------------------------------------


def nvidia_tensors(generator: StyleGAN3) -> dict[str, Tensor]:
    """Under NVIDIA's names, filters included."""
    found = {}
    stages = generator.config.shape
    for key, value in generator.state_dict().items():
        key = key.replace("mapping_network.", "mapping.").replace(
            "synthesis_network.", "synthesis."
        )
        for i in reversed(range(len(stages))):
            long = f"synthesis.L{i}_{stages[i].size}_{stages[i].channels}."
            key = key.replace(f"synthesis.L{i}.", long)
        found[key] = value
    for i, stage in enumerate(stages[:-1]):
        for name, value in zip(("up", "down"), generator.config.filters(i), strict=True):
            found[f"synthesis.L{i}_{stage.size}_{stage.channels}.{name}_filter"] = value
    return found


def nvidia_pickle(path: Path, tensors: dict[str, Tensor], **synthesis: Any) -> Path:
    """As stylegan3's training loop writes its snapshots."""
    settings = {"num_layers": 5, "first_cutoff": 1.0, "margin_size": 4, **synthesis}
    network = module("Generator", tensors, _init_kwargs=EasyDict(z_dim=6, **settings))
    path.write_bytes(pickle.dumps({"G": None, "D": None, "G_ema": network}, protocol=4))
    return path


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's weights, of this test alone."""
    monkeypatch.setenv("SEMEDIT_WEIGHTS", str(tmp_path / "weights"))


@pytest.mark.parametrize("kind", ["t", "r"])
def test_nvidias_pickles_are_read_and_nothing_in_them_runs(
    nvidia: list[str], tmp_path: Path, kind: str
) -> None:
    generator = small_stylegan3(kind)
    generator.mapping_network.w_avg.normal_()
    generator.synthesis_network.get_submodule("L2").magnitude_ema.fill_(2.5)
    plan = examine(nvidia_pickle(tmp_path / "three.pkl", nvidia_tensors(generator)))
    assert plan.format.name == "NVIDIA's StyleGAN3" and not plan.coverages[0].complaints
    assert plan.parts[0].config["clamp"] == 256.0
    plan.write()
    assert not nvidia
    found = load_generator("three")
    codes = {"ws": torch.randn(1, generator.num_ws, 12)}
    with torch.no_grad():
        wanted = generator.synthesis(codes, C).image
        torch.testing.assert_close(found.synthesis(codes, C).image, wanted)
    assert torch.equal(found.mean_codes()["ws"], generator.mean_codes()["ws"])


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"margin_size": 10}, "its layer 0 is of 24 pixels, where semedit's is of 36"),
        ({"filter_size": 8}, "filter_size=8, which semedit does not"),
        ({"output_scale": 1.0}, "output_scale=1.0, which semedit does not"),
        ({"last_stopband_rel": 1.3}, "filters otherwise than StyleGAN3 does"),
    ],
)
def test_other_settings_are_refused(
    nvidia: list[str], tmp_path: Path, changed: dict[str, Any], says: str
) -> None:
    path = nvidia_pickle(tmp_path / "x.pkl", nvidia_tensors(small_stylegan3()), **changed)
    with pytest.raises(WeightsError, match=says):
        examine(path)


def test_a_bare_state_dict_is_of_the_published_settings(tmp_path: Path) -> None:
    sizes: dict[str, Any] = {"z_dim": 6, "w_dim": 12, "channels": (4,) * 14}
    tensors = nvidia_tensors(StyleGAN3(StyleGAN3Config(32, **sizes)))
    torch.save(tensors, tmp_path / "bare.pt")
    config = examine(tmp_path / "bare.pt").parts[0].config
    assert (config["resolution"], config["layers"], config["kernel"]) == (32, 14, 3)
    torch.save(nvidia_tensors(small_stylegan3()), tmp_path / "other.pt")
    with pytest.raises(WeightsError, match="where semedit's is of") as error:
        examine(tmp_path / "other.pt")
    assert "import the pickle" in str(error.value.hint)


def test_one_class_of_several_is_chosen(nvidia: list[str], tmp_path: Path) -> None:
    torch.manual_seed(0)
    generator = StyleGAN3(replace(small_stylegan3().config, c_dim=3))
    path = nvidia_pickle(tmp_path / "classes.pkl", nvidia_tensors(generator))
    with pytest.raises(WeightsError, match="3 classes"):
        examine(path)
    examine(path, 1).write("one")
    found, z = load_generator("one"), torch.randn(2, 6)
    wanted = generator.mapping(z, torch.tensor([[0.0, 1.0, 0.0]]).expand(2, 3))["ws"]
    torch.testing.assert_close(found.mapping(z, C)["ws"], wanted, rtol=1e-4, atol=1e-5)
