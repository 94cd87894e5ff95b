"""Learning-rate schedules: functions from the step number, counted from 1, to the learning rate."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

from nn.checks import check_number, check_size

__all__ = ["Schedule", "constant", "cosine", "inverse_sqrt", "noam"]

Schedule: TypeAlias = Callable[[int], float]


def constant(learning_rate: float, warmup: int = 0) -> Schedule:
    """Rise linearly over `warmup` steps, then stay constant: learning_rate · min(1, step / warmup).

    Every function here raises ValueError for a negative rate or warmup; its schedule does so for a negative step.

    >>> schedule = nn.schedules.constant(0.5, warmup=10)
    >>> schedule(5), schedule(10), schedule(1000)
    (0.25, 0.5, 0.5)
    """
    _check("constant", learning_rate=learning_rate, warmup=warmup)

    def rate_at(step: int) -> float:
        check_size("constant", least=0, step=step)
        return learning_rate * min(1.0, step / max(warmup, 1))

    return rate_at


def noam(width: int, warmup: int, factor: float = 1.0) -> Schedule:
    """Rise linearly, then fall with 1 / sqrt(step): factor · width^-0.5 · min(step^-0.5, step · warmup^-1.5).

    See Vaswani et al. 2017, equation 3. The schedule raises ValueError for a step below 1.

    >>> schedule = nn.schedules.noam(width=64, warmup=100)
    >>> schedule(50), schedule(100), schedule(400)
    (0.00625, 0.0125, 0.00625)
    """
    check_size("noam", width=width)
    _check("noam", factor=factor, warmup=warmup)

    def rate_at(step: int) -> float:
        check_size("noam", step=step)
        return factor * width**-0.5 * min(step**-0.5, step * max(warmup, 1) ** -1.5)

    return rate_at


def inverse_sqrt(learning_rate: float, warmup: int) -> Schedule:
    """Rise linearly, then fall with 1 / sqrt(step): learning_rate · min(step / warmup, sqrt(warmup / step)).

    The peak, `learning_rate`, is at step `warmup`. The schedule raises ValueError for a step below 1.

    >>> schedule = nn.schedules.inverse_sqrt(0.5, warmup=100)
    >>> schedule(50), schedule(100), schedule(400)
    (0.25, 0.5, 0.25)
    """
    _check("inverse_sqrt", learning_rate=learning_rate, warmup=warmup)
    peak = max(warmup, 1)

    def rate_at(step: int) -> float:
        check_size("inverse_sqrt", step=step)
        return learning_rate * min(step / peak, math.sqrt(peak / step))

    return rate_at


def cosine(learning_rate: float, warmup: int, total: int, final: float = 0.0) -> Schedule:
    """Rise linearly over `warmup` steps, then fall to `final` at step `total` along half a cosine.

    After the warmup the rate is final + (learning_rate - final) (1 + cos(pi (step - warmup) / (total - warmup))) / 2,
    as in Loshchilov and Hutter 2017 (SGDR, equation 5), but without restarts.

    >>> schedule = nn.schedules.cosine(1.0, warmup=10, total=110)
    >>> schedule(5), schedule(10), schedule(60), schedule(110)
    (0.5, 1.0, 0.5, 0.0)
    """
    _check("cosine", learning_rate=learning_rate, warmup=warmup, final=final)
    check_size("cosine", least=0, total=total)

    def rate_at(step: int) -> float:
        check_size("cosine", least=0, step=step)
        if step < warmup:
            return learning_rate * step / warmup
        progress = min(1.0, (step - warmup) / max(total - warmup, 1))
        return final + (learning_rate - final) * 0.5 * (1 + math.cos(math.pi * progress))

    return rate_at


def _check(schedule: str, *, warmup: int, **rates: Any) -> None:
    check_size(schedule, least=0, warmup=warmup)
    check_number(schedule, **rates)
