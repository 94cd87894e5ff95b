"""The dense layer: a piece of rows is multiplied, and gets bias, ReLU and dropout, in one compiled call."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from tensorlib.arrays.array import Array
from tensorlib.arrays.threads import BLAS, share
from tensorlib.kernels.numba import overrides
from tensorlib.kernels.numba.bf16 import factors, operand
from tensorlib.kernels.numba.blas import FOUND, for_blas, gemm, multiply
from tensorlib.kernels.numba.compiling import compiled
from tensorlib.kernels.numba.dropout import CHUNK, bits_of_rows, keep_or_zero, mask_of, room_for_bits
from tensorlib.kernels.numba.rows import contiguous, for_pieces, product_pieces, rows, serves
from tensorlib.kernels.numpy.linalg import FEW_ROWS, call_all
from tensorlib.ops.dropout import dropout_scale
from tensorlib.ops.linear import linear_formula, linear_gradient, linear_relu_formula, linear_relu_gradient

__all__ = ["add_bias", "linear_relu_rows", "linear_rows", "relu_gradient_in_place", "relu_gradient_rows", "sum_of_rows"]


@compiled
def linear_rows(x: Any, weight: Any, bias: Any, z: Any) -> None:
    """Write x W + b to z, for contiguous rows of x and z; without a bias `bias` has no elements."""
    gemm(operand(x, weight), weight, z, z.dtype.type(1), z.dtype.type(0))
    if bias.size:
        add_bias(bias, z)


@compiled
def add_bias(bias: Any, z: Any) -> None:
    """Add the bias to each row of z."""
    for i in range(z.shape[0]):
        for j in range(z.shape[1]):
            z[i, j] += bias[j]


@compiled
def linear_relu_rows(x: Any, weight: Any, bias: Any, y: Any, mask: Any, scale: Any, start: int) -> None:
    """Write max(x W + b, 0) after dropout to y, whose first row has the number `start`."""
    gemm(operand(x, weight), weight, y, y.dtype.type(1), y.dtype.type(0))
    width = y.shape[1]
    step = max(1, CHUNK // width)
    words = room_for_bits(step * width)
    for low in range(0, y.shape[0], step):
        high = min(low + step, y.shape[0])
        _relu_drop(bias, y[low:high], bits_of_rows(mask, start + low, high - low, width, words), mask[3], scale)


@compiled
def _relu_drop(bias: Any, y: Any, bits: Any, level: Any, scale: Any) -> None:
    zero = y.dtype.type(0)
    for i in range(y.shape[0]):
        for j in range(y.shape[1]):
            z = y[i, j] + bias[j]
            y[i, j] = zero if z < zero else z  # a NaN stays
        if bits.size:
            for j in range(y.shape[1]):
                y[i, j] = keep_or_zero(y[i, j] * scale, bits[i, j], level)


@compiled
def relu_gradient_rows(dy: Any, y: Any, scale: Any, dz: Any) -> None:
    """Write dy · scale to dz, and 0 where y <= 0: `y <= 0` instead of `not y > 0`, so that dy flows to a NaN."""
    zero = y.dtype.type(0)
    for i in range(y.shape[0]):
        for j in range(y.shape[1]):
            dz[i, j] = zero if y[i, j] <= zero else dy[i, j] * scale


@compiled
def relu_gradient_in_place(dy: Any, y: Any, scale: Any) -> None:
    """As `relu_gradient_rows`, into dy: loops over the same array under two names have no vector instructions."""
    zero = y.dtype.type(0)
    for i in range(y.shape[0]):
        for j in range(y.shape[1]):
            dy[i, j] = zero if y[i, j] <= zero else dy[i, j] * scale


@compiled
def sum_of_rows(x: Any, total: Any) -> None:
    """Write the sum of the rows to `total`."""
    total[:] = 0
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            total[j] += x[i, j]


def product_tasks(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> list[Callable[[], Any]]:
    """Return functions that together write x y to z, which they divide along its longer side."""
    work = x.size * y.shape[1]
    if len(z) >= z.shape[1]:
        return [partial(multiply, x[n], y, z[n]) for n in product_pieces(len(z), work)]
    return [partial(multiply, x, y[:, n], z[:, n]) for n in product_pieces(z.shape[1], work)]


def _shapes_fit(x: np.ndarray, weight: np.ndarray, *bias: np.ndarray) -> bool:
    return x.ndim >= 1 and FOUND and serves(x, weight, *bias) and x.size > 0 and weight.size > 0


@overrides(linear_formula)
def _linear_kernel(
    before: Callable[..., Array], x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None = None
) -> Array:
    given = [] if bias is None else [bias]
    if not _shapes_fit(x, weight, *given) or x.size // x.shape[-1] <= FEW_ROWS:
        return before(x, weight, bias)
    z = np.empty((*x.shape[:-1], weight.shape[1]), x.dtype)
    x_rows, z_rows, b = rows(x), rows(z), np.empty(0, x.dtype) if bias is None else contiguous(bias)
    (weight,) = factors(weight, make=for_blas)
    with BLAS:
        share(lambda n: linear_rows(x_rows[n], weight, b, z_rows[n]), product_pieces(len(z_rows), z.size * len(weight)))
    return z


@overrides(linear_relu_formula)
def _linear_relu_kernel(
    before: Callable[..., Array], x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, p: float, key: int,
    draw: int,
) -> Array:  # fmt: skip
    given = [] if bias is None else [bias]
    if not _shapes_fit(x, weight, *given) or x.size // x.shape[-1] <= FEW_ROWS:
        return before(x, weight, bias, p, key, draw)
    y = np.empty((*x.shape[:-1], weight.shape[1]), x.dtype)
    x_rows, y_rows, (weight,) = rows(x), rows(y), factors(weight, make=for_blas)
    b = np.zeros(weight.shape[1], x.dtype) if bias is None else contiguous(bias)
    mask, scale = mask_of(p, key, draw), x.dtype.type(dropout_scale(p))

    def piece(n: slice) -> None:
        linear_relu_rows(x_rows[n], weight, b, y_rows[n], mask, scale, n.start)

    with BLAS:
        share(piece, product_pieces(len(y_rows), y.size * len(weight)))
    return y


@overrides(linear_relu_gradient)
def _linear_relu_gradient_kernel(before: Callable[..., Array], dy: np.ndarray, y: np.ndarray, scale: float) -> Array:
    if not serves(y, dy) or not y.size or dy.shape != y.shape:
        return before(dy, y, scale)
    dz = np.empty(y.shape, y.dtype)
    dy_rows, y_rows, dz_rows = rows(dy), rows(y), rows(dz)
    for_pieces(
        lambda n: relu_gradient_rows(dy_rows[n], y_rows[n], y.dtype.type(scale), dz_rows[n]), len(y_rows), y.shape[-1]
    )
    return dz


@overrides(linear_gradient)
def _linear_gradient_kernel(
    before: Callable[..., Any], dz: np.ndarray, x: np.ndarray, weight: np.ndarray, needs: tuple[bool, ...]
) -> tuple[Array | None, ...]:
    if not _shapes_fit(x, weight, dz) or not serves(x, dz) or not dz.size:
        return before(dz, x, weight, needs)
    x_rows, dz_rows = rows(x), rows(dz)
    dx, dweight, dbias = (np.empty(shape, x.dtype) for shape in (x.shape, weight.shape, weight.shape[1:]))
    tasks, few = list[Callable[[], Any]](), len(x_rows) <= FEW_ROWS  # of which the product was exact, too
    (dz_factor,) = [dz_rows] if few else factors(dz_rows)
    if needs[0]:
        dx_rows, (weight,) = rows(dx), [for_blas(weight)] if few else factors(weight, make=for_blas)
        for n in product_pieces(len(x_rows), x.size * weight.shape[1]):
            tasks.append(partial(multiply, dz_factor[n], weight.T, dx_rows[n]))
    if needs[1]:
        (x_factor,) = [x_rows] if few else factors(x_rows)
        tasks += product_tasks(x_factor.T, dz_factor, dweight)
    if any(needs[2:]):
        tasks.append(partial(sum_of_rows, dz_rows, dbias))
    call_all(tasks)
    return tuple([d if needed else None for d, needed in zip((dx, dweight, dbias), needs, strict=False)])
