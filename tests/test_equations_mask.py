"""Editing by label map (equation 8) and by another face (equation 9): every term written out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import formulas
import pytest
import torch
from descents import Descents, falls, slope_along
from formulas import close
from tiny import Painter, Pixels
from torch import Tensor, nn

from semedit import cameras, latents, losses
from semedit.directions.directions import Directions
from semedit.editors import Mask, Swap, Transfer
from semedit.editors.parts import codes as agree
from semedit.editors.parts import starts
from semedit.editors.parts import tuned as release
from semedit.editors.parts.composites import keep_outside
from semedit.editors.parts.tones import Tones
from semedit.errors import MaskError
from semedit.faces import networks
from semedit.inverters.codes import spread
from semedit.latents import Latent
from semedit.media.labels import REGIONS

SKIN, HAIR, NOSE = (REGIONS[name][0] for name in ("skin", "hair", "nose"))


class Parser(nn.Module):
    """Labels that follow a pixel's colour, and the whole picture's."""

    def forward(self, images: Tensor) -> Any:
        mix = torch.randn(19, 3, generator=torch.Generator().manual_seed(4))
        return SimpleNamespace(
            seg=torch.einsum("kc,nchw->nkhw", mix, images + images.mean((2, 3), True))
        )


@pytest.fixture(autouse=True)
def networks_of_tests(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(networks, "load", lambda name, device="cpu": Parser())
    monkeypatch.setattr(losses, "perceptual", lambda name, device: {"auto": Pixels}[name]())
    yield


@pytest.fixture
def descents(monkeypatch: pytest.MonkeyPatch) -> Descents:
    found = Descents()
    monkeypatch.setattr(agree, "descend", found)
    return found


@pytest.fixture
def generator() -> Painter:
    return Painter().requires_grad_(False)


def faces(generator: Painter, n: int = 2, seed: int = 0, **options: Any) -> Latent:
    ws = 0.5 * torch.randn(n, 2, 304, generator=torch.Generator().manual_seed(seed))
    c = cameras.orbit(torch.linspace(-0.2, 0.3, n), torch.zeros(n))
    return Latent({"ws": ws}, c, "painter", latents.fingerprint(generator), "hybrid", **options)


def maps() -> tuple[Tensor, Tensor]:
    """Own labels and drawn ones of two faces: hair grows down over skin on one side."""
    labels = torch.full((2, 8, 8), SKIN)
    labels[:, :2] = HAIR
    edited = labels.clone()
    edited[0, 2:6, :4] = HAIR
    edited[1, 2:6, 4:] = HAIR
    return labels, edited


MASK: dict[str, Any] = {
    "label_weight": 3.0, "image_weight": 5.0, "perceptual_weight": 0.7, "parse_weight": 1.1,
    "region_weight": 2.5, "tone_weight": 4.0, "prior_weight": 0.3, "grow": 12.5, "soft": 10.0,
    "steps": 7, "lr": 0.11,
}  # fmt: skip
OFF = ("label_weight", "image_weight", "perceptual_weight", "parse_weight", "tone_weight")


def parsed(image: Tensor, before: Tensor, labels: Tensor, r: Tensor) -> float:
    """Cross-entropy of what the parser sees in the picture that is kept outside r, per r."""
    seg = Parser()(image.detach() * r + before * (1 - r)).seg
    return float(formulas.label_entropy(seg, labels, r) / r.mean())


def equation_8(
    method: Mask, image: Tensor, seg: Tensor, before: Tensor, labels: Tensor, edited: Tensor,
    r: Tensor, leaf: Tensor,
) -> float:  # fmt: skip
    more = formulas.half(1 + (method.region_weight - 1) * r)
    keep = 1 - r
    terms = (
        (method.label_weight, formulas.label_squares(seg, edited[:, ::2, ::2], more)),
        (method.image_weight, formulas.masked_squares(image, before, keep)),
        (method.perceptual_weight, formulas.pixel_distance(image * keep, before * keep)),
        (method.parse_weight, parsed(image, before, edited, r)),
        (method.tone_weight, formulas.tones(image, before, labels, edited, r)),
        (method.prior_weight, leaf.square().mean()),
    )
    return sum(weight * float(value) for weight, value in terms)


def grown(r: Tensor) -> Tensor:
    """By a pixel in every direction."""
    wide = torch.zeros_like(r)
    for n, _, y, x in torch.nonzero(r).tolist():
        wide[n, 0, max(0, y - 1) : y + 2, max(0, x - 1) : x + 2] = 1
    return wide


@pytest.mark.parametrize("off", ["", *OFF])
def test_equation_8_term_by_term(generator: Painter, descents: Descents, off: str) -> None:
    latent, (labels, edited) = faces(generator), maps()
    method = Mask(**{**MASK, **({off: 0.0} if off else {})}, search=False)
    before = latents.picture(generator, latent).image
    told: list[tuple[int, int]] = []
    after = method(generator, latent, edited, labels, lambda *at: told.append(at))
    assert told == [(i + 1, 14) for i in range(14)]
    r = grown((labels != edited).float()[:, None])
    seen = [generator.encode(before, x, latent.c)["ws"] for x in (edited, labels)]
    start = latent.codes["ws"] + seen[0] - seen[1]
    scale = spread(generator, latent.c)["ws"]
    assert len(descents.calls) == 2
    for i, call in enumerate(descents.calls):
        row = slice(i, i + 1)
        assert (call["steps"], call["lr"], call["rates"]) == (7, 0.11, [1.0])
        (leaf,) = descents.shaken(call)
        drawn = generator.synthesis({"ws": start[row] + scale * leaf}, latent.c[row])
        expected = equation_8(
            method, drawn.image, drawn.seg, before[row], labels[row], edited[row], r[row], leaf
        )
        assert float(call["loss"]()) == pytest.approx(expected, rel=1e-4)
        assert falls(call["loss"], call["parameters"])
    assert after.meta["region"] == [round(float(v), 4) for v in r.mean((1, 2, 3))]
    assert after.meta["perceptual"] == "pixels" and after.meta["composited"]
    soft = losses.feather(r, 0.8) * r
    assert close(after.composite.mask, soft)
    assert torch.equal(after.composite.image, before)
    assert after.method == "hybrid+mask"


def test_the_picture_before_is_no_part_of_the_descent(descents: Descents) -> None:
    generator, (labels, edited) = Painter(), maps()
    latent = faces(generator)
    options = {**MASK, "steps": 0, "start": "current"}
    Mask(**options, search=False)(generator, latent, edited, labels)
    donor, _ = donor_labels(generator)
    Transfer(**options)(generator, latent, donor, labels)
    for call in descents.calls:
        by_autograd, by_steps = slope_along(call["loss"], generator.gain)
        assert by_autograd == pytest.approx(by_steps, rel=2e-2)


@pytest.mark.parametrize("which", ["mask", "transfer"])
def test_tuning_is_taken_back_inside_the_region(
    generator: Painter, descents: Descents, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    asked: list[tuple[Any, ...]] = []

    def spy(*given: Any) -> Latent:
        asked.append(given)
        return given[1]

    monkeypatch.setattr(f"semedit.editors.{which}.fade_tuning", spy)
    latent, (labels, edited) = faces(generator), maps()
    if which == "mask":
        Mask(**MASK, release=0.3)(generator, latent, edited, labels)
        r = (labels != edited).float()[:, None]
    else:
        donor, theirs = donor_labels(generator)
        Transfer(**MASK, release=0.3)(generator, latent, donor, labels)
        r = ((labels == HAIR) | (theirs == HAIR)).float()[:, None]
    ((first, face, mask, share),) = asked
    assert first is generator and face is latent and share == 0.3
    assert torch.equal(mask, grown(r))


def test_where_an_edit_by_label_map_starts(generator: Painter, descents: Descents) -> None:
    latent, (labels, edited) = faces(generator), maps()
    after = Mask(**MASK, start="current", composite=False)(generator, latent, edited, labels)
    assert torch.equal(after.codes["ws"], latent.codes["ws"]) and after.composite is None
    generator.traits = frozenset({"seg", "camera"})
    after = Mask(**MASK)(generator, latent, edited, labels)
    assert torch.equal(after.codes["ws"], latent.codes["ws"])
    with pytest.raises(MaskError):
        Mask()(generator, latent, labels, labels)
    with pytest.raises(MaskError):  # one of two faces
        Mask()(generator, latent, torch.cat([edited[:1], labels[1:]]), labels)


def test_defaults_of_equations_8_and_9() -> None:
    eight, nine = Mask(), Transfer()
    for method in (eight, nine):
        assert (method.label_weight, method.image_weight) == (4.0, 30.0)
        assert (method.perceptual_weight, method.parse_weight) == (0.5, 0.5)
        assert (method.region_weight, method.tone_weight, method.prior_weight) == (4.0, 5.0, 0.01)
        assert (method.steps, method.grow, method.soft, method.release) == (40, 2.0, 1.0, 1.0)
        assert method.start == "encoder" and method.composite
    assert (eight.lr, nine.lr, eight.search) == (0.05, 0.2, True)


def test_the_first_picture_and_tuned_weights_are_not_drawn_on(
    generator: Painter, descents: Descents
) -> None:
    """What was tuned of the weights descends along, slowly, and from where it was."""
    tuned = {"gain": torch.tensor([[0.2, -0.1, 0.3], [0.0, 0.1, 0.0]]).view(2, 3, 1, 1).half()}
    latent, (labels, edited) = faces(generator, tuned=tuned), maps()
    method = Mask(**{**MASK, "perceptual_weight": 0.0, "parse_weight": 0.0, "tone_weight": 0.0})
    before = latents.picture(generator, latent).image
    after = method(generator, latent, edited, labels)
    r = grown((labels != edited).float()[:, None])
    seen = [generator.encode(before, x, latent.c)["ws"] for x in (edited, labels)]
    start = latent.codes["ws"] + seen[0] - seen[1]
    scale = spread(generator, latent.c)["ws"]
    for i, call in enumerate(descents.calls):
        assert call["rates"] == [1.0, 4e-3]
        offset, gain = call["parameters"]
        assert torch.equal(gain.detach(), tuned["gain"][i : i + 1].float())
        offset, gain = descents.shaken(call)
        ws = start[i : i + 1] + scale * offset
        shade = 0.5 * latent.c[i, 2]
        image = (1 + gain) * (ws[:, 1, :192].view(1, 3, 8, 8) + shade)
        expected = equation_8(
            method, image, ws[:, 0].view(1, 19, 4, 4), before[i : i + 1], labels[i : i + 1],
            edited[i : i + 1], r[i : i + 1], offset,
        )  # fmt: skip
        assert float(call["loss"]()) == pytest.approx(expected, rel=1e-4)
    assert after.tuned["gain"].dtype == torch.float16
    assert torch.equal(after.tuned["gain"], tuned["gain"])  # nothing moved, nothing changed
    assert not after.codes["ws"].requires_grad


def test_what_is_added_to_planes_and_noise_holds(generator: Painter, descents: Descents) -> None:
    tuned = {"planes.colours": 0.1 * torch.ones(1, 3, 8, 8), "gain": torch.zeros(1, 3, 1, 1)}
    face = faces(generator, 1, tuned=tuned, meta={"a": 1})
    scale = spread(generator, face.c)
    done = []

    def loss(output: Any) -> Tensor:
        return output.image.square().flatten(1).mean(1)

    after = agree.descend_codes(
        generator, face, face.codes, scale, loss, 3, 0.2, 2.0, lambda: done.append(1)
    )
    (call,) = descents.calls
    assert len(call["parameters"]) == 2 and call["progress"] is not None
    shade = 0.5 * face.c[0, 2]
    whole = (face.codes["ws"][:, 1, :192].view(1, 3, 8, 8) + 0.1 + shade).square().mean()
    assert float(call["loss"]()) == pytest.approx(float(whole), rel=1e-4)
    assert torch.equal(after.tuned["planes.colours"], tuned["planes.colours"])
    assert after.meta == {"a": 1, "diverged": False} and after.composite is None


# --- tones -----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [16, 40])
def test_tones_by_hand(size: int) -> None:
    numbers = torch.Generator().manual_seed(size)
    image, before = torch.randn(2, 1, 3, size, size, generator=numbers)
    own = torch.randint(0, 4, (1, size, size), generator=numbers)
    own[0, 0, :11] = 7  # 11 pixels tell no colour, 12 do
    own[0, 1, :12] = 8
    drawn = torch.randint(0, 9, (1, size, size), generator=numbers)
    where = (torch.rand(1, 1, size, size, generator=numbers) < 0.3).float()
    where[..., :2, :12] = 0
    assert ((own == 7).sum(), (own == 8).sum()) == (11, 12)
    leaf = image.clone().requires_grad_()
    term = Tones(before, own, drawn, where)
    assert float(term(leaf)) == pytest.approx(
        formulas.tones(image, before, own, drawn, where), rel=1e-4
    )
    assert falls(lambda: term(leaf), [leaf])
    assert term(image).shape == (1,)
    assert float(Tones(before, own, drawn, torch.zeros_like(where))(image)) == 0


# --- starts along directions -----------------------------------------------------------------


def directions_of(generator: Painter) -> Directions:
    numbers = torch.Generator().manual_seed(8)
    units = {name: {"ws": torch.randn(2, 304, generator=numbers)} for name in ("smiling", "young")}
    units = {k: {"ws": v["ws"] / v["ws"].norm()} for k, v in units.items()}
    figures = {"smiling": {"deviation": 2.0}, "young": {"deviation": 0.5}}
    return Directions(units, "painter", latents.fingerprint(generator), figures)


def test_the_strength_that_costs_least(generator: Painter, monkeypatch: pytest.MonkeyPatch) -> None:
    found, face = directions_of(generator), faces(generator, 1)
    monkeypatch.setattr(starts, "directions_for", lambda _: found)
    start = {"ws": face.codes["ws"] + 1.0}
    goal = start["ws"] - 2.1 * found.move("smiling")["ws"] + 1.2 * found.move("young")["ws"]
    target = generator.synthesis({"ws": goal}, face.c)

    def loss(output: Any) -> Tensor:
        away = (output.image - target.image).square().sum() + (
            output.seg - target.seg
        ).square().sum()
        return away[None]

    near = starts.nearest_start(generator, face, start, ["bald", "smiling", "young"], loss)
    expected = start["ws"] - 2 * found.move("smiling")["ws"] + found.move("young")["ws"]
    assert close(near["ws"], expected, atol=1e-5)
    assert starts.STRENGTHS == (-3.0, -2.0, -1.0, 1.0, 2.0, 3.0)
    stays = starts.nearest_start(generator, face, {"ws": goal}, ["smiling", "young"], loss)
    assert torch.equal(stays["ws"], goal)


def test_a_mask_edit_seeks_its_start_by_its_own_loss(
    generator: Painter, descents: Descents, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Any, ...]] = []

    def nearer(generator: Any, face: Latent, start: Any, names: list[str], loss: Any) -> Any:
        seen.append((face, start, names, loss(generator.synthesis(start, face.c))))
        return {"ws": start["ws"] + 1}

    monkeypatch.setattr("semedit.editors.mask.nearest_start", nearer)
    latent, (labels, edited) = faces(generator), maps()
    method = Mask(**MASK)
    after = method(generator, latent, edited, labels)
    before = latents.picture(generator, latent).image
    r = grown((labels != edited).float()[:, None])
    for i, (_, start, names, value) in enumerate(seen):
        row = slice(i, i + 1)
        assert names == starts.drawn_attributes(labels[i], edited[i]) and "bald" in names
        assert torch.equal(after.codes["ws"][row], start["ws"] + 1)
        drawn = generator.synthesis(start, latent.c[row])
        expected = equation_8(
            method, drawn.image, drawn.seg, before[row], labels[row], edited[row], r[row],
            torch.zeros(1),
        )  # fmt: skip
        assert float(value) == pytest.approx(expected, rel=1e-4)


def test_attributes_of_what_was_drawn() -> None:
    labels = torch.full((20, 20), SKIN)
    labels[:10] = HAIR
    drawn = labels.clone()
    drawn[10, :15] = HAIR  # 15 of 215: too little
    assert "bald" not in starts.drawn_attributes(labels, drawn)
    drawn[10:12] = HAIR  # 40 of 240
    assert "bald" in starts.drawn_attributes(labels, drawn)
    assert "bald" in starts.drawn_attributes(drawn, labels)
    assert "big_nose" not in starts.drawn_attributes(labels, drawn)
    drawn[10:12] = SKIN
    drawn[10:11, :8], drawn[9:10, :12] = HAIR, SKIN  # 20 of 208, both ways
    assert "bald" not in starts.drawn_attributes(labels, drawn)


# --- release and enclose ---------------------------------------------------------------------


def test_tuning_fades_by_its_share_of_the_masked_derivatives(generator: Painter) -> None:
    """Painter's colours answer for one pixel each: what is masked goes, the rest stays."""
    added = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    face = faces(generator, tuned={"planes.colours": added, "gain": torch.zeros(2, 3, 1, 1)})
    mask = torch.zeros(2, 1, 8, 8)
    mask[:, :, :3], mask[:, :, 3] = 1, 0.5
    for share in (1.0, 0.25):
        after = release.fade_tuning(generator, face, mask, share)
        part = mask**2 / (mask**2 + (1 - mask) ** 2)
        assert close(after.tuned["planes.colours"], added * (1 - share * part), atol=1e-6)
        assert torch.equal(after.tuned["gain"], face.tuned["gain"])
    assert release.fade_tuning(generator, face, mask, 0.0) is face
    unseen = {"planes.labels": torch.ones(2, 19, 4, 4), **face.tuned}  # no pixel is of them
    after = release.fade_tuning(generator, replace(face, tuned=unseen), mask)
    assert torch.equal(after.tuned["planes.labels"], unseen["planes.labels"])
    bare = faces(generator)
    assert release.fade_tuning(generator, bare, mask) is bare


