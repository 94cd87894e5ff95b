"""Layer normalization by row blocks, in place."""

from __future__ import annotations

from typing import Any

import numpy as np

from tensorlib.arrays.array import Array
from tensorlib.kernels.numpy.blocks import for_blocks, same_float_dtype, sum_in_order
from tensorlib.ops.normalize import layer_norm_formula, layer_norm_gradient


@layer_norm_formula.register(np.ndarray)
def _layer_norm_kernel(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, eps: float
) -> tuple[Array, tuple[Array, Array]]:
    if x.size == 0 or not same_float_dtype(x, weight, bias):
        return layer_norm_formula.dispatch(object)(x, weight, bias, eps)
    width = x.shape[-1]
    rows = x.reshape(-1, width)
    y = np.empty(rows.shape, x.dtype)
    mean, rstd = np.empty((len(rows), 1), x.dtype), np.empty((len(rows), 1), x.dtype)
    ones = np.ones((width, 1), x.dtype)  # a product with ones is the sum over the row, and faster than np.sum

    def normalize(block: slice) -> None:
        np.divide(rows[block] @ ones, width, out=mean[block])
        h = np.subtract(rows[block], mean[block], out=y[block])
        variance = np.einsum("nd,nd->n", h, h)[:, None] / width
        rstd[block] = 1 / np.sqrt(variance + eps)
        h *= rstd[block]
        h *= weight
        h += bias

    for_blocks(normalize, len(rows), width * x.itemsize)
    kept = (*x.shape[:-1], 1)
    return y.reshape(x.shape), (mean.reshape(kept), rstd.reshape(kept))


@layer_norm_gradient.register(np.ndarray)
def _layer_norm_gradient_kernel(
    dy: np.ndarray, x: np.ndarray, weight: np.ndarray, mean: np.ndarray, rstd: np.ndarray, needs: tuple[bool, ...]
) -> tuple[Array | None, Array | None, Array | None]:
    if x.size == 0 or not same_float_dtype(x, dy, weight):
        return layer_norm_gradient.dispatch(object)(dy, x, weight, mean, rstd, needs)
    width = x.shape[-1]
    dy_rows, x_rows = dy.reshape(-1, width), x.reshape(-1, width)
    mean_rows, rstd_rows = mean.reshape(-1, 1), rstd.reshape(-1, 1)
    dx = np.empty(x_rows.shape, x.dtype) if needs[0] else None
    ones = np.ones((width, 1), x.dtype)
    weight_parts: dict[int, Any] = {}  # by the first row of the block
    bias_parts: dict[int, Any] = {}

    def gradients(block: slice) -> None:
        if needs[2]:
            bias_parts[block.start] = dy_rows[block].sum(axis=0)
        if dx is None and not needs[1]:
            return
        h = x_rows[block] - mean_rows[block]
        h *= rstd_rows[block]
        if needs[1]:
            weight_parts[block.start] = np.einsum("nd,nd->d", dy_rows[block], h)
        if dx is None:
            return
        g = np.multiply(dy_rows[block], weight, out=dx[block])
        h *= np.einsum("nd,nd->n", g, h)[:, None] / width
        g -= g @ ones / width
        g -= h
        g *= rstd_rows[block]

    for_blocks(gradients, len(x_rows), width * x.itemsize)
    dweight, dbias = (sum_in_order([d[i] for i in sorted(d)]) if d else None for d in (weight_parts, bias_parts))
    return None if dx is None else dx.reshape(x.shape), dweight, dbias
