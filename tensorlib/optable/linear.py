"""Rows of the op table: the linear layer, alone and followed by ReLU."""

from __future__ import annotations

from typing import Any

import numpy as np

import tensorlib as tl
from tensorlib.optable.row import Row, dropout_mask, sample

__all__ = ["ROWS"]


def _linear(x: np.ndarray, weight: np.ndarray, bias: Any = 0.0) -> np.ndarray:
    return np.einsum("...d,de->...e", x, weight) + bias


def _linear_relu(x: np.ndarray, weight: np.ndarray, bias: Any = 0.0, dropout: float = 0.0) -> np.ndarray:
    y = np.maximum(_linear(x, weight, bias), 0)
    return y * dropout_mask(y.shape, dropout)


ROWS: list[Row] = [
    Row(
        "linear", tl.linear, _linear,
        [sample((2, 3), (3, 4), (4,)), sample((2, 2, 3), (3, 2)), sample((3,), (3, 2), (2,)),
         sample((0, 3), (3, 2), (2,)),
         sample((1, 1), (1, 1), (1,)), sample((2, 3), np.ones((3, 2)), (2,))],
    ),
    Row(
        "linear_relu", lambda x, weight, bias=None, p=0.0: tl.linear_relu(x, weight, bias, p, tl.Generator(7)),
        _linear_relu,
        [sample((2, 3), (3, 4), (4,)), sample((2, 2, 3), (3, 2)), sample((3,), (3, 2), (2,)),
         sample((0, 3), (3, 2), (2,)),
         sample((1, 1), (1, 1), (1,)), sample((2, 3), np.ones((3, 2)), (2,)), sample((4, 3), (3, 4), (4,), 0.3)],
    ),
]  # fmt: skip
