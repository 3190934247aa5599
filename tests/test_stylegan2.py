"""StyleGAN2: labels, truncation, clamping, and its keys in other projects."""

from __future__ import annotations

import pytest
import torch
from published import to_rosinality
from tiny import small_stylegan2

from semedit.checkpoints import stylegan2_keys as keys
from semedit.errors import OptionError, ShapeError
from semedit.generators import build_generator
from semedit.generators.parts import frozen
from semedit.generators.parts.layers import fir
from semedit.generators.stylegan2.stylegan2 import StyleGAN2, StyleGAN2Config, sides, widths

NO_LABEL = torch.zeros(2, 25)


def test_sizes() -> None:
    assert widths(1024) == (512, 512, 512, 512, 512, 256, 128, 64, 32)
    assert widths(256, 16384) == (512, 512, 512, 512, 256, 128, 64)
    assert sides(16) == (4, 8, 16)
    for wrong in (0, 24, 2048):
        with pytest.raises(OptionError):
            sides(wrong)
    for resolution in (16, 32, 64, 128):
        channels = [6] * len(sides(resolution))
        config = {"resolution": resolution, "channels": channels, "z_dim": 4, "w_dim": 4}
        generator = build_generator("stylegan2", config, "small")
        codes = generator.mapping(torch.randn(1, 4), NO_LABEL[:1])
        assert codes["ws"].shape == (1, 2 * len(channels), 4)
        assert generator.synthesis(codes, NO_LABEL[:1]).image.shape[-1] == resolution


def test_truncation_cutoff_leaves_the_later_layers() -> None:
    generator, z = small_stylegan2(), torch.randn(2, 6)
    generator.mapping_network.w_avg.normal_()
    whole = generator.mapping(z, NO_LABEL)["ws"]
    half = generator.mapping(z, NO_LABEL, 0.5)["ws"]
    cut = generator.mapping(z, NO_LABEL, 0.5, truncation_cutoff=2)["ws"]
    torch.testing.assert_close(half, 0.5 * (whole + generator.mean_codes()["ws"]))
    assert torch.equal(cut[:, :2], half[:, :2]) and torch.equal(cut[:, 2:], whole[:, 2:])


def test_labels_reach_the_styles() -> None:
    torch.manual_seed(1)
    generator = StyleGAN2(StyleGAN2Config(16, (4, 4, 4), 6, 6, c_dim=3, mapping_layers=2))
    z = torch.randn(2, 6)
    one, other = (generator.mapping(z, torch.eye(3)[[i, i]])["ws"] for i in (0, 1))
    assert not torch.equal(one, other)
    with pytest.raises(ShapeError, match="25 entries, not 3"):
        generator.mapping(z, NO_LABEL)


@torch.no_grad()
def test_clamping_bounds_the_activations() -> None:
    config = StyleGAN2Config(16, (4, 4, 4), 6, 6, mapping_layers=1)
    free = StyleGAN2(config)
    bound = StyleGAN2(StyleGAN2Config(**{**vars(config), "clamp": 0.01}))
    bound.load_state_dict(free.state_dict())
    codes = {"ws": torch.randn(2, 6, 6)}
    assert float(free.synthesis(codes, NO_LABEL).image.abs().max()) > 0.1
    # Each resolution adds at most the bound.
    assert float(bound.synthesis(codes, NO_LABEL).image.abs().max()) <= 0.03


def test_wrong_styles_are_refused() -> None:
    generator = small_stylegan2()
    with pytest.raises(ShapeError, match=r"\(2, 5, 12\), not \(2, 6, 12\)"):
        generator.synthesis({"ws": torch.zeros(2, 5, 12)}, NO_LABEL)


def test_keys_go_to_rosinality_and_back() -> None:
    own = small_stylegan2().state_dict()
    theirs = to_rosinality(own)
    back = keys.from_rosinality(theirs)
    assert back.keys() == own.keys() - {"mapping_network.w_avg"}
    for key, value in back.items():
        assert torch.equal(value, own[key]), key
    assert theirs["convs.2.conv.weight"].shape == (1, 8, 10, 3, 3)
    assert theirs["to_rgbs.1.bias"].shape == (1, 3, 1, 1)
    assert theirs["noises.noise_4"].shape == (1, 1, 16, 16)


def test_keys_go_to_nvidia_and_back() -> None:
    own = small_stylegan2().state_dict()
    theirs = keys.to_nvidia(own)
    assert {"mapping.fc0.weight", "mapping.w_avg", "synthesis.b4.const"} < theirs.keys()
    filters = {"synthesis.b8.conv0.resample_filter": torch.ones(4, 4)}
    back = keys.from_nvidia({**theirs, **filters})
    assert back.keys() == own.keys()


@pytest.mark.parametrize("shared_noise", [True, False])
def test_frozen_weights_give_the_same_gradients(shared_noise: bool) -> None:
    generator = small_stylegan2()
    ws = torch.randn(2, 6, 12, requires_grad=True)
    rows = 1 if shared_noise else 2
    noise = {k: torch.randn(rows, *v.shape[1:]) for k, v in generator.noises().items()}
    leaves = [ws, *(v.requires_grad_(True) for v in noise.values())]

    def drawn() -> tuple[torch.Tensor, ...]:
        image = generator.synthesis({"ws": ws}, NO_LABEL, noise=noise).image
        return image.detach(), *torch.autograd.grad(image.square().sum(), leaves)

    trained = drawn()
    generator.requires_grad_(False)
    for found, wanted in zip(drawn(), trained, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("up", [False, True])
def test_a_frozen_layer_is_checked_by_finite_differences(up: bool) -> None:
    torch.manual_seed(2)
    x, style, scale = torch.randn(2, 2, 3, 3), torch.randn(2, 2), torch.rand(2, 3) + 0.5
    side = 6 if up else 3
    noise, weight, bias = torch.randn(1, 1, side, side), torch.randn(3, 2, 3, 3), torch.randn(3)
    kernel = fir(3, x) if up else None
    inputs = [v.double().requires_grad_(True) for v in (x, style, scale, noise)]
    rest = (weight.double(), bias.double(), None if kernel is None else kernel.double(), 0.2)
    assert torch.autograd.gradcheck(lambda *v: frozen.layer(*v, *rest), inputs, fast_mode=True)
    # A style of zero still gets its gradient.
    with torch.no_grad():
        inputs[1][0, 1] = 0.0
    (found,) = torch.autograd.grad(frozen.layer(*inputs, *rest).square().sum(), inputs[1])
    with torch.no_grad():
        inputs[1][0, 1] = 1e-6
        more = frozen.layer(*inputs, *rest).square().sum()
        inputs[1][0, 1] = -1e-6
        less = frozen.layer(*inputs, *rest).square().sum()
    assert float(found[0, 1]) == pytest.approx(float(more - less) / 2e-6, rel=1e-3)
