"""What a run tells while it goes: its two logs, and the bar or the lines that a person watches."""

from __future__ import annotations

import json
import os
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from models.system.terminal import silence
from tensorlib.exchange.safetensors import write_atomically

__all__ = ["Display", "RunLog", "bar"]


class RunLog:
    """`log.jsonl`, what two equal runs share, and `speed.jsonl`, what they don't: one JSON object a line.

    A run that goes on from `step` drops what an earlier process logged after that step; of that step itself it keeps
    the validation only if it is `validated`. A damaged line is dropped, and `warn(text)` told: the checkpoint, not the
    log, is what a run goes on from.
    """

    def __init__(self, run: Path, step: int, validated: int, warn: Callable[[str], None] = lambda text: None) -> None:
        path = run / "log.jsonl"
        if path.exists():
            lines = path.read_bytes().split(b"\n")[:-1]  # a line without its end was torn
            past = [_is_past(line, step, validated) for line in lines]
            for number, kept in enumerate(past, start=1):
                if kept is None:
                    warn(f"{path}: left out line {number}, which is damaged")
            write_atomically(path, b"".join(line + b"\n" for line, kept in zip(lines, past, strict=True) if kept))
        self._log = path.open("ab")
        self._speed = (run / "speed.jsonl").open("ab")

    def write(self, **entry: Any) -> None:
        """Add a line to log.jsonl."""
        self._append(self._log, entry)

    def write_speed(self, **entry: Any) -> None:
        """Add a line to speed.jsonl."""
        self._append(self._speed, entry)

    @staticmethod
    def _append(file: Any, entry: dict[str, Any]) -> None:
        try:
            file.write(json.dumps(entry, ensure_ascii=False, allow_nan=False).encode() + b"\n")
            file.flush()
        except OSError as error:  # a full disk, of which Python doesn't say where
            raise OSError(error.errno, error.strerror, file.name) from None

    def sync(self) -> None:
        """Make sure that a checkpoint written next never knows of more than log.jsonl on the disk."""
        os.fsync(self._log.fileno())

    def close(self) -> None:
        """Close both files."""
        self._log.close()
        self._speed.close()


def _is_past(line: bytes, step: int, validated: int) -> bool | None:
    """Return whether a line is from before; None if it is damaged."""
    try:
        entry = json.loads(line)
        return bool(entry["step"] <= (validated if entry["kind"] == "valid" else step))
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


class Display:
    """Progress on standard error: a bar on a terminal, elsewhere a line every ten seconds.

    Where nobody reads it any more (`2>&1 | head -1`, a closed terminal) it is quiet: training goes on without it.
    """

    SECONDS = 10.0

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = sys.stderr if stream is None else stream
        self._bar: Any = None
        self._recent: deque[tuple[float, int, float]] = deque(maxlen=50)  # (sum of losses, tokens, seconds) a step
        self._shown = time.monotonic()

    def begin(self, step: int, total: int) -> None:
        """Show that training begins after `step` of about `total` steps."""
        self.total = total
        if self.stream.isatty():
            from tqdm import tqdm

            self._separator = " · " if "utf" in (self.stream.encoding or "").lower() else ", "
            layout = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}, {remaining} left{postfix}]"
            self._bar = tqdm(
                initial=step, total=total, file=self.stream, dynamic_ncols=True, bar_format=layout, leave=False
            )

    def step(self, step: int, loss: float, tokens: int, learning_rate: float, seconds: float) -> None:
        """Count a step."""
        self._recent.append((loss * tokens, tokens, seconds))
        if self._bar is not None:
            self._try(self._update_bar, step, learning_rate)
        elif time.monotonic() - self._shown > self.SECONDS:
            self._shown = time.monotonic()
            seconds_left = max(self.total - step, 0) * self._mean_seconds()
            self.line(f"step {step}/{max(self.total, step)}  {self._state(learning_rate)}  {_clock(seconds_left)} left")

    def line(self, text: str) -> None:
        """Show a line, above the bar if there is one."""
        if self._bar is not None:
            self._try(lambda: self._bar.write(text, file=self.stream))
        else:
            self._try(lambda: print(text, file=self.stream, flush=True))

    def end(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._try(self._bar.close)
            self._bar = None

    def _try(self, show: Callable[..., Any], *arguments: Any) -> None:
        try:
            show(*arguments)
        except OSError:  # BrokenPipeError, or a terminal that is gone
            if self._bar is not None:
                self._bar.disable = True  # or it would write once more when it is collected
            silence(self.stream)
            self._bar, self.stream = None, open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115

    def _update_bar(self, step: int, learning_rate: float) -> None:
        self._bar.update(step - self._bar.n)
        if time.monotonic() - self._shown > 0.2:
            self._shown = time.monotonic()
            loss, speed = self._means()  # short, so that the bar has room in 80 columns
            short = f"{speed / 1000:.1f}k" if speed < 99_950 else f"{speed / 1000:.0f}k"
            parts = [f"loss {loss:.2f}", f"{short} tok/s", f"lr {_rate(learning_rate)}"]
            self._bar.set_postfix_str(self._separator.join(parts))

    def _state(self, learning_rate: float) -> str:
        loss, speed = self._means()
        return f"loss {loss:.3f}  {speed:,.0f} tokens/s  learning rate {learning_rate:.2g}"

    def _means(self) -> tuple[float, float]:
        """Return the mean loss of a token, and tokens a second, over the latest steps."""
        losses, tokens, seconds = (sum(column) for column in zip(*self._recent, strict=True))
        return losses / max(tokens, 1), tokens / max(seconds, 1e-9)

    def _mean_seconds(self) -> float:
        return sum(seconds for _, _, seconds in self._recent) / max(len(self._recent), 1)


def bar(what: str, total: int) -> Any:
    """Return a tqdm bar for a while of waiting, to be used in `with`; it shows on a terminal alone."""
    from tqdm import tqdm

    return tqdm(desc=what, total=total, file=sys.stderr, leave=False, disable=None, dynamic_ncols=True)


def _rate(rate: float) -> str:
    """Return 0.0009 as 9e-4."""
    digits, _, exponent = f"{rate:.1e}".partition("e")
    return f"{digits.removesuffix('.0')}e{int(exponent)}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
