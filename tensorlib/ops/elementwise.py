"""Functions of one input, elementwise."""

from __future__ import annotations

import math
from typing import Any

from tensorlib.backend import Array, namespace_of
from tensorlib.function import Function
from tensorlib.ops.common import plain

__all__ = [
    "abs", "exp", "gelu", "isfinite", "log", "relu", "rsqrt", "sigmoid", "sign", "sqrt", "square", "tanh",
]  # fmt: skip


class Exp(Function):
    """y = exp(x)  =>  dx = dy y."""

    def forward(self, x: Array) -> Array:
        y = namespace_of(x).exp(x)
        self.save(y)
        return y

    def backward(self, dy: Array) -> Any:
        (y,) = self.saved
        return dy * y


def exp(x: Any) -> Any:
    """Return e^x, elementwise."""
    return Exp.apply(x)


class Log(Function):
    """y = log(x)  =>  dx = dy / x."""

    def forward(self, x: Array) -> Array:
        self.save(x)
        return namespace_of(x).log(x)

    def backward(self, dy: Array) -> Any:
        (x,) = self.saved
        return dy / x


def log(x: Any) -> Any:
    """Return the natural logarithm, elementwise."""
    return Log.apply(x)


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
        return x * x

    def backward(self, dy: Array) -> Any:
        (x,) = self.saved
        return 2 * dy * x


def square(x: Any) -> Any:
    """Return x^2, elementwise."""
    return Square.apply(x)


class Abs(Function):
    """y = |x|  =>  dx = dy sign(x), 0 at x = 0."""

    def forward(self, x: Array) -> Array:
        self.save(x)
        return namespace_of(x).abs(x)

    def backward(self, dy: Array) -> Any:
        (x,) = self.saved
        return dy * namespace_of(x).sign(x)


def abs(x: Any) -> Any:
    """Return the absolute value, elementwise."""
    return Abs.apply(x)


def sign(x: Any) -> Any:
    """Return -1, 0 or 1 by the sign of x, elementwise. Its gradient is zero, so it carries none."""
    return plain("sign", x)


class Tanh(Function):
    """y = tanh(x)  =>  dx = dy (1 - y^2)."""

    def forward(self, x: Array) -> Array:
        y = namespace_of(x).tanh(x)
        self.save(y)
        return y

    def backward(self, dy: Array) -> Any:
        (y,) = self.saved
        return dy * (1 - y * y)


def tanh(x: Any) -> Any:
    """Return the hyperbolic tangent, elementwise."""
    return Tanh.apply(x)


class Sigmoid(Function):
    """y = 1 / (1 + e^-x)  =>  dx = dy y (1 - y).

    Computed from e = e^-|x|, which cannot overflow: 1 / (1 + e) on the right, e / (1 + e) on the left.
    """

    def forward(self, x: Array) -> Array:
        xp = namespace_of(x)
        e = xp.exp(-xp.abs(x))
        y = xp.where(x >= 0, xp.ones_like(e), e) / (1 + e)
        self.save(y)
        return y

    def backward(self, dy: Array) -> Any:
        (y,) = self.saved
        return dy * y * (1 - y)


def sigmoid(x: Any) -> Any:
    """Return the logistic function 1 / (1 + e^-x), elementwise."""
    return Sigmoid.apply(x)


class Relu(Function):
    """y = max(x, 0)  =>  dx = dy where x > 0, else 0 (also at 0)."""

    def forward(self, x: Array) -> Array:
        y = namespace_of(x).maximum(x, 0)
        self.save(y)  # y > 0 exactly where x > 0, so x may be freed
        return y

    def backward(self, dy: Array) -> Any:
        (y,) = self.saved
        return namespace_of(dy).where(y > 0, dy, 0)  # and not dy * (y > 0): an infinite dy times 0 would be NaN


def relu(x: Any) -> Any:
    """Return max(x, 0), elementwise (Nair and Hinton 2010)."""
    return Relu.apply(x)


class Gelu(Function):
    """y = x (1 + tanh u) / 2 with u = sqrt(2/pi) (x + 0.044715 x^3).

    dy/dx = (1 + tanh u) / 2 + x (1 - tanh^2 u) / 2 · du/dx,  du/dx = sqrt(2/pi) (1 + 3 · 0.044715 x^2).
    """

    def forward(self, x: Array) -> Array:
        self.save(x)
        return 0.5 * x * (1 + namespace_of(x).tanh(_GELU_SCALE * (x + _GELU_CUBIC * x * x * x)))

    def backward(self, dy: Array) -> Any:
        (x,) = self.saved
        t = namespace_of(x).tanh(_GELU_SCALE * (x + _GELU_CUBIC * x * x * x))
        slope = _GELU_SCALE * (1 + 3 * _GELU_CUBIC * x * x)
        return dy * (0.5 * (1 + t) + 0.5 * x * (1 - t * t) * slope)


_GELU_SCALE = math.sqrt(2 / math.pi)
_GELU_CUBIC = 0.044715


def gelu(x: Any) -> Any:
    """Return the Gaussian error linear unit in its tanh form, elementwise (Hendrycks and Gimpel 2016, section 2)."""
    return Gelu.apply(x)


def isfinite(x: Any) -> Any:
    """Return True where x is neither infinite nor NaN, elementwise."""
    return plain("isfinite", x)
