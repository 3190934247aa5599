"""Equation 1 of Pernuš et al.: each of its parts, on tiny random generators."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import TinyFaceNet, TinyGenerator, small_stylegan2
from torch import Tensor

from semedit import cameras, latents, losses
from semedit.editors import Pernus
from semedit.editors.parts.attribute_regions import ATTRIBUTE_COMPONENTS, freed_components
from semedit.editors.parts.wanted import WantedAttributes, cross_entropy
from semedit.editors.pernus import FaceTarget, Search, feathered
from semedit.errors import OptionError, ShapeError, TraitError
from semedit.faces import attributes, components, networks
from semedit.faces.components import COMPONENTS
from semedit.generators.stylegan2.stylegan2 import StyleGAN2
from semedit.inverters import descent
from semedit.latents import Latent
from semedit.media.labels import ATTRIBUTES, CELEBA, LABELS, REGIONS


@pytest.fixture(autouse=True)
def face_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    network = TinyFaceNet().eval().requires_grad_(False)
    monkeypatch.setattr(networks, "load", lambda name, device="cpu": network)
    yield


@pytest.fixture
def generator() -> StyleGAN2:
    return small_stylegan2().requires_grad_(False)


def latent_of(generator: Any, n: int = 1, seed: int = 0) -> Latent:
    numbers = torch.Generator().manual_seed(seed)
    c = cameras.orbit(torch.zeros(n), torch.zeros(n))
    codes = generator.mapping(torch.randn(n, generator.z_dim, generator=numbers), c)
    codes = {k: v.clone() for k, v in codes.items()}
    return Latent(codes, c, generator.name, latents.fingerprint(generator), "optimize")


def labels_of(n: int = 1, size: int = 16) -> Tensor:
    """A face in the middle, with a mouth."""
    labels = torch.zeros(n, size, size, dtype=torch.int64)
    labels[:, 4:14, 4:12] = REGIONS["skin"][0]
    labels[:, 10:12, 6:10] = REGIONS["mouth"][0]
    return labels


def test_defaults_are_those_of_the_paper() -> None:
    method = Pernus()
    assert (method.steps, method.lr, method.samples) == (2000, 1e-2, 10_000)
    assert (method.mse_weight, method.ce_weight) == (100.0, 10.0)
    assert (method.threshold, method.blur, method.sigma) == (0.9, 51, 31.0)
    assert (method.start, method.target, method.noise) == ("mean", "photo", "face")
    rates = [descent.schedule(i, 2000, method.warmup, method.decay) for i in range(2000)]
    assert rates[0] == pytest.approx(0.01) and rates[99:1500] == [1.0] * 1401
    assert rates[49] == pytest.approx(0.5) and rates[1750] == pytest.approx(0.5)
    assert rates[1999] < 1e-5
    # Whatever the successor adds is off.
    assert method.settle == method.smooth == method.give_way == method.coarse == 0
    assert method.perceptual_weight == method.noise_weight == 0 and not method.composite


def test_the_loss_is_equation_1(generator: StyleGAN2) -> None:
    face = latent_of(generator)
    image = latents.synthesize(generator, latent_of(generator, seed=1)).image
    keep = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    wanted = {"smiling": True, "eyeglasses": False}
    question = WantedAttributes(attributes.Classifier(), wanted)
    scene = FaceTarget(image, keep, torch.ones(1, 1, 16, 16), ("mouth",), None)
    found = Search(Pernus(), generator, face, question, scene).loss(asking=True)
    drawn = latents.synthesize(generator, face).image
    p = attributes.Classifier()(drawn).sigmoid()[0]
    smiles, glasses = (float(p[ATTRIBUTES.index(name)]) for name in wanted)
    error = float((keep * (drawn - image)).square().mean())
    expected = 100 * error + 10 * (-math.log(smiles) - math.log(1 - glasses))
    assert found.item() == pytest.approx(expected, rel=1e-4)
    alone = Search(Pernus(), generator, face, question, scene).loss(asking=False)
    assert alone.item() == pytest.approx(100 * error, rel=1e-4)


def test_smooth_targets_are_cross_entropy_to_them() -> None:
    logits = torch.tensor([[0.7, -1.2]])
    y = torch.full_like(logits, 0.95)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, y, reduction="sum")
    assert float(cross_entropy(logits, 0.05)) == pytest.approx(float(expected), rel=1e-5)


def test_the_mask_holds_the_other_components() -> None:
    labels, image = labels_of(size=64).clone(), torch.zeros(1, 3, 64, 64)
    labels[:] = 0
    labels[:, 16:56, 16:48] = REGIONS["skin"][0]
    labels[:, 40:48, 24:40] = REGIONS["mouth"][0]
    method = Pernus(blur=1)
    keep = FaceTarget.of(method, image, labels, {"smiling": True}, None).keep
    assert keep[0, 0, 42:46, 27:37].max() < 0.3 and keep[0, 0, 20, 30] == 1
    assert keep[0, 0, 2, 2] == 1  # background is not what a smile changes

    class Unsure:
        name = "unsure"

        def __call__(self, images: Tensor) -> Tensor:
            """Skin by 0.85 in one half, by 0.95 in the other."""
            found = torch.zeros(1, len(COMPONENTS), 64, 64)
            skin, mouth = (list(COMPONENTS).index(name) for name in ("skin", "mouth"))
            found[:, skin, :, :32], found[:, skin, :, 32:] = 0.85, 0.95
            found[:, mouth] = 1 - found[:, skin]
            return found

    keep = FaceTarget.of(method, image, labels, {"smiling": True}, Unsure()).keep
    assert keep[..., :28].max() == 0 and keep[..., 36:].min() == 1


def test_the_blur_is_51_by_31_at_1024_and_scales() -> None:
    point = torch.zeros(1, 1, 1024, 1024)
    point[..., 512, 512] = 1
    soft = feathered(point, 51, 31.0)[0, 0]
    assert int((soft[512] > 0).sum()) == int((soft[:, 512] > 0).sum()) == 51
    assert float(soft[512, 512 + 25] / soft[512, 512]) == pytest.approx(
        math.exp(-0.5 * (25 / 31) ** 2), rel=1e-4
    )
    half = torch.zeros(1, 1, 512, 512)
    half[..., 256, 256] = 1
    assert int((feathered(half, 51, 31.0)[0, 0, 256] > 0).sum()) == 25


def test_components_group_all_labels() -> None:
    assert len(COMPONENTS) == 8
    ids = components.component_ids()
    grouped = {
        name: ids[list(REGIONS[name])].unique().tolist() for name in REGIONS if name != "face"
    }
    for component, names in COMPONENTS.items():
        for name in names:
            assert grouped[name] == [list(COMPONENTS).index(component)]
    seg = torch.randn(2, len(LABELS), 4, 4).softmax(1)
    assert torch.allclose(components.grouped(seg).sum(1), torch.ones(2, 4, 4))
    labels = torch.arange(19).view(1, 1, 19)
    assert torch.equal(components.of_labels(labels).argmax(1)[0, 0], ids)
    assert tuple(ATTRIBUTE_COMPONENTS) == CELEBA
    assert freed_components(["smiling", "blond_hair"]) == ("mouth", "hair")
    with pytest.raises(OptionError):
        freed_components(["tall"])
    with pytest.raises(OptionError, match="builtin"):
        components.load_segmenter("none")


def test_only_noise_on_the_face_moves(generator: StyleGAN2) -> None:
    face, before = latent_of(generator, 2), {k: v.clone() for k, v in generator.noises().items()}
    method = Pernus(steps=4, samples=50, segmenter="labels")
    after = method(generator, face, {"smiling": True}, labels_of(2))
    assert after.tuned is not None and set(after.tuned) == {f"noise.{k}" for k in before}
    for added in after.tuned.values():
        side = added.shape[-1]
        assert added.shape == (2, 1, side, side)
        scope = torch.nn.functional.adaptive_max_pool2d((labels_of(2) > 0).float()[:, None], side)
        assert added.abs().max() > 0 and (added[scope == 0] == 0).all()
    assert all(torch.equal(generator.noises()[k], v) for k, v in before.items())
    still = Pernus(steps=4, samples=50, noise="none", segmenter="labels")
    assert still(generator, face, {"smiling": True}, labels_of(2)).tuned is None


def test_a_latent_keeps_its_noise(generator: StyleGAN2, tmp_path: Path) -> None:
    face = latent_of(generator, 2)
    method = Pernus(steps=3, samples=50, lr=0.3, segmenter="labels")
    after = method(generator, face, {"smiling": True}, labels_of(2))
    whole = latents.picture(generator, after).image
    plain = generator.synthesis(after.codes, after.c).image
    assert not torch.allclose(whole, plain, atol=1e-3)
    after.save(tmp_path / "x.safetensors")
    again = latents.load(tmp_path / "x.safetensors", generator)
    assert torch.allclose(latents.picture(generator, again).image, whole, atol=1e-5)
    for i in range(2):
        one = latents.picture(generator, again[i]).image
        assert torch.allclose(one, whole[i : i + 1], atol=1e-5)
    # A face without noise of its own beside one that has some.
    both = latents.stack([after[0], face[1]])
    assert torch.allclose(
        latents.picture(generator, both).image[1:], latents.picture(generator, face[1]).image,
        atol=1e-5,
    )  # fmt: skip
    # A later edit starts from it and adds to it.
    third = Pernus(steps=2, start="current", segmenter="labels")(
        generator, after, {"young": True}, labels_of(2)
    )
    assert third.method == "optimize+pernus+pernus"
    assert not torch.equal(third.tuned["noise.b16.conv1"], after.tuned["noise.b16.conv1"])


def test_codes_start_at_the_mean_of_mapped_samples(generator: StyleGAN2) -> None:
    face = latent_of(generator)
    method = Pernus(steps=0, samples=3000, segmenter="labels")
    after = method(generator, face, {"smiling": True}, labels_of())
    z = torch.randn(20_000, generator.z_dim, generator=torch.Generator().manual_seed(9))
    mean = generator.mapping(z, face.c[:1].expand(len(z), -1))["ws"].mean(0)
    spread = generator.mapping(z, face.c[:1].expand(len(z), -1))["ws"].std(0)
    assert ((after.codes["ws"][0] - mean) / spread).abs().max() < 0.1
    here = Pernus(steps=0, start="current", segmenter="labels")
    after = here(generator, face, {"smiling": True}, labels_of())
    assert torch.equal(after.codes["ws"], face.codes["ws"])


def test_the_descent_reaches_photo_and_attribute(generator: StyleGAN2) -> None:
    face = latent_of(generator)
    image = latents.synthesize(generator, latent_of(generator, seed=4)).image
    asked: list[tuple[int, int]] = []
    method = Pernus(steps=150, lr=0.05, samples=100, segmenter="labels", blur=1)
    wanted = {"smiling": True}
    labels = labels_of()
    start = Pernus(steps=0, samples=100, segmenter="labels", blur=1)(
        generator, face, wanted, labels, image=image
    )
    after = method(generator, face, wanted, labels, lambda *at: asked.append(at), image=image)
    assert asked[-1] == (150, 150)
    assert after.meta["error"][0] < 0.3 * start.meta["error"][0]
    assert after.meta["probability"][0][0] > start.meta["probability"][0][0]
    assert after.meta["segmenter"] == "labels" and after.meta["classifier"] == "builtin"
    shown = latents.picture(generator, after).image
    keep = FaceTarget.of(method, image, labels, wanted, None).keep
    error = float(losses.image_loss(shown, image, keep))
    assert after.meta["error"][0] == pytest.approx(error, abs=1e-5)
    with pytest.raises(ShapeError):
        method(generator, face, wanted, labels, image=image[..., :8])


@pytest.mark.parametrize(
    "options",
    [
        {"settle": 0.5},
        {"smooth": 0.05},
        {"perceptual_weight": 0.1},
        {"noise_weight": 1.0},
        {"give_way": 0.5, "segmenter": "builtin"},
        {"coarse": 8},
        {"composite": True},
    ],
    ids=lambda options: next(iter(options)),
)
def test_what_the_successor_adds(generator: StyleGAN2, options: dict[str, Any]) -> None:
    face = latent_of(generator)
    base: dict[str, Any] = {"steps": 6, "samples": 50, "lr": 0.05, "segmenter": "labels"}
    plain = Pernus(**base)(generator, face, {"smiling": True}, labels_of())
    after = Pernus(**{**base, **options})(generator, face, {"smiling": True}, labels_of())
    if "composite" in options:
        before = latents.picture(generator, face).image
        shown = latents.picture(generator, after).image
        kept = after.composite.mask == 0
        assert kept.any() and torch.allclose(
            shown[kept.expand_as(shown)], before[kept.expand_as(before)]
        )
    elif "give_way" in options:  # the built-in parser of these tests sees no component anywhere
        assert torch.isfinite(after.codes["ws"]).all()
    else:
        assert not torch.equal(after.codes["ws"], plain.codes["ws"])


def test_white_noise_is_no_loss() -> None:
    numbers = torch.Generator().manual_seed(0)
    white = torch.randn(1, 1, 64, 64, generator=numbers)
    smooth = losses.feather(white, 2.0)
    smooth = smooth / smooth.std()
    assert float(losses.noise_loss([white])) < 0.02 < 0.5 < float(losses.noise_loss([smooth]))


def test_a_generator_with_labels_and_cameras_takes_it_too() -> None:
    generator = TinyGenerator().requires_grad_(False)
    codes, c = generator.sample(2, seed=5)
    face = Latent(codes, c, generator.name, latents.fingerprint(generator), "hybrid")
    after = Pernus(steps=3, samples=50)(generator, face, {"young": False}, labels_of(2))
    assert after.tuned is None and after.method == "hybrid+pernus"
    with pytest.raises(TraitError):
        Pernus(steps=3, samples=50, coarse=8)(generator, face, {"young": False}, labels_of(2))
    assert np.isfinite(after.codes["ws"].numpy()).all() and after.meta["segmenter"] == "builtin"
