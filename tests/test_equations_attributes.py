"""Editing by attribute (equation 1 of Pernuš et al., MaskFaceGAN's terms, fast): written out."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import formulas
import pytest
import torch
import torch.nn.functional as F
from descents import Descents, falls, slope_along
from formulas import close
from tiny import Painter, Pixels
from torch import Tensor

from semedit import cameras, latents, losses
from semedit.directions.directions import Directions
from semedit.editors import Fast, Pernus, fast, pernus
from semedit.editors.parts.attribute_regions import (
    ATTRIBUTE_COMPONENTS,
    ATTRIBUTE_REGIONS,
    attribute_region,
    freed_components,
)
from semedit.editors.parts.wanted import WantedAttributes, cross_entropy
from semedit.errors import OptionError, ShapeError, WeightsError
from semedit.faces.components import COMPONENTS
from semedit.inverters.codes import spread
from semedit.inverters.descent import Descended
from semedit.latents import Latent
from semedit.media.labels import ATTRIBUTES, CELEBA, REGIONS
from semedit.media.pixels import resize

SKIN, HAIR, MOUTH = (REGIONS[name][0] for name in ("skin", "hair", "mouth"))
WANTED = {"smiling": True, "eyeglasses": False}


class Classify:
    """Logits that follow the picture's colours, of one pixel each and of all."""

    name = "colours"

    def __call__(self, images: Tensor) -> Tensor:
        a = len(ATTRIBUTES)
        mix = torch.randn(a, 3, generator=torch.Generator().manual_seed(1))
        one = torch.randn(a, images[0].numel(), generator=torch.Generator().manual_seed(2))
        flat = images.flatten(1) @ one.T
        return 0.1 * flat + images.mean((2, 3)) @ mix.T


def logit(images: Tensor, name: str) -> Tensor:
    return Classify()(images)[:, ATTRIBUTES.index(name)]


def asked(image: Tensor, smooth: float = 0.0) -> float:
    """sum over WANTED of -y log p - (1 - y) log(1 - p), y near 1 for what is given."""
    total = 0.0
    for name, yes in WANTED.items():
        p = 1 / (1 + math.exp(-float(logit(image.detach(), name))))
        y = 1 - smooth if yes else smooth
        total += -y * math.log(p) - (1 - y) * math.log(1 - p)
    return total


