"""The training loop: the only one in semedit.

A trainer is a frozen dataclass whose fields are its hyper-parameters. It makes a `Task`, the
things that change while training:

    class Task(Protocol):
        modules      dict[str, nn.Module]; saved, restored, and averaged (see `averaged`)
        averaged     names of the modules that get an exponential moving average
        optimisers   dict[str, Optimizer]; the loop scales their initial learning rates
        size         number of training items
        batch(indices)            -> whatever `step` takes; indices int64 [B] into the items
        step(batch, progress)     -> {name: float}; one update of the optimisers; progress in [0,1]
        evaluate(modules)         -> {name: float} on held-out items; {} where there are none
        export(modules, figures, folder, record) writes the weight files

`modules` given to `evaluate` and `export` are the averaged ones, in eval mode.

A step may draw random numbers from torch's global generator only. The loop seeds it by
(seed, step) and derives the order of the data from (seed, epoch), so nothing random is ever
stored, and a resumed run is the unbroken one bit for bit. That holds for runs measured in kimg;
a run that ends by the clock also decays its learning rate by the clock.

A task with a method `share` may be trained by several processes, see parallel.py: it gets what
it evaluates its losses by, and parts of the batches; draws differ between the processes.

In the run's folder: `checkpoint.pt` (tensors and plain values), `log.jsonl` (one line per report)
and whatever `export` writes.
"""

from __future__ import annotations

import copy
import json
import math
import operator
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, is_dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, ClassVar, NoReturn, Protocol, cast

import torch
from torch import Tensor, nn
from tqdm import tqdm

from semedit import weights
from semedit.datasets.stored import DAMAGED
from semedit.errors import InputError, OptionError, PlaceError, WeightsError
from semedit.media import valid_json
from semedit.media.files import alone_in, atomic_path
from semedit.trainers.parallel import Processes, joined

CHECKPOINT = "checkpoint.pt"
LOG = "log.jsonl"


class TrainingTask(Protocol):
    """What changes while training; see the module's docstring."""

    modules: dict[str, nn.Module]
    averaged: tuple[str, ...]
    optimisers: dict[str, torch.optim.Optimizer]
    size: int

    def batch(self, indices: Tensor) -> Any: ...

    def step(self, batch: Any, progress: float) -> dict[str, float]: ...

    def evaluate(self, modules: dict[str, nn.Module]) -> dict[str, float]: ...

    def export(
        self,
        modules: dict[str, nn.Module],
        figures: dict[str, float],
        folder: Path,
        record: dict[str, Any],
    ) -> None: ...


class Trainer(Protocol):
    """A frozen dataclass: its fields are the hyper-parameters, `start` makes the task.

    A class attribute `schedule`, where there is one, is what a run follows unless told otherwise.
    """

    name: ClassVar[str]
    batch_size: int

    def start(self, data: Path) -> TrainingTask: ...


