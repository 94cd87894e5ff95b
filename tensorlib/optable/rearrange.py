"""Rows of the op table: flipping, shifting, repeating and padding."""

from __future__ import annotations

import numpy as np

import tensorlib as tl
from tensorlib.optable.row import Row, sample

__all__ = ["ROWS"]

ROWS: list[Row] = [
    Row(
        "flip", tl.flip, np.flip,
        [sample((2, 3)), sample((2, 3), axis=0), sample((2, 3, 2), axis=(0, -1)), sample(()), sample((0, 2), axis=1),
         sample((1, 3), axis=-1)],
    ),
    Row(
        "roll", tl.roll, np.roll,
        [sample((5,), 2), sample((2, 3), -1), sample((2, 3), 1, axis=0), sample((2, 3), 4, axis=-1),
         sample((2, 3, 2), shift=(1, -1), axis=(0, 1)),
         sample((2, 3), shift=1, axis=(0, 1)), sample((4,), shift=(1, 2), axis=0), sample((0, 3), 1, axis=0),
         sample((), 2),
         sample((3,), 0)],
    ),
    Row(
        "repeat", tl.repeat, np.repeat,
        [sample((2, 3), 2), sample((2, 3), 2, axis=0), sample((2, 3), 3, axis=-1), sample((2, 3), [2, 0, 1], axis=1),
         sample((), 3),
         sample((2, 3), [1, 2], axis=0), sample((2, 1), 0, axis=1), sample((0, 2), 2, axis=0), sample((3,), [2]),
         sample((0,), [])],
    ),
    Row(
        "tile", tl.tile, np.tile,
        [sample((3,), 2), sample((2, 3), reps=(2, 1)), sample((2, 3), 2), sample((2,), reps=(2, 2)), sample((), 3),
         sample((1, 2), reps=(0, 2)),
         sample((2, 0), reps=(1, 2)), sample((2, 1), reps=(2, 1, 2))],
    ),
    Row(
        "pad", tl.pad, np.pad,
        [sample((2, 3), 1), sample((2, 3), pad_width=(1, 2)), sample((2, 3), [[0, 1], [2, 0]], constant_values=-0.5),
         sample((3,), pad_width=((1, 2),)), sample((0, 2), 1), sample((2, 0), [[1, 0], [0, 2]]),
         sample((2, 3), 2, mode="reflect"), sample((1, 3), [[1, 2], [4, 0]], mode="reflect"),
         sample((2, 3), 0, mode="reflect"),
         sample((2, 3), 2, mode="edge"), sample((3,), pad_width=(0, 2), mode="edge"), sample((2, 3), 3, mode="wrap"),
         sample((2, 3), [[0, 0], [2, 1]], mode="wrap"), sample((2, 3), 2, mode="symmetric"), sample((), 1)],
    ),
]  # fmt: skip
