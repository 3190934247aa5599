"""Which heads or pictures of a data set are held out: the one rule of all data sets."""

from __future__ import annotations

import numpy as np

EVERY = 20  # every how many-th head or picture is held out


def held_out(n: int, each: int = 1) -> np.ndarray:
    """bool [n*each]: which pictures of n heads are held out, `each` pictures of a head together.

    The last one of every EVERY; of fewer than EVERY the last; a single one is not held out.
    """
    numbers = np.arange(n * each) // each
    if n >= EVERY:
        return numbers % EVERY == EVERY - 1
    return (numbers == n - 1) & (n > 1)
