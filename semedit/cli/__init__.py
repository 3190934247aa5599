"""The command line: thin commands over tasks and the library; torch loads only on use."""

import io
import os
import signal
import sys
import threading
from typing import Any

GRACE = 15.0  # seconds that a run has to write what is finished when it is told to end


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
    """End as on Ctrl-C; and after the grace all the same, should a thread wait for what never
    comes."""
    end = threading.Timer(GRACE, os._exit, [128 + number])
    end.daemon = True
    end.start()
    sys.exit(128 + number)
