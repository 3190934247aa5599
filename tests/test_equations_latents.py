"""Latents: what faces drawn with their own differences show, and the way from one to another."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from formulas import close
from tiny import Painter
from torch import Tensor

from semedit import cameras, latents
from semedit.errors import LatentError, TraitError
from semedit.generators import Output
from semedit.latents import Composite, Latent, TunedGenerator, tuned
from semedit.latents.interpolation import between


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def faces(generator: Any, n: int = 2, **options: Any) -> Latent:
    c = cameras.orbit(torch.linspace(-0.2, 0.3, n), torch.zeros(n))
    ws = 0.5 * numbers(n, 2, 304)
    return Latent({"ws": ws}, c, "painter", latents.fingerprint(generator), "hybrid", **options)


# --- drawn with one's own differences --------------------------------------------------------


def image_of(face: Latent, gain: Tensor, added: Tensor | float = 0.0) -> Tensor:
    """Painter's picture by hand."""
    shade = 0.5 * face.c[:, 2].view(-1, 1, 1, 1)
    return (1 + gain) * (face.codes["ws"][:, 1, :192].view(-1, 3, 8, 8) + added + shade)


def test_differences_are_added_and_alone_receive_gradients() -> None:
    generator, face = Painter(), faces(Painter())
    gain, planes = numbers(3, 1, 1, seed=1), numbers(2, 3, 8, 8, seed=2)
    leaves = {"gain": gain, "planes.colours": planes}
    for leaf in leaves.values():
        leaf.requires_grad_()
    drawn = TunedGenerator(generator, leaves).synthesis(face.codes, face.c)
    assert close(drawn.image, image_of(face, gain, planes).detach())
    assert torch.equal(drawn.seg, generator.synthesis(face.codes, face.c).seg)
    slopes = torch.autograd.grad(drawn.image.sum(), list(leaves.values()), retain_graph=True)
    assert close(slopes[1], (1 + gain).detach().expand(2, 3, 8, 8))
    found = torch.autograd.grad(drawn.image.sum(), generator.gain, allow_unused=True)
    assert found == (None,)  # the generator's own weights are no leaves of a face
    assert torch.equal(generator.gain, torch.ones(3, 1, 1))
    plain = TunedGenerator(generator, {"gain": gain})
    once = generator.planes(face.codes)
    assert plain.add(once) is once
    added = TunedGenerator(generator, {"planes.colours": planes}).planes(face.codes)
    assert close(added["colours"], once["colours"] + planes)
    assert torch.equal(added["labels"], once["labels"])


class Noisy(Painter):
    """Adds a noise map; says which it was given."""

    traits = Painter.traits | {"noise"}

    def noises(self) -> dict[str, Tensor]:
        return {"a": torch.full((1, 1, 8, 8), 0.5), "b": torch.ones(1, 1, 8, 8)}

    def synthesis(self, codes: dict[str, Tensor], c: Tensor, noise: Any = "const") -> Output:
        output = super().synthesis(codes, c)
        maps = self.noises() if noise == "const" else {} if noise == "none" else noise
        return replace(output, image=output.image + sum(maps.values(), torch.zeros(1)))


def test_noise_is_added_unless_a_call_names_it() -> None:
    generator, face = Noisy(), faces(Painter())
    more = numbers(2, 1, 8, 8)
    drawn = TunedGenerator(generator, {"noise.a": more})
    bare = generator.synthesis(face.codes, face.c, noise="none").image
    assert close(drawn.synthesis(face.codes, face.c).image, bare + 0.5 + more)
    assert close(drawn.synthesis(face.codes, face.c, noise="none").image, bare)


def test_each_face_is_drawn_with_its_own() -> None:
    generator = Painter().requires_grad_(False)
    own = {"gain": numbers(2, 3, 1, 1).half(), "planes.colours": numbers(2, 3, 8, 8).half()}
    face = faces(generator, tuned=own)
    drawn = latents.synthesize(generator, face)
    expected = image_of(face, own["gain"].float(), own["planes.colours"].float())
    assert close(drawn.image, expected)
    turned = face.c.roll(1, 0)
    assert close(
        latents.synthesize(generator, face, turned).image,
        image_of(replace(face, c=turned), own["gain"].float(), own["planes.colours"].float()),
    )
    planes = replace(face, tuned={"planes.colours": own["planes.colours"]})
    expected = image_of(face, torch.zeros(1), own["planes.colours"].float())
    assert close(latents.synthesize(generator, planes).image, expected)
    assert latents.tuned_generator(generator, faces(generator)) is generator
    assert isinstance(latents.tuned_generator(generator, planes), TunedGenerator)
    with pytest.raises(LatentError):
        latents.tuned_generator(generator, face)

    class Strict(Painter):
        def render(self, planes: dict[str, Tensor], c: Tensor) -> Output:
            assert self.gain.shape == (3, 1, 1)  # as its own is
            return super().render(planes, c)

    one = latents.tuned_generator(Strict().requires_grad_(False), face[1])
    assert close(one.synthesis(face[1].codes, face[1].c).image, drawn.image[1:])
    for name in ("ws", "c"):
        wrong = {"ws": face.codes["ws"].double()} if name == "ws" else face.codes
        c = face.c.double() if name == "c" else face.c
        with pytest.raises(LatentError, match=name):
            latents.synthesize(generator, replace(face, codes=wrong, c=c))


