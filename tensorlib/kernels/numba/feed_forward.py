"""The feed-forward sub-layer: a piece of rows goes through both layers, and both gradients, in one call.

A piece contributes to the gradients of the weights; the contributions are added in the order of the pieces.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tensorlib.arrays.array import Array
from tensorlib.arrays.threads import BLAS, share
from tensorlib.kernels.numba import overrides
from tensorlib.kernels.numba.bf16 import factors, operand
from tensorlib.kernels.numba.blas import FOUND, gemm
from tensorlib.kernels.numba.compiling import compiled
from tensorlib.kernels.numba.dropout import mask_of
from tensorlib.kernels.numba.linear import linear_relu_rows, linear_rows, relu_gradient_in_place, sum_of_rows
from tensorlib.kernels.numba.rows import Partial, contiguous, product_pieces, rows, serves
from tensorlib.kernels.numpy.linalg import FEW_ROWS
from tensorlib.ops.dropout import dropout_scale
from tensorlib.ops.feed_forward import feed_forward_formula, feed_forward_gradient


@compiled
def forward_rows(x: Any, w1: Any, b1: Any, w2: Any, b2: Any, h: Any, y: Any, mask: Any, scale: Any, start: int) -> None:
    """Compute h and y for rows of which the first has the number `start`."""
    linear_relu_rows(x, w1, b1, h, mask, scale, start)
    linear_rows(h, w2, b2, y)


@compiled
def backward_rows(
    dy: Any, x: Any, w1: Any, h: Any, w2: Any, scale: Any, dx: Any, dw1: Any, db1: Any, dw2: Any, db2: Any
) -> None:
    """Compute the gradient of x, and these rows' contribution to the others."""
    one, zero = x.dtype.type(1), x.dtype.type(0)
    dz, dy_factor = np.empty(h.shape, h.dtype), operand(dy, w2)
    gemm(dy_factor, w2.T, dz, one, zero)
    relu_gradient_in_place(dz, h, scale)
    dz_factor = operand(dz, w1)
    gemm(dz_factor, w1.T, dx, one, zero)
    gemm(operand(x, w1).T, dz_factor, dw1, one, zero)
    gemm(operand(h, w2).T, dy_factor, dw2, one, zero)
    sum_of_rows(dz, db1)
    sum_of_rows(dy, db2)


@overrides(feed_forward_formula)
def _feed_forward_kernel(
    before: Callable[..., Any], x: np.ndarray, w1: np.ndarray, b1: np.ndarray, w2: np.ndarray, b2: np.ndarray,
    p: float, key: int, draw: int,
) -> tuple[Array, Array]:  # fmt: skip
    if not _fits(x, w1, b1, w2, b2):
        return before(x, w1, b1, w2, b2, p, key, draw)
    h, y = np.empty((*x.shape[:-1], w1.shape[1]), x.dtype), np.empty((*x.shape[:-1], w2.shape[1]), x.dtype)
    x_rows, h_rows, y_rows = rows(x), rows(h), rows(y)
    (w1, w2), b1, b2 = factors(w1, w2), contiguous(b1), contiguous(b2)
    mask, scale = mask_of(p, key, draw), x.dtype.type(dropout_scale(p))

    def piece(n: slice) -> None:
        forward_rows(x_rows[n], w1, b1, w2, b2, h_rows[n], y_rows[n], mask, scale, n.start)

    with BLAS:
        share(piece, product_pieces(len(x_rows), 2 * x.size * w1.shape[1]))
    return y, h


@overrides(feed_forward_gradient)
def _feed_forward_gradient_kernel(
    before: Callable[..., Any], dy: np.ndarray, x: np.ndarray, w1: np.ndarray, h: np.ndarray, w2: np.ndarray,
    scale: float, needs: tuple[bool, ...],
) -> tuple[Array | None, ...]:  # fmt: skip
    if not _fits(x, w1, h, w2, dy) or not all(needs):
        return before(dy, x, w1, h, w2, scale, needs)
    dx = np.empty(x.shape, x.dtype)
    dy_rows, x_rows, h_rows, dx_rows = rows(dy), rows(x), rows(h), rows(dx)
    w1, w2 = factors(w1, w2)
    parts = product_pieces(len(x_rows), 4 * x.size * w1.shape[1])
    sums = [Partial(shape, x.dtype, len(parts)) for shape in (w1.shape, w1.shape[1:], w2.shape, w2.shape[1:])]

    def piece(number: int) -> None:
        n = parts[number]
        backward_rows(
            dy_rows[n], x_rows[n], w1, h_rows[n], w2, x.dtype.type(scale), dx_rows[n], *[s[number] for s in sums]
        )

    with BLAS:
        share(piece, range(len(parts)))
    return dx, *[s.total() for s in sums]


def _fits(x: np.ndarray, *others: np.ndarray) -> bool:
    """Return whether the kernel serves these operands."""
    return (
        FOUND and x.ndim >= 1 and serves(x, *others) and all(a.size for a in (x, *others))
        and x.size // x.shape[-1] > FEW_ROWS
    )  # fmt: skip
