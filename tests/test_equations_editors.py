"""Editors that draw once, and the one that makes faces of drawings: what each makes, by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import formulas
import numpy as np
import pytest
import torch
from descents import Descents
from formulas import close
from tiny import Painter
from torch import Tensor

from semedit import cameras, latents, losses
from semedit.editors import Canonical, Drawing, Roi, Texture, canonical, drawing, roi
from semedit.errors import LatentError, MaskError, OptionError, WeightsError
from semedit.generators import Output
from semedit.generators.contract import Generator
from semedit.inverters.codes import spread
from semedit.latents import Latent
from semedit.media.labels import LABELS, REGIONS
from semedit.media.pixels import resize

SKIN, HAIR, NOSE = (REGIONS[name][0] for name in ("skin", "hair", "nose"))


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def faces(generator: Any, n: int = 2, **options: Any) -> Latent:
    c = cameras.orbit(torch.linspace(-0.2, 0.3, n), torch.zeros(n))
    ws = 0.5 * numbers(n, 2, 304)
    return Latent({"ws": ws}, c, "painter", latents.fingerprint(generator), "hybrid", **options)


# --- roi: algorithms 1 and 2 -----------------------------------------------------------------


class Slices(Generator):
    """Structure [N,4,8,8] and style [N,3] of pictures of 8 pixels, as plain as can be."""

    name, resolution = "slices", 8
    traits = frozenset({"encode", "slices"})

    def mean_codes(self) -> dict[str, Tensor]:
        return {"style": torch.zeros(1, 3)}

    def encode(self, images: Tensor) -> dict[str, Tensor]:
        assert images.shape[-1] == 8
        more = images.mean(1, keepdim=True).square()
        return {"structure": torch.cat([images, more], 1), "style": images.mean((2, 3))}

    def synthesis(self, codes: dict[str, Tensor]) -> Output:
        s, t = codes["structure"], codes["style"]
        return Output(1.5 * s[:, :3] + s[:, 3:] + t[:, :, None, None])

    def region_logits(self, images: Tensor, names: list[str]) -> Tensor:
        """What is beyond the range looks like another region."""
        assert names == ["nose"] and images.shape[-1] == 8
        return (3 * images.sum(1, keepdim=True)).sin() - 0.7

    def channels(self, region: str) -> Tensor:
        assert region == "nose"
        return torch.tensor([1, 0, 1, 0])


def smoothed(x: np.ndarray) -> np.ndarray:
    """A Gaussian of one pixel over 3 x 3 of [N,C,H,W], the border repeated."""
    wide = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
    total, weight = np.zeros_like(x), 0.0
    for i in (-1, 0, 1):
        for j in (-1, 0, 1):
            one = math.exp(-(i * i + j * j) / 2)
            rows, columns = slice(1 + i, 1 + i + x.shape[2]), slice(1 + j, 1 + j + x.shape[3])
            total, weight = total + one * wide[:, :, rows, columns], weight + one
    return total / weight


ROI: list[dict[str, Any]] = [
    {"style_noise": 0.4},
    {"structure_noise": 0.3},
    {"style_noise": 0.4, "structure_noise": 0.3, "seed": 4},
    {"style_noise": 0.4, "detail": False},
    {"style_noise": 0.4, "as_published": True},
    {"structure_noise": 0.3, "detail": False, "as_published": True},
    {},  # the style of another picture
]


@pytest.mark.parametrize("options", ROI)
@pytest.mark.parametrize("size", [8, 16])
def test_algorithms_1_and_2(options: dict[str, Any], size: int) -> None:
    generator, method = Slices(), Roi(region="nose", **options)
    images = 0.8 * numbers(2, 3, size, size).clamp(-1, 1)
    other = None if options else numbers(1, 3, size, size, seed=7).clamp(-1, 1)
    found = method(generator, images, other)
    x = resize(images, 8)
    own = generator.encode(x)
    structure, style = own["structure"], own["style"]
    if other is not None:
        style = resize(other, 8).mean((2, 3)).expand(2, -1)
    order = torch.Generator().manual_seed(options.get("seed", 0))
    if "style_noise" in options:
        style = style + 0.4 * torch.randn(1, 3, generator=order)
    if "structure_noise" in options:
        noise = torch.randn(1, 4, 8, 8, generator=order)
        noise[:, [1, 3]] = 0  # the slices of other regions
        structure = structure + 0.3 * noise
    assert close(found.codes["structure"], structure) and close(found.codes["style"], style)
    drawn = 1.5 * structure[:, :3] + structure[:, 3:] + style[:, :, None, None]
    before = 1.5 * x + x.mean(1, keepdim=True).square() + x.mean((2, 3))[:, :, None, None]
    mask = (3 * x.sum(1, keepdim=True)).sin() > 0.7
    if "structure_noise" in options:
        mask |= (3 * drawn.clamp(-1, 1).sum(1, keepdim=True)).sin() > 0.7
    alpha = resize(torch.tensor(smoothed(mask.double().numpy())).float(), size)
    assert close(found.alpha, alpha) and 0 < float(mask.float().mean()) < 1
    outside = (alpha == 0).expand_as(images)
    assert bool(outside.any())
    if options.get("as_published"):
        mixed = (1 - alpha) * images + alpha * resize(drawn, size).clamp(-1, 1)
        expected = torch.tensor(smoothed(mixed.double().numpy())).float()
    elif not options.get("detail", True):
        mixed = (1 - alpha) * images + alpha * resize(drawn, size).clamp(-1, 1)
        after = torch.tensor(smoothed(mixed.double().numpy())).float()
        expected = torch.where(outside, images, after)
        assert close(roi.blend(images, resize(drawn, size).clamp(-1, 1), alpha), found.image)
    else:
        y = (images + resize(drawn - before, size)).clamp(-1, 1)
        expected = (1 - alpha) * images + alpha * y
    assert close(found.image, expected)
    if not options.get("as_published"):
        assert torch.equal(found.image[outside], images[outside])
    assert not found.image.requires_grad


def test_what_roi_takes_and_keeps() -> None:
    generator = Slices()
    images = 0.8 * numbers(2, 3, 16, 16).clamp(-1, 1)
    found = Roi(region="nose", style_noise=0.4)(generator, images)
    latent = found.latent(generator, "print", cameras.orbit(torch.zeros(2), 0.0))
    assert (latent.generator, latent.fingerprint, latent.method) == ("slices", "print", "roi")
    assert torch.equal(latent.composite.image, resize(found.image, 8))
    assert torch.equal(latent.composite.mask, torch.zeros(2, 1, 8, 8))
    assert latent.codes is found.codes
    share = found.alpha.mean((1, 2, 3)).tolist()
    assert latent.meta["region"] == [round(v, 4) for v in share]
    for good in ({"style_noise": 100.0}, {"structure_noise": 0.01}):
        Roi(**good).check(False)
    Roi().check(True)
    for wrong in ({"style_noise": -0.01}, {"structure_noise": 100.1}):
        with pytest.raises(OptionError):
            Roi(**wrong).check(True)
    with pytest.raises(OptionError, match="nothing to do to the hair"):
        Roi().check(False)
    assert pytest.approx([math.exp(-0.5), 1, math.exp(-0.5)]) == list(roi.SIGMA)


# --- texture ---------------------------------------------------------------------------------


class Textured(Painter):
    """Its style of colour is the second layer; a third makes it two."""

    def style(self, codes: dict[str, Tensor]) -> Tensor:
        return torch.stack([codes["ws"][:, 1, :5], 2 * codes["ws"][:, 1, 5:10]], 1)


def shown(labels: Tensor) -> Tensor:
    """Codes whose label map [N,4,4] that is."""
    ws = 0.5 * numbers(len(labels), 2, 304)
    logits = 5.0 * torch.nn.functional.one_hot(labels, 19).permute(0, 3, 1, 2)
    ws[:, 0] = logits.flatten(1)
    return ws


def haired(generator: Any, **options: Any) -> Latent:
    """Two faces with hair in the upper rows, of different height."""
    labels = torch.full((2, 4, 4), SKIN)
    labels[0, :1], labels[1, :2] = HAIR, HAIR
    return replace(faces(generator, **options), codes={"ws": shown(labels)})


def test_a_texture_is_the_donors_style_where_the_region_is() -> None:
    generator = Textured().requires_grad_(False)
    latent, donor = haired(generator, meta={"a": 1}), faces(generator, 1)
    latent.codes["ws"][0, 0].view(19, 4, 4)[HAIR, 3, 3] = 100  # a lock in the corner
    donor.codes["ws"].requires_grad_()
    told: list[tuple[int, int]] = []
    method = Texture("hair,nose", grow=12.5, soft=10.0)
    after = method(generator, latent, donor, progress=lambda *at: told.append(at))
    given = donor.codes["ws"]
    style = torch.stack([given[:, 1, :5], 2 * given[:, 1, 5:10]], 1)
    assert close(after.codes["style"], style[:, None].expand(2, 1, 2, 5))
    where = torch.zeros(2, 1, 19)
    where[..., [*REGIONS["hair"], *REGIONS["nose"]]] = 1
    assert torch.equal(after.codes["where"], where)
    assert torch.equal(after.codes["ws"], latent.codes["ws"])
    seen = resize(latent.codes["ws"][:, 0].view(2, 19, 4, 4), 8).argmax(1)
    mask = (seen == HAIR)[:, None].float()
    assert mask[0].sum() == 16 + 9 and mask[1].sum() == 32
    assert after.meta == {"a": 1, "region": [0.3906, 0.5], "composited": True}
    assert not after.codes["style"].requires_grad
    assert after.method == "hybrid+texture" and told == [(1, 1)]
    wide = torch.zeros_like(mask)
    wide[0, :, :3], wide[0, :, 4:, 4:], wide[1, :, :5] = 1, 1, 1
    assert close(after.composite.mask, losses.feather(wide, 0.8) * wide)
    assert torch.equal(after.composite.image, latents.picture(generator, latent).image)
    plain = replace(method, composite=False)(generator, latent, donor)
    assert plain.composite is None and not plain.meta["composited"]
    other = Texture("nose", composite=False)
    with pytest.raises(MaskError):
        other(generator, latent, donor)
    nosed = replace(latent, codes={"ws": latent.codes["ws"].clone()})
    nosed.codes["ws"][0, 0] = shown(torch.full((1, 4, 4), NOSE))[0, 0]
    with pytest.raises(MaskError):  # one of two faces
        other(generator, nosed, donor)


def test_textures_lie_above_each_other_and_one_a_face() -> None:
    generator = Textured().requires_grad_(False)
    latent, donors = haired(generator), faces(generator, 2)
    first = Texture("hair", composite=False)(generator, latent, donors)
    assert not torch.equal(first.codes["style"][0], first.codes["style"][1])
    second = Texture("skin", seed=3, composite=False)(generator, first)
    assert torch.equal(second.codes["style"][:, :1], first.codes["style"])
    assert torch.equal(second.codes["where"][:, :1], first.codes["where"])
    z = torch.randn(1, 4, generator=torch.Generator().manual_seed(3))
    ws = generator.mapping(z, latent.c[:1])["ws"]
    random = torch.stack([ws[:, 1, :5], 2 * ws[:, 1, 5:10]], 1)
    assert close(second.codes["style"][:, 1], random.expand(2, -1, -1))
    assert second.codes["where"][0, 1].nonzero()[:, 0].tolist() == sorted(REGIONS["skin"])


def test_the_old_background_goes_with_a_new_one() -> None:
    generator = Textured().requires_grad_(False)
    tuned = {"planes.background": torch.ones(2, 3), "planes.colours": torch.ones(2, 3, 8, 8)}
    latent = haired(generator, tuned=tuned)
    whole = Texture("hair")._tuned(latent)
    assert whole is tuned
    bare = Texture("background")._tuned(latent)
    assert not bare["planes.background"].any() and bare["planes.colours"].all()
    assert Texture("background")._tuned(replace(latent, tuned=None)) is None
    less = replace(latent, tuned={"planes.colours": tuned["planes.colours"]})
    assert Texture("background")._tuned(less) is less.tuned


def test_the_labels_of_a_texture() -> None:
    assert Texture("hair").labels == REGIONS["hair"]
    assert Texture(" nose , hair,nose").labels == (*REGIONS["nose"], *REGIONS["hair"])
    assert Texture("l_eye").labels == (LABELS.index("l_eye"),)
    defaults = Texture()
    assert (defaults.region, defaults.seed, defaults.composite) == ("hair", 0, True)
    assert (defaults.grow, defaults.soft) == (2.0, 1.0)
    for wrong, told in (
        ("", "no region is given"),
        (" , ", "no region is given"),
        ("hare", "hare"),
    ):
        with pytest.raises(OptionError, match=told):
            Texture(wrong)


# --- drawing ---------------------------------------------------------------------------------

BEST = (math.radians(20) + 0.05, -0.13, 0.0, math.log(cameras.ZOOM) + 0.1, 0.0, -0.011)


class Drawn(Painter):
    """Its labels are the clearer, the nearer the camera is to BEST."""

    def synthesis(self, codes: dict[str, Tensor], c: Tensor, noise: str = "const") -> Output:
        away = cameras.to_six(c) - torch.tensor(BEST)
        away[:, 4] = 0  # of the crop's middle, one entry says nothing
        clear = (-5 * away.square().sum(1)).exp()
        output = super().synthesis(codes, c, noise)
        return replace(output, seg=output.seg * clear.view(-1, 1, 1, 1))


def drawn_maps() -> Tensor:
    labels = torch.full((2, 8, 8), SKIN)
    labels[:, :2], labels[1, 4:6, 4:6] = HAIR, NOSE
    return labels


@pytest.mark.parametrize("encoder", [True, False])
def test_a_drawing_term_by_term(monkeypatch: pytest.MonkeyPatch, encoder: bool) -> None:
    descents = Descents()
    monkeypatch.setattr(drawing, "descend", descents)
    generator, labels = Drawn().requires_grad_(False), drawn_maps()
    if not encoder:
        generator.traits = frozenset({"camera", "seg", "texture"})
        logits = generator.encode(torch.zeros(1, 3, 8, 8), labels[:1], torch.zeros(1, 25))["ws"]
        generator.middle[:, 0] = logits[0, 0]
        labels = labels[:1].repeat(2, 1, 1)
    told: list[tuple[int, int]] = []
    method = Drawing(seed=2, truncation=0.5, steps=3, lr=0.3, label_weight=5.0, prior_weight=0.7)
    after = method(generator, labels, lambda *at: told.append(at))
    assert told == [(i + 1, 6) for i in range(6)]
    # From 20 degrees: yaw up by a step, then down by half of one; pitch down by a whole step;
    # zoom up by a step, then by half; the middle down by half of one.
    sight = cameras.to_six(cameras.aligned(math.radians(20)))[0]
    sight += torch.tensor([0.09 - 0.045, -0.12, 0, 0.06 + 0.03, 0, -0.01])
    c = cameras.from_six(sight[None])
    assert close(after.c, c.expand(2, -1), atol=1e-5)
    z = torch.randn(1, 4, generator=torch.Generator().manual_seed(2))
    texture = generator.mapping(z, c, 0.5)["ws"][:, 1]
    seen = generator.encode(torch.zeros(2, 3, 8, 8), labels, c.expand(2, -1))["ws"]
    ws = torch.stack([seen[:, 0], texture.expand(2, -1)], 1)
    assert close(after.codes["ws"], ws)
    scale = spread(generator, c)["ws"].clone()
    scale[:, 1:] = 0
    assert len(descents.calls) == 2
    clear = math.exp(
        -5
        * sum(
            (float(a) - b) ** 2 for i, (a, b) in enumerate(zip(sight, BEST, strict=True)) if i != 4
        )
    )
    for i, call in enumerate(descents.calls):
        assert (call["steps"], call["lr"]) == (3, 0.3)
        (leaf,) = descents.shaken(call)
        logits = (ws[i, 0] + scale[0, 0] * leaf[0, 0]).view(1, 19, 4, 4) * clear
        entropy = formulas.label_entropy(logits, labels[i : i + 1, ::2, ::2])
        expected = 5.0 * float(entropy) + 0.7 * float(leaf.square().mean())
        assert float(call["loss"]().detach()) == pytest.approx(expected, rel=1e-4)
    assert (after.method, after.generator) == ("drawing", "painter")
    assert after.fingerprint == latents.fingerprint(generator)
    assert len(after.meta["loss"]) == 2 and not after.codes["ws"].requires_grad


def test_a_drawings_texture_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def descend(leaves: Any, loss: Any, *given: Any, **options: Any) -> Any:
        for leaf in leaves:
            leaf.data += 1
        return SimpleNamespace(losses=loss().detach(), diverged=torch.zeros(1, dtype=torch.bool))

    generator, labels = Drawn().requires_grad_(False), drawn_maps()[:1]
    before = Drawing(steps=0, yaw_deg=0.0)(generator, labels).codes["ws"]
    monkeypatch.setattr(drawing, "descend", descend)
    after = Drawing(yaw_deg=0.0)(generator, labels).codes["ws"]
    scale = spread(generator, torch.zeros(1, 25))["ws"]
    assert torch.equal(after[:, 1], before[:, 1])
    assert close(after[:, 0], before[:, 0] + scale[:, 0])


def test_a_drawings_encoder_sees_labels_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    generator, labels = Drawn().requires_grad_(False), drawn_maps()[1:]
    seen: list[tuple[Tensor, ...]] = []
    encode = generator.encode

    def spy(*given: Tensor) -> dict[str, Tensor]:
        seen.append(given)
        return encode(*given)

    monkeypatch.setattr(generator, "encode", spy)
    after = Drawing(steps=0, yaw_deg=-10.0)(generator, labels)
    assert all(torch.equal(x, torch.zeros(1, 3, 8, 8)) for x, _, _ in seen)
    assert all(torch.equal(y, labels) for _, y, _ in seen)
    yaws = [float(cameras.to_six(c)[0, 0]) for _, _, c in seen]
    assert yaws[0] == pytest.approx(math.radians(-10), abs=1e-5)
    assert float(cameras.to_six(after.c)[0, 0]) == pytest.approx(
        math.radians(-10) + 0.135, abs=1e-4
    )
    seen.clear()
    Drawing(steps=0)(generator, labels)
    yaws = [math.degrees(float(cameras.to_six(c)[0, 0])) for _, _, c in seen[:11]]
    assert yaws == pytest.approx(list(range(-50, 60, 10)), abs=1e-3)
    assert drawing.MOVES == (0.09, 0.12, 0.05, 0.06, 0.02, 0.02)
    defaults = Drawing()
    assert (defaults.steps, defaults.lr, defaults.truncation, defaults.seed) == (40, 0.2, 1.0, 0)
    assert (defaults.label_weight, defaults.prior_weight) == (4.0, 0.01)


# --- canonical -------------------------------------------------------------------------------


class Deep(Painter):
    """With depth and opacity, which cameras change."""

    def render(self, planes: dict[str, Tensor], c: Tensor) -> Output:
        output = super().render(planes, c)
        seg = output.seg + c[:, 2].view(-1, 1, 1, 1) * planes["labels"].roll(1, 1)
        depth = 2.7 + c[:, :1].view(-1, 1, 1, 1) * torch.arange(16.0).view(1, 1, 4, 4) / 16
        return replace(output, seg=seg, depth=depth, opacity=depth / 4)


def sees(image: Tensor, labels: Tensor, c: Tensor) -> Tensor:
    """An encoder of which every argument counts: [N,2,304]."""
    n = len(image)
    found = torch.zeros(n, 2, 304)
    found[:, 0, :192] = (labels[:, None].float() * image).flatten(1)
    found[:, 1, :64], found[:, 1, 100:125] = labels.flatten(1).square().float(), c
    return found


def test_the_canonical_edit_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = Deep().requires_grad_(False)
    tuned = {"planes.colours": numbers(2, 3, 8, 8, seed=5)}
    latent = faces(generator, tuned=tuned, meta={"a": 1})
    labels = torch.full((2, 8, 8), SKIN)
    edited = labels.clone()
    edited[0, 2:6, 2:5], edited[1, 3:6, 4:8] = HAIR, NOSE
    carry: list[tuple[Any, ...]] = []
    fades: list[tuple[Any, ...]] = []

    def carried(*given: Any) -> Tensor:
        carry.append(given)
        return (given[-1] + 7) % 19

    def fade(*given: Any) -> Latent:
        fades.append(given)
        return given[1]

    monkeypatch.setattr(canonical, "carried", carried)
    monkeypatch.setattr(canonical, "fade_tuning", fade)
    asked: list[tuple[str, Any]] = []

    def found(name: str, of: Any) -> Any:
        asked.append((name, of))
        return sees

    monkeypatch.setattr(canonical, "canonical_encoder", found)
    told: list[tuple[int, int]] = []
    method = Canonical(strength=1.7, grow=12.5, soft=10.0, release=0.3)
    after = method(generator, latent, edited, labels, lambda *at: told.append(at))
    assert told == [(1, 1)] and asked == [("canonical-painter", generator)]
    front = cameras.canonical()
    r = (labels != edited).float()[:, None]
    for i, given in enumerate(carry):
        row = slice(i, i + 1)
        maps = {"labels": latent.codes["ws"][row, 0].view(1, 19, 4, 4)}
        maps["colours"] = (
            latent.codes["ws"][row, 1, :192].view(1, 3, 8, 8) + tuned["planes.colours"][row]
        )
        own, straight = (generator.render(maps, c) for c in (latent.c[row], front))
        before = resize(straight.seg, 8).argmax(1)
        depths = [own.depth, own.opacity, straight.depth, straight.opacity]
        parts = [*given[0], *given[1], *given[2:]]
        expected = [*depths, latent.c[row], front, edited[row], r[row], before]
        assert all(map(torch.equal, parts, expected)) and len(parts) == len(expected)
        first, second = (sees(straight.image, x, front) for x in ((before + 7) % 19, before))
        move = latent.codes["ws"][row] + 1.7 * (first - second)
        assert close(after.codes["ws"][row], move)
    ((of, face, wide, share),) = fades
    assert of is generator and face is latent and share == 0.3
    grown = losses.dilate(r, 1)
    assert torch.equal(wide, grown)
    assert after.method == "hybrid+canonical"
    region = [round(float(v), 4) for v in grown.mean((1, 2, 3))]
    assert after.meta == {"a": 1, "region": region, "composited": True}
    assert close(after.composite.mask, losses.feather(grown, 0.8) * grown)
    assert torch.equal(after.composite.image, latents.picture(generator, latent).image)
    assert replace(method, composite=False)(generator, latent, edited, labels).composite is None
    with pytest.raises(MaskError):  # one of two faces
        method(generator, latent, torch.cat([edited[:1], labels[1:]]), labels)
    defaults = Canonical()
    assert (defaults.strength, defaults.grow, defaults.soft) == (1.5, 2.0, 1.0)
    assert defaults.release == 1.0 and defaults.composite
    assert Canonical(encoder="mine").weights_of("g") == ("mine",)


def bilinear(values: np.ndarray, x: float, y: float) -> float:
    """At (x, y) in pixels, 0 outside."""
    total = 0.0
    for row in (math.floor(y), math.floor(y) + 1):
        for column in (math.floor(x), math.floor(x) + 1):
            if 0 <= row < values.shape[0] and 0 <= column < values.shape[1]:
                weight = (1 - abs(y - row)) * (1 - abs(x - column))
                total += weight * values[row, column]
    return total


@pytest.mark.parametrize("seed", range(4))
def test_a_drawing_is_carried_pixel_by_pixel(seed: int) -> None:
    size, small = 12, 6
    random = np.random.default_rng(seed)
    # The middle of the head in one view is where the other sees it, but for these differences.
    own = [2.7 + random.normal(0, 0.12, (small, small)), random.uniform(0.2, 1, (small, small))]
    front_depth = 2.7 + random.normal(0, 0.03, (size, size))
    front_solid = random.uniform(0.2, 1, (size, size))
    c = cameras.orbit(0.25, -0.1, 0.2, 4.0, 0.45, 0.55)
    front = cameras.aligned(-0.1, 0.15)
    edited = torch.from_numpy(random.integers(0, 19, (1, size, size)))
    r = torch.from_numpy((random.uniform(size=(1, 1, size, size)) < 0.6).astype(np.float32))
    labels = torch.from_numpy(random.integers(0, 19, (1, size, size)))

    def given(x: np.ndarray) -> Tensor:
        return torch.from_numpy(x).float()[None, None]

    found = canonical.carried(
        (given(own[0]), given(own[1])), (given(front_depth), given(front_solid)), c, front,
        edited, r, labels,
    )  # fmt: skip
    expected = labels[0].numpy().copy()
    world, k = (x[0].double().numpy() for x in cameras.split(front))
    to, lens = (x[0].double().numpy() for x in cameras.split(c))
    why = {"drawn": 0, "hidden": 0, "air": 0}
    for row in range(size):
        for column in range(size):
            u, v = (column + 0.5) / size, (row + 0.5) / size
            ray = world[:3, :3] @ np.array([(u - k[0, 2]) / k[0, 0], (v - k[1, 2]) / k[1, 1], 1])
            solid = front_solid[row, column] > 0.5
            # Without a surface: on the plane through the head's middle that faces the camera.
            far = front_depth[row, column] / np.linalg.norm(ray) if solid else cameras.RADIUS
            point = world[:3, 3] + far * ray
            local = to[:3, :3].T @ (point - to[:3, 3])
            x, y = (lens @ local)[:2] / local[2] * size - 0.5
            nearest_row, nearest_column = round(y), round(x)
            if not (0 <= nearest_row < size and 0 <= nearest_column < size):
                continue
            low = ((x + 0.5) * small / size - 0.5, (y + 0.5) * small / size - 0.5)
            depth, stopped = (bilinear(one, *low) for one in own)
            behind = np.linalg.norm(point - to[:3, 3]) >= depth + 0.08
            hidden = solid and stopped > 0.5 and behind
            why["hidden"] += hidden
            why["air"] += not solid
            if r[0, 0, nearest_row, nearest_column] > 0 and not hidden:
                expected[row, column] = edited[0, nearest_row, nearest_column]
                why["drawn"] += 1
    assert min(why.values()) > 3
    assert (found[0].numpy() != expected).sum() == 0


def test_whose_canonical_encoder_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    generator = SimpleNamespace(name="painter", encoder="own", parameters=Painter().parameters)
    facts: dict[str, str] = {}
    loaded: list[tuple[Any, ...]] = []
    monkeypatch.setattr(canonical.weights, "resolve", lambda name: tmp_path / name)
    monkeypatch.setattr(canonical.weights, "metadata", lambda path: facts)
    monkeypatch.setattr(canonical, "fingerprint", lambda one: f"print of {one}")
    monkeypatch.setattr(canonical, "load_encoder", lambda *given: loaded.append(given) or "made")

    def ask() -> Any:
        canonical._load.cache_clear()
        return canonical.canonical_encoder("file", generator)

    assert ask() == "made" and loaded[-1] == (str(tmp_path / "file"), "cpu")
    facts |= {"generator": "painter", "rest": "print of own"}
    assert ask() == "made" and loaded[-1] == (str(tmp_path / "file"), "cpu", "own")
    facts["rest"] = "another"
    with pytest.raises(WeightsError):
        ask()
    facts["rest"] = "print of None"
    del generator.encoder
    with pytest.raises(WeightsError):
        ask()
    facts["generator"] = "other"
    with pytest.raises(LatentError):
        ask()
