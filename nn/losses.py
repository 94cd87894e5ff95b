"""Losses as modules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

import tensorlib as tl
from nn.module import Module
from tensorlib.messages import shown

if TYPE_CHECKING:
    from tensorlib.engine.value import TensorLike

__all__ = ["CrossEntropyLoss"]


class CrossEntropyLoss(Module):
    """Cross-entropy in nats: the mean (or sum) of -log softmax(logits)[target] over the targets.

    Targets equal to `ignore_index` (padding) are left out. Label smoothing s (Szegedy et al. 2016, section 7) spreads
    the fraction s of each target's probability evenly over the V classes. The errors are those of `tl.cross_entropy`.

    >>> loss = nn.CrossEntropyLoss(ignore_index=0)
    >>> loss(tl.zeros((3, 4)), [1, 2, 0])  # log 4, the mean over two targets
    Tensor(1.3863, shape=(), dtype=float32)
    """

    def __init__(
        self,
        ignore_index: int = -100,
        label_smoothing: float = 0.0,
        reduction: Literal["mean", "sum", "none"] = "mean",
    ) -> None:
        if not isinstance(ignore_index, int | np.integer):
            raise TypeError(
                f"CrossEntropyLoss: ignore_index must be an integer, got {shown(ignore_index)}; make the module first, "
                "then call it: nn.CrossEntropyLoss()(logits, targets)"
            )
        self.ignore_index, self.label_smoothing, self.reduction = ignore_index, label_smoothing, reduction

    def forward(self, logits: TensorLike, targets: TensorLike) -> tl.Tensor:
        """Return the loss of `logits` (..., V) for integer `targets` (...): a scalar, or (...) for reduction "none"."""
        return tl.cross_entropy(logits, targets, self.ignore_index, self.label_smoothing, self.reduction)
