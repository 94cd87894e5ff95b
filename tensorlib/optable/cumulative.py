"""Rows of the op table: Running sums and products."""

from __future__ import annotations

from typing import Any

import numpy as np

import tensorlib as tl
from tensorlib.optable.reduce import WITH_ZEROS
from tensorlib.optable.row import Row, at

__all__ = ["ROWS"]


def _logcumsumexp(x: np.ndarray, axis: Any = None) -> np.ndarray:
    return np.log(np.cumsum(np.exp(x), axis))


ALONG = [
    at((4,)), at((2, 3)), at((2, 3), axis=0), at((2, 3), axis=-1), at((2, 3, 2), axis=1), at((2, 1, 3), axis=1),
    at((0, 3), axis=0), at((2, 0), axis=0), at((0, 2)), at(()), at((5,), axis=0), at((1,), axis=0),
]  # fmt: skip

ROWS: list[Row] = [
    Row("cumsum", tl.cumsum, np.cumsum, ALONG),
    Row("cumprod", tl.cumprod, np.cumprod, ALONG, WITH_ZEROS),
    Row("logcumsumexp", tl.logcumsumexp, _logcumsumexp, ALONG),
]
