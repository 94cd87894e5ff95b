"""Rows of the op table: attention with its projections."""

from __future__ import annotations

from typing import Any

import numpy as np

import tensorlib as tl
from tensorlib.optable.attention import reference_attention
from tensorlib.optable.row import Row, sample

__all__ = ["ROWS"]


def _multi_head_attention(
    x: np.ndarray, w: np.ndarray, b: np.ndarray, wo: np.ndarray, bo: np.ndarray, memory: np.ndarray | None = None,
    visible: Any = True, heads: int = 1, causal: bool = False, dropout: float = 0.0,
) -> np.ndarray:  # fmt: skip
    source, d = x if memory is None else memory, x.shape[-1]
    parts = x @ w[:, :d] + b[:d], source @ w[:, d : 2 * d] + b[d : 2 * d], source @ w[:, 2 * d :] + b[2 * d :]
    q, k, v = (np.swapaxes(p.reshape(*p.shape[:2], heads, d // heads), 1, 2) for p in parts)
    y = np.swapaxes(reference_attention(q, k, v, visible, dropout, causal=causal), 1, 2)
    return y.reshape(x.shape) @ wo + bo


WEIGHTS = (4, 12), (12,), (4, 4), (4,)
PADDING = np.array([[True, True, True, False], [True, False, True, True]])[:, None, None]


def _op(*operands: Any, **options: Any) -> Any:
    return tl.multi_head_attention(*operands, **options, generator=tl.Generator(7))


ROWS: list[Row] = [
    Row(
        "multi_head_attention", _op, _multi_head_attention,
        [sample((2, 3, 4), *WEIGHTS, heads=2), sample((2, 3, 4), *WEIGHTS, heads=2, causal=True, dropout=0.3),
         sample((2, 3, 4), *WEIGHTS, (2, 4, 4), heads=2, visible=PADDING),
         sample((1, 2, 4), *WEIGHTS, (1, 3, 4), heads=1, dropout=0.3),
         sample((0, 3, 4), *WEIGHTS, heads=2), sample((1, 1, 4), *WEIGHTS, heads=4),
         sample((2, 4, 4), *WEIGHTS, heads=2, visible=PADDING)],
    ),
]  # fmt: skip
