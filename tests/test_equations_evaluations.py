"""`eval heads` and `eval attributes`: figures worked out by hand from pictures that are wrong in
known ways, so that every figure has an error to show."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from formulas import close
from tiny import Painter
from torch import Tensor, nn

from semedit import cameras
from semedit.directions.directions import Directions
from semedit.editors.parts.attribute_regions import attribute_region
from semedit.errors import MaskError, OptionError
from semedit.evaluations import attributes
from semedit.evaluations import heads as evaluation
from semedit.evaluations.attributes import (
    STRENGTHS,
    Case,
    Comparison,
    Gauge,
    HeadEmbedding,
    Inversions,
)
from semedit.evaluations.heads import HeadAtSize, HeadsEvaluation, at_resolution
from semedit.faces import networks
from semedit.faces.align import square_quad
from semedit.faces.landmarks import VIEW_DOWN, VIEW_SIDE
from semedit.faces.networks import FaceOutput
from semedit.heads.truth import Truth
from semedit.latents import Composite, Latent
from semedit.media.labels import ATTRIBUTES, REGIONS
from semedit.media.pixels import to_tensor

SKIN, HAIR, MOUTH = (REGIONS[name][0] for name in ("skin", "hair", "mouth"))


def colour_labels(images: Tensor) -> Tensor:
    """int64 [N,R,R]: hair where red is above green, a mouth where blue is very strong, skin."""
    labels = torch.where(images[:, 0] > images[:, 1], HAIR, SKIN)
    return torch.where(images[:, 2] > 0.8, MOUTH, labels)


class ColourParser:
    """Sees colours, so that a wrong picture has wrong labels."""

    def __call__(self, images: Tensor) -> Tensor:
        assert images.abs().max() <= 1
        return F.one_hot(colour_labels(images), 19).permute(0, 3, 1, 2).float()


def colour_logits(images: Tensor) -> Tensor:
    """Logits [N,A] that follow the mean colour."""
    mix = torch.randn(len(ATTRIBUTES), 3, generator=torch.Generator().manual_seed(3))
    return images.mean((2, 3)) @ mix.T


@pytest.fixture(autouse=True)
def networks_of_tests(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(evaluation, "BuiltinParser", ColourParser)
    monkeypatch.setattr(evaluation, "judge", lambda _: ColourParser())
    monkeypatch.setattr(evaluation, "Judge", lambda: colour_logits)
    monkeypatch.setattr(evaluation, "traits", colour_logits)
    yield


def heads(n: int = 3) -> list[Truth]:
    """Noise of 8 x 8 pixels; hair above, a mouth below; edits move both."""
    rng = np.random.default_rng(0)

    def shot() -> np.ndarray:
        return rng.integers(0, 256, (8, 8, 3)).astype(np.uint8)

    labels = np.full((8, 8), SKIN, np.uint8)
    labels[:3], labels[5:7, 2:6] = HAIR, MOUTH
    longer, smile = labels.copy(), labels.copy()
    longer[3:5, :5] = HAIR
    smile[5:7, 2:6] = SKIN
    c = cameras.orbit(torch.linspace(-0.4, 0.5, 3 * n), torch.zeros(3 * n)).numpy()
    return [
        Truth(
            seed=1_000_000 + i,
            image=shot(),
            labels=labels,
            landmarks=rng.uniform(1, 7, (68, 2)).astype(np.float32),
            c=c[3 * i],
            attributes=rng.random(len(ATTRIBUTES)) < 0.5,
            views=((c[3 * i + 1], shot()), (c[3 * i + 2], shot())),
            edits={"hair_length": (shot(), longer), "smile": (shot(), smile)},
        )
        for i in range(n)
    ]


@pytest.fixture
def generator() -> Painter:
    return Painter().requires_grad_(False)


def latent_of(seed: int, c: Tensor) -> Latent:
    ws = 0.7 * torch.randn(1, 2, 304, generator=torch.Generator().manual_seed(seed))
    return Latent({"ws": ws}, c, "painter", "", "x")


def scaled(n: int = 3) -> tuple[list[HeadAtSize], list[Latent]]:
    found = [at_resolution(truth, 8) for truth in heads(n)]
    return found, [latent_of(i, head.c) for i, head in enumerate(found)]


def drawn(latent: Latent, c: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """What Painter draws of a latent: picture and labels [1,8,8]."""
    c = latent.c if c is None else c
    image = latent.codes["ws"][:, 1, :192].view(1, 3, 8, 8) + 0.5 * c[0, 2]
    seg = latent.codes["ws"][:, 0].view(1, 19, 4, 4)
    return image, F.interpolate(seg, size=8, mode="bilinear").argmax(1)


def decibels(image: Tensor, target: Tensor) -> float:
    away = image.clamp(-1, 1) - target
    return float(10 * torch.log10(4 / away.double().square().mean()))


def change(a: Tensor, b: Tensor, mask: Tensor) -> float:
    away = (a.clamp(-1, 1) - b.clamp(-1, 1)).abs().mean(1) / 2
    return float(away[mask.bool()].mean())


# --- eval heads ------------------------------------------------------------------------------


def test_heads_at_a_resolution() -> None:
    truth = heads(1)[0]
    head = at_resolution(truth, 4)
    assert head.labels.dtype == torch.int64
    assert torch.equal(head.labels[0], torch.from_numpy(truth.labels[1::2, 1::2].astype(np.int64)))
    assert head.image.shape == (1, 3, 4, 4) and head.truth is truth
    whole = at_resolution(truth, 8)
    assert close(whole.image, to_tensor(truth.image))
    assert torch.equal(whole.labels[0], torch.from_numpy(truth.labels.astype(np.int64)))
    assert torch.equal(whole.c[0], torch.from_numpy(truth.c))
    for (c, image), (own, pixels) in zip(whole.views, truth.views, strict=True):
        assert torch.equal(c[0], torch.from_numpy(own)) and close(image, to_tensor(pixels))
    image, labels = whole.edits["smile"]
    assert close(image, to_tensor(truth.edits["smile"][0]))
    assert torch.equal(labels[0], torch.from_numpy(truth.edits["smile"][1].astype(np.int64)))


def test_figures_of_inversion(generator: Painter) -> None:
    found, latents = scaled()
    off = cameras.from_six(torch.tensor([[0.2, -0.1, 0.05, 0.1, 0.02, 0.0]]))
    latents = [replace(one, c=cameras.carried(one.c, one.c, off)) for one in latents]
    figures = evaluation.inversion_figures(generator, found, latents)
    own, right, novel, turned = [], [], [], []
    for head, latent in zip(found, latents, strict=True):
        image, _ = drawn(latent)
        own.append(decibels(image, head.image))
        seg = F.interpolate(
            latent.codes["ws"][:, 0].view(1, 19, 4, 4), size=8, mode="bilinear", antialias=True
        )
        right.append(float((seg.argmax(1) == head.labels).float().mean()))
        novel += [decibels(drawn(latent, c)[0], view) for c, view in head.views]
        there = [(cameras.carried(c, head.c, latent.c), view) for c, view in head.views]
        turned += [decibels(drawn(latent, c)[0], view) for c, view in there]
    assert figures["inversion_psnr_db"] == pytest.approx(np.mean(own), rel=1e-4)
    assert figures["inversion_label_accuracy"] == pytest.approx(np.mean(right), abs=0.02)
    assert figures["novel_view_psnr_db"] == pytest.approx(np.mean(novel), rel=1e-4)
    assert figures["turned_view_psnr_db"] == pytest.approx(np.mean(turned), rel=1e-4)
    assert abs(np.mean(turned) - np.mean(novel)) > 1e-3


def moved_by(face: Latent, seed: int, size: float = 0.5) -> Latent:
    return replace(
        face, codes={"ws": face.codes["ws"] + size * latent_of(seed, face.c).codes["ws"]}
    )


def test_figures_of_mask_edits(generator: Painter) -> None:
    """Each head's two edits by an editor that does something else."""
    found, latents = scaled()
    asked: list[tuple[Tensor, Tensor]] = []
    told: list[tuple[str, int, int]] = []

    def editor(_: Any, face: Latent, edited: Tensor, labels: Tensor) -> Latent:
        asked.append((edited, labels))
        if len(asked) == 2:
            raise MaskError("lost")
        return moved_by(face, 50 + len(asked))

    figures = evaluation.mask_figures(
        generator, found, latents, editor, 2, lambda *at: told.append(at)
    )
    iou, psnr, outside = [], [], []
    order = [(0, "hair_length"), (0, "smile"), (1, "smile"), (1, "hair_length"),
             (2, "hair_length"), (2, "smile")]  # fmt: skip
    for k, (i, kind) in enumerate(order, 1):
        head, (image, labels) = found[i], found[i].edits[kind]
        assert torch.equal(asked[k - 1][0], labels) and torch.equal(asked[k - 1][1], head.labels)
        if k == 2:
            continue
        shown, before = drawn(moved_by(latents[i], 50 + k))[0], drawn(latents[i])[0]
        seen = colour_labels(shown.clamp(-1, 1))
        names = (HAIR,) if kind == "hair_length" else (*REGIONS["mouth"], *REGIONS["lips"])
        a, b = (torch.isin(x, torch.tensor(names)) for x in (seen, labels))
        changed = head.labels != labels  # dilated by 2 % of 8 pixels: not at all
        if b.any():
            iou.append(float((a & b).sum() / (a | b).sum()))
        else:  # taken away: how much of the drawn region is free of it
            iou.append(1 - float((a & changed).sum() / changed.sum()))
        psnr.append(decibels(shown, image))
        outside.append(change(shown, before, ~changed))
    assert figures["mask_edit_iou"] == pytest.approx(np.mean(iou), abs=1e-5)
    assert 0.05 < figures["mask_edit_iou"] < 0.95
    assert figures["mask_edit_psnr_db"] == pytest.approx(np.mean(psnr), rel=1e-4)
    assert figures["mask_edit_outside_change"] == pytest.approx(np.mean(outside), rel=1e-4)
    assert told[-1] == ("masks", 6, 6)


