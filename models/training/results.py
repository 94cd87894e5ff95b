"""Results of steps that are still on their way from a device, recorded in the order of the steps."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from tensorlib.arrays.backend import Pending

__all__ = ["Results", "StepResult", "TakenStep"]

MOST = 4  # steps that may be on their way; the host waits for the oldest rather than run further ahead


@dataclass(frozen=True)
class TakenStep:
    """What is known of a step when it begins."""

    step: int
    epoch: int  # counted from 1
    tokens: int
    learning_rate: float
    began: float  # by time.perf_counter


@dataclass(frozen=True)
class StepResult:
    """What a step has computed."""

    taken: TakenStep
    loss: float
    norm: float  # of the gradient, before clipping
    skipped: bool

    @property
    def reason(self) -> str:
        """Why the step was skipped."""
        return f"the norm of the gradients is {self.norm}" if math.isfinite(self.loss) else f"the loss is {self.loss}"


class Results:
    """The steps whose results have not been recorded yet."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[TakenStep, Pending]] = deque()

    def add(self, taken: TakenStep, values: Pending) -> None:
        """Add a step that has begun; `values` are its loss, its norm, and whether it was skipped."""
        self._waiting.append((taken, values))

    def arrived(self, wait: bool = False) -> Iterator[StepResult]:
        """Yield the results that have arrived; with `wait`, all results. The oldest is waited for if there are many."""
        while self._waiting and (wait or len(self._waiting) > MOST or self._waiting[0][1].ready()):
            taken, values = self._waiting.popleft()
            loss, norm, skipped = values.value().tolist()
            yield StepResult(taken, loss, norm, bool(skipped))
