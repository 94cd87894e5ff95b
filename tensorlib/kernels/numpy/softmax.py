"""Softmax in place: it allocates one array instead of five."""

from __future__ import annotations

import math

import numpy as np

from tensorlib.arrays.array import Array
from tensorlib.arrays.shapes import largest
from tensorlib.ops.softmax import softmax_formula, softmax_gradient


@softmax_formula.register(np.ndarray)
def _softmax_kernel(x: np.ndarray, axis: int | tuple[int, ...], visible: np.ndarray | None) -> Array:
    if x.dtype.kind != "f" or not x.ndim:  # the steps in place below would keep an integer dtype, and need an array
        return softmax_formula.dispatch(object)(x, axis, visible)
    y = x if visible is None else np.where(visible, x, x.dtype.type(-math.inf))
    top = largest(y, axis if isinstance(axis, tuple) else (axis,))
    top[top == -math.inf] = 0  # if nothing is visible, exp(-inf - 0) = 0
    y = np.subtract(y, top, out=None if visible is None else y)
    np.exp(y, out=y)
    total = y.sum(axis=axis, keepdims=True)
    total[total == 0] = 1
    y /= total
    return y


@softmax_gradient.register(np.ndarray)
def _softmax_gradient_kernel(dy: np.ndarray, y: np.ndarray, axis: int) -> Array:
    with np.errstate(invalid="ignore"):
        dx = dy * y
        total = dx.sum(axis=axis, keepdims=True)
    if not np.isfinite(total).all():  # a gradient is infinite or NaN, perhaps only at hidden positions
        return softmax_gradient.dispatch(object)(dy, y, axis)
    dx -= y * total
    return dx
