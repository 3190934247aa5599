"""IDE-3D: its encoder's files, its generator's parts, what its official pickle says."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor

from semedit.checkpoints import examine
from semedit.errors import WeightsError
from semedit.generators.encoder import load_encoder
from semedit.generators.ide3d_encoder import HybridEncoder, HybridEncoderConfig
from tests.test_checkpoints import FILTER, module, nvidia  # noqa: F401

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
    nvidia: list[str],  # noqa: F811
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
