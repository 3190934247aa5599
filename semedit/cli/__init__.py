"""The command line: thin commands over tasks and the library; torch loads only on use."""

import io
import signal
import sys
from typing import Any


def main() -> None:
    """Entry point of the `semedit` script."""
    from semedit.cli.app import app
    from semedit.runtime.allocator import keep_freed_memory

    keep_freed_memory()  # before torch takes its first block
    signal.signal(signal.SIGTERM, _terminate)
    if isinstance(sys.stdout, io.TextIOWrapper):  # not every encoding, nor every name, has all
        sys.stdout.reconfigure(errors="backslashreplace")
    app(prog_name="semedit")


def _terminate(number: int, frame: Any) -> None:
    sys.exit(128 + number)
