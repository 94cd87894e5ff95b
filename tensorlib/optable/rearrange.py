"""Rows of the op table: Mirroring, shifting, repeating and padding."""

from __future__ import annotations

import numpy as np

import tensorlib as tl
from tensorlib.optable.row import Row, at

__all__ = ["ROWS"]

ROWS: list[Row] = [
    Row(
        "flip", tl.flip, np.flip,
        [at((2, 3)), at((2, 3), axis=0), at((2, 3, 2), axis=(0, -1)), at(()), at((0, 2), axis=1), at((1, 3), axis=-1)],
    ),
    Row(
        "roll", tl.roll, np.roll,
        [at((5,), 2), at((2, 3), -1), at((2, 3), 1, axis=0), at((2, 3), 4, axis=-1),
         at((2, 3, 2), shift=(1, -1), axis=(0, 1)),
         at((2, 3), shift=1, axis=(0, 1)), at((4,), shift=(1, 2), axis=0), at((0, 3), 1, axis=0), at((), 2),
         at((3,), 0)],
    ),
    Row(
        "repeat", tl.repeat, np.repeat,
        [at((2, 3), 2), at((2, 3), 2, axis=0), at((2, 3), 3, axis=-1), at((2, 3), [2, 0, 1], axis=1), at((), 3),
         at((2, 3), [1, 2], axis=0), at((2, 1), 0, axis=1), at((0, 2), 2, axis=0), at((3,), [2]), at((0,), [])],
    ),
    Row(
        "tile", tl.tile, np.tile,
        [at((3,), 2), at((2, 3), reps=(2, 1)), at((2, 3), 2), at((2,), reps=(2, 2)), at((), 3), at((1, 2), reps=(0, 2)),
         at((2, 0), reps=(1, 2)), at((2, 1), reps=(2, 1, 2))],
    ),
    Row(
        "pad", tl.pad, np.pad,
        [at((2, 3), 1), at((2, 3), pad_width=(1, 2)), at((2, 3), [[0, 1], [2, 0]], constant_values=-0.5),
         at((3,), pad_width=((1, 2),)), at((0, 2), 1), at((2, 0), [[1, 0], [0, 2]]),
         at((2, 3), 2, mode="reflect"), at((1, 3), [[1, 2], [4, 0]], mode="reflect"), at((2, 3), 0, mode="reflect"),
         at((2, 3), 2, mode="edge"), at((3,), pad_width=(0, 2), mode="edge"), at((2, 3), 3, mode="wrap"),
         at((2, 3), [[0, 0], [2, 1]], mode="wrap"), at((2, 3), 2, mode="symmetric"), at((), 1)],
    ),
]  # fmt: skip