@pytest.fixture(autouse=True)
def networks_of_tests(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(losses, "perceptual", perceptual)
    for module in (fast, pernus):
        monkeypatch.setattr(module, "load_classifier", lambda name, device: Classify())
    yield


def perceptual(name: str, device: Any = "cpu") -> Any:
    return {"none": losses.NoPerceptual, "auto": Pixels}[name]()


@pytest.fixture
def generator() -> Painter:
    return Painter().requires_grad_(False)


class Noisy(Painter):
    """Noise maps are added to the picture; it can be drawn at half the size."""

    traits = Painter.traits | {"noise", "coarse"}

    def __init__(self) -> None:
        super().__init__()
        numbers = torch.Generator().manual_seed(6)
        self.maps = {
            "b4": torch.randn(1, 1, 4, 4, generator=numbers),
            "b8": torch.randn(1, 1, 8, 8, generator=numbers),
        }

    def noises(self) -> dict[str, Tensor]:
        return self.maps

    def synthesis(
        self, codes: Any, c: Tensor, noise: Any = "const", resolution: int | None = None
    ) -> Any:
        maps = self.maps if isinstance(noise, str) else self.maps | noise
        whole = super().synthesis(codes, c)
        added = maps["b8"] + maps["b4"].repeat_interleave(2, 2).repeat_interleave(2, 3)
        image = whole.image + 0.3 * added
        if resolution is not None:
            image = F.adaptive_avg_pool2d(image, resolution)
        return replace(whole, image=image)


def faces(generator: Painter, n: int = 2, seed: int = 0, **options: Any) -> Latent:
    ws = 0.5 * torch.randn(n, 2, 304, generator=torch.Generator().manual_seed(seed))
    c = cameras.orbit(torch.linspace(-0.2, 0.3, n), torch.zeros(n))
    return Latent({"ws": ws}, c, "painter", latents.fingerprint(generator), "hybrid", **options)


def label_maps(n: int = 2) -> Tensor:
    labels = torch.zeros(n, 8, 8, dtype=torch.long)
    labels[:, 1:, 1:7] = SKIN
    labels[:, :2] = HAIR
    labels[:, 5:7, 2:5] = MOUTH
    return labels


# --- what is asked ---------------------------------------------------------------------------


def test_questions_and_cross_entropy() -> None:
    images = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    found = WantedAttributes(Classify(), WANTED)(images)
    expected = torch.stack([logit(images, "smiling"), -logit(images, "eyeglasses")], 1)
    assert close(found, expected)
    for smooth in (0.0, 0.1):
        y = torch.full_like(found, 1 - smooth)
        terms = F.binary_cross_entropy_with_logits(found, y, reduction="none")
        assert close(cross_entropy(found, smooth), terms.sum(1), rtol=1e-4)
        one = images[:1]
        value = float(cross_entropy(WantedAttributes(Classify(), WANTED)(one), smooth))
        assert value == pytest.approx(asked(one, smooth), rel=1e-4)
    for wrong in ({}, {"smilling": True}, {"smiling": True, "tall": True}):
        with pytest.raises(OptionError):
            WantedAttributes(Classify(), wrong)
    leaf = images.clone().requires_grad_()
    (slope,) = torch.autograd.grad(
        cross_entropy(WantedAttributes(Classify(), WANTED)(leaf)).sum(), leaf
    )
    after = images - 0.1 * slope
    assert (logit(after, "smiling") > logit(images, "smiling")).all()
    assert (logit(after, "eyeglasses") < logit(images, "eyeglasses")).all()


def test_regions_and_components_of_attributes() -> None:
    assert tuple(ATTRIBUTE_REGIONS) == tuple(ATTRIBUTE_COMPONENTS) == CELEBA
    labels = torch.zeros(2, 100, 100, dtype=torch.long)
    labels[0, 50:52, 40:60] = MOUTH
    labels[1, 20, 20] = REGIONS["nose"][0]
    found = attribute_region(labels, ["smiling", "big_nose"])
    expected = torch.zeros(2, 1, 100, 100)
    expected[0, :, 39:63, 29:71], expected[1, :, 15:26, 15:26] = 1, 1
    assert torch.equal(found, expected)
    assert torch.equal(  # reach goes by the picture's side
        attribute_region(labels[:, ::2, ::2], ["big_nose"])[1].sum(), torch.tensor(25.0)
    )
    reach: dict[int, str] = {
        3: "black_hair blond_hair brown_hair gray_hair wearing_lipstick young",
        4: "wearing_necklace",
        5: "arched_eyebrows bald big_nose bushy_eyebrows narrow_eyes straight_hair wavy_hair",
        6: "wearing_earrings", 7: "mouth_slightly_open", 8: "wearing_hat", 11: "smiling",
        12: "eyeglasses", 14: "no_beard",
    }  # fmt: skip
    for px, names in reach.items():
        assert [ATTRIBUTE_REGIONS[name][1] for name in names.split()] == [px] * len(names.split())
    assert freed_components(["smiling", "young", "no_beard"]) == ("mouth", "skin", "hair")
    for function in (lambda names: attribute_region(labels, names), freed_components):
        with pytest.raises(OptionError):
            function(["tall"])


# --- equation 1 ------------------------------------------------------------------------------


def by_hand(labels: Tensor, method: Pernus) -> Tensor:
    """M for WANTED: all but mouth, eyes and brows, under the blur of an 8-pixel picture."""
    freed = ("mouth", "eyes", "eyebrows")
    ids = [i for part in freed for name in COMPONENTS[part] for i in REGIONS[name]]
    hard = 1 - torch.isin(labels, torch.tensor(ids)).float()[:, None]
    sigma, reach = method.sigma * 8 / 1024, max(1, round((method.blur - 1) / 2 * 8 / 1024))
    return losses.feather(hard, sigma, reach)


PERNUS: dict[str, Any] = {
    "steps": 20, "lr": 0.3, "mse_weight": 7.0, "ce_weight": 3.0, "samples": 40, "blur": 257,
    "sigma": 130.0, "segmenter": "labels",
}  # fmt: skip


@pytest.fixture
def descents(monkeypatch: pytest.MonkeyPatch) -> Descents:
    found = Descents()
    monkeypatch.setattr(pernus, "descend", found)
    return found


def mean_of(generator: Painter, count: int) -> Tensor:
    z = torch.randn(count, 4, generator=torch.Generator().manual_seed(0))
    return generator.mapping(z, torch.zeros(count, 25))["ws"].mean(0, keepdim=True)


@pytest.mark.parametrize("off", ["", "mse_weight", "ce_weight"])
def test_equation_1_term_by_term(generator: Painter, descents: Descents, off: str) -> None:
    latent, labels = faces(generator), label_maps()
    photo = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(3)) * 2 - 1
    method = Pernus(**{**PERNUS, **({off: 0.0} if off else {})})
    told: list[tuple[int, int]] = []
    after = method(generator, latent, WANTED, labels, lambda *at: told.append(at), image=photo)
    assert told == [(i + 1, 40) for i in range(40)]
    keep = by_hand(labels, method)
    assert [call["steps"] for call in descents.calls] == [0, 20, 0, 20]
    for i, call in enumerate(descents.calls):
        asking, row = bool(i % 2), slice(i // 2, i // 2 + 1)
        assert (call["lr"], call["warmup"], call["decay"]) == (0.3, 0.05, 0.25)
        assert call["betas"] == (0.9, 0.999) and call["rates"] is None and call["soft"] == 0
        (leaf,) = call["parameters"]
        assert close(leaf, mean_of(generator, 40), atol=1e-6)
        (leaf,) = descents.shaken(call)
        image = generator.synthesis({"ws": leaf}, latent.c[row]).image
        error = float(formulas.masked_squares(image, photo[row], keep[row]))
        expected = method.mse_weight * error + asking * method.ce_weight * asked(image)
        assert float(call["loss"]().detach()) == pytest.approx(expected, rel=1e-4)
        if expected:
            assert falls(call["loss"], call["parameters"])
        with torch.no_grad():
            call["parameters"][0].copy_(mean_of(generator, 40))
    shown = generator.synthesis({"ws": mean_of(generator, 40)}, latent.c).image
    p = [
        [float(logit(shown[i : i + 1], "smiling").sigmoid()),
         float((-logit(shown[i : i + 1], "eyeglasses")).sigmoid())]
        for i in (0, 1)
    ]  # fmt: skip
    assert after.meta["probability"][1] == pytest.approx(p[1], abs=1e-4)
    assert all(v == round(v, 4) for row in after.meta["probability"] for v in row)
    errors = formulas.masked_squares(shown, photo, keep).tolist()
    assert after.meta["error"] == pytest.approx(errors, abs=2e-6)
    assert after.meta["wanted"] == WANTED and "diverged" not in after.meta
    assert after.composite is None and after.method == "hybrid+pernus"
    assert torch.equal(after.codes["ws"][1:], after.codes["ws"][:1])


def test_the_picture_before_is_no_part_of_the_descent(
    descents: Descents, fast_descents: Descents
) -> None:
    generator, labels = Painter(), label_maps()
    Pernus(**PERNUS, start="current", target="current")(generator, faces(generator), WANTED, labels)
    Fast(**{**FAST, "mse_weight": 100.0})(generator, faces(generator), WANTED, labels)
    for call in descents.calls + fast_descents.calls:
        descents.shaken(call)
        by_autograd, by_steps = slope_along(call["loss"], generator.gain)
        assert by_autograd == pytest.approx(by_steps, rel=2e-2)


def test_thousands_of_samples_make_one_mean(generator: Painter, descents: Descents) -> None:
    after = Pernus(**{**PERNUS, "samples": 2500})(generator, faces(generator), WANTED, label_maps())
    numbers = torch.Generator().manual_seed(0)
    z = torch.cat([torch.randn(n, 4, generator=numbers) for n in (1000, 1000, 500)])
    expected = generator.mapping(z, torch.zeros(2500, 25))["ws"].mean(0)
    assert close(after.codes["ws"][0], expected, atol=1e-5)


def test_the_terms_of_the_successor(descents: Descents) -> None:
    generator = Noisy().requires_grad_(False)
    latent, labels = faces(generator), label_maps()
    method = Pernus(
        **PERNUS, settle=0.3, smooth=0.1, perceptual_weight=2.0, noise_weight=5.0, start="current",
        composite=True, target="current",
    )  # fmt: skip
    own = {"noise.b8": torch.full((2, 1, 8, 8), 0.25).half()}
    latent = faces(generator, tuned={"gain": torch.zeros(2, 3, 1, 1).half(), **own})
    before = latents.picture(generator, latent).image
    after = method(generator, latent, WANTED, labels)
    keep = by_hand(labels, method)
    assert [call["steps"] for call in descents.calls] == [6, 14, 6, 14]
    scope = torch.isin(labels, torch.tensor([SKIN, MOUTH])).float()[:, None]
    for i, call in enumerate(descents.calls):
        row = slice(i // 2, i // 2 + 1)
        start = [leaf.detach().clone() for leaf in call["parameters"]]
        assert [tuple(s.shape) for s in start[1:]] == [(1, 1, 4, 4), (1, 1, 8, 8)]
        if not i % 2:  # the second descent goes on from the first
            assert torch.equal(start[0], latent.codes["ws"][row])
            assert all(s.abs().max() == 0 for s in start[1:])
        ws, small, large = descents.shaken(call)
        wide = scope[row]
        coarse = wide.view(1, 1, 4, 2, 4, 2).amax((3, 5))
        maps = {
            "b4": generator.maps["b4"] + coarse * small,
            "b8": generator.maps["b8"] + 0.25 + wide * large,
        }
        image = generator.synthesis({"ws": ws}, latent.c[row], noise=maps).image
        k = keep[row]
        expected = 7.0 * float(formulas.masked_squares(image, before[row], k))
        if i % 2:
            expected += 3.0 * asked(image, smooth=0.1)
        expected += 2.0 * float(formulas.pixel_distance(image * k, before[row] * k))
        expected += 5.0 * float(losses.noise_loss(maps.values()))
        assert float(call["loss"]().detach()) == pytest.approx(expected, rel=1e-4)
        assert falls(call["loss"], call["parameters"])
    assert close(after.composite.mask, 1 - keep, atol=1e-6)
    assert torch.equal(after.composite.image, before)
    assert torch.equal(after.tuned["noise.b4"], torch.zeros(2, 1, 4, 4).half())
    assert torch.equal(after.tuned["noise.b8"], own["noise.b8"])


def test_noise_that_was_found_is_kept_on_the_face(monkeypatch: pytest.MonkeyPatch) -> None:
    def descend(leaves: Any, loss: Any, *rest: Any, **options: Any) -> Descended:
        with torch.no_grad():
            for leaf in list(leaves)[1:]:
                leaf.add_(1.0)
        return Descended(torch.zeros(1), torch.tensor([bool(rest[0] == 6)]))

    monkeypatch.setattr(pernus, "descend", descend)
    generator = Noisy().requires_grad_(False)
    labels = label_maps()
    scope = torch.isin(labels, torch.tensor([SKIN, MOUTH])).float()[:, None]
    own = {"noise.b8": torch.full((2, 1, 8, 8), 0.25).half()}
    after = Pernus(**PERNUS)(generator, faces(generator, tuned=own), WANTED, labels)
    assert torch.equal(after.tuned["noise.b8"], (2 * scope).half())  # the mean has none of its own
    assert "diverged" not in after.meta
    here = Pernus(**PERNUS, start="current", settle=0.3)
    after = here(generator, faces(generator, tuned=own), WANTED, labels)
    assert torch.equal(after.tuned["noise.b8"], (0.25 + 2 * scope).half())
    assert after.meta["diverged"] == [True, True]  # in the first descent of two
    still = Pernus(**PERNUS, noise="none")(generator, faces(generator), WANTED, labels)
    assert still.tuned is None


def scene(image: Tensor, keep: Tensor, segment: Any = None, face: float = 1.0) -> pernus.FaceTarget:
    return pernus.FaceTarget(
        image, keep, torch.full((1, 1, 8, 8), face), ("mouth", "eyes"), segment
    )


def test_coarse_steps_come_first() -> None:
    generator = Noisy().requires_grad_(False)
    method = Pernus(**{**PERNUS, "steps": 4}, coarse=4, noise="none", perceptual_weight=2.0)
    face, image = faces(generator, 1), torch.rand(1, 3, 8, 8)
    keep = torch.rand(1, 1, 8, 8)
    search = pernus.Search(
        method, generator, face, WantedAttributes(Classify4(), WANTED), scene(image, keep)
    )
    values = [float(search.loss(asking=False).detach()) for _ in range(4)]
    drawn = generator.synthesis(face.codes, face.c).image
    whole = 7 * formulas.masked_squares(drawn, image, keep) + 2 * formulas.pixel_distance(
        drawn * keep, image * keep
    )
    a, m = (F.avg_pool2d(x, 2) for x in (drawn, keep))
    b = resize(image, 4)
    small = 7 * formulas.masked_squares(a, b, m) + 2 * formulas.pixel_distance(a * m, b * m)
    assert values == pytest.approx([float(small)] * 3 + [float(whole)], rel=1e-4)


class Classify4(Classify):
    """Of whatever size."""

    def __call__(self, images: Tensor) -> Tensor:
        return images.mean((2, 3)) @ torch.ones(3, len(ATTRIBUTES))


class Grown:
    """Sees mouth in the upper left, of a probability; skin elsewhere."""

    name = "grown"

    def __init__(self, chance: float) -> None:
        self.chance, self.seen = chance, torch.zeros(0)

    def __call__(self, images: Tensor) -> Tensor:
        self.seen = images
        found = torch.zeros(len(images), len(COMPONENTS), 8, 8)
        mouth, skin = (list(COMPONENTS).index(name) for name in ("mouth", "skin"))
        found[:, mouth, :4, :4] = self.chance
        found[:, skin] = 1 - found[:, mouth]
        return found


@pytest.mark.parametrize("chance", [0.45, 0.55])
def test_the_mask_gives_way_to_what_the_edit_has_grown(chance: float) -> None:
    """From its step on, M is 0 where the generator now draws freed components; nowhere more."""
    generator = Painter().requires_grad_(False)
    method = Pernus(**{**PERNUS, "steps": 8, "blur": 1, "sigma": 1.0}, give_way=0.25)
    face, image = faces(generator, 1), torch.rand(1, 3, 8, 8)
    keep = torch.ones(1, 1, 8, 8)
    keep[..., 7] = 0
    segment = Grown(chance)
    search = pernus.Search(
        method, generator, face, WantedAttributes(Classify(), WANTED), scene(image, keep, segment)
    )
    drawn = generator.synthesis(face.codes, face.c).image
    free = keep.clone()
    if chance > 0.5:
        free[..., :4, :4] = 0
    free = torch.minimum(keep, pernus.feathered(free, 1, 1.0))
    masks = [keep, keep, free, free]
    for mask in masks:
        value = float(search.loss(asking=False).detach())
        assert value == pytest.approx(
            7 * float(formulas.masked_squares(drawn, image, mask)), rel=1e-4
        )
    assert torch.equal(segment.seen, drawn.clamp(-1, 1))
    assert torch.equal(search.keep, free)
    blind = pernus.Search(
        method, generator, face, WantedAttributes(Classify(), WANTED), scene(image, keep)
    )
    for _ in range(4):
        blind.loss(asking=False)
    assert torch.equal(blind.keep, keep)  # a label map does not see the edit


def test_what_a_scene_holds() -> None:
    labels = label_maps(1)
    image = torch.full((1, 3, 8, 8), 2.0)
    method = Pernus(**{**PERNUS, "blur": 1, "sigma": 1e-6})
    found = pernus.FaceTarget.of(method, image, labels, WANTED, None)
    assert torch.equal(found.keep, (labels != MOUTH).float()[:, None])
    assert torch.equal(found.face[0, 0], torch.isin(labels[0], torch.tensor([SKIN, MOUTH])).float())
    assert found.freed == ("mouth", "eyes", "eyebrows") and found.image is image
    for chance, held in ((0.05, True), (0.15, False)):  # held from a probability of 0.9
        segment = Grown(chance)
        found = pernus.FaceTarget.of(method, image, labels, WANTED, segment)
        assert bool(found.keep[0, 0, 0, 0]) is held and found.keep[0, 0, 7, 7] == 1
        assert segment.seen.max() == 1 and found.face.min() == 1
    assert pernus.FaceTarget.of(method, image, labels, WANTED, Grown(0.15)).segment is not None


def test_the_blur_of_m() -> None:
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 32, 32] = 1
    soft = pernus.feathered(mask, 97, 48.0)  # 48 / 1024 of 64 pixels: reach 3, deviation 3
    assert close(soft, losses.feather(mask, 3.0, 3))
    assert pernus.feathered(mask, 1, 48.0).ne(0).sum() == 9  # at least a pixel on


def test_pernus_refuses_and_starts(generator: Painter, descents: Descents) -> None:
    latent, labels = faces(generator), label_maps()
    with pytest.raises(ShapeError):
        Pernus(**PERNUS)(generator, latent, WANTED, labels, image=torch.zeros(2, 3, 4, 4))
    added = {"planes.colours": torch.ones(2, 3, 8, 8)}
    latent = faces(generator, tuned=added)
    after = Pernus(**PERNUS, start="current", release=0.5)(generator, latent, WANTED, labels)
    keep = by_hand(labels, Pernus(**PERNUS))
    gone = (1 - keep) ** 2 / (keep**2 + (1 - keep) ** 2)
    assert close(after.tuned["planes.colours"], added["planes.colours"] * (1 - 0.5 * gone))
    codes = latent.codes | {"style": torch.zeros(2, 1, 3)}
    kept = Pernus(**PERNUS, start="current")(
        generator, Latent(codes, latent.c, "painter", latent.fingerprint, "x"), WANTED, labels
    )
    assert torch.equal(kept.codes["style"], codes["style"])
    assert all(len(call["parameters"]) == 1 for call in descents.calls)


def test_defaults_are_those_of_the_paper() -> None:
    m = Pernus()
    assert (m.steps, m.lr, m.warmup, m.decay, m.samples) == (2000, 0.01, 0.05, 0.25, 10_000)
    assert (m.mse_weight, m.ce_weight, m.threshold, m.blur, m.sigma) == (100, 10, 0.9, 51, 31)
    assert (m.start, m.target, m.noise, m.release) == ("mean", "photo", "face", 1.0)
    assert m.coarse == m.settle == m.smooth == m.give_way == m.perceptual_weight == 0
    assert m.noise_weight == 0 and not m.composite and pernus.SIDE == 1024
    assert pernus.FACE == ("skin", "nose", "eyes", "eyebrows", "mouth")
    f = Fast()
    assert (f.steps, f.lr, f.mse_weight, f.ce_weight, f.prior_weight) == (30, 0.05, 100, 1, 0.1)
    assert (f.sure, f.bound, f.warmup, f.decay, f.soft) == (0.98, 0.02, 0.1, 0.25, 3.0)
    assert f.release == 1.0 and f.composite and f.start == "direction"
    assert fast.STRENGTHS == (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0)


# --- fast ------------------------------------------------------------------------------------

FAST: dict[str, Any] = {
    "steps": 9, "lr": 0.2, "mse_weight": 7.0, "ce_weight": 3.0, "prior_weight": 0.4, "soft": 15.0,
    "warmup": 0.3, "decay": 0.6, "start": "current",
}  # fmt: skip


@pytest.fixture
def fast_descents(monkeypatch: pytest.MonkeyPatch) -> Descents:
    found = Descents()
    monkeypatch.setattr(fast, "descend", found)
    return found


@pytest.mark.parametrize("composite", [True, False])
@pytest.mark.parametrize("off", ["", "mse_weight", "ce_weight", "prior_weight"])
def test_fast_term_by_term(
    generator: Painter, fast_descents: Descents, composite: bool, off: str
) -> None:
    latent, labels = faces(generator), label_maps()
    method = Fast(**{**FAST, **({off: 0.0} if off else {})}, composite=composite)
    before = latents.picture(generator, latent).image
    seen: list[tuple[int, int]] = []
    after = method(generator, latent, WANTED, labels, lambda *at: seen.append(at))
    region = attribute_region(labels, WANTED)
    keep = 1 - losses.feather(region, 15.0 * 8 / 100)
    assert 0 < keep.mean() < 1
    scale = spread(generator, latent.c)["ws"]
    for i, call in enumerate(fast_descents.calls):
        row = slice(i, i + 1)
        assert (call["steps"], call["lr"], call["warmup"], call["decay"]) == (9, 0.2, 0.3, 0.6)
        (leaf,) = fast_descents.shaken(call)
        image = generator.synthesis(
            {"ws": latent.codes["ws"][row] + scale * leaf}, latent.c[row]
        ).image
        error = float(formulas.masked_squares(image, before[row], keep[row]))
        judged = image * (1 - keep[row]) + before[row] * keep[row] if composite else image
        expected = (
            method.mse_weight * error
            + method.ce_weight * asked(judged)
            + method.prior_weight * float(leaf.square().mean())
        )
        assert float(call["loss"]().detach()) == pytest.approx(expected, rel=1e-4)
        assert falls(call["loss"], call["parameters"])
    assert seen[-1] == (18, 18) and after.meta["start"] == "current"
    assert (after.composite is not None) is composite
    if composite:
        assert close(after.composite.mask, losses.feather(region, 1.2) * region)
        assert torch.equal(after.composite.image, before)
    p = [[float(logit(before[i : i + 1], "smiling").sigmoid()),
          float((-logit(before[i : i + 1], "eyeglasses")).sigmoid())] for i in (0, 1)]  # fmt: skip
    assert after.meta["probability"][0] == pytest.approx(p[0], abs=1e-4)
    assert after.meta["probability"][1] == pytest.approx(p[1], abs=1e-4)
    assert close(after.codes["ws"], latent.codes["ws"])


def test_fast_ends_when_all_are_sure_and_the_rest_is_kept(
    generator: Painter, fast_descents: Descents
) -> None:
    latent, labels = faces(generator, 1), label_maps(1)
    before = latents.picture(generator, latent).image
    p = [logit(before, "smiling").sigmoid(), (-logit(before, "eyeglasses")).sigmoid()]
    least, most = sorted(float(v) for v in p)
    assert least < most - 1e-3
    for sure, bound, ends in ((least - 1e-4, 0.0, True), ((least + most) / 2, 1.0, False)):
        Fast(**FAST, sure=sure, bound=bound)(generator, latent, WANTED, labels)
        assert fast_descents.calls[-1]["stop"](torch.zeros(1)) is ends
    Fast(**FAST, sure=0.0, bound=0.001)(generator, latent, WANTED, labels)
    call = fast_descents.calls[-1]
    assert call["stop"](torch.zeros(1))
    fast_descents.shaken(call)
    call["loss"]()
    assert not call["stop"](torch.zeros(1))  # sure of it, and too far away


def directions_of(generator: Painter) -> Directions:
    """Along which the classifier's logits rise at once."""
    units, figures = {}, {}
    for name in WANTED:
        leaf = torch.zeros(1, 2, 304, requires_grad=True)
        image = generator.synthesis({"ws": leaf}, torch.zeros(1, 25)).image
        (slope,) = torch.autograd.grad(logit(image, name).sum(), leaf)
        units[name] = {"ws": slope[0] / slope.norm()}
        figures[name] = {"deviation": 0.7}
    return Directions(units, "painter", latents.fingerprint(generator), figures)


def test_fast_starts_along_directions(
    generator: Painter, fast_descents: Descents, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = directions_of(generator)
    monkeypatch.setattr(fast, "directions_for", lambda generator: found)
    latent, labels = faces(generator), label_maps()
    goes = Fast(**{**FAST, "start": "direction"}, sure=0.75, composite=False)
    after = goes(generator, latent, {**WANTED, "young": True}, labels)
    assert after.meta["start"] == "direction"
    for i in (0, 1):
        codes, strengths = latent.codes["ws"][i : i + 1], []
        for name, yes in WANTED.items():
            move = 0.7 * found.units[name]["ws"]
            sign = 1 if yes else -1
            for strength in (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0):
                tried = codes + sign * strength * move
                image = generator.synthesis({"ws": tried}, latent.c[i : i + 1]).image
                if float((sign * logit(image, name)).sigmoid()) >= 0.75:
                    break
            codes = tried
            strengths.append(strength)
        assert close(after.codes["ws"][i : i + 1], codes, atol=1e-5)
        assert strengths != [0.0, 0.0]

    def none(generator: Any) -> Directions:
        raise WeightsError("none")

    monkeypatch.setattr(fast, "directions_for", none)
    after = goes(generator, latent, WANTED, labels)
    assert after.meta["start"] == "current"
    assert torch.equal(after.codes["ws"], latent.codes["ws"])


def test_fast_takes_tuning_back_where_a_start_along_directions_shows(
    generator: Painter, fast_descents: Descents, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, asked = directions_of(generator), []
    monkeypatch.setattr(fast, "directions_for", lambda generator: found)
    shown = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    pairs: list[tuple[Latent, Latent]] = []

    def moved(_: Any, before: Latent, after: Latent) -> Tensor:
        pairs.append((before, after))
        return shown

    monkeypatch.setattr(fast, "changed_area", moved)
    monkeypatch.setattr(fast, "fade_tuning", lambda *given: asked.append(given[2:]) or given[1])
    latent, labels = faces(generator, 1), label_maps(1)
    method = Fast(**{**FAST, "start": "direction"}, sure=0.75, release=0.3)
    after = method(generator, latent, WANTED, labels)
    ((mask, share),) = asked
    region = losses.feather(attribute_region(labels, WANTED), 1.2)
    assert close(mask, region * shown) and share == 0.3
    ((before, there),) = pairs
    assert torch.equal(before.codes["ws"], latent.codes["ws"])
    assert close(there.codes["ws"], after.codes["ws"])


def test_fast_takes_tuning_back_where_the_edit_shows(
    generator: Painter, fast_descents: Descents
) -> None:
    added = {"planes.colours": torch.ones(2, 3, 8, 8)}
    latent, labels = faces(generator, tuned=added), label_maps()
    after = Fast(**FAST, release=0.5)(generator, latent, WANTED, labels)
    keep = 1 - losses.feather(attribute_region(labels, WANTED), 1.2)
    gone = (1 - keep) ** 2 / (keep**2 + (1 - keep) ** 2)
    expected = (1 - 0.5 * gone).expand(-1, 3, -1, -1)
    assert close(after.tuned["planes.colours"], expected)
    assert not after.tuned["planes.colours"].requires_grad
