"""How a dynamic loss scale follows the steps of training, as a formula on raw arrays."""

from __future__ import annotations

from functools import singledispatch
from typing import Any

from tensorlib.arrays.backend import Array, namespace_of

__all__ = ["loss_scale_update"]


@singledispatch
def loss_scale_update(scale: Any, good: Any, skipped: Array | bool, grow_after: int, most: float) -> None:
    """Adjust a loss scale, float32 of shape (), and the count of good steps, int64 of shape (), in place.

    A skipped step:  scale <- max(scale / 2, 1), good <- 0.
    Another one:     good <- good + 1;  if good is now `grow_after`: scale <- min(2 scale, most), good <- 0.

    skipped: a bool of shape (), on the same device, which is not awaited.

    Kernels: cuda/loss_scale.py.
    """
    xp, count = namespace_of(scale), good + 1
    grown = count >= grow_after
    larger, smaller = xp.minimum(2 * scale, most), xp.maximum(scale / 2, 1)
    scale[...] = xp.where(skipped, smaller, xp.where(grown, larger, scale))
    good[...] = xp.where(skipped, 0, xp.where(grown, 0, count))
