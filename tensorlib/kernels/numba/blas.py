"""Matrix products inside compiled functions, by the BLAS that NumPy brings along; of bf16 matrices, by oneDNN.

The function's address is registered under its name, so that machine code that calls it can be kept on disk. Products
run on the calling thread if the caller holds ``BLAS`` (tensorlib/arrays/threads.py), as every kernel here does.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from llvmlite import binding
from numba import types
from numba.extending import overload

from tensorlib.arrays.threads import blas_libraries
from tensorlib.kernels.numba.compiling import AnyLayout, compiled
from tensorlib.kernels.numba.onednn import multiply_bf16, set_threads, threads

__all__ = ["FOUND", "compile_for_bf16", "for_blas", "gemm", "multiply"]

ROW_MAJOR, PLAIN, TRANSPOSED = 101, 111, 112  # cblas.h
LETTER = ord("N"), ord("T")  # the same for oneDNN


def _register(name: str) -> bool:
    """Make a function of NumPy's BLAS callable from compiled code; return False if there is none of this name."""
    for library in blas_libraries():
        function = getattr(ctypes.CDLL(library.filepath), name, None)
        if function is not None:
            address = ctypes.cast(function, ctypes.c_void_p).value
            binding.add_symbol(name, address)
            return True
    return False


def _external(name: str, number: Any) -> Any:
    flag, size, pointer = types.int32, types.int64, types.CPointer(number)
    signature = types.void(
        flag, flag, flag, size, size, size, number, pointer, size, pointer, size, number, pointer, size
    )
    return types.ExternalFunction(name, signature)


FOUND = _register("scipy_cblas_sgemm64_") and _register("scipy_cblas_dgemm64_")
"""Whether NumPy has a BLAS with these functions, as in its wheels; without it, kernels that need it step back."""

_sgemm = _external("scipy_cblas_sgemm64_", types.float32)
_dgemm = _external("scipy_cblas_dgemm64_", types.float64)


def _call(*arguments: Any) -> int:
    """Call the function of the dtype of the first factor; return 0 unless it fails."""
    raise NotImplementedError  # this is for compiled code


@overload(_call)
def _choose(layout, tx, ty, m, n, k, alpha, x, ldx, y, ldy, beta, z, ldz):  # type: ignore[no-untyped-def]
    if x.dtype == types.uint16:

        def call_onednn(layout, tx, ty, m, n, k, alpha, x, ldx, y, ldy, beta, z, ldz):  # type: ignore[no-untyped-def]
            before = threads()
            set_threads(1)
            status = multiply_bf16(LETTER[tx - PLAIN], LETTER[ty - PLAIN], m, n, k, alpha, x, ldx, y, ldy, beta, z, ldz)
            set_threads(before)
            return status

        return call_onednn
    function = _sgemm if alpha == types.float32 else _dgemm

    def call(layout, tx, ty, m, n, k, alpha, x, ldx, y, ldy, beta, z, ldz):  # type: ignore[no-untyped-def]
        function(layout, tx, ty, m, n, k, alpha, x, ldx, y, ldy, beta, z, ldz)
        return 0

    return call


def for_blas(x: np.ndarray) -> np.ndarray:
    """Return matrices that BLAS can read: rows or columns are contiguous and do not overlap."""
    (n, m), (step, unit), item = x.shape[-2:], x.strides[-2:], x.itemsize
    readable = (unit == item and step >= m * item) or (step == item and unit >= n * item)
    return x if readable and x.flags.writeable else x.copy()


@compiled
def gemm(x: Any, y: Any, z: Any, scale: Any, kept: Any) -> None:
    """Write scale x y + kept z to z, for matrices as `for_blas` returns them; z has contiguous rows.

    x and y have the dtype of z, or are bf16 matrices, of dtype uint16, and z is float32; it is NaN if oneDNN fails.
    """
    (m, k), n, item = x.shape, y.shape[1], x.itemsize
    x_plain = x.strides[1] == item or k == 1
    y_plain = y.strides[1] == item or n == 1
    status = _call(
        ROW_MAJOR,
        PLAIN if x_plain else TRANSPOSED,
        PLAIN if y_plain else TRANSPOSED,
        m,
        n,
        k,
        z.dtype.type(scale),
        x.ctypes,
        max(x.strides[0] // item, k, 1) if x_plain else max(x.strides[1] // item, m, 1),
        y.ctypes,
        max(y.strides[0] // item, n, 1) if y_plain else max(y.strides[1] // item, k, 1),
        z.dtype.type(kept),
        z.ctypes,
        max(z.strides[0] // z.itemsize, n, 1),
    )
    if status != 0:  # oneDNN has no memory for its copies; a step with NaN is skipped, one with old numbers is not
        z[:] = np.nan


if FOUND:
    for _number in (types.float32, types.float64):  # once for each dtype, not for each combination of layouts
        _matrix = types.Array(_number, 2, "A")
        gemm.compile((_matrix, _matrix, _matrix, _number, _number))
    gemm.disable_compile()


def compile_for_bf16() -> None:
    """Let `gemm` multiply bf16 matrices; `connect` (onednn.py) must have been called."""
    gemm.disable_compile(False)
    operand, result = types.Array(types.uint16, 2, "A"), types.Array(types.float32, 2, "A")
    gemm.compile((operand, operand, result, types.float32, types.float32))
    gemm.disable_compile()


@AnyLayout
def multiply(x: Any, y: Any, z: Any) -> None:
    """Write x y to z."""
    gemm(x, y, z, z.dtype.type(1), z.dtype.type(0))
