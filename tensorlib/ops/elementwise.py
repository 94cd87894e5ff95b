"""Elementwise functions of one input: roots and squares, absolute value, sign, rounding and erf."""

from __future__ import annotations

import math
from functools import singledispatch
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorlib.arrays.backend import Array, namespace_of
from tensorlib.engine.function import Function, derivation
from tensorlib.ops.arguments import checked_integer
from tensorlib.ops.plain import plain

if TYPE_CHECKING:
    from tensorlib.engine.value import TensorLike
    from tensorlib.tensor import Tensor

__all__ = ["abs", "ceil", "erf", "floor", "round", "rsqrt", "sign", "sqrt", "square"]


class Sqrt(Function):
    """y = sqrt(x)  =>  dx = dy / (2 y), which is infinite at x = 0.

    Keeps y.
    """

    def forward(self, x: Array) -> Array:
        y = namespace_of(x).sqrt(x)
        self.save(y)
        return y

    def backward(self, dy: Array) -> Any:
        (y,) = self.saved
        return dy / (2 * y)


@derivation(Sqrt)
def sqrt(x: TensorLike) -> Tensor:
    """Return the square root of x, elementwise; it is NaN below 0.

    >>> tl.sqrt([0.0, 2.0, 9.0])
    Tensor([0.     1.4142 3.    ], shape=(3,), dtype=float32)
    """
    return Sqrt.apply(x)


class Rsqrt(Function):
    """y = x^(-1/2)  =>  dx = -dy x^(-3/2) / 2 = -dy y^3 / 2.

    Keeps y.
    """

    def forward(self, x: Array) -> Array:
        y = 1 / namespace_of(x).sqrt(x)
        self.save(y)
        return y

    def backward(self, dy: Array) -> Any:
        (y,) = self.saved
        return dy * (-0.5 * y * y * y)


@derivation(Rsqrt)
def rsqrt(x: TensorLike) -> Tensor:
    """Return 1 / sqrt(x), elementwise; it is infinite at 0 and NaN below 0.

    >>> tl.rsqrt([0.25, 1.0, 4.0])
    Tensor([2.  1.  0.5], shape=(3,), dtype=float32)
    """
    return Rsqrt.apply(x)


class Square(Function):
    """y = x^2  =>  dx = 2 dy x.

    Keeps x.
    """

    def forward(self, x: Array) -> Array:
        self.save(x)
        return namespace_of(x).square(x)

    def backward(self, dy: Array) -> Any:
        (x,) = self.saved
        return 2 * dy * x


@derivation(Square)
def square(x: TensorLike) -> Tensor:
    """Return x^2, elementwise.

    >>> tl.square([-3.0, 2.0])
    Tensor([9. 4.], shape=(2,), dtype=float32)
    """
    return Square.apply(x)


class Abs(Function):
    """y = |x|  =>  dx = dy where x > 0, -dy where x < 0, and 0 at x = 0, even for an infinite dy.

    Keeps x.
    """

    def forward(self, x: Array) -> Array:
        self.save(x)
        return namespace_of(x).abs(x)

    def backward(self, dy: Array) -> Any:
        (x,) = self.saved
        xp = namespace_of(dy)
        return xp.where(x == 0, 0, xp.where(x < 0, -dy, dy))


@derivation(Abs)
def abs(x: TensorLike) -> Tensor:
    """Return the absolute value, elementwise.

    >>> tl.abs([-1.5, 0.0, 2.0])
    Tensor([1.5 0.  2. ], shape=(3,), dtype=float32)
    """
    return Abs.apply(x)


def sign(x: TensorLike) -> Tensor:
    """Return -1, 0 or 1, the sign of x, elementwise. Its gradient is zero wherever it exists: the result is a constant.

    >>> tl.sign([-1.5, 0.0, 2.0])
    Tensor([-1.  0.  1.], shape=(3,), dtype=float32)
    """
    return plain("sign", x)


def floor(x: TensorLike) -> Tensor:
    """Return the largest integer <= x, elementwise. Its gradient is zero wherever it exists: the result is a constant.

    >>> tl.floor([-1.5, 0.0, 2.7])
    Tensor([-2.  0.  2.], shape=(3,), dtype=float32)
    """
    return plain("floor", x)


