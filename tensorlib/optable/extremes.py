"""Rows of the op table: the largest and the smallest element, and their indices."""

from __future__ import annotations

import numpy as np

import tensorlib as tl
from tensorlib.optable.reduce import REDUCED
from tensorlib.optable.row import DISTINCT, Row, sample

__all__ = ["ROWS"]

ARGUMENTS = [
    sample(()), sample((4,)), sample((2, 3)), sample((2, 3), axis=0), sample((2, 3), axis=-1), sample((1, 3), axis=0),
    sample((0, 3), axis=1),
    sample((2, 3), axis=1, keepdims=True), sample((2, 3), keepdims=True), sample(np.array([1, 0, 2, 2, 0])),
]  # fmt: skip

ROWS: list[Row] = [
    Row("max", tl.max, np.max, REDUCED, DISTINCT),
    Row("min", tl.min, np.min, REDUCED, DISTINCT),
    Row("amax", tl.amax, np.amax, REDUCED[:6], DISTINCT),
    Row("amin", tl.amin, np.amin, REDUCED[:6], DISTINCT),
    Row("argmax", tl.argmax, np.argmax, ARGUMENTS, DISTINCT, differentiable=False),
    Row("argmin", tl.argmin, np.argmin, ARGUMENTS, DISTINCT, differentiable=False),
]  # fmt: skip
