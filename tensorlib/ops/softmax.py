"""Softmax and its logarithm."""

from __future__ import annotations

import math
from functools import singledispatch
from typing import Any

import numpy as np

from tensorlib.arrays.backend import Array, namespace_of
from tensorlib.arrays.shapes import largest
from tensorlib.engine.errors import called_op
from tensorlib.engine.function import Function, as_tensor
from tensorlib.ops.arguments import as_floating, at_least_float32, normalized_axis

__all__ = ["log_softmax", "softmax"]


class Softmax(Function):
    """y_i = exp(x_i) / sum_j exp(x_j) along `axis`, over the visible j only; y has the shape of x."""

    def forward(self, x: Array, axis: int, visible: Array | None) -> Array:
        y = softmax_formula(x, axis, visible)
        self.axis = axis
        self.save(y)  # the gradient needs y alone, so x may be freed
        return y

    def backward(self, dy: Array) -> Any:
        (y,) = self.saved
        return softmax_gradient(dy, y, self.axis)


@singledispatch
def softmax_formula(x: Array, axis: int, visible: Array | None) -> Array:
    """Shift by the largest visible element first: the result is the same, and exp cannot overflow."""
    xp = namespace_of(x)
    if visible is not None:
        x = xp.where(visible, x, xp.asarray(-math.inf, x.dtype))
    top = largest(x, (axis,))
    e = xp.exp(x - xp.where(top == -math.inf, xp.zeros_like(top), top))  # nothing visible: exp(-inf - 0) = 0
    total = e.sum(axis=axis, keepdims=True)
    return e / xp.where(total == 0, xp.ones_like(total), total)


@singledispatch
def softmax_gradient(dy: Array, y: Array, axis: int) -> Array:
    # dy_i/dx_j = y_i (1[i=j] - y_j)   =>   dx = y (dy - <dy, y>).  Hidden places have y = 0, hence dx = 0, also
    # where what arrives there is infinite or NaN, as it is from the logarithm of that 0.
    dy = namespace_of(dy).where(y == 0, 0, dy)
    return y * (dy - (dy * y).sum(axis=axis, keepdims=True))


@at_least_float32  # the sum of 100,000 exponentials would overflow at 65504
def softmax(x: Any, axis: int = -1, visible: Any = None) -> Any:
    """Return exp(x) normalised to sum 1 along `axis`.

    Where `visible` (booleans that broadcast to x) is False, the result is 0 and no gradient flows. A stretch that sees
    nothing gives zeros, not NaN.
    """
    x = as_floating(x)
    axis = normalized_axis(axis, x.ndim, "softmax")
    return Softmax.apply(x, axis=axis, visible=None if visible is None else checked_mask(visible, x.shape, x))


def checked_mask(visible: Any, shape: tuple[int, ...], x: Any) -> Array:
    """Return the mask of scores of this shape as an array beside x, after checking that it is one."""
    mask = as_tensor(visible, like=x)
    if mask.dtype != bool:
        name = called_op("softmax")
        raise TypeError(f"{name}: visible must be boolean, True where a place may be seen; got dtype {mask.dtype}")
    try:
        fits = np.broadcast_shapes(mask.shape, shape) == tuple(shape)
    except ValueError:
        fits = False
    if not fits:
        name = called_op("softmax")
        raise ValueError(f"{name}: visible must broadcast to {tuple(shape)}, got {mask.shape}")
    return mask.data


class LogSoftmax(Function):
    """y_i = x_i - log sum_j exp(x_j) along `axis`.

    dy_i/dx_j = 1[i=j] - exp(y_j)  =>  dx = dy - exp(y) sum(dy).
    """

    def forward(self, x: Array, axis: int) -> Array:
        xp = namespace_of(x)
        top = largest(x, (axis,))
        shifted = x - xp.where(top == -math.inf, xp.zeros_like(top), top)  # -inf - -inf would be NaN
        total = xp.exp(shifted).sum(axis=axis, keepdims=True)
        y = shifted - xp.log(xp.where(total == 0, xp.ones_like(total), total))
        self.axis = axis
        self.save(y)
        return y

    def backward(self, dy: Array) -> Any:
        (y,) = self.saved
        return dy - namespace_of(y).exp(y) * dy.sum(axis=self.axis, keepdims=True)


@at_least_float32
def log_softmax(x: Any, axis: int = -1) -> Any:
    """Return the logarithm of softmax, computed without forming it: exact also where softmax underflows.

    A stretch that is -inf throughout stays so.
    """
    x = as_floating(x)
    axis = normalized_axis(axis, x.ndim, "log_softmax")
    return LogSoftmax.apply(x, axis=axis)
