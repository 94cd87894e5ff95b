"""Comparison and logic, elementwise, with NumPy's broadcasting: what returns booleans, and so has no gradient."""

from __future__ import annotations

from typing import Any

from tensorlib.ops.plain import plain

__all__ = [
    "bitwise_and", "bitwise_or", "bitwise_xor", "equal", "greater", "greater_equal", "invert", "isfinite", "isinf",
    "isnan", "less", "less_equal", "logical_and", "logical_not", "logical_or", "logical_xor", "not_equal",
]  # fmt: skip


def equal(x: Any, y: Any) -> Any:
    """Return x == y, elementwise, as booleans."""
    return plain("equal", x, y)


def not_equal(x: Any, y: Any) -> Any:
    """Return x != y, elementwise, as booleans."""
    return plain("not_equal", x, y)


def less(x: Any, y: Any) -> Any:
    """Return x < y, elementwise, as booleans."""
    return plain("less", x, y)


def less_equal(x: Any, y: Any) -> Any:
    """Return x <= y, elementwise, as booleans."""
    return plain("less_equal", x, y)


def greater(x: Any, y: Any) -> Any:
    """Return x > y, elementwise, as booleans."""
    return plain("greater", x, y)


def greater_equal(x: Any, y: Any) -> Any:
    """Return x >= y, elementwise, as booleans."""
    return plain("greater_equal", x, y)


def logical_and(x: Any, y: Any) -> Any:
    """Return whether x and y are both true (not 0), elementwise."""
    return plain("logical_and", x, y)


def logical_or(x: Any, y: Any) -> Any:
    """Return whether x or y is true (not 0), elementwise."""
    return plain("logical_or", x, y)


def logical_xor(x: Any, y: Any) -> Any:
    """Return whether exactly one of x and y is true (not 0), elementwise."""
    return plain("logical_xor", x, y)


def logical_not(x: Any) -> Any:
    """Return whether x is not true (0), elementwise."""
    return plain("logical_not", x)


def isfinite(x: Any) -> Any:
    """Return True where x is neither infinite nor NaN, elementwise."""
    return plain("isfinite", x)


def isinf(x: Any) -> Any:
    """Return True where x is infinity or minus infinity, elementwise."""
    return plain("isinf", x)


def isnan(x: Any) -> Any:
    """Return True where x is NaN, elementwise."""
    return plain("isnan", x)


def bitwise_and(x: Any, y: Any) -> Any:
    """Return x & y, elementwise: "and" of booleans, and of the bits of integers."""
    return _of_bits("bitwise_and", x, y)


def bitwise_or(x: Any, y: Any) -> Any:
    """Return x | y, elementwise: "or" of booleans, and of the bits of integers."""
    return _of_bits("bitwise_or", x, y)


def bitwise_xor(x: Any, y: Any) -> Any:
    """Return x ^ y, elementwise: "either, not both" of booleans, and of the bits of integers."""
    return _of_bits("bitwise_xor", x, y)


def invert(x: Any) -> Any:
    """Return ~x, elementwise: "not" of booleans, and of the bits of integers."""
    return _of_bits("invert", x)


def _of_bits(function: str, *inputs: Any) -> Any:
    for x in inputs:
        if isinstance(x, float) or getattr(getattr(x, "dtype", None), "kind", "b") not in "biu":
            raise TypeError(
                f"{function}: needs booleans or integers, got {getattr(x, 'dtype', type(x).__name__)}; "
                "compare first, in parentheses, for & binds more tightly than >: (x > 0) & (y > 0)"
            )
    return plain(function, *inputs)
