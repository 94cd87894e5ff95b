"""Rows of the op table: Normalisation."""

from __future__ import annotations

import numpy as np

import tensorlib as tl
from tensorlib.optable.row import Row, at

__all__ = ["ROWS"]


def _layer_norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, eps: float = 1e-5) -> np.ndarray:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps) * weight + bias


ROWS: list[Row] = [
    Row(
        "layer_norm", tl.layer_norm, _layer_norm,
        [at((2, 4), (4,), (4,)), at((2, 3, 4), (4,), (4,)), at((4,), (4,), (4,)), at((0, 4), (4,), (4,)),
         at((2, 1), (1,), (1,)), at((1, 1, 5), (5,), (5,), eps=0.1)],
    ),
]  # fmt: skip
