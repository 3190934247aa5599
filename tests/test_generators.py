"""Numeric facts of the generators' parts, each against a plain loop or a library's function."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tiny import SMALL_ENCODER, SMALL_TRIPLANE, small_triplane

from semedit import cameras, weights
from semedit.errors import TraitError, WeightsError
from semedit.generators import build_generator, load_generator
from semedit.generators.parts import volume
from semedit.generators.parts.encoder import KIND, Encoder, EncoderConfig
from semedit.generators.parts.layers import GAIN, SLOPE, ModulatedConv, upsample
from semedit.generators.triplane.triplane import Triplane, TriplaneConfig


def random_points(count: int) -> torch.Tensor:
    """Points in and a little outside the box [-1,1]^3."""
    return torch.rand(count, 3) * 2.4 - 1.2


def test_lookup_is_bilinear_grid_sample() -> None:
    torch.manual_seed(0)
    planes = torch.randn(2, 3, 7, 9, 5, requires_grad=True)
    points, face = random_points(200), torch.arange(200) % 2
    found = volume.lookup(planes, points, face)
    expected = torch.zeros_like(found)
    for m in range(200):
        for p, axes in enumerate(volume.AXES):
            at = points[m, list(axes)].view(1, 1, 1, 2)
            plane = planes[face[m], p].permute(2, 0, 1)[None]
            expected[m] = expected[m] + F.grid_sample(plane, at, align_corners=False)[0, :, 0, 0]
    torch.testing.assert_close(found, expected / 3)
    weight = torch.randn_like(found)
    ours = torch.autograd.grad((found * weight).sum(), planes)[0]
    theirs = torch.autograd.grad((expected / 3 * weight).sum(), planes)[0]
    torch.testing.assert_close(ours, theirs)


def test_both_ways_of_finding_rows_agree() -> None:
    torch.manual_seed(1)
    table = torch.randn(2 * 3 * 4 * 6, 3)
    points, face = random_points(300), torch.arange(300) % 2
    rows, parts = volume.find_rows(points, face, 4, 6)
    found = F.embedding_bag(rows, table, per_sample_weights=parts, mode="sum")
    torch.testing.assert_close(volume.lookup(table.view(2, 3, 4, 6, 3), points, face), found)


def test_composite_is_the_loop() -> None:
    torch.manual_seed(2)
    sigma, lengths = torch.rand(3, 5) * 4, torch.rand(3, 5)
    weights_, through = volume.composite(sigma, lengths)
    for m in range(3):
        left = 1.0
        for s in range(5):
            alpha = 1 - math.exp(-float(sigma[m, s] * lengths[m, s]))
            assert float(weights_[m, s]) == pytest.approx(left * alpha, abs=1e-6)
            left *= 1 - alpha
        assert float(through[m]) == pytest.approx(left, abs=1e-6)


def test_rays_enter_and_leave_the_box() -> None:
    origins = torch.tensor([[0.0, 0.0, 2.7], [0.0, 2.0, 2.7]])
    directions = torch.tensor([[0.0, 0.0, -1.0], [0.0, 0.0, -1.0]])
    near, far = volume.box_interval(origins, directions, 0.5)
    assert near[0] == pytest.approx(2.2) and far[0] == pytest.approx(3.2)
    assert near[1] == far[1]


def test_samples_gather_where_the_weights_are() -> None:
    near, far = torch.zeros(1), torch.ones(1)
    weights_ = torch.zeros(1, 20)
    weights_[0, 10] = 1.0
    u = (torch.arange(10) + 0.5)[None] / 10
    t = volume.resample(near, far, weights_, u, floor=1e-3)
    assert ((t > 9 / 20) & (t < 12 / 20)).all() and (t.diff() >= 0).all()
    flat = volume.resample(near, far, torch.zeros(1, 20), u, floor=1.0)
    torch.testing.assert_close(flat, u)
    assert volume.cells(near, far, t).sum() == pytest.approx(1.0)


@pytest.mark.parametrize("up", [1, 2])
def test_modulated_convolution_is_the_loop(up: int) -> None:
    torch.manual_seed(3)
    layer = ModulatedConv(4, 3, 6, up=up)
    x, w = torch.randn(2, 4, 5, 5), torch.randn(2, 6)
    for n in range(2):
        weight = layer.weight * layer.gain * layer.affine(w[n : n + 1])[0][None, :, None, None]
        weight = weight * (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).rsqrt()
        if up == 1:
            y = F.conv2d(x[n : n + 1], weight, padding=1)
        else:
            y = F.conv_transpose2d(x[n : n + 1], weight.transpose(0, 1), stride=2)
            line = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 4
            fir = (line[:, None] * line).expand(3, 1, 4, 4)
            y = F.conv2d(y, fir, padding=1, groups=3)
        y = F.leaky_relu(y + layer.bias[:, None, None], SLOPE) * GAIN
        torch.testing.assert_close(layer(x, w)[n], y[0], rtol=1e-4, atol=1e-5)


def test_upsampling_is_the_fir_filter() -> None:
    torch.manual_seed(4)
    x = torch.randn(1, 2, 5, 6)
    zeros = torch.zeros(1, 2, 10, 12)
    zeros[:, :, ::2, ::2] = x
    line = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 4
    fir = (line[:, None] * line).expand(2, 1, 4, 4)
    expected = F.conv2d(F.pad(zeros, (2, 1, 2, 1)), fir, groups=2)
    torch.testing.assert_close(upsample(x), expected)


def test_an_opaque_ball_is_seen_where_the_camera_says() -> None:
    """A planted density: the silhouette's centre falls where `cameras.project` puts it."""
    generator = small_triplane()
    centre, radius = torch.tensor([0.1, -0.06, 0.05]), 0.12
    side = 48
    line = (torch.arange(side) + 0.5) / side - 0.5
    z, y, x = torch.meshgrid(line, line, line, indexing="ij")
    ball = (torch.stack([x, y, z], -1) - centre).norm(dim=-1) < radius
    density = ball.float()[None, None] * 500
    c = cameras.orbit(0.4, 0.2)
    seen = generator._coarse(density, c, 64).sum(-1).view(64, 64)
    rows, columns = (seen > 0.5).nonzero().float().add(0.5).mean(0) / 64
    uv = cameras.project(centre[None, None], c)[0][0, 0]
    assert float((uv - torch.stack([columns, rows])).norm()) < 0.01