def test_a_picture_keeps_what_surrounds_an_edit() -> None:
    generator = Painter().requires_grad_(False)
    box = Composite(numbers(2, 3, 8, 8, seed=4), numbers(2, 1, 8, 8, seed=5).sigmoid())
    face = faces(generator, composite=box)
    image = generator.synthesis(face.codes, face.c).image
    found = latents.picture(generator, face)
    assert close(found.image, box.mask * image + (1 - box.mask) * box.image)
    assert torch.equal(found.seg, generator.synthesis(face.codes, face.c).seg)
    assert torch.equal(latents.synthesize(generator, face).image, image)


def test_outputs_side_by_side() -> None:
    parts = [
        Output(numbers(1, 3, 2, 2, seed=i), numbers(1, 19, 2, 2, seed=i), numbers(1, 1, 2, 2), None)
        for i in (0, 1)
    ]
    found = tuned.join_outputs(parts)
    assert torch.equal(found.image, torch.cat([parts[0].image, parts[1].image]))
    assert torch.equal(found.seg, torch.cat([parts[0].seg, parts[1].seg]))
    assert found.depth is not None and len(found.depth) == 2
    assert tuned.join_outputs([parts[0], replace(parts[1], seg=None)]).seg is None


def test_every_call_of_a_tuned_generator_sees_the_differences() -> None:
    """mapping, planes, render, field, sigma, labels: run with the face's weights."""

    class Asked(Painter):
        name = "asked"

        def mapping(self, z: Tensor, c: Tensor, truncation_psi: float = 1.0) -> Any:
            return self.gain.sum() * truncation_psi

        def field(self, *given: Any, **options: Any) -> Any:
            return self.gain.sum(), given, options

        sigma = labels = field

    generator = Asked()
    one = TunedGenerator(generator, {"gain": torch.ones(3, 1, 1)})
    assert float(one.mapping(None, None, truncation_psi=0.5)) == 3.0
    for name in ("field", "sigma", "labels"):
        total, given, options = getattr(one, name)(1, two=2)
        assert (float(total), given, options) == (6.0, (1,), {"two": 2})
    assert one.resolution == 8 and float(generator.gain.detach().sum()) == 3.0


# --- the way between -------------------------------------------------------------------------


def ends(generator: Painter) -> tuple[Latent, Latent]:
    """Two faces, tuned, with kept pixels."""
    tuned = {
        "planes.shape": numbers(2, 3, seed=1).half(),
        "planes.texture": numbers(2, 4, seed=2),
        "gain": numbers(2, 3, 1, 1, seed=3),
    }
    both = faces(generator, tuned=tuned)
    kept = Composite(torch.zeros(2, 3, 8, 8), torch.ones(2, 1, 8, 8))
    both = replace(both, c=cameras.orbit(torch.tensor([0.1, 0.5]), 0.2, 0.1), composite=kept)
    return both[0], both[1]


MOVES = {
    "all": ((0, 1), ("planes.shape", "planes.texture", "gain")),
    "shape": ((0,), ("planes.shape", "gain")),
    "texture": ((1,), ("planes.texture",)),
}


@pytest.mark.parametrize("part", MOVES)
def test_between_two_faces_by_hand(part: Any) -> None:
    generator = Painter()
    first, second = ends(generator)
    found = between(generator, first, second, 0.3, part)
    layers, moved = MOVES[part]
    a, b = (x.codes["ws"] for x in (first, second))
    expected = a.clone()
    expected[:, layers] = 0.7 * a[:, layers] + 0.3 * b[:, layers]
    assert close(found.codes["ws"], expected)
    assert set(found.tuned) == set(first.tuned)
    for name, value in found.tuned.items():
        share = 0.3 if name in moved else 0.0
        x, y = (face.tuned[name].float() for face in (first, second))
        assert close(value, (1 - share) * x + share * y)
    six = 0.7 * cameras.to_six(first.c) + 0.3 * cameras.to_six(second.c)
    assert close(found.c, cameras.from_six(six) if part == "all" else first.c)
    assert found.composite is None and found.method == "between"
    assert found.meta == {"share": 0.3, "part": part}
    assert (
        between(generator, replace(first, tuned=None), replace(second, tuned=None), 0.3, part).tuned
        is None
    )


@pytest.mark.parametrize("part", MOVES)
def test_style_masks_fade_between_two_faces(part: Any) -> None:
    generator = Painter()
    first, second = ends(generator)
    style, where = numbers(1, 2, 2, 5), numbers(1, 2, 19, seed=1).abs()
    masked = replace(first, codes={**first.codes, "style": style, "where": where})
    for share in (0.0, 0.25, 1.0):
        goes = 0.0 if part == "shape" else share
        away, towards = (
            between(generator, *pair, share, part).codes
            for pair in ((masked, second), (second, masked))
        )
        for codes, weight in ((away, 1 - goes), (towards, goes)):
            if weight == 0:
                assert set(codes) == {"ws"}
                continue
            assert torch.equal(codes["style"], style)
            assert close(codes["where"], where * weight)
    both = between(generator, masked, masked, 0.25, part).codes
    if part == "shape":
        assert torch.equal(both["where"], where)
    else:
        assert close(both["where"], torch.cat([0.75 * where, 0.25 * where], 1))
        assert torch.equal(both["style"], torch.cat([style, style], 1))


def test_faces_of_other_generators_have_no_way_between() -> None:
    generator = Painter()
    first, second = ends(generator)
    with pytest.raises(LatentError):
        between(generator, first, replace(second, fingerprint="other"), 0.5, "all")
    generator.traits = frozenset({"camera"})
    assert between(generator, first, second, 0.5, "all").method == "between"
    for part in ("shape", "texture"):
        with pytest.raises(TraitError):
            between(generator, first, second, 0.5, part)  # type: ignore[arg-type]