def test_drawn_regions_are_widened(generator: Painter, monkeypatch: pytest.MonkeyPatch) -> None:
    found, latents = scaled(1)
    asked: list[int] = []
    monkeypatch.setattr(evaluation, "dilate", lambda mask, px: asked.append(px) or mask)
    generator.resolution = 150

    def editor(*given: Any) -> Latent:
        return moved_by(latents[0], 9)

    evaluation.mask_figures(generator, found, latents, editor, 1, lambda *at: None)
    assert asked == [3]


def test_which_edits_are_tried() -> None:
    found, _ = scaled()
    plain = replace(found[1], edits={"smile": (found[1].image, found[1].labels)})
    kinds = list(evaluation.mask_edits([found[0], plain, found[2]], 1))
    assert kinds == [(0, "hair_length"), (2, "hair_length")]
    assert list(evaluation.mask_edits(found, 1)) == [
        (0, "hair_length"), (1, "smile"), (2, "hair_length"),
    ]  # fmt: skip
    assert len(list(evaluation.mask_edits(found, 9))) == 6


def test_figures_of_attribute_edits(generator: Painter) -> None:
    found, latents = scaled(8)
    asked: list[dict[str, bool]] = []
    told: list[tuple[str, int, int]] = []

    def editor(_: Any, face: Latent, wanted: dict[str, bool], labels: Tensor) -> Latent:
        asked.append(wanted)
        return moved_by(face, 70 + len(asked))

    figures = evaluation.attribute_figures(
        generator, found, latents, editor, lambda *at: told.append(at)
    )
    success, outside = [], []
    for i, (head, wanted) in enumerate(zip(found, asked, strict=True)):
        assert wanted == evaluation.flip(head.truth)
        ((name, yes),) = wanted.items()
        shown, before = drawn(moved_by(latents[i], 71 + i))[0], drawn(latents[i])[0]
        logit = float(colour_logits(shown.clamp(-1, 1))[0, ATTRIBUTES.index(name)])
        success.append((logit > 0) == yes)
        rest = 1 - attribute_region(head.labels, [name])
        outside.append(change(shown, before, rest[:, 0]))
    assert 0 < sum(success) < 8
    assert figures["attr_success"] == sum(success) / 8
    assert figures["attr_outside_change"] == pytest.approx(np.mean(outside), rel=1e-4)
    assert told[-1] == ("attributes", 8, 8)


