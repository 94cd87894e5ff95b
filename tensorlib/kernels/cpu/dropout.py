"""Dropout as a product: on a CPU much faster than a choice, whose branches cannot be foreseen."""

from __future__ import annotations

import numpy as np

from tensorlib.ops.dropout import dropout_formula


@dropout_formula.register(np.ndarray)
def _(x: np.ndarray, kept: np.ndarray, scale: float) -> np.ndarray:
    with np.errstate(invalid="ignore", over="ignore"):
        y = x * (kept * x.dtype.type(scale))
        sound = np.isfinite(y.sum())
    return y if sound else dropout_formula.dispatch(object)(x, kept, scale)
