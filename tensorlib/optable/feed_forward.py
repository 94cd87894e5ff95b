"""Rows of the op table: the feed-forward sub-layer."""

from __future__ import annotations

import numpy as np

import tensorlib as tl
from tensorlib.optable.row import Row, dropout_mask, sample

__all__ = ["ROWS"]


def _feed_forward(
    x: np.ndarray, w1: np.ndarray, b1: np.ndarray, w2: np.ndarray, b2: np.ndarray, dropout: float = 0.0
) -> np.ndarray:
    h = np.maximum(np.einsum("...d,df->...f", x, w1) + b1, 0)
    return np.einsum("...f,fe->...e", h * dropout_mask(h.shape, dropout), w2) + b2


ROWS: list[Row] = [
    Row(
        "feed_forward",
        lambda x, w1, b1, w2, b2, p=0.0: tl.feed_forward(x, w1, b1, w2, b2, p, tl.Generator(7)), _feed_forward,
        [sample((2, 3), (3, 5), (5,), (5, 3), (3,)), sample((2, 2, 3), (3, 4), (4,), (4, 2), (2,)),
         sample((3,), (3, 2), (2,), (2, 3), (3,)), sample((0, 3), (3, 2), (2,), (2, 3), (3,)),
         sample((1, 1), (1, 1), (1,), (1, 1), (1,)), sample((4, 3), (3, 5), (5,), (5, 3), (3,), 0.3)],
    ),
]  # fmt: skip
