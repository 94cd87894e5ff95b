"""Helpers that reshape, convert, reduce and un-broadcast raw arrays, shared by the engine and the ops."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tensorlib.arrays.array import Array, ArrayT
from tensorlib.arrays.backend import namespace_of

__all__ = [
    "along", "as_dtype", "broadcasts_to", "largest", "power_of_two_below", "sum_dtype", "sum_to",
    "summed", "with_kept_axes", "without_axes",
]  # fmt: skip


def with_kept_axes(y: ArrayT, shape: tuple[int, ...], axes: tuple[int, ...]) -> ArrayT:
    """Reshape the result of a reduction of `shape` over `axes` as if it had been computed with keepdims=True."""
    return y.reshape(tuple([1 if i in axes else n for i, n in enumerate(shape)]))


def without_axes(y: ArrayT, axes: tuple[int, ...]) -> ArrayT:
    """Reshape a reduction over `axes` with keepdims=True as if it had been computed with keepdims=False."""
    return y.reshape(tuple([n for i, n in enumerate(y.shape) if i not in axes]))


def along(axis: int, part: Any) -> tuple[Any, ...]:
    """Return the index that picks `part` (a slice) along one axis and everything along the others."""
    return (*(slice(None),) * axis, part)


def largest(x: ArrayT, axes: tuple[int, ...]) -> ArrayT:
    """Return the maximum over `axes` with the axes kept; -inf over an empty axis (CuPy's max has no `initial`)."""
    if all(x.shape[a] for a in axes):
        return x.max(axis=axes, keepdims=True)
    shape = tuple([1 if i in axes else n for i, n in enumerate(x.shape)])
    return namespace_of(x).full(shape, -math.inf, x.dtype)


def power_of_two_below(x: ArrayT) -> ArrayT:
    """Return the largest power of two up to |x|, 1 if that is infinite or NaN: dividing by it causes no rounding."""
    xp = namespace_of(x)
    finite = xp.where(xp.isfinite(x), x, xp.ones_like(x))
    return xp.ldexp(xp.ones_like(finite), xp.frexp(finite)[1] - 1)


def as_dtype(x: ArrayT, dtype: np.dtype[Any]) -> ArrayT:
    """Return x converted to `dtype`, or x itself if that is its dtype."""
    return x if x.dtype == dtype else x.astype(dtype)


def sum_dtype(x: Array) -> np.dtype[Any]:
    """Return the dtype in which to add up elements of x: in float16 any number of ones sum to 2048, as 2049 rounds."""
    return np.dtype("float32") if x.dtype == np.float16 else x.dtype


def summed(x: ArrayT, axes: tuple[int, ...], keepdims: bool = False) -> ArrayT:
    """Return the sum over `axes`; float16 is summed in float32."""
    if x.dtype == np.float16:
        return x.astype("float32").sum(axis=axes, keepdims=keepdims).astype("float16")
    return x.sum(axis=axes, keepdims=keepdims)


def sum_to(x: ArrayT, shape: tuple[int, ...]) -> ArrayT:
    """Sum `x` over the axes along which `shape` was broadcast to x.shape: the adjoint of broadcast_to."""
    lead = x.ndim - len(shape)
    spread = tuple(range(lead)) + tuple(i + lead for i, n in enumerate(shape) if n == 1 and x.shape[i + lead] != 1)
    return summed(x, spread, keepdims=True).reshape(shape)


def broadcasts_to(shape: tuple[int, ...], wider: tuple[int, ...]) -> bool:
    """Return whether an array of shape `shape` broadcasts to shape `wider`."""
    return len(shape) <= len(wider) and all(n in (1, m) for n, m in zip(reversed(shape), reversed(wider), strict=False))
