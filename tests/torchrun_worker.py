"""What a process of `torchrun` does in test_parallel: python torchrun_worker.py DATA OUT."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from semedit.trainers.loop import Schedule, train
from semedit.trainers.parallel import Processes, sharing


class LineTask:
    """Fits y = w x to items of which the first process sees others than the second."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.x, self.y = torch.randn(16, 3), torch.randn(16, 1)
        self.model = nn.Linear(3, 1)
        self.modules: dict[str, nn.Module] = {"model": self.model}
        self.averaged = ("model",)
        self.optimisers: dict[str, torch.optim.Optimizer] = {
            "sgd": torch.optim.SGD(self.model.parameters(), 0.1)
        }
        self.size = 16
        self.share(Processes())

    def share(self, processes: Processes) -> None:
        self.shared = sharing(processes, self.model)

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        return self.x[indices], self.y[indices]

    def step(self, batch: tuple[Tensor, Tensor], progress: float) -> dict[str, float]:
        loss = self.shared(lambda: (self.model(batch[0]) - batch[1]).square().mean())
        self.optimisers["sgd"].zero_grad()
        loss.backward()
        self.optimisers["sgd"].step()
        return {"loss": float(loss)}

    def evaluate(self, modules: dict[str, nn.Module]) -> dict[str, float]:
        return {}

    def export(self, *_: Any) -> None: ...


@dataclass(frozen=True)
class LineTrainer:
    """See LineTask."""

    name: ClassVar[str] = "line"
    batch_size: int = 4  # items a step

    def start(self, data: Path) -> LineTask:
        return LineTask()


def main(data: Path, out: Path) -> None:
    """A line, then a few adversarial steps of IDE-3D; every process writes what it holds."""
    from small_trainers import SmallIDE3D

    torch.set_num_threads(1)
    rank = os.environ.get("RANK", "0")
    kept: dict[str, Any] = {}

    @dataclass(frozen=True)
    class Line(LineTrainer):
        def start(self, data: Path) -> LineTask:
            kept["line"] = super().start(data)
            return kept["line"]

    @dataclass(frozen=True)
    class Small(SmallIDE3D):
        def start(self, data: Path) -> Any:
            kept["ide3d"] = super().start(data)
            return kept["ide3d"]

    train(Line(), data, out / "line", Schedule(kimg=0.04, final_rate=1.0), quiet=True)
    train(Small(), data, out / "ide3d", Schedule(kimg=0.006, final_rate=1.0), quiet=True)
    for name, task in kept.items():
        held = {k: m.state_dict() for k, m in task.modules.items()}
        torch.save(held, out / f"{name}-{rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
