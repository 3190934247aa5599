"""`semedit eval ide3d`: its parts, on a tiny generator."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import SMALL_ENCODER, pair, random_faces, shown_label, small_ide3d

from semedit import cameras
from semedit.editors import Canonical
from semedit.editors.canonical import carried
from semedit.errors import MaskError, OptionError, WeightsError
from semedit.evaluations import ide3d
from semedit.evaluations.ide3d import IDE3DEvaluation, stacked, start_figures, starting_from
from semedit.generators.parts.encoder import Encoder
from semedit.heads.truth import Truth
from semedit.inverters import Hybrid
from semedit.latents import fingerprint, picture, synthesize
from semedit.renders import line_plot
from semedit.trainers.loop import write_weights

SIDE = 32


@pytest.fixture(scope="module")
def generator() -> Any:
    """With an encoder of random weights, and a label map of several regions."""
    made, _, _, _ = pair(small_ide3d)
    config = replace(
        SMALL_ENCODER,
        num_shape=made.num_shape,
        num_texture=made.num_ws - made.num_shape,
        resolution=SIDE,
        generator="small",
    )
    torch.manual_seed(2)
    return made.attach(Encoder(config).eval().requires_grad_(False))


@pytest.fixture(scope="module")
def canonical(generator: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The file of a canonical encoder of random weights."""
    path = tmp_path_factory.mktemp("weights") / "canonical-small.safetensors"
    record = {"trainer": "canonical", "seed": 0}
    state = generator.encoder.state_dict()
    config = generator.encoder.config
    write_weights(path, state, record, {}, "", "encoder", config, generator="small")
    return str(path)


def truths(generator: Any, n: int = 3) -> list[Truth]:
    """The generator's own random_faces as if they were rendered heads."""
    latent = random_faces(generator, n)
    found = []
    for i in range(n):
        one = latent[i]
        views = [one.c, cameras.orbit(-0.4, 0.0), cameras.orbit(0.4, 0.0)]
        shown = [synthesize(generator, one, c) for c in views]
        pixels = [
            ((x.image[0].clamp(-1, 1) + 1) * 127.5).byte().permute(1, 2, 0).numpy() for x in shown
        ]
        labels = shown[0].seg.argmax(1)[0].byte().numpy()
        changed = labels.copy()
        changed[8:20, 8:20] = 13
        cs = [c[0].numpy() for c in views]
        found.append(
            Truth(
                seed=1_000_000 + i,
                image=pixels[0],
                labels=labels,
                landmarks=np.zeros((68, 2)),
                c=cs[0],
                attributes=np.zeros(20, bool),
                views=tuple(zip(cs[1:], pixels[1:], strict=True)),
                edits={"hair_length": (pixels[0], changed)},
            )
        )
    return found


def short() -> Hybrid:
    return Hybrid(steps=2, tune_steps=0, perceptual="none")