def test_what_is_flipped() -> None:
    truth = heads(1)[0]
    names, chosen = set(), set()
    for seed in range(60):
        for bald in (False, True):
            bits = np.zeros(len(ATTRIBUTES), bool)
            bits[[ATTRIBUTES.index(n) for n in ("smiling", "gray_hair")]] = True
            bits[ATTRIBUTES.index("bald")] = bald
            ((name, yes),) = evaluation.flip(replace(truth, seed=seed, attributes=bits)).items()
            assert yes == (name != "smiling") and name != "gray_hair"
            assert not (bald and name in evaluation.COLOURS)
            (chosen if bald else names).add(name)
            bits[ATTRIBUTES.index("bald")] = False
            bits[ATTRIBUTES.index("wearing_hat")] = True
            (hat,) = evaluation.flip(replace(truth, seed=seed, attributes=bits))
            assert hat not in evaluation.COLOURS
    assert names == {*evaluation.FLIPS, *evaluation.COLOURS} - {"gray_hair"}
    assert chosen == set(evaluation.FLIPS)


def test_figures_of_the_face_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    truths = heads(4)
    squares: list[np.ndarray] = []

    def six(images: Tensor) -> Tensor:
        return cameras.to_six(cameras.orbit(0.3 * images.mean((1, 2, 3)), 0.1 * images[:, 0, 0, 0]))

    def landmarks(photo: np.ndarray, views: list[np.ndarray]) -> Any:
        squares.extend(views)
        return SimpleNamespace(points=np.full((1, 68, 2), photo.mean() / 40, np.float32))

    monkeypatch.setattr(evaluation, "six", six)
    monkeypatch.setattr(evaluation, "BuiltinLandmarks", lambda: landmarks)
    told: list[tuple[str, int, int]] = []
    figures = evaluation.face_figures(truths, lambda *at: told.append(at))
    assert told[-1] == ("faces", 4, 4)
    counts, pose, points, hits = np.zeros((19, 19)), [], [], []
    for i, truth in enumerate(truths):
        image = to_tensor(truth.image)
        for a, b in zip(
            truth.labels.flatten(), colour_labels(image).flatten().tolist(), strict=True
        ):
            counts[a, b] += 1
        seen = cameras.angles(evaluation.camera(six(image)))[0]
        true = cameras.angles(torch.from_numpy(truth.c)[None])[0]
        pose.append(float((seen - true).abs().mean().rad2deg()))
        eyes = np.linalg.norm(truth.landmarks[45] - truth.landmarks[36])
        away = np.linalg.norm(truth.landmarks - truth.image.mean() / 40, axis=1)
        points.append(away.mean() / eyes)
        hits.append(colour_logits(image)[0].numpy() > 0)
        x, y, scale = np.random.default_rng([truth.seed, 7]).uniform(-1, 1, 3)
        centre = np.array([8 * 0.5 + 8 * 0.08 * x, 8 * (0.5 + VIEW_DOWN) + 8 * 0.08 * y])
        assert np.allclose(squares[i], square_quad(centre, VIEW_SIDE * 8 * (1 + 0.12 * scale)))
    present = [k for k in range(19) if counts[k].sum()]
    iou = [counts[k, k] / (counts[k].sum() + counts[:, k].sum() - counts[k, k]) for k in present]
    assert figures["parse_miou"] == pytest.approx(np.mean(iou))
    assert figures["pose_mae_deg"] == pytest.approx(np.mean(pose), rel=1e-3)
    assert figures["landmark_nme"] == pytest.approx(np.mean(points), rel=1e-4)
    rates = []
    for a in range(len(ATTRIBUTES)):
        true, found = (np.array([r[a] for r in rows]) for rows in (
            [t.attributes for t in truths], hits))  # fmt: skip
        if true.any() and not true.all():
            rates.append((found[true].mean() + (~found)[~true].mean()) / 2)
    assert figures["attribute_balanced_accuracy"] == pytest.approx(np.mean(rates), rel=1e-4)


