"""Learning-rate schedules: functions from the number of the step, counted from 1, to the learning rate."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

__all__ = ["Schedule", "constant", "cosine", "inverse_sqrt", "noam"]

Schedule: TypeAlias = Callable[[int], float]


def constant(learning_rate: float, warmup: int = 0) -> Schedule:
    """Rise linearly over `warmup` steps, then stay."""
    return lambda step: learning_rate * min(1.0, step / max(warmup, 1))


def noam(width: int, warmup: int, factor: float = 1.0) -> Schedule:
    """Rise linearly, then fall with 1 / sqrt(step): factor · width^-0.5 · min(step^-0.5, step · warmup^-1.5).

    Vaswani et al. 2017, equation 3.
    """
    return lambda step: factor * width**-0.5 * min(step**-0.5, step * max(warmup, 1) ** -1.5)


def inverse_sqrt(learning_rate: float, warmup: int) -> Schedule:
    """Rise linearly to `learning_rate` over `warmup` steps, then fall with 1 / sqrt(step)."""
    top = max(warmup, 1)
    return lambda step: learning_rate * min(step / top, math.sqrt(top / step))


def cosine(learning_rate: float, warmup: int, total: int, final: float = 0.0) -> Schedule:
    """Rise linearly over `warmup` steps, then fall to `final` at step `total` along half a cosine.

    Loshchilov and Hutter 2017 (SGDR, equation 5), without restarts.
    """

    def at(step: int) -> float:
        if step < warmup:
            return learning_rate * step / warmup
        progress = min(1.0, (step - warmup) / max(total - warmup, 1))
        return final + (learning_rate - final) * 0.5 * (1 + math.cos(math.pi * progress))

    return at
