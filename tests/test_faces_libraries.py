"""facexlib's and face-alignment's networks behind semedit's interfaces, with random weights."""

from typing import Any

import numpy as np
import pytest
import torch

from semedit import weights
from semedit.faces import identity, landmarks, networks, parsing, pose
from semedit.runtime import torchvision_ops

torchvision_ops.ensure()


def given(monkeypatch: pytest.MonkeyPatch, network: Any, key: str | None = None) -> None:
    """Let every weight file hold this network's state."""
    state = network.state_dict()
    monkeypatch.setattr(weights, "resolve", lambda name: name)
    monkeypatch.setattr(weights, "load_pickle", lambda path: {key: state} if key else state)


def test_bisenet_answers_in_celebamask_order(monkeypatch: pytest.MonkeyPatch) -> None:
    from facexlib.parsing.bisenet import BiSeNet

    torch.manual_seed(0)
    given(monkeypatch, BiSeNet(num_class=19))
    parser = parsing.BiSeNetParser()
    nose = parsing.BISENET_ORDER.index(10)
    raw = torch.zeros(1, 19, 512, 512)
    raw[:, 10] = 1.0
    with torch.inference_mode():
        assert parser(torch.rand(1, 3, 64, 64) * 2 - 1).shape == (1, 19, 64, 64)
    monkeypatch.setattr(parser, "network", lambda x: (raw, raw, raw))
    labels = parser(torch.zeros(1, 3, 64, 64)).argmax(1)
    assert (labels == nose).all()
    assert nose == 2


def test_parsenet_answers_at_the_size_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    from facexlib.parsing.parsenet import ParseNet

    monkeypatch.setattr(parsing, "SIZE", 128)  # 512 px take a minute
    given(monkeypatch, ParseNet(in_size=128, out_size=128, parsing_ch=19))
    assert parsing.ParseNetParser()(torch.zeros(1, 3, 96, 96)).shape == (1, 19, 96, 96)


def test_hopenet_gives_cameras(monkeypatch: pytest.MonkeyPatch) -> None:
    from facexlib.headpose.hopenet_arch import HopeNet

    own = networks.build("faces").eval()
    monkeypatch.setattr(networks, "load", lambda name, device="cpu": own)
    given(monkeypatch, HopeNet("resnet", [3, 4, 6, 3], 66), key="params")
    c = pose.HopenetPose()(torch.zeros(2, 3, 128, 128))
    assert c.shape == (2, 25)
    assert torch.isfinite(c).all()


def test_arcface_embeds_and_passes_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    from facexlib.recognition.arcface_arch import Backbone

    given(monkeypatch, Backbone(num_layers=50, drop_ratio=0.6, mode="ir_se"))
    images = torch.rand(1, 3, 128, 128, requires_grad=True)
    embedding = identity.ArcFace()(images)
    assert embedding.shape == (1, 512)
    torch.testing.assert_close(identity.similarity(embedding, embedding), torch.ones(1))
    embedding[0, 0].backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0


def test_fan_places_points_in_the_photo(monkeypatch: pytest.MonkeyPatch) -> None:
    from face_alignment.models import FAN

    given(monkeypatch, FAN(4))
    fan = landmarks.FanLandmarks()
    heat = torch.zeros(1, 68, 64, 64)
    heat[:, :, 32, 32] = 1.0
    photo = np.zeros((300, 400, 3), np.uint8)
    box = np.array([100.0, 100.0, 200.0, 200.0])
    assert fan(photo, [box]).points.shape == (1, 68, 2)
    monkeypatch.setattr(fan, "network", lambda x: [heat])
    found = fan(photo, [box])
    # The middle of FAN's view: the middle of the box, a little higher.
    np.testing.assert_allclose(found.points[0, 27], [150, 138], atol=3)
    assert fan(photo, []).points.shape == (0, 68, 2)
