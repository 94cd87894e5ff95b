"""What a run tells while it goes: its two logs, and the bar or the lines that a person watches."""

from __future__ import annotations

import json
import os
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any, TextIO

from tensorlib.io import write_atomically

__all__ = ["Display", "RunLog"]


class RunLog:
    """`log.jsonl`, what two equal runs share, and `speed.jsonl`, what they don't: one JSON object a line.

    A run that goes on from `step` drops what an earlier process logged after that step; of that step itself it keeps
    the validation only if it is `validated`.
    """

    def __init__(self, run: Path, step: int, validated: int) -> None:
        path = run / "log.jsonl"
        if path.exists():
            lines = path.read_bytes().split(b"\n")[:-1]  # a line without its end was torn
            write_atomically(path, b"".join(line + b"\n" for line in lines if _is_past(line, step, validated)))
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
        file.write(json.dumps(entry, ensure_ascii=False, allow_nan=False).encode() + b"\n")
        file.flush()

    def sync(self) -> None:
        """Make sure that a checkpoint written next never knows of more than log.jsonl on the disk."""
        os.fsync(self._log.fileno())

    def close(self) -> None:
        """Close both files."""
        self._log.close()
        self._speed.close()


def _is_past(line: bytes, step: int, validated: int) -> bool:
    entry = json.loads(line)
    return entry["step"] <= (validated if entry["kind"] == "valid" else step)


class Display:
    """Progress on standard error: a bar on a terminal, elsewhere a line every ten seconds."""

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

            layout = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}, {remaining} left{postfix}]"
            self._bar = tqdm(
                initial=step, total=total, file=self.stream, dynamic_ncols=True, bar_format=layout, leave=False
            )

    def step(self, step: int, loss: float, tokens: int, learning_rate: float, seconds: float) -> None:
        """Count a step."""
        self._recent.append((loss * tokens, tokens, seconds))
        if self._bar is not None:
            self._bar.update(step - self._bar.n)
            if time.monotonic() - self._shown > 0.2:
                self._shown = time.monotonic()
                self._bar.set_postfix_str(self._state(learning_rate))
        elif time.monotonic() - self._shown > self.SECONDS:
            self._shown = time.monotonic()
            seconds_left = max(self.total - step, 0) * self._mean_seconds()
            self.line(f"step {step}/{self.total}  {self._state(learning_rate)}  {_clock(seconds_left)} left")

    def line(self, text: str) -> None:
        """Show a line, above the bar if there is one."""
        if self._bar is not None:
            self._bar.write(text, file=self.stream)
        else:
            print(text, file=self.stream, flush=True)

    def end(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _state(self, learning_rate: float) -> str:
        losses, tokens, seconds = (sum(column) for column in zip(*self._recent, strict=True))
        speed = f"{tokens / max(seconds, 1e-9):,.0f} tokens/s"
        return f"loss {losses / max(tokens, 1):.3f}  {speed}  learning rate {learning_rate:.2g}"

    def _mean_seconds(self) -> float:
        return sum(seconds for _, _, seconds in self._recent) / max(len(self._recent), 1)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
