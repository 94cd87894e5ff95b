"""Rows of the op table: cross-entropy, from logits and from log-probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np

import tensorlib as tl
from tensorlib.optable.row import IDS, Row, sample

__all__ = ["ROWS", "cross_entropy_reference"]


def _nll_loss(log_probs: np.ndarray, targets: np.ndarray, ignore_index: int = -100, reduction: str = "mean") -> Any:
    counted = targets != ignore_index
    one_hot = np.eye(log_probs.shape[-1])[np.where(counted, targets, 0)]
    losses = np.where(counted, -(one_hot * log_probs).sum(-1), 0.0)
    return {"none": losses, "sum": losses.sum(), "mean": losses.sum() / max(counted.sum(), 1)}[reduction]


def cross_entropy_reference(
    logits: np.ndarray,
    targets: np.ndarray,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Any:
    """Return the cross-entropy, computed from its definition."""
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    if targets.dtype.kind == "f":
        smoothed = (1 - label_smoothing) * targets + label_smoothing / logits.shape[-1]
        losses = -(smoothed * log_probs).sum(-1)
        return {"none": losses, "sum": losses.sum(), "mean": losses.sum() / max(losses.size, 1)}[reduction]
    mixed = (1 - label_smoothing) * log_probs + label_smoothing * log_probs.mean(-1, keepdims=True)
    return _nll_loss(mixed, targets, ignore_index, reduction)


NEGATIVE_LOG = [
    sample((3, 5), IDS[0]), sample((2, 3, 5), IDS, ignore_index=0),
    sample((2, 3, 5), IDS, ignore_index=4, reduction="sum"),
    sample((3, 5), IDS[0], reduction="none"), sample((2, 3), np.array([7, 7]), ignore_index=7),
    sample((5,), np.array(2)),
    sample((0, 3), np.zeros(0, int)), sample((2, 1), np.array([0, 0])), sample((2, 5), np.array([1, -100])),
    sample((2, 5), np.array([3, 1], "uint8")),
]  # fmt: skip

ROWS: list[Row] = [
    Row(
        "cross_entropy", tl.cross_entropy, cross_entropy_reference,
        [*NEGATIVE_LOG, sample((2, 3, 5), IDS, label_smoothing=0.1), sample((2, 5), IDS[1, :2], 0, 0.2, "sum"),
         sample((2, 3), (2, 3)), sample((2, 1, 3), (2, 1, 3), label_smoothing=0.1, reduction="none"),
         sample((3,), (3,)),
         sample((2, 3), np.eye(3)[:2], reduction="sum"), sample((0, 2), (0, 2))],
    ),
    Row("nll_loss", tl.nll_loss, _nll_loss, NEGATIVE_LOG),
]  # fmt: skip