class Mixed(nn.Module):
    """Every pixel of 4 x 4 reads every place of the planes, in either layout."""

    resolution = 4

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        numbers = torch.Generator().manual_seed(1)
        self.shape = shape
        size = int(torch.tensor(shape).prod())
        matrix = torch.randn(size, 48, generator=numbers)
        self.matrix = matrix * (torch.rand(size, 48, generator=numbers) < 0.2)

    def planes(self, codes: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"x": torch.zeros(1, *self.shape)}

    def render(self, planes: dict[str, Tensor], c: Tensor) -> Any:
        return SimpleNamespace(image=(planes["x"].flatten(1) @ self.matrix).view(-1, 3, 4, 4))


@pytest.mark.parametrize("shape", [(4, 2, 2), (3, 2, 2, 5)])
def test_released_shares_by_the_jacobian(shape: tuple[int, ...]) -> None:
    generator = Mixed(shape)
    added = torch.randn(1, *shape, generator=torch.Generator().manual_seed(2))
    mask = torch.rand(1, 1, 4, 4, generator=torch.Generator().manual_seed(3))
    face = Latent({}, torch.zeros(1, 25), "mixed", "", "x", {"planes.x": added.clone()})
    after = release.fade_tuning(generator, face, mask, 0.8)
    numbers, reach = torch.Generator().manual_seed(0), []
    signs = [
        1 - 2 * (torch.randint(0, 2, (1, 3, 4, 4), generator=numbers) == 0).float() for _ in "ab"
    ]
    for part in (mask, 1 - mask):
        squares = sum((generator.matrix @ (s * part).flatten()) ** 2 for s in signs)
        reach.append(squares.view(1, *shape).sum(1 if len(shape) == 3 else -1, keepdim=True))
    expected = added * (1 - 0.8 * reach[0] / (reach[0] + reach[1]).clamp(min=1e-12))
    assert close(after.tuned["planes.x"], expected)
    assert not face.tuned["planes.x"].requires_grad and release.PROBES == 2