def test_what_inverters_are_given(generator: Painter, monkeypatch: pytest.MonkeyPatch) -> None:
    """True camera and labels, or what networks see; faces in batches."""
    truths, given = heads(3), []

    def inverter(_: Any, images: Tensor, labels: Tensor, c: Tensor) -> Latent:
        given.append((images, labels, c))
        return Latent({"ws": torch.zeros(len(c), 2, 304)}, c, "painter", "", "x")

    told: list[tuple[str, int, int]] = []
    method = HeadsEvaluation(("inversion",), "truth", batch=2, inverter=inverter)
    figures = method(truths, generator, lambda *at: told.append(at))
    assert [len(images) for images, _, _ in given] == [2, 1]
    images, labels, c = (torch.cat(column) for column in zip(*given, strict=True))
    for i, truth in enumerate(truths):
        assert close(images[i : i + 1], to_tensor(truth.image))
        assert torch.equal(labels[i], torch.from_numpy(truth.labels.astype(np.int64)))
        assert torch.equal(c[i], torch.from_numpy(truth.c))
    assert told == [("inversion", 2, 3), ("inversion", 3, 3)]
    assert 0 <= figures["inversion_seconds"] < 5
    assert figures["inversion_psnr_db"] == round(figures["inversion_psnr_db"], 4)
    given.clear()

    def describe(images: Tensor) -> FaceOutput:
        views = cameras.orbit(images.mean((1, 2, 3)), torch.zeros(len(images)))
        return FaceOutput(ColourParser()(images), cameras.to_six(views))

    monkeypatch.setattr(networks, "describe", describe)
    assert HeadsEvaluation().inputs == "estimates"  # what users have
    replace(method, inputs="estimates")(truths, generator)
    _, seen, views = given[0]
    assert torch.equal(seen, colour_labels(images[:2]))
    assert close(cameras.angles(views)[:, 0], images[:2].mean((1, 2, 3)), atol=1e-3)
    for wrong, who in ((("teeth",), truths), (("masks",), [])):
        with pytest.raises(OptionError):
            replace(method, parts=wrong)(who, generator)


