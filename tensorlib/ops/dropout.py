"""Dropout, which remembers how its mask was drawn and not the mask."""

from __future__ import annotations

import math
from functools import singledispatch
from typing import Any

from tensorlib.arrays.backend import Array, backend_of, namespace_of
from tensorlib.arrays.random import Generator, default_generator
from tensorlib.engine.errors import called_op
from tensorlib.engine.function import Function, as_tensor
from tensorlib.messages import shown
from tensorlib.ops.arguments import checked_real

__all__ = ["add_dropout", "dropout"]

_LEVELS = 1 << 16  # a mask is drawn from 16 random bits an element: p is rounded to a multiple of 1/65536


class Dropout(Function):
    """y = x · m with m = 1/(1-p) with probability 1-p, else 0 (Srivastava et al. 2014)  =>  dx = dy · m.

    The op is linear, so its gradient is the op itself with the same mask, drawn again from (key, draw).
    """

    def forward(self, x: Array, p: float, key: int, draw: int) -> Array:
        self.p, self.key, self.draw = p, key, draw
        return dropout_formula(x, p, key, draw)

    def backward(self, dy: Array) -> Any:
        return Dropout.run(dy, p=self.p, key=self.key, draw=self.draw)


@singledispatch
def dropout_formula(x: Array, p: float, key: int, draw: int) -> Array:
    """Choose, where a product with the mask would make NaN of an infinite x times 0."""
    bits = backend_of(x).random_bits(key, draw, math.prod(x.shape)).reshape(x.shape)
    return namespace_of(x).where(bits >= dropped_levels(p), x * dropout_scale(p), 0)


def dropped_levels(p: float) -> int:
    """Return below which number of 16 random bits an element is dropped."""
    return min(round(p * _LEVELS), _LEVELS - 1)


def dropout_scale(p: float) -> float:
    """Return what the elements that stay are multiplied by: 1 / (1-p), with p as it was rounded."""
    return _LEVELS / (_LEVELS - dropped_levels(p))


class AddDropout(Function):
    """z = x + y · m, with dropout's mask m  =>  dx = dz, dy = dz · m."""

    def forward(self, x: Array, y: Array, p: float, key: int, draw: int) -> Array:
        self.p, self.key, self.draw = p, key, draw
        return add_dropout_formula(x, y, p, key, draw)

    def backward(self, dz: Array) -> Any:
        return dz, Dropout.run(dz, p=self.p, key=self.key, draw=self.draw) if self.needs[1] else None


@singledispatch
def add_dropout_formula(x: Array, y: Array, p: float, key: int, draw: int) -> Array:
    return x + Dropout.run(y, p=p, key=key, draw=draw)


def checked_probability(name: str, what: str, p: Any) -> float:
    """Return how much is dropped, a number in [0, 1)."""
    p = checked_real(name, what, p)
    if not 0 <= p < 1:
        raise ValueError(f"{name}: {what} must lie in [0, 1), got {p}")
    return p


def next_draw(name: str, p: float, generator: Generator | None) -> tuple[int, int]:
    """Return (key, draw) for a mask from `generator`, or from the default one; nothing is drawn where p is 0."""
    if generator is not None and not isinstance(generator, Generator):
        raise TypeError(
            f"{called_op(name)}: generator must be a tl.Generator, as tl.Generator(seed); got {shown(generator)}"
        )
    if not p:
        return 0, 0
    return (default_generator() if generator is None else generator).next_draw()


def dropout(x: Any, p: float, generator: Generator | None = None) -> Any:
    """Zero each element with probability `p` and scale the others by 1/(1-p), so that the mean stays.

    Draws once from `generator`, or from the default one that ``tl.seed`` sets.
    """
    p = checked_probability("dropout", "p", p)
    x = _floating("dropout", x)
    key, draw = next_draw("dropout", p, generator)
    return Dropout.apply(x, p=p, key=key, draw=draw) if p else x


def add_dropout(x: Any, y: Any, p: float, generator: Generator | None = None) -> Any:
    """Return x + dropout(y, p): a residual connection, with dropout on what is added (Vaswani et al. 2017, 5.4)."""
    p = checked_probability("add_dropout", "p", p)
    x = _floating("add_dropout", x)
    y = _floating("add_dropout", as_tensor(y, like=x), "y")
    if x.shape != y.shape:
        raise ValueError(f"add_dropout: x and y must have one shape, got {x.shape} and {y.shape}")
    key, draw = next_draw("add_dropout", p, generator)
    return AddDropout.apply(x, y, p=p, key=key, draw=draw) if p else x + y


def _floating(name: str, x: Any, what: str = "x") -> Any:
    x = as_tensor(x)
    if x.dtype.kind != "f":
        raise TypeError(f"{name}: {what} must be of a floating dtype, got {x.dtype}")
    return x
