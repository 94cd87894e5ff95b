"""Functions of one input, elementwise: roots and squares, absolute value, sign and rounding, erf."""

from __future__ import annotations

import math
from typing import Any

from tensorlib.arrays.backend import Array, namespace_of
from tensorlib.engine.function import Function
from tensorlib.ops.arguments import checked_integer
from tensorlib.ops.plain import plain

__all__ = ["abs", "ceil", "erf", "floor", "round", "rsqrt", "sign", "sqrt", "square"]


class Sqrt(Function):
    """y = sqrt(x)  =>  dx = dy / (2 y); infinite at x = 0."""

    def forward(self, x: Array) -> Array:
        y = namespace_of(x).sqrt(x)
        self.save(y)
        return y

    def backward(self, dy: Array) -> Any:
        (y,) = self.saved
        return dy / (2 * y)


def sqrt(x: Any) -> Any:
    """Return the square root, elementwise."""
    return Sqrt.apply(x)


class Rsqrt(Function):
    """y = x^(-1/2)  =>  dy/dx = -x^(-3/2) / 2 = -y^3 / 2."""

    def forward(self, x: Array) -> Array:
        y = 1 / namespace_of(x).sqrt(x)
        self.save(y)
        return y

    def backward(self, dy: Array) -> Any:
        (y,) = self.saved
        return dy * (-0.5 * y * y * y)


def rsqrt(x: Any) -> Any:
    """Return 1 / sqrt(x), elementwise."""
    return Rsqrt.apply(x)


class Square(Function):
    """y = x^2  =>  dx = 2 dy x."""

    def forward(self, x: Array) -> Array:
        self.save(x)
        return namespace_of(x).square(x)

    def backward(self, dy: Array) -> Any:
        (x,) = self.saved
        return 2 * dy * x


def square(x: Any) -> Any:
    """Return x^2, elementwise."""
    return Square.apply(x)


class Abs(Function):
    """y = |x|  =>  dx = dy where x > 0, -dy where x < 0, and 0 at x = 0, even of an infinite dy."""

    def forward(self, x: Array) -> Array:
        self.save(x)
        return namespace_of(x).abs(x)

    def backward(self, dy: Array) -> Any:
        (x,) = self.saved
        xp = namespace_of(dy)
        return xp.where(x == 0, 0, xp.where(x < 0, -dy, dy))


def abs(x: Any) -> Any:
    """Return the absolute value, elementwise."""
    return Abs.apply(x)


def sign(x: Any) -> Any:
    """Return -1, 0 or 1 by the sign of x, elementwise. Its gradient is zero, so it carries none."""
    return plain("sign", x)


def floor(x: Any) -> Any:
    """Return the largest whole number that is not above x, elementwise. Its gradient is zero, so it carries none."""
    return plain("floor", x)


def ceil(x: Any) -> Any:
    """Return the smallest whole number that is not below x, elementwise. Its gradient is zero, so it carries none."""
    return plain("ceil", x)


def round(x: Any, decimals: int = 0) -> Any:
    """Return x rounded to `decimals` places, elementwise; halves go to the even neighbour, 2.5 to 2, as in NumPy.

    Its gradient is zero, so it carries none.
    """
    return plain("round", x, decimals=checked_integer("round", "decimals", decimals))


class Erf(Function):
    """y = 2 / sqrt(pi) times the integral of exp(-t^2) from 0 to x  =>  dx = dy 2 / sqrt(pi) exp(-x^2)."""

    def forward(self, x: Array) -> Array:
        self.save(x)
        dtype = x.dtype.name if x.dtype.kind == "f" else "float64"  # integers become float64, as in NumPy's exp
        return erf_formula(x.astype("float32" if dtype == "float16" else dtype)).astype(dtype)

    def backward(self, dy: Array) -> Any:
        (x,) = self.saved
        xp = namespace_of(dy)
        near = xp.clip(x, -28, 28)  # beyond, the slope is 0 in every dtype, but x^2 may be too large for one
        return dy * (2 / math.sqrt(math.pi) * xp.exp(-near * near))


# Coefficients of Cody's table, the highest power first, as Horner's rule takes them.
_NEAR_ABOVE = (
    0.185777706184603153, 3.16112374387056560, 113.864154151050156, 377.485237685302021, 3209.37758913846947,
)  # fmt: skip
_NEAR_BELOW = (1.0, 23.6012909523441209, 244.024637934444173, 1282.61652607737228, 2844.23683343917062)
_FAR_ABOVE = (
    2.15311535474403846e-8, 0.564188496988670089, 8.88314979438837594, 66.1191906371416295, 298.635138197400131,
    881.952221241769090, 1712.04761263407058, 2051.07837782607147, 1230.33935479799725,
)  # fmt: skip
_FAR_BELOW = (
    1.0, 15.7449261107098347, 117.693950891312499, 537.181101862009858, 1621.38957456669019, 3290.79923573345963,
    4362.61909014324716, 3439.36767414372164, 1230.33935480374942,
)  # fmt: skip


def erf_formula(x: Array) -> Array:
    """Return erf(x) to the last digit or two, from rational approximations: near 0 of erf(x), farther of 1 - erf(|x|).

    W. J. Cody, "Rational Chebyshev approximations for the error function", Mathematics of Computation 23 (1969). Both
    are computed everywhere, each from an x kept where it is good. Cody's third, for |x| > 4, is not needed: there
    1 - erf(|x|) is below 2e-8, and beyond 6 it is no longer seen beside 1.
    """
    xp = namespace_of(x)
    size = xp.abs(x)
    squared = xp.minimum(size, 0.5) ** 2
    near = x * (polynomial(squared, _NEAR_ABOVE) / polynomial(squared, _NEAR_BELOW))
    far = xp.clip(size, 0.46875, 6.0)
    rest = xp.exp(-far * far) * (polynomial(far, _FAR_ABOVE) / polynomial(far, _FAR_BELOW))
    return xp.where(size <= 0.46875, near, xp.sign(x) * (1 - rest))


def polynomial(x: Array, coefficients: tuple[float, ...]) -> Array:
    """Return the polynomial by Horner's rule, the coefficient of the highest power first."""
    total = coefficients[0] * x
    for coefficient in coefficients[1:-1]:
        total += coefficient  # in place: fresh arrays would cost more than the arithmetic
        total *= x
    total += coefficients[-1]
    return total


def erf(x: Any) -> Any:
    """Return the error function, elementwise: 2 / sqrt(pi) times the integral of exp(-t^2) from 0 to x."""
    return Erf.apply(x)
