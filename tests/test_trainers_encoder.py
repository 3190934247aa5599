"""Training of encoders: with and without more views, on pictures, and from the front."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from small_trainers import SmallHeads, write_faces, write_heads
from tiny import SMALL_ENCODER, small_ide3d, small_stylegan2, small_triplane

from semedit import cameras, weights
from semedit.editors.canonical import canonical_encoder
from semedit.errors import LatentError, OptionError, TraitError, WeightsError
from semedit.generators import load_generator
from semedit.generators.parts.encoder import Encoder, load_encoder
from semedit.inverters import Hybrid
from semedit.trainers.canonical import CanonicalTrainer
from semedit.trainers.encoder import EncoderTrainer
from semedit.trainers.loop import CHECKPOINT, Schedule, train
from semedit.trainers.parts.synthesis import FaceSampler


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny generator with an encoder beside it."""
    folder = tmp_path_factory.mktemp("small")
    data = write_heads(folder / "heads")
    train(SmallHeads(), data, folder / "run", Schedule(kimg=0.002), quiet=True)
    return folder / "run" / "small.safetensors"


def rows(run: Path) -> list[dict[str, float]]:
    return [json.loads(row) for row in (run / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("views", [0, 2])
def test_more_views_are_an_option(weights_file: Path, tmp_path: Path, views: int) -> None:
    data = write_heads(tmp_path / "heads")
    trainer = EncoderTrainer(generator=str(weights_file), batch_size=2, multi_view=views)
    figures = train(trainer, data, tmp_path / "run", Schedule(kimg=0.004), quiet=True)
    assert set(figures) == {"own_db", "own_labels", "other_db"}
    first = rows(tmp_path / "run")[0]
    assert ("synthetic_same_codes" in first) == (views > 0)
    assert ("synthetic_same_features" in first) == (views > 0) and first["synthetic_high"] > 0


def test_pictures_of_a_folder_and_predicted_angles(weights_file: Path, tmp_path: Path) -> None:
    data = write_faces(tmp_path / "faces")
    trainer = EncoderTrainer(generator=str(weights_file), batch_size=2, angles=True)
    figures = train(trainer, data, tmp_path / "run", Schedule(kimg=0.004), quiet=True)
    assert figures["pose_mae_deg"] > 0 and "other_db" not in figures
    encoder = load_encoder(str(tmp_path / "run" / "encoder.safetensors"))
    side = encoder.config.resolution
    images, labels = torch.rand(2, 3, side, side), torch.zeros(2, side, side, dtype=torch.int64)
    c = cameras.orbit(torch.tensor([0.4, -0.4]), 0.0)
    ws, angles = encoder.look(images, labels, c)
    assert angles.shape == (2, 2)
    assert torch.equal(ws, encoder(images, labels, c.flip(0)))  # cameras are not looked at


def test_same_codes_teaches_what_views_share(weights_file: Path, tmp_path: Path) -> None:
    data = write_heads(tmp_path / "heads")
    spread = []
    for weight in (0.0, 5.0):
        trainer = EncoderTrainer(
            generator=str(weights_file), batch_size=2, same_codes=weight, same_features=0.0
        )
        run = tmp_path / f"run{weight}"
        # Twice as near takes 30 steps or so, five times 100.
        train(trainer, data, run, Schedule(kimg=0.1, warmup_steps=5), quiet=True)
        generator = load_generator(str(weights_file))
        encoder = load_encoder(str(run / "encoder.safetensors"))
        torch.manual_seed(1)
        faces = FaceSampler(generator, None, FaceSampler.of(generator, _cameras(), 1.0, 0.0).poses)
        labels = torch.zeros(16, 16, 16, dtype=torch.int64)
        ws = faces.codes(torch.zeros(16, 3, 16, 16), labels, _cameras()[:16])
        shown = faces.show(ws, faces.cameras(16, 2))
        codes = [encoder(shown.images[:, i], shown.labels[:, i], shown.c[:, i]) for i in range(2)]
        spread.append(float((codes[0] - codes[1]).square().mean()))
    assert spread[1] < 0.5 * spread[0]


def _cameras() -> torch.Tensor:
    return cameras.orbit(torch.linspace(-0.4, 0.4, 20), torch.linspace(0.1, -0.1, 20))


def test_a_canonical_encoder_is_trained_and_found(weights_file: Path, tmp_path: Path) -> None:
    data = write_heads(tmp_path / "heads")
    trainer = CanonicalTrainer(generator=str(weights_file), batch_size=2)
    schedule = Schedule(kimg=0.06, warmup_steps=5)
    figures = train(trainer, data, tmp_path / "run", schedule, quiet=True)
    assert figures["front_db"] > figures["own_encoder_front_db"]
    path = tmp_path / "run" / "canonical-small.safetensors"
    generator = load_generator(str(weights_file))
    assert isinstance(canonical_encoder(str(path), generator), Encoder)
    generator.name = "other"
    with pytest.raises(LatentError, match="belongs to small"):
        canonical_encoder(str(path), generator)


def test_a_canonical_encoder_stores_what_it_learns(weights_file: Path, tmp_path: Path) -> None:
    """The rest is the generator's own encoder's, and no other one completes it."""
    data = write_heads(tmp_path / "heads")
    trainer = CanonicalTrainer(generator=str(weights_file), batch_size=2)
    train(trainer, data, tmp_path / "run", Schedule(kimg=0.01), quiet=True)
    path = tmp_path / "run" / "canonical-small.safetensors"
    stored, _ = weights.load(path)
    generator = load_generator(str(weights_file))
    own, whole = (
        generator.encoder.state_dict(),
        canonical_encoder(str(path), generator).state_dict(),
    )
    for name, values in whole.items():
        kept = name.split(".")[1] in ("flat", "direct")
        assert kept != (name in stored), name
        assert torch.equal(values, own[name]) == kept, name
    with pytest.raises(WeightsError, match="do not fit"):
        load_encoder(str(path))
    torch.manual_seed(7)
    generator.attach(Encoder(generator.encoder.config))
    with pytest.raises(WeightsError, match="other part"):
        canonical_encoder(str(path), generator)


def test_the_built_in_canonical_encoder_is_small() -> None:
    """At most 5.5 MB, of the 10 that the encoder has; see weights.toml."""
    encoder = load_generator("heads-128").encoder
    kept = CanonicalTrainer().kept
    counts = [p.numel() for n, p in encoder.named_parameters() if n.split(".")[1] not in kept]
    assert 2 * sum(counts) < 5.5e6


def test_encoders_begin_as_one_that_predicts_angles(weights_file: Path, tmp_path: Path) -> None:
    data = write_heads(tmp_path / "heads")
    generator = load_generator(str(weights_file))
    config = replace(generator.encoder.config, angles=2)
    torch.manual_seed(3)
    own = Encoder(config)
    for name in ("small", "encoder"):
        file = weights_file.with_name(f"{name}.safetensors")
        tensors, facts = weights.load(file)
        if name == "encoder":
            tensors, facts = own.state_dict(), {**facts, "config": json.dumps(asdict(config))}
        weights.save(tmp_path / file.name, tensors, facts)
    for kind, same in (
        (CanonicalTrainer(), True),
        (EncoderTrainer(angles=True), True),
        (EncoderTrainer(), False),
    ):
        task = replace(kind, generator=str(tmp_path / "small.safetensors")).start(data)
        found = task.encoder.state_dict()["shape.out.weight"]
        assert torch.equal(found, own.state_dict()["shape.out.weight"].half().float()) == same


@pytest.mark.parametrize("kind", [EncoderTrainer, CanonicalTrainer])
def test_resumed_runs_equal_unbroken_ones(weights_file: Path, tmp_path: Path, kind: type) -> None:
    data = write_heads(tmp_path / "heads")
    trainer = kind(generator=str(weights_file), batch_size=2, coarse=0.0)
    for name, ends in (("whole", (0.006,)), ("broken", (0.002, 0.006))):
        for kimg in ends:
            schedule = Schedule(kimg=kimg, final_rate=1.0)
            train(trainer, data, tmp_path / name, schedule, quiet=True)
    held = [
        torch.load(tmp_path / name / CHECKPOINT, weights_only=True) for name in ("whole", "broken")
    ]
    for key, value in held[0]["modules"]["encoder"].items():
        assert torch.equal(value, held[1]["modules"]["encoder"][key]), key


def test_faces_swap_textures_alone() -> None:
    generator = small_triplane().attach(Encoder(SMALL_ENCODER))
    torch.manual_seed(0)
    faces = FaceSampler.of(generator, _cameras(), mapped=0.0, swapped=1.0)
    images, labels = torch.randn(3, 3, 16, 16), torch.randint(0, 19, (3, 16, 16))
    c = _cameras()[:3]
    seen, drawn = generator.encode(images, labels, c)["ws"], faces.codes(images, labels, c)
    cut = generator.num_shape
    torch.testing.assert_close(drawn[:, :cut], seen[:, :cut])
    torch.testing.assert_close(drawn[:, cut:], seen[:, cut:].roll(1, 0))
    yaw = cameras.angles(faces.cameras(200, 2).flatten(0, 1))[:, 0]
    assert float(yaw.abs().max()) <= torch.tensor(generator.view_limit_deg[0]).deg2rad() + 1e-4


def test_a_generator_without_styles_is_refused(tmp_path: Path) -> None:
    generator = small_stylegan2()
    facts = {"kind": "stylegan2", "config": json.dumps(asdict(generator.config))}
    weights.save(tmp_path / "flat.safetensors", generator.state_dict(), facts)
    with pytest.raises(OptionError, match="no generator with shape"):
        EncoderTrainer(generator=str(tmp_path / "flat.safetensors")).start(tmp_path)


def test_inversion_may_ask_the_encoder_for_the_view() -> None:
    generator = small_triplane().attach(Encoder(replace(SMALL_ENCODER, angles=2)))
    images, labels = torch.rand(2, 3, 16, 16), torch.zeros(2, 16, 16, dtype=torch.int64)
    c = cameras.orbit(torch.tensor([0.4, -0.4]), 0.1, 0.05)
    method = Hybrid(steps=0, tune_steps=0, perceptual="none", camera="encoder")
    found = cameras.to_six(method(generator, images, labels, c).c)
    with torch.no_grad():
        angles = generator.encoder.look(images, labels, c)[1]
    torch.testing.assert_close(found[:, :2], angles, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found[:, 2:], cameras.to_six(c)[:, 2:], rtol=1e-3, atol=1e-4)
    with pytest.raises(TraitError, match="predicts yaw"):
        method(small_triplane().attach(Encoder(SMALL_ENCODER)), images, labels, c)


@pytest.mark.parametrize("kind", [EncoderTrainer, CanonicalTrainer])
def test_the_papers_generator_gets_encoders_too(tmp_path: Path, kind: type) -> None:
    generator = small_ide3d()
    facts = {"kind": "ide3d", "config": json.dumps(asdict(generator.config))}
    weights.save(tmp_path / "paper.safetensors", generator.state_dict(), facts)
    trainer = kind(generator=str(tmp_path / "paper.safetensors"), batch_size=2)
    data = write_heads(tmp_path / "heads")
    figures = train(trainer, data, tmp_path / "run", Schedule(kimg=0.002), quiet=True)
    assert figures
    (path,) = (tmp_path / "run").glob("*.safetensors")
    config = load_encoder(str(path)).config
    assert (config.num_shape, config.resolution) == (generator.num_shape, generator.resolution)
