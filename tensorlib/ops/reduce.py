"""Sums, products, moments and norms over axes."""

from __future__ import annotations

import builtins
import math
import numbers
from typing import Any

import numpy as np

from tensorlib.arrays.backend import Array, namespace_of
from tensorlib.arrays.shapes import largest, with_kept_axes, without_axes
from tensorlib.engine.function import Function, as_tensor
from tensorlib.messages import shown
from tensorlib.ops.arguments import Axis, as_floating, at_least_float32, normalized_axes, reduced_axes
from tensorlib.ops.cumulative import products_before, reversed_along
from tensorlib.ops.elementwise import abs, sqrt
from tensorlib.ops.extremes import max
from tensorlib.ops.indexing import where
from tensorlib.ops.logic import not_equal
from tensorlib.ops.plain import plain

__all__ = ["all", "any", "count_nonzero", "logsumexp", "mean", "norm", "prod", "std", "sum", "var"]


# ---- sums and products -------------------------------------------------------------------------------------------


class Sum(Function):
    """y = sum of x over `axis`  =>  every summand gets the whole dy."""

    def forward(self, x: Array, axis: Axis, keepdims: bool) -> Array:
        self.shape, self.axes = x.shape, reduced_axes(axis, keepdims, x.ndim, "sum")
        if x.dtype == np.float16:  # 70,000 ones are no more than 2048 in float16, which adds 1 to 2048 in vain
            return x.sum(axis=self.axes, dtype="float32", keepdims=keepdims).astype("float16")
        return x.sum(axis=self.axes, keepdims=keepdims)

    def backward(self, dy: Array) -> Any:
        return namespace_of(dy).broadcast_to(with_kept_axes(dy, self.shape, self.axes), self.shape)


