"""Dropout, which remembers how its mask was drawn and not the mask."""

from __future__ import annotations

import math
from functools import singledispatch
from typing import Any

from tensorlib.backend import Array, backend_of, namespace_of
from tensorlib.diagnosis import called_op
from tensorlib.function import Function, as_tensor
from tensorlib.messages import shown
from tensorlib.ops.creation import real
from tensorlib.random import Generator, default_generator

__all__ = ["dropout"]

_LEVELS = 1 << 16  # a mask is drawn from 16 random bits an element: p is rounded to a multiple of 1/65536


class Dropout(Function):
    """y = x · m with m = 1/(1-p) with probability 1-p, else 0 (Srivastava et al. 2014)  =>  dx = dy · m.

    The op is linear, so its gradient is the op itself with the same mask, drawn again from (key, draw).
    """

    def forward(self, x: Array, p: float, key: int, draw: int) -> Array:
        self.p, self.key, self.draw = p, key, draw
        dropped = min(round(p * _LEVELS), _LEVELS - 1)
        bits = backend_of(x).random_bits(key, draw, math.prod(x.shape)).reshape(x.shape)
        return dropout_formula(x, bits >= dropped, _LEVELS / (_LEVELS - dropped))

    def backward(self, dy: Array) -> Any:
        return Dropout.run(dy, p=self.p, key=self.key, draw=self.draw)


@singledispatch
def dropout_formula(x: Array, kept: Array, scale: float) -> Array:
    """Choose, where a product with the mask would make NaN of an infinite x times 0."""
    return namespace_of(x).where(kept, x * scale, 0)


def checked_probability(name: str, what: str, p: Any) -> float:
    """Return how much is dropped, a number in [0, 1)."""
    p = real(name, what, p)
    if not 0 <= p < 1:
        raise ValueError(f"{name}: {what} must lie in [0, 1), got {p}")
    return p


def dropout(x: Any, p: float, generator: Generator | None = None) -> Any:
    """Zero each element with probability `p` and scale the others by 1/(1-p), so that the mean stays.

    Draws once from `generator`, or from the default one that ``tl.seed`` sets.
    """
    p = checked_probability("dropout", "p", p)
    if generator is not None and not isinstance(generator, Generator):
        raise TypeError(
            f"{called_op('dropout')}: generator must be a tl.Generator, as tl.Generator(seed); got {shown(generator)}"
        )
    x = as_tensor(x)
    if x.dtype.kind != "f":
        raise TypeError(f"dropout: x must be of a floating dtype, got {x.dtype}")
    if p == 0:
        return x
    key, draw = (default_generator() if generator is None else generator).next_draw()
    return Dropout.apply(x, p=p, key=key, draw=draw)
