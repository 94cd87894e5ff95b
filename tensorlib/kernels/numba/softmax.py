"""Softmax over the last axis: a row at a time, with its maximum, exponentials and sum while it is in the cache."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tensorlib.arrays.array import Array
from tensorlib.kernels.numba import overrides
from tensorlib.kernels.numba.compiling import inlined_sums, summing
from tensorlib.kernels.numba.elementary import exp, in_order, out_of_order
from tensorlib.kernels.numba.rows import for_pieces, rows, serves
from tensorlib.ops.softmax import softmax_formula, softmax_gradient

__all__ = ["exponentials", "largest"]


@inlined_sums
def largest(x: Any, i: int) -> Any:
    """Return the largest element of row i, or 0 if all are -inf: exp(-inf - 0) = 0, but -inf - -inf is NaN."""
    best = in_order(x[i, 0])
    for j in range(x.shape[1]):
        b = in_order(x[i, j])
        best = b if b > best else best  # max() would make it an integer of 64 bits
    top = out_of_order(best)
    return type(top)(0) if top == -math.inf else top


@inlined_sums
def exponentials(x: Any, i: int, top: Any) -> Any:
    """Replace row i by exp(x - top) and return its sum."""
    total = type(top)(0)
    for j in range(x.shape[1]):
        e = exp(x[i, j] - top)
        x[i, j] = e
        total += e
    return total


@summing
def softmax_rows(x: Any, visible: Any, y: Any) -> None:
    """Write the softmax of each row of x to y; `visible` has no elements, or one for each of x."""
    zero, one = x.dtype.type(0), x.dtype.type(1)
    hidden = x.dtype.type(-math.inf)
    for i in range(x.shape[0]):
        if visible.size:
            for j in range(x.shape[1]):
                y[i, j] = x[i, j] if visible[i, j] else hidden
        else:
            for j in range(x.shape[1]):
                y[i, j] = x[i, j]
        total = exponentials(y, i, largest(y, i))
        scale = one / (one if total == zero else total)
        for j in range(x.shape[1]):
            y[i, j] *= scale


@summing
def softmax_gradient_rows(dy: Any, y: Any, dx: Any) -> bool:
    """Write y (dy - <dy, y>) to dx, and return whether all sums are finite."""
    finite = True
    for i in range(y.shape[0]):
        total = y.dtype.type(0)
        for j in range(y.shape[1]):
            total += dy[i, j] * y[i, j]
        finite = finite and abs(total) < math.inf
        for j in range(y.shape[1]):
            dx[i, j] = y[i, j] * (dy[i, j] - total)
    return finite


@overrides(softmax_formula)
def _softmax_kernel(
    before: Callable[..., Array], x: np.ndarray, axis: int | tuple[int, ...], visible: np.ndarray | None
) -> Array:
    if not _last(axis, x) or not serves(x) or not x.size:
        return before(x, axis, visible)
    x_rows, y = rows(x), np.empty(x.shape, x.dtype)
    y_rows = rows(y)
    seen = _ALL if visible is None else rows(np.broadcast_to(visible, x.shape))
    for_pieces(
        lambda b: softmax_rows(x_rows[b], seen if visible is None else seen[b], y_rows[b]), len(x_rows), 4 * x.shape[-1]
    )
    return y


_ALL = np.empty((0, 0), bool)


@overrides(softmax_gradient)
def _softmax_gradient_kernel(
    before: Callable[..., Array], dy: np.ndarray, y: np.ndarray, axis: int | tuple[int, ...]
) -> Array:
    if not _last(axis, y) or not serves(y, dy) or dy.shape != y.shape or not y.size:
        return before(dy, y, axis)
    dy_rows, y_rows, dx = rows(dy), rows(y), np.empty(y.shape, y.dtype)
    dx_rows, finite = rows(dx), []
    for_pieces(
        lambda b: finite.append(softmax_gradient_rows(dy_rows[b], y_rows[b], dx_rows[b])), len(y_rows), y.shape[-1]
    )
    if not all(finite):  # a gradient is infinite or NaN, perhaps only at hidden positions
        return before(dy, y, axis)
    return dx


def _last(axis: int | tuple[int, ...], x: np.ndarray) -> bool:
    return x.ndim > 0 and axis in (-1, x.ndim - 1, (-1,), (x.ndim - 1,))
