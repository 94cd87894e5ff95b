"""Registering and launching kernels for CuPy arrays, and checking which arrays they serve."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from pathlib import Path
from typing import Any

import cupy

from tensorlib.arrays.cuda import C_NAMES, compiled

__all__ = [
    "NOT_SERVED", "WARP", "by_rows", "contiguous", "elementwise", "fits", "fits_by_rows", "kernel", "on_current_device",
    "overrides",
]  # fmt: skip

HERE = Path(__file__).parent
WARP = 32
NOT_SERVED: Any = object()

_MOST_THREADS = 1024
_MOST_BLOCKS = 2**31 - 1

contiguous = cupy.ascontiguousarray  # kernels take contiguous arrays, because they get no strides


def overrides(formula: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a kernel for `formula`. If the kernel returns `NOT_SERVED`, the formula runs instead."""

    def register(kernel: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(kernel)
        def run(*given: Any, **named: Any) -> Any:
            result = kernel(*given, **named)
            return formula.dispatch(object)(*given, **named) if result is NOT_SERVED else result

        formula.register(cupy.ndarray, run)
        return kernel

    return register


@cache
def kernel(file: str, name: str, kind: str = "f") -> Any:
    """Return the function `name` of a source in this folder, compiled for a dtype, "f" or "d"; see `compiled`."""
    return compiled(HERE / file, name, kind)


def by_rows(file: str, name: str, kind: str, rows: int, width: int, arguments: tuple[Any, ...]) -> None:
    """Launch one block of threads for each row: one warp for a row of up to 32 elements, several for longer rows."""
    threads = min(_MOST_THREADS, -(-width // WARP) * WARP)
    kernel(file, name, kind)((rows,), (threads,), arguments)


@cache
def elementwise(inputs: str, outputs: str, operation: str) -> Any:
    """Return CuPy's elementwise kernel for an operation in CUDA C, compiled once."""
    return cupy.ElementwiseKernel(inputs, outputs, operation, "tensorlib")


def fits(x: Any, *others: Any) -> bool:
    """Return whether a kernel serves these arrays: all float32 or all float64, on this device, first not empty."""
    same = x.dtype.char in C_NAMES and all(o.dtype == x.dtype for o in others)
    return same and x.size > 0 and on_current_device(x, *others)


def fits_by_rows(x: Any, *others: Any) -> bool:
    """Return whether a kernel with one block of threads for each row serves these arrays."""
    return fits(x, *others) and x.ndim > 0 and x.size // x.shape[-1] <= _MOST_BLOCKS


def on_current_device(*arrays: Any) -> bool:
    """Return whether all arrays are on the current device, because a kernel does not check its pointers."""
    device = cupy.cuda.runtime.getDevice()
    return all(a.data.device_id == device for a in arrays)
