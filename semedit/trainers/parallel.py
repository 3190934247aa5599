"""Several processes that train one network together: torchrun and DistributedDataParallel.

    torchrun --nproc-per-node 4 -m semedit.cli train ide3d --data DIR

Every process takes its part of each batch; gradients are means over all of them; the first one
writes. Without torchrun there is one process, and nothing here does anything.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from semedit.errors import OptionError

T = TypeVar("T")
Shared = Callable[[Callable[[], T]], T]
PATIENCE = timedelta(hours=24)  # the others wait while the first process prepares a large folder


@dataclass(frozen=True)
class Processes:
    """Process `rank` of `size`, with the GPU `local` where there are any."""

    rank: int = 0
    size: int = 1
    local: int = 0

    @property
    def first(self) -> bool:
        """Whether this one writes."""
        return self.rank == 0

    def part(self, indices: Tensor) -> Tensor:
        """This process's items of a batch int64 [B].

        Raises: OptionError: the batch cannot be shared evenly.
        """
        if len(indices) % self.size:
            raise OptionError(
                f"a batch of {len(indices)} cannot be shared by {self.size} processes",
                hint=f"-o batch_size={self.size * max(1, len(indices) // self.size)}",
            )
        return indices[self.rank :: self.size]

    def agree(self, *values: float) -> list[float]:
        """The first process's values."""
        if self.size == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=_device(self))
        distributed.broadcast(tensor, 0)
        return tensor.tolist()

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """The first process enters alone, the others when it is out: it makes what they read."""
        if self.size > 1 and not self.first:
            distributed.barrier()
        yield
        if self.size > 1 and self.first:
            distributed.barrier()


def _device(processes: Processes) -> torch.device:
    """Where collective operations happen."""
    on_gpu = distributed.get_backend() == "nccl"
    return torch.device("cuda", processes.local) if on_gpu else torch.device("cpu")


def device_of(name: str) -> torch.device:
    """The device of a name; "auto" is a GPU where there is one, and "cuda" under torchrun this
    process's own."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    local = os.environ.get("LOCAL_RANK")
    return torch.device(f"cuda:{local}" if name == "cuda" and local else name)


def joined() -> Processes:
    """What torchrun says of this process, which joins the others until it ends."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return Processes()
    processes = Processes(int(os.environ["RANK"]), size, int(os.environ.get("LOCAL_RANK", "0")))
    if not distributed.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(processes.local)
        backend = "nccl" if torch.cuda.is_available() else "gloo"
        distributed.init_process_group(backend, timeout=PATIENCE)
        atexit.register(distributed.destroy_process_group)
    return processes


class _Losses(nn.Module):
    """Makes any function of some modules a `forward`, which is what gradients are shared behind."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(modules)

    def forward(self, function: Callable[[], T]) -> T:
        return function()


def sharing(processes: Processes, *modules: nn.Module) -> Shared:
    """Evaluates losses whose gradients, for the parameters of `modules`, are to be means over all
    processes: `loss = shared(lambda: ...)`, then `loss.backward()`."""
    if processes.size == 1:
        return lambda function: function()
    wrapped = DistributedDataParallel(
        _Losses(modules),
        find_unused_parameters=True,  # a step may leave branches out
    )
    return lambda function: wrapped(function)