def test_where_a_large_edit_shows() -> None:
    """At 128 pixels blurs are of 2, growth is of 2, and a change counts from 6 % on."""

    class Shows:
        @staticmethod
        def synthesis(codes: dict[str, Tensor], c: Tensor) -> Any:
            return SimpleNamespace(image=codes["x"])

    image = torch.zeros(2, 1, 3, 128, 128)
    image[1, :, :, 20:40, 20:40] = -9.0  # counts as the whole range
    image[1, :, :, 80:120, 80:120] = 0.16
    image[1, :, :, 80:120, 20:40] = 0.09
    before, after = (Latent({"x": x}, torch.zeros(1, 25), "", "", "") for x in image)
    change = torch.zeros(1, 1, 128, 128)
    change[..., 20:40, 20:40], change[..., 80:120, 80:120] = 1.0, 0.08
    change[..., 80:120, 20:40] = 0.045
    spot = (losses.feather(change, 2.0) > 0.06).float()
    assert close(
        release.changed_area(Shows, before, after), losses.feather(losses.dilate(spot, 2), 2.0)
    )


def test_where_an_edit_shows(generator: Painter) -> None:
    before = faces(generator)
    after = faces(generator)
    pixels = after.codes["ws"][:, 1, :192].view(2, 3, 8, 8)
    pixels[0, :, 2, 2] += torch.tensor([1.0, -1.0, 4.0])  # beyond the range: counts as 2
    pixels[1, :, 5, 5] += 0.05
    found = release.changed_area(generator, before, after)
    change = torch.zeros(2, 1, 8, 8)
    change[0, 0, 2, 2], change[1, 0, 5, 5] = (1 + 1 + 2) / 3 / 2, 0.025
    spot = (losses.feather(change, 8 / 64) > 0.06).float()
    assert spot[0].sum() == 1 and spot[1].sum() == 0
    assert close(found, losses.feather(spot, 8 / 64), atol=1e-6)
    wide = release.changed_area(generator, before, after, threshold=0.01)
    assert wide[1].max() > 0.9


