"""Loops that numba compiles when they are first called: to load numba takes as long as a tenth of
torch, and most commands call none of them before their first photograph, or at all."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any


def compiled_late(**options: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """`compiled`, at the first call; for loops that no other compiled loop calls.

    Args: options: of numba.njit, besides cache.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        @functools.cache
        def made() -> Callable[..., None]:
            from semedit.runtime.compiled import compiled

            return compiled(**options)(function)

        @functools.wraps(function)
        def call(*arguments: Any) -> None:
            made()(*arguments)

        return call

    return decorate
