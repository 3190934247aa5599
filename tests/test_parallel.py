"""Training by two processes, as torchrun starts them, on CPUs (gloo)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from small_trainers import write_heads
from torchrun_worker import LineTrainer

from semedit.errors import OptionError
from semedit.trainers.loop import CHECKPOINT, Schedule, train
from semedit.trainers.parallel import Processes

WORKER = Path(__file__).with_name("torchrun_worker.py")


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    data = write_heads(tmp_path / "heads")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--master-addr", "127.0.0.1", "--rdzv-backend", "c10d"]
    command += ["--rdzv-endpoint", "127.0.0.1:0", str(WORKER), str(data), str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    # A group of its own, so that a run that hangs leaves no workers behind.
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        _, told = process.communicate(timeout=300)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, told[-3000:]
    for name in ("line", "ide3d"):
        first, second = (torch.load(tmp_path / f"{name}-{rank}.pt") for rank in (0, 1))
        for module, values in first.items():
            for key, value in values.items():
                assert torch.equal(value, second[module][key]), (name, module, key)
    # Where nothing is drawn at random, two halves of a batch are the whole batch.
    train(LineTrainer(), data, tmp_path / "alone", Schedule(kimg=0.04, final_rate=1.0), quiet=True)
    alone = torch.load(tmp_path / "alone" / CHECKPOINT, weights_only=True)["modules"]["model"]
    together = torch.load(tmp_path / "line-1.pt")["model"]
    for key, value in alone.items():
        torch.testing.assert_close(together[key], value)
    # The first process alone writes, and what it writes can be resumed.
    held = torch.load(tmp_path / "ide3d" / CHECKPOINT, weights_only=True)
    assert held["step"] == 3 and len(list((tmp_path / "ide3d").glob("*.safetensors"))) == 1


def test_batches_are_shared_evenly() -> None:
    indices = torch.arange(6)
    parts = [Processes(rank, 3).part(indices) for rank in range(3)]
    assert sorted(torch.cat(parts).tolist()) == list(range(6))
    assert {len(part) for part in parts} == {2}
    with pytest.raises(OptionError, match="cannot be shared"):
        Processes(0, 4).part(indices)
    assert Processes().agree(0.5, 1.0) == [0.5, 1.0]
