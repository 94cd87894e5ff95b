"""Sums, products, moments and norms over axes."""

from __future__ import annotations

import builtins
import math
import numbers
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorlib.arrays.backend import Array, namespace_of
from tensorlib.arrays.shapes import (
    largest,
    power_of_two_below,
    summed,
    with_kept_axes,
    without_axes,
)
from tensorlib.engine.function import Function, as_tensor, derivation
from tensorlib.messages import shown
from tensorlib.ops.arguments import Axis, as_floating, at_least_float32, normalized_axes, reduced_axes
from tensorlib.ops.cumulative import products_before, reversed_along
from tensorlib.ops.elementwise import abs, smooth_except
from tensorlib.ops.extremes import max
from tensorlib.ops.indexing import where
from tensorlib.ops.logic import not_equal
from tensorlib.ops.plain import plain
from tensorlib.ops.softmax import Softmax

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
    """y = log sum_j exp(x_j) over `axis`  =>  dx_i = dy exp(x_i) / sum_j exp(x_j) = dy softmax(x)_i.

    It is computed from x - top, where top is the largest x, because exp(x_i - y) would suffer from the rounding of a
    large y. Where all of x is -inf, the gradient is 0; elements that are inf share it evenly, as their limit does.

    Keeps x; statistics: the largest x, the logarithm of the sum of exp(x - top).
    """

    def forward(self, x: Array, axis: Axis, keepdims: bool) -> Array:
        xp = namespace_of(x)
        self.axes = reduced_axes(axis, keepdims, x.ndim, "logsumexp")
        top = largest(x, self.axes)
        total = xp.exp(minus_top(x, top)).sum(axis=self.axes, keepdims=True)
        log_total = xp.log(xp.where(total == 0, xp.ones_like(total), total))  # log 0 without a warning
        self.statistics = top, log_total
        self.save(x)
        y = top + log_total
        return y if keepdims else without_axes(y, self.axes)

    def backward(self, dy: Array) -> Any:
        (x,) = self.saved
        if self.statistics is None:
            top = largest(x.data, self.axes)
            portion = Softmax.run(where(top == math.inf, tied(x), x), axis=self.axes, visible=None)
        else:
            top, log_total = self.statistics
            portion = namespace_of(x).exp(minus_top(x, top) - log_total)
        return with_kept_axes(dy, x.shape, self.axes) * portion


def minus_top(x: Array, top: Array) -> Array:
    """Return x - top, and in a slice whose `top` is infinite its limit."""
    if isinstance(top, np.ndarray) and not np.isinf(top).any():  # free on a CPU; a GPU is not waited for
        return x - top
    xp = namespace_of(x)
    return xp.where(top == math.inf, tied(x), x - xp.where(xp.isinf(top), 0, top))


def tied(x: Array) -> Array:
    """Return 0 where x is inf, and -inf elsewhere."""
    xp = namespace_of(x)
    return xp.where(x == math.inf, xp.zeros_like(x), -math.inf)


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
    x, axes, divisor = _centred(x, axis, keepdims, ddof, "var")
    return sum(x * x, axes, keepdims) / divisor


def _centred(x: TensorLike, axis: Axis, keepdims: bool, ddof: int, name: str) -> tuple[Tensor, tuple[int, ...], float]:
    """Return x - mean, the axes, and the divisor n - ddof, after checking the arguments."""
    if not isinstance(ddof, numbers.Real):
        raise TypeError(f"{name}: ddof must be a number, got {shown(ddof)}")
    x = as_floating(x)
    axes = reduced_axes(axis, keepdims, x.ndim, name)
    # Shifting x by one of its elements changes neither variance nor gradient, and makes the variance of equal elements
    # exactly 0, although their mean is rounded: 0.1 + 0.1 + 0.1 is not 0.3.
    x = x - _first(x, axes)
    return x - mean(x, axes, keepdims=True), axes, builtins.max(_elements_over(x, axes, name) - ddof, 0)


