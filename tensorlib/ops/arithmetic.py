"""Arithmetic and comparison, elementwise, with NumPy's broadcasting and dtype rules."""

from __future__ import annotations

from typing import Any

from tensorlib.backend import Array, namespace_of
from tensorlib.function import Function
from tensorlib.ops.common import plain

__all__ = [
    "add", "bitwise_and", "bitwise_or", "divide", "equal", "greater", "greater_equal", "invert", "less", "less_equal",
    "logical_and", "logical_not", "logical_or", "maximum", "minimum", "multiply", "negative", "not_equal", "power",
    "subtract",
]  # fmt: skip


class Add(Function):
    """z = x + y."""

    broadcasts = True

    def forward(self, x: Array, y: Array) -> Array:
        return x + y

    def backward(self, dz: Array) -> Any:
        return dz, dz


def add(x: Any, y: Any) -> Any:
    """Return x + y, elementwise."""
    return Add.apply(x, y)


class Subtract(Function):
    """z = x - y."""

    broadcasts = True

    def forward(self, x: Array, y: Array) -> Array:
        return x - y

    def backward(self, dz: Array) -> Any:
        return dz, -dz if self.needs[1] else None


def subtract(x: Any, y: Any) -> Any:
    """Return x - y, elementwise."""
    return Subtract.apply(x, y)


class Multiply(Function):
    """z = x y  =>  dx = dz y, dy = dz x."""

    broadcasts = True

    def forward(self, x: Array, y: Array) -> Array:
        self.save(x, y)
        return x * y

    def backward(self, dz: Array) -> Any:
        x, y = self.saved
        return dz * y if self.needs[0] else None, dz * x if self.needs[1] else None


def multiply(x: Any, y: Any) -> Any:
    """Return x y, elementwise."""
    return Multiply.apply(x, y)


class Divide(Function):
    """z = x / y  =>  dx = dz / y, dy = -dz x / y^2 = -dx z."""

    broadcasts = True

    def forward(self, x: Array, y: Array) -> Array:
        self.save(x, y)
        return x / y

    def backward(self, dz: Array) -> Any:
        x, y = self.saved
        dx = dz / y
        return dx, -dx * x / y if self.needs[1] else None


def divide(x: Any, y: Any) -> Any:
    """Return x / y, elementwise."""
    return Divide.apply(x, y)


class Negative(Function):
    """y = -x."""

    def forward(self, x: Array) -> Array:
        return -x

    def backward(self, dy: Array) -> Any:
        return -dy


def negative(x: Any) -> Any:
    """Return -x, elementwise."""
    return Negative.apply(x)


class Power(Function):
    """z = x^y.

    dz/dx = y x^(y-1), taken as 0 where y = 0 (also at x = 0, where 0 · 0^-1 would give NaN).
    dz/dy = x^y log x, taken as 0 where x = 0 <= y, its limit for y > 0.
    """

    broadcasts = True

    def forward(self, x: Array, y: Array) -> Array:
        self.save(x, y)
        return x**y

    def backward(self, dz: Array) -> Any:
        x, y = self.saved
        xp = namespace_of(dz)
        dx = dy = None
        if self.needs[0]:
            if isinstance(y, int | float):
                dx = dz * (y * x ** (y - 1)) if y != 0 else dz * 0
            else:
                dx = dz * y * x ** xp.where(y == 0, 1.0, y - 1)
        if self.needs[1]:
            at_zero = (x == 0) & (y >= 0)
            dy = dz * x**y * xp.log(xp.where(at_zero, xp.ones_like(dz), x))
        return dx, dy


def power(x: Any, y: Any) -> Any:
    """Return x^y, elementwise. A negative x needs an integer-valued y that requires no gradient."""
    return Power.apply(x, y)


class Maximum(Function):
    """z = max(x, y). Where both are equal, each gets half of the gradient, as in PyTorch."""

    broadcasts = True

    def forward(self, x: Array, y: Array) -> Array:
        self.save(x, y)
        return namespace_of(x if hasattr(x, "dtype") else y).maximum(x, y)

    def backward(self, dz: Array) -> Any:
        x, y = self.saved
        share = halves_at_ties(dz, x, y)
        return dz * share, dz * (1 - share) if self.needs[1] else None


class Minimum(Function):
    """z = min(x, y). Where both are equal, each gets half of the gradient, as in PyTorch."""

    broadcasts = True

    def forward(self, x: Array, y: Array) -> Array:
        self.save(x, y)
        return namespace_of(x if hasattr(x, "dtype") else y).minimum(x, y)

    def backward(self, dz: Array) -> Any:
        x, y = self.saved
        share = halves_at_ties(dz, y, x)
        return dz * share, dz * (1 - share) if self.needs[1] else None


def halves_at_ties(like: Array, x: Array, y: Array) -> Array:
    """Return 1 where x > y, 1/2 where x = y, else 0, in the dtype of `like`."""
    return ((x > y).astype(like.dtype) + (x >= y).astype(like.dtype)) * 0.5


def maximum(x: Any, y: Any) -> Any:
    """Return the larger of x and y, elementwise."""
    return Maximum.apply(x, y)


def minimum(x: Any, y: Any) -> Any:
    """Return the smaller of x and y, elementwise."""
    return Minimum.apply(x, y)


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


def logical_not(x: Any) -> Any:
    """Return whether x is not true (0), elementwise."""
    return plain("logical_not", x)


def bitwise_and(x: Any, y: Any) -> Any:
    """Return x & y, elementwise: "and" of booleans, and of the bits of integers."""
    return plain("bitwise_and", x, y)


def bitwise_or(x: Any, y: Any) -> Any:
    """Return x | y, elementwise: "or" of booleans, and of the bits of integers."""
    return plain("bitwise_or", x, y)


def invert(x: Any) -> Any:
    """Return ~x, elementwise: "not" of booleans, and of the bits of integers."""
    return plain("invert", x)
