"""Scaled dot-product attention, written as a composition of ops; kernels compute it block by block."""

from __future__ import annotations

import math
from functools import singledispatch
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, overload

import numpy as np

from tensorlib.arrays.backend import Array, backend_of
from tensorlib.arrays.random import Generator
from tensorlib.arrays.shapes import sum_to
from tensorlib.engine.function import Function, derivation
from tensorlib.ops.arguments import as_tensors, at_least_float32, check_flag
from tensorlib.ops.dropout import Dropout, checked_probability, next_draw
from tensorlib.ops.linalg import Matmul
from tensorlib.ops.softmax import Softmax, checked_mask, softmax_gradient

if TYPE_CHECKING:
    from tensorlib.engine.value import TensorLike
    from tensorlib.tensor import Tensor

__all__ = ["scaled_dot_product_attention"]


class AttentionPattern(NamedTuple):
    """Which keys each query may attend to, and which weights are dropped."""

    visible: Array | None  # booleans that broadcast to (..., T, S); None: all keys are visible
    causal: bool  # in addition, query t sees only keys 0..t
    p: float  # the probability that a weight is dropped
    key: int  # together with `draw`, identifies the dropout mask, as in Dropout
    draw: int  # one draw covers all weights (..., T, S); their leading axes are those of q and k

    def mask(self, q: Any, k: Any) -> Array | None:
        """Return `visible` and causality combined into one mask, or None; q and k are arrays or Tensors."""
        if not self.causal:
            return self.visible
        home = q.backend if hasattr(q, "requires_grad") else backend_of(q)  # under create_graph q is a Tensor
        past = home.xp.tri(q.shape[-2], k.shape[-2], 0, "bool")
        return past if self.visible is None else past & self.visible

    def drop(self, weights: Array) -> Array:
        """Return `weights`, or their gradient, after dropout."""
        return Dropout.run(weights, p=self.p, key=self.key, draw=self.draw) if self.p else weights


class Attention(Function):
    """y = (m · w) v with w = softmax(q k^T / sqrt(K)) over the visible keys and m the dropout mask of the weights.

    With s = q k^T / sqrt(K):  dv = (m w)^T dy,  dw = m · (dy v^T),  ds = w (dw - <dw, w>)
    =>  dq = ds k / sqrt(K),  dk = ds^T q / sqrt(K).

    Nothing of size (T, S) is kept, except for a mask of that size: backward computes the weights again.

    Keeps q, k, v and pattern; statistics (by a kernel, for each query): largest score, sum of exponentials.
    Kernels: numpy/attention.py.
    """

    broadcasts = True

    def forward(self, q: Array, k: Array, v: Array, pattern: AttentionPattern) -> Array:
        self.pattern = pattern
        y, self.statistics = attention_formula(q, k, v, pattern)
        self.save(q, k, v)
        return y

    def backward(self, dy: Array) -> Any:
        q, k, v = self.saved
        return attention_gradient(dy, q, k, v, self.pattern, self.statistics, self.needs)


def attention_weights(q: Array, k: Array, mask: Array | None) -> Array:
    """Return softmax(q k^T / sqrt(K)) over the visible keys, (..., T, S), for arrays or for Tensors."""
    # Scaling the queries costs T·K multiplications; scaling the scores would cost T·S.
    scores = Matmul.run(q * (1 / math.sqrt(max(q.shape[-1], 1))), k.swapaxes(-1, -2))
    return Softmax.run(scores, axis=-1, visible=mask)


@singledispatch
def attention_formula(q: Array, k: Array, v: Array, pattern: AttentionPattern) -> tuple[Array, Any]:
    """Return y, and the statistics that a kernel keeps for the gradient (None from this formula)."""
    return Matmul.run(pattern.drop(attention_weights(q, k, pattern.mask(q, k))), v), None


@singledispatch
def attention_gradient(
    dy: Array, q: Array, k: Array, v: Array, pattern: AttentionPattern, kept: Any, needs: tuple[bool, ...]
) -> tuple[Array | None, Array | None, Array | None]:
    """Return dq, dk and dv as derived in `Attention`."""
    weights = attention_weights(q, k, pattern.mask(q, k))
    dv = Matmul.run(pattern.drop(weights).swapaxes(-1, -2), dy) if needs[2] else None
    if not (needs[0] or needs[1]):
        return None, None, dv
    dweights = Matmul.run(dy, v.swapaxes(-1, -2))
    if dweights.shape != weights.shape:  # several v share these weights
        dweights = sum_to(dweights, weights.shape)
    dweights = pattern.drop(dweights)
    dscores = softmax_gradient(dweights, weights, -1) * (1 / math.sqrt(max(q.shape[-1], 1)))
    dq = Matmul.run(dscores, k) if needs[0] else None
    return dq, Matmul.run(dscores.swapaxes(-1, -2), q) if needs[1] else None, dv


