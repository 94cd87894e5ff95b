"""The dense layer: bias, ReLU and dropout are applied to a block of rows right after its product."""

from __future__ import annotations

import numpy as np

from tensorlib.arrays.array import Array
from tensorlib.kernels.numpy.blocks import for_blocks, same_float_dtype
from tensorlib.kernels.numpy.dropout import dropout_into, zero_where_not
from tensorlib.kernels.numpy.linalg import call_all, product_pieces, product_then
from tensorlib.ops.linalg import rows
from tensorlib.ops.linear import linear_formula, linear_gradient, linear_relu_formula, linear_relu_gradient


@linear_formula.register(np.ndarray)
def _linear_kernel(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None = None) -> Array:
    if bias is None or not same_float_dtype(x, weight, bias):
        return linear_formula.dispatch(object)(x, weight, bias)

    def add_bias(z: np.ndarray, block: slice) -> None:
        z[block] += bias

    return product_then(x, weight, add_bias)


@linear_relu_formula.register(np.ndarray)
def _linear_relu_kernel(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, p: float, key: int, draw: int
) -> Array:
    if not same_float_dtype(x, weight, *([] if bias is None else [bias])):
        return linear_relu_formula.dispatch(object)(x, weight, bias, p, key, draw)

    def add_bias_and_choose(y: np.ndarray, block: slice) -> None:
        part = y[block]
        if bias is not None:
            part += bias
        np.maximum(part, 0, out=part)
        if p:
            dropout_into(part, part, p, key, draw, block.start * y.shape[1])

    return product_then(x, weight, add_bias_and_choose)


@linear_relu_gradient.register(np.ndarray)
def _linear_relu_gradient_kernel(dy: np.ndarray, y: np.ndarray, scale: float) -> Array:
    if not same_float_dtype(y, dy):
        return linear_relu_gradient.dispatch(object)(dy, y, scale)
    dz = np.empty(y.shape, y.dtype)
    dy_rows, y_rows, dz_rows = rows(dy), rows(y), rows(dz)

    def choose(block: slice) -> None:
        part = np.multiply(dy_rows[block], scale, out=dz_rows[block])
        zero_where_not(~(y_rows[block] <= 0), part)  # y <= 0 instead of `not y > 0`, so that dy flows to a NaN

    for_blocks(choose, len(y_rows), y.shape[-1] * y.itemsize)
    return dz


@linear_gradient.register(np.ndarray)
def _linear_gradient_kernel(
    dz: np.ndarray, x: np.ndarray, weight: np.ndarray, needs: tuple[bool, ...]
) -> tuple[Array | None, ...]:
    if not same_float_dtype(x, dz, weight):
        return linear_gradient.dispatch(object)(dz, x, weight, needs)
    dz_rows = rows(dz)
    dx, dweight, dbias = np.empty(x.shape, x.dtype), np.empty(weight.shape, x.dtype), np.empty(weight.shape[1], x.dtype)
    pieces = []
    if needs[0]:
        pieces += product_pieces(dz_rows, weight.T, rows(dx))
    if needs[1]:
        pieces += product_pieces(rows(x).T, dz_rows, dweight)
    if any(needs[2:]):
        pieces.append(lambda: np.sum(dz_rows, axis=0, out=dbias))
    call_all(pieces)  # in one call, because products that are too small to be cut can still run at the same time
    return tuple([d if needed else None for d, needed in zip((dx, dweight, dbias), needs, strict=False)])
