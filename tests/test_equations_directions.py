"""Directions: fitted forwards along what they are named after, and moved along by deviations."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from formulas import close
from tiny import Painter
from torch import Tensor

from semedit import cameras, latents
from semedit.directions import fitting, published
from semedit.directions.directions import Directions, OfRegions, normal, regional
from semedit.directions.fitting import Boundary
from semedit.editors import Direction, direction
from semedit.errors import InputError, LatentError, OptionError, TraitError
from semedit.latents import Latent
from semedit.media.labels import ATTRIBUTES


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# --- codes as vectors ------------------------------------------------------------------------


def test_codes_lie_side_by_side_in_name_order() -> None:
    codes = {"ws": numbers(3, 2, 4), "geo": numbers(3, 5, seed=1)}
    flat = fitting.flatten(codes)
    assert torch.equal(flat[1], torch.cat([codes["geo"][1], codes["ws"][1].flatten()]))
    back = fitting.unflatten(flat[1], codes)
    assert torch.equal(back["ws"], codes["ws"][1]) and torch.equal(back["geo"], codes["geo"][1])


def test_one_style_for_all_layers_is_cut_to_one() -> None:
    w = numbers(3, 1, 4)
    codes = {"ws": w.expand(3, 5, 4), "own": numbers(3, 5, 4), "z": numbers(3, 4)}
    found = fitting.shared(codes)
    assert torch.equal(found["ws"], w) and torch.equal(found["own"], codes["own"])
    assert torch.equal(found["z"], codes["z"])
    clubs = numbers(3, 1, 1, 4).expand(3, 2, 5, 4)
    assert fitting.shared({"ws": clubs})["ws"].shape == (3, 1, 1, 4)
    part = numbers(3, 2, 1, 4).expand(3, 2, 5, 4)
    assert fitting.shared({"ws": part})["ws"].shape == (3, 2, 1, 4)


def test_samples_are_mapped_drawn_from_the_front_and_scored() -> None:
    generator = Painter().requires_grad_(False)
    seen: list[tuple[int, int]] = []

    def classify(images: Tensor) -> Tensor:
        return images[:, :, 0, 0]

    codes, scores = fitting.sample(
        generator, 7, seed=4, batch=3, classify=classify, progress=lambda *at: seen.append(at)
    )
    draws = torch.Generator().manual_seed(4)
    z = torch.cat([torch.randn(n, 4, generator=draws) for n in (3, 3, 1)])
    front = cameras.orbit(0.0, 0.0).expand(7, -1)
    ws = generator.mapping(z, front)["ws"]
    assert close(codes["ws"], ws)
    images = generator.synthesis({"ws": ws}, front).image.clamp(-1, 1)
    assert close(scores, classify(images)) and seen == [(3, 7), (6, 7), (7, 7)]
    assert scores.max() <= 1
    first, none = fitting.sample(generator, 5, seed=4, cut=lambda c: {"ws": c["ws"][:, :1]})
    assert none.shape == (5, 0) and first["ws"].shape == (5, 1, 304)
    zero, _ = fitting.sample(generator, 3)
    assert close(zero["ws"], fitting.sample(generator, 3, seed=0)[0]["ws"])
    z = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    assert close(zero["ws"], generator.mapping(z, front[:3])["ws"])
    generator.resolution = 512  # four of these fill what is drawn together
    sizes: list[int] = []
    fitting.sample(generator, 9, progress=lambda done, _: sizes.append(done))
    assert sizes == [4, 8, 9]
    generator.resolution = 8
    fitting.sample(generator, 20, progress=lambda done, _: sizes.append(done))
    assert sizes[3:] == [16, 20]


# --- boundaries (InterFaceGAN) ---------------------------------------------------------------


def test_a_boundary_is_the_svms_of_both_ends_and_points_forwards() -> None:
    from sklearn.svm import LinearSVC

    codes = numbers(200, 5) * torch.tensor([1.0, 3.0, 0.5, 2.0, 1.0]) + 4
    scores = (codes[:, 0] - 4) - 0.4 * (codes[:, 1] - 4) + 0.3 * numbers(200, seed=1)
    normal_, figures = Boundary(share=0.2, penalty=0.05)(codes, scores)
    order = np.argsort(scores.numpy(), kind="stable")
    low, high = order[:40], order[-40:]
    x = (codes - codes.mean(0)) / codes.std()
    machine = LinearSVC(C=0.05, dual="auto", random_state=0, max_iter=20_000)
    machine.fit(x[np.concatenate([low, high])].numpy(), [0] * 40 + [1] * 40)
    expected = machine.coef_[0] / np.linalg.norm(machine.coef_[0])
    assert np.allclose(normal_.numpy(), expected, atol=2e-3)
    # The solver itself, against the objective written out: no nearby plane costs less.
    along = (codes - codes.mean(0)) @ normal_
    assert np.corrcoef(along, scores)[0, 1] > 0.9
    assert float(along[torch.from_numpy(high)].mean()) > float(along[torch.from_numpy(low)].mean())
    assert figures["deviation"] == pytest.approx(float(along.std()), rel=1e-4)
    rest = torch.from_numpy(order[40:-40].copy())
    assert figures["accuracy"] == round(fitting.accuracy(along[rest], scores[rest] > 0), 4)
    assert figures["samples"] == 200
    assert figures["score_mean"] == round(float(scores.mean()), 4)
    assert figures["score_deviation"] == round(float(scores.std()), 4)
    assert Boundary() == Boundary(0.1, 0.01)


def test_a_boundary_wants_samples_that_differ() -> None:
    codes = numbers(40, 3)
    Boundary(share=0.05)(codes, codes[:, 0])  # two at either end
    for share, scores in ((0.02, codes[:, 0]), (0.3, torch.ones(40))):
        with pytest.raises(OptionError):
            Boundary(share=share)(codes, scores)
    both, _ = Boundary(share=0.9)(codes, codes[:, 0])  # never more than half
    assert both[0] > 0.9 and torch.equal(both, Boundary(share=0.5)(codes, codes[:, 0])[0])


def test_what_a_direction_leaves_alone() -> None:
    unit, a, b = (normal({"x": numbers(6, seed=i)})["x"] for i in (0, 1, 2))
    found = fitting.orthogonal(unit, [a, b])
    basis = np.linalg.qr(np.stack([a.numpy(), b.numpy()], 1).astype(float))[0]
    rest = unit.numpy() - basis @ (basis.T @ unit.numpy())
    assert np.allclose(found.numpy(), rest / np.linalg.norm(rest), atol=1e-5)
    assert fitting.orthogonal(unit, []) is unit
    with pytest.raises(OptionError):
        fitting.orthogonal(unit, [unit, a])


def test_figures_of_a_direction() -> None:
    codes, unit = numbers(50, 3) + 2, torch.tensor([0.0, 1.0, 0.0])
    logits = codes[:, 1] - 2.3
    found = fitting.measure(codes, unit, logits, slice(0, 20))
    along = (codes - codes.mean(0))[:, 1]
    assert found["deviation"] == pytest.approx(float(along.std()), rel=1e-4)
    assert found["accuracy"] == round(fitting.accuracy(along[:20], logits[:20] > 0), 4)
    truth = (codes[:, 1] > 2.5).float()  # 0 and 1: told apart at a half
    assert fitting.measure(codes, unit, truth)["accuracy"] == round(
        fitting.accuracy(along, truth > 0.5), 4
    )
    shifted = torch.where(truth > 0, 0.4, 0.2)
    assert fitting.measure(codes, unit, shifted)["accuracy"] == 0.5  # logits all above 0


def test_balanced_accuracy_of_the_best_threshold() -> None:
    along = torch.linspace(-1, 1, 101)
    positive = along > 0.4
    assert fitting.accuracy(along, positive) > 0.97
    assert fitting.accuracy(-along, positive) == 0.5  # never backwards
    mixed = positive.clone()
    mixed[:20] = True  # of 50 positives 20 lie on the wrong side
    found = max(
        ((along[mixed] > t).float().mean() + (along[~mixed] <= t).float().mean()) / 2
        for t in along.quantile(torch.linspace(0.02, 0.98, 49))
    )
    assert fitting.accuracy(along, mixed) == pytest.approx(float(found)) and found < 0.9
    assert fitting.accuracy(along, torch.ones(101, dtype=torch.bool)) == 0.5


def columns(**values: Tensor) -> Tensor:
    scores = torch.zeros(len(next(iter(values.values()))), len(ATTRIBUTES))
    for name, value in values.items():
        scores[:, ATTRIBUTES.index(name)] = value
    return scores


def test_boundaries_by_name_and_condition() -> None:
    generator = Painter()
    codes = {"b": numbers(300, 2, seed=1), "a": numbers(300, 1, 2)}
    flat = fitting.flatten(codes)
    scores = columns(smiling=flat[:, 0], young=flat[:, 0] + flat[:, 3])
    found = fitting.fit_boundaries(generator, codes, scores, ["young", "smiling"], ["smiling"])
    plain = {name: Boundary()(flat, scores[:, ATTRIBUTES.index(name)])[0] for name in found.units}
    assert list(found.units) == ["young", "smiling"]
    assert close(fitting.flatten(_batched(found.units["smiling"]))[0], plain["smiling"])
    apart = fitting.orthogonal(plain["young"], [plain["smiling"]])
    assert close(fitting.flatten(_batched(found.units["young"]))[0], apart)
    assert found.figures["young"] == fitting.measure(
        flat, apart, scores[:, ATTRIBUTES.index("young")]
    )
    assert found.units["young"]["a"].shape == (1, 2) and found.generator == "painter"
    assert found.fingerprint == latents.fingerprint(generator)
    own = fitting.fit_boundaries(generator, codes, scores, ["young"], (), Boundary(0.3, 1.0))
    assert close(
        fitting.flatten(_batched(own.units["young"]))[0],
        Boundary(0.3, 1.0)(flat, scores[:, ATTRIBUTES.index("young")])[0],
    )
    with pytest.raises(OptionError, match="bald"):
        fitting.fit_boundaries(generator, codes, scores, ["bald"])


def _batched(unit: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: v[None] for k, v in unit.items()}


def test_moving_along_a_fitted_direction_raises_the_score() -> None:
    """Forwards, for boundaries and for regression, in the very picture."""
    generator = Painter().requires_grad_(False)

    def classify(images: Tensor) -> Tensor:
        return columns(smiling=images[:, 0].mean((1, 2)), young=-images[:, 2].mean((1, 2)))

    codes, scores = fitting.sample(generator, 400, classify=classify, cut=dict)
    scores = scores - scores.mean(0)
    boundaries = fitting.fit_boundaries(generator, codes, scores, ["smiling", "young"])
    regressed = fitting.regress(generator, codes, scores, ATTRIBUTES)
    face = Latent({k: v[:1] for k, v in codes.items()}, cameras.orbit(0.0, 0.0), "painter", "", "x")
    for found in (boundaries, regressed):
        assert (found.generator, found.fingerprint) == ("painter", latents.fingerprint(generator))
        for name in ("smiling", "young"):
            values = []
            for strength in (-1.0, 0.0, 1.0):
                ws = face.codes["ws"] + strength * found.move(name)["ws"]
                image = generator.synthesis({"ws": ws}, face.c).image
                values.append(float(classify(image)[0, ATTRIBUTES.index(name)]))
            assert values[0] < values[1] < values[2]
            unit = torch.cat([v.flatten() for v in found.units[name].values()])
            assert float(unit.norm()) == pytest.approx(1, abs=1e-4)
            along = fitting.flatten(codes) @ unit
            assert found.figures[name]["deviation"] == pytest.approx(float(along.std()), rel=1e-3)


# --- regression ------------------------------------------------------------------------------


def test_regression_is_least_squares_with_a_ridge() -> None:
    codes = numbers(80, 4)
    scores = torch.stack([codes[:, 0], codes[:, 0] + codes[:, 1], torch.ones(80)], 1)
    scores = scores + 0.1 * numbers(80, 3, seed=2) * torch.tensor([1.0, 1.0, 0.0])
    for ridge in (1e-3, 0.5):
        found, figures = fitting.fit_regression(codes, scores, ["a", "b", "c"], ridge=ridge)
        s = ((scores[:, :2] - scores[:, :2].mean(0)) / scores[:, :2].std(0)).double().numpy()
        x = (codes - codes.mean(0)).double().numpy()
        # |X - S B|^2 / n + ridge |B|^2 as ordinary least squares of longer columns.
        long = np.concatenate([s, np.sqrt(80 * ridge) * np.eye(2)])
        b = np.linalg.lstsq(long, np.concatenate([x, np.zeros((2, 4))]), rcond=None)[0]
        for row, name in zip(b, ("a", "b"), strict=True):
            assert np.allclose(found[name].numpy(), row / np.linalg.norm(row), atol=1e-4)
        assert set(found) == {"a", "b"}
        assert figures["b"] == fitting.measure(codes, found["b"], scores[:, 1])
    default, _ = fitting.fit_regression(codes, scores, ["a", "b", "c"])
    exact, _ = fitting.fit_regression(codes, scores, ["a", "b", "c"], None, 1e-3)
    assert torch.equal(default["a"], exact["a"])


def test_what_may_go_along_is_not_held() -> None:
    codes = numbers(100, 3)
    scores = torch.stack([codes[:, 0], codes[:, 0] + codes[:, 1], codes[:, 2]], 1)
    found, _ = fitting.fit_regression(codes, scores, ["a", "b", "c"], {"a": ["b"]})
    alone, _ = fitting.fit_regression(codes, scores[:, [0, 2]], ["a", "c"])
    whole, _ = fitting.fit_regression(codes, scores, ["a", "b", "c"])
    assert close(found["a"], alone["a"], atol=1e-5)
    assert close(found["b"], whole["b"], atol=1e-5)
    assert not close(found["a"], whole["a"], atol=1e-2)


# --- components (GANSpace) -------------------------------------------------------------------


def test_components_by_hand() -> None:
    generator = Painter()
    codes = {"ws": numbers(30, 1, 4) * torch.tensor([0.5, 3.0, 1.0, 2.0]) + 1}
    found = fitting.fit_components(generator, codes, 3)
    x = codes["ws"][:, 0].double().numpy()
    x = x - x.mean(0)
    _, s, rows = np.linalg.svd(x, full_matrices=False)
    for i in range(3):
        unit, told = found.units[f"pc{i:02d}"]["ws"][0].numpy(), found.figures[f"pc{i:02d}"]
        row = rows[i] * np.sign(rows[i][np.abs(rows[i]).argmax()])
        assert np.allclose(unit, row, atol=1e-4) and unit[np.abs(unit).argmax()] > 0
        assert told["deviation"] == pytest.approx(s[i] / np.sqrt(29), rel=1e-4)
        assert told["share"] == pytest.approx(s[i] ** 2 / (s**2).sum(), abs=1e-4)
        assert told["samples"] == 30
    assert list(found.units) == ["pc00", "pc01", "pc02"]
    fitting.fit_components(generator, codes, 4)
    few = {"ws": codes["ws"][:3]}
    fitting.fit_components(generator, few, 2)
    for which, count in ((codes, 5), (codes, 0), (few, 3)):
        with pytest.raises(OptionError):
            fitting.fit_components(generator, which, count)


# --- records and moves -----------------------------------------------------------------------


def record(generator: Painter) -> Directions:
    units = {"smiling": {"ws": normal({"ws": numbers(2, 304)})["ws"]}}
    units["young"] = {"ws": normal({"ws": numbers(1, 304, seed=1)})["ws"]}
    figures = {"smiling": {"deviation": 0.5}, "young": {"deviation": 3.0}}
    return Directions(units, "painter", latents.fingerprint(generator), figures)


def test_records_by_hand() -> None:
    first = record(Painter())
    assert torch.equal(first.move("young")["ws"], 3 * first.units["young"]["ws"])
    other = replace(
        first, units={"young": {"ws": numbers(1, 304)}, "x": {"ws": numbers(1, 304)}},
        figures={"young": {"deviation": 7.0}, "x": {"deviation": 1.0}},
    )  # fmt: skip
    both = first.joined(other)
    assert list(both.units) == ["smiling", "young", "x"]
    assert both.units["young"] is other.units["young"]
    assert both.figures["young"]["deviation"] == 7.0 and both.figures["smiling"]["deviation"] == 0.5
    unit = normal({"a": torch.full((2,), 3.0), "b": torch.full((1, 2), 4.0)})
    whole = (2 * 9 + 2 * 16) ** 0.5
    assert close(unit["a"], torch.full((2,), 3 / whole))
    assert close(unit["b"], torch.full((1, 2), 4 / whole))
    assert (
        regional("young", "hair, eyes,") == "young@eyes,hair" and regional("young", "") == "young"
    )


def test_regions_part_of_a_move() -> None:
    part = OfRegions(3, (0, 2))
    codes = {"ws": numbers(2, 3, 4, 5)}
    assert torch.equal(part.cut(codes)["ws"], codes["ws"][:, [0, 2]])
    move = {"ws": numbers(1, 4, 5)}
    only = part.only(move)["ws"]
    assert torch.equal(only[0], move["ws"][0]) and only[1].abs().max() == 0
    assert torch.equal(only[2], move["ws"][0])
    found = Directions({"a": {"ws": numbers(2, 4, 5)}}, "g", "f", {"a": {"deviation": 2.0}})
    whole = part.whole(found, "hair")
    ws = whole.units["a@hair"]["ws"]
    assert torch.equal(ws[[0, 2]], found.units["a"]["ws"]) and ws[1].abs().max() == 0
    assert whole.figures == {"a@hair": {"deviation": 2.0}}
    with pytest.raises(TraitError):
        OfRegions.named(Painter(), ["hair"])


def faces(generator: Painter, n: int = 2, **options: Any) -> Latent:
    c = cameras.orbit(torch.zeros(n), torch.zeros(n))
    return Latent(
        {"ws": numbers(n, 2, 304, seed=7)}, c, "painter", latents.fingerprint(generator), "x",
        **options,
    )  # fmt: skip


def test_a_move_is_strength_by_deviation(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = Painter().requires_grad_(False)
    found, latent = record(generator), faces(generator)
    monkeypatch.setattr(direction, "directions_for", lambda _: found)
    seen: list[tuple[int, int]] = []
    after = Direction("smiling", 1.5)(generator, latent, lambda *at: seen.append(at))
    expected = latent.codes["ws"] + 1.5 * 0.5 * found.units["smiling"]["ws"]
    assert close(after.codes["ws"], expected) and seen == [(1, 1)]
    back = Direction("young", -2.0)(generator, latent)
    assert close(
        back.codes["ws"], latent.codes["ws"] - 2 * 3.0 * found.units["young"]["ws"], atol=1e-5
    )
    one = Direction("young", 1.0, layers="1")(generator, latent).codes["ws"] - latent.codes["ws"]
    assert one[:, 0].abs().max() == 0
    assert close(one[:, 1], 3 * found.units["young"]["ws"].expand(2, -1), atol=1e-5)
    none = Direction("young", 1.0, layers="0-1")(generator, latent)
    assert close(none.codes["ws"], latent.codes["ws"] + 3 * found.units["young"]["ws"])
    assert (Direction().name, Direction().strength, Direction().release) == ("smiling", 2.0, 1.0)
    for wrong, told in (("2", "0 to 1"), ("1-0", "0 to 1"), ("x", "like 0-5,8"), ("-1", "like")):
        with pytest.raises(OptionError, match=told):
            Direction("young", layers=wrong)(generator, latent)


def test_a_move_takes_tuning_back_where_it_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = Painter().requires_grad_(False)
    found = record(generator)
    monkeypatch.setattr(direction, "directions_for", lambda _: found)
    asked: list[Any] = []

    def release(generator: Any, after: Latent, mask: Tensor, share: float) -> Latent:
        asked.append((after, mask, share))
        return after

    def moved(generator: Any, before: Latent, after: Latent) -> Tensor:
        asked.append((before, after))
        return torch.ones(1)

    monkeypatch.setattr(direction, "fade_tuning", release)
    monkeypatch.setattr(direction, "changed_area", moved)
    box = latents.Composite(torch.zeros(2, 3, 8, 8), torch.zeros(2, 1, 8, 8))
    latent = faces(generator, tuned={"planes.colours": torch.ones(2, 3, 8, 8)}, composite=box)
    after = Direction("young", 1.0, release=0.4)(generator, latent)
    (before, there), (whose, _, share) = asked
    assert before is latent and torch.equal(there.codes["ws"], after.codes["ws"])
    assert torch.equal(whose.codes["ws"], after.codes["ws"]) and share == 0.4
    assert after.composite is None
    still = Direction("young", 0.0)(generator, latent)
    Direction("young", 1.0, release=0.0)(generator, latent)
    Direction("young", 1.0)(generator, faces(generator, tuned={"gain": torch.zeros(2, 3, 1, 1)}))
    assert len(asked) == 2 and still.composite is box


def test_moves_of_regions_and_of_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """One fitted to the region counts before the region's part of the whole one."""
    generator = Painter()
    generator.traits |= {"regions"}
    generator.regions = ("skin", "hair", "nose")
    generator.covering = lambda names: tuple(names)  # type: ignore[method-assign]
    units = {name: {"ws": numbers(3, 4, 5, seed=i)} for i, name in enumerate(("a", "b", "a@hair"))}
    found = Directions(units, "painter", "", {name: {"deviation": 2.0} for name in units})
    monkeypatch.setattr(direction, "directions_for", lambda _: found)
    face = Latent({"ws": numbers(2, 3, 4, 5, seed=9)}, torch.zeros(2, 25), "painter", "", "x")

    def move(name: str, region: str, **options: Any) -> Tensor:
        after = Direction(name, 1.5, region, **options)(generator, face)
        return (after.codes["ws"] - face.codes["ws"]) / 3

    assert close(move("a", "hair"), units["a@hair"]["ws"].expand(2, -1, -1, -1))
    part = move("b", "hair, nose", layers="1-2")
    expected = torch.zeros(2, 3, 4, 5)
    expected[:, 1:, 1:3] = units["b"]["ws"][1:, 1:3]
    assert close(part, expected)
    asked: list[Any] = []

    def read(source: Any) -> Directions:
        asked.append(source)
        return found

    monkeypatch.setattr(direction, "read_directions", read)
    monkeypatch.setattr(direction, "require_made_for", lambda *given: asked.append(given))
    for source, given in (("x.safetensors", Path("x.safetensors")), ("x", "x")):
        asked.clear()
        move("a", "", directions=source)
        assert asked == [given, (found, generator, Path(source))]


