"""The folder loop on a Ray cluster: `--engine ray`, the extra semedit[ray].

Ray schedules, receipts are the truth. The driver plans the batches that a local run would have
and gives Ray those in which something is pending; one actor a device runs the local loop on each,
which looks at the receipts again, writes atomically, and returns what came of it as rows. An error
is a row, too, because an exception in an actor would end the whole job. When a node is lost, Ray
gives its batches to another, where the receipts tell what is left of them.

All nodes must see the same files under the same paths: inputs, workspace, weights.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
import signal
import socket
import tempfile
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from semedit import errors
from semedit.batch.loop import Loop, chunks
from semedit.batch.receipts import InputDigests, Item, Observer, Outcome, Run, Tally
from semedit.errors import FailuresError, InputError, OptionError, SemeditError, WorkspaceError
from semedit.runtime.isolation import Isolated, leave_current_folder

ROUNDS = 16  # blocks of batches for each actor: what a lost node must do again is one block
PATIENCE = 10.0  # seconds until a cluster at an address must answer
STORE = 256 << 20  # bytes of shared memory for a cluster of our own: only names travel


@dataclass(frozen=True)
class Cluster:
    """Where to run.

    Attributes:
        address: of a cluster; None: one of its own on this machine.
        gpus: one actor on each GPU of the cluster, where it has some; else one on each processor.
    """

    address: str | None = None
    gpus: bool = True


def for_each_on_ray(run: Run, task: Any, observer: Observer, cluster: Cluster) -> Tally:
    """`for_each` over the devices of a cluster.

    Args:
        task: as semedit.tasks has it; it must be possible to pickle.

    Raises:
        OptionError: Ray is not installed, or there is no cluster at the address.
        SemeditError: as `for_each`.
    """
    items = list(run.shard.of(task.items(run)))
    observer.start(len(items))
    if items:
        run.workspace.clear()
    tally = Tally()
    with _connected(cluster.address) as ray:
        batches = list(_pending(run, items, task.batch, observer, tally))
        known = tally.error
        for outcome in _outcomes(ray, run, task, batches, cluster.gpus) if batches else ():
            tally.add(outcome)
            observer.finish(outcome)
            if 0 < run.max_failures <= tally.error - known:
                raise FailuresError(f"{tally.error - known} inputs failed, so the run ends")
    return tally


def _pending(
    run: Run, items: list[Item], batch: int, observer: Observer, tally: Tally
) -> Iterator[list[Item]]:
    """Batches in which something is to be done; of the others, what is up to date is told."""
    for chunk in chunks(items, batch):
        if any(_due(run, item) for item in chunk):
            yield chunk
            continue
        with Loop(run, _never, _never, observer) as loop:
            loop.go([chunk])
        for status in ("done", "uptodate", "skipped", "error"):
            setattr(tally, status, getattr(tally, status) + getattr(loop.tally, status))


def _due(run: Run, item: Item) -> bool:
    try:
        return run.due(run.settled(item, InputDigests.of(item).sha256))
    except InputError:  # the actor will tell
        return True


def _never(*_: Any) -> Any:
    raise AssertionError("nothing is to be done")


@contextmanager
def _connected(address: str | None) -> Iterator[Any]:
    """Ray, connected to the cluster; a connection that is there already stays."""
    for name, value in (
        ("RAY_USAGE_STATS_ENABLED", "0"),
        ("RAY_TMPDIR", tempfile.gettempdir()),
        ("RAY_BACKEND_LOG_LEVEL", "fatal"),
    ):
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise OptionError("Ray is not installed", 'pip install "semedit[ray]"') from error
    mine = not ray.is_initialized()
    if mine:
        _reach(address)
        own: dict[str, Any] = (
            {"object_store_memory": STORE, "include_dashboard": False} if not address else {}
        )
        try:
            with _own_signals(), _at_root(), Isolated():
                ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **own)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise OptionError(f"no Ray cluster at {address}: {error}") from error
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False  # the observer has its own
    try:
        yield ray
    finally:
        if mine:
            ray.shutdown()


def _reach(address: str | None) -> None:
    """See that something answers at HOST:PORT or ray://HOST:PORT; Ray itself tries for ever.

    Raises: OptionError: nothing does within PATIENCE, or the address is none.
    """
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if not colon:  # of this machine, found by Ray: "auto", "local"
        return
    answers: list[str] = []

    def ask() -> None:
        try:
            with socket.create_connection((host.strip("[]"), int(port)), PATIENCE):
                answers.append("")
        except (OSError, ValueError, OverflowError) as error:
            answers.append(str(error))

    # In a thread, as names are looked up for as long as the system likes.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    why = answers[0] if answers else "no answer"
    if why:
        raise OptionError(
            f"no Ray cluster at {address}: {why} (tried for up to {PATIENCE:g} s)",
            "`ray status` says where one is; without --address one is started on this machine",
        )


@contextmanager
def _own_signals() -> Iterator[None]:
    """A block in which Ray may set handlers of signals, but none that stay: it exits with 1."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {kind: signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)


