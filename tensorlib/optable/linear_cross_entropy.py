"""Rows of the op table: the output layer and its loss as one op."""

from __future__ import annotations

from typing import Any

import numpy as np

import tensorlib as tl
from tensorlib.optable.crossentropy import cross_entropy_reference
from tensorlib.optable.row import IDS, Row, sample

__all__ = ["ROWS"]


def _linear_cross_entropy(x: np.ndarray, weight: np.ndarray, bias: Any, targets: np.ndarray, **options: Any) -> Any:
    logits = np.einsum("...d,dv->...v", x, weight) + (0.0 if bias is None else bias)
    return cross_entropy_reference(logits, targets, **options)


ROWS: list[Row] = [
    Row(
        "linear_cross_entropy", tl.linear_cross_entropy, _linear_cross_entropy,
        [sample((3, 2), (2, 5), None, IDS[0]), sample((2, 3, 2), (2, 5), (5,), IDS, ignore_index=0),
         sample((4,), (4, 5), None, np.array(2)), sample((2, 3, 2), (2, 5), None, IDS, ignore_index=4, reduction="sum"),
         sample((3, 2), (2, 5), (5,), IDS[0], reduction="none"),
         sample((2, 2), (2, 3), None, np.array([7, 7]), ignore_index=7),
         sample((0, 2), (2, 3), None, np.zeros(0, int)), sample((2, 3, 2), (2, 5), (5,), IDS, label_smoothing=0.1),
         sample((2, 1), (1, 1), (1,), np.array([0, 0])),
         sample((2, 2), (2, 5), None, np.array([3, 1], "uint8"), label_smoothing=0.2, reduction="sum")],
    ),
]  # fmt: skip
