"""Rows of the op table: softmax and its logarithm."""

from __future__ import annotations

from typing import Any

import numpy as np

import tensorlib as tl
from tensorlib.optable.row import ALONG_AXIS, CAUSAL, VISIBLE, Row, sample

__all__ = ["ROWS"]


def _softmax(x: np.ndarray, axis: int = -1, visible: Any = True) -> np.ndarray:
    e = np.where(visible, np.exp(x), 0.0)
    total = e.sum(axis=axis, keepdims=True)
    return e / np.where(total == 0, 1, total)


ROWS: list[Row] = [
    Row(
        "softmax", tl.softmax, _softmax,
        [*ALONG_AXIS, sample((3, 4), visible=VISIBLE), sample((2, 3, 4), visible=VISIBLE),
         sample((3, 4), axis=0, visible=VISIBLE),
         sample((2, 3, 3), visible=CAUSAL), sample((2, 4), visible=VISIBLE[:1])],
    ),
    Row("log_softmax", tl.log_softmax, lambda x, axis=-1: np.log(_softmax(x, axis)), ALONG_AXIS),
]  # fmt: skip