def test_enclosed_pixels_are_those_before(generator: Painter) -> None:
    latent = faces(generator)
    mask = torch.zeros(2, 1, 8, 8)
    mask[..., 2:6, 2:6] = 1
    image = torch.rand(2, 3, 8, 8).requires_grad_()
    after = keep_outside(latent, image, mask, 1.0)
    assert torch.equal(after.composite.mask, losses.feather(mask, 1.0) * mask)
    assert not after.composite.image.requires_grad
    shown = latents.picture(generator, after).image
    assert torch.equal(
        shown[mask.expand_as(shown) == 0], image.detach()[mask.expand_as(image) == 0]
    )


# --- equation 9 ------------------------------------------------------------------------------


TRANSFER: dict[str, Any] = {k: v for k, v in MASK.items() if k != "search"}


def donor_labels(generator: Painter) -> tuple[Latent, Tensor]:
    """A donor whose label map is known: hair over the upper half."""
    labels = torch.full((1, 8, 8), SKIN)
    labels[:, :4] = HAIR
    labels[:, 6:, 6:] = NOSE
    donor = faces(generator, 1, seed=5)
    ws = donor.codes["ws"].clone()
    ws[:, 0] = generator.encode(torch.zeros(1, 3, 8, 8), labels, donor.c)["ws"][:, 0]
    return Latent({"ws": ws}, donor.c, "painter", donor.fingerprint, "hybrid"), labels


