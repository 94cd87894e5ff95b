"""Stopping on request: Ctrl-C, SIGTERM and a closed terminal end a run at the next suitable moment."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Self

__all__ = ["Stopped", "Stopper"]

_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")


class Stopped(Exception):
    """A signal asked the program to stop. `saved` says what was saved and how to resume."""

    def __init__(self, signal_number: int, *, at_once: bool = False) -> None:
        super().__init__(f"stopped by {signal.Signals(signal_number).name}")
        self.signal_number = signal_number
        self.at_once = at_once  # True: raised in the middle of any operation, which leaves its state unknown
        self.saved = ""


class Stopper:
    """A context in which SIGINT, SIGTERM and SIGHUP raise `Stopped`: at once or, if `patient`, at the next `check`.

    Windows has no SIGHUP; there, Ctrl-Break and a closed console give SIGBREAK. A second signal raises at once. One
    that was ignored before stays ignored, as nohup and a shell's `&` require.
    """

    def __init__(self) -> None:
        self.patient = False
        self._received: int | None = None

    def __enter__(self) -> Self:
        numbers = [getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)]
        handled = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
        self._previous = {number: signal.signal(number, self._handle) for number in handled}
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self.patient or self._received is not None:
            raise Stopped(number, at_once=True)
        self._received = number

    def check(self) -> None:
        """Raise `Stopped` if a signal was received."""
        if self._received is not None:
            raise Stopped(self._received)
