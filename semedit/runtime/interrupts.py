"""Interrupts that wait: SIGINT and SIGTERM held back while something must not be cut in two."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

KINDS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def held() -> Iterator[None]:
    """A short block that SIGINT and SIGTERM do not enter; they do what they do behind it.

    Only the main thread gets signals: in others it is a block like any.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []
    before = {}
    try:
        for kind in KINDS:
            before[kind] = signal.signal(kind, lambda number, _: arrived.append(number))
        yield
    finally:
        for kind, handler in before.items():
            # None: it was not set by Python, and cannot be set again
            signal.signal(kind, signal.SIG_DFL if handler is None else handler)
        if arrived:
            signal.raise_signal(arrived[-1])
