"""Edits of one region's codes: exchanged between faces, moved along directions."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import SMALL_CNERF, TinyGenerator, make_cnerf, random_cnerf_codes

from semedit import cameras, latents
from semedit.directions import fitting
from semedit.directions.directions import OfRegions
from semedit.editors import Direction, Swap
from semedit.errors import OptionError, TraitError
from semedit.generators.cnerf.cnerf import CNeRF
from semedit.latents import Latent


@pytest.fixture
def cnerf() -> CNeRF:
    return make_cnerf(SMALL_CNERF)


def faces(cnerf: CNeRF) -> tuple[Latent, Latent]:
    """Two faces, and a donor."""
    codes = random_cnerf_codes(cnerf, 3)
    c, mark = cameras.orbit(0.0, 0.0), latents.fingerprint(cnerf)
    return (
        Latent({"ws": codes[:2]}, c.expand(2, -1), "small", mark, "optimize"),
        Latent({"ws": codes[2:]}, c, "small", mark, "optimize"),
    )


def test_regions_are_swapped_by_the_names_of_labels(cnerf: CNeRF) -> None:
    latent, donor = faces(cnerf)
    labels = torch.zeros(2, 6, 6, dtype=torch.int64)
    labels[0, :3] = 13
    after = Swap(regions=("hair", "eyes"))(cnerf, latent, donor, labels)
    latents.check(after, cnerf)
    for index, name in enumerate(cnerf.regions):
        source = donor if name in ("hair", "eye") else latent
        same = after.codes["ws"][:, index] == source.codes["ws"][:, index]
        assert bool(same.all()), name
    assert after.meta["region"] == [0.5, 0.0] and after.method == "optimize+swap"
    texture = Swap(regions=("skin",), part="texture")(cnerf, latent, donor, labels)
    assert torch.equal(texture.codes["ws"][:, 1, :3], latent.codes["ws"][:, 1, :3])
    assert not torch.equal(texture.codes["ws"][:, 1, 3:], latent.codes["ws"][:, 1, 3:])


def test_a_swap_needs_codes_with_regions(cnerf: CNeRF) -> None:
    latent, donor = faces(cnerf)
    labels = torch.zeros(2, 6, 6, dtype=torch.int64)
    with pytest.raises(TraitError, match="regions"):
        Swap()(TinyGenerator(), latent, donor, labels)
    with pytest.raises(OptionError):
        Swap(regions=("beard",))(cnerf, latent, donor, labels)
    with pytest.raises(OptionError, match="ears"):
        cnerf.covering(["ears"])


def test_directions_of_a_region_move_it_alone(cnerf: CNeRF, tmp_path: Path) -> None:
    own = OfRegions.named(cnerf, ["mouth"])
    mouth = cnerf.regions.index("mouth")
    codes, _ = fitting.sample(cnerf, 64, cut=own.cut)
    assert codes["ws"].shape == (64, 1, 5, SMALL_CNERF.w_dim)
    scores = torch.randn(64, 40) + codes["ws"][:, 0, 0, :1]
    found = own.whole(fitting.fit_boundaries(cnerf, codes, scores, ["smiling"]), "mouth")
    assert list(found.units) == ["smiling@mouth"]
    file = tmp_path / "found.safetensors"
    found.save(file, command="test", seed="0", data="none", licence="MIT")
    latent, _ = faces(cnerf)
    moved = Direction("smiling", 2.0, region="mouth", directions=str(file))(cnerf, latent)
    change = (moved.codes["ws"] - latent.codes["ws"]).flatten(2).norm(dim=2)
    assert bool((change[:, mouth] > 0).all())
    change[:, mouth] = 0
    assert not change.any()


def test_a_whole_direction_is_cut_to_a_region(cnerf: CNeRF, tmp_path: Path) -> None:
    codes, _ = fitting.sample(cnerf, 24)
    file = tmp_path / "found.safetensors"
    whole = fitting.fit_components(cnerf, codes, 2)
    whole.save(file, command="test", seed="0", data="none", licence="MIT")
    latent, _ = faces(cnerf)
    part = Direction("pc00", 1.0, region="hair", layers="0-2", directions=str(file))
    full = Direction("pc00", 1.0, directions=str(file))
    moved, all_of_it = (method(cnerf, latent).codes["ws"] for method in (part, full))
    hair = cnerf.regions.index("hair")
    torch.testing.assert_close(moved[:, hair, :3], all_of_it[:, hair, :3])
    moved[:, hair, :3] = latent.codes["ws"][:, hair, :3]
    assert torch.equal(moved, latent.codes["ws"])


def test_only_codes_with_regions_have_directions_of_them() -> None:
    with pytest.raises(TraitError, match="no regions"):
        OfRegions.named(TinyGenerator(), ["mouth"])
