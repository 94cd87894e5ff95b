"""Sines and tangents, their inverses, and the hyperbolic ones, elementwise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tensorlib.arrays.backend import Array, namespace_of
from tensorlib.engine.function import Function, derivation
from tensorlib.ops.arguments import namespace_among

if TYPE_CHECKING:
    from tensorlib.engine.value import TensorLike
    from tensorlib.tensor import Tensor

__all__ = ["arccos", "arcsin", "arctan", "arctan2", "cos", "cosh", "sin", "sinh", "tan", "tanh"]


class Sin(Function):
    """y = sin(x)  =>  dx = dy cos(x)."""

    def forward(self, x: Array) -> Array:
        self.save(x)
        return namespace_of(x).sin(x)

    def backward(self, dy: Array) -> Any:
        (x,) = self.saved
        return dy * namespace_of(dy).cos(x)


def sin(x: Any) -> Any:
    """Return the sine, elementwise; x in radians."""
    return Sin.apply(x)


class Cos(Function):
    """y = cos(x)  =>  dx = -dy sin(x)."""

    def forward(self, x: Array) -> Array:
        self.save(x)
        return namespace_of(x).cos(x)

    def backward(self, dy: Array) -> Any:
        (x,) = self.saved
        return -dy * namespace_of(dy).sin(x)


def cos(x: Any) -> Any:
    """Return the cosine, elementwise; x in radians."""
    return Cos.apply(x)


class Tan(Function):
    """y = tan(x)  =>  dx = dy / cos^2(x) = dy (1 + y^2)."""

    def forward(self, x: Array) -> Array:
        y = namespace_of(x).tan(x)
        self.save(y)
        return y

    def backward(self, dy: Array) -> Any:
        (y,) = self.saved
        return dy * (1 + y * y)


def tan(x: Any) -> Any:
    """Return the tangent, elementwise; x in radians."""
    return Tan.apply(x)


class Arcsin(Function):
    """y = arcsin(x), sin(y) = x  =>  dx = dy / cos(y) = dy / sqrt(1 - x^2); infinite at -1 and 1."""

    def forward(self, x: Array) -> Array:
        self.save(x)
        return namespace_of(x).arcsin(x)

    def backward(self, dy: Array) -> Any:
        (x,) = self.saved
        return dy / namespace_of(dy).sqrt((1 - x) * (1 + x))  # 1 - x^2 would lose digits near 1


def arcsin(x: Any) -> Any:
    """Return the angle in [-pi/2, pi/2] whose sine is x, elementwise; NaN outside [-1, 1]."""
    return Arcsin.apply(x)


class Arccos(Function):
    """y = arccos(x), cos(y) = x  =>  dx = -dy / sin(y) = -dy / sqrt(1 - x^2); infinite at -1 and 1."""

    def forward(self, x: Array) -> Array:
        self.save(x)
        return namespace_of(x).arccos(x)

    def backward(self, dy: Array) -> Any:
        (x,) = self.saved
        return -dy / namespace_of(dy).sqrt((1 - x) * (1 + x))


def arccos(x: Any) -> Any:
    """Return the angle in [0, pi] whose cosine is x, elementwise; NaN outside [-1, 1]."""
    return Arccos.apply(x)


class Arctan(Function):
    """y = arctan(x), tan(y) = x  =>  dx = dy / (1 + tan^2(y)) = dy / (1 + x^2)."""

    def forward(self, x: Array) -> Array:
        self.save(x)
        return namespace_of(x).arctan(x)

    def backward(self, dy: Array) -> Any:
        (x,) = self.saved
        return dy / (1 + x * x)


def arctan(x: Any) -> Any:
    """Return the angle in [-pi/2, pi/2] whose tangent is x, elementwise."""
    return Arctan.apply(x)


class Arctan2(Function):
    """a = the angle of the point (x, y)  =>  dy = da x / (x^2 + y^2), dx = -da y / (x^2 + y^2); 0 at the origin."""

    broadcasts = True

    def forward(self, y: Array, x: Array) -> Array:
        self.save(y, x)
        return namespace_among(y, x).arctan2(y, x)

    def backward(self, da: Array) -> Any:
        y, x = self.saved
        square = x * x + y * y
        step = da / namespace_of(da).where(square == 0, 1, square)
        return step * x if self.needs[0] else None, -step * y if self.needs[1] else None


def arctan2(y: Any, x: Any) -> Any:
    """Return the angle in [-pi, pi] of the point (x, y) from the positive x axis, elementwise. Mind the order: y, x."""
    return Arctan2.apply(y, x)


class Sinh(Function):
    """y = sinh(x)  =>  dx = dy cosh(x)."""

    def forward(self, x: Array) -> Array:
        self.save(x)
        return namespace_of(x).sinh(x)

    def backward(self, dy: Array) -> Any:
        (x,) = self.saved
        return dy * namespace_of(dy).cosh(x)


def sinh(x: Any) -> Any:
    """Return the hyperbolic sine, elementwise."""
    return Sinh.apply(x)


class Cosh(Function):
    """y = cosh(x)  =>  dx = dy sinh(x)."""

    def forward(self, x: Array) -> Array:
        self.save(x)
        return namespace_of(x).cosh(x)

    def backward(self, dy: Array) -> Any:
        (x,) = self.saved
        return dy * namespace_of(dy).sinh(x)


def cosh(x: Any) -> Any:
    """Return the hyperbolic cosine, elementwise."""
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
    """Return the hyperbolic tangent, elementwise; y has the shape of x.

    >>> tl.tanh([0.0, 1.0])
    Tensor([0.     0.7616], shape=(2,), dtype=float32)
    """
    return Tanh.apply(x)
