"""Loops over pixels and points, compiled by numba and kept between runs where that is possible."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba

F = TypeVar("F", bound=Callable[..., Any])


def compiled(**options: Any) -> Callable[[F], F]:
    """numba.njit whose results are cached on disk if they can be.

    numba refuses to decorate where it finds no folder to write: a read-only installation and no
    home. Such a function is compiled anew in every process.

    Args: options: of numba.njit, besides cache.
    """

    def decorate(function: F) -> F:
        try:
            made: F = numba.njit(cache=True, **options)(function)
        except RuntimeError as error:
            if "cannot cache" not in str(error):
                raise
            made = numba.njit(**options)(function)
        return made

    return decorate
