"""The 3D style mask: regions of a face in another texture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny import TinyGenerator, pair, random_faces, small_ide3d, small_triplane
from torch import Tensor

from semedit import latents
from semedit.directions.directions import Directions, normal
from semedit.editors import Direction, Mask
from semedit.editors.texture import Texture
from semedit.errors import MaskError, OptionError, TraitError
from semedit.media.labels import LABELS

every = pytest.mark.parametrize("make", [small_triplane, small_ide3d])


@every
def test_everywhere_is_the_donors_texture(make: Callable[[], Any]) -> None:
    generator, latent, donor, _ = pair(make)
    latent = latent[0]
    method = Texture(",".join(LABELS), composite=False)
    after = latents.synthesize(generator, method(generator, latent, donor))
    ws = latent.codes["ws"].clone()
    ws[:, generator.num_shape :] = donor.codes["ws"][:, generator.num_shape :]
    true = latents.synthesize(generator, replace(latent, codes={"ws": ws}))
    torch.testing.assert_close(after.image, true.image, rtol=1e-4, atol=1e-4)


@every
def test_a_region_changes_and_shape_stays(make: Callable[[], Any]) -> None:
    generator, latent, donor, region = pair(make)
    before = latents.synthesize(generator, latent)
    edited = Texture(region, composite=False)(generator, latent, donor)
    after = latents.synthesize(generator, edited)
    latents.check(edited, generator)
    assert edited.method == "hybrid+texture" and "style" not in latent.codes
    assert not torch.equal(after.image, before.image)
    assert torch.equal(after.depth, before.depth) and torch.equal(after.low.seg, before.low.seg)
    # Rays that meet no point of the region keep their colour; the label of a ray is mixed.
    chosen = LABELS.index(region)
    points = torch.rand(200, 3) - 0.5
    face = torch.arange(200) % 2
    planes = [generator.planes(x.codes) for x in (latent, edited)]
    colours = [generator.field(p, points, face)[1] for p in planes]
    inside = generator.labels(planes[0], points, face) == chosen
    assert bool(inside.any()) and not bool(inside.all())
    same = (colours[0] == colours[1]).all(1)
    assert bool(same[~inside].all()) and not bool(same[inside].any())


@every
def test_of_two_layers_the_later_one_counts(make: Callable[[], Any]) -> None:
    generator, latent, donor, region = pair(make)
    once = Texture(region, composite=False)(generator, latent, donor)
    other = Texture(region, seed=5, composite=False)(generator, latent)
    twice = Texture(region, composite=False)(generator, other, donor)
    assert twice.codes["style"].shape[1] == 2
    images = [latents.synthesize(generator, x).image for x in (once, twice, other)]
    torch.testing.assert_close(images[0], images[1])
    assert not torch.allclose(images[0], images[2])


@every
def test_pixels_around_the_region_are_kept(make: Callable[[], Any]) -> None:
    generator, latent, donor, region = pair(make)
    before = latents.picture(generator, latent).image
    after = Texture(region, grow=0.0)(generator, latent, donor)
    changed = latents.picture(generator, after).image != before
    assert after.composite is not None and bool(changed.any())
    assert not bool((changed & (after.composite.mask == 0)).any())


def test_faces_with_and_without_layers_share_a_batch() -> None:
    generator, latent, donor, region = pair(small_ide3d)
    edited = Texture(region, composite=False)(generator, latent[0], donor)
    both = latents.stack([edited, latent[1]])
    images = latents.synthesize(generator, both).image
    for i, one in enumerate((edited, latent[1])):
        single = latents.synthesize(generator, one).image[0]
        torch.testing.assert_close(images[i], single, rtol=1e-4, atol=1e-5)


def test_a_new_background_is_not_drawn_over_with_the_old_one() -> None:
    generator, latent, donor, region = pair(small_ide3d)
    planes = generator.planes(latent.codes)
    tuned = {f"planes.{k}": torch.randn_like(planes[k]) for k in ("shape", "background")}
    method = Texture(f"background,{region}", composite=False)
    edited = method(generator, replace(latent, tuned=tuned), donor)
    assert edited.tuned is not None and not bool(edited.tuned["planes.background"].any())
    assert torch.equal(edited.tuned["planes.shape"], tuned["planes.shape"])
    assert Texture("hair,skin")._tuned(replace(latent, tuned=tuned)) is tuned


def test_other_edits_follow(tmp_path: Any) -> None:
    generator, latent, donor, region = pair(small_ide3d)
    edited = Texture(region, composite=False)(generator, latent, donor)
    path = tmp_path / "edited.safetensors"
    edited.save(path)
    edited = latents.load(path, generator)
    unit = normal({"ws": torch.ones(1, generator.config.w_dim)})
    found = Directions(
        {"up": unit}, generator.name, latents.fingerprint(generator), {"up": {"deviation": 1.0}}
    )
    found.save(tmp_path / "d.safetensors", command="", seed="", data="", licence="MIT")
    moved = Direction("up", directions=str(tmp_path / "d.safetensors"))(generator, edited)
    labels = torch.zeros(2, generator.resolution, generator.resolution, dtype=torch.int64)
    drawn: Tensor = labels.clone()
    drawn[:, 2:6] = 13
    masked = Mask(steps=1, perceptual="none", parse_weight=0.0)(generator, moved, drawn, labels)
    assert torch.equal(masked.codes["where"], edited.codes["where"])
    assert not torch.equal(masked.codes["ws"], edited.codes["ws"])


def test_errors() -> None:
    with pytest.raises(OptionError, match="no region"):
        Texture("hare")
    with pytest.raises(OptionError):
        Texture(" ")
    tiny = TinyGenerator()
    with pytest.raises(TraitError):
        Texture()(tiny, random_faces(tiny))
    generator, latent, _, _ = pair(small_ide3d)
    seen = latents.synthesize(generator, latent).seg.argmax(1)
    absent = next(name for i, name in enumerate(LABELS) if not bool((seen == i).any()))
    with pytest.raises(MaskError, match=absent):
        Texture(absent)(generator, latent)
