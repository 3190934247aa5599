"""`eval views`, `styles`, `transfer`, `fid` and `ide3d`: figures by hand, of things that are wrong
in known ways."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from formulas import close, pixel_distance
from tiny import Painter, Pixels
from torch import Tensor

from semedit import cameras, losses, metrics
from semedit.editors import Roi, Transfer
from semedit.editors.roi import Restyled
from semedit.errors import InputError, MaskError, OptionError
from semedit.evaluations import fid, ide3d, semfaceedit, styles, transfer
from semedit.evaluations import views as consistency
from semedit.evaluations.heads import HeadAtSize
from semedit.faces import networks
from semedit.generators import Output
from semedit.latents import Composite, Latent
from semedit.media.labels import REGIONS
from semedit.media.pixels import resize
from semedit.trainers.parts.region_losses import ROIS
from semedit.trainers.semfaceedit import SemFaceEditTrainer

SKIN, HAIR, NOSE = (REGIONS[name][0] for name in ("skin", "hair", "nose"))


def colour_labels(images: Tensor) -> Tensor:
    """Hair where red is above green, else skin; a nose where blue is strong."""
    labels = torch.where(images[:, 0] > images[:, 1], HAIR, SKIN)
    return torch.where(images[:, 2] > 0.6, NOSE, labels)


class ColourParser:
    def __call__(self, images: Tensor) -> Tensor:
        assert images.abs().max() <= 1
        return F.one_hot(colour_labels(images), 19).permute(0, 3, 1, 2).float()


@pytest.fixture(autouse=True)
def networks_of_tests(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(styles, "BuiltinParser", ColourParser)
    monkeypatch.setattr(transfer, "judge", lambda _: ColourParser())
    monkeypatch.setattr(losses, "perceptual", lambda name, device="cpu": Pixels())
    yield


@pytest.fixture
def generator() -> Painter:
    return Painter().requires_grad_(False)


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def heads(n: int = 3, seed: int = 0) -> list[HeadAtSize]:
    draws = torch.Generator().manual_seed(seed)
    found = []
    for i in range(n):
        image = torch.rand(1, 3, 8, 8, generator=draws) * 2 - 1
        labels = torch.full((1, 8, 8), SKIN)
        labels[:, : 3 + i], labels[:, 5:7, 3:5] = HAIR, NOSE
        c = cameras.orbit(torch.tensor([0.2 * i - 0.1]), torch.zeros(1))
        views = tuple(
            (cameras.turn(c, yaw, 0.0), torch.rand(1, 3, 8, 8, generator=draws) * 2 - 1)
            for yaw in (-0.4, 0.4)
        )
        truth = SimpleNamespace(seed=i)
        found.append(HeadAtSize(truth, image, labels, c, views, {}))  # type: ignore[arg-type]
    return found


def latent_of(seed: int, c: Tensor, size: float = 0.7) -> Latent:
    return Latent({"ws": size * numbers(1, 2, 304, seed=seed)}, c, "painter", "", "x")


def seen_labels(generator: Painter, codes: dict[str, Tensor], c: Tensor) -> Tensor:
    return resize(generator.synthesis(codes, c).seg, 8).argmax(1)


def change(a: Tensor, b: Tensor, mask: Tensor) -> float:
    away = (a.clamp(-1, 1) - b.clamp(-1, 1)).abs().mean(1) / 2
    return float((away * mask).sum() / mask.sum().clamp(min=1))


def iou(a: Tensor, b: Tensor) -> float:
    return float((a & b).sum() / (a | b).sum())


def tell(*_: Any) -> None: ...


# --- eval views ------------------------------------------------------------------------------


def test_change_outside_and_inside_a_region() -> None:
    image, other = numbers(2, 1, 3, 40, 40).unbind(0)
    seg = torch.zeros(2, 1, 19, 40, 40)
    seg[:, :, SKIN] = 1
    seg[0, :, HAIR, :10], seg[1, :, HAIR, :12, :20] = 2, 2
    seg[1, :, NOSE, 30:, 30:] = 3
    before, after = Output(image, seg[0]), Output(other, seg[1])
    outside, inside, stayed = consistency.change(before, after, "hair")
    near = torch.zeros(1, 40, 40)
    near[:, :12], near[:, :14, :22] = 1, 1  # 3 % of 40 pixels, rounded up: 2 on
    assert outside == pytest.approx(change(other, image, 1 - near), rel=1e-4)
    assert inside == pytest.approx(change(other, image, near), rel=1e-4)
    assert stayed == pytest.approx(1 - 100 / float((1 - near).sum()), rel=1e-4)
    whole = Output(image, F.one_hot(torch.full((1, 40, 40), HAIR), 19).movedim(3, 1).float())
    assert consistency.change(whole, whole, "hair")[2] == 1.0


def test_reprojection_counts_what_both_see() -> None:
    """A plane at the middle, of which parts are background, hidden, or of another colour."""

    def plane(yaw: float) -> Output:
        c = cameras.aligned(torch.deg2rad(torch.tensor(yaw)))
        origins, directions = cameras.rays(c, 24)
        depth = -origins[..., 2] / directions[..., 2]
        points = origins + directions * depth[..., None]
        seg = torch.zeros(1, 19, 24, 24)
        seg[:, 1] = 1
        picture = points.view(1, 24, 24, 3).permute(0, 3, 1, 2)
        return Output(picture, seg, depth.view(1, 1, 24, 24))

    for yaw in (-20.0, 25.0):
        front, view = plane(0.0), plane(yaw)
        error, share = consistency.reprojection(SimpleNamespace(), front, view, yaw)
        assert error < 3e-3 and 0.7 < share <= 1
        wrong, _ = consistency.reprojection(SimpleNamespace(), front, view, -yaw)
        assert not wrong < 0.01  # the camera of another side
        half = replace(front, seg=front.seg.clone())
        half.seg[:, 0, :12] = 2  # background counts nowhere
        _, less = consistency.reprojection(SimpleNamespace(), half, view, yaw)
        assert less == pytest.approx(share, abs=0.05)
        tinted = replace(view, image=view.image + torch.tensor([0.3, 0.0, -0.3]).view(1, 3, 1, 1))
        error, _ = consistency.reprojection(SimpleNamespace(), front, tinted, yaw)
        assert error == pytest.approx(0.1, abs=0.01)
        for away, counts in ((0.03, True), (-0.03, True), (0.05, False), (-0.05, False)):
            deep = replace(view, depth=view.depth + away)
            _, seen = consistency.reprojection(SimpleNamespace(), front, deep, yaw)
            assert (seen > 0.5) is counts
    assert consistency.NEAR == 0.04 and consistency.LEAST == 8 and consistency.GROW == 3


def test_diversity_is_the_mean_over_pairs() -> None:
    images = [1.3 * numbers(1, 3, 8, 8, seed=i) for i in range(3)]
    found = consistency.diversity(images)
    a, b, c = (x.clamp(-1, 1) for x in images)
    pairs = [pixel_distance(*pair) for pair in ((a, b), (a, c), (b, c))]
    assert found["diversity"] == pytest.approx(float(sum(pairs)) / 3, rel=1e-4)
    assert found["diversity_by"] == "pixels"


def test_faces_seen_from_all_sides(generator: Painter, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Output, Output, float]] = []

    def reprojection(_: Any, front: Output, view: Output, yaw: float) -> tuple[float, float]:
        asked.append((front, view, yaw))
        face = (len(asked) - 1) // 4
        return (float("nan") if face == 1 and yaw == 15 else yaw + face), 0.1 * face + 0.5

    monkeypatch.setattr(consistency, "reprojection", reprojection)
    told: list[tuple[str, int, int]] = []
    method = consistency.ViewsEvaluation(("consistency", "diversity"), faces=2, seed=3)
    figures = method(generator, lambda *at: told.append(at))
    z = torch.randn(2, 4, generator=torch.Generator().manual_seed(3))
    codes = [generator.mapping(one[None], cameras.canonical()) for one in z]
    for k, (front, view, yaw) in enumerate(asked):
        c = [cameras.aligned(torch.deg2rad(torch.tensor(float(v)))) for v in (0.0, yaw)]
        for shown, camera in zip((front, view), c, strict=True):
            assert close(shown.image, generator.synthesis(codes[k // 4], camera).image)
    assert [yaw for _, _, yaw in asked[:4]] == [-30, -15, 15, 30]
    assert figures["reprojection_15"] == pytest.approx((-15 + 15 - 14) / 3, abs=1e-3)
    assert figures["reprojection_30"] == pytest.approx((-30 + 30 - 29 + 31) / 4, abs=1e-3)
    assert figures["reprojection_15_seen"] == pytest.approx(0.55)
    fronts = [asked[0][0].image.clamp(-1, 1), asked[4][0].image.clamp(-1, 1)]
    assert figures["diversity"] == pytest.approx(float(pixel_distance(*fronts)), abs=1e-3)
    assert told == [("views", 1, 2), ("views", 2, 2)]
    assert [len(row) for _, row in method.rows] == [6, 6]


def test_exchanged_regions(generator: Painter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each pair's figures, by region; the donor's region counts where there is one."""
    generator.traits |= {"regions"}
    generator.covering = lambda names: names

    def view(label: int, seed: int, rows: int) -> Output:
        labels = torch.full((1, 8, 8), SKIN)
        labels[:, :rows] = label
        seg = F.one_hot(labels, 19).movedim(3, 1).float()
        return Output(numbers(1, 3, 8, 8, seed=seed), seg)

    asked: list[str] = []

    def exchanged(_: Any, pair: Any, name: str) -> tuple[Output, Output, Output]:
        asked.append(name)
        k, label = len(asked), REGIONS[name][0]
        return (
            view(label, k, 3),
            view(label, 20 + k, 0 if k == 2 else 4),
            view(label, 40 + k, 2 + k % 2),
        )

    monkeypatch.setattr(consistency, "exchanged", exchanged)
    monkeypatch.setattr(consistency, "draws_region", lambda _, name: name in ("hair", "nose"))
    figures = consistency.ViewsEvaluation(("swaps",), pairs=5)(generator)
    assert asked == ["hair", "nose", "hair", "nose", "hair"]
    rows = []
    for k, name in enumerate(asked, 1):
        label = REGIONS[name][0]
        rows.append(consistency.change(view(label, k, 3), view(label, 40 + k, 2 + k % 2), name))
    outside, inside, labels = np.mean(rows, 0)
    assert figures["swap_outside"] == pytest.approx(outside, abs=1e-4)
    assert figures["swap_inside"] == pytest.approx(inside, abs=1e-4)
    assert figures["swap_labels"] == pytest.approx(labels, abs=1e-4)
    assert figures["swap_outside_hair"] == pytest.approx(
        np.mean([rows[i][0] for i in (0, 2, 4)]), abs=1e-4
    )
    assert figures["swap_taken_hair"] == 0.75 and figures["swap_taken_nose"] == 0.5
    assert figures["swap_taken"] == 0.625
    monkeypatch.setattr(consistency, "draws_region", lambda *_: False)
    with pytest.raises(OptionError):
        consistency.ViewsEvaluation(("swaps",), pairs=1)(generator)


