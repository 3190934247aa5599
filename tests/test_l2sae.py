"""L2SAE: its networks, its slices, and edits of one region."""

from __future__ import annotations

from pathlib import Path

import golden
import pytest
import torch
from tiny import SMALL_L2SAE, small_l2sae, small_pictures

from semedit import weights
from semedit.checkpoints import examine
from semedit.checkpoints import l2sae as checkpoint
from semedit.checkpoints.reader import Checkpoint
from semedit.errors import OptionError, ShapeError, TraitError
from semedit.generators import load_generator
from semedit.generators.l2sae.l2sae import L2SAE, ROIS, SLICINGS, L2SAEConfig
from semedit.generators.l2sae.layers import smooth


@torch.no_grad()
def test_agreement_with_the_swapping_autoencoder(shared: Path) -> None:
    facts = golden.read(shared, "swapping-autoencoder-256")
    (part,) = checkpoint.parts(Checkpoint(Path("latest_checkpoint.pth"), facts.state()))
    generator = part.build().eval()
    weights.fill(generator, dict(part.tensors), "golden")
    codes = generator.encode(facts.input("x").clamp(-1, 1))
    facts.check("structure", codes["structure"])
    facts.check("style", codes["style"])
    facts.check("image", generator.synthesis(codes).image)


def test_codes_are_of_unit_length() -> None:
    codes = small_l2sae().encode(small_pictures())
    assert codes["structure"].shape == (2, 8, 4, 4) and codes["style"].shape == (2, 12)
    for code in codes.values():
        torch.testing.assert_close(code.square().sum(1), torch.ones_like(code[:, 0]))


def test_another_size_is_refused() -> None:
    with pytest.raises(ShapeError):
        small_l2sae().encode(torch.zeros(1, 3, 32, 32))
    with pytest.raises(OptionError):
        L2SAEConfig(resolution=64)  # its summary halves too often
    with pytest.raises(OptionError):
        L2SAEConfig(slicing="third")


def test_noise_is_fixed_drawn_or_none() -> None:
    generator = small_l2sae()
    codes = generator.encode(small_pictures())
    const, again = (generator.synthesis(codes).image for _ in range(2))
    assert torch.equal(const, again)
    none, drawn = (generator.synthesis(codes, noise=n).image for n in ("none", "random"))
    assert not torch.equal(const, none) and not torch.equal(const, drawn)
    with pytest.raises(OptionError):
        generator.synthesis(codes, noise="loud")


@pytest.mark.parametrize("slicing", SLICINGS)
def test_slices_share_the_structure_out(slicing: str) -> None:
    generator = L2SAE(L2SAEConfig(**{**vars(SMALL_L2SAE), "slicing": slicing}))
    masks = torch.stack([generator.channels(name) for name in ROIS])
    assert torch.equal(masks.sum(0), torch.ones(8))
    with pytest.raises(OptionError):
        generator.channels("moustache")


def test_a_region_reads_its_slice_alone() -> None:
    generator, images = small_l2sae(), small_pictures()
    assert generator.SMPN is not None
    together = generator.region_logits(images)
    assert together.shape == (2, 5, 64, 64)
    for i, name in enumerate(ROIS):
        alone = generator.region_logits(images, [name])
        torch.testing.assert_close(alone[:, 0], together[:, i], rtol=1e-4, atol=1e-5)
    structure, style = generator.SMPN.E(images)
    own = structure * generator.channels("nose")[None, :, None, None]
    drawn = generator.SMPN.G(own, style, "none", unit=False).mean(1)
    torch.testing.assert_close(drawn, together[:, list(ROIS).index("nose")], rtol=1e-4, atol=1e-5)


def test_without_smpn_there_are_no_regions() -> None:
    generator = L2SAE(L2SAEConfig(**{**vars(SMALL_L2SAE), "slicing": "", "rank": 0}), "plain")
    assert generator.traits == {"encode"}
    with pytest.raises(TraitError, match="no regions"):
        generator.region_logits(small_pictures())
    with pytest.raises(TraitError, match="prior"):
        generator.mapping(torch.zeros(1, 0))


def test_prior_follows_the_codes() -> None:
    generator = small_l2sae()
    z = torch.randn(400, 3, generator=torch.Generator().manual_seed(2))
    basis, mean = generator.prior.basis.clone(), generator.prior.mean.clone()
    generator.prior.fit(mean + z @ basis)
    torch.testing.assert_close(generator.prior.mean, mean + z.mean(0) @ basis, rtol=0, atol=1e-4)
    found = generator.prior.basis.T @ generator.prior.basis
    true = basis.T @ torch.cov(z.T) @ basis
    torch.testing.assert_close(found, true, rtol=1e-3, atol=1e-3)


def test_smoothing_keeps_a_constant() -> None:
    found = smooth(torch.ones(1, 2, 6, 6), (1.0, 3.0, 3.0, 1.0), total=4.0)
    torch.testing.assert_close(found, torch.full((1, 2, 3, 3), 4.0))


def test_configuration_is_read_off_the_tensors() -> None:
    generator = L2SAE(
        L2SAEConfig(**{**vars(SMALL_L2SAE), "slicing": "", "rank": 0, "map_decoder": ()})
    )
    tensors = {k: v for k, v in generator.state_dict().items() if k.startswith(("E.", "G."))}
    found = checkpoint.config(tensors)
    assert {k: tuple(v) if isinstance(v, list) else v for k, v in found.items()} == {
        k: v for k, v in vars(generator.config).items() if k in found
    }
    bare = {k: v for k, v in tensors.items() if "fixed_noise" not in k}
    again = checkpoint.completed(bare, found)
    assert again.keys() == generator.state_dict().keys()
    for key, value in generator.state_dict().items():
        assert again[key].shape == value.shape


def test_its_checkpoints_are_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEMEDIT_WEIGHTS", str(tmp_path / "weights"))
    plain = L2SAEConfig(**{**vars(SMALL_L2SAE), "slicing": "", "rank": 0, "map_decoder": ()})
    generator = L2SAE(plain, "plain").eval()
    file = {k: v for k, v in generator.state_dict().items() if k.startswith(("E.", "G."))}
    file["E.FromRGB.Blur.kernel"] = torch.ones(1, 1)
    file["D.convs.0.Conv.weight"] = torch.zeros(2)
    path = tmp_path / "latest_checkpoint.pth"
    torch.save(file, path)
    plan = examine(path)
    assert plan.format is checkpoint.FORMAT and not plan.coverages[0].complaints
    plan.write("mine")
    found = load_generator("mine")
    assert found.traits == {"encode"} and found.config == plain
    codes = generator.encode(small_pictures())
    assert torch.equal(found.synthesis(codes).image, generator.synthesis(codes).image)
