"""Elementwise exponentials and logarithms, and the sigmoid and softplus built from them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from tensorlib.arrays.backend import Array, namespace_of
from tensorlib.engine.function import Function, derivation
from tensorlib.ops.arguments import as_floating, namespace_among

if TYPE_CHECKING:
    from tensorlib.engine.value import TensorLike
    from tensorlib.tensor import Tensor

__all__ = [
    "exp", "exp2", "expm1", "log", "log1p", "log2", "log10", "log_sigmoid", "logaddexp", "sigmoid", "softplus",
]  # fmt: skip

_LOG_2, _LOG_10 = math.log(2), math.log(10)


class Exp(Function):
    """y = exp(x)  =>  dx = dy y.

    Keeps y.
    """

    def forward(self, x: Array) -> Array:
        y = namespace_of(x).exp(x)
        self.save(y)
        return y

    def backward(self, dy: Array) -> Any:
        (y,) = self.saved
        return dy * y


@derivation(Exp)
def exp(x: TensorLike) -> Tensor:
    """Return e^x, elementwise.

    >>> tl.exp([-1.0, 0.0, 1.0])
    Tensor([0.3679 1.     2.7183], shape=(3,), dtype=float32)
    """
    return Exp.apply(x)


class Exp2(Function):
    """y = 2^x  =>  dx = dy y log 2.

    Keeps y.
    """

    def forward(self, x: Array) -> Array:
        y = namespace_of(x).exp2(x)
        self.save(y)
        return y

    def backward(self, dy: Array) -> Any:
        (y,) = self.saved
        return dy * y * _LOG_2


@derivation(Exp2)
def exp2(x: TensorLike) -> Tensor:
    """Return 2^x, elementwise.

    >>> tl.exp2([-1.0, 0.0, 3.0])
    Tensor([0.5 1.  8. ], shape=(3,), dtype=float32)
    """
    return Exp2.apply(x)


class Expm1(Function):
    """y = exp(x) - 1  =>  dx = dy exp(x); dy (y + 1) would lose all digits far below 0.

    Keeps x.
    """

    def forward(self, x: Array) -> Array:
        self.save(x)
        return namespace_of(x).expm1(x)

    def backward(self, dy: Array) -> Any:
        (x,) = self.saved
        return dy * namespace_of(dy).exp(x)


@derivation(Expm1)
def expm1(x: TensorLike) -> Tensor:
    """Return e^x - 1, elementwise, accurate even for small x.

    >>> tl.expm1([1e-10, 1.0])
    Tensor([1.0000e-10 1.7183e+00], shape=(2,), dtype=float32)
    """
    return Expm1.apply(x)


class Log(Function):
    """y = log(x)  =>  dx = dy / x.

    Keeps x.
    """

    def forward(self, x: Array) -> Array:
        self.save(x)
        return namespace_of(x).log(x)

    def backward(self, dy: Array) -> Any:
        (x,) = self.saved
        return dy / x


@derivation(Log)
def log(x: TensorLike) -> Tensor:
    """Return the natural logarithm, elementwise; it is -inf at 0 and NaN below 0.

    >>> tl.log([1.0, 10.0])
    Tensor([0.     2.3026], shape=(2,), dtype=float32)
    """
    return Log.apply(x)


class Log2(Function):
    """y = log(x) / log(2)  =>  dx = dy / (x log 2).

    Keeps x.
    """

    def forward(self, x: Array) -> Array:
        self.save(x)
        return namespace_of(x).log2(x)

    def backward(self, dy: Array) -> Any:
        (x,) = self.saved
        return dy / x / _LOG_2


@derivation(Log2)
def log2(x: TensorLike) -> Tensor:
    """Return the logarithm to base 2, elementwise; it is -inf at 0 and NaN below 0.

    >>> tl.log2([0.5, 8.0])
    Tensor([-1.  3.], shape=(2,), dtype=float32)
    """
    return Log2.apply(x)


class Log10(Function):
    """y = log(x) / log(10)  =>  dx = dy / (x log 10).

    Keeps x.
    """

    def forward(self, x: Array) -> Array:
        self.save(x)
        return namespace_of(x).log10(x)

    def backward(self, dy: Array) -> Any:
        (x,) = self.saved
        return dy / x / _LOG_10  # x log 10 could overflow


@derivation(Log10)
def log10(x: TensorLike) -> Tensor:
    """Return the logarithm to base 10, elementwise; it is -inf at 0 and NaN below 0.

    >>> tl.log10([0.1, 1000.0])
    Tensor([-1.  3.], shape=(2,), dtype=float32)
    """
    return Log10.apply(x)


class Log1p(Function):
    """y = log(1 + x)  =>  dx = dy / (1 + x).

    Keeps x.
    """

    def forward(self, x: Array) -> Array:
        self.save(x)
        return namespace_of(x).log1p(x)

    def backward(self, dy: Array) -> Any:
        (x,) = self.saved
        return dy / (1 + x)


@derivation(Log1p)
def log1p(x: TensorLike) -> Tensor:
    """Return log(1 + x), elementwise, accurate even for small x.

    >>> tl.log1p([1e-10, 1.0])
    Tensor([1.0000e-10 6.9315e-01], shape=(2,), dtype=float32)
    """
    return Log1p.apply(x)


class Sigmoid(Function):
    """y = 1 / (1 + e^-x)  =>  dx = dy y (1 - y).

    It is computed from e = e^-|x|, which cannot overflow: 1 / (1 + e) for x >= 0, e / (1 + e) for x < 0.

    Keeps y.
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


