"""IDE-3D: its encoder's files, its generator's parts, what its official pickle says."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pickled import FILTER, module, nvidia_modules  # noqa: F401
from tiny import SMALL_IDE3D, small_ide3d
from torch import Tensor

from semedit import cameras, weights
from semedit.checkpoints import examine
from semedit.errors import WeightsError
from semedit.generators import load_generator
from semedit.generators.parts.encoder import load_encoder
from semedit.generators.stylegan2.stylegan2 import MappingNetwork, StyleGAN2Config
from semedit.generators.triplane.ide3d import IDE3D, IDE3DConfig
from semedit.generators.triplane.ide3d_encoder import HybridEncoder, HybridEncoderConfig

SMALL_ENCODER = HybridEncoderConfig(16, (6, 8, 12), 3, 5, 12, angles=2)


def small_encoder() -> HybridEncoder:
    torch.manual_seed(0)
    encoder = HybridEncoder(SMALL_ENCODER)
    encoder.mean.copy_(torch.randn(12).expand(8, 12))
    return encoder.eval()


def published(encoder: HybridEncoder) -> dict[str, Tensor]:
    """Under IDE-3D's names, some filters included."""
    found = {}
    for name, tower in (("seg", encoder.shape), ("img", encoder.texture)):
        found[f"projector_{name}.weight"] = tower.out.detach()
        for key, value in tower.state_dict().items():
            if key.startswith("first."):
                found[f"convs_{name}.0.{key.removeprefix('first.')}"] = value
            elif key.startswith("blocks."):
                number, inner = key.removeprefix("blocks.").split(".", 1)
                inner = inner.replace("skip", "skip.weight")
                found[f"convs_{name}.{int(number) + 1}.{inner}"] = value
        found[f"convs_{name}.1.conv2.resample_filter"] = FILTER.clone()
    return found


