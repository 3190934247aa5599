"""What a folder keeps from an earlier run, and may have been damaged since."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from semedit.errors import InputError

# What reading a file raises whose content is not what it should be.
DAMAGED = (ValueError, TypeError, LookupError, AttributeError, RuntimeError, EOFError)


def stored(path: Path, shape: tuple[int, ...] | None = None, mapped: bool = False) -> Any:
    """The array of a .npy file, mapped from disk or read whole.

    Args:   shape: that it must have; None: any.
    Raises: InputError: it is damaged, or of another shape.
    """
    again = f"delete {path}; it will be made again"
    try:
        found = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} is damaged: {error}", again) from error
    if shape is not None and found.shape != shape:
        raise InputError(f"{path} holds an array of {found.shape}, not of {shape}", again)
    return found


def blank(path: Path, shape: tuple[int, ...]) -> np.memmap:
    """A new array uint8 [*shape], mapped to a .npy file.

    Raises: OSError: the disk has no room for it, which a write to a mapped page could not tell.
    """
    array = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
    if hasattr(os, "posix_fallocate"):
        with path.open("rb+") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array
