"""Rows of the op table: running sums and products."""

from __future__ import annotations

from typing import Any

import numpy as np

import tensorlib as tl
from tensorlib.optable.reduce import WITH_ZEROS
from tensorlib.optable.row import Row, sample

__all__ = ["ROWS"]


def _logcumsumexp(x: np.ndarray, axis: Any = None) -> np.ndarray:
    return np.log(np.cumsum(np.exp(x), axis))


ALONG = [
    sample((4,)), sample((2, 3)), sample((2, 3), axis=0), sample((2, 3), axis=-1), sample((2, 3, 2), axis=1),
    sample((2, 1, 3), axis=1),
    sample((0, 3), axis=0), sample((2, 0), axis=0), sample((0, 2)), sample(()), sample((5,), axis=0),
    sample((1,), axis=0),
]  # fmt: skip

ROWS: list[Row] = [
    Row("cumsum", tl.cumsum, np.cumsum, ALONG),
    Row("cumprod", tl.cumprod, np.cumprod, ALONG, WITH_ZEROS),
    Row("logcumsumexp", tl.logcumsumexp, _logcumsumexp, ALONG),
]
