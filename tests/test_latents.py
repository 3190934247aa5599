"""Latents: files that come back whole, tuned weights that leave the generator as it was."""

import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import TinyGenerator
from torch import Tensor

from semedit import latents
from semedit.errors import LatentError
from semedit.latents import Composite, Latent, TunedGenerator


@pytest.fixture
def generator() -> TinyGenerator:
    return TinyGenerator()


def make(generator: TinyGenerator, n: int = 2, tuned: bool = True) -> Latent:
    codes, c = generator.sample(n)
    differences = {
        "colour.0.weight": 0.1 * torch.randn(n, *generator.colour[0].weight.shape).half(),
        "colour.2.bias": 0.5 * torch.ones(n, 3).half() * torch.arange(1, n + 1)[:, None],
    }
    size = generator.resolution
    box = Composite(torch.rand(n, 3, size, size), torch.ones(n, 1, size, size))
    box.mask[..., :8] = 0
    return Latent(
        codes={k: v.detach() for k, v in codes.items()},
        c=c,
        generator=generator.name,
        fingerprint=latents.fingerprint(generator),
        method="test",
        tuned=differences if tuned else None,
        composite=box if tuned else None,
        meta={"perceptual": "faces", "loss": [0.5, 0.25][:n]},
    )


def equal(a: dict[str, Tensor] | None, b: dict[str, Tensor] | None) -> bool:
    if a is None or b is None:
        return a is b
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_a_saved_latent_comes_back(generator: TinyGenerator, tmp_path: Path) -> None:
    latent = make(generator)
    path = tmp_path / "folder" / "face.safetensors"
    latent.save(path)
    back = latents.load(path, generator)
    assert equal(back.codes, latent.codes) and equal(back.tuned, latent.tuned)
    assert torch.equal(back.c, latent.c)
    assert (back.generator, back.method, back.meta) == ("tiny", "test", latent.meta)
    assert back.composite is not None and latent.composite is not None
    assert torch.allclose(back.composite.image, latent.composite.image, atol=1e-3)


def test_tuned_weights_are_stored_in_half_precision(
    generator: TinyGenerator, tmp_path: Path
) -> None:
    path = tmp_path / "face.safetensors"
    make(generator).save(path)
    stored = {k: v for k, v in load_file(path).items() if k.startswith("tuned.")}
    assert stored and all(v.dtype == torch.float16 for v in stored.values())


def test_another_generator_is_refused_and_both_are_named(
    generator: TinyGenerator, tmp_path: Path
) -> None:
    path = tmp_path / "face.safetensors"
    latent = make(generator)
    latent.save(path)
    other = TinyGenerator(seed=1)
    with pytest.raises(LatentError) as refusal:
        latents.load(path, other)
    assert latent.fingerprint[:12] in str(refusal.value)
    assert latents.fingerprint(other)[:12] in str(refusal.value)


def test_a_truncated_file_is_refused(generator: TinyGenerator, tmp_path: Path) -> None:
    path = tmp_path / "face.safetensors"
    make(generator).save(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(LatentError, match="cut short"):
        latents.load(path, generator)


def test_a_missing_file_and_a_text_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LatentError, match="not a file"):
        latents.load(tmp_path / "none.safetensors")
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(LatentError):
        latents.load(tmp_path / "text.safetensors")


