"""Sums, products, moments and norms over axes."""

from __future__ import annotations

import builtins
import math
import numbers
from typing import TYPE_CHECKING, Any

from tensorlib.arrays.backend import Array, namespace_of
from tensorlib.arrays.shapes import largest, summed, with_kept_axes, without_axes
from tensorlib.engine.function import Function, as_tensor, derivation
from tensorlib.messages import shown
from tensorlib.ops.arguments import Axis, as_floating, at_least_float32, normalized_axes, reduced_axes
from tensorlib.ops.cumulative import products_before, reversed_along
from tensorlib.ops.elementwise import abs, sqrt
from tensorlib.ops.extremes import max
from tensorlib.ops.indexing import where
from tensorlib.ops.logic import not_equal
from tensorlib.ops.plain import plain

if TYPE_CHECKING:
    from tensorlib.engine.value import TensorLike
    from tensorlib.tensor import Tensor

__all__ = ["all", "any", "count_nonzero", "logsumexp", "mean", "norm", "prod", "std", "sum", "var"]


# ---- sums and products -------------------------------------------------------------------------------------------


class Sum(Function):
    """y = sum of x over `axis`  =>  every element of x gets the whole of dy.

    Keeps nothing.
    """

    def forward(self, x: Any, axis: Axis, keepdims: bool) -> Array:
        self.shape, self.axes = x.shape, reduced_axes(axis, keepdims, x.ndim, "sum")
        return summed(x, self.axes, keepdims)

    def backward(self, dy: Array) -> Any:
        return namespace_of(dy).broadcast_to(with_kept_axes(dy, self.shape, self.axes), self.shape)


