"""Rows of the op table: Losses."""

from __future__ import annotations

from typing import Any

import numpy as np

import tensorlib as tl
from tensorlib.optable.row import IDS, Row, at

__all__ = ["ROWS"]


def _softmax(x: np.ndarray, axis: int = -1, visible: Any = True) -> np.ndarray:
    e = np.where(visible, np.exp(x), 0.0)
    total = e.sum(axis=axis, keepdims=True)
    return e / np.where(total == 0, 1, total)


def _cross_entropy(
    logits: np.ndarray,
    targets: np.ndarray,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Any:
    log_probs = np.log(_softmax(logits))
    counted = targets != ignore_index
    one_hot = np.eye(logits.shape[-1])[np.where(counted, targets, 0)]
    smoothed = (1 - label_smoothing) * one_hot + label_smoothing / logits.shape[-1]
    losses = np.where(counted, -(smoothed * log_probs).sum(-1), 0.0)
    return {"none": losses, "sum": losses.sum(), "mean": losses.sum() / max(counted.sum(), 1)}[reduction]


ROWS: list[Row] = [
    Row(
        "cross_entropy", tl.cross_entropy, _cross_entropy,
        [at((3, 5), IDS[0]), at((2, 3, 5), IDS, ignore_index=0), at((2, 3, 5), IDS, label_smoothing=0.1),
         at((2, 3, 5), IDS, ignore_index=4, label_smoothing=0.2, reduction="sum"),
         at((3, 5), IDS[0], reduction="none"), at((2, 3), np.array([7, 7]), ignore_index=7), at((5,), np.array(2)),
         at((0, 3), np.zeros(0, int)), at((2, 1), np.array([0, 0])), at((2, 5), np.array([1, -100]))],
    ),
]  # fmt: skip
