"""The command line: thin commands over tasks and the library; torch loads only on use."""

# What `signal` is made of: that module itself loads others first, and an interrupt would meet them.
import _signal
import io
import os
import sys

GRACE = 15.0  # seconds that a run has to write what is finished when it is told to end


def main() -> None:
    """Entry point of the `semedit` script."""
    _prepare()
    from semedit.cli.app import app
    from semedit.runtime.allocator import keep_freed_memory

    keep_freed_memory()  # before torch takes its first block
    _signal.signal(_signal.SIGINT, _interrupt)
    if isinstance(sys.stdout, io.TextIOWrapper):  # not every encoding, nor every name, has all
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app(prog_name="semedit")
    except KeyboardInterrupt:  # while it is still being put together
        sys.exit(128 + _signal.SIGINT)


def _prepare() -> None:
    """Until the program is loaded, an interrupt ends it without a word; it leaves nothing behind.
    And no module comes from the current folder."""
    _signal.signal(_signal.SIGINT, _leave)
    _signal.signal(_signal.SIGTERM, _terminate)
    from semedit.runtime.isolation import leave_current_folder

    leave_current_folder()


def _interrupt(number: int, frame: object) -> None:
    """Ends what is going on in an orderly way; but torch crashes when its loading is disturbed."""
    spec = getattr(sys.modules.get("torch"), "__spec__", None)
    if getattr(spec, "_initializing", False):  # Python's own mark of a module being loaded
        _leave(number, frame)
    raise KeyboardInterrupt


def _leave(number: int, frame: object) -> None:
    os._exit(128 + number)


def _terminate(number: int, frame: object) -> None:
    """End as on Ctrl-C; and after the grace all the same, should a thread wait for what never
    comes."""
    import threading

    end = threading.Timer(GRACE, os._exit, [128 + number])
    end.daemon = True
    end.start()
    sys.exit(128 + number)


# Python says "-m" while it looks for this package, with the current folder in front.
if sys.argv[0] == "-m" or os.path.basename(sys.argv[0]) == "semedit":  # noqa: PTH119
    _prepare()
