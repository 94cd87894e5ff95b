"""Rows of the op table: comparison and logic."""

from __future__ import annotations

import numpy as np

import tensorlib as tl
from tensorlib.optable.row import BOOLEAN, DISTINCT, UNARY, Row, sample

__all__ = ["ROWS"]

MASKS = [sample((2, 3), (2, 3)), sample((2, 3), (3,)), sample((), ()), sample((0,), (0,)), sample((2, 1), (1, 3))]
BITS = [*MASKS, sample(np.array([6, 5, 0]), np.array([3, 5, 1])), sample(np.array([6, 5, 0]), 3)]
COMPARED = [
    sample((3,), (3,)),
    sample((2, 1), (3,)),
    sample((), ()),
    sample((0,), (0,)),
    sample((2, 3), 0.5),
    sample((4,), np.ones(4)),
]
EXTREME = [*UNARY, sample(np.array([1.0, np.inf, -np.inf, np.nan]))]

ROWS: list[Row] = [
    Row("equal", tl.equal, np.equal, COMPARED, DISTINCT, differentiable=False),
    Row("not_equal", tl.not_equal, np.not_equal, COMPARED, DISTINCT, differentiable=False),
    Row("less", tl.less, np.less, COMPARED, DISTINCT, differentiable=False),
    Row("less_equal", tl.less_equal, np.less_equal, COMPARED, DISTINCT, differentiable=False),
    Row("greater", tl.greater, np.greater, COMPARED, DISTINCT, differentiable=False),
    Row("greater_equal", tl.greater_equal, np.greater_equal, COMPARED, DISTINCT, differentiable=False),
    Row("isfinite", tl.isfinite, np.isfinite, EXTREME, differentiable=False),
    Row("isinf", tl.isinf, np.isinf, EXTREME, differentiable=False),
    Row("isnan", tl.isnan, np.isnan, EXTREME, differentiable=False),
    Row("logical_and", tl.logical_and, np.logical_and, COMPARED, BOOLEAN, differentiable=False),
    Row("logical_or", tl.logical_or, np.logical_or, COMPARED, BOOLEAN, differentiable=False),
    Row("logical_xor", tl.logical_xor, np.logical_xor, COMPARED, BOOLEAN, differentiable=False),
    Row("logical_not", tl.logical_not, np.logical_not, UNARY, BOOLEAN, differentiable=False),
    Row("bitwise_and", tl.bitwise_and, np.bitwise_and, BITS, BOOLEAN, differentiable=False),
    Row("bitwise_or", tl.bitwise_or, np.bitwise_or, BITS, BOOLEAN, differentiable=False),
    Row("bitwise_xor", tl.bitwise_xor, np.bitwise_xor, BITS, BOOLEAN, differentiable=False),
    Row("invert", tl.invert, np.invert, [*UNARY, sample(np.array([6, -1, 0]))], BOOLEAN, differentiable=False),
]  # fmt: skip
