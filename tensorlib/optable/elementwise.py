"""Rows of the op table: elementwise functions of one input."""

from __future__ import annotations

import math

import numpy as np

import tensorlib as tl
from tensorlib.optable.row import POSITIVE, UNARY, Row, sample

__all__ = ["ROWS"]

STEPPED = [*UNARY, sample(np.array([-2.0, -0.5, 0.0, 0.5, 1.5, 2.5, 3.0]))]

ROWS: list[Row] = [
    Row("sqrt", tl.sqrt, np.sqrt, UNARY, POSITIVE),
    Row("rsqrt", tl.rsqrt, lambda x: 1 / np.sqrt(x), UNARY, POSITIVE),
    Row("square", tl.square, np.square, UNARY),
    Row("abs", tl.abs, np.abs, UNARY),
    Row("sign", tl.sign, np.sign, STEPPED, differentiable=False),
    Row("floor", tl.floor, np.floor, STEPPED, differentiable=False),
    Row("ceil", tl.ceil, np.ceil, STEPPED, differentiable=False),
    Row(
        "round", tl.round, np.round, [*STEPPED, sample((2, 3), 1), sample((2, 3), decimals=2),
        sample(np.array([14.0, 26.0]), -1)],
        differentiable=False,
    ),
    Row(
        "erf", tl.erf, np.vectorize(math.erf, otypes=[float]),
        [*UNARY, sample(np.array([-30.0, -7.0, -3.0, -0.4, 0.0, 1e-9, 0.46, 0.47, 0.5, 2.0, 4.0, 6.0]))],
    ),
]  # fmt: skip
