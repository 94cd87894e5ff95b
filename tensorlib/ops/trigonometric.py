"""Elementwise sine, cosine and tangent, their inverses, and the hyperbolic functions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tensorlib.arrays.backend import Array, namespace_of
from tensorlib.arrays.shapes import power_of_two_below
from tensorlib.engine.function import Function, derivation
from tensorlib.ops.arguments import at_least_float32, namespace_among
from tensorlib.ops.elementwise import smooth_except

if TYPE_CHECKING:
    from tensorlib.engine.value import TensorLike
    from tensorlib.tensor import Tensor

__all__ = ["arccos", "arcsin", "arctan", "arctan2", "cos", "cosh", "sin", "sinh", "tan", "tanh"]


class Sin(Function):
    """y = sin(x)  =>  dx = dy cos(x).

    Keeps x.
    """

    def forward(self, x: Array) -> Array:
        self.save(x)
        return namespace_of(x).sin(x)

    def backward(self, dy: Array) -> Any:
        (x,) = self.saved
        return dy * namespace_of(dy).cos(x)


@derivation(Sin)
def sin(x: TensorLike) -> Tensor:
    """Return the sine of x (in radians), elementwise.

    >>> tl.sin([0.0, 1.0])
    Tensor([0.     0.8415], shape=(2,), dtype=float32)
    """
    return Sin.apply(x)


class Cos(Function):
    """y = cos(x)  =>  dx = -dy sin(x).

    Keeps x.
    """

    def forward(self, x: Array) -> Array:
        self.save(x)
        return namespace_of(x).cos(x)

    def backward(self, dy: Array) -> Any:
        (x,) = self.saved
        return -dy * namespace_of(dy).sin(x)


@derivation(Cos)
def cos(x: TensorLike) -> Tensor:
    """Return the cosine of x (in radians), elementwise.

    >>> tl.cos([0.0, 1.0])
    Tensor([1.     0.5403], shape=(2,), dtype=float32)
    """
    return Cos.apply(x)


class Tan(Function):
    """y = tan(x)  =>  dx = dy / cos^2(x) = dy (1 + y^2).

    Keeps y.
    """

    def forward(self, x: Array) -> Array:
        y = namespace_of(x).tan(x)
        self.save(y)
        return y

    def backward(self, dy: Array) -> Any:
        (y,) = self.saved
        return dy * (1 + y * y)


@derivation(Tan)
def tan(x: TensorLike) -> Tensor:
    """Return the tangent of x (in radians), elementwise.

    >>> tl.tan([0.0, 1.0])
    Tensor([0.     1.5574], shape=(2,), dtype=float32)
    """
    return Tan.apply(x)


class Arcsin(Function):
    """y = arcsin(x), sin(y) = x  =>  dx = dy / cos(y) = dy / sqrt(1 - x^2); infinite at -1 and 1.

    Keeps x.
    """

    def forward(self, x: Array) -> Array:
        self.save(x)
        return namespace_of(x).arcsin(x)

    def backward(self, dy: Array) -> Any:
        (x,) = self.saved
        return dy / _other_leg(x)


def _other_leg(x: Array) -> Array:
    """Return sqrt(1 - x^2), the other leg of a right triangle with the hypotenuse 1."""
    given: Any = x
    if not hasattr(given, "requires_grad"):
        return namespace_of(x).sqrt((1 - x) * (1 + x))  # 1 - x^2 would lose digits near 1
    # In a second derivative at 1 and -1, the product would be 0 times infinity. So its digits are added as a constant.
    array = given.data
    return namespace_of(x).sqrt(1 - x * x + ((1 - array) * (1 + array) - (1 - array * array)))


@derivation(Arcsin)
def arcsin(x: TensorLike) -> Tensor:
    """Return the angle in [-pi/2, pi/2] whose sine is x, elementwise, or NaN for x outside [-1, 1].

    >>> tl.arcsin([0.0, 1.0])
    Tensor([0.     1.5708], shape=(2,), dtype=float32)
    """
    return Arcsin.apply(x)


class Arccos(Function):
    """y = arccos(x), cos(y) = x  =>  dx = -dy / sin(y) = -dy / sqrt(1 - x^2); infinite at -1 and 1.

    Keeps x.
    """

    def forward(self, x: Array) -> Array:
        self.save(x)
        return namespace_of(x).arccos(x)

    def backward(self, dy: Array) -> Any:
        (x,) = self.saved
        return -dy / _other_leg(x)


@derivation(Arccos)
def arccos(x: TensorLike) -> Tensor:
    """Return the angle in [0, pi] whose cosine is x, elementwise, or NaN for x outside [-1, 1].

    >>> tl.arccos([0.0, 1.0])
    Tensor([1.5708 0.    ], shape=(2,), dtype=float32)
    """
    return Arccos.apply(x)


class Arctan(Function):
    """y = arctan(x), tan(y) = x  =>  dx = dy / (1 + tan^2(y)) = dy / (1 + x^2).

    Keeps x.
    """

    def forward(self, x: Array) -> Array:
        self.save(x)
        return namespace_of(x).arctan(x)

    def backward(self, dy: Array) -> Any:
        (x,) = self.saved
        return dy / (1 + x * x)


@derivation(Arctan)
@at_least_float32  # in float16, x^2 overflows from 256 on, where the gradient is still above 1e-5
def arctan(x: TensorLike) -> Tensor:
    """Return the angle in [-pi/2, pi/2] whose tangent is x, elementwise.

    >>> tl.arctan([0.0, 1.0])
    Tensor([0.     0.7854], shape=(2,), dtype=float32)
    """
    return Arctan.apply(x)


class Arctan2(Function):
    """a = the angle of the point (x, y)  =>  dy = da x / (x^2 + y^2), dx = -da y / (x^2 + y^2); 0 at the origin.

    The origin is a kink, where the second derivative is NaN.

    Keeps y and x.
    """

    broadcasts = True

    def forward(self, y: Array, x: Array) -> Array:
        self.save(y, x)
        return namespace_among(y, x).arctan2(y, x)

    def backward(self, da: Array) -> Any:
        y, x = self.saved
        xp, origin = namespace_of(da), (x == 0) & (y == 0)
        x, y = smooth_except(x, origin), smooth_except(y, origin)
        # The angle of (x / scale, y / scale) is the same for any scale, so the scale counts as a constant.
        scale = _scale(*[z.data if hasattr(z, "requires_grad") else z for z in (x, y)])
        x, y = x / scale, y / scale
        step = da / xp.where(origin, 1, x * x + y * y)
        return step * x / scale if self.needs[0] else None, -step * y / scale if self.needs[1] else None


def _scale(x: Array, y: Array) -> Array:
    """Return a power of two near the larger of |x| and |y|: squares of x / scale and y / scale do not overflow."""
    xp = namespace_among(x, y)
    return power_of_two_below(xp.maximum(abs(x), abs(y)))


@derivation(Arctan2)
@at_least_float32
def arctan2(y: TensorLike, x: TensorLike) -> Tensor:
    """Return the angle in [-pi, pi] from the positive x axis to the point (x, y), elementwise. Note the order: y, x.

    >>> tl.arctan2([1.0, -1.0], [1.0, -1.0])
    Tensor([ 0.7854 -2.3562], shape=(2,), dtype=float32)
    """
    return Arctan2.apply(y, x)


class Sinh(Function):
    """y = sinh(x)  =>  dx = dy cosh(x).

    Keeps x.
    """

    def forward(self, x: Array) -> Array:
        self.save(x)
        return namespace_of(x).sinh(x)

    def backward(self, dy: Array) -> Any:
        (x,) = self.saved
        return dy * namespace_of(dy).cosh(x)


@derivation(Sinh)
def sinh(x: TensorLike) -> Tensor:
    """Return the hyperbolic sine, elementwise.

    >>> tl.sinh([0.0, 1.0])
    Tensor([0.     1.1752], shape=(2,), dtype=float32)
    """
    return Sinh.apply(x)


class Cosh(Function):
    """y = cosh(x)  =>  dx = dy sinh(x).

    Keeps x.
    """

    def forward(self, x: Array) -> Array:
        self.save(x)
        return namespace_of(x).cosh(x)

    def backward(self, dy: Array) -> Any:
        (x,) = self.saved
        return dy * namespace_of(dy).sinh(x)


@derivation(Cosh)
def cosh(x: TensorLike) -> Tensor:
    """Return the hyperbolic cosine, elementwise.

    >>> tl.cosh([0.0, 1.0])
    Tensor([1.     1.5431], shape=(2,), dtype=float32)
    """
    return Cosh.apply(x)


class Tanh(Function):
    """y = tanh(x)  =>  dx = dy (1 - y^2).

    Keeps y.
    """

    def forward(self, x: Array) -> Array:
        y = namespace_of(x).tanh(x)
        self.save(y)
        return y

    def backward(self, dy: Array) -> Any:
        (y,) = self.saved
        return dy * (1 - y * y)


@derivation(Tanh)
def tanh(x: TensorLike) -> Tensor:
    """Return the hyperbolic tangent, elementwise.

    >>> tl.tanh([0.0, 1.0])
    Tensor([0.     0.7616], shape=(2,), dtype=float32)
    """
    return Tanh.apply(x)
