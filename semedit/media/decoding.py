"""Pictures decoded in processes of their own: a hang, a crash or a bomb ends one file, not the run.

`read_photo` and `read_labels` are those of photographs and masks, called in a child process that
may take SECONDS of time and a bounded share of memory. A child serves many files; one that dies or
is too slow is killed, its file is an InputError, and the next file gets a new child. Threads may
call at once: each has a child to itself.

A request is a line of JSON; an answer is a line of JSON, then the bytes of an array.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from semedit import errors
from semedit.errors import InputError, SemeditError
from semedit.media import masks, photographs
from semedit.media.orders import Ids
from semedit.media.photographs import MAX_PIXELS, Photo
from semedit.runtime import isolation

SECONDS = 60.0  # the longest that one file may take
BYTES_PER_PIXEL = 32  # of working memory: a picture in 32 bits and several copies of it
BYTES_BESIDES = 1 << 30  # of address space, for the interpreter and its libraries
FILES_PER_CHILD = 1000  # then a new one takes over, so that nothing can pile up in libraries

# Whoever ends a run may signal its children as well (Slurm does). That is no fault of the file
# which is being decoded: they go on, and the run ends them.
_START = "import json, signal, sys; sys.path[:] = json.loads(sys.argv[1])\n"
_START += "for one in (signal.SIGTERM, signal.SIGINT): signal.signal(one, signal.SIG_IGN)\n"
_START += "from semedit.media.decoding import serve; serve()"


def read_photo(path: str | Path, max_pixels: int = MAX_PIXELS) -> Photo:
    """`photographs.read_photo` in another process.

    Raises:
        InputError: as there; also when decoding crashed, hung, or took too much memory.
    """
    found: Photo = call(photographs.read_photo, path, max_pixels=max_pixels)
    return found


def read_labels(path: str | Path) -> np.ndarray:
    """`masks.read_labels` in another process.

    Raises:
        InputError, MaskError: as there; InputError also when decoding crashed or hung.
    """
    found: np.ndarray = call(masks.read_labels, path)
    return found


def read_ids(path: str | Path) -> Ids:
    """`masks.read_ids` in another process.

    Raises:
        InputError, MaskError: as there; InputError also when decoding crashed or hung.
    """
    found: Ids = call(masks.read_ids, path)
    return found


def read_part(path: str | Path) -> np.ndarray:
    """`masks.read_part` in another process.

    Raises:
        InputError, MaskError: as there; InputError also when decoding crashed or hung.
    """
    found: np.ndarray = call(masks.read_part, path)
    return found


def call(read: Callable[..., Any], path: str | Path, **options: Any) -> Any:
    """What a module's function makes of a file, a Photo, Ids or an array, found out by a child.

    Args:
        read: found again in the child by the names of its module and its own.
        options: JSON values; `max_pixels` also decides how much memory the child may take.
    """
    return _pool.call(
        {
            "module": read.__module__,
            "function": read.__name__,
            "path": str(path),
            "options": options,
            "seconds": SECONDS,
        }
    )


def close() -> None:
    """End all children; calls under way end with InputError. The next call starts new ones."""
    _pool.close()


class _Pool:
    """Children that wait for work, and those at work."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[_Child] = []
        self._busy: set[_Child] = set()

    def call(self, request: dict[str, Any]) -> Any:
        child = self._take()
        whole = False
        try:
            found = child.ask(request)
            whole = True
            return found
        except SemeditError:
            whole = child.running
            raise
        finally:  # an interrupted child is in the middle of an answer
            self._give_back(child, whole and child.served < FILES_PER_CHILD)

    def close(self) -> None:
        with self._lock:
            children = [*self._idle, *self._busy]
            self._idle.clear()
        for child in children:
            child.kill()

    def _take(self) -> _Child:
        with self._lock:
            while self._idle:
                child = self._idle.pop()
                if child.running:
                    break
                child.kill()
            else:
                child = _Child()
            self._busy.add(child)
        return child

    def _give_back(self, child: _Child, usable: bool) -> None:
        with self._lock:
            self._busy.discard(child)
            if usable:
                self._idle.append(child)
        if not usable:
            child.kill()


