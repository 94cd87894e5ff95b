"""Rows of the op table: selecting elements."""

from __future__ import annotations

import numpy as np

import tensorlib as tl
from tensorlib.optable.row import IDS, VISIBLE, Row, sample

__all__ = ["ROWS"]

ROWS: list[Row] = [
    Row(
        "getitem", lambda x, index: tl.getitem(x, index), lambda x, index: x[index],
        [sample((4, 3), index=index) for index in (
            0, -1, slice(None, None, 2), slice(None, None, -1), slice(4, None), (1, 2), (..., 0), None, (),
            (slice(None), None, 1), [0, 0, 3], IDS[:, :2] % 4, (IDS % 4, IDS % 3), np.array([], int), np.array(2),
            (slice(1, 3), np.array([2, 0, 2])), (np.array([1, 1]), None, slice(0, 2)),
            np.array([True, False, True, True]), np.zeros((4, 3), bool), -IDS % 3 - 3,
            (slice(0, 1), [True, False, True]),
            (np.array([True, False, True, True]), np.array([2, 0, 0])), (..., None, np.array([[0, 2]]), None), True,
            (np.array([0, 0]), slice(1, None)), (None, np.array([3, 3]), ..., np.array([1, 1])),
        )] + [sample((), index=()), sample((), index=None), sample((0, 2), index=slice(None))],
    ),
    Row(
        "embedding", tl.embedding, lambda weight, ids: weight[ids],
        [sample((5, 3), IDS), sample((5,), IDS), sample((5, 2, 2), IDS[0]), sample((5, 3), np.array(4)),
         sample((1, 2), np.zeros(3, int)), sample((5, 3), np.zeros((2, 0), int)),
         sample((5, 0), IDS), sample((5, 2), IDS.astype("uint8"))],
    ),
    Row(
        "where", lambda x, y, condition: tl.where(condition, x, y), lambda x, y, condition: np.where(condition, x, y),
        [sample((3, 4), (3, 4), condition=VISIBLE), sample((4,), (3, 1), condition=VISIBLE),
         sample((3, 4), 0.0, condition=VISIBLE),
         sample(1.5, (4,), condition=VISIBLE), sample((), (), condition=VISIBLE[0]), sample((2,), (2,), condition=True),
         sample((0, 2), (1, 2), condition=np.zeros((0, 1), bool))],
    ),
    Row(
        "masked_fill", tl.masked_fill, lambda x, mask, value: np.where(mask, value, x),
        [sample((3, 4), VISIBLE, 0.0), sample((4,), VISIBLE, -2.0), sample((2, 3, 4), VISIBLE, -50.0),
         sample((), VISIBLE[0], 1.0),
         sample((0, 4), np.zeros((1, 4), bool), 1.0)],
    ),
]  # fmt: skip