def test_a_swap_is_of_face_and_donor(generator: Painter, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = ({"ws": numbers(1, 2, 304, seed=i)} for i in (1, 2))
    asked: list[Any] = []

    class Exchange:
        def __init__(self, regions: tuple[str, ...]) -> None:
            self.regions = regions

        def __call__(self, _: Any, face: Latent, donor: Latent, labels: Tensor) -> Latent:
            asked.append((self.regions, face, donor, labels))
            return replace(face, codes={"ws": face.codes["ws"] + donor.codes["ws"]})

    monkeypatch.setattr(consistency, "Swap", Exchange)
    before, donor, after = consistency.exchanged(generator, [first, second], "hair")
    ((regions, face, other, labels),) = asked
    assert regions == ("hair",) and face.codes is first and other.codes is second
    c = cameras.aligned(torch.tensor(0.0))
    assert torch.equal(labels, seen_labels(generator, first, c))
    for shown, ws in (
        (before, first["ws"]),
        (donor, second["ws"]),
        (after, first["ws"] + second["ws"]),
    ):
        assert close(shown.image, generator.synthesis({"ws": ws}, c).image)


# --- eval styles -----------------------------------------------------------------------------


class Noise(Roi):
    """Changes a known square by the seed of the edit, and says so."""

    def __call__(self, generator: Any, images: Tensor, reference: Any = None) -> Restyled:
        alpha = torch.zeros_like(images[:, :1])
        alpha[..., 1:6, 2:7] = 0.5
        change = numbers(*images.shape, seed=self.seed * 7 + list(ROIS).index(self.region))
        image = torch.where(alpha > 0, images + change, images)
        image[..., 7, 7] += 0.01  # a pixel that should have stayed
        return Restyled(image, alpha, {})


def test_figures_of_styles(generator: Painter) -> None:
    found = heads(3)
    editor = Noise(style_noise=1.0, seed=5)
    figures = styles.style_figures(generator, found, editor, tell)
    by_name: dict[str, list[float]] = {name: [] for name in ROIS}
    changes, kept, outside = [], 0, 0
    for i, head in enumerate(found):
        before = colour_labels(head.image)
        for name, parts in ROIS.items():
            edited = replace(editor, region=name, seed=5 + i)(generator, head.image)
            ids = torch.tensor([k for part in parts for k in REGIONS[part]])
            was = torch.isin(before, ids)
            same = (edited.image == head.image)[:, :, edited.alpha[0, 0] == 0]
            kept, outside = kept + int(same.sum()), outside + same.numel()
            changes.append(change(edited.image, head.image, (edited.alpha[:, 0] > 0).float()))
            if was.sum() >= 8:
                now = torch.isin(colour_labels(edited.image.clamp(-1, 1)), ids)
                by_name[name].append(iou(was, now))
    every = [v for values in by_name.values() for v in values]
    assert figures["style_iou"] == pytest.approx(np.mean(every), rel=1e-5)
    assert 0.1 < figures["style_iou"] < 0.95
    for name, values in by_name.items():
        if values:
            assert figures[f"style_iou_{name}"] == pytest.approx(np.mean(values), rel=1e-5)
        else:
            assert f"style_iou_{name}" not in figures
    assert figures["style_change"] == pytest.approx(np.mean(changes), rel=1e-5)
    assert figures["outside_kept"] == pytest.approx(kept / outside) and kept < outside


def test_figures_of_regions(generator: Painter) -> None:
    found = heads(3)
    logits = {id(h.image): numbers(1, len(ROIS), 8, 8, seed=i) for i, h in enumerate(found)}
    generator.region_logits = lambda image: logits[id(image)]
    figures = styles.region_figures(generator, found, tell)
    each = []
    for k, (name, parts) in enumerate(ROIS.items()):
        ids = torch.tensor([i for part in parts for i in REGIONS[part]])
        true = torch.cat([torch.isin(h.labels, ids) for h in found])
        seen = torch.cat([logits[id(h.image)][:, k] > 0 for h in found])
        each.append(iou(true, seen))
        assert figures[f"region_iou_{name}"] == pytest.approx(each[-1])
    assert figures["region_miou"] == pytest.approx(np.mean(each)) and 0 < np.mean(each) < 1


def test_parts_of_eval_styles(generator: Painter, monkeypatch: pytest.MonkeyPatch) -> None:
    for part in styles.PARTS:
        styles.StylesEvaluation((part,)).check()
    with pytest.raises(OptionError, match="colours"):
        styles.StylesEvaluation(("regions", "colours")).check()
    assert (styles.LEAST, transfer.LEAST) == (8, 0.005)


class Net:
    def features(self, images: Tensor) -> list[Tensor]:
        assert images.abs().max() <= 1
        return [images, torch.cat([images, images**2], 1)]


def deep(image: Tensor) -> np.ndarray:
    x = image.clamp(-1, 1)[0].double().numpy()
    return np.concatenate([x, x**2]).mean((1, 2))


def test_figures_of_the_table(generator: Painter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both rows hold the heads whose edit was not lost; times are medians of the edits alone."""
    monkeypatch.setattr(networks, "load", lambda name, device="cpu": Net())
    found = []
    for i, head in enumerate(heads(5)):
        edited = head.labels.clone()
        edited[:, 7] = HAIR
        other = head.labels.clone()
        other[:, 7, 4:] = NOSE
        edits = {"hair_length": (head.image, edited), "smile": (head.image, other)}
        found.append(replace(head, edits=edits if i != 3 else {}))
    now = iter(np.cumsum([1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192] * 3))
    monkeypatch.setattr(styles.time, "perf_counter", lambda: float(next(now)))
    asked: list[tuple[Tensor, Tensor]] = []

    def inverter(_: Any, image: Tensor, labels: Tensor, c: Tensor) -> Latent:
        return latent_of(int(labels.sum()), c)

    def mask_editor(_: Any, face: Latent, edited: Tensor, labels: Tensor) -> Latent:
        asked.append((edited, labels))
        if len(asked) == 2:
            raise MaskError("lost")
        return replace(face, codes={"ws": face.codes["ws"] + 0.5})

    editor = Noise(style_noise=1.0, seed=1)
    method = SimpleNamespace(inverter=inverter, mask_editor=mask_editor, editor=editor)
    figures = styles.table_figures(method, generator, generator, found, tell)
    chosen = [found[i] for i in (0, 2, 4)]
    kinds = ("hair_length", "smile", "hair_length", "hair_length")
    for (edited, labels), head, kind in zip(
        asked, [found[i] for i in (0, 1, 2, 4)], kinds, strict=True
    ):
        assert torch.equal(edited, head.edits[kind][1]) and torch.equal(labels, head.labels)
    drawn = [
        generator.synthesis(
            {"ws": latent_of(int(h.labels.sum()), h.c).codes["ws"] + 0.5}, h.c
        ).image
        for h in chosen
    ]
    restyled = [
        replace(editor, region=list(ROIS)[i], seed=1 + i)(generator, h.image).image
        for i, h in enumerate(chosen)
    ]
    for name, made in (("roi", restyled), ("mask", drawn)):
        pairs = [pixel_distance(h.image.clamp(-1, 1), m.clamp(-1, 1))
                 for h, m in zip(chosen, made, strict=True)]  # fmt: skip
        assert figures[f"{name}_lpips"] == pytest.approx(float(sum(pairs)) / 3, rel=1e-4)
        a, b = (torch.tensor(np.stack([deep(x) for x in xs])).float() for xs in (
            [h.image for h in chosen], made))  # fmt: skip
        assert figures[f"{name}_fid"] == pytest.approx(metrics.frechet(a, b), rel=1e-3)
    # The clock's steps: began 1; middle 2, end 4; began, middle of the lost one; and so on.
    assert figures["invert_seconds"] == 64.0 and figures["mask_seconds"] == 128.0
    assert figures["roi_seconds"] == 4.0
    assert figures["ratio"] == figures["mask_seconds"] / figures["roi_seconds"]
    assert figures["heads"] == 3 and figures["lpips_by"] == "pixels"
    with pytest.raises(OptionError):
        styles.table_figures(method, generator, generator, [found[3]], tell)


# --- eval transfer ---------------------------------------------------------------------------


def test_figures_of_transfers(generator: Painter, monkeypatch: pytest.MonkeyPatch) -> None:
    truths = [SimpleNamespace(seed=i) for i in range(3)]
    known = heads(3)
    monkeypatch.setattr(transfer, "at_resolution", lambda truth, *_: known[truth.seed])
    now = iter(np.cumsum([1.0, 5.0, 1.0, 2.0, 1.0, 9.0]))
    monkeypatch.setattr(transfer.time, "perf_counter", lambda: next(now))
    asked: list[tuple[Latent, Latent, Tensor]] = []
    box = torch.zeros(1, 1, 8, 8)
    box[..., :4] = 1

    class Give(Transfer):
        def __call__(self, _: Any, face: Latent, donor: Latent, labels: Tensor) -> Latent:
            assert self.regions == ("hair",)
            asked.append((face, donor, labels))
            ws = 0.4 * face.codes["ws"] + 0.6 * donor.codes["ws"]
            keep = Composite(generator.synthesis(face.codes, face.c).image, box)
            return replace(face, codes={"ws": ws}, composite=keep)

    def inverter(_: Any, image: Tensor, labels: Tensor, c: Tensor) -> Latent:
        return latent_of(int(labels.sum()), c, 1.0)

    method = transfer.TransferEvaluation(("hair",), Give(), inverter)
    told: list[tuple[str, int, int]] = []
    figures = method(truths, generator, lambda *at: told.append(at))  # type: ignore[arg-type]
    rows = []
    for i, head in enumerate(known):
        other = known[(i + 1) % 3]
        face, donor = (latent_of(int(h.labels.sum()), h.c, 1.0) for h in (head, other))
        assert torch.equal(asked[i][0].codes["ws"], face.codes["ws"])
        assert torch.equal(asked[i][1].codes["ws"], donor.codes["ws"])
        assert torch.equal(asked[i][2], head.labels)
        mixed = {"ws": 0.4 * face.codes["ws"] + 0.6 * donor.codes["ws"]}
        shown = generator.synthesis(donor.codes, head.c).image
        hair = torch.tensor([*REGIONS["hair"], *REGIONS["hat"]])
        wanted = torch.isin(seen_labels(generator, donor.codes, head.c), hair)
        before = generator.synthesis(face.codes, face.c).image
        free = generator.synthesis(mixed, face.c).image
        edited = torch.lerp(before, free, box)
        got = torch.isin(seen_labels(generator, mixed, face.c), hair)
        a, b = (torch.isin(colour_labels(x.clamp(-1, 1)), hair) for x in (edited, shown))
        near = [change(x, shown, wanted.float()) for x in (before, edited)]
        rest = (~(wanted | torch.isin(head.labels, hair))).float()
        rows.append((iou(got, wanted), iou(a, b), near[1] / near[0],
                     change(edited, before, rest), change(free, before, rest)))  # fmt: skip
    for key, value in zip(
        ("iou", "seen", "colour", "outside", "drawn"), np.mean(rows, 0), strict=True
    ):
        assert figures[f"{key}_hair"] == pytest.approx(value, abs=1e-4)
    assert figures["seconds_hair"] == 5.0 and told[-1] == ("hair", 3, 3)
    assert 0 < figures["iou_hair"] < 1 and 0 < figures["seen_hair"] < 1
    with pytest.raises(OptionError):
        method(truths[:1], generator)  # type: ignore[arg-type]
    monkeypatch.setattr(transfer, "LEAST", 1.1)
    with pytest.raises(OptionError, match="no donor"):
        method(truths, generator)  # type: ignore[arg-type]


# --- eval fid --------------------------------------------------------------------------------


@pytest.mark.parametrize("poses", [False, True])
def test_fid_and_kid_by_hand(
    generator: Painter, poses: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = 0.3 * numbers(7, 3, 8, 8)
    spread = SimpleNamespace(mean=0.1 * numbers(6, seed=1), factor=0.05 * numbers(6, 6, seed=2))
    spread.mean[3] += 1.5
    asked: list[Any] = []

    def read(*given: Any) -> Any:
        asked.append(given)
        return true, spread if poses else None

    monkeypatch.setattr(fid, "read_pictures", read)
    monkeypatch.setattr(fid.metrics, "kernel_distance", lambda a, b: float(a.mean() - 2 * b.mean()))
    monkeypatch.setattr(fid, "deep_features", lambda images: torch.cat(images).mean((2, 3)))
    told: list[tuple[int, int]] = []
    method = fid.FidEvaluation(count=9, psi=0.6, batch=3, seed=4)
    found = method(generator, Path("data"), lambda *at: told.append(at))
    assert asked == [(Path("data"), 8, 9, 4)] and told == [(3, 7), (6, 7), (7, 7)]
    draws, fake = torch.Generator().manual_seed(4), []
    for n in (3, 3, 1):
        z, six = torch.randn(n, 4, generator=draws), torch.randn(n, 6, generator=draws)
        if poses:
            c = cameras.from_six(spread.mean + torch.stack([spread.factor @ row for row in six]))
        else:
            c = cameras.orbit(0.3 * six[:, 0], 0.155 * six[:, 1])
        fake.append(generator.synthesis(generator.mapping(z, c, 0.6), c).image.clamp(-1, 1))
    a, b = true.mean((2, 3)), torch.cat(fake).mean((2, 3))
    assert found["fid"] == pytest.approx(metrics.frechet(a, b), abs=2e-5)
    assert found["kid"] == pytest.approx(float(a.mean() - 2 * b.mean()), abs=1e-6)
    assert (found["n"], found["resolution"]) == (7, 8) and found["features"].startswith(
        "faces, 3 of"
    )
    whole = fid.FidEvaluation(features="lpips", count=9, psi=0.6, batch=3, seed=4)
    with_pixels = whole(generator, Path("data"))
    a, b = ((x[..., ::2, ::2] + 1).square().mean((2, 3)) for x in (true, torch.cat(fake)))
    assert with_pixels["fid"] == pytest.approx(metrics.frechet(a, b), abs=1e-4)
    true = true[:1]
    with pytest.raises(InputError):
        method(generator, Path("data"))


# --- eval ide3d ------------------------------------------------------------------------------


def test_variants_of_semfaceedit_are_trained_once_and_alike(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    runs: list[tuple[Any, ...]] = []
    read: list[str] = []

    def train(*given: Any, **options: Any) -> dict[str, Any]:
        runs.append((*given, options))
        return {"held": len(runs)}

    monkeypatch.setattr(semfaceedit, "train", train)
    monkeypatch.setattr(semfaceedit, "load_generator", lambda name: read.append(name) or name)
    trainer = SemFaceEditTrainer(lr=0.5, output="x")
    ablation = semfaceedit.Ablation(2.5, trainer, lambda generator, data: {"fid": generator}, 7)  # type: ignore[arg-type]
    told: list[tuple[str, int, int]] = []
    found = ablation(tmp_path / "data", tmp_path / "runs", lambda *at: told.append(at))
    variants = (("none", 8), ("all", 8), ("proposed", 8), ("proposed", 4), ("proposed", 6))
    assert told == [(f"{a}-{b}", i, 5) for i, (a, b) in enumerate(variants)] + [("", 5, 5)]
    for (made, data, folder, schedule, seed, options), (sharing, depth) in zip(
        runs, variants, strict=True
    ):
        assert made == replace(trainer, second=0.0, sharing=sharing, depth=depth)
        assert (data, seed, options) == (tmp_path / "data", 7, {"quiet": True})
        assert (schedule.kimg, schedule.save_minutes) == (2.5, 60.0)
        assert folder.name == f"{sharing}-{depth}" and folder.parent.parent == tmp_path / "runs"
        assert folder.parent.name.startswith("data-") and folder.parent.name.endswith("-2.5kimg")
    assert read == [str(run[2] / "x.safetensors") for run in runs]
    first, second = found.values()
    assert [row["held"] for row in first.values()] == [1, 2, 3]
    assert [row["held"] for row in second.values()] == [4, 5, 3]
    assert [row["fid"] for row in first.values()] == read[:3]
    other = ablation(tmp_path / "other" / "data", tmp_path / "runs")
    assert other.keys() == found.keys() and runs[5][2].parent != runs[0][2].parent
    assert semfaceedit.Ablation().kimg == 8.0 and semfaceedit.Ablation().seed == 0


def test_figure_7_by_hand(generator: Painter) -> None:
    """Starts of the mean and of an encoder, and what an inverter makes of them."""
    found = heads(3)
    generator._encoder = ("own",)

    def encode(images: Tensor, labels: Tensor, c: Tensor) -> dict[str, Tensor]:
        return {"ws": generator._encoder[0](images, labels, c)}

    generator.encode = encode
    sizes: list[int] = []

    def inverter(_: Any, images: Tensor, labels: Tensor, c: Tensor) -> Latent:
        sizes.append(len(images))
        return Latent({"ws": 0.5 * encode(images, labels, c)["ws"]}, c, "painter", "", "x")

    def other(images: Tensor, labels: Tensor, c: Tensor) -> Tensor:
        return (
            images.mean((1, 2, 3)).view(-1, 1, 1) + labels.float().mean() / 9 + numbers(1, 2, 304)
        )

    figures = ide3d.start_figures(generator, found, {"net": other}, inverter, tell)  # type: ignore[dict-item,arg-type]
    assert generator._encoder == ("own",) and sizes == [3, 3]
    images, labels, c = ide3d.stacked(found)
    assert torch.equal(labels, torch.cat([h.labels for h in found]))
    for name, ws in (
        ("mean", generator.middle.expand(3, -1, -1)),
        ("net", other(images, labels, c)),
    ):
        for stage, codes in (("start_", ws), ("", 0.5 * ws)):
            own, side = [], []
            for i, head in enumerate(found):
                for camera, image in ((head.c, head.image), *head.views):
                    shown = generator.synthesis({"ws": codes[i : i + 1]}, camera).image
                    value = float(metrics.psnr(shown, image))
                    (own if camera is head.c else side).append(value)
            key = f"{name}_start_db" if stage else f"{name}_input_db"
            assert figures[key] == pytest.approx(np.mean(own), rel=1e-4)
            assert figures[f"{name}_{stage}side_db"] == pytest.approx(np.mean(side), rel=1e-4)
            assert figures[f"{name}_{stage}views_db"] == pytest.approx(
                np.mean(own + side), rel=1e-4
            )
    assert [len(x) for x in (ide3d.inverted(generator, heads(3) * 2, lambda g, i, m, c: Latent(
        {"ws": torch.zeros(len(c), 2, 304)}, c, "painter", "", "x"), tell),)] == [6]  # fmt: skip


def test_figure_4_by_hand(generator: Painter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who sees the face from where, and in which view what they found is compared."""
    found = heads(3)
    generator.view_limit_deg = (40.0, 20.0)
    asked: list[tuple[str, Tensor, Tensor, Tensor]] = []

    def network(name: str, size: float) -> Any:
        def call(images: Tensor, labels: Tensor, c: Tensor) -> Tensor:
            asked.append((name, images, labels, c))
            return size * generator.encode(images, labels, c)["ws"]

        return call

    own = property(lambda self: network("own", 0.8))
    monkeypatch.setattr(type(generator), "encoder", own)
    monkeypatch.setattr(ide3d, "YAWS_DEG", (-30, 45))
    seen = generator.encode(*ide3d.stacked(found))["ws"]
    figures = ide3d.canonical_figures(generator, found, network("front", 0.5), 2, 7, tell)  # type: ignore[arg-type]
    draws = torch.Generator().manual_seed(7)
    calls, table = iter(asked), {}
    for yaw in (-30, 45):
        rows: dict[str, list[list[float]]] = {"free": [], "front": [], "canonical": []}
        for _ in range(2):
            shape, texture = torch.randint(3, (2,), generator=draws).tolist()
            ws = torch.stack([seen[shape, 0], seen[texture, 1]])[None]
            away = (2 * torch.rand(1, generator=draws) - 1) * np.deg2rad(40.0)
            views = [cameras.aligned(torch.as_tensor(a, dtype=torch.float32).view(()))
                     for a in (np.deg2rad(yaw), 0.0, float(away))]  # fmt: skip
            images = [generator.synthesis({"ws": ws}, c).image.clamp(-1, 1) for c in views]
            labels = resize(generator.synthesis({"ws": ws}, views[0]).seg, 8).argmax(1)
            for name, who, view, size in (
                ("free", "own", 0, 0.8), ("front", "own", 1, 0.8), ("canonical", "front", 1, 0.5),
            ):  # fmt: skip
                by, image, map_, c = next(calls)
                assert by == who and close(image, images[view]) and torch.equal(map_, labels)
                assert close(c, views[view])
                codes = size * generator.encode(images[view], labels, views[view])["ws"]
                drawn = generator.synthesis({"ws": codes}, views[2])
                rows[name].append([
                    float(metrics.psnr(drawn.image, images[2])),
                    float(pixel_distance(drawn.image, images[2])),
                    float((resize(drawn.seg, 8).argmax(1) == labels).float().mean()),
                ])  # fmt: skip
        table[yaw] = {k: np.mean(v, 0) for k, v in rows.items()}
        for name, expected in table[yaw].items():
            told = figures["figure4"][yaw][name]
            assert [told[k] for k in ("db", "perceptual", "labels")] == pytest.approx(
                expected.tolist(), rel=1e-3
            )
    for name in ("free", "front", "canonical"):
        whole = np.mean([table[yaw][name][0] for yaw in (-30, 45)])
        assert figures[f"{name}_db"] == pytest.approx(whole, rel=1e-3)


def test_figures_of_textures(generator: Painter, monkeypatch: pytest.MonkeyPatch) -> None:
    found = heads(3)
    monkeypatch.setattr(ide3d, "REGIONS", ("hair", "skin,nose"))
    latents_ = [latent_of(i, h.c) for i, h in enumerate(found)]
    asked: list[tuple[str, int]] = []

    class Texture:
        def __init__(self, region: str, composite: bool) -> None:
            assert composite is False
            self.region = region
            self.labels = (HAIR, SKIN, 0, 5) if region == "hair" else tuple(range(8))

        def __call__(self, _: Any, face: Latent, donor: Latent) -> Latent:
            i = [v is face for v in latents_].index(True)
            asked.append((self.region, i))
            if i == 1:
                raise MaskError("not there")
            ws = 0.7 * face.codes["ws"] + 0.5 * donor.codes["ws"]
            return replace(face, codes={"ws": ws})

    monkeypatch.setattr(ide3d, "Texture", Texture)
    figures = ide3d.texture_figures(generator, found, latents_, tell)
    assert asked == [("hair", 0), ("skin,nose", 1), ("hair", 2)]
    inside, outside, right, ways, pairs = [], [], [], [], []
    for i in (0, 2):
        face, donor = latents_[i], latents_[(i + 1) % 3]
        mixed = {"ws": 0.7 * face.codes["ws"] + 0.5 * donor.codes["ws"]}
        before, after = (generator.synthesis(w, face.c).image for w in (face.codes, mixed))
        first, second = (seen_labels(generator, w, face.c) for w in (face.codes, mixed))
        region = torch.isin(first, torch.tensor((HAIR, SKIN, 0, 5)))
        inside.append(change(after, before, region.float()))
        outside.append(change(after, before, (~region).float()))
        right.append(float((first == second).float().mean()))
        pairs += list(zip(first.flatten().tolist(), second.flatten().tolist(), strict=True))
        given = generator.synthesis(donor.codes, donor.c).image
        whose = torch.isin(
            seen_labels(generator, donor.codes, donor.c), torch.tensor((HAIR, SKIN, 0, 5))
        )
        wanted = given[0][:, whose[0]].mean(1)
        ways.append([float((x[0][:, region[0]].mean(1) - wanted).norm()) for x in (before, after)])
    assert figures["texture_inside_change"] == pytest.approx(np.mean(inside), rel=1e-4)
    assert figures["texture_outside_change"] == pytest.approx(np.mean(outside), rel=1e-4)
    assert figures["texture_label_accuracy"] == pytest.approx(np.mean(right), rel=1e-4)
    far = np.sum(ways, 0)
    assert figures["texture_colour"] == pytest.approx(far[1] / far[0], rel=1e-4)
    each = [sum(a == b == k for a, b in pairs) / sum(k in pair for pair in pairs)
            for k in {a for a, _ in pairs}]  # fmt: skip
    assert figures["texture_label_miou"] == pytest.approx(np.mean(each), rel=1e-5)


def test_parts_of_eval_ide3d(generator: Painter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every part gets the heads at the generator's size, and what else it is of."""
    known, given = heads(2), {}
    monkeypatch.setattr(ide3d, "at_resolution", lambda truth, size, device: known[truth])
    monkeypatch.setattr(ide3d, "canonical_encoder", lambda name, generator: name)
    monkeypatch.setattr(ide3d, "inverted", lambda *args: given.update(inverted=args) or "latents")
    for name in ("inversion", "canonical", "texture", "identity"):
        monkeypatch.setattr(
            ide3d,
            "start_figures" if name == "inversion" else f"{name}_figures",
            lambda *args, name=name: given.update({name: args}) or {name: 1},
        )
    parts = ("inversion", "canonical", "texture", "identity")
    method = ide3d.IDE3DEvaluation(parts, {"net": "net"}, "inverter", views=5, pairs=6, seed=7)  # type: ignore[arg-type,dict-item]
    assert method([0, 1], generator, "embed", tell) == dict.fromkeys(parts, 1)  # type: ignore[arg-type,list-item]
    assert given["inversion"] == (generator, known, {"net": "net"}, "inverter", tell)
    assert given["canonical"] == (generator, known, "canonical-painter", 5, 7, tell)
    assert given["inverted"] == (generator, known, "inverter", tell)
    assert given["texture"] == (generator, known, "latents", tell)
    assert given["identity"] == (generator, "embed", 6, 7, tell)
    for wrong, truths in ((("colours",), [0]), (parts, [])):
        with pytest.raises(OptionError):
            replace(method, parts=wrong)(truths, generator, "embed")  # type: ignore[arg-type]
    assert ide3d.YAWS_DEG == (-60, -45, -30, -15, 0, 15, 30, 45, 60)


def test_edits_by_label_map_of_eval_ide3d(
    generator: Painter, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter(np.cumsum([1.0, 3.0, 1.0, 7.0, 1.0, 4.0]))
    monkeypatch.setattr(ide3d.time, "perf_counter", lambda: next(now))

    def figures(*given: Any) -> dict[str, float]:
        _, _, latents_, edit, each, told = given
        assert given[:2] == (generator, "heads") and latents_ == "latents"
        assert each == 1 and told is tell
        assert [edit(k) for k in (1, 2, 3)] == [2, 4, 6]
        return {"mask_edit_iou": 0.5}

    monkeypatch.setattr(ide3d, "mask_figures", figures)
    method = ide3d.IDE3DEvaluation(editor=lambda k: 2 * k)  # type: ignore[arg-type]
    found = method._masks(generator, "heads", "latents", tell)  # type: ignore[arg-type]
    assert found == {"canonical_edit_iou": 0.5, "canonical_edit_seconds": 4.0}


def test_identity_by_hand(generator: Painter) -> None:
    generator.view_limit_deg = (40.0, 20.0)

    class Embed:
        name = "plain"

        def __call__(self, images: Tensor) -> Tensor:
            assert images.abs().max() <= 1
            return F.normalize(images.flatten(1) + images[:, :1].flatten(1).repeat(1, 3), dim=1)

    found = ide3d.identity_figures(generator, Embed(), 3, 5, tell)
    draws, cosines = torch.Generator().manual_seed(5), []
    for _ in range(3):
        z = torch.randn(1, 4, generator=draws)
        turn = 2 * torch.rand(2, 2, generator=draws) - 1
        c = cameras.aligned(turn[0] * np.deg2rad(40.0), turn[1] * np.deg2rad(20.0))
        ws = generator.mapping(z, c)
        a, b = (
            Embed()(generator.synthesis(ws, c[i : i + 1]).image.clamp(-1, 1))[0] for i in (0, 1)
        )
        cosines.append(float(a @ b))
    assert found["identity"] == pytest.approx(np.mean(cosines), rel=1e-4)
    assert found["identity_by"] == "plain"
