"""Receipts, resume, and the one loop over files that all commands share.

A command says what its items are, how to load one and how to work on loaded ones. The loop does
the rest: skips what is up to date, isolates failures, reads ahead, batches, halves batches that do
not fit in memory, writes behind, and leaves a receipt for every item.
"""

from semedit.batch.loop import for_each
from semedit.batch.receipts import Item, Observer, Outcome, Result, Run, Shard, Tally, next_step

__all__ = [
    "Item",
    "Observer",
    "Outcome",
    "Result",
    "Run",
    "Shard",
    "Tally",
    "for_each",
    "next_step",
]
