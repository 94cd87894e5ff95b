"""Running sums and products along an axis.

Like NumPy's, these functions flatten x if no axis is given.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from tensorlib.arrays.backend import Array, namespace_of
from tensorlib.arrays.shapes import along
from tensorlib.engine.function import Function, as_tensor, derivation
from tensorlib.ops.arguments import as_floating, at_least_float32, normalized_axis
from tensorlib.ops.exponential import share

if TYPE_CHECKING:
    from tensorlib.engine.value import TensorLike
    from tensorlib.tensor import Tensor

__all__ = ["cumprod", "cumsum", "logcumsumexp"]


class Cumsum(Function):
    """y_k = sum of x_i over i <= k  =>  dx_i = sum of dy_k over k >= i: the running sum from the other end.

    Keeps nothing.
    """

    def forward(self, x: Array, axis: int) -> Array:
        self.axis = axis
        return namespace_of(x).cumsum(x, axis=axis)

    def backward(self, dy: Array) -> Any:
        summed = namespace_of(dy).cumsum(reversed_along(dy, self.axis), axis=self.axis)
        return reversed_along(summed, self.axis)


@derivation(Cumsum)
@at_least_float32
def cumsum(x: TensorLike, axis: int | None = None) -> Tensor:
    """Return the running sum y_k = x_0 + ... + x_k along `axis`, in the shape of x; by default x is flattened.

    >>> tl.cumsum([[1.0, 2.0], [3.0, 4.0]], axis=0)
    Tensor([[1. 2.]
            [4. 6.]], shape=(2, 2), dtype=float32)
    """
    x, axis = _flat_or_axis(x, axis, "cumsum")
    return Cumsum.apply(x, axis=axis)


class Cumprod(Function):
    """y_k = product of x_j over j <= k.

    dx_i = sum over k >= i of dy_k · product of x_j over j <= k, j != i
    =>  dx_i = (product of x_j over j < i) · s_i   with   s_i = dy_i + x_{i+1} s_{i+1}.

    Nothing is divided by x, so this is exact at zeros, and so are derivatives of every order.

    Keeps x.
    """

    def forward(self, x: Array, axis: int) -> Array:
        self.axis = axis
        self.save(x)
        return namespace_of(x).cumprod(x, axis=axis)

    def backward(self, dy: Array) -> Any:
        (x,) = self.saved
        return products_before(x, self.axis) * recurrence_from_the_end(dy, x, self.axis)


@derivation(Cumprod)
@at_least_float32
def cumprod(x: TensorLike, axis: int | None = None) -> Tensor:
    """Return the running product y_k = x_0 · ... · x_k along `axis`, in the shape of x; by default x is flattened.

    >>> tl.cumprod([1.0, 2.0, 3.0, 4.0])
    Tensor([ 1.  2.  6. 24.], shape=(4,), dtype=float32)
    """
    x, axis = _flat_or_axis(x, axis, "cumprod")
    return Cumprod.apply(x, axis=axis)


class Logcumsumexp(Function):
    """y_k = log sum of exp(x_i) over i <= k.

    dx_i = sum over k >= i of dy_k exp(x_i - y_k)
    =>  dx_i = exp(x_i - y_i) s_i   with   s_i = dy_i + exp(y_i - y_{i+1}) s_{i+1}.

    Since y_i = logaddexp(y_{i-1}, x_i), these exponentials are the shares of x_i and y_{i-1} in it, which do not depend
    on how y_i was rounded and are defined for infinities.

    Keeps x and y.
    """

    def forward(self, x: Array, axis: int) -> Array:
        xp = namespace_of(x)
        y = x.swapaxes(0, axis)
        step = 1
        while step < y.shape[0]:  # y_k covers the last `step` terms up to k, and y_{k-step} those before them
            y = xp.concatenate((y[:step], xp.logaddexp(y[step:], y[:-step])))
            step *= 2
        self.axis = axis
        y = y.swapaxes(0, axis).copy()
        self.save(x, y)
        return y

    def backward(self, dy: Array) -> Any:
        x, y = self.saved
        nothing = namespace_of(y).full_like(y[along(self.axis, slice(0, 1))], -math.inf)
        before = _moved_up(y, self.axis, nothing)
        return share(x, before) * recurrence_from_the_end(dy, share(before, x), self.axis)


@derivation(Logcumsumexp)
@at_least_float32
def logcumsumexp(x: TensorLike, axis: int | None = None) -> Tensor:
    """Return the logarithm of the running sum of exp(x) along `axis`, without overflow, and accurate far below 0.

    By default x is flattened. Integers and booleans give float64.

    >>> tl.logcumsumexp([0.0, 0.0, 1000.0])
    Tensor([0.0000e+00 6.9315e-01 1.0000e+03], shape=(3,), dtype=float32)
    """
    x, axis = _flat_or_axis(x, axis, "logcumsumexp")
    return Logcumsumexp.apply(as_floating(x), axis=axis)


# ---- the recurrence of both gradients ----------------------------------------------------------------------------


class Recurrence(Function):
    """y_k = x_k + a_k y_{k-1} along `axis`, from y_{-1} = 0.

    With s_k = dy_k + a_{k+1} s_{k+1}, the same recurrence from the other end  =>  dx_k = s_k,  da_k = s_k y_{k-1}.

    It is computed one step after another. Running products of a, or doubling, would need fewer and longer steps, but a
    product of several a may overflow although no y does.

    Keeps a and y.
    """

    def forward(self, x: Array, a: Array, axis: int) -> Array:
        self.axis = axis
        y = x.copy()
        along_y, along_a = y.swapaxes(0, axis), a.swapaxes(0, axis)
        for k in range(1, y.shape[axis]):
            along_y[k] += along_a[k] * along_y[k - 1]
        self.save(a, y)
        return y

    def backward(self, dy: Array) -> Any:
        a, y = self.saved
        s = recurrence_from_the_end(dy, a, self.axis)
        before = _moved_up(y, self.axis, namespace_of(y).zeros_like(y[along(self.axis, slice(0, 1))]))
        return s, s * before if self.needs[1] else None


def recurrence_from_the_end(x: Array, a: Array, axis: int) -> Array:
    """Return s with s_k = x_k + a_{k+1} s_{k+1}; the last s is the last x."""
    turned = reversed_along(a, axis)
    factors = _moved_up(turned, axis, turned[along(axis, slice(0, 1))])  # the first factor multiplies y_{-1} = 0
    return reversed_along(Recurrence.run(reversed_along(x, axis), factors, axis=axis), axis)


def products_before(x: Array, axis: int) -> Array:
    """Return the product of all elements before each one along `axis`; 1 for the first."""
    xp = namespace_of(x)
    return xp.cumprod(_moved_up(x, axis, xp.ones_like(x[along(axis, slice(0, 1))])), axis=axis)


def reversed_along(x: Array, axis: int) -> Array:
    """Return a view of x with one axis reversed."""
    return x[along(axis, slice(None, None, -1))]


def _moved_up(x: Array, axis: int, first: Array) -> Array:
    """Return x shifted by one position along `axis`: `first` is prepended and the last element dropped."""
    return namespace_of(x).concatenate((first, x[along(axis, slice(None, -1))]), axis=axis)


def _flat_or_axis(x: Any, axis: int | None, name: str) -> tuple[Tensor, int]:
    """Return the Tensor x and a non-negative axis; if `axis` is None, the flattened x and 0."""
    x = as_tensor(x)
    if axis is None:
        return x.reshape(-1), 0
    return x, normalized_axis(axis, x.ndim, name)
