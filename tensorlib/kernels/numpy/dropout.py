"""Dropout without branches, because a CPU cannot predict random ones; the mask is drawn one block at a time."""

from __future__ import annotations

import numpy as np

from tensorlib.arrays.array import Array
from tensorlib.arrays.philox import philox_bits
from tensorlib.kernels.numpy.blocks import for_blocks, same_float_dtype
from tensorlib.ops.dropout import add_dropout_formula, dropout_formula, dropout_scale, dropped_levels


def dropout_into(y: np.ndarray, x: np.ndarray, p: float, key: int, draw: int, start: int) -> None:
    """Write x · m to y, where m is the draw's mask from element `start` on. x and y have one shape; y is contiguous."""
    kept = philox_bits(key, draw, start, x.size) >= dropped_levels(p)
    np.multiply(x, x.dtype.type(dropout_scale(p)), out=y)
    zero_where_not(kept.reshape(x.shape), y)


def zero_where_not(kept: np.ndarray, y: np.ndarray) -> None:
    """Set y to 0 where `kept` is False, even if y is infinite or NaN there."""
    bits = y.view(f"i{y.itemsize}")
    bits *= kept  # multiplies the bits as integers, because inf · 0 is NaN


@dropout_formula.register(np.ndarray)
def _dropout_kernel(x: np.ndarray, p: float, key: int, draw: int) -> Array:
    if not same_float_dtype(x):
        return dropout_formula.dispatch(object)(x, p, key, draw)
    y = np.empty(x.shape, x.dtype)
    x_flat, y_flat = x.reshape(-1), y.reshape(-1)
    for_blocks(lambda b: dropout_into(y_flat[b], x_flat[b], p, key, draw, b.start), x.size, x.itemsize)
    return y


@add_dropout_formula.register(np.ndarray)
def _add_dropout_kernel(x: np.ndarray, y: np.ndarray, p: float, key: int, draw: int) -> Array:
    if not same_float_dtype(x, y):
        return add_dropout_formula.dispatch(object)(x, y, p, key, draw)
    z = np.empty(x.shape, x.dtype)
    x_flat, y_flat, z_flat = x.reshape(-1), y.reshape(-1), z.reshape(-1)

    def add(block: slice) -> None:
        dropout_into(z_flat[block], y_flat[block], p, key, draw, block.start)
        z_flat[block] += x_flat[block]

    for_blocks(add, x.size, x.itemsize)
    return z