def test_layers_of_codes_with_regions() -> None:
    move = numbers(3, 4, 5)  # regions, layers
    found = Direction(layers="1-2")._chosen(move, regions=True)
    assert found[:, [0, 3]].abs().max() == 0 and torch.equal(found[:, 1:3], move[:, 1:3])
    found = Direction(layers="0,2")._chosen(move)
    assert torch.equal(found[[0, 2]], move[[0, 2]]) and found[1].abs().max() == 0


# --- published -------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("rows", [1, 3])
def test_how_far_codes_lie_along_a_published_direction(layers: int, rows: int) -> None:
    """Of W+ codes of three layers, however codes and direction are kept."""
    ws, unit = numbers(6, layers, 5), numbers(rows, 5, seed=1)
    found = published._along(ws, unit)
    for i in range(6):
        whole = 0.0
        for layer in range(3):
            code, way = ws[i, layer % layers], unit[layer % rows]
            whole += sum(float(a) * float(b) for a, b in zip(code, way, strict=True))
        # A direction of one row is of unit length in one layer: the mean of the three counts.
        assert float(found[i]) == pytest.approx(whole / (3 if rows == 1 else 1), rel=1e-4)


def test_a_published_direction_is_measured_over_samples(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    generator = Painter()
    ws = numbers(40, 2, 304, seed=3)
    asked: list[Any] = []

    def sample(*given: Any, **options: Any) -> Any:
        asked.append((given, options))
        return {"ws": ws}, torch.zeros(40, 0)

    monkeypatch.setattr(published, "sample", sample)
    value = 5 * numbers(1, 2, 304, seed=4)
    path = tmp_path / "smile.npy"
    np.save(path, value.numpy())
    found = published.import_directions(generator, path, samples=40)
    assert asked == [((generator, 40), {"batch": 500})]
    unit = found.units["smile"]["ws"]
    assert close(unit, value[0] / value.norm())
    along = torch.einsum("nlw,lw->n", ws, value[0] / value.norm())
    figures = found.figures["smile"]
    assert figures["samples"] == 40
    assert figures["deviation"] == pytest.approx(float(along.std()), rel=1e-4)
    assert (found.generator, found.fingerprint) == ("painter", latents.fingerprint(generator))
    published.import_directions(generator, path)
    assert asked[1][0][1] == 10_000
    assert list(published.import_directions(generator, path, "other").units) == ["other"]
    generator.mean_codes = lambda: {"ws": torch.zeros(1, 304)}  # type: ignore[method-assign]
    with pytest.raises(TraitError):
        published.import_directions(generator, path)


@pytest.mark.parametrize(
    ("shape", "fits"),
    [
        ((4,), True), ((1, 4), True), ((3, 4), True), ((1, 3, 4), True), ((12,), True),
        ((1, 12), True), ((4, 3), False), ((2, 6), False), ((2, 2), False), ((8,), False),
        ((), False), ((3, 3, 4), False),
    ],
)  # fmt: skip
def test_shapes_of_published_directions(shape: tuple[int, ...], fits: bool) -> None:
    value = torch.arange(math.prod(shape)).view(shape).float()
    found = published._rows(value, (1, 3, 4))
    if not fits:
        assert found is None
    else:
        assert found is not None
        assert torch.equal(found, value.reshape(value.numel() // 4, 4))


def test_what_a_published_file_holds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Components by number, a direction beside its bias, no code of a face."""
    line = torch.arange(1.0, 5)
    arrays: dict[str, Tensor] = {}
    monkeypatch.setattr(published, "read_arrays", lambda path: arrays)
    path = tmp_path / "file.npz"

    def read(key: str | None = None) -> list[tuple[str, Tensor]]:
        return published._read(path, "smile", key, (1, 3, 4))

    arrays |= {"comp": torch.stack([line, -line]).view(2, 1, 4), "std": torch.ones(2)}
    parts = read()
    assert [name for name, _ in parts] == ["smile-00", "smile-01"]
    assert torch.equal(parts[0][1], line[None]) and torch.equal(parts[1][1], -line[None])
    ((name, value),) = read("std")
    assert name == "smile" and value is arrays["std"]
    arrays.clear()
    arrays |= {"bias": torch.ones(1), "boundary": line, "number": torch.ones(4, dtype=torch.int64)}
    ((name, value),) = read()
    assert name == "smile" and value is arrays["boundary"]
    arrays["other"] = -line
    with pytest.raises(InputError):
        read()
    assert read("other")[0][1] is arrays["other"]
    arrays.clear()
    arrays["w"] = torch.ones(1, 3, 4)
    with pytest.raises(InputError):
        read()
    assert read("w")[0][1] is arrays["w"]
    path = path.with_suffix(".pt")
    assert read()[0][1] is arrays["w"]
    arrays["w"] = torch.ones(3, 4)
    path = path.with_suffix(".npz")
    assert read()[0][1] is arrays["w"]
    arrays["w"] = torch.ones(4, dtype=torch.int64)
    with pytest.raises(InputError, match=r"file.npz: w holds int64"):
        read()
    for wrong in (torch.zeros(304), torch.full((304,), torch.nan), torch.ones(4)):
        with pytest.raises((InputError, LatentError)):
            published._fitted(wrong, Painter(), path)
    half = published._fitted(torch.ones(304).half(), Painter(), path)
    assert half.dtype == torch.float32 and half.shape == (1, 304)


def test_boundaries_of_other_spaces_are_known(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    digest = ""
    monkeypatch.setattr(published.weights, "file_sha256", lambda path: digest)

    def refused(name: str) -> str:
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(LatentError) as error:
            published._refuse_foreign(tmp_path / name, Painter())
        return str(error.value)

    assert "PGGAN CELEBAHQ" in refused("pggan_celebahq_smile_boundary.npy")
    assert "StyleGAN (2019) FFHQ" in refused("StyleGAN_ffhq_age_w_boundary.npy")
    (tmp_path / "mine.npy").write_bytes(b"")
    published._refuse_foreign(tmp_path / "mine.npy", Painter())
    digest = next(iter(published.FOREIGN_SHA256))
    assert "StyleGAN (2019) FFHQ" in refused("mine.npy")
    with pytest.raises(InputError):
        published._refuse_foreign(tmp_path / "none.npy", Painter())
