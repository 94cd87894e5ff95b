"""Rows of the op table: sorting and searching."""

from __future__ import annotations

import numpy as np

import tensorlib as tl
from tensorlib.optable.row import DISTINCT, Row, sample

__all__ = ["ROWS"]


def _sort(x: np.ndarray, axis: int | None = -1, descending: bool = False) -> np.ndarray:
    return -np.sort(-x, axis=axis) if descending else np.sort(x, axis=axis)


def _argsort(x: np.ndarray, axis: int | None = -1, descending: bool = False) -> np.ndarray:
    return np.argsort(-x if descending else x, axis=axis, kind="stable")


def _topk(x: np.ndarray, k: int, axis: int = -1, largest: bool = True) -> np.ndarray:
    """Return the values; a separate test checks that the indices are those of argsort."""
    return np.take(_sort(x, axis, largest), np.arange(k), axis)


ORDERED = [
    sample((4,)), sample((2, 3)), sample((2, 3), axis=0), sample((2, 3), descending=True),
    sample((3, 2), axis=0, descending=True),
    sample((2, 3), axis=None), sample((2, 2, 3), axis=-2), sample((1, 3), axis=0), sample((2, 0)),
    sample((0, 2), descending=True),
]  # fmt: skip
TIED = [sample(np.array([2.0, 1.0, 2.0, 1.0])), sample(np.array([[2, 1, 2, 1]]), descending=True)]

ROWS: list[Row] = [
    Row("sort", tl.sort, _sort, ORDERED, DISTINCT),
    Row("argsort", tl.argsort, _argsort, ORDERED + TIED, DISTINCT, differentiable=False),
    Row(
        "topk", lambda x, *a, **k: tl.topk(x, *a, **k)[0], _topk,
        [sample((4,), 2), sample((2, 3), 2), sample((3, 2), 1, axis=0), sample((2, 3), 2, largest=False),
         sample((2, 3), 3, axis=-1),
         sample((2, 3), 0), sample((0, 2), 1), sample((1, 1), 1)],
        DISTINCT,
    ),
    Row(
        "searchsorted", tl.searchsorted, np.searchsorted,
        [sample(np.array([0.0, 1, 1, 2]), (2, 3)), sample(np.array([0.0, 1, 1, 2]), 1.0),
         sample(np.array([0, 1, 1, 2]), np.array([[1, 3]])),
         sample(np.array([0.0, 1, 1, 2]), np.array([1.0, -1, 5]), side="right"), sample(np.zeros(0), (2,)),
         sample(np.ones(3),
         (0, 2))],
        differentiable=False,
    ),
]  # fmt: skip