@dataclass(frozen=True)
class Schedule:
    """When a run ends, how its learning rate moves, and when it reports."""

    kimg: float | None = None  # thousands of items; None: no end by count
    minutes: float | None = None  # of training, earlier calls counted in; None: no such end
    epochs: float | None = None  # passes over the data; None: no such end
    warmup_steps: int = 100  # learning rate rises linearly
    final_rate: float = 0.02  # of the initial rate, reached by a half cosine
    decay_steps: int = 0  # the rate falls to a tenth every so many steps; 0: by the cosine
    ema_steps: float = 250.0  # half-life of the moving average, in steps
    log_seconds: float = 20.0  # between two lines of the log
    save_minutes: float = 5.0  # between two checkpoints, each with an evaluation

    def __post_init__(self) -> None:
        if self.kimg is None and self.minutes is None and self.epochs is None:
            raise OptionError("a training run needs an end", hint="give --kimg or --minutes")

    def sized(self, items: int) -> Schedule:
        """The schedule for a data set of so many items: passes over it counted in kimg."""
        if self.epochs is None:
            return self
        return replace(self, kimg=self.epochs * items / 1000.0, epochs=None)

    def progress(self, items: int, seconds: float) -> float:
        """Part of the run that is done, in [0,1]: by count or by the clock, whichever is ahead."""
        by_count = items / (1000.0 * self.kimg) if self.kimg else 0.0
        by_clock = seconds / (60.0 * self.minutes) if self.minutes else 0.0
        return min(1.0, max(by_count, by_clock))

    def rate(self, step: int, progress: float) -> float:
        """Factor on the initial learning rates."""
        warmup = min(1.0, (step + 1) / max(1, self.warmup_steps))
        if self.decay_steps:
            return warmup * 0.1 ** (step // self.decay_steps)
        cosine = 0.5 * (1.0 + math.cos(math.pi * progress))
        return warmup * (self.final_rate + (1.0 - self.final_rate) * cosine)


@dataclass
class _Run:
    """One run's state: what a checkpoint holds."""

    task: TrainingTask
    means: dict[str, nn.Module]
    rates: dict[str, list[float]]
    processes: Processes
    step: int = 0
    items: int = 0
    seconds: float = 0.0

    def progress(self, schedule: Schedule, stop: list[int]) -> tuple[float, int]:
        """Part of the run that is done, and the signal that ends it here (0: none), as the first
        process sees it."""
        done = schedule.progress(self.items, self.seconds)
        done, stopped_by = self.processes.agree(done, float(stop[0] if stop else 0))
        return done, int(stopped_by)

    def averages(self) -> dict[str, nn.Module]:
        """The modules with the averaged ones in place, all in eval mode."""
        return {n: self.means.get(n, m).eval() for n, m in self.task.modules.items()}


def train(
    trainer: Trainer,
    data: str | Path,
    run: str | Path,
    schedule: Schedule,
    seed: int = 0,
    quiet: bool = False,
) -> dict[str, float]:
    """Train until the schedule ends; go on from the run's checkpoint where there is one.

    SIGINT (Ctrl-C) and SIGTERM end the run behind the step in hand, with a checkpoint; the first
    one evaluates and writes weight files, too. Then the signal does what it would have done.

    Args:    data: folder of the data set. run: folder for checkpoint, log and weight files.
             seed: of initial weights, data order and every random draw.
    Returns: the held-out figures of the averaged modules.
    Raises:  InputError: the run's checkpoint was made with other hyper-parameters or another seed.
             PlaceError: the log is not a file of the run's folder alone.
             LockedError: another process trains in this folder.
             KeyboardInterrupt: at an interrupt.
    """
    processes = joined()
    data, run = Path(data), Path(run)
    run.mkdir(parents=True, exist_ok=True)
    _check_log(run / LOG)
    with alone_in(run) if processes.first else nullcontext():
        return _train(trainer, data, run, schedule, seed, quiet, processes)


def _train(
    trainer: Trainer,
    data: Path,
    run: Path,
    schedule: Schedule,
    seed: int,
    quiet: bool,
    processes: Processes,
) -> dict[str, float]:
    torch.manual_seed(seed)
    with processes.in_turn():
        task = trainer.start(data)
    schedule = schedule.sized(task.size)
    state = _Run(
        task=task,
        means={n: copy.deepcopy(task.modules[n]).requires_grad_(False) for n in task.averaged},
        rates={n: [g["lr"] for g in o.param_groups] for n, o in task.optimisers.items()},
        processes=processes,
    )
    record = {"trainer": trainer.name, "options": _options(trainer), "seed": seed}
    _restore(state, run, record)
    if processes.size > 1:
        if not hasattr(task, "share"):
            raise OptionError(f"{trainer.name} is trained by one process, without torchrun")
        task.share(processes)
    with (
        tqdm(
            total=100.0,
            desc=f"train {trainer.name}",
            bar_format="{desc} {percentage:.1f}% |{bar}| {remaining}{postfix}",
            # None: no bar where stderr is no terminal
            disable=True if quiet or not processes.first else None,
        ) as bar,
        _signals() as stop,
    ):
        stopped_by = _loop(state, trainer, run, schedule, seed, record, bar, stop)
    if stopped_by != signal.SIGTERM:
        figures = _save(state, run, record)
    elif processes.first:  # who terminates does not wait long
        _save_checkpoint(state, run, record)
    if stopped_by:
        signal.raise_signal(stopped_by)
        raise KeyboardInterrupt  # where the signal is ignored: the run is not what it should be
    return figures


@contextmanager
def _signals() -> Iterator[list[int]]:
    """A list that SIGINT and SIGTERM fill, so that the run ends behind a whole step; a second one
    does what it always does."""
    stop: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    kinds = (signal.SIGINT, signal.SIGTERM)
    before = {kind: signal.getsignal(kind) for kind in kinds}

    def restore() -> None:
        for kind in kinds:
            signal.signal(kind, before[kind])

    def note(number: int, frame: object) -> None:
        stop.append(number)
        restore()

    for kind in kinds:
        signal.signal(kind, note)
    try:
        yield stop
    finally:
        restore()


def _loop(
    state: _Run,
    trainer: Trainer,
    run: Path,
    schedule: Schedule,
    seed: int,
    record: dict[str, Any],
    bar: tqdm[NoReturn],
    stop: list[int],
) -> int:
    """Train until the run ends; by which signal, 0 for none."""
    logged = saved = last = time.monotonic()
    sums: dict[str, list[float]] = {}
    while True:
        done, stopped_by = state.progress(schedule, stop)
        if stopped_by or done >= 1.0:
            break
        _advance(state, trainer.batch_size, schedule, seed, done, sums)
        now = time.monotonic()
        state.seconds, last = state.seconds + now - last, now
        if now - logged > schedule.log_seconds:
            _show(bar, done, _report(state, run, sums))
            logged = now
        if now - saved > 60.0 * schedule.save_minutes:
            _save(state, run, record)
            saved = last = time.monotonic()
    if sums:
        _show(bar, done, _report(state, run, sums))
    return stopped_by


def _show(bar: tqdm[NoReturn], done: float, line: str) -> None:
    bar.set_postfix_str(line, refresh=False)
    bar.update(100.0 * done - bar.n)


def _advance(
    state: _Run,
    batch_size: int,
    schedule: Schedule,
    seed: int,
    done: float,
    sums: dict[str, list[float]],
) -> None:
    """One step: data, update, moving averages."""
    task = state.task
    rate = schedule.rate(state.step, done)
    for name, optimiser in task.optimisers.items():
        for group, initial in zip(optimiser.param_groups, state.rates[name], strict=True):
            group["lr"] = initial * rate
    indices = state.processes.part(order(task.size, batch_size, state.step, seed))
    # Processes draw apart; alone, the first one's draws are those of any run.
    torch.manual_seed((seed + 1) * 1_000_003 + state.step + 7_919_000_033 * state.processes.rank)
    for module in task.modules.values():
        module.train()
    for name, value in task.step(task.batch(indices), done).items():
        sums.setdefault(name, []).append(value)
    state.step += 1
    state.items += batch_size
    # A young average forgets faster, so that the random start leaves it soon.
    half_life = min(schedule.ema_steps, 0.1 * state.step)
    average(state.means, task.modules, 0.5 ** (1.0 / max(half_life, 1e-3)))


def order(size: int, batch_size: int, step: int, seed: int) -> Tensor:
    """Indices int64 [batch_size] of one step: shuffled epochs laid end to end."""
    first = step * batch_size
    places = torch.arange(first, first + batch_size)
    out = torch.empty(batch_size, dtype=torch.int64)
    for epoch in range(first // size, (first + batch_size - 1) // size + 1):
        shuffle = torch.Generator().manual_seed((seed + 1) * 7_368_787 + epoch)
        here = places // size == epoch
        out[here] = torch.randperm(size, generator=shuffle)[places[here] % size]
    return out


@torch.no_grad()
def average(means: dict[str, nn.Module], modules: dict[str, nn.Module], decay: float) -> None:
    """means <- decay * means + (1 - decay) * modules; buffers are copied."""
    for name, mean in means.items():
        module = modules[name]
        torch._foreach_lerp_(list(mean.parameters()), list(module.parameters()), 1.0 - decay)
        for old, new in zip(mean.buffers(), module.buffers(), strict=True):
            old.copy_(new)


def _report(state: _Run, run: Path, sums: dict[str, list[float]]) -> str:
    """Append the means since the last report to the log; return them as one line."""
    if not state.processes.first:
        sums.clear()
        return ""
    values = {n: sum(v) / len(v) for n, v in sums.items()}
    sums.clear()
    _log(state, run, values)
    rounded = " ".join(f"{n} {v:.4g}" for n, v in values.items())
    return f"kimg {state.items / 1000:.2f} {rounded}"


def _check_log(path: Path) -> None:
    """Refuse to add lines to a file that lies elsewhere, under a link, or to a pipe or device."""
    if os.path.lexists(path) and (
        path.is_symlink() or not path.is_file() or path.stat().st_nlink > 1
    ):
        raise PlaceError(f"{path} is a link or no regular file", "remove it")


def _log(state: _Run, run: Path, values: dict[str, float]) -> None:
    row = {
        "step": state.step,
        "kimg": round(state.items / 1000, 3),
        "seconds": round(state.seconds, 1),
        **{n: float(f"{v:.5g}") for n, v in values.items()},
    }
    with (run / LOG).open("a") as file:
        file.write(valid_json.dumps(row) + "\n")


def write_weights(
    path: Path,
    tensors: Mapping[str, Tensor],
    record: Mapping[str, Any],
    figures: Mapping[str, float],
    data: object,
    kind: str,
    config: object,
    licence: str = "MIT",
    **more: str,
) -> None:
    """Write a weight file that tells how it was made: what `export` of a task ends with.

    Args:
        record, figures: as `export` got them. data: what was trained on, text or plain values.
        kind, config: what the file holds, for whoever loads it; config is a dataclass or plain
            values. more: other entries of the metadata.
    """
    values = asdict(cast(Any, config)) if is_dataclass(config) else config
    metadata = {
        "kind": kind,
        "config": json.dumps(values),
        "command": f"semedit train {record['trainer']}",
        "seed": str(record["seed"]),
        "data": data if isinstance(data, str) else json.dumps(data),
        "figures": valid_json.dumps({name: round(value, 4) for name, value in figures.items()}),
        "training": json.dumps(record),
        "licence": licence,
        **more,
    }
    weights.save(path, {name: value.cpu() for name, value in tensors.items()}, metadata)


class GeneratorTask:
    """What the tasks of a single generator share; `views.about` tells what it learns from."""

    kind: ClassVar[str]  # of the weight file
    more: Mapping[str, str] = MappingProxyType({})  # other entries of its metadata
    generator: Any  # each task names its own class
    views: Any
    optimisers: dict[str, torch.optim.Optimizer]

    def _update(self, name: str, loss: Tensor) -> None:
        """One step of one optimiser."""
        optimiser = self.optimisers[name]
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

    def export(
        self,
        modules: dict[str, nn.Module],
        figures: dict[str, float],
        folder: Path,
        record: dict[str, Any],
    ) -> None:
        """Write the generator."""
        write_weights(
            folder / f"{self.generator.name}.safetensors",
            modules["generator"].state_dict(),
            record,
            figures,
            self.views.about,
            self.kind,
            self.generator.config,
            licence=self.views.about.get("licence", "MIT"),
            **self.more,
        )


def _options(trainer: Trainer) -> dict[str, Any]:
    if not is_dataclass(trainer):
        raise TypeError("a trainer is a frozen dataclass")
    return json.loads(json.dumps(asdict(cast(Any, trainer))))


def _save(state: _Run, run: Path, record: dict[str, Any]) -> dict[str, float]:
    """Write checkpoint and weight files, the first process alone; return the held-out figures."""
    if not state.processes.first:
        return {}
    _save_checkpoint(state, run, record)
    task, modules = state.task, state.averages()
    with torch.no_grad():
        figures = task.evaluate(modules)
    if figures:
        _log(state, run, figures)
    done = {**record, "kimg": state.items / 1000, "minutes": round(state.seconds / 60, 1)}
    task.export(modules, figures, run, done)
    return figures


def _write(held: dict[str, Any], file: BinaryIO) -> None:
    """A checkpoint's bytes.

    Raises: OSError: they do not get there. torch alone says so in terms of its own.
    """
    try:
        torch.save(held, file)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def _save_checkpoint(state: _Run, run: Path, record: dict[str, Any]) -> None:
    held = {
        "record": record,
        "modules": {n: m.state_dict() for n, m in state.task.modules.items()},
        "means": {n: m.state_dict() for n, m in state.means.items()},
        "optimisers": {n: o.state_dict() for n, o in state.task.optimisers.items()},
        "step": state.step,
        "items": state.items,
        "seconds": state.seconds,
    }
    with atomic_path(run / CHECKPOINT) as partial, partial.open("wb") as file:
        _write(held, file)


def _restore(state: _Run, run: Path, record: dict[str, Any]) -> None:
    path = run / CHECKPOINT
    if not path.exists():
        return
    if not path.is_file():
        raise InputError(f"{path} is not a regular file", "give another folder for the run")
    try:
        held = weights.load_pickle(path)
        made = held["record"]
        if made != record:
            raise InputError(
                f"{path} was made with {made}",
                hint="use the same options, or another folder for the run",
            )
        _take(state, held)
    except (WeightsError, *DAMAGED) as error:
        reason = str(error).split("\n")[0]
        raise InputError(
            f"{path} is damaged: {reason}",
            hint="delete it to start over, or give another folder for the run",
        ) from error


def _take(state: _Run, held: dict[str, Any]) -> None:
    """Go on from what a checkpoint holds."""
    for name, module in state.task.modules.items():
        module.load_state_dict(held["modules"][name])
    for name, module in state.means.items():
        module.load_state_dict(held["means"][name])
    for name, optimiser in state.task.optimisers.items():
        optimiser.load_state_dict(held["optimisers"][name])
    state.step, state.items = operator.index(held["step"]), operator.index(held["items"])
    state.seconds = float(held["seconds"])
    if min(state.step, state.items) < 0 or not 0.0 <= state.seconds < math.inf:
        raise ValueError(f"step {state.step} after {state.seconds} seconds")