def test_skipping_what_is_not_seen_changes_little() -> None:
    generator = small_triplane()
    c = cameras.orbit(0.2, 0.1)
    codes = generator.mapping(torch.randn(1, 5), c)
    whole = Triplane(replace(SMALL_TRIPLANE, skip_weight=0.0), "whole")
    whole.load_state_dict(generator.state_dict())
    with torch.no_grad():
        a, b = generator.synthesis(codes, c).image, whole.synthesis(codes, c).image
    assert float((a - b).abs().max()) < 0.05 * float(b.std())


def test_other_resolutions_and_random_samples() -> None:
    generator = small_triplane()
    c = cameras.orbit(torch.tensor([0.1, -0.3]), 0.0)
    planes = generator.planes(generator.mapping(torch.randn(1, 5), c[:1]))
    half = generator.render(planes, c, neural=4, jitter=True, keep_empty=1.0)
    assert half.image.shape == (2, 3, 8, 8) and half.low is not None
    assert half.low.image.shape == (2, 3, 4, 4)


def test_views_of_several_faces_stand_next_to_each_other() -> None:
    generator = small_triplane()
    c = cameras.orbit(torch.tensor([0.1, -0.3, 0.2, 0.5]), 0.0)
    codes = generator.mapping(torch.randn(2, 5), c[:2])
    together = generator.render(generator.planes(codes), c).image
    for face in range(2):
        one = generator.planes({"ws": codes["ws"][face : face + 1]})
        alone = generator.render(one, c[2 * face : 2 * face + 2]).image
        torch.testing.assert_close(together[2 * face : 2 * face + 2], alone, rtol=1e-3, atol=1e-4)


def test_weight_files_bring_generator_and_encoder_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEMEDIT_WEIGHTS", str(tmp_path))
    generator, encoder = small_triplane(), Encoder(SMALL_ENCODER)
    file = tmp_path / "small.safetensors"
    weights.save(
        file,
        generator.state_dict(),
        {
            "kind": "triplane",
            "config": json.dumps(asdict(SMALL_TRIPLANE)),
            "encoder": "small-encoder",
        },
    )
    weights.save(
        tmp_path / "small-encoder.safetensors",
        encoder.state_dict(),
        {"kind": KIND, "config": json.dumps(asdict(SMALL_ENCODER))},
    )
    loaded = load_generator(str(file))
    for name, value in generator.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], value, rtol=1e-3, atol=1e-3)
    assert loaded.name == "small" and not any(p.requires_grad for p in loaded.parameters())
    inputs = torch.zeros(1, 3, 16, 16), torch.zeros(1, 16, 16, dtype=torch.int64)
    codes = loaded.encode(*inputs, cameras.orbit(0.0, 0.0))
    assert codes["ws"].shape == (1, generator.num_ws, 12)
    with pytest.raises(WeightsError):
        load_generator(str(tmp_path / "small-encoder.safetensors"))


def test_no_encoder_no_codes() -> None:
    generator = build_generator("triplane", asdict(SMALL_TRIPLANE), "small")
    inputs = torch.zeros(1, 3, 16, 16), torch.zeros(1, 16, 16, dtype=torch.int64)
    with pytest.raises(TraitError):
        generator.encode(*inputs, cameras.orbit(0.0, 0.0))  # type: ignore[operator]


def test_heads_128_is_small_enough() -> None:
    generator = Triplane(TriplaneConfig(z_dim=168))
    encoder = Encoder(EncoderConfig(num_texture=generator.num_ws - generator.num_shape))
    for network in (generator, encoder):
        assert 2 * sum(v.numel() for v in network.state_dict().values()) <= 12e6
    assert (generator.resolution, generator.num_shape) == (128, encoder.config.num_shape)