class _Child:
    """One process that decodes."""

    def __init__(self) -> None:
        # What the allocator is told for tensors would only keep the memory of large pictures.
        safe = isolation.environment()
        kept = {k: v for k, v in safe.items() if not k.startswith("MALLOC_")}
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", _START, json.dumps(isolation.search_path())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # libraries' remarks on malformed files
            env=kept | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            start_new_session=True,  # Ctrl-C is for the run, which then ends its children
        )
        self.served = 0
        self._late = False

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def ask(self, request: dict[str, Any]) -> Any:
        """Send a request, wait for its answer no longer than its seconds.

        Raises: SemeditError: what reading raised; InputError: the child died or was too slow.
        """
        self.served += 1
        timer = threading.Timer(request["seconds"], self._expire)
        timer.daemon = True
        timer.start()
        try:
            return self._exchange(request)
        except (OSError, ValueError, EOFError):  # the child is gone, or answers nonsense
            self.kill()
            path, seconds = request["path"], request["seconds"]
            if self._late:
                why = f"decoding takes longer than {seconds:g} s"
            else:
                why = f"decoding crashed ({_fate(self.process.returncode)})"
            raise InputError(f"{path}: {why}", "the file is malformed or malicious") from None
        finally:
            timer.cancel()

    def _expire(self) -> None:
        self._late = True
        self.process.kill()

    def _exchange(self, request: dict[str, Any]) -> Any:
        pipe_in, pipe_out = self.process.stdin, self.process.stdout
        assert pipe_in is not None and pipe_out is not None
        pipe_in.write(json.dumps(request).encode() + b"\n")
        pipe_in.flush()
        answer = json.loads(pipe_out.readline())
        if "error" in answer:
            raise _error(**answer)
        array = np.empty(answer["shape"], answer["dtype"])
        view, done = array.data.cast("B") if array.size else memoryview(b""), 0
        while done < array.nbytes:
            got = pipe_out.readinto(view[done:])  # type: ignore[attr-defined]
            if not got:
                raise EOFError
            done += got
        if "order" in answer:
            return Ids(array, answer["order"])
        if "sha256" in answer:
            return Photo(array, answer["sha256"], tuple(answer["warnings"]))
        return array

    def kill(self) -> None:
        """End it, if it still runs, and close its pipes."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except (OSError, ValueError):  # what was not sent is not missed
                    continue


def _error(error: str, message: str, hint: str | None) -> SemeditError:
    kind: type[SemeditError] = getattr(errors, error, InputError)
    return kind(message, hint)


def _fate(status: int) -> str:
    """How a process ended, e.g. SIGSEGV."""
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"exit status {status}"


# In the child -----------------------------------------------------------------------------------


def serve() -> None:
    """Answer requests until there are no more: what the child does."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not get among the answers
    for line in sys.stdin.buffer:
        head, body = _answer(json.loads(line))
        answers.write(json.dumps(head).encode() + b"\n")
        answers.write(body)
        answers.flush()


def _answer(request: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    _limit(request["options"].get("max_pixels", MAX_PIXELS), request["seconds"])
    read = getattr(importlib.import_module(request["module"]), request["function"])
    try:
        found = read(Path(request["path"]), **request["options"])
    except SemeditError as error:
        told = {"error": type(error).__name__, "message": error.message, "hint": error.hint}
        return told, b""
    except MemoryError:
        message = f"{request['path']}: needs more memory than a picture should"
        return {"error": "InputError", "message": message, "hint": None}, b""
    bare = {Photo: "pixels", Ids: "values"}.get(type(found))
    array = np.ascontiguousarray(getattr(found, bare) if bare else found)
    head: dict[str, Any] = {"shape": array.shape, "dtype": array.dtype.str}
    if isinstance(found, Photo):
        head |= {"sha256": found.sha256, "warnings": found.warnings}
    if isinstance(found, Ids):
        head["order"] = found.order
    return head, array.data.cast("B") if array.size else b""


def _limit(max_pixels: int, seconds: float) -> None:
    """Bound memory, and processor time should nobody be left to kill this process."""
    try:
        import resource
    except ImportError:  # not on this system; the time limit of the parent holds all the same
        return
    space = BYTES_BESIDES + BYTES_PER_PIXEL * max_pixels
    spent = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    for kind, wanted in (
        (resource.RLIMIT_AS, space),
        (resource.RLIMIT_CPU, int(spent + seconds) + 1),
    ):
        _, hard = resource.getrlimit(kind)
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(kind, (most, hard))


_pool = _Pool()
atexit.register(close)
