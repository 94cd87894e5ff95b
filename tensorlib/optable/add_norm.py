"""Rows of the op table: residual sum and normalization."""

from __future__ import annotations

from typing import Any

import numpy as np

import tensorlib as tl
from tensorlib.optable.row import Row, dropout_mask, sample

__all__ = ["ROWS"]


def _add_norm(
    x: np.ndarray, s: np.ndarray, weight: Any = 1.0, bias: Any = 0.0, dropout: float = 0.0, eps: float = 1e-5
) -> np.ndarray:
    z = x + s * dropout_mask(s.shape, dropout)
    centred = z - z.sum(axis=-1, keepdims=True) / z.shape[-1]
    return centred / np.sqrt((centred**2).sum(axis=-1, keepdims=True) / z.shape[-1] + eps) * weight + bias


ROWS: list[Row] = [
    Row(
        "add_norm",
        lambda x, s, weight=None, bias=None, dropout=0.0, eps=1e-5: tl.add_norm(
            x, s, weight, bias, dropout, tl.Generator(7), eps
        ), _add_norm,
        [sample((2, 3), (2, 3), (3,), (3,)), sample((2, 2, 4), (2, 2, 4), (4,), (4,), dropout=0.3),
         sample((4,), (4,), eps=0.1), sample((0, 3), (0, 3), (3,), (3,)), sample((3, 1), (3, 1), (1,), (1,), eps=0.5),
         sample((2, 3), (2, 3), (3,), dropout=0.5)],
    ),
]  # fmt: skip
