"""Dropout without branches, for a CPU cannot foresee which way a random choice goes; a block's mask at a time."""

from __future__ import annotations

import numpy as np

from tensorlib.arrays.backend import philox_bits
from tensorlib.kernels.numpy.blocks import for_blocks, same_float_dtype
from tensorlib.ops.dropout import add_dropout_formula, dropout_formula, dropout_scale, dropped_levels


def drop(x: np.ndarray, y: np.ndarray, p: float, key: int, draw: int, start: int) -> None:
    """Put x · m into y, of one shape and contiguous; m is the part of the draw's mask from element `start` on."""
    kept = philox_bits(key, draw, start, x.size) >= dropped_levels(p)
    np.multiply(x, x.dtype.type(dropout_scale(p)), out=y)
    zero_where_not(kept.reshape(x.shape), y)


def zero_where_not(kept: np.ndarray, y: np.ndarray) -> None:
    """Put 0 into y where `kept` is False, whatever stood there."""
    bits = y.view(f"i{y.itemsize}")
    bits *= kept  # a pattern of bits times 1 or 0 is itself or zero, also where it stands for inf or NaN


@dropout_formula.register(np.ndarray)
def _(x: np.ndarray, p: float, key: int, draw: int) -> np.ndarray:
    if not same_float_dtype(x):
        return dropout_formula.dispatch(object)(x, p, key, draw)
    y = np.empty(x.shape, x.dtype)
    x_flat, y_flat = x.reshape(-1), y.reshape(-1)
    for_blocks(lambda b: drop(x_flat[b], y_flat[b], p, key, draw, b.start), x.size, x.itemsize)
    return y


@add_dropout_formula.register(np.ndarray)
def _(x: np.ndarray, y: np.ndarray, p: float, key: int, draw: int) -> np.ndarray:
    if not same_float_dtype(x, y):
        return add_dropout_formula.dispatch(object)(x, y, p, key, draw)
    z = np.empty(x.shape, x.dtype)
    x_flat, y_flat, z_flat = x.reshape(-1), y.reshape(-1), z.reshape(-1)

    def add(block: slice) -> None:
        drop(y_flat[block], z_flat[block], p, key, draw, block.start)
        z_flat[block] += x_flat[block]

    for_blocks(add, x.size, x.itemsize)
    return z
