"""Exponentials and logarithms, elementwise, and the sigmoid and softplus that are made of them."""

from __future__ import annotations

import math
from typing import Any

from tensorlib.arrays.backend import Array, namespace_of
from tensorlib.engine.function import Function
from tensorlib.ops.arguments import as_floating, namespace_among

__all__ = [
    "exp", "exp2", "expm1", "log", "log1p", "log2", "log10", "log_sigmoid", "logaddexp", "sigmoid", "softplus",
]  # fmt: skip

_LOG_2, _LOG_10 = math.log(2), math.log(10)


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


class Exp2(Function):
    """y = 2^x  =>  dx = dy y log 2."""

    def forward(self, x: Array) -> Array:
        y = namespace_of(x).exp2(x)
        self.save(y)
        return y

    def backward(self, dy: Array) -> Any:
        (y,) = self.saved
        return dy * y * _LOG_2


def exp2(x: Any) -> Any:
    """Return 2^x, elementwise."""
    return Exp2.apply(x)


class Expm1(Function):
    """y = exp(x) - 1  =>  dx = dy exp(x); not dy (y + 1), which has no digits left far below 0."""

    def forward(self, x: Array) -> Array:
        self.save(x)
        return namespace_of(x).expm1(x)

    def backward(self, dy: Array) -> Any:
        (x,) = self.saved
        return dy * namespace_of(dy).exp(x)


def expm1(x: Any) -> Any:
    """Return e^x - 1, elementwise, with all digits also where x is small."""
    return Expm1.apply(x)


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


class Log2(Function):
    """y = log(x) / log(2)  =>  dx = dy / (x log 2)."""

    def forward(self, x: Array) -> Array:
        self.save(x)
        return namespace_of(x).log2(x)

    def backward(self, dy: Array) -> Any:
        (x,) = self.saved
        return dy / (x * _LOG_2)


def log2(x: Any) -> Any:
    """Return the logarithm to base 2, elementwise."""
    return Log2.apply(x)


class Log10(Function):
    """y = log(x) / log(10)  =>  dx = dy / (x log 10)."""

    def forward(self, x: Array) -> Array:
        self.save(x)
        return namespace_of(x).log10(x)

    def backward(self, dy: Array) -> Any:
        (x,) = self.saved
        return dy / (x * _LOG_10)


def log10(x: Any) -> Any:
    """Return the logarithm to base 10, elementwise."""
    return Log10.apply(x)


class Log1p(Function):
    """y = log(1 + x)  =>  dx = dy / (1 + x)."""

    def forward(self, x: Array) -> Array:
        self.save(x)
        return namespace_of(x).log1p(x)

    def backward(self, dy: Array) -> Any:
        (x,) = self.saved
        return dy / (1 + x)


def log1p(x: Any) -> Any:
    """Return log(1 + x), elementwise, with all digits also where x is small."""
    return Log1p.apply(x)


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
    return Sigmoid.apply(as_floating(x))


class Logaddexp(Function):
    """z = log(e^x + e^y)  =>  dx = dz e^x / (e^x + e^y) = dz sigmoid(x - y), and dy = dz sigmoid(y - x)."""

    broadcasts = True

    def forward(self, x: Array, y: Array) -> Array:
        self.save(x, y)
        return namespace_among(x, y).logaddexp(x, y)

    def backward(self, dz: Array) -> Any:
        x, y = self.saved
        return dz * share(x, y) if self.needs[0] else None, dz * share(y, x) if self.needs[1] else None


def share(x: Array, y: Array) -> Array:
    """Return sigmoid(x - y); for two infinities, whose difference is not defined, 1/2 at inf and 0 at -inf.

    The latter as logsumexp has it, whose gradient is 0 where nothing but -inf was added.
    """
    xp = namespace_of(x)
    alike = (x == y) & (abs(x) == math.inf)
    return Sigmoid.run(xp.where(alike, xp.minimum(x, 0), xp.where(alike, 0, x) - y))


def logaddexp(x: Any, y: Any) -> Any:
    """Return log(e^x + e^y), elementwise, without overflow."""
    return Logaddexp.apply(x, y)


class Softplus(Function):
    """y = log(1 + e^x) = max(x, 0) + log(1 + e^-|x|), which cannot overflow  =>  dx = dy sigmoid(x).

    logaddexp(x, 0) is the same, but NumPy's takes some twenty times as long.
    """

    def forward(self, x: Array) -> Array:
        self.save(x)
        xp = namespace_of(x)
        return xp.maximum(x, 0) + xp.log1p(xp.exp(-abs(x)))

    def backward(self, dy: Array) -> Any:
        (x,) = self.saved
        return dy * Sigmoid.run(x)


def softplus(x: Any) -> Any:
    """Return log(1 + e^x), elementwise, without overflow: a smooth relu (Dugas et al. 2001)."""
    return Softplus.apply(as_floating(x))


def log_sigmoid(x: Any) -> Any:
    """Return log(sigmoid(x)) = -log(1 + e^-x), elementwise, without overflow: near x far below 0."""
    return -softplus(-as_floating(x))
