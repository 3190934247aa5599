"""Keep memory that was freed: on a CPU, mapping it anew costs more than much of the arithmetic.

glibc returns every large block to the system when it is freed, and each step of a descent then
pays page faults for all activations again. The command line asks it to keep them. The price is
resident memory: what a command once used it holds until it ends, or until memory runs short.
"""

from __future__ import annotations

import ctypes
import os
import sys

SWITCH = "SEMEDIT_KEEP_MEMORY"  # environment variable; 0 leaves the allocator as it is
# Numbers of mallopt(3) and their values: no block in a mapping of its own, never shrink the heap
# (-1 is glibc's "never"), grow it by 64 MiB at once.
_SETTINGS = ((-4, 0), (-1, -1), (-2, 64 << 20))  # M_MMAP_MAX, M_TRIM_THRESHOLD, M_TOP_PAD
# Under a limit of address space: every block from 1 MiB up is returned when it is freed, whereas
# glibc by itself would soon keep those up to 32 MiB; and threads share one arena, as each of their
# own would take 64 MiB of addresses.
_LIMITED = ((-3, 1 << 20), (-8, 1))  # M_MMAP_THRESHOLD, M_ARENA_MAX


def keep_freed_memory() -> bool:
    """Ask the C library to; returns whether it does.

    Nothing happens where SEMEDIT_KEEP_MEMORY is 0, where a MALLOC_ variable of glibc is set
    already, or where the C library is not glibc. Where address space is limited, what is freed is
    returned instead.
    """
    if os.environ.get(SWITCH, "1") == "0" or sys.platform != "linux":
        return False
    if any(name.startswith("MALLOC_") and name.endswith("_") for name in os.environ):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    import resource

    # What is kept is missing where others map memory, such as files and oneDNN's code.
    if resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY:
        for number, value in _LIMITED:
            library.mallopt(number, value)
        return False
    return all(library.mallopt(number, value) == 1 for number, value in _SETTINGS)


def return_freed_memory() -> None:
    """Give back to the system what is kept, once: others than the allocator want memory, too, such
    as oneDNN for the code it makes."""
    if sys.platform == "linux":
        library = ctypes.CDLL(None)
        if hasattr(library, "malloc_trim"):
            library.malloc_trim(0)