@derivation(Sigmoid)
def sigmoid(x: TensorLike) -> Tensor:
    """Return the logistic function 1 / (1 + e^-x), elementwise. Integers and booleans give float64.

    >>> tl.sigmoid([-1000.0, 0.0, 1.0])
    Tensor([0.     0.5    0.7311], shape=(3,), dtype=float32)
    """
    return Sigmoid.apply(as_floating(x))


class Logaddexp(Function):
    """z = log(e^x + e^y)  =>  dx = dz e^x / (e^x + e^y) = dz sigmoid(x - y), and dy = dz sigmoid(y - x).

    Keeps x and y.
    """

    broadcasts = True

    def forward(self, x: Array, y: Array) -> Array:
        self.save(x, y)
        return namespace_among(x, y).logaddexp(x, y)

    def backward(self, dz: Array) -> Any:
        x, y = self.saved
        return dz * share(x, y) if self.needs[0] else None, dz * share(y, x) if self.needs[1] else None


def share(x: Array, y: Array) -> Array:
    """Return sigmoid(x - y); for two equal infinities, whose difference is undefined, return 1/2 at inf and 0 at -inf.

    The 0 agrees with logsumexp, whose gradient is 0 where all terms are -inf.
    """
    xp = namespace_of(x)
    alike = (x == y) & (abs(x) == math.inf)
    return Sigmoid.run(xp.where(alike, xp.minimum(x, 0), xp.where(alike, 0, x) - y))


@derivation(Logaddexp)
def logaddexp(x: TensorLike, y: TensorLike) -> Tensor:
    """Return log(e^x + e^y), elementwise, without overflow; x and y broadcast.

    >>> tl.logaddexp([0.0, 1000.0], 0.0)
    Tensor([6.9315e-01 1.0000e+03], shape=(2,), dtype=float32)
    """
    return Logaddexp.apply(x, y)


class Softplus(Function):
    """y = log(1 + e^x) = max(x, 0) + log(1 + e^-|x|), which cannot overflow  =>  dx = dy sigmoid(x).

    logaddexp(x, 0) is equal, but NumPy's logaddexp takes about twenty times as long.

    Keeps x.
    """

    def forward(self, x: Array) -> Array:
        self.save(x)
        xp = namespace_of(x)
        return xp.maximum(x, 0) + xp.log1p(xp.exp(-abs(x)))

    def backward(self, dy: Array) -> Any:
        (x,) = self.saved
        return dy * Sigmoid.run(x)


@derivation(Softplus)
def softplus(x: TensorLike) -> Tensor:
    """Return log(1 + e^x), elementwise, without overflow: a smooth relu (Dugas et al. 2001).

    Integers and booleans give float64.

    >>> tl.softplus([-10.0, 0.0, 10.0])
    Tensor([4.5399e-05 6.9315e-01 1.0000e+01], shape=(3,), dtype=float32)
    """
    return Softplus.apply(as_floating(x))


def log_sigmoid(x: TensorLike) -> Tensor:
    """Return log(sigmoid(x)) = -log(1 + e^-x), elementwise, without overflow; far below 0 it is close to x.

    Integers and booleans give float64.

    >>> tl.log_sigmoid([-1000.0, 0.0, 10.0])
    Tensor([-1.0000e+03 -6.9315e-01 -4.5399e-05], shape=(3,), dtype=float32)

    Composed of `softplus` and signs: y = -softplus(-x)  =>  dx = dy sigmoid(-x).
    """
    return -softplus(-as_floating(x))