def ceil(x: TensorLike) -> Tensor:
    """Return the smallest integer >= x, elementwise. Its gradient is zero wherever it exists: the result is a constant.

    >>> tl.ceil([-1.5, 0.0, 2.2])
    Tensor([-1.  0.  3.], shape=(3,), dtype=float32)
    """
    return plain("ceil", x)


def round(x: TensorLike, decimals: int = 0) -> Tensor:
    """Return x rounded to `decimals` decimals, elementwise; halves go to the even neighbor (2.5 to 2), as in NumPy.

    Negative `decimals` round to tens, hundreds, and so on. The gradient is zero wherever it exists: the result is a
    constant.

    >>> tl.round([0.5, 1.5, 2.6])
    Tensor([0. 2. 3.], shape=(3,), dtype=float32)
    """
    return plain("round", x, decimals=checked_integer("round", "decimals", decimals))


class Kink(Function):
    """y = x  =>  dx = dy, and NaN at a kink.

    At a kink an op has no derivative, and the gradient there is a convention, such as 0 for the norm of a zero vector.
    A gradient formula that took it for a function of x would have a derivative there; in place of it comes NaN.
    x and the mask broadcast.

    Keeps kink.
    """

    broadcasts = True

    def forward(self, x: Array, kink: Array) -> Array:
        self.kink = kink
        return namespace_of(x).broadcast_to(x, np.broadcast_shapes(x.shape, kink.shape))

    def backward(self, dy: Array) -> Any:
        return namespace_of(dy).where(self.kink, math.nan, dy)


def smooth_except(x: Any, kink: Any) -> Any:
    """Return x, in a gradient formula, whose derivative is NaN where `kink`; an array has none."""
    return Kink.apply(x, kink=kink.data) if hasattr(x, "requires_grad") else x


class Erf(Function):
    """y = 2 / sqrt(pi) times the integral of exp(-t^2) from 0 to x  =>  dx = dy 2 / sqrt(pi) exp(-x^2).

    Keeps x.
    Kernels: cuda/activations.py.
    """

    def forward(self, x: Array) -> Array:
        self.save(x)
        dtype = x.dtype.name if x.dtype.kind == "f" else "float64"  # integers give float64, small ones too
        return erf_formula(x.astype("float32" if dtype == "float16" else dtype)).astype(dtype)

    def backward(self, dy: Array) -> Any:
        (x,) = self.saved
        xp = namespace_of(dy)
        near = xp.clip(x, -28, 28)  # outside, the slope is 0 in every dtype, but x^2 may overflow in some
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


@singledispatch
def erf_formula(x: Array) -> Array:
    """Return erf(x) to the last digit or two, by rational approximations of erf(x) near 0 and 1 - erf(|x|) elsewhere.

    W. J. Cody, "Rational Chebyshev approximations for the error function", Mathematics of Computation 23 (1969). Both
    are computed everywhere, each from x clipped to its range. Cody's third approximation, for |x| > 4, is not needed,
    because 1 - erf(|x|) is below 2e-8 for |x| > 4, and negligible relative to 1 for |x| > 6.
    """
    xp = namespace_of(x)
    size = xp.abs(x)
    squared = xp.minimum(size, 0.5) ** 2
    near = x * (polynomial(squared, _NEAR_ABOVE) / polynomial(squared, _NEAR_BELOW))
    far = xp.clip(size, 0.46875, 6.0)
    rest = xp.exp(-far * far) * (polynomial(far, _FAR_ABOVE) / polynomial(far, _FAR_BELOW))
    return xp.where(size <= 0.46875, near, xp.sign(x) * (1 - rest))


def polynomial(x: Array, coefficients: tuple[float, ...]) -> Array:
    """Return the polynomial at x by Horner's rule; `coefficients` start with that of the highest power."""
    total = coefficients[0] * x
    for coefficient in coefficients[1:-1]:
        total += coefficient  # in place: fresh arrays would cost more than the arithmetic
        total *= x
    total += coefficients[-1]
    return total


@derivation(Erf)
def erf(x: TensorLike) -> Tensor:
    """Return the error function, elementwise. Integers and booleans give float64.

    >>> tl.erf([-1.0, 0.0, 0.5])
    Tensor([-0.8427  0.      0.5205], shape=(3,), dtype=float32)
    """
    return Erf.apply(x)
