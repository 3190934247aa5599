"""No module is ever taken from the current folder: a `json.py` may lie beside the photographs.

Python looks there first under `python -c` and `python -m`, which is how children start, and
wherever an entry of PYTHONPATH is empty. Only the folder that semedit itself is in is exempt.

This is imported before all else, so it needs nothing that Python has not loaded by then: no
pathlib, no typing.
"""

import os
import sys

SAFE = "PYTHONSAFEPATH"  # Python's own switch, for which an environment variable is enough


def search_path() -> list[str]:
    """sys.path without the current folder."""
    return [entry for entry in sys.path if not _is_here(entry)]


def environment() -> dict[str, str]:
    """os.environ for a child that is to find no module in the current folder."""
    return _made_safe(dict(os.environ))


def leave_current_folder() -> None:
    """Search no modules in the current folder from here on, nor in processes yet to be started."""
    sys.path[:] = search_path()
    safe = _made_safe(dict(os.environ))
    for name in {SAFE, "PYTHONPATH"}:
        if name in safe:
            os.environ[name] = safe[name]
        else:
            os.environ.pop(name, None)


class Isolated:
    """A block in which processes can be started by whatever library: they get `environment`, and
    what they are told of sys.path is `search_path`. Only for the thread that starts them."""

    def __enter__(self) -> None:
        self._path, self._environment = sys.path[:], dict(os.environ)
        leave_current_folder()

    def __exit__(self, *exception: object) -> None:
        sys.path[:] = self._path
        for name in (SAFE, "PYTHONPATH"):
            if name in self._environment:
                os.environ[name] = self._environment[name]
            else:
                os.environ.pop(name, None)


def _made_safe(variables: dict[str, str]) -> dict[str, str]:
    variables[SAFE] = "1"
    entries = variables.pop("PYTHONPATH", "").split(os.pathsep)
    kept = [entry for entry in entries if not _is_here(entry)]
    return variables | ({"PYTHONPATH": os.pathsep.join(kept)} if kept else {})


def _is_here(entry: str) -> bool:
    try:
        here = os.path.realpath(os.getcwd())  # noqa: PTH109
    except OSError:  # it was removed
        here = None
    own = os.path.realpath(f"{__file__}/../../..")
    there = os.path.realpath(entry) if entry not in ("", os.curdir) else here
    return there == here != own
