"""Rows of the op table: sums, products, moments and norms over axes."""

from __future__ import annotations

from typing import Any

import numpy as np

import tensorlib as tl
from tensorlib.optable.row import BOOLEAN, REAL, Row, sample

__all__ = ["EMPTY", "REDUCED", "ROWS", "WITH_ZEROS"]


def WITH_ZEROS(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Return numbers of which every third is 0, so that slices along an axis hold none, one or several zeros."""
    x = REAL(rng, shape)
    x.reshape(-1)[::3] = 0
    return x


def _logsumexp(x: np.ndarray, axis: Any = None, keepdims: bool = False) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.log(np.exp(x).sum(axis=axis, keepdims=keepdims))


def _norm(x: np.ndarray, ord: float = 2, axis: Any = None, keepdims: bool = False) -> np.ndarray:
    if ord == np.inf:
        return np.abs(x).max(axis=axis, keepdims=keepdims)
    return (np.abs(x) ** ord).sum(axis=axis, keepdims=keepdims) ** (1 / ord)


REDUCED = [
    sample(()), sample((2, 3)), sample((2, 3), axis=0), sample((2, 3), axis=-1, keepdims=True),
    sample((2, 3, 4), axis=(0, -1)),
    sample((2, 1, 3), axis=1), sample((2, 3), axis=()), sample((0, 3), axis=1), sample((2, 3), keepdims=True),
    sample((1,), axis=0),
]  # fmt: skip
EMPTY = [sample((0, 3)), sample((0, 3), axis=0), sample((2, 0), axis=-1, keepdims=True)]
TRUTH = [
    sample((2, 3)), sample((2, 3), axis=0), sample((4,), axis=-1), sample((0, 2), axis=0),
    sample((2, 3, 2), axis=(0, 2)), sample(()),
    sample((2, 3), axis=-1, keepdims=True), sample((2, 1, 3), keepdims=True), sample(np.array([0.0, -2.0, 0.5])),
]  # fmt: skip

ROWS: list[Row] = [
    Row("sum", tl.sum, np.sum, REDUCED + EMPTY),
    Row(
        "prod", tl.prod, np.prod,
        [*REDUCED, *EMPTY, sample((5,)), sample((3, 2, 2), axis=(1, 0)), sample((2, 3, 2), axis=(-2,)),
         sample((2, 2, 3), axis=(0, 2))],
        WITH_ZEROS,
    ),
    Row("mean", tl.mean, np.mean, REDUCED),
    Row("var", tl.var, np.var, [*REDUCED, sample((2, 3), axis=1, ddof=1), sample((5,), ddof=2)]),
    Row("std", tl.std, np.std, [*REDUCED, sample((2, 3), axis=1, ddof=1), sample((5,), ddof=2)]),
    Row(
        "norm", tl.norm, _norm,
        [*REDUCED, *EMPTY, *[sample((2, 3), ord=p, axis=-1) for p in (1, 2, 3, 0.5, np.inf)],
         sample((2, 3), ord=1), sample((2, 3, 2), ord=2.5, axis=(0, 2), keepdims=True),
         sample((3, 1), ord=np.inf, keepdims=True)],
    ),
    Row("logsumexp", tl.logsumexp, _logsumexp, REDUCED + EMPTY),
    Row("any", tl.any, np.any, TRUTH, BOOLEAN, differentiable=False),
    Row("all", tl.all, np.all, TRUTH, BOOLEAN, differentiable=False),
    Row("count_nonzero", tl.count_nonzero, np.count_nonzero, TRUTH, BOOLEAN, differentiable=False),
]  # fmt: skip