def test_parts_get_what_they_are_of(generator: Painter, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, tuple[Any, ...]] = {}

    def inverter(_: Any, images: Tensor, labels: Tensor, c: Tensor) -> Latent:
        return Latent({"ws": images.mean() + torch.zeros(len(c), 2, 304)}, c, "painter", "", "x")

    for name in ("mask_figures", "attribute_figures", "inversion_figures"):
        monkeypatch.setattr(
            evaluation, name, lambda *args, name=name: given.update({name: args}) or {name: 0.12344}
        )
    mask, fast = object(), object()
    method = HeadsEvaluation(
        ("masks", "attributes"),
        "truth",
        edits=3,
        inverter=inverter,
        mask_editor=mask,
        attribute_editor=fast,
    )
    figures = method(heads(2), generator, tell := (lambda *at: None))
    assert figures == {"mask_figures": 0.1234, "attribute_figures": 0.1234}
    first, found, faces, editor, edits, told = given["mask_figures"]
    assert first is generator and editor is mask and edits == 3 and told is tell
    assert [h.truth.seed for h in found] == [1_000_000, 1_000_001] and len(faces) == 2
    assert torch.equal(faces[1].c, found[1].c)
    assert given["attribute_figures"] == (generator, found, faces, fast, tell)


def test_an_inversions_seconds_are_per_head(
    generator: Painter, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([10.0, 16.0])
    monkeypatch.setattr(evaluation.time, "perf_counter", lambda: next(clock))

    def inverter(_: Any, images: Tensor, labels: Tensor, c: Tensor) -> Latent:
        return Latent({"ws": torch.zeros(len(c), 2, 304)}, c, "painter", "", "x")

    method = HeadsEvaluation(("inversion",), inverter=inverter)
    assert method(heads(3), generator)["inversion_seconds"] == 2.0
    assert HeadsEvaluation().batch == 4 and HeadsEvaluation().edits == 1


# --- eval attributes -------------------------------------------------------------------------


class Body(nn.Module):
    """The judge's: colours, squared too."""

    size = 8

    def body(self, images: Tensor) -> Tensor:
        return torch.cat([images, images**2], 1)


def features(pixels: np.ndarray) -> np.ndarray:
    x = to_tensor(pixels)[0].double().numpy()
    both = np.concatenate([x, x**2])
    return both.reshape(6, 2, 4, 2, 4).mean((2, 4)).flatten()


def test_the_embedding_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "load", lambda name, device="cpu": Body())
    truths = heads(4)
    embed = HeadEmbedding(truths, components=9)
    sets = [
        np.stack([features(p) for p in (t.image, *(v for _, v in t.views),
                                        *(e for e, _ in t.edits.values()))])
        for t in truths
    ]  # fmt: skip
    every = np.concatenate(sets)
    mean = every.mean(0)
    axes = np.linalg.svd(every - mean, full_matrices=False)[2][:9]
    within = np.concatenate([(f - f.mean(0)) @ axes.T for f in sets])
    scatter = within.T @ within / len(within)
    values, vectors = np.linalg.eigh(scatter)
    whiten = vectors @ np.diag((values + 0.1 * values.mean()) ** -0.5) @ vectors.T
    e = (features(truths[1].image) - mean) @ axes.T @ whiten
    found = embed(to_tensor(truths[1].image))[0].double().numpy()
    # Axes are known up to their signs, which no cosine sees.
    other = (features(truths[2].image) - mean) @ axes.T @ whiten
    theirs = embed(to_tensor(truths[2].image))[0].double().numpy()
    cosine = e @ other / np.linalg.norm(e) / np.linalg.norm(other)
    assert found @ theirs == pytest.approx(cosine, abs=1e-3)
    assert np.linalg.norm(found) == pytest.approx(1, abs=1e-4)


