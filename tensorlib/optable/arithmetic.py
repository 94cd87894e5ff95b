"""Rows of the op table: Arithmetic and comparison."""

from __future__ import annotations

import numpy as np

import tensorlib as tl
from tensorlib.optable.row import BOOLEAN, DISTINCT, POSITIVE, UNARY, Row, at

__all__ = ["ROWS"]

BINARY = [
    at((3,), (3,)), at((), ()), at((), (2, 3)), at((2, 1, 3), (4, 1)), at((2, 3), (3,)), at((0, 3), (1, 3)),
    at((1, 1), (1,)), at((2, 3), 2.5), at(-1.5, (2,)), at((2,), np.float64(0.7)), at((2, 1), np.full((1, 3), 0.6)),
]  # fmt: skip
MASKS = [at((2, 3), (2, 3)), at((2, 3), (3,)), at((), ()), at((0,), (0,)), at((2, 1), (1, 3))]
COMPARED = [at((3,), (3,)), at((2, 1), (3,)), at((), ()), at((0,), (0,)), at((2, 3), 0.5), at((4,), np.ones(4))]

ROWS: list[Row] = [
    Row("add", tl.add, np.add, BINARY),
    Row("subtract", tl.subtract, np.subtract, BINARY),
    Row("multiply", tl.multiply, np.multiply, BINARY),
    Row("divide", tl.divide, np.divide, BINARY),
    Row("negative", tl.negative, np.negative, UNARY),
    Row(
        "power", tl.power, np.power,
        [at((3,), (3,)), at((2, 3), 2), at((2, 3), -1.5), at((3,), 0), at((3,), 1), at(2.5, (2,)), at((2, 1), (3,)),
         at((), ()), at((0,), (0,)), at((2, 3), np.array([2.0, 0.0, -1.0]))],
        POSITIVE,
    ),
    Row("maximum", tl.maximum, np.maximum, BINARY, DISTINCT),
    Row("minimum", tl.minimum, np.minimum, BINARY, DISTINCT),
    Row("equal", tl.equal, np.equal, COMPARED, DISTINCT, differentiable=False),
    Row("not_equal", tl.not_equal, np.not_equal, COMPARED, DISTINCT, differentiable=False),
    Row("less", tl.less, np.less, COMPARED, DISTINCT, differentiable=False),
    Row("less_equal", tl.less_equal, np.less_equal, COMPARED, DISTINCT, differentiable=False),
    Row("greater", tl.greater, np.greater, COMPARED, DISTINCT, differentiable=False),
    Row("greater_equal", tl.greater_equal, np.greater_equal, COMPARED, DISTINCT, differentiable=False),
    Row("logical_and", tl.logical_and, np.logical_and, COMPARED, BOOLEAN, differentiable=False),
    Row("logical_or", tl.logical_or, np.logical_or, COMPARED, BOOLEAN, differentiable=False),
    Row("logical_not", tl.logical_not, np.logical_not, UNARY, BOOLEAN, differentiable=False),
    Row("bitwise_and", tl.bitwise_and, np.bitwise_and, MASKS, BOOLEAN, differentiable=False),
    Row("bitwise_or", tl.bitwise_or, np.bitwise_or, MASKS, BOOLEAN, differentiable=False),
    Row("invert", tl.invert, np.invert, UNARY, BOOLEAN, differentiable=False),
]  # fmt: skip
