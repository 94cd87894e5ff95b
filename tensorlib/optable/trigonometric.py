"""Rows of the op table: sines and tangents, their inverses, and the hyperbolic functions."""

from __future__ import annotations

import numpy as np

import tensorlib as tl
from tensorlib.optable.arithmetic import BINARY
from tensorlib.optable.row import UNARY, Row

__all__ = ["ROWS"]


def _within_one(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Return numbers from -0.8 to 0.8."""
    return np.asarray(rng.uniform(-0.8, 0.8, shape))


def _between_poles(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Return numbers from -1.2 to 1.2; the poles of the tangent are at -1.57 and 1.57."""
    return np.asarray(rng.uniform(-1.2, 1.2, shape))


ROWS: list[Row] = [
    Row("sin", tl.sin, np.sin, UNARY),
    Row("cos", tl.cos, np.cos, UNARY),
    Row("tan", tl.tan, np.tan, UNARY, _between_poles),
    Row("arcsin", tl.arcsin, np.arcsin, UNARY, _within_one),
    Row("arccos", tl.arccos, np.arccos, UNARY, _within_one),
    Row("arctan", tl.arctan, np.arctan, UNARY),
    Row("arctan2", tl.arctan2, np.arctan2, BINARY),
    Row("sinh", tl.sinh, np.sinh, UNARY),
    Row("cosh", tl.cosh, np.cosh, UNARY),
    Row("tanh", tl.tanh, np.tanh, UNARY),
]
