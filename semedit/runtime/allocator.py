"""Keep memory that was freed: on a CPU, mapping it anew costs more than much of the arithmetic.

glibc returns every large block to the system when it is freed, and each step of a descent then
pays page faults for all activations again. The command line asks it to keep them. The price is
resident memory: what a command once used it holds until it ends.
"""

from __future__ import annotations

import ctypes
import os
import sys

SWITCH = "SEMEDIT_KEEP_MEMORY"  # environment variable; 0 leaves the allocator as it is
# Numbers of mallopt(3) and their values: no block in a mapping of its own, never shrink the heap
# (-1 is glibc's "never"), grow it by 64 MiB at once.
_SETTINGS = ((-4, 0), (-1, -1), (-2, 64 << 20))  # M_MMAP_MAX, M_TRIM_THRESHOLD, M_TOP_PAD


def keep_freed_memory() -> bool:
    """Ask the C library to; returns whether it does.

    Nothing happens where SEMEDIT_KEEP_MEMORY is 0, where a MALLOC_ variable of glibc is set
    already, or where the C library is not glibc.
    """
    if os.environ.get(SWITCH, "1") == "0" or sys.platform != "linux":
        return False
    if any(name.startswith("MALLOC_") and name.endswith("_") for name in os.environ):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    return all(library.mallopt(number, value) == 1 for number, value in _SETTINGS)