def test_weights_are_not_a_latent(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({"a": torch.zeros(2)}, str(path), {"kind": "weights"})
    with pytest.raises(LatentError, match="not a latent"):
        latents.load(path)


@pytest.mark.parametrize("name", ["code.ws", "c", "tuned.colour.2.bias"])
def test_nan_is_refused(generator: TinyGenerator, tmp_path: Path, name: str) -> None:
    path = tmp_path / "face.safetensors"
    latent = make(generator)
    latent.save(path)
    tensors = load_file(path)
    tensors[name].view(-1)[0] = float("nan")
    facts = {"kind": "latent", "generator": "tiny", "fingerprint": latent.fingerprint}
    save_file(tensors, str(path), facts)
    with pytest.raises(LatentError, match="NaN"):
        latents.load(path, generator)


@pytest.mark.parametrize("name", ["code.ws", "tuned.colour.2.bias"])
def test_a_wrong_shape_is_refused(generator: TinyGenerator, tmp_path: Path, name: str) -> None:
    path = tmp_path / "face.safetensors"
    latent = make(generator)
    latent.save(path)
    tensors = load_file(path)
    tensors[name] = tensors[name][:, :-1].contiguous()
    facts = {"kind": "latent", "generator": "tiny", "fingerprint": latent.fingerprint}
    save_file(tensors, str(path), facts)
    with pytest.raises(LatentError):
        latents.load(path, generator)


def test_tuning_shows_and_leaves_the_generator_alone(generator: TinyGenerator) -> None:
    before = latents.fingerprint(generator)
    latent = make(generator)
    plain = generator.synthesis(latent.codes, latent.c).image
    tuned = latents.synthesize(generator, latent).image
    assert (plain - tuned).abs().mean() > 0.01
    assert latents.fingerprint(generator) == before
    assert torch.equal(generator.synthesis(latent.codes, latent.c).image, plain)


def test_each_face_has_its_own_tuning(generator: TinyGenerator) -> None:
    latent = make(generator)
    together = latents.synthesize(generator, latent).image
    for i in range(len(latent)):
        assert torch.allclose(latents.synthesize(generator, latent[i]).image, together[i : i + 1])


def test_a_tuned_generator_offers_the_whole_protocol(generator: TinyGenerator) -> None:
    face = make(generator)[1]
    tuned = latents.tuned_generator(generator, face)
    assert tuned.resolution == generator.resolution and tuned.traits == generator.traits
    planes = tuned.planes(face.codes)
    assert torch.equal(
        tuned.render(planes, face.c).image, tuned.synthesis(face.codes, face.c).image
    )
    assert tuned.mapping(torch.zeros(1, 6), face.c)["ws"].shape == face.codes["ws"].shape


def test_tuned_weights_belong_to_one_face(generator: TinyGenerator) -> None:
    with pytest.raises(LatentError):
        latents.tuned_generator(generator, make(generator))


def test_differences_receive_gradients(generator: TinyGenerator) -> None:
    codes, c = generator.sample(1)
    difference = torch.zeros(3, requires_grad=True)
    tuned = latents.TunedGenerator(generator, {"colour.2.bias": difference})
    tuned.synthesis(codes, c).image.sum().backward()
    assert difference.grad is not None and difference.grad.abs().min() > 0
    assert generator.colour[2].bias.grad is None


def test_stack_undoes_indexing(generator: TinyGenerator) -> None:
    latent = make(generator)
    back = latents.stack([latent[0], latent[1]])
    assert equal(back.codes, latent.codes) and equal(back.tuned, latent.tuned)
    assert latent[1].meta["loss"] == [0.25]
    with pytest.raises(LatentError):
        latents.stack([latent[0], make(TinyGenerator(seed=1))[0]])


def test_stacking_does_not_change_a_face(generator: TinyGenerator) -> None:
    plain, tuned = make(generator, tuned=False)[0], make(generator)[1]
    both = latents.picture(generator, latents.stack([plain, tuned])).image
    for i, face in enumerate((plain, tuned)):
        assert torch.allclose(latents.picture(generator, face).image, both[i : i + 1], atol=1e-6)
    assert latents.stack([plain, plain]).tuned is None


def test_the_picture_keeps_what_surrounds_an_edit(generator: TinyGenerator) -> None:
    latent = make(generator)
    assert latent.composite is not None
    image = latents.picture(generator, latent).image
    assert torch.equal(image[..., :8], latent.composite.image[..., :8])
    drawn = latents.synthesize(generator, latent).image
    assert torch.equal(image[..., 8:], drawn[..., 8:])


def test_a_face_being_drawn_is_not_taken_for_its_generator(generator: TinyGenerator) -> None:
    """Readers check latents while another thread draws with a face's own weights."""
    tuned = {"colour.2.bias": torch.tensor([0.1, 0.0, 0.0])}
    codes, c = generator.sample(1)
    expected, found = latents.fingerprint(generator), set()
    ended = threading.Event()

    def read() -> None:
        while not ended.is_set():
            found.add(latents.fingerprint(generator))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for _ in range(200):
            TunedGenerator(generator, tuned).synthesis(codes, c)
    finally:
        ended.set()
        reader.join()
    assert found == {expected}
