"""Layer normalization: statistics and result of a row while it is in the cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tensorlib.arrays.array import Array
from tensorlib.arrays.threads import share
from tensorlib.kernels.numba import overrides
from tensorlib.kernels.numba.compiling import inlined, inlined_sums, summing
from tensorlib.kernels.numba.rows import contiguous, flat, pieces, rows, serves
from tensorlib.kernels.numpy.blocks import sum_in_order
from tensorlib.ops.normalize import layer_norm_formula, layer_norm_gradient

__all__ = ["normalize_row", "normalize_row_gradient"]


@inlined_sums
def normalize_row(x: Any, i: int, weight: Any, bias: Any, eps: Any, y: Any) -> Any:
    """Write (x - mean) / sqrt(variance + eps) · weight + bias to row i of y; return mean, 1/std."""
    one = type(eps)(1)
    width = x.shape[1]
    total = type(eps)(0)
    for j in range(width):
        total += x[i, j]
    mean = total / type(eps)(width)
    squares = type(eps)(0)
    for j in range(width):
        centred = x[i, j] - mean
        squares += centred * centred
    rstd = one / np.sqrt(squares / type(eps)(width) + eps)
    for j in range(width):
        y[i, j] = (x[i, j] - mean) * rstd * weight[j] + bias[j]
    return mean, rstd


@summing
def layer_norm_rows(x: Any, weight: Any, bias: Any, eps: Any, y: Any, mean: Any, rstd: Any) -> None:
    """Normalize all rows."""
    for i in range(x.shape[0]):
        mean[i], rstd[i] = normalize_row(x, i, weight, bias, eps, y)


@inlined_sums
def normalize_row_gradient(dy: Any, x: Any, i: int, weight: Any, mean: Any, rstd: Any, dx: Any) -> None:
    """Write rstd (g - mean(g) - h mean(g h)) with g = dy weight and h = (x - mean) rstd to row i of dx."""
    width = x.shape[1]
    sum_g = type(mean)(0)
    sum_gh = type(mean)(0)
    for j in range(width):
        g = dy[i, j] * weight[j]
        sum_g += g
        sum_gh += g * ((x[i, j] - mean) * rstd)
    _combine(dy, x, i, weight, mean, rstd, sum_g / type(mean)(width), sum_gh / type(mean)(width), dx)


@inlined
def _combine(dy: Any, x: Any, i: int, weight: Any, mean: Any, rstd: Any, mean_g: Any, mean_gh: Any, dx: Any) -> None:
    for j in range(x.shape[1]):
        h = (x[i, j] - mean) * rstd
        dx[i, j] = rstd * (dy[i, j] * weight[j] - (mean_g + h * mean_gh))


@summing
def layer_norm_gradient_rows(
    dy: Any, x: Any, weight: Any, mean: Any, rstd: Any, dx: Any, dweight: Any, dbias: Any
) -> None:
    """Write dx, and add to dweight and dbias; an array without elements is not needed."""
    for i in range(x.shape[0]):
        m, r = mean[i], rstd[i]
        if dweight.size:
            for j in range(x.shape[1]):
                dweight[j] += dy[i, j] * ((x[i, j] - m) * r)
        if dbias.size:
            for j in range(x.shape[1]):
                dbias[j] += dy[i, j]
        if dx.size:
            normalize_row_gradient(dy, x, i, weight, m, r, dx)


@overrides(layer_norm_formula)
def _layer_norm_kernel(
    before: Callable[..., Any], x: np.ndarray, weight: np.ndarray, bias: np.ndarray, eps: float
) -> tuple[Array, tuple[Array, Array]]:
    if not x.size or not serves(x, weight, bias):
        return before(x, weight, bias, eps)
    x_rows, y = rows(x), np.empty(x.shape, x.dtype)
    y_rows, weight, bias = rows(y), contiguous(weight), contiguous(bias)
    mean, rstd = np.empty(len(x_rows), x.dtype), np.empty(len(x_rows), x.dtype)

    def normalize(b: slice) -> None:
        layer_norm_rows(x_rows[b], weight, bias, x.dtype.type(eps), y_rows[b], mean[b], rstd[b])

    share(normalize, pieces(len(x_rows), x.size))
    kept = (*x.shape[:-1], 1)
    return y, (mean.reshape(kept), rstd.reshape(kept))


@overrides(layer_norm_gradient)
def _layer_norm_gradient_kernel(
    before: Callable[..., Any], dy: np.ndarray, x: np.ndarray, weight: np.ndarray, mean: np.ndarray, rstd: np.ndarray,
    needs: tuple[bool, ...],
) -> tuple[Array | None, Array | None, Array | None]:  # fmt: skip
    if not x.size or not serves(x, dy, weight, mean, rstd) or dy.shape != x.shape:
        return before(dy, x, weight, mean, rstd, needs)
    dy_rows, x_rows, weight = rows(dy), rows(x), contiguous(weight)
    mean, rstd = flat(mean), flat(rstd)
    parts = pieces(len(x_rows), 2 * x.size)
    dx = np.empty(x.shape if needs[0] else (0, 0), x.dtype)
    dx_rows = dx.reshape(-1, dx.shape[-1]) if needs[0] else dx
    sums = [np.zeros((len(parts), len(weight) if need else 0), x.dtype) for need in needs[1:]]

    def gradients(number: int) -> None:
        b = parts[number]
        dx_b = dx_rows[b] if needs[0] else dx
        layer_norm_gradient_rows(
            dy_rows[b], x_rows[b], weight, mean[b], rstd[b], dx_b, sums[0][number], sums[1][number]
        )

    share(gradients, range(len(parts)))
    dweight, dbias = (sum_in_order(list(s)) if need else None for s, need in zip(sums, needs[1:], strict=True))
    return dx if needs[0] else None, dweight, dbias