@overload
def scaled_dot_product_attention(
    q: TensorLike,
    k: TensorLike,
    v: TensorLike,
    visible: TensorLike | None = None,
    dropout: float = 0.0,
    generator: Generator | None = None,
    return_weights: Literal[False] = False,
    causal: bool = False,
) -> Tensor: ...


@overload
def scaled_dot_product_attention(
    q: TensorLike,
    k: TensorLike,
    v: TensorLike,
    visible: TensorLike | None = None,
    dropout: float = 0.0,
    generator: Generator | None = None,
    *,
    return_weights: Literal[True],
    causal: bool = False,
) -> tuple[Tensor, Tensor]: ...


@overload
def scaled_dot_product_attention(
    q: TensorLike,
    k: TensorLike,
    v: TensorLike,
    visible: TensorLike | None = None,
    dropout: float = 0.0,
    generator: Generator | None = None,
    return_weights: bool = False,
    causal: bool = False,
) -> Any: ...  # a flag known only at run time


@derivation(Attention)
@at_least_float32
def scaled_dot_product_attention(
    q: TensorLike,
    k: TensorLike,
    v: TensorLike,
    visible: TensorLike | None = None,
    dropout: float = 0.0,
    generator: Generator | None = None,
    return_weights: bool = False,
    causal: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Return softmax(q k^T / sqrt(K)) v for q (..., T, K), k (..., S, K), v (..., S, M): (..., T, M).

    Vaswani et al. 2017, equation 1. `visible`, booleans that broadcast to (..., T, S), marks which of the S keys each
    of the T queries may attend to; with `causal`, query t also sees only keys 0 to t. A query that sees no key gets
    zeros. `dropout` is applied to the weights. With `return_weights` the result is (output, weights), where the weights
    (..., T, S) are those before dropout.

    Without `return_weights`, a CPU computes the weights for one block of queries at a time, forward and backward, so
    memory grows with T + S and not with T·S. For this, pass `causal=True` rather than a causal mask, and padding as a
    mask (..., 1, S). float16 is computed in float32.

    Raises ValueError if the shapes do not fit, and TypeError if `visible` is not boolean.

    >>> q, k, v = tl.ones((1, 2)), tl.ones((3, 2)), tl.Tensor([[1.0], [2.0], [9.0]])
    >>> tl.scaled_dot_product_attention(q, k, v, visible=[True, True, False])
    Tensor([[1.5]], shape=(1, 1), dtype=float32)
    """
    name = "scaled_dot_product_attention"
    check_flag(name, "return_weights", return_weights)
    check_flag(name, "causal", causal)
    p = checked_probability(name, "dropout", dropout)
    q, k, v = as_tensors((q, k, v))
    if min(q.ndim, k.ndim, v.ndim) < 2 or q.shape[-1] != k.shape[-1] or k.shape[-2] != v.shape[-2]:
        raise ValueError(
            f"{name}: q (..., T, K), k (..., S, K) and v (..., S, M) must agree in K and S, "
            f"got {q.shape}, {k.shape} and {v.shape}"
        )
    lead = _leading(q, k, v)
    mask = None if visible is None else checked_mask(visible, (*lead, q.shape[-2], k.shape[-2]), q)
    pattern = AttentionPattern(mask, causal, p, *next_draw(name, p, generator))
    if not return_weights:
        return Attention.apply(q, k, v, pattern=pattern)
    weights: Any = attention_weights(q, k, pattern.mask(q, k))
    return Matmul.apply(pattern.drop(weights), v), weights


def _leading(q: Tensor, k: Tensor, v: Tensor) -> tuple[int, ...]:
    """Return the leading axes of the weights, those of q and k, after checking that those of v broadcast with them."""
    try:
        np.broadcast_shapes(q.shape[:-2], k.shape[:-2], v.shape[:-2])
    except ValueError:
        raise ValueError(
            "scaled_dot_product_attention: axes before the last two must broadcast, got q "
            f"{q.shape}, k {k.shape} and v {v.shape}"
        ) from None
    return np.broadcast_shapes(q.shape[:-2], k.shape[:-2])