def test_calibration_by_hand() -> None:
    class Embed:
        name = "plain"

        def __call__(self, images: Tensor) -> Tensor:
            return F.normalize(images.mean((2, 3)) + 0.2, dim=1)

    truths = heads(3)
    figures = attributes.calibration(Embed(), truths)
    same, firsts = [], []
    for t in truths:
        e = Embed()(torch.cat([to_tensor(p) for p in (
            t.image, t.views[0][1], t.views[1][1], *(x for x, _ in t.edits.values())
        )]))  # fmt: skip
        same += (e[1:] @ e[0]).tolist()
        firsts.append(e[0])
    other = [float(firsts[i] @ firsts[k]) for i in range(3) for k in range(3) if i != k]
    assert figures["embedding"] == "plain"
    assert figures["identity_same"] == pytest.approx(np.mean(same), rel=1e-4)
    assert figures["identity_other"] == pytest.approx(np.mean(other), rel=1e-4)


def plain_embed(images: Tensor) -> Tensor:
    return F.normalize(images.flatten(1), dim=1)


def test_the_gauge_by_hand() -> None:
    found, latents = scaled(2)
    gauge = Gauge(plain_embed, colour_logits)
    for head, latent in zip(found, latents, strict=True):
        image = drawn(latent)[0].clamp(-1, 1)
        for name in ("smiling", "young", "blond_hair"):
            told = gauge(Case(head, name), image)
            logit = float(colour_logits(image)[0, ATTRIBUTES.index(name)])
            assert told["success"] == float(logit > 0)
            rest = 1 - attribute_region(head.labels, [name])
            expected = change(image, head.image, rest[:, 0]) if rest.any() else 0.0
            assert told["outside"] == pytest.approx(expected, rel=1e-4)
            cosine = F.cosine_similarity(image.flatten(), head.image.flatten(), dim=0)
            assert told["identity"] == pytest.approx(float(cosine), abs=1e-5)
    assert Case(found[0], "young").wanted == {"young": True}