@torch.no_grad()
@pytest.mark.parametrize("prefix", ["", "encoder."])
def test_the_encoder_of_a_pickle(
    prefix: str,
    nvidia: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SEMEDIT_WEIGHTS", str(tmp_path / "weights"))
    encoder = small_encoder()
    tensors = {prefix + key: value for key, value in published(encoder).items()}
    contents = {"E": module("HybridEncoder", tensors), "latent_avg": encoder.mean[0]}
    path = tmp_path / "encoder.pkl"
    path.write_bytes(pickle.dumps(contents, protocol=4))
    plan = examine(path)
    assert plan.format.name == "IDE-3D's encoder" and not plan.coverages[0].complaints
    plan.write("mine")
    assert not nvidia
    found = load_encoder("mine")
    images, labels = torch.rand(2, 3, 16, 16), torch.randint(19, (2, 16, 16))
    c = torch.zeros(2, 25)
    torch.testing.assert_close(found(images, labels, c), encoder(images, labels, c))


@torch.no_grad()
def test_shape_styles_see_the_label_map_and_texture_styles_the_picture() -> None:
    encoder, c = small_encoder(), torch.zeros(1, 25)
    images, labels = torch.rand(1, 3, 16, 16), torch.zeros(1, 16, 16, dtype=torch.int64)
    first = encoder(images, labels, c)
    assert first.shape == (1, 8, 12)
    moved = [encoder(-images, labels, c), encoder(images, labels + 4, c)]
    assert torch.equal(moved[0][:, :3], first[:, :3]) and torch.equal(moved[1][:, 3:], first[:, 3:])
    assert not torch.equal(moved[0], first) and not torch.equal(moved[1], first)


def test_an_encoder_that_ends_in_something_else_is_refused(tmp_path: Path) -> None:
    tensors = published(small_encoder())
    tensors["projector_seg.weight"] = torch.zeros(37, 12, 4, 4)
    torch.save(tensors, tmp_path / "x.pt")
    with pytest.raises(WeightsError, match="not in styles of 12"):
        examine(tmp_path / "x.pt")


def official(path: Path) -> Path:
    """A generator in the official pickle's form, as its callers' code tells it."""
    torch.manual_seed(0)
    mapping = MappingNetwork(StyleGAN2Config(z_dim=6, w_dim=12, c_dim=25, mapping_layers=2))
    tensors = {f"mapping.{key}": value for key, value in mapping.state_dict().items()}
    for side in (4, 8):
        for layer in ("conv1", "torgb", "toseg"):
            tensors[f"synthesis.vb{side}.{layer}.weight"] = torch.randn(4, 4, 1, 1)
    tensors["synthesis.vb4.const"] = torch.randn(4, 4, 4)
    tensors["synthesis.b16.conv0.weight"] = torch.randn(4, 4, 3, 3)
    tensors["synthesis.renderer.net.0.weight"] = torch.randn(4, 4)
    contents = {"G": None, "D": None, "G_ema": module("Generator", tensors)}
    path.write_bytes(pickle.dumps(contents, protocol=4))
    return path


@torch.no_grad()
def test_of_the_official_generator_the_mapping_network_is_loaded_and_the_rest_told(
    nvidia: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SEMEDIT_WEIGHTS", str(tmp_path / "weights"))
    plan = examine(official(tmp_path / "ide3d-ffhq.pkl"))
    assert plan.format.name == "IDE-3D's generator" and not plan.coverages[0].complaints
    told = " / ".join(plan.parts[0].notes)
    for part in ("tri-plane blocks 4 (4 tensors), 8 (3 tensors)", "up-sampling blocks 16", "never"):
        assert part in told
    assert "other parts of the synthesis renderer (1 tensors)" in told
    (written,) = plan.write()
    assert not nvidia  # nothing in it ran
    held, facts = weights.load(written)
    assert facts["kind"] == "mapping" and len(held) == 7
    with pytest.raises(WeightsError, match="no generator"):
        load_generator("ide3d-ffhq")


# The generator -----------------------------------------------------------------------------------


def test_the_papers_sizes() -> None:
    with torch.device("meta"):
        generator = IDE3D(IDE3DConfig())
    assert generator.num_ws == 18 and generator.num_shape == 8
    assert generator.resolution == 512 and generator.z_dim == 512
    assert generator.texture.num_ws == 5 and generator.upsampler.num_ws == 5
    # Shared features of 64 x 64 x 64; three branches of their own to 256 x 256 x 32.
    assert generator.config.plane_resolution == 64 and generator.config.trunk[-1] == 64
    assert len(generator.texture.branches) == 3
    for decoder, outputs in ((generator.shape_decoder, 20), (generator.texture_decoder, 32)):
        assert decoder.first.weight.shape[0] == 64 and decoder.last.weight.shape[0] == outputs


@torch.no_grad()
def test_texture_styles_leave_shape_and_low_label_map() -> None:
    generator, c = small_ide3d(), cameras.orbit(0.2, 0.0)
    ws = generator.mapping(torch.randn(1, 6), c)["ws"]
    moved = ws.clone()
    moved[:, generator.num_shape :] += torch.randn(1, ws.shape[1] - generator.num_shape, 12)
    planes = [generator.planes({"ws": x}) for x in (ws, moved)]
    assert planes[0]["texture"].shape == (1, 3, 64, 64, 4)
    assert planes[0]["shape"].shape == (1, 3, 16, 16, 4)
    assert torch.equal(planes[0]["shape"], planes[1]["shape"])
    first, second = (generator.render(p, c) for p in planes)
    assert first.low is not None and second.low is not None
    assert first.low.seg is not None and second.low.seg is not None
    assert torch.equal(first.low.seg, second.low.seg)
    assert first.depth is not None and second.depth is not None
    assert torch.equal(first.depth, second.depth)
    assert not torch.equal(first.low.image, second.low.image)


@torch.no_grad()
def test_the_style_knows_the_camera() -> None:
    generator, z = small_ide3d(), torch.randn(1, 6)
    one, other = (generator.mapping(z, cameras.orbit(yaw, 0.0))["ws"] for yaw in (0.0, 0.6))
    assert not torch.equal(one, other)


@torch.no_grad()
def test_more_samples_change_little() -> None:
    pictures = []
    for samples, fine in ((24, 24), (96, 96)):
        torch.manual_seed(0)
        config = replace(SMALL_IDE3D, samples=samples, fine=fine, density_scale=20.0)
        generator = IDE3D(config, "small")
        pictures.append(generator.synthesis(generator.mean_codes(), cameras.orbit(0.1, 0.0)))
    first, second = (p.low.image for p in pictures)
    assert float((first - second).abs().mean()) < 0.02 * float(second.std())


@torch.no_grad()
def test_the_neural_resolution_may_rise_and_samples_be_drawn() -> None:
    generator, c = small_ide3d(), cameras.orbit(0.1, 0.0)
    planes = generator.planes(generator.mean_codes())
    finer = generator.render(planes, c, neural=16, jitter=True)
    assert finer.low is not None and finer.low.image.shape == (1, 3, 16, 16)
    assert finer.image.shape == (1, 3, 32, 32) and finer.seg is not None
    assert finer.seg.shape == (1, 19, 32, 32)
    again = generator.render(planes, c, neural=16, jitter=True)
    assert not torch.equal(finer.image, again.image)
