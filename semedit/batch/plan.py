"""What a run would do, without doing it."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from semedit.batch.receipts import InputDigests, Item, Receipt, Run
from semedit.errors import InputError

MEASURED = 200  # finished items whose outputs are measured


@dataclass(frozen=True)
class Plan:
    """How many items there are, and what would become of them.

    Attributes:
        total: items of this run (of its shard).
        uptodate: done, nothing changed. skipped: they had no face. failed: they failed before in
            just this way and are not tried again. refused: something is wrong with them already.
        todo: would be worked on.
        bytes_needed: what the outputs to come take on the disk, estimated from those that are
            there, else from what the command usually makes; bytes_free: what the disk has.
    """

    total: int
    uptodate: int
    skipped: int
    failed: int
    refused: int
    todo: int
    bytes_needed: int
    bytes_free: int

    def json(self) -> dict[str, Any]:
        return asdict(self)


def plan(run: Run, items: Iterable[Item], item_bytes: float) -> Plan:
    """Look at all items as the run would, but load and write nothing.

    Args:
        item_bytes: what the outputs of one item take where none is there to be measured.
    """
    counts = dict.fromkeys(("done", "skipped", "error", "refused", "todo"), 0)
    sizes: list[int] = []
    for item in run.shard.of(items):
        try:
            receipt = run.settled(item, InputDigests.of(item).sha256)
        except InputError:
            counts["refused"] += 1
            continue
        obstacle = run.workspace.obstacle(run.command, item.name)
        if obstacle is None and receipt is not None and not run.due(receipt):
            counts[receipt["status"]] += 1
            if receipt["status"] == "done" and len(sizes) < MEASURED:
                sizes.append(_size(run, item, receipt))
        else:
            counts["refused" if item.error or obstacle else "todo"] += 1
    each = sum(sizes) / len(sizes) if sizes else item_bytes
    return Plan(
        total=sum(counts.values()),
        uptodate=counts["done"],
        skipped=counts["skipped"],
        failed=counts["error"],
        refused=counts["refused"],
        todo=counts["todo"],
        bytes_needed=round(each * counts["todo"]),
        bytes_free=shutil.disk_usage(_existing(run.workspace.root)).free,
    )


def _size(run: Run, item: Item, receipt: Receipt) -> int:
    """Bytes of an item's outputs and of its receipt."""
    root = run.workspace.root
    own = run.workspace.receipt_path(run.command, item.name)
    return sum(path.stat().st_size for path in (own, *(root / o for o in receipt["outputs"])))


def _existing(path: Path) -> Path:
    """The nearest folder that is there."""
    path = path.absolute()
    return next(folder for folder in (path, *path.parents) if folder.exists())
