"""Rows of the op table: moving or copying elements without changing them."""

from __future__ import annotations

import numpy as np

import tensorlib as tl
from tensorlib.optable.row import UNARY, Row, sample

__all__ = ["ROWS"]


def _flatten(x: np.ndarray, start: int = 0, end: int = -1) -> np.ndarray:
    x = x.reshape(1) if x.ndim == 0 else x
    start, end = start % x.ndim, end % x.ndim
    return x.reshape(*x.shape[:start], int(np.prod(x.shape[start : end + 1])), *x.shape[end + 1 :])


ROWS: list[Row] = [
    Row(
        "reshape", tl.reshape, np.reshape,
        [sample((2, 3), shape) for shape in ([3, 2], [-1], [6, 1], [1, 2, -1])] + [sample((), [1]),
         sample((0, 3), [3, 0])],
    ),
    Row(
        "transpose", lambda x, axes=(): tl.transpose(x, *axes), lambda x, axes=None: np.transpose(x, axes),
        [sample((2, 3)), sample((2, 3, 4)), sample((2, 3, 4), axes=(1, 2, 0)), sample((2, 3, 4), axes=(-1, 0, 1)),
         sample(()), sample((0, 2))],
    ),
    Row(
        "swapaxes", tl.swapaxes, np.swapaxes,
        [sample((2, 3), 0, 1), sample((2, 3, 4), -1, -2), sample((2, 3, 4), 0, -1), sample((2,), 0, 0),
         sample((0, 1, 2), 1, 2)],
    ),
    Row(
        "moveaxis", tl.moveaxis, np.moveaxis,
        [sample((2, 3, 4), 0, -1), sample((2, 3, 4), -1, 0), sample((2, 3, 4), source=(0, 2), destination=(1, 0)),
         sample((2, 1, 3), source=(-1, 0), destination=(-2, -1)), sample((3,), 0, 0), sample((0, 2), 0, 1)],
    ),
    Row(
        "flatten", tl.flatten, _flatten,
        [sample((2, 3, 4)), sample((2, 3, 4), 1), sample((2, 3, 4), 0, -2), sample((2, 3), -1, -1), sample(()),
         sample((2, 0, 3), 1),
         sample((1, 1))],
    ),
    Row(
        "expand_dims", tl.expand_dims, np.expand_dims,
        [sample((2, 3), 0), sample((2, 3), -1), sample((2, 3), 1), sample((), 0), sample((0,), -2),
         sample((2, 3), axis=(0, -1)),
         sample((2,), axis=(-2, 0))],
    ),
    Row(
        "squeeze", tl.squeeze, np.squeeze,
        [sample((1, 2, 1)), sample((1, 2, 1), axis=0), sample((1, 2, 1), axis=-1), sample((1, 1), axis=(0, 1)),
         sample((2,)), sample((0, 1))],
    ),
    Row(
        "broadcast_to", lambda x, shape: tl.broadcast_to(x, shape), np.broadcast_to,
        [sample((3,), shape=(2, 3)), sample((2, 1), shape=(2, 4)), sample((), shape=(2, 2)),
         sample((1, 1), shape=(3, 1)),
         sample((2,), shape=(2,)), sample((1, 2), shape=(0, 2))],
    ),
    Row(
        "concatenate", lambda *xs, axis=0: tl.concatenate(xs, axis), lambda *xs, axis=0: np.concatenate(xs, axis),
        [sample((2, 3), (1, 3)), sample((2, 3), (2, 1), (2, 2), axis=-1), sample((2, 3)), sample((0, 2), (3, 2)),
         sample((1,), (0,), (1,)),
         sample((1, 2), np.full((1, 2), 0.5), axis=1)],
    ),
    Row(
        "stack", lambda *xs, axis=0: tl.stack(xs, axis), lambda *xs, axis=0: np.stack(xs, axis),
        [sample((2, 3), (2, 3)), sample((2, 3), (2, 3), axis=-1), sample((), ()), sample((3,), (3,), (3,), axis=1),
         sample((0,), (0,))],
    ),
    Row(
        "split", tl.split, np.split,
        [sample((4, 3), 2), sample((2, 6), 3, axis=-1), sample((3, 5), [1, 4], axis=1), sample((3,), [1, 1, 2]),
         sample((0, 2), 1),
         sample((2, 1, 3), [2], axis=2)],
    ),
    Row(
        "unstack", tl.unstack, lambda x, axis=0: [np.take(x, i, axis) for i in range(x.shape[axis])],
        [sample((3, 2)), sample((3, 2), axis=-1), sample((2, 1, 3), axis=1), sample((1,)), sample((2, 0)),
         sample((2, 3, 1), axis=0)],
    ),
    Row("astype", lambda x: tl.astype(x, "float64"), lambda x: x, UNARY),
    Row("copy", tl.copy, np.copy, UNARY),
]  # fmt: skip
