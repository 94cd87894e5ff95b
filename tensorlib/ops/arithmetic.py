"""Elementwise arithmetic with NumPy's broadcasting and dtype rules.

If an input was broadcast, the engine sums its gradient back to its shape; the formulas below omit this sum.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorlib.arrays.backend import Array, namespace_of
from tensorlib.engine.function import Function, derivation
from tensorlib.ops.arguments import namespace_among
from tensorlib.ops.elementwise import smooth_except
from tensorlib.ops.plain import plain

if TYPE_CHECKING:
    from tensorlib.engine.value import TensorLike
    from tensorlib.tensor import Tensor

__all__ = [
    "add", "clip", "divide", "floor_divide", "maximum", "minimum", "multiply", "negative", "power", "reciprocal",
    "remainder", "subtract",
]  # fmt: skip


class Add(Function):
    """z = x + y  =>  dx = dz, dy = dz.

    Keeps nothing.
    """

    broadcasts = True

    def forward(self, x: Array, y: Array) -> Array:
        return x + y

    def backward(self, dz: Array) -> Any:
        return dz, dz


@derivation(Add)
def add(x: TensorLike, y: TensorLike) -> Tensor:
    """Return x + y, elementwise; x and y broadcast. For booleans the result is "x or y".

    >>> tl.add([[1.0], [2.0]], [10.0, 20.0])
    Tensor([[11. 21.]
            [12. 22.]], shape=(2, 2), dtype=float32)
    """
    return Add.apply(x, y)


class Subtract(Function):
    """z = x - y  =>  dx = dz, dy = -dz.

    Keeps nothing.
    """

    broadcasts = True

    def forward(self, x: Array, y: Array) -> Array:
        return x - y

    def backward(self, dz: Array) -> Any:
        return dz, -dz if self.needs[1] else None


@derivation(Subtract)
def subtract(x: TensorLike, y: TensorLike) -> Tensor:
    """Return x - y, elementwise; x and y broadcast. Raises TypeError for booleans; use ``x ^ y``.

    >>> tl.subtract([1.0, 2.0], 0.5)
    Tensor([0.5 1.5], shape=(2,), dtype=float32)
    """
    return Subtract.apply(x, y)


class Multiply(Function):
    """z = x y  =>  dx = dz y, dy = dz x.

    Keeps x and y (each only for the gradient of the other).
    """

    broadcasts = True

    def forward(self, x: Array, y: Array) -> Array:
        x_wanted, y_wanted = self.needs
        if x_wanted and y_wanted:
            self.save(x, y)
        else:  # x · constant: only the constant is needed, and x may be freed
            self.save(y if x_wanted else x)
        return x * y

    def backward(self, dz: Array) -> Any:
        x, y = self.saved[0], self.saved[-1]  # the same array if only one was saved
        x_wanted, y_wanted = self.needs
        return dz * y if x_wanted else None, dz * x if y_wanted else None


@derivation(Multiply)
def multiply(x: TensorLike, y: TensorLike) -> Tensor:
    """Return x y, elementwise; x and y broadcast. For booleans the result is "x and y".

    >>> tl.multiply([1.0, 2.0], [[3.0], [4.0]])
    Tensor([[3. 6.]
            [4. 8.]], shape=(2, 2), dtype=float32)
    """
    return Multiply.apply(x, y)


class Divide(Function):
    """z = x / y  =>  dx = dz / y, dy = -dz x / y^2 = -dx z.

    Keeps x (only for the gradient of y) and y.
    """

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


@derivation(Divide)
def divide(x: TensorLike, y: TensorLike) -> Tensor:
    """Return x / y, elementwise; x and y broadcast. The quotient of integers is float64.

    >>> tl.divide([1, 2, 3], 2)
    Tensor([0.5 1.  1.5], shape=(3,), dtype=float64)
    """
    return Divide.apply(x, y)


class Negative(Function):
    """y = -x  =>  dx = -dy.

    Keeps nothing.
    """

    def forward(self, x: Array) -> Array:
        return -x

    def backward(self, dy: Array) -> Any:
        return -dy


@derivation(Negative)
def negative(x: TensorLike) -> Tensor:
    """Return -x, elementwise. Raises TypeError for booleans; use ``~x``.

    >>> tl.negative([1.0, -2.0])
    Tensor([-1.  2.], shape=(2,), dtype=float32)
    """
    return Negative.apply(x)


class Reciprocal(Function):
    """y = 1 / x  =>  dx = -dy / x^2 = -dy y^2.

    Keeps y.
    """

    def forward(self, x: Array) -> Array:
        y = namespace_of(x).reciprocal(x)
        self.save(y)
        return y

    def backward(self, dy: Array) -> Any:
        (y,) = self.saved
        return -dy * y * y


@derivation(Reciprocal)
def reciprocal(x: TensorLike) -> Tensor:
    """Return 1 / x, elementwise. Integers give integers, as in NumPy: 0 if |x| > 1.

    >>> tl.reciprocal([1.0, 2.0, -4.0])
    Tensor([ 1.    0.5  -0.25], shape=(3,), dtype=float32)
    """
    return Reciprocal.apply(x)


class Power(Function):
    """z = x^y.

    dz/dx = y x^(y-1), taken as 0 where y = 0, although x^-1 may be infinite;
    dz/dy = x^y log x, taken as 0 where x = 0 <= y, its limit for y > 0; for y <= 1 it has a kink there
    =>  dx = dz y x^(y-1), dy = dz x^y log x.

    Keeps x and y.
    """

    broadcasts = True

    def forward(self, x: Array, y: Array) -> Array:
        self.save(x, y)
        if isinstance(y, int | float) and y in (3, 4) and x.dtype in ("float32", "float64"):
            return x * x * x if y == 3 else (x * x) ** 2  # NumPy's own power takes about twenty times as long
        if isinstance(y, int) and y < 0 and x.dtype.kind in "iu":
            raise ValueError("Integers to negative integer powers are not allowed.")  # a GPU would give 0
        return x**y

    def backward(self, dz: Array) -> Any:
        x, y = self.saved
        xp = namespace_of(dz)
        dx = dy = None
        if isinstance(y, int | float):
            if self.needs[0]:
                dx = dz * (y * x ** (y - 1)) if y != 0 else xp.zeros_like(dz)
        elif self.needs[0]:
            constant = (y == 0) & (abs(x) < np.finfo(dz.dtype).tiny)  # x^-1 may overflow
            exponent = smooth_except(y, constant | (x == 0) & (y >= 0) & (y <= 1))
            dx = dz * (exponent * xp.where(constant, 1, x) ** (exponent - 1.0))  # not y - 1: an unsigned 0 - 1 is large
        if self.needs[1]:
            at_zero = (x == 0) & (y >= 0)
            base, exponent = smooth_except(x, at_zero & (y <= 1)), smooth_except(y, at_zero & (y == 0))
            slope = base**exponent * xp.log(xp.where(at_zero, xp.ones_like(dz), base))
            dy = xp.where(at_zero, 0, dz) * slope
        return dx, dy


@derivation(Power)
def power(x: TensorLike, y: TensorLike) -> Tensor:
    """Return x^y, elementwise; x and y broadcast.

    A negative x needs an integer-valued y that requires no gradient. Raises ValueError for integers raised
    to a negative integer power.

    >>> tl.power(tl.arange(4.0), 2)
    Tensor([0. 1. 4. 9.], shape=(4,), dtype=float32)
    """
    return Power.apply(x, y)


class Remainder(Function):
    """z = x - floor(x / y) y  =>  dx = dz, dy = -dz floor(x / y), because floor is constant between its jumps.

    Keeps x and y (only for the gradient of y).
    """

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


@derivation(Remainder)
def remainder(x: TensorLike, y: TensorLike) -> Tensor:
    """Return x - floor(x / y) y, elementwise: the remainder with the sign of y, like % in Python and NumPy.

    >>> tl.remainder([7.0, -7.0], 3.0)
    Tensor([1. 2.], shape=(2,), dtype=float32)
    """
    return Remainder.apply(x, y)


def floor_divide(x: TensorLike, y: TensorLike) -> Tensor:
    """Return floor(x / y), elementwise. Its gradient is zero wherever it exists, so the result is a constant.

    >>> tl.floor_divide([7, -7], 2)
    Tensor([ 3 -4], shape=(2,), dtype=int64)
    """
    return plain("floor_divide", x, y)


class Maximum(Function):
    """z = max(x, y)  =>  the larger of x and y gets dz; where both are equal, each gets dz / 2, as in PyTorch.

    Keeps x and y.
    """

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
    """z = min(x, y)  =>  the smaller of x and y gets dz; where both are equal, each gets dz / 2, as in PyTorch.

    Keeps x and y.
    """

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
    """Return 0 where `beaten`, dz / 2 where `tied`, else dz. Multiplying an infinite dz by 0 would give NaN."""
    xp = namespace_of(dz)
    return xp.where(beaten, 0, xp.where(tied, 0.5 * dz, dz))


@derivation(Maximum)
def maximum(x: TensorLike, y: TensorLike) -> Tensor:
    """Return the larger of x and y, elementwise, or NaN if either is NaN; x and y broadcast.

    >>> tl.maximum([1.0, 5.0], 2.0)
    Tensor([2. 5.], shape=(2,), dtype=float32)
    """
    return Maximum.apply(x, y)


@derivation(Minimum)
def minimum(x: TensorLike, y: TensorLike) -> Tensor:
    """Return the smaller of x and y, elementwise, or NaN if either is NaN; x and y broadcast.

    >>> tl.minimum([1.0, 5.0], 2.0)
    Tensor([1. 2.], shape=(2,), dtype=float32)
    """
    return Minimum.apply(x, y)


class Clip(Function):
    """z = min(max(x, low), high)  =>  dx = dz where low <= x <= high, including the bounds, else 0.

    A bound gets dz where it replaces x: low where x < low <= high, and high where high < x or high < low.

    Keeps x and bounds.
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


@derivation(Clip)
def clip(x: TensorLike, min: TensorLike | None = None, max: TensorLike | None = None) -> Tensor:
    """Return x limited to [min, max], elementwise; each bound is a number, a Tensor that broadcasts, or None.

    Where min > max the result is max, as in NumPy. Where x equals a bound, x gets the whole gradient (`hardtanh` passes
    none there); where x is beyond a bound, that bound gets the gradient if it requires one.

    >>> tl.clip([-2.0, 0.5, 2.0], -1.0, 1.0)
    Tensor([-1.   0.5  1. ], shape=(3,), dtype=float32)
    """
    bounds = [bound for bound in (min, max) if bound is not None]
    return Clip.apply(x, *bounds, has_low=min is not None, has_high=max is not None)
