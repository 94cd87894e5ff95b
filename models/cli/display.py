"""Progress shown on standard error."""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

from models.system.numbers import shown_loss
from models.system.terminal import silence

if TYPE_CHECKING:
    from tqdm import tqdm  # type: ignore[import-untyped]

__all__ = ["Display", "bar", "note"]


class Display:
    """Training progress on standard error: a bar on a terminal, and elsewhere a line about every ten seconds.

    Once the stream has no reader (`2>&1 | head -1`, a closed terminal), nothing is shown and training continues.
    """

    SECONDS = 10.0

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = sys.stderr if stream is None else stream
        self.total = 0
        self._bar: tqdm | None = None
        self._recent: deque[tuple[float, int, float]] = deque(maxlen=50)  # (sum of losses, tokens, seconds) per step
        self._shown = time.monotonic()

    def begin(self, step: int, total: int) -> None:
        """Show that training begins, with `step` of about `total` steps already taken."""
        self.total = total
        if self.stream.isatty():
            from tqdm import tqdm

            self._separator = " · " if "utf" in (self.stream.encoding or "").lower() else ", "
            layout = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}, {remaining} left{postfix}]"
            self._bar = tqdm(
                initial=step, total=total, file=self.stream, dynamic_ncols=True, bar_format=layout, leave=False
            )

    def step(self, step: int, loss: float, tokens: int, learning_rate: float, seconds: float) -> None:
        """Move the bar, or print a line if the last one was printed long enough ago."""
        self._recent.append((loss * tokens, tokens, seconds))
        if self._bar is not None:
            self._guarded(lambda: self._update_bar(step, learning_rate))
        elif time.monotonic() - self._shown > self.SECONDS:
            self._shown = time.monotonic()
            loss, speed = self._means()
            state = f"loss {shown_loss(loss, 3)}  {speed:,.0f} tokens/s  learning rate {learning_rate:.2g}"
            seconds_left = max(self.total - step, 0) * self._mean_seconds()
            self.line(f"step {step}/{max(self.total, step)}  {state}  {_clock(seconds_left)} left")

    def line(self, text: str) -> None:
        """Show a line, above the bar if there is one."""
        if (shown := self._bar) is not None:
            self._guarded(lambda: shown.write(text, file=self.stream))
        else:
            self._guarded(lambda: print(text, file=self.stream, flush=True))

    def end(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._guarded(self._bar.close)
            self._bar = None

    def _guarded(self, show: Callable[[], object]) -> None:
        """Call `show`; if the stream no longer has a reader, stop showing anything."""
        try:
            show()
        except OSError:  # BrokenPipeError, or a closed terminal
            if self._bar is not None:
                self._bar.disable = True  # otherwise the bar writes once more when it is garbage-collected
            silence(self.stream)
            self._bar, self.stream = None, open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115

    def _update_bar(self, step: int, learning_rate: float) -> None:
        assert self._bar is not None
        self._bar.update(step - self._bar.n)
        if time.monotonic() - self._shown > 0.2:
            self._shown = time.monotonic()
            loss, speed = self._means()  # shown in short form, to leave room for the bar in 80 columns
            short = f"{speed / 1000:.1f}k" if speed < 99_950 else f"{speed / 1000:.0f}k"
            parts = [f"loss {shown_loss(loss, 2)}", f"{short} tok/s", f"lr {_short_rate(learning_rate)}"]
            self._bar.set_postfix_str(self._separator.join(parts))

    def _means(self) -> tuple[float, float]:
        """Return the mean loss per token, and tokens per second, over the latest steps."""
        losses, tokens, seconds = (sum(column) for column in zip(*self._recent, strict=True))
        return losses / max(tokens, 1), tokens / max(seconds, 1e-9)

    def _mean_seconds(self) -> float:
        return sum(seconds for _, _, seconds in self._recent) / max(len(self._recent), 1)


def note(text: str) -> None:
    """Say something on standard error."""
    print(f"tensorlib: {text}", file=sys.stderr)


def bar(description: str, total: int) -> tqdm:
    """Return a progress bar to use as a context manager; it is shown only on a terminal."""
    from tqdm import tqdm

    return tqdm(desc=description, total=total, file=sys.stderr, leave=False, disable=None, dynamic_ncols=True)


def _short_rate(rate: float) -> str:
    """Return 0.0009 as 9e-4."""
    digits, _, exponent = f"{rate:.1e}".partition("e")
    return f"{digits.removesuffix('.0')}e{int(exponent)}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
