"""Rows of the op table: exponentials and logarithms."""

from __future__ import annotations

import numpy as np

import tensorlib as tl
from tensorlib.optable.arithmetic import BINARY
from tensorlib.optable.row import POSITIVE, UNARY, Row

__all__ = ["ROWS"]

ROWS: list[Row] = [
    Row("exp", tl.exp, np.exp, UNARY),
    Row("exp2", tl.exp2, np.exp2, UNARY),
    Row("expm1", tl.expm1, np.expm1, UNARY),
    Row("log", tl.log, np.log, UNARY, POSITIVE),
    Row("log2", tl.log2, np.log2, UNARY, POSITIVE),
    Row("log10", tl.log10, np.log10, UNARY, POSITIVE),
    Row("log1p", tl.log1p, np.log1p, UNARY, POSITIVE),
    Row("logaddexp", tl.logaddexp, np.logaddexp, BINARY),
    Row("sigmoid", tl.sigmoid, lambda x: 1 / (1 + np.exp(-x)), UNARY),
    Row("softplus", tl.softplus, lambda x: np.log(1 + np.exp(x)), UNARY),
    Row("log_sigmoid", tl.log_sigmoid, lambda x: np.log(1 / (1 + np.exp(-x))), UNARY),
]
