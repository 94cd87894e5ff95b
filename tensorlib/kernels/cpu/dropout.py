"""Dropout without branches, for a CPU cannot foresee which way a random choice goes."""

from __future__ import annotations

import numpy as np

from tensorlib.ops.dropout import dropout_formula


@dropout_formula.register(np.ndarray)
def _(x: np.ndarray, kept: np.ndarray, scale: float) -> np.ndarray:
    y = np.asarray(x * x.dtype.type(scale))
    bits = y.view(f"i{y.itemsize}")
    bits *= kept  # a pattern of bits times 1 or 0 is itself or zero, also where it stands for inf or NaN
    return y
