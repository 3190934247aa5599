"""Edits of one region in one pass: algorithms 1 and 2, and what they leave alone."""

from __future__ import annotations

import math

import pytest
import torch
from tiny import TinyGenerator, small_l2sae, small_pictures

from semedit import cameras, latents
from semedit.editors.roi import Roi, blend, gaussian
from semedit.errors import OptionError, TraitError
from semedit.generators.l2sae.l2sae import L2SAE


@pytest.fixture(scope="module")
def generator() -> L2SAE:
    """Random weights."""
    return small_l2sae()


def test_gaussian_against_a_loop() -> None:
    x = torch.randn(1, 2, 5, 6)
    weights = torch.tensor(
        [[math.exp(-(i * i + j * j) / 2) for j in (-1, 0, 1)] for i in (-1, 0, 1)]
    )
    weights = weights / weights.sum()
    found = gaussian(x)
    for channel in range(2):
        for i in range(1, 4):
            for j in range(1, 5):
                around = x[0, channel, i - 1 : i + 2, j - 1 : j + 2]
                torch.testing.assert_close(found[0, channel, i, j], (around * weights).sum())


def test_blending_is_algorithm_2() -> None:
    x, y = torch.randn(2, 1, 3, 12, 12).unbind(0)
    mask = torch.zeros(1, 1, 12, 12)
    mask[..., 4:8, 4:8] = 1
    alpha = gaussian(mask)
    published = blend(x, y, alpha, as_published=True)
    torch.testing.assert_close(published, gaussian((1 - alpha) * x + alpha * y))
    ours, inside = blend(x, y, alpha), (alpha > 0).expand_as(x)
    assert inside[0, 0].sum() == 36  # a pixel around the mask
    assert torch.equal(ours[inside], published[inside])
    assert torch.equal(ours[~inside], x[~inside])
    assert not (published[~inside] == x[~inside]).all()


@pytest.mark.parametrize("options", [{"style_noise": 1.0}, {"structure_noise": 0.5}])
def test_pixels_outside_alpha_stay_to_the_bit(
    generator: L2SAE, options: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The region is a square, and what is drawn shows it further right."""
    images = small_pictures()

    def logits(shown: torch.Tensor, names: list[str]) -> torch.Tensor:
        right = 0 if torch.equal(shown, images) else 10
        found = torch.full((2, len(names), 64, 64), -1.0)
        found[..., 20:40, 20 + right : 40 + right] = 1
        return found

    monkeypatch.setattr(generator, "region_logits", logits)
    found = Roi(region="nose", **options)(generator, images)
    outside = (found.alpha == 0).expand_as(images)
    wide = 22 if "style_noise" in options else 32
    assert (~outside[0, 0]).sum() == 22 * wide
    assert torch.equal(found.image[outside], images[outside])
    assert not (found.image[~outside] == images[~outside]).any()
    published = Roi(region="nose", as_published=True, **options)(generator, images)
    assert torch.equal(published.alpha, found.alpha)
    assert not torch.equal(published.image[outside], images[outside])


def test_style_noise_is_algorithm_1(generator: L2SAE) -> None:
    images = small_pictures()
    found = Roi(region="hair", style_noise=0.7, seed=3)(generator, images)
    noise = torch.randn(1, 12, generator=torch.Generator().manual_seed(3))
    codes = generator.encode(images)
    torch.testing.assert_close(found.codes["style"], codes["style"] + 0.7 * noise)
    assert torch.equal(found.codes["structure"], codes["structure"])
    after, own = (generator.synthesis(one).image for one in (found.codes, codes))
    alpha = gaussian((generator.region_logits(images, ["hair"]) > 0).float())
    torch.testing.assert_close(found.alpha, alpha)
    y = (images + after - own).clamp(-1, 1)
    torch.testing.assert_close(found.image, (1 - alpha) * images + alpha * y)
    plain = Roi(region="hair", style_noise=0.7, seed=3, detail=False)(generator, images)
    torch.testing.assert_close(plain.image, blend(images, after.clamp(-1, 1), alpha))
    published = Roi(region="hair", style_noise=0.7, seed=3, as_published=True)(generator, images)
    torch.testing.assert_close(published.image, blend(images, after.clamp(-1, 1), alpha, True))


def test_detail_and_size_of_large_pictures_stay(generator: L2SAE) -> None:
    """What a picture shows beyond the decoder's resolution stays inside the region, too."""
    torch.manual_seed(1)
    coarse = small_pictures()
    large = torch.nn.functional.interpolate(coarse, 128, mode="bilinear")
    checks = 0.2 * (-1.0) ** torch.arange(128)
    fine = (0.5 * large + checks * checks[:, None]).clamp(-1, 1)
    found = Roi(region="skin", style_noise=0.5)(generator, fine)
    assert found.image.shape == fine.shape and found.alpha.shape == (2, 1, 128, 128)
    change = found.image - fine
    assert torch.equal(
        found.image[(found.alpha == 0).expand_as(fine)], fine[(found.alpha == 0).expand_as(fine)]
    )

    def checked(x: torch.Tensor) -> float:
        return float((x[..., 1:] - x[..., :-1]).abs().mean())

    assert float(change.abs().max()) > 0.01
    assert checked(change) < 0.2 * checked(fine)


def test_style_from_another_picture(generator: L2SAE) -> None:
    images, other = small_pictures(3)[:2], small_pictures(3)[2:]
    found = Roi(region="lips")(generator, images, other)
    style = generator.encode(other)["style"]
    torch.testing.assert_close(found.codes["style"], style.expand(2, -1))
    itself = Roi(region="lips")(generator, images, images)
    torch.testing.assert_close(itself.codes["style"], generator.encode(images)["style"])


def test_structure_noise_moves_the_slice_alone(generator: L2SAE) -> None:
    images = small_pictures()
    before = generator.encode(images)
    found = Roi(region="eyes", structure_noise=0.5)(generator, images)
    assert torch.equal(found.codes["style"], before["style"])
    moved = (found.codes["structure"] - before["structure"]).abs().amax((0, 2, 3)) > 0
    assert torch.equal(moved, generator.channels("eyes") > 0)
    was = gaussian((generator.region_logits(images, ["eyes"]) > 0).float())
    assert (found.alpha >= was).all()


def test_faces_of_a_batch_are_edited_as_alone(generator: L2SAE) -> None:
    editor, images = Roi(region="skin", style_noise=1.0), small_pictures()
    whole, alone = editor(generator, images), editor(generator, images[1:])
    torch.testing.assert_close(whole.image[1:], alone.image, atol=1e-4, rtol=1e-3)
    other = Roi(region="skin", style_noise=1.0, seed=1)(generator, images)
    assert not torch.equal(other.codes["style"], whole.codes["style"])


def test_a_latent_shows_the_edited_picture(generator: L2SAE) -> None:
    found = Roi(style_noise=1.0)(generator, small_pictures())
    c = cameras.orbit(torch.zeros(2), 0.0)
    latent = found.latent(generator, latents.fingerprint(generator), c)
    latents.check(latent, generator)
    assert torch.equal(latents.picture(generator, latent).image, found.image)


def test_misuse_is_told(generator: L2SAE) -> None:
    with pytest.raises(OptionError, match="nothing to do"):
        Roi()(generator, small_pictures())
    with pytest.raises(OptionError, match="from 0 to"):
        Roi(style_noise=1e30)(generator, small_pictures())
    with pytest.raises(TraitError):
        Roi(style_noise=1.0)(TinyGenerator(), small_pictures())
