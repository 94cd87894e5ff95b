"""Softmax and log-softmax."""

from __future__ import annotations

import math
from functools import singledispatch
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorlib.arrays.backend import Array, namespace_of
from tensorlib.arrays.shapes import largest
from tensorlib.arrays.sharing import kept
from tensorlib.engine.errors import called_op
from tensorlib.engine.function import Function, as_tensor, derivation
from tensorlib.ops.arguments import as_floating, at_least_float32, normalized_axis

if TYPE_CHECKING:
    from tensorlib.engine.value import TensorLike
    from tensorlib.tensor import Tensor

__all__ = ["log_softmax", "softmax"]


class Softmax(Function):
    """y_i = exp(x_i) / sum_j exp(x_j) along `axis`, over the visible j only; y has the shape of x.

    dy_i/dx_j = y_i (1[i=j] - y_j)  =>  dx = y (dy - <dy, y>).

    Keeps y.
    Kernels: numpy/softmax.py, numba/softmax.py, cuda/softmax.py.
    """

    def forward(self, x: Array, axis: int | tuple[int, ...], visible: Array | None) -> Array:
        y = softmax_formula(x, axis, visible)
        self.axis = axis
        self.save(y)  # the gradient needs y alone, so x may be freed
        return y

    def backward(self, dy: Array) -> Any:
        (y,) = self.saved
        return softmax_gradient(dy, y, self.axis)


@singledispatch
def softmax_formula(x: Array, axis: int | tuple[int, ...], visible: Array | None) -> Array:
    """Return softmax. Subtracting the largest visible element does not change it, but keeps exp from overflowing."""
    xp = namespace_of(x)
    if visible is not None:
        x = xp.where(visible, x, -math.inf)
    e = xp.exp(minus_largest(x, axis if isinstance(axis, tuple) else (axis,)))
    total = e.sum(axis=axis, keepdims=True)
    return e / xp.where(total == 0, xp.ones_like(total), total)  # if nothing is visible, e = exp(-inf) = 0


def minus_largest(x: Array, axes: tuple[int, ...]) -> Array:
    """Return x minus its largest element over `axes`, and -inf where all elements are -inf: -inf - -inf is NaN."""
    top = largest(x, axes)
    return x - namespace_of(x).where(top == -math.inf, 0, top)


@singledispatch
def softmax_gradient(dy: Array, y: Array, axis: int | tuple[int, ...]) -> Array:
    """Return dx = y (dy - <dy, y>). Hidden positions have y = 0, hence dx = 0, even if dy is infinite or NaN there."""
    dy = namespace_of(dy).where(y == 0, 0, dy)
    return y * (dy - (dy * y).sum(axis=axis, keepdims=True))


@derivation(Softmax)
@at_least_float32  # the sum of 100,000 exponentials would overflow at 65504
def softmax(x: TensorLike, axis: int = -1, visible: TensorLike | None = None) -> Tensor:
    """Return exp(x) normalized to a sum of 1 along `axis`, in the shape of x.

    Where `visible` (booleans that broadcast to x) is False, the result is 0 and no gradient flows. Where a whole slice
    along `axis` is hidden, the result is all zeros, not NaN. float16 is computed in float32.

    Raises TypeError if `visible` is not boolean, and ValueError if it does not broadcast to the shape of x.

    >>> tl.softmax([0.0, 1.0, 2.0])
    Tensor([0.09   0.2447 0.6652], shape=(3,), dtype=float32)
    >>> tl.softmax([0.0, 1.0, 2.0], visible=[True, True, False])
    Tensor([0.2689 0.7311 0.    ], shape=(3,), dtype=float32)
    """
    x = as_floating(x)
    axis = normalized_axis(axis, x.ndim, "softmax")
    return Softmax.apply(x, axis=axis, visible=None if visible is None else checked_mask(visible, x.shape, x))


def checked_mask(visible: TensorLike, shape: tuple[int, ...], x: Tensor) -> Array:
    """Return the mask as an array on the backend of x, after checking that it is boolean and broadcasts to `shape`."""
    mask = as_tensor(visible, like=x)
    if mask.dtype != bool:
        name = called_op("softmax")
        instead = "x == 0 for a mask of 0 and -inf that is added to scores" if mask.dtype.kind == "f" else "x != 0"
        raise TypeError(
            f"{name}: visible must be boolean, True where a position may be seen; got dtype {mask.dtype}; compare "
            f"first: {instead}"
        )
    try:
        fits = np.broadcast_shapes(mask.shape, shape) == tuple(shape)
    except ValueError:
        fits = False
    if not fits:
        name = called_op("softmax")
        raise ValueError(f"{name}: visible must broadcast to {tuple(shape)}, got {mask.shape}")
    return kept(mask.data)


class LogSoftmax(Function):
    """y_i = x_i - log sum_j exp(x_j) along `axis`.

    dy_i/dx_j = 1[i=j] - exp(y_j)  =>  dx = dy - exp(y) sum(dy).

    Keeps y.
    """

    def forward(self, x: Array, axis: int) -> Array:
        xp = namespace_of(x)
        shifted = minus_largest(x, (axis,))
        total = xp.exp(shifted).sum(axis=axis, keepdims=True)
        y = shifted - xp.log(xp.where(total == 0, xp.ones_like(total), total))
        self.axis = axis
        self.save(y)
        return y

    def backward(self, dy: Array) -> Any:
        (y,) = self.saved
        return dy - namespace_of(y).exp(y) * dy.sum(axis=self.axis, keepdims=True)


@derivation(LogSoftmax)
@at_least_float32
def log_softmax(x: TensorLike, axis: int = -1) -> Tensor:
    """Return the logarithm of softmax along `axis`, computed directly: accurate even where softmax underflows to 0.

    Where a whole slice along `axis` is -inf, so is the result. float16 is computed in float32.

    >>> tl.log_softmax([0.0, 1.0, 2.0])
    Tensor([-2.4076 -1.4076 -0.4076], shape=(3,), dtype=float32)
    """
    x = as_floating(x)
    axis = normalized_axis(axis, x.ndim, "log_softmax")
    return LogSoftmax.apply(x, axis=axis)
