"""The residual connection around a sub-layer of a Transformer, and its normalization, in one op."""

from __future__ import annotations

from functools import singledispatch
from typing import TYPE_CHECKING, Any

from tensorlib.arrays.backend import Array
from tensorlib.engine.function import STATE, Function, as_tensor, derivation
from tensorlib.ops.arguments import at_least_float32, checked_floating
from tensorlib.ops.dropout import AddDropout, Dropout, checked_probability, next_draw
from tensorlib.ops.normalize import (
    LayerNorm,
    checked_eps,
    feature_vectors,
    layer_norm_formula,
    layer_norm_gradient,
    layer_norm_statistics,
)

if TYPE_CHECKING:
    from tensorlib.arrays.random import Generator
    from tensorlib.engine.value import TensorLike
    from tensorlib.tensor import Tensor

__all__ = ["add_norm"]


class AddNorm(Function):
    """y = LayerNorm(z) · weight + bias with z = x + s · m and dropout's mask m (Vaswani et al. 2017, section 5.4).

    dz, dweight and dbias are those of LayerNorm at z  =>  dx = dz, ds = dz · m. Backward computes z again, which costs
    no more than the mask, and so z is not kept.

    Keeps x, s and weight; statistics: mean, 1/std.
    Kernels: numba/add_norm.py, cuda/add_norm.py.
    """

    def forward(
        self, x: Array, s: Array, weight: Array, bias: Array, eps: float, drop: tuple[float, int, int]
    ) -> Array:
        self.eps, self.drop = eps, drop
        y, self.statistics = add_norm_formula(x, s, weight, bias, eps, drop)
        self.save(x, s, weight)
        return y

    def backward(self, dy: Array) -> Any:
        x, s, weight = self.saved
        kept = self.statistics or layer_norm_statistics(residual_sum(x, s, self.drop), self.eps)
        return add_norm_gradient(dy, x, s, weight, kept, self.drop, self.needs)


def residual_sum(x: Array, s: Array, drop: tuple[float, int, int]) -> Array:
    """Return x + dropout(s), for arrays or for Tensors."""
    p, key, draw = drop
    return AddDropout.run(x, s, p=p, key=key, draw=draw) if p else x + s


@singledispatch
def add_norm_formula(
    x: Array, s: Array, weight: Array, bias: Array, eps: float, drop: tuple[float, int, int]
) -> tuple[Array, tuple[Array, Array]]:
    """Return y and, for the gradient, the statistics of z."""
    return layer_norm_formula(residual_sum(x, s, drop), weight, bias, eps)


@singledispatch
def add_norm_gradient(
    dy: Array, x: Array, s: Array, weight: Array, kept: Any, drop: tuple[float, int, int], needs: tuple[bool, ...]
) -> tuple[Array | None, ...]:
    """Return dx, ds, dweight and dbias; each is None if it is not needed."""
    p, key, draw = drop
    inputs = needs[0] or needs[1]
    mean, rstd = kept
    z = residual_sum(x, s, drop)
    dz, dweight, dbias = layer_norm_gradient(dy, z, weight, mean, rstd, (inputs, *needs[2:]))
    ds = Dropout.run(dz, p=p, key=key, draw=draw) if p and needs[1] else dz
    return dz if needs[0] else None, ds if needs[1] else None, dweight, dbias


@derivation(AddNorm)
@at_least_float32
def add_norm(
    x: TensorLike,
    s: TensorLike,
    weight: TensorLike | None = None,
    bias: TensorLike | None = None,
    dropout: float = 0.0,
    generator: Generator | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Return layer_norm(x + dropout(s)) for x and s (..., D): the end of a post-norm sub-layer s = Sublayer(x).

    It computes ``tl.layer_norm(tl.add_dropout(x, s, dropout), weight, bias, eps)`` as one op; within
    `tl.record_formulas` and `tl.debug` it records these two. The arguments are as in these functions.

    Raises TypeError if x or s is not floating, and ValueError if shapes do not fit.

    >>> tl.add_norm([[1.0, 2.0, 3.0]], [[0.0, 0.0, 3.0]])
    Tensor([[-0.9258 -0.4629  1.3887]], shape=(1, 3), dtype=float32)
    """
    p = checked_probability("add_norm", "dropout", dropout)
    x = checked_floating("add_norm", "x", x)
    s = checked_floating("add_norm", "s", as_tensor(s, like=x))
    if x.shape != s.shape:
        raise ValueError(f"add_norm: x and s must have the same shape, got {x.shape} and {s.shape}")
    eps = checked_eps("add_norm", eps)
    weight, bias = feature_vectors("add_norm", x, -1, weight=weight, bias=bias)
    xp, width = x.backend.xp, x.shape[-1:]
    weight = xp.ones(width, x.dtype) if weight is None else weight
    bias = xp.zeros(width, x.dtype) if bias is None else bias
    drop = p, *next_draw("add_norm", p, generator)
    if STATE.get().formulas:
        z = AddDropout.apply(x, s, p=p, key=drop[1], draw=drop[2]) if p else x + s
        return LayerNorm.apply(z, weight, bias, eps=eps)
    return AddNorm.apply(x, s, weight, bias, eps=eps, drop=drop)
