"""What every generator promises, tested on tiny ones with random weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny import (
    SMALL_ENCODER,
    TinyGenerator,
    small_cnerf,
    small_eg3d,
    small_gram,
    small_ide3d,
    small_l2sae,
    small_manifolds,
    small_stylegan2,
    small_stylegan3,
    small_triplane,
)

from semedit import cameras, latents
from semedit.errors import OptionError, ShapeError
from semedit.generators import GENERATORS
from semedit.generators.parts.encoder import Encoder
from semedit.latents import Latent
from semedit.latents.interpolation import between

TINY: dict[str, Callable[[], Any]] = {
    "triplane": lambda: small_triplane().attach(Encoder(SMALL_ENCODER)),
    "stylegan2": small_stylegan2,
    "stylegan3": small_stylegan3,
    "l2sae": lambda: small_l2sae(),
    "cnerf": lambda: small_cnerf(),
    "eg3d": lambda: small_eg3d(),
    "ide3d": lambda: small_ide3d(),
    "gram": lambda: small_gram(),
    "manifolds": lambda: small_manifolds(),
}


def generators() -> list[Any]:
    """One tiny generator of every kind, and the one that methods are tested with."""
    return [pytest.param(TINY[kind], id=kind) for kind in GENERATORS] + [
        pytest.param(TinyGenerator, id="tiny")
    ]


every = pytest.mark.parametrize("make", generators())


def sample(generator: Any, count: int = 2) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Codes of random z and as many cameras."""
    numbers = torch.Generator().manual_seed(0)
    z = torch.randn(count, generator.z_dim, generator=numbers)
    c = cameras.orbit(torch.linspace(-0.3, 0.2, count), 0.1)
    return generator.mapping(z, c), c


@every
def test_shapes(make: Callable[[], Any]) -> None:
    generator = make()
    codes, c = sample(generator)
    output = generator.synthesis(codes, c)
    side = generator.resolution
    assert output.image.shape == (2, 3, side, side) and output.image.dtype == torch.float32
    if "seg" in generator.traits:
        assert output.seg.shape[:2] == (2, 19)
    for name, mean in generator.mean_codes().items():
        assert mean.shape == (1, *codes[name].shape[1:])


@every
def test_the_same_call_gives_the_same_picture(make: Callable[[], Any]) -> None:
    generator = make()
    codes, c = sample(generator)
    first = generator.synthesis(codes, c)
    with torch.no_grad():  # other calls in between leave no trace
        generator.synthesis(generator.mean_codes(), cameras.orbit(0.5, -0.2))
        generator.mapping(torch.randn(3, generator.z_dim), c[:1], 0.5)
    again = generator.synthesis(codes, c)
    assert torch.equal(first.image, again.image)
    assert first.seg is again.seg is None or torch.equal(first.seg, again.seg)


@every
def test_a_gradient_reaches_every_code(make: Callable[[], Any]) -> None:
    generator = make()
    codes, c = sample(generator)
    leaves = {k: v.detach().clone().requires_grad_(True) for k, v in codes.items()}
    output = generator.synthesis(leaves, c)
    drawn = [output.image] if output.seg is None else [output.image, output.seg]
    sum(part.square().sum() for part in drawn).backward()
    for leaf in leaves.values():
        assert leaf.grad is not None
        # Every code of every face counts, layer by layer.
        rows = leaf.grad.reshape(*leaf.shape[:2], -1)
        assert (rows.abs().sum(-1) > 0).all()


@every
def test_a_batch_is_its_singles(make: Callable[[], Any]) -> None:
    generator = make().eval()
    codes, c = sample(generator)
    whole = generator.synthesis(codes, c)
    for i in range(2):
        one = generator.synthesis({k: v[i : i + 1] for k, v in codes.items()}, c[i : i + 1])
        torch.testing.assert_close(whole.image[i], one.image[0], rtol=1e-3, atol=1e-4)


@every
def test_truncation_leads_to_the_mean(make: Callable[[], Any]) -> None:
    generator = make()
    z, c = torch.randn(1, generator.z_dim), cameras.orbit(0.0, 0.0)
    mean = generator.mean_codes()
    for name, value in generator.mapping(z, c, 0.0).items():
        torch.testing.assert_close(value, mean[name])


