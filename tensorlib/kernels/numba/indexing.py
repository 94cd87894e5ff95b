"""The gradient of an embedding: each piece of the table takes the rows that belong to it, in their order."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tensorlib.arrays.array import Array
from tensorlib.kernels.numba import overrides
from tensorlib.kernels.numba.compiling import compiled
from tensorlib.kernels.numba.rows import contiguous, flat, for_pieces, serves
from tensorlib.ops.indexing import sum_rows_formula


@compiled
def sum_rows(x: Any, ids: Any, first: int, y: Any) -> None:
    """Write to y, rows `first` to first + len(y) of the table, the sums of the rows of x with these ids."""
    y[:] = 0
    for n in range(ids.size):
        i = ids[n] - first
        if 0 <= i < y.shape[0]:
            for j in range(y.shape[1]):
                y[i, j] += x[n, j]


@overrides(sum_rows_formula)
def _sum_rows_kernel(before: Callable[..., Array], x: np.ndarray, ids: np.ndarray, rows: int) -> Array:
    if not serves(x) or not x.size:
        return before(x, ids, rows)
    shape = x.shape[ids.ndim :]
    width = math.prod(shape)
    x_rows, ids_flat = contiguous(x).reshape(-1, width), flat(ids).astype(np.int64, copy=False)
    y = np.empty((rows, width), x.dtype)
    for_pieces(lambda b: sum_rows(x_rows, ids_flat, b.start, y[b]), rows, width)
    return y.reshape(rows, *shape)
