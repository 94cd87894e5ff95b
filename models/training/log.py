"""A run's two log files, and the interface through which training shows its progress."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from models.system.limits import LARGEST
from tensorlib.exchange.safetensors import write_atomically

__all__ = ["ProgressDisplay", "RunLog", "read_log"]

LOG = "log.jsonl"

LARGEST_LOSS = 1e40  # above every float32; pictures of numbers near the largest float64 fail


class ProgressDisplay(Protocol):
    """The interface through which training shows its progress; the command line implements it in `Display`."""

    def begin(self, step: int, total: int) -> None:
        """Show that training begins, with `step` of about `total` steps already taken."""

    def step(self, step: int, loss: float, tokens: int, learning_rate: float, seconds: float) -> None:
        """Show the result of a step."""

    def line(self, text: str) -> None:
        """Show a line of text."""

    def end(self) -> None:
        """Remove what is shown only during training."""


class RunLog:
    """Two files with one JSON object per line: `log.jsonl`, equal for equal runs, and `speed.jsonl`, which differs.

    When a run resumes from `step`, log.jsonl loses its entries after that step, and its validations after step
    `validated`. A damaged line is dropped with a call of `warn(text)`, because a run resumes without reading its log.
    `last_loss` is the loss in the latest entry that has one, or 0.
    """

    def __init__(self, run: Path, step: int, validated: int, warn: Callable[[str], None]) -> None:
        path, self.last_loss = run / LOG, 0.0
        if path.exists():
            lines = path.read_bytes().split(b"\n")[:-1]  # without an incomplete last line
            past = [_is_past(line, step, validated) for line in lines]
            for number, kept in enumerate(past, start=1):
                if kept is None:
                    warn(f"{path}: left out line {number}, which is damaged")
            lines = [line for line, kept in zip(lines, past, strict=True) if kept]
            self.last_loss = next((e["loss"] for e in map(json.loads, reversed(lines)) if "loss" in e), 0.0)
            write_atomically(path, b"".join(line + b"\n" for line in lines))
        self._log = path.open("ab")
        self._speed = (run / "speed.jsonl").open("ab")

    def write(self, **entry: Any) -> None:
        """Append a line to log.jsonl."""
        self._append(self._log, entry)

    def write_speed(self, **entry: Any) -> None:
        """Append a line to speed.jsonl."""
        self._append(self._speed, entry)

    @staticmethod
    def _append(file: BinaryIO, entry: dict[str, Any]) -> None:
        try:
            file.write(json.dumps(entry, ensure_ascii=False, allow_nan=False).encode() + b"\n")
            file.flush()
        except OSError as error:  # such as a full disk; Python's error lacks the file name
            raise OSError(error.errno, error.strerror, file.name) from None

    def sync(self) -> None:
        """Force log.jsonl to disk, so that it is never behind a checkpoint written after this call."""
        os.fsync(self._log.fileno())

    def close(self) -> None:
        """Close both files."""
        self._log.close()
        self._speed.close()


def read_log(run: Path) -> Iterator[dict[str, Any]]:
    """Yield the entries of a run's log.jsonl, without damaged lines; none if there is no such file."""
    try:
        lines = (run / LOG).read_bytes().split(b"\n")
    except FileNotFoundError:
        return
    for line in lines:
        if _is_past(line, math.inf, math.inf):
            yield json.loads(line)


def _is_past(line: bytes, step: float, validated: float) -> bool | None:
    """Return whether a line's step is at most `step` (of a validation: at most `validated`); None if it is damaged."""
    try:
        entry = json.loads(line)
        if not _is_entry(entry):
            return None
        return bool(entry["step"] <= (validated if entry["kind"] == "valid" else step))
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _is_entry(entry: dict[str, Any]) -> bool:
    """Return whether the values that the pictures of a run are made from have the types and ranges of `write`'s."""
    counts, numbers, texts = [entry["step"]], [], []
    if entry["kind"] == "train":
        counts.append(entry["tokens"])
        numbers.append(entry["loss"])
    elif entry["kind"] == "valid":
        numbers += [entry["loss"], entry.get("bleu", 0.0)]
        texts = [sample[side] for sample in entry["samples"] for side in ("source", "reference", "output")]
    return (
        entry["kind"] in ("train", "valid", "skipped")
        and all(type(n) is int and 0 < n <= LARGEST for n in counts)
        and all(type(n) in (int, float) and abs(n) < LARGEST_LOSS for n in numbers)
        and all(isinstance(text, str) for text in texts)
    )
