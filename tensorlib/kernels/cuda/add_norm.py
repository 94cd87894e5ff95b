"""Residual sum, dropout and layer normalization in one pass each way; layer normalization alone is a case of it.

A row of up to `WIDEST` elements stays in the registers of the threads that share it.
"""

from __future__ import annotations

from typing import Any

import cupy

from tensorlib.kernels.cuda.columns import sum_parts
from tensorlib.kernels.cuda.dropout import draw_arguments
from tensorlib.kernels.cuda.launch import NOT_SERVED, WARP, contiguous, fits_by_rows, kernel, overrides
from tensorlib.ops.add_norm import add_norm_formula, add_norm_gradient

__all__ = ["NO_DROPOUT", "WIDEST", "gradient_pass", "norm_pass"]

HELD = 8  # elements of a row in the registers of a thread; as in add_norm.cu
THREADS = 256  # of a block, for rows that leave a choice
WIDEST = 512 * HELD
BLOCKS = 528  # at most, four for each multiprocessor of an H100; a constant, so that all cards add up in one order

Drop = tuple[float, int, int]
NO_DROPOUT: Drop = (0.0, 0, 0)


def block_shape(width: int) -> tuple[int, int]:
    """Return the threads that share a row, and the rows of a block."""
    threads = -(-width // (HELD * WARP)) * WARP
    return threads, max(1, THREADS // threads)


def norm_pass(x: Any, s: Any, weight: Any, bias: Any, eps: float, drop: Drop) -> tuple[Any, tuple[Any, Any]]:
    """Return layer_norm(x + dropout(s)), or of x if s is None, and the mean and 1/std of each row."""
    width, y = x.shape[-1], cupy.empty(x.shape, x.dtype)
    mean, rstd = (cupy.empty((*x.shape[:-1], 1), x.dtype) for _ in range(2))
    rows, block = x.size // width, block_shape(width)
    arguments = (
        contiguous(x), 0 if s is None else contiguous(s), contiguous(weight), contiguous(bias), rows, width, float(eps),
        *draw_arguments(*drop), y, mean, rstd,
    )  # fmt: skip
    kernel("add_norm.cu", "add_norm", x.dtype.char)((-(-rows // block[1]),), block, arguments)
    return y, (mean, rstd)


def gradient_pass(
    dy: Any, x: Any, s: Any, weight: Any, kept: tuple[Any, Any], drop: Drop, needs: tuple[bool, ...]
) -> tuple[Any, ...]:
    """Return dx, ds, dweight and dbias; each is None if it is not needed. Without dropout ds is dx."""
    width, kind = x.shape[-1], x.dtype.char
    rows, block = x.size // width, block_shape(width)
    chunk = -(-rows // (BLOCKS * block[1])) * block[1]
    chunks = -(-rows // chunk)
    separate = bool(drop[0]) and needs[1]  # with dropout, ds differs from dx
    dx = cupy.empty(x.shape, x.dtype) if needs[0] or (needs[1] and not separate) else None
    ds = cupy.empty(x.shape, x.dtype) if separate else None
    parts = cupy.empty((chunks, 2 * width), x.dtype) if needs[2] or needs[3] else None
    arguments = (
        contiguous(dy), contiguous(x), 0 if s is None else contiguous(s), contiguous(weight),
        *[contiguous(k) for k in kept], rows, width, chunk, *draw_arguments(*drop),
        *[0 if a is None else a for a in (dx, ds, parts)],
    )  # fmt: skip
    kernel("add_norm.cu", "add_norm_gradient", kind)((chunks,), block, arguments)
    dweight, dbias = (None, None) if parts is None else sum_parts(parts).reshape(2, width)
    return (
        dx if needs[0] else None,
        (ds if separate else dx) if needs[1] else None,
        dweight if needs[2] else None,
        dbias if needs[3] else None,
    )


@overrides(add_norm_formula)
def _add_norm(x: Any, s: Any, weight: Any, bias: Any, eps: float, drop: Drop) -> Any:
    if not fits_by_rows(x, s, weight, bias) or x.shape[-1] > WIDEST:
        return NOT_SERVED
    return norm_pass(x, s, weight, bias, eps, drop)


@overrides(add_norm_gradient)
def _add_norm_gradient(dy: Any, x: Any, s: Any, weight: Any, kept: Any, drop: Drop, needs: tuple[bool, ...]) -> Any:
    if not fits_by_rows(x, dy, s, weight, *kept) or x.shape[-1] > WIDEST or not any(needs):
        return NOT_SERVED
    return gradient_pass(dy, x, s, weight, kept, drop, needs)
