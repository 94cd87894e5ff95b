"""Scaled dot-product attention, written as a composition of ops; kernels compute it block by block."""

from __future__ import annotations

import math
from functools import singledispatch
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, overload

import numpy as np

from tensorlib.arrays.backend import Array, backend_of
from tensorlib.arrays.random import Generator
from tensorlib.arrays.shapes import sum_to
from tensorlib.engine.function import Function, as_tensor, derivation
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
    Kernels: numpy/attention.py, numba/attention.py, cuda/attention.py.
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

    Vaswani et al. 2017, equation 1. `dropout` is applied to the weights. With `return_weights` the result is (output,
    weights), where the weights (..., T, S) are those before dropout.

    `visible` holds booleans, True where a query may attend to a key; a query that sees no key gets zeros. Its axes, for
    q (B, H, T, K): (S,) hides the same keys from all queries, (T, S) is the same for all sentences and heads, and
    (B or 1, H or 1, T or 1, S) is the general form. Other numbers of axes are refused, and so is a mask (T, S) that
    looks like padding (B, S) if T and B are equal: one whose rows get shorter, as no causal or prefix mask does. With
    `causal`, query t sees only keys 0 to t; this needs T = S.

    Without `return_weights`, a CPU computes the weights for one block of queries at a time, forward and backward, so
    memory grows with T + S and not with T·S; above 512² weights for each head, a GPU needs no more either. For this,
    pass `causal=True` rather than a causal mask, and padding as a mask (..., 1, S). float16 is computed in float32.

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
    lead, queries, keys = _leading(q, k, v), q.shape[-2], k.shape[-2]
    if causal:
        check_causal(name, queries, keys)
    mask = None if visible is None else checked_visible(visible, (*lead, queries, keys), q)
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


def check_causal(name: str, queries: int, keys: int) -> None:
    """Raise ValueError unless causality has a meaning: query t sees keys 0 to t."""
    if queries != keys:
        raise ValueError(
            f"{name}: causal=True needs as many queries as keys, got {queries} and {keys}; {_instead(queries, keys)}"
        )


def _instead(queries: int, keys: int) -> str:
    """Return what to write instead of `causal` where the number of queries differs from that of keys."""
    if queries == 1:
        return "leave it out if this query comes after all keys, as in a cache, because it then sees them all"
    if queries < keys:
        return f"if the queries are the last positions of a cache, pass visible=nn.causal_mask({keys})[-{queries}:]"
    return "pass visible, a mask (T, S)"


def checked_visible(visible: TensorLike, shape: tuple[int, ...], q: Tensor) -> Array:
    """Return the mask as an array, after checking that its axes can only mean those of the scores, (..., T, S)."""
    visible = as_tensor(visible, like=q)
    given, extra = visible.shape, len(shape) - 2
    padding = f"visible[:{', None' * extra}] for padding (B, S)"
    if len(given) < len(shape):
        axes = given[sum(np.cumprod([n == 1 for n in given])) :]  # a mask with B = 1 means the same either way
        if len(axes) > 2:
            raise ValueError(
                f"scaled_dot_product_attention: visible must have all axes of the scores, {shape}, or be (T, S) or "
                f"(S,), got {given}; pass visible[:, None] for (B, T, S)"
            )
        if len(axes) == 2 and axes[0] == shape[0] != shape[-2]:
            raise ValueError(
                f"scaled_dot_product_attention: visible must broadcast to {shape}, got {given}; pass {padding}"
            )
    mask = checked_mask(visible, shape, q)
    rows_fit_both = len(given) == 2 < len(shape) and given[0] == shape[0]
    if rows_fit_both and isinstance(mask, np.ndarray) and _looks_like_padding(mask):  # a mask on a GPU is not fetched
        raise ValueError(
            f"scaled_dot_product_attention: visible of shape {given} would be read as (T, S), but looks like padding "
            f"(B, S); pass {padding}, or visible[{', '.join(['None'] * extra)}] for (T, S)"
        )
    return mask


def _looks_like_padding(mask: np.ndarray) -> bool:
    """Return whether each row has its visible keys in one run at the start (or end), but in no order of lengths.

    In a mask (T, S) of this form a later query sees more, as in a causal mask.
    """
    lengths = mask.sum(-1).astype(int)
    at_start = not (mask[:, 1:] & ~mask[:, :-1]).any() and (np.diff(lengths) < 0).any()
    at_end = not (mask[:, :-1] & ~mask[:, 1:]).any() and (np.diff(lengths) > 0).any()
    return bool(at_start or at_end)
