"""Matrix products in blocks of rows or columns, each on one thread, so that bits don't depend on how many there are."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from tensorlib.arrays.threads import BLAS, share
from tensorlib.kernels.numpy.blocks import even_blocks, row_blocks, same_float_dtype
from tensorlib.ops.linalg import product, rows

SHARED_WORK = 1 << 23  # multiplications: some 150 microseconds of a thread; below, a product is not cut
LEAST_SIDE = 1024  # rows or columns of a block, where there are more than two: in narrow ones BLAS is slower
MOST_BLOCKS = 8
FEW_ROWS = 256


def pieces_of(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> list[Callable[[], Any]]:
    """Return what is to be called, in any order, so that the product of the matrices x and y is in z.

    BLAS must be held meanwhile. The result is cut along its longer side.
    """
    n, m = z.shape
    if n * m * x.shape[1] < SHARED_WORK:
        return [partial(np.matmul, x, y, out=z)]
    if n >= m:
        return [partial(np.matmul, x[b], y, out=z[b]) for b in _cut(n)]
    return [partial(np.matmul, x, y[:, b], out=z[:, b]) for b in _cut(m)]


def call_all(pieces: list[Callable[[], Any]]) -> None:
    """Call every piece, on several threads if there are several."""
    with BLAS:
        share(lambda piece: piece(), pieces)


def product_then(x: np.ndarray, y: np.ndarray, finish: Callable[[np.ndarray, slice], Any]) -> np.ndarray:
    """Return x @ y for a matrix y, after ``finish(z, rows)`` was called on each block of rows of it."""
    z = np.empty((*x.shape[:-1], y.shape[1]), x.dtype)
    x_rows, z_rows = rows(x), rows(z)

    def some_rows(block: slice) -> None:
        np.matmul(x_rows[block], y, out=z_rows[block])
        for part in row_blocks(block.stop - block.start, z_rows[:1].nbytes):
            finish(z_rows, slice(block.start + part.start, block.start + part.stop))

    if len(z_rows) <= FEW_ROWS:  # as in decoding: cut by columns, or each thread would prepare all of y
        call_all(pieces_of(x_rows, y, z_rows))
        finish(z_rows, slice(0, len(z_rows)))
        return z
    blocks = _cut(len(z_rows)) if z.size * len(y) >= SHARED_WORK else [slice(0, len(z_rows))]
    with BLAS:
        share(some_rows, blocks)
    return z


def _cut(size: int) -> list[slice]:
    """Return slices that cover a side of the result, as even as can be, in pairs: one of three would be waited for."""
    return even_blocks(size, 2 * min(max(size // (2 * LEAST_SIDE), 1), MOST_BLOCKS // 2))


@product.register(np.ndarray)
def _(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    if (
        x.size * y.shape[-1] < SHARED_WORK
        or y.ndim != 2
        or x.ndim < 2
        or not same_float_dtype(x, y)
        or x.shape[-1] != y.shape[0]
    ):
        with BLAS:
            return product.dispatch(object)(x, y)
    z = np.empty((*x.shape[:-1], y.shape[1]), x.dtype)
    call_all(pieces_of(rows(x), y, rows(z)))
    return z
