"""Stopping when asked: Ctrl-C, SIGTERM and a closed terminal end a run at the next good moment."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Self

__all__ = ["Stopped", "Stopper"]


class Stopped(Exception):
    """A signal asked the program to stop. `saved` says what was saved and how to go on."""

    def __init__(self, signal_number: int, *, at_once: bool = False) -> None:
        super().__init__(f"stopped by {signal.Signals(signal_number).name}")
        self.signal_number = signal_number
        self.at_once = at_once  # raised out of whatever was being done, whose state nobody knows
        self.saved = ""


class Stopper:
    """Within this context SIGINT, SIGTERM and SIGHUP raise `Stopped`: at once, or, while `patient`, from `check`.

    A second signal doesn't wait. A signal that was ignored before stays so: nohup and a shell's `&` rely on it.
    """

    def __init__(self) -> None:
        self.patient = False
        self._asked: int | None = None

    def __enter__(self) -> Self:
        numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
        heard = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
        self._before = {number: signal.signal(number, self._ask) for number in heard}
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if not self.patient or self._asked is not None:
            raise Stopped(number, at_once=True)
        self._asked = number

    def check(self) -> None:
        """Raise `Stopped` if a signal has come."""
        if self._asked is not None:
            raise Stopped(self._asked)