@derivation(Sum)
def sum(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Return the sum over `axis` (all axes by default). float16 is summed in float32.

    >>> tl.sum([[1.0, 2.0], [3.0, 4.0]], axis=0)
    Tensor([4. 6.], shape=(2,), dtype=float32)
    """
    return Sum.apply(x, axis=axis, keepdims=keepdims)


class Prod(Function):
    """y = product of x over `axis`  =>  dx_i = dy · product of the others.

    That product is the one of all elements before x_i times the one of all after it. Dividing y by x_i would be
    cheaper, but wrong wherever x contains a zero; this gradient is exact at zeros, and so are its own gradients.

    Keeps x.
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


@derivation(Prod)
@at_least_float32
def prod(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Return the product over `axis` (all axes by default); that of no elements is 1. float16 is computed in float32.

    >>> tl.prod([[1.0, 2.0], [3.0, 4.0]], axis=0)
    Tensor([3. 8.], shape=(2,), dtype=float32)
    """
    return Prod.apply(x, axis=axis, keepdims=keepdims)


class Logsumexp(Function):
    """y = log sum_j exp(x_j) over `axis`  =>  dx_i = dy exp(x_i - y), the softmax; 0 where all of x is -inf.

    Keeps x and y.
    """

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


@derivation(Logsumexp)
@at_least_float32
def logsumexp(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Return log(sum(exp(x))) over `axis` (all axes by default) without overflow; that of no elements is -inf.

    >>> tl.logsumexp([1000.0, 1000.0])
    Tensor(1000.6932, shape=(), dtype=float32)
    """
    return Logsumexp.apply(as_floating(x), axis=axis, keepdims=keepdims)


# ---- moments -----------------------------------------------------------------------------------------------------


@at_least_float32
def mean(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Return the arithmetic mean over `axis` (all axes by default). The mean of no elements is NaN, as in NumPy.

    y = sum(x) / n  =>  dx = dy / n. float16 is computed in float32.

    >>> tl.mean([[1.0, 2.0], [3.0, 4.0]], axis=0)
    Tensor([2. 3.], shape=(2,), dtype=float32)
    """
    x = as_tensor(x)
    n = _elements_over(x, axis, "mean")
    return sum(x, axis, keepdims) / (n or math.nan)


@at_least_float32
def var(x: TensorLike, axis: Axis = None, keepdims: bool = False, ddof: int = 0) -> Tensor:
    """Return the variance over `axis`: the sum of (x - mean)^2, divided by n - ddof (by n by default, as in NumPy).

    y = sum (x - mean)^2 / (n - ddof)  =>  dx = dy · 2 (x - mean) / (n - ddof). If n <= ddof, the divisor is 0 and the
    result is NaN or infinite, as in NumPy and PyTorch. float16 is computed in float32.

    >>> tl.var([1.0, 2.0, 4.0]), tl.var([1.0, 2.0, 4.0], ddof=1)
    (Tensor(1.5556, shape=(), dtype=float32), Tensor(2.3333, shape=(), dtype=float32))
    """
    return _variance(x, axis, keepdims, ddof, "var")


def _variance(x: TensorLike, axis: Axis, keepdims: bool, ddof: int, name: str) -> Tensor:
    if not isinstance(ddof, numbers.Real):
        raise TypeError(f"{name}: ddof must be a number, got {shown(ddof)}")
    x = as_floating(x)
    n = _elements_over(x, axis, name)
    # Shifting x by one of its elements changes neither variance nor gradient, and makes the variance of equal elements
    # exactly 0, although their mean is rounded: 0.1 + 0.1 + 0.1 is not 0.3.
    x = x - _first(x, normalized_axes(axis, x.ndim, name))
    centred = x - mean(x, axis, keepdims=True)
    return sum(centred * centred, axis, keepdims) / builtins.max(n - ddof, 0)


@at_least_float32
def std(x: TensorLike, axis: Axis = None, keepdims: bool = False, ddof: int = 0) -> Tensor:
    """Return the standard deviation over `axis`, the square root of `var`.

    y = sqrt(var)  =>  dx = dy (x - mean) / ((n - ddof) y), and 0 where y is 0. float16 is computed in float32.

    >>> tl.std([1.0, 2.0, 4.0])
    Tensor(1.2472, shape=(), dtype=float32)
    """
    return _root(_variance(x, axis, keepdims, ddof, "std"), 2)


def _elements_over(x: Any, axis: Axis, name: str) -> int:
    return math.prod(x.shape[a] for a in normalized_axes(axis, x.ndim, name))


def _first(x: Tensor, axes: tuple[int, ...]) -> Array:
    """Return the first element along `axes`, which are kept, as an array, so that it is a constant."""
    return x.data[tuple([slice(0, 1) if i in axes else slice(None) for i in range(x.ndim)])]


def _root(x: Tensor, order: float) -> Tensor:
    """Return x^(1/order) for x >= 0, with gradient 0 at 0, although that of the root is infinite there."""
    at_zero = x == 0
    positive = where(at_zero, 1.0, x)
    return where(at_zero, 0.0, sqrt(positive) if order == 2 else positive ** (1 / order))


# ---- norms -------------------------------------------------------------------------------------------------------


@at_least_float32
def norm(x: TensorLike, ord: float = 2, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Return (sum |x|^ord)^(1/ord) over `axis`; by default over all elements (for a matrix, the Frobenius norm).

    `ord` is any number above 0, or infinity for the largest |x|. Over several axes it is the norm of all their
    elements together, as in `torch.linalg.vector_norm`. Intermediate results do not overflow unless the norm does.

    y = (sum |x|^ord)^(1/ord)  =>  dx = dy sign(x) (|x| / y)^(ord - 1), and 0 where y is 0.

    Raises ValueError for an `ord` that is not above 0.

    >>> tl.norm([3.0, 4.0]), tl.norm([3.0, 4.0], ord=np.inf)
    (Tensor(5., shape=(), dtype=float32), Tensor(4., shape=(), dtype=float32))
    """
    if isinstance(ord, bool) or not isinstance(ord, numbers.Real) or not ord > 0:
        raise ValueError(
            f"norm: ord must be a number above 0, or math.inf, got {shown(ord)}; for the Frobenius norm, use ord=2"
        )
    x = as_floating(x)
    axes = reduced_axes(axis, keepdims, x.ndim, "norm")
    if ord == math.inf:
        return max(abs(x), axes, keepdims)
    if ord == 1:
        return sum(abs(x), axes, keepdims)
    # norm(x) = scale · norm(x / scale) for any scale, so the gradient may treat the scale as a constant.
    scale = _scale(x.data, axes)
    x = x / scale
    y = _root(sum(x * x if ord == 2 else _power_of_magnitude(x, ord), axes, keepdims=True), ord) * scale
    return y if keepdims else without_axes(y, axes)


def _scale(x: Array, axes: tuple[int, ...]) -> Array:
    """Return the largest power of two up to the largest |x| over `axes` (kept): dividing by it causes no rounding."""
    xp = namespace_of(x)
    top = largest(xp.abs(x), axes)
    top = xp.where(xp.isfinite(top), top, xp.ones_like(top))
    return xp.ldexp(xp.ones_like(top), xp.frexp(top)[1] - 1)


def _power_of_magnitude(x: Tensor, ord: float) -> Tensor:
    """Return |x|^ord with gradient 0 at 0, although for ord < 1 that gradient is infinite."""
    at_zero = x == 0
    return where(at_zero, 0.0, abs(where(at_zero, 1.0, x)) ** ord)


# ---- without a gradient ------------------------------------------------------------------------------------------


def any(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Return whether any element is true (not 0) over `axis` (all axes by default), without a gradient.

    >>> tl.any([[0, 0], [0, 1]], axis=1)
    Tensor([False  True], shape=(2,), dtype=bool)
    """
    x = as_tensor(x)
    return plain("any", x, axis=reduced_axes(axis, keepdims, x.ndim, "any"), keepdims=keepdims)


def all(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Return whether all elements are true (not 0) over `axis` (all axes by default), without a gradient.

    >>> tl.all([[1, 1], [0, 1]], axis=1)
    Tensor([ True False], shape=(2,), dtype=bool)
    """
    x = as_tensor(x)
    return plain("all", x, axis=reduced_axes(axis, keepdims, x.ndim, "all"), keepdims=keepdims)


def count_nonzero(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Return the number of elements that are not 0 over `axis` (all axes by default), without a gradient.

    >>> tl.count_nonzero([[1, 1], [0, 1]], axis=1)
    Tensor([2 1], shape=(2,), dtype=int64)
    """
    x = as_tensor(x)
    return sum(not_equal(x, 0), normalized_axes(axis, x.ndim, "count_nonzero"), keepdims)
