"""Rows of the op table: Products of matrices."""

from __future__ import annotations

import numpy as np

import tensorlib as tl
from tensorlib.optable.row import Row, at

__all__ = ["ROWS"]

ROWS: list[Row] = [
    Row(
        "matmul", tl.matmul, np.matmul,
        [at((2, 3), (3, 4)), at((3,), (3,)), at((3,), (3, 2)), at((2, 3), (3,)), at((2, 2, 3), (3, 4)),
         at((2, 2, 3), (2, 3, 1)), at((2, 1, 2, 3), (3, 3, 2)), at((2, 3), (2, 3, 2)), at((3,), (2, 3, 2)),
         at((2, 2, 3), (3,)), at((1, 1), (1, 1)), at((0, 3), (3, 2)), at((2, 0), (0, 3)), at((2, 3, 0), (0, 2)),
         at((2, 2, 3), (3, 0)), at((0, 2, 3), (3, 2)), at((0, 2, 3), (0, 3, 2)), at((2, 3), np.full((3, 2), 0.5))],
    ),
]  # fmt: skip
