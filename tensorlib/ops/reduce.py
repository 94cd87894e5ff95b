"""Reductions over axes."""

from __future__ import annotations

import builtins
import math
from typing import Any

from tensorlib.backend import Array, namespace_of
from tensorlib.function import Function, as_tensor
from tensorlib.ops.common import Axis, largest, normal_axes, plain, with_kept_axes

__all__ = ["all", "any", "argmax", "logsumexp", "max", "mean", "sum", "var"]


class Sum(Function):
    """y = sum of x over `axis`  =>  every summand gets the whole dy."""

    def forward(self, x: Array, axis: Axis, keepdims: bool) -> Array:
        self.shape, self.axes = x.shape, normal_axes(axis, x.ndim, "sum")
        return x.sum(axis=self.axes, keepdims=keepdims)

    def backward(self, dy: Array) -> Any:
        return namespace_of(dy).broadcast_to(with_kept_axes(dy, self.shape, self.axes), self.shape)


def sum(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Return the sum over `axis` (all axes by default)."""
    return Sum.apply(x, axis=axis, keepdims=keepdims)


def mean(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Return the arithmetic mean over `axis` (all axes by default). The mean of nothing is NaN, as in NumPy."""
    x = as_tensor(x)
    if x.dtype == "float16":  # a sum in float16 would overflow at 65504
        return mean(x.astype("float32"), axis, keepdims).astype("float16")
    total = sum(x, axis, keepdims)
    return total * (math.nan if total.size and not x.size else total.size / builtins.max(x.size, 1))


def var(x: Any, axis: Axis = None, keepdims: bool = False, ddof: int = 0) -> Any:
    """Return the mean squared distance from the mean over `axis`; the divisor is n - ddof (NumPy's default: n)."""
    x = as_tensor(x)
    if x.dtype == "float16":
        return var(x.astype("float32"), axis, keepdims, ddof).astype("float16")
    centred = x - mean(x, axis, keepdims=True)
    n = math.prod(x.shape[a] for a in normal_axes(axis, x.ndim, "var"))
    return sum(centred * centred, axis, keepdims) / (n - ddof)


class Max(Function):
    """y = max of x over `axis`  =>  dy is shared evenly by all elements that attain it (as torch.amax does)."""

    def forward(self, x: Array, axis: Axis, keepdims: bool) -> Array:
        self.axes = normal_axes(axis, x.ndim, "max")
        if not builtins.all(x.shape[a] for a in self.axes):
            raise ValueError(f"max: needs at least one element along every axis reduced, got shape {x.shape}")
        y = x.max(axis=self.axes, keepdims=keepdims)
        self.save(x, y)
        return y

    def backward(self, dy: Array) -> Any:
        x, y = self.saved
        attained = (x == with_kept_axes(y, x.shape, self.axes)).astype(dy.dtype)
        share = attained / attained.sum(axis=self.axes, keepdims=True)
        return with_kept_axes(dy, x.shape, self.axes) * share


def max(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Return the largest element over `axis` (all axes by default); tied elements share the gradient evenly."""
    return Max.apply(x, axis=axis, keepdims=keepdims)


class Logsumexp(Function):
    """y = log sum exp(x)  =>  dx_i = dy exp(x_i - y), the softmax; 0 where all of x is -inf."""

    def forward(self, x: Array, axis: Axis, keepdims: bool) -> Array:
        xp = namespace_of(x)
        self.axes = normal_axes(axis, x.ndim, "logsumexp")
        top = largest(x, self.axes)
        top = xp.where(xp.isfinite(top), top, 0)  # -inf - -inf would be NaN
        total = xp.exp(x - top).sum(axis=self.axes, keepdims=True)
        y = xp.where(total == 0, -math.inf, xp.log(xp.where(total == 0, 1, total)) + top)  # log 0 without a warning
        y = y if keepdims else y.reshape(tuple([n for i, n in enumerate(x.shape) if i not in self.axes]))
        self.save(x, y)
        return y

    def backward(self, dy: Array) -> Any:
        x, y = self.saved
        xp = namespace_of(dy)
        y = with_kept_axes(y, x.shape, self.axes)
        return with_kept_axes(dy, x.shape, self.axes) * xp.exp(x - xp.where(y == -math.inf, 0.0, y))


def logsumexp(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Return log(sum(exp(x))) over `axis` without overflow; -inf over nothing."""
    return Logsumexp.apply(x, axis=axis, keepdims=keepdims)


def argmax(x: Any, axis: int | None = None) -> Any:
    """Return the index of the first largest element along `axis` (of the flattened array by default)."""
    return plain("argmax", x, axis=axis)


def any(x: Any, axis: Axis = None) -> Any:
    """Return whether any element is true over `axis`."""
    return plain("any", x, axis=axis)


def all(x: Any, axis: Axis = None) -> Any:
    """Return whether all elements are true over `axis`."""
    return plain("all", x, axis=axis)