@at_least_float32
def std(x: TensorLike, axis: Axis = None, keepdims: bool = False, ddof: int = 0) -> Tensor:
    """Return the standard deviation over `axis`, the square root of `var`.

    y = sqrt(var)  =>  dx = dy (x - mean) / ((n - ddof) y), and 0 where y is 0. There the second derivative is NaN: std
    has a kink. Squares do not overflow unless the result does. float16 is computed in float32.

    >>> tl.std([1.0, 2.0, 4.0])
    Tensor(1.2472, shape=(), dtype=float32)
    """
    x, axes, divisor = _centred(x, axis, keepdims, ddof, "std")
    if _elements_over(x, axes, "std") == 1:
        return sum(x, axes, keepdims) / divisor  # always 0: it has no kink
    return Norm.apply(x, ord=2, axes=axes, keepdims=keepdims, divisor=divisor)


def _elements_over(x: Any, axis: Axis, name: str) -> int:
    return math.prod(x.shape[a] for a in normalized_axes(axis, x.ndim, name))


def _first(x: Tensor, axes: tuple[int, ...]) -> Array:
    """Return the first element along `axes`, which are kept, as an array, so that it is a constant."""
    return x.data[tuple([slice(0, 1) if i in axes else slice(None) for i in range(x.ndim)])]


# ---- norms -------------------------------------------------------------------------------------------------------


@at_least_float32
def norm(x: TensorLike, ord: float = 2, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Return (sum |x|^ord)^(1/ord) over `axis`; by default over all elements (for a matrix, the Frobenius norm).

    `ord` is any number above 0, or infinity for the largest |x|. Over several axes it is the norm of all their
    elements together, as in `torch.linalg.vector_norm`. Intermediate results do not overflow unless the norm does.

    y = (sum |x|^ord)^(1/ord)  =>  dx = dy sign(x) (|x| / y)^(ord - 1), and 0 where y is 0. There the second derivative
    is NaN (unless ord is 1 or infinity): a norm has a kink at 0, and for ord < 2 wherever an element is 0.

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
    return Norm.apply(x, ord=ord, axes=axes, keepdims=keepdims)


class Norm(Function):
    """y = (sum |x|^p / d)^(1/p) with p = `ord` and d = `divisor`.

    y^p = sum |x|^p / d, so p y^(p-1) dy/dx = p |x|^(p-1) sign(x) / d
    =>  dx = dy sign(x) (|x| / y)^(p-1) / d, taken as 0 at the kinks: where y = 0 and, if p < 2, where x = 0.

    Keeps x and y; statistics: a scale close to the largest |x|, y / scale.
    """

    def forward(self, x: Array, ord: float, axes: tuple[int, ...], keepdims: bool, divisor: float = 1) -> Array:
        self.ord, self.axes, self.divisor = ord, axes, divisor
        xp = namespace_of(x)
        # norm(x) = scale · norm(x / scale): neither squares of huge numbers nor those of tiny ones leave the dtype.
        scale = xp.maximum(power_of_two_below(largest(xp.abs(x), axes)), np.finfo(x.dtype).tiny)
        u = x / scale
        total = (u * u if ord == 2 else xp.abs(u) ** ord).sum(axis=axes, keepdims=True) / divisor
        root = xp.sqrt(total) if ord == 2 else total ** (1 / ord)
        self.statistics = scale, root
        y = root * scale
        y = y if keepdims else without_axes(y, axes)
        self.save(x, y)
        return y

    def backward(self, dy: Array) -> Any:
        x, y = self.saved
        xp = namespace_of(x)
        y, dy = (with_kept_axes(z, x.shape, self.axes) for z in (y, dy))
        kink = y == 0
        y = smooth_except(y, kink)
        if self.ord < 2:
            kink = kink | (x == 0)
            x = smooth_except(x, x == 0)
        if self.statistics is None:
            slope = x / xp.where(y == 0, 1, y)
        else:  # the same, without the rounding of a subnormal y
            scale, root = self.statistics
            slope = x / scale / xp.where(root == 0, 1, root)
        if self.ord != 2:
            slope = xp.sign(x) * xp.abs(xp.where(x == 0, 1, slope)) ** (self.ord - 1)
        # NaN stays even at a kink: it may come from a second derivative there.
        return xp.where(kink & (dy == dy), 0, dy) * slope / self.divisor


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