@pytest.mark.parametrize("colours", ["regions", "all"])
def test_equation_9_term_by_term(generator: Painter, descents: Descents, colours: str) -> None:
    latent, (_, labels) = faces(generator), maps()
    donor, theirs = donor_labels(generator)
    method = Transfer(**TRANSFER, colours=colours)
    before = latents.picture(generator, latent).image
    given = torch.cat([generator.synthesis(donor.codes, latent.c[i : i + 1]).image for i in (0, 1)])
    told: list[tuple[int, int]] = []
    after = method(generator, latent, donor, labels, lambda *at: told.append(at))
    assert told == [(i + 1, 14) for i in range(14)]
    hair = (labels == HAIR)[:, None].float()
    their = (theirs == HAIR)[:, None].float().expand(2, -1, -1, -1)
    r = ((hair + their) > 0).float()
    near, coloured = grown(r), (r if colours == "all" else their)
    mixed = torch.where(r > 0, given, before)
    wanted = torch.where(r[:, 0] > 0, theirs, labels)
    seen = generator.encode(mixed, wanted, latent.c)["ws"]
    own = generator.encode(before, labels, latent.c)["ws"]
    start, scale = latent.codes["ws"] + seen - own, spread(generator, latent.c)["ws"]
    assert len(descents.calls) == 2
    for i, call in enumerate(descents.calls):
        row = slice(i, i + 1)
        (leaf,) = descents.shaken(call)
        drawn = generator.synthesis({"ws": start[row] + scale * leaf}, latent.c[row])
        image, labelled = drawn.image, wanted[row, ::2, ::2]
        kept, more = 1 - near[row], coloured[row]
        source = (
            method.label_weight
            * formulas.label_squares(drawn.seg, labelled, formulas.half(1 - r[row]))
            + method.image_weight * formulas.masked_squares(image, before[row], kept)
            + method.perceptual_weight * formulas.pixel_distance(image * kept, before[row] * kept)
        )
        donors = (
            method.label_weight * formulas.label_squares(drawn.seg, labelled, formulas.half(r[row]))
            + method.image_weight * formulas.masked_squares(image, given[row], more)
            + method.perceptual_weight * formulas.pixel_distance(image * more, given[row] * more)
        )
        bare = near[row] * (1 - coloured[row])
        expected = (
            float(source + method.region_weight * donors)
            + method.parse_weight * parsed(image, mixed[row], wanted[row], near[row])
            + method.tone_weight
            * formulas.tones(image, before[row], labels[row], wanted[row], bare)
            + method.prior_weight * float(leaf.square().mean())
        )
        assert float(call["loss"]()) == pytest.approx(expected, rel=1e-4)
        assert (call["steps"], call["lr"]) == (7, 0.11)
        assert falls(call["loss"], call["parameters"])
    assert after.meta["region"] == [round(float(v), 4) for v in near.mean((1, 2, 3))]
    assert close(after.composite.mask, losses.feather(near, 0.8) * near)
    assert torch.equal(after.composite.image, before)