@every
def test_planes_then_render_is_synthesis(make: Callable[[], Any]) -> None:
    generator = make()
    if "camera" not in generator.traits:
        pytest.skip("knows no cameras")
    codes, c = sample(generator)
    two_steps = generator.render(generator.planes(codes), c)
    assert torch.equal(two_steps.image, generator.synthesis(codes, c).image)
    # The planes of one face serve many views.
    one = generator.planes({k: v[:1] for k, v in codes.items()})
    assert len(generator.render(one, c).image) == 2


@every
@torch.no_grad()
def test_a_field_is_dense_where_something_is_seen(make: Callable[[], Any]) -> None:
    generator = make()
    if "field" not in generator.traits:
        pytest.skip("is no field of density and colour in the box")
    planes = generator.planes(sample(generator)[0])
    points, face = torch.rand(40, 3) - 0.5, torch.arange(40) % 2
    sigma, colour = generator.field(planes, points, face)
    assert sigma.shape == (40,) and colour.shape == (40, 3) and bool((sigma > 0).all())
    assert torch.equal(generator.sigma(planes, points, face), sigma)
    assert not torch.equal(generator.field(planes, points, 1 - face)[0], sigma)


@every
def test_encode_gives_codes_that_fit(make: Callable[[], Any]) -> None:
    generator = make()
    if "encode" not in generator.traits:
        pytest.skip("has no encoder")
    side = generator.resolution
    labels = torch.zeros(2, side, side, dtype=torch.int64)
    codes = generator.encode(torch.zeros(2, 3, side, side), labels, sample(generator)[1])
    for name, mean in generator.mean_codes().items():
        assert codes[name].shape == (2, *mean.shape[1:])


@every
def test_synthesis_can_end_early(make: Callable[[], Any]) -> None:
    generator = make()
    if "coarse" not in generator.traits:
        pytest.skip("draws at one resolution only")
    codes, c = sample(generator)
    half = generator.resolution // 2
    assert generator.synthesis(codes, c, resolution=half).image.shape == (2, 3, half, half)
    whole = generator.synthesis(codes, c, resolution=generator.resolution).image
    assert torch.equal(whole, generator.synthesis(codes, c).image)
    with pytest.raises(OptionError):
        generator.synthesis(codes, c, resolution=half + 1)


@every
def test_noise_is_given_drawn_or_left_out(make: Callable[[], Any]) -> None:
    generator = make()
    if "noise" not in generator.traits:
        pytest.skip("takes no noise")
    codes, c = sample(generator)
    const = generator.synthesis(codes, c, noise="const").image
    given = {k: v.clone().requires_grad_(True) for k, v in generator.noises().items()}
    image = generator.synthesis(codes, c, noise=given).image
    assert torch.equal(image, const)
    for gradient in torch.autograd.grad(image.square().sum(), list(given.values())):
        assert float(gradient.abs().sum()) > 0
    drawn = [generator.synthesis(codes, c, noise="random").image for _ in range(2)]
    assert not torch.equal(*drawn)
    zeros = {k: torch.zeros_like(v) for k, v in given.items()}
    none = generator.synthesis(codes, c, noise="none").image
    torch.testing.assert_close(none, generator.synthesis(codes, c, noise=zeros).image)
    # The generator's own maps stay where none is given.
    first = next(iter(zeros))
    mixed = generator.synthesis(codes, c, noise={first: zeros[first]}).image
    assert not torch.equal(mixed, const) and not torch.equal(mixed, none)
    for bad, error in (("loud", OptionError), ({"b8.conv7": zeros[first]}, OptionError)):
        with pytest.raises(error):
            generator.synthesis(codes, c, noise=bad)
    with pytest.raises(ShapeError):
        generator.synthesis(codes, c, noise={first: torch.zeros(1, 1, 3, 3)})


@every
def test_state_dict_round_trip(make: Callable[[], Any]) -> None:
    generator, other = make(), make()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1.0)
    other.load_state_dict(generator.state_dict())
    codes, c = sample(generator)
    assert torch.equal(generator.synthesis(codes, c).image, other.synthesis(codes, c).image)


@every
def test_half_way_between_two_faces_is_the_mean_of_their_codes(make: Callable[[], Any]) -> None:
    generator = make()
    codes, c = sample(generator)
    print_ = latents.fingerprint(generator)
    both = Latent({k: v.detach() for k, v in codes.items()}, c, generator.name, print_, "hybrid")
    here = between(generator, both[0], both[1], 0.5, "all")
    for name, value in both.codes.items():
        torch.testing.assert_close(here.codes[name], value.mean(0, keepdim=True))
