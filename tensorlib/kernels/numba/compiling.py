"""How the functions of this room are compiled: which rounding they may change, and where machine code is kept on disk.

Compiled functions release the interpreter, so the engine's threads run them at the same time. Machine code is kept in
NUMBA_CACHE_DIR if it is set, else beside the sources, else, where that directory is read-only, in the user's cache
directory. Numba compares only a function's own file with the kept code; here every file counts, because functions are
inlined into those of other files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any, ClassVar

from numba import njit, typeof
from numba.core.caching import (
    CompileResultCacheImpl,
    FunctionCache,
    InTreeCacheLocator,
    UserProvidedCacheLocator,
    UserWideCacheLocator,
)

__all__ = ["AnyLayout", "compiled", "inlined", "inlined_contracted", "inlined_sums", "summing"]


@cache
def _digest_of_sources() -> str:
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


class _EveryFileCounts:
    def get_source_stamp(self) -> str:
        return _digest_of_sources()


class _GivenDirectory(_EveryFileCounts, UserProvidedCacheLocator):
    pass


class _BesideTheSources(_EveryFileCounts, InTreeCacheLocator):
    pass


class _OfTheUser(_EveryFileCounts, UserWideCacheLocator):
    pass


class _CompiledCode(CompileResultCacheImpl):
    _locator_classes: ClassVar = [_GivenDirectory, _BesideTheSources, _OfTheUser]


class _Cache(FunctionCache):
    _impl_class = _CompiledCode


def _compiler(rounding: set[str], **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Return a decorator that compiles a function when it is first called, with machine code kept on disk."""

    def decorate(function: Callable[..., Any]) -> Any:
        made = njit(nogil=True, error_model="numpy", fastmath=rounding, **options)(function)
        with suppress(RuntimeError):  # no directory can be written to: each process compiles again
            made._cache = _Cache(function)
        return made

    return decorate


# Rounding that the compiler may change, in the words of LLVM. Never "arcp" (1 / x is less exact), nor what assumes that
# no number is infinite or NaN.
compiled = _compiler({"nsz"})
"""Compile without any change to the order of operations."""

summing = _compiler({"reassoc", "nsz"})
"""Compile loops that add up numbers: sums may be split into as many as a vector register holds."""

inlined = _compiler({"nsz"}, forceinline=True)
"""As `compiled`, into the callers."""

inlined_sums = _compiler({"reassoc", "nsz"}, forceinline=True)
"""As `summing`, into the callers."""

inlined_contracted = _compiler({"contract", "nsz"}, forceinline=True)
"""As `inlined`; x y + z may be rounded once. Differences that should be exactly 0 then are not, as in x y - (x y)."""


class AnyLayout:
    """A function compiled as by `compiled`, once for each dtype, whose arrays of several axes may have any strides.

    Numba would compile it again for each combination of contiguous and strided arrays, which takes seconds. Arrays must
    be writable, and those of one axis contiguous. The first argument must be an array, and determines the dtype. For
    calls from Python only.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self._compiled: dict[str, Any] = {}  # by dtype
        self._lock = Lock()

    def __call__(self, *arguments: Any) -> Any:
        """Call the function."""
        made = self._compiled.get(arguments[0].dtype.char)
        return (made or self._compile(arguments))(*arguments)

    def _compile(self, arguments: tuple[Any, ...]) -> Any:
        kind = arguments[0].dtype.char
        with self._lock:
            if kind in self._compiled:  # by another thread, meanwhile
                return self._compiled[kind]
            made = compiled(self.function)
            types = [typeof(a) for a in arguments]
            made.compile(tuple([t.copy(layout="A") if getattr(t, "ndim", 0) > 1 else t for t in types]))
            made.disable_compile()  # so that a contiguous array is taken for a strided one
            self._compiled[kind] = made
            return made