def test_terms_of_equation_9_without_weight_are_left_out(generator: Painter) -> None:
    image, donor = torch.rand(2, 2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    labels, theirs = maps()
    method = Transfer(
        label_weight=0.0, image_weight=0.0, perceptual_weight=0.0, parse_weight=0.0, tone_weight=0.0
    )
    both = method.exchange(image, labels, donor, theirs)
    output = generator.synthesis(faces(generator).codes, faces(generator).c)
    assert method.loss(both.row(0), Pixels())(output).tolist() == [0.0, 0.0]


def test_a_donor_is_seen_by_the_faces_cameras(
    generator: Painter, descents: Descents, monkeypatch: pytest.MonkeyPatch
) -> None:
    donor, theirs = donor_labels(generator)
    c = faces(generator).c
    image, labels = Transfer.__call__.__globals__["seen_by"](generator, donor, c)
    assert torch.equal(labels, theirs.expand(2, -1, -1))
    for i in (0, 1):
        assert torch.equal(image[i], generator.synthesis(donor.codes, c[i : i + 1]).image[0])
    generator.traits = frozenset({"seg"})
    image, _ = Transfer.__call__.__globals__["seen_by"](generator, donor, c)
    own = generator.synthesis(donor.codes, donor.c).image
    assert torch.equal(image, own.expand(2, -1, -1, -1))
    latent, (_, labels) = faces(generator), maps()
    after = Transfer(**TRANSFER)(generator, latent, donor, labels)  # without an encoder
    assert torch.equal(after.codes["ws"], latent.codes["ws"])
    after = Transfer(**TRANSFER, composite=False)(generator, latent, donor, labels)
    assert after.composite is None


def test_donors_codes_of_regions_are_exchanged(
    generator: Painter, descents: Descents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Swap, and where transfer starts: the donor's codes of the regions, the face's others."""
    asked: list[tuple[Any, ...]] = []

    def borrow(codes: Any, others: Any, names: Any, part: str = "both") -> dict[str, Tensor]:
        asked.append((names, part))
        return {"ws": codes["ws"] - 2 * others["ws"]}

    generator.borrow = borrow
    generator.traits |= {"regions", "borrow"}
    latent, (_, labels) = faces(generator), maps()
    labels[0, 7, 7] = HAIR  # 33 of 64 pixels: shares have four digits
    donor, _ = donor_labels(generator)
    latent.codes["ws"].requires_grad_()
    told: list[tuple[int, int]] = []
    after = Swap(part="shape")(generator, latent, donor, labels, lambda *at: told.append(at))
    assert torch.equal(after.codes["ws"], latent.codes["ws"] - 2 * donor.codes["ws"])
    assert asked == [(("hair", "hat"), "shape")] and told == [(1, 1)]
    share = (labels == HAIR).float().mean((1, 2))
    assert after.meta["region"] == [round(float(v), 4) for v in share] == [0.5156, 0.5]
    assert not after.codes["ws"].requires_grad
    after = Transfer(**TRANSFER)(generator, latent, donor, labels)
    assert torch.equal(after.codes["ws"], latent.codes["ws"] - 2 * donor.codes["ws"])
    assert asked[-1] == (("hair", "hat"), "both")
