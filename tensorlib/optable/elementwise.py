"""Rows of the op table: Functions of one input, elementwise."""

from __future__ import annotations

import math

import numpy as np

import tensorlib as tl
from tensorlib.optable.row import POSITIVE, UNARY, Row, at

__all__ = ["ROWS"]


def _gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


ROWS: list[Row] = [
    Row("exp", tl.exp, np.exp, UNARY),
    Row("log", tl.log, np.log, UNARY, POSITIVE),
    Row("sqrt", tl.sqrt, np.sqrt, UNARY, POSITIVE),
    Row("rsqrt", tl.rsqrt, lambda x: 1 / np.sqrt(x), UNARY, POSITIVE),
    Row("square", tl.square, np.square, UNARY),
    Row("abs", tl.abs, np.abs, UNARY),
    Row("sign", tl.sign, np.sign, [*UNARY, at(np.array([-2.0, 0.0, 3.0]))], differentiable=False),
    Row("tanh", tl.tanh, np.tanh, UNARY),
    Row("sigmoid", tl.sigmoid, lambda x: 1 / (1 + np.exp(-x)), UNARY),
    Row("relu", tl.relu, lambda x: np.maximum(x, 0), UNARY),
    Row("gelu", tl.gelu, _gelu, UNARY),
    Row("isfinite", tl.isfinite, np.isfinite, [*UNARY, at(np.array([1.0, np.inf, np.nan]))], differentiable=False),
]  # fmt: skip
