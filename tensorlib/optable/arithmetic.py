"""Rows of the op table: arithmetic."""

from __future__ import annotations

import numpy as np

import tensorlib as tl
from tensorlib.optable.row import DISTINCT, POSITIVE, UNARY, Domain, Row, sample

__all__ = ["BINARY", "ROWS"]

BINARY = [
    sample((3,), (3,)), sample((), ()), sample((), (2, 3)), sample((2, 1, 3), (4, 1)), sample((2, 3), (3,)),
    sample((0, 3), (1, 3)),
    sample((1, 1), (1,)), sample((2, 3), 2.5), sample(-1.5, (2,)), sample((2,), np.float64(0.7)),
    sample((2, 1), np.full((1, 3), 0.6)),
]  # fmt: skip


def _between(low: float, high: float) -> Domain:
    """Return a domain of numbers of both signs with magnitudes from `low` to `high`."""
    return lambda rng, shape: np.asarray(rng.uniform(low, high, shape) * rng.choice([-1.0, 1.0], shape))


ROWS: list[Row] = [
    Row("add", tl.add, np.add, BINARY),
    Row("subtract", tl.subtract, np.subtract, BINARY),
    Row("multiply", tl.multiply, np.multiply, BINARY),
    Row("divide", tl.divide, np.divide, BINARY),
    Row("negative", tl.negative, np.negative, UNARY),
    Row("reciprocal", tl.reciprocal, np.reciprocal, UNARY),
    Row(
        "power", tl.power, np.power,
        [sample((3,), (3,)), sample((2, 3), 2), sample((2, 3), -1.5), sample((3,), 0), sample((3,), 1),
         sample(2.5, (2,)), sample((2, 1), (3,)),
         sample((), ()), sample((0,), (0,)), sample((2, 3), np.array([2.0, 0.0, -1.0]))],
        POSITIVE,
    ),
    Row(
        "remainder", tl.remainder, np.remainder,
        [sample((3,), (3,)), sample((), ()), sample((), (2, 3)), sample((2, 1, 3), (4, 1)), sample((0, 3), (1, 3)),
         sample((1, 1), (1,))],
        (_between(1.25, 1.4), _between(0.5, 0.6)),  # |quotient| from 2.08 to 2.8: never near a jump
    ),
    Row("floor_divide", tl.floor_divide, np.floor_divide, BINARY, differentiable=False),
    Row("maximum", tl.maximum, np.maximum, BINARY, DISTINCT),
    Row("minimum", tl.minimum, np.minimum, BINARY, DISTINCT),
    Row(
        "clip", tl.clip, np.clip,
        [sample((2, 3), -1.0, 0.1), sample((2, 3), min=0.1), sample((4,), max=-0.1), sample((), -0.1, 0.1),
         sample((0, 3), 0, 1),
         sample((2, 3), (2, 3), (3,)), sample((1, 3), (2, 1), None), sample((3,), None, (1,)), sample((3,), 1.0, -1.0),
         sample((2, 1), np.array([-0.2, 0.1, 1.0]), (3,)), sample((2, 2))],
        DISTINCT,
    ),
]  # fmt: skip
