"""Rows of the op table: attention."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import tensorlib as tl
from tensorlib.optable.row import CAUSAL, VISIBLE, Row, dropout_mask, sample

__all__ = ["ROWS", "reference_attention"]


def _softmax(x: np.ndarray, axis: int = -1, visible: Any = True) -> np.ndarray:
    e = np.where(visible, np.exp(x), 0.0)
    total = e.sum(axis=axis, keepdims=True)
    return e / np.where(total == 0, 1, total)


def reference_attention(
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    visible: Any = True,
    dropout: float = 0.0,
    return_weights: bool = False,
    causal: bool = False,
) -> Any:
    """Return what `tl.scaled_dot_product_attention` returns, computed in NumPy."""
    if causal:
        visible = visible & np.tri(q.shape[-2], k.shape[-2], dtype=bool)
    weights = _softmax(q @ np.swapaxes(k, -1, -2) / math.sqrt(q.shape[-1]), -1, visible)
    output = (weights * dropout_mask(weights.shape, dropout)) @ v
    return (output, weights) if return_weights else output


ROWS: list[Row] = [
    Row(
        "scaled_dot_product_attention",
        lambda q, k, v, visible=None, dropout=0.0, **options: tl.scaled_dot_product_attention(
            q, k, v, visible, dropout, tl.Generator(7), **options
        ), reference_attention,
        [sample((3, 2), (4, 2), (4, 3)), sample((2, 3, 2), (2, 4, 2), (2, 4, 2), visible=VISIBLE),
         sample((3, 2), (3, 2), (3, 2), visible=CAUSAL), sample((2, 1, 2), (1, 3, 2), (1, 3, 1), return_weights=True),
         sample((0, 2), (4, 2), (4, 2)), sample((1, 1, 1, 2), (2, 1, 2), (2, 1, 2)),
         sample((3, 2), (3, 2), (3, 2), causal=True),
         sample((2, 4, 2), (2, 4, 2), (2, 4, 2), causal=True, visible=VISIBLE[0]),
         sample((2, 1, 3, 2), (2, 1, 3, 2), (2, 1, 3, 2), causal=True, dropout=0.3),
         sample((3, 2), (4, 2), (4, 1), dropout=0.3), sample((3, 2), (4, 2), (2, 4, 3), dropout=0.3),
         sample((2, 3, 2), (2, 4, 2), (2, 4, 2), visible=VISIBLE, dropout=0.3, return_weights=True)],
    ),
]  # fmt: skip
