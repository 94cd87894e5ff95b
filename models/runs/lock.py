"""One process at a time writes in a run's directory. Reading needs no lock: files are replaced, never changed.

The process that trains a run has `train.lock` locked. The system releases that lock when the process ends, so a killed
one blocks nobody. Its name is in `writer.json`, which it removes at its end; what a killed one left is taken over.
"""

from __future__ import annotations

import json
import os
import platform
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from models.system.errors import UserError
from models.system.locking import LocksUnsupported, locked_file
from models.system.terminal import printable
from tensorlib.exchange.safetensors import write_atomically

__all__ = ["LOCK", "WRITER", "RunLock"]

LOCK, WRITER = "train.lock", "writer.json"


class RunLock:
    """The right to write in a run's directory, until `release` or the end of the process.

    `taken_over` says from which killed process the run was taken over, if from any. Errors: `UserError` naming the
    process that has the right, on this computer or another.
    """

    def __init__(self, run: Path) -> None:
        self._writer, self.taken_over = run / WRITER, ""
        known = True  # whether a process that has the run open would be noticed
        try:
            self._file = locked_file(run / LOCK)
            if self._file is None:
                raise UserError(f"{_in_use(run, _read(self._writer))}; wait until it ends, or stop it")
        except LocksUnsupported:
            self._file, known = None, False
        try:
            self._record(run, known)
        except BaseException:
            if self._file:
                self._file.close()
            raise
        self._held = True

    def _record(self, run: Path, known: bool) -> None:
        """Write who trains the run, unless a process that may be alive trains it."""
        host = platform.node()
        if before := _read(self._writer):
            if not known or before["host"] != host:  # locks of another computer may be invisible here
                raise UserError(f"{_in_use(run, before)}; if that process has ended, remove {self._writer}")
            self.taken_over = printable(f"{run}: taken over from {_named(before)}, which did not end by itself")
        since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
        record = {"process": os.getpid(), "host": host, "since": since}
        write_atomically(self._writer, json.dumps(record, ensure_ascii=False).encode() + b"\n")

    def release(self) -> None:
        """Let other processes write in the directory."""
        if not self._held:
            return
        self._held = False
        with suppress(OSError):  # such as a directory that was removed meanwhile
            self._writer.unlink()
        if self._file:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.release()


def _read(writer: Path) -> dict[str, Any] | None:
    """Return the record of a run's writer, or None if there is no readable one."""
    try:
        record = json.loads(writer.read_bytes())
        return {name: record[name] for name in ("process", "host", "since")}
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def _named(record: dict[str, Any]) -> str:
    return f"process {record['process']} on {record['host']} since {record['since']}"


def _in_use(run: Path, record: dict[str, Any] | None) -> str:
    return f"run {run}: one process at a time may train it; in use by {_named(record) if record else 'another process'}"
