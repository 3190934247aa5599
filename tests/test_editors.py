"""Contracts of every editor, and what each one promises, on a tiny random generator."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import TinyFaceNet, TinyGenerator
from torch import Tensor

from semedit import latents, losses, metrics
from semedit.directions import fitting
from semedit.directions.directions import read_directions
from semedit.editors import EDITORS, Direction, Fast, Mask, Pernus, Transfer, fast
from semedit.editors.parts import starts
from semedit.editors.parts.attribute_regions import ATTRIBUTE_REGIONS, attribute_region
from semedit.editors.parts.codes import descend_codes
from semedit.editors.parts.tones import Tones
from semedit.editors.parts.tuned import changed_area, fade_tuning
from semedit.editors.transfer import seen_by
from semedit.errors import LatentError, MaskError, OptionError, WeightsError
from semedit.faces import attributes, networks
from semedit.latents import Latent
from semedit.media.labels import CELEBA, REGIONS
from semedit.options import options_of


@pytest.fixture(autouse=True)
def face_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    network = TinyFaceNet().eval().requires_grad_(False)
    monkeypatch.setattr(networks, "load", lambda name, device="cpu": network)
    yield


@pytest.fixture
def generator() -> TinyGenerator:
    return TinyGenerator().requires_grad_(False)


@pytest.fixture
def latent(generator: TinyGenerator) -> Latent:
    """Two inverted faces, each with weights of its own."""
    codes, c = generator.sample(2, seed=5)
    tuned = {"colour.2.bias": torch.tensor([[0.1, 0.0, 0.0], [0.0, 0.2, 0.0]]).half()}
    print_ = latents.fingerprint(generator)
    return Latent(codes, c, generator.name, print_, "hybrid", tuned, meta={"perceptual": "faces"})


@pytest.fixture
def directions(generator: TinyGenerator, tmp_path: Path) -> Path:
    codes, c = generator.sample(400, seed=7)
    image = generator.synthesis(codes, c).image
    scores = torch.stack([image[:, 0].mean((1, 2)), image[:, 2].mean((1, 2))], 1)
    found = fitting.regress(generator, codes, scores - scores.mean(0), ["smiling", "young"])
    path = tmp_path / "directions.safetensors"
    found.save(path, command="test", seed="7", data="tiny", licence="MIT")
    return path


def labels_of(generator: TinyGenerator, latent: Latent) -> Tensor:
    """Skin all over, with a mouth."""
    size = generator.resolution
    labels = torch.full((len(latent), size, size), REGIONS["skin"][0])
    labels[:, 9:11, 6:10] = REGIONS["mouth"][0]
    return labels


def transferred(generator: Any, latent: Latent, labels: Tensor, **options: Any) -> Latent:
    """Skin of another face."""
    codes, c = generator.sample(1, seed=9)
    donor = Latent(codes, c, generator.name, latent.fingerprint, "hybrid")
    settings = {"steps": 3, "regions": ("skin",), "perceptual": "faces", **options}
    return Transfer(**settings)(generator, latent, donor, labels)


def run(editor: str, generator: Any, latent: Latent, directions: Path, **options: Any) -> Latent:
    labels = labels_of(generator, latent)
    if editor == "direction":
        method = Direction(directions=str(directions), **options)
        return method(generator, latent)
    if editor == "mask":
        edited = labels.clone()
        edited[:, 3:6, 3:8] = REGIONS["hair"][0]
        return Mask(perceptual="faces", **{"steps": 3, **options})(
            generator, latent, edited, labels
        )
    if editor == "transfer":
        return transferred(generator, latent, labels, **options)
    kind = {"fast": Fast, "pernus": Pernus}[editor]
    method = kind(start="current", **{"steps": 3, **options})
    return method(generator, latent, {"smiling": True, "eyeglasses": False}, labels)


# Those of generators whose codes have no regions; see test_swap for the others.
WAYS = ("direction", "mask", "attributes", "transfer")  # edits of latents of any generator
GENERAL = [
    name
    for name, kind in EDITORS.items()
    if kind.way in WAYS and not {"regions", "texture"} & kind.requires
]


@pytest.mark.parametrize("name", GENERAL)
def test_contract(name: str, generator: TinyGenerator, latent: Latent, directions: Path) -> None:
    before, codes = latents.fingerprint(generator), latent.codes["ws"].clone()
    after = run(name, generator, latent, directions)
    latents.check(after, generator)
    assert after.method == f"hybrid+{name}"
    assert after.tuned is not None and torch.equal(after.c, latent.c)
    kept = torch.equal(after.tuned["colour.2.bias"], latent.tuned["colour.2.bias"])
    assert kept == (name not in ("mask", "transfer"))  # these two take a face's weights along
    assert after.tuned["colour.2.bias"].dtype == torch.float16
    assert latents.fingerprint(generator) == before
    assert torch.equal(latent.codes["ws"], codes)  # the latent given is left as it was
    assert not torch.equal(after.codes["ws"], codes)
    assert not after.codes["ws"].requires_grad


def test_own_weights_descend_with_the_codes(generator: TinyGenerator, latent: Latent) -> None:
    goal = latents.synthesize(generator, latent[0]).image + 0.3
    scale = {"ws": torch.full_like(latent.codes["ws"][:1], 1e-6)}  # codes can hardly move

    def missed(face: Latent) -> float:
        return float((latents.synthesize(generator, face).image - goal).square().mean())

    def found(face: Latent) -> Latent:
        def loss(output: Any) -> Tensor:
            return (output.image - goal).square().mean().view(1)

        return descend_codes(generator, face, face.codes, scale, loss, 20, 1.0, 0.0, lambda: None)

    plain = replace(latent[0], tuned=None)
    assert found(plain).tuned is None
    assert missed(found(plain)) > 0.98 * missed(plain)
    assert missed(found(latent[0])) < 0.9 * missed(latent[0])


@pytest.mark.parametrize("name", GENERAL)
def test_edits_chain(name: str, generator: TinyGenerator, latent: Latent, directions: Path) -> None:
    first = run("mask", generator, latent, directions)
    second = run(name, generator, first, directions)
    assert second.method == f"hybrid+mask+{name}"
    assert latents.picture(generator, second).image.shape == (2, 3, 16, 16)


@pytest.mark.parametrize("name", EDITORS)
def test_options_have_help(name: str) -> None:
    for option in options_of(EDITORS[name]):
        assert option.help, option.name


@pytest.mark.parametrize("name", ["mask", "fast", "pernus"])
def test_pixels_outside_the_region_are_kept_to_the_bit(
    name: str, generator: TinyGenerator, latent: Latent, directions: Path
) -> None:
    before = latents.picture(generator, latent).image
    own = {"segmenter": "labels", "composite": True} if name == "pernus" else {}
    after = run(name, generator, latent, directions, lr=0.5, **own)
    picture = latents.picture(generator, after).image
    outside = after.composite.mask == 0
    assert 0.2 < outside.float().mean() < 1
    same = picture == before
    assert same[outside.expand_as(picture)].all()
    assert not same.all()
    assert after.meta["composited"] is True
    loose = run(name, generator, latent, directions, lr=0.5, **{**own, "composite": False})
    assert loose.composite is None and loose.meta["composited"] is False


# --- direction -------------------------------------------------------------------------------


def test_strength_0_is_identity(generator: TinyGenerator, latent: Latent, directions: Path) -> None:
    after = run("direction", generator, latent, directions, strength=0.0)
    assert torch.equal(after.codes["ws"], latent.codes["ws"])
    first, second = (latents.picture(generator, x).image for x in (latent, after))
    assert torch.equal(first, second)


def test_strength_is_in_deviations_and_has_a_sign(
    generator: TinyGenerator, latent: Latent, directions: Path
) -> None:
    red = []
    for strength in (-2.0, 0.0, 2.0):
        after = run("direction", generator, latent, directions, strength=strength)
        red.append(float(latents.picture(generator, after).image[:, 0].mean()))
    assert red[0] < red[1] < red[2]
    found = read_directions(directions)
    size = torch.cat([v.flatten() for v in found.move("smiling").values()]).norm()
    assert size == pytest.approx(found.figures["smiling"]["deviation"], rel=1e-2)


def test_drawn_parts_name_their_attributes() -> None:
    labels = torch.full((32, 32), REGIONS["skin"][0])
    drawn = labels.clone()
    drawn[10:14, 6:26] = REGIONS["glasses"][0]
    assert starts.drawn_attributes(labels, drawn) == ["eyeglasses"]
    assert starts.drawn_attributes(drawn, drawn) == []


def test_a_start_is_sought_along_directions(
    generator: TinyGenerator, latent: Latent, directions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = read_directions(directions)
    monkeypatch.setattr(starts, "directions_for", lambda _: found)
    face, move = latent[0], found.move("smiling")
    goal = {k: v + 2.1 * move[k] for k, v in face.codes.items()}
    tuned = latents.tuned_generator(generator, face)
    with torch.no_grad():
        image = tuned.synthesis(goal, face.c).image

    def loss(output: Any) -> Tensor:
        return (output.image - image).square().mean()

    start = starts.nearest_start(generator, face, face.codes, ["smiling", "bald"], loss)
    expected = {k: v + 2 * move[k] for k, v in face.codes.items()}
    torch.testing.assert_close(start, expected)
    stay = starts.nearest_start(generator, face, goal, ["smiling"], loss)
    torch.testing.assert_close(stay, goal)


def test_layers_restrict_a_move(generator: TinyGenerator, latent: Latent, directions: Path) -> None:
    after = run("direction", generator, latent, directions, layers="0,2")
    changed_area = (after.codes["ws"] - latent.codes["ws"]).abs().sum((0, 2))
    assert changed_area[0] > 0 and changed_area[1] == 0 and changed_area[2] > 0
    for wrong in ("3", "2-1", "x"):
        with pytest.raises(OptionError, match="layers"):
            run("direction", generator, latent, directions, layers=wrong)


def test_unknown_directions_are_refused(
    generator: TinyGenerator, latent: Latent, directions: Path
) -> None:
    with pytest.raises(OptionError, match="smilling"):
        run("direction", generator, latent, directions, name="smilling")
    with pytest.raises(WeightsError):
        Direction()(generator, latent)  # tiny has none of its own


def test_directions_of_another_generator_are_refused(latent: Latent, directions: Path) -> None:
    with pytest.raises(LatentError, match="tiny"):
        Direction(directions=str(directions))(TinyGenerator(seed=2), latent)


def test_regression_separates_attributes_that_occur_together() -> None:
    numbers = torch.Generator().manual_seed(0)
    a = torch.randn(4000, generator=numbers)
    b = 0.8 * a + 0.6 * torch.randn(4000, generator=numbers)  # seen together with a
    codes = torch.stack([a, b, torch.randn(4000, generator=numbers)], 1)
    found, figures = fitting.fit_regression(codes, torch.stack([a, b], 1), ["a", "b"])
    assert abs(float(found["a"][0])) > 0.99 and abs(float(found["b"][1])) > 0.99
    assert figures["a"]["accuracy"] > 0.95


def test_what_goes_with_an_attribute_moves_along_where_it_may() -> None:
    numbers = torch.Generator().manual_seed(0)
    a = torch.randn(4000, generator=numbers)
    codes = torch.stack([a, 0.8 * a + 0.6 * torch.randn(4000, generator=numbers)], 1)
    found, _ = fitting.fit_regression(codes, codes, ["a", "b"], {"a": ["b"]})
    assert float(found["a"][1] / found["a"][0]) == pytest.approx(0.8, abs=0.05)
    assert abs(float(found["b"][1])) > 0.99


def test_an_attribute_that_never_varies_has_no_direction() -> None:
    codes = torch.randn(50, 4)
    scores = torch.stack([codes[:, 0], torch.zeros(50)], 1)
    assert set(fitting.fit_regression(codes, scores, ["a", "b"])[0]) == {"a"}


def test_boundary_and_conditioning() -> None:
    numbers = torch.Generator().manual_seed(0)
    codes = torch.randn(2000, 5, generator=numbers)
    normal = torch.tensor([0.6, 0.8, 0.0, 0.0, 0.0])
    found, figures = fitting.Boundary()(codes, codes @ normal)
    assert torch.dot(found, normal) > 0.98 and figures["accuracy"] > 0.95
    assert float(found.norm()) == pytest.approx(1)
    apart = fitting.orthogonal(found, [torch.tensor([0.0, 1.0, 0.0, 0.0, 0.0])])
    assert abs(float(apart[1])) < 1e-5 and float(apart.norm()) == pytest.approx(1)
    with pytest.raises(OptionError, match="left"):
        fitting.orthogonal(found, [found])
    with pytest.raises(OptionError, match="samples"):
        fitting.Boundary()(codes, torch.zeros(2000))


# --- release ---------------------------------------------------------------------------------


def test_tuning_is_taken_back_where_the_edit_shows(generator: TinyGenerator) -> None:
    codes, c = generator.sample(2, seed=5)
    added = {"planes.maps": 0.5 * torch.randn(2, 3, 8, 8, 6)}
    face = Latent(codes, c, "tiny", latents.fingerprint(generator), "hybrid", added)
    plain = generator.synthesis(codes, c).image
    tuned = latents.synthesize(generator, face).image
    mask = torch.zeros(2, 1, 16, 16)
    mask[..., :6, :] = 1
    faded = latents.synthesize(generator, fade_tuning(generator, face, mask)).image
    inside, outside = slice(0, 4), slice(10, 16)
    assert (faded - plain)[:, :, inside].abs().mean() < 0.5 * (tuned - plain)[
        :, :, inside
    ].abs().mean()
    assert (faded - tuned)[:, :, outside].abs().mean() < 0.5 * (tuned - plain)[
        :, :, outside
    ].abs().mean()
    assert fade_tuning(generator, face, mask, 0.0) is face
    with torch.no_grad():  # as whoever only draws calls it
        again = fade_tuning(generator, face, mask)
    assert all(
        torch.equal(again.tuned[k], v) for k, v in fade_tuning(generator, face, mask).tuned.items()
    )
    everywhere = fade_tuning(generator, face, torch.ones(2, 1, 16, 16))
    assert everywhere.tuned is not None
    assert torch.allclose(latents.synthesize(generator, everywhere).image, plain, atol=1e-4)


def test_a_move_shows_where_the_picture_changes(generator: TinyGenerator, latent: Latent) -> None:
    other = replace(latent, codes=generator.sample(2, seed=12)[0])
    assert changed_area(generator, latent, latent).max() == 0
    mask = changed_area(generator, latent, other)
    assert mask.shape == (2, 1, 16, 16) and 0 < mask.mean() <= 1


# --- mask ------------------------------------------------------------------------------------


def test_a_mask_edit_moves_the_labels(generator: TinyGenerator, latent: Latent) -> None:
    labels = latents.synthesize(generator, latent).seg.argmax(1)
    other = latents.synthesize(
        generator, replace(latent, codes=generator.sample(2, seed=11)[0])
    ).seg.argmax(1)
    edited = labels.clone()
    edited[:, 4:12] = other[:, 4:12]
    method = Mask(steps=60, lr=0.2, prior_weight=0, perceptual="none", composite=False)
    after = method(generator, latent, edited, labels)
    r = edited != labels
    assert r.any()
    found = latents.synthesize(generator, after).seg.argmax(1)
    assert (found == edited)[r].float().mean() > (labels == edited)[r].float().mean() + 0.3


def test_an_unchanged_map_is_refused(generator: TinyGenerator, latent: Latent) -> None:
    labels = labels_of(generator, latent)
    with pytest.raises(MaskError, match="nothing"):
        Mask(perceptual="faces")(generator, latent, labels, labels)


# --- fast ------------------------------------------------------------------------------------


def test_the_classifier_is_asked_for_all_attributes(
    generator: TinyGenerator, latent: Latent, directions: Path
) -> None:
    labels = labels_of(generator, latent)
    wanted = {"smiling": True, "wearing_lipstick": True}
    question = fast.WantedAttributes(attributes.Classifier(), wanted)
    before = question(latents.picture(generator, latent).image).sigmoid()
    options = {"start": "current", "steps": 40, "lr": 0.2, "mse_weight": 0.0, "sure": 2.0}
    after = Fast(**options, composite=False, prior_weight=0.0)(generator, latent, wanted, labels)
    found = question(latents.picture(generator, after).image).sigmoid()
    assert (found.mean(1) > before.mean(1) + 0.05).all()
    assert torch.tensor(after.meta["probability"]).shape == (2, 2)


def test_a_sure_classifier_ends_the_edit_early(generator: TinyGenerator, latent: Latent) -> None:
    labels = labels_of(generator, latent)
    seen: list[tuple[int, int]] = []
    method = Fast(start="current", sure=0.0, steps=50)
    after = method(generator, latent, {"young": True}, labels, lambda *at: seen.append(at))
    assert torch.equal(after.codes["ws"], latent.codes["ws"])
    assert seen == [(100, 100)]


def test_directions_give_the_start(
    generator: TinyGenerator, latent: Latent, directions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = read_directions(directions)
    monkeypatch.setattr(fast, "directions_for", lambda generator: found)
    after = Fast(steps=0, sure=2.0)(
        generator, latent, {"smiling": True}, labels_of(generator, latent)
    )
    changed_area = after.codes["ws"] - latent.codes["ws"]
    furthest = fast.STRENGTHS[-1] * found.move("smiling")["ws"]
    assert torch.allclose(changed_area, furthest.expand_as(changed_area), atol=1e-5)
    assert after.meta["start"] == "direction"


def test_unknown_attributes_are_refused(generator: TinyGenerator, latent: Latent) -> None:
    labels = labels_of(generator, latent)
    with pytest.raises(OptionError, match="smilling"):
        Fast()(generator, latent, {"smilling": True}, labels)
    with pytest.raises(OptionError):
        Fast()(generator, latent, {}, labels)


def test_every_attribute_has_a_region() -> None:
    assert tuple(ATTRIBUTE_REGIONS) == CELEBA
    labels = torch.zeros(1, 100, 100, dtype=torch.long)
    labels[0, 60:64, 40:60] = REGIONS["lips"][0]
    mask = attribute_region(labels, ["wearing_lipstick"])
    assert mask[0, 0, 57:67, 37:63].all() and mask.sum() == 10 * 26
    both = attribute_region(labels, ["wearing_lipstick", "smiling"])
    assert both.sum() > mask.sum()
    with pytest.raises(OptionError):
        attribute_region(labels, ["tall"])


# --- transfer --------------------------------------------------------------------------------


def halves(generator: TinyGenerator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Picture and labels of a face with hair on the left, of a donor with hair above."""
    side = generator.resolution
    labels = torch.full((2, side, side), REGIONS["skin"][0])
    labels[0, :, : side // 2] = labels[1, : side // 2] = REGIONS["hair"][0]
    images = torch.rand(2, 3, side, side) * 2 - 1
    return images[:1], labels[:1], images[1:], labels[1:]


def test_a_transfer_wants_the_donors_regions_and_the_rest(generator: TinyGenerator) -> None:
    image, labels, donor, donor_labels = halves(generator)
    both = Transfer(grow=0.0).exchange(image, labels, donor, donor_labels)
    half = generator.resolution // 2
    assert both.r.mean() == 0.75  # where either has hair
    hair = (both.labels == REGIONS["hair"][0])[0]
    assert hair[:half].all() and not hair[half:].any()  # as the donor's
    assert both.coloured[0, 0, :half].all() and not both.coloured[0, 0, half:].any()
    assert torch.equal(both.mixed[..., half:, half:], image[..., half:, half:])
    everything = Transfer(grow=0.0, colours="all").exchange(image, labels, donor, donor_labels)
    assert torch.equal(everything.coloured, both.r)


def test_equation_9_as_it_stands(generator: TinyGenerator) -> None:
    """Options take all departures back."""
    image, labels, donor, donor_labels = halves(generator)
    method = Transfer(
        colours="all", region_weight=1.0, parse_weight=0.0, grow=0.0,
        label_weight=10.0, image_weight=1.0, perceptual_weight=1.0,
    )  # fmt: skip
    perceptual = losses.perceptual("faces")
    both = method.exchange(image, labels, donor, donor_labels)
    codes, c = generator.sample(1)
    output = generator.synthesis(codes, c)
    targets = losses.SemanticLoss.transfer((image, labels), (donor, donor_labels), both.r)
    expected = losses.SemanticLoss(targets, perceptual)(output)
    torch.testing.assert_close(method.loss(both, perceptual)(output), expected)


def test_a_transfer_moves_towards_the_donor(generator: TinyGenerator, latent: Latent) -> None:
    labels = labels_of(generator, latent)
    codes, c = generator.sample(1, seed=9)
    donor = Latent(codes, c, generator.name, latent.fingerprint, "hybrid")
    before = latents.picture(generator, latent).image
    colour = {"image_weight": 100.0, "label_weight": 0.0, "parse_weight": 0.0, "release": 0.0}
    after = transferred(generator, latent, labels, steps=20, lr=0.3, **colour)
    shown, drawn = seen_by(generator, donor, latent.c)
    r = after.meta["region"]
    assert len(r) == 2 and drawn.shape == labels.shape
    skin = losses.region(drawn, ["skin"])
    away = [
        metrics.mean_change(x, shown, skin)
        for x in (before, latents.picture(generator, after).image)
    ]
    assert (away[1] < away[0]).all()


def test_a_transfer_needs_a_region_that_is_there(generator: TinyGenerator, latent: Latent) -> None:
    labels = labels_of(generator, latent)
    for regions, error in (((), OptionError), (("beard",), OptionError), (("hat",), MaskError)):
        with pytest.raises(error):
            transferred(generator, latent, labels, regions=regions, start="current")


def test_new_parts_have_the_colour_of_old_ones() -> None:
    own = torch.full((1, 32, 32), REGIONS["skin"][0])
    own[:, :8] = REGIONS["hair"][0]
    drawn = own.clone()
    drawn[:, 8:16] = REGIONS["hair"][0]
    drawn[:, 28:, :4] = REGIONS["eyes"][0]  # of which the face has none
    image = torch.zeros(1, 3, 32, 32)
    image[:, :, :8] = 0.5
    tones = Tones(image, own, drawn, (own != drawn)[:, None].float())
    right = image.clone()
    right[:, :, 8:16] = 0.5
    right[:, :, 28:, :4] = -1
    assert float(tones(right)) == pytest.approx(0, abs=1e-6)
    whole = 8 * 32 / (8 * 32 + 16)
    assert float(tones(image)) == pytest.approx(0.25 * whole, rel=1e-4)
    wanted = image.clone().requires_grad_(True)
    tones(wanted).sum().backward()
    assert set(torch.nonzero(wanted.grad.abs().sum((0, 1, 3)))[:, 0].tolist()) == set(range(8, 16))
