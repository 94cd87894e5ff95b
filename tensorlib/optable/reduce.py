"""Rows of the op table: Reductions."""

from __future__ import annotations

from typing import Any

import numpy as np

import tensorlib as tl
from tensorlib.optable.row import BOOLEAN, DISTINCT, Row, at

__all__ = ["ROWS"]


def _logsumexp(x: np.ndarray, axis: Any = None, keepdims: bool = False) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.log(np.exp(x).sum(axis=axis, keepdims=keepdims))


REDUCED = [
    at(()), at((2, 3)), at((2, 3), axis=0), at((2, 3), axis=-1, keepdims=True), at((2, 3, 4), axis=(0, -1)),
    at((2, 1, 3), axis=1), at((2, 3), axis=()), at((0, 3), axis=1), at((2, 3), keepdims=True), at((1,), axis=0),
]  # fmt: skip
EMPTIED = [at((0, 3)), at((0, 3), axis=0), at((2, 0), axis=-1, keepdims=True)]
TRUTH = [at((2, 3)), at((2, 3), axis=0), at((4,), axis=-1), at((0, 2), axis=0), at((2, 3, 2), axis=(0, 2)), at(())]

ROWS: list[Row] = [
    Row("sum", tl.sum, np.sum, REDUCED + EMPTIED),
    Row("mean", tl.mean, np.mean, REDUCED),
    Row("var", tl.var, np.var, [*REDUCED, at((2, 3), axis=1, ddof=1), at((5,), ddof=2)]),
    Row("max", tl.max, np.max, REDUCED, DISTINCT),
    Row("logsumexp", tl.logsumexp, _logsumexp, REDUCED + EMPTIED),
    Row(
        "argmax", tl.argmax, np.argmax,
        [at((4,)), at((2, 3)), at((2, 3), axis=0), at((2, 3), axis=-1), at((1, 3), axis=0), at(np.array([1, 2, 2, 0]))],
        DISTINCT, differentiable=False,
    ),
    Row("any", tl.any, np.any, TRUTH, BOOLEAN, differentiable=False),
    Row("all", tl.all, np.all, TRUTH, BOOLEAN, differentiable=False),
]  # fmt: skip
