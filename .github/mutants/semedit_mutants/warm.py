"""Runs tests in forks of a process that has imported the large libraries, but not semedit.

A mutant costs what its tests cost, not the seconds that torch takes to import.
"""

from __future__ import annotations

import os
import socket
import sys
import threading

LIBRARIES = ("torch", "pytest", "scipy.ndimage", "skimage.transform", "sklearn.svm", "numba")


def serve(address: str, root: str) -> None:
    """Answer requests (a line of pytest's arguments) by a byte: 0 where all tests passed."""
    import gc
    import importlib

    os.chdir(root)
    sys.path[0] = root
    for name in LIBRARIES:
        importlib.import_module(name)
    import pytest
    import torch

    torch.set_num_threads(1)
    pytest.main(["-q", "--collect-only", "--noconftest", __file__])  # loads its plugins
    gc.collect()
    gc.freeze()  # forks need not go through what is here: more than half of their time
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(address)
        server.listen()
        server.settimeout(5)
        parent = os.getppid()
        while os.getppid() == parent:  # else whoever started it was killed
            try:
                connection, _ = server.accept()
            except TimeoutError:
                continue
            connection.setblocking(True)
            if os.fork() == 0:
                server.close()
                _answer(connection)
            connection.close()
            while True:  # forks that have ended
                try:
                    if os.waitpid(-1, os.WNOHANG)[0] == 0:
                        break
                except ChildProcessError:
                    break


def _answer(connection: socket.socket) -> None:
    import pytest

    asked = connection.makefile().readline().split()
    if "--first" in asked:  # whose bytecode all later ones read
        asked.remove("--first")
        sys.dont_write_bytecode = False

    def watch() -> None:
        connection.recv(1)  # ends when whoever asked is gone, or was killed for taking too long
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    code = 1
    try:
        code = int(pytest.main(["-x", "-q", "-n", "0", "-p", "no:cacheprovider", *asked]))
    finally:
        connection.sendall(bytes([code]))
        os._exit(0)


def ask(address: str, arguments: list[str]) -> int:
    """pytest's exit code of a fork."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(address)
        client.sendall((" ".join(arguments) + "\n").encode())
        found = client.recv(1)
        return found[0] if found else 1


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(*sys.argv[2:])
    sys.exit(ask(sys.argv[2], sys.argv[3:]))
