"""Matrix products in blocks of rows or columns, each on one thread: results do not depend on the number of threads."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from tensorlib.arrays.array import Array
from tensorlib.arrays.threads import BLAS, share
from tensorlib.kernels.numpy.blocks import even_blocks, row_blocks, same_float_dtype
from tensorlib.ops.linalg import in_bf16, product, rows

SHARED_WORK = 1 << 23  # multiplications, which take 150 microseconds on one thread; a smaller product is not cut
LEAST_SIDE = 1024  # of rows or columns, for each block if there are more than two: BLAS is slower on narrower ones
MOST_BLOCKS = 8
FEW_ROWS = 256


def product_pieces(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> list[Callable[[], Any]]:
    """Return functions that together, called in any order, write the product of the matrices x and y to z.

    The result is cut along its longer side. Call them inside the context ``BLAS``.
    """
    in_bf16(x)  # refuses a precision that only a GPU has
    n, m = z.shape
    if n * m * x.shape[1] < SHARED_WORK:
        return [partial(np.matmul, x, y, out=z)]
    if n >= m:
        return [partial(np.matmul, x[b], y, out=z[b]) for b in _side_blocks(n)]
    return [partial(np.matmul, x, y[:, b], out=z[:, b]) for b in _side_blocks(m)]


def call_all(pieces: list[Callable[[], Any]]) -> None:
    """Call every piece, on several threads if there are several."""
    with BLAS:
        share(lambda piece: piece(), pieces)


def product_then(x: np.ndarray, y: np.ndarray, finish: Callable[[np.ndarray, slice], Any]) -> np.ndarray:
    """Return z = x @ y for a matrix y, after calling ``finish(z, block)`` for each block of rows of z."""
    in_bf16(x)  # refuses a precision that only a GPU has
    z = np.empty((*x.shape[:-1], y.shape[1]), x.dtype)
    x_rows, z_rows = rows(x), rows(z)

    def multiply_and_finish(block: slice) -> None:
        np.matmul(x_rows[block], y, out=z_rows[block])
        for part in row_blocks(block.stop - block.start, z_rows[:1].nbytes):
            finish(z_rows, slice(block.start + part.start, block.start + part.stop))

    if len(z_rows) <= FEW_ROWS:  # as in decoding: cut by columns, because by rows each thread would prepare all of y
        call_all(product_pieces(x_rows, y, z_rows))
        finish(z_rows, slice(0, len(z_rows)))
        return z
    blocks = _side_blocks(len(z_rows)) if z.size * len(y) >= SHARED_WORK else [slice(0, len(z_rows))]
    with BLAS:
        share(multiply_and_finish, blocks)
    return z


def _side_blocks(size: int) -> list[slice]:
    """Return slices of nearly equal length that cover a side of the result; an even number, for two threads."""
    return even_blocks(size, 2 * min(max(size // (2 * LEAST_SIDE), 1), MOST_BLOCKS // 2))


@product.register(np.ndarray)
def _product_kernel(x: np.ndarray, y: np.ndarray) -> Array:
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
    call_all(product_pieces(rows(x), y, rows(z)))
    return z
