"""Rows of the op table: reading, replacing and adding elements at integer positions along one axis."""

from __future__ import annotations

from typing import Any

import numpy as np

import tensorlib as tl
from tensorlib.optable.row import IDS, Row, sample

__all__ = ["ROWS"]


def _positions(index: Any, axis: int) -> tuple[Any, ...]:
    return tuple([index if a == axis % index.ndim else p for a, p in enumerate(np.indices(index.shape))])


def _index_add(x: np.ndarray, source: np.ndarray, axis: int, index: np.ndarray) -> np.ndarray:
    y = np.moveaxis(x.copy(), axis, 0)
    for i, rows in zip(index, np.moveaxis(source, axis, 0), strict=True):
        y[i] += rows
    return np.moveaxis(y, 0, axis)


def _scatter(x: np.ndarray, source: Any, axis: int, index: np.ndarray, add: bool = False) -> np.ndarray:
    """Write or add one element after another."""
    y, source = x.copy(), np.broadcast_to(source, index.shape) if np.ndim(source) == 0 else source
    for element in np.ndindex(index.shape):
        target = list(element)
        target[axis] = index[element]
        y[tuple(target)] = source[element] + (y[tuple(target)] if add else 0)
    return y


def _scatter_add(x: np.ndarray, source: Any, axis: int, index: np.ndarray) -> np.ndarray:
    return _scatter(x, source, axis, index, add=True)


SCATTERED = [
    sample((2, 5), (2, 3), axis=1, index=IDS), sample((5, 3), (2, 3), axis=0, index=IDS),
    sample((5,), (3,), axis=-1, index=IDS[0]),
    sample((3, 5), (2, 4), axis=1, index=IDS), sample((2, 5), 1.5, axis=1, index=IDS), sample((1, 2),
    (1, 1), axis=1, index=IDS[1:, 1:2]),
    sample((1, 5, 2), (1, 3, 2), axis=1, index=np.array([[[0, 4], [4, 4], [0, 1]]])),
    sample((2, 3), -0.5, axis=0, index=np.zeros((0, 3), int)),
]  # fmt: skip

ROWS: list[Row] = [
    Row(
        "take", tl.take, np.take,
        [sample((2, 5), IDS, axis=1), sample((2, 5), IDS), sample((5, 3), -IDS, axis=0), sample((5,), 3),
         sample((5, 2), [0, 0, 4], axis=-2),
         sample((2, 5), np.array(4), axis=-1), sample((2, 5), np.zeros((2, 0), int), axis=1),
         sample((5, 0), IDS, axis=0),
         sample((1, 1), np.zeros(3, int), axis=1)],
    ),
    Row(
        "take_along_axis", tl.take_along_axis, np.take_along_axis,
        [sample((2, 5), IDS, axis=1), sample((2, 5), IDS, axis=-1), sample((5, 3), IDS, axis=0),
         sample((5,), IDS[0], axis=0),
         sample((2, 5), np.zeros((2, 0), int), axis=1), sample((1, 5), IDS, axis=1), sample((2, 5), IDS[:1], axis=1),
         sample((2, 2, 5), np.array([[[1], [1]], [[0], [4]]]), axis=2), sample((2, 5), -IDS, axis=1),
         sample((2, 3), IDS[0], axis=None)],
    ),
    Row(
        "gather", lambda x, axis, index: tl.gather(x, axis, index), lambda x, axis, index: x[_positions(index, axis)],
        [sample((2, 5), axis=1, index=IDS), sample((2, 5), axis=-1, index=IDS[:1]), sample((5, 4), axis=0, index=IDS),
         sample((5,), axis=0, index=IDS[0]), sample((3, 5), axis=1, index=IDS[:, :1]),
         sample((2, 5), axis=1, index=np.zeros((0, 3), int)),
         sample((2, 2, 5), axis=2, index=np.array([[[1], [1]], [[0], [4]]])),
         sample((1, 5), axis=1, index=IDS[:1] % 2)],
    ),
    Row(
        "index_add", lambda x, source, axis, index: tl.index_add(x, axis, index, source), _index_add,
        [sample((5, 2), (3, 2), axis=0, index=IDS[0]), sample((2, 5), (2, 3), axis=1, index=IDS[0]), sample((5,),
         (3,), axis=-1, index=IDS[1]),
         sample((2, 5, 1), (2, 3, 1), axis=-2, index=IDS[0]), sample((2, 3), (0, 3), axis=0, index=np.zeros(0, int)),
         sample((5, 0), (3, 0), axis=0, index=IDS[0]), sample((1,), (4,), axis=0, index=np.zeros(4, int))],
    ),
    Row("scatter", lambda x, source, axis, index: tl.scatter(x, axis, index, source), _scatter, SCATTERED),
    Row("scatter_add", lambda x, source, axis, index: tl.scatter_add(x, axis, index, source), _scatter_add, SCATTERED),
    Row(
        "one_hot", tl.one_hot, lambda ids, classes, dtype="float32": np.eye(classes, dtype=dtype)[ids],
        [sample(IDS, 5), sample(IDS[0], 7, dtype="float64"), sample(np.array(2), 3), sample(np.zeros((2, 0), int), 4),
         sample(IDS.astype("uint8"), 5, dtype="bool"), sample(np.zeros((0,), int), 0, dtype="int64")],
        differentiable=False,
    ),
]  # fmt: skip
