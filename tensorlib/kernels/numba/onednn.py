"""oneDNN's product of bf16 matrices, for compiled code.

Its function ``dnnl_gemm_bf16bf16f32`` is called as BLAS's ``sgemm``, with rows of z contiguous. It runs on the calling
thread: oneDNN's OpenMP is limited to one thread during the call, as our own threads share the work.
"""

from __future__ import annotations

import ctypes
import ctypes.util
from collections.abc import Callable
from functools import cache
from importlib.metadata import PackageNotFoundError, files
from typing import Any, NamedTuple

import numpy as np
from llvmlite import binding
from numba import types

__all__ = ["Functions", "check", "connect", "functions_of_onednn", "multiply_bf16", "set_threads", "threads"]

# How the functions are named in machine code, which is kept on disk: `connect` says where they are.
_PRODUCT, _SET_THREADS, _THREADS = "tensorlib_gemm_bf16", "tensorlib_omp_set_threads", "tensorlib_omp_threads"

_number, _pointer = types.int64, types.CPointer(types.uint16)
multiply_bf16 = types.ExternalFunction(
    _PRODUCT,
    types.int32(
        types.int32, types.int32, _number, _number, _number, types.float32, _pointer, _number, _pointer, _number,
        types.float32, types.CPointer(types.float32), _number,
    ),
)  # fmt: skip
set_threads = types.ExternalFunction(_SET_THREADS, types.void(types.int32))
threads = types.ExternalFunction(_THREADS, types.int32())

_Product = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_int, ctypes.c_int, *[ctypes.c_int64] * 3, ctypes.c_float, ctypes.c_void_p, ctypes.c_int64,
    ctypes.c_void_p, ctypes.c_int64, ctypes.c_float, ctypes.c_void_p, ctypes.c_int64,
)  # fmt: skip


class Functions(NamedTuple):
    """A product of bf16 matrices, and OpenMP's functions for the number of threads of the caller."""

    product: Any
    set_threads: Any
    threads: Any


def has_instructions() -> bool:
    """Return whether the processor multiplies bf16 numbers."""
    features = binding.get_host_cpu_features()
    return bool(features.get("avx512bf16") or features.get("amx-bf16"))


@cache
def functions_of_onednn() -> Functions | None:
    """Return those of the installed oneDNN; None if there is none, or it was made without OpenMP."""
    for path in _paths():
        try:
            library = ctypes.CDLL(path)
            product = ctypes.cast(library.dnnl_gemm_bf16bf16f32, _Product)
            return Functions(product, *_openmp(library))
        except (OSError, AttributeError):
            continue
    return None


def _openmp(library: Any) -> tuple[Any, Any]:
    """Return OpenMP's functions as the library calls them: one that was loaded before for all comes first."""
    for place in (ctypes.CDLL(None), library):
        if hasattr(place, "omp_set_num_threads"):
            return place.omp_set_num_threads, place.omp_get_max_threads
    raise AttributeError("no OpenMP")


def _paths() -> list[str]:
    """Return where oneDNN's library may be: in the package onednn-cpu-gomp, or where the system finds it."""
    try:
        packaged = files("onednn-cpu-gomp") or []
    except PackageNotFoundError:
        packaged = []
    found = [str(file.locate()) for file in packaged if file.name == "libdnnl.so.3"]
    system = ctypes.util.find_library("dnnl")
    return [*found, *([system] if system else [])]


def check(product: Callable[..., int]) -> bool:
    """Return whether products in all layouts are right: sums are exact for the small integers that are multiplied.

    They have one and several blocks, strides wider than the rows, and results that hold NaN before.
    """
    rng = np.random.default_rng(0)
    for m, n, k in ((5, 40, 33), (1, 7, 500), (300, 1, 70), (130, 210, 450)):
        for tx, ty in ((78, 78), (78, 84), (84, 78), (84, 84)):  # "N" and "T"
            x, y = rng.integers(-4, 5, (m, k)).astype(np.float32), rng.integers(-4, 5, (k, n)).astype(np.float32)
            stored = [np.pad(a.T if t == 84 else a, ((0, 0), (0, 3))) for a, t in ((x, tx), (y, ty))]
            x16, y16 = ((np.ascontiguousarray(a).view(np.uint32) >> 16).astype(np.uint16) for a in stored)
            for kept in (0.0, 1.0):
                z = np.full((m, n + 2), np.nan if kept == 0 else 1, np.float32)
                status = product(
                    tx, ty, m, n, k, 2.0, x16.ctypes.data, x16.shape[1], y16.ctypes.data, y16.shape[1], kept,
                    z.ctypes.data, n + 2,
                )  # fmt: skip
                if status != 0 or (z[:, :n] != 2 * x @ y + kept).any():
                    return False
    return True


def connect(functions: Functions) -> None:
    """Let compiled code call these functions."""
    for name, function in zip((_PRODUCT, _SET_THREADS, _THREADS), functions, strict=True):
        binding.add_symbol(name, ctypes.cast(function, ctypes.c_void_p).value)
