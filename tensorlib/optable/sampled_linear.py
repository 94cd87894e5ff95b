"""Rows of the op table: a linear layer at sampled outputs."""

from __future__ import annotations

import numpy as np

import tensorlib as tl
from tensorlib.optable.row import IDS, Row, sample

__all__ = ["ROWS"]

ROWS: list[Row] = [
    Row(
        "sampled_linear", tl.sampled_linear,
        lambda x, weight, ids: np.einsum("...d,...kd->...k", x, weight[ids]),
        [sample((2, 4), (5, 4), IDS), sample((4,), (5, 4), IDS[1]), sample((2, 3, 2), (5, 2), IDS[..., None]),
         sample((2, 1), (5, 1), IDS), sample((2, 3), (5, 3), np.zeros((2, 0), int)),
         sample((0, 3), (5, 3), np.zeros((0, 2), int)), sample((2, 0), (5, 0), IDS),
         sample((2, 3), (5, 3), IDS.astype("uint8"))],
    ),
]  # fmt: skip
