"""Label maps that a parser reads off the pictures of generators that draw none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from command_line import semedit
from every_command import write_face, write_generator
from tiny import Painter, TinyFaceNet, small_eg3d, small_stylegan2, small_stylegan3
from torch import Tensor

from semedit import cameras, latents, losses
from semedit.batch.workspace import Workspace
from semedit.editors import Mask, Transfer
from semedit.faces import networks, parsing, pipeline
from semedit.generators import Labelled, judge, with_labels
from semedit.inverters import Optimize
from semedit.latents import Latent
from semedit.media.masks import write_labels
from semedit.renders import render_frames
from semedit.runtime import torchvision_ops

C = cameras.orbit(0.0, 0.0)
RED, GREEN = 13, 1  # the labels of what is redder, or greener


class RedNet(TinyFaceNet):
    """Stands in for the face network: hair where a picture is redder than on average, else skin."""

    def forward(self, images: Tensor) -> Any:
        small = F.interpolate(images, (self.size, self.size), mode="bilinear")
        redder = small[:, 0] - small[:, 1]
        seg = torch.full((len(images), 19, self.size, self.size), -9.0)
        seg[:, RED], seg[:, GREEN] = 4 * (redder - redder.mean((1, 2), keepdim=True)), 0.0
        return networks.FaceOutput(seg, torch.zeros(len(images), 6))


@pytest.fixture(autouse=True)
def red_parser(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    network = RedNet().eval().requires_grad_(False)
    monkeypatch.setattr(networks, "load", lambda name, device="cpu": network)
    monkeypatch.setattr(pipeline.weights, "on_disk", lambda name: False)
    yield


MAKERS: list[Callable[[], Any]] = [small_stylegan2, small_stylegan3, small_eg3d]
every = pytest.mark.parametrize("make", MAKERS)


def face(generator: Any, seed: int = 0) -> Latent:
    numbers = torch.Generator().manual_seed(seed)
    z = torch.randn(1, generator.z_dim, generator=numbers)
    with torch.no_grad():
        codes = {k: v.clone() for k, v in generator.mapping(z, C).items()}
    return Latent(codes, C, generator.name, latents.fingerprint(generator), "optimize")


@every
def test_labels_are_what_the_parser_sees_and_nothing_else_changes(make: Callable[[], Any]) -> None:
    generator = make().requires_grad_(False)
    latent, state = face(generator), latents.fingerprint(generator)
    found = with_labels(generator)
    plain, output = (x.synthesis(latent.codes, C) for x in (generator, found))
    assert torch.equal(plain.image, output.image) and plain.seg is None
    assert torch.equal(output.seg, parsing.BuiltinParser().logits(plain.image))
    assert "seg" in found.traits and "seg" not in generator.traits
    assert isinstance(found, type(generator)) and not isinstance(generator, Labelled)
    # A latent of the one is a latent of the other.
    assert latents.fingerprint(found) == state
    assert [k for k, _ in found.named_parameters()] == [k for k, _ in generator.named_parameters()]
    assert with_labels(found) is found and with_labels(painter := Painter()) is painter


@every
def test_the_gradient_of_labels_reaches_the_codes(make: Callable[[], Any]) -> None:
    found = with_labels(make().requires_grad_(False))
    ws = face(found).codes["ws"].requires_grad_()
    F.cross_entropy(found.synthesis({"ws": ws}, C).seg, torch.full((1, 32, 32), RED)).backward()
    assert (ws.grad.flatten(2).abs().sum(2) > 0).all()


def test_tuned_faces_are_labelled_as_they_look() -> None:
    generator = small_stylegan2().requires_grad_(False)
    latent = face(generator)
    name = "synthesis_network.b16.conv1.weight"
    tuned = replace(latent, tuned={name: 0.3 * torch.randn(1, 8, 8, 3, 3).half()})
    found = with_labels(generator)
    looks = latents.synthesize(found, tuned)
    assert torch.equal(looks.seg, found.parser.logits(looks.image))
    assert not torch.equal(looks.seg, latents.synthesize(found, latent).seg)


@every
def test_masks_are_drawn_into_faces(make: Callable[[], Any]) -> None:
    """The editor needs no generator that draws labels: hair grows where it was drawn."""
    generator = make().requires_grad_(False)
    latent = face(generator)
    before = with_labels(generator).synthesis(latent.codes, C)
    side = generator.resolution
    labels = F.interpolate(before.seg, (side, side)).argmax(1)
    edited = labels.clone()
    edited[:, : side // 2] = RED
    options: dict[str, Any] = {"perceptual": "none", "search": False, "composite": False}
    alone: dict[str, Any] = {"parse_weight": 0.0, "tone_weight": 0.0, "image_weight": 0.0}
    after = Mask(**options, **alone, steps=40, lr=0.2)(generator, latent, edited, labels)
    latents.check(after, generator)
    seen = latents.synthesize(with_labels(generator), after).seg
    wrong = [losses.label_loss(one, edited) for one in (before.seg, seen)]
    assert float(wrong[1]) < 0.9 * float(wrong[0])


def test_regions_go_from_face_to_face() -> None:
    generator = small_stylegan2().requires_grad_(False)
    latent, donor = face(generator), face(generator, 3)
    labels = F.interpolate(with_labels(generator).synthesis(latent.codes, C).seg, (16, 16)).argmax(
        1
    )
    method = Transfer(regions=("hair",), steps=2, perceptual="none")
    after = method(generator, latent, donor, labels)
    assert not torch.equal(after.codes["ws"], latent.codes["ws"])


def test_turntables_show_what_the_parser_sees() -> None:
    generator = small_eg3d().requires_grad_(False)
    path = cameras.orbit(torch.tensor([-0.2, 0.2]), torch.zeros(2))
    frames = render_frames(generator, face(generator), path, seg=True)
    assert frames.shape == (2, 32, 64, 3)
    shown = set(map(tuple, frames[:, :, 32:].reshape(-1, 3)))
    assert shown <= {(0, 0, 204), (204, 0, 0)} and len(shown) == 2  # hair and skin


def test_inversions_do_not_ask_a_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = small_stylegan2().requires_grad_(False)
    image = generator.synthesis(face(generator).codes, C).image
    monkeypatch.setattr(RedNet, "forward", lambda *_: pytest.fail("asked"))
    Optimize(steps=1, perceptual="none")(
        generator, image, torch.zeros(1, 16, 16, dtype=torch.int64), C
    )


class Named:
    def __init__(self, device: str = "cpu") -> None:
        pass


def test_the_parser_that_was_descended_on_does_not_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    there = {"bisenet", "parsenet"}
    for name in there:
        kind = type(name, (Named,), {"name": name, "needs": (name,)})
        monkeypatch.setitem(parsing.PARSERS, name, kind)
    monkeypatch.setattr(pipeline.weights, "on_disk", lambda name: name in there)
    generator = small_stylegan2()
    assert with_labels(generator).parser.name == "bisenet"
    assert judge(with_labels(generator)).name == "parsenet"
    assert judge(with_labels(generator, "parsenet")).name == "bisenet"
    assert judge(with_labels(generator, "builtin")).name == "bisenet"
    assert judge(Painter()).name == "builtin"
    there.clear()
    assert with_labels(generator).parser.name == judge(with_labels(generator)).name == "builtin"


@pytest.mark.parametrize("name", ["bisenet", "parsenet"])
def test_published_parsers_give_gradients(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torchvision_ops.ensure()
    pytest.importorskip("facexlib")
    monkeypatch.setattr(parsing, "SIZE", 64)
    monkeypatch.setattr(parsing.weights, "resolve", lambda name: name)
    monkeypatch.setattr(parsing.weights, "load_pickle", lambda name: {})
    monkeypatch.setattr(torch.nn.Module, "load_state_dict", lambda *_: None)
    parser = parsing.PARSERS[name]()
    image = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (1, 3, 32, 32))).float()
    image.requires_grad_()
    seg = parser.logits(image)
    assert seg.shape[:2] == (1, 19)
    seg.square().sum().backward()
    assert bool(image.grad.any())
    assert parser(image).shape == (1, 19, 32, 32)


def test_receipts_name_the_parser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEMEDIT_WEIGHTS", str(tmp_path / "none"))
    monkeypatch.setattr(pipeline.weights, "on_disk", lambda name: name == "faces")
    work, drawn = tmp_path / "work", torch.full((64, 64), GREEN)
    write_face(work, "a", 200)
    drawn[:30] = RED
    write_labels(tmp_path / "map.png", drawn)
    few = ("-o", "steps=1", "-o", "perceptual=none", "--work", work, "--json")
    chosen = ("-w", write_generator(tmp_path, "stylegan2"), *few)
    semedit("invert", "--method", "optimize", *chosen)
    semedit("edit", "--mask", tmp_path / "map.png", *chosen)
    space = Workspace(work)
    receipt = space.receipt("edit", "a/01-mask")
    assert receipt["figures"]["parser"] == "builtin" and "faces" in receipt["weights"]
    assert space.path("edits", "a/01-mask", ".labels.png").is_file()
