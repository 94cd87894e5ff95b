"""Arithmetic, elementwise, with NumPy's broadcasting and dtype rules."""

from __future__ import annotations

import math
from typing import Any

from tensorlib.arrays.backend import Array, namespace_of
from tensorlib.engine.function import Function
from tensorlib.ops.arguments import namespace_among
from tensorlib.ops.plain import plain

__all__ = [
    "add", "clip", "divide", "floor_divide", "maximum", "minimum", "multiply", "negative", "power", "reciprocal",
    "remainder", "subtract",
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
        x_wanted, y_wanted = self.needs
        if x_wanted and y_wanted:
            self.save(x, y)
        else:  # x · constant: only the constant is needed, and x may be freed
            self.save(y if x_wanted else x)
        return x * y

    def backward(self, dz: Array) -> Any:
        x, y = self.saved[0], self.saved[-1]  # one and the same where one was saved
        x_wanted, y_wanted = self.needs
        return dz * y if x_wanted else None, dz * x if y_wanted else None


def multiply(x: Any, y: Any) -> Any:
    """Return x y, elementwise."""
    return Multiply.apply(x, y)


class Divide(Function):
    """z = x / y  =>  dx = dz / y, dy = -dz x / y^2 = -dx z."""

    broadcasts = True

    def forward(self, x: Array, y: Array) -> Array:
        if self.needs[1]:
            self.save(x, y)
        else:
            self.save(y)
        return x / y

    def backward(self, dz: Array) -> Any:
        x, y = self.saved[0], self.saved[-1]
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


class Reciprocal(Function):
    """y = 1 / x  =>  dx = -dy / x^2 = -dy y^2."""

    def forward(self, x: Array) -> Array:
        y = namespace_of(x).reciprocal(x)
        self.save(y)
        return y

    def backward(self, dy: Array) -> Any:
        (y,) = self.saved
        return -dy * y * y


def reciprocal(x: Any) -> Any:
    """Return 1 / x, elementwise. Of integers it is an integer, as in NumPy: 0 for all but 1 and -1."""
    return Reciprocal.apply(x)


class Power(Function):
    """z = x^y.

    dz/dx = y x^(y-1), taken as 0 at x = y = 0, where 0 · 0^-1 would give NaN.
    dz/dy = x^y log x, taken as 0 where x = 0 <= y, its limit for y > 0.
    """

    broadcasts = True

    def forward(self, x: Array, y: Array) -> Array:
        self.save(x, y)
        if isinstance(y, int | float) and y in (3, 4) and x.dtype in ("float32", "float64"):
            return x * x * x if y == 3 else (x * x) ** 2  # NumPy's own power takes some twenty times as long
        if isinstance(y, int) and y < 0 and x.dtype.kind in "iu":
            raise ValueError("Integers to negative integer powers are not allowed.")  # a GPU would give 0
        return x**y

    def backward(self, dz: Array) -> Any:
        x, y = self.saved
        xp = namespace_of(dz)
        dx = dy = None
        if self.needs[0]:
            if isinstance(y, int | float):
                dx = dz * (y * x ** (y - 1)) if y != 0 else xp.zeros_like(dz)
            else:
                base = xp.where((x == 0) & (y == 0), 1, x)
                dx = dz * (y * base ** (y - 1.0))  # 1.0, for 0 - 1 of unsigned integers would be large
        if self.needs[1]:
            at_zero = (x == 0) & (y >= 0)
            slope = x**y * xp.log(xp.where(at_zero, xp.ones_like(dz), x))
            dy = xp.where(at_zero, 0, dz) * slope
        return dx, dy


def power(x: Any, y: Any) -> Any:
    """Return x^y, elementwise. A negative x needs an integer-valued y that requires no gradient."""
    return Power.apply(x, y)


class Remainder(Function):
    """z = x - floor(x / y) y  =>  dx = dz, dy = -dz floor(x / y), since the floor does not change by small steps."""

    broadcasts = True

    def forward(self, x: Array, y: Array) -> Array:
        if self.needs[1]:
            self.save(x, y)
        return x % y

    def backward(self, dz: Array) -> Any:
        if not self.needs[1]:
            return dz, None
        x, y = self.saved
        return dz, -dz * (x // y)


def remainder(x: Any, y: Any) -> Any:
    """Return x - floor(x / y) y, elementwise: the remainder with the sign of y, Python's and NumPy's %."""
    return Remainder.apply(x, y)


def floor_divide(x: Any, y: Any) -> Any:
    """Return floor(x / y), elementwise. Its gradient is zero, so it carries none."""
    return plain("floor_divide", x, y)


class Maximum(Function):
    """z = max(x, y)  =>  dz goes to the larger one. Where both are equal, each gets half, as in PyTorch."""

    broadcasts = True

    def forward(self, x: Array, y: Array) -> Array:
        self.save(x, y)
        return namespace_among(x, y).maximum(x, y)

    def backward(self, dz: Array) -> Any:
        x, y = self.saved
        return (
            unless_beaten(dz, x < y, x == y) if self.needs[0] else None,
            unless_beaten(dz, y < x, x == y) if self.needs[1] else None,
        )


class Minimum(Function):
    """z = min(x, y)  =>  dz goes to the smaller one. Where both are equal, each gets half, as in PyTorch."""

    broadcasts = True

    def forward(self, x: Array, y: Array) -> Array:
        self.save(x, y)
        return namespace_among(x, y).minimum(x, y)

    def backward(self, dz: Array) -> Any:
        x, y = self.saved
        return (
            unless_beaten(dz, x > y, x == y) if self.needs[0] else None,
            unless_beaten(dz, y > x, x == y) if self.needs[1] else None,
        )


def unless_beaten(dz: Array, beaten: Array, tied: Array) -> Array:
    """Return 0 where beaten, dz / 2 where tied, else dz. A product with 0 would make NaN of an infinite dz."""
    xp = namespace_of(dz)
    return xp.where(beaten, 0, xp.where(tied, 0.5 * dz, dz))


def maximum(x: Any, y: Any) -> Any:
    """Return the larger of x and y, elementwise."""
    return Maximum.apply(x, y)


def minimum(x: Any, y: Any) -> Any:
    """Return the smaller of x and y, elementwise."""
    return Minimum.apply(x, y)


class Clip(Function):
    """z = min(max(x, low), high)  =>  dx = dz where low <= x <= high, at the bounds too.

    A bound gets dz where it is the value: low where x < low <= high; high where high < x, or high < low.
    """

    broadcasts = True

    def forward(self, x: Array, *bounds: Array, has_low: bool, has_high: bool) -> Array:
        self.has_low, self.has_high = has_low, has_high
        self.save(x, *bounds)
        xp = namespace_among(x, *bounds)
        z = xp.maximum(x, bounds[0]) if has_low else x
        return xp.minimum(z, bounds[-1]) if has_high else z if has_low else x.copy()

    def backward(self, dz: Array) -> Any:
        x, *bounds = self.saved
        low = bounds[0] if self.has_low else -math.inf
        high = bounds[-1] if self.has_high else math.inf
        got_by = [(x >= low) & (x <= high)]
        if self.has_low:
            got_by.append((x < low) & (low <= high))
        if self.has_high:
            got_by.append((x > high) | (low > high))
        where = namespace_of(dz).where
        return tuple([where(got, dz, 0) if need else None for got, need in zip(got_by, self.needs, strict=True)])


def clip(x: Any, min: Any = None, max: Any = None) -> Any:
    """Return x limited to [min, max], elementwise; a bound may be a number, an array, or None for no bound.

    Where min > max the result is max, as in NumPy. At the bounds x gets the whole gradient (hardtanh stops it there);
    outside, a bound that requires a gradient gets it.
    """
    bounds = [bound for bound in (min, max) if bound is not None]
    return Clip.apply(x, *bounds, has_low=min is not None, has_high=max is not None)
