"""Rows of the op table: The dense layer's product."""

from __future__ import annotations

from typing import Any

import numpy as np

import tensorlib as tl
from tensorlib.optable.row import Row, at

__all__ = ["ROWS"]


def _linear(x: np.ndarray, weight: np.ndarray, bias: Any = 0.0) -> np.ndarray:
    return np.einsum("...d,de->...e", x, weight) + bias


ROWS: list[Row] = [
    Row(
        "linear", tl.linear, _linear,
        [at((2, 3), (3, 4), (4,)), at((2, 2, 3), (3, 2)), at((3,), (3, 2), (2,)), at((0, 3), (3, 2), (2,)),
         at((1, 1), (1, 1), (1,)), at((2, 3), np.ones((3, 2)), (2,))],
    ),
]  # fmt: skip