def test_all_parts(generator: Any, canonical: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ide3d, "REGIONS", (shown_label(generator, random_faces(generator, 2)),))
    monkeypatch.setattr(ide3d, "YAWS_DEG", (-30, 30))
    evaluation = IDE3DEvaluation(
        encoders={"own": generator.encoder},
        inverter=short(),
        editor=Canonical(encoder=canonical),
        views=2,
        pairs=2,
    )

    class Embed:
        name = "pixels"

        def __call__(self, images: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.normalize(images.flatten(1))

    figures = evaluation(truths(generator), generator, Embed())
    assert figures["identity_by"] == "pixels" and 0 < figures["identity"] <= 1
    # The canonical encoder here is the generator's own.
    row = figures["figure4"][30]
    assert row["front"]["db"] == pytest.approx(row["canonical"]["db"], abs=0.02)
    assert abs(row["front"]["db"] - row["free"]["db"]) > 0.02
    assert figures["front_db"] == pytest.approx(
        np.mean([r["front"]["db"] for r in figures["figure4"].values()])
    )
    assert figures["texture_outside_change"] < figures["texture_inside_change"]
    assert figures["texture_colour"] < 1.0
    assert figures["texture_label_miou"] > 0.9
    assert figures["canonical_edit_outside_change"] == 0
    assert figures["canonical_edit_seconds"] > 0
    assert {"mean_start_db", "own_start_side_db", "own_input_db", "mean_side_db"} <= set(figures)
    with pytest.raises(OptionError, match="no part"):
        replace(evaluation, parts=("colours",))(truths(generator, 1), generator)


def test_a_better_start_shows(generator: Any) -> None:
    """An encoder that knows the answer starts, and ends, nearer than the mean code."""
    from semedit.evaluations.heads import at_resolution

    heads = [at_resolution(t, SIDE) for t in truths(generator)]
    right = random_faces(generator, 3).codes["ws"]
    _, _, c = stacked(heads)

    def oracle(images: torch.Tensor, labels: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        place = [int((c == row).all(1).nonzero()[0]) for row in seen]
        return right[place]

    figures = start_figures(generator, heads, {"oracle": oracle}, short(), lambda *_: None)  # type: ignore[dict-item]
    for key in ("start_db", "start_side_db", "input_db"):
        assert figures[f"oracle_{key}"] > figures[f"mean_{key}"] + 0.2, key
    sides = len(heads[0].views)
    whole = (figures["mean_input_db"] + sides * figures["mean_side_db"]) / (1 + sides)
    assert figures["mean_views_db"] == pytest.approx(whole)


def test_starts_are_put_back(generator: Any) -> None:
    own = generator.encoder
    with starting_from(generator, lambda images, labels, c: torch.ones(len(c), 1, 1)):
        assert generator.encode(None, None, torch.zeros(2, 25))["ws"].shape == (2, 1, 1)
    assert generator.encoder is own


def test_an_edit_in_one_pass(generator: Any, canonical: str) -> None:
    latent = random_faces(generator, 2)
    labels = synthesize(generator, latent).seg.argmax(1)
    drawn = labels.clone()
    drawn[:, 10:20, 10:20] = 13
    before = picture(generator, latent).image
    after = Canonical(encoder=canonical)(generator, latent, drawn, labels)
    assert after.method == "hybrid+canonical" and fingerprint(generator) == latent.fingerprint
    assert not torch.equal(after.codes["ws"], latent.codes["ws"])
    shown = picture(generator, after).image
    outside = after.composite.mask == 0
    assert bool((shown == before)[outside.expand_as(shown)].all())
    assert after.meta["region"][0] == pytest.approx((12 / SIDE) ** 2, abs=0.02)
    still = Canonical(encoder=canonical, strength=0.0)(generator, latent, drawn, labels)
    assert torch.equal(still.codes["ws"], latent.codes["ws"])
    with pytest.raises(MaskError):
        Canonical(encoder=canonical)(generator, latent, labels, labels)
    with pytest.raises(WeightsError):
        Canonical()(generator, latent, drawn, labels)


def test_a_drawing_is_carried_along_the_surface() -> None:
    """A wall at the head's middle: what is drawn in one view lies where the other sees it."""
    c, front = cameras.orbit(0.3, 0.0), cameras.orbit(0.0, 0.0)

    def wall(view: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        origins, directions = (x[0] for x in cameras.rays(view, SIDE))
        depth = (-origins[:, 2] / directions[:, 2]).view(1, 1, SIDE, SIDE)
        return depth, torch.ones_like(depth)

    point = torch.tensor([[[0.1, 0.05, 0.0]]])
    edited = torch.zeros(1, SIDE, SIDE, dtype=torch.int64)
    (x, y), (there_x, there_y) = (
        (cameras.project(point, view)[0][0, 0] * SIDE).int().tolist() for view in (c, front)
    )
    edited[0, y - 1 : y + 2, x - 1 : x + 2] = 7
    r = (edited > 0).float()[:, None]
    labels = torch.ones_like(edited)
    found = carried(wall(c), wall(front), c, front, edited, r, labels)
    assert found[0, there_y, there_x] == 7
    assert 4 <= int((found == 7).sum()) <= 16 and int((found == 1).sum()) >= SIDE**2 - 16
    # What another surface hides from the first view is not drawn on.
    depth, opacity = wall(c)
    hidden = carried((depth - 0.3, opacity), wall(front), c, front, edited, r, labels)
    assert torch.equal(hidden, labels)


def test_a_plot_shows_its_lines(tmp_path: Path) -> None:
    plot = line_plot([-1, 0, 1], {"a": [1.0, 2.0, 1.0], "b": [3.0, 3.0, 3.0]}, "t", ("x", "y"))
    assert plot.shape == (400, 640, 3)
    red = (plot == (200, 60, 50)).all(2).nonzero()
    green = (plot == (40, 140, 70)).all(2).nonzero()
    assert len(red[0]) > 100 and green[0][green[0] > 40].max() < red[0][red[0] > 40].min()
