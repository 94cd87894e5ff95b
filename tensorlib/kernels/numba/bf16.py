"""Products of float32 matrices whose operands are rounded to bf16, within ``precision("bf16")``.

A kernel passes its weights through `factors`, which rounds them to 16 bits: dtype uint16, the upper half of float32.
Compiled code sees by their dtype how to multiply. It rounds the other operand by `operand`, once for all products that
need it, and calls `gemm` as always.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from tensorlib.kernels.numba.compiling import compiled, inlined
from tensorlib.kernels.numba.rows import contiguous, for_pieces
from tensorlib.ops.linalg import in_bf16

__all__ = ["factors", "operand"]

u16, u32 = np.uint16, np.uint32


@inlined
def _rounded(x: Any) -> Any:
    """Return the upper half of a float32, rounded to the nearest; see `rounded_to_bf16`."""
    bits = np.float32(x).view(u32)
    rounded = u32(bits + u32(u32(0x7FFF) + u32(u32(bits >> u32(16)) & u32(1)))) >> u32(16)
    return u16(u32(bits >> u32(16)) | u32(64)) if x != x else u16(rounded)  # a NaN stays one


@compiled
def round_rows(x: Any, y: Any) -> None:
    """Write x (N, D), rounded to bf16, to y."""
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            y[i, j] = _rounded(x[i, j])


def operand(x: Any, weight: Any) -> Any:
    """Return x, rounded if the weight is, in compiled code."""


@overload(operand)
def _operand(x, weight):  # type: ignore[no-untyped-def]  # Numba compares its signature with that of the lambdas
    if weight.dtype != types.uint16 or x.dtype == types.uint16:
        return lambda x, weight: x

    def rounded(x, weight):  # type: ignore[no-untyped-def]
        y = np.empty(x.shape, u16)
        round_rows(x, y)
        return y

    return rounded


def factors(*arrays: np.ndarray, make: Callable[[np.ndarray], np.ndarray] = contiguous) -> list[np.ndarray]:
    """Return matrices as compiled code multiplies them: rounded to bf16 if the precision says so, else by `make`."""
    if not in_bf16(arrays[0]):
        return [make(a) for a in arrays]
    return [_rounded_matrix(a) for a in arrays]


def _rounded_matrix(x: np.ndarray) -> np.ndarray:
    """Return the matrix x in bf16, in its own order if rows or columns are contiguous."""
    if x.strides[0] == x.itemsize and x.strides[1] != x.itemsize:
        return _rounded_matrix(x.T).T
    x, y = contiguous(x), np.empty(x.shape, u16)
    for_pieces(lambda n: round_rows(x[n], y[n]), len(x), x.shape[1])
    return y