def sum(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Return the sum over `axis` (all axes by default); float16 is added up in float32."""
    return Sum.apply(x, axis=axis, keepdims=keepdims)


class Prod(Function):
    """y = product of x over `axis`  =>  dx_i = dy · product of the others.

    The others of x_i are those before it times those after it: two running products. Dividing y by x_i would be
    cheaper, and wrong wherever there is a zero; so the gradient is exact at zeros, and so are its own gradients.
    """

    def forward(self, x: Array, axis: Axis, keepdims: bool) -> Array:
        self.axes = reduced_axes(axis, keepdims, x.ndim, "prod")
        self.save(x)
        return x.prod(axis=self.axes, keepdims=keepdims)

    def backward(self, dy: Array) -> Any:
        (x,) = self.saved
        order = tuple([i for i in range(x.ndim) if i not in self.axes]) + self.axes
        last = len(order) - len(self.axes)
        moved = x.transpose(order)
        rows = moved.reshape((*moved.shape[:last], math.prod(moved.shape[last:])))  # the factors along one last axis
        before, after = products_before(rows, last), products_before(reversed_along(rows, last), last)
        others = (before * reversed_along(after, last)).reshape(moved.shape)
        inverse = tuple(sorted(range(x.ndim), key=order.__getitem__))
        return with_kept_axes(dy, x.shape, self.axes) * others.transpose(inverse)


@at_least_float32
def prod(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Return the product over `axis` (all axes by default), 1 over nothing."""
    return Prod.apply(x, axis=axis, keepdims=keepdims)


class Logsumexp(Function):
    """y = log sum exp(x)  =>  dx_i = dy exp(x_i - y), the softmax; 0 where all of x is -inf."""

    def forward(self, x: Array, axis: Axis, keepdims: bool) -> Array:
        xp = namespace_of(x)
        self.axes = reduced_axes(axis, keepdims, x.ndim, "logsumexp")
        top = largest(x, self.axes)
        top = xp.where(xp.isfinite(top), top, 0)  # -inf - -inf would be NaN
        total = xp.exp(x - top).sum(axis=self.axes, keepdims=True)
        y = xp.where(total == 0, -math.inf, xp.log(xp.where(total == 0, 1, total)) + top)  # log 0 without a warning
        y = y if keepdims else without_axes(y, self.axes)
        self.save(x, y)
        return y

    def backward(self, dy: Array) -> Any:
        x, y = self.saved
        xp = namespace_of(dy)
        y = with_kept_axes(y, x.shape, self.axes)
        return with_kept_axes(dy, x.shape, self.axes) * xp.exp(x - xp.where(y == -math.inf, 0.0, y))


@at_least_float32
def logsumexp(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Return log(sum(exp(x))) over `axis` without overflow; -inf over nothing."""
    return Logsumexp.apply(as_floating(x), axis=axis, keepdims=keepdims)


# ---- moments -----------------------------------------------------------------------------------------------------


@at_least_float32
def mean(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Return the arithmetic mean over `axis` (all axes by default). The mean of nothing is NaN, as in NumPy."""
    n = _count(x, axis, "mean")
    return sum(x, axis, keepdims) / (n or math.nan)


@at_least_float32
def var(x: Any, axis: Axis = None, keepdims: bool = False, ddof: int = 0) -> Any:
    """Return the mean squared distance from the mean over `axis`; the divisor is n - ddof (NumPy's default: n).

    With n <= ddof there is nothing to divide by, and the result is NaN or infinite, as in NumPy and PyTorch.
    """
    return _variance(x, axis, keepdims, ddof, "var")


def _variance(x: Any, axis: Axis, keepdims: bool, ddof: int, name: str) -> Any:
    if not isinstance(ddof, numbers.Real):
        raise TypeError(f"{name}: ddof must be a number, got {shown(ddof)}")
    n = _count(x, axis, name)
    x = as_floating(x)
    # Moving all of x by one of its elements changes no variance and no gradient, and equal elements have variance 0
    # whatever rounding makes of their mean: three times 0.1 is not 0.3.
    x = x - _first(x, normalized_axes(axis, x.ndim, name))
    centred = x - mean(x, axis, keepdims=True)
    return sum(centred * centred, axis, keepdims) / builtins.max(n - ddof, 0)


@at_least_float32
def std(x: Any, axis: Axis = None, keepdims: bool = False, ddof: int = 0) -> Any:
    """Return the standard deviation, the square root of `var`. Its gradient is 0 where it is 0."""
    return _root(_variance(x, axis, keepdims, ddof, "std"), 2)


def _count(x: Any, axis: Axis, name: str) -> int:
    return math.prod(x.shape[a] for a in normalized_axes(axis, x.ndim, name))


def _first(x: Any, axes: tuple[int, ...]) -> Array:
    """Return the first element along `axes`, which are kept, as an array: a constant."""
    return x.data[tuple([slice(0, 1) if i in axes else slice(None) for i in range(x.ndim)])]


def _root(x: Any, order: float) -> Any:
    """Return x^(1/order) for x >= 0, with gradient 0 at 0, where the root's own is infinite."""
    at_zero = x == 0
    positive = where(at_zero, 1.0, x)
    return where(at_zero, 0.0, sqrt(positive) if order == 2 else positive ** (1 / order))


# ---- norms -------------------------------------------------------------------------------------------------------


@at_least_float32
def norm(x: Any, ord: float = 2, axis: Axis = None, keepdims: bool = False) -> Any:
    """Return (sum |x|^ord)^(1/ord) over `axis`: of all elements (for a matrix: the Frobenius norm) by default.

    `ord` is any number above 0, or infinity for the largest |x|. Over several axes it is the norm of all their
    elements together, as `torch.linalg.vector_norm` has it. The gradient is 0 where the norm is 0, and nothing
    overflows on the way to a norm that doesn't.
    """
    if isinstance(ord, bool) or not isinstance(ord, numbers.Real) or not ord > 0:
        raise ValueError(
            f"norm: ord must be a number above 0, or math.inf, got {shown(ord)}; the Frobenius norm has ord=2"
        )
    axes = reduced_axes(axis, keepdims, x.ndim, "norm")
    x = as_floating(x)
    if ord == math.inf:
        return max(abs(x), axes, keepdims)
    if ord == 1:
        return sum(abs(x), axes, keepdims)
    # norm(x) = scale · norm(x / scale) whatever the scale is, so that it may count as a constant in the gradient.
    scale = _scale(x.data, axes)
    x = x / scale
    y = _root(sum(x * x if ord == 2 else _power_of_magnitude(x, ord), axes, keepdims=True), ord) * scale
    return y if keepdims else without_axes(y, axes)


def _scale(x: Array, axes: tuple[int, ...]) -> Array:
    """Return the power of two just below the largest |x| over `axes`, kept: dividing by it rounds nothing."""
    xp = namespace_of(x)
    top = largest(xp.abs(x), axes)
    top = xp.where(xp.isfinite(top), top, xp.ones_like(top))
    return xp.ldexp(xp.ones_like(top), xp.frexp(top)[1] - 1)


def _power_of_magnitude(x: Any, ord: float) -> Any:
    """Return |x|^ord with gradient 0 at 0, where for ord < 1 it would be infinite."""
    at_zero = x == 0
    return where(at_zero, 0.0, abs(where(at_zero, 1.0, x)) ** ord)


# ---- without a gradient ------------------------------------------------------------------------------------------


def any(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Return whether any element is true (not 0) over `axis` (all axes by default)."""
    x = as_tensor(x)
    return plain("any", x, axis=reduced_axes(axis, keepdims, x.ndim, "any"), keepdims=keepdims)


def all(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Return whether all elements are true (not 0) over `axis` (all axes by default)."""
    x = as_tensor(x)
    return plain("all", x, axis=reduced_axes(axis, keepdims, x.ndim, "all"), keepdims=keepdims)


def count_nonzero(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Return how many elements are not 0 over `axis` (all axes by default)."""
    x = as_tensor(x)
    return sum(not_equal(x, 0), normalized_axes(axis, x.ndim, "count_nonzero"), keepdims)