def test_moves_and_inversions(generator: Painter, monkeypatch: pytest.MonkeyPatch) -> None:
    (head, *_), (latent, *_) = scaled(1)
    unit = {"ws": torch.randn(2, 304, generator=torch.Generator().manual_seed(0))}
    found = Directions({"young": unit}, "painter", "", {"young": {"deviation": 0.5}})
    after = attributes.moved(latent, found, "young", 1.5)
    assert close(after.codes["ws"], latent.codes["ws"] + 0.75 * unit["ws"])
    box = Composite(torch.ones(1, 3, 8, 8), torch.zeros(1, 1, 8, 8))
    assert close(
        attributes.shown(generator, replace(latent, composite=box)), torch.ones(1, 3, 8, 8)
    )
    assert close(attributes.shown(generator, latent), drawn(latent)[0].clamp(-1, 1))
    made: list[tuple[str, dict[str, Any]]] = []

    def inverter(name: str) -> Any:
        def make(**options: Any) -> Any:
            def call(*given: Any) -> Latent:
                assert given[0] is generator and given[1:] == (head.image, head.labels, head.c)
                made.append((name, options))
                return latent

            return call

        return make

    monkeypatch.setattr(attributes, "Optimize", inverter("optimize"))
    monkeypatch.setattr(attributes, "Hybrid", inverter("hybrid"))
    invert = Inversions(generator, 17)
    assert invert(head, "w") is invert(head, "w") is latent and invert(head, "w+") is latent
    assert made == [("optimize", {"space": "w", "steps": 17}), ("hybrid", {})]
    assert torch.equal(invert(head, "mean").codes["ws"], generator.middle)
    generator.traits = frozenset()
    Inversions(generator, 5)(head, "w+")
    assert made[-1] == ("optimize", {"space": "w+", "steps": 5})


def test_equal_success_by_hand() -> None:
    steps = list(STRENGTHS)
    assert steps == sorted(steps) and steps[0] == 0
    curve = [0.1 * i for i in range(len(steps))]
    for success in (0.05, 0.33, 0.71):
        i = int(success * 10)
        expected = steps[i] + (success * 10 - i) * (steps[i + 1] - steps[i])
        found, reached = attributes.equal_strength(curve, success)
        assert reached and found == pytest.approx(expected)
    assert attributes.equal_strength(curve, 0.0) == (0.0, True)
    assert attributes.equal_strength([*curve[:-2], 0.2, 0.1], 0.95) == (
        steps[len(steps) - 3], False,
    )  # fmt: skip


def test_the_summary_by_hand() -> None:
    found, _ = scaled(3)
    cases = [Case(found[0], "young"), Case(found[1], "smiling"), Case(found[2], "young")]
    rng = np.random.default_rng(1)
    keys, k = ("success", "outside", "identity"), len(STRENGTHS)
    pernus = [{key: float(rng.random() if key != "success" else i % 2) for key in keys}
              for i in range(3)]  # fmt: skip
    moves = [{"success": np.linspace(0, 1, k).tolist(), "outside": rng.random(k).tolist(),
              "identity": rng.random(k).tolist()} for _ in cases]  # fmt: skip
    figures = attributes.summary({"pernus": pernus, "interfacegan": moves}, cases)
    assert figures["cases"] == 3 and figures["strengths"] == list(STRENGTHS)
    for key in keys:
        assert figures[f"pernus_{key}"] == pytest.approx(
            np.mean([r[key] for r in pernus]), abs=1e-4
        )
        curve = np.mean([r[key] for r in moves], 0)
        assert figures["curves"]["interfacegan"][key] == pytest.approx(curve, abs=1e-4)
    strength, _ = attributes.equal_strength(np.linspace(0, 1, k).tolist(), 1 / 3)
    assert figures["interfacegan_strength"] == pytest.approx(strength, abs=1e-3)
    assert figures["interfacegan_reached"] == 1.0 and "pernus" not in figures["curves"]
    curve = np.mean([r["outside"] for r in moves], 0)
    assert figures["interfacegan_outside"] == pytest.approx(
        np.interp(strength, STRENGTHS, curve), abs=1e-3
    )
    young = figures["attributes"]["young"]
    assert young["cases"] == 2 and young["pernus"]["success"] == 0.0
    assert young["interfacegan"]["strength"] == 0.0
    smile = figures["attributes"]["smiling"]
    assert smile["interfacegan"]["strength"] == STRENGTHS[-1]
    assert smile["interfacegan"]["identity"] == pytest.approx(moves[1]["identity"][-1], abs=1e-4)


