"""The feed-forward sub-layer of a Transformer in one op."""

from __future__ import annotations

from functools import singledispatch
from typing import TYPE_CHECKING, Any

from tensorlib.arrays.backend import Array
from tensorlib.engine.function import STATE, Function, as_tensor, derivation
from tensorlib.ops.dropout import checked_probability, dropout_scale, next_draw
from tensorlib.ops.linear import (
    Linear,
    LinearRelu,
    linear_formula,
    linear_gradient,
    linear_operands,
    linear_relu_formula,
    linear_relu_gradient,
)

if TYPE_CHECKING:
    from tensorlib.arrays.random import Generator
    from tensorlib.engine.value import TensorLike
    from tensorlib.tensor import Tensor

__all__ = ["feed_forward"]


class FeedForward(Function):
    """y = h w2 + b2 with h = max(x w1 + b1, 0) · m and dropout's mask m (Vaswani et al. 2017, equation 2).

    With z = x w1 + b1  =>  dh = dy w2^T, dw2 = h^T dy, db2 = sum of dy; dz = dh / (1-p) where h > 0, else 0;
    dx = dz w1^T, dw1 = x^T dz, db1 = sum of dz.

    Keeps x, w1, b1 and w2; statistics: h.
    Kernels: numba/feed_forward.py, cuda/feed_forward.py.
    """

    fresh = True

    def forward(self, x: Array, w1: Array, b1: Array, w2: Array, b2: Array, p: float, key: int, draw: int) -> Array:
        self.p, self.key, self.draw = p, key, draw
        y, self.statistics = feed_forward_formula(x, w1, b1, w2, b2, p, key, draw)
        self.save(x, w1, b1, w2)
        return y

    def backward(self, dy: Array) -> Any:
        x, w1, b1, w2 = self.saved
        h = self.statistics
        if h is None:
            h = LinearRelu.run(x, w1, b1, p=self.p, key=self.key, draw=self.draw)
        return feed_forward_gradient(dy, x, w1, h, w2, dropout_scale(self.p) if self.p else 1.0, self.needs)


@singledispatch
def feed_forward_formula(
    x: Array, w1: Array, b1: Array, w2: Array, b2: Array, p: float, key: int, draw: int
) -> tuple[Array, Array]:
    """Return y and, for the gradient, h."""
    h = linear_relu_formula(x, w1, b1, p, key, draw)
    return linear_formula(h, w2, b2), h


@singledispatch
def feed_forward_gradient(
    dy: Array, x: Array, w1: Array, h: Array, w2: Array, scale: float, needs: tuple[bool, ...]
) -> tuple[Array | None, ...]:
    """Return dx, dw1, db1, dw2 and db2; each is None if it is not needed."""
    inner = any(needs[:3])
    dh, dw2, db2 = linear_gradient(dy, h, w2, (inner, needs[3], needs[4]))
    if dh is None:
        return None, None, None, dw2, db2
    dz = linear_relu_gradient(dh, h, scale)
    dx, dw1, db1 = linear_gradient(dz, x, w1, needs[:3])
    return dx, dw1, db1, dw2, db2


@derivation(FeedForward)
def feed_forward(
    x: TensorLike,
    w1: TensorLike,
    b1: TensorLike,
    w2: TensorLike,
    b2: TensorLike,
    dropout: float = 0.0,
    generator: Generator | None = None,
) -> Tensor:
    """Return dropout(relu(x w1 + b1)) w2 + b2 for x (..., D), w1 (D, F), b1 (F,), w2 (F, E) and b2 (E,): (..., E).

    It computes ``tl.linear(tl.linear_relu(x, w1, b1, dropout), w2, b2)`` as one op; within `tl.record_formulas` and
    `tl.debug` it records these two. `dropout` and `generator` are as in `tl.dropout`.

    Raises ValueError if the shapes do not fit.

    >>> tl.feed_forward([[1.0, 2.0]], [[1.0, -1.0], [1.0, -1.0]], [0.0, 0.0], [[2.0], [2.0]], [0.5])
    Tensor([[6.5]], shape=(1, 1), dtype=float32)
    """
    p = checked_probability("feed_forward", "dropout", dropout)
    x = as_tensor(x)
    x, w1, b1 = linear_operands("feed_forward", x, w1, as_tensor(b1, like=x))
    _, w2, b2 = linear_operands("feed_forward", b1, w2, as_tensor(b2, like=x))  # b1 has the width of h
    key, draw = next_draw("feed_forward", p, generator)
    if STATE.get().formulas:
        return Linear.apply(LinearRelu.apply(x, w1, b1, p=p, key=key, draw=draw), w2, b2)
    return FeedForward.apply(x, w1, b1, w2, b2, p=p, key=key, draw=draw)
