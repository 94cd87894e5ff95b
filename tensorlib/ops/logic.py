"""Elementwise comparison and logic with NumPy's broadcasting. Results are booleans or integers, without a gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tensorlib.ops.plain import plain

if TYPE_CHECKING:
    from tensorlib.engine.value import TensorLike
    from tensorlib.tensor import Tensor

__all__ = [
    "bitwise_and", "bitwise_or", "bitwise_xor", "equal", "greater", "greater_equal", "invert", "isfinite", "isinf",
    "isnan", "less", "less_equal", "logical_and", "logical_not", "logical_or", "logical_xor", "not_equal",
]  # fmt: skip


def _compared(function: str, x: Any, y: Any) -> Tensor:
    """Apply a comparison. An array without axes counts as a number, and so is compared in the dtype of a Tensor.

    For ``np.float64(0.1) < x`` NumPy passes us such an array, which cannot be told from ``np.array(0.1)``.
    """
    if type(x) is np.ndarray and not x.ndim:
        x = x[()]
    if type(y) is np.ndarray and not y.ndim:
        y = y[()]
    return plain(function, x, y)


def equal(x: TensorLike, y: TensorLike) -> Tensor:
    """Return x == y, elementwise, as booleans, without a gradient.

    >>> tl.equal([1, 2], [1, 3])
    Tensor([ True False], shape=(2,), dtype=bool)
    """
    return _compared("equal", x, y)


def not_equal(x: TensorLike, y: TensorLike) -> Tensor:
    """Return x != y, elementwise, as booleans, without a gradient.

    >>> tl.not_equal([1, 2], [1, 3])
    Tensor([False  True], shape=(2,), dtype=bool)
    """
    return _compared("not_equal", x, y)


def less(x: TensorLike, y: TensorLike) -> Tensor:
    """Return x < y, elementwise, as booleans, without a gradient.

    >>> tl.less([1, 2, 3], 2)
    Tensor([ True False False], shape=(3,), dtype=bool)
    """
    return _compared("less", x, y)


def less_equal(x: TensorLike, y: TensorLike) -> Tensor:
    """Return x <= y, elementwise, as booleans, without a gradient.

    >>> tl.less_equal([1, 2, 3], 2)
    Tensor([ True  True False], shape=(3,), dtype=bool)
    """
    return _compared("less_equal", x, y)


def greater(x: TensorLike, y: TensorLike) -> Tensor:
    """Return x > y, elementwise, as booleans, without a gradient.

    >>> tl.greater([1, 2, 3], 2)
    Tensor([False False  True], shape=(3,), dtype=bool)
    """
    return _compared("greater", x, y)


def greater_equal(x: TensorLike, y: TensorLike) -> Tensor:
    """Return x >= y, elementwise, as booleans, without a gradient.

    >>> tl.greater_equal([1, 2, 3], 2)
    Tensor([False  True  True], shape=(3,), dtype=bool)
    """
    return _compared("greater_equal", x, y)


def logical_and(x: TensorLike, y: TensorLike) -> Tensor:
    """Return whether x and y are both true (not 0), elementwise, as booleans, without a gradient.

    >>> tl.logical_and([0, 0, 1, 2], [0, 1, 0, 3])
    Tensor([False False False  True], shape=(4,), dtype=bool)
    """
    return plain("logical_and", x, y)


def logical_or(x: TensorLike, y: TensorLike) -> Tensor:
    """Return whether x or y is true (not 0), elementwise, as booleans, without a gradient.

    >>> tl.logical_or([0, 0, 1, 2], [0, 1, 0, 3])
    Tensor([False  True  True  True], shape=(4,), dtype=bool)
    """
    return plain("logical_or", x, y)


def logical_xor(x: TensorLike, y: TensorLike) -> Tensor:
    """Return whether exactly one of x and y is true (not 0), elementwise, as booleans, without a gradient.

    >>> tl.logical_xor([0, 0, 1, 2], [0, 1, 0, 3])
    Tensor([False  True  True False], shape=(4,), dtype=bool)
    """
    return plain("logical_xor", x, y)


def logical_not(x: TensorLike) -> Tensor:
    """Return whether x is false (0), elementwise, as booleans, without a gradient.

    >>> tl.logical_not([0, 1, 2])
    Tensor([ True False False], shape=(3,), dtype=bool)
    """
    return plain("logical_not", x)


def isfinite(x: TensorLike) -> Tensor:
    """Return whether x is neither infinite nor NaN, elementwise, as booleans, without a gradient.

    >>> tl.isfinite([1.0, np.inf, np.nan])
    Tensor([ True False False], shape=(3,), dtype=bool)
    """
    return plain("isfinite", x)


def isinf(x: TensorLike) -> Tensor:
    """Return whether x is positive or negative infinity, elementwise, as booleans, without a gradient.

    >>> tl.isinf([1.0, np.inf, np.nan])
    Tensor([False  True False], shape=(3,), dtype=bool)
    """
    return plain("isinf", x)


def isnan(x: TensorLike) -> Tensor:
    """Return whether x is NaN, elementwise, as booleans, without a gradient.

    >>> tl.isnan([1.0, np.inf, np.nan])
    Tensor([False False  True], shape=(3,), dtype=bool)
    """
    return plain("isnan", x)


def bitwise_and(x: TensorLike, y: TensorLike) -> Tensor:
    """Return x & y, elementwise: "and" of booleans, or of the bits of integers, without a gradient.

    >>> tl.bitwise_and([True, True], [True, False]), tl.bitwise_and(6, 3)
    (Tensor([ True False], shape=(2,), dtype=bool), Tensor(2, shape=(), dtype=int64))
    """
    return _bitwise("bitwise_and", x, y)


def bitwise_or(x: TensorLike, y: TensorLike) -> Tensor:
    """Return x | y, elementwise: "or" of booleans, or of the bits of integers, without a gradient.

    >>> tl.bitwise_or([True, False], [False, False]), tl.bitwise_or(6, 3)
    (Tensor([ True False], shape=(2,), dtype=bool), Tensor(7, shape=(), dtype=int64))
    """
    return _bitwise("bitwise_or", x, y)


def bitwise_xor(x: TensorLike, y: TensorLike) -> Tensor:
    """Return x ^ y, elementwise: exclusive "or" of booleans, or of the bits of integers, without a gradient.

    >>> tl.bitwise_xor([True, True], [True, False]), tl.bitwise_xor(6, 3)
    (Tensor([False  True], shape=(2,), dtype=bool), Tensor(5, shape=(), dtype=int64))
    """
    return _bitwise("bitwise_xor", x, y)


def invert(x: TensorLike) -> Tensor:
    """Return ~x, elementwise: "not" of booleans, or of the bits of integers, without a gradient.

    >>> tl.invert([True, False]), tl.invert([0, 1])
    (Tensor([False  True], shape=(2,), dtype=bool), Tensor([-1 -2], shape=(2,), dtype=int64))
    """
    return _bitwise("invert", x)


def _bitwise(function: str, *inputs: TensorLike) -> Tensor:
    """Apply a bitwise function to booleans or integers.

    Raises TypeError for floating numbers, often a sign of missing parentheses: x > 0 & y > 0 is x > (0 & y) > 0.
    """
    for x in inputs:
        if isinstance(x, float) or getattr(getattr(x, "dtype", None), "kind", "b") not in "biu":
            raise TypeError(
                f"{function}: needs booleans or integers, got {getattr(x, 'dtype', type(x).__name__)}; "
                "compare first, in parentheses, because & binds more tightly than >: (x > 0) & (y > 0)"
            )
    return plain(function, *inputs)
