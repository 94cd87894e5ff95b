"""The Gaussian error linear unit, in one pass each way."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tensorlib.arrays.array import Array
from tensorlib.kernels.numba import overrides
from tensorlib.kernels.numba.compiling import compiled
from tensorlib.kernels.numba.elementary import erf, exp
from tensorlib.kernels.numba.rows import flat, for_pieces, serves
from tensorlib.ops.activations import gelu_formula, gelu_gradient

WORK = 4  # an exponential takes about as long as this many additions


@compiled
def _portions(x: Any, portion: Any) -> None:
    half, root = x.dtype.type(0.5), x.dtype.type(math.sqrt(0.5))
    for i in range(x.size):
        portion[i] = half + half * erf(x[i] * root)


@compiled
def _products(x: Any, portion: Any, y: Any) -> None:
    for i in range(x.size):
        y[i] = x[i] * portion[i]


@compiled
def _gradients(dy: Any, x: Any, portion: Any, dx: Any) -> None:
    most, half, scale = x.dtype.type(40), x.dtype.type(0.5), x.dtype.type(1 / math.sqrt(2 * math.pi))
    for i in range(x.size):
        near = most if x[i] > most else (-most if x[i] < -most else x[i])
        dx[i] = dy[i] * (portion[i] + near * exp(-half * near * near) * scale)


@overrides(gelu_formula)
def _gelu_kernel(before: Callable[..., Any], x: np.ndarray) -> tuple[Array, Array]:
    if not serves(x):
        return before(x)
    y, portion = np.empty(x.shape, x.dtype), np.empty(x.shape, x.dtype)
    x_flat, y_flat, portion_flat = flat(x), y.reshape(-1), portion.reshape(-1)

    def piece(b: slice) -> None:
        _portions(x_flat[b], portion_flat[b])
        _products(x_flat[b], portion_flat[b], y_flat[b])

    for_pieces(piece, x.size, WORK)
    return y, portion


@overrides(gelu_gradient)
def _gelu_gradient_kernel(before: Callable[..., Array], dy: np.ndarray, x: np.ndarray, portion: np.ndarray) -> Array:
    if not serves(x, dy, portion) or dy.shape != x.shape:
        return before(dy, x, portion)
    dx = np.empty(x.shape, x.dtype)
    dy_flat, x_flat, portion_flat, dx_flat = flat(dy), flat(x), flat(portion), dx.reshape(-1)
    for_pieces(lambda b: _gradients(dy_flat[b], x_flat[b], portion_flat[b], dx_flat[b]), x.size, WORK)
    return dx
