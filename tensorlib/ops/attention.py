"""Scaled dot-product attention, as the sentence made of ops that it is."""

from __future__ import annotations

import math
from typing import Any

from tensorlib.ops.common import as_tensors, check_flag
from tensorlib.ops.dropout import checked_probability
from tensorlib.ops.dropout import dropout as drop
from tensorlib.ops.linalg import matmul
from tensorlib.ops.softmax import softmax
from tensorlib.random import Generator

__all__ = ["scaled_dot_product_attention"]


def scaled_dot_product_attention(
    q: Any,
    k: Any,
    v: Any,
    visible: Any = None,
    dropout: float = 0.0,
    generator: Generator | None = None,
    return_weights: bool = False,
) -> Any:
    """Return softmax(q k^T / sqrt(K)) v for q (..., T, K), k (..., S, K), v (..., S, M): (..., T, M).

    Vaswani et al. 2017, equation 1. `visible`, booleans that broadcast to (..., T, S), says which of the S places each
    of the T queries may attend to; a query that may see nothing gets zeros. `dropout` acts on the weights. With
    `return_weights` the result is (output, weights), the weights (..., T, S) as they are before dropout.
    """
    check_flag("scaled_dot_product_attention", "return_weights", return_weights)
    dropout = checked_probability("scaled_dot_product_attention", "dropout", dropout)
    q, k, v = as_tensors((q, k, v))
    if min(q.ndim, k.ndim, v.ndim) < 2 or q.shape[-1] != k.shape[-1] or k.shape[-2] != v.shape[-2]:
        raise ValueError(
            "scaled_dot_product_attention: q (..., T, K), k (..., S, K) and v (..., S, M) must agree in K and S, "
            f"got {q.shape}, {k.shape} and {v.shape}"
        )
    # Scaling the queries costs T·K multiplications, scaling the scores would cost T·S.
    scores = matmul(q * (1 / math.sqrt(max(q.shape[-1], 1))), k.swapaxes(-1, -2))
    weights = softmax(scores, axis=-1, visible=visible)
    output = matmul(drop(weights, dropout, generator), v)
    return (output, weights) if return_weights else output
