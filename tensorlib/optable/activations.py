"""Rows of the op table: activations."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import tensorlib as tl
from tensorlib.optable.row import UNARY, Row, sample

__all__ = ["ROWS"]


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def _gelu(x: np.ndarray, approximate: str = "none") -> np.ndarray:
    if approximate == "tanh":
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return 0.5 * x * (1 + np.vectorize(math.erf, otypes=[float])(x / math.sqrt(2)))


def _glu(x: np.ndarray, axis: int = -1) -> Any:
    a, b = np.split(x, 2, axis)
    return a * _sigmoid(b)


def _swiglu(x: np.ndarray, axis: int = -1) -> Any:
    a, b = np.split(x, 2, axis)
    return a * _sigmoid(a) * b


HALVED = [
    sample((4,)), sample((2, 6)), sample((4, 3), axis=0), sample((2, 4, 1), axis=-2), sample((1, 2), axis=1),
    sample((0, 4)), sample((2, 0)),
]  # fmt: skip

ROWS: list[Row] = [
    Row("relu", tl.relu, lambda x: np.maximum(x, 0), UNARY),
    Row(
        "leaky_relu", tl.leaky_relu, lambda x, negative_slope=0.01: np.where(x > 0, x, negative_slope * x),
        [*UNARY, sample((2, 3), negative_slope=0.3), sample((4,), 0.0)],
    ),
    Row(
        "elu", tl.elu, lambda x, alpha=1.0: np.where(x > 0, x, alpha * np.expm1(x)),
        [*UNARY, sample((2, 3), alpha=0.3), sample((4,), 2.0)],
    ),
    Row(
        "hardtanh", tl.hardtanh, lambda x, min_val=-1, max_val=1: np.clip(x, min_val, max_val),
        [*UNARY, sample((2, 3), max_val=0.0), sample((8,), -0.2, 0.2)],
    ),
    Row("softsign", tl.softsign, lambda x: x / (1 + np.abs(x)), UNARY),
    Row("silu", tl.silu, lambda x: x * _sigmoid(x), UNARY),
    Row("mish", tl.mish, lambda x: x * np.tanh(np.log1p(np.exp(x))), UNARY),
    Row("gelu", tl.gelu, _gelu, [*UNARY, *[sample(s.arguments[0], approximate="tanh") for s in UNARY]]),
    Row("glu", tl.glu, _glu, HALVED),
    Row("swiglu", tl.swiglu, _swiglu, HALVED),
]  # fmt: skip
