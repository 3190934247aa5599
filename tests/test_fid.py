"""`eval fid`, `eval semfaceedit`, `eval transfer`: figures worked out by hand, and small runs."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from made_heads import truths
from small_trainers import HEADS, SmallSemFaceEdit, write_faces, write_heads
from tiny import TinyGenerator
from torch import Tensor
from typer.testing import CliRunner

from semedit import metrics
from semedit.cli.app import app
from semedit.editors import Transfer
from semedit.errors import InputError, OptionError
from semedit.evaluations import fid
from semedit.evaluations.fid import FidEvaluation, read_pictures
from semedit.evaluations.semfaceedit import TABLES, Ablation
from semedit.evaluations.transfer import TransferEvaluation
from semedit.generators import Output
from semedit.inverters import Optimize


@pytest.fixture(autouse=True)
def plain_features(monkeypatch: pytest.MonkeyPatch) -> None:
    """Means of colours over quarters of the picture."""

    def features(images: list[Tensor]) -> Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(torch.cat(images), 2).flatten(1)

    monkeypatch.setattr(fid, "deep_features", features)


def test_kernel_distance_by_loops() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(5, 3), torch.randn(5, 3) + 0.5

    def k(x: Tensor, y: Tensor) -> float:
        return float((x @ y / 3 + 1) ** 3)

    within = sum(k(s[i], s[j]) for s in (a, b) for i in range(5) for j in range(5) if i != j) / 20
    between = sum(k(x, y) for x in a for y in b) / 25
    assert metrics.kernel_distance(a, b) == pytest.approx(within - 2 * between, rel=1e-5)


def test_like_sets_are_near_and_subsets_agree() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(400, 6), torch.randn(400, 6)
    assert abs(metrics.kernel_distance(a, b)) < 0.02 < metrics.kernel_distance(a, b + 1)
    small = metrics.kernel_distance(a, b + 1, subsets=20, size=100)
    assert small == pytest.approx(metrics.kernel_distance(a, b + 1), rel=0.15)


class Flat(TinyGenerator):
    """Draws grey pictures as bright as z's first entry says."""

    def synthesis(self, codes: dict[str, Tensor], c: Tensor, noise: str = "const") -> Output:
        shade = 0.3 * codes["ws"][:, :1, :1]
        return Output(shade[..., None].expand(-1, 3, self.resolution, self.resolution))


def test_pictures_of_a_generator_beside_true_ones(tmp_path: Path) -> None:
    generator, data = Flat(), write_heads(tmp_path / "heads")
    true, poses = read_pictures(data, generator.resolution, 100, 0)
    assert true.shape == (2 * HEADS, 3, 16, 16) and poses is not None
    found = FidEvaluation(count=8)(generator, data)
    assert found["n"] == 8 and found["resolution"] == 16 and found["features"].startswith("faces")
    assert found["fid"] > 0 and found == FidEvaluation(count=8)(generator, data)
    assert found != FidEvaluation(count=8, seed=1)(generator, data)
    assert read_pictures(write_faces(tmp_path / "faces"), 16, 4, 0)[0].shape[0] == 4
    with pytest.raises(InputError):
        FidEvaluation(count=1)(generator, data)


@dataclass(frozen=True)
class OnePass(SmallSemFaceEdit):
    """Trains what it is told, by a tiny network."""

    def start(self, data: Path) -> Any:
        task = super().start(data)
        from tiny import small_manifolds

        from semedit.trainers.semfaceedit import SemFaceEditTask

        generator = small_manifolds(
            z_dim=5, apart=False, sharing=self.sharing, depth=self.depth // 2
        )
        generator.name = self.output
        return SemFaceEditTask(self, task.views, generator)


def test_tables_1_and_2_in_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_heads(tmp_path / "heads")
    ablation = Ablation(0.004, OnePass(second=0.5), FidEvaluation(count=6))
    seen: list[str] = []
    found = ablation(data, tmp_path / "runs", lambda name, done, total: seen.append(name))
    assert [len(rows) for rows in found.values()] == [3, 3] == [len(r) for r in TABLES.values()]
    assert seen == ["none-8", "all-8", "proposed-8", "proposed-4", "proposed-6", ""]
    one, two = found.values()
    assert one["proposed: all but colour layers"] == two["8"] != two["4"]
    # What is trained is not trained again, and the table is the same.
    logs = sorted((tmp_path / "runs").rglob("log.jsonl"))
    first = [log.read_text().splitlines() for log in logs]
    assert len(logs) == 5 and ablation(data, tmp_path / "runs") == found
    for log, lines in zip(logs, first, strict=True):  # figures are taken again
        assert json.loads(log.read_text().splitlines()[-1])["step"] == json.loads(lines[-1])["step"]
    # Another budget is another run.
    replace(ablation, kimg=0.008)(data, tmp_path / "runs")
    assert len(list((tmp_path / "runs").rglob("*.safetensors"))) == 10


def test_the_commands_print_their_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"fid": 1.5, "kid": 0.002, "n": 6, "resolution": 64, "features": "faces, 12"}
    monkeypatch.setattr(Ablation, "__call__", lambda *_, **__: {t: {"8": row} for t in TABLES})
    command = ["eval", "semfaceedit", "--data", str(tmp_path), "-o", "width=8"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0 and "table 2" in done.output and "features: faces" in done.output
    found = json.loads(CliRunner().invoke(app, [*command, "--json"]).output.splitlines()[-1])
    assert set(TABLES) <= set(found)


def test_transfers_between_heads() -> None:
    method = Transfer(steps=2, perceptual="none", parse_weight=0.0)
    evaluation = TransferEvaluation(("skin",), method, Optimize(steps=2, perceptual="none"))
    heads = [replace(truth, edits={}) for truth in truths(2)]
    found = evaluation(heads, TinyGenerator())
    keys = ("iou", "seen", "colour", "outside", "drawn", "seconds")
    assert set(found) == {f"{k}_skin" for k in keys}
    assert found["outside_skin"] < 0.2 * found["drawn_skin"]  # pixels are kept
    with pytest.raises(OptionError, match="two heads"):
        evaluation(heads[:1], TinyGenerator())
