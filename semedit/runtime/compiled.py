"""Loops over pixels and points, compiled by numba and kept between runs where that is possible."""

from __future__ import annotations

import hashlib
import pickle
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def _without_settings_of_the_folder() -> Any:
    """numba, which would read a `.numba_config.yaml` in the current folder, now and before every
    compilation. That could name a cache, whose pickles are run, or modules to import."""
    missing = object()
    yaml = sys.modules.get("yaml", missing)
    sys.modules["yaml"] = None  # type: ignore[assignment]  # numba cannot read the file without
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="A Numba config file is found")
            import numba
            from numba.core import config
    finally:
        del sys.modules["yaml"]
        if yaml is not missing:
            sys.modules["yaml"] = yaml  # type: ignore[assignment]
    config._config_fname = ""
    config.reload_config()  # another library may have imported it before
    return numba


numba = _without_settings_of_the_folder()

from numba.core.caching import FunctionCache, IndexDataCacheFile  # noqa: E402


def compiled(**options: Any) -> Callable[[F], F]:
    """numba.njit whose results are cached on disk if they can be.

    numba refuses to cache where it finds no folder to write: a read-only installation and no
    home. Such a function is compiled anew in every process, and so is one whose file in the cache
    is damaged or cannot be written.

    Args: options: of numba.njit, besides cache.
    """

    def decorate(function: F) -> F:
        made: Any = numba.njit(**options)(function)
        try:
            made._cache = _Cache(function)  # as `cache=True` does it
        except RuntimeError as error:
            if "cannot cache" not in str(error):
                raise
        return made

    return decorate


class _Cache(FunctionCache):
    """A cache that is in nobody's way: what it cannot give or take is compiled."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        files, locator = self._cache_file, self._impl.locator
        name = files._index_name.removesuffix(".nbi")
        self._cache_file = _Files(self._cache_path, name, locator.get_source_stamp())

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # a damaged pickle raises nearly anything
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except Exception:
            with suppress(Exception):  # the index was damaged, or the disk is full
                self.flush()
                super().save_overload(sig, data)


class _Files(IndexDataCacheFile):
    """numba's files; machine code stands behind its digest, for what is damaged would crash."""

    def _load_data(self, name: str) -> Any:
        data = Path(self._data_path(name)).read_bytes()
        if hashlib.sha256(data[32:]).digest() != data[:32]:
            return None
        return pickle.loads(data[32:])

    def _save_data(self, name: str, data: Any) -> None:
        pickled = self._dump(data)
        with self._open_for_write(self._data_path(name)) as file:
            file.write(hashlib.sha256(pickled).digest() + pickled)