def test_who_compares_what(generator: Painter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each method starts from its own inversion, and is measured against the head."""
    truths = []
    for i, t in enumerate(heads(3)):
        bits = np.ones(len(ATTRIBUTES), bool)
        bits[[ATTRIBUTES.index(n) for n in ("young", "blond_hair", "bald", "wearing_hat")]] = False
        bits[ATTRIBUTES.index("bald")] = i == 2  # who is bald gets no hair colour
        truths.append(replace(t, attributes=bits))
    judge = colour_logits
    monkeypatch.setattr(attributes, "Judge", lambda device: judge)
    monkeypatch.setattr(attributes, "load_classifier", lambda name, device: colour_logits)
    monkeypatch.setattr(
        attributes, "Inversions", lambda g, steps: lambda head, space: latent_of(
            {"w": 1, "w+": 2, "mean": 3}[space] * 10 + head.truth.seed % 10, head.c)
    )  # fmt: skip
    calls: list[Any] = []

    class Edit:
        start, classifier = "mean", "auto"

        def __call__(
            self, _: Any, start: Latent, wanted: Any, labels: Tensor, image: Tensor
        ) -> Any:
            calls.append((start, wanted, labels, image))
            return moved_by(start, 5)

    told: list[str] = []
    method = Comparison(("blond_hair", "young"), pernus=Edit(), spaces=("w", "w+"), samples=40)
    figures = method(truths, generator, plain_embed, lambda part, *at: told.append(part))
    assert [list(wanted) for _, wanted, _, _ in calls] == [
        ["blond_hair"], ["young"], ["young"], ["blond_hair"], ["young"],
    ]  # fmt: skip
    found = [at_resolution(t, 8) for t in truths]
    gauge = Gauge(plain_embed, judge)
    cases = [Case(found[i], name) for i, name in (
        (0, "blond_hair"), (0, "young"), (1, "young"), (1, "blond_hair"), (2, "young")
    )]  # fmt: skip
    starts = {key: [latent_of(n * 10 + c.head.truth.seed % 10, c.head.c) for c in cases]
              for key, n in (("interfacegan", 1), ("interfacegan_wplus", 2), ("pernus", 3))
              }  # fmt: skip
    rows = {"pernus": [gauge(case, attributes.shown(generator, moved_by(start, 5)))
                       for case, start in zip(cases, starts["pernus"], strict=True)]}  # fmt: skip
    for case, (start, _, labels, image) in zip(cases, calls, strict=True):
        assert torch.equal(labels, case.head.labels) and close(image, case.head.image)
        assert torch.equal(start.c, case.head.c)
    codes, scores = attributes.sample(generator, 40, 0, classify=colour_logits)
    fitted = attributes.fit_boundaries(generator, codes, scores, ["blond_hair", "young"])
    for key in ("interfacegan", "interfacegan_wplus"):
        rows[key] = []
        for case, start in zip(cases, starts[key], strict=True):
            steps = []
            for s in STRENGTHS:
                ws = start.codes["ws"] + s * fitted.move(case.name)["ws"]
                steps.append(gauge(case, drawn(replace(start, codes={"ws": ws}))[0].clamp(-1, 1)))
            rows[key].append(
                {k: [one[k] for one in steps] for k in ("success", "outside", "identity")}
            )
    expected = attributes.summary(rows, cases)
    assert figures["curves"]["interfacegan"]["identity"] == pytest.approx(
        expected["curves"]["interfacegan"]["identity"], abs=1e-3
    )
    for key in ("pernus_identity", "pernus_success", "interfacegan_outside",
                "interfacegan_wplus_identity"):  # fmt: skip
        assert figures[key] == pytest.approx(expected[key], abs=1e-3)
    before = [gauge(case, case.head.image)["success"] for case in cases]
    assert figures["success_before"] == pytest.approx(np.mean(before))
    assert set(told) == {"pernus", "samples", "interfacegan w", "interfacegan w+"}
    calls.clear()
    replace(method, each=1, spaces=())(truths, generator, plain_embed)
    assert [list(wanted) for _, wanted, _, _ in calls] == [["blond_hair"], ["young"], ["young"]]