@contextmanager
def _at_root() -> Iterator[None]:
    """A block in which the current folder is the root: Ray lets all workers look for modules
    first where the driver is, which may be among a stranger's photographs."""
    folder = Path.cwd()
    os.chdir(folder.anchor)
    try:
        yield
    finally:
        os.chdir(folder)


def _outcomes(
    ray: Any, run: Run, task: Any, batches: list[list[Item]], gpus: bool
) -> Iterator[Outcome]:
    """What came of the batches, as it comes.

    Raises: SemeditError: the first error that would meet every item.
    """
    import torch

    has = ray.cluster_resources()
    devices = int(has.get("GPU", 0)) if gpus else 0
    actors = min(devices or max(1, int(has.get("CPU", 1))), len(batches))
    # Threads decide about the last bits of results: actors take as many as a local run.
    settings = {
        "run": run,
        "task": _portable(task, "cuda" if devices else "cpu"),
        "folder": str(Path.cwd()),
        "threads": torch.get_num_threads(),
    }
    # By value, not in the object store: that of a lost node is lost with it.
    rows = [{"batch": ray.cloudpickle.dumps(batch)} for batch in batches]
    blocks = min(len(batches), ROUNDS * actors)
    found = ray.data.from_items(rows, override_num_blocks=blocks).map_batches(
        _Actor,
        fn_constructor_args=(ray.cloudpickle.dumps(settings),),
        batch_size=1,
        num_cpus=0 if devices else 1,
        num_gpus=1 if devices else 0,
        compute=ray.data.ActorPoolStrategy(size=actors),
    )
    for row in found.iter_rows():
        for told in json.loads(row["outcomes"]):
            yield _outcome(told)


def _outcome(told: dict[str, Any]) -> Outcome:
    """Raises: SemeditError: what ended an actor's batch; RuntimeError: a bug did."""
    if "bug" in told:
        raise RuntimeError(f"on a node of the cluster:\n{told['bug']}")
    if "fatal" in told:
        kind: type[SemeditError] = getattr(errors, told["fatal"], WorkspaceError)
        raise kind(told["message"], told["hint"])
    outcome = Outcome(**told)
    # What an actor finds up to date was pending when the run began: a lost node had made it.
    status = "done" if outcome.status == "uptodate" else outcome.status
    return replace(
        outcome, status=status, outputs=tuple(outcome.outputs), warnings=tuple(outcome.warnings)
    )


def _portable(task: Any, device: str) -> Any:
    """The task without what belongs to this process: its progress bar and loaded models."""
    own = {field.name for field in fields(task)}
    changed = {"progress": None, "device": device}
    return replace(task, **{name: value for name, value in changed.items() if name in own})


class _Actor:
    """Runs the local loop on one batch at a time; models are loaded once."""

    def __init__(self, settings: bytes) -> None:
        import torch

        values = pickle.loads(settings)
        os.chdir(values["folder"])
        leave_current_folder()
        torch.set_num_threads(values["threads"])
        self.run, self.task = values["run"], values["task"]

    def __call__(self, rows: dict[str, Any]) -> dict[str, list[str]]:
        return {"outcomes": [json.dumps(self._settle(pickle.loads(b))) for b in rows["batch"]]}

    def _settle(self, batch: list[Item]) -> list[dict[str, Any]]:
        seen = _Notes()
        try:
            with Loop(self.run, self.task.load, self.task.work, seen) as loop:
                loop.go([batch])
        except SemeditError as error:
            told = {"fatal": type(error).__name__, "message": error.message, "hint": error.hint}
            seen.notes.append(told)
        except Exception:  # a bug: told by the driver, for here it would only end the job
            seen.notes.append({"bug": traceback.format_exc()})
        return seen.notes


class _Notes:
    """An observer that keeps what it is told for the driver."""

    def __init__(self) -> None:
        self.notes: list[dict[str, Any]] = []

    def start(self, total: int) -> None:
        """Batches come one by one."""

    def finish(self, outcome: Outcome) -> None:
        self.notes.append(asdict(outcome))
