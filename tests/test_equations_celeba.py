"""Objectives of the trainers on CelebA and CelebAMask-HQ: what is true is mirrored with its
picture."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import Calls
from torch import Tensor, nn

from semedit.datasets.celeba import Listed
from semedit.datasets.celebamask import IMAGES, mask_path
from semedit.faces.components import COMPONENTS
from semedit.trainers.attributes import HELD, AttributeTask, AttributeTrainer
from semedit.trainers.deeplab import DeepLabTask, DeepLabTrainer


class Told(nn.Module):
    """A network that is told what it answers; its one weight is added to every logit."""

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.answer, self.seen = answer, []
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(images)
        return self.answer(images) + self.weight


def attributes(n: int = 4) -> AttributeTask:
    torch.manual_seed(0)
    truth = (torch.rand(n, 3) < 0.5).float()
    names, paths = ("smiling", "young", "bald"), [Path(str(i)) for i in range(n)]
    listed = Listed(paths, names, truth, np.arange(n - 1), np.array([n - 1]))
    return AttributeTask(AttributeTrainer(size=16, width=2, device="cpu"), listed)


def deeplab(folder: Path, n: int = 3) -> DeepLabTask:
    """Skin on the left half of grey pictures, brighter below, a nose further left."""
    (folder / IMAGES).mkdir(parents=True)
    for i in range(n):
        pixels = np.full((32, 32, 3), 40 * i, np.uint8)
        pixels[16:] += 80
        Image.fromarray(pixels).save(folder / IMAGES / f"{i}.jpg", quality=100)
        for part, end in (("skin", 16), ("nose", 6)):
            mask = np.zeros((32, 32), np.uint8)
            mask[:, :end] = 255
            path = mask_path(folder, i, part)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(path)
    torch.manual_seed(0)
    return DeepLabTask(DeepLabTrainer(size=32, body="mobilenet", device="cpu"), folder)


def told(task: Any, answer: Any) -> Told:
    """The task with another network, which its optimiser knows."""
    task.network = Told(answer)
    task.modules = {"network": task.network}
    task.optimisers = {"network": torch.optim.SGD(task.network.parameters(), lr=0.1)}
    return task.network


def close(found: Any, expected: Any, rtol: float = 1e-4) -> None:
    found, expected = (torch.as_tensor(x).detach().double() for x in (found, expected))
    torch.testing.assert_close(found, expected, rtol=rtol, atol=1e-5)


def test_attributes_cross_entropy() -> None:
    run = attributes()
    logits, truth = torch.tensor([[2.0, -1.0, 0.5]]), torch.tensor([[1.0, 0.0, 0.0]])
    network = told(run, lambda images: logits.expand(len(images), -1))
    images = torch.randn(64, 3, 4, 4)
    values = run.step((images, truth.expand(64, -1)), 0.0)
    chances = [1 / (1 + math.exp(-x)) for x in (2.0, 1.0, -0.5)]  # of what is so
    close(values["loss"], -sum(math.log(p) for p in chances) / 3)
    slope = sum(s * (1 - p) for s, p in zip((-1, 1, 1), chances, strict=True)) / 3
    close(network.weight, -0.1 * slope)  # one step against the gradient
    (seen,) = network.seen
    turned = [torch.equal(a, b.flip(-1)) for a, b in zip(seen, images, strict=True)]
    same = [torch.equal(a, b) for a, b in zip(seen, images, strict=True)]
    assert all(a != b for a, b in zip(turned, same, strict=True)) and 16 < sum(turned) < 48
    network.weight.grad.fill_(100.0)
    run.step((images, truth.expand(64, -1)), 0.0)
    assert abs(network.weight.grad.item()) < 1  # of this step alone


def test_attributes_batches_and_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    run = attributes()
    monkeypatch.setattr(run, "pictures", lambda rows: torch.tensor(rows)[:, None].float())
    images, truth = run.batch(torch.tensor([2, 0]))
    assert images.flatten().tolist() == [2, 0] and torch.equal(truth, run.listed.truth[[2, 0]])
    said = torch.tensor([[3.0, -1.0, 2.0]])
    monkeypatch.setattr(run.listed.__class__, "__setattr__", object.__setattr__)
    run.listed.held = np.arange(4)
    run.listed.truth = torch.tensor([[1.0, 0, 1], [1, 0, 0], [0, 0, 1], [1, 1, 0]])
    network = told(run, lambda x: torch.where(x < 2, said, -said))
    figures = run.evaluate({"network": network})
    right = [[1, 1, 1], [1, 1, 0], [1, 0, 0], [0, 1, 1]]
    close(figures["attribute_accuracy"], sum(map(sum, right)) / 12)
    # Of each attribute, the mean share of right ones among those that have it and have it not.
    balanced = [(2 / 3 + 1 / 1) / 2, (1 / 1 + 2 / 3) / 2, (1 / 2 + 1 / 2) / 2]
    close(figures["attribute_balanced_accuracy"], sum(balanced) / 3)
    assert HELD == 2000
    run.listed.held = np.arange(0)
    assert run.evaluate({"network": network}) == {}
    weights = {id(p) for p in attributes().network.parameters()}
    assert weights  # Adam at the paper's rate
    fresh = attributes()
    (group,) = fresh.optimisers["network"].param_groups
    assert group["lr"] == 0.05 and len(group["params"]) == len(weights)


def test_components_are_mirrored_with_their_picture(tmp_path: Path) -> None:
    run = deeplab(tmp_path)
    torch.manual_seed(1)
    truth = torch.randint(0, len(COMPONENTS), (64, 6, 6))
    images = truth[:, None].float().expand(-1, 3, -1, -1)
    hot = torch.eye(len(COMPONENTS))

    def answer(x: Tensor) -> Tensor:
        """What a pixel shows is what it is, quite surely."""
        return 5 * hot[x[:, 0].long()].permute(0, 3, 1, 2)

    network = told(run, answer)
    values = run.step((images, truth), 0.0)
    kinds = len(COMPONENTS)
    close(values["loss"], -math.log(math.exp(5) / (math.exp(5) + kinds - 1)))
    (seen,) = network.seen
    turned = [torch.equal(a, b.flip(-1)) for a, b in zip(seen, images, strict=True)]
    assert 16 < sum(turned) < 48
    assert all(t != torch.equal(a, b) for t, a, b in zip(turned, seen, images, strict=True))


def test_components_cross_entropy(tmp_path: Path) -> None:
    run = deeplab(tmp_path)
    logits = torch.randn(2, len(COMPONENTS), 1, 1).expand(-1, -1, 4, 4)
    weight = torch.zeros(len(COMPONENTS), requires_grad=True)
    told(run, lambda x: logits + weight[:, None, None])
    run.optimisers = {"network": torch.optim.SGD([weight], lr=0.1)}
    truth = torch.tensor([3, 5])[:, None, None].expand(2, 4, 4)
    values = run.step((torch.zeros(2, 3, 4, 4), truth), 0.0)
    chances = logits[:, :, 0, 0].double().softmax(1)
    close(values["loss"], -(chances[0, 3].log() + chances[1, 5].log()) / 2)
    slope = (chances.sum(0) - torch.eye(len(COMPONENTS))[[3, 5]].sum(0)) / 2
    close(weight.grad, slope)
    close(weight, -0.1 * slope)  # one step raises what is true
    weight.grad.fill_(100.0)
    run.step((torch.zeros(2, 3, 4, 4), truth), 0.0)
    assert weight.grad.abs().max().item() < 1  # of this step alone
    (group,) = deeplab(tmp_path / "again").optimisers["network"].param_groups
    assert group["lr"] == 3e-4


def test_components_are_read_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = deeplab(tmp_path)
    assert run.train.tolist() == [0, 1] and run.held.tolist() == [2]
    images, truth = run.batch(torch.tensor([1, 0]))
    for i, grey in enumerate((40.0, 0.0)):
        for rows, more in ((slice(0, 14), 0), (slice(18, 32), 80)):
            found = (images[i, :, rows] + 1) * 127.5
            assert float((found - grey - more).abs().max()) < 4
    names = list(COMPONENTS)
    assert (truth[:, :, :6] == names.index("nose")).all()
    assert (truth[:, :, 6:16] == names.index("skin")).all()
    assert (truth[:, :, 16:] == names.index("background")).all()
    read = Calls(run, "read", monkeypatch)
    answer = torch.zeros(len(names), 32, 32)
    answer[names.index("skin"), :, :24] = 1
    answer[names.index("background"), :, 24:] = 1
    figures = run.evaluate({"network": told(run, lambda x: answer[None])})
    assert read[0][0][0].tolist() == [2]
    # skin: 10 of 24 columns; background 8 of 16; nose none: those that are there or said.
    close(figures["component_miou"], (10 / 24 + 8 / 16 + 0) / 3)
