"""Learning-rate schedules: functions from the number of the step, counted from 1, to the learning rate."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

from nn.checks import check_number, check_size

__all__ = ["Schedule", "constant", "cosine", "inverse_sqrt", "noam"]

Schedule: TypeAlias = Callable[[int], float]


def constant(learning_rate: float, warmup: int = 0) -> Schedule:
    """Rise linearly over `warmup` steps, then stay."""
    _check("constant", learning_rate=learning_rate, warmup=warmup)

    def at(step: int) -> float:
        check_size("constant", least=0, step=step)
        return learning_rate * min(1.0, step / max(warmup, 1))

    return at


def noam(width: int, warmup: int, factor: float = 1.0) -> Schedule:
    """Rise linearly, then fall with 1 / sqrt(step): factor · width^-0.5 · min(step^-0.5, step · warmup^-1.5).

    Vaswani et al. 2017, equation 3.
    """
    check_size("noam", width=width)
    _check("noam", factor=factor, warmup=warmup)

    def at(step: int) -> float:
        check_size("noam", step=step)
        return factor * width**-0.5 * min(step**-0.5, step * max(warmup, 1) ** -1.5)

    return at


def inverse_sqrt(learning_rate: float, warmup: int) -> Schedule:
    """Rise linearly to `learning_rate` over `warmup` steps, then fall with 1 / sqrt(step)."""
    _check("inverse_sqrt", learning_rate=learning_rate, warmup=warmup)
    top = max(warmup, 1)

    def at(step: int) -> float:
        check_size("inverse_sqrt", step=step)
        return learning_rate * min(step / top, math.sqrt(top / step))

    return at


def cosine(learning_rate: float, warmup: int, total: int, final: float = 0.0) -> Schedule:
    """Rise linearly over `warmup` steps, then fall to `final` at step `total` along half a cosine.

    Loshchilov and Hutter 2017 (SGDR, equation 5), without restarts.
    """
    _check("cosine", learning_rate=learning_rate, warmup=warmup, final=final)
    check_size("cosine", least=0, total=total)

    def at(step: int) -> float:
        check_size("cosine", least=0, step=step)
        if step < warmup:
            return learning_rate * step / warmup
        progress = min(1.0, (step - warmup) / max(total - warmup, 1))
        return final + (learning_rate - final) * 0.5 * (1 + math.cos(math.pi * progress))

    return at


def _check(schedule: str, *, warmup: int, **rates: Any) -> None:
    check_size(schedule, least=0, warmup=warmup)
    check_number(schedule, **rates)
