"""Dropout. It stores no mask, only the generator's key and counter, from which the mask can be drawn again."""

from __future__ import annotations

import math
from functools import singledispatch
from typing import TYPE_CHECKING, Any

from tensorlib.arrays.backend import Array, backend_of, namespace_of
from tensorlib.arrays.random import Generator, default_generator
from tensorlib.engine.errors import called_op
from tensorlib.engine.function import Function, as_tensor, derivation
from tensorlib.messages import shown
from tensorlib.ops.arguments import checked_floating, checked_real

if TYPE_CHECKING:
    from tensorlib.engine.value import TensorLike
    from tensorlib.tensor import Tensor

__all__ = ["add_dropout", "dropout"]

_LEVELS = 1 << 16  # a mask takes 16 random bits per element, so p is rounded to a multiple of 1/65536


class Dropout(Function):
    """y = x · m with m = 1/(1-p) with probability 1-p, else 0 (Srivastava et al. 2014)  =>  dx = dy · m.

    The op is linear, so its gradient is the op itself with the same mask, drawn again from (key, draw).

    Keeps nothing.
    Kernels: numpy/dropout.py, numba/dropout.py, cuda/dropout.py.
    """

    def forward(self, x: Array, p: float, key: int, draw: int) -> Array:
        self.p, self.key, self.draw = p, key, draw
        return dropout_formula(x, p, key, draw)

    def backward(self, dy: Array) -> Any:
        return Dropout.run(dy, p=self.p, key=self.key, draw=self.draw)


@singledispatch
def dropout_formula(x: Array, p: float, key: int, draw: int) -> Array:
    """Return x · m by selecting, not multiplying: an infinite x times 0 would be NaN."""
    bits = backend_of(x).random_bits(key, draw, math.prod(x.shape)).reshape(x.shape)
    return namespace_of(x).where(bits >= dropped_levels(p), x * dropout_scale(p), 0)


def dropped_levels(p: float) -> int:
    """Return the threshold for 16 random bits: an element is dropped if its bits are below it."""
    return min(round(p * _LEVELS), _LEVELS - 1)


def dropout_scale(p: float) -> float:
    """Return the factor for the elements that remain: 1 / (1-p), for p rounded to a multiple of 1/65536."""
    return _LEVELS / (_LEVELS - dropped_levels(p))


class AddDropout(Function):
    """z = x + y · m, with the mask m of Dropout  =>  dx = dz, dy = dz · m.

    Keeps nothing.
    Kernels: numpy/dropout.py, numba/dropout.py, cuda/dropout.py.
    """

    def forward(self, x: Array, y: Array, p: float, key: int, draw: int) -> Array:
        self.p, self.key, self.draw = p, key, draw
        return add_dropout_formula(x, y, p, key, draw)

    def backward(self, dz: Array) -> Any:
        return dz, Dropout.run(dz, p=self.p, key=self.key, draw=self.draw) if self.needs[1] else None


@singledispatch
def add_dropout_formula(x: Array, y: Array, p: float, key: int, draw: int) -> Array:
    return x + Dropout.run(y, p=p, key=key, draw=draw)


def checked_probability(name: str, what: str, p: Any) -> float:
    """Return the probability of dropping an element, a number in [0, 1)."""
    p = checked_real(name, what, p)
    if not 0 <= p < 1:
        raise ValueError(f"{name}: {what} must lie in [0, 1), got {p}")
    return p


def next_draw(name: str, p: float, generator: Generator | None) -> tuple[int, int]:
    """Return (key, draw) for a mask from `generator`, or from the default generator; if p is 0, nothing is drawn."""
    if generator is not None and not isinstance(generator, Generator):
        raise TypeError(
            f"{called_op(name)}: generator must be a tl.Generator, such as tl.Generator(seed); got {shown(generator)}"
        )
    if not p:
        return 0, 0
    return (default_generator() if generator is None else generator).next_draw()


@derivation(Dropout)
def dropout(x: TensorLike, p: float, generator: Generator | None = None) -> Tensor:
    """Return x with elements zeroed with probability `p` and the rest scaled by 1/(1-p): the expected result is x.

    It makes one draw from `generator`, or from the default generator, which ``tl.seed`` sets. Raises TypeError unless x
    has a floating dtype, and ValueError unless 0 <= p < 1.

    >>> tl.dropout(tl.ones(6), 0.5, tl.Generator(0))
    Tensor([2. 0. 2. 0. 2. 2.], shape=(6,), dtype=float32)
    """
    p = checked_probability("dropout", "p", p)
    x = checked_floating("dropout", "x", x)
    key, draw = next_draw("dropout", p, generator)
    return Dropout.apply(x, p=p, key=key, draw=draw) if p else x


@derivation(AddDropout)
def add_dropout(x: TensorLike, y: TensorLike, p: float, generator: Generator | None = None) -> Tensor:
    """Return x + dropout(y, p): a residual connection with dropout on its branch (Vaswani et al. 2017, section 5.4).

    x and y must have the same shape and a floating dtype; the other arguments are as in `dropout`.

    >>> tl.add_dropout(tl.ones(6), tl.ones(6), 0.5, tl.Generator(0))
    Tensor([3. 1. 3. 1. 3. 3.], shape=(6,), dtype=float32)
    """
    p = checked_probability("add_dropout", "p", p)
    x = checked_floating("add_dropout", "x", x)
    y = checked_floating("add_dropout", "y", as_tensor(y, like=x))
    if x.shape != y.shape:
        raise ValueError(f"add_dropout: x and y must have the same shape, got {x.shape} and {y.shape}")
    key, draw = next_draw("add_dropout", p, generator)
    return AddDropout.apply(x, y, p=p, key=key, draw=draw) if p else x + y
