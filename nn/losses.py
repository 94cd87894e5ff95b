"""Losses as modules."""

from __future__ import annotations

from typing import Any

import tensorlib as tl
from nn.module import Module

__all__ = ["CrossEntropyLoss"]


class CrossEntropyLoss(Module):
    """Cross-entropy in nats, with label smoothing and padding left out; see `tensorlib.cross_entropy`."""

    def __init__(self, ignore_index: int = -100, label_smoothing: float = 0.0, reduction: str = "mean") -> None:
        self.ignore_index, self.label_smoothing, self.reduction = ignore_index, label_smoothing, reduction

    def forward(self, logits: Any, targets: Any) -> Any:
        """Return the loss of `logits` (..., V) for integer `targets` (...)."""
        return tl.cross_entropy(logits, targets, self.ignore_index, self.label_smoothing, self.reduction)
