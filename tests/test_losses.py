"""Losses against formulas written out, and the three equations of SemFaceEdit."""

import pytest
import torch
import torch.nn.functional as F
from tiny import TinyFaceNet

from semedit import losses, weights
from semedit.errors import OptionError, WeightsError
from semedit.faces import networks
from semedit.generators import Output
from semedit.losses.semantic import Target
from semedit.media.labels import LABELS, REGIONS


@pytest.fixture
def backbone() -> losses.NetworkFeatures:
    return losses.NetworkFeatures(TinyFaceNet(), "faces")


def output(n: int = 2, size: int = 16, seed: int = 0) -> Output:
    torch.manual_seed(seed)
    image = torch.rand(n, 3, size, size) * 2 - 1
    seg = torch.randn(n, len(LABELS), size // 2, size // 2)
    return Output(image=image, seg=seg, depth=None, low=None)


def test_region_and_dilate() -> None:
    labels = torch.zeros(1, 9, 9, dtype=torch.long)
    labels[0, 4, 4] = REGIONS["nose"][0]
    mask = losses.region(labels, ["nose", "lips"])
    assert mask.shape == (1, 1, 9, 9) and mask.sum() == 1
    grown = losses.dilate(mask, 2)
    assert grown.sum() == 25
    assert torch.equal(losses.dilate(mask, 0), mask)
    with pytest.raises(OptionError, match="regions"):
        losses.region(labels, ["chin"])


def test_feather_keeps_the_total_and_the_range() -> None:
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., 12:20, 12:20] = 1
    soft = losses.feather(mask, 1.5)
    assert torch.isclose(soft.sum(), mask.sum(), rtol=1e-4)
    assert soft.min() >= 0 and soft.max() <= 1 and 0 < soft[0, 0, 11, 16] < 0.5
    assert torch.equal(losses.feather(mask, 0), mask)


def test_image_loss() -> None:
    a, b = torch.zeros(2, 3, 4, 4), torch.full((2, 3, 4, 4), 0.5)
    assert torch.allclose(losses.image_loss(a, b), torch.tensor(0.25))
    assert torch.allclose(losses.image_loss(a, b, kind="l1"), torch.tensor(0.5))
    half = torch.zeros(2, 1, 4, 4)
    half[..., :2] = 1
    assert torch.allclose(losses.image_loss(a, b, half), torch.tensor(0.125))


def test_label_loss_matches_the_formulas() -> None:
    out = output()
    assert out.seg is not None
    labels = torch.randint(0, len(LABELS), (2, 8, 8))
    chance = out.seg.softmax(1)
    squared = 0.0
    for y in range(8):
        for x in range(8):
            wanted = torch.zeros(len(LABELS))
            wanted[labels[0, y, x]] = 1
            squared += float((chance[0, :, y, x] - wanted).square().sum()) / 64
    assert torch.isclose(losses.label_loss(out.seg, labels)[0], torch.tensor(squared))
    entropy = F.cross_entropy(out.seg[1:], labels[1:])
    assert torch.isclose(losses.label_loss(out.seg, labels, kind="ce")[1], entropy)


def test_labels_are_sampled_where_the_generator_labels() -> None:
    out = output()
    assert out.seg is not None
    labels = torch.randint(0, len(LABELS), (2, 8, 8))
    large = labels.repeat_interleave(2, 1).repeat_interleave(2, 2)
    assert torch.equal(losses.label_loss(out.seg, large), losses.label_loss(out.seg, labels))


def test_distance_is_zero_at_home_and_positive_away(backbone: losses.NetworkFeatures) -> None:
    image = output().image
    features = backbone.features(image)
    assert losses.distance(features, features).abs().max() == 0
    away = losses.distance(backbone.features(image.flip(3)), features)
    assert away.shape == (2,) and away.min() > 0


def test_losses_of_a_batch_are_those_of_its_faces(backbone: losses.NetworkFeatures) -> None:
    out, target = output(seed=0), output(seed=1)
    labels = torch.randint(0, len(LABELS), (2, 16, 16))
    both = losses.SemanticLoss(losses.SemanticLoss.inversion(target.image, labels), backbone)
    one = losses.SemanticLoss(losses.SemanticLoss.inversion(target.image[1:], labels[1:]), backbone)
    assert out.seg is not None
    single = Output(image=out.image[1:], seg=out.seg[1:], depth=None, low=None)
    assert torch.allclose(both(out)[1], one(single)[0], rtol=1e-4)


def test_equation_8_is_blind_to_the_image_inside_r(backbone: losses.NetworkFeatures) -> None:
    out, target = output(seed=0), output(seed=1)
    labels = torch.randint(0, len(LABELS), (2, 16, 16))
    r = torch.zeros(2, 1, 16, 16)
    r[..., 4:10, 4:10] = 1
    loss = losses.SemanticLoss([Target(target.image, labels, image_mask=1 - r)], backbone)
    before = loss(out)
    image = out.image * (1 - r) + r
    after = loss(Output(image=image, seg=out.seg, depth=None, low=None))
    assert torch.allclose(before, after)


def test_equation_9_with_an_empty_region_is_equation_7(backbone: losses.NetworkFeatures) -> None:
    out, source, donor = output(seed=0), output(seed=1), output(seed=2)
    labels = torch.randint(0, len(LABELS), (2, 2, 16, 16))
    r = torch.zeros(2, 1, 16, 16)
    pairs = (source.image, labels[0]), (donor.image, labels[1])
    nine = losses.SemanticLoss(losses.SemanticLoss.transfer(*pairs, r), backbone)
    seven = losses.SemanticLoss(losses.SemanticLoss.inversion(*pairs[0]), backbone)
    assert torch.allclose(nine(out), seven(out))


def test_the_built_in_backbone_serves_where_lpips_has_no_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def nothing(name: str) -> None:
        raise WeightsError(f"{name} is not there")

    monkeypatch.setattr(weights, "resolve", nothing)
    monkeypatch.setattr(networks, "load", lambda name, device="cpu": TinyFaceNet())
    assert losses.perceptual().name == "faces"
    with pytest.raises(WeightsError):
        losses.perceptual("lpips")
    with pytest.raises(OptionError):
        losses.perceptual("vgg")


def test_lpips_embeddings_give_the_package_s_own_distance(
    monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    lpips = pytest.importorskip("lpips")
    torch.manual_seed(0)
    network = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False).eval()
    state = {"features." + k.split(".", 1)[1]: v for k, v in network.net.state_dict().items()}
    torch.save(state, tmp_path / "alexnet.pth")
    monkeypatch.setattr(weights, "resolve", lambda name: tmp_path / "alexnet.pth")
    ours = losses.perceptual("lpips")
    a, b = output(size=64, seed=0).image, output(size=64, seed=1).image
    with torch.no_grad():
        expected = network(a, b).flatten()
        found = losses.distance(ours.features(a), ours.features(b))
    assert torch.allclose(found, expected, rtol=1e-4)
